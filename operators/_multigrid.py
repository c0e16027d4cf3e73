r"""The multigrid operator of MgNO: a learned V-cycle W_Mg, linear in its data f (He, Liu & Xu, ICLR 2024, §5 of the
paper's code), with every detail of the cycle as an option.

One cycle on levels j = 0 … J-1, channels C_u (solution-like) and C_f (data-like), all maps convolutions::

    level 0, first step    u <- S_0 * f                                   (u starts from zero)
    smoothing              u <- u + S_j * (f - A_j * u)
    restriction            u <- Pi_j *_2 u        f <- R_j *_2 f          restrict="data"     (published default)
                                                  f <- R_j *_2 (f - A_j u), restrict="residual" (the textbook)
    prolongation           u_j <- u_j + P_j *T_2 u_{j+1}
    post-smoothing         further smoothing steps with the stored (u_j, f_j)

The boundary condition lives in the padding: zeros = homogeneous Dirichlet, reflect = Neumann, circular = periodic.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..pde import Grid
from ..pde._grid import Boundary

PadMode = Literal["zeros", "reflect", "circular", "replicate"]
Padding = tuple[PadMode, ...]  # one per axis
Restrict = Literal["data", "residual"]
Coarsening = Literal["padded", "interior"]

_CONV = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
_CONV_TRANSPOSE = {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}


_PADDING_OF: dict[Boundary, PadMode] = {
    "periodic": "circular",
    "dirichlet": "zeros",
    "neumann": "reflect",
    "outflow": "replicate",
}


def padding_of(grid: Grid) -> Padding:
    """The boundary condition of each axis (of its lower end) as a padding."""
    return tuple(_PADDING_OF[axis.boundary[0]] for axis in grid.axes)


def pad(values: Tensor, width: int | Sequence[int], padding: Padding) -> Tensor:
    """Extend every space axis of ``batch channel *space`` by ``width`` cells at both ends, each in its own mode."""
    widths_of = (width,) * len(padding) if isinstance(width, int) else width
    for axis, (mode, width) in enumerate(zip(padding, widths_of, strict=True)):
        if mode == "circular":
            values = _wrap(values, axis + 2, width)
        else:
            widths = [0, 0] * len(padding)
            last_first = 2 * (len(padding) - 1 - axis)  # F.pad counts axes from the last
            widths[last_first : last_first + 2] = [width, width]
            values = F.pad(values, widths, mode="constant" if mode == "zeros" else mode)
    return values


def _wrap(values: Tensor, axis: int, width: int) -> Tensor:
    # one concatenation an axis: F.pad's circular mode fills by slices, whose backward copies the field once per slice
    size = values.shape[axis]
    return torch.cat([values.narrow(axis, size - width, width), values, values.narrow(axis, 0, width)], dim=axis)


class Stencil(nn.Module):
    """A 3-wide convolution. Its padding is the boundary condition; ``stride`` 2 restricts."""

    def __init__(
        self, c_in: int, c_out: int, *, dim: int, padding: Padding, stride: int = 1, width: int = 1, bias: bool = False
    ) -> None:
        super().__init__()
        self.dim, self.padding, self.stride, self.width = dim, padding, stride, width
        self.weight = nn.Parameter(torch.empty(c_out, c_in, *(3,) * dim))
        nn.init.kaiming_uniform_(self.weight, a=math.sqrt(5))
        self.bias = nn.Parameter(torch.zeros(c_out)) if bias else None

    def forward(self, values: Tensor) -> Tensor:
        if self.width == 0 or set(self.padding) == {"zeros"}:
            return _CONV[self.dim](values, self.weight, self.bias, stride=self.stride, padding=self.width)
        return _CONV[self.dim](pad(values, self.width, self.padding), self.weight, self.bias, stride=self.stride)


class Prolongation(nn.Module):
    """Transposed convolution, stride 2, from a coarse shape to the fine one it came from.

    Its kernel is 3 or 4 wide per axis, whatever undoes the restriction of that axis: for ``width`` 1, 4 where the fine
    axis is twice the coarse one and 3 for n -> 2n-1. On periodic axes the coarse field is wrapped by one cell first
    and the result cropped (``exact``): then the map commutes with shifts; the published zero-padded form does not.
    """

    def __init__(
        self,
        c_in: int,
        c_out: int,
        *,
        coarse: Sequence[int],
        fine: Sequence[int],
        padding: Padding,
        width: int,
        exact: bool,
    ) -> None:
        super().__init__()
        # per axis; mixed boundaries wrap their periodic axes only
        self.wrapped = tuple(int(exact and mode == "circular") for mode in padding)
        self.dim, self.width = len(fine), width
        sizes = [n - 2 * (m - 1) + 2 * width for m, n in zip(coarse, fine, strict=True)]
        self.weight = nn.Parameter(torch.empty(c_in, c_out, *sizes))
        nn.init.kaiming_uniform_(self.weight, a=math.sqrt(5))

    def forward(self, values: Tensor) -> Tensor:
        for axis, wrapped in enumerate(self.wrapped):
            if wrapped:  # one wrapped coarse cell is two fine ones, which are cropped as padding
                values = _wrap(values, axis + 2, 1)
        crop = [self.width + 2 * wrap for wrap in self.wrapped]
        return _CONV_TRANSPOSE[self.dim](values, self.weight, stride=2, padding=crop)


class Smoother(nn.Module):
    """u <- u + S * (f - A * u); without A for the first step of the finest level, where u is zero."""

    def __init__(self, data: int, channels: int, *, dim: int, padding: Padding, a: Stencil | None, bias: bool) -> None:
        super().__init__()
        self.a = a
        self.s = Stencil(data, channels, dim=dim, padding=padding, bias=bias)

    def forward(self, u: Tensor | None, f: Tensor) -> Tensor:
        if self.a is None or u is None:
            return self.s(f)
        return u + self.s(f - self.a(u))


@dataclass(frozen=True, kw_only=True)
class Cycle:
    """The details of a V-cycle that are not sizes of its data.

    steps        (pre, post) smoothing steps per level, finest first; their number is the number of levels
    padding      boundary condition, per axis: ``zeros`` Dirichlet, ``reflect`` Neumann, ``circular`` periodic,
                 ``replicate`` outflow
    restrict     ``data``: coarse levels see R f (published); ``residual``: R (f - A u) (textbook)
    coarsening   ``padded``: n -> ceil(n/2); ``interior``: n -> (n-1)//2 without padding (published Helmholtz)
    bias         one learned constant per channel in every S and A
    exact        wrapped prolongation on periodic axes
    norm         LayerNorm with a learned map after each prolongation (published Navier-Stokes): no longer linear
    growing      (j+1) C channels on level j (published Helmholtz) instead of C
    shared       one A a level, as the textbook has it, for all its smoothing steps and its residual (published: each
                 its own)
    """

    steps: tuple[tuple[int, int], ...] = ((1, 0),) * 4 + ((2, 0),)
    padding: Padding = ("zeros", "zeros")
    restrict: Restrict = "data"
    coarsening: Coarsening = "padded"
    bias: bool = False
    exact: bool = True
    norm: bool = False
    growing: bool = False
    shared: bool = False

    @property
    def levels(self) -> int:
        return len(self.steps)


class VCycle(nn.Module):
    """W_Mg: ``batch data *space`` -> ``batch channels *space``, linear unless ``bias`` or ``norm`` is set."""

    def __init__(self, data: int, channels: int, shape: Sequence[int], cycle: Cycle) -> None:
        super().__init__()
        self.restrict, self.last, self.steps_of = cycle.restrict, cycle.levels - 1, cycle.steps
        dim, padding = len(shape), cycle.padding
        width = 1 if cycle.coarsening == "padded" else 0
        shapes = level_shapes(shape, cycle)
        c_u, c_f = ([c * (j + 1 if cycle.growing else 1) for j in range(cycle.levels)] for c in (channels, data))

        level_operators: dict[int, Stencil] = {}

        def operator(j: int, *, bias: bool) -> Stencil:
            """A of a level: a new one, or the one it has."""
            if not cycle.shared:
                return Stencil(c_u[j], c_f[j], dim=dim, padding=padding, bias=bias)
            if j not in level_operators:
                level_operators[j] = Stencil(c_u[j], c_f[j], dim=dim, padding=padding, bias=cycle.bias)
            return level_operators[j]

        def smoothers(j: int, count: int, *, start: bool = False) -> nn.ModuleList:
            kinds = [start and i == 0 for i in range(count)]
            return nn.ModuleList(
                Smoother(
                    *(c_f[j], c_u[j]),
                    dim=dim,
                    padding=padding,
                    a=None if first else operator(j, bias=cycle.bias),
                    bias=cycle.bias,
                )
                for first in kinds
            )

        def restriction(c_in: int, c_out: int) -> Stencil:
            return Stencil(c_in, c_out, dim=dim, padding=padding, stride=2, width=width)

        down = range(self.last)
        self.pre = nn.ModuleList(smoothers(j, pre, start=j == 0) for j, (pre, _) in enumerate(cycle.steps))
        self.post = nn.ModuleList(smoothers(j, post) for j, (_, post) in enumerate(cycle.steps))
        self.restrict_u = nn.ModuleList(restriction(c_u[j], c_u[j + 1]) for j in down)
        self.restrict_f = nn.ModuleList(restriction(c_f[j], c_f[j + 1]) for j in down)
        self.residual = nn.ModuleList(operator(j, bias=False) for j in down if cycle.restrict == "residual")
        same = {"padding": padding, "width": width, "exact": cycle.exact}
        self.prolong = nn.ModuleList(
            Prolongation(c_u[j + 1], c_u[j], coarse=shapes[j + 1], fine=shapes[j], **same)  # type: ignore[arg-type]
            for j in down
        )
        self.norms = nn.ModuleList(nn.LayerNorm([c_u[j], *shapes[j]]) for j in down if cycle.norm)

    def forward(self, f: Tensor) -> Tensor:
        u: Tensor | None = None
        finer: list[tuple[Tensor, Tensor]] = []
        for j in range(self.last + 1):
            for smooth in _each(self.pre[j]):
                u = smooth(u, f)
            assert u is not None  # level_shapes has checked that the finest level smooths first
            if j < self.last:
                finer.append((u, f))
                f = self.restrict_f[j](f - self.residual[j](u) if self.restrict == "residual" else f)
                u = self.restrict_u[j](u)
        assert u is not None
        for smooth in _each(self.post[self.last]):
            u = smooth(u, f)
        for j in range(self.last - 1, -1, -1):
            fine, f = finer[j]
            u = fine + self.prolong[j](u)
            u = self.norms[j](u) if self.norms else u
            for smooth in _each(self.post[j]):
                u = smooth(u, f)
        return u


def _each(modules: nn.Module) -> nn.ModuleList:
    return cast(nn.ModuleList, modules)


def default_steps(shape: Sequence[int], levels: int, pre: int, post: int, coarsest: int) -> tuple[tuple[int, int], ...]:
    """(pre, post) per level; ``levels`` 0 means as many as leave at least 4 nodes an axis on the coarsest."""
    if levels == 0:
        n, levels = min(shape), 1
        while (n + 1) // 2 >= 4:
            n, levels = (n + 1) // 2, levels + 1
    return ((pre, post),) * (levels - 1) + ((coarsest, 0),)


def level_shapes(shape: Sequence[int], cycle: Cycle) -> list[tuple[int, ...]]:
    """Grid sizes from fine to coarse, or a refusal that names the smallest size with this many levels."""
    if not cycle.steps or cycle.steps[0][0] < 1:
        raise ValueError(f"The finest level needs at least one pre-smoothing step, got steps {cycle.steps}.")
    shapes = [tuple(shape)]
    for _ in range(cycle.levels - 1):
        shapes.append(tuple(_coarser(n, cycle.coarsening) for n in shapes[-1]))
    if min(shapes[-1]) < 2:
        smallest = next(n for n in range(2, 10_000) if _coarsest(n, cycle) >= 2)
        raise ValueError(
            f"{cycle.levels} multigrid levels take {tuple(shape)} down to {shapes[-1]}, but 2 nodes an axis must be "
            f"left: use at least {smallest} nodes an axis, or fewer levels."
        )
    return shapes


def _coarser(n: int, coarsening: Coarsening) -> int:
    return (n + 1) // 2 if coarsening == "padded" else (n - 1) // 2


def _coarsest(n: int, cycle: Cycle) -> int:
    for _ in range(cycle.levels - 1):
        n = _coarser(n, cycle.coarsening)
    return n
