"""What every field promises: exact derivatives, periods, conditions, no divergence, refusals."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from resolvent.fields import finer, fkan, gauss, kaf, neurbf, pref, rff, series, siren, winner, wire
from resolvent.fields._conditions import AxisBasis, interpolated
from resolvent.fields._field import Field, on_grid
from resolvent.fields._jet import Jet, by_forward_mode
from resolvent.fields._jet import seed as seed_jet
from resolvent.pde import Axis, Condition, Grid
from torch import Tensor

TORUS = Grid.box((8, 8), dim=2, upper=(2.0, 1.0))
WALLS = Grid.box((9, 7), dim=2, lower=(0.0, 1.0), upper=(2.0, 1.5), boundary="dirichlet")
MIXED = Grid((Axis("t", 9, 0.0, 0.5, ("dirichlet", "outflow"), "ends"), Axis("x", 8, -1.0, 1.0)))
# double precision: nested products of a few dozen terms
ROUND = {"rtol": 1e-9, "atol": 1e-10}

SMALL: dict[str, Any] = {"width": 10, "dtype": torch.float64}
FIELDS: dict[str, Callable[..., Field]] = {
    "siren": lambda d, c=1, **k: siren.field(d, c, **SMALL, **k),
    "winner": lambda d, c=1, **k: winner.field(d, c, bandwidth=[4.0] * d.dim, **SMALL, **k),
    "fkan": lambda d, c=1, **k: fkan.field(d, c, widths=(8, 9), harmonics=4, dtype=torch.float64, **k),
    "fkan tanh": lambda d, c=1, **k: fkan.field(
        d, c, widths=(8, 9), harmonics=4, gate="tanh", dtype=torch.float64, **k
    ),
    "finer": lambda d, c=1, **k: finer.field(d, c, spread=5.0, omega=3.0, **SMALL, **k),
    "gauss": lambda d, c=1, **k: gauss.field(d, c, sharpness=1.0, **SMALL, **k),
    "rff": lambda d, c=1, **k: rff.field(d, c, features=8, **SMALL, **k),
    "wire": lambda d, c=1, **k: wire.field(d, c, omega=5.0, decay=2.0, **SMALL, **k),
    "kaf": lambda d, c=1, **k: kaf.field(d, c, bandwidth=[4.0] * d.dim, **SMALL, **k),
    "pref": lambda d, c=1, **k: pref.field(d, c, modes=2, reduced=3, **SMALL, **k),
    "neurbf": lambda d, c=1, **k: neurbf.field(d, c, centres=20, features=6, cells=3, **SMALL, **k),
    "neurbf quadratic": lambda d, c=1, **k: neurbf.field(
        d, c, centres=20, features=6, cells=3, kernel="quadratic", **SMALL, **k
    ),
    "series": lambda d, c=1, **k: some_series(d, c, **k),
}


def some_series(domain: Grid, channels: int = 1, **promises: Any) -> Field:
    field = series.field(domain, channels, modes=4, dtype=torch.float64, **promises)
    weight = field.network.weight
    with torch.no_grad():
        weight.copy_(torch.randn(weight.shape, generator=torch.Generator().manual_seed(4)))
    return field


def inside(grid: Grid, count: int = 7) -> Tensor:
    unit = torch.rand(count, grid.dim, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    return unit * torch.tensor(grid.lengths, dtype=torch.float64) + torch.tensor([a.lower for a in grid.axes])


def reference(field: Field, points: Tensor, second: Any) -> Jet:
    return by_forward_mode(lambda x: field.jet(x).value, points, second=second)


@pytest.mark.parametrize("domain", [TORUS, WALLS, MIXED], ids=["torus", "walls", "mixed"])
@pytest.mark.parametrize("name", FIELDS)
def test_one_pass_gives_the_derivatives_of_nested_forward_mode(name: str, domain: Grid) -> None:
    field, points = FIELDS[name](domain, 2), inside(domain)
    for second in ("laplacian", "axes"):
        jet, expected = field.jet(points, second=second), reference(field, points, second)
        for got, wanted in zip(jet.orders, expected.orders, strict=True):
            torch.testing.assert_close(got, wanted, rtol=1e-9, atol=1e-10 * float(1 + wanted.detach().abs().max()))
    value, gradient, laplacian = field.value_gradient_laplacian(points)
    assert gradient.shape == (7, 2, 2)
    torch.testing.assert_close(value, field(points), **ROUND)
    torch.testing.assert_close(laplacian, expected.seconds.sum(dim=0), rtol=1e-9, atol=1e-8)


def test_derivatives_are_in_physical_units() -> None:
    """Central differences of step 1e-5 in metres: of order 1e-10 / 1e-5 in rounding, 1e-10 in truncation."""
    field, points = FIELDS["siren"](WALLS, 1, omega=5.0, first=5.0), inside(WALLS)
    for j in range(2):
        step = torch.zeros(2, dtype=torch.float64)
        step[j] = 1e-5
        slope = (field.jet(points + step).value - field.jet(points - step).value) / 2e-5
        torch.testing.assert_close(field.jet(points, gradient=True).first[j], slope, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("name", FIELDS)
def test_periodic_axes_are_periodic_in_all_derivatives(name: str) -> None:
    field, points = FIELDS[name](TORUS), inside(TORUS)
    here, there = (field.jet(points + shift, second="axes").orders for shift in (0.0, torch.tensor([-2.0, 3.0])))
    torch.testing.assert_close(there, here, rtol=1e-8, atol=1e-9 * float(here.detach().abs().max()))


def test_training_leaves_the_periods_whole() -> None:
    field, points = FIELDS["siren"](TORUS), inside(TORUS)
    optimiser = torch.optim.Adam(field.parameters(), lr=1e-2)
    for _ in range(3):
        optimiser.zero_grad()
        (field(points) - 1).square().mean().backward()
        optimiser.step()
    torch.testing.assert_close(field(points + torch.tensor([2.0, 0.0])), field(points), **ROUND)


@pytest.mark.parametrize("name", ["siren", "fkan", "wire"])
def test_conditions_hold_on_every_face_and_leave_the_rest_free(name: str) -> None:
    """The traces of one smooth function: on the nodes of the faces to rounding, derivatives of the lift exact."""
    x, y = WALLS.mesh()
    g = torch.sin(2 * x) * torch.cos(3 * y) + x * y
    conditions = [
        Condition(axis, end, g.select(axis, 0 if end == "lower" else -1)[None])
        for axis in (0, 1)
        for end in ("lower", "upper")
    ]
    field = FIELDS[name](WALLS, conditions=conditions)
    got = on_grid(field, WALLS, dtype=torch.float64)[0]
    edge = torch.ones(WALLS.shape, dtype=torch.bool)
    edge[1:-1, 1:-1] = False
    torch.testing.assert_close(got[edge], g[edge], rtol=0, atol=1e-12)
    assert float((got - g)[~edge].abs().min()) > 1e-6
    points = inside(WALLS)
    expected = reference(field, points, "axes").orders
    torch.testing.assert_close(field.jet(points, second="axes").orders, expected, rtol=1e-7, atol=1e-7)


def test_an_initial_value_holds_on_a_periodic_axis() -> None:
    x = MIXED.axes[1].coordinates()
    field = FIELDS["winner"](MIXED, conditions=[Condition(0, "lower", torch.sin(math.pi * x)[None])])
    there = torch.stack([torch.zeros(5), torch.linspace(-1, 1, 5)], dim=1).double()
    torch.testing.assert_close(field(there)[:, 0], torch.sin(math.pi * there[:, 1]), rtol=0, atol=1e-12)


@pytest.mark.parametrize("boundary", ["periodic", "dirichlet"])
def test_lifts_are_interpolants_of_high_order(boundary: str) -> None:
    """Splines of degree 7: order 8, of second derivatives 6; trigonometric interpolants of one wave are exact."""
    errors = []
    for n in (16, 32):
        axis = Grid.box(n, dim=1, boundary=boundary).axes[0]  # type: ignore[arg-type]
        points = torch.linspace(0, 1, 37, dtype=torch.float64)[:, None]
        wave = torch.sin(2 * math.pi * axis.coordinates())
        jet = interpolated([AxisBasis(axis)], [seed_jet(points, second="axes")], wave)
        exact = torch.sin(2 * math.pi * points)
        bend = jet.seconds[0] / -((2 * math.pi) ** 2)
        errors.append([float((got - exact).abs().max()) for got in (jet.value, bend)])
    if boundary == "periodic":
        assert max(max(pair) for pair in errors) < 1e-11
    else:  # one-sided at the ends, where half an order is allowed for
        orders = [math.log2(a / b) for a, b in zip(*errors, strict=True)]
        assert orders[0] > 7.5
        assert orders[1] > 5.5


@pytest.mark.parametrize("dim", [2, 3])
def test_solenoidal_fields_have_no_divergence(dim: int) -> None:
    domain = Grid.box((8,) * dim, dim=dim)
    field = siren.field(domain, dim, form="solenoidal", **SMALL)
    points = inside(domain)
    first = field.jet(points, gradient=True).first
    divergence = torch.stack([first[j, :, j] for j in range(dim)]).sum(dim=0).detach()
    assert float(divergence.abs().max()) < 1e-11 * float(first.detach().abs().max())
    assert field(points).shape == (7, dim)
    assert float(first.detach().abs().max()) > 1.0


def test_positive_fields_are_positive_and_know_their_derivatives() -> None:
    field, points = FIELDS["siren"](WALLS, form="positive", mean=(-3.0,), scale=(50.0,)), inside(WALLS)
    assert float(field(points).min()) > 0
    torch.testing.assert_close(
        field.jet(points, second="axes").orders, reference(field, points, "axes").orders, rtol=1e-8, atol=1e-8
    )


def test_points_outside_are_refused_unless_asked_for() -> None:
    field = FIELDS["siren"](MIXED)
    far = torch.tensor([[0.6, 0.0]], dtype=torch.float64)
    with pytest.raises(ValueError, match=r"outside t in \[0, 0.5\]"):
        field(far)
    assert field(far, extrapolate=True).shape == (1, 1)
    field(torch.tensor([[0.1, 17.0]], dtype=torch.float64))  # x is periodic: no outside
    with pytest.raises(ValueError, match="2 coordinates"):
        field(torch.zeros(3, 1, dtype=torch.float64))
    with pytest.raises(ValueError, match="outside"):
        field(torch.tensor([[math.nan, 0.0]], dtype=torch.float64))


@pytest.mark.parametrize("name", FIELDS)
def test_float32_and_float64_are_the_same_network(name: str) -> None:
    """One seed, one draw; float32 rounds phases of up to some 30 radians."""
    double = FIELDS[name](WALLS)
    single = FIELDS[name](WALLS).float() if name != "wire" else None
    if single is None:
        single = wire.field(WALLS, omega=5.0, decay=2.0, width=10)
    points = inside(WALLS)
    torch.testing.assert_close(single(points.float()).double(), double(points), rtol=1e-3, atol=1e-4)


def test_a_field_survives_saving() -> None:
    field, points = FIELDS["rff"](TORUS), inside(TORUS)
    other = rff.field(TORUS, features=8, seed=5, **SMALL)
    assert not torch.equal(other(points), field(points))
    other.load_state_dict(field.state_dict())
    assert torch.equal(other(points), field(points))


def test_a_beginning_spreads_as_heat_and_is_seen_by_the_network() -> None:
    """On a periodic axis the lift is the heat equation's solution; the jet with the lift as a coordinate is exact."""
    grid = Grid((Axis("x", 16, -1.0, 1.0), Axis("t", 5, 0.5, 1.0, ("outflow", "outflow"), "ends")))
    x = grid.axes[0].coordinates()
    start = [Condition(1, "lower", (1 + torch.sin(3 * math.pi * x))[None])]
    field = siren.field(grid, conditions=start, sees_lift=True, diffusivity=0.02, **SMALL)
    points = inside(grid)
    decay = torch.exp(-0.02 * (3 * math.pi) ** 2 * (points[:, 1] - 0.5))
    lift = field.lift(seed_jet(points))[0].value[:, 0]  # type: ignore[misc]
    torch.testing.assert_close(lift, 1 + decay * torch.sin(3 * math.pi * points[:, 0]), rtol=0, atol=1e-12)
    expected = reference(field, points, "axes").orders
    torch.testing.assert_close(field.jet(points, second="axes").orders, expected, rtol=1e-7, atol=1e-7)
    blind = siren.field(grid, conditions=start, diffusivity=0.02, **SMALL)
    assert field.network.linears[0].in_features == 1 + blind.network.linears[0].in_features  # type: ignore[union-attr, index, operator]
    with pytest.raises(ValueError, match="lift"):
        siren.field(grid, sees_lift=True, **SMALL)


