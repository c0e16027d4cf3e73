r"""Training towards dynamics that are cheap to solve: the solver's own estimates in the loss.

With the error ratio :math:`E_n` (in units of the tolerance), the step :math:`h_n` and the stiffness :math:`S_n` of each
accepted step (:class:`Trace`), and :math:`\sigma` the length of the method's real stability interval:

    ERNODE, SRNODE   R_E = aggregate_n(E_n |h_n|),   R_S = aggregate_n(S_n / \sigma)      :class:`Global`
    LRNDE            R   = E(t*) |h| or S(t*) / \sigma of one more step at a random t*    :class:`Local`

Pal, Ma, Shah and Rackauckas, ICML 2021 (the paper sums over steps; its released code takes the mean of R_E and the
maximum of R_S); Pal, Edelman and Rackauckas, ICML 2023. ``Global`` needs
gradient="discrete": adjoint equations do not see E.

The local step starts from a state without gradient. As published its first slope and its step are constants too, the
step being the automatic initial one. But the error weights sum to zero, so a common change of all slopes leaves the
error as it is; a frozen first slope breaks that, and its spurious gradient (of size h / tol) destroys training. The
variant "corrected" keeps the slope in the graph and takes the solver's own step.

E is in units of the tolerance: weights have to be chosen anew when the tolerance changes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Generator, Tensor

from ._control import first_step
from ._field import Field, RightHandSide
from ._sdeint import STEPS, Equation, Path, Term
from ._solution import Solution, Trace
from ._steppers import Attempt, error_ratio, stepper_of, stiffness

Measure = Literal["error", "stiffness"]
Aggregate = Literal["mean", "sum", "max"]
Sampling = Literal["biased", "unbiased"]
Variant = Literal["corrected", "released"]


@dataclass(frozen=True, kw_only=True)
class Global:
    """ERNODE and SRNODE: an aggregate over the steps that the solver took; of per-sample steps the mean over samples.

    measure     error (E h) or stiffness (S / sigma)
    aggregate   mean, max as released; sum as in the paper
    """

    measure: Measure
    aggregate: Aggregate

    def __call__(self, solution: Solution) -> Float[Tensor, ""]:
        trace = _trace_of(solution)
        terms = self._terms(trace)
        if torch.is_grad_enabled() and not terms.requires_grad:
            raise ValueError(
                'These steps carry no gradient: integrate with gradient="discrete" where parameters require it, or '
                "use a Local regulariser, which goes with any adjoint."
            )
        return _aggregate(terms, trace.taken, self.aggregate).mean()

    def _terms(self, trace: Trace) -> Tensor:
        if self.measure == "error":
            return trace.error * trace.step.abs().to(trace.error.dtype)
        return _seen(trace) / trace.settings.tableau.real_axis


def _aggregate(terms: Tensor, taken: Tensor, how: Aggregate) -> Float[Tensor, " lane"]:
    terms = torch.where(taken, terms, 0.0)
    if how == "max":
        return terms.amax(dim=0)
    total = terms.sum(dim=0)
    return total if how == "sum" else total / taken.sum(dim=0).clamp_min(1)


ERNODE = Global(measure="error", aggregate="mean")
ERNODE_PAPER = Global(measure="error", aggregate="sum")
SRNODE = Global(measure="stiffness", aggregate="max")
SRNODE_PAPER = Global(measure="stiffness", aggregate="sum")


@dataclass(frozen=True, kw_only=True)
class Local:
    """LRNDE: one more step from a state of the solution, at a random time; with any way to the task's gradient.

    measure    error (E h) or stiffness (S / sigma)
    sampling   biased: at the start of an accepted step other than the last, each alike (stiff stretches are seen more);
               unbiased: t* uniform over the interval
    variant    corrected: slopes in the graph, the step that the solver took there; released: first slope and step
               constant, the step being the automatic initial one
    """

    measure: Measure
    sampling: Sampling = "biased"
    variant: Variant = "corrected"

    def __call__(self, function: RightHandSide, solution: Solution, *, generator: Generator) -> Float[Tensor, ""]:
        trace = _trace_of(solution)
        chosen, part = self.draw(trace, generator)
        return self.at(function, trace, chosen, part)

    def draw(self, trace: Trace, generator: Generator) -> tuple[Int[Tensor, " lane"], Float[Tensor, " lane"]]:
        """For each lane the accepted step, and how much of it has passed at t*."""
        lanes = trace.time.shape[1]
        chance = torch.rand(lanes, generator=generator, dtype=torch.float64).to(trace.time.device)
        if self.sampling == "unbiased":
            edges = (trace.step.abs() * trace.taken).cumsum(dim=0)
            length = chance * edges[-1]
            chosen = (edges <= length).sum(dim=0).clamp_max(len(edges) - 1)
            left = edges.gather(0, chosen[None])[0] - length
            part = 1 - left / trace.step.abs().gather(0, chosen[None])[0]
            return chosen, part.clamp(0, 1)
        eligible = (trace.taken.sum(dim=0) - 1).clamp_min(1)
        rank = (chance * eligible).long().clamp_max(eligible - 1) + 1  # the rank-th step that the lane took
        chosen = (trace.taken.cumsum(dim=0) < rank).sum(dim=0)
        return chosen, torch.zeros_like(chance)

    def at(
        self,
        function: RightHandSide,
        trace: Trace,
        chosen: Int[Tensor, " lane"],
        part: Float[Tensor, " lane"],
    ) -> Float[Tensor, ""]:
        """The regulariser at given places (see :meth:`draw`)."""
        if self.measure == "stiffness":
            _seen(trace)
        lanes = torch.arange(len(chosen), device=chosen.device)
        time, step = trace.time[chosen, lanes], trace.step[chosen, lanes]
        each = len(chosen) > 1
        state = trace.states[chosen, lanes] if each else trace.states[int(chosen)]
        sign = 1.0 if float(step[0]) > 0 else -1.0
        field = Field(function, state, sign)
        start, size = sign * time, sign * step
        flat = field.flat(state)
        if bool((part > 0).any()):
            flat = _inside(field, trace, start, size, flat, part, each)
            start = start + part * size
        attempt, size = self._step(field, trace, start, size, flat, each)
        return self._measured(attempt, trace, flat, size, each)

    def _step(
        self, field: Field, trace: Trace, start: Tensor, size: Tensor, flat: Tensor, each: bool
    ) -> tuple[Attempt, Tensor]:
        stepper = stepper_of(trace.settings.tableau, field, flat, graph=True)
        slope = field(_time(start, each), flat)
        if self.variant == "released":
            slope = slope.detach()
            with torch.no_grad():
                span = size if each else float(size)
                size = first_step(field, _time(start, each), flat, slope, trace.settings, span, each=each).reshape(-1)
        return stepper.attempt(_time(start, each), _time(size, each), flat, slope), size

    def _measured(self, attempt: Attempt, trace: Trace, flat: Tensor, size: Tensor, each: bool) -> Tensor:
        settings, step = trace.settings, size.to(flat.dtype)
        if self.measure == "stiffness":
            seen = stiffness(attempt, settings.tableau, step if each else float(size), each=each)
            return seen.mean() / settings.tableau.real_axis
        ratio = error_ratio(attempt.error, flat, attempt.state, rtol=settings.rtol, atol=settings.atol, each=each)
        return (ratio * (step if each else float(size))).mean()


def _time(values: Tensor, each: bool) -> float | Tensor:
    return values if each else float(values)


@torch.no_grad()
def _inside(field: Field, trace: Trace, start: Tensor, size: Tensor, flat: Tensor, part: Tensor, each: bool) -> Tensor:
    """The solver's own dense output within a step, by taking the step again."""
    stepper = stepper_of(trace.settings.tableau, field, flat, graph=False)
    slope = field(_time(start, each), flat)
    stages = stepper.attempt(_time(start, each), _time(size, each), flat, slope).stages
    theta = part.to(flat.dtype).expand(len(flat))
    return stepper.interpolate_each(theta, flat, stages.view(-1, *flat.shape))


