r"""Every axis by truncated FFT, in pieces of few fields that stay in the cache; the kept waves laid out wave by wave.

.. math:: A(u)_k = s_{k_d} \sum_x e^{-2\pi i k\cdot x}\,u(x),\qquad
          A^T(v)(x) = \mathrm{Re} \sum_k s_{k_d}\,e^{2\pi i k\cdot x}\,v_k

u     fields ``count *space``
A(u)  waves ``m_1 ... m_d count``: modes -m//2 .. m - m//2 - 1 of the leading axes, 0 .. m_d - 1 of the last
s     share of a column of the last axis, real

The last axis, a real transform, goes first on the way there and last on the way back; on the leading axes only the kept
columns are transformed, of which the kept rows remain. Beside its kept waves nothing of a piece leaves the cache. The
two functions are each other's derivative; none keeps anything.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from ._bases import axes_of, shares
from ._factors import Planes, Weight, mixing_of, modes_of
from ._mixing import Raised
from ._plain import tracing
from ._products import spectral_conv_mixed

PIECE = 1 << 18  # numbers of a piece, each thread: 1 MB in single precision
LINE = 32  # fields laid out wave by wave at once: lines of 256 bytes


def spectral_conv_by_fft(
    inputs: Float[Tensor, "batch c_in *space"],
    weight: Weight,
    bias: Float[Tensor, " c_out"] | None,
    shape: Sequence[int],
    basis: Sequence[str] | None = None,
) -> Float[Tensor, "batch c_out *out"]:
    """Every axis, all of them Fourier axes, by truncated FFT.

    Onto another grid a Nyquist mode is shared or folded, which the matrices know: those cases are theirs.
    """
    (batch, c_in, *space), dim = inputs.shape, inputs.ndim - 2
    *modes, columns = modes_of(weight, dim)
    if not _serves(space, shape, (*modes, 2 * columns - 1)) or isinstance(weight, Planes) or tracing():
        return spectral_conv_mixed(inputs, weight, bias, shape, basis)
    mean = inputs.new_full((columns,), 1 / math.prod(space))
    waves = Waves.apply(inputs.reshape(batch * c_in, *space), mean, tuple(modes))
    waves = mixing_of(weight, dim, batch)(waves.view(-1, batch, c_in)).flatten(1)
    if bias is not None:  # the constant wave, which costs less to change than every node
        at = sum(m // 2 * math.prod(modes[i + 1 :]) for i, m in enumerate(modes)) * columns
        waves = Raised.apply(waves, bias.repeat(batch), at)
    share = shares(axes_of(["fourier"] * dim, [*modes, columns])[-1], space[-1], shape[-1])[:, 0]
    values = Fields.apply(waves, share.to(inputs.device, inputs.dtype), tuple(modes), tuple(shape))
    return values.view(batch, -1, *shape)


def _serves(space: Sequence[int], shape: Sequence[int], modes: Sequence[int]) -> bool:
    """Same grid, or no mode at or beyond the Nyquist mode of either grid; ``modes`` in total on every axis."""
    return all(n == new or 2 * (m // 2) < min(n, new) for n, new, m in zip(space, shape, modes, strict=True))


class Waves(torch.autograd.Function):
    """A of the module."""

    @staticmethod
    def forward(
        fields: Float[Tensor, "count *space"], share: Float[Tensor, " columns"], modes: tuple[int, ...]
    ) -> Shaped[Tensor, "waves count"]:
        count, *space = fields.shape
        total, group = math.prod(modes) * len(share), max(LINE, _step(space))
        waves = fields.new_empty(total, count, dtype=fields.dtype.to_complex())
        rows = waves.new_empty(min(group, count), total)
        for start in range(0, count, group):
            part = fields[start : start + group]
            for here in _pieces(len(part), space):
                _analyse(part[here], share, rows[here][: len(part[here])].unflatten(1, (*modes, len(share))))
            waves[:, start : start + group] = rows[: len(part)].t().contiguous()  # copied blockwise, then by lines
        return waves

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, tuple[int, ...]], output: Tensor) -> None:
        fields, ctx.share, ctx.modes = inputs
        ctx.space = tuple(fields.shape[1:])

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        return Fields.apply(gradient, ctx.share, ctx.modes, ctx.space), None, None


class Fields(torch.autograd.Function):
    """A^T of the module, onto ``space`` nodes."""

    @staticmethod
    def forward(
        waves: Shaped[Tensor, "waves count"],
        share: Float[Tensor, " columns"],
        modes: tuple[int, ...],
        space: tuple[int, ...],
    ) -> Float[Tensor, "count *space"]:
        count, group = waves.shape[1], max(LINE, _step(space))
        fields = share.new_empty(count, *space)
        synthesis = _Synthesis(waves, share, modes, space, min(count, _step(space)))
        for start in range(0, count, group):
            rows = waves[:, start : start + group].contiguous().t().contiguous()
            for here in _pieces(len(rows), space):
                synthesis(rows[here].unflatten(1, (*modes, len(share))), fields[start : start + group][here])
        return fields

    @staticmethod
    def setup_context(
        ctx: Any, inputs: tuple[Tensor, Tensor, tuple[int, ...], tuple[int, ...]], output: Tensor
    ) -> None:
        _, ctx.share, ctx.modes, _ = inputs

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        return Waves.apply(gradient, ctx.share, ctx.modes), None, None, None


def _step(space: Sequence[int]) -> int:
    return max(1, torch.get_num_threads() * PIECE // math.prod(space))


def _pieces(count: int, space: Sequence[int]) -> Iterator[slice]:
    step = _step(space)
    return (slice(at, min(at + step, count)) for at in range(0, count, step))


def _signs(axis: int, kept: int, size: int) -> tuple[tuple[int, int, int], ...]:
    """Where the modes of either sign begin, among the kept rows and among those of an FFT, and how many there are."""
    negative = kept // 2
    return (0, size - negative, negative), (negative, 0, kept - negative)


def _analyse(fields: Tensor, share: Tensor, into: Tensor) -> None:
    values = torch.fft.rfft(fields)[..., : len(share)]
    for axis in range(fields.ndim - 2, 0, -1):
        size, kept = fields.shape[axis], into.shape[axis]
        values = torch.fft.fft(values, dim=axis)
        if axis > 1:
            values = torch.cat([values.narrow(axis, b, count) for _, b, count in _signs(axis, kept, size)], dim=axis)
    if fields.ndim == 2:
        torch.mul(values, share, out=into)
        return
    for a, b, count in _signs(1, into.shape[1], fields.shape[1]):
        torch.mul(values.narrow(1, b, count), share, out=into.narrow(1, a, count))


class _Synthesis:
    """One piece after the other through the same rooms, whose unused rows and columns stay zero."""

    def __init__(self, waves: Tensor, share: Tensor, modes: Sequence[int], space: Sequence[int], step: int) -> None:
        k = torch.arange(len(share), device=share.device)
        own = (k == 0) | (2 * k == space[-1])  # their own mirror images: the inverse FFT counts them once
        self.scale, self.size = torch.where(own, share, 0.5 * share), space[-1]
        self.own = own.nonzero().flatten().tolist()
        self.rooms = [waves.new_zeros(step, *space[: i + 1], *modes[i + 1 :], len(share)) for i in range(len(modes))]
        self.last = waves.new_zeros(step, *space[:-1], space[-1] // 2 + 1)

    def __call__(self, values: Tensor, into: Tensor) -> None:
        values = values * self.scale
        for axis, room in enumerate(self.rooms, start=1):
            placed = room[: len(values)]
            for a, b, count in _signs(axis, values.shape[axis], placed.shape[axis]):
                placed.narrow(axis, b, count).copy_(values.narrow(axis, a, count))
            values = torch.fft.ifft(placed, dim=axis, norm="forward")
        last = self.last[: len(values)]
        last[..., : values.shape[-1]] = values
        for k in self.own:  # some inverse real FFTs do not ignore their imaginary part (pytorch issue 154496)
            last.select(-1, k).imag.zero_()
        into.copy_(torch.fft.irfft(last, n=self.size, norm="forward"))
