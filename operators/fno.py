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

Axes with walls are extended by zeros after P and cropped before Q: by the share ``padding`` of their length, so that
the periodic box is the same at every resolution (whether behind or on both sides makes no difference: a periodic box
has no ends). Or their waves are sines or cosines of half a period (``basis``), which need no extension: ``modes``
of them an axis, as many numbers as in the Fourier case. Any resolution that holds the modes is served.

Refining the grid of a fixed input, the answer converges: at once for band-limited fields between the activations, and
as the averages and transforms do elsewhere: quadratically in the node spacing, linearly where zeros adjoin a node on
a wall (``padding`` on a grid with nodes at both ends).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from ..pde import Axis, Grid, Problem
from ..training import NetworkSolver, Preset, Recipe, coarse_grid
from ._fourier import (
    EPS,
    BiasFunction,
    BlockStyle,
    Convolution,
    FourierBlock,
    NormKind,
    Placement,
    Pointwise,
    PointwiseMLP,
    SkipKind,
    SpectralConv,
    Stabiliser,
    along,
    kept_modes,
    positions,
    shares,
)

Block = Literal["modern", "legacy"]
Waves = Literal["fourier", "sine", "cosine", "alternate"]
Basis = Literal["auto", "fourier", "sine", "cosine", "alternate"]
DIRICHLET: Waves = "alternate"  # what auto means between Dirichlet walls

CONVERGENCE = 1.0  # of the default: positions jump on a torus, zeros adjoin the walls; see above for more

_PUBLISHED = {"epochs": 500, "batch": 20, "learning_rate": 1e-3, "weight_decay": 1e-4, "clip": 0.0, "optimizer": "adam"}
_PUBLISHED |= {"schedule": "step", "step_every": 100.0, "step_factor": 0.5}
LEGACY_PROJECTION = 128  # hidden channels of Q in the published scripts


