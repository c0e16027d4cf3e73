r"""Ridge regression between leading principal components: what a linear map can do with the same data.

.. math:: u \approx \bar u + V_u\big(W^T V_a^T (a - \bar a) + w\big),\qquad
          W = \arg\min \sum_j \|V_u^T (u_j-\bar u) - W^T z_j - w\|^2 + \lambda n\,\|W\|^2,\quad z_j = V_a^T(a_j-\bar a)

V_a, V_u   leading principal components of the training inputs and outputs, orthonormal fields, exact by the method of
           snapshots (eigenvectors of the Gram matrix); an evolution has one basis for all its states
lambda     chosen on the validation split from a ladder of decades times the mean variance of a component

An evolution is learned as the map from one frame to the next and rolled out. Any linear operator between fields that
the components span is found exactly. Fields are read in blocks: memory holds some blocks and the bases, never the data.
The components are fields on the training grid, so that grid only is served.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from ..data import Dataset
from ..pde import Grid, Problem, Signature, check_fields, frame_numbers
from ..pde._solver import advanced
from ..training import Budget, Callback, History, Interrupted, LearnedSolver

CONVERGENCE = None  # bases are fields on the training grid
BLOCK = 256  # fields read at a time
RESIDENT = 512 * 2**20  # bytes of snapshots that are kept rather than read again
# Directions with less of the leading variance than this are rounding of single-precision fields (6e-8 squared, times
# their number), not data.
SMALLEST_VARIANCE = 1e-12
RIDGES = tuple(10.0**power for power in range(-12, 2))  # in units of the mean variance of a component
PARTS = ("input_mean", "input_basis", "output_mean", "output_basis", "matrix", "constant", "ridge")


class Linear(LearnedSolver):
    """Principal components, ridge regression between them.

    components   components kept on either side, at most
    snapshots    fields from which components are computed, at most; evenly spaced ones beyond
    """

    def __init__(self, signature: Signature, grid: Grid, *, components: int = 256, snapshots: int = 2048) -> None:
        if components < 1 or snapshots < 2:
            raise ValueError(f"linear needs components >= 1 and snapshots >= 2, got {components} and {snapshots}.")
        self.signature, self.grid = signature, grid
        self.components, self.snapshots = components, snapshots
        self.parts: dict[str, Tensor] = {}

    @property
    def parameter_count(self) -> int:
        return sum(value.numel() for name, value in self.parts.items() if name != "ridge")

    def state(self) -> dict[str, Tensor]:
        return {name: value.clone() for name, value in self.parts.items()}

    def restore(self, state: dict[str, Tensor]) -> None:
        """Raises ``ValueError`` for tensors that are not a fitted model of this grid and these channels."""
        if set(state) != set(PARTS):
            raise ValueError(f"Weights of linear are {PARTS}, got {sorted(state)}.")
        for side, channels in (("input", self.signature.inputs), ("output", self.signature.outputs)):
            expected, mean, basis = (len(channels), *self.grid.shape), state[f"{side}_mean"], state[f"{side}_basis"]
            if tuple(mean.shape) != expected or len(basis) != mean.numel():
                raise ValueError(f"The {side} mean and basis are of shape {expected} here, got {tuple(mean.shape)}.")
        sizes = (state["input_basis"].shape[1], state["output_basis"].shape[1])
        if tuple(state["matrix"].shape) != sizes or tuple(state["constant"].shape) != sizes[1:]:
            raise ValueError(f"The matrix between {sizes[0]} and {sizes[1]} components does not fit them.")
        self.parts = {name: value.clone() for name, value in state.items()}

    def __call__(
        self, inputs: Float[Tensor, "batch channel *space"], grid: Grid, times: Sequence[float] | None = None
    ) -> Float[Tensor, "batch *rest"]:
        check_fields(inputs, grid, len(self.signature.inputs))
        if not self.parts:
            raise ValueError("linear has not been fitted.")
        if grid.shape != self.grid.shape:
            raise ValueError(
                f"The components of linear are fields on its training grid {self.grid.shape}; it was asked for "
                f"{grid.shape}. Resample the inputs, or train at that resolution."
            )
        if not self.signature.evolves:
            return self._map(inputs)
        wanted = frame_numbers(self.signature.times if times is None else times, self.signature.spacing)
        frames = []
        for _ in range(wanted[-1]):
            frames.append(self._map(inputs))
            inputs = advanced(inputs, frames[-1])
        return torch.stack([frames[n - 1] for n in wanted], dim=1)

    def _map(self, values: Tensor) -> Tensor:
        part = {name: value.to(values) for name, value in self.parts.items()}
        inner = (values - part["input_mean"]).flatten(1) @ part["input_basis"]
        outer = (inner @ part["matrix"] + part["constant"]) @ part["output_basis"].t()
        return outer.unflatten(1, part["output_mean"].shape) + part["output_mean"]

    def fit(
        self,
        data: Dataset,
        *,
        validation: Dataset | None = None,
        budget: Budget = Budget(),  # noqa: B008 - frozen
        callbacks: Sequence[Callback] = (),
        checkpoint: Path | None = None,
    ) -> History:
        """Solve the regression directly, in a few passes over the data: neither a budget nor a checkpoint applies.

        Without a validation split the last tenth of the training samples chooses the ridge.
        """
        started = time.monotonic()
        if data.grid.shape != self.grid.shape:
            raise ValueError(f"linear was built for the grid {self.grid.shape}, the data are on {data.grid.shape}.")
        if validation is None or not len(validation):
            held = max(1, len(data) // 10)
            data, validation = data.subset(range(len(data) - held)), data.subset(range(len(data) - held, len(data)))
        if not len(data):
            raise ValueError("linear needs at least 1 training sample beside those that choose its ridge.")
        pairs, held_out = _Pairs(data, callbacks), _Pairs(validation, callbacks)
        bases = self._bases(pairs)
        solutions = _regress(pairs, bases)
        errors = _errors(held_out, bases, [weights for _, weights in solutions])
        best = min(range(len(errors)), key=errors.__getitem__)
        ridge, weights = solutions[best]
        self._keep(bases, ridge, weights)
        row = {
            "epoch": 1,
            "step": 1,
            "seconds": time.monotonic() - started,
            "train": _errors(pairs, bases, [weights])[0],
            "validation": errors[best],
            "learning_rate": 0.0,
        }
        for callback in callbacks:
            callback.epoch(row)
        return History(rows=[row], status="complete", best_epoch=1, seconds=time.monotonic() - started)

    def _bases(self, pairs: _Pairs) -> tuple[Basis, Basis]:
        first = principal_components(pairs.spread(0, self.snapshots), self.components)
        if self.signature.evolves and not self.signature.given:
            return first, first
        return first, principal_components(pairs.spread(1, self.snapshots), self.components)

    def _keep(self, bases: tuple[Basis, Basis], ridge: float, weights: Tensor) -> None:
        shapes = [(len(channels), *self.grid.shape) for channels in (self.signature.inputs, self.signature.outputs)]
        values = [
            bases[0].mean.reshape(shapes[0]),
            bases[0].components,
            bases[1].mean.reshape(shapes[1]),
            bases[1].components,
            weights[:-1],
            weights[-1],
            torch.tensor([ridge]),
        ]
        self.parts = {name: value.float().contiguous() for name, value in zip(PARTS, values, strict=True)}


class Basis(NamedTuple):
    """An affine space of fields."""

    mean: Tensor  # node
    components: Tensor  # node component, orthonormal


Blocks = Callable[[], Iterator[Float[Tensor, "field node"]]]


class _Pairs:
    """Flattened (input, output) fields of a dataset in blocks, double precision; of an evolution, successive frames."""

    def __init__(self, data: Dataset, callbacks: Sequence[Callback]) -> None:
        self.data, self.callbacks = data, callbacks
        self.frames = data.signature.frames
        self.samples = max(1, BLOCK // max(1, self.frames))

    def blocks(self) -> Iterator[tuple[Tensor, Tensor]]:
        for _, inputs, outputs in self.data.batches(self.samples):
            if any(callback.stop() for callback in self.callbacks):
                raise Interrupted("The regression was stopped; it starts over when run again.")
            if self.frames:
                state, given = inputs.tensor_split([outputs.shape[2]], dim=1)
                states = torch.cat([state[:, None], outputs[:, :-1]], dim=1).flatten(0, 1)
                given = given.repeat_interleave(self.frames, dim=0)
                inputs, outputs = torch.cat([states, given], dim=1), outputs.flatten(0, 1)
            yield inputs.flatten(1).double(), outputs.flatten(1).double()

    def spread(self, side: int, limit: int) -> Blocks:
        """Evenly spaced fields of one side, at most ``limit``, as blocks that can be read again and again."""
        per_sample = max(1, self.frames)
        total = len(self.data) * per_sample
        chosen = torch.arange(0, total, -(-total // limit)).split(BLOCK)

        def read() -> Iterator[Tensor]:
            for numbers in chosen:
                samples, where = (numbers // per_sample).unique(return_inverse=True)
                if self.frames:
                    frames = self.data.trajectories(samples, given=side == 0)
                    yield frames[where, side + numbers % per_sample].flatten(1)
                else:
                    yield self.data.read(samples)[side][where].flatten(1)

        if sum(map(len, chosen)) * math.prod(self.data.grid.shape) * 4 > RESIDENT:
            return lambda: (rows.double() for rows in read())
        kept = list(read())
        return lambda: (rows.double() for rows in kept)


def principal_components(blocks: Blocks, count: int) -> Basis:
    """Mean and leading orthonormal components of fields in blocks, most variance first, by the method of snapshots."""
    total, fields = torch.zeros((), dtype=torch.float64), 0
    for rows in blocks():
        total, fields = total + rows.sum(dim=0), fields + len(rows)
    mean = total / fields
    gram = torch.cat([torch.cat([(left - mean) @ (right - mean).t() for right in blocks()], 1) for left in blocks()])
    variances, vectors = torch.linalg.eigh(gram)
    kept = int((variances > SMALLEST_VARIANCE * variances[-1]).sum()) if variances[-1] > 0 else 0
    kept = min(kept, count, fields)
    vectors = vectors[:, len(vectors) - kept :].flip(1)
    components = torch.zeros(len(mean), kept, dtype=torch.float64)
    start = 0
    for rows in blocks():
        components += (rows - mean).t() @ vectors[start : start + len(rows)]
        start += len(rows)
    # the directions of little variance have lost some orthogonality to rounding
    return Basis(mean, torch.linalg.qr(components)[0])


def _regress(pairs: _Pairs, bases: tuple[Basis, Basis]) -> list[tuple[float, Tensor]]:
    """(ridge, weights with the constant as last row) for every ridge of the ladder."""
    size, outer_size = (basis.components.shape[1] for basis in bases)
    normal = torch.zeros(size + 1, size + 1, dtype=torch.float64)
    right = torch.zeros(size + 1, outer_size, dtype=torch.float64)
    for inner, outer, _ in _coefficients(pairs, bases):
        normal += inner.t() @ inner
        right += inner.t() @ outer
    scale = float(normal.diagonal()[:-1].mean()) if size else 0.0
    penalised = torch.ones(size + 1, dtype=torch.float64)
    penalised[-1] = 0.0
    return [(r, torch.linalg.solve(normal + torch.diag(r * scale * penalised), right)) for r in RIDGES]


def _errors(pairs: _Pairs, bases: tuple[Basis, Basis], candidates: Sequence[Tensor]) -> list[float]:
    """Mean relative L2 error of each candidate, over all pairs, norms over the nodes."""
    sums, count = torch.zeros(len(candidates), dtype=torch.float64), 0
    for inner, outer, (beyond, norm) in _coefficients(pairs, bases):
        for i, weights in enumerate(candidates):
            within = (outer - inner @ weights).square().sum(dim=1)
            sums[i] += ((within + beyond).sqrt() / norm).sum()
        count += len(outer)
    return (sums / count).tolist()


def _coefficients(pairs: _Pairs, bases: tuple[Basis, Basis]) -> Iterator[tuple[Tensor, Tensor, tuple[Tensor, Tensor]]]:
    """Coefficients of inputs (with a column of ones) and of outputs; what outputs have beyond them, and their norms."""
    source, target = bases
    for inputs, outputs in pairs.blocks():
        inner = (inputs - source.mean) @ source.components
        outer = (outputs - target.mean) @ target.components
        beyond = (outputs - target.mean - outer @ target.components.t()).square().sum(dim=1)
        norm = outputs.square().sum(dim=1).sqrt().clamp_min(torch.finfo(torch.float64).tiny)
        yield torch.cat([inner, torch.ones(len(inner), 1, dtype=inner.dtype)], dim=1), outer, (beyond, norm)


def build(problem: Problem, grid: Grid, *, components: int = 256, snapshots: int = 2048) -> Linear:
    """Ridge regression between principal components.

    components   components kept of inputs and of outputs, at most
    snapshots    fields from which components are computed, at most
    """
    return Linear(problem.signature, grid, components=components, snapshots=snapshots)
