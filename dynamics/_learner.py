"""Learned dynamics as solvers of evolutions: what neural ODEs, latent ODEs and neural SDEs share.

A trajectory is integrated in coordinates, once for all asked times, whatever they are: the model is continuous in time.
It is trained by the one loop on windows of consecutive frames, ``train.unroll`` of them after the first. Equations are
autonomous: time does not enter. Integrations are counted; what each sample took is in ``health`` after an answer, and
so in the record of a run.
"""

from __future__ import annotations

import warnings
from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Generator, Tensor, nn

from ..data import Dataset
from ..pde import Grid, Problem, Signature, SolverError, check_fields, check_times
from ..training import Budget, Callback, History, ModuleSolver, Recipe, objective_named, relative_l2
from ..training._loop import Trainer
from ..training._windows import Windows
from ._coordinates import Channels, Conditions, Coordinates, Modes
from ._networks import Dense

BLOCK = 64  # trajectories read at a time
# what a model in continuous time has no use for, with the value that says so
_UNUSED = {
    "increment": True,
    "augment": False,
    "symmetrise": False,
    "resolutions": (),
    "resample": "none",
    "coarsen": 1,
    "equation": 0.0,
    "labels": -1,
    "precision": "float32",
}


class Extrapolated(UserWarning):
    """Times beyond those of the training trajectories were asked for."""


@dataclass(frozen=True)
class Work:
    """What integrating one sample took."""

    evaluations: int  # of the right-hand side
    accepted: int  # steps
    rejected: int


class LearnedDynamics(ModuleSolver):
    """An evolution whose right-hand side is learned.

    states       fields <-> unknowns
    conditions   what is given beside the state, or None
    parts        the networks, by name
    """

    def __init__(
        self,
        signature: Signature,
        grid: Grid,
        recipe: Recipe,
        states: Coordinates,
        conditions: Conditions | None,
        parts: dict[str, nn.Module],
        *,
        any_resolution: bool = False,
    ) -> None:
        self.signature, self.grid, self.recipe, self.any_resolution = signature, grid, recipe, any_resolution
        self.states, self.conditions = states, conditions
        self.module = nn.ModuleDict({"states": states, **parts})
        if conditions is not None:
            self.module["conditions"] = conditions
        self.parts = tuple(parts)
        self.objective = objective_named(recipe.objective)
        self.health: tuple[Work, ...] = ()
        self._trainer: Trainer | None = None

    # ------------------------------------------------------------------ to be said by each model

    @abstractmethod
    def trajectory(
        self, fields: Float[Tensor, "batch channel *space"], given: Tensor | None, times: Sequence[float]
    ) -> Float[Tensor, "batch time channel *space"]:
        """Fields at times after the start; keeps what each sample took in ``health``."""

    @abstractmethod
    def loss(self, fields: Tensor, given: Tensor | None, targets: Tensor, noise: Generator) -> Float[Tensor, " batch"]:
        """Of windows: start ``batch channel *space`` and ``batch time channel *space`` after it."""

    def prepare(self, data: Dataset) -> None:
        """Scales of the networks, from training data, after those of the coordinates."""
        return

    # ------------------------------------------------------------------ a learned solver

    @property
    def parameter_count(self) -> int:
        return sum(p.numel() for name in self.parts for p in self.module[name].parameters())

    @property
    def device(self) -> torch.device:
        return next(self.module.parameters()).device

    def __call__(
        self, inputs: Float[Tensor, "batch channel *space"], grid: Grid, times: Sequence[float] | None = None
    ) -> Float[Tensor, "batch time output *space"]:
        check_fields(inputs, grid, len(self.signature.inputs))
        if grid.shape != self.grid.shape and not self.any_resolution:
            raise ValueError(
                f"This model was trained on a grid of shape {self.grid.shape} and is tied to it; it was asked for "
                f"{grid.shape}. Resample the inputs, or train at that resolution."
            )
        wanted = list(self.signature.times if times is None else times)
        check_times(wanted)
        self._warn(wanted[-1])
        values = inputs.to(self.device, torch.float32)
        fields, given = self.split(values)
        return self.trajectory(fields, self.condition(given), wanted).to(inputs)

    def _warn(self, last: float) -> None:
        """The last time of the training trajectories is that of the signature."""
        trained = self.signature.frames * self.signature.spacing
        if last > trained * (1 + 1e-6):
            warnings.warn(
                f"Asked up to time {last:g}, but the training trajectories end at {trained:g} "
                f"[{self.signature.time_unit}]: what comes after is extrapolated.",
                Extrapolated,
                stacklevel=3,
            )

    def split(self, values: Tensor) -> tuple[Tensor, Tensor]:
        """State and what is given beside it."""
        count = len(self.signature.outputs)
        return values[:, :count], values[:, count:]

    def condition(self, given: Tensor) -> Tensor | None:
        return None if self.conditions is None else self.conditions(given)

    def scaled(self, fields: Tensor) -> Tensor:
        """In deviations of the channels: what errors are measured in; ``channel *space`` last."""
        return fields / self.states.scales()

    # ------------------------------------------------------------------ learning

    @property
    def progress(self) -> float:
        """Share of the training that is done."""
        if self._trainer is None:
            return 0.0
        return min(1.0, self._trainer.step / max(1, self._trainer.epochs * self._trainer.per_epoch))

    def fit(
        self,
        data: Dataset,
        *,
        validation: Dataset | None = None,
        budget: Budget = Budget(),  # noqa: B008 - frozen
        callbacks: Sequence[Callback] = (),
        checkpoint: Path | None = None,
    ) -> History:
        self._check(data)
        windows = Windows(data, _single, unroll=self.recipe.unroll)
        total = len(data) * (1 + data.signature.frames)
        self.states.fit(lambda: (block.flatten(0, 1) for block in trajectories(data)), total)
        if self.conditions is not None:
            self.conditions.fit(lambda: self._given(data), len(data))
        self.prepare(data)
        held = None
        if validation is not None and len(validation):
            held = Windows(validation, _single, unroll=self.recipe.unroll)
        self._trainer = Trainer(
            self.module,
            self._loss,
            windows,
            recipe=self.recipe,
            budget=budget,
            validate=None if held is None else lambda: self._validate(held),
            checkpoint=checkpoint,
            callbacks=callbacks,
        )
        try:
            return self._trainer.run()
        finally:
            self._trainer = None

    def _given(self, data: Dataset) -> Iterator[Tensor]:
        for first in range(0, len(data), BLOCK):
            yield self.split(data.read(range(first, min(first + BLOCK, len(data))))[0].float())[1]

    def _loss(self, inputs: Tensor, targets: Tensor, noise: Generator) -> Tensor:
        fields, given = self.split(inputs.to(self.device))
        if self.recipe.noise:
            drawn = torch.randn(fields.shape, generator=noise).to(fields)
            fields = fields + self.recipe.noise * self.states.scales() * drawn
        try:
            return self.loss(fields, self.condition(given), targets.to(self.device), noise)
        except SolverError as error:  # the loop then says at which samples, and keeps the best weights
            warnings.warn(f"Training: {error}", stacklevel=2)
            return torch.full((len(inputs),), torch.nan, device=self.device)

    def misfit(self, found: Tensor, targets: Tensor) -> Float[Tensor, " batch"]:
        """The recipe's objective, mean over frames, in deviations of the channels."""
        first, second = (self.scaled(fields).flatten(0, 1) for fields in (found, targets))
        return self.objective(first, second, self.grid).unflatten(0, found.shape[:2]).mean(dim=1)

    def _validate(self, windows: Windows) -> float:
        """Mean relative L2 of the windows' frames, in deviations of the channels; one that cannot be solved is lost."""
        errors = []
        for _, inputs, targets in windows.batches(BLOCK):
            fields, given = self.split(inputs.to(self.device))
            try:
                found = self.trajectory(fields, self.condition(given), self.frames(targets.shape[1]))
            except SolverError:
                return float("inf")
            first, second = (self.scaled(x).flatten(1, 2) for x in (found, targets.to(found)))
            errors.append(relative_l2(first, second, self.grid))
        return float(torch.cat(errors).mean())

    def frames(self, count: int) -> list[float]:
        return [self.signature.spacing * (i + 1) for i in range(count)]

    def _check(self, data: Dataset) -> None:
        if data.grid.shape != self.grid.shape:
            raise ValueError(f"The model was built for a grid {self.grid.shape}, the data have {data.grid.shape}.")
        if not len(data):
            raise ValueError("The training split is empty.")


