r"""What accuracy costs: the classical solver on its whole ladder, so that a speed-up is stated at equal accuracy.

Beating the fine solver that made the data is easy and says little (McGreivy & Hakim, arXiv 2407.07218). The question
is what the cheapest classical solver *of the learned solver's accuracy* costs, on the same machine, threads, precision
and samples. Each rung of ``problem.ladder(grid)`` and the reference itself are judged like any other solver; the
frontier of the rungs that no cheaper rung beats is the cost-accuracy curve, interpolated in log-log.

The solves after which a surrogate has paid for itself:
:math:`N^* = (C_{data} + C_{train} + C_{tune}) / (c_{classical}(\epsilon) - c_{surrogate})`, infinite where the
denominator is not positive.
"""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from ..data import Dataset
from ..pde import Problem, Solver
from ._timing import clock_name
from .judge import Judgement, judge

REFERENCE = "reference"


@dataclass(frozen=True)
class Rung:
    """One classical solver: its mean relative L2 error, and seconds per sample (nan where it was not measured)."""

    name: str
    error: float
    errors: tuple[float, ...]  # per sample
    seconds_one: float  # one sample at a time
    seconds_batched: float
    status: str  # "ok", "diverged", "failed" or "not measured"
    message: str = ""

    @property
    def seconds(self) -> float:
        """Per sample, the better of one at a time and in batches."""
        return min((s for s in (self.seconds_one, self.seconds_batched) if math.isfinite(s)), default=math.nan)

    @property
    def usable(self) -> bool:
        """Whether it can stand on a cost-accuracy curve."""
        return math.isfinite(self.error) and self.seconds > 0


@dataclass(frozen=True)
class CostCurve:
    """The ladder, judged. ``samples`` is how many samples of the test set it was judged on (the first so many)."""

    rungs: tuple[Rung, ...]
    reference: Rung
    samples: int
    batch: int
    threads: int
    clock: str

    def frontier(self) -> list[Rung]:
        """Rungs (the reference among them) that no cheaper rung matches, cheap to dear, so errors fall."""
        best: list[Rung] = []
        usable = [rung for rung in (*self.rungs, self.reference) if rung.usable]
        for rung in sorted(usable, key=lambda rung: (rung.seconds, rung.error)):
            if not best or rung.error < best[-1].error:
                best.append(rung)
        return best


@dataclass(frozen=True)
class Speedup:
    """How much faster than classical; above 1 is faster. ``equal_accuracy`` is inf where no rung is as accurate."""

    raw: float  # against the reference that made the data
    equal_accuracy: float
    classical_seconds: float  # per sample, of a classical solver of this error (interpolated); inf if there is none
    rung: str  # the cheapest rung that is at least as accurate; "" if there is none
    note: str


def cost_accuracy(
    problem: Problem,
    data: Dataset,
    *,
    samples: int = 8,
    start: int = 0,
    horizon: int = 0,
    batch: int = 8,
    device: torch.device | str = "cpu",
    limit: float = 60.0,
    progress: Callable[[int, int], None] | None = None,
) -> CostCurve:
    """Judge the reference and every rung of ``problem.ladder(data.grid)`` on the first ``samples`` of ``data``.

    limit       seconds after which no further rung is started; those left are listed as "not measured"
    progress    called with (rungs done, rungs in all)
    """
    part = data.subset(list(range(min(samples, len(data)))))
    asked = {"metrics": ["relative_l2"], "start": start, "horizon": horizon, "batch": batch, "device": device}

    def question(solver: Solver) -> Judgement:
        return judge(solver, part, keep=0, **asked)  # type: ignore[arg-type]

    ladder = problem.ladder(data.grid)
    begun = time.monotonic()
    reference = _rung(REFERENCE, problem.reference, question)
    rungs: list[Rung] = []
    for name, solver in ladder.items():
        if time.monotonic() - begun < limit:
            rungs.append(_rung(name, functools.partial(_same, solver), question))
        else:
            said = f"The limit of {limit:g} s was spent."
            rungs.append(Rung(name, math.nan, (), math.nan, math.nan, "not measured", said))
        if progress is not None:
            progress(len(rungs), len(ladder))
    return CostCurve(tuple(rungs), reference, len(part), batch, torch.get_num_threads(), clock_name(device))


def _same(solver: Solver) -> Solver:
    return solver


def _rung(name: str, make: Callable[[], Solver], question: Callable[[Solver], Judgement]) -> Rung:
    try:
        solver = make()
    except Exception as error:  # data that were given without an equation have no reference
        return Rung(name, math.nan, (), math.nan, math.nan, "failed", str(error))
    verdict = question(solver)
    errors = tuple(verdict.metrics["relative_l2"].tolist())
    timings = {"seconds_one": verdict.seconds_one, "seconds_batched": verdict.seconds_batched}
    return Rung(name, verdict.mean("relative_l2"), errors, **timings, status=verdict.status, message=verdict.message)


def speedup_at_equal_accuracy(curve: CostCurve, error: float, seconds: float) -> Speedup:
    """Compare a solver of this mean relative L2 error and these seconds per sample with the classical curve.

    Between the cheapest frontier rung that is accurate enough and the next cheaper one, cost is interpolated
    log-log in the error: the classical side gets the benefit of a setting that lies between two rungs.
    """
    raw = curve.reference.seconds / seconds if seconds > 0 else math.nan
    if not (math.isfinite(error) and seconds > 0):
        return Speedup(raw, math.nan, math.nan, "", "The solver has no finite error or no timing to compare at.")
    frontier = curve.frontier()
    if not frontier:
        return Speedup(raw, math.nan, math.nan, "", "No classical solver was measured for this problem.")
    place = next((i for i, rung in enumerate(frontier) if rung.error <= error), None)
    if place is None:
        unmeasured = any(rung.status == "not measured" for rung in curve.rungs)
        note = "No classical rung that was measured is as accurate" + (", but some were not." if unmeasured else ".")
        return Speedup(raw, math.inf, math.inf, "", note)
    classical = _interpolated(frontier, place, error)
    note = f"The cheapest classical rung at least as accurate is '{frontier[place].name}'."
    return Speedup(raw, classical / seconds, classical, frontier[place].name, note)


def _interpolated(frontier: Sequence[Rung], place: int, error: float) -> float:
    after = frontier[place]
    if place == 0 or after.error <= 0:
        return after.seconds
    before = frontier[place - 1]
    part = math.log(before.error / error) / math.log(before.error / after.error)
    return before.seconds * (after.seconds / before.seconds) ** part


def break_even(generate: float, fit: float, classical: float, surrogate: float, *, tune: float = 0.0) -> float:
    """Solves after which a surrogate has paid for itself; inf if each of its solves costs as much or more.

    generate, fit, tune    seconds spent once: data, training, search for hyperparameters
    classical, surrogate   seconds per solve, the classical one at equal accuracy
    """
    saved = classical - surrogate
    if math.isnan(saved):
        return math.nan
    return (generate + fit + tune) / saved if saved > 0 else math.inf
