r"""Fourier neural operator: low Fourier modes mixed globally, everything else pointwise (Li et al. 2021).

.. math:: v_0 = P(a, x),\qquad v_{l+1} = \sigma\big(\mathcal F^{-1}[R_l\,\mathcal F v_l] + W_l v_l + b_l\big),\qquad
          u = Q(v_L)

a   inputs (normalised), with the position x in [0, 1)^d of each node appended
R_l complex matrix per kept mode, ``width x width``; modes are counted in total, positive and negative: ``modes`` = 16
    keeps k = -8 .. 7 on the leading axes and 0 .. 8 on the last (neuraloperator's count)
W_l 1x1 linear map, P and Q pointwise networks, sigma = GELU (not in the last block)

``block="modern"`` (default; neuraloperator's): each block goes on to :math:`\sigma(M v + w\odot v_l)`, M a pointwise
network of two layers and half the width, w one learned factor per channel. ``block="legacy"`` is the published
network: no M, P one linear map, Q: width -> 128 -> outputs; it keeps ``modes`` / 2 columns on the last axis. With 24
modes, width 32 and 4 blocks it has 1,188,353 parameters for Darcy (a complex number counts once).

Grids that are not periodic are extended by zeros after P and cropped before Q: by the share ``padding`` of their
length, so that the periodic box is the same at every resolution. Any resolution that holds the modes is served.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Literal, cast

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from ..kernels import channel_mix, channel_mlp, spectral_conv
from ..kernels.pointwise import Layer
from ..pde import Grid, Problem
from ..training import NetworkSolver, Preset, Recipe, coarse_grid

Block = Literal["modern", "legacy"]
Placement = Literal["left", "ends", "centres"]

_PUBLISHED = {"epochs": 500, "batch": 20, "learning_rate": 1e-3, "weight_decay": 1e-4, "clip": 0.0}
LEGACY_PROJECTION = 128  # hidden channels of Q in the published scripts


class Pointwise(nn.Module):
    """A linear map of the channels, the same at every node (a 1x1 convolution, whatever the dimension)."""

    def __init__(self, c_in: int, c_out: int, *, bias: bool = True) -> None:
        super().__init__()
        bound = 1 / math.sqrt(c_in)
        self.weight = nn.Parameter(torch.empty(c_out, c_in).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(c_out).uniform_(-bound, bound)) if bias else None

    def forward(self, values: Tensor, plus: Tensor | None = None, gate: Tensor | None = None) -> Tensor:
        """``weight @ values + bias + gate * plus``."""
        return channel_mix(values, self.weight, self.bias, plus, gate)


class PointwiseMLP(nn.Module):
    """Two pointwise linear maps with a GELU between."""

    def __init__(self, c_in: int, hidden: int, c_out: int) -> None:
        super().__init__()
        self.first = Pointwise(c_in, hidden)
        self.second = Pointwise(hidden, c_out)

    def forward(
        self, values: Tensor, plus: Tensor | None = None, gate: Tensor | None = None, *, activate: bool = False
    ) -> Tensor:
        first, second = (cast(Layer, (layer.weight, layer.bias)) for layer in (self.first, self.second))
        return channel_mlp(values, first, second, plus, gate, activate=activate)


class FourierBlock(nn.Module):
    """One layer of the network: spectral convolution plus linear skip, and in the modern form a gated channel MLP."""

    def __init__(self, width: int, modes: Sequence[int], *, mlp_width: int | None, last: bool) -> None:
        """``modes`` as kept (the last axis halved); without ``mlp_width`` the block is the published one."""
        super().__init__()
        self.last = last
        self.bias = nn.Parameter(torch.empty(width))
        self.weight = nn.Parameter(torch.empty(width, width, *modes, dtype=torch.complex64))
        self.skip = Pointwise(width, width, bias=False)
        self.mlp = None if mlp_width is None else PointwiseMLP(width, mlp_width, width)
        self.gate = None if mlp_width is None else nn.Parameter(torch.ones(width))
        self._initialise(width)

    @torch.no_grad()
    def _initialise(self, width: int) -> None:
        if self.mlp is None:  # as published: uniform in the unit square of the complex plane, over C_in C_out
            torch.view_as_real(self.weight).uniform_(0, 1 / width**2)
            self.bias.uniform_(-1 / math.sqrt(width), 1 / math.sqrt(width))
        else:  # as neuraloperator: standard deviation sqrt(2 / (C_in + C_out))
            self.weight.normal_(0, 1 / math.sqrt(width))
            self.bias.normal_(0, 1 / math.sqrt(width))

    def forward(self, values: Float[Tensor, "batch width *space"]) -> Float[Tensor, "batch width *space"]:
        mixed = self.skip(values, plus=spectral_conv(values, self.weight, self.bias))
        if not self.last:
            mixed = F.gelu(mixed)
        if self.mlp is None:
            return mixed
        return self.mlp(mixed, plus=values, gate=self.gate, activate=not self.last)


class FNO(nn.Module):
    """``batch c_in *space`` -> ``batch c_out *space`` in 1 to 3 dimensions, at any resolution that holds the modes.

    modes        kept modes in total an axis, one number or one each
    placements   how nodes lie on each axis (see ``Grid``); default, and all that neuraloperator knows: ``left``
    padding      share of its length by which each axis is extended, one number or one each
    ..._width    hidden channels of P (default 2 width), of Q (2 width; legacy 128), of the channel MLP (width / 2)
    """

    def __init__(
        self,
        c_in: int,
        c_out: int,
        *,
        dim: int = 2,
        modes: int | Sequence[int] = 16,
        width: int = 32,
        layers: int = 4,
        block: Block = "modern",
        coordinates: bool = True,
        placements: Sequence[Placement] = (),
        padding: float | Sequence[float] = 0.0,
        lifting_width: int | None = None,
        projection_width: int | None = None,
        mlp_width: int | None = None,
    ) -> None:
        super().__init__()
        self.dim, self.width, self.block, self.coordinates = dim, width, block, coordinates
        self.modes = (modes,) * dim if isinstance(modes, int) else tuple(modes)
        self.placements: tuple[Placement, ...] = tuple(placements or ["left"] * dim)
        self.padding = (float(padding),) * dim if isinstance(padding, int | float) else tuple(padding)
        self._check(layers)
        modern = block == "modern"
        kept = kept_modes(self.modes, block)
        channels = c_in + dim * coordinates
        self.lifting: nn.Module = (
            PointwiseMLP(channels, lifting_width or 2 * width, width) if modern else Pointwise(channels, width)
        )
        hidden = (mlp_width or max(1, width // 2)) if modern else None
        self.blocks = nn.ModuleList(
            FourierBlock(width, kept, mlp_width=hidden, last=i == layers - 1) for i in range(layers)
        )
        self.projection = PointwiseMLP(width, projection_width or (2 * width if modern else LEGACY_PROJECTION), c_out)

    def _check(self, layers: int) -> None:
        if not 1 <= self.dim <= 3 or any(len(x) != self.dim for x in (self.modes, self.placements, self.padding)):
            raise ValueError(
                f"FNO needs dim 1 to 3 and as many modes, placements and paddings; got dim {self.dim}, {self.modes}, "
                f"{self.placements}, {self.padding}."
            )
        if min(self.modes) < 1 or self.width < 1 or layers < 1 or min(self.padding) < 0:
            raise ValueError(
                f"FNO needs modes, width and layers of at least 1 and padding of at least 0; got modes {self.modes}, "
                f"width {self.width}, layers {layers}, padding {self.padding}."
            )
        if self.block == "legacy" and any(m % 2 for m in self.modes):
            raise ValueError(
                f"The published block keeps as many negative as positive modes: even modes, not {self.modes}."
            )

    def forward(self, values: Float[Tensor, "batch c_in *space"]) -> Float[Tensor, "batch c_out *space"]:
        space = tuple(values.shape[2:])
        if self.coordinates:
            where = positions(space, self.placements, values.dtype, values.device)
            values = torch.cat([values, where.expand(len(values), *where.shape)], dim=1)
        values = self._extend(self.lifting(values), space)
        for block in self.blocks:
            values = block(values)
        for axis, size in enumerate(space, start=2):
            values = values.narrow(axis, 0, size)
        return self.projection(values)

    def _extend(self, values: Tensor, space: tuple[int, ...]) -> Tensor:
        extra = [
            _extra_nodes(n, share, placement)
            for n, share, placement in zip(space, self.padding, self.placements, strict=True)
        ]
        return F.pad(values, [width for count in reversed(extra) for width in (0, count)]) if any(extra) else values


def _extra_nodes(size: int, share: float, placement: Placement) -> int:
    """Nodes that make the periodic box (1 + share) times the domain; with nodes at both ends it is one cell larger."""
    if placement == "ends":
        return max(0, math.ceil(share * (size - 1) - 1e-9) - 1)
    return math.ceil(share * size - 1e-9)


def kept_modes(modes: Sequence[int], block: Block = "modern") -> tuple[int, ...]:
    """Shape of the kept spectrum: all modes of the leading axes, the non-negative ones of the last."""
    return (*modes[:-1], modes[-1] // 2 + (block == "modern"))


@functools.lru_cache(maxsize=16)
def positions(
    space: tuple[int, ...], placements: tuple[Placement, ...], dtype: torch.dtype, device: torch.device
) -> Float[Tensor, "dim *space"]:
    """Positions of the nodes in the unit box, one channel an axis."""
    with torch.inference_mode(False):
        axes = [
            (torch.arange(n, dtype=torch.float64) + (0.5 if placement == "centres" else 0.0))
            / (n - 1 if placement == "ends" else n)
            for n, placement in zip(space, placements, strict=True)
        ]
        return torch.stack(torch.meshgrid(*axes, indexing="ij")).to(device, dtype)


def _navier_stokes_quick(problem: Problem) -> Preset:
    """At viscosity 1e-3 the fields have no scale that 16² nodes would not carry; below, only the whole grid will do."""
    if getattr(problem, "viscosity", 0.0) >= 1e-3:
        return Preset(model={"modes": 12, "width": 32}, train={"epochs": 20, "batch": 16, "coarsen": 4}, seconds=180.0)
    return Preset(model={"modes": 16, "width": 32}, train={"epochs": 4, "batch": 16}, seconds=180.0)


# The quick presets train for about as long as MgNO's (one core), so that --compare is at equal training time.
PRESETS: Mapping[tuple[str, str], Preset | Callable[[Problem], Preset]] = {
    ("quick", "*"): Preset(model={"modes": 12, "width": 24}, train={"epochs": 60, "batch": 8}, seconds=200.0),
    ("quick", "navier_stokes"): _navier_stokes_quick,
    ("quick", "darcy"): Preset(model={"modes": 12, "width": 24}, train={"epochs": 14, "batch": 8}, seconds=200.0),
    # The published scripts but for two things our loop does not have: Adam with L2 penalty (here AdamW), and a rate
    # halved every 50 or 100 epochs (here a cosine).
    ("paper", "darcy"): Preset(
        model={"block": "legacy", "modes": 24, "width": 32, "padding": 0.1},
        train={**_PUBLISHED, "normalise": "pointwise"},
    ),
    # Published with ten frames as input; a state here is one frame.
    ("paper", "navier_stokes"): Preset(
        model={"block": "legacy", "modes": 24, "width": 20},
        train={**_PUBLISHED, "normalise": "none", "unroll": 10, "increment": False},
    ),
}


def build(
    problem: Problem,
    grid: Grid,
    *,
    modes: int = 16,
    width: int = 32,
    layers: int = 4,
    block: Block = "modern",
    coordinates: bool = True,
    padding: float = 0.1,
    recipe: Recipe = Recipe(),  # noqa: B008 - frozen
) -> NetworkSolver:
    """An FNO for this problem and grid; other resolutions are served too.

    modes         Fourier modes kept an axis, in total; at most the nodes of the grid
    width         channels
    layers        Fourier blocks
    block         modern (with channel MLP, as neuraloperator) or legacy (as published in 2021)
    coordinates   append the position to the inputs
    padding       axes with walls: share of their length added as zeros, so that the box is periodic
    """
    signature = problem.signature
    working = coarse_grid(grid, recipe.coarsen).shape
    if modes > min(working):
        raise ValueError(
            f"fno keeps {modes} modes an axis, more than the {min(working)} nodes of the grid {working} it works on. "
            f"The smallest grid that works has {modes * recipe.coarsen} nodes an axis; or use "
            f"--model.modes {min(working)}."
        )
    network = FNO(
        len(signature.inputs),
        len(signature.outputs),
        dim=grid.dim,
        modes=modes,
        width=width,
        layers=layers,
        block=block,
        coordinates=coordinates,
        placements=[axis.placement for axis in grid.axes],
        padding=[0.0 if axis.periodic else padding for axis in grid.axes],
    )
    return NetworkSolver(network, signature, grid, recipe, any_resolution=True)
