"""The published method: its oracle to all digits, its gradient, its variants."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from resolvent.gp._eliminate import eliminate
from resolvent.gp._map import Map, Published
from resolvent.gp.gp import build
from resolvent.pde import Grid
from resolvent.pde._equation import Equation
from resolvent.pde._high_frequency import HighFrequency
from resolvent.pde.high_frequency_allen_cahn import HighFrequencyAllenCahn
from resolvent.pde.high_frequency_poisson import HighFrequencyPoisson

P1 = HighFrequencyPoisson(case="p1", spread=0.0)
SMALL = Published(components=4, highest=2.0, steps=20)


def posed(problem: HighFrequency, nodes: int) -> tuple[Equation, Grid]:
    grid = problem.grid(nodes)
    return problem.equation(problem.sample(1, grid, generator=torch.Generator().manual_seed(0)), grid), grid


def mild(equation: Equation) -> Equation:
    """With a source of size 1: differences of an objective of 1e9 would be rounding, Newton's method would wander."""
    return dataclasses.replace(equation, source=equation.source / equation.source.abs().max())


def error_of(solver: Map, problem: HighFrequency) -> float:
    points = problem.grid(300).coordinates()
    truth = problem.solution.field(points)
    return float((solver.answer()(points)[0] - truth).norm() / truth.norm())


def settled(solver: Map, seed: int = 0) -> Map:
    """A state away from the start, at which nothing is zero by symmetry."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for unknown in solver._unknowns():
            unknown += 0.1 * torch.randn(unknown.shape, generator=generator, dtype=torch.float64)
    return solver


def test_the_oracle_to_all_digits() -> None:
    """P1, Student-t mixture, 400 nodes: the authors' log of a 100-step run says 0.27562065."""
    found: dict[int, float] = {}
    losses: list[float] = []
    solver = Map(*posed(P1, 400), Published(steps=96))

    def each(step: int, loss: float) -> bool:
        losses.append(loss)
        if step in (0, 50, 95):
            found[step] = error_of(solver, P1)
        return False

    solver.run(each)
    assert losses[0] == pytest.approx(9.975e9, rel=1e-4)
    assert {step: f"{error:.8f}" for step, error in found.items()} == {
        0: "0.98719619",
        50: "0.49769030",
        95: "0.27562065",
    }


@pytest.mark.slow
def test_two_dimensions_against_the_published_log() -> None:
    """P2D-1 on 400² nodes: the smallest error of steps 0, 5, ..., 95 is 0.46758844 in the authors' log.

    Three digits of it are the method's, the others rounding: presumably because Adam divides a gradient by its own size,
    so that nodes whose slope is rounding (corners, where source and data vanish) move as far as any. Measured: a change of 1e-15 in the initial values moves
    our 0.46766 by 8e-6, another order of summation by 4e-5; the strict conditional mean in place of the authors' would
    move it by 5e-3.
    """
    problem, errors = HighFrequencyPoisson(case="p2d1", spread=0.0), []
    solver = Map(*posed(problem, 400), Published(steps=96))
    solver.run(lambda step, loss: bool(step % 5 == 0 and errors.append(error_of(solver, problem))))
    assert min(errors) == pytest.approx(0.46758844, abs=2e-4)


@pytest.mark.slow
def test_a_frequency_finds_the_wave_and_the_others_fade() -> None:
    """P1: 100 / (2 pi) = 15.915 is reached by 5000 steps, weights follow later (the dossier's check 6).

    There the top weight is 0.033 at the start and 0.035 after 10,000 steps.
    """
    solver, rows = Map(*posed(P1, 400), Published(steps=10_000)), []

    def each(step: int, loss: float) -> bool:
        if step == 0 or step % 1000 == 999:
            (spectrum,) = solver.state.process.spectra
            weights, frequencies = spectrum.log_weights.detach().exp(), spectrum.frequencies.detach()
            away = (frequencies - 100 / (2 * math.pi)).abs()
            top = weights.argmax()
            rows.append((float(away.min()), float(away[top]), float(weights[top]), float(weights[away > 0.05].mean())))
        return False

    solver.run(each)
    nearest, of_top, top, rest = map(list, zip(*rows, strict=True))
    assert nearest[0] > 0.05
    assert nearest[5] < 0.01  # after 5000 steps
    assert of_top[5] > 1.0  # not the heaviest yet
    assert of_top[-1] < 0.001
    assert (top[0], top[-1]) == (pytest.approx(0.033, abs=5e-4), pytest.approx(0.035, abs=5e-4))
    assert all(after < before for before, after in zip(rest[5:], rest[6:], strict=False))


