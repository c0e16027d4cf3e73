r"""What DeepONet and MultiONet share: a code of the input at fixed sensors, features of any point, their product.

:math:`G(a)(y) = \langle\text{branch}(a(s_1), \dots, a(s_m)),\ \text{trunk}(y)\rangle`. The sensors are the nodes of the
training grid, or a coarser grid of their own. Inputs on any other grid are sampled at them (``between_nodes``).
The answer is a function of y: another output grid evaluates the same function at other points. Two layouts:

    cartesian   all samples at the same points, ``point dim``: the trunk is evaluated once for the batch
    aligned     each sample at points of its own, ``batch point dim``
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ..data import Dataset
from ..pde import Axis, Grid, Signature, Symmetry, check_fields
from ..pde._weak_form import Places, WithWeakForm, listed
from ..training import Budget, Callback, History, NetworkSolver, Normalizer, Recipe
from ..training._physics import Answer, Ask, Physics
from ..training._windows import Windows
from ._trunk import Interpolation, PodBasis, between_nodes, points_of, wall_factor

Walls = Literal["free", "zero"]
SNAPSHOTS = 2048  # training outputs from which a basis is computed, at most; evenly spaced
ON_WALL = 1e-4  # largest value at a wall, of the largest in the field, that is taken for zero


class Branched(nn.Module, ABC):
    """``batch c_in *space`` -> ``batch c_out *space`` at any resolution; the sensors stay where they are."""

    nodes: Tensor

    def __init__(self, grid: Grid, sensors: Grid, method: Interpolation = "cubic") -> None:
        super().__init__()
        self.grid, self.sensors, self.method = grid, sensors, method
        self.register_buffer("nodes", points_of(grid, dtype=torch.float32), persistent=False)
        for axis, (own, at) in enumerate(zip(grid.axes, sensors.axes, strict=True)):
            matrix = None if own == at else _matrix(own, at, method).float()
            self.register_buffer(f"sampling_{axis}", matrix, persistent=False)

    @abstractmethod
    def encode(self, sensed: Float[Tensor, "batch c_in *sensor"]) -> Tensor:
        """The branch: ``batch …`` from values at the sensors."""

    @abstractmethod
    def features(self, points: Float[Tensor, "point dim"]) -> Tensor:
        """The trunk: ``point …``."""

    @abstractmethod
    def node_features(self) -> Tensor:
        """The trunk at the nodes of the training grid."""

    @abstractmethod
    def combine(self, code: Tensor, features: Tensor) -> Float[Tensor, "batch c_out point"]:
        """The product, every sample with every point."""

    @abstractmethod
    def combine_aligned(self, code: Tensor, features: Tensor) -> Float[Tensor, "batch c_out point"]:
        """The product with features ``batch point …``, each sample with its own."""

    def forward(self, values: Float[Tensor, "batch c_in *space"]) -> Float[Tensor, "batch c_out *space"]:
        space = tuple(values.shape[2:])
        if space == self.grid.shape:
            features = self.node_features()
        else:
            features = self.features(points_of(self.grid.at(space)).to(self.nodes))
        return self.combine(self.encode(self.sense(values)), features).unflatten(-1, space)

    def at(
        self, values: Float[Tensor, "batch c_in *space"], points: Float[Tensor, "*batch point dim"]
    ) -> Float[Tensor, "batch c_out point"]:
        """The answer at any points of the domain: ``point dim`` for all samples, or ``batch point dim``."""
        _check_points(points, len(values), self.grid.dim)
        code = self.encode(self.sense(values))
        if points.ndim == 2:
            return self.combine(code, self.features(points))
        return self.combine_aligned(code, self.features(points.flatten(0, 1)).unflatten(0, points.shape[:2]))

    def sense(self, values: Float[Tensor, "batch c_in *space"]) -> Float[Tensor, "batch c_in *sensor"]:
        """Values at the sensors."""
        for axis, matrix in enumerate(self._sampling(tuple(values.shape[2:])), start=2):
            if matrix is not None:
                values = (values.movedim(axis, -1) @ matrix.to(values).t()).movedim(-1, axis)
        return values

    def _sampling(self, space: tuple[int, ...]) -> list[Tensor | None]:
        """One matrix an axis; None where its nodes are the sensors."""
        if space == self.grid.shape:
            return [getattr(self, f"sampling_{axis}") for axis in range(self.grid.dim)]
        pairs = zip(self.grid.at(space).axes, self.sensors.axes, strict=True)
        return [None if own == at else _matrix(own, at, self.method) for own, at in pairs]


def _matrix(source: Axis, target: Axis, method: Interpolation) -> Tensor:
    return between_nodes(source, tuple(target.coordinates().tolist()), method)


def _check_points(points: Tensor, batch: int, dim: int) -> None:
    if points.ndim not in (2, 3) or points.shape[-1] != dim or (points.ndim == 3 and len(points) != batch):
        raise ValueError(
            f"Expected points of shape (point, {dim}), the same for all samples, or ({batch}, point, {dim}); got "
            f"{tuple(points.shape)}."
        )


class ZeroAtWalls(Normalizer):
    """Scaling whose inverse vanishes on Dirichlet walls, exactly: ``wall_factor * (std network + mean)``."""

    def __init__(self, grid: Grid, like: Normalizer) -> None:
        super().__init__(like.mean.shape[0], grid.shape, like.kind)
        self.grid = grid
        self.register_buffer("factor", wall_factor(grid, grid.mesh().movedim(0, -1)).float(), persistent=False)

    def inverse(self, values: Tensor) -> Tensor:
        return super().inverse(values) * self.on(tuple(values.shape[2:])).to(values)

    def on(self, space: tuple[int, ...]) -> Tensor:
        if space == self.grid.shape:
            return self.factor  # type: ignore[return-value]
        return wall_factor(self.grid, self.grid.at(space).mesh().movedim(0, -1))


class BranchedSolver(NetworkSolver):
    """A :class:`Branched` network between normalisers, with what it takes from the data before training.

    walls        ``zero``: answers (of evolutions, changes) vanish on the Dirichlet walls of the grid by construction;
                 refused by ``fit`` where the training outputs do not
    symmetries   of the problem, for ``recipe.augment`` and ``recipe.symmetrise``
    """

    def __init__(
        self,
        network: Branched,
        signature: Signature,
        grid: Grid,
        recipe: Recipe,
        *,
        walls: Walls = "free",
        symmetries: Sequence[Symmetry] = (),
    ) -> None:
        super().__init__(network, signature, grid, recipe, any_resolution=True, symmetries=symmetries)
        self.walls = walls
        if walls == "zero":
            if all("dirichlet" not in axis.boundary for axis in grid.axes):
                kinds = [axis.boundary for axis in grid.axes]
                raise ValueError(f"walls 'zero' needs a Dirichlet wall; this grid has {kinds}. Use --model.walls free.")
            self.module["outputs"] = ZeroAtWalls(self.working, self.module["outputs"])  # type: ignore[arg-type]

    def at(
        self, inputs: Float[Tensor, "batch channel *space"], grid: Grid, points: Float[Tensor, "*batch point dim"]
    ) -> Float[Tensor, "batch channel point"]:
        """The answer (of an evolution, after one frame) at any points of the domain, in its units and theirs.

        ``points`` is ``point dim`` for all samples or ``batch point dim``. Raises ``ValueError`` where the answer is
        known at nodes only: changes of a state, and pointwise normalisation.
        """
        check_fields(inputs, grid, len(self.signature.inputs))
        if self.increment or self.recipe.normalise == "pointwise":
            raise ValueError(
                "Away from the nodes neither a change of state nor pointwise statistics are known: train with "
                "--train.normalise channel and, an evolution, with --train.increment false."
            )
        network, scale = self.network, self.module["outputs"]
        assert isinstance(network, Branched)
        where = points.to(self.device, torch.float32)
        raw = network.at(self.module["inputs"](inputs.to(self.device, torch.float32)), where)
        answer = Normalizer.inverse(scale, raw.unflatten(-1, (-1, *(1,) * (self.grid.dim - 1))))  # type: ignore[arg-type]
        answer = answer.flatten(2)
        if self.walls == "zero":
            factor = wall_factor(self.grid, where)
            answer = answer * (factor if factor.ndim == 1 else factor[:, None])
        return answer.to(inputs)

    def _ask(self, inputs: Tensor) -> tuple[Tensor, Ask]:
        """Between the nodes the answer is known, and so are its slopes; a fixed basis has nodes only."""
        if self.recipe.normalise == "pointwise" or any(isinstance(m, PodBasis) for m in self.network.modules()):
            return super()._ask(inputs)
        network, names = self.network, [channel.name for channel in self.signature.outputs]
        assert isinstance(network, Branched)
        code = network.encode(network.sense(self.module["inputs"](inputs)))

        def ask(places: Places) -> Answer:
            points = listed(places)
            directions = torch.eye(points.shape[1], dtype=points.dtype, device=points.device)
            sweeps = [
                torch.func.jvp(lambda at: self._physical(code, at), (points,), (direction.expand_as(points),))
                for direction in directions
            ]
            slopes = torch.stack([slope for _, slope, *_ in sweeps], dim=-1)
            channels = range(len(names))
            return Answer({names[i]: sweeps[0][0][:, i] for i in channels}, {names[i]: slopes[:, i] for i in channels})

        return self._physical(code, network.nodes).unflatten(-1, self.working.shape), ask

    def _physical(self, code: Tensor, points: Float[Tensor, "point dim"]) -> Float[Tensor, "batch channel point"]:
        """The answer of codes in physical units."""
        network, scale = self.network, self.module["outputs"]
        assert isinstance(network, Branched)
        raw = network.combine(code, network.features(points))
        assert isinstance(scale, Normalizer)
        answer = raw * scale.std.flatten()[:, None] + scale.mean.flatten()[:, None]
        return answer * wall_factor(self.grid, points) if self.walls == "zero" else answer

    def _vanishing(self, grid: Grid) -> Tensor:
        """``walls`` has said it already."""
        return torch.ones(())

    def _physics(self) -> Physics:
        free = self.walls == "free" and not any(isinstance(module, PodBasis) for module in self.network.modules())
        if free and isinstance(self.problem, WithWeakForm) and self.problem.envelope(points_of(self.working)[:1]):
            raise ValueError(f"The solution of {self.problem.name} is zero on its walls: use --model.walls zero.")
        return super()._physics()

    def _serve(self, grid: Grid) -> Grid:
        if grid.shape != self.grid.shape and self.recipe.normalise == "pointwise":
            raise ValueError(
                f"Statistics are known at the nodes of the training grid {self.grid.shape} only; it was asked for "
                f"{grid.shape}. Train with --train.normalise channel to serve any grid."
            )
        return super()._serve(grid)

    def fit(
        self,
        data: Dataset,
        *,
        validation: Dataset | None = None,
        budget: Budget = Budget(),  # noqa: B008 - frozen
        callbacks: Sequence[Callback] = (),
        checkpoint: Path | None = None,
    ) -> History:
        """As every network; before it, a fixed basis is computed from the training outputs and walls are checked."""
        self._check_data(data)
        bases = [module for module in self.network.modules() if isinstance(module, PodBasis)]
        if bases and self.recipe.labels >= 0:
            raise ValueError("A basis of training outputs needs all of them: leave train.labels out.")
        if self.recipe.labels < 0 and (bases or self.walls == "zero"):
            self._prepare_for(data, bases)
        return super().fit(data, validation=validation, budget=budget, callbacks=callbacks, checkpoint=checkpoint)

    def _prepare_for(self, data: Dataset, bases: Sequence[PodBasis]) -> None:
        windows = Windows(data, self._prepare)
        targets = _evenly(windows, self.increment)
        if self.walls == "zero":
            self._check_walls(targets)
        scale = self.module["outputs"]
        scale.fit(windows.increments() if self.increment else windows.outputs())  # type: ignore[operator]
        for basis in bases:
            basis.fit(scale(targets.to(self.device)))

    def _check_walls(self, targets: Tensor) -> None:
        on_walls = self.module["outputs"].on(self.working.shape) == 0  # type: ignore[operator]
        if not bool(on_walls.any()):  # nodes at cell centres: no value is on a wall
            return
        found = float(targets[..., on_walls].abs().max() / targets.abs().max().clamp_min(1e-30))
        if found > ON_WALL:
            raise ValueError(
                f"walls 'zero' is for outputs that vanish on Dirichlet walls; the training outputs reach {found:.1e} "
                "of their maximum there. Use --model.walls free."
            )


def _evenly(windows: Windows, increment: bool) -> Float[Tensor, "field output *space"]:
    """What the network is to produce, in physical units; evenly spaced windows, at most ``SNAPSHOTS``."""
    every, kept, first = -(-len(windows) // SNAPSHOTS), [], 0
    for _, inputs, targets in windows.batches(256):
        chosen = (torch.arange(first, first + len(inputs)) % every) == 0
        before = inputs[:, : targets.shape[2]]  # the state, without what is given beside it
        kept.append((targets[:, 0] - before if increment else targets[:, 0])[chosen])
        first += len(inputs)
    return torch.cat(kept)


def sensor_grid(grid: Grid, sensors: int) -> Grid:
    """The grid with ``sensors`` nodes an axis (0: its own), or a refusal."""
    if sensors == 0:
        return grid
    if not 2 <= sensors <= min(grid.shape):
        raise ValueError(
            f"sensors must be from 2 to the {min(grid.shape)} nodes of the training grid {grid.shape}, or 0 for all "
            f"its nodes; got {sensors}."
        )
    return grid.at(sensors)
