"""The Fourier neural operator: its published counts, its invariances, its resolution, and neuraloperator's weights."""

from __future__ import annotations

import math

import pytest
import torch
from resolvent.kernels.pointwise import channel_mlp_reference
from resolvent.operators._neuralop_weights import from_neuralop, neuralop_options, to_neuralop_state_dict
from resolvent.operators.fno import FNO, PRESETS, Pointwise, build, positions
from resolvent.pde.darcy import Darcy
from resolvent.pde.navier_stokes import NavierStokes
from resolvent.training import Recipe
from torch import Tensor
from torch.nn import functional as F


def count(network: torch.nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


def band_limited(size: int, *, channels: int = 1) -> Tensor:
    """A few modes below |k| = 3 on the unit torus, the same function at every resolution."""
    x = torch.arange(size, dtype=torch.float64)[:, None] / size
    y = x.t()
    fields = [
        torch.sin(2 * math.pi * (x + 2 * y)) + 0.5 * torch.cos(2 * math.pi * (2 * x - y + 0.1 * c)) + 0.3 * c
        for c in range(channels)
    ]
    return torch.stack(fields)[None]


def test_published_darcy_network_has_its_published_parameter_count():
    """4 * 2 * 12^2 * 32^2 spectral + 4 (32^2 + 32) skips + (3 * 32 + 32) P + (32 * 128 + 128) + (128 + 1) Q."""
    spectral = 4 * 2 * 12**2 * 32**2
    expected = spectral + 4 * (32**2 + 32) + (3 * 32 + 32) + (32 * 128 + 128) + (128 + 1)
    assert expected == 1_188_353
    assert count(FNO(1, 1, modes=24, width=32, layers=4, block="legacy")) == expected


def test_published_recurrent_navier_stokes_network_has_its_published_parameter_count():
    """Ten frames in, one out, modes 12, width 20: 465,557 (dossier 1.2)."""
    assert count(FNO(10, 1, modes=24, width=20, layers=4, block="legacy")) == 465_557


@pytest.mark.parametrize("block", ["modern", "legacy"])
def test_translation_equivariant_without_coordinates(block):
    torch.manual_seed(0)
    network = FNO(2, 3, modes=(6, 8), width=8, layers=2, block=block, coordinates=False).double()
    values = torch.randn(2, 2, 15, 18, dtype=torch.float64)
    moved = network(values.roll((4, 7), (2, 3)))
    torch.testing.assert_close(moved, network(values).roll((4, 7), (2, 3)), rtol=0, atol=1e-12)
    with_positions = FNO(2, 3, modes=(6, 8), width=8, layers=2, block=block).double()
    difference = with_positions(values.roll(4, 2)) - with_positions(values).roll(4, 2)
    assert float(difference.detach().abs().max()) > 1e-3


@pytest.mark.parametrize(("coarse", "fine", "stride"), [(64, 128, (1, 2)), (63, 126, (1, 2)), (64, 96, (2, 3))])
def test_the_same_function_at_another_resolution_gives_the_same_answer(coarse, fine, stride):
    """Inputs at the finer grid, frozen weights. What differs is aliasing of GELU, small on a smooth field."""
    torch.manual_seed(1)
    network = FNO(1, 1, modes=8, width=8, layers=2, coordinates=False).double()
    at_coarse, at_fine = network(band_limited(coarse)), network(band_limited(fine))
    difference = at_fine[..., :: stride[1], :: stride[1]] - at_coarse[..., :: stride[0], :: stride[0]]
    # measured below 1e-6 at 64 nodes; a spectrum shifted by one mode gives 0.1
    assert float(difference.detach().abs().max()) < 1e-5 * float(at_coarse.detach().abs().max())


@pytest.mark.parametrize("size", [12, 13])
def test_a_linear_network_is_exact_at_twice_the_resolution(size, monkeypatch):
    """Dossier check 1 through the whole network: with sigma = identity nothing aliases."""
    monkeypatch.setattr(F, "gelu", lambda values: values)
    monkeypatch.setattr("resolvent.operators.fno.channel_mlp", channel_mlp_reference)
    torch.manual_seed(2)
    network = FNO(2, 2, modes=7, width=6, layers=3, coordinates=False).double()
    at_once, at_twice = network(band_limited(size, channels=2)), network(band_limited(2 * size, channels=2))
    torch.testing.assert_close(at_twice[..., ::2, ::2], at_once, rtol=0, atol=1e-12)


@pytest.mark.parametrize("dim", [1, 2, 3])
def test_every_dimension_keeps_shape_and_uses_every_parameter(dim):
    torch.manual_seed(3)
    network = FNO(2, 3, dim=dim, modes=4, width=6, layers=2, padding=0.2)
    outputs = network(torch.randn(2, 2, *(9, 8, 10)[:dim]))
    assert outputs.shape == (2, 3, *(9, 8, 10)[:dim])
    outputs.square().sum().backward()
    unused = [name for name, p in network.named_parameters() if p.grad is None or not bool(p.grad.abs().sum() > 0)]
    assert unused == []


def test_padding_keeps_the_periodic_box_at_every_resolution():
    """Nodes at both ends: 61 and 121 nodes with share 0.1 become 66 and 132, both 1.1 domains long."""
    network = FNO(1, 1, dim=1, modes=8, padding=0.1, placements=["ends"])
    for size, extended in ((61, 66), (121, 132)):
        assert network._extend(torch.zeros(1, 1, size), (size,)).shape[-1] == extended
    centred = FNO(1, 1, dim=1, modes=8, padding=0.1, placements=["centres"])
    assert centred._extend(torch.zeros(1, 1, 60), (60,)).shape[-1] == 66


def test_positions_follow_the_placement_of_nodes():
    found = positions((4, 5), ("left", "ends"), torch.float64, torch.device("cpu"))
    torch.testing.assert_close(found[0, :, 0], torch.tensor([0, 0.25, 0.5, 0.75], dtype=torch.float64))
    torch.testing.assert_close(found[1, 0], torch.tensor([0, 0.25, 0.5, 0.75, 1.0], dtype=torch.float64))
    centres = positions((2,), ("centres",), torch.float64, torch.device("cpu"))
    torch.testing.assert_close(centres[0], torch.tensor([0.25, 0.75], dtype=torch.float64))


@pytest.mark.parametrize("bias", [True, False])
def test_pointwise_map_is_the_one_by_one_convolution(bias):
    torch.manual_seed(4)
    linear = Pointwise(3, 5, bias=bias).double()
    values, plus = torch.randn(2, 3, 4, 6, dtype=torch.float64), torch.randn(2, 5, 4, 6, dtype=torch.float64)
    gate = torch.randn(5, dtype=torch.float64)
    plain = F.conv2d(values, linear.weight[:, :, None, None], linear.bias)
    for got, expected in (
        (linear(values), plain),
        (linear(values, plus), plain + plus),
        (linear(values, plus, gate), plain + gate[:, None, None] * plus),
    ):
        torch.testing.assert_close(got, expected, rtol=0, atol=1e-13)


NEURALOP = {
    "1d": {"n_modes": (9,), "in_channels": 2, "out_channels": 1, "hidden_channels": 6},
    "2d": {"n_modes": (8, 10), "in_channels": 1, "out_channels": 2, "hidden_channels": 8},
    "2d odd modes": {"n_modes": (7, 7), "in_channels": 1, "out_channels": 1, "hidden_channels": 8, "n_layers": 2},
    "2d no positions": {
        "n_modes": (16, 16), "in_channels": 3, "out_channels": 1, "hidden_channels": 6,
        "positional_embedding": None, "lifting_channel_ratio": 3, "channel_mlp_expansion": 1,
    },
    "3d": {"n_modes": (4, 6, 4), "in_channels": 1, "out_channels": 1, "hidden_channels": 4, "n_layers": 2},
}  # fmt: skip


@pytest.mark.parametrize("options", NEURALOP.values(), ids=NEURALOP.keys())
def test_neuraloperator_weights_read_and_written_give_equal_outputs(options):
    from neuralop.models import FNO as Theirs

    torch.manual_seed(5)
    theirs = Theirs(**options)
    for p in theirs.parameters():  # gates start at one, which would hide a swap
        p.data += 0.1 * torch.randn_like(p)
    values = torch.randn(2, options["in_channels"], *(16, 18, 9)[: len(options["n_modes"])])
    expected = theirs(values)
    ours = from_neuralop(theirs)
    # single precision through four layers, outputs of order one
    tolerance = 1e-5 * max(1.0, float(expected.detach().abs().max()))
    torch.testing.assert_close(ours(values), expected, rtol=0, atol=tolerance)

    back = Theirs(**neuralop_options(ours))
    back.load_state_dict(to_neuralop_state_dict(ours))
    torch.testing.assert_close(back(values), expected, rtol=0, atol=tolerance)
    assert count(back) == count(theirs) == count(ours)


def test_neuraloperator_state_dict_without_metadata_is_read():
    from neuralop.models import FNO as Theirs

    theirs = Theirs(n_modes=(6, 6), in_channels=1, out_channels=1, hidden_channels=4, n_layers=1)
    tensors = {name: value for name, value in theirs.state_dict().items() if isinstance(value, Tensor)}
    values = torch.randn(1, 1, 12, 12)
    torch.testing.assert_close(from_neuralop(tensors)(values), theirs(values), rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"norm": "group_norm"}, "norm"),
        ({"domain_padding": 0.1}, "domain_padding"),
        ({"preactivation": True}, "preactivation"),
        ({"factorization": "tucker", "rank": 0.5}, "factorization"),
        ({"use_channel_mlp": False}, "channel_mlp"),
    ],
)
def test_neuraloperator_networks_of_another_kind_are_refused(options, named):
    from neuralop.models import FNO as Theirs

    theirs = Theirs(n_modes=(6, 6), in_channels=1, out_channels=1, hidden_channels=4, n_layers=1, **options)
    with pytest.raises(ValueError, match=named):
        from_neuralop(theirs)


