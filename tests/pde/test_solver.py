"""Rollouts, times, door checks and step control, on problems whose answers are known."""

import math

import pytest
import torch
from resolvent.pde import Channel, Grid, OneFrame, Signature, Solver, SolverError, Stepped, check_fields, rollout
from resolvent.pde._periodic import OnCoarserGrid, PeriodicEvolution, Semilinear, coarse_ladder
from resolvent.pde.burgers import Burgers
from resolvent.pde.heat import Heat
from resolvent.pde.navier_stokes import NavierStokes


class Doubling(Solver):
    """One frame doubles the state."""

    def __call__(self, inputs, grid, times=None):
        return 2 * inputs


class Growth(Semilinear):
    """u_t = u² for constants: u = u(0) / (1 - u(0) t), infinite at t = 1 / u(0)."""

    signature = Signature((Channel("u"),), (Channel("u"),), frames=4, spacing=0.5)

    def symbol(self, modes):
        return torch.zeros_like(modes.k2)

    def nonlinear(self, spectrum, modes):
        return modes.forward(modes.inverse(spectrum).square()) * modes.kept


def constants(*values, grid):
    return torch.tensor(values, dtype=torch.float64)[:, None, None].expand(-1, 1, *grid.shape)


def relative(got, expected):
    return float((got - expected).norm() / expected.norm())


def flow(count, *, viscosity=1e-3, size=32, seed=0):
    problem = NavierStokes(viscosity=viscosity, frames=3)
    grid = problem.grid(size)
    return problem, grid, problem.sample(count, grid, generator=torch.Generator().manual_seed(seed))


def test_rollout_keeps_every_frame():
    u = torch.ones(2, 1, 4)
    assert rollout(Doubling(), u, Grid.box(4), 3)[:, :, 0, 0].tolist() == [[2.0, 4.0, 8.0]] * 2


def test_stepped_serves_multiples_of_the_spacing_only():
    signature = Signature((Channel("u"),), (Channel("u"),), frames=3, spacing=0.1)
    solver, u = Stepped(Doubling(), signature), torch.ones(1, 1, 4)
    assert solver(u, Grid.box(4))[0, :, 0, 0].tolist() == [2.0, 4.0, 8.0]
    assert solver(u, Grid.box(4), (0.2, 0.5))[0, :, 0, 0].tolist() == [4.0, 32.0]
    with pytest.raises(ValueError, match="multiples of its frame spacing"):
        solver(u, Grid.box(4), (0.25,))


def test_one_frame_steps_are_the_evolution():
    """A rollout of one-frame maps, a Stepped of them, and the evolution itself: one and the same for heat."""
    problem = Heat(frames=4)
    grid = problem.grid(16)
    u = problem.sample(2, grid, generator=torch.Generator().manual_seed(0))
    whole = problem.reference()(u, grid)
    one = OneFrame(problem.reference(), problem.spacing)
    torch.testing.assert_close(rollout(one, u, grid, 4), whole, rtol=0, atol=1e-14)
    torch.testing.assert_close(Stepped(one, problem.signature)(u, grid), whole, rtol=0, atol=1e-14)


def test_uneven_times_equal_stepping_from_one_to_the_next():
    problem, grid, w = flow(2)
    solver = problem.reference(tolerance=1e-9)
    times = (0.3, 0.4, 1.7)
    got = solver(w, grid, times)
    state, now = w, 0.0
    for i, time in enumerate(times):
        state, now = solver(state, grid, (time - now,))[:, 0], time
        assert relative(got[:, i], state) < 1e-8


@pytest.mark.parametrize("times", [(), (0.0, 1.0), (-1.0,), (1.0, 1.0), (2.0, 1.0)])
def test_impossible_times_are_refused(times):
    problem, grid, w = flow(1, size=8)
    with pytest.raises(ValueError, match="positive and strictly increasing"):
        problem.reference()(w, grid, times)


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        (torch.zeros(2, 1, 8, 9), r"shape \('batch', 1, 8, 8\), got \(2, 1, 8, 9\)"),
        (torch.zeros(2, 2, 8, 8), "Expected inputs of shape"),
        (torch.zeros(1, 8, 8), "Expected inputs of shape"),
        (torch.zeros(1, 1, 8, 8, dtype=torch.int64), "real floating-point inputs, got torch.int64"),
        (
            torch.tensor([0.0, math.nan, 0.0, math.inf])[:, None, None, None].expand(4, 1, 8, 8),
            r"sample\(s\) \[1, 3\] of 4",
        ),
    ],
)
def test_what_does_not_fit_is_refused_at_the_door(inputs, message):
    with pytest.raises(ValueError, match=message):
        check_fields(inputs, Grid.box(8, dim=2), 1)
    with pytest.raises(ValueError, match=message):
        NavierStokes().reference()(inputs, Grid.box(8, dim=2))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tolerance": 0.0}, "from 1e-13 to 1, got 0.0"),
        ({"tolerance": math.nan}, "from 1e-13 to 1, got nan"),
        ({"step": -0.1}, "positive, finite time"),
        ({"method": "euler"}, "'etdrk4' or 'ifrk4'"),
        ({"chunk": 0}, "at least 1 sample"),
    ],
)
def test_solver_options_out_of_range_are_refused(options, message, unchecked):
    with pytest.raises(ValueError, match=message):
        Burgers().reference(**options)


