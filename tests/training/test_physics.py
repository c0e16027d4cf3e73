"""An equation as an objective: it vanishes for the solution and only there."""

from __future__ import annotations

import math

import pytest
import torch
from resolvent.pde import Grid
from resolvent.pde._weak_form import Functions, Lattice, Places, listed
from resolvent.pde.darcy import Darcy
from resolvent.pde.poisson import Poisson
from resolvent.pde.stokes import Stokes
from resolvent.training._physics import Answer, Between, Physics


def test_fields_between_nodes_are_splines_or_the_nearest_value() -> None:
    grid = Grid.box((6, 9), lower=(-1.0, 0.0), upper=(1.0, 3.0), boundary="dirichlet")
    x, y = grid.mesh()
    cubic = (x**3 - x * y**2 + y)[None]
    points = (
        torch.rand(30, 2, dtype=torch.float64) * torch.tensor([2.0, 3.0]).double() + torch.tensor([-1.0, 0.0]).double()
    )
    between = Between(grid, points)
    px, py = points.unbind(1)
    torch.testing.assert_close(between(cubic)[0], px**3 - px * py**2 + py, rtol=1e-10, atol=1e-10)
    slope = torch.stack([3 * px**2 - py**2, 1 - 2 * px * py], -1)
    torch.testing.assert_close(between.gradient(cubic)[0], slope, rtol=1e-9, atol=1e-9)
    steps = Between(grid, points, nearest=True)(x[None])[0]
    torch.testing.assert_close(steps, -1 + 0.4 * ((px + 1) / 0.4).round(), rtol=1e-10, atol=1e-10)


def test_the_objective_vanishes_for_the_solution_and_only_there() -> None:
    """Poisson with f = 2 pi² sin sin: residuals of R², and the energy is smallest at factor 1."""
    problem = Poisson()
    grid = problem.grid(33)
    sine = torch.sin(math.pi * grid.mesh())
    inputs = (2 * math.pi**2 * sine[0] * sine[1])[None, None]

    def loss(factor: float, **options: object) -> float:
        def ask(places: Places) -> Answer:
            points = listed(places)
            s, c = torch.sin(math.pi * points), torch.cos(math.pi * points)
            slope = math.pi * torch.stack([c[:, 0] * s[:, 1], s[:, 0] * c[:, 1]], -1)
            return Answer({"potential": factor * s.prod(1)[None]}, {"potential": factor * slope[None]})

        physics = Physics(problem, grid, radii=(0.02,), power=0.0, **options)
        return float(physics.loss(inputs, ask, torch.Generator().manual_seed(0)))

    assert loss(1.0) < 1e-6
    assert loss(1.05) == pytest.approx(0.05**2, rel=0.2)
    energies = [loss(factor, form="energy") for factor in (0.9, 1.0, 1.1)]
    assert energies[1] < min(energies[0], energies[2])
    # -1/2 of source times solution; mean squares over the nodes, walls included, are (32/33)² of the integrals
    assert energies[1] == pytest.approx(-0.5 * (33 / 32) ** 2, rel=0.02)


def test_a_two_phase_bar_has_no_mixed_residual() -> None:
    """a = 5 left of 7/16, 10 right of it, flux s = 3 - f x along x, u' = s / a: balance and law vanish on every ball,
    also across the interface, where the slope jumps and the strong residual does not exist. A flux whose divergence is
    right without the law, and a law that holds without the balance, are found out.
    """
    problem = Darcy(low=5.0, contrast=2.0, source=10.0)
    grid = problem.grid(9)
    inputs = torch.where(grid.mesh()[0] < 0.4, 5.0, 10.0)[None, None].double()
    physics = Physics(problem, grid, balls=200, radii=(0.02, 0.2), nodes=6)

    def loss(law: float = 1.0, more: float = 0.0, slope: float | None = None) -> float:
        """The flux of the law times a number, with more of it that has no divergence; or that of a given slope."""

        def ask(places: Places) -> Answer:
            x = listed(places)[:, 0]
            a = torch.where(x < 7 / 16, 5.0, 10.0).double()
            flux = 3 - 10 * x if slope is None else slope * a
            along = flux / a
            sides = torch.stack([along, torch.zeros_like(x)], dim=-1)[None]
            given = torch.stack([law * flux + more, torch.zeros_like(x)], dim=-1)[None]
            return Answer({"pressure": torch.zeros_like(x)[None]}, {"pressure": sides}, {"flow": given})

        return float(physics.loss(inputs, ask, torch.Generator().manual_seed(0)))

    assert loss() < 1e-20  # squares of 1e-15 / R, times the source
    assert loss(more=1.0) > 0.05 * 2**-4  # (1 / f l)², l a quarter: 0.16
    assert loss(law=1.1) > 0.01 * 0.5  # a tenth of the source, on the largest balls
    assert loss(slope=0.3) > 0.01  # the flux jumps, and feeds nothing elsewhere


class Holed(Stokes):
    """Says nothing about its obstacle."""

    def functions(self, waves: int) -> dict[str, Functions]:
        return {}


def test_the_dual_norm_of_a_residual_is_the_slope_of_the_error() -> None:
    """Of Poisson with u = sin sin times a factor: |grad e|² / (s l)², s the source's root mean square pi² (32/33), l 1/4."""
    problem = Poisson()
    grid = problem.grid(33)
    sine = torch.sin(math.pi * grid.mesh())
    inputs = (2 * math.pi**2 * sine[0] * sine[1])[None, None]
    physics = Physics(problem, grid, form="dual")

    def loss(factor: float) -> float:
        def ask(places: Places) -> Answer:
            assert isinstance(places, Lattice)
            s, c = torch.sin(math.pi * places.points), torch.cos(math.pi * places.points)
            slope = math.pi * torch.stack([c[:, 0] * s[:, 1], s[:, 0] * c[:, 1]], -1)
            return Answer({"potential": factor * s.prod(1)[None]}, {"potential": factor * slope[None]})

        return float(physics.loss(inputs, ask, torch.Generator().manual_seed(0)))

    size = (math.pi**2 * 32 / 33 / 4) ** 2
    assert loss(1.05) == pytest.approx(0.05**2 * math.pi**2 / 2 / size, rel=1e-3)  # splines of the source: 1e-4 of it
    assert loss(1.0) < 1e-6 * loss(0.0)
    with pytest.raises(ValueError, match="obstacle"):
        Physics(Holed(), Holed().grid(17), form="dual")
