"""A fitted model on disk: ``model.safetensors`` holds the tensors, ``model.json`` what rebuilds the solver around them.

Nothing is unpickled. The JSON carries the SHA-256 of the tensors, so a damaged or exchanged file is named, not used.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as tensors_from_bytes
from safetensors.torch import save as tensors_to_bytes

from ..pde import Grid, Problem, Signature, Solver, symmetries_of
from ..training import LearnedSolver, NetworkSolver, Recipe
from . import _given, registry

FORMAT = "resolvent-model-1"


class DamagedModel(ValueError):
    """Weights or their description cannot be trusted."""


@dataclass(frozen=True, kw_only=True)
class Blueprint:
    """Everything but the tensors: names and options as the command line knows them, the grid, the seed."""

    problem: str
    problem_options: Mapping[str, Any]
    model: str
    model_options: Mapping[str, Any]
    recipe: Mapping[str, Any] | None  # None: not trained by our loop
    grid: Mapping[str, Any]
    signature: Mapping[str, Any]

    def make_problem(self) -> Problem:
        if self.problem == _given.NAME:
            return _given.Given(fields=Signature.from_dict(self.signature), domain=Grid.from_dict(self.grid))
        return registry.posed(registry.find_problem(self.problem).build, self.problem_options)

    def make_solver(self, problem: Problem | None = None) -> Solver:
        """An unfitted solver; initial weights are those of the recipe's seed."""
        module = registry.find_model(self.model)
        options = dict(self.model_options)
        if self.recipe is not None:
            options["recipe"] = Recipe(**self.recipe)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed((self.recipe or {}).get("seed", 0))
            problem = problem or self.make_problem()
            solver = module.build(problem, Grid.from_dict(self.grid), **options)
        if isinstance(solver, NetworkSolver):
            solver.symmetries = symmetries_of(problem, solver.working)
            solver.problem = problem
        return solver


def save_model(folder: Path, blueprint: Blueprint, solver: Solver) -> None:
    """Write both files, each renamed into place when complete; a solver without state has an empty tensor file."""
    state = solver.state() if isinstance(solver, LearnedSolver) else {}
    data = tensors_to_bytes({name: value.contiguous().cpu() for name, value in state.items()})
    _write(folder / "model.safetensors", data)
    description = {"format": FORMAT, **asdict(blueprint), "sha256": hashlib.sha256(data).hexdigest()}
    _write(folder / "model.json", json.dumps(description, indent=2).encode())


def load_blueprint(folder: Path) -> Blueprint:
    return Blueprint(**_description(folder)[0])


def load_model(folder: Path, device: torch.device | str = "cpu") -> tuple[Blueprint, Solver]:
    """The fitted solver of a run folder. Raises :class:`DamagedModel` for anything but exactly what was saved."""
    values, sha256 = _description(folder)
    blueprint = Blueprint(**values)
    path = folder / "model.safetensors"
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DamagedModel(f"No weights: {path} cannot be read ({error.strerror}). Train again.") from error
    if hashlib.sha256(data).hexdigest() != sha256:
        raise DamagedModel(
            f"{path} is damaged: its SHA-256 is not the one in model.json. Delete the folder, train again."
        )
    try:
        state = tensors_from_bytes(data)
    except SafetensorError as error:
        raise DamagedModel(f"{path} is not a safetensors file ({error}). Delete the folder and train again.") from error
    solver = blueprint.make_solver()
    if isinstance(solver, LearnedSolver):
        solver.restore(state)
    if hasattr(solver, "to"):
        solver.to(device)
    return blueprint, solver


def _description(folder: Path) -> tuple[dict[str, Any], str]:
    path = folder / "model.json"
    try:
        values = json.loads(path.read_text())
    except FileNotFoundError:
        raise DamagedModel(f"{folder} holds no model.json, so it is not a finished run.") from None
    except (OSError, ValueError) as error:
        raise DamagedModel(f"{path} is damaged ({error}). Delete the folder and train again.") from error
    names = set(Blueprint.__dataclass_fields__) | {"format", "sha256"}
    if not isinstance(values, dict) or values.get("format") != FORMAT or set(values) != names:
        raise DamagedModel(f"{path} is not a model description of this program ({FORMAT}).")
    del values["format"]
    return values, values.pop("sha256")


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        with part.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
