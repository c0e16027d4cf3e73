r"""Gaussian processes on an interval with the squared-exponential covariance
:math:`\sigma^2 \exp(-|x - x'|^2 / 2\ell^2)`, the input law of the DeepONet literature.

Drawn as random Fourier series on a circle so much longer than the interval that what comes round it is below
round-off (eight correlation lengths: exp(-32)). There the covariance is diagonal, with the Gaussian spectral density
as its eigenvalues; so the law is exact, needs no factorisation of a nearly singular matrix, and the same generator
state gives the same function at every resolution.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from ._grid import Axis

GAP = 8.0  # correlation lengths between the ends of the interval, round the circle
DYNAMIC_RANGE = 1e-18  # share of the variance below which modes are left out


def squared_exponential(
    count: int, axis: Axis, *, correlation: float, amplitude: float = 1.0, generator: Generator
) -> Float[Tensor, "count nodes"]:
    """``count`` functions at the nodes of an axis (float64).

    correlation   l, in the axis's unit
    amplitude     sigma, the pointwise standard deviation
    """
    circle = axis.length + GAP * correlation
    decay = 0.5 * (2 * math.pi * correlation / circle) ** 2
    highest = math.ceil(math.sqrt(-math.log(DYNAMIC_RANGE) / decay))
    k = torch.arange(highest + 1, dtype=torch.float64)
    variance = math.sqrt(2 * math.pi) * correlation / circle * torch.exp(-decay * k.square())
    variance[1:] *= 2  # of the modes +k and -k together
    angles = (2 * math.pi / circle) * k[:, None] * (axis.coordinates() - axis.lower)
    noise = torch.randn(count, 2, highest + 1, dtype=torch.float64, generator=generator) * torch.sqrt(variance)
    return amplitude * (noise[:, 0] @ torch.cos(angles) + noise[:, 1] @ torch.sin(angles))
