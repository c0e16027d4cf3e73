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
from collections.abc import Sequence
from typing import Any

import torch
from torch import Generator, Tensor

from ..pde import Grid
from ._builder import assembled, fields_of, solver_of, waves_of
from ._field import Field
from ._network import normal
from ._solve import WAVES
from ._spectrum import centroid
from .siren import Siren

INSTANCES, PRESETS = 1, WAVES  # it learns from no data
OMEGA = 30.0


def published_scales(values: Tensor, dim: int) -> tuple[float, float]:
    """(s_0, s_1) of ``channel *space`` values, as the authors' code has them: channels divide the centroid twice."""
    share = centroid(values) / len(values) ** 2
    if dim == 1:
        return 3500 * (1 - math.exp(-7 * share)), 3 * share
    if dim == 2:
        return 50 * (1 - math.exp(-5 * share)), 0.4 * share
    raise ValueError(f"The published constants are for 1 or 2 dimensions, not {dim}: leave published=False.")


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
    options: dict[str, Any] = {"width": width, "layers": layers, "omega": OMEGA}
    rest: dict[str, Any] = {"seed": seed, "dtype": dtype, **promises}
    if not published:
        waves = bandwidth if bandwidth is not None else waves_of(_given(values), domain, kappa)
        options |= {"bandwidth": tuple(waves), "gaussian": True}
        return assembled(Siren, domain, channels, options, **rest)
    if domain_periodic := [axis.name for axis in domain.axes if axis.periodic]:
        raise ValueError(
            f"The published network is not periodic, {', '.join(domain_periodic)} is: leave published=False, or pass a "
            "domain with walls."
        )
    scales = published_scales(_given(values), domain.dim)
    return assembled(Siren, domain, channels, options, change=lambda n, g: add_noise(n, scales, g), **rest)


def _given(values: Tensor | None) -> Tensor:
    if values is None:
        raise ValueError("The published constants follow from the values of the field: pass values=...")
    return values


matched = fields_of(Siren, gaussian=True).matched
build = solver_of(Siren, module=__name__, fixed={"gaussian": True}, width=48, layers=2)
