"""Discrete Green operators: closed-form solutions of every kind of boundary- and initial-value problem they invert."""

from __future__ import annotations

import math

import pytest
import torch
from resolvent.gp._collocation import Collocation, split
from resolvent.gp._covariance import LineSpectrum
from resolvent.gp._green import Green, Lift
from resolvent.gp._line import Line
from resolvent.gp._spectrum import Band, prior_of
from resolvent.pde import Axis, Grid, SolverError
from resolvent.pde._equation import Condition, Equation, Term

LAPLACE = ((2, 1.0),)
WALLS = (("lower", 0), ("upper", 0))


def band(axis: Axis, top: float = 4.0) -> Band:
    return Band(top, 0.5 / axis.spacing, ((0.0, top),), 0.0)


def wall(name: str, n: int = 48, upper: float = 1.0) -> Axis:
    return Axis(name, n, 0.0, upper, ("dirichlet", "dirichlet"), "ends")


def line_of(axis: Axis, operator=LAPLACE, pins=WALLS, top: float = 4.0) -> Line:
    return Line(axis, prior_of(band(axis, top), axis), operator, pins)


def solved(equation: Equation, grid: Grid, top: float = 4.0):
    return Collocation(equation, grid, [band(axis, top) for axis in grid.axes]).solve()


def faces(exact, grid: Grid, pins: list[tuple[int, str, int]], derivative) -> tuple[Condition, ...]:
    """Conditions from a closed form; ``derivative(axis)`` gives its derivative along an axis as a nodal field."""
    found = []
    for axis, end, order in pins:
        field = exact if order == 0 else derivative(axis)
        found.append(Condition(axis, end, field.select(axis, 0 if end == "lower" else -1)[None], order))
    return tuple(found)


def relative(got: torch.Tensor, expected: torch.Tensor) -> float:
    return float((got - expected).norm() / expected.norm())


@pytest.mark.parametrize("dim", [1, 2, 3])
def test_poisson_with_values_on_all_faces(dim: int) -> None:
    """u = prod sin(3 x_j + j): not zero on any face, evaluated between the nodes, derivatives too."""
    grid = Grid(tuple(wall("xyz"[j], 40 - 4 * j) for j in range(dim)))

    def exact(points, orders=(0,) * dim):
        value = torch.ones((), dtype=torch.float64)
        for j, x in enumerate(points):
            value = value[..., None] * 3 ** orders[j] * torch.sin(3 * x + j + orders[j] * math.pi / 2)
        return value

    u = exact(grid.coordinates())
    terms = tuple(Term(tuple(2 * (i == j) for i in range(dim))) for j in range(dim))
    pins = [(j, end, 0) for j in range(dim) for end in ("lower", "upper")]
    answer = solved(Equation(terms, (-9 * dim * u)[None], faces(u, grid, pins, None)), grid)
    points = grid.at(23).coordinates()
    # 32 to 40 nodes for a smooth function; measured 3e-9, 1e-8, 4e-6; u_xyz at the corners is lost first: 1e-4 (2-D), 3e-2 (3-D)
    assert relative(answer(points)[0], exact(points)) < {1: 3e-8, 2: 1e-6, 3: 2e-5}[dim]
    mixed = (1,) * dim
    assert relative(answer(points, mixed)[0], exact(points, mixed)) < {1: 1e-6, 2: 1e-3, 3: 0.1}[dim]


def test_a_flux_condition() -> None:
    """u'' = f with u(0) and u'(1) given; u = exp(-x) sin 9x."""
    grid = Grid((wall("x", 60),))
    (x,) = grid.coordinates()
    u = torch.exp(-x) * torch.sin(9 * x)
    slope = torch.exp(-x) * (9 * torch.cos(9 * x) - torch.sin(9 * x))
    source = torch.exp(-x) * (-80 * torch.sin(9 * x) - 18 * torch.cos(9 * x))
    conditions = faces(u, grid, [(0, "lower", 0), (0, "upper", 1)], lambda axis: slope)
    answer = solved(Equation((Term((2,)),), source[None], conditions), grid)
    assert relative(answer(grid.coordinates())[0], u) < 5e-6  # measured 5e-7: exp(-x) takes a wide band


def test_heat_equation_in_space_and_time() -> None:
    """u_t - nu u_xx = 0 from u(0) = sin pi x + cos-free data: one initial condition, two walls."""
    nu = 0.1
    grid = Grid((wall("x", 40), Axis("t", 40, 0.0, 1.0, ("dirichlet", "outflow"), "ends")))
    x, t = grid.coordinates()
    u = torch.sin(math.pi * x)[:, None] * torch.exp(-nu * math.pi**2 * t) + torch.cos(math.pi * x)[:, None] * torch.exp(
        -nu * math.pi**2 * t
    )
    terms = (Term((0, 1)), Term((2, 0), -nu))
    pins = [(0, "lower", 0), (0, "upper", 0), (1, "lower", 0)]
    answer = solved(Equation(terms, torch.zeros_like(u)[None], faces(u, grid, pins, None)), grid)
    assert relative(answer(grid.coordinates())[0], u) < 1e-6


