"""Manufactured high-frequency problems: the equation holds, closed forms are recovered, the reference converges."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from resolvent.pde import Grid
from resolvent.pde._chebyshev import Direction, differentiation, evaluation, spline
from resolvent.pde._equation import Condition, Derivatives, Equation, Term
from resolvent.pde._high_frequency import HighFrequency
from resolvent.pde._manufactured import Manufactured, Product, Wave, cosine, sine
from resolvent.pde.high_frequency_advection import HighFrequencyAdvection
from resolvent.pde.high_frequency_allen_cahn import HighFrequencyAllenCahn
from resolvent.pde.high_frequency_poisson import SOLUTIONS, HighFrequencyPoisson

POISSON = [HighFrequencyPoisson(case=case) for case in SOLUTIONS]  # type: ignore[arg-type]
ALL = [*POISSON, *(HighFrequencyAllenCahn(case=c) for c in ("ac1", "ac2", "ac2d")), HighFrequencyAdvection()]
NAMES = [getattr(p, "case", "adv") for p in ALL]

# the published formulas, as functions of the coordinates
PUBLISHED = {
    "p1": lambda x: torch.sin(100 * x),
    "p2": lambda x: torch.sin(x) + 0.1 * torch.sin(20 * x) + 0.05 * torch.sin(100 * x),
    "p3": lambda x: torch.sin(6 * x) * torch.cos(100 * x),
    "p4": lambda x: x * torch.sin(200 * x),
    "p5": lambda x: torch.sin(500 * x) - 2 * (x - 0.5) ** 2,
    "p2d1": lambda x, y: torch.sin(100 * x) * torch.sin(100 * y),
    "p2d2": lambda x, y: torch.sin(6 * x) * torch.cos(20 * x) + torch.sin(6 * y) * torch.cos(20 * y),
    "p2d3": lambda x, y: torch.sin(100 * x) * torch.cos(100 * y),
    "p3d": lambda x, y, z: torch.sin(60 * x) * torch.cos(40 * y) * torch.sin(50 * z),
    "ac1": lambda x: torch.sin(100 * x),
    "ac2": lambda x: torch.sin(6 * x) * torch.cos(100 * x),
    "ac2d": lambda x, y: _q(x) * _q(y),
    "adv": lambda x, t: torch.sin(x - 200 * t),
}


def _q(x):
    return torch.sin(x) + 0.1 * torch.sin(20 * x) + torch.cos(100 * x)


def small(problem: HighFrequency, n: int = 24) -> Grid:
    return problem.grid({1: 8 * n, 2: 2 * n, 3: n}[problem.grid(9).dim])


def draw(problem: HighFrequency, grid: Grid, count: int = 1, seed: int = 0) -> torch.Tensor:
    return problem.sample(count, grid, generator=torch.Generator().manual_seed(seed))


def relative(got: torch.Tensor, expected: torch.Tensor) -> float:
    return float((got - expected).norm() / expected.norm())


@pytest.mark.parametrize(("problem", "name"), zip(ALL, NAMES, strict=True), ids=NAMES)
def test_spread_zero_is_the_published_solution(problem: HighFrequency, name: str) -> None:
    grid = small(problem)
    expected = PUBLISHED[name](*grid.mesh())
    torch.testing.assert_close(problem.solution.field(grid.coordinates()), expected, rtol=0, atol=1e-11)
    published = dataclasses.replace(problem, spread=0.0)
    assert torch.equal(draw(published, grid, seed=1), draw(published, grid, seed=2))


class ClosedForm(Derivatives):
    """Derivatives of a manufactured solution on a grid."""

    def __init__(self, solution: Manufactured, grid: Grid) -> None:
        self.solution, self.grid = solution, grid

    def d(self, orders: tuple[int, ...]) -> torch.Tensor:
        return self.solution.field(self.grid.coordinates(), orders)[None]


@pytest.mark.parametrize("problem", ALL, ids=NAMES)
def test_the_declared_equation_holds_for_a_draw(problem: HighFrequency) -> None:
    """Residual at rounding level, conditions equal to the solution on the faces that carry them."""
    grid = small(problem)
    solution = problem.drawn(torch.Generator().manual_seed(3))
    inputs = problem.pose(solution, grid)[None]
    equation = problem.equation(inputs, grid)
    residual = equation.residual(ClosedForm(solution, grid))
    assert float(residual.abs().max()) < 1e-11 * max(float(inputs.abs().max()), 200.0)
    field = solution.field(grid.coordinates())[None]
    for condition in equation.conditions:
        face = field.select(1 + condition.axis, 0 if condition.end == "lower" else -1)
        torch.testing.assert_close(condition.values, face)
    count = {"adv": 2}.get(getattr(problem, "case", "adv"), 2 * grid.dim)
    assert len(equation.conditions) == count


@pytest.mark.parametrize("problem", ALL, ids=NAMES)
def test_the_source_is_the_equation_of_the_solution(problem: HighFrequency) -> None:
    """Against automatic differentiation of the product form: no formula of the file is used twice."""
    x = [torch.tensor([0.37], dtype=torch.float64, requires_grad=True) for _ in range(problem.grid(9).dim)]
    u = sum(
        p.amplitude
        * math.prod(
            (v - w.centre) ** w.power * torch.sin(w.frequency * v + w.phase) for w, v in zip(p.factors, x, strict=True)
        )
        for p in problem.solution.products
    )
    total = torch.zeros(1, dtype=torch.float64)
    for orders, coefficient in problem.terms:
        part = u
        for v, order in zip(x, orders, strict=True):
            for _ in range(order):
                (part,) = torch.autograd.grad(part.sum(), v, create_graph=True)
        total = total + coefficient * part
    if type(problem).reaction is not None:
        total = total + u**3 - u
    got = problem.solution.source([v.detach() for v in x], problem.terms, type(problem).reaction).flatten()
    torch.testing.assert_close(got, total.detach(), rtol=1e-10, atol=1e-7)


@pytest.mark.parametrize("problem", ALL, ids=NAMES)
def test_the_closed_form_is_recovered_and_the_reference_agrees(problem: HighFrequency) -> None:
    """Draws far from the published instance; the reference knows nothing of the solution but its frequencies."""
    problem = dataclasses.replace(problem, spread=0.2)
    grid = small(problem)
    inputs = draw(problem, grid, seed=5)
    exact = problem.exact(inputs, grid)
    solution = problem.drawn(torch.Generator().manual_seed(5)).field(grid.coordinates())
    assert relative(exact[0, 0], solution) < 1e-9
    assert relative(problem.reference()(inputs, grid), exact) < 1e-8


def test_posing_on_another_grid_is_the_same_instance() -> None:
    problem = HighFrequencyAllenCahn(case="ac2")
    grid, other = problem.grid(150), problem.grid(400)
    solution = problem.drawn(torch.Generator().manual_seed(0))
    posed = problem.posed(problem.pose(solution, grid)[None], grid, other)
    assert posed is not None
    torch.testing.assert_close(posed[0], problem.pose(solution, other), rtol=1e-9, atol=1e-7)


def test_foreign_inputs_have_no_closed_form_but_a_reference() -> None:
    """f = 6x, g = x³ - x on [0, 1]: splines of degree 7 carry it exactly, so does the collocation."""
    problem = HighFrequencyPoisson(case="p2")
    grid = problem.grid(40)
    (x,) = grid.coordinates()
    inputs = torch.stack([6 * x, (x**3 + 1) * problem.given(grid)])[None]
    torch.testing.assert_close(problem.reference()(inputs, grid)[0, 0], x**3 + 1, rtol=0, atol=1e-10)
    with pytest.raises(ValueError, match="Use reference"):
        problem.exact(inputs, grid)
    assert problem.posed(inputs, grid, problem.grid(50)) is None


def test_the_reference_converges_spectrally() -> None:
    """Errors fall by more than any fixed power: tenfold for each few points once waves have pi points each."""
    problem = HighFrequencyPoisson(case="p2", spread=0.0)
    grid = problem.grid(100)
    inputs = draw(problem, grid)
    exact = problem.exact(inputs, grid)
    errors = [relative(problem.reference(points=n)(inputs, grid), exact) for n in (50, 60, 70, 90)]
    assert errors[0] > 1e-5
    assert errors[1] < 1e-2 * errors[0]
    assert errors[2] < 1e-2 * errors[1]
    assert errors[3] < 1e-11


def test_foreign_sources_are_carried_at_order_eight() -> None:
    """u = exp(x) is not a wave: halving the spacing divides the spline's error by 2^8; observed between 7 and 9.5."""
    problem = HighFrequencyPoisson(case="p2")
    errors = []
    for n in (21, 41):
        grid = problem.grid(n)
        (x,) = grid.coordinates()
        u = torch.sin(9 * x) * torch.exp(x)
        source = (-80 * torch.sin(9 * x) + 18 * torch.cos(9 * x)) * torch.exp(x)
        errors.append(
            relative(problem.reference()(torch.stack([source, u * problem.given(grid)])[None], grid)[0, 0], u)
        )
    assert 7 < math.log2(errors[0] / errors[1]) < 9.5


