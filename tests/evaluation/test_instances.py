"""Instances without a data set: the samples of the store, not rounded, judged against a truth that is said."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from resolvent.data import Splits, generate
from resolvent.evaluation import Request
from resolvent.evaluation._instances import CLOSED_FORM, REFERENCE, STORED, doubled, in_doubles, instances, truth_of
from resolvent.evaluation._request import task_of
from resolvent.evaluation.judge import judge
from resolvent.pde import Grid, Problem, Solver
from resolvent.pde.burgers import Burgers
from resolvent.pde.darcy import Darcy
from resolvent.pde.heat import Heat
from resolvent.pde.poisson import Poisson
from torch import Tensor


class Off(Solver):
    """The problem's own solution, wrong by a known factor."""

    def __init__(self, problem: Problem, by: float) -> None:
        self.problem, self.by = problem, by

    def __call__(self, inputs: Tensor, grid: Grid, times: Sequence[float] | None = None) -> Tensor:
        return (1 + self.by) * self.problem.reference()(inputs, grid)


def test_they_are_the_stored_samples_before_rounding(tmp_path: Path) -> None:
    """Numbers out of order and beyond one block of draws; rounding an input to float32 gives the stored one."""
    problem = Poisson()
    stored = generate(problem, resolution=12, count=20, seed=3, cache=tmp_path, workers=1).subset([17, 2, 9])
    fine = doubled(stored, problem, seed=3)
    (inputs, outputs), (a, u) = fine.read(range(3)), stored.read(range(3))
    assert inputs.dtype == outputs.dtype == torch.float64
    assert torch.equal(inputs.float(), a)
    assert torch.equal(outputs.float(), u)
    assert fine.grid == stored.grid


def test_trajectories_start_with_the_input() -> None:
    problem = Heat(frames=2)
    grid = problem.grid(16)
    held = in_doubles(problem, grid, seed=0, numbers=range(2))
    frames = held.trajectories(range(2))
    assert frames.shape == (2, 3, 1, *grid.shape)
    assert frames.dtype == torch.float64
    inputs, outputs = held.read([1])
    torch.testing.assert_close(outputs, problem.exact(inputs, grid), rtol=0, atol=0)
    assert truth_of(held) == CLOSED_FORM


def test_an_error_below_single_precision_is_seen() -> None:
    """2e-11 is 3000 times less than float32 can hold; the truth's own rounding is 1e-15."""
    problem = Poisson()
    verdict = judge(Off(problem, 2e-11), instances(problem, problem.grid(12), seed=0, count=2).test, batch=1)
    assert verdict.metrics["relative_l2"].tolist() == pytest.approx([2e-11] * 2, rel=1e-3)
    assert verdict.truth == CLOSED_FORM


def test_the_truth_is_named(decays: Any) -> None:
    darcy = Darcy(law="log_normal")
    assert truth_of(in_doubles(darcy, darcy.grid(9), seed=0, numbers=[0])) == REFERENCE
    assert truth_of(decays) == STORED


def test_nothing_to_learn_from_and_nothing_solved_before_it_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    problem = Burgers()
    grid = problem.grid(16)
    monkeypatch.setattr(Burgers, "exact", lambda *_: pytest.fail("solved"))
    splits = instances(problem, grid, seed=5, count=3)
    assert isinstance(splits, Splits)
    assert (len(splits.train), len(splits.validation), len(splits.test)) == (0, 0, 3)
    assert splits.test.source["seed"] == 5


def test_other_questions_have_other_fingerprints() -> None:
    problem = Poisson()
    sets = [in_doubles(problem, problem.grid(n), seed=s, numbers=m) for n, s, m in (
        (9, 0, [0]), (10, 0, [0]), (9, 1, [0]), (9, 0, [1]), (9, 0, [0, 1]))]  # fmt: skip
    sets.append(in_doubles(Poisson(tau=4.0), problem.grid(9), seed=0, numbers=[0]))
    assert all(a.fingerprint != b.fingerprint for a, b in itertools.combinations(sets, 2))
    again = in_doubles(problem, problem.grid(9), seed=0, numbers=[0])
    assert again.fingerprint == sets[0].fingerprint


def test_a_model_without_training_gets_one_instance_unless_told_otherwise() -> None:
    asked = {"pde": "poisson", "model": "gp"}
    assert (task_of(Request(**asked)).setup.train, task_of(Request(**asked)).setup.test) == (0, 1)
    assert task_of(Request(**asked, setup={"test": 3})).setup.test == 3
    assert task_of(Request(**asked, preset="paper")).setup.test == Poisson.setups["paper"].test
    assert task_of(Request(**asked, setup={"resolution": 33})).grid.shape == (33, 33)
    for other in ({"rivals": ("linear",)}, {"compare": True}):  # these learn: the problem's own sizes stand
        assert task_of(Request(**asked, **other)).setup == Poisson.setups["quick"]
    assert task_of(Request(pde="poisson", model="linear", rivals=("gp",))).setup == Poisson.setups["quick"]


@pytest.mark.parametrize("name", ["train", "validation"])
def test_data_that_nobody_would_learn_from_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match=f"learns from no data: --setup.{name}"):
        task_of(Request(pde="poisson", model="gp", setup={name: 8}))
    with pytest.raises(ValueError, match="At least 1 instance"):
        instances(Poisson(), Poisson().grid(9), seed=0, count=0)
