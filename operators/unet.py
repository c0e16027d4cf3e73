r"""U-Net: convolutions on a pyramid of grids with skips across, residual and group-normalised.

One level of the pyramid (Ronneberger et al. 2015) is a residual block, then half as many nodes and twice the channels;
the way back up mirrors it and joins the fields of the same level from the way down:

    block   v + N(S(sigma N(S v))), then sigma       S: 3-wide convolution, N: group norm, sigma: GELU
    down    mean of each pair of nodes an axis, n -> ceil(n/2); an odd axis first repeats one node, on a periodic axis
            the first, which is its neighbour, at a wall the last
    up      transposed convolution 2 wide with stride 2, cropped to the size on the way down

So every size works. The boundary condition lives in the padding of S: circular on periodic axes, zeros at Dirichlet
walls, reflection at Neumann walls, the last value at outflow. Positions are appended to the inputs (on periodic axes
cos and sin of 2 pi x, which are periodic too); without them, on a torus whose sizes are multiples of 2^levels, the
network commutes with shifts by 2^levels nodes.

``stencil="pixel"`` is the published network: stencils are tied to the node spacing, only the training grid is served.
``stencil="physical"`` is an operator (``_physical``): on the finest level stencils are functions on a fixed physical
support, integrated by quadrature, and norms are integrals; below it the grids are those of the training, whatever the
resolution, reached by local means and left by linear interpolation. On the training grid of a torus the two are the
same network; refining the grid of a function given converges with order 2, to what the training grid's coarse levels
can say: finer detail than theirs passes through the finest level only.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from ..pde import Grid, Problem
from ..training import NetworkSolver, Preset, Recipe, coarse_grid, native_bfloat16
from ._multigrid import Padding, PadMode, Stencil, padding_of
from ._physical import IntegralNorm, PhysicalStencil, carry
from .fno import Placement, positions

CONVERGENCE = None  # of the default stencil, pixels; with stencil physical: 2

# dim -> (transposed convolution, mean over blocks)
_BY_DIM = {
    1: (nn.ConvTranspose1d, F.avg_pool1d),
    2: (nn.ConvTranspose2d, F.avg_pool2d),
    3: (nn.ConvTranspose3d, F.avg_pool3d),
}
GROUPS = 8


class Layers:
    """What a block is made of: stencils and norms in pixels, or those of the functions on a grid's domain."""

    def __init__(self, padding: Padding, domain: Grid | None = None) -> None:
        self.padding, self.domain = padding, domain

    def stencil(self, c_in: int, c_out: int, *, bias: bool = False) -> Stencil:
        if self.domain is not None:
            return PhysicalStencil(c_in, c_out, grid=self.domain, bias=bias)
        return Stencil(c_in, c_out, dim=len(self.padding), padding=self.padding, bias=bias)

    def norm(self, groups: int, channels: int) -> nn.GroupNorm:
        if self.domain is not None:
            return IntegralNorm(groups, channels, self.domain)
        return nn.GroupNorm(groups, channels)


class Block(nn.Module):
    """Two normalised convolutions beside a skip, which is linear where the channels change."""

    def __init__(self, c_in: int, c_out: int, layers: Layers) -> None:
        super().__init__()
        groups = math.gcd(GROUPS, c_out)
        self.first = layers.stencil(c_in, c_out)
        self.second = layers.stencil(c_out, c_out)
        self.norms = nn.ModuleList(layers.norm(groups, c_out) for _ in range(2))
        self.skip = nn.Identity() if c_in == c_out else layers.stencil(c_in, c_out, bias=True)

    def forward(self, values: Float[Tensor, "batch c_in *space"]) -> Float[Tensor, "batch c_out *space"]:
        inner = self.second(F.gelu(self.norms[0](self.first(values))))
        return F.gelu(self.skip(values) + self.norms[1](inner))


