"""Integers and bytes made small; each piece says how, so that any reader can undo it.

Integers are mapped to naturals (0, -1, 1, -2, … are 0, 1, 2, 3, …). Below 255 each is one byte; the byte 255 says that
the number stands among the long ones, eight bytes each. Bytes are coded by whichever of the codecs makes them smallest:
as they are, deflate, LZMA, or the range coder of :mod:`._rans`, which is made for quantised coefficients in order of
falling variance.
"""

from __future__ import annotations

import lzma
import struct
import zlib
from collections.abc import Callable

import numpy as np

from . import _rans

LONG = 255
DICTIONARY = 1 << 24  # bytes that LZMA looks back at
_HEAD = struct.Struct("<QQ")  # bytes of the coded short numbers, count of all numbers


class DamagedCode(ValueError):
    """Bytes that are no code of ours."""


def _lzma(data: bytes, decode: bool) -> bytes:
    # as much memory as the data can use; a reader's must not be less than the writer's
    size = DICTIONARY if decode else min(DICTIONARY, max(1 << 12, 1 << len(data).bit_length()))
    # without a container: no header of sixty bytes, no checksum (the archive has its own)
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 6, "dict_size": size, "lc": 0, "lp": 0, "pb": 0}]
    change = lzma.decompress if decode else lzma.compress
    return change(data, format=lzma.FORMAT_RAW, filters=filters)


# number in the file: (code, decode)
CODECS: dict[int, tuple[Callable[[bytes], bytes], Callable[[bytes], bytes]]] = {
    0: (bytes, bytes),
    1: (lambda data: zlib.compress(data, 9, -15), lambda data: zlib.decompress(data, -15)),
    2: (lambda data: _lzma(data, False), lambda data: _lzma(data, True)),
    3: (_rans.code, _rans.decode),
}


def squeezed(data: bytes) -> bytes:
    """The number of a codec and what it makes of the bytes; the smallest."""
    coded = ((number, code(data)) for number, (code, _) in CODECS.items())
    number, best = min(coded, key=lambda pair: (len(pair[1]), pair[0]))
    return bytes([number]) + best


def unsqueezed(data: bytes) -> bytes:
    """The bytes back. Raises :class:`DamagedCode`."""
    if not data or data[0] not in CODECS:
        raise DamagedCode(f"no codec {data[0] if data else '(empty)'}")
    try:
        return CODECS[data[0]][1](data[1:])
    except (zlib.error, lzma.LZMAError, OSError, ValueError, EOFError) as error:
        raise DamagedCode(str(error)) from error


def packed(numbers: np.ndarray) -> bytes:
    """Integers (int64, flattened) as few bytes."""
    values = np.ascontiguousarray(numbers, dtype=np.int64).reshape(-1)
    natural = ((values << 1) ^ (values >> 63)).view(np.uint64)
    short = np.minimum(natural, LONG).astype(np.uint8)
    long = natural[natural >= LONG].astype("<u8")
    first = squeezed(short.tobytes())
    return _HEAD.pack(len(first), len(values)) + first + squeezed(shuffled(long))


def unpacked(data: bytes) -> np.ndarray:
    """The integers back. Raises :class:`DamagedCode`."""
    if len(data) < _HEAD.size:
        raise DamagedCode("too short")
    size, count = _HEAD.unpack_from(data)
    short = np.frombuffer(unsqueezed(data[_HEAD.size : _HEAD.size + size]), np.uint8)
    long = unshuffled(unsqueezed(data[_HEAD.size + size :]), np.dtype("<u8"))
    marks = short == LONG
    if len(short) != count or int(marks.sum()) != len(long):
        raise DamagedCode(f"{count} numbers announced, {len(short)} there")
    natural = short.astype(np.uint64)
    natural[marks] = long
    return (natural >> np.uint64(1)).astype(np.int64) ^ -(natural & np.uint64(1)).astype(np.int64)


def shuffled(values: np.ndarray) -> bytes:
    """Bytes of equal significance side by side, which is what codecs find patterns in."""
    flat = np.ascontiguousarray(values).reshape(-1)
    return flat.view(np.uint8).reshape(-1, flat.dtype.itemsize).T.tobytes()


def unshuffled(data: bytes, dtype: np.dtype) -> np.ndarray:
    """The values back. Raises :class:`DamagedCode`."""
    if len(data) % dtype.itemsize:
        raise DamagedCode(f"{len(data)} bytes are no numbers of {dtype.itemsize}")
    return np.frombuffer(data, np.uint8).reshape(dtype.itemsize, -1).T.copy().reshape(-1).view(dtype)