def test_a_beginning_travels_as_waves_do() -> None:
    """On one periodic axis of space the lift of values and slopes is d'Alembert's solution; its jet is exact."""
    grid = Grid((Axis("x", 16, -1.0, 1.0), Axis("t", 5, 0.5, 1.5, ("outflow", "outflow"), "ends")))
    x, k, c = grid.axes[0].coordinates(), 3 * math.pi, 1.7
    start = [Condition(1, "lower", v[None], order=m) for m, v in enumerate((torch.sin(k * x), 2 + torch.cos(k * x)))]
    field = siren.field(grid, conditions=start, speed=c, **SMALL)
    points = inside(grid)
    at, t = k * points[:, 0], points[:, 1] - 0.5
    expected = torch.cos(c * k * t) * torch.sin(at) + 2 * t + torch.sin(c * k * t) / (c * k) * torch.cos(at)
    lift = field.lift(seed_jet(points))[0].value[:, 0]  # type: ignore[misc]
    torch.testing.assert_close(lift, expected, rtol=0, atol=1e-12)
    expected = reference(field, points, "axes").orders
    torch.testing.assert_close(field.jet(points, second="axes").orders, expected, rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("ends", [("lower", "upper"), ("lower",), ("upper",)])
def test_slopes_and_values_hold_together(ends: tuple[str, ...]) -> None:
    """Slopes on faces of x, values on those of y, from one smooth function; corners agree."""
    x, y = WALLS.mesh()
    g = torch.sin(2 * x) * torch.cos(3 * y) + x * y
    slope = 2 * torch.cos(2 * x) * torch.cos(3 * y) + y
    conditions = [Condition(0, e, slope.select(0, 0 if e == "lower" else -1)[None], order=1) for e in ends]  # type: ignore[arg-type]
    conditions += [Condition(1, e, g.select(1, 0 if e == "lower" else -1)[None]) for e in ("lower", "upper")]  # type: ignore[arg-type]
    field = siren.field(WALLS, conditions=conditions, **SMALL)
    nodes = WALLS.mesh().flatten(1).t()
    jet = field.jet(nodes, second="axes")
    u, u_x = (v[:, 0].reshape(WALLS.shape).detach() for v in (jet.value, jet.first[0]))
    # at the corners the slope is given, and is that of the values given: alike within a spline's error on 9 nodes
    for e in ends:
        face = 0 if e == "lower" else -1
        torch.testing.assert_close(u_x[face], slope[face], rtol=0, atol=2e-2)
    torch.testing.assert_close(u[:, [0, -1]], g[:, [0, -1]], rtol=0, atol=1e-10)
    expected = reference(field, inside(WALLS), "axes").orders
    torch.testing.assert_close(field.jet(inside(WALLS), second="axes").orders, expected, rtol=1e-7, atol=1e-7)
