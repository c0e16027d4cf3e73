r"""MG-TFNO: a TFNO on windows of the field and coarser, wider views of their surroundings (Kossaifi et al., 2024).

.. math:: u|_{\Omega_j} = \Big(G\big[a_0^j, a_1^j, \dots, a_L^j\big]\Big)\Big|_{\Omega_j},\qquad j = 1 \dots 2^{Ld}

Omega_j   patch j of 2^L an axis; u is put together from them, and the loss is taken on the whole field
a_l^j     input and position in a window about patch j that is 2^l times as wide as that of l = 0, every 2^l-th node
G         one network for all windows, a TFNO (``tfno``) in (L + 1) times the channels; ``_patching`` has the details

The patches are answered one after another, ``at_once`` of them together, and each is computed a second time when its
gradient is wanted. So activations of one group of patches are held at any time, for one forward pass more, and the
gradients are those of the whole field, exactly. Across processes (``torchrun``, ``across_ranks``) every process answers
its share of the patches of each sample; all of them must be given the same samples.

Windows and margins are shares of the domain: resolution may change to any that the patches divide and in which the
margin is a whole number of nodes. ``modes`` counts the waves of a window, whose box is (2^-L + 2 margin) of the domain.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.distributed as dist
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ..pde import Grid, Problem
from ..training import NetworkSolver, Preset, Recipe, coarse_grid
from ._fourier import Convolution, positions
from ._patching import Edge, Patching, edges_of, patching_of
from .fno import FNO
from .tfno import Factorization, FactorizedConv, Implementation, Rank, Start

Positions = Literal["global", "window", "none"]
Reduction = Literal["sum", "average"]


class Patched(nn.Module):
    """``batch channel *space`` -> ``batch c_out *space`` by a network of windows, ``batch (L+1)*channel *window``.

    positions    append the position of each node to the field before it is cut
    at_once      patches answered together; 0: all, along the batch axis, nothing computed twice (as published)
    ranks        processes that share the patches of each sample; None: this one answers all
    """

    def __init__(
        self,
        network: nn.Module,
        patching: Patching,
        *,
        positions: bool = False,
        at_once: int = 1,
        ranks: Ranks | None = None,
    ) -> None:
        super().__init__()
        if at_once < 0:
            raise ValueError(f"at_once is a number of patches, 0 for all; got {at_once}.")
        self.network, self.patching, self.positions = network, patching, positions
        self.at_once, self.ranks = at_once, ranks

    def forward(self, values: Float[Tensor, "batch channel *space"]) -> Float[Tensor, "batch c_out *space"]:
        space = tuple(values.shape[2:])
        names = [name for name, _ in self.network.named_parameters()]
        weights: Sequence[Tensor] = [p for _, p in self.network.named_parameters()]
        mine = list(range(self.patching.count))
        ranks = self.ranks if self.ranks is not None and self.ranks.active else None
        if ranks is not None:
            mine = ranks.share(mine)
            values, weights = ranks.shared(values, weights)
        answer = functools.partial(self._answer, space=space, weights=dict(zip(names, weights, strict=True)))
        views = self.patching.views(self._placed(values))
        pieces: list[Tensor | None] = [None] * self.patching.count
        for turn in self._turns(mine):
            for number, piece in zip(turn, self._asked(answer, views, turn, alone=len(turn) == len(mine)), strict=True):
                pieces[number] = piece
        field = self.patching.stitched(pieces, space)
        return field if ranks is None else ranks.summed(field)

    def _turns(self, mine: list[int]) -> list[list[int]]:
        at_once = len(mine) if _looked_on() else self.at_once or len(mine)
        return [mine[i : i + at_once] for i in range(0, len(mine), at_once)]

    def _asked(self, answer: Any, views: list[Tensor], turn: list[int], *, alone: bool) -> tuple[Tensor, ...]:
        """The pieces of a turn; where more turns follow, their activations are not kept but computed again."""
        if alone or not torch.is_grad_enabled():
            return answer(views, turn)
        return checkpoint(answer, views, turn, use_reentrant=False)

    def _answer(
        self, views: list[Tensor], turn: list[int], *, space: tuple[int, ...], weights: dict[str, Tensor]
    ) -> tuple[Tensor, ...]:
        windows = torch.cat([self.patching.windows(views, number) for number in turn])
        answers = torch.func.functional_call(self.network, weights, (windows,))
        each = answers.unflatten(0, (len(turn), views[0].shape[0])).unbind(0)
        return tuple(self.patching.piece(one, number, space) for one, number in zip(each, turn, strict=True))

    def _placed(self, values: Tensor) -> Tensor:
        if not self.positions:
            return values
        where = positions(tuple(values.shape[2:]), self.patching.placements, values.dtype, values.device)
        return torch.cat([values, where.expand(values.shape[0], *where.shape)], dim=1)


def _looked_on() -> bool:
    """Whether a compiler, an export or torch.func follows the operations: they want one plain graph."""
    return (
        torch.compiler.is_compiling()
        or torch.jit.is_tracing()
        or torch._C._functorch.peek_interpreter_stack() is not None
    )


# ---------------------------------------------------------------------- across processes


@dataclass(frozen=True)
class Ranks:
    """The processes of a torch.distributed group that share the patches of each sample.

    Each of them computes the loss on the whole field, and by its own patches a part of every gradient.

    group       None: the default group, once there is one; without any, one process answers all patches
    reduction   sum: the parts are summed here, so that the network needs no wrapper; average: for a network that is
                wrapped in DistributedDataParallel over the same processes, whose average of the parts is undone by
                multiplying with their number
    """

    group: Any = None
    reduction: Reduction = "sum"

    @property
    def active(self) -> bool:
        return dist.is_available() and dist.is_initialized()

    @property
    def count(self) -> int:
        return dist.get_world_size(self.group)

    def share(self, patches: list[int]) -> list[int]:
        if self.count > len(patches):
            raise ValueError(
                f"{self.count} processes cannot share {len(patches)} patches: start at most {len(patches)}, or use "
                "more levels."
            )
        return patches[dist.get_rank(self.group) :: self.count]

    def shared(self, values: Tensor, weights: Sequence[Tensor]) -> tuple[Tensor, Sequence[Tensor]]:
        """The same tensors; their gradients are those of all processes together."""
        if self.reduction == "average":  # the weights' are left to the wrapper
            return _Shared.apply(self, 1 / self.count, values)[0], weights
        values, *weights = _Shared.apply(self, 1.0, values, *weights)
        return values, weights

    def summed(self, field: Tensor) -> Tensor:
        """The whole field from the parts; its gradient, the same on every process, goes to each of them."""
        return _Summed.apply(self, float(self.count) if self.reduction == "average" else 1.0, field)


class _Summed(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, ranks: Ranks, factor: float, field: Tensor) -> Tensor:
        ctx.factor = factor
        return _all_sum(ranks, [field])[0]

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[None, None, Tensor]:
        return None, None, ctx.factor * gradients[0]


class _Shared(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, ranks: Ranks, factor: float, *tensors: Tensor) -> tuple[Tensor, ...]:
        ctx.ranks, ctx.factor = ranks, factor
        return tuple(x.view_as(x) for x in tensors)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        return None, None, *(ctx.factor * x for x in _all_sum(ctx.ranks, gradients))


def _all_sum(ranks: Ranks, tensors: Sequence[Tensor]) -> list[Tensor]:
    """Sums over the processes, in one message."""
    real = [torch.view_as_real(x.resolve_conj()) if x.is_complex() else x for x in tensors]
    flat = torch.cat([x.reshape(-1) for x in real])
    dist.all_reduce(flat, group=ranks.group)
    parts = [part.view(x.shape) for part, x in zip(flat.split([x.numel() for x in real]), real, strict=True)]
    # a complex view begins at an even place: hence the copy
    return [torch.view_as_complex(p.clone()) if x.is_complex() else p for p, x in zip(parts, tensors, strict=True)]


# ---------------------------------------------------------------------- the model

CONVERGENCE = 1.0  # as fno

PRESETS: Mapping[tuple[str, str], Preset] = {
    ("quick", "*"): Preset(
        model={"modes": 12, "width": 24, "rank": "0.42"}, train={"epochs": 40, "batch": 8}, seconds=200.0
    ),
    # neuraloperator's patching configuration, with the margin it means: 16 of 128 nodes
    ("paper", "forced_navier_stokes"): Preset(
        model={"modes": 64, "width": 256, "rank": "0.1", "levels": 1, "margin": 0.125, "padding": 0.078},
        train={
            **{"objective": "relative_h1_difference", "batch": 8, "epochs": 600, "learning_rate": 3e-4},
            **{"schedule": "cosine", "clip": 0.0},
        },
    ),
}


def build(
    problem: Problem,
    grid: Grid,
    *,
    levels: int = 1,
    margin: float = 0.125,
    boundary: Literal["auto"] | Edge = "auto",
    low_pass: bool = False,
    blend: float = 0.0,
    coordinates: Positions = "global",
    at_once: int = 1,
    across_ranks: bool = False,
    factorization: Literal["dense"] | Factorization = "tucker",
    rank: Rank = "0.1",
    implementation: Implementation = "factorized",
    start: Start = "tensorly",
    modes: int = 12,
    width: int = 32,
    layers: int = 4,
    padding: float = 0.0,
    recipe: Recipe = Recipe(),  # noqa: B008 - frozen
) -> NetworkSolver:
    """An MG-TFNO for this problem and grid; resolutions that its patches divide are served too.

    levels           L: 2^L patches an axis, and as many coarser views of each
    margin           nodes around each patch, as a share of the side of the field
    boundary         how fields go on beyond the domain; auto: by the grid's (Dirichlet zero, Neumann reflect)
    low_pass         average before every 2^l-th node is taken, so that fine scales do not alias
    blend            share of the margin over which neighbouring patches blend; 0: cut sharply (published)
    coordinates      global: position in the domain, cut like the field; window: position in the window; none
    at_once          patches computed together; 1: least memory; 0: all, nothing computed twice (published)
    across_ranks     under torchrun: the processes share the patches of each sample
    factorization    tucker, cp, tt (tensor train), or dense
    rank             0.1: that share of the dense weights; 8: that rank for every mode; 8,8,6,4: the rank of each mode
    implementation   factorized: channels are mixed through the factors; reconstructed: the dense weight is formed first
    start            first weights: tensorly (a tensor train's are smaller than the others'), even (all alike)
    modes            Fourier modes kept an axis of a window, in total
    width            channels
    layers           Fourier blocks
    padding          share of a window's side added as zeros
    """
    working = coarse_grid(grid, recipe.coarsen)
    edges = edges_of(working) if boundary == "auto" else ((boundary, boundary),) * grid.dim
    patching = patching_of(working, levels, margin, edges=edges, blend=blend, low_pass=low_pass)
    _check_modes(patching, working, modes, recipe.coarsen)
    convolution: Convolution | None = None
    if factorization != "dense":
        convolution = functools.partial(
            FactorizedConv, factorization=factorization, rank=rank, implementation=implementation, start=start
        )
    channels = len(problem.signature.inputs) + grid.dim * (coordinates == "global")
    network = FNO(
        (levels + 1) * channels,
        len(problem.signature.outputs),
        dim=grid.dim,
        modes=modes,
        width=width,
        layers=layers,
        coordinates=coordinates == "window",
        padding=padding,
        convolution=convolution,
    )
    patched = Patched(
        network,
        patching,
        positions=coordinates == "global",
        at_once=at_once,
        ranks=Ranks() if across_ranks else None,
    )
    return NetworkSolver(patched, problem.signature, grid, recipe, any_resolution=True)


def _check_modes(patching: Patching, grid: Grid, modes: int, coarsen: int) -> None:
    """A window must hold the modes."""
    window = min(cut.window for cut in patching.cuts(grid.shape))
    if modes <= window:
        return
    smallest = tuple(n * coarsen for n in patching.smallest(modes))
    raise ValueError(
        f"mgtfno keeps {modes} modes an axis, more than the {window} nodes of its windows on the grid {grid.shape}. "
        f"The smallest grid that works has {smallest} nodes; or use --model.modes {window}, fewer --model.levels, or a "
        "wider --model.margin."
    )