class UNet(nn.Module):
    """``batch c_in *space`` -> ``batch c_out *space`` in 1 to 3 dimensions, for any sizes.

    width     channels on the finest level; level j has 2^j times as many
    levels    how often the grid is halved
    padding   one mode per axis
    domain    the training grid, if the network is to mean the same operator on other grids of that domain
    """

    def __init__(
        self,
        c_in: int,
        c_out: int,
        *,
        width: int = 16,
        levels: int = 3,
        padding: Padding,
        coordinates: bool = True,
        domain: Grid | None = None,
    ) -> None:
        super().__init__()
        self.dim, self.padding, self.coordinates = len(padding), padding, coordinates
        if self.dim not in _BY_DIM or width < 1 or levels < 1:
            raise ValueError(
                f"UNet needs 1 to 3 axes, width and levels of at least 1; got padding {padding}, width {width}, "
                f"levels {levels}."
            )
        transposed = _BY_DIM[self.dim][0]
        channels = [width * 2**j for j in range(levels + 1)]
        pairs = list(itertools.pairwise(channels))

        self.domain = domain
        coarser, finest = Layers(padding), Layers(padding, domain)
        self.lift = Block(c_in + coordinates * sum(1 + (mode == "circular") for mode in padding), width, finest)
        self.down = nn.ModuleList(Block(fine, coarse, coarser) for fine, coarse in pairs)
        self.up = nn.ModuleList(transposed(coarse, fine, 2, stride=2) for fine, coarse in pairs)
        self.join = nn.ModuleList(
            Block(2 * fine, fine, coarser if level else finest) for level, (fine, _) in enumerate(pairs)
        )
        self.project = finest.stencil(width, c_out, bias=True)

    def forward(self, values: Float[Tensor, "batch c_in *space"]) -> Float[Tensor, "batch c_out *space"]:
        if self.coordinates:
            placements = () if self.domain is None else tuple(axis.placement for axis in self.domain.axes)
            where = features(tuple(values.shape[2:]), self.padding, values, placements)
            values = torch.cat([values, where.expand(len(values), *where.shape)], dim=1)
        levels = [self.lift(values)]
        for down in self.down:
            finer = self._on_domain(levels[0]) if len(levels) == 1 else levels[-1]
            levels.append(down(self._halve(finer)))
        values = levels.pop()
        for up, join in zip(reversed(self.up), reversed(self.join), strict=True):
            fine = levels.pop()
            there = fine.shape[2:] if levels or self.domain is None else self.domain.shape
            raised = up(values)[(..., *[slice(n) for n in there])]
            raised = raised if levels else self._from_domain(raised, fine.shape[2:])
            values = join(torch.cat([raised, fine], dim=1))
        return self.project(values)

    def _on_domain(self, values: Tensor) -> Tensor:
        """From any grid of the domain to that of the training; pixels stay what they are."""
        return values if self.domain is None else carry(values, self.domain.at(values.shape[2:]), self.domain)

    def _from_domain(self, values: Tensor, space: Sequence[int]) -> Tensor:
        return values if self.domain is None else carry(values, self.domain, self.domain.at(space))

    def _halve(self, values: Tensor) -> Tensor:
        for axis, mode in enumerate(self.padding, start=2):
            if values.shape[axis] % 2:
                node = 0 if mode == "circular" else -1
                values = torch.cat([values, values.select(axis, node).unsqueeze(axis)], dim=axis)
        return _BY_DIM[self.dim][1](values, 2)


def features(
    space: tuple[int, ...], padding: Sequence[PadMode], like: Tensor, placements: tuple[Placement, ...] = ()
) -> Float[Tensor, "feature *space"]:
    """Positions as fields: cos and sin of 2 pi x on periodic axes, 2 x - 1 from wall to wall on others."""
    placements = placements or tuple("left" if mode == "circular" else "ends" for mode in padding)
    fields = []
    for x, mode in zip(positions(space, placements, like.dtype, like.device), padding, strict=True):
        angle = 2 * math.pi * x
        fields += [angle.cos(), angle.sin()] if mode == "circular" else [2 * x - 1]
    return torch.stack(fields)


def smallest_size(levels: int) -> int:
    """Nodes an axis needs so that the coarsest grid has two: one could neither be reflected nor normalised."""
    return 2**levels + 1


def _navier_stokes_quick(problem: Problem) -> Preset:
    """At viscosity 1e-3 the fields have no scale that 16² nodes would not carry; below, only the whole grid will do."""
    smooth = getattr(problem, "viscosity", 0.0) >= 1e-3
    train = {"epochs": 24, "batch": 16, "coarsen": 4} if smooth else {"epochs": 4, "batch": 16}
    return Preset(model={"width": 16, "levels": 3}, train=train, seconds=180.0)


def _darcy_quick(problem: Problem) -> Preset:
    """Where the processor has bfloat16 products they are used, as by MgNO."""
    precision = "bfloat16" if native_bfloat16() else "float32"
    train = {"epochs": 16, "batch": 8, "precision": precision}
    return Preset(model={"width": 16, "levels": 3}, train=train, seconds=200.0)


# No U-Net was published with these problems' data in a form to reproduce: the paper presets are ours.
_LARGE = Preset(
    model={"width": 32, "levels": 4},
    train={"epochs": 300, "batch": 16, "learning_rate": 1e-3, "weight_decay": 1e-4},
)
# The quick presets train for about as long as MgNO's (one core), so that --compare is at equal training time.
PRESETS: Mapping[tuple[str, str], Preset | Callable[[Problem], Preset]] = {
    ("quick", "*"): Preset(model={"width": 16, "levels": 3}, train={"epochs": 60, "batch": 8}, seconds=200.0),
    ("quick", "navier_stokes"): _navier_stokes_quick,
    ("quick", "darcy"): _darcy_quick,
    ("paper", "darcy"): _LARGE,
    ("paper", "navier_stokes"): _LARGE,
}


def build(
    problem: Problem,
    grid: Grid,
    *,
    width: int = 16,
    levels: int = 3,
    coordinates: bool = True,
    stencil: Literal["pixel", "physical"] = "pixel",
    recipe: Recipe = Recipe(),  # noqa: B008 - frozen
) -> NetworkSolver:
    """A U-Net for this problem and grid.

    width         channels on the finest level; each coarser one has twice as many
    levels        how often the grid is halved
    coordinates   append the position to the inputs
    stencil       pixel: as published, for the training grid only; physical: functions of distance, for any resolution
    """
    working = coarse_grid(grid, recipe.coarsen)
    padding = padding_of(grid)
    needed = smallest_size(levels)
    if min(working.shape) < needed:
        raise ValueError(
            f"unet with {levels} levels needs at least {needed} nodes an axis, it would work on {working.shape}; "
            f"the smallest grid that works has {needed * recipe.coarsen}. Or use fewer --model.levels."
        )
    signature = problem.signature
    network = UNet(
        len(signature.inputs),
        len(signature.outputs),
        width=width,
        levels=levels,
        padding=padding,
        coordinates=coordinates,
        domain=working if stencil == "physical" else None,
    )
    return NetworkSolver(network, signature, grid, recipe, any_resolution=stencil == "physical")
