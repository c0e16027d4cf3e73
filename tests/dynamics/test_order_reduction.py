"""POD-DEIM against the full field, its own bounds and the plain Galerkin projection."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from resolvent.dynamics import odeint
from resolvent.dynamics._layered import Drive, LayeredField, layered
from resolvent.dynamics._order_reduction import (
    Projected,
    deim,
    energetic,
    interpolation,
    oversampled,
    pod,
    qdeim,
    reduced,
)
from resolvent.dynamics._reduction_error import abscissa, error_indicator, jacobians_of, logarithmic_norm, residual
from resolvent.dynamics._thinning import pruned, truncated
from torch import Tensor, nn

ZERO = torch.zeros((), dtype=torch.float64)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=generator(seed), dtype=torch.float64)


def circular(inputs: int, outputs: int, width: int = 3) -> nn.Conv1d:
    return nn.Conv1d(inputs, outputs, width, padding=width // 2, padding_mode="circular")


def dense_field(size: int = 6, hidden: int = 9) -> LayeredField:
    torch.manual_seed(0)
    maps = [nn.Linear(size, hidden), nn.Linear(hidden, hidden), nn.Linear(hidden, size)]
    return LayeredField(maps, [nn.Tanh(), nn.GELU()], bypass=nn.Linear(size, size)).double()


def wave_field(nodes: int = 32, channels: int = 4) -> LayeredField:
    """A convolutional field on a periodic line; with diffusion in the bypass."""
    torch.manual_seed(1)
    diffusion = circular(1, 1)
    with torch.no_grad():
        diffusion.weight.copy_(torch.tensor([[[1.0, -2.0, 1.0]]]))
        diffusion.bias.zero_()
    return LayeredField([circular(1, channels), circular(channels, 1)], [nn.Tanh()], bypass=diffusion).double()


def waves(count: int, nodes: int = 32, highest: int = 2, seed: int = 0) -> Tensor:
    """Smooth periodic states: 2 * highest + 1 coefficients each."""
    x = torch.arange(nodes, dtype=torch.float64) * 2 * math.pi / nodes
    rows = [torch.ones_like(x)] + [part(k * x) for k in range(1, highest + 1) for part in (torch.sin, torch.cos)]
    return (normal(count, len(rows), seed=seed) @ torch.stack(rows))[:, None]


# ---------------------------------------------------------------------- bases


def test_energy_decides_how_many_modes_are_kept() -> None:
    values = torch.tensor([3.0, 2.0, 1.0, 0.0], dtype=torch.float64)  # energies 9, 4, 1, 0 of 14
    assert [energetic(values, lost) for lost in (0.9, 5 / 14 + 1e-12, 5 / 14 - 1e-12, 1 / 14, 0.05, 0.0)] == [
        1, 1, 2, 2, 3, 3,
    ]  # fmt: skip


def test_a_basis_spans_its_snapshots_and_says_what_it_loses() -> None:
    snapshots = normal(50, 3) @ normal(3, 12, seed=1) + 5.0
    basis = pod(snapshots, lost=1e-12)
    assert basis.vectors.shape == (12, 3)
    centred = snapshots - basis.mean
    torch.testing.assert_close(centred @ basis.vectors @ basis.vectors.T, centred, rtol=0, atol=1e-12)
    short = pod(snapshots, modes=2)
    missed = centred - centred @ short.vectors @ short.vectors.T
    assert short.lost == pytest.approx(float(missed.square().sum() / centred.square().sum()), rel=1e-10)


def test_a_basis_refuses_more_modes_than_snapshots_give() -> None:
    with pytest.raises(ValueError, match="1 to 4 modes, not 5"):
        pod(normal(4, 12), modes=5)
    with pytest.raises(ValueError, match="share"):
        pod(normal(4, 12), lost=1.5)


# ---------------------------------------------------------------------- interpolation


@pytest.mark.parametrize("selection", ["deim", "qdeim"])
@pytest.mark.parametrize("oversample", [1.0, 1.7])
def test_interpolation_is_exact_on_its_span_and_within_its_bound_elsewhere(selection: str, oversample: float) -> None:
    snapshots = normal(60, 5) @ normal(5, 20, seed=1) + 0.01 * normal(60, 20, seed=2) + 1.0
    found = interpolation(pod(snapshots, modes=5), selection=selection, oversample=oversample)
    assert len(found.rows) == len(set(found.rows.tolist())) == round(5 * oversample)
    inside = found.basis.mean + normal(7, 5, seed=3) @ found.basis.vectors.T
    torch.testing.assert_close(found(inside), inside, rtol=0, atol=1e-11)
    others = normal(40, 20, seed=4)
    errors = (found(others) - others).norm(dim=1)
    assert bool((errors <= found.bound(others) * (1 + 1e-12)).all())
    if oversample == 1:  # as many rows as modes: what is known is kept
        torch.testing.assert_close(found(others)[:, found.rows], others[:, found.rows], rtol=0, atol=1e-11)


def test_deim_rows_are_those_of_the_definition() -> None:
    """Row by row: the residual of the next mode, interpolated on the rows so far, is largest at the new row."""
    vectors = np.linalg.qr(normal(15, 4).numpy())[0]
    rows = deim(vectors)
    for count in range(1, 4):
        part = vectors[:, :count]
        residual_ = vectors[:, count] - part @ np.linalg.solve(part[rows[:count]], vectors[rows[:count], count])
        assert np.abs(residual_).argmax() == rows[count]
        assert np.abs(residual_[rows[:count]]).max() < 1e-12


def constant(vectors: np.ndarray, rows: list[int]) -> float:
    return float(np.linalg.norm(np.linalg.pinv(vectors[rows]), 2))


def test_pivoted_rows_have_the_smaller_constant_on_average_and_more_rows_a_smaller_one_still() -> None:
    constants = []
    for seed in range(20):
        vectors = np.linalg.qr(normal(40, 8, seed=seed).numpy())[0]
        rows = qdeim(vectors)
        more = oversampled(vectors, rows, 16)
        drawn = np.random.default_rng(seed).permutation([i for i in range(40) if i not in rows])[:8].tolist()
        sets = (deim(vectors), rows, rows + drawn, more)
        constants.append([constant(vectors, each) for each in sets])
    greedy, pivoted, random, chosen = np.mean(constants, axis=0)
    assert chosen < random < pivoted < greedy


# ---------------------------------------------------------------------- the reduced field


def test_nothing_left_out_is_the_full_field() -> None:
    """k = n and m = all hidden entries: equal to rounding (1e-12), whatever the layers."""
    field = dense_field()
    states = normal(40, 6)
    small = reduced(field, states, modes=6, points=9)
    assert (small.modes, small.activations) == (6, 18)
    probe = normal(5, 6, seed=7)
    rate = small(ZERO, small.encode(probe)) @ small.vectors.T
    torch.testing.assert_close(rate, field(ZERO, probe), rtol=0, atol=1e-12)
    torch.testing.assert_close(small.decode(small.encode(probe)), probe, rtol=0, atol=1e-12)


def test_convolutions_and_fields_of_any_shape_reduce_like_dense_layers() -> None:
    """On the span of the states, with as many hidden modes as the functions' values have: Galerkin to 1e-9."""
    field, states = wave_field(), waves(400)
    small = reduced(field, states, lost=1e-20, hidden_lost=1e-24)
    assert small.modes == 5
    galerkin = Projected(field, small.basis, small.shape)
    z = small.encode(waves(6, seed=5))
    torch.testing.assert_close(small(ZERO, z), galerkin(ZERO, z), rtol=1e-8, atol=1e-8)
    assert small.decode(z).shape == (6, 1, 32)


