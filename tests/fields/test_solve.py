"""Physics-informed solution: manufactured solutions, conditions to rounding, honest misfits, refusals."""

from __future__ import annotations

import math
import warnings

import pytest
import torch
from resolvent.fields import fkan, siren, wire
from resolvent.fields._jet import seed as seed_jet
from resolvent.fields._levenberg import Damping, descend, linear_part
from resolvent.fields._solve import MisfitWarning, Residual, waves_of
from resolvent.pde import Condition, Equation, Grid, Term
from resolvent.pde.burgers import Burgers
from resolvent.pde.poisson import Poisson
from torch import Tensor


def relative(a: Tensor, b: Tensor) -> float:
    return float((a - b).norm() / b.norm())


def manufactured(grid: Grid) -> tuple[Tensor, Tensor]:
    """u = prod sin(pi x_j); -Laplace u = dim pi² u."""
    u = torch.sin(math.pi * grid.mesh()).prod(dim=0)[None, None]
    return grid.dim * math.pi**2 * u, u


def test_poisson_in_one_dimension_to_five_digits() -> None:
    """Measured 1.4e-6; misfits are those of second derivatives, some hundred times the error."""
    problem = Poisson(dim=1)
    grid = problem.grid(33)
    source, truth = manufactured(grid)
    solver = siren.build(problem, grid, width=12, iterations=40)
    answer = solver(source, grid)
    assert relative(answer, truth) < 1e-5
    assert answer[0, 0, 0] == 0
    assert solver.misfits[0] < 1e-3


@pytest.mark.slow
@pytest.mark.parametrize("module", [siren, wire, fkan])
def test_poisson_in_two_dimensions_to_six_digits(module: object) -> None:
    problem = Poisson(dim=2)
    grid = problem.grid(33)
    source, truth = manufactured(grid)
    solver = module.build(problem, grid, width=32, iterations=60)  # type: ignore[attr-defined]
    assert relative(solver(source, grid), truth) < 1e-6


@pytest.mark.parametrize("module", [siren, wire], ids=["real", "complex"])
def test_rows_of_the_jacobian_are_the_derivatives_of_the_residual(module: object) -> None:
    """Against central differences, with a reaction, variable coefficients, a lift and a slope on a face."""
    grid = Grid.box((6, 5), dim=2, boundary="dirichlet")
    x, y = grid.mesh()
    equation = Equation(
        terms=(Term((2, 0), -1.0), Term((0, 1), (1 + x)[None]), Term((0, 0), 0.5)),
        source=torch.sin(3 * x + y)[None],
        conditions=(Condition(0, "lower", y[0][None] ** 2), Condition(1, "upper", x[:, 0][None], order=1)),
        reaction=lambda u: u**3,
    )
    hard = [c for c in equation.conditions if c.order == 0]
    field = module.field(grid, width=4, layers=2, conditions=hard, dtype=torch.float64)  # type: ignore[attr-defined]
    residual = Residual(equation, grid, field)
    chosen = torch.arange(len(residual.points))
    importance = torch.linspace(1, 2, len(chosen), dtype=torch.float64)
    weights = residual.vector()
    _, rows = residual.jacobian(weights, chosen, importance)
    direction = torch.randn(len(weights), dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    step = 1e-6 * direction
    differences = (
        residual.rows(weights + step, chosen, importance) - residual.rows(weights - step, chosen, importance)
    ) / 2e-6
    torch.testing.assert_close(rows @ direction, differences, rtol=1e-5, atol=1e-5 * float(differences.abs().max()))
    # and the residual itself is that of the field, as the equation says
    inner = residual.points[: (grid.shape[0] - 1) * grid.shape[1]]
    jet = field.jet(inner, second="axes")
    u, slope, bend = jet.value[:, 0], jet.first[1, :, 0], jet.seconds[0, :, 0]
    left = -bend + (1 + inner[:, 0]) * slope + 0.5 * u + u**3 - torch.sin(3 * inner[:, 0] + inner[:, 1])
    even = torch.ones(len(chosen), dtype=torch.float64)
    torch.testing.assert_close(residual.norm * residual.rows(weights, chosen, even)[: len(inner)], left.detach())


def test_waves_follow_the_source_or_the_data() -> None:
    grid = Grid.box((33, 33), dim=2, boundary="dirichlet")
    _, y = grid.mesh()
    zero = torch.zeros(1, 33, 33, dtype=torch.float64)
    wavy = Equation((Term((2, 0)),), zero, (Condition(0, "lower", torch.sin(12 * math.pi * y[0])[None]),))
    assert waves_of(wavy, grid) == pytest.approx([6 * math.pi] * 2, rel=0.05)
    flat = Equation((Term((2, 0)),), zero, ())
    assert waves_of(flat, grid) == [math.pi / 2] * 2


def test_least_squares_solve_a_linear_problem_at_once_and_rosenbrock_in_time() -> None:
    a = torch.randn(9, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    b = torch.randn(9, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    solved = linear_part(torch.zeros(4, dtype=torch.float64), torch.arange(4), lambda w: a @ w - b, a)
    torch.testing.assert_close(solved, torch.linalg.lstsq(a, b[:, None]).solution[:, 0])

    def rows(w: Tensor) -> Tensor:
        return torch.stack([10 * (w[1] - w[0] ** 2), 1 - w[0]])

    def jacobian(w: Tensor) -> tuple[Tensor, Tensor]:
        return rows(w), torch.func.jacfwd(rows)(w)

    start = torch.tensor([-1.2, 1.0], dtype=torch.float64)
    found, cost = descend(start, rows, jacobian, Damping(), 60, 1e-26, lambda cost: False)
    torch.testing.assert_close(found, torch.ones(2, dtype=torch.float64))
    assert cost < 1e-20


def test_what_has_no_equation_is_refused_and_a_poor_answer_is_called_poor() -> None:
    with pytest.raises(ValueError, match="declare their equation"):
        siren.build(Burgers(), Burgers().grid(16))
    problem = Poisson(dim=1)
    grid = problem.grid(33)
    source = torch.sin(25 * math.pi * grid.mesh())[None]
    solver = siren.build(problem, grid, width=1, layers=1, iterations=1)
    with pytest.warns(MisfitWarning, match="Relative residual"):
        solver(source, grid)
    with warnings.catch_warnings(), pytest.raises(ValueError, match="iterations"):
        siren.build(problem, grid, iterations=0)
    assert len(seed_jet(grid.mesh().t()).orders) == 1
