r"""Coordinates of a state in which right-hand sides are learned: fields -> numbers of order one, and back.

Channels   :math:`z = (u - \bar u_c) / s_c`, shape kept: the state space of a plain system, or the method of lines
Modes      :math:`z = V^T (u/s - m) / \varsigma`, POD: V the leading r left singular vectors of training states, as many
           as hold the share ``energy`` of their variance; then the state is ``batch r``
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ..training import Normalizer
from ..training._recipe import Normalise

Blocks = Callable[[], Iterator[Tensor]]  # fields ``n channel *space``, as often as asked
SNAPSHOTS = 1024  # states behind the modes, evenly spread over the training states
SMALLEST = 1e-6  # deviation of a coordinate that is constant, and is not scaled


class Coordinates(nn.Module):
    """An affine map of fields to the unknowns of an integration."""

    shape: tuple[int, ...]  # of one sample's unknowns

    @abstractmethod
    def fit(self, blocks: Blocks, count: int) -> None:
        """From training states; ``count`` of them in all."""

    @abstractmethod
    def forward(self, fields: Float[Tensor, "batch channel *space"]) -> Float[Tensor, "batch *state"]: ...

    @abstractmethod
    def inverse(self, state: Float[Tensor, "batch *state"]) -> Float[Tensor, "batch channel *space"]: ...

    @abstractmethod
    def scales(self) -> Float[Tensor, "channel *space"]:
        """Deviations of the channels, in which errors are measured."""


class Channels(Coordinates):
    """Each channel by its own mean and deviation."""

    def __init__(self, channels: int, space: Sequence[int], kind: Normalise = "channel") -> None:
        super().__init__()
        self.shape, self.normalizer = (channels, *space), Normalizer(channels, space, kind)

    def fit(self, blocks: Blocks, count: int) -> None:
        self.normalizer.fit(blocks())

    def forward(self, fields: Tensor) -> Tensor:
        return self.normalizer(fields)

    def inverse(self, state: Tensor) -> Tensor:
        return self.normalizer.inverse(state)

    def scales(self) -> Tensor:
        return self.normalizer.std


class Modes(Coordinates):
    """Coefficients of ``components`` orthonormal modes; those beyond the asked energy stay zero.

    Shares of the variance in channel units of their deviation; one scale for all coefficients, so that distances keep
    their meaning.
    """

    mean: Tensor
    basis: Tensor
    scale: Tensor

    def __init__(self, channels: int, space: Sequence[int], components: int, energy: float) -> None:
        super().__init__()
        if components < 1 or not 0 < energy <= 1:
            raise ValueError(f"components is at least 1 and energy in (0, 1]; got {components} and {energy}.")
        self.shape, self.fields, self.energy = (components,), (channels, *space), energy
        size = int(torch.Size(self.fields).numel())
        self.normalizer = Normalizer(channels, space, "channel")
        self.register_buffer("mean", torch.zeros(size))
        self.register_buffer("basis", torch.zeros(size, components))
        self.register_buffer("scale", torch.ones(()))

    @torch.no_grad()
    def fit(self, blocks: Blocks, count: int) -> None:
        self.normalizer.fit(blocks())
        rows = self._snapshots(blocks, count)
        mean = rows.mean(dim=0)
        variances, vectors = torch.linalg.eigh((rows - mean) @ (rows - mean).T)
        variances, vectors = variances.flip(0).clamp_min(0), vectors.flip(1)
        held = variances.cumsum(0) / variances.sum().clamp_min(1e-300)
        # beyond the rounding of single-precision fields a direction is noise
        kept = min(int((held < self.energy).sum()) + 1, int((variances > 1e-12 * variances[0]).sum()), self.shape[0])
        basis = torch.linalg.qr((rows - mean).T @ vectors[:, :kept])[0] if kept else rows.new_zeros(rows.shape[1], 0)
        self.basis.zero_()
        self.basis[:, :kept] = basis.to(self.basis)
        self.mean.copy_(mean)
        spread = (variances[:kept].sum() / max(1, kept * len(rows))).sqrt()
        self.scale.fill_(float(spread) if float(spread) > 0 else 1.0)

    def _snapshots(self, blocks: Blocks, count: int) -> Float[Tensor, "snapshot node"]:
        every, seen, rows = -(-count // SNAPSHOTS), 0, []
        for fields in blocks():
            rows.append(self.normalizer(fields[(-seen) % every :: every]).flatten(1).double())
            seen += len(fields)
        return torch.cat(rows)

    @property
    def kept(self) -> int:
        """Modes in use."""
        return int((self.basis.abs().amax(dim=0) > 0).sum())

    def forward(self, fields: Tensor) -> Tensor:
        return (self.normalizer(fields).flatten(1) - self.mean) @ self.basis / self.scale

    def inverse(self, state: Tensor) -> Tensor:
        flat = (self.scale * state) @ self.basis.T + self.mean
        return self.normalizer.inverse(flat.unflatten(1, self.fields))

    def scales(self) -> Tensor:
        return self.normalizer.std


class Conditions(nn.Module):
    """What is given beside a state, in units of its deviation: fields as they are, or as one vector a sample.

    As a vector a uniform channel is its number, any other field its leading POD coefficients.
    """

    def __init__(self, uniform: Sequence[bool], space: Sequence[int], *, vector: bool, components: int = 8) -> None:
        super().__init__()
        self.uniform, self.vector = tuple(uniform), vector
        numbers = tuple(i for i, one in enumerate(uniform) if one)
        self.normalizer = Normalizer(len(uniform), space, "channel", uniform=numbers)
        self.varying = [i for i, one in enumerate(uniform) if not one]
        self.modes = Modes(len(self.varying), space, components, 0.9999) if vector and space and self.varying else None
        self.features = len(uniform) if self.modes is None else len(numbers) + components

    def fit(self, blocks: Blocks, count: int) -> None:
        self.normalizer.fit(blocks())
        if self.modes is not None:
            self.modes.fit(lambda: (fields[:, self.varying] for fields in blocks()), count)

    def forward(self, given: Float[Tensor, "batch channel *space"]) -> Tensor:
        scaled = self.normalizer(given)
        if not self.vector:
            return scaled
        numbers = scaled.reshape(*scaled.shape[:2], -1)[..., 0]
        if self.modes is None:
            return numbers
        kept = [i for i, one in enumerate(self.uniform) if one]
        return torch.cat([numbers[:, kept], self.modes(given[:, self.varying])], dim=1)


def rates_of(coordinates: Coordinates, trajectories: Iterator[Any], spacing: float) -> tuple[Tensor, Tensor]:
    """Deviations of the coordinates and root mean squares of their rates, from blocks ``batch time channel *space``."""
    sums = torch.zeros(3, *coordinates.shape[:1], dtype=torch.float64)
    counts = [0, 0]
    for block in trajectories:
        states = coordinates(block.flatten(0, 1)).unflatten(0, block.shape[:2]).double()
        states = states.reshape(*states.shape[:3], -1)
        slopes = states.diff(dim=1) / spacing
        sums += torch.stack([states.sum((0, 1, 3)), states.square().sum((0, 1, 3)), slopes.square().sum((0, 1, 3))])
        counts[0] += states.numel() // states.shape[2]
        counts[1] += slopes.numel() // states.shape[2]
    mean, square, rate = sums[0] / counts[0], sums[1] / counts[0], (sums[2] / counts[1]).sqrt()
    spread = (square - mean.square()).clamp_min(0).sqrt()
    return torch.where(spread > SMALLEST, spread, 1.0).float(), rate.float()
