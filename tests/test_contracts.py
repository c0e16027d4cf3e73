"""Every problem and every model, found by reading the folders, keeps the promises of its interface.

A new file is checked here without a line of test code: it builds, fits two steps, answers in the right shape and type,
repeats under a seed, survives saving, and serves a second resolution or says that it does not.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import json
from pathlib import Path

import pytest
import torch
from resolvent.data import Dataset
from resolvent.evaluation import registry
from resolvent.evaluation._request import preset_of
from resolvent.evaluation._saved import Blueprint, load_model, save_model
from resolvent.pde import Grid, Problem, Setup, Solver
from resolvent.pde._equation import WithEquation
from resolvent.training import Budget, LearnedSolver, Preset, Recipe

PROBLEMS = registry.problems()
MODELS = registry.models()
# one evolution on a torus, one static map between walls that declares its equation, one evolution in one dimension, and
# one without space
STAGES = ("navier_stokes", "poisson", "burgers", "spiral")


@functools.cache
def problem_named(name: str) -> Problem:
    return registry.find_problem(name).build()


def small(problem: Problem) -> Problem:
    """Two frames are enough of an evolution."""
    names = [f.name for f in dataclasses.fields(problem)]
    return dataclasses.replace(problem, frames=2) if "frames" in names else problem


def small_grid(problem: Problem, n: int = 16) -> Grid:
    return problem.grid(n if problem.grid(16).periodic else n + 1)


def draw(problem: Problem, grid: Grid, count: int = 4, seed: int = 0) -> torch.Tensor:
    return problem.sample(count, grid, generator=torch.Generator().manual_seed(seed))


@functools.lru_cache
def dataset_of(name: str) -> Dataset:
    problem = small(problem_named(name))
    grid = small_grid(problem)
    inputs = draw(problem, grid)
    outputs = problem.reference()(inputs, grid)
    return Dataset.from_tensors(
        inputs.float(), outputs.float(), grid=grid, signature=problem.signature, problem=problem.name
    )


# ---------------------------------------------------------------------- problems


@pytest.mark.parametrize("name", PROBLEMS)
def test_a_problem_builds_with_defaults_and_describes_itself(name: str) -> None:
    problem = problem_named(name)
    assert problem.name == name
    assert dataclasses.is_dataclass(problem)
    json.dumps(problem.parameters())
    assert {"quick", "paper"} <= set(problem.setups)
    for setup in problem.setups.values():
        assert isinstance(setup, Setup)
        problem.grid(setup.resolution)
    for values in problem.presets.values():
        registry.find_problem(name).build(**values)
    assert registry.find_problem(name).__doc__
    assert hash(problem) == hash(registry.find_problem(name).build())


@pytest.mark.parametrize("name", PROBLEMS)
def test_a_problem_draws_repeatable_samples(name: str) -> None:
    problem = problem_named(name)
    grid = small_grid(problem)
    inputs = draw(problem, grid)
    assert inputs.shape == (4, len(problem.signature.inputs), *grid.shape)
    assert inputs.dtype == torch.float64
    assert bool(torch.isfinite(inputs).all())
    assert torch.equal(inputs, draw(problem, grid))
    assert not torch.equal(inputs, draw(problem, grid, seed=1))


@pytest.mark.parametrize("name", PROBLEMS)
def test_a_reference_answers_in_shape_and_type_and_refuses_wrong_shapes(name: str) -> None:
    problem = small(problem_named(name))
    grid = small_grid(problem)
    inputs = draw(problem, grid, count=2)
    solver = problem.reference()
    assert isinstance(solver, Solver)
    outputs = solver(inputs, grid)
    frames = (problem.signature.frames,) if problem.signature.evolves else ()
    assert outputs.shape == (2, *frames, len(problem.signature.outputs), *grid.shape)
    assert outputs.dtype == torch.float64
    with pytest.raises(ValueError, match="shape"):
        solver(inputs[..., :-1], grid)
    with pytest.raises(ValueError, match=r"Non-finite.*\[1\]"):
        solver(torch.stack([inputs[0], torch.full_like(inputs[0], torch.nan)]), grid)


@pytest.mark.parametrize("name", PROBLEMS)
def test_a_reference_answers_single_precision_in_single_precision(name: str) -> None:
    problem = small(problem_named(name))
    grid = small_grid(problem)
    times = problem.signature.times[:1] or None
    assert problem.reference()(draw(problem, grid, count=1).float(), grid, times).dtype == torch.float32


@pytest.mark.parametrize("name", [name for name in PROBLEMS if isinstance(problem_named(name), WithEquation)])
def test_a_declared_equation_is_that_of_the_problem_or_refused_with_a_reason(name: str) -> None:
    """Source and conditions lie on the grid, and an instance posed on its own grid is the instance."""
    problem = problem_named(name)
    grid = small_grid(problem)
    inputs = draw(problem, grid, count=2)
    refusal = ""
    try:
        equation = problem.equation(inputs, grid)
    except ValueError as error:
        refusal = str(error)
    if refusal:
        assert any(option.name in refusal for option in registry.options_of(type(problem))), "which option is it?"
        return
    assert equation.source.shape == (2, *grid.shape)
    for condition in equation.conditions:
        assert condition.values.shape == (2, *(n for j, n in enumerate(grid.shape) if j != condition.axis))
    posed = problem.posed(inputs, grid, grid)
    if posed is not None:
        torch.testing.assert_close(posed, inputs, rtol=1e-9, atol=1e-9 * float(inputs.abs().max()))


@pytest.mark.parametrize("name", PROBLEMS)
def test_the_ladder_climbs_to_the_reference(name: str) -> None:
    """Each rung serves the grid; the best of them agrees with the reference better than the worst."""
    problem = small(problem_named(name))
    grid = problem.grid(32 if problem.grid(16).periodic else 33)
    inputs = draw(problem, grid, count=2)
    truth = problem.reference()(inputs, grid)
    errors = [float((rung(inputs, grid) - truth).norm() / truth.norm()) for rung in problem.ladder(grid).values()]
    assert not errors or min(errors) < 0.5 * max(errors)


# ---------------------------------------------------------------------- models


def blueprint_of(model: str, stage: str, data: Dataset) -> Blueprint:
    """The quick preset, made small: what matters here is the interface."""
    module = registry.find_model(model)
    problem = small(problem_named(stage))
    preset: Preset = preset_of(module, "quick", problem)[0]
    known = {option.name for option in registry.options_of(module.build)}
    least = {"width": 8, "layers": 2, "iterations": 1, "windows": 1, "points": 64, "centres": 8}
    options = {**preset.model, **{k: v for k, v in least.items() if k in known}}
    recipe = None
    if "recipe" in inspect.signature(module.build).parameters:
        recipe = dataclasses.asdict(Recipe(**{**preset.train, "epochs": 1, "batch": 4, "coarsen": 1}))
    return Blueprint(
        problem=stage,
        problem_options={"frames": 2} if problem.signature.evolves else {},
        model=model,
        model_options=options,
        recipe=recipe,
        grid=data.grid.to_dict(),
        signature=data.signature.to_dict(),
    )


def fitted(model: str, stage: str) -> tuple[Blueprint, Solver]:
    data = dataset_of(stage)
    blueprint = blueprint_of(model, stage, data)
    try:
        solver = blueprint.make_solver()
    except ValueError as refusal:
        pytest.skip(f"{model} refuses {stage}: {refusal}")
    if isinstance(solver, LearnedSolver):
        history = solver.fit(data, validation=data, budget=Budget(epochs=2))
        assert history.rows
    return blueprint, solver


fitted_once = functools.cache(fitted)


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("model", MODELS)
def test_a_model_fits_answers_repeats_and_survives_saving(model: str, stage: str, tmp_path: Path) -> None:
    data = dataset_of(stage)
    blueprint, solver = fitted_once(model, stage)
    inputs, outputs = data.read(range(2))
    with torch.no_grad():
        answer = solver(inputs, data.grid)
        assert answer.shape == outputs.shape
        assert answer.dtype == inputs.dtype
        assert answer.device == inputs.device
        assert bool(torch.isfinite(answer).all())
        assert solver(inputs.double(), data.grid).dtype == torch.float64
        torch.testing.assert_close(solver(inputs[:1], data.grid), answer[:1], rtol=1e-4, atol=1e-5)
        _, again = fitted(model, stage)
        assert torch.equal(again(inputs, data.grid), answer), "the same seed gave another model"
        save_model(tmp_path, blueprint, solver)
        _, loaded = load_model(tmp_path)
        assert torch.equal(loaded(inputs, data.grid), answer), "saving has changed the model"


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("model", MODELS)
def test_a_model_serves_a_second_resolution_or_says_that_it_does_not(model: str, stage: str) -> None:
    _, solver = fitted_once(model, stage)
    problem = small(problem_named(stage))
    grid = small_grid(problem, 24)
    inputs = draw(problem, grid, count=1).float()
    refusal, answer = "", None
    try:
        with torch.no_grad():
            answer = solver(inputs, grid)
    except ValueError as error:
        refusal = str(error)
    assert answer is None or answer.shape[answer.ndim - grid.dim :] == grid.shape
    served = str(next(iter(dataset_of(stage).grid.shape), ""))
    assert answer is not None or served in refusal, "a refusal names the grid that is served"


@pytest.mark.parametrize("preset", ["quick", "paper"])
@pytest.mark.parametrize("model", MODELS)
def test_every_preset_builds_on_the_grid_it_is_for(model: str, preset: str) -> None:
    """At the set-up's own resolution: what a preset promises must not fail after an hour of generating data.

    A model may refuse problems, but not all of them, and none for which it ships a preset.
    """
    table = getattr(registry.find_model(model), "PRESETS", {})
    names = [name for name in PROBLEMS if (preset, name) in table or preset == "quick"]
    refusals = {name: refusal for name in names if (refusal := refusal_of(model, preset, name))}
    assert len(refusals) < len(names) or not names, f"{model} accepts no problem: {refusals}"
    assert not [name for name in refusals if (preset, name) in table], refusals


def refusal_of(model: str, preset: str, name: str) -> str:
    """What a model says that it needs, with the options of a preset; empty where it accepts the problem."""
    module, problem = registry.find_model(model), problem_named(name)
    chosen = preset_of(module, preset, problem)[0]
    options = dict(chosen.model)
    if "recipe" in inspect.signature(module.build).parameters:
        options["recipe"] = Recipe(**chosen.train)
    try:
        module.build(problem, problem.grid(problem.setups[preset].resolution), **options)
    except ValueError as refusal:
        return str(refusal) or "nothing"
    return ""


@pytest.mark.parametrize("model", MODELS)
def test_a_model_is_exercised_here(model: str) -> None:
    """Who refuses every stage would pass this file without having answered once."""
    stages = [stage for stage in STAGES if not refusal_of(model, "quick", stage)]
    assert stages, f"{model} accepts none of {STAGES}"


@pytest.mark.parametrize("model", MODELS)
def test_a_model_has_a_line_for_the_listing_and_typed_options(model: str) -> None:
    entry = next(entry for entry in registry.entries("model") if entry.name == model)
    assert entry.summary.endswith(".") or len(entry.summary) > 20
    for option in registry.options_of(registry.find_model(model).build):
        assert not option.required, f"{model} needs {option.name}: an option has a default that works"
        assert option.help, f"{model}'s option {option.name} has no line in the docstring"
