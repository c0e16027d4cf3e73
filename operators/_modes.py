r"""Where posteriors are highest, how they curve there, and the Gaussian that fits them best.

mode          many starts by Adam, all at once, the best of each posterior polished by damped Gauss-Newton steps
laplace       the Gaussian with the mode as mean and the inverse curvature as covariance
variational   the Gaussian q of least divergence KL(q | posterior): full covariance or low rank plus diagonal. In the
              frame of the former it starts as N(0, I); gradients through the path only (Roeder et al. 2017), whose
              variance vanishes where q is the posterior
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from ._hamiltonian import Density, Frame
from ._log_posterior import LogPosterior

RATE = 0.1  # of Adam, in units of the prior's spread
POLISH = 4  # Gauss-Newton steps
WIDEST = 2.0  # standard deviations of the prior: no direction of a frame is wider
PATHS = 16  # samples a step of the variational fit, half of them mirrored
VARIATIONAL_RATE = 0.02


@dataclass(frozen=True, eq=False)
class Modes:
    """The best state of each posterior, the frame of its curvature, and where every start ended."""

    best: Float[Tensor, "truth size"]
    log_density: Float[Tensor, " truth"]
    frame: Frame
    ends: Float[Tensor, "truth start size"]
    ends_density: Float[Tensor, "truth start"]


def find_modes(
    target: LogPosterior,
    starts: Float[Tensor, "truth start size"],
    widest: float,
    *,
    steps: int,
    progress: Callable[[float], None] | None = None,
) -> Modes:
    """From given starts (draws of the prior); ``widest``: the largest variance of the prior in any direction."""
    ends, densities = _climb(target, starts, steps, progress)
    best = ends[torch.arange(len(ends)), densities.argmax(dim=1)]
    limit = (WIDEST**2) * widest
    for _ in range(POLISH):
        best = _newton(target, best, limit)
    density = target(best[:, None])[:, 0].detach()
    return Modes(best, density, Frame.of_covariance(best, _covariance(target.curvature(best), limit)), ends, densities)


def _climb(
    density: Density, starts: Tensor, steps: int, progress: Callable[[float], None] | None
) -> tuple[Tensor, Tensor]:
    """Adam with a cosine schedule on every start; the states and their log densities."""
    at = starts.detach().clone().requires_grad_()
    optimiser = torch.optim.Adam([at], lr=RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    for step in range(steps):
        optimiser.zero_grad()
        (-density(at).sum()).backward()
        optimiser.step()
        schedule.step()
        if progress is not None:
            progress((step + 1) / steps)
    with torch.no_grad():
        return at.detach(), density(at)


def _newton(target: LogPosterior, state: Float[Tensor, "truth size"], limit: float) -> Float[Tensor, "truth size"]:
    """One step with halvings where it does not climb; a posterior for which none does stays where it is."""
    at = state[:, None].clone().requires_grad_()
    before = target(at)
    slope = torch.autograd.grad(before.sum(), at)[0][:, 0]
    step = (_covariance(target.curvature(state), limit) @ slope[..., None])[..., 0]
    sizes = 0.5 ** torch.arange(6, dtype=torch.float64)
    tried = state[:, None] + sizes[:, None] * step[:, None]
    with torch.no_grad():
        values = target(tried)
    best = values.nan_to_num(nan=-torch.inf).argmax(dim=1)
    number = torch.arange(len(state))
    better = values[number, best] > before[:, 0].detach()
    return torch.where(better[:, None], tried[number, best], state)


def _covariance(curvature: Float[Tensor, "truth size size"], limit: float) -> Float[Tensor, "truth size size"]:
    """Its inverse, with curvatures below 1/limit (or negative ones, of a prior with several hills) raised to it."""
    values, vectors = torch.linalg.eigh(curvature)
    return (vectors / values.clamp(min=1 / limit)[:, None]) @ vectors.mT


@dataclass(frozen=True, eq=False)
class Gaussian:
    """One Gaussian a posterior, with the bound that it gives on the evidence where it was fitted."""

    frame: Frame  # state = centre + factor q
    bound: Float[Tensor, " truth"]

    def sample(self, count: int, *, generator: Generator) -> Float[Tensor, "truth draw size"]:
        truths = len(self.frame.centre)
        rank = self.frame.factor.shape[-1]
        return self.frame.state(torch.randn(truths, count, rank, generator=generator, dtype=torch.float64))


def laplace(target: LogPosterior, modes: Modes) -> Gaussian:
    """The evidence it gives is that of the Gaussian integral."""
    size = modes.best.shape[1]
    volume = modes.frame.factor.diagonal(dim1=1, dim2=2).log().sum(dim=1) + 0.5 * size * math.log(2 * math.pi)
    return Gaussian(modes.frame, modes.log_density + volume)


def variational(
    target: LogPosterior,
    modes: Modes,
    *,
    rank: int = 0,
    steps: int = 400,
    generator: Generator,
    progress: Callable[[float], None] | None = None,
) -> Gaussian:
    """``rank`` 0: full covariance; else that many directions of their own beside one deviation an entry."""
    truths, size = modes.best.shape
    family = _Full(truths, size) if rank == 0 else _LowRank(truths, size, rank)
    optimiser = torch.optim.Adam(family.parameters, lr=VARIATIONAL_RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    bounds: list[Tensor] = []
    for step in range(steps):
        optimiser.zero_grad()
        half = torch.randn(truths, PATHS // 2, family.noise, generator=generator, dtype=torch.float64)
        q = family.path(torch.cat([half, -half], dim=1))
        bound = (target(modes.frame.state(q)) - family.frozen_density(q)).mean(dim=1)
        (-bound.sum()).backward()
        optimiser.step()
        schedule.step()
        bounds.append(bound.detach())
        if progress is not None:
            progress((step + 1) / steps)
    frame, inner = modes.frame, family.frame()
    volume = frame.factor.diagonal(dim1=1, dim2=2).log().sum(dim=1)
    centre = frame.state(inner.centre[:, None])[:, 0]
    late = torch.stack(bounds[-max(1, steps // 5) :]).mean(dim=0)
    return Gaussian(Frame(centre, frame.factor @ inner.factor), late + volume)


class _Full:
    """q = mean + L epsilon with L lower triangular."""

    def __init__(self, truths: int, size: int) -> None:
        self.mean = torch.zeros(truths, size, dtype=torch.float64, requires_grad=True)
        self.below = torch.zeros(truths, size, size, dtype=torch.float64, requires_grad=True)
        self.logs = torch.zeros(truths, size, dtype=torch.float64, requires_grad=True)
        self.parameters = [self.mean, self.below, self.logs]
        self.noise = size

    def _factor(self) -> Tensor:
        return self.below.tril(-1) + torch.diag_embed(self.logs.exp())

    def path(self, noise: Tensor) -> Tensor:
        return self.mean[:, None] + noise @ self._factor().mT

    def frozen_density(self, q: Tensor) -> Tensor:
        """Log q with its parameters held, so that its gradient flows through the path alone."""
        away = (q - self.mean.detach()[:, None]).mT
        noise = torch.linalg.solve_triangular(self._factor().detach(), away, upper=False)
        size = q.shape[-1]
        volume = self.logs.detach().sum(dim=1)[:, None]
        return -0.5 * noise.square().sum(dim=1) - volume - 0.5 * size * math.log(2 * math.pi)

    def frame(self) -> Frame:
        return Frame(self.mean.detach(), self._factor().detach())


class _LowRank:
    """q = mean + U epsilon_1 + d epsilon_2: ``rank`` directions and a deviation an entry."""

    def __init__(self, truths: int, size: int, rank: int) -> None:
        if rank > size:
            raise ValueError(f"The rank is at most the number of unknowns, {size}; got {rank}.")
        self.mean = torch.zeros(truths, size, dtype=torch.float64, requires_grad=True)
        first = 0.01 * torch.eye(size, rank, dtype=torch.float64)  # all zero would never leave zero
        self.wide = first.repeat(truths, 1, 1).requires_grad_()
        self.logs = torch.zeros(truths, size, dtype=torch.float64, requires_grad=True)
        self.parameters = [self.mean, self.wide, self.logs]
        self.noise = rank + size
        self.rank = rank

    def path(self, noise: Tensor) -> Tensor:
        wide, narrow = noise[..., : self.rank], noise[..., self.rank :]
        return self.mean[:, None] + wide @ self.wide.mT + narrow * self.logs.exp()[:, None]

    def frozen_density(self, q: Tensor) -> Tensor:
        law = torch.distributions.LowRankMultivariateNormal(
            self.mean.detach(), self.wide.detach(), (2 * self.logs.detach()).exp()
        )
        return law.log_prob(q.transpose(0, 1)).transpose(0, 1)

    def frame(self) -> Frame:
        return Frame(self.mean.detach(), torch.cat([self.wide, torch.diag_embed(self.logs.exp())], dim=-1).detach())
