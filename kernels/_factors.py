r"""Weights of a spectral convolution: dense, depthwise, as real planes, and factorised; how each mixes channels.

=========  ==================================================================  ================================
dense      tensor ``c_in c_out *modes``                                        W
depthwise  tensor ``c *modes``                                                 diag(W)
Planes     both, as two real tensors                                           for export without complex types
CP         weights ``R``, factors ``n_i R``                                    W = sum_r w_r u_r o v_r o f_r ...
Tucker     core ``R_1 ... R_n``, factors ``n_i R_i``                           W = core x_1 U x_2 V x_3 F ...
TT         cores ``R_{i-1} n_i R_i``, R_0 = R_n = 1                            W = G_1 G_2 ... G_n
=========  ==================================================================  ================================

in tensorly's conventions, the axes being c_in, c_out, modes (depthwise: c, modes). At every mode k, each factorised
matrix is :math:`W(k) = L\,M(k)\,R` with L and R the same for all modes: M(k) is diagonal (CP), the core contracted
with the mode factors (Tucker), or c_out-wide (TT, where R is the identity). Channels are mixed from the left to the
right, X L, then M(k), then R, unless forming W(k) first takes fewer multiplications.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor

from ._last_axis import Transposed
from ._mixing import Mixed, Multiplied
from ._plain import tracing


@dataclass(frozen=True)
class Planes:
    """A complex weight, dense or depthwise, as two real tensors."""

    real: Tensor
    imaginary: Tensor


@dataclass(frozen=True)
class CP:
    """sum over r of ``weights[r]`` times the outer product of the columns r of the factors."""

    weights: Tensor
    factors: tuple[Tensor, ...]


@dataclass(frozen=True)
class Tucker:
    """``core`` with each axis multiplied by its factor."""

    core: Tensor
    factors: tuple[Tensor, ...]


@dataclass(frozen=True)
class TT:
    """A train of cores, each (rank before, size, rank after)."""

    cores: tuple[Tensor, ...]


Factorised: TypeAlias = CP | Tucker | TT
Weight: TypeAlias = Tensor | Planes | CP | Tucker | TT


def tensors_of(weight: Weight) -> tuple[Tensor, ...]:
    if isinstance(weight, Tensor):
        return (weight,)
    if isinstance(weight, Planes):
        return (weight.real, weight.imaginary)
    if isinstance(weight, CP):
        return (weight.weights, *weight.factors)
    return (weight.core, *weight.factors) if isinstance(weight, Tucker) else tuple(weight.cores)


# tables, because torch.compile cannot follow dtype.to_real() and dtype.to_complex()
REAL_OF = {torch.complex32: torch.float16, torch.complex64: torch.float32, torch.complex128: torch.float64}
_COMPLEX_OF = {real: of_complex for of_complex, real in REAL_OF.items()} | {torch.bfloat16: torch.complex64}


def converted(weight: Weight, dtype: torch.dtype) -> Weight:
    """The weight in the precision of the real ``dtype``."""

    def to(x: Tensor) -> Tensor:
        return x.to(_COMPLEX_OF[dtype] if x.is_complex() else dtype)

    if isinstance(weight, Tensor):
        return to(weight)
    if isinstance(weight, Planes):
        return Planes(to(weight.real), to(weight.imaginary))
    if isinstance(weight, CP):
        return CP(to(weight.weights), tuple(map(to, weight.factors)))
    if isinstance(weight, Tucker):
        return Tucker(to(weight.core), tuple(map(to, weight.factors)))
    return TT(tuple(map(to, weight.cores)))


def shape_of(weight: Weight) -> tuple[int, ...]:
    """The shape of the dense tensor. Raises ``ValueError`` where the factors do not fit each other."""
    if isinstance(weight, Tensor):
        return tuple(weight.shape)
    if isinstance(weight, Planes):
        _fit(weight, weight.real.shape == weight.imaginary.shape)
        return tuple(weight.real.shape)
    if isinstance(weight, TT):
        cores = weight.cores
        _fit(weight, len(cores) > 0 and all(core.ndim == 3 for core in cores))
        ranks = [(core.shape[0], core.shape[2]) for core in cores]
        _fit(weight, ranks[0][0] == ranks[-1][1] == 1 and all(a[1] == b[0] for a, b in itertools.pairwise(ranks)))
        return tuple(core.shape[1] for core in cores)
    _fit(weight, all(factor.ndim == 2 for factor in weight.factors))
    ranks_of = tuple(factor.shape[1] for factor in weight.factors)
    expected = tuple(weight.core.shape) if isinstance(weight, Tucker) else tuple(weight.weights.shape) * len(ranks_of)
    _fit(weight, ranks_of == expected)
    return tuple(factor.shape[0] for factor in weight.factors)


def _fit(weight: Weight, holds: bool) -> None:
    if not holds:
        shapes = [tuple(x.shape) for x in tensors_of(weight)]
        raise ValueError(
            f"spectral_conv: the parts of this {type(weight).__name__} weight do not fit each other, their shapes are "
            f"{shapes}. Expected: Planes alike; CP weights (R,) and factors (n, R); Tucker factors (n, R_i) for a core "
            "(R_1, ...); TT cores (R_before, n, R_after) that begin and end with rank 1."
        )


def modes_of(weight: Weight, dim: int) -> tuple[int, ...]:
    return shape_of(weight)[-dim:]


def is_depthwise(weight: Weight, dim: int) -> bool:
    return len(shape_of(weight)) == dim + 1


def is_complex(weight: Weight) -> bool:
    return isinstance(weight, Planes) or tensors_of(weight)[0].is_complex()


def to_dense(weight: Weight) -> Tensor:
    """The tensor that the factors stand for."""
    if isinstance(weight, Tensor):
        return weight
    if isinstance(weight, Planes):
        return torch.complex(weight.real, weight.imaginary)
    if isinstance(weight, CP):
        first, *others = weight.factors
        dense = weight.weights * first
        for factor in others:
            dense = dense.unsqueeze(-2) * factor
        return dense.sum(-1)
    if isinstance(weight, Tucker):
        dense = weight.core
        for factor in weight.factors:
            dense = torch.tensordot(dense, factor, dims=([0], [1]))  # the axis done goes behind
        return dense
    first, *others = weight.cores
    dense = first.squeeze(0)
    for core in others:
        dense = torch.tensordot(dense, core, dims=1)
    return dense.squeeze(-1)


class Mixing:
    """W(k) = left M(k) right, with M(k) dense ``modes p q`` or diagonal ``modes p``; left and right may be missing."""

    def __init__(self, middle: Tensor, left: Tensor | None = None, right: Tensor | None = None) -> None:
        self.middle, self.left, self.right = middle, left, right

    def __call__(self, values: Tensor) -> Tensor:
        if self.left is not None:
            values = values @ self.left
        values = values * self.middle.unsqueeze(1) if self.middle.ndim == 2 else _multiplied(values, self.middle)
        return values if self.right is None else values @ self.right

    def complex(self, real: Tensor, imaginary: Tensor) -> tuple[Tensor, Tensor]:
        mixed_real, mixed_imaginary = torch.view_as_real(self(torch.complex(real, imaginary))).unbind(-1)
        return mixed_real, mixed_imaginary


class DenseMixing(Mixing):
    """W(k) itself, kept as it comes: ``c_in c_out modes``."""

    def __init__(self, weight: Tensor) -> None:
        self.weight = weight

    def __call__(self, values: Tensor) -> Tensor:
        if tracing():
            return torch.bmm(values, self.weight.permute(2, 0, 1))
        return Mixed.apply(values, self.weight)


class PlanesMixing:
    """A dense or diagonal complex M(k) as planes: ``modes 2 c_in c_out`` or ``modes 2 c``."""

    def __init__(self, planes: Tensor) -> None:
        self.planes = planes

    def __call__(self, values: Tensor) -> Tensor:
        raise TypeError("planes mix complex values")

    def complex(self, real: Tensor, imaginary: Tensor) -> tuple[Tensor, Tensor]:
        count, batch, c_in = real.shape
        if self.planes.ndim == 3:
            a, b = self.planes.unsqueeze(2).unbind(1)
            return a * real - b * imaginary, a * imaginary + b * real
        # (x + iy)(A + iB): the rows [x, -y] and [y, x] times A over B, one real product
        rows = torch.cat([real, -imaginary, imaginary, real], dim=2).view(count, batch, 2, 2 * c_in)
        mixed = torch.bmm(rows.view(count, 2 * batch, 2 * c_in), self.planes.reshape(count, 2 * c_in, -1))
        mixed_real, mixed_imaginary = mixed.view(count, batch, 2, -1).unbind(2)
        return mixed_real, mixed_imaginary


def mixing_of(weight: Weight, dim: int, batch: int) -> Mixing | PlanesMixing:
    """How ``weight`` acts on ``modes batch c_in``."""
    if isinstance(weight, CP | Tucker | TT):
        if is_depthwise(weight, dim):
            return mixing_of(to_dense(weight), dim, batch)
        left, middle, right = _left_middle_right(weight)
        if _factors_pay(left, middle, right, batch):
            return Mixing(middle, left, right)
        return Mixing(_formed(left, middle, right))
    channels = shape_of(weight)[:-dim]
    if isinstance(weight, Tensor):
        if len(channels) == 2:
            return DenseMixing(weight.flatten(2))
        return Mixing(_wave_major(weight.flatten(1)))
    pair = torch.stack([weight.real, weight.imaginary], dim=-1)
    return PlanesMixing(_wave_major(pair.reshape(math.prod(channels), -1)).view(-1, 2, *channels))


def _multiplied(values: Tensor, matrices: Tensor) -> Tensor:
    return torch.bmm(values, matrices) if tracing() else Multiplied.apply(values, matrices)


def _wave_major(matrix: Tensor) -> Tensor:
    return matrix.t().contiguous() if tracing() else Transposed.apply(matrix)


def _left_middle_right(weight: Factorised) -> tuple[Tensor, Tensor, Tensor | None]:
    """L (c_in, p), M (modes, p) or (modes, p, q), R (q, c_out)."""
    if isinstance(weight, CP):
        into, out, *others = weight.factors
        return into, _products_of_rows(weight.weights[None], others), out.t()
    if isinstance(weight, Tucker):
        into, out, *others = weight.factors
        middle = weight.core
        for factor in others:
            middle = torch.tensordot(middle, factor, dims=([2], [1]))  # mode axes come in turn
        return into, middle.flatten(2).permute(2, 0, 1), out.t()
    into_core, out_core, *train = weight.cores
    tail = train[0]
    for core in train[1:]:
        tail = torch.tensordot(tail, core, dims=1)
    tail = tail.flatten(1)  # rank, modes
    rank, c_out, after = out_core.shape
    middle = tail.t() @ out_core.permute(2, 0, 1).reshape(after, -1)
    return into_core.squeeze(0), middle.view(-1, rank, c_out), None


def _products_of_rows(weights: Tensor, factors: Sequence[Tensor]) -> Tensor:
    """(1, R) and factors (n_i, R) to (n_1 n_2 ..., R)."""
    for factor in factors:
        weights = (weights.unsqueeze(1) * factor).flatten(0, 1)
    return weights


def _factors_pay(left: Tensor, middle: Tensor, right: Tensor | None, batch: int) -> bool:
    """Multiplications a mode, factor by factor, against those of forming the matrix and applying it."""
    c_in, p = left.shape
    q, c_out = (middle.shape[-1],) * 2 if right is None else right.shape
    inner = p if middle.ndim == 2 else p * q
    closing = 0 if right is None else q * c_out
    apart = batch * (c_in * p + inner + closing)
    forming = c_in * inner + c_in * closing
    return apart < forming + batch * c_in * c_out


def _formed(left: Tensor, middle: Tensor, right: Tensor | None) -> Tensor:
    if middle.ndim == 2 and right is not None:
        p, c_out = right.shape
        return (middle @ (left.t().unsqueeze(2) * right.unsqueeze(1)).reshape(p, -1)).view(-1, len(left), c_out)
    matrices = left @ middle
    return matrices if right is None else matrices @ right
