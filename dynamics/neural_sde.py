r"""Neural stochastic differential equation, noise diagonal, in the sense of Stratonovich.

.. math:: dz = f(z, a)\,dt + g(z, a) \circ dW

z   coordinates of the state: channels of a plain system, POD coefficients of a field     a   what is given beside it

Trained by the energy score of its paths against the observed frames (Gneiting and Raftery 2007), a proper score: its
expectation is least for the true law, so that neither the spread nor the mean is fitted at the other's expense:

    S = E|Z - z| - E|Z - Z'| / 2       Z, Z' independent paths, in deviations of the coordinates

An answer is the mean over ``draws`` paths; :meth:`NeuralSDE.sample` gives paths, :meth:`NeuralSDE.deviation` their
spread. The paths of a sample do not depend on its company. With ``steps=0`` steps are adaptive (Euler-Heun with Lamba's
estimate), and a regulariser makes them few: ``ernode`` (sum of E h over the steps) or ``local``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, final

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Generator, Tensor, nn

from ..data import Dataset
from ..pde import Grid, Problem, Signature, check_fields, check_times
from ..training import Preset, Recipe
from ._brownian import Brownian
from ._coordinates import Coordinates, rates_of
from ._learner import LearnedDynamics, Work, check_learnable, conditions_of, in_a_vector, trajectories
from ._networks import Flow, bound
from ._regularisers import GlobalNoise, LocalNoise
from ._sdeint import Path, sdeint

Penalised = Literal["none", "ernode", "local"]
CALM = -3.0  # before softplus: noise begins at 5 % of a deviation per square root of the typical time


@dataclass(frozen=True, kw_only=True)
class Shared(Brownian):
    """The same paths for every group of ``batch / groups``."""

    groups: int = 1

    @cached_property
    def _one(self) -> Brownian:
        shape = {"batch": self.batch // self.groups, "unknowns": self.unknowns}
        return Brownian(seed=self.seed, start=self.start, end=self.end, **shape, depth=self.depth, device=self.device)

    def __call__(self, time: float) -> Float[Tensor, "batch unknown"]:
        return self._one(time).repeat(self.groups, 1)


class Noise(nn.Module):
    """g(t, z, a), positive, in deviations of the coordinates per square root of their typical time."""

    scale: Tensor
    deviation: Tensor

    def __init__(self, network: nn.Module, unknowns: int) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("scale", torch.ones(unknowns))
        self.register_buffer("deviation", torch.ones(unknowns))

    def fit(self, deviation: Tensor, omega: Tensor) -> None:
        self.scale.copy_(deviation * omega.sqrt())
        self.deviation.copy_(deviation)

    def forward(self, t: Tensor, state: Tensor, given: Tensor | None = None) -> Tensor:
        return self.scale * F.softplus(CALM + self.network(t, state / self.deviation, given))


@final
class NeuralSDE(LearnedDynamics):
    """See the head of this file."""

    def __init__(
        self,
        signature: Signature,
        grid: Grid,
        states: Coordinates,
        drift: Flow,
        noise: Noise,
        recipe: Recipe = Recipe(),  # noqa: B008 - frozen
        *,
        paths: int = 8,
        draws: int = 32,
        steps: int = 4,
        rtol: float = 1e-2,
        atol: float = 1e-2,
        regulariser: Penalised = "none",
        weight: float = 1.0,
    ) -> None:
        conditions = conditions_of(signature, grid, vector=True)
        super().__init__(signature, grid, recipe, states, conditions, {"drift": drift, "noise": noise})
        if paths < 2 or draws < 1 or steps < 0:
            raise ValueError(f"paths is at least 2, draws 1, steps 0; got {paths}, {draws}, {steps}.")
        if regulariser != "none" and steps:
            raise ValueError(f"The regulariser {regulariser} acts on adaptive steps: say steps 0, not {steps}.")
        self.drift, self.noise, self.paths, self.draws, self.steps = drift, noise, paths, draws, steps
        self.options: dict[str, Any] = {"rtol": rtol, "atol": atol}
        self.regulariser, self.weight = regulariser, weight

    # ------------------------------------------------------------------ answering

    def trajectory(self, fields: Tensor, given: Tensor | None, times: Sequence[float]) -> Tensor:
        return self._drawn(self.draws, fields, given, times, self.recipe.seed).mean(dim=0)

    def sample(
        self,
        count: int,
        inputs: Float[Tensor, "batch channel *space"],
        grid: Grid,
        times: Sequence[float] | None = None,
        *,
        generator: Generator,
    ) -> Float[Tensor, "count batch time output *space"]:
        """Paths; one generator state, one set of paths."""
        fields, given, wanted = self._door(inputs, grid, times)
        return self._drawn(count, fields, given, wanted, _seed(generator)).to(inputs)

    def deviation(
        self, inputs: Float[Tensor, "batch channel *space"], grid: Grid, times: Sequence[float] | None = None
    ) -> Float[Tensor, "batch time output *space"]:
        """Standard deviation over the paths behind an answer."""
        if self.draws < 2:
            raise ValueError("A deviation needs at least 2 draws; this model has 1.")
        fields, given, wanted = self._door(inputs, grid, times)
        return self._drawn(self.draws, fields, given, wanted, self.recipe.seed).std(dim=0).to(inputs)

    def _door(
        self, inputs: Tensor, grid: Grid, times: Sequence[float] | None
    ) -> tuple[Tensor, Tensor | None, Sequence[float]]:
        check_fields(inputs, grid, len(self.signature.inputs))
        wanted = list(self.signature.times if times is None else times)
        check_times(wanted)
        fields, given = self.split(inputs.to(self.device, torch.float32))
        return fields, self.condition(given), wanted

    @torch.no_grad()
    def _drawn(
        self, count: int, fields: Tensor, given: Tensor | None, times: Sequence[float], seed: int
    ) -> Float[Tensor, "count batch time channel *space"]:
        path = self._solved(count, fields, given, times, seed)
        spent = sum(path.evaluations)
        self.health = (Work(spent, path.accepted, path.rejected),) * len(fields)
        states = path.states[:, 1:]
        fields = self.states.inverse(states.flatten(0, 1)).unflatten(0, (-1, count, states.shape[1]))
        return fields.transpose(0, 1)

    def _solved(self, count: int, fields: Tensor, given: Tensor | None, times: Sequence[float], seed: int) -> Path:
        """``count`` paths of each sample, one after the other."""
        start = self.states(fields).repeat_interleave(count, dim=0)
        beside = None if given is None else given.repeat_interleave(count, dim=0)
        drift, noise = self._terms(beside)
        brownian = Shared(
            seed=seed,
            start=0.0,
            end=times[-1],
            batch=len(start),
            unknowns=start.shape[1],
            device=start.device,
            groups=len(fields),
        )
        step = self.signature.spacing / self.steps if self.steps else None
        return sdeint(drift, noise, start, [0.0, *times], seed=seed, step=step, brownian=brownian, **self.options)

    def _terms(self, given: Tensor | None) -> tuple[Callable[..., Tensor], Callable[..., Tensor]]:
        return bound(self.drift, given), lambda t, state: self.noise(t, state, given)

    # ------------------------------------------------------------------ learning

    def loss(self, fields: Tensor, given: Tensor | None, targets: Tensor, noise: Generator) -> Tensor:
        path = self._solved(self.paths, fields, given, self.frames(targets.shape[1]), _seed(noise))
        truth = self.states(targets.flatten(0, 1)).unflatten(0, targets.shape[:2])
        found = path.states[:, 1:].unflatten(0, (-1, self.paths))
        score = energy_score(found / self.drift.deviation, truth / self.drift.deviation).mean(dim=1)
        if self.regulariser == "none":
            return score
        if self.regulariser == "ernode":
            return score + self.weight * GlobalNoise(aggregate="sum")(path)
        beside = None if given is None else given.repeat_interleave(self.paths, dim=0)
        return score + self.weight * LocalNoise()(*self._terms(beside), path, generator=noise)

    def prepare(self, data: Dataset) -> None:
        deviation, rate = rates_of(self.states, trajectories(data), self.signature.spacing)
        self.drift.fit(deviation, rate)
        self.noise.fit(deviation, (rate / deviation).mean())


def energy_score(
    draws: Float[Tensor, "batch path time unknown"], truth: Float[Tensor, "batch time unknown"]
) -> Float[Tensor, "batch time"]:
    r"""E|Z - z| - E|Z - Z'| / 2 of each frame, without bias: pairs of different paths only."""
    count, tiny = draws.shape[1], 1e-12  # a norm has no gradient at zero
    apart = ((draws - truth[:, None]).square().sum(dim=-1) + tiny).sqrt().mean(dim=1)
    pairs = ((draws[:, :, None] - draws[:, None]).square().sum(dim=-1) + tiny).sqrt()
    return apart - 0.5 * (pairs.sum(dim=(1, 2)) - count * math.sqrt(tiny)) / (count * (count - 1))


