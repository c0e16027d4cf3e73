r"""Nodes whose values lie on disk, as a pool of samples: what is fitted may be larger than the memory.

One pass over the values finds what is not finite, means, deviations and bandwidths (from differences of neighbours)
:math:`k_i^2 = \langle(\partial_i u)^2\rangle/\langle(u-\bar u)^2\rangle`, and reads the nodes that are
held out: those whose number has a small hash, so that nobody has to remember which. Then boxes of nodes
are drawn at random, as many as fit the buffer; every ``REFRESH`` steps others. What a step sees follows from the seed
and its number alone, so a fit that was stopped goes on as if it had not been.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from torch import Generator, Tensor

from ..pde import Grid
from ._fit import Pool, Samples

REFRESH = 100  # steps between two fillings of the buffer
BOXES = 16  # of a buffer: so many places of the domain are seen at a time
HELD = 32_768  # points held out at most

Box = tuple[slice, ...]


@runtime_checkable
class Lazy(Protocol):
    """``channel *space`` values that are read where they are sliced."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    def __getitem__(self, place: tuple[slice, ...]) -> np.ndarray: ...


def boxes(shape: Sequence[int], nodes: int) -> list[Box]:
    """The grid in boxes of at most so many nodes, cut along the first axes."""
    pieces, rest = [], math.prod(shape)
    for n in shape:
        rest //= n
        thick = min(n, max(1, nodes // rest))
        pieces.append([slice(a, min(a + thick, n)) for a in range(0, n, thick)])
    return list(itertools.product(*pieces))


class Stream(Pool):
    """Nodes of a grid.

    nodes    of the buffer
    mean, deviation   of each channel
    waves    k of each axis [rad per internal unit]
    """

    def __init__(self, values: Lazy, grid: Grid, *, holdout: float = 0.1, seed: int = 0, nodes: int = 1 << 22) -> None:
        self.values, self.grid, self.seed = values, grid, seed
        self.boxes = boxes(grid.shape, max(1, nodes // BOXES))
        self.threshold = min(holdout, HELD / grid.size)
        self._axes = [axis.coordinates(dtype=torch.float32) for axis in grid.axes]
        self._filled, self._buffer = -1, _no_samples(grid.dim, values.shape[0])
        self._survey()

    def __len__(self) -> int:
        return self.grid.size - len(self.held)

    @property
    def fingerprint(self) -> float:
        return float(self.mean.sum() + self.deviation.sum())

    def draw(self, step: int, count: int, generator: Generator) -> Samples:
        if not count:
            raise ValueError("Values that are read from disk are fitted in batches: give the plan a batch.")
        if step // REFRESH != self._filled:
            self._fill(step // REFRESH)
        return self._buffer.at(torch.randint(len(self._buffer), (count,), generator=generator))

    # ---- reading

    def _fill(self, turn: int) -> None:
        order = torch.randperm(len(self.boxes), generator=Generator().manual_seed(hash_of(self.seed, turn)))
        parts = []
        for number in order[:BOXES].tolist():
            box = self.boxes[number]
            kept = ~self._held(box).reshape(-1)
            parts.append(self._samples(box, self._read(box), torch.from_numpy(kept)))
        points, values = (torch.cat([getattr(p, name) for p in parts]) for name in ("points", "values"))
        self._buffer, self._filled = Samples(points=points, values=values), turn

    def _read(self, box: Box) -> np.ndarray:
        return np.asarray(self.values[(slice(None), *box)])

    def _samples(self, box: Box, values: np.ndarray, chosen: Tensor) -> Samples:
        axes = [x[part] for x, part in zip(self._axes, box, strict=True)]
        points = torch.stack(torch.meshgrid(*axes, indexing="ij")).flatten(1)[:, chosen].t().contiguous()
        flat = torch.from_numpy(np.ascontiguousarray(values, dtype=np.float32)).flatten(1)
        return Samples(points=points, values=flat[:, chosen].t().contiguous())

    def _held(self, box: Box) -> np.ndarray:
        """Which nodes of a box are held out."""
        number: np.ndarray = np.zeros(1, dtype=np.uint64)
        for n, part in zip(self.grid.shape, box, strict=True):
            number = number[..., None] * np.uint64(n) + np.arange(part.start, part.stop, dtype=np.uint64)
        return _mixed(number[0] + np.uint64(hash_of(self.seed, 0))) < np.uint64(self.threshold * 2.0**64 * (1 - 1e-12))

    # ---- the first pass

    def _survey(self) -> None:
        channels = self.values.shape[0]
        total, squares, slopes = np.zeros(channels), np.zeros(channels), np.zeros((channels, self.grid.dim))
        counted, held = np.zeros(self.grid.dim), []
        for box in self.boxes:
            part = self._read(box).astype(np.float64)
            check_finite(part, self.grid, box)
            total += part.reshape(channels, -1).sum(axis=1)
            squares += (part**2).reshape(channels, -1).sum(axis=1)
            for j, axis in enumerate(self.grid.axes):
                step = np.diff(part, axis=1 + j) * (axis.length / (2 * axis.spacing))
                slopes[:, j] += (step**2).reshape(channels, -1).sum(axis=1)
                counted[j] += step[0].size
            held.append(self._samples(box, part, torch.from_numpy(self._held(box).reshape(-1))))
        mean = total / self.grid.size
        variance = np.maximum(squares / self.grid.size - mean**2, 0.0)
        deviation = np.where(variance > 0, np.sqrt(variance), 1.0)
        self.mean, self.deviation = torch.from_numpy(mean), torch.from_numpy(deviation)
        power = slopes / np.maximum(counted, 1) / deviation[:, None] ** 2
        self.waves = tuple(np.sqrt(power.mean(axis=0)).tolist())
        points, values = (torch.cat([getattr(h, name) for h in held]) for name in ("points", "values"))
        self.held, self.sizes = Samples(points=points, values=values), (self.deviation.float(), None)


def check_finite(values: np.ndarray, grid: Grid, box: Box) -> None:
    """Refuse what is not a number, and say where it is."""
    bad = np.argwhere(~np.isfinite(values))
    if not len(bad):
        return
    where = ", ".join(
        f"{axis.name}={float(axis.coordinates()[part.start + i]):.6g}"
        for axis, part, i in zip(grid.axes, box, bad[0][1:], strict=True)
    )
    raise ValueError(f"{len(bad)} values are not finite (first at {where}): mask or fill them first.")


def hash_of(seed: int, turn: int) -> int:
    """A seed of its own for every turn."""
    return int(_mixed(np.asarray([(seed << 32) + turn], dtype=np.uint64))[0] >> np.uint64(1))


def _mixed(numbers: np.ndarray) -> np.ndarray:
    """SplitMix64: a bijection of 64-bit integers whose outputs look random."""
    with np.errstate(over="ignore"):
        z = numbers + np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return z ^ (z >> np.uint64(31))


def _no_samples(dim: int, channels: int) -> Samples:
    return Samples(points=torch.empty(0, dim), values=torch.empty(0, channels))