def test_networks_that_neuraloperator_cannot_hold_are_refused():
    with pytest.raises(ValueError, match="legacy"):
        to_neuralop_state_dict(FNO(1, 1, modes=4, width=4, block="legacy"))
    with pytest.raises(ValueError, match="padding"):
        to_neuralop_state_dict(FNO(1, 1, modes=4, width=4, padding=0.1))


def test_build_pads_walls_only():
    darcy, flow = Darcy(), NavierStokes()
    walls = build(darcy, darcy.grid(21), modes=8, width=4, layers=1)
    torus = build(flow, flow.grid(16), modes=8, width=4, layers=1)
    assert all(share > 0 for share in walls.network.padding)
    assert set(walls.network.placements) == {"ends"}
    assert torus.network.padding == (0.0, 0.0)


def test_modes_beyond_the_grid_are_refused_when_built_and_when_asked():
    flow = NavierStokes()
    with pytest.raises(ValueError, match=r"smallest grid that works has 20 nodes .* --model.modes 16"):
        build(flow, flow.grid(16), modes=20)
    with pytest.raises(ValueError, match=r"smallest grid that works has 32 nodes"):
        build(flow, flow.grid(24), modes=16, recipe=Recipe(coarsen=2))
    with pytest.raises(ValueError, match="a grid of"):
        FNO(1, 1, modes=8, width=4, layers=1)(torch.zeros(1, 1, 6, 6))
    with pytest.raises(ValueError, match="even modes"):
        FNO(1, 1, modes=7, block="legacy")


@pytest.mark.parametrize("key", PRESETS)
def test_presets_name_options_that_exist(key):
    entry = PRESETS[key]
    for problem in (NavierStokes(), NavierStokes(viscosity=1e-4)) if key[1] == "navier_stokes" else (Darcy(),):
        preset = entry(problem) if callable(entry) else entry
        grid = problem.grid(problem.setups[key[0]].resolution)
        solver = build(problem, grid, **preset.model, recipe=Recipe(**preset.train))
        assert solver.parameter_count > 0
