r"""Almost-linear recurrent network: dynamics in few affine pieces, which can be read as a code.

.. math:: z_t = a \odot z_{t-1} + W\phi(z_{t-1}) + h

phi leaves all but the last P of the M units alone and rectifies those: at most 2^P regions, one symbol each, in which
the map is affine, so that fixed points, cycles and Lyapunov exponents are exact (``_symbolic.py``, ``resolvent
analyse``). The first N units are the observed coordinates: the channels of a plain system, the leading POD coefficients
of fields. A step is one frame. Brenner, Hemmer, Monfared, Durstewitz, NeurIPS 2024; trained by sparse or generalised
teacher forcing (``_al_rnn.py``) on windows of ``train.unroll`` frames.

Published: Lorenz-63 M 20, P 2, interval 16, windows of 200; Roessler 20, 1, 8, 300; Lorenz-96 100, 50, 20. Their RAdam
with a rate falling exponentially from 1e-3 to 1e-5 is here Adam with a warm-up (which is what the R stands for) and the
loop's schedules; windows of 200 need a problem with as many frames (``--pde.spacing 0.01 --pde.frames 1000``).
``train.noise`` is added to the start of a window and to the forcing data, in deviations.

>>> import torch
>>> from resolvent.dynamics.al_rnn import build
>>> from resolvent.pde.lorenz import Lorenz
>>> problem = Lorenz()
>>> solver = build(problem, problem.grid(2))
>>> solver.recurrence.units, solver.recurrence.rectified
(20, 2)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, final, get_args

import torch
from torch import Generator, Tensor

from ..pde import Grid, Problem, Signature, frame_numbers
from ..training import Preset, Recipe
from ._al_rnn import Recurrence
from ._coordinates import Channels, Coordinates, Modes
from ._learner import LearnedDynamics, Work, check_learnable, conditions_of

Forcing = Literal["sparse", "generalised"]


@final
class AlmostLinearRNN(LearnedDynamics):
    """See the head of this file.

    forcing    sparse: every ``interval``-th step the data; generalised: every step the part ``strength`` of them
    """

    def __init__(
        self,
        signature: Signature,
        grid: Grid,
        recurrence: Recurrence,
        states: Coordinates,
        recipe: Recipe = Recipe(),  # noqa: B008 - frozen
        *,
        forcing: Forcing = "sparse",
        interval: int = 16,
        strength: float = 0.1,
    ) -> None:
        conditions = conditions_of(signature, grid, vector=True)
        super().__init__(signature, grid, recipe, states, conditions, {"recurrence": recurrence})
        if forcing not in get_args(Forcing) or interval < 1 or not 0 < strength <= 1:
            raise ValueError(
                f"al_rnn needs forcing of {get_args(Forcing)}, interval >= 1 and strength in (0, 1]; got {forcing!r}, "
                f"{interval} and {strength}."
            )
        self.recurrence, self.forcing, self.interval, self.strength = recurrence, forcing, interval, strength

    def trajectory(self, fields: Tensor, given: Tensor | None, times: Sequence[float]) -> Tensor:
        wanted = frame_numbers(times, self.signature.spacing)
        whole = self.latent(fields, given, wanted[-1])[:, [n - 1 for n in wanted]]
        self.health = (Work(wanted[-1], wanted[-1], 0),) * len(fields)
        return self._fields(whole)

    def latent(self, fields: Tensor, given: Tensor | None, steps: int) -> Tensor:
        """All units after 1 ... ``steps`` frames, free of forcing: ``batch time unit``."""
        observed = self.states(fields)
        start = self.recurrence.begin(observed)
        return self.recurrence.run(start, self.recurrence.push(given, len(start)), steps, None)

    def _fields(self, whole: Tensor) -> Tensor:
        seen = whole[..., : self.recurrence.observed]
        return self.states.inverse(seen.flatten(0, 1)).unflatten(0, whole.shape[:2])

    def loss(self, fields: Tensor, given: Tensor | None, targets: Tensor, noise: Generator) -> Tensor:
        start, steps = self.recurrence.begin(self.states(fields)), targets.shape[1]
        forced = (self._teacher(targets, noise), self.strengths(steps))
        whole = self.recurrence.run(start, self.recurrence.push(given, len(start)), steps, forced)
        found, known = (self.scaled(x.flatten(0, 1)) for x in (self._fields(whole), targets))
        return self.objective(found, known, self.grid).view(-1, steps).mean(dim=1)

    def _teacher(self, targets: Tensor, noise: Generator) -> Tensor:
        data = self.states(targets.flatten(0, 1)).unflatten(0, targets.shape[:2])
        if not self.recipe.noise:
            return data
        return data + self.recipe.noise * torch.randn(data.shape, generator=noise).to(data)

    def strengths(self, steps: int) -> list[float]:
        """By how much the observed units are drawn to the data after each step."""
        if self.forcing == "generalised":
            return [self.strength] * steps
        return [float((t + 1) % self.interval == 0) for t in range(steps)]


def build(
    problem: Problem,
    grid: Grid,
    *,
    hidden: int = 17,
    rectified: int = 2,
    components: int = 16,
    energy: float = 0.9999,
    forcing: Forcing = "sparse",
    interval: int = 16,
    strength: float = 0.1,
    recipe: Recipe = Recipe(objective="mean_square"),  # noqa: B008 - frozen
) -> AlmostLinearRNN:
    """An AL-RNN for an evolution.

    hidden       units beside the observed coordinates
    rectified    P: of the last units; at most 2^P affine pieces
    components   of fields: POD modes, at most
    energy       of fields: share of the variance that the modes hold
    forcing      while training: sparse or generalised
    interval     sparse: frames between two forced ones
    strength     generalised: the part of the data at every frame, in (0, 1]
    """
    check_learnable(problem, recipe, "al_rnn")
    signature = problem.signature
    if recipe.normalise == "pointwise":
        raise ValueError("al_rnn scales channels, not nodes: say train.normalise channel.")
    channels = len(signature.outputs)
    states: Coordinates = (
        Modes(channels, grid.shape, components, energy) if grid.dim else Channels(channels, (), recipe.normalise)
    )
    conditions = conditions_of(signature, grid, vector=True)
    given = 0 if conditions is None else conditions.features
    recurrence = Recurrence(states.shape[0], hidden, rectified, given=given)
    options = {"forcing": forcing, "interval": interval, "strength": strength}
    return AlmostLinearRNN(signature, grid, recurrence, states, recipe, **options)  # type: ignore[arg-type]


def _quick(problem: Problem) -> Preset:
    frames, plain = max(1, problem.signature.frames), problem.grid(16).dim == 0
    train = {"epochs": 60, "batch": 64, "learning_rate": 3e-3, "objective": "mean_square", "weight_decay": 0.0}
    return Preset(model={}, train={**train, "unroll": min(frames, 50 if plain else 20)}, seconds=120.0)


PRESETS: Mapping[tuple[str, str], object] = {
    ("quick", "*"): _quick,
    ("paper", "lorenz"): Preset(
        model={"hidden": 17, "rectified": 2, "interval": 16},
        train={
            **{"epochs": 2000, "batch": 16, "learning_rate": 1e-3, "objective": "mean_square", "weight_decay": 0.0},
            **{"unroll": 50, "noise": 0.05, "schedule": "step", "step_every": 0.05, "step_factor": 0.7943},
        },
    ),
}
