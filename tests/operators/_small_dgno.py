"""Small DGNOs, and data for them."""

from __future__ import annotations

import torch
from resolvent.data import Dataset
from resolvent.operators import dgno
from resolvent.operators._generative_solver import GenerativeSolver
from resolvent.pde import Grid, Problem
from resolvent.pde.darcy import Darcy
from resolvent.training import Recipe
from torch import Tensor

SMALL = {"width": 16, "code": 8, "hidden": "32"}
TWO_PHASE = Darcy(low=5.0, contrast=2.0, source=10.0)


def drawn(problem: Problem, nodes: int, count: int = 8) -> tuple[Grid, Tensor, Tensor]:
    grid = problem.grid(nodes)
    inputs = problem.sample(count, grid, generator=torch.Generator().manual_seed(0))
    return grid, inputs.float(), problem.reference()(inputs, grid).float()


def dataset(problem: Problem, grid: Grid, inputs: Tensor, outputs: Tensor) -> Dataset:
    return Dataset.from_tensors(inputs, outputs, grid=grid, signature=problem.signature, problem=problem.name)


def built(problem: Problem, grid: Grid, recipe: Recipe | None = None, **options: object) -> GenerativeSolver:
    torch.manual_seed(0)
    recipe = recipe or Recipe(epochs=2, batch=4)
    of_trunk = {"layers": 3} if options.get("trunk") == "multionet" else {"waves": 6}
    return dgno.build(problem, grid, recipe=recipe, **{**SMALL, **of_trunk, **options})
