r"""What a field leaves over at its nodes, in whole steps: with it every value is within an absolute bound.

.. math:: q = \mathrm{round}\frac{u - \hat u}{2\tau'},\qquad |u - (\hat u + 2\tau' q)| \le \tau' = \tau - m - \epsilon

The field is evaluated again by whoever reads, perhaps on another machine: m is a margin for what the order of sums may
change in double precision, :math:`\epsilon` a unit in the last place of the values' own type. Each value is checked
when it is written. Where whole steps cannot keep the bound (it is below the precision of the values, or zero) the
values themselves are stored. Blocks are slabs along the first axis, so that a part is read without the rest; integers
are those of the residual or of its mixed differences along all axes (Lorenzo), whichever need fewer bits.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator

import numpy as np

from ._coding import DamagedCode, packed, shuffled, squeezed, unpacked, unshuffled, unsqueezed

NODES = 1 << 20  # of a block, about
ROOM = 1e-10  # least margin, in units of the largest value: far above what sums differ by in double precision
_HEAD = struct.Struct("<BQQ")  # how the integers lie, bytes of the integers, bytes of the places of exact values
PLAIN, LORENZO, EXACT = 0, 1, 2


def margin_of(largest: float, observed: float = 0.0) -> float:
    """What evaluations of the field may differ by; ``observed`` between two ways to sum."""
    return max(ROOM * largest, 100 * observed)


def slabs(shape: tuple[int, ...], nodes: int = NODES) -> Iterator[slice]:
    """Of the first axis, each about so many nodes."""
    thick = max(1, nodes // max(1, math.prod(shape[1:])))
    for first in range(0, shape[0], thick):
        yield slice(first, min(first + thick, shape[0]))


def encoded(values: np.ndarray, predicted: np.ndarray, bound: float, margin: float) -> bytes:
    """A block: what is added to the (double-precision) prediction; exact values where that is not within the bound."""
    step = step_of(bound, margin)
    if not step:
        return _exact(values)
    codes = np.rint((values.astype(np.float64) - predicted) / step)
    codes = np.where(np.abs(codes) < 2.0**52, codes, 0.0)  # beyond, the sum has no digit left: exact
    error = np.abs(predicted + step * codes - values.astype(np.float64))
    outside = error > bound - margin - np.spacing(np.maximum(np.abs(values), np.finfo(values.dtype).tiny))
    if 8 * int(outside.sum()) > values.size:
        return _exact(values)
    whole = np.where(outside, 0.0, codes).astype(np.int64)
    kind, numbers = _fewer(whole)
    first = packed(numbers)
    places = packed(np.diff(np.flatnonzero(outside), prepend=0))
    return _HEAD.pack(kind, len(first), len(places)) + first + places + squeezed(shuffled(values[outside]))


def decoded(data: bytes, predicted: np.ndarray, bound: float, margin: float, dtype: np.dtype) -> np.ndarray:
    """The values of a block in their own type. Raises :class:`DamagedCode`."""
    if len(data) < _HEAD.size:
        raise DamagedCode("a block of the residual is too short")
    kind, first, places = _HEAD.unpack_from(data)
    rest = data[_HEAD.size :]
    if kind == EXACT:
        return _shaped(unshuffled(unsqueezed(rest), dtype), predicted.shape)
    numbers = _shaped(unpacked(rest[:first]), predicted.shape)
    if kind == LORENZO:
        for axis in range(numbers.ndim):
            numbers = np.cumsum(numbers, axis=axis)
    values = (predicted + step_of(bound, margin) * numbers).astype(dtype)
    outside = np.cumsum(unpacked(rest[first : first + places]))
    exact = unshuffled(unsqueezed(rest[first + places :]), dtype)
    if len(outside) != len(exact) or (len(outside) and not 0 <= int(outside[-1]) < values.size):
        raise DamagedCode("the places of exact values do not fit")
    values.reshape(-1)[outside] = exact
    return values


def step_of(bound: float, margin: float) -> float:
    """2 tau'; 0: the bound is within the margin, values are stored themselves."""
    return 2 * (bound - 2 * margin) * (1 - 1e-6) if bound > 4 * margin else 0.0


def _exact(values: np.ndarray) -> bytes:
    return _HEAD.pack(EXACT, 0, 0) + squeezed(shuffled(values))


def _shaped(numbers: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    if numbers.size != math.prod(shape):
        raise DamagedCode(f"a block of the residual has {numbers.size} values for {math.prod(shape)} nodes")
    return numbers.reshape(shape)


def _fewer(codes: np.ndarray) -> tuple[int, np.ndarray]:
    """The integers or their mixed differences along all axes."""
    mixed = codes
    for axis in range(codes.ndim):
        mixed = np.diff(mixed, axis=axis, prepend=0)
    plain, differences = (float(np.log2(1.0 + np.abs(c)).sum()) for c in (codes, mixed))
    return (LORENZO, mixed) if differences < plain else (PLAIN, codes)
