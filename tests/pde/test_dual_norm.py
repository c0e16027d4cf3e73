"""The dual norm of residuals: closed forms, box = general, and functions that satisfy a channel's conditions."""

from __future__ import annotations

import math

import pytest
import torch
from resolvent.pde import Axis, Grid
from resolvent.pde._channel_functions import Channel
from resolvent.pde._dual_norm import BoxNorm, TestedNorm, derivatives, whitened
from resolvent.pde._eigenfunctions import family
from resolvent.pde._weak_form import Balance, Candidate, Lattice
from resolvent.pde.helmholtz import Helmholtz
from resolvent.pde.stokes import Stokes
from torch import Tensor

PI = math.pi
TestedNorm.__test__ = False  # type: ignore[attr-defined]  # pytest collects what begins like this


def gauss(count: int) -> tuple[Tensor, Tensor]:
    import numpy as np

    points, weights = np.polynomial.legendre.leggauss(count)
    return torch.from_numpy(points + 1) / 2, torch.from_numpy(weights / 2)


def test_of_one_wave_it_is_its_density_over_the_root_of_the_eigenvalue() -> None:
    grid = Grid.box((9, 9), lower=(0.0, -1.0), upper=(2.0, 2.0), boundary="dirichlet")
    norm = BoxNorm(grid, 2, waves=[6, 6], nodes=[16, 16])
    assert isinstance(norm.places, Lattice)
    x, y = norm.places.points.unbind(1)
    density = 5.0 * torch.sin(3 * PI * x / 2) * torch.sin(2 * PI * (y + 1) / 3)  # mean square 25 / 4
    level = (3 * PI / 2) ** 2 + (2 * PI / 3) ** 2
    square = norm.square(Balance(torch.zeros(1, len(x), 2, dtype=torch.float64), density[None]))
    assert float(square) == pytest.approx(25 / 4 / level, rel=1e-9)
    # the gradient of a wave, as a flux: integrating by parts gives its eigenvalue times the wave
    flux = torch.stack(
        [
            3 * PI / 2 * torch.cos(3 * PI * x / 2) * torch.sin(2 * PI * (y + 1) / 3),
            2 * PI / 3 * torch.sin(3 * PI * x / 2) * torch.cos(2 * PI * (y + 1) / 3),
        ],
        dim=-1,
    )
    square = norm.square(Balance(flux[None], torch.zeros_like(density)[None]))
    assert float(square) == pytest.approx(level / 4, rel=1e-9)


def test_a_periodic_axis_and_an_evolution() -> None:
    """Waves of the circle; of an evolution the mean over time."""
    circle = Grid.box(8, upper=2.0)
    norm = BoxNorm(circle, 1, waves=[7], nodes=[16])
    assert isinstance(norm.places, Lattice)
    x = norm.places.points[:, 0]
    square = norm.square(Balance(torch.zeros(1, 16, 1, dtype=torch.float64), torch.sin(2 * PI * x)[None]))
    assert float(square) == pytest.approx(0.5 / (2 * PI) ** 2, rel=1e-12)
    time = Axis("t", 5, 0.0, 3.0, ("neumann", "outflow"), "ends", "s")
    norm = BoxNorm(Grid((*Grid.box(8, boundary="dirichlet").axes, time)), 1, waves=[5], nodes=[12])
    assert isinstance(norm.places, Lattice)
    x, t = norm.places.points.unbind(1)
    square = norm.square(Balance(torch.zeros(1, len(x), 1, dtype=torch.float64), (t * torch.sin(PI * x))[None]))
    assert float(square) == pytest.approx(0.5 * 3.0 / PI**2, rel=1e-9)  # the mean of t² up to 3 is 3


def test_between_neumann_walls_it_is_the_slope_of_the_error_of_what_they_feed() -> None:
    """-Delta u - k² u = 0 with slope 1 at y = 1: u = -cos(k y) / (k sin k). With a stiffness of lambda - k² the norm of
    an error is its slope, near resonance or far from it.
    """
    k, waves = 2.0, [6, 8]
    load = torch.zeros(waves, dtype=torch.float64)
    load[0] = (-1.0) ** torch.arange(8)
    grid = Grid.box((9, 9), boundary="neumann")
    options = {"waves": waves, "nodes": [16, 40], "stiffness": lambda squares: squares - k**2}
    norm = BoxNorm(grid, 2, fed={"wave": load}, **options)
    assert isinstance(norm.places, Lattice)
    x, y = norm.places.points.unbind(1)
    exact, rising = -torch.cos(k * y) / (k * math.sin(k)), torch.sin(k * y) / math.sin(k)

    def square(size: float, tested: BoxNorm = norm) -> float:
        value = exact + size * torch.cos(3 * PI * x) * torch.cos(2 * PI * y)
        along = -size * 3 * PI * torch.sin(3 * PI * x) * torch.cos(2 * PI * y)
        up = rising - size * 2 * PI * torch.cos(3 * PI * x) * torch.sin(2 * PI * y)
        return float(tested.square(Balance(torch.stack([along, up], -1)[None], -(k**2) * value[None]), "wave"))

    assert square(0.0) < 1e-20
    assert square(0.1) == pytest.approx(0.01 * 13 * PI**2 / 4, rel=1e-9)
    nothing = BoxNorm(grid, 2, fed={"wave": 0 * load}, **options)
    assert square(0.0, nothing) > 0.1


def test_helmholtz_is_fed_through_the_window_of_its_edge() -> None:
    problem = Helmholtz()
    load = problem.fed([30, 5])["wave"]
    nodes, weights = gauss(60)
    x = 0.35 + 0.3 * nodes
    expected = 0.3 * torch.cos(PI * torch.arange(30)[:, None].double() * x) @ weights
    torch.testing.assert_close(load[:, 0], expected, rtol=0, atol=1e-12)
    torch.testing.assert_close(load[:, 3], -expected, rtol=0, atol=1e-12)


