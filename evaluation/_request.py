"""A request in words, resolved into objects: which problem, which set-up, which model, trained how.

Precedence, weakest first: the defaults of ``build`` and :class:`Recipe`, the preset's, the request's own options.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ..data import Dataset, Splits, source_digest
from ..pde import Grid, Problem, Setup
from ..training import Budget, Preset, Recipe
from . import _given, registry
from ._saved import Blueprint
from .record import versions

PRESETS = ("quick", "paper")
GIVEN_SHARES = (0.8, 0.1)  # of a user's own data, for training and validation; the rest is for testing


@dataclass(frozen=True, kw_only=True)
class Request:
    """What can be said on the command line, as values."""

    model: str
    pde: str = ""
    data: Path | None = None
    preset: str = "quick"
    seed: int = 0
    device: str = "auto"
    budget: Budget = field(default_factory=Budget)
    problem: Mapping[str, Any] = field(default_factory=dict)  # --pde.*
    options: Mapping[str, Any] = field(default_factory=dict)  # --model.*
    train: Mapping[str, Any] = field(default_factory=dict)  # --train.*
    setup: Mapping[str, Any] = field(default_factory=dict)  # --setup.*
    observations: Path | None = None  # of an unknown state, to be inverted
    inversion: Mapping[str, Any] = field(default_factory=dict)  # --invert.*
    compare: bool = False  # with the usual rivals
    rivals: tuple[str, ...] = ()  # with these
    runs: Path = Path("runs")
    cache: Path | None = None

    def __post_init__(self) -> None:
        if self.preset not in PRESETS:
            raise registry.UnknownName(f"Unknown preset {self.preset!r}. Known: {', '.join(PRESETS)}.")
        if bool(self.pde) == (self.data is not None):
            raise ValueError("Name a problem (--pde) or give data (--data), one of the two.")


@dataclass(frozen=True, kw_only=True)
class Task:
    """Problem, grid and sizes: what all models of one comparison share.

    alone   every model solves instances by itself: no data are needed but the instances
    """

    problem: Problem
    problem_options: Mapping[str, Any]
    setup: Setup
    grid: Grid
    alone: bool = False

    @property
    def starts(self) -> tuple[int, ...]:
        """Frames to judge rollouts from, as far as the trajectories reach; a static map has the one start 0."""
        frames = self.problem.signature.frames
        return tuple(s for s in self.setup.starts if s < frames) or (0,)

    def horizon(self, start: int) -> int:
        left = self.problem.signature.frames - start
        return min(self.setup.horizon or left, left)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """One model to fit on one task, with every default written out."""

    blueprint: Blueprint
    recipe: Recipe | None
    budget: Budget
    notes: tuple[str, ...] = ()

    def key(self, splits: Splits) -> str:
        """Same key, same weights: everything that training depends on."""
        content = {
            "blueprint": dataclasses.asdict(self.blueprint),
            "budget": dataclasses.asdict(self.budget),
            "train": splits.train.fingerprint,
            "validation": splits.validation.fingerprint,
            "test": splits.test.fingerprint,
            "code": source_digest(registry.find_model(self.blueprint.model).__name__),
            "torch": versions()["torch"],
        }
        return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()[:10]


def with_rivals(request: Request, task: Task) -> Request:
    """``--compare`` spelled out: two operators, a linear model, and what knowing nothing is worth."""
    trivial = "persistence" if task.problem.signature.evolves else "mean"
    usual = ("fno", "unet", "linear", trivial) if request.compare else ()
    chosen = request.rivals or usual
    return replace(request, rivals=tuple(name for name in chosen if name != request.model))


def task_of(request: Request) -> Task:
    module = registry.find_problem(request.pde)
    options = problem_options(module.build, request.problem)
    problem = registry.posed(module.build, options)
    if request.preset not in problem.setups:
        raise ValueError(f"Problem {request.pde!r} has no preset {request.preset!r}, only {', '.join(problem.setups)}.")
    setup = problem.setups[request.preset]
    _check_names(request.setup, [f.name for f in dataclasses.fields(Setup)], "setup")
    models = [registry.find_model(name) for name in (request.model, *request.rivals)]
    alone = not request.compare and all(map(instances_of, models))
    if alone:
        _refuse_training(request)
        setup = without_training(setup, request.preset, models)
    setup = replace(setup, **request.setup)
    grid = problem.grid(setup.resolution)
    return Task(problem=problem, problem_options=options, setup=setup, grid=grid, alone=alone)


def instances_of(module: Any) -> int:
    """How many instances the quick preset puts to a model that solves each by itself and learns from no data.

    Such a module declares ``INSTANCES = 1`` (or more); 0 is the answer for all others.
    """
    return int(getattr(module, "INSTANCES", 0))


def without_training(setup: Setup, preset: str, models: Sequence[Any]) -> Setup:
    """A set-up of instances: as many as the models ask for by default, or as the published set-up has."""
    count = max(map(instances_of, models)) if preset == "quick" else setup.test
    return replace(setup, train=0, validation=0, test=count)


def _refuse_training(request: Request) -> None:
    for name in ("train", "validation"):
        if request.setup.get(name):
            raise ValueError(
                f"{request.model} solves each instance by itself and learns from no data: --setup.{name} would do "
                "nothing. Say --setup.test for the number of instances."
            )


def task_of_data(request: Request, dataset: Dataset) -> Task:
    """The user's own data: split by shares unless the request names counts."""
    _check_names(request.setup, [f.name for f in dataclasses.fields(Setup)], "setup")
    count = len(dataset)
    train, validation = (max(1, int(share * count)) for share in GIVEN_SHARES)
    values = {"train": train, "validation": validation, "test": count - train - validation, **request.setup}
    problem = _given.Given(fields=dataset.signature, domain=dataset.grid)
    nodes = next(iter(dataset.grid.shape), 1)
    setup = Setup(resolution=nodes, **{k: v for k, v in values.items() if k != "resolution"})
    return Task(problem=problem, problem_options={}, setup=setup, grid=dataset.grid)


