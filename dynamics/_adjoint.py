r"""Gradients by the adjoint equation (Pontryagin 1962; Chen et al., NeurIPS 2018), of the solution, not of its digits.

With :math:`a = \partial L / \partial y(t)` and parameters p

    \dot a = -a^T f_y,   \dot g = -a^T f_p  (backwards in time),   a jumps by \partial L/\partial y_i at each asked time

``backsolve`` integrates y backwards beside a: memory for the asked states only, but its
errors grow backwards where the dynamics contract. ``interpolated`` takes y from the dense output of the forward
steps, recomputed
between checkpoints (Serban and Hindmarsh 2005; SUNDIALS): memory for n/k states and k steps, for every k-th state kept.

The quadrature g does not feed back, so it is left out of the error norm (Kidger et al., ICML 2021).
"""

from __future__ import annotations

import bisect
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ._batch_wide import BatchWide
from ._control import Settings
from ._field import Field, RightHandSide
from ._per_sample import PerSample
from ._solution import Counts, Trace
from ._steppers import Attempt, Stepper, stepper_of
from ._tableaus import Rosenbrock


class Kept(NamedTuple):
    """An accepted step, and its state where it is a checkpoint (every k-th)."""

    time: float
    step: float
    state: Tensor | None


@dataclass
class Plan:
    """What the backward pass has to know; times forward (see :class:`Field`)."""

    function: RightHandSide
    times: list[float]
    sign: float
    settings: Settings
    shape: tuple[int, ...]
    interpolated: bool
    each: bool
    checkpoint: int
    steps: list[Kept] = field(default_factory=list)
    counts: Counts | None = None
    trace: Trace | None = None

    def observe(self, time: float, step: float, state: Tensor, _: Tensor, __: Attempt, ___: Stepper) -> None:
        self.steps.append(Kept(time, step, state if len(self.steps) % self.checkpoint == 0 else None))

    def forward(self, state: Tensor) -> Tensor:
        right = Field(self.function, state, self.sign)
        flat = right.flat(state)
        if self.each:
            clock = torch.tensor(self.times, dtype=torch.float64, device=state.device).expand(len(state), -1)
            sampled = PerSample(right, flat, clock, self.settings, None)
            states, self.counts, self.trace = sampled.run(), sampled.counts(), sampled.trace()
        else:
            whole = BatchWide(right, flat, self.times, self.settings, self.observe if self.interpolated else None)
            states, self.counts = torch.stack(whole.run(), dim=1), whole.counts()
            self.trace = whole.trace()
        return states.view(len(state), -1, *state.shape[1:])


def solve(
    function: RightHandSide,
    state: Tensor,
    clock: Tensor,
    sign: float,
    settings: Settings,
    parameters: tuple[Tensor, ...],
    gradient: str,
    control: str,
    checkpoint: int,
) -> tuple[Tensor, Counts, Trace | None]:
    """States at all times, with the adjoint as their backward pass; counts and trace of the forward pass."""
    if isinstance(settings.tableau, Rosenbrock):
        raise ValueError('Adjoint equations are integrated explicitly: with rodas4 use gradient="discrete".')
    if clock.ndim == 2:
        raise ValueError("Adjoint equations run on one clock: give one row of times, or use gradient='discrete'.")
    interpolated = gradient == "interpolated"
    if interpolated and control == "sample":
        raise ValueError('gradient="interpolated" keeps the steps of the batch: use control="batch" with it.')
    if checkpoint < 1:
        raise ValueError(f"checkpoint is a number of steps, at least 1; got {checkpoint}.")
    plan = Plan(
        function,
        clock.tolist(),
        sign,
        settings,
        tuple(state.shape),
        interpolated,
        control == "sample",
        checkpoint,
    )
    states = _Adjoint.apply(plan, state, *parameters)
    assert plan.counts is not None
    return states, plan.counts, plan.trace


class _Adjoint(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, plan: Plan, state: Tensor, *parameters: Tensor) -> Tensor:
        states = plan.forward(state)
        ctx.plan = plan
        ctx.save_for_backward(states, *parameters)
        return states

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        plan: Plan = ctx.plan
        states, *parameters = ctx.saved_tensors
        wanted = [p for p in parameters if p.requires_grad]
        back = _interpolated if plan.interpolated else _backsolve
        start, sums = back(plan, states, gradients[0], wanted)
        found = iter(sums)
        return (None, start, *(next(found) if p.requires_grad else None for p in parameters))


