r"""Levenberg and Marquardt: least squares in all weights of a network at once, from rows of its exact Jacobian.

.. math:: (J^T J + \lambda \mathrm{diag}) \,\delta = -J^T r,\qquad \lambda \text{ falls with each success}

First the last layer alone, in which a linear equation is a linear least-squares problem, solved by singular values.
With fewer rows than weights the system is solved in its dual form, which has the size of the rows.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

Rows = Callable[[Tensor], Tensor]  # weights -> residuals
Jacobian = Callable[[Tensor], tuple[Tensor, Tensor]]  # weights -> residuals, row weight
FAILURES = 8  # dampings tried before a step is given up
SLOW, PATIENCE = 0.005, 15  # relative gain of an iteration that counts as none; how many of them end it
START, LEAST = 1e-3, 1e-15  # damping, relative to the mean diagonal


@dataclass
class Damping:
    """What a run carries from one set of points to the next."""

    value: float = START
    idle: int = 0


def descend(
    weights: Tensor, rows: Rows, jacobian: Jacobian, damping: Damping, iterations: int, target: float,
    watch: Callable[[float], bool],
) -> tuple[Tensor, float]:  # fmt: skip
    """Weights and half their sum of squares after at most ``iterations``; ``watch`` says when to stop."""
    residual, matrix = jacobian(weights)
    cost = float(residual.square().sum())
    for iteration in range(iterations):
        if cost <= target or damping.idle >= PATIENCE or watch(cost):
            break
        found = _step(weights, residual, matrix, rows, damping, cost)
        if found is None:
            damping.idle = PATIENCE
            break
        weights, new = found
        damping.idle = damping.idle + 1 if new > (1 - SLOW) * cost else 0
        cost = new
        if iteration + 1 < iterations:
            residual, matrix = jacobian(weights)
    return weights, cost


def _step(
    weights: Tensor, residual: Tensor, matrix: Tensor, rows: Rows, damping: Damping, cost: float
) -> tuple[Tensor, float] | None:
    """The first damped step that lowers the cost; None where none does."""
    dual = matrix.shape[0] < matrix.shape[1]
    gram = _gram(matrix.t() if dual else matrix)
    right = residual if dual else matrix.t() @ residual
    scale = float(gram.diagonal().mean())
    for _ in range(FAILURES):
        damped = gram + damping.value * scale * torch.eye(len(gram), dtype=gram.dtype, device=gram.device)
        factor, failed = torch.linalg.cholesky_ex(damped)
        if not int(failed):
            step = torch.cholesky_solve(right[:, None], factor)[:, 0]
            tried = weights - (matrix.t() @ step if dual else step)
            new = float(rows(tried).square().sum())
            if new < cost:
                damping.value = max(damping.value / 5, LEAST)
                return tried, new
        damping.value = max(4 * damping.value, 1e-14)
    return None


def _gram(matrix: Tensor) -> Tensor:
    """A^T A; by numpy on the processor, whose product of a matrix with itself makes half of it (2.0 times faster)."""
    if matrix.device.type != "cpu":
        return matrix.t() @ matrix
    values = matrix.numpy()
    return torch.from_numpy(values.T @ values)


def linear_part(
    weights: Tensor, which: Tensor, rows: Rows, columns: Float[Tensor, "row column"], cutoff: float = 1e-13
) -> Tensor:
    """Solve for the weights in which the residual is linear; kept only where the residual falls."""
    before = rows(weights)
    norms = columns.norm(dim=0).clamp_min(1e-300)
    solved = torch.linalg.lstsq((columns / norms).cpu(), -before[:, None].cpu(), rcond=cutoff, driver="gelsd")
    tried = weights.clone()
    tried[which] += solved.solution[:, 0].to(weights) / norms
    return tried if float(rows(tried).square().sum()) < float(before.square().sum()) else weights
