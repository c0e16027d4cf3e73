r"""Multi-grid patching: a field cut into windows, each with coarser and wider views of its surroundings as channels.

With ``levels`` L every axis is cut into n = 2^L patches of s cells (Kossaifi et al. 2024). Patch j sees L + 1 windows
of the same number of nodes, s + 2p: level l = 0 .. L takes every 2^l-th node about the patch's centre,

    node(i) = j s + s // 2 + 2^l (i - s // 2 - p),        i = 0 .. s + 2p - 1,

so that window l is 2^l times wider and the node i = s // 2 + p is the same physical point on every level. A node beyond
the boundary is read as the boundary says: wrapped (``periodic``), mirrored (``reflect``: an even extension, about the
last node or half a cell beyond it, as nodes lie), ``zero``, or the last one (``replicate``).

A network maps the windows; the margins p of what it answers are cut off and the patches put together again, exactly; or
neighbours blend over the q <= p nodes on both sides of their border (weights linear, their sum 1).

An axis with nodes at both ends has s n + 1 nodes for s n cells: windows of s + 1 + 2p nodes; the last patch owns the
last node. The margin is a share of the axis, the same at every resolution, so that windows keep their physical size.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from ..pde import Grid
from ..pde._grid import Boundary, Placement

Edge = Literal["periodic", "reflect", "zero", "replicate"]

EDGE_OF: dict[Boundary, Edge] = {
    "periodic": "periodic",
    "dirichlet": "zero",
    "neumann": "reflect",
    "outflow": "replicate",
}


def edges_of(grid: Grid) -> tuple[tuple[Edge, Edge], ...]:
    """How each axis goes on beyond its lower and its upper end, from the boundary conditions."""
    return tuple((EDGE_OF[axis.boundary[0]], EDGE_OF[axis.boundary[1]]) for axis in grid.axes)


@dataclass(frozen=True)
class Cut:
    """One axis of ``size`` nodes in ``count`` patches, with margins of ``margin`` nodes."""

    size: int
    count: int
    margin: int
    edges: tuple[Edge, Edge]
    placement: Placement

    @property
    def ends(self) -> bool:
        return self.placement == "ends"

    @property
    def patch(self) -> int:
        """Cells of a patch."""
        return (self.size - self.ends) // self.count

    @property
    def window(self) -> int:
        """Nodes of a window."""
        return self.patch + self.ends + 2 * self.margin

    def nodes(self, number: int, level: int) -> list[int | None]:
        """For each node of a window the node of the field to read; None: the field is zero there."""
        half = self.patch // 2
        first = number * self.patch + half - 2**level * (half + self.margin)
        return [self.inside(first + 2**level * i) for i in range(self.window)]

    def inside(self, node: int) -> int | None:
        """A node beyond the ends brought back inside, by as many reflections as it takes."""
        if self.edges[0] == "periodic":
            return node % self.size
        between = 0 if self.placement == "ends" else 1  # mirrored about the last node, or half a cell beyond it
        while not 0 <= node < self.size:
            edge, end, sum_ = (
                (self.edges[0], 0, -between)
                if node < 0
                else (self.edges[1], self.size - 1, 2 * self.size - 2 + between)
            )
            if edge == "zero":
                return None
            node = sum_ - node if edge == "reflect" else end
        return node

    def piece(self, number: int, blend: int) -> tuple[slice, list[int]]:
        """What of a window goes into the field, and where: the patch and ``blend`` nodes on both sides of it."""
        start, stop = self._owned(number)
        first, last = start - blend, stop + blend
        if self.edges[0] != "periodic":
            first, last = max(first, 0), min(last, self.size)
        offset = start - self.margin
        return slice(first - offset, last - offset), [node % self.size for node in range(first, last)]

    def weights(self, number: int, blend: int) -> list[float]:
        """How much each node of a piece counts; over all pieces these sum to one at every node."""
        total = [0.0] * self.size
        for other in range(self.count):
            for node, weight in zip(self.piece(other, blend)[1], self._ramp(other, blend), strict=True):
                total[node] += weight
        where = self.piece(number, blend)[1]
        return [weight / total[node] for node, weight in zip(where, self._ramp(number, blend), strict=True)]

    def _owned(self, number: int) -> tuple[int, int]:
        last = self.ends and number == self.count - 1
        return number * self.patch, (number + 1) * self.patch + last

    def _ramp(self, number: int, blend: int) -> list[float]:
        """Rising and falling linearly over the 2 ``blend`` nodes about each border; cut off at walls."""
        start, stop = self._owned(number)
        window = self.piece(number, blend)[0]
        nodes = range(start - self.margin + window.start, start - self.margin + window.stop)
        inner = (min(node - start + blend, stop + blend - 1 - node) + 0.5 for node in nodes)
        return [min(1.0, distance / (2 * blend)) if blend else 1.0 for distance in inner]


@dataclass(frozen=True)
class Patching:
    """How fields of any resolution are cut.

    levels      L: 2^L patches an axis, and L coarser views of each
    shares      margin of each axis as a share of its cells, exactly
    edges       how the field goes on beyond the lower and the upper end of each axis
    placements  how nodes lie on each axis (see ``Grid``)
    blend       share of the margin over which neighbours blend, 0 .. 1
    low_pass    average before taking every 2^l-th node (a hat of half-width 2^l), so that fine scales do not alias
    """

    levels: int
    shares: tuple[Fraction, ...]
    edges: tuple[tuple[Edge, Edge], ...]
    placements: tuple[Placement, ...]
    blend: float = 0.0
    low_pass: bool = False

    def __post_init__(self) -> None:
        if self.levels < 0 or not self.shares or any(share < 0 for share in self.shares):
            raise ValueError(
                f"Patching takes levels and margins of at least 0; got {self.levels} levels, margins "
                f"{[float(share) for share in self.shares]}."
            )
        if not 0 <= self.blend <= 1:
            raise ValueError(f"Neighbours blend over a share of the margin in [0, 1]; got {self.blend}.")
        if any(("periodic" in pair) != (pair == ("periodic", "periodic")) for pair in self.edges):
            raise ValueError(f"An axis is periodic at both ends or at none; got {self.edges}.")

    @property
    def dim(self) -> int:
        return len(self.shares)

    @property
    def count(self) -> int:
        """Patches of a field."""
        return 2 ** (self.levels * self.dim)

    def cuts(self, space: Sequence[int]) -> tuple[Cut, ...]:
        """The axes of a field of this shape, cut; refuses sizes that patches do not divide."""
        if len(space) != self.dim:
            raise ValueError(f"This patching is for {self.dim} axes; got a field of shape {tuple(space)}.")
        bad = [axis for axis in range(self.dim) if not self._divides(axis, space[axis])]
        if bad:
            wanted = ", ".join(
                f"{space[axis]} -> {' or '.join(str(n) for n in self._nearest(axis, space[axis]))}" for axis in bad
            )
            raise ValueError(
                f"A grid of {tuple(space)} nodes cannot be cut into {2**self.levels} equal patches an axis"
                f"{' with margins of whole nodes' if any(self.shares) else ''}. The nearest sizes that can: {wanted}."
            )
        return tuple(
            Cut(n, 2**self.levels, int(self._cells(axis, n) * self.shares[axis]), *self._kind(axis))
            for axis, n in enumerate(space)
        )

    def blends(self, cuts: Sequence[Cut]) -> tuple[int, ...]:
        """Nodes over which neighbours blend: none where an axis is a single patch, at most half a patch."""
        return tuple(0 if cut.count == 1 else min(round(self.blend * cut.margin), cut.patch // 2) for cut in cuts)

    def _kind(self, axis: int) -> tuple[tuple[Edge, Edge], Placement]:
        return self.edges[axis], self.placements[axis]

    def _cells(self, axis: int, size: int) -> int:
        return size - (self.placements[axis] == "ends")

    def _step(self, axis: int) -> int:
        return math.lcm(2**self.levels, self.shares[axis].denominator)

    def _divides(self, axis: int, size: int) -> bool:
        cells = self._cells(axis, size)
        return cells > 0 and cells % self._step(axis) == 0

    def _nearest(self, axis: int, size: int) -> list[int]:
        step, ends = self._step(axis), size - self._cells(axis, size)
        below = self._cells(axis, size) // step * step
        return [n + ends for n in (below, below + step) if n > 0]

    def smallest(self, window: int) -> tuple[int, ...]:
        """The smallest grid whose windows have that many nodes an axis."""
        sizes = []
        for axis, share in enumerate(self.shares):
            ends, step = int(self.placements[axis] == "ends"), self._step(axis)
            cells = math.ceil((window - ends) / (Fraction(1, 2**self.levels) + 2 * share))
            sizes.append(-(-cells // step) * step + ends)
        return tuple(sizes)

    # ------------------------------------------------------------------ fields to windows

    def views(self, values: Float[Tensor, "batch channel *space"]) -> list[Tensor]:
        """The field that each level reads its nodes from."""
        fields = [values]
        for level in range(1, self.levels + 1):
            fields.append(self._averaged(values, level) if self.low_pass else values)
        return fields

    def _averaged(self, values: Tensor, level: int) -> Tensor:
        """About each node with weights 1 - |m| / 2^l: zero for the waves that would alias to a constant."""
        width = 2**level
        for axis, cut in enumerate(self.cuts(values.shape[2:])):
            parts = [
                _selected(values, axis + 2, [cut.inside(node + m) for node in range(cut.size)]) * (1 - abs(m) / width)
                for m in range(1 - width, width)
            ]
            values = torch.stack(parts).sum(dim=0) / width
        return values

    def windows(self, views: Sequence[Tensor], patch: int) -> Float[Tensor, "batch _ *window"]:
        """All levels of one patch: ``batch (L+1)*channel *window``; the channels of level 0 come first."""
        cuts = self.cuts(views[0].shape[2:])
        numbers = self.numbers(patch)
        return torch.cat([_read(view, cuts, numbers, level) for level, view in enumerate(views)], dim=1)

    def numbers(self, patch: int) -> tuple[int, ...]:
        """Which patch of each axis; the last axis runs fastest."""
        each = 2**self.levels
        return tuple(patch // each ** (self.dim - 1 - axis) % each for axis in range(self.dim))

    # ------------------------------------------------------------------ windows to fields

    def piece(self, window: Float[Tensor, "batch channel *window"], patch: int, space: Sequence[int]) -> Tensor:
        """What of an answered window goes into the field: margins cut off, or weighted where neighbours blend."""
        cuts = self.cuts(space)
        for axis, (cut, blend, number) in enumerate(
            zip(cuts, self.blends(cuts), self.numbers(patch), strict=True), start=2
        ):
            inside = cut.piece(number, blend)[0]
            window = window.narrow(axis, inside.start, inside.stop - inside.start)
            if blend:
                weights = torch.tensor(_weights(cut, number, blend), dtype=window.dtype, device=window.device)
                window = window * weights.reshape(-1, *(1,) * (self.dim + 1 - axis))
        return window

    def stitched(self, pieces: Sequence[Tensor | None], space: Sequence[int]) -> Float[Tensor, "batch channel *space"]:
        """The field from its pieces, in the order of the patches; one that is not there (None) is left zero."""
        cuts = self.cuts(space)
        blends = self.blends(cuts)
        found = list(pieces)
        for axis in reversed(range(self.dim)):
            each = 2**self.levels
            rows = [found[i : i + each] for i in range(0, len(found), each)]
            found = [_joined(row, cuts[axis], blends[axis], axis + 2) for row in rows]
        (field,) = found
        if field is None:
            raise ValueError("There is no piece to make a field of.")
        return field


def _read(view: Tensor, cuts: Sequence[Cut], numbers: Sequence[int], level: int) -> Tensor:
    for axis, (cut, number) in enumerate(zip(cuts, numbers, strict=True), start=2):
        view = _selected(view, axis, _nodes(cut, number, level))
    return view


def _selected(values: Tensor, axis: int, nodes: Sequence[int | None]) -> Tensor:
    """The values at ``nodes`` along one axis, zero where there is None."""
    where = torch.tensor([node or 0 for node in nodes], device=values.device)
    found = values.index_select(axis, where)
    if None not in nodes:
        return found
    there = torch.tensor([float(node is not None) for node in nodes], dtype=values.dtype, device=values.device)
    return found * there.reshape(-1, *(1,) * (values.ndim - 1 - axis))


def _joined(row: Sequence[Tensor | None], cut: Cut, blend: int, axis: int) -> Tensor | None:
    """The pieces of a row of patches added up along one axis."""
    one = next((piece for piece in row if piece is not None), None)
    if one is None:
        return None
    shape = list(one.shape)
    shape[axis] = cut.size
    field = one.new_zeros(shape)
    for number, piece in enumerate(row):
        if piece is not None:
            where = torch.tensor(cut.piece(number, blend)[1], device=one.device)
            field = field.index_add(axis, where, piece)
    return field


# plain numbers are remembered, not tensors: those of a tracing compiler must not outlive it
@functools.lru_cache(maxsize=4096)
def _nodes(cut: Cut, number: int, level: int) -> tuple[int | None, ...]:
    return tuple(cut.nodes(number, level))


@functools.lru_cache(maxsize=4096)
def _weights(cut: Cut, number: int, blend: int) -> tuple[float, ...]:
    return tuple(cut.weights(number, blend))


def patching_of(
    grid: Grid,
    levels: int,
    margin: float,
    *,
    edges: tuple[tuple[Edge, Edge], ...] | None = None,
    blend: float = 0.0,
    low_pass: bool = False,
) -> Patching:
    """Patches of this grid, the margin (a share of each axis) rounded to whole nodes of it; refuses other sizes."""
    placements = tuple(axis.placement for axis in grid.axes)
    edges = edges_of(grid) if edges is None else edges
    if not 0 <= margin <= 1:
        raise ValueError(f"A margin is a share of the side of the field, in [0, 1]; got {margin}.")
    Patching(levels, (Fraction(0),) * grid.dim, edges, placements).cuts(grid.shape)
    cells = [axis.size - (axis.placement == "ends") for axis in grid.axes]
    shares = tuple(Fraction(round(margin * n), n) for n in cells)
    return Patching(levels, shares, edges, placements, blend, low_pass)
