"""The right-hand side as the integrators call it: forward in time, on flat states, checked once, counted."""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from ..pde import SolverError

RightHandSide = Callable[..., Tensor]  # f(t, y, *given)
Time = float | Tensor  # one for the batch, or one per sample: "batch"


class Field:
    r""":math:`\dot y = f(t, y)` with ``y: batch *state`` seen as ``batch unknown``.

    Integrators run forward in :math:`s = \pm t`; ``sign`` is -1 where the times decrease. ``given`` is passed on.
    """

    def __init__(self, function: RightHandSide, state: Tensor, sign: float, given: tuple[Tensor, ...] = ()) -> None:
        self.function, self.shape, self.sign, self.given = function, state.shape, sign, given
        self.dtype, self.device = state.dtype, state.device
        self.calls = 0  # of the right-hand side, each for the whole batch
        self.jacobians = 0

    def rows(self, chosen: Tensor) -> Field:
        """The same for some of the samples; counts go on."""
        some = copy.copy(self)
        some.shape = torch.Size((len(chosen), *self.shape[1:]))
        some.given = tuple(values[chosen] for values in self.given)
        return some

    def flat(self, values: Tensor) -> Float[Tensor, "batch unknown"]:
        return values.reshape(self.shape[0], -1)

    def full(self, flat: Tensor) -> Tensor:
        return flat.reshape(self.shape)

    def time(self, time: Time) -> Tensor:
        """The user's time: 0-dimensional, or ``batch 1 ... 1``, so that either broadcasts against the state."""
        if isinstance(time, float):
            return torch.tensor(self.sign * time, dtype=self.dtype, device=self.device)
        return (self.sign * time).to(self.dtype).view(-1, *[1] * (len(self.shape) - 1))

    def clocks(self, time: Time, step: Time, nodes: Float[Tensor, " stage"]) -> tuple[Tensor, ...]:
        """The user's times of all stages of a step, made at once; nodes in float64."""
        if isinstance(time, float):
            return (self.sign * (time + nodes * step)).to(self.dtype).unbind()
        times = (self.sign * (time + nodes[:, None] * step)).to(self.dtype)
        return times.view(len(nodes), -1, *[1] * (len(self.shape) - 1)).unbind()

    def __call__(self, time: Time, state: Float[Tensor, "batch unknown"]) -> Float[Tensor, "batch unknown"]:
        return self.at(self.time(time), state)

    def at(self, clock: Tensor, state: Float[Tensor, "batch unknown"]) -> Float[Tensor, "batch unknown"]:
        """At the user's time (``clocks``)."""
        values = self.function(clock, self.full(state), *self.given)
        self.calls += 1
        if self.calls == 1:
            self._check(values)
        return self.flat(values if self.sign > 0 else -values)

    def _check(self, values: Tensor) -> None:
        if not isinstance(values, Tensor) or values.shape != self.shape or values.dtype != self.dtype:
            got = f"{values.dtype} of shape {tuple(values.shape)}" if isinstance(values, Tensor) else type(values)
            raise ValueError(
                f"The right-hand side must return the derivative of the state, {self.dtype} of shape "
                f"{tuple(self.shape)}; it returned {got}."
            )
        finite = torch.isfinite(values.detach()).reshape(len(values), -1).all(dim=1)
        if not bool(finite.all()):
            samples = (~finite).nonzero().flatten().tolist()
            raise SolverError(
                f"The right-hand side is not finite at the initial state of sample(s) {samples[:8]}: check the initial "
                "state, the parameters and the units of time."
            )

    def linearised(self, time: Time, state: Tensor, *, graph: bool) -> tuple[Tensor, Tensor]:
        r"""Jacobian :math:`f_y` (``batch row column``; samples do not see each other) and :math:`f_t`.

        Reverse mode, one product per row. torch.func's forward mode would need one call, but its first one imports for
        seconds, and its steps cost more than these. Products with one cotangent u are linear in u, and their derivative
        by u is f_t.
        """
        with torch.enable_grad():
            place = state if state.requires_grad else state.detach().requires_grad_()
            clock = self.time(time).requires_grad_()
            values = self.flat(self.function(clock, self.full(place), *self.given))
            rate = _along(values, clock)
            rows = _rows(values, place, graph)
        self.jacobians += 1
        jacobian = rows if self.sign > 0 else -rows
        return (jacobian, rate) if graph else (jacobian.detach(), rate.detach())


def _rows(values: Tensor, place: Tensor, graph: bool) -> Float[Tensor, "batch row column"]:
    """For each sample the derivatives of its values by its own unknowns."""
    if not values.requires_grad:
        return values.new_zeros(*values.shape, place.shape[1])
    units = torch.eye(values.shape[1], dtype=values.dtype, device=values.device)
    found = []
    for unit in units:
        (row,) = torch.autograd.grad(
            values, place, unit.expand_as(values), create_graph=graph, retain_graph=True, allow_unused=True
        )
        found.append(torch.zeros_like(place) if row is None else row)
    return torch.stack(found, dim=1)


def _along(values: Tensor, clock: Tensor) -> Float[Tensor, "batch unknown"]:
    """The derivative of all values by one time, or each sample's by its own; differentiable."""
    if not values.requires_grad:
        return torch.zeros_like(values)
    cotangent = torch.ones_like(values, requires_grad=True)
    (back,) = torch.autograd.grad(values, clock, cotangent, create_graph=True, allow_unused=True)
    if back is None or not back.requires_grad:
        return torch.zeros_like(values)
    (rate,) = torch.autograd.grad(back.sum(), cotangent, create_graph=True, allow_unused=True)
    return torch.zeros_like(values) if rate is None else rate
