r"""One attempted step of each family of methods.

Stages are held scaled by the step, :math:`K_i = h k_i`, so that a stage's argument is one matrix-vector product
:math:`y + [K_1 \dots K_{i-1}]\, a_i` with constant :math:`a_i`, whether the step is one number or one per sample. Where
no gradient is recorded the stages share one buffer, which the next attempt overwrites.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import NamedTuple

import torch
from torch import Tensor

from ._field import Field, Time
from ._tableaus import Rosenbrock, Tableau, dense_of, rows_of


class Attempt(NamedTuple):
    """What one step says; ``stages`` is valid until the next attempt."""

    state: Tensor  # batch unknown
    slope: Tensor  # f at the new state
    error: Tensor  # local error estimate, batch unknown
    stages: Tensor  # stage unknowns (flat)
    before: Tensor | None  # the argument of the last stage but one (see :func:`stiffness`)


class Stepper(ABC):
    """Steps of one method for one right-hand side."""

    def __init__(self, tableau: Tableau, field: Field, like: Tensor, *, graph: bool) -> None:
        self.tableau, self.field, self.graph = tableau, field, graph
        self.rows = rows_of(tableau.stages, like.dtype, like.device)
        self.weights, self.error = rows_of((tableau.weights, tableau.error), like.dtype, like.device)
        self.dense = dense_of(tableau, like.dtype, like.device)
        (self.nodes,) = rows_of((tableau.nodes,), torch.float64, like.device)
        if not graph:
            self.buffer = like.new_empty(tableau.size, like.numel())
            self.lines = [row.view(like.shape) for row in self.buffer]
            self.columns = [self.buffer[:i].T for i in range(tableau.size + 1)]

    @abstractmethod
    def attempt(self, time: Time, step: Time, state: Tensor, slope: Tensor) -> Attempt: ...

    def interpolate(self, theta: Tensor, state: Tensor, stages: Tensor) -> Tensor:
        """Dense output of the step that began at ``state``: theta of shape ``time`` -> ``time batch unknown``."""
        powers = torch.stack([theta**p for p in range(1, self.dense.shape[0] + 1)], dim=-1)
        return state + ((powers @ self.dense) @ stages).view(-1, *state.shape)

    def interpolate_each(self, theta: Tensor, state: Tensor, stages: Tensor) -> Tensor:
        """As above with a time of its own for every row; stages ``stage row unknown``."""
        powers = torch.stack([theta**p for p in range(1, self.dense.shape[0] + 1)], dim=-1)
        return state + torch.einsum("rs,sru->ru", powers @ self.dense, stages)


class Explicit(Stepper):
    """Explicit Runge-Kutta with the first stage of a step equal to the last of the one before."""

    def attempt(self, time: Time, step: Time, state: Tensor, slope: Tensor) -> Attempt:
        return self._recorded(time, step, state, slope) if self.graph else self._buffered(time, step, state, slope)

    def _buffered(self, time: Time, step: Time, state: Tensor, slope: Tensor) -> Attempt:
        scale = step if isinstance(step, float) else step.to(state.dtype)[:, None]
        flat, before, argument = state.reshape(-1), None, state
        clocks = self.field.clocks(time, step, self.nodes)
        torch.mul(slope, scale, out=self.lines[0])
        for i in range(1, self.tableau.size):
            before = argument
            argument = torch.addmv(flat, self.columns[i], self.rows[i]).view(state.shape)
            slope = self.field.at(clocks[i], argument)
            torch.mul(slope, scale, out=self.lines[i])
        error = torch.mv(self.columns[-1], self.error).view(state.shape)
        return Attempt(argument, slope, error, self.buffer, before)

    def _recorded(self, time: Time, step: Time, state: Tensor, slope: Tensor) -> Attempt:
        scale = step if isinstance(step, float) else step.to(state.dtype)[:, None]
        flat, before, argument = state.reshape(-1), None, state
        stages, clocks = [(slope * scale).reshape(-1)], self.field.clocks(time, step, self.nodes)
        for i in range(1, self.tableau.size):
            before = argument
            argument = torch.addmv(flat, torch.stack(stages).T, self.rows[i]).view(state.shape)
            slope = self.field.at(clocks[i], argument)
            stages.append((slope * scale).reshape(-1))
        table = torch.stack(stages)
        return Attempt(argument, slope, torch.mv(table.T, self.error).view(state.shape), table, before)


class LinearlyImplicit(Stepper):
    """Rosenbrock: one Jacobian and one factorisation per sample and step, no iteration."""

    def __init__(self, tableau: Rosenbrock, field: Field, like: Tensor, *, graph: bool) -> None:
        super().__init__(tableau, field, like, graph=graph)
        self.gamma, self.drift = tableau.gamma, tableau.time
        self.couplings = rows_of(tableau.coupling, like.dtype, like.device)
        self.identity = torch.eye(like.shape[1], dtype=like.dtype, device=like.device)
        self._at: Tensor | None = None  # the state at which the Jacobian was taken: rejected steps keep it

    def attempt(self, time: Time, step: Time, state: Tensor, slope: Tensor) -> Attempt:
        if self._at is not state:
            self._jacobian, self._rate = self.field.linearised(time, state, graph=self.graph)
            self._at = state
        scale = torch.tensor(step) if isinstance(step, float) else step
        scale = scale.to(self.identity).reshape(-1, 1)
        factors = torch.linalg.lu_factor(self.identity / (self.gamma * scale)[..., None] - self._jacobian)
        stages: list[Tensor] = []
        argument, clocks = state, self.field.clocks(time, step, self.nodes)
        for i in range(self.tableau.size):
            if i:
                table = torch.stack(stages).T
                argument = torch.addmv(state.reshape(-1), table, self.rows[i]).view(state.shape)
                slope = self.field.at(clocks[i], argument)
            right = slope + (self.drift[i] * scale) * self._rate
            if i:
                right = right + torch.mv(table, self.couplings[i]).view(state.shape) / scale
            stages.append(torch.linalg.lu_solve(*factors, right[..., None]).reshape(-1))
        new = argument + stages[-1].view(state.shape)
        end = self.field(time + step, new)
        return Attempt(new, end, stages[-1].view(state.shape), torch.stack(stages), None)


def stepper_of(tableau: Tableau, field: Field, like: Tensor, *, graph: bool) -> Stepper:
    if isinstance(tableau, Rosenbrock):
        return LinearlyImplicit(tableau, field, like, graph=graph)
    return Explicit(tableau, field, like, graph=graph)


def error_ratio(
    error: Tensor,
    state: Tensor,
    new: Tensor,
    *,
    rtol: float,
    atol: float | Tensor,
    each: bool,
    count: int | None = None,
) -> Tensor:
    r"""RMS of :math:`e / (atol + rtol \max(|y_0|, |y_1|))` over the batch, or for each sample; at most 1 is accepted.

    ``count``: only the first so many unknowns are controlled.
    """
    if count is not None:
        error, state, new = error[:, :count], state[:, :count], new[:, :count]
    ratio = error / torch.maximum(state.abs(), new.abs()).mul(rtol).add(atol)
    if each:
        return torch.linalg.vector_norm(ratio, dim=1) / ratio.shape[1] ** 0.5
    return torch.linalg.vector_norm(ratio) / ratio.numel() ** 0.5


def stiffness(attempt: Attempt, tableau: Tableau, step: Time, *, each: bool) -> Tensor:
    r"""Estimate of :math:`|\lambda_{max}|` [1/time]: :math:`\|k_s - k_{s-1}\| / \|g_s - g_{s-1}\|`, both at t + h."""
    assert tableau.stiffness is not None
    assert attempt.before is not None
    i, j = tableau.stiffness
    slopes = (attempt.stages[j] - attempt.stages[i]).view(attempt.state.shape)
    places = attempt.state - attempt.before
    over = {"dim": 1} if each else {}
    length = torch.linalg.vector_norm(places, **over) * step
    # a state at rest has both norms zero: no stiffness is seen there
    return torch.linalg.vector_norm(slopes, **over) / length.clamp_min(torch.finfo(length.dtype).tiny)
