r"""The neural spectral block of LSM and the pyramid of convolutions that carries it (Wu et al., ICML 2023).

The features v of a patch (w channels, in heads) are asked by a few learned tokens, the answers are transformed by a
series in their own values, and every point of the patch asks them back::

    encoder      x = T + softmax(T K(v)^T) V(v)                           T: learned tokens; no 1/sqrt(d)
    processor    x <- x + sum_{k<N} [ a_k sin(pi k x / N) + b_k cos(pi k x / N) ]     per channel, on *values*
    decoder      v <- v + softmax(Q(v) x^T) x                             keys and values: the tokens themselves

K, V, Q are pointwise linear maps. Weights are shared by all patches; patches see nothing of each other here.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from ._attention import attend, check_heads
from ._multigrid import Padding, Stencil, _wrap

Norm = Literal["batch", "group"]

_BATCH_NORM = {1: nn.BatchNorm1d, 2: nn.BatchNorm2d, 3: nn.BatchNorm3d}
_MAX_POOL = {1: F.max_pool1d, 2: F.max_pool2d, 3: F.max_pool3d}
_INTERPOLATION = {1: "linear", 2: "bilinear", 3: "trilinear"}
GROUPS = 8


class SpectralProcessor(nn.Module):
    """x + sum_k a_k sin(pi k x / N) + b_k cos(pi k x / N): a function of the value x, one for each channel."""

    def __init__(self, width: int, basis: int) -> None:
        super().__init__()
        self.basis = basis
        self.weight = nn.Parameter(torch.rand(width, 2 * basis) / width)  # sines, then cosines

    def forward(self, values: Float[Tensor, "*batch channel"]) -> Float[Tensor, "*batch channel"]:
        orders = torch.arange(self.basis, dtype=values.dtype, device=values.device)
        phase = values[..., None] * (math.pi / self.basis * orders)
        waves = torch.cat([phase.sin(), phase.cos()], dim=-1)
        return values + (waves * self.weight).sum(dim=-1)


class NeuralSpectralBlock(nn.Module):
    """Encoder, processor, decoder on every patch of ``patch`` nodes an axis."""

    def __init__(self, width: int, *, patch: Sequence[int], tokens: int, basis: int, heads: int) -> None:
        super().__init__()
        check_heads(width, heads)
        self.patch, self.heads = tuple(patch), heads
        self.tokens = nn.Parameter(torch.rand(heads, tokens, width // heads) / width)
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)
        self.query = nn.Linear(width, width)
        self.processor = SpectralProcessor(width, basis)

    def forward(self, values: Float[Tensor, "batch width *space"]) -> Float[Tensor, "batch width *space"]:
        points = split(values, self.patch)
        latent = self._merge(self.encode(points))
        return joined(points + self.decode(points, self.processor(latent)), self.patch, values.shape[2:])

    def encode(self, points: Float[Tensor, "batch patch point width"]) -> Float[Tensor, "batch patch head token part"]:
        asking = self.tokens.expand(*points.shape[:2], -1, -1, -1)
        return self.tokens + attend(asking, self._cut(self.key(points)), self._cut(self.value(points)))

    def decode(
        self, points: Float[Tensor, "batch patch point width"], latent: Float[Tensor, "batch patch token width"]
    ) -> Float[Tensor, "batch patch point width"]:
        answers = self._cut(latent)
        return self._merge(attend(self._cut(self.query(points)), answers, answers))

    def _cut(self, values: Tensor) -> Tensor:
        """``batch patch point width`` to ``batch patch head point part``."""
        return values.unflatten(-1, (self.heads, -1)).transpose(2, 3)

    def _merge(self, values: Tensor) -> Tensor:
        return values.transpose(2, 3).flatten(3)


def split(
    values: Float[Tensor, "batch width *space"], patch: Sequence[int]
) -> Float[Tensor, "batch count point width"]:
    """Patches in array order, the nodes within them too."""
    dim = len(patch)
    sizes = [part for n, p in zip(values.shape[2:], patch, strict=True) for part in (n // p, p)]
    blocks = values.reshape(*values.shape[:2], *sizes)
    outer, inner = range(2, 2 + 2 * dim, 2), range(3, 2 + 2 * dim, 2)
    ordered = blocks.permute(0, *outer, *inner, 1)
    return ordered.reshape(values.shape[0], math.prod(sizes[::2]), math.prod(patch), values.shape[1])


def joined(
    points: Float[Tensor, "batch count point width"], patch: Sequence[int], space: Sequence[int]
) -> Float[Tensor, "batch width *space"]:
    """The inverse of :func:`split`."""
    dim = len(patch)
    counts = [n // p for n, p in zip(space, patch, strict=True)]
    blocks = points.reshape(points.shape[0], *counts, *patch, points.shape[-1])
    paired = [axis for i in range(1, dim + 1) for axis in (i, i + dim)]
    return blocks.permute(0, -1, *paired).reshape(points.shape[0], points.shape[-1], *space)


class DoubleConv(nn.Module):
    """Twice: a 3-wide convolution without bias, a norm, ReLU."""

    def __init__(self, c_in: int, c_out: int, middle: int, *, padding: Padding, norm: Norm) -> None:
        super().__init__()
        dim = len(padding)
        self.stencils = nn.ModuleList(
            Stencil(before, after, dim=dim, padding=padding) for before, after in ((c_in, middle), (middle, c_out))
        )
        self.norms = nn.ModuleList(_norm(norm, channels, dim) for channels in (middle, c_out))

    def forward(self, values: Float[Tensor, "batch c_in *space"]) -> Float[Tensor, "batch c_out *space"]:
        for stencil, norm in zip(self.stencils, self.norms, strict=True):
            values = F.relu(norm(stencil(values)))
        return values


def _norm(norm: Norm, channels: int, dim: int) -> nn.Module:
    return _BATCH_NORM[dim](channels) if norm == "batch" else nn.GroupNorm(math.gcd(GROUPS, channels), channels)


class Pyramid(nn.Module):
    """Down by maxima of cells of two, up by interpolation; what crosses over on each scale passes a spectral block.

    Widths are w, 2 w, 4 w, ..., the last two alike. ``corners``: interpolation takes the outermost nodes of both scales
    as one point (published); otherwise nodes are centres of cells, and periodic axes have no ends.
    """

    def __init__(
        self,
        width: int,
        *,
        scales: int,
        padding: Padding,
        norm: Norm,
        patch: Sequence[int],
        tokens: int,
        basis: int,
        heads: int,
        corners: bool,
    ) -> None:
        super().__init__()
        self.dim, self.padding, self.corners = len(padding), padding, corners
        widths = scale_widths(width, scales)
        self.down = nn.ModuleList(
            DoubleConv(before, after, after, padding=padding, norm=norm)
            for before, after in zip([width, *widths], widths, strict=False)
        )
        self.blocks = nn.ModuleList(
            NeuralSpectralBlock(w, patch=patch, tokens=tokens, basis=basis, heads=heads) for w in widths
        )
        # what comes up has the width of the scale that it joins
        outs = [max(width, w // 2) for w in widths[:-1]]
        self.up = nn.ModuleList(
            DoubleConv(2 * w, out, w, padding=padding, norm=norm) for w, out in zip(widths, outs, strict=False)
        )

    def forward(self, values: Float[Tensor, "batch width *space"]) -> Float[Tensor, "batch width *space"]:
        levels = [self.down[0](values)]
        for down in list(self.down)[1:]:
            levels.append(down(_MAX_POOL[self.dim](levels[-1], 2)))
        values = self.blocks[-1](levels.pop())
        for up, block in zip(reversed(self.up), list(self.blocks)[-2::-1], strict=True):
            values = up(torch.cat([block(levels.pop()), self._raise(values)], dim=1))
        return values

    def _raise(self, values: Tensor) -> Tensor:
        mode = _INTERPOLATION[self.dim]
        if self.corners:
            return F.interpolate(values, scale_factor=2, mode=mode, align_corners=True)
        space = values.shape[2:]
        for axis, kind in enumerate(self.padding, start=2):
            values = _wrap(values, axis, 1) if kind == "circular" else values
        values = F.interpolate(values, scale_factor=2, mode=mode, align_corners=False)
        for axis, (kind, size) in enumerate(zip(self.padding, space, strict=True), start=2):
            values = values.narrow(axis, 2, 2 * size) if kind == "circular" else values
        return values


def scale_widths(width: int, scales: int) -> list[int]:
    """w, 2 w, 4 w, 8 w, 8 w for five scales."""
    return [width * 2 ** min(j, max(0, scales - 2)) for j in range(scales)]