def test_wave_equation_with_two_initial_conditions() -> None:
    """u_tt - u_xx = 0, u = sin(pi x) sin(pi t) + sin(2 pi x) cos(2 pi t)."""
    grid = Grid((wall("x", 48), Axis("t", 48, 0.0, 1.0, ("dirichlet", "outflow"), "ends")))
    x, t = (v.reshape(s) for v, s in zip(grid.coordinates(), ((-1, 1), (1, -1)), strict=True))
    pi = math.pi
    u = torch.sin(pi * x) * torch.sin(pi * t) + torch.sin(2 * pi * x) * torch.cos(2 * pi * t)
    speed = pi * torch.sin(pi * x) * torch.cos(pi * t) - 2 * pi * torch.sin(2 * pi * x) * torch.sin(2 * pi * t)
    pins = [(0, "lower", 0), (0, "upper", 0), (1, "lower", 0), (1, "lower", 1)]
    conditions = faces(u, grid, pins, lambda axis: speed)
    answer = solved(Equation((Term((0, 2)), Term((2, 0), -1.0)), torch.zeros_like(u)[None], conditions), grid)
    assert relative(answer(grid.coordinates())[0], u) < 1e-5


def test_advection_from_initial_and_inflow_data_only() -> None:
    """Two Volterra directions (Bartels-Stewart with complex factors): u = sin(6 (x - c t)) + x t solves it with f."""
    c = 0.8
    opened = ("dirichlet", "outflow")
    grid = Grid((Axis("x", 44, 0.0, 1.0, opened, "ends"), Axis("t", 40, 0.0, 1.0, opened, "ends")))
    x, t = (v.reshape(s) for v, s in zip(grid.coordinates(), ((-1, 1), (1, -1)), strict=True))
    u = torch.sin(6 * (x - c * t)) + x * t
    conditions = faces(u, grid, [(0, "lower", 0), (1, "lower", 0)], None)
    answer = solved(Equation((Term((1, 0), c), Term((0, 1))), (c * t + x)[None], conditions), grid)
    assert relative(answer(grid.coordinates())[0], u) < 1e-6


def test_periodic_advection_diffusion_in_time() -> None:
    """A Fourier direction beside a Volterra one: u = exp(-nu k² t) sin(k (x - c t))."""
    nu, c, k = 0.02, 0.7, 4 * math.pi
    grid = Grid((Axis("x", 32), Axis("t", 60, 0.0, 1.0, ("dirichlet", "outflow"), "ends")))
    x, t = (v.reshape(s) for v, s in zip(grid.coordinates(), ((-1, 1), (1, -1)), strict=True))
    u = torch.exp(-nu * k**2 * t) * torch.sin(k * (x - c * t))
    terms = (Term((0, 1)), Term((1, 0), c), Term((2, 0), -nu))
    conditions = faces(u, grid, [(1, "lower", 0)], None)
    answer = solved(Equation(terms, torch.zeros_like(u)[None], conditions), grid, top=8.0)
    assert relative(answer(grid.coordinates())[0], u) < 1e-6


def test_a_periodic_poisson_equation_needs_a_source_without_mean() -> None:
    grid = Grid.box(24, dim=2)
    x, y = grid.mesh()
    u = torch.sin(2 * math.pi * x) * torch.cos(4 * math.pi * y)
    terms = (Term((2, 0)), Term((0, 2)))
    answer = solved(Equation(terms, (-20 * math.pi**2 * u)[None], ()), grid)
    assert relative(answer(grid.coordinates())[0], u) < 1e-12  # Fourier modes: exact
    with pytest.raises(SolverError, match="Subtract the mean"):
        solved(Equation(terms, (-20 * math.pi**2 * u + 1)[None], ()), grid)


def test_mixed_derivatives_and_variable_coefficients_without_a_line_of_their_own() -> None:
    """(2 + x) u_xx + (1 + y/2) u_yy + u_xy / 2 + x u_x - u = f for u = sin(2x + 3y)."""
    grid = Grid((wall("x", 36), wall("y", 36)))
    x, y = grid.mesh()
    phase = 2 * x + 3 * y
    u = torch.sin(phase)
    terms = (
        Term((2, 0), (2 + x)[None]),
        Term((0, 2), (1 + y / 2)[None]),
        Term((1, 1), 0.5),
        Term((1, 0), x[None]),
        Term((0, 0), -1.0),
    )
    source = -((2 + x) * 4 + (1 + y / 2) * 9 + 3 + 1) * u + 2 * x * torch.cos(phase)
    pins = [(j, end, 0) for j in range(2) for end in ("lower", "upper")]
    answer = solved(Equation(terms, source[None], faces(u, grid, pins, None)), grid)
    assert relative(answer(grid.coordinates())[0], u) < 1e-6


