"""The input itself as the answer: what doing nothing is worth, at every resolution.

For evolutions the state stays as it is, whatever is given beside it. For a static map it needs as many output
channels as input channels; where they differ in number there is nothing to persist, and the problem is refused. There
is nothing to learn.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

from jaxtyping import Float
from torch import Tensor

from ..pde import Grid, Problem, Signature, Solver, check_fields, check_times

CONVERGENCE = "exact"  # each node answers for itself


@final
class Persistence(Solver):
    """u(t) = u(0)."""

    def __init__(self, signature: Signature) -> None:
        if not signature.evolves and len(signature.inputs) != len(signature.outputs):
            names = [[channel.name for channel in side] for side in (signature.inputs, signature.outputs)]
            raise ValueError(
                f"persistence answers with its inputs, so it needs as many outputs as inputs: this problem maps "
                f"{names[0]} to {names[1]}. Compare with mean or linear instead."
            )
        self.signature = signature

    def __call__(
        self, inputs: Float[Tensor, "batch channel *space"], grid: Grid, times: Sequence[float] | None = None
    ) -> Float[Tensor, "batch *rest"]:
        check_fields(inputs, grid, len(self.signature.inputs))
        if not self.signature.evolves:
            return inputs.clone()
        times = self.signature.times if times is None else times
        check_times(times)
        state = inputs[:, : len(self.signature.outputs)]
        return state[:, None].repeat_interleave(len(times), dim=1)


def build(problem: Problem, grid: Grid) -> Persistence:
    """Persistence for this problem; it has no options."""
    return Persistence(problem.signature)
