r"""The almost-linear recurrence and its training: :math:`z_t = a \odot z_{t-1} + W \phi(z_{t-1}) + h + C g`.

phi   identity on the first M - P units, max(0, .) on the last P: at most 2^P regions, in each the map is affine
N     the first N <= M units are what is observed; z_0 = (x_0, L x_0)
g     what is given, constant in time

Teacher forcing while training: after each step the observed units are drawn towards data, x <- (1 - s_t) x + s_t data,
with s_t = 1 at every ``interval``-th step and 0 else (sparse: Mikhaeil, Monfared, Durstewitz 2022), or a constant s
(generalised: Hess, Monfared, Brenner, Durstewitz 2023). Units that are not observed are never forced. The loss is taken
before the forcing. Gradients that would explode along a chaotic orbit are cut that way.

:func:`scan` runs the recurrence and its gradient by hand: two small operations a step, three on the way back, instead
of a graph. :func:`scan_reference` is the same in plain autograd.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

Forced = tuple[Tensor, list[float]]  # data ``batch time observed``, strength after each step


class Recurrence(nn.Module):
    """An almost-linear recurrent network.

    observed    N
    hidden      units beside them, M - N
    rectified   P, of the last units
    given       numbers given beside the state
    """

    def __init__(self, observed: int, hidden: int, rectified: int, *, given: int = 0) -> None:
        super().__init__()
        units = observed + hidden
        if observed < 1 or hidden < 0 or not 0 <= rectified <= units:
            raise ValueError(
                f"An AL-RNN has observed >= 1, hidden >= 0 and 0 <= rectified <= observed + hidden; got {observed}, "
                f"{hidden}, {rectified}."
            )
        self.observed, self.units, self.rectified = observed, units, rectified
        square = torch.randn(units, units)
        square = square.T @ square / units + torch.eye(units)
        self.diagonal = nn.Parameter((square / torch.linalg.eigvalsh(square)[-1]).diagonal().clone())
        self.weight = nn.Parameter(0.01 * torch.randn(units, units))
        self.offset = nn.Parameter(torch.zeros(units))
        self.start = nn.Parameter(torch.randn(hidden, observed) / observed**0.5)
        self.drive = nn.Parameter(0.01 * torch.randn(units, given)) if given else None

    def begin(self, observed: Float[Tensor, "batch observed"]) -> Float[Tensor, "batch unit"]:
        return torch.cat([observed, observed @ self.start.T], dim=1)

    def push(self, given: Tensor | None, count: int) -> Float[Tensor, "batch unit"]:
        """What is added at every step."""
        if self.drive is None or given is None:
            return self.offset.expand(count, -1)
        return self.offset + given @ self.drive.T

    def step(self, state: Float[Tensor, "batch unit"], push: Tensor | None = None) -> Float[Tensor, "batch unit"]:
        """One time step; ``push`` where something is given."""
        phi = rectify(state, self.rectified)
        return self.diagonal * state + phi @ self.weight.T + (self.offset if push is None else push)

    def run(
        self, start: Float[Tensor, "batch unit"], push: Float[Tensor, "batch unit"], steps: int, forced: Forced | None
    ) -> Float[Tensor, "batch time unit"]:
        """The states after 1 ... ``steps`` steps, each before its forcing."""
        return scan(self.diagonal, self.weight, push, start, steps, self.rectified, self.observed, forced)

    def jacobian(self, region: Float[Tensor, "*batch rectified"]) -> Float[Tensor, "*batch unit unit"]:
        """diag(a) + W D: the linear part of the map in the region where these units (1 or 0) are active."""
        active = torch.cat([region.new_ones(*region.shape[:-1], self.units - self.rectified), region], dim=-1)
        return torch.diag(self.diagonal) + self.weight * active[..., None, :]

    def regions(self, states: Float[Tensor, "*batch unit"]) -> Float[Tensor, "*batch rectified"]:
        """Which rectified units are active, 1 or 0."""
        return (states[..., self.units - self.rectified :] > 0).to(states)


def rectify(state: Float[Tensor, "batch unit"], count: int) -> Float[Tensor, "batch unit"]:
    """A new tensor: the state itself is needed unrectified."""
    linear = state.shape[1] - count
    return torch.cat([state[:, :linear], state[:, linear:].clamp_min(0)], dim=1)


def scan_reference(
    diagonal: Tensor,
    weight: Tensor,
    push: Tensor,
    start: Tensor,
    steps: int,
    rectified: int,
    observed: int,
    forced: Forced | None,
) -> Float[Tensor, "batch time unit"]:
    """Step by step, as it is written."""
    state, found = start, []
    for t in range(steps):
        state = diagonal * state + rectify(state, rectified) @ weight.T + push
        found.append(state)
        if forced is not None and forced[1][t]:
            strength = forced[1][t]
            drawn = (1 - strength) * state[:, :observed] + strength * forced[0][:, t]
            state = torch.cat([drawn, state[:, observed:]], dim=1)
    return torch.stack(found, dim=1)


def scan(
    diagonal: Tensor,
    weight: Tensor,
    push: Tensor,
    start: Tensor,
    steps: int,
    rectified: int,
    observed: int,
    forced: Forced | None,
) -> Float[Tensor, "batch time unit"]:
    """The same with a gradient written by hand (of everything but the data)."""
    data, strengths = forced if forced is not None else (start.new_zeros(0), [0.0] * steps)
    found = _Scan.apply(diagonal, weight, push, start, data, strengths, rectified, observed)
    return found.transpose(0, 1)


class _Scan(torch.autograd.Function):
    """Time is the first axis inside. A state lies beside its rectified units, ``wide``, so that a step is one product.

    joint   [diag(a) + W | W]: W acts on the units as they are in its first columns, on the rectified ones in its last
    """

    @staticmethod
    def forward(
        ctx: Any,
        diagonal: Tensor,
        weight: Tensor,
        push: Tensor,
        start: Tensor,
        data: Tensor,
        strengths: list[float],
        rectified: int,
        observed: int,
    ) -> Tensor:
        steps, (batch, units) = len(strengths), start.shape
        cut, given = units - rectified, data.transpose(0, 1).unbind(0) if data.numel() else None
        plain = torch.diag(diagonal)
        plain[:, :cut] += weight[:, :cut]
        columns = torch.cat([plain, weight[:, cut:]], dim=1).t().contiguous()
        wide = start.new_empty(steps + 1, batch, units + rectified)
        lines, states = wide.unbind(0), wide[:, :, :units].unbind(0)
        tails, bent = wide[:, :, cut:units].unbind(0), wide[:, :, units:].unbind(0)
        before: list[tuple[int, Tensor]] = []  # what forcing has overwritten
        states[0].copy_(start)
        for t in range(steps):
            if t:
                torch.addmm(push, lines[t - 1], columns, out=states[t])
                if given is not None and strengths[t - 1]:
                    seen = states[t][:, :observed]
                    before.append((t - 1, seen.clone()))
                    seen.lerp_(given[t - 1], strengths[t - 1])
            torch.clamp(tails[t], min=0, out=bent[t])
        torch.addmm(push, lines[steps - 1], columns, out=states[steps])
        after = wide[1:, :, :units].clone()
        for t, seen in before:
            after[t, :, :observed] = seen
        ctx.save_for_backward(plain, weight, wide)
        ctx.strengths, ctx.observed, ctx.forced = strengths, observed, given is not None
        return after

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, upper: Tensor) -> tuple[Tensor | None, ...]:
        plain, weight, wide = ctx.saved_tensors
        steps, batch, units = upper.shape
        cut = 2 * units - wide.shape[2]
        total = upper.clone(memory_format=torch.contiguous_format)
        active = (wide[:-1, :, cut:units] > 0).to(upper).unbind(0)
        grads, tails, bending = total.unbind(0), total[:, :, cut:].unbind(0), weight[:, cut:].contiguous()
        back, bent = total.new_empty(batch, units), total.new_empty(batch, units - cut)
        end = back[:, cut:]
        for t in reversed(range(steps)):
            torch.mm(grads[t], bending, out=bent)
            if t and not (ctx.forced and ctx.strengths[t - 1]):
                grads[t - 1].addmm_(grads[t], plain)
                tails[t - 1].addcmul_(bent, active[t])
                continue
            torch.mm(grads[t], plain, out=back)
            end.addcmul_(bent, active[t])
            if t:
                back[:, : ctx.observed].mul_(1 - ctx.strengths[t - 1])
                grads[t - 1].add_(back)
        by_joint = total.view(-1, units).t() @ wide[:-1].reshape(steps * batch, -1)
        by_weight = torch.cat([by_joint[:, :cut], by_joint[:, units:]], dim=1)
        return by_joint[:, :units].diagonal(), by_weight, total.sum(dim=0), back, None, None, None, None
