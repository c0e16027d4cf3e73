"""What an integration says: states at the asked times, exact counts, and each accepted step in the open."""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Bool, Float, Int
from torch import Tensor

from ._control import Settings


@dataclass(frozen=True)
class Counts:
    """Exact work, per sample. With one step size for the batch every sample has the same.

    evaluations   of the right-hand side while the sample was under way: two for the first step included
    accepted      steps
    rejected      steps
    jacobians     of implicit methods
    calls         of the right-hand side, each for all samples that are in the batch
    """

    evaluations: Int[Tensor, " batch"]
    accepted: Int[Tensor, " batch"]
    rejected: Int[Tensor, " batch"]
    jacobians: int
    calls: int


@dataclass(frozen=True)
class Trace:
    """Accepted steps. ``lane`` is 1 where the batch shares its steps, the batch otherwise.

    Where the gradient runs through the solver, ``error`` and ``stiffness`` carry it (steps are numbers).

    time        at which a step starts
    step        its size, negative when integrating backwards
    error       E: RMS of the local error in units of the tolerance
    stiffness   S: estimate of the largest eigenvalue [1/time]; None where the method has no two stages at equal times
    taken       whether the lane took this step
    states      at which steps start, detached
    settings    method and tolerances
    """

    time: Float[Tensor, "step lane"]
    step: Float[Tensor, "step lane"]
    error: Float[Tensor, "step lane"]
    stiffness: Float[Tensor, "step lane"] | None
    taken: Bool[Tensor, "step lane"]
    states: Float[Tensor, "step batch *state"]
    settings: Settings


@dataclass(frozen=True)
class Solution:
    """``states`` at ``times``; after an event a sample's state stays what it was then.

    event_times   one per sample, NaN where there was none
    """

    times: Tensor
    states: Float[Tensor, "batch time *state"]
    counts: Counts
    trace: Trace | None = None
    event_times: Float[Tensor, " batch"] | None = None
    event_states: Float[Tensor, "batch *state"] | None = None
