r"""TFNO, the FNO with factorised spectral weights: a tenth of the numbers and less (Kossaifi et al., TMLR 2024).

The weight :math:`T\in\mathbb C^{C\times C\times m_1\times\dots\times m_d}` of each block (``fno``) is held as

==========  =========================================================================  =========================
``cp``      :math:`T=\sum_r \lambda_r\,u_r\circ v_r\circ w^1_r\circ\dots\circ w^d_r`    R + R sum I_n
``tucker``  :math:`T=G\times_1 U\times_2 V\times_3 W^1\cdots`, core G of r_1 ... r_N     prod r_n + sum r_n I_n
``tt``      a train of cores (r_{n-1}, I_n, r_n) in the order in, out, modes            sum r_{n-1} I_n r_n
==========  =========================================================================  =========================

with the number of complex parameters on the right, N = d + 2 and I the shape of T. ``separable`` weights mix no
channels: T has the shape C, m_1, ..., m_d and N = d + 1.

The rank is read as tensorly reads it: a float is the *share* of the dense parameters (0.42 of (32, 32, 16, 9) gives
Tucker ranks (26, 26, 13, 7): 63,451 of 147,456), a whole number that rank for *every* mode (1 is not 1.0), several
numbers the rank of each mode (``tt``: N + 1 of them, the first and the last 1).

The channels are mixed through the factors (``implementation="factorized"``), or the dense weight is formed first
(``reconstructed``): the same function, to rounding. First weights are tensorly-torch's: Tucker and CP tensors whose
entries have the standard deviation sqrt(1 / C) of the dense network's. Those of its trains are smaller, by the root of
the product of the ranks; ``start="even"`` gives them the same deviation. Resolution may change, as with the FNO.
"""

from __future__ import annotations

import functools
import math
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ..kernels import CP, TT, Tucker, spectral_conv
from ..kernels._factors import to_dense
from ..pde import Grid, Problem
from ..training import NetworkSolver, Preset, Recipe
from .fno import fourier_network

Factorization = Literal["tucker", "cp", "tt"]
Implementation = Literal["factorized", "reconstructed"]
Start = Literal["tensorly", "even"]
Rank = str | float | int | Sequence[int]

CONVERGENCE = 1.0  # as fno

_LIBRARY = "tensorly-torch (pip install tensorly-torch; it comes with neuraloperator)"


class FactorizedConv(nn.Module):
    """A spectral convolution ``batch width *space`` -> the same, with bias, whose weight is held in factors.

    modes          as kept: the last Fourier axis halved
    rank           share (float), rank of every mode (int) or of each mode (several ints); see the module
    """

    def __init__(
        self,
        width: int,
        modes: tuple[int, ...],
        basis: tuple[str, ...] = (),
        *,
        factorization: Factorization = "tucker",
        rank: Rank = 0.1,
        implementation: Implementation = "factorized",
        separable: bool = False,
        start: Start = "tensorly",
    ) -> None:
        super().__init__()
        self.basis = basis or ("fourier",) * len(modes)
        self.factorization, self.implementation = factorization, implementation
        shape = (width, *modes) if separable else (width, width, *modes)
        self.ranks = ranks_of(shape, rank, factorization)
        dtype = torch.complex64 if "fourier" in self.basis else torch.float32
        core, factors = _first_weights(shape, self.ranks, factorization, dtype, std=1 / math.sqrt(width), start=start)
        self.core = None if core is None else nn.Parameter(core)  # CP: its weights; a train has none
        self.factors = nn.ParameterList(factors)
        self.bias = nn.Parameter(torch.empty(width).normal_(0, 1 / math.sqrt(width)))

    @property
    def weight(self) -> CP | Tucker | TT:
        factors = tuple(self.factors)
        if self.core is None:
            return TT(factors)
        return CP(self.core, factors) if self.factorization == "cp" else Tucker(self.core, factors)

    def forward(self, values: Float[Tensor, "batch width *space"]) -> Float[Tensor, "batch width *space"]:
        weight = self.weight if self.implementation == "factorized" else to_dense(self.weight)
        return spectral_conv(values, weight, self.bias, basis=self.basis)


# ---------------------------------------------------------------------- ranks


def ranks_of(shape: Sequence[int], rank: Rank, factorization: Factorization) -> tuple[int, ...]:
    """The rank of each mode (``cp``: one number; ``tt``: those between the modes, with a 1 at both ends).

    Raises ``ValueError`` for ranks that no tensor of this shape needs.
    """
    wanted = parsed_rank(rank)
    most = greatest_ranks(shape, factorization)
    if isinstance(wanted, float):
        if not 0 < wanted <= 1:
            raise ValueError(f"A rank with a decimal point is a share of the dense weights, in (0, 1]; got {wanted}.")
        return _ranks_of_share(tuple(shape), wanted, factorization)
    if isinstance(wanted, int):
        found = tuple(1 if end else wanted for end in _ends(factorization, len(most)))
    else:
        found = wanted
    if len(found) != len(most) or not all(1 <= r <= top for r, top in zip(found, most, strict=True)):
        one = min(top for top, end in zip(most, _ends(factorization, len(most)), strict=True) if not end)
        several = "" if factorization == "cp" else f"; or {len(most)} numbers from 1 to {most}"
        raise ValueError(
            f"A {factorization} weight of shape {tuple(shape)} has no use for rank {rank!r}: it takes a share in "
            f"(0, 1] like 0.1, a whole number from 1 to {one}{several}."
        )
    return found