def _trace_of(solution: Solution) -> Trace:
    if solution.trace is None or not len(solution.trace.time):
        raise ValueError("A regulariser looks at the steps: integrate with trace=True.")
    return solution.trace


def _seen(trace: Trace) -> Tensor:
    if trace.stiffness is None:
        raise ValueError(
            f"{trace.settings.tableau.name} has no two stages at equal times, so it cannot see stiffness: use tsit5, "
            "dopri5 or heun_euler."
        )
    return trace.stiffness


@dataclass(frozen=True, kw_only=True)
class GlobalNoise:
    """The same for stochastic equations (error of ``euler_heun``); the published spiral takes the sum."""

    aggregate: Aggregate

    def __call__(self, path: Path) -> Float[Tensor, ""]:
        error = _errors_of(path)
        terms = (error * path.step.to(error))[:, None]
        return _aggregate(terms, torch.ones_like(terms, dtype=torch.bool), self.aggregate).mean()


@dataclass(frozen=True, kw_only=True)
class LocalNoise:
    """One more step of ``euler_heun`` on the path's own noise, from the detached start of a random accepted step.

    sampling   biased: each step but the last alike; unbiased: steps by their length
    """

    sampling: Sampling = "biased"

    def __call__(self, drift: Term, diffusion: Term, path: Path, *, generator: Generator) -> Float[Tensor, ""]:
        _errors_of(path)
        weights = path.step.clone() if self.sampling == "unbiased" else torch.ones_like(path.step)
        if self.sampling == "biased" and len(weights) > 1:
            weights[-1] = 0
        return self.at(drift, diffusion, path, int(torch.multinomial(weights, 1, generator=generator)))

    def at(self, drift: Term, diffusion: Term, path: Path, chosen: int) -> Float[Tensor, ""]:
        """E h of the accepted step with this number, taken again."""
        time, step, state = float(path.time[chosen]), float(path.step[chosen]), path.starts[chosen]
        noise = (path.brownian(time + step) - path.brownian(time)).to(state)
        new, error = STEPS["euler_heun"](Equation(drift, diffusion), time, step, state, noise)
        assert error is not None
        return error_ratio(error, state, new, rtol=path.rtol, atol=path.atol, each=False) * step


def _errors_of(path: Path) -> Tensor:
    if path.error is None:
        raise ValueError('This method estimates no error: integrate with method="euler_heun".')
    return path.error


@dataclass(frozen=True, kw_only=True)
class Weight:
    """The weight of a regulariser over training, exponential from ``start`` to ``end``; constant where they are equal.

    Published: MNIST error 100 -> 10 (2021), 2.5 -> 1 (2023), stiffness 0.1; Physionet error 1000 -> 100, stiffness 10.
    """

    start: float
    end: float

    def __post_init__(self) -> None:
        if not (self.start > 0 and self.end > 0):
            raise ValueError(f"Weights are positive, got {self.start} -> {self.end}.")

    def __call__(self, progress: float) -> float:
        """At a share of the training, 0 ... 1."""
        return self.start * (self.end / self.start) ** progress