def test_on_a_box_declared_tests_and_sines_say_the_same() -> None:
    grid = Grid.box((9, 9), boundary="dirichlet")
    box = BoxNorm(grid, 2, waves=[4, 4], nodes=[14, 14])
    assert isinstance(box.places, Lattice)
    weights = torch.outer(gauss(14)[1], gauss(14)[1]).flatten()

    def mixed(points: Tensor) -> Tensor:
        """The same sixteen sines, in other combinations."""
        sines = (family("sine", 4, points[:, 0], 0)[:, :, None] * family("sine", 4, points[:, 1], 0)[:, None]).flatten(
            1
        )
        return sines @ (torch.eye(16, dtype=torch.float64) + torch.ones(16, 16, dtype=torch.float64).triu())

    general = TestedNorm(box.places.points, weights, mixed)
    generator = torch.Generator().manual_seed(0)
    balance = Balance(
        torch.randn(3, 196, 2, generator=generator, dtype=torch.float64),
        torch.randn(3, 196, generator=generator, dtype=torch.float64),
    )
    torch.testing.assert_close(general.square(balance), box.square(balance), rtol=1e-4, atol=0)  # kept in float32


def test_whitening_leaves_out_what_depends_on_the_rest() -> None:
    rows = torch.randn(50, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    rows = torch.cat([rows, rows[:, :1] - rows[:, 1:2]], dim=1)
    weights = torch.rand(50, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    basis = whitened(rows, weights)
    assert basis.shape == (5, 4)
    gram = (rows @ basis).t() @ (weights[:, None] * (rows @ basis))
    torch.testing.assert_close(gram, torch.eye(4, dtype=torch.float64), rtol=0, atol=1e-10)


@pytest.mark.parametrize("radius", [0.1, 0.0])
def test_stream_functions_that_are_declared_slip_nowhere_and_tests_vanish_where_the_flow_is_held(radius: float) -> None:
    problem = Stokes(radius=radius)
    edge = problem.boundary_points(200, problem.grid(9), generator=torch.Generator().manual_seed(0))
    x, y = edge.unbind(1)
    inlet, outlet = x == 0, x == problem.length
    held = ~inlet & ~outlet
    stream = problem.functions(6)["stream"].call
    slopes = derivatives(stream, edge)[1]
    inner = derivatives(stream, torch.tensor([[1.3, 0.31]], dtype=torch.float64))[1]
    assert float(slopes[held | inlet].abs().max()) < 1e-9 * float(inner.abs().max())
    # what the inflow carries has no velocity on walls and cylinder, and is the inflow where it comes in
    carried = problem.functions(6)["stream"].carried
    assert carried is not None
    entering = torch.sin(PI * y) * (1 + torch.sin(2 * y) + torch.cos(3 * y))
    across = carried.sensors[:, 1]
    given = torch.sin(PI * across) * (1 + torch.sin(2 * across) + torch.cos(3 * across))
    slopes = (derivatives(carried.call, edge)[1] * (carried.weights @ given)[:, None]).sum(dim=1)
    assert float(slopes[held].abs().max()) < 1e-12
    # coefficients fall like k^-3: the 24 sines leave 2e-4 of the largest
    torch.testing.assert_close(slopes[inlet, 1], entering[inlet], rtol=0, atol=2e-3)
    assert float(slopes[inlet, 0].abs().max()) < 1e-12
    values = problem.tests(6)(edge)
    assert float(values[held | inlet].abs().max()) < 1e-9 < 1e-3 < float(values[outlet].abs().max())


def test_rings_live_inside_the_channel() -> None:
    where = Channel(2.0, (0.5, 0.6), 0.1)
    beyond = torch.tensor([[0.5, 0.999], [0.05, 0.6], [1.5, 0.5], [0.5, 0.21]], dtype=torch.float64)
    assert float(where.rings(beyond, 3, 2, power=0).abs().max()) == 0.0
    on = torch.tensor([[0.6, 0.6], [0.5, 0.7]], dtype=torch.float64)
    # at the angle 0: one radial wave times cosines 1, sines 0; at the angle pi / 2 cos 2 theta is -1
    expected = torch.tensor([[1, 1, 1, 0, 0], [1, 0, -1, 1, 0]], dtype=torch.float64)
    torch.testing.assert_close(where.rings(on, 1, 2, power=0), expected, rtol=0, atol=1e-12)
    assert where.rings(on, 2, 3, power=1).shape == (2, 2 * 7)


def test_a_parabolic_flow_has_no_residual_in_an_empty_channel_and_a_wrong_pressure_has() -> None:
    """u = y (1 - y), p = 2 mu (L - x) leaves as it came: natural at the outflow up to its normal stress -p = 0."""
    problem = Stokes(radius=0.0)
    norm = TestedNorm(*problem.quadrature(), problem.tests(6))
    points = norm.places.double()

    def total(factor: float) -> float:
        y = points[:, 1]
        slope = torch.stack([torch.zeros_like(y), 1 - 2 * y], dim=1)
        outputs = {"u": (y * (1 - y))[None], "v": 0 * y[None], "p": factor * 2 * 0.01 * (2.0 - points[:, 0])[None]}
        gradients = {"u": slope[None], "v": 0 * slope[None], "p": 0 * slope[None]}
        balances = problem.balances(Candidate(points, {}, outputs, gradients))
        return sum(float(norm.square(balance)) for name, balance in balances.items() if name != "mass")

    assert total(1.0) < 1e-9 * total(0.0)
