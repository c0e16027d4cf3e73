r"""The posterior itself, without any surrogate: what the best possible inversion of two-phase Darcy flow would score.

.. math:: \xi'_k = \sqrt{1 - \beta_b^2}\, \xi_k + \beta_b\, \eta_k,\qquad \eta_k \sim N(0, 1),\qquad
          \alpha = \min\big(1, \exp(\Phi(\xi) - \Phi(\xi'))\big)

The preconditioned Crank-Nicolson sampler (Cotter, Roberts, Stuart & White 2013) on the coefficients xi_k of the cosine
series of the field under the phases draws from the very law of the problem and asks its reference solver at every step,
so its errors are the floor that sensors and noise set, up to mixing: the difference of two halves of the chains is
recorded. Modes move in blocks b, one a step, each with a beta of its own: long waves, which the sensors see, in small
steps, short ones in large steps.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from resolvent.data.observations import Observations
from resolvent.evaluation.calibration import coverage, likely, relative_error, wrong_cells
from resolvent.pde import Grid
from resolvent.pde.darcy import Darcy
from torch import Generator, Tensor

CHAINS = 4
KEPT = 400  # states of each chain
RINGS = (0.0, 3.0, 7.0, math.inf)  # wave numbers between which a block lies
FASTER, SLOWER = 1.05, 0.985  # beta after each acceptance and rejection of the first third: about 23 % are accepted


def exact_scores(
    problem: Darcy, grid: Grid, many: Sequence[Observations], nodes: Tensor, *, steps: int, seed: int
) -> list[dict[str, float]]:
    """As the scores of a posterior; ``nodes``: the numbers of those on which all sensors stand."""
    media, answers, walk = exact_samples(problem, grid, many, nodes, steps=steps, seed=seed)
    rows = []
    for i, one in enumerate(many):
        assert one.truth is not None
        known, pressure = one.truth.inputs[0].double(), one.truth.outputs[0].double()
        means = media[:, i].mean(dim=0)
        apart = (means[: CHAINS // 2].mean(dim=0) - means[CHAINS // 2 :].mean(dim=0)).abs().mean()
        samples, solutions = media[:, i].flatten(0, 1), answers[:, i].flatten(0, 1)
        inner, chance = pressure > 0, Generator().manual_seed(seed)
        rows.append(
            {
                "coefficient relative_l2": relative_error(samples.mean(dim=0), known),
                "coefficient relative_l2 of the likeliest phase": relative_error(likely(samples), known),
                "coefficient wrong cells": wrong_cells(samples, known),
                "coefficient coverage 0.9": coverage(samples, known, generator=chance),
                "pressure relative_l2": relative_error(solutions.mean(dim=0), pressure),
                "pressure coverage 0.9": coverage(solutions[:, inner], pressure[inner], generator=chance),
                "apart": float(apart) / (problem.low * (problem.contrast - 1)),
                "acceptance": float(walk.accepted[:, CHAINS * i : CHAINS * (i + 1)].sum() / CHAINS / walk.counted),
            }
        )
    return rows


def exact_samples(
    problem: Darcy, grid: Grid, many: Sequence[Observations], nodes: Tensor, *, steps: int, seed: int
) -> tuple[Tensor, Tensor, Walk]:
    """Media and pressures, ``state truth chain *space``."""
    walk = Walk(problem, grid, many, nodes, Generator().manual_seed(seed))
    media, answers = [], []
    for step in range(steps):
        walk.move(adapting=3 * step < steps)
        if 3 * step >= steps and step % max(1, 2 * steps // (3 * KEPT)) == 0:
            media.append(walk.medium.float())
            answers.append(walk.solution.float())
    a, u = (torch.stack(parts).double().unflatten(1, (len(many), CHAINS)) for parts in (media, answers))
    return a, u, walk


class Walk:
    """All chains of all truths, one solve a step."""

    def __init__(
        self, problem: Darcy, grid: Grid, many: Sequence[Observations], nodes: Tensor, generator: Generator
    ) -> None:
        self.problem, self.grid, self.nodes, self.generator = problem, grid, nodes, generator
        self.solver, self.count = problem.reference(), CHAINS * len(many)
        self.values = torch.stack([one.values for one in many]).repeat_interleave(CHAINS, dim=0)
        noise = [float(one.source["noise"]) for one in many]
        self.noise = torch.tensor(noise, dtype=torch.float64).repeat_interleave(CHAINS)
        self.waves, numbers = _cosines(grid.shape[0]), torch.arange(grid.shape[0], dtype=torch.float64)
        squares = numbers[:, None].square() + numbers.square()
        self.sizes = (math.pi**2 * squares + problem.tau**2) ** (-problem.alpha / 2)
        self.sizes[0, 0] = 0.0  # the mean; a common factor changes no sign
        self.blocks = [
            ((squares.sqrt() >= low) & (squares.sqrt() < high)).double()
            for low, high in zip(RINGS, RINGS[1:], strict=False)
        ]
        self.state = self._noise()
        self.medium, self.solution, self.fit = self._look(self.state)
        self.beta = torch.full((len(self.blocks), self.count), 0.2, dtype=torch.float64)
        self.accepted, self.counted = torch.zeros_like(self.beta), 0

    def _noise(self) -> Tensor:
        return torch.randn(self.count, *self.grid.shape, generator=self.generator, dtype=torch.float64)

    def _look(self, state: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        field = self.waves @ (self.sizes * state) @ self.waves.T
        medium = self.problem.low * torch.where(field >= 0, self.problem.contrast, 1.0).double()
        solution = self.solver(medium[:, None], self.grid)[:, 0]
        misfit = (self.values - solution.flatten(1)[:, self.nodes]) / self.noise[:, None]
        return medium, solution, -0.5 * misfit.square().sum(dim=1)

    def move(self, *, adapting: bool) -> None:
        number = int(torch.randint(len(self.blocks), (), generator=self.generator))
        beta = self.beta[number, :, None, None] * self.blocks[number]
        proposed = (1 - beta.square()).sqrt() * self.state + beta * self._noise()
        medium, solution, fit = self._look(proposed)
        chance = torch.rand(len(fit), generator=self.generator, dtype=torch.float64).log()
        taken = chance < fit - self.fit
        self.state = torch.where(taken[:, None, None], proposed, self.state)
        self.medium = torch.where(taken[:, None, None], medium, self.medium)
        self.solution = torch.where(taken[:, None, None], solution, self.solution)
        self.fit = torch.where(taken, fit, self.fit)
        if adapting:
            self.beta[number] = (self.beta[number] * torch.where(taken, FASTER, SLOWER)).clamp(1e-3, 1.0)
        else:
            self.accepted[number], self.counted = self.accepted[number] + taken, self.counted + 1


def _cosines(nodes: int) -> Tensor:
    """``node wave``: 1 and sqrt(2) cos(k pi x) at the nodes of [0, 1]."""
    x = torch.linspace(0, 1, nodes, dtype=torch.float64)
    waves = math.sqrt(2) * torch.cos(math.pi * x[:, None] * torch.arange(nodes, dtype=torch.float64))
    return torch.cat([torch.ones(nodes, 1, dtype=torch.float64), waves[:, 1:]], dim=1)
