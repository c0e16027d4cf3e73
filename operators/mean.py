r"""The mean of the training outputs, whatever the inputs: what knowing the distribution alone is worth.

Of an evolution, the mean is taken over samples *and* frames and answers for every time: a rollout may start from any
frame, so frames have no number of their own. The mean is a field on the training grid, so that grid only is served.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from ..data import Dataset
from ..pde import Grid, Problem, Signature, check_fields, check_times
from ..training import Budget, Callback, History, LearnedSolver, relative_l2

CONVERGENCE = None  # a field on the training grid
BATCH = 64


class Mean(LearnedSolver):
    """One field, learned by averaging."""

    def __init__(self, signature: Signature, grid: Grid) -> None:
        self.signature, self.grid = signature, grid
        self.shape = (len(signature.outputs), *grid.shape)
        self.mean: Tensor | None = None

    @property
    def parameter_count(self) -> int:
        return 0 if self.mean is None else self.mean.numel()

    def state(self) -> dict[str, Tensor]:
        return {} if self.mean is None else {"mean": self.mean.clone()}

    def restore(self, state: dict[str, Tensor]) -> None:
        """Raises ``ValueError`` for anything but one field of these channels on this grid."""
        if set(state) != {"mean"} or tuple(state["mean"].shape) != self.shape:
            shapes = {name: tuple(value.shape) for name, value in state.items()}
            raise ValueError(f"Weights of mean are one tensor 'mean' of shape {self.shape}, got {shapes}.")
        self.mean = state["mean"].clone()

    def __call__(
        self, inputs: Float[Tensor, "batch channel *space"], grid: Grid, times: Sequence[float] | None = None
    ) -> Float[Tensor, "batch *rest"]:
        check_fields(inputs, grid, len(self.signature.inputs))
        if self.mean is None:
            raise ValueError("mean has not been fitted.")
        if grid.shape != self.grid.shape:
            raise ValueError(f"mean is a field on its training grid {self.grid.shape}; it was asked for {grid.shape}.")
        field = self.mean.to(inputs)
        if not self.signature.evolves:
            return field.expand(len(inputs), *self.shape).clone()
        times = self.signature.times if times is None else times
        check_times(times)
        return field.expand(len(inputs), len(times), *self.shape).clone()

    def fit(
        self,
        data: Dataset,
        *,
        validation: Dataset | None = None,
        budget: Budget = Budget(),  # noqa: B008 - frozen
        callbacks: Sequence[Callback] = (),
        checkpoint: Path | None = None,
    ) -> History:
        """Average in one pass: neither a budget nor a checkpoint applies; the validation split is only scored."""
        started = time.monotonic()
        if data.grid.shape != self.grid.shape:
            raise ValueError(f"mean was built for a grid of shape {self.grid.shape}, the data have {data.grid.shape}.")
        if not len(data):
            raise ValueError("The training split is empty.")
        total, count = torch.zeros(self.shape, dtype=torch.float64), 0
        for _, _, outputs in data.batches(BATCH):
            fields = outputs.reshape(-1, *self.shape)
            total, count = total + fields.double().sum(dim=0), count + len(fields)
        self.mean = (total / count).float()
        row = {"epoch": 1, "step": 1, "seconds": 0.0, "train": self._score(data), "learning_rate": 0.0}
        if validation is not None and len(validation):
            row["validation"] = self._score(validation)
        row["seconds"] = time.monotonic() - started
        for callback in callbacks:
            callback.epoch(row)
        return History(rows=[row], status="complete", best_epoch=1, seconds=row["seconds"])

    def _score(self, data: Dataset) -> float:
        assert self.mean is not None  # set in fit
        errors = []
        for _, _, outputs in data.batches(BATCH):
            fields = outputs.reshape(-1, *self.shape)
            errors.append(relative_l2(self.mean.expand_as(fields), fields, self.grid))
        return float(torch.cat(errors).mean())


def build(problem: Problem, grid: Grid) -> Mean:
    """The training mean; it has no options."""
    return Mean(problem.signature, grid)
