r"""Inverse problems: unknown coefficients of an equation from noisy observations of its solution.

.. math:: \hat\theta = \arg\max_\theta\ \log p_\theta(y \mid f, g),\qquad p_\theta(y \mid f, g) =
          \frac{N\big((y, f, g);\, 0,\, s^2 A_\theta k A_\theta^T + \Sigma\big)}{N\big((f, g);\, 0,\, \cdot\big)}

theta    coefficients of the equation (a diffusivity, a reaction rate, a squared wave number, ...), log-transformed
         where they are positive
y        observed values of u at points, the source at all nodes, the data on all faces; A_theta maps u to them
k        the prior; its scale s² and length maximise the likelihood of all data, at the current theta
H        the negative Hessian in theta (Laplace); intervals are theta +- z / sqrt H, for logarithms where positive

The likelihood is that of the measurements *given* source and boundary data: these were chosen, not drawn.
The joint likelihood would prefer coefficients for which a source as small as the given one is likely (measured on the
heat equation with zero source: 2 standard deviations of bias). The field is integrated out: no forward solve, no mesh
convergence, and missing boundary data are allowed.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..pde import Grid, SolverError
from ..pde._equation import Equation, Term
from ._condition import Functional, observations
from ._covariance import Covariance
from ._likelihood import Minimiser, gram_of, log_likelihood
from ._posterior import Dense, Noise, half_width

ROUNDS = 2  # of prior and coefficients in turn
FLAT = 1e-2  # curvature below which an unknown is undetermined: a deviation of 10, in logarithms a factor of e^10
STEP = 1e-3  # of the central differences of the gradient, in logarithms
JITTER = 1e-9  # of each observation's prior variance; less would leave rounding in the second derivatives
TOLERANCE = 1e-9  # relative change of the likelihood at which the search ends


@dataclass(frozen=True)
class Measurements:
    """Observed values of u at scattered points, with the standard deviation of their errors."""

    points: Tensor  # point dim
    values: Tensor  # point
    noise: float

    def __post_init__(self) -> None:
        if self.points.ndim != 2 or self.values.shape != self.points.shape[:1]:
            raise ValueError(
                f"Measurements are points (point, dim) with one value each, got {tuple(self.points.shape)} and "
                f"{tuple(self.values.shape)}."
            )
        if not 0 < self.noise < math.inf:
            raise ValueError(f"Measurements need a positive standard deviation of their errors, got {self.noise}.")


@dataclass(frozen=True)
class Estimate:
    """Coefficients with what is known about them, and the field that goes with them."""

    values: Tensor
    deviations: Tensor  # of the logarithm where positive, of the value otherwise
    positive: bool
    log_likelihood: float
    field: Dense

    def interval(self, level: float = 0.95) -> tuple[Tensor, Tensor]:
        half = half_width(level) * self.deviations
        if self.positive:
            return self.values * (-half).exp(), self.values * half.exp()
        return self.values - half, self.values + half


def infer(
    equation_of: Callable[[Tensor], Equation],
    start: Sequence[float] | Tensor,
    measured: Measurements,
    grid: Grid,
    prior_of: Callable[[Tensor], Sequence[Covariance]],
    *,
    noise: Noise = Noise(),  # noqa: B008 - frozen
    length: float = 0.2,
    positive: bool = True,
    steps: int = 100,
) -> Estimate:
    """The coefficients that make the observations most likely, with intervals.

    equation_of   coefficients -> the equation of one sample on the grid; terms may hold coefficients as 0-d tensors
    start         where the search begins
    prior_of      length -> one covariance an axis; it is learnt from ``length`` on
    noise         of source and boundary data
    positive      coefficients are positive: their logarithms are sought

    Raises ``SolverError`` where the observations do not determine the coefficients.
    """
    first = torch.as_tensor(start, dtype=torch.float64).reshape(-1)
    if positive and not bool((first > 0).all()):
        raise ValueError(f"Positive coefficients start from positive values, got {first.tolist()}.")
    problem = _Inverse(equation_of, measured, grid, prior_of, noise, positive)
    theta = (first.log() if positive else first).clone().requires_grad_()
    hyper = torch.tensor([math.log(length), 0.0], dtype=torch.float64)
    hyper[1] = math.log(problem.field(theta.detach(), hyper).scale)
    hyper.requires_grad_()
    for turn in range(ROUNDS):
        if turn:  # a prior learnt at the wrong coefficients would explain the contradiction by short lengths
            at = theta.detach().clone()
            Minimiser([hyper]).run(functools.partial(problem.against, at, hyper), steps, tolerance=TOLERANCE)
        Minimiser([theta]).run(lambda: problem.cost(theta, hyper.detach()), steps, tolerance=TOLERANCE)
    covariance = _inverse_hessian(lambda t: problem.cost(t, hyper.detach()), theta)
    found = theta.detach()
    return Estimate(
        found.exp() if positive else found,
        covariance.diagonal().sqrt(),
        positive,
        -float(problem.cost(theta, hyper).detach()),
        problem.field(found, hyper.detach()),
    )


@dataclass(frozen=True)
class _Inverse:
    equation_of: Callable[[Tensor], Equation]
    measured: Measurements
    grid: Grid
    prior_of: Callable[[Tensor], Sequence[Covariance]]
    noise: Noise
    positive: bool

    def observed(self, theta: Tensor) -> tuple[list[Functional], Tensor, Tensor]:
        """Functionals, values, noise variances: measurements, faces, equation."""
        equation = self.equation_of(theta.exp() if self.positive else theta)
        if equation.reaction is not None:
            raise ValueError("Coefficients are inferred in linear equations; this one has a reaction.")
        spread = replace(equation, terms=tuple(_spread(term, equation.source) for term in equation.terms))
        functionals, values = observations(spread, self.grid)
        seen = Functional.value(self.measured.points.double())
        variances = torch.full((len(seen.points),), self.measured.noise**2, dtype=torch.float64)
        return (
            [seen, *functionals],
            torch.cat([self.measured.values.double(), *values]),
            torch.cat([variances, self.noise.variances(functionals)]),
        )

    def _gram(self, theta: Tensor, hyper: Tensor) -> tuple[Tensor, Tensor]:
        functionals, values, variances = self.observed(theta)
        gram = hyper[1].exp() * gram_of(self.prior_of(hyper[0].exp()), functionals)
        return values, gram + torch.diag(variances + JITTER * gram.diagonal())

    def against(self, theta: Tensor, hyper: Tensor) -> Tensor:
        """Minus the log likelihood of all data together."""
        return -log_likelihood(*self._gram(theta, hyper))

    def cost(self, theta: Tensor, hyper: Tensor) -> Tensor:
        """Minus the log likelihood of the measurements, given the rest."""
        values, gram = self._gram(theta, hyper)
        count = len(self.measured.values)
        return log_likelihood(values[count:], gram[count:, count:]) - log_likelihood(values, gram)

    @torch.no_grad()
    def field(self, theta: Tensor, hyper: Tensor) -> Dense:
        functionals, values, variances = self.observed(theta)
        return Dense(self.prior_of(hyper[0].exp()), functionals, values, variances)


def _spread(term: Term, like: Tensor) -> Term:
    """A single number that is to be differentiated, as a field."""
    if isinstance(term.coefficient, Tensor) and term.coefficient.ndim == 0:
        return Term(term.orders, term.coefficient.double().expand(like.shape))
    return term


def _inverse_hessian(cost: Callable[[Tensor], Tensor], free: Tensor) -> Tensor:
    """Of the cost at its minimum: central differences of the closed-form gradient, symmetrised."""
    rows = []
    for i in range(len(free)):
        ends = []
        for sign in (1.0, -1.0):
            at = free.detach().clone()
            at[i] += sign * STEP
            at.requires_grad_()
            ends.append(torch.autograd.grad(cost(at), at)[0])
        rows.append((ends[0] - ends[1]) / (2 * STEP))
    hessian = torch.stack(rows)
    hessian = 0.5 * (hessian + hessian.T)
    values, vectors = torch.linalg.eigh(hessian)
    if not float(values[0]) > FLAT:
        raise SolverError(
            f"The observations do not determine the unknowns: the likelihood is flat or falls in a direction "
            f"({[round(v, 3) for v in vectors[:, 0].tolist()]}; curvature {float(values[0]):.1e}). Measure at more "
            "points, or fix a coefficient."
        )
    return (vectors / values) @ vectors.T
