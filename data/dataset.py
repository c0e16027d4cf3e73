"""Samples of input and output functions: one container, whether they lie in memory, in shards or in foreign files."""

from __future__ import annotations

import functools
import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from ..pde import Grid, Signature
from ._files import canonical_json, digest

if TYPE_CHECKING:
    import xarray

Indices = Sequence[int] | np.ndarray | Tensor | range | slice


class Source(ABC):
    """Where the samples of a :class:`Dataset` come from. Safe to use in forked and spawned processes and in threads."""

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def arrays(self, indices: np.ndarray) -> tuple[Tensor, ...]:
        """New float32 CPU tensors of the samples: ``(inputs, outputs)`` of a static map, each ``batch channel *space``;
        ``(trajectories,)`` of an evolution, ``batch 1+time channel *space`` with the initial state first, and after it
        ``given``, ``batch channel *space``, where its signature has given channels.
        """

    @property
    @abstractmethod
    def fingerprint(self) -> str:
        """A hash of the values."""


class Tensors(Source):
    """Samples in memory."""

    def __init__(self, *arrays: Tensor) -> None:
        self._arrays = tuple(array.detach().to("cpu", torch.float32) for array in arrays)

    def __len__(self) -> int:
        return len(self._arrays[0])

    def arrays(self, indices: np.ndarray) -> tuple[Tensor, ...]:
        chosen = torch.from_numpy(indices)
        return tuple(array[chosen] for array in self._arrays)

    @functools.cached_property
    def fingerprint(self) -> str:
        parts = [digest(np.ascontiguousarray(array.numpy()).tobytes()) for array in self._arrays]
        return digest(canonical_json([parts, [list(array.shape) for array in self._arrays]]))


class Promoted(Source):
    """Some samples of another source, held in memory under the numbers and the fingerprint they have there."""

    def __init__(self, origin: Source, numbers: np.ndarray) -> None:
        kept = np.unique(numbers)
        self._row = np.full(len(origin), -1)
        self._row[kept] = np.arange(len(kept))
        self._tensors = Tensors(*origin.arrays(kept))
        self._fingerprint = origin.fingerprint

    def __len__(self) -> int:
        return len(self._row)

    def arrays(self, indices: np.ndarray) -> tuple[Tensor, ...]:
        return self._tensors.arrays(self._row[indices])

    @property
    def fingerprint(self) -> str:
        return self._fingerprint