def test_results_come_in_the_dtype_of_the_inputs():
    problem, grid, w = flow(2)
    single = problem.reference()(w.float(), grid)
    assert single.dtype == torch.float32
    assert relative(single, problem.reference()(w, grid)) < 1e-6


@pytest.mark.parametrize("options", [{}, {"step": 0.01}], ids=["adaptive", "fixed"])
def test_a_blow_up_names_its_sample_and_time(options):
    """1 / (1 - u t): only sample 3 is infinite before time 2, at 1 / 1.6 = 0.625; the others stay finite."""
    grid = Grid.box(8)
    solver = PeriodicEvolution(Growth(), chunk=2, **options)
    with pytest.raises(SolverError, match=r"blew up near time (0\.62\d*|1) at sample\(s\) \[3\]"):
        solver(constants(0.1, 0.2, 0.15, 1.6, grid=grid), grid)
    expected = constants(*(u / (1 - 2 * u) for u in (0.1, 0.2)), grid=grid)
    assert relative(solver(constants(0.1, 0.2, grid=grid), grid)[:, -1], expected) < 1e-5


def test_near_a_blow_up_steps_become_short_and_long_again():
    """A frame close to the pole: the closed form at 95 % of the way to it, and then on from a tame state."""
    grid = Grid.box(8)
    solver = PeriodicEvolution(Growth(), tolerance=1e-9)
    got = solver(constants(1.0, grid=grid), grid, (0.95,))
    assert relative(got[:, 0], constants(20.0, grid=grid)) < 1e-6
    assert solver.steps_taken < 1000


def test_the_error_follows_the_tolerance():
    problem, grid, w = flow(2, viscosity=1e-5, size=16)
    w = 5 * w
    truth = problem.reference(tolerance=1e-9)(w, grid)
    tolerances = (1e-3, 1e-5, 1e-7)
    solvers = [problem.reference(tolerance=tolerance) for tolerance in tolerances]
    errors = [relative(solver(w, grid), truth) for solver in solvers]
    assert all(error < 30 * tolerance for error, tolerance in zip(errors, tolerances, strict=True))
    assert errors[0] > 10 * errors[1] > 100 * errors[2]
    assert solvers[0].steps_taken < solvers[1].steps_taken < solvers[2].steps_taken


@pytest.mark.parametrize("chunk", [None, 1, 2])
def test_a_sample_does_not_depend_on_its_company(chunk):
    """Samples advanced together share a step length, so they agree to the tolerance, not to round-off."""
    problem, grid, w = flow(5, viscosity=1e-4, size=16)
    w = w * torch.tensor([1.0, 8.0, 2.0, 1.0, 4.0], dtype=torch.float64)[:, None, None, None]
    together = problem.reference(tolerance=1e-6, chunk=chunk)(w, grid)
    for i in range(5):
        alone = problem.reference(tolerance=1e-6)(w[i : i + 1], grid)
        assert relative(together[i : i + 1], alone) < 1e-5


def test_repeated_calls_agree_to_the_last_bit():
    problem, grid, w = flow(3)
    solver = problem.reference()
    assert torch.equal(solver(w, grid), solver(w, grid))


def test_both_methods_agree():
    problem, grid, w = flow(2)
    first, second = (problem.reference(tolerance=1e-9, method=m)(w, grid) for m in ("etdrk4", "ifrk4"))
    assert relative(first, second) < 1e-8


def test_a_coarser_grid_with_all_modes_is_the_same_solver():
    """Heat on 16 of 32 nodes is exact for what 16 nodes resolve."""
    problem = Heat()
    fine = problem.grid(32)
    x = fine.coordinates()[0]
    u = (torch.sin(2 * math.pi * x) + torch.cos(2 * math.pi * 7 * x))[None, None]
    got = OnCoarserGrid(problem.reference(), (16,))(u, fine)
    torch.testing.assert_close(got, problem.exact(u, fine), rtol=0, atol=1e-14)


def test_the_ladder_gets_better():
    problem, grid, w = flow(2, size=48)
    truth = problem.reference(tolerance=1e-9)(w, grid)
    ladder = coarse_ladder(problem, grid, tolerances=(1e-2, 1e-5))
    errors = {name: relative(solver(w, grid), truth) for name, solver in ladder.items()}
    assert next(iter(ladder)) == "spectral 12x12 tol 0.01"
    assert errors["spectral 12x12 tol 1e-05"] > errors["spectral 24x24 tol 1e-05"] > errors["spectral 48x48 tol 1e-05"]
    assert errors["spectral 48x48 tol 1e-05"] < 1e-6
