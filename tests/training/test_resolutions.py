"""Several resolutions: training on them, and serving others."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from resolvent.pde import Axis, Grid
from resolvent.training import NetworkSolver, Recipe
from resolvent.training._resample import coarser, resample, restrict
from torch import Tensor, nn

from .conftest import RECIPE, STATIC, solver_for, walled, waves

# ---------------------------------------------------------------------- training on several


@pytest.mark.parametrize("placement", ["left", "ends", "centres"])
def test_restriction_is_the_same_function_on_fewer_nodes(placement):
    """cos(2 pi x): its values at shared or coarser nodes; of cells the mean of two nodes, cos(pi h) times the value."""
    boundary = "periodic" if placement == "left" else "neumann"
    fine, coarse = (
        Grid((Axis("x", n + (placement == "ends"), 0.0, 2.0, (boundary, boundary), placement),)) for n in (16, 8)
    )
    fields = [torch.cos(2 * torch.pi * grid.coordinates()[0])[None, None] for grid in (fine, coarse)]
    factor = math.cos(math.pi * fine.spacing[0]) if placement == "centres" else 1.0
    got = restrict(fields[0], fine, coarse)
    torch.testing.assert_close(got, factor * fields[1], rtol=0, atol=1e-12)
    torch.testing.assert_close(
        restrict(torch.ones(1, 1, fine.size).double(), fine, coarse), torch.ones(1, 1, coarse.size).double()
    )


def test_coarser_grids_keep_proportions_or_are_refused():
    tall = Grid.box((9, 17), boundary="dirichlet")
    assert coarser(tall, 5).shape == (5, 9)
    assert coarser(Grid.box((12, 24)), 5).shape == (5, 10)
    with pytest.raises(ValueError, match=r"one of \[3, 5\], not to 4"):
        coarser(Grid.box(9, boundary="dirichlet"), 4)
    with pytest.raises(ValueError, match="restricted to fewer, any number, not to 20"):
        coarser(Grid.box(16), 20)
    with pytest.raises(ValueError, match="no whole number"):
        coarser(Grid.box((8, 12)), 5)


def test_training_on_several_grids_sees_each_of_them():
    data = walled(9)
    solver = solver_for(data, dataclasses.replace(RECIPE, resolutions=(5, 3)))
    sizes = []
    solver.network.register_forward_pre_hook(lambda _, given: sizes.append(given[0].shape[-1]))
    solver.fit(data)
    assert {9, 5, 3} == set(sizes)
    a, u = data.read(range(3))
    generator = torch.Generator().manual_seed(0)
    for _ in range(6):
        coarse, target = solver._varied(a, u[:, None], generator)
        step = 8 // (coarse.shape[-1] - 1)
        assert torch.equal(coarse, a[..., ::step, ::step])
        torch.testing.assert_close(target[:, 0], 2 * coarse + 1)


def test_a_model_that_is_tied_to_its_grid_refuses_several():
    data = walled(9)
    with pytest.raises(ValueError, match=r"train.resolutions \(5,\) is for models that serve any grid"):
        NetworkSolver(nn.Identity(), data.signature, data.grid, Recipe(resolutions=(5,)))


# ---------------------------------------------------------------------- there and back


class Doubling(nn.Module):
    def forward(self, values: Tensor) -> Tensor:
        return 2 * values


@pytest.mark.parametrize("size", [12, 31, 8])
def test_resampling_by_fourier_is_exact_for_band_limited_fields(size):
    """Waves of index at most 2 on 8 nodes: the answer on another grid is the answer itself, to the rounding of two
    transforms: 6e-8 of the largest value for each of some ten additions in a row.
    """
    grid = Grid.box(8, dim=2)
    recipe = Recipe(normalise="none", resample="fourier")
    solver = NetworkSolver(Doubling(), STATIC, grid, recipe)
    fine = waves(3, size, seed=5)
    torch.testing.assert_close(solver(fine, grid.at(size)), 2 * fine, rtol=0, atol=6e-7 * float(2 * fine.abs().max()))


@pytest.mark.parametrize(
    ("kind", "power", "placement"), [("linear", 1, "ends"), ("linear", 1, "centres"), ("cubic", 3, "ends")]
)
def test_lines_and_splines_are_exact_for_their_polynomials(kind, power, placement):
    box = {"dim": 2, "upper": 2.0, "boundary": "neumann" if placement == "centres" else "dirichlet"}
    source, target = (Grid.box(n, placement=placement, **box) for n in (9, 14))

    def polynomial(grid: Grid) -> Tensor:
        x, y = grid.mesh()
        return (x**power - 2 * y**power + 1)[None, None]

    for one, other in ((source, target), (target, source)):
        torch.testing.assert_close(resample(polynomial(one), one, other, kind), polynomial(other), rtol=0, atol=1e-12)


@pytest.mark.parametrize("kind", ["left", "ends"])
def test_between_two_nodes_a_line_holds_their_mean(kind):
    """Any field on twice as many cells: the nodes themselves, and the mean of neighbours between them."""
    source = Grid.box(8) if kind == "left" else Grid.box(9, boundary="dirichlet")
    target = source.at(16 if kind == "left" else 17)
    values = torch.randn(1, 1, *source.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    got = resample(values, source, target, "linear")
    torch.testing.assert_close(got[..., ::2], values)
    right = values.roll(-1, -1) if kind == "left" else values[..., 1:]
    torch.testing.assert_close(got[..., 1::2], (values[..., : right.shape[-1]] + right) / 2)


@pytest.mark.parametrize("placement", ["ends", "centres"])
def test_between_walls_the_series_is_of_cosines(placement):
    """cos(pi 3 x) cos(pi y) is carried from 6 nodes to 17 and back without loss."""
    few, many = (Grid.box(n, dim=2, boundary="neumann", placement=placement) for n in (6, 17))
    fields = []
    for grid in (few, many):
        x, y = grid.mesh()
        fields.append((torch.cos(3 * torch.pi * x) * torch.cos(torch.pi * y))[None, None])
    torch.testing.assert_close(resample(fields[0], few, many, "fourier"), fields[1], rtol=0, atol=1e-12)
    torch.testing.assert_close(resample(fields[1], many, few, "fourier"), fields[0], rtol=0, atol=1e-12)


def test_splines_on_a_torus_wrap():
    """Order 4 of a smooth periodic function, whose first node is also the last."""
    errors = []
    for n in (16, 32, 64):
        source, target = Grid.box(n), Grid.box(97)
        wave = [torch.exp(torch.sin(2 * torch.pi * g.coordinates()[0]))[None, None] for g in (source, target)]
        errors.append(float((resample(wave[0], source, target, "cubic") - wave[1]).abs().max()))
    assert 3.7 < torch.tensor(errors[0] / errors[2]).log2() / 2 < 4.4


def test_a_grid_bound_model_serves_others_by_resampling_and_the_answer_is_differentiable():
    data = walled(9)
    solver = solver_for(data, dataclasses.replace(RECIPE, resample="cubic"))
    solver.any_resolution = False
    grid = data.grid.at(17)
    inputs = torch.randn(2, 1, 17, 17, requires_grad=True)
    answer = solver(inputs, grid)
    answer.square().sum().backward()
    assert bool((inputs.grad != 0).any())
    with torch.no_grad():
        there = resample(inputs, grid, data.grid, "cubic")
        torch.testing.assert_close(answer, resample(solver(there, data.grid), data.grid, grid, "cubic"))
    with pytest.raises(ValueError, match="one domain"):
        solver(inputs, Grid.box(17, dim=2, boundary="dirichlet", upper=2.0))