@dataclass(frozen=True, eq=False)
class Dataset:
    """What a trusted solver said: samples of one problem on one grid, read when asked for.

    problem      name of the problem
    parameters   its physical parameters, plain JSON values
    signature    channels, units, frames
    grid         where the fields live
    source       where they came from: seed, solver, versions, hashes; plain JSON values
    """

    problem: str
    parameters: Mapping[str, Any]
    signature: Signature
    grid: Grid
    source: Mapping[str, Any] = field(repr=False)
    samples: Source = field(repr=False)
    chosen: np.ndarray | None = field(default=None, repr=False)  # sample numbers in `samples`; None: all

    @classmethod
    def from_tensors(
        cls,
        inputs: Float[Tensor, "batch channel *space"],
        outputs: Float[Tensor, "batch *rest"],
        *,
        grid: Grid,
        signature: Signature,
        problem: str = "data",
        parameters: Mapping[str, Any] | None = None,
        source: Mapping[str, Any] | None = None,
    ) -> Dataset:
        """Samples in memory; ``outputs`` as a solver returns them. Raises ``ValueError`` for shapes and NaN."""
        expected = _shapes(signature, grid)
        for what, values, shape in (("inputs", inputs, expected[0]), ("outputs", outputs, expected[1])):
            if tuple(values.shape) != (len(inputs), *shape):
                raise ValueError(f"Expected {what} of shape {('batch', *shape)}, got {tuple(values.shape)}.")
            check_finite(values, what)
        kept = as_arrays(signature, inputs, outputs)
        told = dict(source) if source is not None else {"kind": "tensors"}
        return cls(problem, dict(parameters or {}), signature, grid, told, Tensors(*kept))

    def __len__(self) -> int:
        return len(self.samples) if self.chosen is None else len(self.chosen)

    @property
    def numbers(self) -> np.ndarray:
        """The number of each sample in the whole set that this one is part of."""
        return np.arange(len(self.samples)) if self.chosen is None else self.chosen.copy()

    @property
    def nbytes(self) -> int:
        """Size of the samples in memory, float32."""
        per_sample = sum(math.prod(shape) for shape in _shapes(self.signature, self.grid))
        return 4 * per_sample * len(self)

    @property
    def fingerprint(self) -> str:
        """A hash of everything a model could learn from: values, channels, grid, parameters."""
        posed = [self.problem, self.parameters, self.signature.to_dict(), self.grid.to_dict()]
        return digest(canonical_json([posed, self.samples.fingerprint, digest(self.numbers.astype("<i8").tobytes())]))

    def read(self, indices: Indices) -> tuple[Float[Tensor, "batch channel *space"], Float[Tensor, "batch *rest"]]:
        """Inputs and outputs of some samples, float32, in the order asked for.

        Outputs are ``batch channel *space`` of a static map and ``batch time channel *space`` of an evolution:
        the frames after the initial state, which is the input, with what is given beside it. Raises ``IndexError``
        beyond the end and :class:`DamagedData` where a file is not what was written.
        """
        arrays = self.samples.arrays(self._resolve(indices))
        if not self.signature.evolves:
            return arrays[0], arrays[1]
        states, *given = arrays
        return torch.cat([states[:, 0], *given], dim=1) if given else states[:, 0], states[:, 1:]

    def trajectories(self, indices: Indices, *, given: bool = False) -> Float[Tensor, "batch time channel *space"]:
        """Whole trajectories of an evolution, the initial state first; ``given`` adds those channels to every frame.

        Raises ``ValueError`` for a static map.
        """
        if not self.signature.evolves:
            raise ValueError(f"{self.problem} is a static map; only an evolution has trajectories.")
        states, *beside = self.samples.arrays(self._resolve(indices))
        if not (given and beside):
            return states
        repeated = beside[0][:, None].expand(-1, states.shape[1], *beside[0].shape[1:])
        return torch.cat([states, repeated], dim=2)

    def batches(
        self, size: int, generator: torch.Generator | None = None
    ) -> Iterator[tuple[Int64[Tensor, " batch"], Tensor, Tensor]]:
        """One pass as ``(indices, inputs, outputs)``, reading one batch at a time; shuffled by the generator if any."""
        if size < 1:
            raise ValueError(f"A batch holds at least 1 sample, got size {size}.")
        order = torch.arange(len(self)) if generator is None else torch.randperm(len(self), generator=generator)
        for indices in order.split(size):
            yield (indices, *self.read(indices))

    def subset(self, indices: Indices) -> Dataset:
        """Some of the samples, in the order given, without reading or copying any."""
        return replace(self, chosen=self._resolve(indices))

    def in_memory(self, limit_bytes: int | float = math.inf) -> Dataset:
        """The same samples read into memory, or the dataset itself where they would take more than the limit."""
        if self.nbytes > limit_bytes or isinstance(self.samples, Tensors | Promoted):
            return self
        return replace(self, samples=Promoted(self.samples, self.numbers))

    def to_xarray(self) -> xarray.Dataset:
        """The samples with coordinates and units, read from disk only where values are asked for."""
        from ._views import as_xarray

        return as_xarray(self)

    def _resolve(self, indices: Indices) -> np.ndarray:
        """Positions in this set to sample numbers of the source; negative positions count from the end."""
        count = len(self)
        if isinstance(indices, slice):
            indices = range(*indices.indices(count))
        plain = indices.cpu().numpy() if isinstance(indices, Tensor) else indices
        wanted = np.array(plain, dtype=np.int64).reshape(-1)
        if wanted.size and (wanted.min() < -count or wanted.max() >= count):
            bad = wanted[(wanted < -count) | (wanted >= count)][0]
            raise IndexError(f"Sample {bad} asked of a dataset of {count} samples.")
        wanted = np.where(wanted < 0, wanted + count, wanted)
        return wanted if self.chosen is None else self.chosen[wanted]


def as_arrays(
    signature: Signature, inputs: Float[Tensor, "batch channel *space"], outputs: Float[Tensor, "batch *rest"]
) -> tuple[Tensor, ...]:
    """What a solver was asked and said, as :meth:`Source.arrays` gives it."""
    if not signature.evolves:
        return inputs, outputs
    state, given = inputs[:, : len(signature.outputs)], inputs[:, len(signature.outputs) :]
    trajectories = torch.cat([state[:, None], outputs], dim=1)
    return (trajectories, given) if signature.given else (trajectories,)


def shapes_of(signature: Signature, space: Sequence[int]) -> tuple[tuple[int, ...], ...]:
    """The shape of one sample in each array of :meth:`Source.arrays`."""
    if not signature.evolves:
        return (len(signature.inputs), *space), (len(signature.outputs), *space)
    states = (1 + signature.frames, len(signature.outputs), *space)
    return (states, (len(signature.given), *space)) if signature.given else (states,)


def check_finite(values: Tensor, what: str, first: int = 0) -> None:
    """Refuse NaN and infinity, naming the samples (numbered from ``first``)."""
    finite = torch.isfinite(values).flatten(1).all(dim=1)
    if not bool(finite.all()):
        bad = [first + i for i in (~finite).nonzero().flatten().tolist()]
        raise ValueError(f"Non-finite values in {what} at sample(s) {bad[:8]}.")


def _shapes(signature: Signature, grid: Grid) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Shapes of one sample's inputs and outputs."""
    frames = (signature.frames,) if signature.evolves else ()
    return (len(signature.inputs), *grid.shape), (*frames, len(signature.outputs), *grid.shape)
