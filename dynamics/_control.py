r"""Step sizes: the first one, the PI controller, and refusals that say what to change.

PI controller (Gustafsson 1991; Hairer and Wanner II, IV.2) with k = (order of the embedded solution) + 1:

    h_{n+1} = h_n \cdot 0.9\, E_n^{-0.7/k}\, E_{n-1}^{0.4/k},  kept within [0.2, 10] h_n;   rejected: 0.9 E_n^{-1/k}

After a rejection the step does not grow at once.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ..pde import SolverError
from ._field import Field, Time
from ._tableaus import Rosenbrock, Tableau

SAFETY, SMALLEST, LARGEST = 0.9, 0.2, 10.0
FLOOR = 1e-10  # an error ratio below says that the step is free


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What :func:`odeint` was told about steps."""

    tableau: Tableau
    rtol: float
    atol: float | Tensor
    first_step: float | None
    step: float | None
    max_steps: int
    trace: bool
    count: int | None = None  # unknowns under error control (adjoint systems)


class Controller:
    """Factors from error ratios."""

    def __init__(self, tableau: Tableau) -> None:
        k = tableau.embedded + 1
        self.alpha, self.beta, self.plain = 0.7 / k, 0.4 / k, 1.0 / k

    def factor(self, ratio: float, previous: float, rejected: bool) -> float:
        if not math.isfinite(ratio):
            return SMALLEST
        if ratio > 1:
            return max(SMALLEST, SAFETY * ratio**-self.plain)
        ratio = max(ratio, FLOOR)
        grown = SAFETY * ratio**-self.alpha * max(previous, FLOOR) ** self.beta
        return min(max(SMALLEST, grown), 1.0 if rejected else LARGEST)

    def factors(self, ratio: Tensor, previous: Tensor, rejected: Tensor | None, *, all_good: bool = False) -> Tensor:
        """The same for each sample; ``rejected`` None: none was, ``all_good``: no ratio is above 1."""
        small = ratio.clamp_min(FLOOR)
        grown = (SAFETY * small**-self.alpha * previous.clamp_min(FLOOR) ** self.beta).clamp_(SMALLEST, LARGEST)
        if rejected is not None:
            grown = torch.where(rejected, grown.clamp_max(1.0), grown)
        if all_good:
            return grown
        shrunk = (SAFETY * small**-self.plain).clamp(SMALLEST, 1.0)
        factor = torch.where(ratio > 1, shrunk, grown)
        return torch.where(torch.isfinite(ratio), factor, SMALLEST)


def first_step(
    field: Field, time: Time, state: Tensor, slope: Tensor, settings: Settings, span: Time, *, each: bool
) -> Tensor:
    """Hairer's guess from one explicit Euler step; float64, 0-dimensional or one per sample."""
    kept = slice(settings.count)
    scale = settings.atol + settings.rtol * state[:, kept].abs()

    def norm(values: Tensor) -> Tensor:
        scaled = (values[:, kept] / scale).double()
        return scaled.square().mean(dim=1).sqrt() if each else scaled.square().mean().sqrt()

    d0, d1 = norm(state), norm(slope)
    guess = torch.where((d0 < 1e-5) | (d1 < 1e-5), 1e-6, 0.01 * d0 / d1.clamp_min(1e-300))
    guess = torch.minimum(guess, torch.as_tensor(span, dtype=torch.float64, device=guess.device))
    column = guess.to(state.dtype)[:, None] if each else guess.to(state.dtype)
    later = field(time + (guess if each else float(guess)), state + column * slope)
    d2 = norm(later - slope) / guess
    largest = torch.maximum(d1, d2)
    second = torch.where(
        largest <= 1e-15,
        (1e-3 * guess).clamp_min(1e-6),
        (0.01 / largest.clamp_min(1e-300)) ** (1 / (settings.tableau.embedded + 1)),
    )
    second = torch.where(torch.isfinite(second), second, guess)
    return torch.minimum(100 * guess, second)


def advice(tableau: Tableau) -> str:
    if isinstance(tableau, Rosenbrock):
        return "The method is made for stiff systems: look at the right-hand side there, or loosen rtol and atol."
    return 'If the system is stiff, use method="rodas4"; else look at the right-hand side there.'


def underflow(tableau: Tableau, time: float, step: float, norm: float, sample: int | None, finite: bool) -> SolverError:
    where = "" if sample is None else f" of sample {sample}"
    why = "the local error stayed above the tolerance" if finite else "the right-hand side is not finite"
    return SolverError(
        f"{tableau.name}: the step{where} fell to {step:.3g} at time {time:.8g}, state norm {norm:.3g}, because {why}. "
        + advice(tableau)
    )


def too_many(tableau: Tableau, limit: int, time: float, step: float, norm: float, sample: int | None) -> SolverError:
    where = "" if sample is None else f" (sample {sample})"
    return SolverError(
        f"{tableau.name}: {limit} steps were not enough{where}: at time {time:.8g} the step is {step:.3g}, the state "
        f"norm {norm:.3g}. {advice(tableau)} Or raise max_steps."
    )
