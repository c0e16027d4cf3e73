"""Problems with a solution on paper, small enough to be generated in milliseconds."""

import importlib
import math
from dataclasses import dataclass

import pytest
import torch
from resolvent.pde import Channel, Grid, Problem, Signature, Solver

CALLS: list[int] = []  # batch sizes of the solves in this process


class Twofold(Solver):
    """Exact: u = factor a, flux = -a."""

    def __init__(self, factor, failing=None):
        self.factor = factor
        self.failing = failing

    def __call__(self, inputs, grid, times=None):
        CALLS.append(len(inputs))
        if self.failing is not None:
            self.failing(inputs)
        return torch.cat([self.factor * inputs, -inputs], dim=1)


@dataclass(frozen=True, kw_only=True)
class Static(Problem):
    factor: float = 3.0

    @property
    def signature(self):
        return Signature((Channel("a", "m"),), (Channel("u", "K", "temperature"), Channel("flux", "W")))

    def grid(self, resolution):
        return Grid.box(resolution, dim=2, boundary="dirichlet", unit="m")

    def sample(self, count, grid, *, generator):
        return torch.randn(count, 1, *grid.shape, generator=generator, dtype=torch.float64)

    def reference(self, *, failing=None):
        return Twofold(self.factor, Static.failing)

    failing = staticmethod(lambda inputs: None)


class Decaying(Solver):
    """Exact: u(t) = u(0) exp(-t), v(t) = v(0)."""

    def __init__(self, signature):
        self.signature = signature

    def __call__(self, inputs, grid, times=None):
        CALLS.append(len(inputs))
        fade = [torch.tensor([math.exp(-t), 1.0])[:, None] for t in self.signature.times]
        return torch.stack([inputs * f for f in fade], dim=1)


@dataclass(frozen=True, kw_only=True)
class Evolving(Problem):
    @property
    def signature(self):
        state = (Channel("u", "1/s"), Channel("v", "m"))
        return Signature(state, state, frames=3, spacing=0.5, time_unit="seconds")

    def grid(self, resolution):
        return Grid.box(resolution, dim=1, upper=2.0)

    def sample(self, count, grid, *, generator):
        return torch.randn(count, 2, *grid.shape, generator=generator, dtype=torch.float64)

    def reference(self, **accuracy):
        return Decaying(self.signature)


@pytest.fixture
def calls():
    CALLS.clear()
    return CALLS


@pytest.fixture
def static():
    return Static


@pytest.fixture
def evolving():
    return Evolving


@pytest.fixture
def failing(monkeypatch):
    """``failing(check)`` runs ``check(inputs)`` in every solve of the static problem."""

    def install(check):
        monkeypatch.setattr(Static, "failing", staticmethod(check))

    return install


@pytest.fixture
def small_shards(monkeypatch):
    """Four samples a shard."""
    # the package's attribute `generate` is the function, so the module is asked for by name
    monkeypatch.setattr(importlib.import_module("resolvent.data.generate"), "GROUP_SAMPLES", 4)
