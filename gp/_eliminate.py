r"""The eliminated form of the published objective: U as its minimiser for given hyperparameters, a linear solve.

With A = [conditions; linearised equation] on nodal values and noise S = diag(1 / (lambda_b tau), 1 / v) it is the
conditional mean C A^T (A C A^T + S)^{-1} y; with a reaction, Gauss-Newton steps from the last U.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..pde import SolverError
from ._process import Process
from ._toeplitz import toeplitz

if TYPE_CHECKING:
    from ._map import Map

GAUSS_NEWTON = 30  # steps at most, with a reaction
SHORTEST = 1e-3  # part of a step below which it is given up
SETTLED = 1e-10  # relative change of U at which Gauss-Newton ends


@torch.no_grad()
def eliminate(solver: Map) -> None:
    """Put U where the objective is smallest for the current hyperparameters."""
    state, process = solver.state, solver.state.process
    factors, maps = _dense_maps(process, solver.wanted)
    prior = _kron(factors)
    zero, count = solver.zero, math.prod(solver.grid.shape)
    numbers = torch.arange(count).reshape(solver.grid.shape)
    rows = torch.cat(
        [
            maps[solver._orders(c)][numbers.select(c.axis, 0 if c.end == "lower" else -1).flatten()]
            for c in solver.equation.conditions
        ]
    )
    linear = torch.zeros_like(prior)
    for term in solver._terms():
        coefficient = torch.as_tensor(term.coefficient, dtype=torch.float64).expand(solver.grid.shape)
        linear += coefficient.reshape(-1, 1) * maps[term.orders]
    tau, v = (state.log_tau.exp() * solver.settings.weight), state.log_v.exp()
    noise = torch.cat([(1 / tau).expand(len(rows)), (1 / v).expand(count)])
    for _ in range(GAUSS_NEWTON if solver.equation.reaction is not None else 1):
        now = process.values.flatten()
        fields = {orders: (matrix @ now).reshape(solver.grid.shape) for orders, matrix in maps.items()}
        if state.known:
            fields = {orders: value + state.known[orders] for orders, value in fields.items()}
        slope = solver.equation.slope(fields[zero]).reshape(-1, 1) * maps[zero]
        observed = torch.cat([rows, linear + slope])
        target = observed @ now - torch.cat(solver.misfits(fields))
        cross = prior @ observed.T
        system = observed @ cross + torch.diag(noise)
        size = system.diagonal().sqrt()
        factor, info = torch.linalg.cholesky_ex(system / size[:, None] / size)
        if int(info):
            raise SolverError("The system for U is not positive definite: use more jitter, or eliminated=False.")
        after = cross @ (torch.cholesky_solve((target / size)[:, None], factor)[:, 0] / size)
        _step_to(solver, after)
        change = float((process.values.flatten() - now).norm())
        if change <= SETTLED * float(after.norm()):
            break


def _step_to(solver: Map, target: Tensor) -> None:
    """All the way where the objective falls by it (always, in a linear equation), else part of the way."""
    process = solver.state.process
    now, change, share = process.values, target.reshape(process.values.shape) - process.values, 1.0
    if solver.equation.reaction is None:
        process.values = now + change
        return
    before = float(solver.loss())
    while share > SHORTEST:
        process.values = now + share * change
        if float(solver.loss()) < before:
            return
        share /= 2
    process.values = now


def _dense_maps(process: Process, wanted: set[tuple[int, ...]]) -> tuple[list[Tensor], dict[tuple[int, ...], Tensor]]:
    """The jittered factors, and dense matrices from nodal values to nodal derivatives."""
    factors, along = [], []
    for j, spectrum in enumerate(process.spectra):
        orders = sorted({orders[j] for orders in wanted} | {0})
        lags = spectrum.lags(process.grid.axes[j].coordinates(), orders)
        factors.append(toeplitz(process.jittered(lags[0])))
        along.append({p: _map_of(factors[-1], lags[p], p) for p in orders})
    return factors, {orders: _kron([a[p] for a, p in zip(along, orders, strict=True)]) for orders in wanted}


def _map_of(factor: Tensor, lags: Tensor, order: int) -> Tensor:
    if order == 0:
        return torch.eye(len(factor), dtype=torch.float64)
    return torch.linalg.solve(factor, toeplitz(lags, -1.0 if order % 2 else 1.0), left=False)


def _kron(matrices: Sequence[Tensor]) -> Tensor:
    total = torch.ones((1, 1), dtype=torch.float64)
    for matrix in matrices:
        total = torch.kron(total, matrix)
    return total