@pytest.mark.slow
def test_below_the_nyquist_limit_nothing_helps() -> None:
    """P3 on [0, 2 pi]: 200 nodes see 16.9 cycles as an alias, 300 nodes do not (the dossier's check 5).

    300 nodes: 0.22 after 8000 steps, 0.06 after 16,000, 6e-5 after 28,000.
    """
    problem = HighFrequencyPoisson(case="p3", spread=0.0)
    errors = {}
    for nodes in (200, 300):
        errors[nodes] = error_of(Map(*posed(problem, nodes), Published(steps=32_000)).run(), problem)
    assert errors[200] > 0.5
    assert errors[300] < 1e-4


@pytest.mark.parametrize("mixture", ["matern", "squared_exponential"])
def test_sums_without_cosines_do_not_find_waves(mixture: str) -> None:
    """The dossier's check 5: they stay above 1e-2 on P1 (the Gaussian mixture ends at 4e-3 with these settings)."""
    settings = Published(mixture=mixture, components=10, steps=40, optimiser="lbfgs", eliminated=True)  # type: ignore[arg-type]
    problem = HighFrequencyPoisson(case="p1", spread=0.0)
    assert error_of(Map(*posed(problem, 300), settings).run(), problem) > 1e-2


@pytest.mark.parametrize("case", ["p2", "ac1", "p2d2"])
@pytest.mark.parametrize("mixture", ["student", "gaussian", "matern", "squared_exponential"])
def test_the_gradient_against_central_differences(case: str, mixture: str) -> None:
    """1e-6 relative (the dossier's check 4), the worst over all unknowns measured against the largest slope."""
    problem = (HighFrequencyAllenCahn if case.startswith("ac") else HighFrequencyPoisson)(case=case, spread=0.0)
    settings = dataclasses.replace(SMALL, mixture=mixture, jitter=1e-3)
    equation, grid = posed(problem, 9 if case == "p2d2" else 17)
    solver = settled(Map(mild(equation), grid, settings))
    unknowns = solver._unknowns()
    slopes = torch.autograd.grad(solver.loss(), unknowns)
    for unknown, slope in zip(unknowns, slopes, strict=True):
        flat, numbers = unknown.detach().view(-1), range(0, unknown.numel(), max(1, unknown.numel() // 4))
        for i in numbers:
            ends = []
            for step in (1e-5, -2e-5):
                flat[i] += step
                ends.append(float(solver.loss().detach()))
            flat[i] += 1e-5
            assert (ends[0] - ends[1]) / 2e-5 == pytest.approx(
                float(slope.view(-1)[i]), rel=1e-6, abs=2e-6 * float(slope.abs().max())
            )


def test_the_objective_term_by_term() -> None:
    """Against dense matrices, with the boundary weight on the logarithm too."""
    equation, grid = posed(HighFrequencyPoisson(case="p2d2", spread=0.0), 6)
    solver = settled(Map(equation, grid, dataclasses.replace(SMALL, weight=7.0)))
    state = solver.state
    covariances = [s.covariance() for s in state.process.spectra]
    nodes, eye = grid.coordinates(), torch.eye(6, dtype=torch.float64)
    first, second = (c.matrix(x, x) + 1e-6 * eye for c, x in zip(covariances, nodes, strict=True))
    whole, u = torch.kron(first, second), state.process.values
    along = [c.matrix(x, x, 2) @ torch.linalg.inv(k) for c, x, k in
             zip(covariances, nodes, (first, second), strict=True)]  # fmt: skip
    residual = along[0] @ u + u @ along[1].T - equation.source[0]
    truth = torch.stack([c.values[0] for c in equation.conditions])
    boundary = torch.stack([u[0], u[-1], u[:, 0], u[:, -1]]) - truth
    tau, v = state.log_tau, state.log_v
    expected = -(
        -0.5 * torch.logdet(whole)
        - 0.5 * u.flatten() @ torch.linalg.solve(whole, u.flatten())
        + 7.0 * (24 / 2 * tau - tau.exp() / 2 * boundary.square().sum())
        + 36 / 2 * v
        - v.exp() / 2 * residual.square().sum()
    )
    torch.testing.assert_close(solver.loss(), expected, rtol=1e-7, atol=0)  # condition numbers of 1e6


@pytest.mark.parametrize("case", ["p2", "ac1"])
def test_the_eliminated_solution_is_where_the_objective_has_no_slope(case: str) -> None:
    problem = (HighFrequencyAllenCahn if case.startswith("ac") else HighFrequencyPoisson)(case=case, spread=0.0)
    equation, grid = posed(problem, 33)
    solver = settled(Map(mild(equation), grid, dataclasses.replace(SMALL, eliminated=True, jitter=1e-3)))
    eliminate(solver)
    before = float(solver.loss().detach())
    values = solver.state.process.values.clone().requires_grad_()
    solver.state.process.values = values
    (slope,) = torch.autograd.grad(solver.loss(), values)
    solver.state.process.values = torch.zeros_like(values).requires_grad_()
    (scale,) = torch.autograd.grad(solver.loss(), solver.state.process.values)
    assert float(slope.norm()) < 1e-6 * float(scale.norm())  # a solve with condition 1e8
    generator = torch.Generator().manual_seed(1)
    for size in (1e-3, 1e-1):
        change = size * torch.randn(values.shape, generator=generator, dtype=torch.float64)
        solver.state.process.values = values.detach() + change
        assert float(solver.loss().detach()) > before


def test_the_eliminated_form_is_far_ahead_after_few_steps() -> None:
    """p2 with 30 steps of L-BFGS on the hyperparameters alone, against 30 steps on everything."""
    problem = HighFrequencyPoisson(case="p2", spread=0.0)
    settings = Published(steps=30, highest=30.0, components=12, optimiser="lbfgs")
    free = Map(*posed(problem, 120), settings).run()
    eliminated = Map(*posed(problem, 120), dataclasses.replace(settings, eliminated=True)).run()
    assert float(eliminated.loss().detach()) < float(free.loss().detach())
    assert error_of(eliminated, problem) < 0.3 * error_of(free, problem)


def test_the_extra_process_adds_to_a_frozen_first_one() -> None:
    problem = HighFrequencyPoisson(case="p2", spread=0.0)
    solver = Map(*posed(problem, 60), Published(steps=40, highest=30.0, components=6, extra=0.5))
    kept: list[torch.Tensor] = []

    def each(step: int, loss: float) -> bool:
        if step == 19:
            kept.extend([solver.states[0].process.values.detach().clone(), solver.state.log_tau.detach().clone()])
        return False

    solver.run(each)
    first, second = solver.states
    assert torch.equal(first.process.values.detach(), kept[0])
    assert len(second.process.spectra[0].log_weights) == 1
    # Adam moves by at most about 0.01 a step: from 0 the one, from where the first had brought it the other
    assert 0 < abs(float(second.log_v.detach())) < 0.21
    assert 0 < abs(float((second.log_tau - kept[1]).detach())) < 0.21
    points = grid_points = problem.grid(50).coordinates()
    total = solver.answer()(points)[0]
    parts = [process.predict(grid_points, (0,)) for process in solver.answer().processes]
    torch.testing.assert_close(total, parts[0] + parts[1])
    # joint misfit: the second process works on what the first one left
    alone = Map(*posed(problem, 60), Published(steps=20, highest=30.0, components=6)).run()
    assert solver.answer().health.misfit < alone.answer().health.misfit


@pytest.mark.usefixtures("unchecked")
def test_the_model_has_the_method_and_refuses_what_it_is_not() -> None:
    problem = HighFrequencyPoisson(case="p2", spread=0.0)
    grid = problem.grid(40)
    inputs = problem.sample(1, grid, generator=torch.Generator().manual_seed(0))
    answer = build(problem, grid, method="map", steps=3, components=3)(inputs, grid)
    assert answer.shape == (1, 1, 40)
    assert bool(torch.isfinite(answer).all())
    with pytest.raises(ValueError, match="mixture is one of"):
        Published(mixture="cauchy")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="share of the steps"):
        Published(extra=1.0)
    with pytest.raises(ValueError, match="at most 3000"):
        Map(*posed(HighFrequencyPoisson(case="p2d2", spread=0.0), 60), Published(eliminated=True))
    assert math.isfinite(float(Map(*posed(P1, 20), SMALL).loss().detach()))