class Products:
    """f and the vector-Jacobian products of one adjoint evaluation, on flat vectors."""

    def __init__(self, plan: Plan, parameters: list[Tensor]) -> None:
        self.function, self.shape, self.parameters = plan.function, plan.shape, parameters

    def __call__(self, time: Tensor, state: Tensor, adjoint: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        with torch.enable_grad():
            place = state.detach().reshape(self.shape).requires_grad_()
            slope = self.function(time, place)
            asked = (place, *self.parameters)
            if not slope.requires_grad:  # it depends on neither
                none = [torch.zeros_like(x) for x in asked]
                return slope.reshape(-1), none[0].reshape(-1), self._flat(none[1:], slope)
            found = torch.autograd.grad(slope, asked, -adjoint.reshape(self.shape), allow_unused=True)
        filled = [torch.zeros_like(x) if g is None else g for x, g in zip(asked, found, strict=True)]
        return slope.detach().reshape(-1), filled[0].reshape(-1), self._flat(filled[1:], slope)

    @staticmethod
    def _flat(tensors: list[Tensor], like: Tensor) -> Tensor:
        return torch.cat([t.reshape(-1) for t in tensors]) if tensors else like.new_zeros(0)

    def split(self, flat: Tensor) -> list[Tensor]:
        parts = flat.split([p.numel() for p in self.parameters])
        return [part.view(p.shape).to(p.dtype) for part, p in zip(parts, self.parameters, strict=True)]


def _descend(
    plan: Plan, right: Callable[[Tensor, Tensor], Tensor], packed: Tensor, late: float, early: float, count: int
) -> Tensor:
    """Integrate the packed system backwards from ``late`` to ``early``."""
    settings = replace(plan.settings, count=count, trace=False)
    back = Field(right, packed[None], -plan.sign)
    return BatchWide(back, packed[None], [-late, -early], settings, graph=False).run()[-1][0]


def _backsolve(plan: Plan, states: Tensor, gradients: Tensor, parameters: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
    products, size = Products(plan, parameters), states[:, 0].numel()

    def right(time: Tensor, packed: Tensor) -> Tensor:
        return torch.cat(products(time, packed[0, :size], packed[0, size : 2 * size]))[None]

    adjoint = gradients[:, -1].reshape(-1)
    total = adjoint.new_zeros(sum(p.numel() for p in parameters))
    for i in range(len(plan.times) - 1, 0, -1):
        packed = torch.cat([states[:, i].reshape(-1), adjoint, total])
        packed = _descend(plan, right, packed, plan.times[i], plan.times[i - 1], 2 * size)
        adjoint, total = packed[size : 2 * size] + gradients[:, i - 1].reshape(-1), packed[2 * size :]
    return adjoint.view(plan.shape), products.split(total)


def _interpolated(
    plan: Plan, states: Tensor, gradients: Tensor, parameters: list[Tensor]
) -> tuple[Tensor, list[Tensor]]:
    products, size = Products(plan, parameters), states[:, 0].numel()
    adjoint = gradients[:, -1].reshape(-1)
    total = adjoint.new_zeros(sum(p.numel() for p in parameters))
    waiting = len(plan.times) - 2  # the next asked time to meet on the way back
    late = plan.times[-1]
    for first in range((len(plan.steps) - 1) // plan.checkpoint * plan.checkpoint, -1, -plan.checkpoint):
        path = Path(plan, first)

        def right(time: Tensor, packed: Tensor, path: Path = path) -> Tensor:
            state = path(plan.sign * float(time))
            return torch.cat(products(time, state, packed[0, :size])[1:])[None]

        stops = [i for i in range(waiting, -1, -1) if plan.times[i] >= path.start]
        for early, home in [*((plan.times[i], i) for i in stops), (path.start, None)]:
            if early < late:
                packed = _descend(plan, right, torch.cat([adjoint, total]), late, early, size)
                adjoint, total, late = packed[:size], packed[size:], early
            if home is not None:
                adjoint, waiting = adjoint + gradients[:, home].reshape(-1), home - 1
    return adjoint.view(plan.shape), products.split(total)


class Path:
    """The stored solution from one checkpoint to the next, steps taken again as they were."""

    def __init__(self, plan: Plan, first: int) -> None:
        steps = plan.steps[first : first + plan.checkpoint]
        state = steps[0].state
        assert state is not None
        right = Field(plan.function, state.reshape(plan.shape), plan.sign)
        stepper = stepper_of(plan.settings.tableau, right, state, graph=False)
        self.starts, self.start, self.stepper = [kept.time for kept in steps], steps[0].time, stepper
        self.pieces: list[tuple[float, float, Tensor, Tensor]] = []
        slope = right(steps[0].time, state)
        for kept in steps:
            attempt = stepper.attempt(kept.time, kept.step, state, slope)
            self.pieces.append((kept.time, kept.step, state, attempt.stages.clone()))
            state, slope = attempt.state, attempt.slope

    def __call__(self, time: float) -> Tensor:
        begun, step, state, stages = self.pieces[max(bisect.bisect_right(self.starts, time) - 1, 0)]
        theta = torch.tensor([(time - begun) / step], dtype=state.dtype, device=state.device)
        return self.stepper.interpolate(theta, state, stages)[0].reshape(-1)