def test_helmholtz_is_indefinite_and_still_solved() -> None:
    """u'' + 400 u = f between eigenvalues (6 pi)² = 355 and (7 pi)² = 484."""
    grid = Grid((wall("x", 80),))
    (x,) = grid.coordinates()
    u = torch.cos(17 * x) + x
    source = (400 - 289) * torch.cos(17 * x) + 400 * x
    conditions = faces(u, grid, [(0, "lower", 0), (0, "upper", 0)], None)
    answer = solved(Equation((Term((2,)), Term((0,), 400.0)), source[None], conditions), grid, top=8.0)
    assert relative(answer(grid.coordinates())[0], u) < 1e-7


def test_the_discrete_inverse_between_walls_is_symmetric_and_negative() -> None:
    """For every number of nodes, also too few: the compression of a negative operator is negative."""
    for n in (24, 48, 96):
        inverse = line_of(wall("x", n), top=6.0).inverse
        torch.testing.assert_close(inverse, inverse.T, rtol=0, atol=0)
        assert float(torch.linalg.eigvalsh(inverse).max()) < 0
    # the largest eigenvalues are those of the closed form, -1 / (n pi)²
    top = torch.linalg.eigvalsh(line_of(wall("x", 48), top=6.0).inverse)[:4]
    expected = -1 / (math.pi * torch.arange(1, 5, dtype=torch.float64)) ** 2
    torch.testing.assert_close(top, expected, rtol=1e-7, atol=0)


def test_the_triangular_path_equals_the_diagonal_one() -> None:
    """Forcing Schur form in one direction, and in both, changes nothing but rounding."""
    source = (
        torch.randn((2, 40, 40), generator=torch.Generator().manual_seed(0), dtype=torch.float64).cumsum(1).cumsum(2)
    )
    plain = Green([line_of(wall("x", 40)), line_of(wall("y", 40))])
    for forced in ((1,), (0, 1)):
        lines = [line_of(wall("x", 40)), line_of(wall("y", 40))]
        for j in forced:
            lines[j].__dict__["modes"] = _schur(lines[j])
        torch.testing.assert_close(
            Green(lines)(source), plain(source), rtol=1e-7, atol=1e-7 * float(plain(source).abs().max())
        )


def _schur(line: Line):
    from resolvent.gp._line import Modes
    from scipy.linalg import schur

    triangle, turn = (torch.from_numpy(part) for part in schur(line.inverse.numpy(), output="complex"))
    _, sizes, right = line.factors
    return Modes(turn.mH @ line.observed.to(turn), (right / sizes).to(turn) @ turn, triangle=triangle)


def test_coons_lift_meets_all_faces_and_finds_contradictions() -> None:
    grid = Grid((wall("x", 30), wall("y", 26)))
    x, y = grid.mesh()
    u = torch.exp(0.4 * x) * torch.cos(2 * y)
    lines = [line_of(axis) for axis in grid.axes]
    sides = [[u.select(j, end)[None] for end in (0, -1)] for j in range(2)]
    w, mismatch = Lift(lines)(sides)
    assert mismatch < 1e-14
    for j in range(2):
        for end in (0, -1):
            torch.testing.assert_close(w[0].select(j, end), u.select(j, end), rtol=0, atol=1e-14)
    sides[0][0] = sides[0][0] + 0.5
    assert Lift(lines)(sides)[1] == pytest.approx(0.5)


def test_conditions_are_counted() -> None:
    with pytest.raises(ValueError, match=r"order 2, which needs 2 condition"):
        line_of(wall("x"), pins=(("lower", 0),))


def test_a_type_change_and_a_missing_direction_are_outside_the_class() -> None:
    x = torch.linspace(-1, 1, 9, dtype=torch.float64)
    tricomi = Equation((Term((2, 0)), Term((0, 2), x.repeat(9, 1)[None])), torch.zeros(1, 9, 9).double(), ())
    split(Equation((Term((2, 0)), Term((0, 2), (2 + x).repeat(9, 1)[None])), torch.zeros(1, 9, 9).double(), ()), 2)
    with pytest.raises(ValueError, match="changes its sign"):
        split(tricomi, 2)
    with pytest.raises(ValueError, match="No term differentiates along axis 1"):
        split(Equation((Term((2, 0)),), torch.zeros(1, 9, 9).double(), ()), 2)


def test_features_of_a_line_are_those_of_its_covariance() -> None:
    """Waves are measured from the middle of the axis, which a stationary covariance does not notice."""
    axis = wall("x", 20, upper=2.0)
    line = line_of(axis)
    x = line.nodes
    waves = line.waves(x, 1)[:, 6:]
    assert isinstance(line.covariance, LineSpectrum)
    torch.testing.assert_close(waves @ waves.T, line.covariance.matrix(x, x, 1, 1), rtol=1e-10, atol=1e-10)