@pytest.mark.parametrize("field", [dense_field(), wave_field()], ids=["dense", "convolutional"])
def test_small_layers_are_the_full_ones_with_every_function_interpolated(field: LayeredField) -> None:
    """The slow twin: full maps, functions everywhere, each replaced by what its interpolation makes of it."""
    states = normal(60, 6) if isinstance(field.maps[0], nn.Linear) else waves(60)
    small = reduced(field, states, modes=3, points=4, oversample=1.5)
    z = normal(5, 3, seed=9)
    values = whole = small.decode(z)
    for affine, function, each in zip(field.maps, field.functions, small.interpolations, strict=False):
        full = function(affine(values))
        values = each(full.flatten(1)).view(full.shape)
        assert float((values - full).norm()) > 1e-3 * float(full.norm())
    rate = field.maps[-1](values) + field.bypass(whole)
    torch.testing.assert_close(small(ZERO, z), rate.flatten(1) @ small.vectors, rtol=1e-10, atol=1e-10)


def test_fewer_points_cost_accuracy_and_the_cost_is_what_is_said() -> None:
    field, states = wave_field(), waves(400)
    held = waves(50, seed=9)
    full = Projected(field, pod(states.flatten(1), lost=1e-20), states.shape[1:]).requires_grad_(False)
    errors = []
    for points in (2, 6, 20, 60):
        small = reduced(field, states, lost=1e-20, points=points, oversample=1.5)
        assert small.activations == round(1.5 * points)
        assert next(tuple(p.shape) for p in small.layers.parameters()) == (small.activations, small.modes)
        z = small.encode(held)
        missed = small(ZERO, z) - full(ZERO, z)
        errors.append(float(missed.detach().norm() / full(ZERO, z).norm()))
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 1e-3 * errors[0]


