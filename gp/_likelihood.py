r"""Exact marginal likelihood of observations, its closed-form gradient, and learning of every hyperparameter by it.

.. math:: \log N(y; 0, C) = -\tfrac12 y^T C^{-1} y - \tfrac12 \log|C| - \tfrac n2 \log 2\pi,\qquad
          d\log N = \tfrac12 \mathrm{tr}\big[(a a^T - C^{-1})\, dC\big],\quad a = C^{-1} y

Nothing is differentiated through a factorisation: the gradient by the entries of C is written down, and the entries
depend on the hyperparameters in closed form. Profiled over the global scale, C = s² C_1 with s² = y^T C_1^{-1} y / n,
it is -n/2 log s² - 1/2 log|C_1| up to a constant, and its gradient is that of the likelihood at the best scale.

Learnt are logarithms of weights and bandwidths, and frequencies. Components whose share of the variance of the
observations has faded below ``FADED`` are dropped afterwards.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from scipy.optimize import minimize
from torch import Tensor

from ..pde import Axis, SolverError
from ._condition import Functional, covariance_of
from ._covariance import Covariance, SpectralMixture
from ._kronecker import log_likelihood as kronecker_log_likelihood
from ._spectrum import Band

FADED = 1e-12  # of the variance that the strongest component lends to the observations
LEARNING_JITTER = 1e-11  # relative; fixed while learning, so that the likelihood is smooth
NEVER = 1e300


class _LogLikelihood(torch.autograd.Function):
    @staticmethod
    def forward(ctx, values: Tensor, gram: Tensor) -> Tensor:
        size = gram.diagonal().sqrt()
        factor, info = torch.linalg.cholesky_ex(gram / size[:, None] / size)
        if int(info):
            raise SolverError(
                "The covariance of the observations is not positive definite: add noise, or remove repeated ones."
            )
        weights = torch.cholesky_solve((values / size)[:, None], factor)[:, 0] / size
        ctx.save_for_backward(factor, size, weights)
        logdet = 2 * (factor.diagonal().log().sum() + size.log().sum())
        return -0.5 * (values @ weights + logdet + len(values) * math.log(2 * math.pi))

    @staticmethod
    def backward(ctx, by: Tensor):
        factor, size, weights = ctx.saved_tensors
        inverse = torch.cholesky_inverse(factor) / size[:, None] / size
        return -by * weights, 0.5 * by * (torch.outer(weights, weights) - inverse)


def log_likelihood(values: Tensor, gram: Tensor) -> Tensor:
    """Log N(values; 0, gram), differentiable in both."""
    return _LogLikelihood.apply(values, gram)


def profiled(values: Tensor, gram: Tensor) -> tuple[Tensor, Tensor]:
    """(log likelihood at the best global scale s², s²); differentiable by the envelope theorem."""
    with torch.no_grad():
        size = gram.diagonal().sqrt()
        factor, info = torch.linalg.cholesky_ex(gram / size[:, None] / size)
        if int(info):
            raise SolverError("The covariance of the observations is not positive definite.")
        scale = torch.linalg.solve_triangular(factor, (values / size)[:, None], upper=False).square().mean()
    shrunk = values / scale.sqrt()
    return log_likelihood(shrunk, gram) - 0.5 * len(values) * scale.log(), scale


def kronecker_profiled(values: Tensor, factors: Sequence[Tensor], ratio: Tensor) -> tuple[Tensor, Tensor]:
    """The same for s² (K_1 x ... x K_d + ratio I), in any number of dimensions."""
    from ._kronecker import Kronecker

    with torch.no_grad():
        algebra = Kronecker([f.detach() for f in factors], ratio.detach())
        scale = algebra.quadratic(values) / values.numel()
    value = kronecker_log_likelihood(values / scale.sqrt(), factors, ratio)
    return value - 0.5 * values.numel() * scale.log(), scale


class Minimiser:
    """L-BFGS over a list of tensors, changed in place; a value that cannot be had counts as a wall."""

    def __init__(self, unknowns: Sequence[Tensor]) -> None:
        self.unknowns = list(unknowns)

    def vector(self) -> np.ndarray:
        return torch.cat([u.detach().flatten() for u in self.unknowns]).numpy().copy()

    def put(self, vector: np.ndarray) -> None:
        parts = torch.from_numpy(np.array(vector)).split([u.numel() for u in self.unknowns])
        with torch.no_grad():
            for unknown, part in zip(self.unknowns, parts, strict=True):
                unknown.copy_(part.reshape(unknown.shape))

    def run(
        self,
        value: Callable[[], Tensor],
        steps: int,
        *,
        each: Callable[[int, float], bool] | None = None,
        tolerance: float = 0.0,
    ) -> bool:
        """At most ``steps`` steps; ``each(step, value)`` may stop by returning True. Returns whether it did."""
        taken = [0]

        def both(vector: np.ndarray) -> tuple[float, np.ndarray]:
            self.put(vector)
            try:
                with torch.enable_grad():
                    now = value()
                    slopes = torch.autograd.grad(now, self.unknowns)
            except SolverError:
                return NEVER, np.zeros_like(vector)
            return float(now.detach()), torch.cat([s.flatten() for s in slopes]).numpy()

        def after(intermediate_result) -> None:
            self.put(intermediate_result.x)
            stop = each is not None and each(taken[0], float(intermediate_result.fun))
            taken[0] += 1
            if stop:
                raise StopIteration

        limits = {"maxiter": steps, "maxfun": 2 * steps + 20, "ftol": tolerance, "gtol": 0.0, "maxcor": 30}
        found = minimize(both, self.vector(), jac=True, method="L-BFGS-B", callback=after, options=limits)
        self.put(found.x)
        return found.status == 99


class LearntMixture:
    """A Gaussian spectral mixture of one axis with its three free vectors."""

    def __init__(self, weights: Tensor, frequencies: Tensor, bandwidths: Tensor) -> None:
        self.log_weights = weights.log().requires_grad_()
        self.frequencies = frequencies.clone().requires_grad_()
        self.log_bandwidths = bandwidths.log().requires_grad_()

    @classmethod
    def of_band(cls, band: Band, axis: Axis) -> LearntMixture:
        """Waves at the middle of each interval in which data were found, and two slow components."""
        low = 1 / axis.length
        waves = [0.5 * (a + b) for a, b in band.filled if 0.5 * (a + b) > 2 * low]
        frequencies = torch.tensor([0.0, low, *waves], dtype=torch.float64)
        weights = (low**2 / (frequencies.square() + low**2)).square()
        return cls(weights, frequencies, torch.full_like(frequencies, 0.5 * low))

    @property
    def free(self) -> list[Tensor]:
        return [self.log_weights, self.frequencies, self.log_bandwidths]

    def covariance(self) -> SpectralMixture:
        return SpectralMixture(self.log_weights.exp(), self.frequencies, self.log_bandwidths.exp())

    @torch.no_grad()
    def pruned(self, orders: Sequence[int]) -> SpectralMixture:
        """Without components that lend nothing to observations of these orders."""
        whole = self.covariance()
        shares = []
        for order in orders:
            single = [
                abs(float(SpectralMixture(*(v[q : q + 1] for v in (whole.weights, whole.frequencies, whole.bandwidths)))
                          .lag(torch.zeros((), dtype=torch.float64), 2 * order)))
                for q in range(len(whole.weights))
            ]  # fmt: skip
            shares.append(torch.tensor(single, dtype=torch.float64) / max(single))
        kept = torch.stack(shares).amax(dim=0) > FADED
        return SpectralMixture(*(v.detach()[kept] for v in (whole.weights, whole.frequencies, whole.bandwidths)))


def learn(
    mixtures: Sequence[LearntMixture],
    observed: Sequence[Functional],
    values: Tensor,
    *,
    noise: Tensor | float = 0.0,
    steps: int = 100,
) -> tuple[list[Covariance], float]:
    """Covariances of all axes learnt from the observations, pruned, and the log likelihood reached.

    noise   variances relative to the prior's scale, which is profiled out
    """

    def loss() -> Tensor:
        gram = gram_of([m.covariance() for m in mixtures], observed)
        jitter = LEARNING_JITTER * gram.diagonal()
        noises = torch.as_tensor(noise, dtype=torch.float64).expand(len(values))
        return -profiled(values, gram + torch.diag(jitter + noises))[0]

    Minimiser([one for mixture in mixtures for one in mixture.free]).run(loss, steps, tolerance=1e-12)
    orders = [sorted({p[j] for seen in observed for p, _ in seen.terms}) for j in range(len(mixtures))]
    reached = -float(loss().detach())
    return [mixture.pruned(found) for mixture, found in zip(mixtures, orders, strict=True)], reached


def gram_of(priors: Sequence[Covariance], observed: Sequence[Functional]) -> Tensor:
    """The covariance of all observations; the lower blocks are transposes of the upper ones."""
    count = len(observed)
    upper = {(i, j): covariance_of(priors, observed[i], observed[j]) for i in range(count) for j in range(i, count)}
    rows = [[upper[i, j] if i <= j else upper[j, i].T for j in range(count)] for i in range(count)]
    return torch.cat([torch.cat(row, dim=1) for row in rows])
