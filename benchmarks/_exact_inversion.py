r"""The posterior itself, without any surrogate: what the best possible inversion of two-phase Darcy flow would score.

.. math:: g' = \sqrt{1 - \beta^2}\, g + \beta\, \xi,\qquad \xi \sim p(g),\qquad
          \alpha = \min\big(1, \exp(\Phi(g) - \Phi(g'))\big)

The preconditioned Crank-Nicolson sampler (Cotter, Roberts, Stuart & White 2013) draws from the very law of the problem
and asks its reference solver at every step, so its errors are the floor that sensors and noise set, up to mixing: the
difference of two chains' probabilities is recorded.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from resolvent.data.observations import Observations
from resolvent.evaluation.calibration import coverage, likely, relative_error, wrong_cells
from resolvent.pde import Grid
from resolvent.pde._random_fields import neumann_field
from resolvent.pde.darcy import Darcy
from torch import Generator, Tensor

CHAINS = 2
KEPT = 200  # states of each chain
FASTER, SLOWER = 1.05, 0.985  # beta after each acceptance and rejection of the first third: about 23 % are accepted


def exact_scores(
    problem: Darcy, grid: Grid, many: Sequence[Observations], nodes: Tensor, *, steps: int, seed: int
) -> list[dict[str, float]]:
    """As the scores of a posterior; ``nodes``: the numbers of those on which all sensors stand."""
    walk = _Walk(problem, grid, many, nodes, Generator().manual_seed(seed))
    media, answers = [], []
    for step in range(steps):
        walk.move(adapting=3 * step < steps)
        if 3 * step >= steps and step % max(1, 2 * steps // (3 * KEPT)) == 0:
            media.append(walk.media())
            answers.append(walk.solution)
    a, u = (torch.stack(parts).unflatten(1, (len(many), CHAINS)) for parts in (media, answers))
    rows = []
    for i, one in enumerate(many):
        assert one.truth is not None
        known, pressure = one.truth.inputs[0].double(), one.truth.outputs[0].double()
        apart = (a[:, i, 0].mean(dim=0) - a[:, i, 1].mean(dim=0)).abs().mean()
        samples, solutions = a[:, i].flatten(0, 1), u[:, i].flatten(0, 1)
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
                "acceptance": float(walk.accepted[CHAINS * i : CHAINS * (i + 1)].mean()) / max(1, walk.counted),
            }
        )
    return rows


class _Walk:
    """All chains of all truths, one solve a step."""

    def __init__(
        self, problem: Darcy, grid: Grid, many: Sequence[Observations], nodes: Tensor, generator: Generator
    ) -> None:
        self.problem, self.grid, self.nodes, self.generator = problem, grid, nodes, generator
        self.solver = problem.reference()
        count = CHAINS * len(many)
        self.values = torch.stack([one.values for one in many]).repeat_interleave(CHAINS, dim=0)
        noise = [float(one.source["noise"]) for one in many]
        self.noise = torch.tensor(noise, dtype=torch.float64).repeat_interleave(CHAINS)
        self.field = self._draw(count)
        self.solution, self.fit = self._look(self.field)
        self.beta = torch.full((count,), 0.2, dtype=torch.float64)
        self.accepted, self.counted = torch.zeros(count, dtype=torch.float64), 0

    def _draw(self, count: int) -> Tensor:
        return neumann_field(count, self.grid, alpha=self.problem.alpha, tau=self.problem.tau, generator=self.generator)

    def media(self, field: Tensor | None = None) -> Tensor:
        signs = (self.field if field is None else field) >= 0
        return self.problem.low * torch.where(signs, self.problem.contrast, 1.0).double()

    def _look(self, field: Tensor) -> tuple[Tensor, Tensor]:
        solution = self.solver(self.media(field)[:, None], self.grid)[:, 0]
        misfit = (self.values - solution.flatten(1)[:, self.nodes]) / self.noise[:, None]
        return solution, -0.5 * misfit.square().sum(dim=1)

    def move(self, *, adapting: bool) -> None:
        beta = self.beta[:, None, None]
        proposed = (1 - beta.square()).sqrt() * self.field + beta * self._draw(len(self.beta))
        solution, fit = self._look(proposed)
        chance = torch.rand(len(fit), generator=self.generator, dtype=torch.float64).log()
        taken = chance < fit - self.fit
        self.field = torch.where(taken[:, None, None], proposed, self.field)
        self.solution = torch.where(taken[:, None, None], solution, self.solution)
        self.fit = torch.where(taken, fit, self.fit)
        if adapting:
            self.beta = (self.beta * torch.where(taken, FASTER, SLOWER)).clamp(1e-3, 1.0)
        else:
            self.accepted, self.counted = self.accepted + taken, self.counted + 1
