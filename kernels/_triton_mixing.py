"""Channel mixing as Triton kernels: mode by mode for the spectrum, over all nodes for the skip weight's gradient."""

from typing import no_type_check

import triton
import triton.language as tl

from ._triton_transforms import product, unravel


@triton.jit
@no_type_check
def load_complex(pointers, mask):
    """Both planes of a tile whose numbers lie as (real, imaginary): one coalesced load, split on the chip."""
    part = tl.arange(0, 2)
    return tl.split(tl.load(pointers[:, :, None] + part[None, None, :], mask=mask[:, :, None], other=0.0))


@triton.jit
@no_type_check
def mix_modes(
    left, right, outputs, p_count, q_count, s_count, modes, left_p, left_s, right_s, right_q, out_p, out_q,
    CONJUGATE_LEFT: tl.constexpr, CONJUGATE_RIGHT: tl.constexpr, BP: tl.constexpr, BQ: tl.constexpr, BM: tl.constexpr,
):  # fmt: skip
    """``out[p, q, k] = sum_s left[p, s, k] right[s, q, k]``, complex, for every mode k; strides count real numbers.

    Values (p batch, s c_in, q c_out), gradient of the inputs (right conjugated, s c_out, q c_in) and of the weight
    (left conjugated, p c_in, s batch, q c_out). In plain arithmetic: 8 operations for each number of a product that
    needs few, so tensor cores would gain nothing here, and the modes stay the fastest axis of every operand.
    """
    # neighbouring programs share the modes, so that each operand comes from memory once and then from the cache
    p_block, q_block, k_block = unravel(tl.program_id(0), tl.cdiv(p_count, BP), tl.cdiv(q_count, BQ))
    k = k_block * BM + tl.arange(0, BM)
    p = (p_block * BP + tl.arange(0, BP)).to(tl.int64)
    q = (q_block * BQ + tl.arange(0, BQ)).to(tl.int64)
    left_mask, right_mask = (p[:, None] < p_count) & (k[None, :] < modes), (q[:, None] < q_count) & (k[None, :] < modes)
    left_at = left + p[:, None] * left_p + 2 * k[None, :]
    right_at = right + q[:, None] * right_q + 2 * k[None, :]
    real = tl.zeros((BP, BQ, BM), outputs.dtype.element_ty)
    imaginary = tl.zeros((BP, BQ, BM), outputs.dtype.element_ty)
    for _ in range(s_count):
        a, b = load_complex(left_at, left_mask)
        c, d = load_complex(right_at, right_mask)
        if CONJUGATE_LEFT:
            b = -b
        if CONJUGATE_RIGHT:
            d = -d
        a, b, c, d = a[:, None, :], b[:, None, :], c[None, :, :], d[None, :, :]
        real += a * c - b * d
        imaginary += a * d + b * c
        left_at += left_s
        right_at += right_s
    where = outputs + p[:, None, None] * out_p + q[None, :, None] * out_q + 2 * k[None, None, :]
    mask = left_mask[:, None, :] & right_mask[None, :, :]
    tl.store(where, real, mask=mask)
    tl.store(where + 1, imaginary, mask=mask)


@triton.jit
@no_type_check
def skip_gradient(
    gradient, before, through, skip, partial, channels, skips, nodes, each, chunks,
    ACTIVATION: tl.constexpr, PRECISION: tl.constexpr, BO: tl.constexpr, BI: tl.constexpr, BN: tl.constexpr,
):  # fmt: skip
    """``partial[chunk, c_out, c_in] = sum over its nodes of gradient * skip``, the activation's gradient on the way.

    ``through`` receives the gradient behind the activation, which the other gradients start from.
    """
    DTYPE: tl.constexpr = partial.dtype.element_ty
    batch, chunk = (tl.program_id(0) // chunks).to(tl.int64), tl.program_id(0) % chunks
    out = tl.program_id(1) * BO + tl.arange(0, BO)
    other = tl.program_id(2) * BI + tl.arange(0, BI)
    total = tl.zeros((BO, BI), DTYPE)
    for start in range(chunk * each, tl.minimum(nodes, (chunk + 1) * each), BN):
        node = start + tl.arange(0, BN)
        inside = (node < nodes) & (node < (chunk + 1) * each)
        mask = (out[:, None] < channels) & inside[None, :]
        where = (batch * channels + out)[:, None] * nodes + node[None, :]
        tile = tl.load(gradient + where, mask=mask, other=0.0).to(DTYPE)
        if ACTIVATION == "gelu":
            x = tl.load(before + where, mask=mask, other=0.0).to(DTYPE)
            normal = 0.3989422804014327 * tl.exp(-0.5 * x * x)
            tile *= 0.5 * (1.0 + tl.math.erf(x * 0.7071067811865476)) + x * normal
            tl.store(through + where, tile, mask=mask & (tl.program_id(2) == 0))
        source = (batch * skips + other)[None, :] * nodes + node[:, None]
        operand = tl.load(skip + source, mask=(other[None, :] < skips) & inside[:, None], other=0.0).to(DTYPE)
        total = product(tile, operand, total, PRECISION)
    where = (tl.program_id(0) * channels + out)[:, None] * skips + other[None, :]
    tl.store(partial + where, total, mask=(out[:, None] < channels) & (other[None, :] < skips))
