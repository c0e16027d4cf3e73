r"""DeepONet: coefficients from a branch that reads the input at sensors, a basis from a trunk of position.

.. math:: G(a)(y) = \sum_{k=1}^p b_k\big(a(s_1), \dots, a(s_m)\big)\, t_k(y) + b_0

s_j   sensors, the nodes of the training grid or of a coarser one; b   branch, its last layer linear
y     any point; t   trunk, its last layer *with* activation, the basis; b_0   one number an output

Lu, Jin and Karniadakis 2019 (arXiv 1910.03193), Lu et al. 2022 (arXiv 2111.05512).

``unstacked``   one branch network with p outputs
``stacked``     p branch networks with one output each
``pod``         t_k the principal components of the *training* outputs and b_0 their mean field (the published script
                takes them from the test outputs); only the branch is learned

Several outputs: ``independent`` networks; or one branch and one trunk, both with p functions for each output
(``split_both``), or only the branch (``split_branch``: a common basis) or only the trunk (``split_trunk``: common
coefficients). On periodic axes the trunk sees cos and sin of 2 pi x and 4 pi x, so its answer is periodic. With
``walls`` zero the answer is multiplied by the distances to the Dirichlet walls.

Discretisation: the answer is a function, so any output grid evaluates the same one (``pod``: by interpolation). The
sensors are fixed: an input on another grid is interpolated to them, by its Fourier series on periodic axes, by
polynomials through the nearest nodes on others. Answers converge as the input grid is refined (at order 4, cubic), but
never see more than the sensors do.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ..pde import Grid, Problem, symmetries_of
from ..training import Preset, Recipe, coarse_grid
from ._branched import Branched, BranchedSolver, Walls, sensor_grid
from ._branches import Activation, Convolutional, Dense, Flat, Stacked
from ._trunk import FieldTrunk, Form, Interpolation, PodBasis, Positions

Kind = Literal["unstacked", "stacked", "pod"]
Branch = Literal["auto", "fc", "cnn"]

CONVERGENCE = 4.0  # of the splines that bring an input from another grid to the sensors; outputs are exact anywhere

LARGEST_DENSE = 2048  # sensor values up to which a 2-D or 3-D input is read by a fully connected branch


class DeepONet(Branched):
    """Branches and trunks, and their product.

    branches   each ``batch c_in *sensor`` -> ``batch group*feature``; one, or one for each output
    trunks     each ``point dim`` -> ``point group*feature``; one, or one for each output; any module of that form
    groups     (of all branches together, of all trunks together): the number of outputs, or 1 where it is shared
    average    divide the sum by its number of terms
    """

    def __init__(
        self,
        grid: Grid,
        sensors: Grid,
        branches: Sequence[nn.Module],
        trunks: Sequence[nn.Module],
        *,
        outputs: int,
        groups: tuple[int, int],
        features: int,
        average: bool = False,
        method: Interpolation = "cubic",
    ) -> None:
        super().__init__(grid, sensors, method)
        self.branches, self.trunks = nn.ModuleList(branches), nn.ModuleList(trunks)
        self.outputs, self.groups = outputs, groups
        self.scale = 1 / features if average else 1.0
        self.bias = None if self.basis is not None else nn.Parameter(torch.zeros(outputs))

    @property
    def basis(self) -> PodBasis | None:
        """The fixed basis, where there is one in place of trunk networks."""
        first = self.trunks[0]
        return first if isinstance(first, PodBasis) else None

    def encode(self, sensed: Float[Tensor, "batch c_in *sensor"]) -> Float[Tensor, "batch group feature"]:
        code = torch.cat([branch(sensed) for branch in self.branches], dim=1).unflatten(1, (self.groups[0], -1))
        code = self.scale * code
        # the coefficient of the mean field is 1
        return code if self.basis is None else torch.cat([torch.ones_like(code[..., :1]), code], dim=-1)

    def features(self, points: Float[Tensor, "point dim"]) -> Float[Tensor, "point group feature"]:
        if self.basis is not None:
            return self.basis(points)
        return torch.cat([trunk(points) for trunk in self.trunks], dim=1).unflatten(1, (self.groups[1], -1))

    def node_features(self) -> Float[Tensor, "node group feature"]:
        return self.features(self.nodes) if self.basis is None else self.basis.on_nodes()

    def combine(
        self, code: Float[Tensor, "batch group feature"], features: Float[Tensor, "point group2 feature"]
    ) -> Float[Tensor, "batch output point"]:
        code, features = self._spread(code), self._spread(features)
        return self._shift(torch.einsum("bgk,ngk->bgn", code, features))

    def combine_aligned(
        self, code: Float[Tensor, "batch group feature"], features: Float[Tensor, "batch point group2 feature"]
    ) -> Float[Tensor, "batch output point"]:
        code, features = self._spread(code), self._spread(features)
        return self._shift(torch.einsum("bgk,bngk->bgn", code, features))

    def _spread(self, values: Tensor) -> Tensor:
        """A shared group for every output."""
        return values.expand(*values.shape[:-2], self.outputs, values.shape[-1])

    def _shift(self, values: Tensor) -> Tensor:
        return values if self.bias is None else values + self.bias[:, None]


def groups_of(form: Form, outputs: int) -> tuple[int, int]:
    """How many sets of functions the branches and the trunks have together."""
    return (1 if form == "split_trunk" else outputs, 1 if form == "split_branch" else outputs)


def dense_trunk(grid: Grid, sizes: Sequence[int], activation: Activation, harmonics: int = 2) -> nn.Module:
    """The published trunk: positions, then layers of the given sizes that all keep their activation."""
    where = Positions(grid, harmonics)
    return nn.Sequential(where, Dense([where.count, *sizes], activation, last=True))


def _navier_stokes_quick(problem: Problem) -> Preset:
    """At viscosity 1e-3 the fields have no scale that 16² nodes would not carry; below, only the whole grid will do."""
    coarsen = 4 if getattr(problem, "viscosity", 0.0) >= 1e-3 else 1
    train = {"epochs": 20 if coarsen == 4 else 4, "batch": 16, "coarsen": coarsen}
    return Preset(
        model={"width": 256, "branch": "fc", "sensors": 0 if coarsen == 4 else 32}, train=train, seconds=180.0
    )


_QUICK = {"batch": 16, "learning_rate": 1e-3}
_SMOOTH = {"learning_rate": 1e-3, "weight_decay": 0.0}
# The published scripts take 50,000 to 500,000 full batches; the rate falls as 1 / (1 + t), t = 2.5 at the end. Five
# steps of 0.78 reach the same.
_SLOWER = {"schedule": "step", "step_every": 0.2, "step_factor": 0.78}
PRESETS: Mapping[tuple[str, str], Preset | Callable[[Problem], Preset]] = {
    ("quick", "*"): Preset(model={"width": 128}, train={**_QUICK, "epochs": 300}, seconds=200.0),
    ("quick", "navier_stokes"): _navier_stokes_quick,
    # outputs vanish on the walls; half the nodes an axis carry the inputs (every second one is a sensor)
    ("quick", "darcy"): Preset(
        model={"sensors": 31, "walls": "zero"}, train={**_QUICK, "epochs": 60, "augment": True}, seconds=200.0
    ),
    ("quick", "poisson"): Preset(
        model={"walls": "zero", "branch": "fc"}, train={**_QUICK, "epochs": 150}, seconds=200.0
    ),
    ("paper", "antiderivative"): Preset(
        model={"width": 40, "layers": 2, "activation": "relu"},
        train={
            **{"epochs": 5000, "batch": 1000, "schedule": "constant", "rise": 0.0, **_SMOOTH},
            **{"normalise": "none", "objective": "mean_square"},
        },
    ),
    ("paper", "burgers"): Preset(
        model={"width": 128, "layers": 4, "trunk_layers": 3, "activation": "tanh", "sensors": 128},
        train={
            **{"epochs": 500_000, "batch": 1000, **_SMOOTH, **_SLOWER},
            **{"normalise": "pointwise", "objective": "mean_square"},
        },
    ),
    ("paper", "darcy"): Preset(
        model={
            **{"width": 128, "layers": 2, "trunk_layers": 4, "activation": "relu", "branch": "cnn", "channels": 64},
            **{"sensors": 29, "walls": "zero"},
        },
        train={
            **{"epochs": 100_000, "batch": 1000, "learning_rate": 3e-4, "weight_decay": 1e-4},
            **{"normalise": "pointwise", "objective": "mean_square", **_SLOWER},
        },
    ),
}


def build(
    problem: Problem,
    grid: Grid,
    *,
    kind: Kind = "unstacked",
    width: int = 128,
    layers: int = 3,
    trunk_layers: int = 0,
    features: int = 0,
    branch: Branch = "auto",
    channels: int = 64,
    activation: Activation = "gelu",
    harmonics: int = 2,
    trunk: str = "dense",
    trunk_waves: float = 2.0,
    sensors: int = 0,
    form: Form = "split_both",
    walls: Walls = "free",
    average: bool = False,
    interpolation: Interpolation = "cubic",
    recipe: Recipe = Recipe(),  # noqa: B008 - frozen
) -> BranchedSolver:
    """A DeepONet for this problem and grid; its answer is served on any grid.

    kind            unstacked, stacked, or pod: a fixed basis of principal components of the training outputs
    width           neurons of every layer
    layers          layers of the branch (after the convolutions, where it has some)
    trunk_layers    layers of the trunk (kind pod has none); 0: as many as the branch
    features        p, the functions summed for each output; 0: width. Kind pod: components, fewer than training samples
    branch          fc; cnn: two convolutions 5 wide with stride 2; auto: cnn for more than 2048 values in 2-D and 3-D
    channels        of the first convolution; the second has twice as many
    activation      relu, tanh, gelu, silu, tanh_sin, silu_sin, silu_id, sinc
    harmonics       periodic axes: the trunk sees cos and sin of 2 pi h x up to this h; 0: x itself
    trunk           dense layers, or the name of a field: siren, winner, fkan, … (`resolvent list`)
    trunk_waves     of a field: waves across each axis that its first layer starts with, root mean square
    sensors         sensors an axis; 0: the nodes of the training grid
    form            several outputs: independent, split_both, split_branch, split_trunk
    walls           free, or zero: multiply by the distances to Dirichlet walls, where outputs vanish
    average         divide the sum by p
    interpolation   of inputs to the sensors on axes with walls: cubic, or linear (without overshoot at jumps)
    """
    working = coarse_grid(grid, recipe.coarsen)
    places = sensor_grid(working, sensors)
    c_in, c_out = len(problem.signature.inputs), len(problem.signature.outputs)
    p, depth = features or width, trunk_layers or layers
    _check(kind, branch, walls, numbers={"width": width, "layers": layers, "trunk_layers": depth, "features": p})
    if kind == "stacked" or branch == "auto":
        small = grid.dim == 1 or c_in * places.size <= LARGEST_DENSE
        branch = "fc" if kind == "stacked" or small else "cnn"
    nets = c_out if form == "independent" else 1
    groups = groups_of(form, c_out)

    def read() -> nn.Module:
        sizes = [width] * (layers - 1) + [p * groups[0] // nets]
        if branch == "cnn":
            return Convolutional(c_in, places.shape, [channels, 2 * channels], sizes, activation)
        if kind == "stacked":
            return Flat(Stacked(sizes[-1], [c_in * places.size, *sizes[:-1]], activation))
        return Flat(Dense([c_in * places.size, *sizes], activation))

    def expand() -> nn.Module:
        if trunk != "dense":
            p_all = p * groups[1] // nets
            return FieldTrunk(working, trunk, p_all, width=width, layers=depth, waves=trunk_waves)
        return dense_trunk(working, [width] * (depth - 1) + [p * groups[1] // nets], activation, harmonics)

    pod = kind == "pod"
    if pod and trunk != "dense":
        raise ValueError("Components of the outputs are the trunk of kind pod: leave --model.trunk at dense.")
    network = DeepONet(
        working,
        places,
        [read() for _ in range(nets)],
        [PodBasis(working, c_out, p, form, interpolation)] if pod else [expand() for _ in range(nets)],
        outputs=c_out,
        groups=groups,
        features=p,
        average=average,
        method=interpolation,
    )
    symmetries = symmetries_of(problem, working)
    return BranchedSolver(network, problem.signature, grid, recipe, walls=walls, symmetries=symmetries)


def _check(kind: Kind, branch: Branch, walls: Walls, *, numbers: Mapping[str, int]) -> None:
    for name, number in numbers.items():
        if number < 1:
            raise ValueError(f"deeponet needs {name} of at least 1, got {number}.")
    if kind == "stacked" and branch == "cnn":
        raise ValueError("Stacked branches are fully connected: use --model.branch fc, or --model.kind unstacked.")
    if kind == "pod" and walls == "zero":
        raise ValueError("Components of outputs that vanish on the walls vanish there anyway: use --model.walls free.")
