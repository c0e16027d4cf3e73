"""The U-Net: any size, any dimension, boundary conditions in its padding, and shifts on the torus."""

from __future__ import annotations

import pytest
import torch
from resolvent.operators._multigrid import Padding
from resolvent.operators.unet import PRESETS, UNet, build, features, smallest_size
from resolvent.pde import Grid
from resolvent.pde.darcy import Darcy
from resolvent.pde.navier_stokes import NavierStokes
from resolvent.training import Recipe
from torch import Tensor

CIRCULAR: Padding = ("circular", "circular")


def network(padding: Padding, **options) -> UNet:
    torch.manual_seed(0)
    return UNet(1, 2, **{"width": 4, "levels": 2, "padding": padding, **options}).double().eval()


def fields(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("padding", [("circular",) * 3, ("zeros",) * 3, ("reflect", "circular", "replicate")])
@pytest.mark.parametrize("sizes", [(5,), (16,), (13, 10), (16, 11), (9, 8, 7)])
def test_every_size_and_dimension_keeps_its_shape(padding, sizes):
    unet = network(padding[: len(sizes)])
    outputs = unet(fields(2, 1, *sizes))
    assert outputs.shape == (2, 2, *sizes)
    outputs.square().sum().backward()
    unused = [name for name, p in unet.named_parameters() if p.grad is None or not bool(p.grad.abs().sum() > 0)]
    # a bias before a group norm over its own channels would be unused; there is none
    assert unused == []


def test_commutes_with_shifts_by_whole_coarse_cells_on_the_torus():
    unet = network(CIRCULAR, coordinates=False)
    values = fields(2, 1, 16, 12)
    for shift in ((4, 0), (8, 4)):
        moved = unet(values.roll(shift, (2, 3)))
        torch.testing.assert_close(moved, unet(values).roll(shift, (2, 3)), rtol=0, atol=1e-12)


def test_walls_and_positions_break_the_shift():
    for unet in (network(("zeros", "zeros"), coordinates=False), network(CIRCULAR)):
        values = fields(2, 1, 16, 12)
        difference = unet(values.roll(4, 2)) - unet(values).roll(4, 2)
        assert float(difference.detach().abs().max()) > 1e-3


def test_reflection_hides_the_walls_from_a_constant_field():
    """Constant inputs, one level, no positions: the outputs repeat with the period 2 of the transposed convolution."""
    values = torch.ones(1, 1, 16, 16, dtype=torch.float64)
    # groups of one constant channel have no variance: group norm magnifies rounding by up to 1e-5 ** -0.5
    unseen = network(("reflect", "reflect"), coordinates=False, levels=1)(values)
    seen = network(("zeros", "zeros"), coordinates=False, levels=1)(values)
    torch.testing.assert_close(unseen[..., ::2, ::2], unseen[..., :1, :1].expand(1, 2, 8, 8), rtol=0, atol=1e-10)
    assert float((seen[..., ::2, ::2] - seen[..., 8:9, 8:9]).detach().abs().max()) > 1e-3


def test_positions_are_periodic_where_the_grid_is():
    found = features((8, 5), ("circular", "reflect"), fields(1))
    assert found.shape == (3, 8, 5)
    torch.testing.assert_close(found[:2].square().sum(dim=0), torch.ones(8, 5, dtype=torch.float64))
    torch.testing.assert_close(found[2, 0], torch.linspace(-1, 1, 5, dtype=torch.float64))


def test_an_odd_axis_is_halved_with_its_neighbour():
    """0 1 2 3 4 becomes 0.5, 2.5 and, on the circle, the mean of 4 and 0; at a wall, 4 itself."""
    values = torch.arange(5, dtype=torch.float64)[None, None]
    for mode, last in (("circular", 2.0), ("zeros", 4.0)):
        halved = network((mode,))._halve(values)
        assert halved.flatten().tolist() == [0.5, 2.5, last]


def test_parameter_count_follows_from_the_widths():
    """One level, width 8, two axes: blocks of 9-point stencils, one transposed convolution, one projection."""

    def block(c_in: int, c_out: int) -> int:
        skip = 0 if c_in == c_out else 9 * c_in * c_out + c_out
        return 9 * c_in * c_out + 9 * c_out**2 + 4 * c_out + skip

    expected = block(1, 8) + block(8, 16) + (4 * 16 * 8 + 8) + block(16, 8) + (9 * 8 * 3 + 3)
    unet = UNet(1, 3, width=8, levels=1, padding=CIRCULAR, coordinates=False)
    assert sum(p.numel() for p in unet.parameters()) == expected


@pytest.mark.parametrize("levels", [1, 2, 3])
def test_the_smallest_size_is_served_and_one_less_is_refused(levels):
    flow = NavierStokes()
    smallest = smallest_size(levels)
    solver = build(flow, flow.grid(smallest), width=2, levels=levels)
    assert solver(fields(1, 1, smallest, smallest), flow.grid(smallest)).shape == (1, 20, 1, smallest, smallest)
    with pytest.raises(ValueError, match=f"smallest grid that works has {smallest}"):
        build(flow, flow.grid(smallest - 1), width=2, levels=levels)
    with pytest.raises(ValueError, match=f"smallest grid that works has {2 * smallest}"):
        build(flow, flow.grid(2 * smallest - 2), width=2, levels=levels, recipe=Recipe(coarsen=2))


def test_build_reads_the_boundary_and_refuses_another_resolution():
    darcy = Darcy()
    solver = build(darcy, darcy.grid(17), width=2, levels=2)
    assert solver.network.padding == ("zeros", "zeros")
    flow = NavierStokes()
    assert build(flow, flow.grid(16), width=2, levels=2).network.padding == CIRCULAR
    mixed = Grid.box(17, dim=2, boundary="neumann")
    assert build(darcy, mixed, width=2, levels=2).network.padding == ("reflect", "reflect")
    with pytest.raises(ValueError, match="trained on a grid of shape"):
        solver(fields(1, 1, 33, 33), darcy.grid(33))


@pytest.mark.parametrize("key", PRESETS)
def test_presets_name_options_that_exist(key):
    entry = PRESETS[key]
    for problem in (NavierStokes(), NavierStokes(viscosity=1e-4)) if key[1] == "navier_stokes" else (Darcy(),):
        preset = entry(problem) if callable(entry) else entry
        grid = problem.grid(problem.setups[key[0]].resolution)
        solver = build(problem, grid, **preset.model, recipe=Recipe(**preset.train))
        assert solver.parameter_count > 0
