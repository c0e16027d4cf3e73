r"""How far chains can be trusted: rank-normalised split R-hat and bulk effective sample size (Vehtari et al. 2021).

.. math:: \hat R = \sqrt{\frac{\frac{n-1}{n} W + \frac1n B}{W}},\qquad
          \mathrm{ESS} = \frac{m n}{-1 + 2\sum_t \hat P_t},\quad \hat P_t = \hat\rho_{2t} + \hat\rho_{2t+1}

W, B    variance within chains and n times the variance of their means, of the m half chains of length n
rho     autocorrelation combined over chains; the sum ends at the first negative pair and pairs are made to fall

Both act on normal scores of the ranks over all chains, so that heavy tails do no harm.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor


def split_rhat(draws: Float[Tensor, "chain draw *rest"]) -> Float[Tensor, "*rest"]:
    """1 where chains agree; beyond 1.01 they have not yet. At least four draws a chain."""
    return _rhat(_scores(_halves(draws)))


def effective_size(draws: Float[Tensor, "chain draw *rest"]) -> Float[Tensor, "*rest"]:
    """Independent draws that would say as much about the bulk."""
    scores = _scores(_halves(draws))
    chains, count = scores.shape[:2]
    within = scores.var(dim=1).mean(dim=0)
    total = (count - 1) / count * within + scores.mean(dim=1).var(dim=0)
    covariance = _autocovariance(scores).mean(dim=0)  # lag *rest, divided by the count
    rho = 1 - (within * (count - 1) / count - covariance) / total
    pairs = rho[: count // 2 * 2].unflatten(0, (-1, 2)).sum(dim=1)
    kept = (pairs > 0).cumprod(dim=0).bool()
    falling = torch.where(kept, pairs, 0.0).cummin(dim=0).values
    sums = torch.where(kept, falling, 0.0).sum(dim=0)
    most = chains * count * torch.log10(torch.tensor(float(chains * count), dtype=torch.float64))
    return torch.minimum(chains * count / (2 * sums - 1).clamp(min=1e-12), most)


def _halves(draws: Tensor) -> Tensor:
    half = draws.shape[1] // 2
    if half < 2:
        raise ValueError(f"At least 4 draws a chain are needed to judge how chains mix, got {draws.shape[1]}.")
    return torch.cat([draws[:, :half], draws[:, -half:]]).double()


def _scores(draws: Tensor) -> Tensor:
    """Normal scores of the ranks (Blom)."""
    flat = draws.flatten(0, 1)
    ranks = flat.argsort(dim=0).argsort(dim=0).double() + 1
    return torch.special.ndtri((ranks - 0.375) / (len(flat) + 0.25)).reshape(draws.shape)


def _rhat(draws: Tensor) -> Tensor:
    count = draws.shape[1]
    within = draws.var(dim=1).mean(dim=0)
    between = draws.mean(dim=1).var(dim=0)
    return ((count - 1) / count + between / within).sqrt()


def _autocovariance(draws: Tensor) -> Tensor:
    """By lag, each chain about its own mean: ``chain lag *rest``."""
    centred = draws - draws.mean(dim=1, keepdim=True)
    count = draws.shape[1]
    spectrum = torch.fft.rfft(centred, n=2 * count, dim=1).abs().square()
    return torch.fft.irfft(spectrum, n=2 * count, dim=1)[:, :count] / count
