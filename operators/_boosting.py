r"""What residual stages learn from: pairs of one step, what earlier stages leave of them, and its spectrum.

A static map gives one pair (a, u) a sample; an evolution of T frames gives T, a state and the next one. Residuals are
computed when they are read, by frozen stages, so a data set of any size is boosted in bounded memory.

Spectra: :math:`E(\kappa) = \sum_{\kappa - 1/2 \le |n| < \kappa + 1/2} |\hat e(n)|^2`, n in cycles over the longest side
of the domain; Fourier waves on periodic axes, cosines of half a cycle on others, which fit any values at walls.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from jaxtyping import Float
from torch import Generator, Tensor, nn

from ..data import Dataset, Source
from ..data.dataset import as_arrays
from ..pde import (
    Channel,
    Grid,
    Problem,
    Setup,
    Signature,
    Solver,
    Symmetry,
    WithSymmetries,
    fourier_resample,
    symmetries_of,
)
from ..training import Budget, Callback, History, LearnedSolver, NetworkSolver, Normalizer, Progress, Recipe

MEMORY_LIMIT = 2 * 2**30  # bytes of residuals held, above which they are computed again each time
PART = 64  # pairs that stages answer at once

# (inputs, what earlier stages say, sample numbers) -> what this stage adds, in physical units
Answer = Callable[[Tensor, Tensor, np.ndarray], Tensor]


@dataclass(frozen=True, kw_only=True)
class ResidualProblem(Problem, WithSymmetries):
    """The problem that a residual stage is posed: other channels, everything else as in the problem itself.

    What is left over commutes with the symmetries of the problem if the answers of the earlier stages do.
    """

    setups: ClassVar[Mapping[str, Setup]] = {}
    origin: Problem
    fields: Signature

    @property
    def signature(self) -> Signature:
        return self.fields

    @property
    def name(self) -> str:
        return self.origin.name

    def parameters(self) -> dict[str, Any]:
        return self.origin.parameters()

    def grid(self, resolution: int | Sequence[int]) -> Grid:
        return self.origin.grid(resolution)

    def symmetries(self, grid: Grid) -> Sequence[Symmetry]:
        own, told = self.origin.signature, len(self.fields.inputs) - len(self.origin.signature.inputs)

        def widened(symmetry: Symmetry) -> Symmetry:
            answers = symmetry.output_signs or (1.0,) * len(own.outputs)
            signs = (*(symmetry.input_signs or (1.0,) * len(own.inputs)), *answers[:told])
            return replace(symmetry, input_signs=signs, output_signs=answers)

        return [widened(symmetry) for symmetry in symmetries_of(self.origin, grid)]

    def sample(self, count: int, grid: Grid, *, generator: Generator) -> Tensor:
        raise ValueError("What a model leaves over is not drawn from a distribution: it is computed from data.")

    def reference(self, **accuracy: Any) -> Solver:
        raise ValueError("What a model leaves over has no reference solver.")


def residual_signature(signature: Signature, *, feed: bool) -> Signature:
    """One step: the inputs (and with ``feed`` the prediction so far) to what is left of the outputs."""
    told = tuple(Channel(f"{c.name}_predicted", c.unit) for c in signature.outputs) if feed else ()
    left = tuple(Channel(f"{c.name}_left", c.unit) for c in signature.outputs)
    return Signature((*signature.inputs, *told), left)


class Restricted(Source):
    """Samples on a coarser periodic grid, by Fourier series."""

    def __init__(self, data: Dataset, shape: Sequence[int]) -> None:
        self.data, self.shape = data, tuple(shape)

    def __len__(self) -> int:
        return len(self.data)

    def arrays(self, indices: np.ndarray) -> tuple[Tensor, ...]:
        fields = as_arrays(self.data.signature, *self.data.read(indices))
        return tuple(fourier_resample(values, self.shape) for values in fields)

    @property
    def fingerprint(self) -> str:
        return f"{self.data.fingerprint}-at-{self.shape}"


def restricted(data: Dataset, grid: Grid) -> Dataset:
    """The data on a coarser grid of the same domain; the data themselves where it is their own."""
    if data.grid.shape == grid.shape:
        return data
    return replace(data, grid=grid, samples=Restricted(data, grid.shape), chosen=None)


class Residuals(Source):
    """(inputs [and prediction so far], what is left over, scale): static pairs, by the stages that stand."""

    def __init__(self, data: Dataset, answers: Sequence[Answer], scale: Tensor | None = None, *, feed: bool) -> None:
        self.data, self.answers, self.feed = data, tuple(answers), feed
        self.scale = scale  # 1 channel *ones: what residuals are divided by
        self.frames = max(1, data.signature.frames)

    def __len__(self) -> int:
        return len(self.data) * self.frames

    def arrays(self, indices: np.ndarray) -> tuple[Tensor, ...]:
        parts = [self._part(part) for part in np.array_split(indices, max(1, -(-len(indices) // PART)))]
        inputs, left = (torch.cat(each) for each in zip(*parts, strict=True))
        return inputs, left

    def pairs(self, indices: np.ndarray) -> tuple[Tensor, Tensor]:
        """Inputs and outputs of one step."""
        if not self.data.signature.evolves:
            return self.data.read(indices)
        samples, place = np.unique(indices // self.frames, return_inverse=True)
        states, row, frame = self.data.trajectories(samples, given=True), torch.from_numpy(place), indices % self.frames
        at = torch.from_numpy(frame)
        return states[row, at], states[row, at + 1][:, : len(self.data.signature.outputs)]

    def said(self, inputs: Tensor, samples: np.ndarray) -> Tensor:
        """The sum of the stages' answers."""
        total = torch.zeros(())
        with torch.no_grad():
            for answer in self.answers:
                total = total + answer(inputs, total, samples)
        return total

    def _part(self, indices: np.ndarray) -> tuple[Tensor, Tensor]:
        inputs, outputs = self.pairs(indices)
        total = self.said(inputs, indices // self.frames)
        left = outputs - total
        if self.scale is not None:
            left = left / self.scale
        return torch.cat([inputs, total.expand_as(outputs)], dim=1) if self.feed else inputs, left

    @property
    def fingerprint(self) -> str:
        return f"{self.data.fingerprint}-left-by-{len(self.answers)}"


def residuals(data: Dataset, answers: Sequence[Answer], scale: Tensor | None = None, *, feed: bool) -> Dataset:
    """The data set of a residual stage, in memory where it fits."""
    samples = Residuals(data, answers, scale, feed=feed)
    signature = residual_signature(data.signature, feed=feed)
    told = {"kind": "residuals", "stages": len(answers)}
    made = Dataset(data.problem, data.parameters, signature, data.grid, told, samples)
    return made.in_memory(MEMORY_LIMIT)


def root_mean_square(data: Dataset) -> Float[Tensor, " channel"]:
    """Of the outputs of static pairs, per channel, in double precision."""
    total, count = torch.zeros(len(data.signature.outputs), dtype=torch.float64), 0
    for _, _, outputs in data.batches(PART):
        total += outputs.double().square().flatten(2).sum(dim=(0, 2))
        count += len(outputs) * data.grid.size
    return (total / max(count, 1)).sqrt()


def shell_energy(values: Float[Tensor, "batch channel *space"], grid: Grid) -> Float[Tensor, " shell"]:
    """Energy in shells of wavenumber, mean over samples and channels; the shells add up to the mean square."""
    values = values.double()
    sides, square = [axis.size * axis.spacing for axis in grid.axes], torch.zeros((), dtype=torch.float64)
    for place, (axis, side) in enumerate(zip(grid.axes, sides, strict=True), start=2):
        n = torch.arange(axis.size, dtype=torch.float64)
        if axis.periodic:
            values = torch.fft.fft(values, dim=place, norm="forward")
            cycles = torch.fft.fftfreq(axis.size, 1 / axis.size, dtype=torch.float64)
        else:  # orthonormal cosines at cell centres
            waves = torch.cos(torch.pi * n[:, None] * (n + 0.5) / axis.size) * (2.0**0.5 / axis.size)
            waves[0] /= 2.0**0.5
            values = torch.tensordot(values, waves.to(values.dtype), dims=([place], [1])).movedim(-1, place)
            cycles = 0.5 * n
        square = square[..., None] + (cycles * (max(sides) / side)).square()
    shell = torch.floor(square.sqrt() + 0.5 + 1e-9).long().flatten()  # 1e-9: no mode falls between two by rounding
    energy = values.abs().square().mean(dim=(0, 1)).flatten()
    return energy.new_zeros(int(shell.max()) + 1).index_add(0, shell, energy)


class Course:
    """All trainings of one fit: the budget shared among them, one history, a checkpoint each."""

    def __init__(
        self, trainings: int, recipe: Recipe, budget: Budget, callbacks: Sequence[Callback], checkpoint: Path | None
    ) -> None:
        self.trainings, self.checkpoint, self.callbacks = trainings, checkpoint, callbacks
        epochs = (budget.epochs or recipe.epochs) // trainings
        if epochs < 1:
            raise ValueError(f"specboost trains {trainings} models: give at least {trainings} epochs.")
        self.budget = Budget(epochs=epochs, seconds=None if budget.seconds is None else budget.seconds / trainings)
        self.history, self.done = History(), 0
        self.files: list[Path] = []

    def fit(self, solver: LearnedSolver, data: Dataset, validation: Dataset | None, **told: int) -> None:
        path = None
        if self.checkpoint is not None:
            path = self.checkpoint.with_name(f"{self.checkpoint.name}.{self.done}")
            self.files.append(path)
        shifted = [_Shifted(callback, self, told) for callback in self.callbacks]
        found = solver.fit(data, validation=validation, budget=self.budget, callbacks=shifted, checkpoint=path)
        start = self._last()
        self.history.rows += [renumbered(row, start, told) for row in found.rows]
        self.history.best_epoch = start["epoch"] + found.best_epoch
        self.history.seconds += found.seconds
        self.history.status = found.status
        self.done += 1

    def close(self, spectra: Mapping[str, Sequence[float]], *, kept: bool) -> None:
        """The end of a stage."""
        if self.history.rows:
            self.history.rows[-1] |= {"spectra": dict(spectra), "kept": int(kept)}

    def clear(self) -> None:
        for path in self.files:
            path.unlink(missing_ok=True)

    def _last(self) -> Mapping[str, Any]:
        return self.history.rows[-1] if self.history.rows else {"epoch": 0, "step": 0, "seconds": 0.0}


def renumbered(row: Mapping[str, Any], start: Mapping[str, Any], told: Mapping[str, int]) -> dict[str, Any]:
    """A history row counted on from the training before."""
    return {**row, **{k: row[k] + start[k] for k in ("epoch", "step", "seconds") if k in row}, **told}


class _Shifted(Callback):
    """What a caller sees of one training: a part of the whole."""

    def __init__(self, inner: Callback, course: Course, told: Mapping[str, int]) -> None:
        self.inner, self.course, self.told, self.start = inner, course, told, course._last()

    def batch(self, progress: Progress) -> None:
        course, start = self.course, self.start
        whole = replace(
            progress,
            epoch=start["epoch"] + progress.epoch,
            epochs=course.trainings * (course.budget.epochs or 1),
            step=start["step"] + progress.step,
            fraction=(course.done + progress.fraction) / course.trainings,
            seconds=start["seconds"] + progress.seconds,
        )
        self.inner.batch(whole)

    def epoch(self, record: dict[str, Any]) -> None:
        self.inner.epoch(renumbered(record, self.start, self.told))

    def stop(self) -> bool:
        return self.inner.stop()


def freeze(stage: LearnedSolver) -> None:
    """No gradient flows into a fitted stage."""
    for module in _modules(stage):
        module.requires_grad_(False)


def _modules(stage: LearnedSolver) -> Iterator[nn.Module]:
    return (value for value in vars(stage).values() if isinstance(value, nn.Module))


def start_at_zero(stage: LearnedSolver, channels: int, grid: Grid) -> None:
    """A residual stage that is a network answers 0 exactly: its last linear layer is zero, its outputs are not shifted.

    The last layer is found by trying, from the end: the first that makes the network's answer vanish. A network
    without one (its outputs pass some more) gets a learned factor a channel, which is zero.
    """
    if not isinstance(stage, NetworkSolver):
        return
    outputs = len(stage.signature.outputs)
    stage.module["outputs"] = Normalizer(outputs, grid.shape, "none")  # residuals come scaled
    probe = torch.randn(1, channels, *grid.shape, generator=torch.Generator().manual_seed(0))
    network = stage.network.eval()
    if isinstance(network, _Faded):
        nn.init.zeros_(network.factor)
        return
    for layer in reversed([m for m in network.modules() if next(m.parameters(recurse=False), None) is not None]):
        before = [parameter.detach().clone() for parameter in layer.parameters(recurse=False)]
        with torch.no_grad():
            for parameter in layer.parameters(recurse=False):
                parameter.zero_()
            if not bool(network(probe).any()) and before[0].ndim > 1:
                return
            for parameter, value in zip(layer.parameters(recurse=False), before, strict=True):
                parameter.copy_(value)
    stage.module["network"] = _Faded(network, outputs)


def take_over(stage: LearnedSolver, earlier: LearnedSolver, channels: int, grid: Grid) -> None:
    """The weights of an earlier stage, where names and shapes agree; but a residual stage still answers 0."""
    if not (isinstance(stage, NetworkSolver) and isinstance(earlier, NetworkSolver)):
        return
    own, known = _unfaded(stage).state_dict(), _unfaded(earlier).state_dict()
    same = {name: value for name, value in known.items() if name in own and own[name].shape == value.shape}
    _unfaded(stage).load_state_dict({**own, **same})
    start_at_zero(stage, channels, grid)


def _unfaded(stage: NetworkSolver) -> nn.Module:
    return stage.network.network if isinstance(stage.network, _Faded) else stage.network


class _Faded(nn.Module):
    """A network times a learned factor a channel, at first 0."""

    def __init__(self, network: nn.Module, channels: int) -> None:
        super().__init__()
        self.network, self.factor = network, nn.Parameter(torch.zeros(channels))

    def forward(self, values: Tensor) -> Tensor:
        answer = self.network(values)
        return self.factor.view(-1, *(1,) * (answer.ndim - 2)) * answer
