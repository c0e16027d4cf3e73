r"""How far a reduced field is off, without the full trajectory, and whether it is stable.

With :math:`\tilde u = \bar u + V z` along the reduced solution, and e the full minus the reduced solution,

.. math:: r = f(\tilde u) - V \dot z,\qquad \|e\|' \le \mu\,\|e\| + \|r\|,\qquad
          \|e(0)\| = \|(I - VV^T)(u_0 - \bar u)\|

mu   logarithmic norm: the largest eigenvalue of the symmetric part of the Jacobian of f along the path

(Wirtz, Sorensen and Haasdonk 2014.) For affine f this bounds the error; else it holds to first order in e, so it is
called an indicator. The residual costs one evaluation of the full field at each asked time, not at each step.
``growth="reduced"`` takes mu from the k x k Jacobian of the reduced field, which sees less: cheap, and no bound.
"""

from __future__ import annotations

from typing import Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ._field import RightHandSide
from ._order_reduction import Reduced

Growth = Literal["full", "reduced"]

FULL_LIMIT = 2048  # unknowns up to which the full Jacobian is formed for its eigenvalues


@torch.no_grad()
def residual(
    field: nn.Module, small: Reduced, times: Float[Tensor, " time"], path: Float[Tensor, "batch time mode"]
) -> Float[Tensor, "batch time"]:
    """The 2-norm of f(u) - V dz/dt at each time of a reduced solution."""
    found = []
    for i, time in enumerate(times.to(path)):
        states = small.decode(path[:, i])
        rate = field(time, states) - small.decode(small(time, path[:, i])) + small.mean.unflatten(0, small.shape)
        found.append(rate.flatten(1).norm(dim=1))
    return torch.stack(found, dim=1)


def error_indicator(
    field: nn.Module,
    small: Reduced,
    times: Float[Tensor, " time"],
    path: Float[Tensor, "batch time mode"],
    start: Float[Tensor, "batch *state"],
    *,
    growth: Growth = "reduced",
) -> Float[Tensor, "batch time"]:
    """The estimated 2-norm of the error at each time; ``start`` is the full state at the first.

    growth   of errors, from the Jacobian of the full field (a bound where it is affine), or of the reduced one

    Residual and growth are taken as linear between the times: ask for as many as resolve them.
    """
    if growth not in get_args(Growth):
        raise ValueError(f"growth is one of {get_args(Growth)}, got {growth!r}.")
    if path.shape[:2] != (len(start), len(times)) or not bool((times.diff() > 0).all()):
        raise ValueError(
            f"Expected a path of shape {(len(start), len(times), small.modes)} at increasing times, got "
            f"{tuple(path.shape)}."
        )
    sizes = residual(field, small, times, path)
    rates = torch.stack([_growth(field, small, t, path[:, i], growth) for i, t in enumerate(times.to(path))], dim=1)
    error = (start - small.decode(small.encode(start))).flatten(1).norm(dim=1)
    found = [error]
    for i, step in enumerate(times.diff().tolist()):
        found.append(_advanced(found[-1], step, rates[:, i : i + 2], sizes[:, i : i + 2]))
    return torch.stack(found, dim=1)


def _advanced(error: Tensor, step: float, rates: Tensor, sizes: Tensor) -> Tensor:
    """One step of e' = mu e + r with their means: exact where both are constant."""
    grow, push = rates.mean(dim=1) * step, sizes.mean(dim=1) * step
    safe = torch.where(grow.abs() < 1e-6, torch.ones_like(grow), grow)
    share = torch.where(grow.abs() < 1e-6, 1 + grow / 2, torch.expm1(safe) / safe)
    return torch.exp(grow) * error + share * push


def _growth(
    field: nn.Module, small: Reduced, time: Tensor, coordinates: Tensor, how: Growth
) -> Float[Tensor, " batch"]:
    if how == "reduced":
        return logarithmic_norm(small, time, coordinates)
    unknowns = small.vectors.shape[0]
    if unknowns > FULL_LIMIT:
        raise ValueError(
            f'growth="full" forms Jacobians of {unknowns} unknowns; up to {FULL_LIMIT} that is affordable. Use '
            'growth="reduced".'
        )
    return logarithmic_norm(field, time, small.decode(coordinates))


def logarithmic_norm(
    field: RightHandSide, time: Tensor, states: Float[Tensor, "batch *state"]
) -> Float[Tensor, " batch"]:
    """The fastest rate at which two neighbouring solutions can part, in the 2-norm."""
    jacobians = jacobians_of(field, time, states)
    return torch.linalg.eigvalsh(jacobians + jacobians.mT)[:, -1] / 2


def abscissa(field: RightHandSide, time: Tensor, states: Float[Tensor, "batch *state"]) -> Float[Tensor, " batch"]:
    """The largest real part of the Jacobian's eigenvalues: positive where the linearised field is unstable."""
    return torch.linalg.eigvals(jacobians_of(field, time, states)).real.amax(dim=1)


def jacobians_of(
    field: RightHandSide, time: Tensor, states: Float[Tensor, "batch *state"]
) -> Float[Tensor, "batch row column"]:
    """Of each sample's rate by its own state."""
    with torch.enable_grad():
        place = states.detach().requires_grad_()
        rate = field(time, place).flatten(1)
        rows = [
            torch.autograd.grad(rate[:, i].sum(), place, retain_graph=True, materialize_grads=True)[0].flatten(1)
            for i in range(rate.shape[1])
        ]
    return torch.stack(rows, dim=1)
