"""One step size for the whole batch: the batch is one system, as in the papers on regularised neural ODEs.

Time and step are Python numbers, so that a step costs its right-hand sides and about a dozen tensor operations.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from ._control import Controller, Settings, first_step, too_many, underflow
from ._field import Field
from ._solution import Counts, Trace
from ._steppers import Attempt, Stepper, error_ratio, stepper_of, stiffness

# time, step, state at the start, its slope, and the attempt that was accepted
Observer = Callable[[float, float, Tensor, Tensor, Attempt, Stepper], None]


class BatchWide:
    """One integration, forward from ``times[0]`` through all ``times``."""

    def __init__(
        self,
        field: Field,
        state: Tensor,
        times: list[float],
        settings: Settings,
        observer: Observer | None = None,
        *,
        graph: bool | None = None,
    ) -> None:
        self.field, self.times, self.settings, self.observer = field, times, settings, observer
        self.state = state
        self.slope = field(times[0], state)
        recorded = torch.is_grad_enabled() and (state.requires_grad or self.slope.requires_grad)
        self.graph = recorded if graph is None else graph
        self.stepper = stepper_of(settings.tableau, field, state, graph=self.graph)
        self.controller = Controller(settings.tableau)
        self.accepted = self.rejected = 0
        self.rows: list[tuple[float, float, Tensor, Tensor | None, Tensor]] = []

    def run(self) -> list[Tensor]:
        """States (``batch unknown``) at all times."""
        found, waiting = [self.state], 1
        time, end = self.times[0], self.times[-1]
        step, previous, rejected = self._first(end - time), 1.0, False
        while waiting < len(self.times):
            used, arrives = (end - time, True) if step >= end - time else (step, False)
            attempt = self.stepper.attempt(time, used, self.state, self.slope)
            ratio, value = self._ratio(attempt, previous)
            factor = self.controller.factor(value, previous, rejected) if self.settings.step is None else 1.0
            if value <= 1:
                until = end if arrives else time + used
                self._note(time, used, attempt, ratio)
                waiting += self._dense(found, waiting, time, used, until, attempt)
                self.state, self.slope, time = attempt.state, attempt.slope, until
                self.accepted += 1
                previous = max(value, 1e-4)
                step = used * factor if not arrives else step
                rejected = False
            else:
                self.rejected += 1
                step, rejected = used * factor, True
                self._check_step(time, step, end, math.isfinite(value))
            self._check_count(time, step, waiting)
        return found

    def _first(self, span: float) -> float:
        chosen = self.settings.step or self.settings.first_step
        if chosen is not None or span <= 0:
            return chosen or 0.0
        with torch.no_grad():
            guess = first_step(self.field, self.times[0], self.state, self.slope, self.settings, span, each=False)
        return float(guess)

    def _ratio(self, attempt: Attempt, previous: float) -> tuple[Tensor | None, float]:
        """E with its graph where it is recorded, and the number that decides."""
        settings = self.settings
        if settings.step is not None and not settings.trace:
            return None, 0.0 if bool(torch.isfinite(attempt.state).all()) else math.inf
        with torch.set_grad_enabled(torch.is_grad_enabled() and settings.trace):
            ratio = error_ratio(
                attempt.error,
                self.state,
                attempt.state,
                rtol=settings.rtol,
                atol=settings.atol,
                each=False,
                count=settings.count,
            )
        value = float(ratio.detach())
        if not math.isfinite(value):
            return ratio, math.inf
        return ratio, value if settings.step is None else 0.0

    def _note(self, time: float, step: float, attempt: Attempt, ratio: Tensor | None) -> None:
        if self.observer is not None:
            self.observer(time, step, self.state, self.slope, attempt, self.stepper)
        if self.settings.trace:
            assert ratio is not None
            known = self.settings.tableau.stiffness is not None
            seen = stiffness(attempt, self.settings.tableau, step, each=False) if known else None
            self.rows.append((time, step, ratio, seen, self.state.detach()))

    def _dense(
        self, found: list[Tensor], waiting: int, time: float, step: float, until: float, attempt: Attempt
    ) -> int:
        """Append the states at asked times within this step; how many they are."""
        last = waiting
        while last < len(self.times) and self.times[last] <= until:
            last += 1
        inside = [t for t in self.times[waiting:last] if t < until]
        if inside:
            theta = torch.tensor([(t - time) / step for t in inside], dtype=self.state.dtype, device=self.state.device)
            found.extend(self.stepper.interpolate(theta, self.state, attempt.stages).unbind())
        found.extend([attempt.state] * (last - waiting - len(inside)))
        return last - waiting

    def _check_step(self, time: float, step: float, end: float, finite: bool) -> None:
        if self.settings.step is not None or step < 16 * 2.3e-16 * max(abs(time), abs(end - time)):
            norm = float(torch.linalg.vector_norm(self.state.detach()))
            raise underflow(self.settings.tableau, self.field.sign * time, step, norm, None, finite)

    def _check_count(self, time: float, step: float, waiting: int) -> None:
        if self.accepted + self.rejected >= self.settings.max_steps and waiting < len(self.times):
            norm = float(torch.linalg.vector_norm(self.state.detach()))
            limit, when = self.settings.max_steps, self.field.sign * time
            raise too_many(self.settings.tableau, limit, when, step, norm, None)

    def counts(self) -> Counts:
        like = torch.ones(self.field.shape[0], dtype=torch.int64)
        return Counts(
            self.field.calls * like,
            self.accepted * like,
            self.rejected * like,
            self.field.jacobians,
            self.field.calls,
        )

    def trace(self) -> Trace | None:
        if not self.settings.trace:
            return None
        sign, rows = self.field.sign, self.rows
        numbers = torch.tensor([row[:2] for row in rows], dtype=torch.float64).reshape(-1, 2)
        empty = self.state.new_zeros(0)
        known = self.settings.tableau.stiffness is not None
        return Trace(
            time=sign * numbers[:, :1],
            step=sign * numbers[:, 1:],
            error=(torch.stack([row[2] for row in rows]) if rows else empty)[:, None],
            stiffness=(torch.stack([row[3] for row in rows if row[3] is not None]) if rows else empty)[:, None]
            if known
            else None,
            taken=torch.ones(len(rows), 1, dtype=torch.bool),
            states=torch.stack([self.field.full(row[4]) for row in rows])
            if rows
            else self.state.new_zeros(0, *self.field.shape),
            settings=self.settings,
        )
