r"""MgNO: every layer is a learned multigrid V-cycle plus a bias function (He, Liu & Xu, ICLR 2024, arXiv 2310.19809).

.. math:: O_i(u) = \sigma\Big(\sum_j W_{ij} u_j + B_{ij}\Big),

W a bounded linear operator parameterised as a V-cycle over all channels (``_multigrid``), B a *function* of position,
no lifting and no projection but a final 1x1 convolution. The boundary condition lives in the padding of the stencils.

Stencils are in pixels: the model serves the grid it was trained on and refuses others.

Published settings, each an option: Darcy ``skip`` (a 1x1 convolution with a constant bias beside W), Navier-Stokes
biases inside the cycle, Helmholtz a LayerNorm after W and a multigrid head. Cost O(N C²), parameters O(log N C²).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from itertools import pairwise
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from ..pde import Grid, Problem
from ..training import NetworkSolver, Preset, Recipe, coarse_grid, native_bfloat16
from ._multigrid import Coarsening, Cycle, Padding, PadMode, Restrict, VCycle, default_steps, padding_of

CONVERGENCE = None  # stencils of pixels

Bias = Literal["function", "constant", "inside", "none"]
Norm = Literal["none", "prolongation", "layer"]


class BiasFunction(nn.Module):
    r"""B_c(x), a function of position per channel: a learned sum of low modes of the domain.

    Products of 1, cos, sin(2 pi m x / L) on periodic axes and of cos(pi m x / L) on others, m <= modes; zero at
    initialisation. Without it a periodic model cannot know where a fixed forcing acts.
    """

    basis: Tensor

    def __init__(self, channels: int, grid: Grid, modes: int) -> None:
        super().__init__()
        total = torch.ones(1, dtype=torch.float64)
        for axis in grid.axes:
            x = (axis.coordinates() - axis.lower) / axis.length
            factor = 2 if axis.periodic else 1
            rows = [torch.ones_like(x)]
            for m in range(1, modes + 1):
                rows.append(math.sqrt(2) * torch.cos(factor * math.pi * m * x))
                if axis.periodic:
                    rows.append(math.sqrt(2) * torch.sin(2 * math.pi * m * x))
            table = torch.stack(rows)
            other = table.reshape(1, len(rows), *(1,) * (total.ndim - 1), -1)
            total = (total[:, None, ..., None] * other).flatten(0, 1)
        self.register_buffer("basis", total.reshape(-1, *grid.shape).float(), persistent=False)
        self.weight = nn.Parameter(torch.zeros(channels, len(self.basis)))

    def forward(self) -> Float[Tensor, "channel *space"]:
        return (self.weight @ self.basis.flatten(1)).unflatten(1, self.basis.shape[1:])


class MgNOLayer(nn.Module):
    """W u + B, before the activation."""

    def __init__(
        self, c_in: int, c_out: int, grid: Grid, cycle: Cycle, *, skip: bool, bias: Bias, modes: int, norm: Norm
    ) -> None:
        super().__init__()
        cycle = replace(cycle, bias=bias == "inside", norm=norm == "prolongation")
        self.multigrid = VCycle(c_in, c_out, grid.shape, cycle)
        self.skip = nn.Linear(c_in, c_out, bias=False) if skip else None
        self.bias: nn.Parameter | BiasFunction | None = None
        if bias == "function":
            self.bias = BiasFunction(c_out, grid, modes)
        elif bias == "constant":
            self.bias = nn.Parameter(torch.zeros(c_out, *(1,) * grid.dim))
        self.norm = nn.LayerNorm([c_out, *grid.shape]) if norm == "layer" else None

    def forward(self, values: Tensor) -> Tensor:
        result = self.multigrid(values)
        if self.skip is not None:  # a 1x1 convolution
            result = result + torch.einsum("oc,bc...->bo...", self.skip.weight, values)
        if self.bias is not None:
            result = result + (self.bias() if isinstance(self.bias, BiasFunction) else self.bias)
        return result if self.norm is None else self.norm(result)


class MgNO(nn.Module):
    """``batch c_in *space`` -> ``batch c_out *space`` on one grid.

    The first layer takes the input channels themselves (no lifting); the head is linear.
    """

    def __init__(
        self,
        c_in: int,
        c_out: int,
        grid: Grid,
        *,
        width: int,
        layers: int,
        cycle: Cycle,
        skip: bool = True,
        bias: Bias = "function",
        bias_modes: int = 3,
        norm: Norm = "none",
        head: Literal["pointwise", "multigrid"] = "pointwise",
    ) -> None:
        super().__init__()
        sizes = [c_in] + [width] * layers
        self.layers = nn.ModuleList(
            MgNOLayer(a, b, grid, cycle, skip=skip, bias=bias, modes=bias_modes, norm=norm) for a, b in pairwise(sizes)
        )
        self.head: nn.Module = (
            nn.Linear(width, c_out, bias=False) if head == "pointwise" else VCycle(width, c_out, grid.shape, cycle)
        )

    def forward(self, values: Float[Tensor, "batch c_in *space"]) -> Float[Tensor, "batch c_out *space"]:
        for layer in self.layers:
            values = F.gelu(layer(values))
        if isinstance(self.head, nn.Linear):
            return torch.einsum("oc,bc...->bo...", self.head.weight, values)
        return self.head(values)


def build(
    problem: Problem,
    grid: Grid,
    *,
    width: int = 24,
    layers: int = 4,
    levels: int = 0,
    pre: int = 1,
    post: int = 0,
    coarsest: int = 2,
    cycle: str = "",
    padding: Literal["auto", "zeros", "reflect", "circular"] = "auto",
    restrict: Restrict = "data",
    coarsening: Coarsening = "padded",
    exact_prolongation: bool = True,
    growing: bool = False,
    shared: bool = False,
    skip: bool = True,
    bias: Bias = "function",
    bias_modes: int = 3,
    norm: Norm = "none",
    head: Literal["pointwise", "multigrid"] = "pointwise",
    recipe: Recipe = Recipe(),  # noqa: B008 - frozen
) -> NetworkSolver:
    """An untrained MgNO for this problem and grid.

    width                channels of every layer (16 to 32)
    layers               V-cycle layers (4 or 5)
    levels               grids per cycle; 0: as many as leave at least 4 nodes an axis
    pre                  smoothing steps before restriction, per level
    post                 smoothing steps after prolongation, per level (published: 0)
    coarsest             smoothing steps on the coarsest level
    cycle                published notation instead of the four above: "10 10 20" is [pre, post] a level, finest first
    padding              boundary condition of the stencils; auto: from the grid
    restrict             data: coarse levels see R f (published); residual: R (f - A u) (textbook multigrid)
    coarsening           padded: n -> ceil(n/2); interior: n -> (n-1)//2 (published Helmholtz)
    exact_prolongation   periodic: wrap the coarse field first, so that shifts commute (published: off)
    growing              (j+1) width channels on level j (published Helmholtz)
    shared               one A a level for all its smoothing steps and its residual (published: each its own)
    skip                 a 1x1 convolution beside each cycle (published Darcy)
    bias                 function of position (the paper's form), constant per channel, inside the cycle, or none
    bias_modes           modes per axis of the bias function
    norm                 none; LayerNorm after each prolongation (published Navier-Stokes); after each layer (Helmholtz)
    head                 pointwise 1x1, or a multigrid cycle (Helmholtz)
    """
    working = coarse_grid(grid, recipe.coarsen)
    steps = _parse_cycle(cycle) if cycle else default_steps(working.shape, levels, pre, post, coarsest)
    network = MgNO(
        len(problem.signature.inputs),
        len(problem.signature.outputs),
        working,
        width=width,
        layers=layers,
        cycle=Cycle(
            steps=steps,
            padding=_padding(working, padding),
            restrict=restrict,
            coarsening=coarsening,
            exact=exact_prolongation,
            growing=growing,
            shared=shared,
        ),
        skip=skip,
        bias=bias,
        bias_modes=bias_modes,
        norm=norm,
        head=head,
    )
    return NetworkSolver(network, problem.signature, grid, recipe)


def _padding(grid: Grid, padding: Literal["auto"] | PadMode) -> Padding:
    if padding != "auto":
        return (padding,) * grid.dim
    return padding_of(grid)


def _parse_cycle(cycle: str) -> tuple[tuple[int, int], ...]:
    words = cycle.split()
    if any(len(word) > 2 or not word.isdigit() for word in words):
        raise ValueError(f"A cycle is words of one digit (pre) or two (pre, post), like '10 10 20'; got {cycle!r}.")
    return tuple((int(word[0]), int(word[1:] or 0)) for word in words)


def _navier_stokes_quick(problem: Problem) -> Preset:
    """At viscosity 1e-3 the fields have no scale that 16² nodes would not carry; below, only the whole grid will do."""
    smooth = getattr(problem, "viscosity", 0.0) >= 1e-3
    return Preset(
        model={"width": 32, "layers": 4},
        train={"epochs": 10, "batch": 16, "learning_rate": 2e-3, "coarsen": 4 if smooth else 1},
        seconds=180.0,
    )


def _darcy_quick(problem: Problem) -> Preset:
    """Where the processor has bfloat16 products, training takes less than half the time and the error allows it."""
    precision = "bfloat16" if native_bfloat16() else "float32"
    train = {"epochs": 16, "batch": 8, "learning_rate": 3e-3, "precision": precision}
    return Preset(model={"width": 16}, train=train, seconds=200.0)


PRESETS: Mapping[tuple[str, str], Preset | Callable[[Problem], Preset]] = {
    ("quick", "*"): Preset(model={"width": 16}, train={"epochs": 60, "batch": 8}, seconds=200.0),
    ("quick", "navier_stokes"): _navier_stokes_quick,
    ("quick", "darcy"): _darcy_quick,
    ("paper", "navier_stokes"): Preset(
        model={
            "width": 32,
            "layers": 5,
            "cycle": "10 10 10 20 20",
            "skip": False,
            "bias": "inside",
            "norm": "prolongation",
            "exact_prolongation": False,
        },
        train={
            "epochs": 500,
            "batch": 50,
            "learning_rate": 1e-3,
            "schedule": "one_cycle",
            "optimizer": "adam",
            "weight_decay": 1e-5,
            "rise": 0.1,
        },
    ),
    ("paper", "darcy"): Preset(
        model={"width": 24, "layers": 5, "levels": 6, "bias": "constant", "exact_prolongation": False},
        train={
            "epochs": 500,
            "batch": 8,
            "learning_rate": 5e-4,
            "weight_decay": 1e-4,
            "optimizer": "adam",
            "schedule": "one_cycle",
            "rise": 0.2,
            "objective": "relative_h1",
            "normalise": "pointwise",
        },
    ),
}
