"""Fields of space and time: strong forms are those of the references, windows go on where the last one ended."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest
import torch
from resolvent.fields import siren
from resolvent.fields._march import scattered, state_at, steepness
from resolvent.fields._strong import SpaceTime, strong_form
from resolvent.pde import Axis, Grid
from resolvent.pde.advection import Advection
from resolvent.pde.allen_cahn import AllenCahn
from resolvent.pde.burgers import Burgers
from resolvent.pde.fisher_kpp import FisherKPP
from resolvent.pde.heat import Heat
from resolvent.pde.wave import Wave
from torch import Tensor


def relative(a: Tensor, b: Tensor) -> float:
    return float((a - b).norm() / b.norm())


@pytest.mark.parametrize("problem", [Burgers(), AllenCahn(), FisherKPP(), Heat(), Wave()], ids=lambda p: p.name)
def test_strong_forms_hold_for_the_reference(problem: Any) -> None:
    """Derivatives in space by Fourier's series, in time by differences of order 2 of three states 1e-3 apart."""
    grid, h = problem.grid(64), 1e-3
    x = grid.coordinates()[0]
    inputs = 0.5 + 0.4 * torch.sin(2 * math.pi * x) + 0.1 * torch.cos(4 * math.pi * x)
    inputs = torch.stack([inputs] * len(problem.signature.inputs))[None]
    before, u, after = problem.reference()(inputs, grid, [0.1 - h, 0.1, 0.1 + h])[0, :, 0]
    ik = 2j * math.pi * torch.fft.fftfreq(64, d=1 / 64, dtype=torch.float64)
    u_x, u_xx = (torch.fft.ifft(ik**m * torch.fft.fft(u)).real for m in (1, 2))
    u_t, u_tt = (after - before) / (2 * h), (after - 2 * u + before) / h**2
    strong = strong_form(problem)
    residual = strong.residual(SpaceTime(torch.stack([u, u_x, u_t, u_xx, u_tt], dim=1)))
    highest = u_tt if strong.order == 2 else u_t
    assert float(residual.norm()) < 1e-3 * float(highest.norm())


@pytest.mark.parametrize("boundary", ["periodic", "dirichlet", "neumann"])
def test_a_beginning_travels_as_waves_do(boundary: Any) -> None:
    """Displacement and velocity of every wave of the nodes are d'Alembert's, from wall to wall too: nothing is left to
    the network. Drawn at random, with waves up to the nodes' limit.
    """
    problem = Wave(frames=2, spacing=0.15, speed=1.5, boundary=boundary)
    grid = problem.grid(32)
    inputs = problem.sample(1, grid, generator=torch.Generator().manual_seed(3)).double()
    inputs = inputs + 0.3 * (boundary != "dirichlet")  # a mean, which moves on
    solver = siren.build(problem, grid, width=2, layers=1, windows=2, iterations=1, points=20)
    torch.testing.assert_close(solver(inputs, grid), problem.exact(inputs, grid), rtol=1e-9, atol=1e-9)
    assert solver.misfits[0] < 1e-9


def test_waves_that_do_not_travel_by_themselves_are_dalemberts_window_after_window() -> None:
    """One layer whose waves are those of the beginning in space, and in time those the equation makes of them: after
    3.6 periods of the faster wave 4e-4 in u and 1.6e-3 in its velocity were measured, ten times that with the slowest.
    """
    problem = Wave(boundary="dirichlet", speed=2.0, frames=2, spacing=0.45)
    grid = problem.grid(33)
    x = math.pi * grid.coordinates()[0]
    inputs = torch.stack([torch.sin(x) + 0.5 * torch.sin(4 * x), 0 * x])[None]
    solver = siren.build(problem, grid, width=200, layers=1, windows=2, iterations=1, points=700)
    solver.strong = dataclasses.replace(solver.strong, speed=0.0)
    fields, truth = solver.solve(inputs, grid, 0.9)[0], problem.exact(inputs, grid)[0]
    for time, exact in zip((0.45, 0.9), truth, strict=True):
        found = state_at(fields, time, grid.coordinates(), solver.strong)
        assert relative(found[0], exact[0]) < 2e-3, time
        assert relative(found[1], exact[1]) < 6e-3, time
    at = [state_at([field], 0.45, grid.coordinates(), solver.strong) for field in fields]
    torch.testing.assert_close(at[0], at[1], rtol=0, atol=1e-9)  # the second window begins where the first one ended


@pytest.mark.parametrize("boundary", ["dirichlet", pytest.param("neumann", marks=pytest.mark.slow)])
def test_heat_flows_between_walls_of_either_kind(boundary: Any) -> None:
    """Of some hundred weights: 1e-3."""
    shape = torch.sin if boundary == "dirichlet" else torch.cos
    problem = Heat(boundary=boundary, diffusivity=0.1, frames=1, spacing=0.2)
    grid = problem.grid(17)
    inputs = shape(math.pi * grid.mesh())[None]
    answer = siren.build(problem, grid, width=10, windows=1, iterations=20)(inputs, grid)
    assert relative(answer[0, 0], math.exp(-0.1 * math.pi**2 * 0.2) * inputs[0]) < 1e-3


def test_what_is_not_known_is_refused() -> None:
    with pytest.raises(ValueError, match="strong form"):
        siren.build(Advection(), Advection().grid(16))
    with pytest.raises(ValueError, match="windows"):
        siren.build(Heat(), Heat().grid(16), windows=0)


def test_points_gather_at_fronts_and_their_weights_keep_integrals() -> None:
    space = Grid.box(201, dim=1, lower=-1.0, boundary="dirichlet")
    box = Grid((*space.axes, Axis("t", 3, 0.5, 0.7, ("outflow", "outflow"), "ends")))
    density = steepness(torch.tanh(40 * space.mesh()[0]), space)
    points, weights = scattered(box, density, 20_000, torch.Generator().manual_seed(0))
    assert 0.5 <= float(points[:, 1].min()) <= float(points[:, 1].max()) <= 0.7
    assert float(points[:, 0].abs().max()) <= 1
    near = points[:, 0].abs() < 0.05
    assert float(near.double().mean()) > 0.4  # 5 % of the area
    # three deviations of 20,000 draws
    assert float((weights * points[:, 0].square()).mean()) == pytest.approx(1 / 3, abs=0.02)
    assert float((weights * near).mean()) == pytest.approx(0.05, abs=0.005)