def _seed(generator: Generator) -> int:
    return int(torch.randint(2**62, (), generator=generator))


def build(
    problem: Problem,
    grid: Grid,
    *,
    width: int = 64,
    layers: int = 2,
    components: int = 16,
    energy: float = 0.9999,
    paths: int = 8,
    draws: int = 32,
    steps: int = 4,
    rtol: float = 1e-2,
    atol: float = 1e-2,
    regulariser: Penalised = "none",
    weight: float = 1.0,
    recipe: Recipe = Recipe(),  # noqa: B008 - frozen
) -> NeuralSDE:
    """A neural SDE for an evolution.

    width         hidden units of drift and noise
    layers        hidden layers
    components    POD modes of a field, at most
    energy        share of the variance that the POD modes hold
    paths         of each training window, at least 2
    draws         paths behind an answer
    steps         of equal size between two frames; 0: adaptive
    rtol          tolerance of the local error, relative (adaptive)
    atol          the same in deviations of the coordinates
    regulariser   none, ernode or local (adaptive)
    weight        of the regulariser
    """
    check_learnable(problem, recipe, "neural_sde", objective=False)
    size: dict[str, Any] = {"width": width, "layers": layers, "components": components, "energy": energy}
    states, network, _ = in_a_vector(problem.signature, grid, **size)
    unknowns = states.shape[0]
    return NeuralSDE(
        problem.signature,
        grid,
        states,
        Flow(network, unknowns, dim=0),
        Noise(network(unknowns, unknowns), unknowns),
        recipe,
        paths=paths,
        draws=draws,
        steps=steps,
        rtol=rtol,
        atol=atol,
        regulariser=regulariser,
        weight=weight,
    )


def _quick(problem: Problem) -> Preset:
    frames = max(1, problem.signature.frames)
    train = {"epochs": 30, "batch": 32, "learning_rate": 5e-3, "unroll": min(frames, 5), "weight_decay": 0.0}
    return Preset(train=train, seconds=120.0)


PRESETS: Mapping[tuple[str, str], object] = {
    ("quick", "*"): _quick,
    # The spiral of Pal et al. 2021 (with --pde.inner 2 --pde.frames 29 --pde.spacing 0.0345): 50 tanh units, 100 paths,
    # tolerance 0.3, 0.2 times the sum of E h. There: cubes as inputs, AdaBelief, moments instead of the score.
    ("paper", "spiral"): Preset(
        model={
            **{"width": 50, "layers": 1, "paths": 100, "draws": 100, "steps": 0, "rtol": 0.3, "atol": 0.3},
            **{"regulariser": "ernode", "weight": 0.2},
        },
        train={
            "epochs": 1,
            "batch": 4,
            "learning_rate": 1e-2,
            "schedule": "constant",
            "unroll": 29,
            "weight_decay": 0.0,
        },
    ),
}