class FNO(nn.Module):
    """``batch c_in *space`` -> ``batch c_out *space`` in 1 to 3 dimensions, at any resolution that holds the modes.

    modes        kept modes in total an axis, one number or one each
    placements   how nodes lie on each axis (see ``Grid``); default, and all that neuraloperator knows: ``left``
    padding      Fourier axes: share of its length by which each is extended, one number or one each
    basis        waves of each axis, one word or one each: fourier, sine, cosine, or alternate (ends with sine)
    ..._width    hidden channels of P (default 2 width), of Q (2 width; legacy 128), of the channel MLP (default
                 width / 2; legacy: none; 0: none)
    conditions   numbers that the adaptive norm is told of each sample; 0: mean and deviation of each input channel
    convolution  makes the spectral convolution of each block (default: dense weights, :class:`SpectralConv`)
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
        basis: Waves | Sequence[Waves] = "fourier",
        skip: SkipKind = "linear",
        mlp_skip: SkipKind = "gate",
        norm: NormKind = "none",
        preactivation: bool = False,
        stabiliser: Stabiliser = "none",
        bias_functions: int = 0,
        lifting_width: int | None = None,
        projection_width: int | None = None,
        mlp_width: int | None = None,
        conditions: int = 0,
        condition_width: int = 64,
        convolution: Convolution | None = None,
    ) -> None:
        super().__init__()
        self.dim, self.width, self.block, self.coordinates = dim, width, block, coordinates
        self.modes = (modes,) * dim if isinstance(modes, int) else tuple(modes)
        self.placements: tuple[Placement, ...] = tuple(placements or ["left"] * dim)
        self.padding = (float(padding),) * dim if isinstance(padding, int | float) else tuple(padding)
        self.basis: tuple[Waves, ...] = (basis,) * dim if isinstance(basis, str) else tuple(basis)
        self._check(layers, bias_functions)
        modern = block == "modern"
        channels = c_in + dim * coordinates
        self.lifting: nn.Module = (
            PointwiseMLP(channels, lifting_width or 2 * width, width) if modern else Pointwise(channels, width)
        )
        self.style = BlockStyle(
            mlp_width=(max(1, width // 2) if modern else 0) if mlp_width is None else mlp_width,
            skip=skip,
            mlp_skip=mlp_skip,
            norm=norm,
            preactivation=preactivation,
            stabiliser=stabiliser,
            once=not modern,
            conditions=conditions or 2 * c_in,
            condition_width=condition_width,
        )
        convolution = convolution or functools.partial(SpectralConv, published=not modern)
        self.blocks = nn.ModuleList(self._block(i, layers, convolution, bias_functions) for i in range(layers))
        self.projection = PointwiseMLP(width, projection_width or (2 * width if modern else LEGACY_PROJECTION), c_out)

    def _check(self, layers: int, bias_functions: int) -> None:
        told = (self.modes, self.placements, self.padding, self.basis)
        if not 1 <= self.dim <= 3 or any(len(x) != self.dim for x in told):
            raise ValueError(
                "FNO needs dim 1 to 3 and as many modes, placements, paddings and bases; got dim "
                f"{self.dim}, {self.modes}, {self.placements}, {self.padding}, {self.basis}."
            )
        if min(self.modes) < 1 or self.width < 1 or layers < 1 or min(self.padding) < 0 or bias_functions < 0:
            raise ValueError(
                "FNO needs modes, width and layers of at least 1, padding and bias_functions of at least 0; got modes "
                f"{self.modes}, width {self.width}, layers {layers}, padding {self.padding}, bias_functions "
                f"{bias_functions}."
            )
        if self.block == "legacy" and any(m % 2 for m in self.modes):
            raise ValueError(
                f"The published block keeps as many negative as positive modes: even modes, not {self.modes}."
            )

    def _block(self, number: int, layers: int, convolution: Convolution, bias_functions: int) -> FourierBlock:
        from_end = layers - 1 - number
        words = tuple(_word(b, p, from_end) for b, p in zip(self.basis, self.placements, strict=True))
        kept = kept_modes(self.modes, words, symmetric=self.block == "legacy")
        bias = BiasFunction(self.width, bias_functions, self._periodic()) if bias_functions else None
        return FourierBlock(
            self.width,
            convolution(self.width, kept, words),
            self.style,
            placements=self._box_placements(),
            bias=bias,
            last=from_end == 0,
        )

    def _periodic(self) -> tuple[bool, ...]:
        """Axes whose own length is the period."""
        return tuple(
            p == "left" and not share and b == "fourier"
            for p, share, b in zip(self.placements, self.padding, self.basis, strict=True)
        )

    def _box_placements(self) -> tuple[Placement, ...]:
        """How the nodes of the extended box lie in it: a periodic box has them all of one weight."""
        return tuple(
            ("left" if share else p) if b == "fourier" else ("centres" if p == "centres" else "ends")
            for p, share, b in zip(self.placements, self.padding, self.basis, strict=True)
        )

    def forward(
        self, values: Float[Tensor, "batch c_in *space"], condition: Float[Tensor, "batch conditions"] | None = None
    ) -> Float[Tensor, "batch c_out *space"]:
        """``condition``: what the adaptive norm is told; by default what it reads off the inputs."""
        space = tuple(values.shape[2:])
        if self.style.norm == "adaptive" and condition is None:
            condition = self._moments(values)
        if self.coordinates:
            where = positions(space, self.placements, values.dtype, values.device)
            values = torch.cat([values, where.expand(values.shape[0], *where.shape)], dim=1)
        values = self._extend(self.lifting(values), space)
        axes = [
            along(count, size, placement, values.dtype, values.device)
            for count, size, placement in zip(values.shape[2:], space, self.placements, strict=True)
        ]
        for block in self.blocks:
            values = block(values, axes, condition)
        for axis, size in enumerate(space, start=2):
            values = values.narrow(axis, 0, size)
        return self.projection(values)

    def _moments(self, values: Tensor) -> Float[Tensor, "batch conditions"]:
        """Mean and standard deviation over the domain of each input channel: of a constant one, its value and 0."""
        share = shares(tuple(values.shape[2:]), self.placements, values.dtype, values.device)
        mean = (share * values).flatten(2).sum(dim=2)
        square = (share * (values - mean.view(*mean.shape, *(1,) * self.dim)).square()).flatten(2).sum(dim=2)
        return torch.cat([mean, (square + EPS).sqrt()], dim=1)

    def _extend(self, values: Tensor, space: tuple[int, ...]) -> Tensor:
        """Zeros behind Fourier axes with padding; a node on the wall where sines and cosines lack one."""
        extra = [
            _extra_nodes(n, share, placement) if basis == "fourier" else 0
            for n, share, placement, basis in zip(space, self.padding, self.placements, self.basis, strict=True)
        ]
        if any(extra):
            values = F.pad(values, [width for count in reversed(extra) for width in (0, count)])
        for axis, (placement, basis) in enumerate(zip(self.placements, self.basis, strict=True), start=2):
            if placement == "left" and basis != "fourier":
                values = torch.cat([values, values.narrow(axis, space[axis - 2] - 1, 1)], dim=axis)
        return values


def _word(basis: Waves, placement: Placement, from_end: int) -> str:
    """The kernel's word for the waves of an axis in a layer."""
    if basis == "fourier":
        return basis
    waves = basis if basis != "alternate" else ("sine" if from_end % 2 == 0 else "cosine")
    if placement == "centres":
        return "sine-centres" if waves == "sine" else "cosine"
    return "sine" if waves == "sine" else "cosine-ends"


