"""Wendland's functions, their quadrature and its bias, and the weak forms that problems declare."""

from __future__ import annotations

import math

import pytest
import torch
from resolvent.evaluation import registry
from resolvent.pde import Grid
from resolvent.pde._balls import Balls, ball_rule, draw_balls, wendland
from resolvent.pde._weak_form import Balance, Candidate, WithWeakForm
from torch import Tensor

PI = math.pi
# Means of v over the unit ball: 2/3 over the length 2; pi/9 over the area pi; 3-D by the radial integral below
MEANS = {1: 1 / 3, 2: 1 / 9}


@pytest.mark.parametrize("dim", [1, 2, 3, 4])
def test_the_gradient_is_the_derivative_of_the_function(dim: int) -> None:
    points = 1.2 * (2 * torch.rand(64, dim, dtype=torch.float64, generator=torch.Generator().manual_seed(dim)) - 1)
    points.requires_grad_()
    value, slope = wendland(points.norm(dim=1), dim)
    derived = torch.autograd.grad(value.sum(), points)[0]
    torch.testing.assert_close((slope[:, None] * points).detach(), derived, rtol=1e-12, atol=1e-13)
    assert bool((value[points.norm(dim=1) >= 1] == 0).all())


def test_the_function_is_one_at_its_centre_and_flat_at_its_rim() -> None:
    """C4: near r = 1 it falls like (1 - r)^(l+2)."""
    for dim in (1, 2, 3):
        assert float(wendland(torch.zeros(1, dtype=torch.float64), dim)[0]) == 1.0
        near = wendland(torch.tensor([0.98, 0.99], dtype=torch.float64), dim)[0]
        assert math.log2(float(near[0] / near[1])) == pytest.approx(dim // 2 + 5, abs=0.05)


@pytest.mark.parametrize("dim", [1, 2, 3, 4])
@pytest.mark.parametrize("nodes", [5, 6])
def test_gauss_integrates_the_function_and_has_no_bias(dim: int, nodes: int) -> None:
    """A polynomial of degree l + 4 = 7 or 8 in r (times r for xi . grad v) is exact for 5 radii."""
    rule = ball_rule(dim, nodes)
    radii = torch.linspace(0, 1, 200_001, dtype=torch.float64)
    radial = torch.trapezoid(wendland(radii, dim)[0] * dim * radii ** (dim - 1), radii)
    assert rule.mass == pytest.approx(float(radial), abs=1e-9)
    assert rule.correction == pytest.approx(1.0, abs=1e-12)
    assert rule.mass == pytest.approx(MEANS.get(dim, rule.mass), abs=1e-12)
    torch.testing.assert_close(rule.weights @ rule.gradients, torch.zeros(dim, dtype=torch.float64), rtol=0, atol=1e-14)
    second = torch.einsum("q,qi,qj->ij", rule.weights, rule.points, rule.points)  # of a ball: 1 / (d + 2)
    torch.testing.assert_close(second, torch.eye(dim, dtype=torch.float64) / (dim + 2), rtol=0, atol=1e-13)


@pytest.mark.parametrize(
    ("nodes", "points", "correction"),
    [(5, 9, 0.824), (7, 25, 0.9876), (8, 32, 1.0021), (9, 45, 0.9983), (11, 69, 0.9996), (15, 145, 0.99996)],
)
def test_the_published_rule_has_the_bias_that_was_found(nodes: int, points: int, correction: float) -> None:
    rule = ball_rule(2, nodes, "grid")
    assert len(rule.points) == points
    assert rule.correction == pytest.approx(correction, abs=6e-4 if nodes == 5 else 6e-5)
    torch.testing.assert_close(rule.weights @ rule.gradients, torch.zeros(2, dtype=torch.float64), rtol=0, atol=1e-14)


def manufactured(points: Tensor, *, gradient: float = 1.0) -> tuple[Balance, Tensor]:
    """u = sin(pi x) sin(pi y), a = 2 + sin(2 pi x) cos(pi y); the density is -f with f = -div(a grad u)."""
    x, y = points.unbind(1)
    a = 2 + torch.sin(2 * PI * x) * torch.cos(PI * y)
    slope = PI * torch.stack([torch.cos(PI * x) * torch.sin(PI * y), torch.sin(PI * x) * torch.cos(PI * y)], -1)
    rise = PI * torch.stack(
        [2 * torch.cos(2 * PI * x) * torch.cos(PI * y), -torch.sin(2 * PI * x) * torch.sin(PI * y)], -1
    )
    source = 2 * PI**2 * a * torch.sin(PI * x) * torch.sin(PI * y) - (rise * slope).sum(-1)
    return Balance(gradient * (a[:, None] * slope)[None], -source[None]), source


def weak_residual(kind: str, nodes: int, radius: float, *, corrected: bool = True) -> float:
    """Of the exact solution, relative to the source."""
    rule = ball_rule(2, nodes, kind)
    generator = torch.Generator().manual_seed(0)
    balls = draw_balls(
        Grid.box(2, dim=2, boundary="dirichlet"), rule, 400, [radius], generator=generator, dtype=torch.float64
    )
    balance, source = manufactured(balls.points, gradient=1.0 if corrected else rule.correction)
    return float(balls.observe(balance).square().mean().sqrt() / source.square().mean().sqrt())


@pytest.mark.parametrize(("kind", "nodes"), [("grid", 7), ("grid", 9), ("gauss", 4)])
def test_the_exact_solution_has_a_residual_of_the_square_of_the_radius(kind: str, nodes: int) -> None:
    found = [weak_residual(kind, nodes, radius) for radius in (0.08, 0.04, 0.02)]
    orders = [math.log2(a / b) for a, b in zip(found, found[1:], strict=False)]
    assert all(abs(order - 2) < 0.15 for order in orders), (found, orders)
    assert weak_residual(kind, nodes, 1e-4) < 1e-7


def test_a_grid_without_points_off_the_middle_is_refused() -> None:
    for nodes in (2, 3):
        with pytest.raises(ValueError, match="4 or more"):
            ball_rule(2, nodes, "grid")
    assert ball_rule(2, 4, "grid").correction > 1


@pytest.mark.parametrize(("nodes", "bias"), [(7, 1.24e-2), (9, 1.7e-3)])
def test_without_the_correction_the_residual_stalls_at_the_bias(nodes: int, bias: float) -> None:
    for radius in (0.01, 1e-4):
        assert weak_residual("grid", nodes, radius, corrected=False) == pytest.approx(bias, rel=0.05)


def test_single_precision_leaves_what_the_fields_are_rounded_to() -> None:
    """At R = 1e-4 a flux of order 10, rounded to 6e-8, leaves 6e-7 / 1e-4 / sqrt(points): a few parts in 10^3 of the
    source; a constant flux leaves nothing, because its mean is taken off first.
    """
    rule = ball_rule(2, 4)
    balls = draw_balls(
        Grid.box(2, dim=2, boundary="dirichlet"), rule, 100, [1e-4], generator=torch.Generator().manual_seed(0)
    )
    flux = torch.full((1, len(balls.points), 2), 7.3)
    zero = torch.zeros(1, len(balls.points))
    assert float(balls.observe(Balance(flux, zero)).abs().max()) < 1e-6  # 5e-3 with the mean left in
    inside = Balls(balls.centres, balls.radii, rule)
    linear = balls.points[None] - balls.centres.repeat_interleave(len(rule.weights), 0)[None]
    assert float((inside.observe(Balance(linear, zero)) + 2).abs().max()) < 5e-2  # div = 2, coordinates rounded


def test_balls_stay_inside_and_fill_the_domain_evenly() -> None:
    grid = Grid.box((5, 5), lower=(-1.0, 0.0), upper=(1.0, 3.0), boundary="dirichlet")
    radii = (0.05, 0.3)
    balls = draw_balls(
        grid, ball_rule(2, 4), 64, radii, generator=torch.Generator().manual_seed(0), dtype=torch.float64
    )
    lower, upper = torch.tensor([-1.0, 0.0]).double(), torch.tensor([1.0, 3.0]).double()
    assert bool((balls.points >= lower).all() and (balls.points <= upper).all())
    assert sorted({round(float(r), 3) for r in balls.radii}) == [0.05, 0.3]
    share = (balls.centres - lower - balls.radii[:, None]) / (upper - lower - 2 * balls.radii[:, None])
    strata = (share * 64).floor().long().sort(dim=0).values
    assert torch.equal(strata, torch.arange(64)[:, None].expand(-1, 2)), "a Latin hypercube: one centre a stratum"
    torus = draw_balls(Grid.box(8), ball_rule(1, 4), 64, [0.4], generator=torch.Generator().manual_seed(0))
    assert float(torus.centres.min()) < 0.1, "a torus has no ends to keep away from"
    with pytest.raises(ValueError, match=r"half the domain, 1"):
        draw_balls(grid, ball_rule(2, 4), 4, [1.2], generator=torch.Generator())


# ---------------------------------------------------------------------- what problems declare

WEAK = [name for name in registry.problems() if isinstance(registry.find_problem(name).build(), WithWeakForm)]


def test_the_problems_of_the_guide_declare_a_weak_form() -> None:
    assert set(WEAK) == {"burgers", "darcy", "helmholtz", "poisson", "stokes"}


def residual_of(problem: WithWeakForm, grid: Grid, inputs: Tensor, candidate: Candidate, balls: Balls) -> Tensor:
    scales = problem.balance_scales(inputs, grid)
    balances = problem.balances(candidate)
    assert scales.keys() == balances.keys()
    return torch.cat([balls.observe(b) / scales[name][:, None] for name, b in balances.items()])


@pytest.mark.parametrize("dim", [1, 2, 3])
def test_poisson_accepts_the_closed_form_and_nothing_else(dim: int) -> None:
    """u = prod sin(pi x) solves it for f = d pi^2 u."""
    problem = registry.find_problem("poisson").build(dim=dim)
    grid = problem.grid(9)
    balls = draw_balls(
        grid, ball_rule(dim, 5), 50, [0.01], generator=torch.Generator().manual_seed(0), dtype=torch.float64
    )
    points = balls.points
    sines, cosines = torch.sin(PI * points), torch.cos(PI * points)
    u = sines.prod(1)
    slope = torch.stack([PI * u / sines[:, j] * cosines[:, j] for j in range(dim)], -1)

    def judged(factor: float) -> float:
        given = {"source": dim * PI**2 * u[None]}
        candidate = Candidate(points, given, {"potential": factor * u[None]}, {"potential": factor * slope[None]})
        return float(
            residual_of(problem, grid, dim * PI**2 * torch.ones(1, 1, *grid.shape).double(), candidate, balls)
            .abs()
            .max()
        )

    assert judged(1.0) < 1e-4  # R^2 pi^2 / 10
    assert judged(1.1) > 0.05


def test_burgers_accepts_a_travelling_front() -> None:
    """u = c - d tanh(d (x - c t) / 2 nu) for any c and d."""
    problem = registry.find_problem("burgers").build(viscosity=0.05, frames=4, spacing=0.25)
    grid = problem.grid(16)
    domain = problem.weak_domain(grid)
    assert [axis.name for axis in domain.axes] == ["x", "t"]
    assert domain.axes[1].upper == 1.0
    balls = draw_balls(
        domain, ball_rule(1, 5), 60, [1e-3], generator=torch.Generator().manual_seed(0), dtype=torch.float64
    )
    points = balls.points.requires_grad_()
    u = 0.3 - 0.4 * torch.tanh(0.4 * (points[:, 0] - 0.5 - 0.3 * points[:, 1]) / (2 * problem.viscosity))
    slope = torch.autograd.grad(u.sum(), points)[0]
    candidate = Candidate(points.detach(), {}, {"velocity": u.detach()[None]}, {"velocity": slope[None]})
    inputs = torch.ones(1, 1, 16, dtype=torch.float64)
    assert float(residual_of(problem, grid, inputs, candidate, balls).abs().max()) < 1e-4
    faster = Candidate(candidate.points, {}, {"velocity": 1.1 * u.detach()[None]}, candidate.gradients)
    assert float(residual_of(problem, grid, inputs, faster, balls).abs().max()) > 1e-2


def test_helmholtz_accepts_a_plane_wave_and_asks_for_slopes_on_its_edges() -> None:
    problem = registry.find_problem("helmholtz").build(omega=200.0, rule="dispersion")
    grid = problem.grid(33)
    k = problem.omega / problem.mean
    balls = draw_balls(
        grid, ball_rule(2, 5), 60, [0.005], generator=torch.Generator().manual_seed(0), dtype=torch.float64
    )

    def wave(points: Tensor) -> Candidate:
        u, slope = torch.cos(k * points[:, 0])[None], torch.zeros(1, len(points), 2, dtype=torch.float64)
        slope[0, :, 0] = -k * torch.sin(k * points[:, 0])
        speed = torch.full((1, len(points)), problem.mean, dtype=torch.float64)
        return Candidate(points, {"speed": speed}, {"amplitude": u}, {"amplitude": slope})

    inputs = torch.full((1, 1, *grid.shape), problem.mean, dtype=torch.float64)
    assert float(residual_of(problem, grid, inputs, wave(balls.points), balls).abs().max()) < 2e-3  # (k R)^2
    edges = problem.boundary_points(200, grid, generator=torch.Generator().manual_seed(0))
    asked = problem.conditions(wave(edges))["edges"][0]
    x, y = edges.unbind(1)
    right, window = x == 1, (y == 1) & ((x - 0.5).abs() < 0.15)
    torch.testing.assert_close(asked[right], torch.full_like(asked[right], -k * math.sin(k)), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(asked[window], torch.full_like(asked[window], -1.0))
    assert bool((asked[(y == 0) | ((y == 1) & ~window)] == 0).all())
    assert int(window.sum()) > 5


def test_stokes_accepts_a_parabolic_flow_from_its_stream_function() -> None:
    """u = 6 U y (1 - y), p = 12 mu U (length - x), psi = U (3 y^2 - 2 y^3)."""
    problem = registry.find_problem("stokes").build(radius=0.0)
    grid = problem.grid(17)

    def flow(points: Tensor) -> Candidate:
        y, zero = points[:, 1], torch.zeros_like(points[:, 1])
        p = 12 * problem.viscosity * (problem.length - points[:, 0])
        values = {"stream": (3 * y**2 - 2 * y**3)[None], "p": p[None]}
        slopes = {
            "stream": torch.stack([zero, 6 * y * (1 - y)], -1)[None],
            "p": torch.stack([zero - 12 * problem.viscosity, zero], -1)[None],
        }
        bends = torch.zeros(1, len(points), 2, 2, dtype=torch.float64)
        bends[0, :, 1, 1] = 6 - 12 * y
        outputs, gradients = problem.from_potentials(values, slopes, {"stream": bends, "p": 0 * bends})
        inflow = (6 * y * (1 - y))[None]
        return Candidate(points, {"inflow": inflow}, outputs, gradients)

    balls = draw_balls(
        grid, ball_rule(2, 5), 60, [0.01], generator=torch.Generator().manual_seed(0), dtype=torch.float64
    )
    inputs = torch.ones(1, 1, *grid.shape, dtype=torch.float64)
    assert float(residual_of(problem, grid, inputs, flow(balls.points), balls).abs().max()) < 1e-9
    edges = problem.boundary_points(200, grid, generator=torch.Generator().manual_seed(0))
    for residual in problem.conditions(flow(edges)).values():
        assert float(residual.abs().max()) < 1e-9


def test_stokes_derives_a_flow_without_sources_from_its_potential() -> None:
    """psi = x² y: u = x², v = -2 x y."""
    problem = registry.find_problem("stokes").build()
    points = torch.rand(5, 2, dtype=torch.float64)
    x, y = points.unbind(1)
    values = {"stream": (x**2 * y)[None], "p": x[None]}
    slopes = {"stream": torch.stack([2 * x * y, x**2], -1)[None], "p": torch.ones(1, 5, 2, dtype=torch.float64)}
    bend = torch.stack([torch.stack([2 * y, 2 * x], -1), torch.stack([2 * x, 0 * x], -1)], -2)[None]
    outputs, gradients = problem.from_potentials(values, slopes, {"stream": bend, "p": 0 * bend})
    torch.testing.assert_close(outputs["u"][0], x**2)
    torch.testing.assert_close(outputs["v"][0], -2 * x * y)
    torch.testing.assert_close(gradients["u"][0], torch.stack([2 * x, 0 * x], -1))
    torch.testing.assert_close(gradients["v"][0], torch.stack([-2 * y, -2 * x], -1))
    mass = problem.balances(Candidate(points, {}, outputs, gradients))["mass"]
    torch.testing.assert_close(mass.density, torch.zeros_like(mass.density))


def test_stokes_keeps_balls_off_the_cylinder_and_asks_for_rest_on_it() -> None:
    problem = registry.find_problem("stokes").build()
    grid = problem.grid(17)
    balls = draw_balls(grid, ball_rule(2, 4), 4000, [0.05], generator=torch.Generator().manual_seed(0))
    free = problem.clear(balls.centres, balls.radii)
    middle = torch.tensor([problem.centre_x, problem.centre_y], dtype=torch.float64)
    away = (balls.centres - middle).norm(dim=1)
    assert bool((away[free] >= 0.15 - 1e-6).all())
    assert bool((away[~free] < 0.15).all())
    points = problem.boundary_points(500, grid, generator=torch.Generator().manual_seed(0))
    on = ((points - middle).norm(dim=1) - problem.radius).abs() < 1e-12
    assert int(on.sum()) == 100
    moving = {name: torch.ones(1, 500, dtype=torch.float64) for name in ("u", "v", "p")}
    still = {name: torch.zeros(1, 500, 2, dtype=torch.float64) for name in ("u", "v", "p")}
    asked = problem.conditions(Candidate(points, {"inflow": 0 * moving["u"]}, moving, still))
    assert bool((asked["u"][0, on].abs() > 0).all() and (asked["v"][0, on].abs() > 0).all())


@pytest.mark.parametrize("law", ["two_phase", "log_normal"])
def test_darcy_is_the_flux_of_its_coefficient_fed_by_its_source(law: str) -> None:
    problem = registry.find_problem("darcy").build(law=law, source=3.0)
    points = torch.rand(7, 2, dtype=torch.float64)
    a, slope = torch.rand(1, 7, dtype=torch.float64), torch.rand(1, 7, 2, dtype=torch.float64)
    candidate = Candidate(points, {"coefficient": a}, {"pressure": a}, {"pressure": slope})
    balance = problem.balances(candidate)["flow"]
    torch.testing.assert_close(balance.flux, a[..., None] * slope)
    assert bool((balance.density == -3.0).all())
    assert problem.phases == ((3.0, 12.0) if law == "two_phase" else ())
    factor = problem.envelope(torch.tensor([[0.0, 0.5], [1.0, 0.5], [0.3, 1.0], [0.5, 0.5]]))["pressure"]
    torch.testing.assert_close(factor, torch.tensor([0.0, 0.0, 0.0, 1.0]))