def trajectories(data: Dataset) -> Iterator[Float[Tensor, "batch time channel *space"]]:
    """All of them, block by block, in single precision."""
    for first in range(0, len(data), BLOCK):
        yield data.trajectories(range(first, min(first + BLOCK, len(data)))).float()


def _single(fields: Tensor) -> Tensor:
    return fields.float()


def check_learnable(problem: Problem, recipe: Recipe, model: str, *, objective: bool = True) -> None:
    """Refuse static maps, and options of training that a model in continuous time has no use for.

    objective   whether the model minimises the recipe's; one with a likelihood of its own does not
    """
    if not problem.signature.evolves:
        raise ValueError(f"{model} learns dynamics, and {problem.name} is a static map: choose an operator.")
    if not problem.grid(16).axes and recipe.objective.startswith("relative_h1"):
        raise ValueError(f"train.objective {recipe.objective} needs space, and {problem.name} has none.")
    unused = _UNUSED if objective else {**_UNUSED, "objective": Recipe().objective}
    for name, value in unused.items():
        if getattr(recipe, name) != value:
            raise ValueError(f"{model} has no use for train.{name} {getattr(recipe, name)}: leave it at {value}.")


def conditions_of(signature: Signature, grid: Grid, *, vector: bool) -> Conditions | None:
    """What is given beside the state, if anything is."""
    if not signature.given:
        return None
    return Conditions([channel.uniform for channel in signature.given], grid.shape, vector=vector)


def in_a_vector(
    signature: Signature, grid: Grid, *, width: int, layers: int, components: int, energy: float
) -> tuple[Coordinates, Callable[[int, int], Dense], int]:
    """Channels of a plain system or POD coefficients of fields, dense networks on such vectors, how much is given."""
    channels = len(signature.outputs)
    states: Coordinates = Modes(channels, grid.shape, components, energy) if grid.axes else Channels(channels, ())
    conditions = conditions_of(signature, grid, vector=True)
    given = 0 if conditions is None else conditions.features
    return states, lambda c_in, c_out: Dense(c_in, c_out, width=width, layers=layers, given=given), given


def counted(evaluations: Tensor, accepted: Tensor, rejected: Tensor) -> tuple[Work, ...]:
    return tuple(Work(*row) for row in torch.stack([evaluations, accepted, rejected], dim=1).tolist())
