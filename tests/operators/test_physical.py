"""Layers that are functions on a domain: the pixel network on its own grid, convergence on finer ones."""

from __future__ import annotations

import pytest
import torch
from resolvent.operators._multigrid import Stencil, padding_of
from resolvent.operators._physical import IntegralNorm, PhysicalStencil, carry, taps_of
from resolvent.operators.unet import UNet, build
from resolvent.pde import Axis, Grid
from resolvent.pde.darcy import Darcy
from torch import Tensor

TORUS = Grid.box(16)
KINDS = {
    "torus": TORUS,
    "dirichlet": Grid.box(17, boundary="dirichlet"),
    "neumann": Grid.box(17, boundary="neumann", placement="ends"),
}


def smooth(grid: Grid) -> Tensor:
    """One channel of a function without a symmetry, periodic for the torus."""
    total = torch.zeros(grid.shape, dtype=torch.float64)
    for j, x in enumerate(grid.mesh()):
        total = total + torch.exp(torch.sin(2 * torch.pi * x + j)) + (0.0 if grid.periodic else 0.5) * x**2
    return total[None, None]


def refined(grid: Grid, factor: int) -> Grid:
    return grid.at(
        [
            factor * (n - (a.placement == "ends")) + (a.placement == "ends")
            for n, a in zip(grid.shape, grid.axes, strict=True)
        ]
    )


def differences(layer, grid: Grid, factors: tuple[int, ...], finest: int) -> list[float]:
    """Largest differences to the finest grid at the nodes of the training grid."""

    def at(factor: int) -> Tensor:
        values = layer(smooth(refined(grid, factor)))
        for axis in range(2, values.ndim):
            values = values.index_select(axis, torch.arange(0, values.shape[axis], factor))
        return values

    with torch.no_grad():
        best = at(finest)
        return [float((at(factor) - best).abs().max()) for factor in factors]


def order(errors: list[float]) -> float:
    """Per halving of the spacing, against a reference that is eight times finer than the last."""
    return float(torch.tensor(errors[-2] / errors[-1]).log2())


@pytest.mark.parametrize("kind", ["torus", "neumann"])
def test_on_its_own_grid_it_is_the_stencil(kind):
    grid = KINDS[kind]
    physical, pixel = PhysicalStencil(2, 3, grid=grid).double(), Stencil(2, 3, dim=1, padding=padding_of(grid)).double()
    pixel.load_state_dict(physical.state_dict())
    values = torch.randn(2, 2, *grid.shape, dtype=torch.float64)
    torch.testing.assert_close(physical(values), pixel(values), rtol=0, atol=1e-13)


def test_at_a_dirichlet_wall_the_integral_ends():
    """A constant and a stencil of ones: 3 inside, and 2 h at the wall, where half a hat lies beyond it: 1.5 exactly."""
    grid = KINDS["dirichlet"]
    stencil = PhysicalStencil(1, 1, grid=grid).double()
    torch.nn.init.ones_(stencil.weight)
    for factor in (1, 2, 8):
        got = stencil(torch.ones(1, 1, *refined(grid, factor).shape, dtype=torch.float64))
        got = got.detach()
        assert float(got[0, 0, 0]) == pytest.approx(1.5, abs=1e-12)
        assert float(got[0, 0, got.shape[-1] // 2]) == pytest.approx(3.0, abs=1e-12)


def test_taps_of_twice_the_nodes_are_the_hats_at_halves():
    taps, _ = taps_of(TORUS.axes[0], 32)
    expected = [[0.5, 1, 0.5, 0, 0, 0, 0], [0, 0, 0.5, 1, 0.5, 0, 0], [0, 0, 0, 0, 0.5, 1, 0.5]]
    torch.testing.assert_close(taps, 0.5 * torch.tensor(expected, dtype=torch.float64))


@pytest.mark.parametrize("kind", KINDS)
def test_the_convolution_converges_with_order_2(kind):
    torch.manual_seed(0)
    stencil = PhysicalStencil(1, 2, grid=KINDS[kind]).double()
    assert 1.8 < order(differences(stencil, KINDS[kind], (2, 4), 32)) < 2.3


@pytest.mark.parametrize("kind", KINDS)
def test_means_are_integrals(kind):
    """On the training grid of a torus it is group norm; everywhere mean 0 and variance 1 by quadrature."""
    grid = KINDS[kind]
    norm = IntegralNorm(2, 4, grid).double()
    values = torch.randn(3, 4, *grid.shape, dtype=torch.float64)
    if grid.periodic:
        torch.testing.assert_close(norm(values), torch.nn.functional.group_norm(values, 2))
    shares = grid.weights() / grid.weights().sum()
    got = norm(values).unflatten(1, (2, 2))
    torch.testing.assert_close((got * shares).sum(-1).mean(-1), torch.zeros(3, 2).double(), rtol=0, atol=1e-12)
    torch.testing.assert_close((got**2 * shares).sum(-1).mean(-1), torch.ones(3, 2).double(), rtol=1e-4, atol=0)


@pytest.mark.parametrize("kind", KINDS)
def test_carrying_interpolates_lines_and_keeps_constants(kind):
    grid = KINDS[kind]
    fine = refined(grid, 3)
    ones = torch.ones(1, 1, *grid.shape, dtype=torch.float64)
    torch.testing.assert_close(carry(ones, grid, fine), torch.ones(1, 1, *fine.shape, dtype=torch.float64))
    there_and_back = carry(carry(ones, grid, fine), fine, grid)
    torch.testing.assert_close(there_and_back, ones)
    assert torch.equal(carry(smooth(grid), grid, grid), smooth(grid))
    if not grid.periodic:
        line = grid.coordinates()[0][None, None]
        torch.testing.assert_close(carry(line, grid, fine), fine.coordinates()[0][None, None], rtol=0, atol=1e-12)
    centres = Grid((Axis("x", 8, 0.0, 1.0, ("neumann", "neumann"), "centres"),))
    assert bool(carry(torch.ones(1, 1, 8).double(), centres, centres.at(40)).eq(1).all())


@pytest.mark.parametrize("kind", KINDS)
def test_the_network_converges_with_order_2_when_the_grid_is_refined(kind):
    torch.manual_seed(1)
    grid = KINDS[kind]
    net = UNet(1, 1, width=8, levels=2, padding=padding_of(grid), domain=grid).double().eval()
    errors = differences(net, grid, (1, 4, 8), 64)
    assert 1.8 < order(errors) < 2.3, errors
    assert errors[-1] < 0.02 * errors[0]


def test_on_the_training_grid_of_a_torus_it_is_the_pixel_network():
    grid = Grid.box(12, dim=2)
    nets = [UNet(1, 2, width=4, levels=2, padding=padding_of(grid), domain=domain).double() for domain in (None, grid)]
    nets[1].load_state_dict(nets[0].state_dict())
    values = torch.randn(2, 1, 12, 12, dtype=torch.float64)
    torch.testing.assert_close(nets[1](values), nets[0](values), rtol=0, atol=1e-11)


def test_it_serves_and_trains_on_other_resolutions():
    darcy = Darcy()
    solver = build(darcy, darcy.grid(17), width=4, levels=2, stencil="physical")
    for n in (9, 17, 25):
        inputs = darcy.sample(2, darcy.grid(n), generator=torch.Generator().manual_seed(0))
        assert solver(inputs, darcy.grid(n)).shape == (2, 1, n, n)
    inputs = darcy.sample(1, darcy.grid(33), generator=torch.Generator().manual_seed(0)).requires_grad_()
    solver(inputs, darcy.grid(33)).sum().backward()
    assert bool((inputs.grad != 0).any())
