r"""What a latent is before anything is observed: the standard normal law, carried to codes by an invertible map.

.. math:: \varepsilon \sim N(0, I),\qquad h = T(\varepsilon),\qquad
          \log p(h) = \log N(T^{-1}(h)) + \log\big|\det \partial T^{-1}/\partial h\big|

``box``        each entry of tanh(h) uniform on [-1, 1]: tanh h = erf(epsilon / sqrt 2) (the published support)
``gaussian``   h = m + L epsilon with mean and covariance of the encoded training inputs; of a variational encoder,
               which is trained towards it, the standard normal law itself
``flow``       real-valued, volume-changing couplings (Dinh et al. 2017, arXiv 1605.08803): half of the entries are
               stretched and shifted by a network of the other half, in turn

Whoever samples in epsilon meets the same simple law whichever of them was chosen.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ._branches import Dense

Law = Literal["box", "gaussian", "flow"]
STRETCH = 2.0  # largest logarithm of a factor of one coupling, so that no step of training can overflow
LEAST_VARIANCE = 1e-6  # of the mean variance: directions that the training inputs do not use
EDGE = 1e-6  # distance from the corners of the box at which codes are cut off: beyond, tanh is 1 in single precision


class Coupling(nn.Module):
    """Entries of one parity are kept and decide how the others are stretched and shifted; the identity at first."""

    order: Tensor

    def __init__(self, size: int, parity: int, width: int) -> None:
        super().__init__()
        self.parity, number = parity, torch.arange(size)
        # of (kept, changed) one behind the other, where each entry stands
        self.register_buffer("order", torch.cat([number[parity::2], number[1 - parity :: 2]]).argsort(), False)
        kept = len(number[parity::2])
        self.network = Dense([kept, width, width, 2 * (size - kept)], "silu")
        nn.init.zeros_(self.network.layers[-1].weight)  # type: ignore[arg-type]

    def forward(
        self, values: Float[Tensor, "batch size"]
    ) -> tuple[Float[Tensor, "batch size"], Float[Tensor, " batch"]]:
        """The image, and the logarithm of the change of volume."""
        kept, changed = self._halves(values)
        stretch, shift = self._of(kept)
        return self._joined(kept, changed * stretch.exp() + shift), stretch.sum(dim=1)

    def inverse(
        self, values: Float[Tensor, "batch size"]
    ) -> tuple[Float[Tensor, "batch size"], Float[Tensor, " batch"]]:
        kept, changed = self._halves(values)
        stretch, shift = self._of(kept)
        return self._joined(kept, (changed - shift) * (-stretch).exp()), -stretch.sum(dim=1)

    def _halves(self, values: Tensor) -> tuple[Tensor, Tensor]:
        return values[:, self.parity :: 2], values[:, 1 - self.parity :: 2]

    def _of(self, kept: Tensor) -> tuple[Tensor, Tensor]:
        stretch, shift = self.network(kept).chunk(2, dim=1)
        return STRETCH * torch.tanh(stretch / STRETCH), shift

    def _joined(self, kept: Tensor, changed: Tensor) -> Tensor:
        return torch.cat([kept, changed], dim=1).index_select(1, self.order)


class Prior(nn.Module):
    """The map T of one law; ``couplings`` and their ``width`` belong to the flow."""

    mean: Tensor
    factor: Tensor

    def __init__(self, size: int, law: Law, *, couplings: int = 6, width: int = 128) -> None:
        super().__init__()
        if law == "flow" and (size < 2 or couplings < 2):
            raise ValueError(f"A flow has a code of at least 2 and 2 couplings or more; got {size} and {couplings}.")
        self.size, self.law = size, law
        self.register_buffer("mean", torch.zeros(size))
        self.register_buffer("factor", torch.eye(size))
        count = couplings if law == "flow" else 0
        self.couplings = nn.ModuleList(Coupling(size, number % 2, width) for number in range(count))

    @torch.no_grad()
    def fit(self, codes: Float[Tensor, "sample size"]) -> None:
        """Mean and covariance of the codes of training inputs (law ``gaussian``)."""
        values = codes.double()
        centred = values - values.mean(dim=0)
        covariance = centred.t() @ centred / max(1, len(codes) - 1)
        variances, directions = torch.linalg.eigh(covariance)
        least = LEAST_VARIANCE * variances.mean().clamp_min(1e-12)
        self.mean.copy_(values.mean(dim=0))
        self.factor.copy_(directions * variances.clamp_min(least).sqrt())

    def push(self, latent: Float[Tensor, "batch size"]) -> Float[Tensor, "batch size"]:
        """T: the code of a latent."""
        if self.law == "box":
            return torch.atanh(torch.erf(latent / math.sqrt(2)).clamp(EDGE - 1, 1 - EDGE))
        values = latent @ self.factor.t() + self.mean
        for coupling in self.couplings:
            values = coupling(values)[0]
        return values

    def pull(self, code: Float[Tensor, "batch size"]) -> Float[Tensor, "batch size"]:
        """The latent of a code."""
        if self.law == "box":
            return math.sqrt(2) * torch.erfinv(torch.tanh(code).clamp(EDGE - 1, 1 - EDGE))
        values, _ = self._uncoupled(code)
        return torch.linalg.solve(self.factor, (values - self.mean).t()).t()

    def log_density(self, code: Float[Tensor, "batch size"]) -> Float[Tensor, " batch"]:
        """Log p(h), for laws with a learned or standard map."""
        if self.law == "box":
            size = code.abs()  # log (1 - tanh²) / 2, without cancellation
            return (math.log(2) - 2 * size - 2 * torch.log1p(torch.exp(-2 * size))).sum(dim=1)
        values, volume = self._uncoupled(code)
        latent = torch.linalg.solve(self.factor, (values - self.mean).t()).t()
        return standard_normal(latent) + volume - torch.linalg.slogdet(self.factor).logabsdet

    def _uncoupled(self, code: Tensor) -> tuple[Tensor, Tensor]:
        values, volume = code, code.new_zeros(len(code))
        for coupling in reversed(self.couplings):
            values, change = coupling.inverse(values)  # type: ignore[operator]
            volume = volume + change
        return values, volume


def standard_normal(values: Float[Tensor, "batch size"]) -> Float[Tensor, " batch"]:
    """The logarithm of its density."""
    return -0.5 * (values.square().sum(dim=1) + values.shape[1] * math.log(2 * math.pi))
