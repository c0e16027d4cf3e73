r"""Hamiltonian Monte Carlo for many posteriors at once, each with several chains (Neal 2011; Hoffman & Gelman 2014).

.. math:: H(q, p) = -\log \pi(m + L q) + \tfrac12 |p|^2,\qquad L L^T \approx \mathrm{cov}_\pi

m, L    centre and a factor of the covariance, one a posterior: from the mode and its curvature, and once more from the
        states met in the first half of the warm-up, each about its chain's mean (chains in modes apart would make the
        frame as wide as their distance), drawn towards the former by as many notional states as dimensions
step    one a posterior, by dual averaging of the acceptance (target 0.8) over its chains and transitions
path    leapfrog steps until about pi/2 in q, by which a Gaussian forgets its start, times a uniform factor in
        [0.6, 1.4] so that no orbit closes; all posteriors take as many as the one with the median step needs (while
        steps adapt, the smallest of ten is a third of what it settles at)

All chains of all posteriors share each evaluation. A sampler of one chain at a time (NUTS as libraries have it) would
evaluate a network latent by latent: see ``docs/inverse.md`` for what that costs.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Generator, Tensor

Density = Callable[[Tensor], Tensor]  # "truth chain size" -> "truth chain"

TARGET = 0.8
PATH = 0.5 * math.pi
MOST_STEPS = 64  # of a trajectory
DIVERGED = 1000.0  # an energy error beyond it
_GAMMA, _OFFSET, _DECAY = 0.05, 10.0, 0.75  # of dual averaging, as published


@dataclass(frozen=True, eq=False)
class Frame:
    """Coordinates in which a posterior is about a standard normal: state = centre + factor q."""

    centre: Float[Tensor, "truth size"]
    factor: Float[Tensor, "truth size column"]

    @classmethod
    def of_covariance(cls, centre: Tensor, covariance: Tensor) -> Frame:
        return cls(centre, torch.linalg.cholesky(covariance))

    def state(self, q: Float[Tensor, "truth chain column"]) -> Float[Tensor, "truth chain size"]:
        return self.centre[:, None] + q @ self.factor.mT

    def coordinates(self, state: Float[Tensor, "truth chain size"]) -> Float[Tensor, "truth chain size"]:
        away = (state - self.centre[:, None]).mT
        return torch.linalg.solve_triangular(self.factor, away, upper=False).mT


@dataclass(frozen=True, eq=False)
class Chains:
    """What was drawn, and how it went; numbers are one a posterior."""

    states: Float[Tensor, "truth chain draw size"]
    log_density: Float[Tensor, "truth chain draw"]
    acceptance: Float[Tensor, " truth"]
    step: Float[Tensor, " truth"]
    divergent: Float[Tensor, " truth"]  # transitions


def sample(
    density: Density,
    start: Float[Tensor, "truth chain size"],
    frame: Frame,
    *,
    draws: int,
    warmup: int,
    generator: Generator,
    progress: Callable[[float], None] | None = None,
) -> Chains:
    """Draws of every chain after a warm-up that finds the steps and corrects the frame."""
    walk = _Walk(density, frame, start, generator)
    total, first = warmup + draws, warmup // 2
    met = []
    for turn in range(first):
        walk.move(adapting=True)
        if 2 * turn >= first:
            met.append(walk.state())
        _tell(progress, (turn + 1) / total)
    if met:
        walk.reframe(torch.stack(met, dim=2))
    for turn in range(first, warmup):
        walk.move(adapting=True)
        _tell(progress, (turn + 1) / total)
    walk.settle()
    states, densities, accepted, diverged = [], [], [], []
    for turn in range(draws):
        rate, lost = walk.move(adapting=False)
        states.append(walk.state())
        densities.append(walk.log_density)
        accepted.append(rate)
        diverged.append(lost)
        _tell(progress, (warmup + turn + 1) / total)
    return Chains(
        torch.stack(states, dim=2),
        torch.stack(densities, dim=2),
        torch.stack(accepted).mean(dim=0),
        walk.step.clone(),
        torch.stack(diverged).sum(dim=0),
    )


def _tell(progress: Callable[[float], None] | None, part: float) -> None:
    if progress is not None:
        progress(part)


class _Walk:
    """Where the chains stand, and the step sizes on their way to the target."""

    def __init__(self, density: Density, frame: Frame, start: Tensor, generator: Generator) -> None:
        self.density, self.frame, self.generator = density, frame, generator
        self.q = frame.coordinates(start)
        self.log_density, self.slope = self._look(self.q)
        size = start.shape[-1]
        self._begin(torch.full((len(start),), 1.0 / size**0.25, dtype=torch.float64))

    def state(self) -> Tensor:
        return self.frame.state(self.q)

    def _look(self, q: Tensor) -> tuple[Tensor, Tensor]:
        at = q.detach().requires_grad_()
        with torch.enable_grad():
            value = self.density(self.frame.state(at))
            slope = torch.autograd.grad(value.sum(), at)[0]
        return value.detach(), slope

    def move(self, *, adapting: bool) -> tuple[Tensor, Tensor]:
        """One transition of every chain: mean acceptance and number of divergences, one a posterior."""
        momentum = torch.randn(self.q.shape, generator=self.generator, dtype=torch.float64)
        jitter = 0.6 + 0.8 * float(torch.rand((), generator=self.generator))
        count = max(1, min(MOST_STEPS, round(jitter * PATH / float(self.step.median()))))
        before = self.log_density - 0.5 * momentum.square().sum(dim=-1)
        q, p, value, slope = self._leapfrog(momentum, count)
        change = value - 0.5 * p.square().sum(dim=-1) - before
        change = torch.where(torch.isfinite(change), change, -torch.inf)
        chance = change.clamp(max=0.0).exp()
        taken = torch.rand(chance.shape, generator=self.generator, dtype=torch.float64) < chance
        self.q = torch.where(taken[..., None], q, self.q)
        self.slope = torch.where(taken[..., None], slope, self.slope)
        self.log_density = torch.where(taken, value, self.log_density)
        rate = chance.mean(dim=1)
        if adapting:
            self._adapt(rate)
        return rate, (change < -DIVERGED).sum(dim=1).double()

    def _leapfrog(self, p: Tensor, count: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        q, slope, step = self.q, self.slope, self.step[:, None, None]
        p = p + 0.5 * step * slope
        for i in range(count):
            q = q + step * p
            value, slope = self._look(q)
            p = p + (step if i < count - 1 else 0.5 * step) * slope
        return q, p, value, slope

    def _begin(self, step: Tensor) -> None:
        self.step, self.anchor = step, (10 * step).log()
        self.turns, self.shortfall, self.smooth = 0, torch.zeros_like(step), torch.zeros_like(step)

    def _adapt(self, rate: Tensor) -> None:
        """Dual averaging: the step that makes the mean acceptance meet its target."""
        self.turns += 1
        share = 1 / (self.turns + _OFFSET)
        self.shortfall = (1 - share) * self.shortfall + share * (TARGET - rate)
        log_step = self.anchor - math.sqrt(self.turns) / _GAMMA * self.shortfall
        weight = self.turns**-_DECAY
        self.smooth = weight * log_step + (1 - weight) * self.smooth
        self.step = log_step.exp()

    def settle(self) -> None:
        if self.turns:
            self.step = self.smooth.exp()

    def reframe(self, met: Float[Tensor, "truth chain draw size"]) -> None:
        """The covariance met, drawn towards the present one; chains and steps go on from where they are."""
        state, (chains, draws, size) = self.state(), met.shape[1:]
        q = self.frame.coordinates(met.flatten(1, 2)).unflatten(1, (chains, draws))
        away = (q - q.mean(dim=2, keepdim=True)).flatten(1, 2)
        count, spread = chains * (draws - 1), away.mT @ away
        covariance = (spread + size * torch.eye(size, dtype=torch.float64)) / (count + size)
        factor = self.frame.factor @ torch.linalg.cholesky(covariance)
        self.frame = Frame(self.frame.centre, factor)
        self.q = self.frame.coordinates(state)
        self.log_density, self.slope = self._look(self.q)
        self._begin(self.smooth.exp() if self.turns else self.step)
