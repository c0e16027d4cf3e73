"""Steps of their own for every sample: easy samples do not pay for hard ones, and none depends on its company.

A call of the right-hand side serves all samples, each at its own time. A sample that has arrived stays where it is; its
counts stop. Where the right-hand side serves any of the samples (``leave``), those that have arrived leave the batch,
a quarter of it at a time, so that a batch costs what its members take, not what the longest takes for all.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ._control import Controller, Settings, first_step, too_many, underflow
from ._field import Field
from ._solution import Counts, Trace
from ._steppers import Attempt, error_ratio, stepper_of, stiffness

Event = Callable[..., Tensor]  # g(t, y, *given)
BISECTIONS = 60  # a bracket of one step then ends at rounding level
IDLE = 1e-6  # of its interval: what a sample that has arrived repeats of its end, lest f is asked beyond it
LEAVE = 0.95  # the batch is gathered anew when so few of it are on their way
_LANES = ("lanes", "times", "time", "end", "next", "state", "slope", "step", "previous", "again", "active", "level")


class PerSample:
    """One integration, forward along the rows of ``times`` (``batch time``, float64).

    Lanes are the samples still in the batch, ``lanes`` their numbers; ``work`` is their evaluations, accepted and
    rejected steps.
    """

    def __init__(
        self,
        field: Field,
        state: Tensor,
        times: Tensor,
        settings: Settings,
        event: Event | None,
        *,
        leave: bool = False,
    ) -> None:
        self.field, self.times, self.settings, self.event = field, times, settings, event
        self.whole, self.clock, self.leave = field, times, leave and not settings.trace  # a trace has all lanes
        self.state, self.time, self.end = state, times[:, 0].clone(), times[:, -1]
        self.slope = field(self.time, state)
        self.graph = torch.is_grad_enabled() and (state.requires_grad or self.slope.requires_grad)
        self.stepper = stepper_of(settings.tableau, field, state, graph=self.graph)
        self.controller = Controller(settings.tableau)
        self.lanes = torch.arange(len(state), device=state.device)
        self.done = torch.zeros(3, len(state), dtype=torch.int64, device=state.device)
        self.work = self.done.clone()
        self.work[0] = 1
        self.active, self.next = self.end > self.time, self._following(self.time)
        self.again: Tensor | None = None  # whose last attempt was refused
        self.tries = 0
        self.level: Tensor | None = None  # of the event function
        self.rows: list[tuple[Tensor, Tensor, Tensor, Tensor | None, Tensor, Tensor]] = []
        self.found: list[Tensor] = [state]
        self.homes: list[Tensor] = [torch.stack([self.lanes, torch.zeros_like(self.lanes)])]
        self.event_time = torch.full_like(self.time, torch.nan)
        self.event_states: list[tuple[Tensor, Tensor]] = []
        if event is not None:
            self.level = self._level(self.time, state)

    def run(self) -> Tensor:
        """States at all times, ``batch time unknown``."""
        self.step, self.previous = self._first(), torch.ones_like(self.time)
        while count := int(self.active.sum()):
            if self.leave and count <= LEAVE * len(self.active):
                self._depart()
            arrives, begin, used = self._asked(all_active=count == len(self.active))
            calls, self.tries = self.field.calls, self.tries + 1
            attempt = self.stepper.attempt(begin, used, self.state, self.slope)
            self.work[0] += (self.field.calls - calls) * self.active
            ratio, good = self._ratio(attempt)
            taken = self.active & (good <= 1)
            all_good = int(taken.sum()) == count
            failed = None if all_good else self.active & ~taken
            if failed is not None and self._lost(good, used, failed):
                continue
            until = torch.where(arrives, self.end, self.time + used)
            if failed is not None or count < len(self.active):
                until = torch.where(taken, until, self.time)
            factor = self._factor(good, all_good=all_good)
            self._advance(attempt, ratio, taken, used, until, everybody=all_good and count == len(self.active))
            good = good.clamp_min(1e-4)
            self.previous = good if all_good else torch.where(taken, good, self.previous)
            self.step = used * factor  # also of those who have arrived, who are not asked for theirs any more
            self._judge(failed)
        return self._assembled()

    def _asked(self, *, all_active: bool) -> tuple[Tensor, Tensor, Tensor]:
        """Who would arrive, where steps begin, how long they are."""
        left = self.end - self.time
        arrives = self.step >= left
        used = torch.minimum(self.step, left)
        if all_active:
            return arrives, self.time, used
        idle = IDLE * (self.end - self.times[:, 0])
        used, begin = torch.where(self.active, used, idle), torch.where(self.active, self.time, self.time - idle)
        return arrives, begin, used

    def _lost(self, good: Tensor, used: Tensor, failed: Tensor) -> bool:
        """Whether some attempt was not finite; nobody's then counts.

        A NaN times a zero gradient is a NaN: such an attempt leaves no trace in the graph, for nobody.
        """
        lost = ~torch.isfinite(good) & failed
        if not bool(lost.any()):
            return False
        self.work[2] += lost
        self.step = torch.where(lost, 0.2 * used, self.step)
        self.again = lost if self.again is None else self.again | lost
        self._check(lost, finite=False)
        return True

    def _judge(self, failed: Tensor | None) -> None:
        """What was refused is counted, and looked at where it may be the end of it."""
        self.again = failed
        self.active = self.active & (self.time < self.end)
        if failed is not None:
            self.work[2] += failed
        if failed is not None or self.tries >= self.settings.max_steps:
            self._check(torch.zeros_like(self.active) if failed is None else failed, finite=True)

    def _depart(self) -> None:
        """Who has arrived leaves the batch."""
        kept = self.active.nonzero().flatten()
        self.done[:, self.lanes] = self.work
        self.work = self.work[:, kept]
        for name in _LANES:
            values = getattr(self, name)
            if values is not None:
                setattr(self, name, values.index_select(0, kept))
        self.field = self.field.rows(kept)
        self.stepper = stepper_of(self.settings.tableau, self.field, self.state, graph=self.graph)

    def _first(self) -> Tensor:
        chosen = self.settings.step or self.settings.first_step
        if chosen is not None:
            return torch.full_like(self.time, chosen)
        span = (self.end - self.time).clamp_min(1e-300)
        with torch.no_grad():
            guess = first_step(self.field, self.time, self.state, self.slope, self.settings, span, each=True)
        self.work[0] += 1
        return guess

    def _ratio(self, attempt: Attempt) -> tuple[Tensor, Tensor]:
        settings = self.settings
        with torch.set_grad_enabled(torch.is_grad_enabled() and settings.trace):
            ratio = error_ratio(
                attempt.error, self.state, attempt.state, rtol=settings.rtol, atol=settings.atol, each=True
            )
        good = ratio.detach().double()
        if settings.step is not None:
            good = torch.where(torch.isfinite(good), 0.0, good)
        return ratio, good

    def _factor(self, ratio: Tensor, *, all_good: bool) -> Tensor | float:
        if self.settings.step is not None:
            return 1.0
        return self.controller.factors(ratio, self.previous, self.again, all_good=all_good)

    def _advance(
        self, attempt: Attempt, ratio: Tensor, taken: Tensor, used: Tensor, until: Tensor, *, everybody: bool
    ) -> None:
        fired = self._fired(attempt, taken, used, until) if self.event is not None else None
        self._note(attempt, ratio, taken, used)
        self._dense(attempt, used, until)
        if everybody:
            self.state, self.slope = attempt.state, attempt.slope
        else:
            column = taken[:, None]
            self.state = torch.where(column, attempt.state, self.state)
            self.slope = torch.where(column, attempt.slope, self.slope)
        self.time = until
        self.work[1] += taken
        if fired is not None:
            self.active = self.active & ~fired

    def _note(self, attempt: Attempt, ratio: Tensor, taken: Tensor, used: Tensor) -> None:
        if not self.settings.trace:
            return
        tableau, seen = self.settings.tableau, None
        if tableau.stiffness is not None:
            seen = stiffness(attempt, tableau, used.to(self.state.dtype), each=True)
        self.rows.append((self.time, used, ratio, seen, taken, self.state.detach()))

    def _dense(self, attempt: Attempt, used: Tensor, until: Tensor) -> None:
        if not bool((until >= self.next).any()):
            return
        inside = (self.times >= self.next[:, None]) & (self.times <= until[:, None])
        rows, places = inside.nonzero(as_tuple=True)
        self.next = self._following(until)
        theta = ((self.times[rows, places] - self.time[rows]) / used[rows]).to(self.state.dtype)
        stages = attempt.stages.view(-1, *self.state.shape)[:, rows]
        values = self.stepper.interpolate_each(theta, self.state[rows], stages)
        ends = (self.times[rows, places] == until[rows])[:, None]  # not interpolated: no rounding is added there
        self.found.append(torch.where(ends, attempt.state[rows], values))
        self.homes.append(torch.stack([self.lanes[rows], places]))

    def _following(self, time: Tensor) -> Tensor:
        """The asked time that comes next."""
        return torch.where(self.times > time[:, None], self.times, torch.inf).amin(dim=1)

    # ------------------------------------------------------------------ events

    def _level(self, time: Tensor, state: Tensor) -> Tensor:
        assert self.event is not None
        level = self.event(self.field.time(time), self.field.full(state), *self.field.given)
        if level.shape != (len(state),):
            raise ValueError(
                f"An event returns one number per sample, shape ({len(state)},); got shape {tuple(level.shape)}."
            )
        return level

    def _fired(self, attempt: Attempt, taken: Tensor, used: Tensor, until: Tensor) -> Tensor | None:
        """Samples whose event function changes its sign in this step; where and when is kept."""
        before, after = self.level, self._level(until, attempt.state)
        assert before is not None
        self.level = torch.where(taken, after, before)
        crossed = (before.detach().sign() * after.detach().sign() < 0) | (
            (after.detach() == 0) & (before.detach() != 0)
        )
        fired = taken & crossed
        if not bool(fired.any()):
            return None
        stages = attempt.stages.view(-1, *self.state.shape)
        theta = self._bisect(stages.detach(), used, fired, before.detach().sign())
        state = self.stepper.interpolate_each(theta.to(self.state.dtype), self.state, stages)
        time = self.time + theta * used
        self.event_time[self.lanes[fired]] = time[fired]
        self.event_states.append((self.lanes[fired], self._corrected(time, state, fired)[fired]))
        return fired

    @torch.no_grad()
    def _bisect(self, stages: Tensor, used: Tensor, fired: Tensor, sign: Tensor) -> Tensor:
        low, high = torch.zeros_like(used), torch.ones_like(used)
        for _ in range(BISECTIONS):
            middle = 0.5 * (low + high)
            state = self.stepper.interpolate_each(middle.to(self.state.dtype), self.state.detach(), stages)
            same = self._level(self.time + middle * used, state).sign() * sign > 0
            low, high = torch.where(same, middle, low), torch.where(same, high, middle)
        return high

    def _corrected(self, time: Tensor, state: Tensor, fired: Tensor) -> Tensor:
        r"""One Newton step on :math:`g(t, y(t)) = 0`: zero in value, and the state has its derivative along g = 0."""
        if not state.requires_grad:
            return state
        rate = self.field(time, state).detach()
        self.work[0] += fired
        level = self._level(time, state)
        shift = -(level - level.detach()) / torch.where(fired, self._climb(time, state.detach(), rate), 1.0)
        return torch.where(fired[:, None], state + rate * shift[:, None], state.detach())

    def _climb(self, time: Tensor, state: Tensor, rate: Tensor) -> Tensor:
        """d/ds of the event function along the solution."""
        with torch.enable_grad():
            time, state = time.detach().requires_grad_(), state.requires_grad_()
            found = torch.autograd.grad(self._level(time, state).sum(), (time, state), allow_unused=True)
        by_time = torch.zeros_like(time) if found[0] is None else found[0]
        by_state = torch.zeros_like(state) if found[1] is None else found[1]
        return by_time.to(rate.dtype) + (by_state * rate).sum(dim=1)

    # ------------------------------------------------------------------ results

    def _assembled(self) -> Tensor:
        rows, places = torch.cat(self.homes, dim=1)
        states = self.state.new_zeros(*self.clock.shape, self.state.shape[1])
        states = states.index_put((rows, places), torch.cat(self.found))
        for fired, there in self.event_states:
            late = self.clock[fired] > self.event_time[fired, None]
            states = states.index_put((fired,), torch.where(late[..., None], there[:, None], states[fired]))
        return states

    def event_state(self) -> Tensor:
        """States at the events, NaN where there was none."""
        states = self.state.new_full((len(self.clock), self.state.shape[1]), torch.nan)
        for fired, there in self.event_states:
            states = states.index_put((fired,), there)
        return self.whole.full(states)

    def _check(self, failed: Tensor, *, finite: bool) -> None:
        step = self.step
        least = 16 * 2.3e-16 * torch.maximum(self.time.abs(), (self.end - self.time).abs())
        bad = failed if self.settings.step is not None else failed & (step < least)
        slow = self.active & (self.work[1] + self.work[2] >= self.settings.max_steps)
        if not bool((bad | slow).any()):
            return
        lane = int((bad | slow).nonzero()[0])
        sample, norm = int(self.lanes[lane]), float(torch.linalg.vector_norm(self.state[lane].detach()))
        tableau, time, size = self.settings.tableau, self.field.sign * float(self.time[lane]), float(step[lane])
        if bool(bad[lane]):
            raise underflow(tableau, time, size, norm, sample, finite)
        raise too_many(tableau, self.settings.max_steps, time, size, norm, sample)

    def counts(self) -> Counts:
        self.done[:, self.lanes] = self.work
        evaluations, accepted, rejected = self.done.cpu().unbind()
        return Counts(evaluations, accepted, rejected, self.field.jacobians, self.field.calls)

    def trace(self) -> Trace | None:
        if not self.settings.trace:
            return None
        sign, (times, steps, errors, seen, taken, states) = self.field.sign, zip(*self.rows, strict=True)
        known = self.settings.tableau.stiffness is not None
        return Trace(
            time=sign * torch.stack(times),
            step=sign * torch.stack(steps),
            error=torch.stack(errors),
            stiffness=torch.stack(seen) if known else None,
            taken=torch.stack(taken),
            states=torch.stack([self.field.full(state) for state in states]),
            settings=self.settings,
        )
