"""Training pairs from a dataset: (input, output) of a static map, or (state and what is given, next frames) of an
evolution.

A data set that fits the memory limit is read once. A larger one is read in blocks of random samples, shuffled
inside each block, so that memory stays bounded whatever the number of samples.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Generator, Tensor

from ..data import Dataset

MEMORY_LIMIT = 4 * 2**30  # bytes of training data held at once

Block = tuple[Tensor, Tensor]  # (inputs, outputs), or of an evolution (trajectories, what is given)


class Windows:
    """Windows of ``1 + unroll`` consecutive frames (evolutions) or single samples (static maps).

    ``prepare`` maps raw fields ``n channel *space`` to the grid that the network works on. With ``labels``, targets of
    samples from that number on are not-a-number, whatever the data say: who trains without labels cannot see one.
    """

    def __init__(
        self,
        data: Dataset,
        prepare: Callable[[Tensor], Tensor],
        *,
        unroll: int = 1,
        labels: int | None = None,
        limit: int = MEMORY_LIMIT,
    ) -> None:
        self.data, self.prepare, self.unroll, self.labels = data, prepare, unroll, labels
        frames = data.signature.frames
        if frames and unroll > frames:
            raise ValueError(
                f"train.unroll is {unroll}, but the trajectories have only {frames} frames after the first."
            )
        self.per_sample = frames + 1 - unroll if frames else 1
        # the prepared size is not known before preparing, so the raw size decides
        self.block = max(1, min(len(data), int(limit * len(data) / max(1, data.nbytes))))
        self._resident: Block | None = None

    def __len__(self) -> int:
        return len(self.data) * self.per_sample

    def batches_per_epoch(self, batch: int) -> int:
        sizes = [min(self.block, len(self.data) - i) for i in range(0, len(self.data), self.block)]
        return sum(-(-size * self.per_sample // batch) for size in sizes)

    def inputs(self) -> Iterator[Tensor]:
        """Every field that the network may be given, a block at a time (for normalisers)."""
        for states, given in self._blocks(torch.arange(len(self.data))):
            if self.data.signature.evolves:
                yield self._beside(states.flatten(0, 1), given.repeat_interleave(states.shape[1], dim=0))
            else:
                yield states

    def outputs(self) -> Iterator[Tensor]:
        for states, outputs in self._blocks(torch.arange(len(self.data))):
            yield states.flatten(0, 1) if self.data.signature.evolves else outputs

    def increments(self) -> Iterator[Tensor]:
        """Changes from frame to frame, for the scale of a network that predicts them."""
        for states, _ in self._blocks(torch.arange(len(self.data))):
            yield (states[:, 1:] - states[:, :-1]).flatten(0, 1)

    def batches(
        self, batch: int, generator: Generator | None = None, skip: int = 0
    ) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """(sample numbers, inputs ``batch channel *space``, targets ``batch unroll channel *space``), shuffled.

        ``skip`` leaves out the first batches of the same order, for resuming within an epoch.
        """
        samples = _order(len(self.data), generator) if self.block < len(self.data) else torch.arange(len(self.data))
        for chosen in samples.split(self.block):
            order = _order(len(chosen) * self.per_sample, generator)
            parts = order.split(batch)
            if skip >= len(parts):
                skip -= len(parts)
                continue
            block = self._load(chosen)
            for part in parts[skip:]:
                numbers = chosen[part // self.per_sample]
                inputs, targets = self._gather(block, part)
                yield numbers, inputs, targets if self.labels is None else _blanked(targets, numbers >= self.labels)
            skip = 0

    def _gather(self, block: Block, windows: Tensor) -> Block:
        states, outputs = block
        if not self.data.signature.evolves:
            return states[windows], outputs[windows][:, None]
        sample, frame = windows // self.per_sample, windows % self.per_sample
        targets = torch.stack([states[sample, frame + k + 1] for k in range(self.unroll)], dim=1)
        return self._beside(states[sample, frame], outputs[sample]), targets

    @staticmethod
    def _beside(states: Tensor, given: Tensor) -> Tensor:
        """The network's inputs: states, and the channels given with them, if any."""
        return torch.cat([states, given], dim=1) if given.shape[1] else states

    def _blocks(self, samples: Tensor) -> Iterator[Block]:
        for chosen in samples.split(self.block):
            yield self._load(chosen)

    def _load(self, samples: Tensor) -> Block:
        if len(samples) < len(self.data):
            return self._read(samples)
        if self._resident is None:
            self._resident = self._read(samples)
        return self._resident

    def _read(self, samples: Tensor) -> Block:
        """Prepared fields of some samples; read in parts, so that raw and prepared never sit in memory together."""
        parts = [self._read_part(part) for part in samples.split(64)]
        return torch.cat([p[0] for p in parts]), torch.cat([p[1] for p in parts])

    def _read_part(self, samples: Tensor) -> Block:
        inputs, outputs = self.data.read(samples)
        if not self.data.signature.evolves:
            return self.prepare(inputs), self.prepare(outputs)
        state, given = inputs.tensor_split([outputs.shape[2]], dim=1)
        states = torch.cat([state[:, None], outputs], dim=1)
        prepared = self.prepare(states.flatten(0, 1)).unflatten(0, states.shape[:2])
        return prepared, self.prepare(given) if given.shape[1] else prepared[:, 0, :0]


def _blanked(targets: Tensor, unknown: Tensor) -> Tensor:
    return targets.masked_fill(unknown.reshape(-1, *(1,) * (targets.ndim - 1)), torch.nan)


def _order(count: int, generator: Generator | None) -> Tensor:
    return torch.arange(count) if generator is None else torch.randperm(count, generator=generator)
