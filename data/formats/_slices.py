"""Samples of somebody else's arrays, read by slices: whatever holds them (HDF5, zarr, memory maps), never whole."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .._files import PerProcess, canonical_json, digest, path_digest
from ..dataset import Source

_SPAN_BYTES = 64 << 20  # read at once at most
_ORDER = "ntcxyz"


@dataclass(frozen=True)
class Part:
    """One stored array: its name in the file and its axes in stored order (letters of ``_layout.py``)."""

    name: str
    axes: str


Channels = tuple[Part, ...]  # pieces that follow each other in time
Side = tuple[Channels, ...]  # blocks of channels


class Slices(Source):
    """``sides`` of parts: (states,) of an evolution, (inputs, outputs) of a static map.

    opening   returns the arrays by name; called in each process on first use
    frames    of an evolution, the initial one included; 0: a static map
    A part without ``n`` is the same for all samples, one without ``t`` for all frames, one without a space axis along
    that axis.
    """

    def __init__(
        self,
        paths: tuple[Path, ...],
        opening: Callable[[], Mapping[str, Any]],
        sides: tuple[Side, ...],
        *,
        count: int,
        frames: int,
        space: tuple[int, ...],
    ) -> None:
        self.paths = paths
        self.sides = sides
        self.count = count
        self.frames = frames
        self.space = space
        self._file = PerProcess(opening)

    def __len__(self) -> int:
        return self.count

    def arrays(self, indices: np.ndarray) -> tuple[Tensor, ...]:
        return tuple(self._checked(self._side(side, indices), indices) for side in self.sides)

    @property
    def fingerprint(self) -> str:
        digests = [path_digest(path) for path in self.paths]
        return digests[0] if len(digests) == 1 else digest(canonical_json(digests))

    def _side(self, side: Side, indices: np.ndarray) -> Tensor:
        blocks = []
        for channels in side:
            pieces = [_canonical(self._file.get()[part.name], part.axes, indices, self.space) for part in channels]
            block = np.concatenate(pieces, axis=1) if len(pieces) > 1 else pieces[0]
            full = (len(block), self.frames, *block.shape[2:])
            blocks.append(np.broadcast_to(block, full) if self.frames else block[:, 0])
        joined = np.concatenate(blocks, axis=-1 - len(self.space))
        return torch.from_numpy(np.ascontiguousarray(joined))

    def _checked(self, values: Tensor, indices: np.ndarray) -> Tensor:
        finite = torch.isfinite(values).flatten(1).all(dim=1).numpy()
        if not finite.all():
            raise ValueError(f"{self.paths[0]}: non-finite values at sample(s) {indices[~finite].tolist()[:8]}.")
        return values


class Joined(Source):
    """Sources one after the other."""

    def __init__(self, sources: tuple[Source, ...]) -> None:
        self.sources = sources
        self._starts = np.cumsum([0, *(len(source) for source in sources)])

    def __len__(self) -> int:
        return int(self._starts[-1])

    def arrays(self, indices: np.ndarray) -> tuple[Tensor, ...]:
        owner = np.searchsorted(self._starts, indices, side="right") - 1
        joined: list[Tensor] = []
        for number in np.unique(owner):
            places = torch.from_numpy(np.flatnonzero(owner == number))
            values = self.sources[number].arrays(indices[places.numpy()] - self._starts[number])
            joined = joined or [array.new_empty(len(indices), *array.shape[1:]) for array in values]
            for target, array in zip(joined, values, strict=True):
                target[places] = array
        return tuple(joined) if joined else tuple(a[:0] for a in self.sources[0].arrays(np.zeros(1, np.int64)))

    @property
    def fingerprint(self) -> str:
        return digest(canonical_json([source.fingerprint for source in self.sources]))


def _canonical(array: Any, axes: str, indices: np.ndarray, space: tuple[int, ...]) -> np.ndarray:
    """``n t c *space`` in float32; axes that the array lacks have length one, in space the full one."""
    if "n" in axes:
        values = _rows(array, axes.index("n"), indices)
    else:
        values = np.broadcast_to(np.asarray(array[...])[None], (len(indices), *array.shape))
    letters = "n" + axes.replace("n", "")
    for place in reversed([i for i, letter in enumerate(letters) if letter == "1"]):
        values, letters = values.take(0, axis=place), letters[:place] + letters[place + 1 :]
    values = values.transpose(sorted(range(len(letters)), key=lambda i: _ORDER.index(letters[i])))
    shape, at = [], 0
    for letter in _ORDER[: 3 + len(space)]:
        times = letters.count(letter)
        shape.append(int(np.prod(values.shape[at : at + times])))  # 1 for an axis that the array lacks
        at += times
    target = (*shape[:3], *space)
    return np.broadcast_to(values.reshape(shape), target).astype(np.float32)


def _rows(array: Any, axis: int, wanted: np.ndarray) -> np.ndarray:
    """Entries along one axis, which comes first in the answer; neighbours are read together."""
    numbers, back = np.unique(wanted, return_inverse=True)
    shape = tuple(array.shape)
    found = np.empty((len(numbers), *shape[:axis], *shape[axis + 1 :]), array.dtype)
    at = 0
    for span in _spans(numbers, max(1, found[:1].nbytes), gap=1 if axis == 0 else 64):
        first, last = int(span[0]), int(span[-1])
        block = np.asarray(array[(slice(None),) * axis + (slice(first, last + 1),)])
        found[at : at + len(span)] = np.moveaxis(block, axis, 0)[span - first]
        at += len(span)
    return found[back.reshape(-1)]


def _spans(numbers: np.ndarray, each: int, gap: int) -> Iterator[np.ndarray]:
    """Increasing numbers in runs with gaps of at most ``gap`` and at most ``_SPAN_BYTES`` from first to last."""
    most = max(1, _SPAN_BYTES // each)
    begin = 0
    for end in range(1, len(numbers) + 1):
        if end == len(numbers) or numbers[end] - numbers[end - 1] > gap or numbers[end] - numbers[begin] >= most:
            yield numbers[begin:end]
            begin = end
