"""Every operator keeps what its file declares: refine the grid with the input function fixed, and the answers converge.

``CONVERGENCE`` of a file in ``operators/`` says, for the default options of its ``build``:

    None        tied to the grid of its training: any other is refused with a word on the one that is served. This is
                the default of a file that declares nothing
    a number    order of convergence, at least, on periodic grids and between walls
    "spectral"  faster than any order for band-limited inputs
    "exact"     the answer at a node does not depend on other nodes

Each operator is built small, fitted for two epochs (bases and normalisers come from data) on 16 intervals, and asked for
one band-limited function on n = 24, 2 n and 4 n intervals (not multiples of 16: nothing is met by chance); the answers
are compared at the nodes of the coarsest. With differences d_1 = |u_n - u_2n| and d_2 = |u_2n - u_4n| the observed order
is log2(d_1 / d_2).
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import math
from pathlib import Path
from types import ModuleType

import pytest
import torch
from resolvent.data import Dataset
from resolvent.evaluation import registry
from resolvent.evaluation._request import preset_of
from resolvent.pde import Grid, Problem, Solver
from resolvent.training import Budget, LearnedSolver, Recipe
from torch import Tensor

OPERATORS = [entry.name for entry in registry.entries("model") if entry.origin == "operators"]
STAGES = ("navier_stokes", "poisson")  # a torus, two steps of time; walls, a static map
INTERVALS, COARSEST = 16, 24
# Answers are in single precision, and normalised in it: differences below this say nothing.
ROUNDING = 3e-6
# d_1 still holds terms beyond the leading one, with which the observed order deviates from that of the method.
SLACK = 0.4


def declared(module: ModuleType) -> object:
    return getattr(module, "CONVERGENCE", None)


@functools.cache
def problem_named(name: str) -> Problem:
    problem = registry.find_problem(name).build()
    fields = {field.name for field in dataclasses.fields(problem)}
    return dataclasses.replace(problem, frames=2) if "frames" in fields else problem


def grid_of(problem: Problem, intervals: int) -> Grid:
    return problem.grid(intervals if problem.grid(16).periodic else intervals + 1)


@functools.cache
def dataset_of(name: str) -> Dataset:
    problem = problem_named(name)
    grid = grid_of(problem, INTERVALS)
    inputs = problem.sample(4, grid, generator=torch.Generator().manual_seed(0))
    outputs = problem.reference()(inputs, grid)
    return Dataset.from_tensors(
        inputs.float(), outputs.float(), grid=grid, signature=problem.signature, problem=problem.name
    )


def fitted(model: str, stage: str) -> Solver:
    """By the quick preset made small, after two epochs; skips where the operator refuses the problem."""
    module, problem, data = registry.find_model(model), problem_named(stage), dataset_of(stage)
    preset = preset_of(module, "quick", problem)[0]
    known = {option.name for option in registry.options_of(module.build)}
    options = {**preset.model, **{k: v for k, v in {"width": 8, "layers": 2}.items() if k in known}}
    if "recipe" in inspect.signature(module.build).parameters:
        train = {**preset.train, "epochs": 2, "batch": 4, "coarsen": 1, "precision": "float32"}
        options["recipe"] = Recipe(**train)
    torch.manual_seed(0)
    try:
        solver = module.build(problem, data.grid, **options)
    except ValueError as refusal:
        pytest.skip(f"{model} refuses {stage}: {refusal}")
    if isinstance(solver, LearnedSolver):
        solver.fit(data, validation=data, budget=Budget(epochs=2))
    return solver


def function(grid: Grid, channels: int) -> Tensor:
    """Two waves: of periods that fit a torus, vanishing on walls (where inputs of the problem vanish)."""
    total = torch.zeros(grid.shape, dtype=torch.float64)
    for orders, shift in (((1, 2, 1), 0.3), ((2, 1, 1), 1.1)):
        wave = torch.ones(grid.shape, dtype=torch.float64)
        for k, axis, x in zip(orders, grid.axes, grid.mesh(), strict=False):
            place = (x - axis.lower) / axis.length
            wave = wave * (
                torch.sin(2 * math.pi * k * place + shift) if axis.periodic else torch.sin(math.pi * k * place)
            )
        total = total + wave
    return total.expand(1, channels, *grid.shape)


def answers(solver: Solver, problem: Problem) -> list[Tensor]:
    """On n, 2 n and 4 n intervals, at the nodes of the first."""
    found = []
    for factor in (1, 2, 4):
        grid = grid_of(problem, factor * COARSEST)
        inputs = function(grid, len(problem.signature.inputs))
        with torch.no_grad():
            found.append(solver(inputs, grid)[(..., *[slice(None, None, factor)] * grid.dim)])
    return found


def differences(found: list[Tensor]) -> tuple[float, float]:
    first, second = ((a - b).norm() / found[-1].norm() for a, b in zip(found, found[1:], strict=False))
    return float(first), float(second)


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("model", OPERATORS)
def test_an_operator_converges_as_it_declares(model: str, stage: str) -> None:
    promise = declared(registry.find_model(model))
    solver, problem = fitted(model, stage), problem_named(stage)
    if promise is None:
        with pytest.raises(ValueError, match=rf"\b{dataset_of(stage).grid.shape[0]}\b"):
            answers(solver, problem)
        return
    found = answers(solver, problem)
    first, second = differences(found)
    assert float(found[-1].norm()) > 0, "an answer of zeros converges whatever the network does"
    if promise == "exact":
        assert first <= ROUNDING
    elif promise == "spectral":
        assert second <= max(ROUNDING, first / 100), f"differences {first:.2g} and {second:.2g}"
    elif second > ROUNDING:
        order = math.log2(first / second)
        assert order > float(promise) - SLACK, f"order {order:.2f}, differences {first:.2g} and {second:.2g}"


@pytest.mark.parametrize("model", OPERATORS)
def test_the_declaration_is_one_of_the_known_and_the_listing_shows_it(model: str) -> None:
    module = registry.find_model(model)
    promise = declared(module)
    assert promise is None or promise in ("exact", "spectral") or float(promise) > 0  # type: ignore[arg-type]
    entry = next(entry for entry in registry.entries("model") if entry.name == model)
    assert entry.grids == registry.grids_in_words(promise)
    assert Path(str(module.__file__)).stem == model


@pytest.mark.parametrize(("order", "differ"), [(1.0, 0.5), (2.0, 0.25), (3.0, 0.125)], ids=["first", "second", "third"])
def test_the_measure_finds_the_order_of_answers_that_have_one(order: float, differ: float) -> None:
    exact = torch.ones(1, 1, 4)
    found = [exact * (1 + differ**k) for k in range(3)]
    first, second = differences(found)
    assert math.log2(first / second) == pytest.approx(order, abs=1e-6)
