r"""A range coder of bytes whose frequencies change slowly: asymmetric numeral systems (Duda 2013), many lanes at once.

.. math:: x \leftarrow 2^{12}\lfloor x/f_s\rfloor + (x \bmod f_s) + c_s

codes symbol s of frequency f_s (of 4096) and cumulated frequency c_s into a state x; 16 bits of it go to the stream
where it would pass 2^32. The bytes are cut into segments with a table of frequencies each, and dealt out to lanes, byte
i to lane i mod L, which advance together as arrays: some thousand steps of numpy whatever the length. It comes within
a per cent of the segments' entropy, also far below one bit a byte, where prefix codes (deflate) cannot.

Layout: number of bytes (8), lanes (4), segments (4), bytes of the tables (4), tables (deflated frequencies, uint16, 256
a segment), states of the lanes (4 each), words of 16 bits in the order in which they are read. All little-endian.
"""

from __future__ import annotations

import struct
import zlib

import numpy as np

PRECISION = 12
TOTAL = 1 << PRECISION
LEAST = 1 << 16  # of a state
STEPS = 8192  # of the lanes, about
SEGMENT, SEGMENTS = 8192, 64  # bytes that have a table of their own, at least; tables at most
_HEAD = struct.Struct("<QIII")


def code(data: bytes) -> bytes:
    """The bytes, coded."""
    symbols = np.frombuffer(data, np.uint8)
    segments = min(SEGMENTS, max(1, len(symbols) // SEGMENT))
    lanes = max(1, len(symbols) // STEPS)
    owner = _owners(len(symbols), segments)
    frequencies = _frequencies(symbols, owner, segments)
    below = np.cumsum(frequencies, axis=1) - frequencies
    f, c = frequencies[owner, symbols], below[owner, symbols]
    state = np.full(lanes, LEAST, dtype=np.int64)
    words = []
    for first in range((len(symbols) - 1) // lanes * lanes, -1, -lanes):
        now = slice(first, min(first + lanes, len(symbols)))
        x, share = state[: now.stop - first], f[now]
        full = x >= share << (32 - PRECISION)
        words.append((x[full] & 0xFFFF).astype("<u2"))
        x = np.where(full, x >> 16, x)
        state[: now.stop - first] = (x // share << PRECISION) + x % share + c[now]
    tables = zlib.compress(frequencies.astype("<u2").T.tobytes(), 9)
    head = _HEAD.pack(len(symbols), lanes, segments, len(tables))
    return head + tables + state.astype("<u4").tobytes() + b"".join(w.tobytes() for w in reversed(words))


def decode(data: bytes) -> bytes:
    """The bytes back. Raises ``ValueError`` for what is no code."""
    count, lanes, segments, size = _HEAD.unpack_from(data) if len(data) >= _HEAD.size else (0, 0, 0, 0)
    tables = zlib.decompress(data[_HEAD.size : _HEAD.size + size])
    place = _HEAD.size + size + 4 * lanes
    if not lanes or len(tables) != 512 * segments or len(data) < place:
        raise ValueError("no range code")
    frequencies = np.frombuffer(tables, "<u2").reshape(256, segments).T.astype(np.int64)
    if (frequencies.sum(axis=1) != TOTAL).any():
        raise ValueError("no frequencies")
    below = np.cumsum(frequencies, axis=1) - frequencies
    symbol_at = np.stack([np.repeat(np.arange(256, dtype=np.uint8), row) for row in frequencies])
    state = np.frombuffer(data, "<u4", lanes, place - 4 * lanes).astype(np.int64)
    words = np.frombuffer(data[place : place + (len(data) - place) // 2 * 2], "<u2").astype(np.int64)
    owner, found, read = _owners(count, segments), np.empty(count, np.uint8), 0
    for first in range(0, count, lanes):
        now = slice(first, min(first + lanes, count))
        x, table = state[: now.stop - first], owner[now]
        low = x & (TOTAL - 1)
        symbol = symbol_at[table, low]
        x = frequencies[table, symbol] * (x >> PRECISION) + low - below[table, symbol]
        short = x < LEAST
        wanted = int(short.sum())
        if read + wanted > len(words):
            raise ValueError("the range code ends early")
        x[short] = (x[short] << 16) | words[read : read + wanted]
        read += wanted
        state[: now.stop - first], found[now] = x, symbol
    return found.tobytes()


def _owners(count: int, segments: int) -> np.ndarray:
    """The segment of each byte."""
    return np.minimum(np.arange(count) * segments // max(count, 1), segments - 1)


def _frequencies(symbols: np.ndarray, owner: np.ndarray, segments: int) -> np.ndarray:
    """Of each symbol in each segment, of 4096 in all; at least 1 of what occurs."""
    seen = np.bincount(owner * 256 + symbols, minlength=256 * segments).reshape(segments, 256)
    shares = np.maximum(seen * TOTAL // np.maximum(seen.sum(axis=1, keepdims=True), 1), seen > 0)
    for row, there in zip(shares, seen, strict=True):
        most = int(there.argmax())
        row[most] += TOTAL - int(row.sum())  # what rounding left, or took
        while row[most] < 1:  # more rare symbols than the commonest can pay for
            other = int(row.argmax())
            row[other], row[most] = row[other] + row[most] - 1, 1
    return shares.astype(np.int64)
