"""Truncated Fourier transforms as Triton kernels, in real arithmetic.

Complex numbers lie in memory as torch keeps them, (real, imaginary) next to each other; on the chip a tile has the
planes as neighbouring columns 2 j + b (b = 0 real, 1 imaginary) and the factors cosine and sine as neighbouring rows
2 i + a (a = 0 cosine, 1 sine), so that each transform is one real product. Tables come from :mod:`._triton_tables`,
padded by zeros: only fields and spectra need masks.

Even sizes are halved first (one step of decimation in frequency): even modes see u(x) + u(x + 1/2), odd modes
u(x) - u(x + 1/2), on half the nodes. That halves the products; tf32x3 has three for one and would otherwise be the
bottleneck, not the memory. ``P1``, ``P2`` = 2 where the second-last and the last axis are even, else 1.
"""

from typing import no_type_check

import triton
import triton.language as tl


@triton.jit
@no_type_check
def unravel(number, first, second):
    """Three block numbers from one, the first running fastest."""
    return number % first, (number // first) % second, number // (first * second)


@triton.jit
@no_type_check
def rounded(values):
    """float32 with the 8 bits of a bfloat16's significand: to the nearest, ties to even."""
    bits = values.to(tl.int32, bitcast=True)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) & -0x10000).to(tl.float32, bitcast=True)


@triton.jit
@no_type_check
def product(a, b, total, PRECISION: tl.constexpr):
    """``total + a @ b``; sums are at least single precision."""
    if PRECISION == "bf16":
        total = tl.dot(a.to(tl.bfloat16), b.to(tl.bfloat16), total)
    elif PRECISION == "bf16 interpreted":
        # The interpreter of Triton 3.6-3.9 multiplies the bit patterns of two bf16 tiles, and casts to bf16 by cutting
        # off. So the operands are rounded here, to the nearest as the hardware does, and stay float32.
        total = tl.dot(rounded(a), rounded(b), total)
    else:
        total = tl.dot(a, b, total, input_precision=PRECISION, out_dtype=total.dtype)
    return total


@triton.jit
@no_type_check
def finish(
    values, where, mask, bias, outputs, before, BIAS: tl.constexpr, ACTIVATION: tl.constexpr, KEEP: tl.constexpr
):
    """Bias, activation, store; ``before`` keeps what the gradient of the activation needs."""
    if BIAS:
        values += bias
    if KEEP:
        tl.store(before + where, values, mask=mask)
    if ACTIVATION == "gelu":
        values = 0.5 * values * (1.0 + tl.math.erf(values * 0.7071067811865476))
    tl.store(outputs + where, values, mask=mask)


@triton.jit
@no_type_check
def rows_of_plane(
    values, rows, row_mask, n, last, last_step, P2: tl.constexpr, C0: tl.constexpr, C1: tl.constexpr,
    PRECISION: tl.constexpr, BR: tl.constexpr, BN: tl.constexpr, DTYPE: tl.constexpr,
):  # fmt: skip
    """The last axis of a block of rows: even and odd modes (for odd sizes: all modes, nothing)."""
    half = n // P2
    even, odd = tl.zeros((BR, C0), DTYPE), tl.zeros((BR, C1), DTYPE)
    c0, c1 = tl.arange(0, C0), tl.arange(0, C1)
    for start in range(0, half, BN):
        nodes = start + tl.arange(0, BN)
        mask = row_mask[:, None] & (nodes[None, :] < half)
        where = values + rows[:, None] * n + nodes[None, :]
        left = tl.load(where, mask=mask, other=0.0).to(DTYPE)
        table = tl.load(last + nodes[:, None] * C0 + c0[None, :])
        if P2 == 2:
            right = tl.load(where + half, mask=mask, other=0.0).to(DTYPE)
            even = product(left + right, table, even, PRECISION)
            table = tl.load(last + last_step + nodes[:, None] * C0 + c1[None, :])
            odd = product(left - right, table, odd, PRECISION)
        else:
            even = product(left, table, even, PRECISION)
    return even, odd