def test_chebyshev_matrices_differentiate_polynomials_exactly() -> None:
    direction = Direction(-0.5, 2.0, 12, ((2, 1.0),))
    x = direction.nodes()
    _, first, second = differentiation(direction)
    torch.testing.assert_close(first @ x**9, 9 * x**8, rtol=1e-10, atol=1e-9)
    torch.testing.assert_close(second @ x**9, 72 * x**7, rtol=1e-9, atol=1e-7)
    where = torch.cat([torch.linspace(-0.5, 2, 7, dtype=torch.float64), x[3:5]])
    torch.testing.assert_close(evaluation(direction, where) @ x**9, where**9, rtol=1e-11, atol=1e-11)


def test_splines_keep_nodes_and_degree_seven() -> None:
    old = torch.linspace(0, 1, 12, dtype=torch.float64)
    new = torch.linspace(0, 1, 31, dtype=torch.float64)
    torch.testing.assert_close(spline((old**7)[:, None] + old, [old, old], [new, new]), (new**7)[:, None] + new)


def test_waves_differentiate_by_leibniz() -> None:
    wave = Wave(3.0, 0.4, power=2, centre=0.2)
    x = torch.linspace(0, 1, 5, dtype=torch.float64, requires_grad=True)
    value = wave(x)
    for order in range(1, 5):
        (value,) = torch.autograd.grad(value.sum(), x, create_graph=True)
        torch.testing.assert_close(wave(x, order), value, rtol=1e-12, atol=1e-11)
    assert Product(2.0, (sine(1), cosine(2)))([x.detach(), x.detach()], (0, 1)).shape == (5, 5)


def test_bad_parameters_are_refused_with_the_admissible_ones(unchecked: None) -> None:
    with pytest.raises(ValueError, match="case is one of"):
        HighFrequencyPoisson(case="p9")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="case is one of"):
        HighFrequencyAllenCahn(case="p1")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="spread is between"):
        HighFrequencyPoisson(spread=-0.1)
    with pytest.raises(ValueError, match="velocity must be positive"):
        HighFrequencyAdvection(velocity=0.0)
    with pytest.raises(ValueError, match="at least 4 points"):
        HighFrequencyPoisson().reference(points=2)


def test_an_equation_checks_its_parts(unchecked: None) -> None:
    with pytest.raises(ValueError, match="0 to 4 times"):
        Term((5,))
    with pytest.raises(ValueError, match="order 0 or 1"):
        Condition(0, "lower", torch.zeros(1), 2)
    with pytest.raises(ValueError, match="along each axis"):
        Equation((Term((2,)),), torch.zeros(1, 4, 4), ())
    cubic = Equation((Term((2,)),), torch.zeros(1, 3).double(), (), lambda u: u**3)
    torch.testing.assert_close(cubic.slope(torch.full((1, 3), 2.0).double()), torch.full((1, 3), 12.0).double())
