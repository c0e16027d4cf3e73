"""Scaling to mean 0 and standard deviation 1, with statistics of the training split only."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from ._recipe import Normalise

# Below this the field is constant (zero Dirichlet nodes under pointwise statistics): it is shifted, not scaled.
SMALLEST = 1e-8


class Normalizer(nn.Module):
    """(u - mean) / std, per channel (any grid) or per channel and node (the training grid only).

    uniform   channels that are one number a sample: constant is what varies by less than ``SMALLEST`` of its mean, so
              that a viscosity from 1e-10 to 1e-9 is scaled like any other
    """

    mean: Tensor
    std: Tensor

    def __init__(self, channels: int, shape: Sequence[int], kind: Normalise, *, uniform: Sequence[int] = ()) -> None:
        super().__init__()
        self.kind, self.uniform = kind, tuple(uniform)
        size = (channels, *shape) if kind == "pointwise" else (channels, *(1,) * len(shape))
        self.register_buffer("mean", torch.zeros(size))
        self.register_buffer("std", torch.ones(size))

    @torch.no_grad()
    def fit(self, batches: Iterable[Tensor]) -> None:
        """One pass over batches of ``batch channel *space``; sums in float64, so the batch size does not matter."""
        if self.kind == "none":
            return
        count, total, squares = 0, torch.zeros(()), torch.zeros(())
        axes: tuple[int, ...] = ()
        shift: Tensor | None = None
        for batch in batches:
            axes = axes or ((0,) if self.kind == "pointwise" else (0, *range(2, batch.ndim)))
            values = batch.double()
            shift = values.mean(dim=axes, keepdim=True) if shift is None else shift  # variance without cancellation
            values = values - shift
            count += values.numel() // self.mean.numel()
            total = total + values.sum(dim=axes)
            squares = squares + values.square().sum(dim=axes)
        if not count or shift is None:
            raise ValueError("Cannot fit a normaliser on an empty training split.")
        mean = (total / count).reshape(self.mean.shape)
        std = (squares.reshape(self.std.shape) / count - mean.square()).clamp_min(0).sqrt()
        mean = mean + shift.reshape(self.mean.shape)
        smallest = torch.full_like(std, SMALLEST)
        for channel in self.uniform:
            smallest[channel] *= mean[channel].abs()
        self.mean.copy_(mean)
        self.std.copy_(torch.where(std > smallest, std, 1.0))

    def forward(self, values: Tensor) -> Tensor:
        return (values - self.mean) / self.std

    def inverse(self, values: Tensor) -> Tensor:
        return values * self.std + self.mean
