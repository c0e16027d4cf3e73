r"""WINNER: a SIREN whose first two layers start with noise as broad as the field's spectrum (Chandravamsi et al. 2025).

.. math:: W_1 \leftarrow W_1 + N(0, (s_0/\omega)^2),\qquad W_2 \leftarrow W_2 + N(0, (s_1/\omega)^2),\qquad \omega = 30

so that bandwidth sits in the weights while omega, the optimiser's step of the phase, stays small. ``published`` takes
the authors' scales from the spectral centroid C in [0, 1] of the n channels, r = C / n:

====  ==========================  ========
dim   s_0                         s_1
====  ==========================  ========
1     3500 (1 - exp(-7 r))        3 r
2     50 (1 - exp(-5 r))          0.4 r
====  ==========================  ========

They are per unit of position while C is relative to the sampling, so they change with the resolution. The default does
not: the first layer's waves are normal with deviation kappa k_rms along each axis, from the n-dimensional spectrum, at
most half the Nyquist limit, and s_1 = 0. kappa = 0.4 suits smooth fields; :func:`~._fit.represent` tries some on points
held out. A band broader than the field's aliases between the nodes, and derivatives suffer first.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Generator, Tensor

from ..pde import Grid, Problem
from ..training import Preset
from ._field import Field, composed
from ._network import normal
from ._solve import QUICK, FieldSolver
from ._spectrum import bandwidths, centroid, nyquist
from .siren import Siren

INSTANCES = 1  # it learns from no data
PRESETS: Mapping[tuple[str, str], Preset] = QUICK
OMEGA = 30.0


def published_scales(values: Tensor, dim: int) -> tuple[float, float]:
    """(s_0, s_1) of ``channel *space`` values, as the authors' code has them: channels divide the centroid twice."""
    share = centroid(values) / len(values) ** 2
    if dim == 1:
        return 3500 * (1 - math.exp(-7 * share)), 3 * share
    if dim == 2:
        return 50 * (1 - math.exp(-5 * share)), 0.4 * share
    raise ValueError(f"The published constants are for 1 or 2 dimensions, not {dim}: leave published=False.")


def waves_of(values: Tensor, domain: Grid, kappa: float) -> tuple[float, ...]:
    """Kappa k_rms of each axis, at most half the Nyquist limit, at least half a wave across the domain over pi."""
    measured = bandwidths(values, domain)
    return tuple(max(min(kappa * k, nyquist(a) / 2), 0.5) for k, a in zip(measured, domain.axes, strict=True))


@torch.no_grad()
def add_noise(network: Siren, scales: tuple[float, float], generator: Generator) -> None:
    """Normal noise on the first two weight matrices of a SIREN, in place."""
    for linear, scale, omega in zip(network.linears[:2], scales, network.omegas, strict=False):
        weight: Tensor = linear.weight  # type: ignore[assignment]
        weight.add_((normal(weight.shape, generator) * (scale / omega)).to(weight.dtype))


def field(
    domain: Grid,
    channels: int = 1,
    *,
    values: Tensor | None = None,
    published: bool = False,
    kappa: float = 0.4,
    bandwidth: Sequence[float] | None = None,
    width: int = 256,
    layers: int = 4,
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
    **promises: Any,
) -> Field:
    """A WINNER for values ``channel *space`` at the nodes of the domain (or for a bandwidth that is known).

    published   the authors' constants, else kappa times the spectrum of the values; periodic axes need the latter
    bandwidth   root mean square wave number of each axis [rad per internal unit], in place of values and kappa
    """
    if bandwidth is None and values is None:
        raise ValueError(
            "WINNER starts from the spectrum of the field: pass values=..., or bandwidth=... of each axis."
        )
    generator = torch.Generator().manual_seed(seed)
    periodic = [axis.periodic for axis in domain.axes]
    options: dict[str, Any] = {"width": width, "layers": layers, "omega": OMEGA, "dtype": dtype}

    def network(outputs: int) -> Siren:
        if not published:
            waves = bandwidth if bandwidth is not None else waves_of(_given(values), domain, kappa)
            return Siren(
                domain.dim, outputs, bandwidth=waves, gaussian=True, periodic=periodic, generator=generator, **options
            )
        made = Siren(domain.dim, outputs, generator=generator, **options)
        add_noise(made, published_scales(_given(values), domain.dim), generator)
        return made

    if published and any(periodic):
        raise ValueError("The published network is not periodic: leave published=False, or pass a domain with walls.")
    return composed(domain, network, channels, generator=generator, **promises)


def _given(values: Tensor | None) -> Tensor:
    if values is None:
        raise ValueError("The published constants follow from the values of the field: pass values=...")
    return values


def build(
    problem: Problem,
    grid: Grid,
    *,
    width: int = 48,
    layers: int = 2,
    kappa: float = 1.0,
    iterations: int = 60,
    points: int = 0,
    seed: int = 0,
) -> FieldSolver:
    """A WINNER in double precision solves the problem's declared equation, one instance at a time, from no data.

    width        sines a layer
    layers       of sines
    kappa        deviation of the first layer's waves in units of those of the source and the boundary data
    iterations   of Levenberg-Marquardt at most
    points       collocation points at a time; 0: two a weight
    seed         of weights and points
    """

    def make(domain: Grid, waves: Sequence[float], **promises: Any) -> Field:
        bandwidth = [kappa * k for k in waves]
        return field(domain, width=width, layers=layers, bandwidth=bandwidth, seed=seed, **promises)

    return FieldSolver(problem, grid, make, iterations=iterations, points=points, seed=seed)