def _extra_nodes(size: int, share: float, placement: Placement) -> int:
    """Nodes that make the periodic box (1 + share) times the domain; with nodes at both ends it is one cell larger."""
    if not share:
        return 0
    cells = size - (placement == "ends")
    return max(1, math.floor(share * cells + 0.5)) - (placement == "ends")


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
    # the published scripts
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
    basis: Basis = "fourier",
    bias_functions: int = 0,
    skip: SkipKind = "linear",
    mlp_skip: SkipKind = "gate",
    mlp_width: int | None = None,
    norm: NormKind = "none",
    preactivation: bool = False,
    stabiliser: Stabiliser = "none",
    recipe: Recipe = Recipe(),  # noqa: B008 - frozen
) -> NetworkSolver:
    """An FNO for this problem and grid; other resolutions are served too.

    modes           waves kept an axis, in total; at most the nodes of the grid
    width           channels
    layers          Fourier blocks
    block           modern (with channel MLP, as neuraloperator) or legacy (as published in 2021)
    coordinates     append the position to the inputs
    padding         axes with walls and basis fourier: share of their length added as zeros, so that the box is periodic
    basis           waves of axes with walls: fourier (padded), sine, cosine, alternate (cosine and sine in turn, sine
                    last), or auto (alternate between Dirichlet walls, cosine between Neumann walls, else fourier)
    bias_functions  waves an axis of a learned function of position added in each block; 0: constants only
    skip            what passes the spectral convolution: linear, gate (a factor a channel), identity, none
    mlp_skip        what passes the channel MLP: gate, linear, identity, none
    mlp_width       hidden channels of the channel MLP; default width / 2 (modern) or none (legacy); 0: none
    norm            none, group (over all channels), instance (each channel), adaptive (instance, scaled by what the
                    inputs are on average)
    preactivation   activation and norm before the convolution
    stabiliser      tanh before the convolution, for half precision, or none
    """
    network = fourier_network(
        problem,
        grid,
        recipe,
        modes=modes,
        padding=padding,
        basis=basis,
        width=width,
        layers=layers,
        block=block,
        coordinates=coordinates,
        bias_functions=bias_functions,
        skip=skip,
        mlp_skip=mlp_skip,
        mlp_width=mlp_width,
        norm=norm,
        preactivation=preactivation,
        stabiliser=stabiliser,
    )
    return NetworkSolver(network, problem.signature, grid, recipe, any_resolution=True)


def fourier_network(
    problem: Problem,
    grid: Grid,
    recipe: Recipe,
    *,
    modes: int = 16,
    padding: float = 0.1,
    basis: Basis = "fourier",
    **options: Any,
) -> FNO:
    """The network for a problem and a grid: channels, placement of nodes, waves and padding by the walls of each axis.

    The padding is rounded up to whole cells of this grid, so that grids that refine it have the same box. ``options``
    are those of :class:`FNO`, among them ``convolution``. Refuses modes beyond the grid.
    """
    axes = coarse_grid(grid, recipe.coarsen).axes
    placements = [_placement(axis) for axis in axes]
    waves = [_waves(axis, basis) for axis in axes]
    _check_modes(modes, axes, placements, waves, recipe.coarsen)
    cells = [axis.size - (placement == "ends") for axis, placement in zip(axes, placements, strict=True)]
    return FNO(
        len(problem.signature.inputs),
        len(problem.signature.outputs),
        dim=grid.dim,
        modes=modes,
        placements=placements,
        padding=[0.0 if a.periodic else math.ceil(padding * n - 1e-9) / n for a, n in zip(axes, cells, strict=True)],
        basis=waves,
        **options,
    )


def _placement(axis: Axis) -> Placement:
    """An axis that starts on a wall and is open at its end has n cells: it was strided out of one with both walls."""
    strided = axis.placement == "ends" and axis.boundary[1] == "outflow" and axis.boundary[0] != "outflow"
    return "left" if strided else axis.placement


def _waves(axis: Axis, basis: Basis) -> Waves:
    if axis.periodic:
        return "fourier"
    if basis != "auto":
        return basis
    kinds = set(axis.boundary) - {"outflow"} if _placement(axis) == "left" else set(axis.boundary)
    return DIRICHLET if kinds == {"dirichlet"} else "cosine" if kinds == {"neumann"} else "fourier"


def _check_modes(
    modes: int, axes: Sequence[Axis], placements: Sequence[Placement], waves: Sequence[Waves], coarsen: int
) -> None:
    # sines say nothing of nodes on the walls, of which a strided axis has one
    idle = [_word(w, p, 0) == "sine" and (1 if p == "left" else 2) for w, p in zip(waves, placements, strict=True)]
    room = min(axis.size - few for axis, few in zip(axes, idle, strict=True))
    if modes > room:
        raise ValueError(
            f"fno keeps {modes} modes an axis, more than the {room} that the grid "
            f"{tuple(axis.size for axis in axes)} it works on resolves. The smallest grid that works has "
            f"{(modes + max(idle)) * coarsen} nodes an axis; or use --model.modes {room}."
        )
