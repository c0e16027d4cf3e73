"""Small worlds with known answers: a decaying sine, a solver that is wrong by a known factor, a record of it."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
import torch
from resolvent.data import Dataset
from resolvent.evaluation.record import Classical, ClassicalRung, Judged, Provenance, Rival, Run, Score, Seconds
from resolvent.pde import Channel, Grid, Signature, Solver
from torch import Tensor

RATE = 0.5  # of the decay u_t = -RATE u
FRAMES = 6


class Decay(Solver):
    """Exact for u_t = -RATE u, times a factor: relative L2 error |factor - 1| in every frame."""

    def __init__(self, factor: float = 1.0) -> None:
        self.factor = factor
        self.calls: list[tuple[int, tuple[float, ...]]] = []

    def __call__(self, inputs: Tensor, grid: Grid, times: Sequence[float] | None = None) -> Tensor:
        assert times is not None
        self.calls.append((len(inputs), tuple(times)))
        return torch.stack([self.factor * math.exp(-RATE * t) * inputs for t in times], dim=1)


@pytest.fixture
def grid() -> Grid:
    return Grid.box(16, unit="m")


@pytest.fixture
def decays(grid: Grid) -> Dataset:
    """Ten trajectories of u_t = -RATE u, frames 0.25 s apart, amplitudes 1 to 10."""
    velocity = (Channel("u", "m/s", "velocity u"),)
    signature = Signature(velocity, velocity, FRAMES, 0.25, "s")
    inputs = torch.arange(1.0, 11.0)[:, None, None] * torch.sin(2 * torch.pi * grid.mesh()[0]).float()
    return Dataset.from_tensors(inputs, Decay()(inputs, grid, signature.times), grid=grid, signature=signature)


@pytest.fixture
def squares(grid: Grid) -> Dataset:
    """Ten samples of the static map a -> a²."""
    signature = Signature((Channel("a"),), (Channel("u"),))
    inputs = 1 + torch.rand(10, 1, 16, generator=torch.Generator().manual_seed(7193))
    return Dataset.from_tensors(inputs, inputs.square(), grid=grid, signature=signature)


@pytest.fixture
def run() -> Run:
    """A complete record with round numbers: error 0.02 at 1 ms; classical 0.01 at 4 ms, reference 0 at 100 ms."""
    metrics = {"relative_l2": Score.of([0.01, 0.02, 0.03]), "maximum": Score.of([1.0, 2.0, 3.0])}
    start = Judged(
        start=10,
        times=(1.0, 2.0),
        metrics=metrics,
        by_frame=((0.01, 0.02), (0.02, 0.03), (0.03, 0.04)),
        shells=(0, 1),
        error_energy=(0.0, 1e-4),
        prediction_energy=(0.0, 1.0),
        truth_energy=(0.0, 1.0),
    )
    rungs = (ClassicalRung(name="coarse", error=0.01, seconds=0.004),)
    return Run(
        problem="navier_stokes",
        problem_parameters={"viscosity": 1e-3},
        model="mgno",
        options={"model": {"width": 24}},
        seed=0,
        metrics=metrics,
        starts=(start,),
        seconds=Seconds(generate=10.0, fit=200.0, predict=0.001, predict_one=0.002, batch=16),
        parameters=123_456,
        device="cpu",
        threads=1,
        machine="a processor, 2 cores, Linux x86_64",
        versions={"resolvent": "0.1.0", "torch": "2.6"},
        data=Provenance(fingerprint="f" * 64, split="5" * 64, test="7" * 64),
        history=({"epoch": 1, "step": 8, "seconds": 1.0, "train": 0.5, "validation": 0.4, "learning_rate": 1e-3},),
        compare={
            "persistence": Rival(metrics={"relative_l2": Score.of([0.5, 0.5, 0.5])}, seconds=Seconds(predict=1e-6)),
            "unet": Rival(metrics={}, status="failed", message="too small a grid"),
        },
        classical=Classical(
            rungs=rungs,
            reference=ClassicalRung(name="reference", error=0.0, seconds=0.1),
            samples=3,
            threads=1,
            clock="cpu",
            raw=100.0,
            equal_accuracy=4.0,
            rung="coarse",
            break_even=70_000.0,
        ),
        command="solve --pde navier_stokes --model mgno",
        date="2025-01-01T00:00:00+00:00",
    )
