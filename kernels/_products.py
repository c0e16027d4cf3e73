"""The spectral convolution as products with real matrices that hold the kept waves only, channels mixed wave by wave.

Field to coefficients, axis by axis (``batch c_in *space`` to ``batch c_in *rows``), then one transposition to
wave-major order, ``rows batch c_in``: all that concerns a wave lies together, so that pairing the rows of k and -k
works on whole lines and the channels are mixed by one batched product. Then the same way back.

Transforms are real, a complex number being a pair of reals; mixing by a complex weight is complex, as that is 1.4 to
1.6 times faster (32 channels, 544 and 2112 modes, values and gradients). With a :class:`~._factors.Planes` weight, and
where the halved axis is not the last, pairs stay planes; with Planes no operation needs a complex type. The matrices
stand on the left of every large product, which is what the batched product of MKL does best (256² nodes, 32 modes, one
core: 17 ms, from the right 26 ms).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from ._bases import Axis, analysis, axes_of, shares, synthesis
from ._factors import Planes, Weight, mixing_of, modes_of
from ._folded import Apart, Folded, Interleaved, Unfolded, halves
from ._last_axis import Analysed, Evaluated, Transposed
from ._mixing import Paired, Parted, Raised
from ._plain import tracing

# From this many nodes and kept modes on, a leading axis is folded. Measured, 2-D, batch 8, 32 channels, one thread,
# values and gradients, least CPU times, folded and not: 64² nodes, 32 modes 14.9 and 13.7 ms, 128² with 16 modes 21.9
# and 18.8 ms, with 32 modes 33.0 and 35.4 ms, with 64 67.8 and 70.1 ms, 256² with 128 modes 395 and 453 ms.
FOLD_FROM = (128, 32)


def spectral_conv_products(
    inputs: Float[Tensor, "batch c_in *space"],
    weight: Weight,
    bias: Float[Tensor, " c_out"] | None,
    shape: Sequence[int],
    basis: Sequence[str] | None = None,
) -> Float[Tensor, "batch c_out *out"]:
    """Every axis by matrices; ``basis`` is one word an axis (default: all Fourier)."""
    return _by_matrices(inputs, weight, bias, shape, basis, last_by_fft=False)


def spectral_conv_mixed(
    inputs: Float[Tensor, "batch c_in *space"],
    weight: Weight,
    bias: Float[Tensor, " c_out"] | None,
    shape: Sequence[int],
    basis: Sequence[str] | None = None,
) -> Float[Tensor, "batch c_out *out"]:
    """The last axis, which must be a Fourier axis, by truncated real FFT, the others by matrices."""
    return _by_matrices(inputs, weight, bias, shape, basis, last_by_fft=True)


def _by_matrices(
    inputs: Tensor,
    weight: Weight,
    bias: Tensor | None,
    shape: Sequence[int],
    basis: Sequence[str] | None,
    *,
    last_by_fft: bool,
) -> Tensor:
    batch, c_in, *space = inputs.shape
    axes = axes_of(basis or ["fourier"] * len(space), modes_of(weight, len(space)))
    # the constant is the first row, which costs less to change than every node
    constant = bias if bias is not None and all(axis.first == 0 for axis in axes) else None
    if axes[-1].halved and not isinstance(weight, Planes) and not tracing():
        waves = _analysed(inputs, axes, last_by_fft)
        waves = _mixed_as_complex(waves, weight, axes, batch)
        if constant is not None:
            waves = Raised.apply(waves, constant.repeat(batch), 0)
        values = _synthesised(waves, axes, space, shape, last_by_fft)
    else:
        rows = _to_coefficients(inputs, axes, last_by_fft).reshape(batch * c_in, -1)
        rows = _by_planes(rows, weight, constant, axes, batch)
        values = _to_values(rows, axes, space, shape, last_by_fft)
    values = values.view(batch, -1, *shape)
    return values if bias is None or constant is not None else values + bias.view(-1, *(1,) * len(shape))


def _folds(axes: Sequence[Axis], size: int) -> bool:
    nodes, modes = FOLD_FROM
    return len(axes) > 1 and axes[0].fourier and size % 2 == 0 and size >= nodes and axes[0].modes >= modes


def _analysed(inputs: Tensor, axes: Sequence[Axis], last_by_fft: bool) -> Tensor:
    """Fields to complex coefficients wave by wave, ``waves batch·c_in``."""
    batch, channels, size, *rest = inputs.shape
    if not _folds(axes, size):
        return Transposed.apply(_as_complex(_to_coefficients(inputs, axes, last_by_fft), batch * channels))
    matrices = halves(analysis(axes[0], size, inputs.dtype, inputs.device))
    parts = Folded.apply(inputs.reshape(batch * channels, size, -1), *matrices)
    lines = (_to_coefficients(part.unflatten(2, rest), axes[1:], last_by_fft) for part in parts)
    return Interleaved.apply(*(_as_complex(line, batch * channels) for line in lines), axes[0].height)


def _synthesised(
    waves: Tensor, axes: Sequence[Axis], space: Sequence[int], shape: Sequence[int], last_by_fft: bool
) -> Tensor:
    count, real = waves.shape[1], waves.real.dtype
    if not _folds(axes, shape[0]):
        rows = torch.view_as_real(Transposed.apply(waves)).flatten(1)
        return _to_values(rows, axes, space, shape, last_by_fft)
    matrices = halves(synthesis(axes[0], space[0], shape[0], real, waves.device))
    lines = (torch.view_as_real(part).flatten(1) for part in Apart.apply(waves, axes[0].height))
    parts = (
        _to_values(line.view(count * len(matrix), -1), axes[1:], space[1:], shape[1:], last_by_fft)
        for line, matrix in zip(lines, matrices, strict=True)
    )
    even, odd = (part.view(count, len(matrix), -1) for part, matrix in zip(parts, matrices, strict=True))
    return Unfolded.apply(even, odd, *matrices)


def _as_complex(rows: Tensor, count: int) -> Tensor:
    return torch.view_as_complex(rows.reshape(count, -1, 2))


def _mixed_as_complex(waves: Tensor, weight: Weight, axes: Sequence[Axis], batch: int) -> Tensor:
    """Channels mixed, wave by wave, where the two rows of the halved axis lie together as complex numbers."""
    centred = [at for at, axis in enumerate(axes) if axis.fourier and not axis.halved]
    waves = waves.view(*_split(axes[:-1]), axes[-1].modes, -1)
    for at in centred:
        waves = Paired.apply(waves, at, axes[at].modes, 1)
    mixing = mixing_of(weight, len(axes), batch)
    waves = mixing(waves.reshape(-1, batch, waves.shape[-1] // batch))
    waves = waves.reshape(*(axis.modes for axis in axes), -1)
    for at in reversed(centred):
        waves = Parted.apply(waves, at, 1)
    return waves.reshape(-1, waves.shape[-1])


def _by_planes(rows: Tensor, weight: Weight, constant: Tensor | None, axes: Sequence[Axis], batch: int) -> Tensor:
    """The same for any axes, without complex numbers but for the product with a complex weight."""
    waves = _transposed(rows)
    waves = _mixed(waves.view(*_split(axes), batch, waves.shape[-1] // batch), weight, axes)
    waves = waves.reshape(-1, batch * waves.shape[-1])
    if constant is not None:
        first, others = waves.split([1, len(waves) - 1])
        waves = torch.cat([first + constant.repeat(batch), others])
    return _transposed(waves)


def _to_coefficients(inputs: Tensor, axes: Sequence[Axis], last_by_fft: bool) -> Tensor:
    batch, channels, *space = inputs.shape
    like = (inputs.dtype, inputs.device)
    values, count = inputs, batch * channels
    leading = len(axes) - 1
    if last_by_fft:
        share = torch.full((axes[-1].modes, 2), 1 / space[-1], dtype=inputs.dtype, device=inputs.device)
        values = Analysed.apply(inputs.reshape(-1, space[-1]), share)
    for axis, size in zip(axes[:leading], space[:leading], strict=True):
        matrix = analysis(axis, size, *like)
        rest = values.numel() // max(count * size, 1)
        values = torch.bmm(matrix.expand(count, -1, -1), values.reshape(count, size, rest))
        count *= axis.rows
    return values if last_by_fft else values.reshape(-1, space[-1]) @ analysis(axes[-1], space[-1], *like).t()


def _to_values(
    rows: Tensor, axes: Sequence[Axis], space: Sequence[int], shape: Sequence[int], last_by_fft: bool
) -> Tensor:
    like = (rows.dtype, rows.device)
    inner = [axis.rows for axis in axes]
    order = [len(axes) - 1, *reversed(range(len(axes) - 1))]
    values, last = rows, axes[-1]
    for i in order[last_by_fft:]:
        matrix, count = synthesis(axes[i], space[i], shape[i], *like), rows.shape[0] * math.prod(inner[:i])
        if i == len(axes) - 1:
            values = values.reshape(count, inner[i]) @ matrix
        else:
            values = torch.bmm(matrix.t().expand(count, -1, -1), values.reshape(count, inner[i], -1))
        inner[i] = shape[i]
    if not last_by_fft:
        return values
    share = shares(last, space[-1], shape[-1])[: shape[-1] // 2 + 1].to(rows.device, rows.dtype)
    return Evaluated.apply(values.reshape(-1, last.modes, 2)[:, : len(share)], share, shape[-1])


def _split(axes: Sequence[Axis]) -> list[int]:
    return [n for axis in axes for n in ((axis.height, 2) if axis.fourier else (axis.modes,))]


def _transposed(matrix: Tensor) -> Tensor:
    return matrix.t().contiguous() if tracing() else Transposed.apply(matrix)


def _mixed(waves: Tensor, weight: Weight, axes: Sequence[Axis]) -> Tensor:
    """Channels mixed, wave by wave: ``rows batch c_in`` to ``rows batch c_out``, rows split as :func:`_split` does."""
    modes = tuple(axis.modes for axis in axes)
    *_, batch, c_in = waves.shape
    plane = _plane(axes)
    if plane is None:
        mixing = mixing_of(weight, len(modes), batch)
        return mixing(waves.reshape(-1, batch, c_in)).view(*modes, batch, -1)
    real, imaginary = waves.unbind(plane)
    real, imaginary = _paired(real, imaginary, axes)
    mixing = mixing_of(weight, len(modes), batch)
    flat = (-1, batch, c_in)
    real, imaginary = mixing.complex(real.reshape(flat), imaginary.reshape(flat))
    real, imaginary = _parted(real.view(*modes, batch, -1), imaginary.view(*modes, batch, -1), axes)
    return torch.stack([real, imaginary], dim=plane)


def _plane(axes: Sequence[Axis]) -> int | None:
    """Where the two rows of the halved axis are told apart, among the axes of :func:`_split`."""
    at = 0
    for axis in axes:
        at += 1 + axis.fourier
        if axis.halved:
            return at - 1
    return None


def _paired(real: Tensor, imaginary: Tensor, axes: Sequence[Axis]) -> tuple[Tensor, Tensor]:
    """Cosine and sine rows of the centred axes to the complex modes -m//2 ... m - m//2 - 1.

    With c - i s the wave of k, and z the coefficient so far: (c - i s) z belongs to k, (c + i s) z to -k.
    """
    for at, axis in enumerate(axes):
        if not axis.fourier or axis.halved:
            continue
        (real_c, real_s), (imaginary_c, imaginary_s) = real.unbind(at + 1), imaginary.unbind(at + 1)
        negative, positive = axis.modes // 2, axis.modes - axis.modes // 2
        minus = real_c + imaginary_s, imaginary_c - real_s
        plus = real_c - imaginary_s, imaginary_c + real_s
        real, imaginary = (
            torch.cat([m.narrow(at, 1, negative).flip(at), p.narrow(at, 0, positive)], dim=at)
            for m, p in zip(minus, plus, strict=True)
        )
    return real, imaginary


def _parted(real: Tensor, imaginary: Tensor, axes: Sequence[Axis]) -> tuple[Tensor, Tensor]:
    """Complex modes of the centred axes to cosine and sine rows: z e^{ikx} + w e^{-ikx} = (z+w) cos + i(z-w) sin."""
    for at, axis in reversed(list(enumerate(axes))):
        if not axis.fourier or axis.halved:
            continue
        (plus_r, minus_r), (plus_i, minus_i) = (_both_signs(x, at, axis) for x in (real, imaginary))
        real = torch.stack([plus_r + minus_r, minus_i - plus_i], dim=at + 1)
        imaginary = torch.stack([plus_i + minus_i, plus_r - minus_r], dim=at + 1)
    return real, imaginary


def _both_signs(values: Tensor, at: int, axis: Axis) -> tuple[Tensor, Tensor]:
    """The modes 0 .. h-1 and 0, -1, .. -(h-1), zero where there is none."""
    negative, positive = axis.modes // 2, axis.modes - axis.modes // 2
    minus, plus = values.split([negative, positive], dim=at)
    zero = values.new_zeros(*values.shape[:at], 1, *values.shape[at + 1 :])
    plus = plus if positive == axis.height else torch.cat([plus, zero], dim=at)
    return plus, torch.cat([zero, minus.flip(at)], dim=at)


__all__ = ["Planes", "spectral_conv_mixed", "spectral_conv_products"]
