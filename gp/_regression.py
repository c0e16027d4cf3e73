"""Regression between principal coordinates: the covariance of :mod:`.gp_operator`, its evidence, and its learning."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from ..training import Callback, Interrupted
from ._covariance import Matern
from ._likelihood import Minimiser

LEARNING = 400  # samples from which hyperparameters are learned, at most
NEGLIGIBLE = 1e-12  # of the leading variance: rounding of single-precision fields
NUGGET = 1e-10  # the least rho, for a factor that exists
RANGES = ((-4.0, 6.0), (-12.0, 8.0), (-16.0, 8.0), (-23.0, 3.0), (-2.0, 1.5))  # of the five hyperparameters
HYPER = ("log_length", "log_constant", "log_linear", "log_noise", "gamma")


def principal_directions(rows: Float[Tensor, "sample node"], count: int) -> Float[Tensor, "node direction"]:
    """Leading orthonormal directions of centred rows, most variance first."""
    small, flipped = (rows @ rows.T, True) if len(rows) <= rows.shape[1] else (rows.T @ rows, False)
    values, vectors = torch.linalg.eigh(small)
    kept = int((values > NEGLIGIBLE * values[-1]).sum()) if float(values[-1]) > 0 else 0
    kept = min(kept, count, len(rows) - 1)
    vectors = vectors[:, len(vectors) - kept :].flip(1)
    # directions of little variance have lost some orthogonality to rounding
    return torch.linalg.qr(rows.T @ vectors)[0] if flipped else vectors.contiguous()


def noise_of(hyper: Tensor) -> Tensor:
    return hyper[3].exp() + NUGGET


def covariance(left: Tensor, right: Tensor, variances: Tensor, hyper: Tensor, nonlinear: bool) -> Tensor:
    """The covariance k between two sets of principal coordinates (see the head of the file)."""
    length, constant, linear, _, gamma = hyper.unbind()
    total = constant.exp() + linear.exp() * left @ right.T
    if not nonlinear or not left.shape[1]:
        return total
    rates = (variances / variances[0]).pow(-0.5 * gamma) * (-length).exp()
    a, b = left * rates, right * rates
    squares = a.square().sum(dim=1)[:, None] + b.square().sum(dim=1) - 2 * a @ b.T
    # rounding below zero is zero distance; there the covariance is flat, whatever the root's slope
    return total + Matern(2.5).lag(squares.clamp_min(1e-24).sqrt())


class _Evidence(torch.autograd.Function):
    """n/2 log tr(K^{-1} G) + 1/2 log|K| for the Gram matrix G of the outputs: minus the profiled log likelihood."""

    @staticmethod
    def forward(ctx, gram: Tensor, outputs: Tensor) -> Tensor:
        factor = torch.linalg.cholesky(gram)
        weighted = torch.cholesky_solve(outputs, factor)
        trace = weighted.diagonal().sum()
        ctx.save_for_backward(factor, weighted, trace)
        return 0.5 * len(gram) * trace.log() + factor.diagonal().log().sum()

    @staticmethod
    def backward(ctx, by: Tensor):
        factor, weighted, trace = ctx.saved_tensors
        both = torch.cholesky_solve(weighted.T, factor)  # K^{-1} G K^{-1}
        return by * 0.5 * (torch.cholesky_inverse(factor) - len(factor) / trace * both), None


def evidence(gram: Tensor, outputs: Tensor) -> Tensor:
    return _Evidence.apply(gram, outputs)


def learned(
    coordinates: Tensor,
    variances: Tensor,
    outputs: Tensor,
    steps: int,
    nonlinear: bool,
    callbacks: Sequence[Callback] = (),
) -> Tensor:
    """The hyperparameters of the largest marginal likelihood on a subset, from two starts (near linear, near local)."""
    chosen = torch.linspace(0, len(coordinates) - 1, min(LEARNING, len(coordinates))).round().long()
    z, rows = coordinates[chosen], outputs[chosen]
    gram = rows @ rows.T
    if not float(gram.diagonal().sum()) > 0:  # all outputs are the same: the mean says everything
        return torch.zeros(len(HYPER), dtype=torch.float64)
    gram = gram / gram.diagonal().mean()
    # rescaled logistic maps keep the search inside the ranges, where the factor exists
    low, high = torch.tensor(RANGES, dtype=torch.float64).T

    def inside(free: Tensor) -> Tensor:
        return low + (high - low) * free.sigmoid()

    def loss(free: Tensor) -> Tensor:
        if any(callback.stop() for callback in callbacks):
            raise Interrupted("Learning was stopped; it starts over when run again.")
        hyper = inside(free)
        matrix = covariance(z, z, variances, hyper, nonlinear)
        return evidence(matrix + noise_of(hyper) * torch.eye(len(z), dtype=torch.float64), gram)

    best: tuple[float, Tensor] | None = None
    for start in ((0.5, -6.0, -2.0, -9.0, 0.3), (2.5, -6.0, 2.0, -9.0, 0.0)):
        share = (torch.tensor(start, dtype=torch.float64) - low) / (high - low)
        free = share.logit().requires_grad_()
        Minimiser([free]).run(functools.partial(loss, free), steps, tolerance=1e-9)
        found = float(loss(free).detach())
        if best is None or found < best[0]:
            best = (found, inside(free.detach()))
    assert best is not None
    return best[1]
