r"""The posterior density of latents given observations, up to its constant, for several sets of values at once.

.. math:: \log \pi(z, s) = \log p(z) - \tfrac12 \sum_j \Big[\frac{r_j^2}{\sigma^2 + \lambda_j}
          + \log(\sigma^2 + \lambda_j)\Big] - \frac{N}{2\rho^2} R(z)^2 + \log p(s),\qquad r = V^T(y - u(x; z) - \bar e)

V, lambda   eigenvectors and eigenvalues of the model's own error at the sensors (``_discrepancy.py``); of an input that
            is observed, V = 1 and lambda the square of the error about it that the model states. A reading of a medium
            of phases a_k is a mixture, :math:`\log\sum_k p_k(x; z)\,N(y; a_k, \sigma^2)`
sigma       standard deviation of the noise: given, or sought with z as :math:`\sigma = \sigma_0 e^{s}`,
            :math:`s \sim N(0, 1.5^2)`, :math:`\sigma_0` a tenth of the root mean square of the values: within two
            deviations from a twentieth to twenty times that, 46 to -6 dB

R, rho^2    what the equation leaves of what is decoded, and its mean square at the codes of held-out samples: N virtual
            observables, zero each, with the deviation that they have there

States are ``truth chain size``: one truth a set of values, all seen by the same sensors.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from ._discrepancy import Seen
from ._latent import PHASES, WithLatent

NOISE_SPREAD = 1.5  # of log sigma
NOISE_SHARE = 0.1  # of the values' root mean square: the middle of sigma's prior
CHUNK = 512  # latents a call of the model
LEAST_CHANCE = 1e-12  # of a phase: what single precision leaves of one that is all but excluded has a logarithm


@dataclass(frozen=True, eq=False)
class LogPosterior:
    """A function of states. ``noise`` is None where it is sought: the last entry of a state is then its logarithm."""

    model: WithLatent
    field: str
    places: Float[Tensor, "point dim"]
    values: Float[Tensor, "truth point"]
    noise: Float[Tensor, " truth"] | None
    seen: Seen
    dtype: torch.dtype = torch.float32  # of the model
    phased: bool = False  # whether the field is a medium of phases
    virtual: float = 0.0  # N / rho^2

    def only(self, truth: int) -> LogPosterior:
        """That of one set of values."""
        noise = None if self.noise is None else self.noise[truth : truth + 1]
        return replace(self, values=self.values[truth : truth + 1], noise=noise)

    @property
    def size(self) -> int:
        return self.model.latent_size + (self.noise is None)

    def latents(self, state: Float[Tensor, "*batch size"]) -> Float[Tensor, "*batch latent"]:
        return state[..., : self.model.latent_size]

    def middle(self) -> Float[Tensor, " truth"]:
        """Of the prior of sigma, where it is sought."""
        return NOISE_SHARE * self.values.square().mean(dim=1).sqrt().clamp(min=1e-30)

    def sigma(self, state: Float[Tensor, "truth chain size"]) -> Float[Tensor, "truth chain"]:
        if self.noise is not None:
            return self.noise[:, None].expand(state.shape[:2])
        return self.middle()[:, None] * state[..., -1].exp()

    def predicted(self, state: Float[Tensor, "truth chain size"]) -> Float[Tensor, "truth chain point"]:
        """The field at the sensors, as the decoder has it."""
        return self._decoded(state, self.field)

    def _decoded(self, state: Float[Tensor, "truth chain size"], name: str) -> Float[Tensor, "truth chain point *rest"]:
        flat = self.latents(state).flatten(0, 1).to(self.dtype)
        places = self.places.to(self.dtype)
        parts = [self.model.fields(part, places)[name] for part in flat.split(CHUNK)]
        return torch.cat(parts).double().unflatten(0, state.shape[:2])

    def drawn(self, latents: Float[Tensor, "sample latent"], *, generator: Generator) -> Float[Tensor, "sample point"]:
        """An observed input at the sensors, from its law given each latent."""
        places, parts = self.places.to(self.dtype), latents.to(self.dtype).split(CHUNK)
        return torch.cat([self.model.draw(part, places, generator=generator)[self.field] for part in parts]).double()

    @functools.cached_property
    def levels(self) -> Float[Tensor, " phase"] | None:
        """Values of the phases, where a medium of phases is observed."""
        return torch.tensor(self.model.phases, dtype=torch.float64) if self.phased else None

    def misfits(self, state: Float[Tensor, "truth chain size"]) -> Float[Tensor, "truth chain point"]:
        """Observed minus predicted, in the basis of the model's error."""
        return self.seen.rotated(self.values[:, None] - self.predicted(state))

    def variances(self, state: Float[Tensor, "truth chain size"]) -> Float[Tensor, "truth chain point"]:
        """Of the misfits: of the noise, of the model's own error, and of phases about their mean."""
        variance = self.sigma(state)[..., None].square() + self.seen.variance
        if self.levels is None:
            return variance
        chances = self._decoded(state, PHASES)
        return variance + chances @ self.levels.square() - (chances @ self.levels).square()

    def likelihood(self, state: Float[Tensor, "truth chain size"]) -> Float[Tensor, "truth chain"]:
        """Its logarithm, without the constant."""
        seen = self._of_readings(state)
        return seen - 0.5 * self.virtual * self._residual(state) if self.virtual else seen

    def _residual(self, state: Float[Tensor, "truth chain size"]) -> Float[Tensor, "truth chain"]:
        parts = self.latents(state).flatten(0, 1).to(self.dtype).split(CHUNK)
        left = [part for part in map(self.model.residual, parts) if part is not None]
        return torch.cat(left).double().unflatten(0, state.shape[:2])

    def _of_readings(self, state: Float[Tensor, "truth chain size"]) -> Float[Tensor, "truth chain"]:
        if self.levels is not None:
            sigma = self.sigma(state)[..., None, None]
            each = -0.5 * ((self.values[:, None, :, None] - self.levels) / sigma).square() - sigma.log()
            chances = self._decoded(state, PHASES).clamp_min(LEAST_CHANCE)
            return torch.logsumexp(chances.log() + each, dim=-1).sum(dim=-1)
        variance = self.variances(state)
        return -0.5 * (self.misfits(state).square() / variance + variance.log()).sum(dim=-1)

    def prior(self, state: Float[Tensor, "truth chain size"]) -> Float[Tensor, "truth chain"]:
        """Its logarithm, normalised where the model's is."""
        flat = self.latents(state).flatten(0, 1).to(self.dtype)
        prior = self.model.log_prior(flat).double().unflatten(0, state.shape[:2])
        if self.noise is not None:
            return prior
        return prior - 0.5 * (state[..., -1] / NOISE_SPREAD).square() - math.log(NOISE_SPREAD * math.sqrt(2 * math.pi))

    def __call__(self, state: Float[Tensor, "truth chain size"]) -> Float[Tensor, "truth chain"]:
        return self.likelihood(state) + self.prior(state)

    def curvature(self, state: Float[Tensor, "truth size"]) -> Float[Tensor, "truth size size"]:
        """Minus the Hessian, with the likelihood's by Gauss and Newton: positive semi-definite but for the prior's."""
        at = state.detach()[:, None].clone().requires_grad_()
        variance = self.variances(at.detach())
        rows = _rows(self.misfits(at) / variance.sqrt(), at)
        total = rows.mT @ rows - _rows(_slope(self.prior, at), at)
        if self.noise is None:
            # of the scale: Fisher's information
            share = self.sigma(at.detach())[..., None].square() / variance
            total[:, -1, -1] += 2 * share.square().sum(dim=(1, 2))
        return 0.5 * (total + total.mT)


def _rows(values: Float[Tensor, "truth 1 row"], at: Float[Tensor, "truth 1 size"]) -> Float[Tensor, "truth row size"]:
    """The derivative of each value by the state of its truth."""
    if not values.requires_grad:
        return values.new_zeros(len(at), values.shape[-1], at.shape[-1])
    made = [
        torch.autograd.grad(values[..., i].sum(), at, retain_graph=True, allow_unused=True)[0]
        for i in range(values.shape[-1])
    ]
    return torch.cat([torch.zeros_like(at) if row is None else row for row in made], dim=1).detach()


def _slope(function: object, at: Tensor) -> Tensor:
    assert callable(function)
    return torch.autograd.grad(function(at).sum(), at, create_graph=True)[0]
