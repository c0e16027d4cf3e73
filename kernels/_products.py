"""The spectral convolution as products with real matrices that hold the kept waves only, channels mixed wave by wave.

Field to coefficients, axis by axis (``batch c_in *space`` to ``batch c_in *rows``), then one transposition to
wave-major order, ``rows batch c_in``: all that concerns a wave lies together, so that pairing the rows of k and -k
works on whole lines and the channels are mixed by one batched product. Then the same way back.

A complex number is a pair of reals throughout but for the mixing by a complex weight, as complex products are 1.4 to
1.6 times faster there (32 channels, 544 and 2112 modes, values and gradients); with a :class:`~._factors.Planes` weight
no operation is complex. The matrices stand on the left of every large product, which is what the
batched product of MKL does best (256² nodes, 32 modes, one core: 17 ms, from the right 26 ms).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from ._bases import Axis, analysis, axes_of, shares, synthesis
from ._factors import Planes, Weight, mixing_of, modes_of
from ._last_axis import Analysed, Evaluated, Transposed
from ._plain import tracing


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
    rows = _to_coefficients(inputs, axes, last_by_fft)
    waves = _transposed(rows.reshape(batch * c_in, -1)).view(*_split(axes), batch, c_in)
    waves = _mixed(waves, weight, axes)
    c_out = waves.shape[-1]
    waves = waves.reshape(-1, batch * c_out)
    constant = bias is not None and all(axis.first == 0 for axis in axes)
    if bias is not None and constant:
        # the constant is the first row, which costs less to change than every node
        first, others = waves.split([1, len(waves) - 1])
        waves = torch.cat([first + bias.repeat(batch), others])
    values = _to_values(_transposed(waves), axes, space, shape, last_by_fft).view(batch, c_out, *shape)
    return values if bias is None or constant else values + bias.view(-1, *(1,) * len(shape))


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
        matrix, count = synthesis(axes[i], space[i], shape[i], *like), len(rows) * math.prod(inner[:i])
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
