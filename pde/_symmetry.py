r"""What a problem looks the same under: mirrors, exchanged axes, shifts along the torus.

A symmetry T takes inputs to inputs and outputs to outputs so that the solution operator commutes with it,

.. math:: \mathcal S(T a) = T\,\mathcal S(a),

and inputs of the problem's law to inputs of the same law. A problem declares the group it has (`WithSymmetries`);
training may then draw from it (``train.augment``) and answers may be averaged over it (``train.symmetrise``).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

from torch import Tensor

from ._grid import Axis, Grid

_WHOLE = 1e-9  # of a node: a shift by this much less than a whole number of nodes is one


@dataclass(frozen=True, kw_only=True)
class Symmetry:
    """One element of the group: axes are exchanged, then mirrored, then shifted, and channels multiplied by signs.

    axes            axis j of the result is axis ``axes[j]`` of the field
    mirrored        per axis of the result: x -> lower + upper - x between walls, x -> -x on a torus that begins at 0
    shift           per axis of the result, share of the period by which the field moves towards larger x
    input_signs,    a factor 1 or -1 per channel; () leaves all as they are
    output_signs
    """

    axes: tuple[int, ...]
    mirrored: tuple[bool, ...]
    shift: tuple[float, ...]
    input_signs: tuple[float, ...] = ()
    output_signs: tuple[float, ...] = ()

    def inputs(self, fields: Tensor, grid: Grid, *, undo: bool = False) -> Tensor:
        """T a, or its inverse, for fields ``... channel *space``."""
        return self._applied(fields, grid, self.input_signs, undo=undo)

    def outputs(self, fields: Tensor, grid: Grid, *, undo: bool = False) -> Tensor:
        """T u, or its inverse, for fields ``... channel *space`` (of an evolution with time before the channels)."""
        return self._applied(fields, grid, self.output_signs, undo=undo)

    def fits(self, grid: Grid) -> bool:
        """Whether it maps the nodes of this grid and their boundary conditions to themselves."""
        exchanged = all(_alike(grid.axes[i], grid.axes[j]) for i, j in enumerate(self.axes))
        ends = all(a.boundary[0] == a.boundary[1] for a, flip in zip(grid.axes, self.mirrored, strict=True) if flip)
        nodes = [s * axis.size for s, axis in zip(self.shift, grid.axes, strict=True)]
        moved = all(axis.periodic or not n for n, axis in zip(nodes, grid.axes, strict=True))
        return exchanged and ends and moved and all(abs(n - round(n)) < _WHOLE for n in nodes)

    def _applied(self, fields: Tensor, grid: Grid, signs: Sequence[float], *, undo: bool) -> Tensor:
        if undo:
            inverse = sorted(range(grid.dim), key=self.axes.__getitem__)
            fields = _exchanged(self._mirrored(self._moved(fields, grid, -1), grid), inverse)
        else:
            fields = self._moved(self._mirrored(_exchanged(fields, self.axes), grid), grid, 1)
        if signs:  # their own inverse
            fields = fields * fields.new_tensor(signs).reshape(-1, *[1] * grid.dim)
        return fields

    def _mirrored(self, fields: Tensor, grid: Grid) -> Tensor:
        for place, (axis, flip) in enumerate(zip(grid.axes, self.mirrored, strict=True), start=-grid.dim):
            if flip:
                fields = fields.flip(place)
                fields = fields.roll(1, place) if axis.periodic else fields  # node 0 of a torus is its own image
        return fields

    def _moved(self, fields: Tensor, grid: Grid, direction: int) -> Tensor:
        for place, (axis, share) in enumerate(zip(grid.axes, self.shift, strict=True), start=-grid.dim):
            nodes = direction * round(share * axis.size)
            fields = fields.roll(nodes, place) if nodes else fields
        return fields


class WithSymmetries(ABC):
    """For problems that look the same under some transformations of space."""

    @abstractmethod
    def symmetries(self, grid: Grid) -> Sequence[Symmetry]:
        """The group that equation, boundary conditions and law of the inputs share, the identity first."""


def symmetries_of(problem: object, grid: Grid) -> tuple[Symmetry, ...]:
    """Those declared symmetries that map the nodes of this grid to themselves; () where nothing is declared."""
    declared = problem.symmetries(grid) if isinstance(problem, WithSymmetries) else ()
    return tuple(symmetry for symmetry in declared if symmetry.fits(grid))


def square_symmetries() -> tuple[Symmetry, ...]:
    """The eight of a square, for scalar fields: two mirrors and the exchange of the axes, in all combinations."""
    return tuple(
        Symmetry(axes=axes, mirrored=(x, y), shift=(0.0, 0.0))
        for axes, x, y in product([(0, 1), (1, 0)], [False, True], [False, True])
    )


def _exchanged(fields: Tensor, axes: Sequence[int]) -> Tensor:
    lead = fields.ndim - len(axes)
    return fields.permute(*range(lead), *(lead + j for j in axes))


def _alike(one: Axis, other: Axis) -> bool:
    return (one.size, one.lower, one.upper, one.boundary, one.placement) == (
        other.size,
        other.lower,
        other.upper,
        other.boundary,
        other.placement,
    )
