r"""Vision transformer as an operator: tokens are integrals over patches with a length, attention is a quadrature.

.. math:: z_t = \frac{1}{|p_t|}\int_{p_t} W\Big(\frac{x - x_t}{|p_t|}\Big)\, P(a, x)\, dx + B(x_t), \qquad
          z_t \leftarrow z_t + \frac{\sum_s e_{ts}\, v_s\, |p_s|}{\sum_s e_{ts}\, |p_s|},\quad
          e_{ts} = \exp(q_t\cdot k_s/\sqrt d)

a    inputs, with the position x appended;   P pointwise network of two layers (a Nemytskii operator)
W    matrix-valued kernel on a patch, W = sum_k W_k e_k with Legendre polynomials of degree < ``degrees`` an axis
B    bias of a token: a pointwise network of waves of its position x_t, so a function of the coordinates
u    = Q(sum_t chi_t(x) sum_k c_{t,k} e_k, P(a, x)): each token answers by a local function, blended by hats chi_t

Each of ``layers`` blocks is attention, then a pointwise network of the tokens, both added, after a layer norm (over
channels, so pointwise). Patches, kernels, positions and measures |p_t| belong to the domain, not to the grid: every
resolution is served, and answers converge with order 2, that of the integrals (of the piecewise linear interpolant).
The principles are those of Berner et al. 2025 (arXiv 2506.10973, their ViT: patches of 16 of 128 nodes, 768 channels,
12 layers); kernel and decoder are our choice among what they admit.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ..pde import Grid, Problem, symmetries_of
from ..training import NetworkSolver, Preset, Recipe, coarse_grid
from ._attention import SelfAttention, check_heads, measure_or_none
from ._fourier import PointwiseMLP
from ._local import Patchwork, Positions, tiles_of_length, waves_of

CONVERGENCE = 2.0  # integrals over patches of a piecewise linear interpolant; all else is exact

WAVES = 4  # of the positions of tokens, an axis
NODES_PER_PATCH = 2  # fewer, and patches would be told apart by interpolation alone


class TokenMLP(nn.Sequential):
    """Two linear maps of the channels with a GELU between."""

    def __init__(self, c_in: int, hidden: int, c_out: int) -> None:
        super().__init__(nn.Linear(c_in, hidden), nn.GELU(), nn.Linear(hidden, c_out))


class TransformerBlock(nn.Module):
    """Attention and a pointwise network, each after a norm and added to the tokens."""

    def __init__(self, width: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.attention, self.mlp = SelfAttention(width, heads), TokenMLP(width, hidden, width)
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(2))

    def forward(
        self, tokens: Float[Tensor, "batch token width"], measure: Float[Tensor, " token"] | None
    ) -> Float[Tensor, "batch token width"]:
        tokens = tokens + self.attention(self.norms[0](tokens), measure)
        return tokens + self.mlp(self.norms[1](tokens))


class ViT(nn.Module):
    """``batch c_in *space`` -> ``batch c_out *space`` in 1 to 3 dimensions, at any resolution.

    patch      length of a patch [unit of the grid]; where it does not divide an axis, the last patch is shorter
    width      channels of a token; ``channels`` those of a node; ``hidden`` those within a block's network
    degrees    polynomials of the kernels, an axis
    """

    measure: Tensor
    waves: Tensor

    def __init__(
        self,
        c_in: int,
        c_out: int,
        grid: Grid,
        *,
        patch: float,
        width: int = 96,
        layers: int = 4,
        heads: int = 4,
        hidden: int = 192,
        channels: int = 32,
        degrees: int = 4,
    ) -> None:
        super().__init__()
        check_heads(width, heads)
        self.dim, self.channels, self.degrees = grid.dim, channels, degrees
        self.place = Positions(grid)
        self.patches = Patchwork(grid, tiles_of_length(patch, grid), degrees)
        size = channels * degrees**self.dim
        self.lift = PointwiseMLP(c_in + self.place.count, 2 * channels, channels)
        self.embed = nn.Linear(size, width)
        measure = self.patches.measures()
        self.uneven = measure_or_none(measure) is not None
        self.register_buffer("measure", measure.float(), persistent=False)
        self.register_buffer("waves", _token_waves(grid, self.patches.centres()).float(), persistent=False)
        self.position = TokenMLP(self.waves.shape[-1], width, width)
        self.blocks = nn.ModuleList(TransformerBlock(width, heads, hidden) for _ in range(layers))
        self.norm = nn.LayerNorm(width)
        self.answer = nn.Linear(width, size)
        self.project = PointwiseMLP(2 * channels, 2 * channels, c_out)

    def forward(self, values: Float[Tensor, "batch c_in *space"]) -> Float[Tensor, "batch c_out *space"]:
        lifted = self.lift(self.place(values))
        tokens = self.embed(self._tokens(self.patches.gather(lifted))) + self.position(self.waves)
        for block in self.blocks:
            tokens = block(tokens, self.measure if self.uneven else None)
        coefficients = self._fields(self.answer(self.norm(tokens)))
        local = self.patches.scatter(coefficients, lifted.shape[2:])
        return self.project(torch.cat([local, lifted], dim=1))

    def _tokens(self, coefficients: Tensor) -> Float[Tensor, "batch token size"]:
        """``batch channel (patch degree)…`` to one row a patch."""
        sizes = [part for count in self.patches.counts for part in (count, self.degrees)]
        blocks = coefficients.reshape(*coefficients.shape[:2], *sizes)
        patches, degrees = range(2, 2 + 2 * self.dim, 2), range(3, 2 + 2 * self.dim, 2)
        return blocks.permute(0, *patches, 1, *degrees).flatten(1 + self.dim).flatten(1, self.dim)

    def _fields(self, tokens: Float[Tensor, "batch token size"]) -> Tensor:
        """The inverse of :meth:`_tokens`."""
        counts, degrees = self.patches.counts, (self.degrees,) * self.dim
        blocks = tokens.reshape(tokens.shape[0], *counts, self.channels, *degrees)
        paired = [axis for i in range(self.dim) for axis in (1 + i, 2 + self.dim + i)]
        sizes = [count * self.degrees for count in counts]
        return blocks.permute(0, 1 + self.dim, *paired).reshape(tokens.shape[0], self.channels, *sizes)


def _token_waves(grid: Grid, centres: Sequence[Tensor]) -> Float[Tensor, "token feature"]:
    axes = torch.meshgrid(*centres, indexing="ij")
    waves = [w for x, axis in zip(axes, grid.axes, strict=True) for w in waves_of(x, WAVES, periodic=axis.periodic)]
    return torch.stack(waves, dim=-1).flatten(0, -2)


def _navier_stokes_quick(problem: Problem) -> Preset:
    """At viscosity 1e-3 the fields have no scale that 16² nodes would not carry; below, only the whole grid will do."""
    smooth = getattr(problem, "viscosity", 0.0) >= 1e-3
    train = {"epochs": 20, "batch": 16, "coarsen": 4} if smooth else {"epochs": 4, "batch": 16}
    return Preset(model={"patch": 0.125, "width": 96}, train=train, seconds=180.0)


PRESETS: Mapping[tuple[str, str], Preset | Callable[[Problem], Preset]] = {
    ("quick", "*"): Preset(model={}, train={"epochs": 60, "batch": 8}, seconds=200.0),
    ("quick", "navier_stokes"): _navier_stokes_quick,
    ("quick", "darcy"): Preset(model={}, train={"epochs": 30, "batch": 8}, seconds=200.0),
    # Sizes of Berner et al. (forcing to vorticity at 128²); heads, epochs and rate are not stated there and are ours.
    ("paper", "navier_stokes"): Preset(
        model={"patch": 0.125, "width": 768, "layers": 12, "heads": 12, "hidden": 1900, "channels": 64, "degrees": 6},
        train={"epochs": 300, "batch": 16, "learning_rate": 5e-4, "weight_decay": 1e-4},
    ),
    ("paper", "darcy"): Preset(
        model={"patch": 0.0625, "width": 256, "layers": 8, "heads": 8, "hidden": 512, "channels": 64},
        train={"epochs": 300, "batch": 16, "learning_rate": 5e-4, "weight_decay": 1e-4},
    ),
}


def build(
    problem: Problem,
    grid: Grid,
    *,
    patch: float = 0.125,
    width: int = 96,
    layers: int = 4,
    heads: int = 4,
    hidden: int = 192,
    channels: int = 32,
    degrees: int = 4,
    recipe: Recipe = Recipe(),  # noqa: B008 - frozen
) -> NetworkSolver:
    """A vision transformer for this problem and domain; other resolutions are served too.

    patch      length of a patch, as a share of the longest side of the domain
    width      channels of a token, a multiple of the heads
    layers     transformer blocks
    heads      of the attention
    hidden     channels within the network of a block
    channels   of the fields at the nodes, before and behind the tokens
    degrees    polynomials of the patch kernels, an axis
    """
    if not 0 < patch <= 1 or min(layers, hidden, channels, degrees) < 1:
        raise ValueError(
            f"vit needs a patch in (0, 1] and layers, hidden, channels and degrees of at least 1; got {patch}, "
            f"{layers}, {hidden}, {channels} and {degrees}."
        )
    signature = problem.signature
    working = coarse_grid(grid, recipe.coarsen)
    length = patch * max(grid.lengths)
    check_size(working, length, recipe.coarsen)
    network = ViT(
        len(signature.inputs),
        len(signature.outputs),
        working,
        patch=length,
        width=width,
        layers=layers,
        heads=heads,
        hidden=hidden,
        channels=channels,
        degrees=degrees,
    )
    symmetries = symmetries_of(problem, working)
    return NetworkSolver(network, signature, grid, recipe, any_resolution=True, symmetries=symmetries)


def check_size(working: Grid, length: float, coarsen: int) -> None:
    needed = [NODES_PER_PATCH * (len(edges) - 1) for edges in tiles_of_length(length, working)]
    if any(n < least for n, least in zip(working.shape, needed, strict=True)):
        raise ValueError(
            f"vit cuts this domain into {[n // NODES_PER_PATCH for n in needed]} patches an axis and needs "
            f"{NODES_PER_PATCH} nodes in each; it would work on {working.shape}. The smallest grid that works has "
            f"{tuple(n * coarsen for n in needed)} nodes; or use a larger --model.patch."
        )
