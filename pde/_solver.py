"""What answers: the one interface behind which a reference, an operator, a Gaussian process or a field stands."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from ._grid import Grid
from ._problem import Signature


class SolverError(RuntimeError):
    """A solver could not go on; the message says at which sample and time, and what to change."""


class Solver(ABC):
    """Maps a problem's inputs to its outputs on a grid. Whoever judges, draws or exports asks for nothing else."""

    @abstractmethod
    def __call__(
        self,
        inputs: Float[Tensor, "batch channel *space"],
        grid: Grid,
        times: Sequence[float] | None = None,
    ) -> Float[Tensor, "batch *rest"]:
        """Solve for each sample of the batch.

        A static map returns ``batch channel *space``. An evolution takes the state at time 0 and returns
        ``batch time channel *space`` at ``times`` (strictly increasing, positive; default: the problem's own frames).
        Raises ``ValueError`` for shapes that do not fit the grid, :class:`SolverError` where the computation fails.
        """


def rollout(
    step: Solver, state: Float[Tensor, "batch channel *space"], grid: Grid, steps: int
) -> Float[Tensor, "batch time output *space"]:
    """Apply a one-frame map (numerical or learned: state -> next state) ``steps`` times and keep every frame.

    Channels of ``state`` beyond those that the map returns are given: they stay as they are.
    """
    frames = []
    for _ in range(steps):
        frames.append(step(state, grid))
        state = advanced(state, frames[-1])
    return torch.stack(frames, dim=1)


def advanced(
    inputs: Float[Tensor, "batch channel *space"], state: Float[Tensor, "batch output *space"]
) -> Float[Tensor, "batch channel *space"]:
    """The inputs of an evolution's next step: the new state, and what was given beside the old one."""
    given = inputs[:, state.shape[1] :]
    return torch.cat([state, given], dim=1) if given.shape[1] else state


class Stepped(Solver):
    """An evolution made of one-frame steps: the rollout of ``step`` at multiples of the signature's spacing."""

    def __init__(self, step: Solver, signature: Signature) -> None:
        self.step = step
        self.signature = signature

    def __call__(self, inputs: Tensor, grid: Grid, times: Sequence[float] | None = None) -> Tensor:
        wanted = frame_numbers(self.signature.times if times is None else times, self.signature.spacing)
        frames = rollout(self.step, inputs, grid, wanted[-1])
        return frames[:, [n - 1 for n in wanted]]


class OneFrame(Solver):
    """The other way round: one frame of an evolution, as a map from state to state."""

    def __init__(self, evolution: Solver, spacing: float) -> None:
        self.evolution = evolution
        self.spacing = spacing

    def __call__(self, inputs: Tensor, grid: Grid, times: Sequence[float] | None = None) -> Tensor:
        return self.evolution(inputs, grid, (self.spacing,))[:, 0]


def frame_numbers(times: Sequence[float], spacing: float) -> list[int]:
    """Times as multiples of the frame spacing: what a solver that knows only whole frames can serve."""
    numbers = [round(time / spacing) for time in times]
    if not numbers or any(abs(n * spacing - t) > 1e-6 * spacing for n, t in zip(numbers, times, strict=True)):
        raise ValueError(
            f"This solver knows only multiples of its frame spacing {spacing}; it was asked for times {list(times)}."
        )
    check_times(times)
    return numbers


def check_times(times: Sequence[float]) -> None:
    """Refuse times that no evolution can serve."""
    if not times or times[0] <= 0 or any(b <= a for a, b in zip(times, times[1:], strict=False)):
        raise ValueError(f"Times are positive and strictly increasing; got {list(times)}.")


def check_fields(values: Tensor, grid: Grid, channels: int, what: str = "inputs") -> None:
    """The one door check of every solver: ``batch channel *space`` on this grid, finite and real."""
    expected = ("batch", channels, *grid.shape)
    if values.ndim != 2 + grid.dim or values.shape[1] != channels or tuple(values.shape[2:]) != grid.shape:
        raise ValueError(f"Expected {what} of shape {expected}, got {tuple(values.shape)}.")
    if not values.is_floating_point():
        raise ValueError(f"Expected real floating-point {what}, got {values.dtype}.")
    if math.isfinite(float(values.detach().sum())):  # one pass; a sum that overflows is looked at again
        return
    finite = torch.isfinite(values).flatten(1).all(dim=1)
    if not bool(finite.all()):
        bad = (~finite).nonzero().flatten().tolist()
        raise ValueError(f"Non-finite values in {what} at sample(s) {bad[:8]} of {len(values)}.")