def test_an_input_signal_is_projected() -> None:
    field = dense_field()
    drive = Drive(normal(6, 2, seed=3), lambda t: torch.stack([torch.sin(t), torch.cos(t)]))
    driven = LayeredField(list(field.maps), list(field.functions), bypass=field.bypass, drive=drive)
    states = normal(40, 6)
    time = torch.tensor(0.7, dtype=torch.float64)
    small = reduced(driven, states, modes=3, points=9)
    z = normal(4, 3, seed=5)
    torch.testing.assert_close(small(time, z), Projected(driven, small.basis, small.shape)(time, z), rtol=0, atol=1e-12)
    assert float((driven(time, states) - field(time, states)).abs().min()) > 0


def test_a_reduced_field_is_a_network_that_can_be_trained() -> None:
    field, states = wave_field(), waves(200)
    small = reduced(field, states, modes=5, points=4)
    z = small.encode(states)
    target = Projected(field, small.basis, small.shape)(ZERO, z).detach()
    optimizer = torch.optim.Adam(small.parameters(), lr=1e-2)
    losses = []
    for _ in range(60):
        loss = (small(ZERO, z) - target).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss))
    assert losses[-1] < 0.5 * losses[0]


def test_reduced_trajectories_follow_full_ones_and_need_fewer_evaluations() -> None:
    """Errors measured in one norm: the RMS over 32 nodes is sqrt(k / 32) times that over k coordinates.

    Diffusion limits the full field's steps to 3.5 / 4; short waves are not in the span, so the reduced one's are longer.
    """
    field, times = wave_field(), torch.linspace(0, 40, 21, dtype=torch.float64)
    with torch.no_grad():
        paths = odeint(field, waves(40), times, rtol=0, atol=1e-7).states
        small = reduced(field, paths.flatten(0, 1), lost=1e-8)
        start, loose = waves(8, seed=11), 1e-3
        full = odeint(field, start, times, rtol=0, atol=loose)
        short = odeint(small, small.encode(start), times, rtol=0, atol=loose * (32 / small.modes) ** 0.5)
    error = (small.decode(short.states) - full.states).norm() / full.states.norm()
    assert float(error) < 5e-3
    assert small.modes < 16
    assert int(short.counts.evaluations[0]) < int(full.counts.evaluations[0])


# ---------------------------------------------------------------------- errors


