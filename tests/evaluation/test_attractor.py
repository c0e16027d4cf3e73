"""Statistics of attractors against closed forms, and what is said of data whose dynamics are known."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from resolvent.data import Dataset
from resolvent.dynamics._al_rnn import Recurrence
from resolvent.dynamics._coordinates import Channels
from resolvent.dynamics.al_rnn import AlmostLinearRNN
from resolvent.evaluation.analysis import (
    analyse_attractor,
    analyse_koopman,
    analyse_symbols,
    halves,
    paths_of,
    rolled,
    summary,
)
from resolvent.evaluation.attractor import (
    agreement,
    largest_exponent,
    power_spectrum,
    spectrum_distance,
    spread_of_truth,
    state_space_distance,
)
from resolvent.pde import Channel, Grid, Signature, Solver
from resolvent.pde.heat import Heat
from resolvent.pde.lorenz import Lorenz
from torch import Tensor


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# ---------------------------------------------------------------------- distances


def test_a_path_is_at_distance_zero_from_itself() -> None:
    path = drawn(500, 3)
    assert state_space_distance(path, path) == pytest.approx(0.0, abs=1e-12)
    assert spectrum_distance(path, path) == pytest.approx(0.0, abs=1e-7)


def test_the_state_space_distance_is_the_divergence_of_the_histograms() -> None:
    """Two cells: the truth half and half, generated 1 to 3. KL = log(1/2 / 1/4) / 2 + log(1/2 / 3/4) / 2."""
    truth = torch.tensor([[0.0], [1.0]]).double().repeat(100, 1)
    generated = torch.tensor([[0.1], [0.9], [0.8], [0.7]]).double().repeat(50, 1)
    expected = 0.5 * math.log(2) + 0.5 * math.log(2 / 3)
    assert state_space_distance(generated, truth, bins=2) == pytest.approx(expected, abs=1e-6)


def test_what_leaves_the_box_counts_as_elsewhere() -> None:
    """Half of the points outside: the shares inside halve, KL = log 2."""
    truth = drawn(4000, 1)
    half = truth.clone()
    half[::2] = 7.0
    inside = truth.clone()
    inside[::2] = truth[1::2]
    outside = state_space_distance(half, truth, bins=4) - state_space_distance(inside, truth, bins=4)
    assert outside == pytest.approx(math.log(2), abs=1e-5)
    assert state_space_distance(torch.full_like(truth, math.nan), truth) == math.inf


def test_spectra_without_overlap_are_at_distance_one_and_the_mean_does_not_matter() -> None:
    t = torch.arange(4000, dtype=torch.float64)[:, None]
    slow, fast = torch.sin(2 * math.pi * t * 0.01), torch.sin(2 * math.pi * t * 0.2)
    assert spectrum_distance(slow, fast) > 0.99
    assert spectrum_distance(3 * slow + 5, slow) < 1e-6
    assert spectrum_distance(torch.full_like(slow, math.nan), slow) == 1.0
    power = power_spectrum(slow.numpy(), sigma=0)
    assert int(power[:, 0].argmax()) == 40  # 0.01 of 4000
    assert power.sum() == pytest.approx(1.0)


def test_the_spread_of_the_truth_shrinks_with_its_length() -> None:
    """Independent points: histograms of n points differ by about (cells - 1) / n nats."""
    means = []
    for length in (2000, 20_000):
        paths = torch.stack([drawn(length, 1, seed=i) for i in range(4)])
        spread = spread_of_truth(paths, lambda a, b: state_space_distance(a, b, bins=10))
        assert len(spread) == 12
        means.append(float(np.mean(spread)))
    assert means[0] == pytest.approx(9 / 2000, rel=0.6)
    assert means[1] == pytest.approx(9 / 20_000, rel=0.6)


def test_agreement_calls_the_truth_true_and_another_distribution_not() -> None:
    truths = torch.stack([drawn(3000, 1, seed=i) for i in range(4)])
    alike = torch.stack([drawn(3000, 1, seed=i + 10) for i in range(2)])
    other = alike**2
    assert all(each.mean < 1.3 * each.usual[1] for each in agreement(alike, truths))
    assert not agreement(other, truths)[0].within


def test_bad_input_is_refused(unchecked: None) -> None:
    paths = torch.stack([drawn(300, 1, seed=i) for i in range(2)])
    with pytest.raises(ValueError, match="one length"):
        agreement(paths[:, :50], paths)
    with pytest.raises(ValueError, match="at least two"):
        spread_of_truth(paths[:1])
    with pytest.raises(ValueError, match="too many cells"):
        state_space_distance(drawn(50, 5), drawn(50, 5))
    with pytest.raises(ValueError, match="one length"):
        spectrum_distance(paths[0, :50], paths[0])


class Doubling(Solver):
    """x -> a x mod 1 for one channel on a point: the exponent is log a wherever it starts."""

    def __init__(self, slope: float) -> None:
        self.slope = slope

    def __call__(self, inputs: Tensor, grid: Grid, times: object = None) -> Tensor:
        return (self.slope * inputs) % 1


def test_the_largest_exponent_of_a_known_map() -> None:
    state = drawn(3, 1)
    found = largest_exponent(Doubling(1.9), state, Grid(()), spacing=0.5, steps=2000, distance=1e-7)
    torch.testing.assert_close(found, torch.full((3,), math.log(1.9) / 0.5).double(), rtol=2e-2, atol=0)
    shrinking = largest_exponent(Doubling(0.5), state, Grid(()), spacing=1.0, steps=10, skip=0, distance=1e-3)
    torch.testing.assert_close(shrinking, torch.full((3,), math.log(0.5)).double(), rtol=1e-6, atol=0)


# ---------------------------------------------------------------------- analyses


def oscillators(count: int = 6, frames: int = 60, spacing: float = 0.1) -> Dataset:
    """Damped rotations (x, v): Koopman eigenvalues exp((-0.1 +- 2i) dt) and their products."""
    start = 2 * drawn(count, 2) - 1
    times = spacing * torch.arange(1, frames + 1, dtype=torch.float64)
    turn = torch.stack([torch.cos(2 * times), torch.sin(2 * times)])
    x = start[:, :1] * turn[0] + start[:, 1:] * turn[1]
    v = -start[:, :1] * turn[1] + start[:, 1:] * turn[0]
    outputs = torch.exp(-0.1 * times)[None, :, None] * torch.stack([x, v], dim=-1)
    channels = (Channel("x"), Channel("v"))
    return Dataset.from_tensors(
        start, outputs, grid=Grid(()), signature=Signature(channels, channels, frames, spacing), problem="rotation"
    )


def test_koopman_analysis_finds_and_verifies_a_damped_oscillator() -> None:
    told, figures = analyse_koopman(paths_of(oscillators()), features="polynomials", size=2, tolerance=1e-3)
    assert (told["features"], told["verified"]) == (6, 6)
    rates = {(round(e["growth_rate"], 3), round(abs(e["angular_frequency"]), 3)) for e in told["eigenvalues"]}
    assert rates == {(0.0, 0.0), (-0.1, 2.0), (-0.2, 4.0), (-0.2, 0.0)} or rates == {
        (-0.0, 0.0), (-0.1, 2.0), (-0.2, 4.0), (-0.2, 0.0),
    }  # fmt: skip
    assert set(figures) == {"spectrum", "eigenfunctions"}
    assert "verified" in summary(told)


def test_one_unknown_with_delays_is_enough() -> None:
    whole = paths_of(oscillators())
    half = type(whole)(whole.values[:, :, :1], ("x",), whole.spacing)
    told, _ = analyse_koopman(half, features="linear", delays=2, tolerance=1e-3)
    assert {round(abs(e["angular_frequency"]), 3) for e in told["eigenvalues"]} == {0.0, 2.0}
    assert told["verified"] == 3


def test_a_single_trajectory_is_cut_in_the_middle_of_its_time() -> None:
    one, other = halves(torch.arange(10.0)[None, :, None])
    assert one.flatten().tolist() == [0, 1, 2, 3, 4]
    assert other.flatten().tolist() == [5, 6, 7, 8, 9]


def test_several_trajectories_are_dealt_out_in_turn() -> None:
    one, other = halves(torch.arange(5.0)[:, None, None])
    assert (one.flatten().tolist(), other.flatten().tolist()) == ([0, 2, 4], [1, 3])


def test_fields_are_analysed_in_their_modes() -> None:
    """Heat on a circle: each wave decays at nu k^2, so do the modes; the mean stays."""
    problem = Heat(frames=20, spacing=0.1) if "frames" in Heat.__dataclass_fields__ else Heat()
    grid = problem.grid(32)
    inputs = problem.sample(12, grid, generator=torch.Generator().manual_seed(0))
    data = Dataset.from_tensors(
        inputs, problem.reference()(inputs, grid), grid=grid, signature=problem.signature, problem="heat"
    )
    paths = paths_of(data, components=3)
    assert paths.values.shape[2] == 3
    back = paths.of(data.trajectories(range(len(data))))
    torch.testing.assert_close(back, paths.values)
    with pytest.raises(ValueError, match="components"):
        paths_of(data, components=0)


def test_attractor_analysis_of_the_truth_against_itself() -> None:
    problem = Lorenz(frames=300)
    inputs = problem.sample(6, Grid(()), generator=torch.Generator().manual_seed(0))
    data = Dataset.from_tensors(
        inputs, problem.reference(tolerance=1e-6)(inputs, Grid(())), grid=Grid(()), signature=problem.signature
    )
    paths = paths_of(data)
    told, figures = analyse_attractor(paths, paths.values)
    assert told["state space"]["within"]
    assert told["spectrum"]["distance"] < told["spectrum"]["truth_95_percent"]
    assert set(figures) == {"attractor"}
    again = rolled(problem.reference(tolerance=1e-6), data)
    torch.testing.assert_close(again[:, :40], data.trajectories(range(6))[:, :40], rtol=1e-3, atol=1e-3)


def test_symbol_analysis_of_a_model_with_a_known_code() -> None:
    """A tent map in the observed unit of an AL-RNN: two regions, half of the time each, exponent log 2 a frame."""
    channel = (Channel("x"),)
    signature = Signature(channel, channel, 1, 0.5)
    start = torch.tensor([[0.123]])
    data = Dataset.from_tensors(start, start[:, None], grid=Grid(()), signature=signature)

    solver = AlmostLinearRNN(signature, Grid(()), Recurrence(1, 0, 1), Channels(1, ()))
    with torch.no_grad():
        solver.recurrence.diagonal.fill_(1.9)
        solver.recurrence.weight.fill_(-3.8)
        solver.recurrence.offset.fill_(1.0)
    told, figures = analyse_symbols(solver, data, steps=3000, skip=100, exponents=1, longest=4)
    assert told["regions"] == 2
    assert sorted(told["visited"]) == [0, 1]
    assert told["lyapunov_exponents_per_time"][0] == pytest.approx(math.log(1.9) / 0.5, rel=1e-5)
    assert all(point["real"] for point in told["fixed_points"])
    assert {cycle["frames"] for cycle in told["cycles"]} >= {2, 4}
    assert set(figures) == {"symbols"}
    with pytest.raises(ValueError, match="al_rnn"):
        analyse_symbols(Doubling(2.0), data)
