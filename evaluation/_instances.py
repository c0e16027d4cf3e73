"""Test samples in double precision, for solvers that answer one instance at a time and learn from no data.

The store holds float32, which rounds at 6e-8: an error of 1e-8 could not be told from zero. So the inputs of chosen
samples are drawn again, as doubles (a sample follows from seed and number alone), and the truth is asked in double
precision too: the closed form where the problem has one for these inputs, else its reference solver.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..data import Dataset, Source, Splits
from ..data._files import canonical_json, digest
from ..data.dataset import as_arrays
from ..data.generate import BLOCK, draw, pose
from ..pde import Grid, Problem, Solver, SolverError, WithExact, WithRemainder

STORED = "stored samples, float32"
CLOSED_FORM = "closed form, float64"
REFERENCE = "reference solver, float64"


class Doubles(Source):
    """Samples of a problem by number, drawn at once, solved when first read; float64 throughout."""

    def __init__(self, problem: Problem, grid: Grid, seed: int, numbers: Sequence[int], key: str) -> None:
        self.problem, self.grid, self.numbers, self.key = problem, grid, tuple(numbers), key
        blocks = {block: draw(problem, grid, seed, block * BLOCK, BLOCK) for block in {n // BLOCK for n in numbers}}
        self.inputs = torch.stack([blocks[n // BLOCK][n % BLOCK] for n in numbers])

    def __len__(self) -> int:
        return len(self.numbers)

    @functools.cached_property
    def _solved(self) -> tuple[str, Tensor]:
        if isinstance(self.problem, WithExact):
            try:
                return CLOSED_FORM, self.problem.exact(self.inputs, self.grid)
            except ValueError:  # a closed form for other parameters or inputs than these
                pass
        if isinstance(self.problem, WithRemainder):  # data of a discrete problem are not what its equation says
            solver: Solver = self.problem.continuum()
        else:
            solver = self.problem.reference()
        return REFERENCE, torch.cat([self._solve(solver, i) for i in range(len(self))])

    def _solve(self, solver: Callable[[Tensor, Grid], Tensor], i: int) -> Tensor:
        try:
            return solver(self.inputs[i : i + 1], self.grid)
        except SolverError as error:
            raise SolverError(f"No truth for sample {self.numbers[i]} of {self.problem.name}: {error}") from error

    @property
    def truth(self) -> str:
        """Who said what the solutions are."""
        return self._solved[0]

    def arrays(self, indices: np.ndarray) -> tuple[Tensor, ...]:
        """As :class:`Source` says, but in float64."""
        chosen, outputs = torch.from_numpy(indices), self._solved[1]
        return as_arrays(self.problem.signature, self.inputs[chosen], outputs[chosen])

    @property
    def fingerprint(self) -> str:
        """Of the question: the code and the seed that the values follow from."""
        return digest(canonical_json([self.key, "float64", list(self.numbers)]))


def in_doubles(problem: Problem, grid: Grid, *, seed: int, numbers: Sequence[int]) -> Dataset:
    """The samples of these numbers, as :func:`generate` would draw them, before they are rounded."""
    posed = pose(problem, resolution=grid.shape, count=max(numbers) + 1, seed=seed)
    samples = Doubles(problem, grid, seed, numbers, posed.key)
    told: dict[str, Any] = {"kind": "instances", "precision": "float64", **posed.content, "count": len(numbers)}
    return Dataset(problem.name, problem.parameters(), problem.signature, grid, told, samples)


def instances(problem: Problem, grid: Grid, *, seed: int, count: int) -> Splits:
    """``count`` samples to be judged on, and none to learn from."""
    if count < 1:
        raise ValueError(f"At least 1 instance is solved, got {count}.")
    whole = in_doubles(problem, grid, seed=seed, numbers=range(count))
    nothing = whole.subset([])
    indices = {"train": (), "validation": (), "test": tuple(range(count))}
    return Splits(train=nothing, validation=nothing, test=whole, seed=seed, indices=indices)


def doubled(test: Dataset, problem: Problem, seed: int) -> Dataset:
    """The same samples of a generated data set, not rounded."""
    return in_doubles(problem, test.grid, seed=seed, numbers=[int(number) for number in test.numbers])


def truth_of(data: Dataset) -> str:
    """What a judgement on these data is measured against."""
    return data.samples.truth if isinstance(data.samples, Doubles) else STORED