def problem_options(build: Any, given: Mapping[str, Any]) -> dict[str, Any]:
    """The request's ``--pde.*``, over those of the named ``--pde.preset``."""
    options = dict(given)
    named = options.pop("preset", None)
    presets: Mapping[str, Mapping[str, Any]] = getattr(build, "presets", {})
    if named is not None:
        if named not in presets:
            raise registry.UnknownName(f"Unknown --pde.preset {named!r}. {registry.nearest(str(named), list(presets))}")
        options = {**presets[named], **options}
    _check_names(options, [option.name for option in registry.options_of_problem(build)], "pde")
    return options


def plan_of(request: Request, task: Task, model: str, *, own: bool = True) -> Plan:
    """``own`` is the requested model; a rival takes its own preset and none of the request's model options."""
    module = registry.find_model(model)
    preset, notes = preset_of(module, request.preset, task.problem)
    known = [option.name for option in registry.options_of(module.build)]
    given = request.options if own else {}
    _check_names(given, known, "model")
    recipe = None
    if trained_by_loop(module):
        chosen = request.train if own else {}
        _check_names(chosen, [f.name for f in dataclasses.fields(Recipe)], "train")
        recipe = Recipe(**{**preset.train, "seed": request.seed, **chosen})
    blueprint = Blueprint(
        problem=task.problem.name if request.pde == "" else request.pde,
        problem_options=task.problem_options,
        model=model,
        model_options={**preset.model, **given},
        recipe=None if recipe is None else dataclasses.asdict(recipe),
        grid=task.grid.to_dict(),
        signature=task.problem.signature.to_dict(),
    )
    limited = request.budget != Budget() or "epochs" in request.train
    budget = request.budget if limited else Budget(seconds=preset.seconds)
    return Plan(blueprint=blueprint, recipe=recipe, budget=budget, notes=notes)


def preset_of(module: Any, preset: str, problem: Problem) -> tuple[Preset, tuple[str, ...]]:
    """The model's preset for this problem, else its general one, else its quick one with a note that says so."""
    table = getattr(module, "PRESETS", {})
    name = module.__name__.rpartition(".")[2]
    for key in ((preset, problem.name), (preset, "*")):
        if key in table:
            return _called(table[key], problem), ()
    for key in (("quick", problem.name), ("quick", "*")):
        if key in table:
            note = f"No published set-up of {name} for {problem.name} is on record; its quick options were used."
            return _called(table[key], problem), (note,)
    return Preset(), ()


def trained_by_loop(module: Any) -> bool:
    import inspect

    return "recipe" in inspect.signature(module.build).parameters


def _called(entry: Any, problem: Problem) -> Preset:
    return entry(problem) if callable(entry) else entry


def _check_names(given: Mapping[str, Any], known: list[str], prefix: str) -> None:
    for name in given:
        if name not in known:
            raise registry.UnknownName(f"Unknown option --{prefix}.{name}. {registry.nearest(name, known)}")
