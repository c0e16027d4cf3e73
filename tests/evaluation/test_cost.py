"""Equal accuracy: interpolation on the frontier by hand, and the ladder of a real problem."""

from __future__ import annotations

import math

import pytest
import torch
from resolvent.data import Dataset
from resolvent.evaluation.cost import CostCurve, Rung, break_even, cost_accuracy, speedup_at_equal_accuracy
from resolvent.pde.navier_stokes import NavierStokes


def rung(name: str, error: float, seconds: float, status: str = "ok") -> Rung:
    return Rung(name, error, (error,), seconds, 2 * seconds, status)


def curve(*rungs: Rung, reference: float = 100.0) -> CostCurve:
    return CostCurve(rungs, rung("reference", 0.0, reference), 8, 8, 1, "cpu")


# errors 1e-1, 1e-3 at 1, 16 s; one rung that is worse and dearer than the first, one that blew up, one not measured
LADDER = curve(
    rung("a", 1e-1, 1.0),
    rung("worse", 2e-1, 2.0),
    rung("b", 1e-3, 16.0),
    rung("blown up", math.inf, 0.1, "diverged"),
    rung("later", math.nan, math.nan, "not measured"),
)


def test_the_frontier_leaves_out_what_a_cheaper_rung_beats() -> None:
    assert [r.name for r in LADDER.frontier()] == ["a", "b", "reference"]


def test_interpolation_is_log_log() -> None:
    """Half way between 1e-1 and 1e-3 on a log axis lies 1e-2, half way between 1 s and 16 s lies 4 s."""
    got = speedup_at_equal_accuracy(LADDER, error=1e-2, seconds=0.5)
    assert got.classical_seconds == pytest.approx(4.0, rel=1e-12)
    assert got.equal_accuracy == pytest.approx(8.0, rel=1e-12)
    assert got.raw == pytest.approx(200.0, rel=1e-12)
    assert got.rung == "b"


@pytest.mark.parametrize(
    ("error", "classical", "name"),
    [(0.5, 1.0, "a"), (1e-1, 1.0, "a"), (1e-3, 16.0, "b"), (1e-4, 100.0, "reference")],
)
def test_at_and_beyond_the_rungs(error: float, classical: float, name: str) -> None:
    """Never extrapolated: a coarser answer costs what the cheapest rung costs. The exact reference has no log."""
    got = speedup_at_equal_accuracy(LADDER, error, 1.0)
    assert got.classical_seconds == pytest.approx(classical, rel=1e-12)
    assert got.rung == name


def test_slower_than_classical_is_below_one() -> None:
    assert speedup_at_equal_accuracy(LADDER, 0.1, 2.0).equal_accuracy == pytest.approx(0.5)


def test_no_rung_as_accurate() -> None:
    only = CostCurve((rung("a", 0.1, 1.0),), rung("reference", 1e-7, 9.0), 1, 1, 1, "cpu")
    got = speedup_at_equal_accuracy(only, 1e-9, 1.0)
    assert got.equal_accuracy == math.inf
    assert got.rung == ""
    assert got.raw == 9.0
    assert "No classical rung" in got.note


@pytest.mark.parametrize(("error", "seconds"), [(math.inf, 1.0), (math.nan, 1.0), (0.1, math.nan)])
def test_nothing_is_claimed_for_a_lost_solver(error: float, seconds: float) -> None:
    got = speedup_at_equal_accuracy(LADDER, error, seconds)
    assert math.isnan(got.equal_accuracy)


def test_break_even_by_hand() -> None:
    """100 s of data, 300 s of training, 50 s of search; each solve saves 4.5 s."""
    assert break_even(100.0, 300.0, 5.0, 0.5, tune=50.0) == pytest.approx(100.0)
    assert break_even(100.0, 300.0, 0.5, 0.5) == math.inf
    assert break_even(100.0, 300.0, 0.1, 0.5) == math.inf
    assert math.isnan(break_even(100.0, 300.0, math.nan, 0.5))
    assert break_even(100.0, 300.0, math.inf, 0.5) == 0.0


@pytest.fixture(scope="module")
def vortices() -> tuple[NavierStokes, Dataset]:
    problem = NavierStokes(frames=3, spacing=0.5)
    grid = problem.grid(32)
    inputs = problem.sample(3, grid, generator=torch.Generator().manual_seed(5)).float()
    outputs = problem.reference()(inputs, grid)
    return problem, Dataset.from_tensors(inputs, outputs, grid=grid, signature=problem.signature)


def test_the_ladder_of_navier_stokes(vortices: tuple[NavierStokes, Dataset]) -> None:
    """The reference reproduces the data; finer rungs are more accurate; each has a time of its own."""
    problem, data = vortices
    seen: list[tuple[int, int]] = []
    got = cost_accuracy(problem, data, samples=2, batch=2, progress=lambda *counts: seen.append(counts))
    ladder = problem.ladder(data.grid)
    assert [r.name for r in got.rungs] == list(ladder)
    assert seen[-1] == (len(ladder), len(ladder))
    assert got.samples == 2
    assert got.reference.error < 1e-6  # the same solver, in float32 as stored
    errors = {r.name: r.error for r in got.rungs}
    assert errors["spectral 8x8 tol 0.001"] > 10 * errors["spectral 32x32 tol 0.001"]
    assert all(r.status == "ok" and r.seconds > 0 and len(r.errors) == 2 for r in got.rungs)
    frontier = got.frontier()
    assert [r.error for r in frontier] == sorted((r.error for r in frontier), reverse=True)
    # the mean of the per-sample errors is the error
    assert got.rungs[0].error == pytest.approx(sum(got.rungs[0].errors) / 2)


def test_a_spent_limit_is_said(vortices: tuple[NavierStokes, Dataset]) -> None:
    problem, data = vortices
    got = cost_accuracy(problem, data, samples=1, batch=1, limit=0.0)
    assert got.reference.status == "ok"
    assert {r.status for r in got.rungs} == {"not measured"}
    assert not any(r.usable for r in got.rungs)


def test_a_problem_without_a_reference_has_a_curve_without_one(vortices: tuple[NavierStokes, Dataset]) -> None:
    class Unsolved(NavierStokes):
        def reference(self, **accuracy):
            raise ValueError("There is no reference solver to ask.")

    _, data = vortices
    got = cost_accuracy(Unsolved(frames=3, spacing=0.5), data, samples=1, limit=0.0)
    assert got.reference.status == "failed"
    assert got.reference.message == "There is no reference solver to ask."
    assert got.frontier() == []
    assert math.isnan(speedup_at_equal_accuracy(got, 0.1, 1.0).equal_accuracy)