@triton.jit
@no_type_check
def store_turned(total, outputs, k1, k2, m1, m2):
    """Rows (mode, cosine | sine) by columns (mode, real | imaginary) to complex values: times exp(-i angle)."""
    ROWS: tl.constexpr = total.shape[0] // 2
    COLUMNS: tl.constexpr = total.shape[1] // 2
    parts = tl.permute(tl.reshape(total, (ROWS, 2, COLUMNS, 2)), (0, 2, 1, 3))
    from_real, from_imaginary = tl.split(parts)
    cosine_real, sine_real = tl.split(from_real)
    cosine_imaginary, sine_imaginary = tl.split(from_imaginary)
    where = outputs + (k1[:, None] * m2 + k2[None, :]) * 2
    mask = (k1[:, None] < m1) & (k2[None, :] < m2)
    tl.store(where, cosine_real + sine_imaginary, mask=mask)
    tl.store(where + 1, cosine_imaginary - sine_real, mask=mask)


@triton.jit
@no_type_check
def load_turning(values, first1, first2, m1, m2, P1: tl.constexpr, P2: tl.constexpr, R: tl.constexpr, C: tl.constexpr):
    """Complex values as the factor of (cosine | sine) rows: multiply by exp(+i angle). Modes first, first + P, ..."""
    i, j = tl.arange(0, R), tl.arange(0, C)
    k1, k2 = first1 + P1 * (i // 2), first2 + P2 * (j // 2)
    sine, imaginary = (i % 2)[:, None], (j % 2)[None, :]
    where = values + (k1[:, None] * m2 + k2[None, :]) * 2 + (sine + imaginary) % 2
    tile = tl.load(where, mask=(k1[:, None] < m1) & (k2[None, :] < m2), other=0.0)
    return tl.where((sine == 1) & (imaginary == 0), -tile, tile)


@triton.jit
@no_type_check
def analysis_planes(
    inputs, outputs, last, turn, n1, n2, m1, m2, rows_each, first1, last_step, turn_step, planes,
    P1: tl.constexpr, P2: tl.constexpr, R: tl.constexpr, C0: tl.constexpr, C1: tl.constexpr,
    PRECISION: tl.constexpr, BR: tl.constexpr, BN: tl.constexpr,
):  # fmt: skip
    """Both axes of one plane: ``planes n1 n2`` to ``split planes m1 m2 2``; what lies between stays on the chip."""
    DTYPE: tl.constexpr = outputs.dtype.element_ty
    plane, split = tl.program_id(0).to(tl.int64), tl.program_id(1)
    values = inputs + plane * n1 * n2
    h1 = n1 // P1
    stop = tl.minimum(h1, (split + 1) * rows_each)
    modes1 = tl.arange(0, R)
    even_even, even_odd = tl.zeros((R, C0), DTYPE), tl.zeros((R, C1), DTYPE)
    odd_even, odd_odd = tl.zeros((R, C0), DTYPE), tl.zeros((R, C1), DTYPE)
    for start in range(split * rows_each, stop, BR):
        rows = start + tl.arange(0, BR)
        top0, top1 = rows_of_plane(
            values, rows, rows < stop, n2, last, last_step, P2, C0, C1, PRECISION, BR, BN, DTYPE
        )  # fmt: skip
        low0, low1 = top0, top1
        if P1 == 2:
            low0, low1 = rows_of_plane(
                values + h1 * n2, rows, rows < stop, n2, last, last_step, P2, C0, C1, PRECISION, BR, BN, DTYPE
            )  # fmt: skip
            top0, low0, top1, low1 = top0 + low0, top0 - low0, top1 + low1, top1 - low1
        turns = turn + rows[None, :] * R + modes1[:, None]
        factor = tl.load(turns)
        even_even = product(factor, top0, even_even, PRECISION)
        if P2 == 2:
            even_odd = product(factor, top1, even_odd, PRECISION)
        if P1 == 2:
            factor = tl.load(turns + turn_step)
            odd_even = product(factor, low0, odd_even, PRECISION)
            if P2 == 2:
                odd_odd = product(factor, low1, odd_odd, PRECISION)
    target = outputs + (split * planes + plane) * m1 * m2 * 2
    i, j0, j1 = tl.arange(0, R // 2), tl.arange(0, C0 // 2), tl.arange(0, C1 // 2)
    store_turned(even_even, target, first1 + P1 * i, P2 * j0, m1, m2)
    if P2 == 2:
        store_turned(even_odd, target, first1 + P1 * i, 1 + 2 * j1, m1, m2)
    if P1 == 2:
        store_turned(odd_even, target, 1 - first1 + 2 * i, P2 * j0, m1, m2)
        if P2 == 2:
            store_turned(odd_odd, target, 1 - first1 + 2 * i, 1 + 2 * j1, m1, m2)


@triton.jit
@no_type_check
def finish_halves(
    factor0, factor1, table0, table1, where, rows_mask, nodes, half, bias, outputs, before,
    P2: tl.constexpr, BIAS: tl.constexpr, ACTIVATION: tl.constexpr, KEEP: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """One tile of nodes and, for even sizes, the tile half a period further."""
    zero = tl.zeros((factor0.shape[0], table0.shape[1]), factor0.dtype)
    even = product(factor0, table0, zero, PRECISION)
    mask = rows_mask[:, None] & (nodes[None, :] < half)
    if P2 == 2:
        odd = product(factor1, table1, zero, PRECISION)
        finish(even + odd, where, mask, bias, outputs, before, BIAS, ACTIVATION, KEEP)
        finish(even - odd, where + half, mask, bias, outputs, before, BIAS, ACTIVATION, KEEP)
    else:
        finish(even, where, mask, bias, outputs, before, BIAS, ACTIVATION, KEEP)


@triton.jit
@no_type_check
def synthesis_planes(
    spectrum, outputs, before, bias, last, turn, n1, n2, m1, m2, rows_each, first1, last_step, turn_step, channels,
    P1: tl.constexpr, P2: tl.constexpr, R: tl.constexpr, C0: tl.constexpr, C1: tl.constexpr,
    BIAS: tl.constexpr, ACTIVATION: tl.constexpr, KEEP: tl.constexpr,
    PRECISION: tl.constexpr, BR: tl.constexpr, BN: tl.constexpr,
):  # fmt: skip
    """Both axes of one plane: ``planes m1 m2 2`` to ``planes n1 n2``; what lies between stays on the chip."""
    plane, split = tl.program_id(0).to(tl.int64), tl.program_id(1)
    values = spectrum + plane * m1 * m2 * 2
    h1, h2 = n1 // P1, n2 // P2
    stop = tl.minimum(h1, (split + 1) * rows_each)
    modes1, c0, c1 = tl.arange(0, R), tl.arange(0, C0), tl.arange(0, C1)
    even0 = load_turning(values, first1, 0, m1, m2, P1, P2, R, C0)
    even1, odd0, odd1 = even0, even0, even0
    if P2 == 2:
        even1 = load_turning(values, first1, 1, m1, m2, P1, P2, R, C1)
    if P1 == 2:
        odd0 = load_turning(values, 1 - first1, 0, m1, m2, P1, P2, R, C0)
        if P2 == 2:
            odd1 = load_turning(values, 1 - first1, 1, m1, m2, P1, P2, R, C1)
    add = 0.0
    if BIAS:
        add = tl.load(bias + plane % channels)
    zero0, zero1 = tl.zeros((BR, C0), even0.dtype), tl.zeros((BR, C1), even0.dtype)
    for start in range(split * rows_each, stop, BR):
        rows = start + tl.arange(0, BR)
        turns = turn + rows[:, None] * R + modes1[None, :]
        factor = tl.load(turns)
        top0, top1 = product(factor, even0, zero0, PRECISION), zero1
        low0, low1 = top0, zero1
        if P2 == 2:
            top1 = product(factor, even1, zero1, PRECISION)
        if P1 == 2:
            factor = tl.load(turns + turn_step)
            odd = product(factor, odd0, zero0, PRECISION)
            top0, low0 = top0 + odd, top0 - odd
            if P2 == 2:
                odd = product(factor, odd1, zero1, PRECISION)
                top1, low1 = top1 + odd, top1 - odd
        for column in range(0, h2, BN):
            nodes = column + tl.arange(0, BN)
            table0 = tl.load(last + nodes[None, :] * C0 + c0[:, None])
            table1 = table0
            if P2 == 2:
                table1 = tl.load(last + last_step + nodes[None, :] * C0 + c1[:, None])
            where = plane * n1 * n2 + rows[:, None] * n2 + nodes[None, :]
            finish_halves(
                top0, top1, table0, table1, where, rows < stop, nodes, h2, add, outputs, before,
                P2, BIAS, ACTIVATION, KEEP, PRECISION,
            )  # fmt: skip
            if P1 == 2:
                finish_halves(
                    low0, low1, table0, table1, where + h1 * n2, rows < stop, nodes, h2, add, outputs, before,
                    P2, BIAS, ACTIVATION, KEEP, PRECISION,
                )  # fmt: skip


@triton.jit
@no_type_check
def analysis_rows(
    inputs, outputs, last, rows, n, m, step, PRECISION: tl.constexpr, BR: tl.constexpr, BC: tl.constexpr,
    BN: tl.constexpr,
):  # fmt: skip
    """The last axis alone: ``rows n`` to ``rows m 2``."""
    DTYPE: tl.constexpr = outputs.dtype.element_ty
    column, block, _ = unravel(tl.program_id(0), tl.cdiv(2 * m, BC), tl.cdiv(rows, BR))
    row = block.to(tl.int64) * BR + tl.arange(0, BR)
    columns = column * BC + tl.arange(0, BC)
    total = tl.zeros((BR, BC), DTYPE)
    for start in range(0, n, BN):
        nodes = start + tl.arange(0, BN)
        mask = (row[:, None] < rows) & (nodes[None, :] < n)
        tile = tl.load(inputs + row[:, None] * n + nodes[None, :], mask=mask, other=0.0).to(DTYPE)
        total = product(tile, tl.load(last + nodes[:, None] * step + columns[None, :]), total, PRECISION)
    mask = (row[:, None] < rows) & (columns[None, :] < 2 * m)
    tl.store(outputs + row[:, None] * (2 * m) + columns[None, :], total, mask=mask)


@triton.jit
@no_type_check
def turn_forward(
    inputs, outputs, turn, n, m, rest, step, PRECISION: tl.constexpr, BR: tl.constexpr, BC: tl.constexpr,
    BN: tl.constexpr,
):  # fmt: skip
    """A leading axis, complex to complex, times exp(-i angle): ``groups n rest 2`` to ``groups m rest 2``."""
    DTYPE: tl.constexpr = outputs.dtype.element_ty
    row, column, group = unravel(tl.program_id(0), tl.cdiv(2 * m, BR), tl.cdiv(2 * rest, BC))
    group = group.to(tl.int64)
    rows = row * BR + tl.arange(0, BR)
    columns = column * BC + tl.arange(0, BC)
    total = tl.zeros((BR, BC), DTYPE)
    for start in range(0, n, BN):
        nodes = start + tl.arange(0, BN)
        factor = tl.load(turn + nodes[None, :] * step + rows[:, None])
        mask = (nodes[:, None] < n) & (columns[None, :] < 2 * rest)
        where = inputs + (group * n + nodes[:, None]) * (2 * rest) + columns[None, :]
        total = product(factor, tl.load(where, mask=mask, other=0.0), total, PRECISION)
    k1 = row * (BR // 2) + tl.arange(0, BR // 2)
    k2 = column * (BC // 2) + tl.arange(0, BC // 2)
    store_turned(total, outputs + group * m * rest * 2, k1, k2, m, rest)


@triton.jit
@no_type_check
def turn_back(
    inputs, outputs, turn, n, m, rest, step, PRECISION: tl.constexpr, BR: tl.constexpr, BC: tl.constexpr,
    BN: tl.constexpr,
):  # fmt: skip
    """A leading axis, complex to complex, times exp(+i angle): ``groups m rest 2`` to ``groups n rest 2``."""
    DTYPE: tl.constexpr = outputs.dtype.element_ty
    row, column, group = unravel(tl.program_id(0), tl.cdiv(n, BN), tl.cdiv(2 * rest, BC))
    group = group.to(tl.int64)
    rows = row * BN + tl.arange(0, BN)
    columns = column * BC + tl.arange(0, BC)
    total = tl.zeros((BN, BC), DTYPE)
    for start in range(0, 2 * m, BR):
        factor = tl.load(turn + rows[:, None] * step + (start + tl.arange(0, BR))[None, :])
        tile = load_turning(inputs + group * m * rest * 2, start // 2, column * (BC // 2), m, rest, 1, 1, BR, BC)
        total = product(factor, tile, total, PRECISION)
    mask = (rows[:, None] < n) & (columns[None, :] < 2 * rest)
    tl.store(outputs + (group * n + rows[:, None]) * (2 * rest) + columns[None, :], total, mask=mask)


@triton.jit
@no_type_check
def synthesis_rows(
    spectrum, outputs, before, bias, last, skip, skip_weight, channels, lead, n, m, step, skips, stride_out, stride_in,
    SKIP: tl.constexpr, BIAS: tl.constexpr, ACTIVATION: tl.constexpr, KEEP: tl.constexpr,
    PRECISION: tl.constexpr, BR: tl.constexpr, BK: tl.constexpr, BN: tl.constexpr,
):  # fmt: skip
    """The last axis, all channels of a line at once: ``batch channel lead m 2`` to ``batch channel lead n``.

    The skip product (pointwise channel mixing of ``skip``) joins the same sum: its operand is read once.
    """
    DTYPE: tl.constexpr = spectrum.dtype.element_ty
    # neighbouring programs share the nodes: the skip comes from memory once, whatever the number of channels
    channel, node, number = unravel(tl.program_id(0), tl.cdiv(channels, BR), tl.cdiv(n, BN))
    batch, line = (number // lead).to(tl.int64), number % lead
    channel = channel * BR + tl.arange(0, BR)
    nodes = node * BN + tl.arange(0, BN)
    row = (batch * channels + channel) * lead + line
    total = tl.zeros((BR, BN), DTYPE)
    for start in range(0, 2 * m, BK):
        k = start + tl.arange(0, BK)
        mask = (channel[:, None] < channels) & (k[None, :] < 2 * m)
        tile = tl.load(spectrum + row[:, None] * (2 * m) + k[None, :], mask=mask, other=0.0)
        total = product(tile, tl.load(last + nodes[None, :] * step + k[:, None]), total, PRECISION)
    if SKIP:
        for start in range(0, skips, BK):
            other = start + tl.arange(0, BK)
            mask = (channel[:, None] < channels) & (other[None, :] < skips)
            weight = skip_weight + channel[:, None] * stride_out + other[None, :] * stride_in
            weight = tl.load(weight, mask=mask, other=0.0)
            source = ((batch * skips + other) * lead + line)[:, None] * n + nodes[None, :]
            mask = (other[:, None] < skips) & (nodes[None, :] < n)
            tile = tl.load(skip + source, mask=mask, other=0.0).to(DTYPE)
            total = product(weight, tile, total, PRECISION)
    mask = (channel[:, None] < channels) & (nodes[None, :] < n)
    add = 0.0
    if BIAS:
        add = tl.load(bias + channel, mask=channel < channels, other=0.0)[:, None]
    where = row[:, None] * n + nodes[None, :]
    finish(total, where, mask, add, outputs, before, BIAS, ACTIVATION, KEEP)
