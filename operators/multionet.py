r"""MultiONet: a DeepONet whose product is taken after several layers, not only after the last.

.. math:: t^1 = \sigma_t(W^0_t y + c^0_t),\quad b^1 = \sigma_b(W^0_b \beta + c^0_b),\qquad
          t^{k+1} = \sigma_t(W^k_t t^k + c^k_t),\quad b^{k+1} = \sigma_b(W^k_b b^k + c^k_b),

.. math:: G(\beta)(y) = \frac1l \sum_{k=L-l+1}^{L} w_k\,\langle b^k, t^k\rangle + c,\qquad 1 \le l \le L - 1

beta   code of the input, from an encoder: fully connected or convolutional; the same for all outputs
L, W   layers and neurons, the same in both networks; *every* layer keeps its activation, the last too
l      layers in the mean, counted from the last
w_k    learned factors, c a learned constant, all zero at first (published): so is the answer, and the first gradient
       reaches only them. ``factors`` one starts from the plain mean of the paper's figure (on Burgers, 256 samples,
       150 epochs: 0.0106 on the validation split against 0.0169)

Zang and Koutsourelakis 2025 (arXiv 2502.06250 and its public code). Parameters without the encoder:
(d_y + 1) W + (d_beta + 1) W + 2 (L - 1) W (W + 1) + l + 1.

Several outputs: one such pair of networks each, or ``vector`` (MultiONet_X): the branch reads each entry of the code
for itself, with the same weights, the products with the trunk are averaged over l layers without w_k, and one linear
map takes the d_beta numbers to the outputs.

Measured on Burgers (128 nodes, 256 samples, 150 epochs, relative L2 on 64 unseen ones, two seeds; ``factors`` one):
0.0114 and 0.0124. The DeepONet of the same sizes with tanh throughout: 0.072 and 0.064. With this encoder (SiLU) before
its branch: 0.0126 and 0.0109; with MultiONet's other activations too: 0.0112 and 0.0126. The advantage here is that of
the encoder's activation, none is seen from products in all layers.

Discretisation: as DeepONet. The answer is a function of y, the same on every output grid; the sensors are fixed, and
inputs on another grid are interpolated to them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Literal, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ..pde import Grid, Problem, symmetries_of
from ..training import Preset, Recipe, coarse_grid
from ._branched import Branched, BranchedSolver, Walls, sensor_grid
from ._branches import Activation, Convolutional, Dense, Flat
from ._trunk import FieldTrunk, Interpolation, Positions

Factors = Literal["zero", "one"]
Encoder = Literal["auto", "fc", "cnn"]
Outputs = Literal["separate", "vector"]

CONVERGENCE = 4.0  # of the splines that bring an input from another grid to the sensors; outputs are exact anywhere

LARGEST_DENSE = 1024  # sensor values up to which a 2-D or 3-D input is read by a fully connected encoder


class Pair(nn.Module):
    """The branch and the trunk: their last l layers, and the trunk's derivatives.

    dim      entries of a point; with ``positions`` those of its description
    code     entries that the branch reads
    branch   widths of its layers; those of ``trunk`` must be the same
    last     l; 0: all but the first layer
    field    the trunk, of the same widths, in place of layers with this activation
    """

    def __init__(
        self,
        dim: int,
        code: int,
        *,
        branch: Sequence[int],
        trunk: Sequence[int],
        last: int = 0,
        branch_activation: Activation = "silu_id",
        trunk_activation: Activation = "silu_sin",
        positions: nn.Module | None = None,
        field: FieldTrunk | None = None,
    ) -> None:
        super().__init__()
        if tuple(branch) != tuple(trunk) or len(set(trunk)) != 1:
            raise ValueError(
                f"Every layer of both networks has the same width, for products are taken layer by layer; got branch "
                f"{list(branch)} and trunk {list(trunk)}."
            )
        if len(trunk) < 2 or not 0 <= last < len(trunk):
            raise ValueError(
                f"last must be from 1 to {max(1, len(trunk) - 1)}: there are {len(trunk)} layers (2 at least), and the "
                f"first is never summed; got {last}."
            )
        self.last = last or len(trunk) - 1
        self.positions = nn.Identity() if positions is None else positions
        self.branch = Dense([code, *branch], branch_activation, last=True)
        self.trunk = Dense([dim, *trunk], trunk_activation, last=True) if field is None else field

    def code_layers(self, code: Float[Tensor, "*batch code"]) -> Float[Tensor, "*batch layer width"]:
        return self.branch.hidden(code, self.last)

    def features(self, points: Float[Tensor, "*batch dim"]) -> Float[Tensor, "*batch layer width"]:
        return self.trunk.hidden(self.positions(points), self.last)

    def features_and_gradients(
        self, points: Float[Tensor, "point dim"]
    ) -> tuple[Float[Tensor, "point layer width"], Float[Tensor, "point layer width dim"]]:
        """The trunk and its derivatives by the coordinates of the points, in one forward sweep.

        Both are linear in what a branch multiplies: ``combine`` of the second, one coordinate at a time, is the
        gradient of the answer, for any number of codes.
        """
        directions = torch.eye(points.shape[-1], dtype=points.dtype, device=points.device)

        def push(direction: Tensor) -> tuple[Tensor, Tensor]:
            values, slopes, *_ = torch.func.jvp(self.features, (points,), (direction.expand_as(points),))
            return values, slopes

        # None: the values depend on no direction, so they are computed once
        return torch.func.vmap(push, out_dims=(None, -1))(directions)  # type: ignore[arg-type]


class MultiONet(nn.Module):
    """One output: (code ``batch code``, points) -> values, for points ``point dim`` or ``batch point dim``.

    Options are those of :class:`Pair`; ``factors`` is the initial value of the w_k.
    """

    outputs = 1

    def __init__(self, dim: int, code: int, *, factors: Factors = "zero", **options: object) -> None:
        super().__init__()
        self.pair = Pair(dim, code, **options)  # type: ignore[arg-type]
        self.weight = nn.Parameter(torch.full((self.pair.last,), float(factors == "one")))
        self.bias = nn.Parameter(torch.zeros(()))

    def code_layers(self, code: Float[Tensor, "batch code"]) -> Float[Tensor, "batch 1 layer width"]:
        """What is multiplied with the trunk: w_k b^k / l."""
        return (self.weight[:, None] / self.pair.last * self.pair.code_layers(code))[:, None]

    def constant(self) -> Float[Tensor, " 1"]:
        return self.bias[None]

    def forward(
        self, code: Float[Tensor, "batch code"], points: Float[Tensor, "*batch_point dim"]
    ) -> Float[Tensor, "batch 1 point"]:
        return answer(self, code, points)


class MultiONetX(nn.Module):
    """Several outputs from one pair of networks: the branch reads each entry of the code for itself."""

    def __init__(self, dim: int, code: int, outputs: int, **options: object) -> None:
        super().__init__()
        self.outputs = outputs
        self.pair = Pair(dim, 1, **options)  # type: ignore[arg-type]
        self.head = nn.Linear(code, outputs)

    def code_layers(self, code: Float[Tensor, "batch code"]) -> Float[Tensor, "batch output layer width"]:
        """The linear map of the outputs is applied before the products with the trunk, not after: the same numbers,
        without ``batch point code`` in memory.
        """
        return torch.einsum("oc,bclw->bolw", self.head.weight / self.pair.last, self.pair.code_layers(code[..., None]))

    def constant(self) -> Float[Tensor, " output"]:
        return self.head.bias

    def forward(
        self, code: Float[Tensor, "batch code"], points: Float[Tensor, "*batch_point dim"]
    ) -> Float[Tensor, "batch output point"]:
        return answer(self, code, points)


Decoder = MultiONet | MultiONetX


def answer(decoder: Decoder, code: Tensor, points: Tensor) -> Float[Tensor, "batch output point"]:
    """A decoder at ``point dim`` shared by all codes, or at ``batch point dim``."""
    product = combine if points.ndim == 2 else combine_aligned
    return product(decoder.code_layers(code), decoder.pair.features(points)) + decoder.constant()[:, None]


def combine(
    code: Float[Tensor, "batch output layer width"], features: Float[Tensor, "point layer width"]
) -> Float[Tensor, "batch output point"]:
    """Sums over layers and width at once: one matrix product."""
    return code.flatten(2) @ features.flatten(1).t()


def combine_aligned(
    code: Float[Tensor, "batch output layer width"], features: Float[Tensor, "batch point layer width"]
) -> Float[Tensor, "batch output point"]:
    return code.flatten(2) @ features.flatten(2).mT


class Encoded(Branched):
    """An encoder, and decoders that read the same code.

    bounded   tanh on the code, as DGNO has it
    """

    def __init__(
        self,
        grid: Grid,
        sensors: Grid,
        encoder: nn.Module,
        decoders: Sequence[Decoder],
        *,
        bounded: bool = False,
        method: Interpolation = "cubic",
    ) -> None:
        super().__init__(grid, sensors, method)
        self.encoder, self.decoders, self.bounded = encoder, nn.ModuleList(decoders), bounded

    def encode(self, sensed: Float[Tensor, "batch c_in *sensor"]) -> Float[Tensor, "batch code"]:
        code = self.encoder(sensed)
        return torch.tanh(code) if self.bounded else code

    def features(self, points: Float[Tensor, "point dim"]) -> Float[Tensor, "point decoder layer width"]:
        return torch.stack([decoder.pair.features(points) for decoder in self._decoders()], dim=-3)

    def node_features(self) -> Float[Tensor, "node decoder layer width"]:
        return self.features(self.nodes)

    def combine(
        self, code: Float[Tensor, "batch code"], features: Float[Tensor, "point decoder layer width"]
    ) -> Float[Tensor, "batch output point"]:
        return self._each(combine, code, features)

    def combine_aligned(
        self, code: Float[Tensor, "batch code"], features: Float[Tensor, "batch point decoder layer width"]
    ) -> Float[Tensor, "batch output point"]:
        return self._each(combine_aligned, code, features)

    def _decoders(self) -> list[Decoder]:
        return [cast(Decoder, decoder) for decoder in self.decoders]

    def _each(self, product: Callable[[Tensor, Tensor], Tensor], code: Tensor, features: Tensor) -> Tensor:
        pairs = zip(self._decoders(), features.unbind(-3), strict=True)
        return torch.cat([product(d.code_layers(code), own) + d.constant()[:, None] for d, own in pairs], dim=1)


def _navier_stokes_quick(problem: Problem) -> Preset:
    """At viscosity 1e-3 the fields have no scale that 16² nodes would not carry; below, only the whole grid will do."""
    coarsen = 4 if getattr(problem, "viscosity", 0.0) >= 1e-3 else 1
    train = {**_QUICK, "epochs": 20 if coarsen == 4 else 4, "coarsen": coarsen}
    model = {"factors": "one", "width": 128, "encoder": "fc", "sensors": 0 if coarsen == 4 else 32}
    return Preset(model=model, train=train, seconds=180.0)


_QUICK = {"batch": 16, "learning_rate": 1e-3}
_SUPERVISED = {"width": 128, "layers": 5, "last": 4, "trunk_activation": "silu_sin", "branch_activation": "silu"}
_HALVED = {"schedule": "step", "step_every": 400.0, "step_factor": 0.5}
PRESETS: Mapping[tuple[str, str], Preset | Callable[[Problem], Preset]] = {
    ("quick", "*"): Preset(model={"factors": "one"}, train={**_QUICK, "epochs": 300}, seconds=200.0),
    ("quick", "navier_stokes"): _navier_stokes_quick,
    # outputs vanish on the walls; half the nodes an axis carry the inputs (every second one is a sensor)
    ("quick", "darcy"): Preset(
        model={"factors": "one", "sensors": 31, "walls": "zero"},
        train={**_QUICK, "epochs": 60, "augment": True},
        seconds=200.0,
    ),
    ("quick", "poisson"): Preset(
        model={"factors": "one", "walls": "zero", "encoder": "fc"},
        train={**_QUICK, "epochs": 150},
        seconds=200.0,
    ),
    ("paper", "burgers"): Preset(
        model={**_SUPERVISED, "hidden": "256 128 64", "sensors": 128},
        train={"epochs": 2000, "batch": 50, "learning_rate": 5e-4, "weight_decay": 0.0, **_HALVED},
    ),
    # The sizes of the supervised encoder are not published (2.46 M parameters); those of DGNO are, and used here.
    ("paper", "darcy"): Preset(
        model={
            **{"width": 100, "layers": 5, "last": 4, "trunk_activation": "tanh_sin", "branch_activation": "tanh_sin"},
            **{"sensors": 29, "encoder": "fc", "hidden": "512 256", "bounded": True, "walls": "zero"},
        },
        train={
            **{"epochs": 2000, "batch": 50, "learning_rate": 1e-3, "optimizer": "adam", "weight_decay": 1e-4},
            **{"normalise": "pointwise", **_HALVED},
        },
    ),
    ("paper", "stokes"): Preset(  # its sizes are not published either: those of Burgers
        model={**_SUPERVISED, "outputs": "vector"},
        train={"epochs": 2000, "batch": 50, "learning_rate": 5e-4, "weight_decay": 0.0, **_HALVED},
    ),
}


def build(
    problem: Problem,
    grid: Grid,
    *,
    width: int = 100,
    layers: int = 5,
    last: int = 0,
    code: int = 128,
    encoder: Encoder = "auto",
    hidden: str = "256 128",
    channels: str = "64 64 64",
    trunk_activation: Activation = "silu_sin",
    branch_activation: Activation = "silu_id",
    factors: Factors = "zero",
    outputs: Outputs = "separate",
    bounded: bool = False,
    harmonics: int = 2,
    trunk: str = "dense",
    trunk_waves: float = 2.0,
    sensors: int = 0,
    walls: Walls = "free",
    interpolation: Interpolation = "cubic",
    recipe: Recipe = Recipe(),  # noqa: B008 - frozen
) -> BranchedSolver:
    """A MultiONet for this problem and grid; its answer is served on any grid.

    width               W, neurons of every layer of branch and trunk
    layers              L, layers of both
    last                l, layers in the mean, counted from the last; at most layers - 1; 0: that many
    code                entries of the code that the encoder gives
    encoder             fc; cnn: convolutions 3 wide with stride 2; auto: cnn for more than 1024 values in 2-D and 3-D
    hidden              widths of the encoder's linear layers before the code, like '512 256'
    channels            of the encoder's convolutions (cnn), like '64 64 64'
    trunk_activation    relu, tanh, gelu, silu, tanh_sin, silu_sin, silu_id, sinc
    branch_activation   the same choice; of the branch (the encoder has silu)
    factors             initial w_k: zero (published code), or one (the paper's figure)
    outputs             several outputs: separate pairs of networks, or vector (MultiONet_X)
    bounded             tanh on the code, as DGNO has it
    harmonics           periodic axes: the trunk sees cos and sin of 2 pi h x up to this h; 0: x itself (published)
    trunk               dense, or a field with plain layers, whose layers are the trunk's: siren, winner, finer, gauss
    trunk_waves         of a field: waves across each axis that its first layer starts with, root mean square
    sensors             sensors an axis; 0: the nodes of the training grid
    walls               free, or zero: multiply by the distances to Dirichlet walls, where outputs vanish
    interpolation       of inputs to the sensors on axes with walls: cubic, or linear (without overshoot at jumps)
    """
    working = coarse_grid(grid, recipe.coarsen)
    places = sensor_grid(working, sensors)
    c_in, c_out = len(problem.signature.inputs), len(problem.signature.outputs)
    if min(width, layers, code) < 1:
        raise ValueError(f"multionet needs width, layers and code of at least 1; got {width}, {layers}, {code}.")
    if outputs == "vector" and factors == "one":
        raise ValueError("The vector form has no factors w_k: leave --model.factors at zero.")
    sizes = [*numbers_of("hidden", hidden), code]
    convolve = encoder == "cnn" or (encoder == "auto" and grid.dim > 1 and c_in * places.size > LARGEST_DENSE)
    reader: nn.Module = (
        Convolutional(c_in, places.shape, numbers_of("channels", channels), sizes, "silu", wide=3)
        if convolve
        else Flat(Dense([c_in * places.size, *sizes], "silu"))
    )

    def decoder() -> Decoder:
        field = None if trunk == "dense" else field_trunk(working, trunk, width, layers, trunk_waves)
        where = Positions(working, 0 if field else harmonics)  # a field takes positions as they are
        shared = {
            **{"branch": [width] * layers, "trunk": [width] * layers, "last": last, "field": field},
            **{"positions": None if field else where},
            **{"branch_activation": branch_activation, "trunk_activation": trunk_activation},
        }
        if outputs == "vector":
            return MultiONetX(where.count, code, c_out, **shared)
        return MultiONet(where.count, code, factors=factors, **shared)

    decoders = [decoder() for _ in range(1 if outputs == "vector" else c_out)]
    network = Encoded(working, places, reader, decoders, bounded=bounded, method=interpolation)
    symmetries = symmetries_of(problem, working)
    return BranchedSolver(network, problem.signature, grid, recipe, walls=walls, symmetries=symmetries)


def field_trunk(grid: Grid, name: str, width: int, layers: int, waves: float) -> FieldTrunk:
    """A field whose hidden layers all have this width; its last, linear layer has no part in a MultiONet."""
    made = FieldTrunk(grid, name, 1, width=width, layers=layers, waves=waves)
    widths = made.hidden(torch.zeros(1, grid.dim) + torch.tensor([axis.lower for axis in grid.axes]), 0).shape[-2:]
    if tuple(widths) != (layers, width):
        found = " x ".join(map(str, widths))
        raise ValueError(f"The branch has {layers} x {width} layers and neurons, a {name} {found}: use siren.")
    made.field.network.get_submodule(f"linears.{layers}").requires_grad_(False)
    return made


def numbers_of(name: str, words: str) -> list[int]:
    """A list of sizes written as words."""
    if not words.split() or any(not word.isdigit() or int(word) < 1 for word in words.split()):
        raise ValueError(f"{name} is a list of positive numbers like '256 128', got {words!r}.")
    return [int(word) for word in words.split()]