def linear_field(size: int = 10) -> LayeredField:
    layer = nn.Linear(size, size).double()
    with torch.no_grad():
        layer.weight.copy_(0.3 * normal(size, size, seed=2) - torch.eye(size, dtype=torch.float64))
        layer.bias.copy_(normal(size, seed=3))
    return LayeredField([layer], [])


def test_the_indicator_bounds_the_error_of_an_affine_field() -> None:
    """There it is a theorem; 400 times, so that linear interpolation of the residual does not matter."""
    field, times = linear_field(), torch.linspace(0, 3, 401, dtype=torch.float64)
    start = normal(5, 10, seed=4)
    with torch.no_grad():
        full = odeint(field, start, times, rtol=1e-10, atol=1e-12).states
        small = reduced(field, full.flatten(0, 1), modes=4)
        path = odeint(small, small.encode(start), times, rtol=1e-10, atol=1e-12).states
    errors = (small.decode(path) - full).norm(dim=2)
    told = error_indicator(field, small, times, path, start, growth="full")
    assert bool((errors <= told * (1 + 1e-3) + 1e-9).all())
    assert bool((told[:, -1] < 50 * errors[:, -1]).all())  # and is not a bound of anything whatever
    torch.testing.assert_close(told[:, 0], errors[:, 0], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("rate", [0.5, -0.5])
def test_what_is_not_represented_grows_in_the_indicator_as_it_does(rate: float) -> None:
    """u' = a u in the plane, reduced to the first axis: no residual, and the second unknown is the error, b exp(a t)."""
    field = LayeredField([nn.Linear(2, 2).double()], [])
    with torch.no_grad():
        field.maps[0].weight.copy_(rate * torch.eye(2))
        field.maps[0].bias.zero_()
    along = normal(9, 1) * torch.tensor([[1.0, 0.0]], dtype=torch.float64)
    small = reduced(field, along, modes=1, centre=False)
    times, start = torch.linspace(0, 2, 9, dtype=torch.float64), torch.tensor([[1.0, 0.3]], dtype=torch.float64)
    path = small.encode(start)[:, None] * torch.exp(rate * times)[:, None]
    told = error_indicator(field, small, times, path, start, growth="full")
    torch.testing.assert_close(told[0], 0.3 * torch.exp(rate * times), rtol=1e-9, atol=1e-12)


def test_the_indicator_ranks_reductions_as_their_errors_do() -> None:
    field, times = wave_field(), torch.linspace(0, 1, 41, dtype=torch.float64)
    with torch.no_grad():
        paths = odeint(field, waves(60), times, rtol=1e-8, atol=1e-10).states
        full = odeint(field, waves(6, seed=11), times, rtol=1e-8, atol=1e-10).states
        told, errors = [], []
        for lost in (1e-3, 1e-5, 1e-7):
            small = reduced(field, paths.flatten(0, 1), lost=lost)
            path = odeint(small, small.encode(full[:, 0]), times, rtol=1e-8, atol=1e-10).states
            told.append(float(error_indicator(field, small, times, path, full[:, 0])[:, -1].mean()))
            errors.append(float((small.decode(path) - full)[:, -1].flatten(1).norm(dim=1).mean()))
    assert told == sorted(told, reverse=True)
    assert all(0.2 < a / b < 30 for a, b in zip(told, errors, strict=True)), (told, errors)


def test_a_residual_is_what_the_full_field_says_against_the_reduced_one() -> None:
    field, states = wave_field(), waves(100)
    small = reduced(field, states, modes=3, points=5)
    z = small.encode(states[:2])
    by_hand = field(ZERO, small.decode(z)).flatten(1) - small(ZERO, z) @ small.vectors.T
    got = residual(field, small, torch.zeros(1, dtype=torch.float64), z[:, None])
    torch.testing.assert_close(got[:, 0], by_hand.norm(dim=1), rtol=1e-10, atol=1e-12)


def test_growth_and_stability_are_those_of_the_matrix() -> None:
    """A shear [[-1, 10], [0, -1]] is stable (abscissa -1), though neighbours may part at rate 4."""
    field = LayeredField([nn.Linear(2, 2, bias=False).double()], [])
    with torch.no_grad():
        field.maps[0].weight.copy_(torch.tensor([[-1.0, 10.0], [0.0, -1.0]]))
    states = normal(3, 2)
    torch.testing.assert_close(jacobians_of(field, ZERO, states)[0], field.maps[0].weight.detach())
    torch.testing.assert_close(abscissa(field, ZERO, states), torch.full((3,), -1.0, dtype=torch.float64))
    torch.testing.assert_close(logarithmic_norm(field, ZERO, states), torch.full((3,), 4.0, dtype=torch.float64))


# ---------------------------------------------------------------------- structure


def test_the_structure_of_a_sequential_is_found() -> None:
    modules = nn.Sequential(
        nn.CircularPad1d(1), nn.Conv1d(1, 4, 3), nn.Tanh(), circular(4, 4), nn.ReLU(), nn.SiLU(), circular(4, 1)
    ).double()
    states = waves(5)
    field = layered(modules, states)
    assert (len(field.maps), len(field.functions)) == (3, 2)
    torch.testing.assert_close(field(ZERO, states), modules(states))


@pytest.mark.parametrize(
    ("modules", "reason"),
    [
        ((nn.Linear(6, 6), nn.LayerNorm(6), nn.Linear(6, 6)), "one entry changes"),
        ((nn.Linear(6, 6), nn.Softmax(dim=1), nn.Linear(6, 6)), "one entry changes"),
        ((nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 5)), "rate"),
        ((nn.Linear(6, 6), nn.GLU(), nn.Linear(3, 6)), "changes shape"),
    ],
    ids=["norm", "softmax", "shape", "gate"],
)
def test_what_cannot_be_interpolated_is_refused(modules: tuple[nn.Module, ...], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        layered(nn.Sequential(*modules).double(), normal(5, 6))


def test_a_function_that_differs_from_channel_to_channel_is_refused() -> None:
    slopes = nn.PReLU(4).double()
    with torch.no_grad():
        slopes.weight.copy_(torch.tensor([0.1, 0.2, 0.3, 0.4]))
    with pytest.raises(ValueError, match="PReLU"):
        layered(nn.Sequential(circular(1, 4).double(), slopes, circular(4, 1).double()), waves(5))


# ---------------------------------------------------------------------- rivals


@pytest.mark.parametrize("field", [dense_field(), wave_field()], ids=["dense", "convolutional"])
def test_nothing_truncated_and_nothing_pruned_is_the_full_field(field: LayeredField) -> None:
    states = normal(20, 6) if isinstance(field.maps[0], nn.Linear) else waves(20)
    for made in (truncated(field, 1.0), pruned(field, 1.0, states)):
        torch.testing.assert_close(made(ZERO, states), field(ZERO, states), rtol=0, atol=1e-12)


def test_truncation_is_exact_for_weights_of_low_rank() -> None:
    field = dense_field(size=12, hidden=12)
    with torch.no_grad():
        for affine in field.maps:
            affine.weight.copy_(normal(12, 3, seed=1) @ normal(3, 12, seed=2))
    made = truncated(field, 0.25)
    torch.testing.assert_close(made(ZERO, normal(5, 12)), field(ZERO, normal(5, 12)), rtol=0, atol=1e-10)
    assert sum(p.numel() for p in made.maps.parameters()) < sum(p.numel() for p in field.maps.parameters())


def test_neurons_that_never_change_are_pruned_without_loss() -> None:
    """Half of the channels see nothing (zero weights, a bias): what they say is constant and goes into the next one."""
    field, states = wave_field(), waves(20)
    with torch.no_grad():
        field.maps[0].weight[:2] = 0.0
        field.maps[0].bias[:2] = 0.5
    made = pruned(field, 0.5, states)
    assert made.maps[0].weight.shape[0] == 2
    torch.testing.assert_close(made(ZERO, states), field(ZERO, states), rtol=0, atol=1e-12)
