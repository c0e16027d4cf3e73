"""Cosines and sines of the truncated transforms, laid out for the Triton kernels.

A table is ``half node column``: columns 2 j + b with b = 0 cosine, 1 sine (for the last axis the factors of the real
and the imaginary part); padded by zeros in nodes to multiples of :data:`NODES` and in columns to a power of two, at
least 16. With two halves, the even wavenumbers come first, then the odd ones, and only half the nodes are listed.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

import torch
from torch import Tensor

NODES = 128  # no tile has more nodes than this
ON_CHIP = 16384  # accumulators of a fused transform: 64 a thread with eight warps


@dataclass(frozen=True)
class Tables:
    """Where nodes and modes of a transform lie: nodes on ``space``, modes as resolved by ``known``.

    Forward transforms have both equal and carry 1/nodes; inverse ones count the columns of the halved axis twice.
    """

    space: tuple[int, ...]
    known: tuple[int, ...]
    modes: tuple[int, ...]
    inverse: bool

    def last(self, halves: int, least: int, dtype: torch.dtype, device: torch.device) -> Tensor:
        """Of the halved axis; ``least`` columns at least."""
        scale = 1.0 if self.inverse else 1.0 / math.prod(self.space)
        where = (self.space[-1], self.known[-1], self.modes[-1])
        return _last(*where, self.inverse, scale, halves, least, dtype, device)

    def turn(self, axis: int, halves: int, least: int, dtype: torch.dtype, device: torch.device) -> Tensor:
        """Of a centred axis; ``least`` columns at least."""
        return _turn(self.space[axis], self.known[axis], self.modes[axis], halves, least, dtype, device)


def halves(size: int) -> int:
    return 2 - size % 2


def first_even(modes: int) -> int:
    """Index of the first even wavenumber of a centred axis, which starts at -(modes // 2)."""
    return (modes // 2) % 2


def columns(count: int) -> int:
    """Width of a table of ``count`` modes."""
    return max(16, 1 << (2 * count - 1).bit_length()) if count else 16


def blocks_of(tables: Tables) -> dict[str, int]:
    """Constants of the fused transforms of the last two axes."""
    p1, p2 = (halves(size) for size in tables.space[-2:])
    m1, m2 = tables.modes[-2:]
    c0, c1 = columns(-(-m2 // p2)), columns(m2 // 2)
    return {"P1": p1, "P2": p2, "R": columns(-(-m1 // p1)), "C0": c0, "C1": min(c0, c1)}


def fits_on_chip(tables: Tables) -> bool:
    """Whether the spectrum of a plane can be summed up in registers; else one axis is transformed after the other."""
    blocks = blocks_of(tables)
    width = blocks["C0"] + (blocks["P2"] - 1) * blocks["C1"]
    return blocks["P1"] * blocks["R"] * width <= ON_CHIP and max(blocks["R"], blocks["C0"]) <= 64


@functools.lru_cache(maxsize=128)
def _last(
    size: int,
    known: int,
    modes: int,
    inverse: bool,
    scale: float,
    parts: int,
    least: int,
    dtype: torch.dtype,
    device: torch.device,
) -> Tensor:
    k = torch.arange(modes)
    weight = torch.full((modes,), scale, dtype=torch.float64)
    if inverse:
        once = (k == 0) | (2 * k == known)  # the mean and the Nyquist mode are their own mirror images
        weight *= torch.where(once, 1.0, 2.0) * (2 * k <= size)
    angles = _angles(k, size // parts, size)
    sines = -angles.sin() if not inverse else torch.where((2 * k == known)[:, None], 0.0, -angles.sin())
    pairs = torch.stack([weight[:, None] * angles.cos(), weight[:, None] * sines], dim=-1)
    return _padded(
        [pairs[part::parts] for part in range(parts)], max(least, columns(-(-modes // parts))), dtype, device
    )


@functools.lru_cache(maxsize=128)
def _turn(
    size: int, known: int, modes: int, parts: int, least: int, dtype: torch.dtype, device: torch.device
) -> Tensor:
    k = torch.arange(modes) - modes // 2
    resolved = (2 * k.abs() <= size)[:, None].double()
    angles = _angles(k, size // parts, size)
    sines = torch.where((2 * k.abs() == known)[:, None], 0.0, angles.sin())
    pairs = torch.stack([resolved * angles.cos(), resolved * sines], dim=-1)
    even = first_even(modes)
    kinds = [pairs] if parts == 1 else [pairs[even::2], pairs[1 - even :: 2]]
    return _padded(kinds, max(least, columns(-(-modes // parts))), dtype, device)


def _angles(k: Tensor, nodes: int, size: int) -> Tensor:
    """2 pi k j / size at the first nodes, in float64, reduced as integers first: exact to round-off for any k."""
    return 2 * math.pi * (torch.outer(k, torch.arange(nodes)) % size).double() / size


def _padded(kinds: list[Tensor], width: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    with torch.inference_mode(False):
        nodes = -(-kinds[0].shape[1] // NODES) * NODES
        table = torch.zeros(len(kinds), nodes, width, dtype=torch.float64)
        for target, pairs in zip(table, kinds, strict=True):
            target[: pairs.shape[1], : 2 * len(pairs)] = pairs.transpose(0, 1).flatten(1)
        return table.to(device, dtype)