def parsed_rank(rank: Rank) -> float | int | tuple[int, ...]:
    """A rank as it is written on the command line: ``0.42``, ``8``, ``8,8,6,4``."""
    if not isinstance(rank, str):
        return rank if isinstance(rank, float | int) else tuple(rank)
    words = rank.replace(",", " ").split()
    try:
        if len(words) == 1:
            return int(words[0]) if words[0].lstrip("+-").isdigit() else float(words[0])
        return tuple(int(word) for word in words) if words else float("")
    except ValueError:
        raise ValueError(
            f"A rank is a share like 0.42, a number like 8, or several like 8,8,6,4; got {rank!r}."
        ) from None


def greatest_ranks(shape: Sequence[int], factorization: Factorization) -> tuple[int, ...]:
    """Ranks with which every tensor of this shape can be written."""
    total = math.prod(shape)
    if factorization == "tucker":
        return tuple(min(n, total // n) for n in shape)
    if factorization == "cp":
        return (total // max(shape),)
    left = [math.prod(shape[:i]) for i in range(len(shape) + 1)]
    return tuple(min(n, total // n) for n in left)


def _ends(factorization: Factorization, count: int) -> list[bool]:
    """Which ranks are 1 by definition: those before and behind a train."""
    return [factorization == "tt" and i in (0, count - 1) for i in range(count)]


def _ranks_of_share(shape: tuple[int, ...], share: float, factorization: Factorization) -> tuple[int, ...]:
    _tensorized()
    from tensorly.cp_tensor import validate_cp_rank
    from tensorly.tt_tensor import validate_tt_rank
    from tensorly.tucker_tensor import validate_tucker_rank

    if factorization == "cp":
        return (max(1, int(validate_cp_rank(shape, share))),)
    with warnings.catch_warnings():  # a weight of two modes is "trivial" to it, not to us
        warnings.simplefilter("ignore", UserWarning)
        found = validate_tucker_rank(shape, share) if factorization == "tucker" else validate_tt_rank(shape, share)
    return tuple(int(r) for r in found)


# ---------------------------------------------------------------------- first weights


@functools.cache
def _tensorized() -> Any:
    """tensorly-torch's factorised tensor, imported when first asked for."""
    try:
        from tltorch.factorized_tensors import FactorizedTensor
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(f"Factorised weights need {_LIBRARY}: no module {error.name!r}.") from error
    return FactorizedTensor


@torch.no_grad()
def _first_weights(
    shape: tuple[int, ...],
    ranks: tuple[int, ...],
    factorization: Factorization,
    dtype: torch.dtype,
    *,
    std: float,
    start: Start,
) -> tuple[Tensor | None, list[Tensor]]:
    """Core and factors, normal; ``std`` is the standard deviation that the entries of the whole tensor should have."""
    if factorization == "tt" and start == "even":
        std *= math.sqrt(math.prod(ranks))
    kind = f"complex{factorization}" if dtype.is_complex else factorization
    given = ranks[0] if factorization == "cp" else ranks
    made = _tensorized().new(shape, rank=given, factorization=kind, dtype=dtype).normal_(0, std)
    factors = [made.factors[i].detach().clone() for i in range(len(shape))]
    if factorization == "tt":
        return None, factors
    return (made.weights if factorization == "cp" else made.core).detach().clone(), factors


# neuraloperator's H1 loss takes central differences; its learning rate halves every 100 epochs (here a cosine).
_H1 = {"objective": "relative_h1_difference", "batch": 8, "schedule": "cosine", "clip": 0.0}
PRESETS: Mapping[tuple[str, str], Preset] = {
    ("quick", "*"): Preset(
        model={"modes": 12, "width": 24, "rank": "0.42"}, train={"epochs": 60, "batch": 8}, seconds=200.0
    ),
    ("quick", "darcy"): Preset(
        model={"modes": 12, "width": 24, "rank": "0.42"}, train={"epochs": 14, "batch": 8}, seconds=200.0
    ),
    # neuraloperator's configurations: the Darcy example, and the medium network on the forced flow
    ("paper", "darcy"): Preset(
        model={"modes": 16, "width": 32, "rank": "0.42"}, train={**_H1, "epochs": 300, "learning_rate": 8e-3}
    ),
    ("paper", "forced_navier_stokes"): Preset(
        model={"modes": 64, "width": 64, "rank": "0.1"}, train={**_H1, "epochs": 600, "learning_rate": 3e-4}
    ),
}


def build(
    problem: Problem,
    grid: Grid,
    *,
    factorization: Factorization = "tucker",
    rank: Rank = "0.1",
    implementation: Implementation = "factorized",
    separable: bool = False,
    start: Start = "tensorly",
    modes: int = 16,
    width: int = 32,
    layers: int = 4,
    coordinates: bool = True,
    padding: float = 0.1,
    recipe: Recipe = Recipe(),  # noqa: B008 - frozen
) -> NetworkSolver:
    """A TFNO for this problem and grid; other resolutions are served too.

    factorization    tucker, cp or tt (tensor train)
    rank             0.1: that share of the dense weights; 8: that rank for every mode; 8,8,6,4: the rank of each mode
    implementation   factorized: channels are mixed through the factors; reconstructed: the dense weight is formed first
    separable        no mixing of channels in the spectral weights
    start            first weights: tensorly (a tensor train's are smaller than the others'), even (all alike)
    modes            Fourier modes kept an axis, in total; at most the nodes of the grid
    width            channels
    layers           Fourier blocks
    coordinates      append the position to the inputs
    padding          axes with walls: share of their length added as zeros, so that the box is periodic
    """
    convolution = functools.partial(
        FactorizedConv,
        factorization=factorization,
        rank=rank,
        implementation=implementation,
        separable=separable,
        start=start,
    )
    network = fourier_network(
        problem,
        grid,
        recipe,
        modes=modes,
        padding=padding,
        width=width,
        layers=layers,
        coordinates=coordinates,
        convolution=convolution,
    )
    return NetworkSolver(network, problem.signature, grid, recipe, any_resolution=True)
