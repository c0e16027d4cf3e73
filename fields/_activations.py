"""Functions of one variable with their first two derivatives, for jets; each with its plain formula beside it."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from ._jet import Pointwise

Builder = Callable[[float], Pointwise]


def sine(frequency: float) -> Pointwise:
    """sin(omega z)."""

    def of(z: Tensor, degree: int) -> list[Tensor]:
        s = torch.sin(frequency * z)
        if not degree:
            return [s]
        return [s, frequency * torch.cos(frequency * z), -(frequency**2) * s]

    return of


def finer_sine(frequency: float) -> Pointwise:
    """sin(omega (|z| + 1) z), with the derivative of the factor, which the published code leaves out."""

    def of(z: Tensor, degree: int) -> list[Tensor]:
        angle = frequency * (z.abs() + 1) * z
        s = torch.sin(angle)
        if not degree:
            return [s]
        c, slope = torch.cos(angle), frequency * (2 * z.abs() + 1)
        return [s, c * slope, c * (2 * frequency * z.sign()) - s * slope.square()]

    return of


def bell(sharpness: float) -> Pointwise:
    """exp(-(c z)²)."""

    def of(z: Tensor, degree: int) -> list[Tensor]:
        c2 = sharpness**2
        g = torch.exp(-c2 * z * z)
        return [g] if not degree else [g, -2 * c2 * z * g, (4 * c2 * c2 * z * z - 2 * c2) * g]

    return of


def hyperbolic(factor: float) -> Pointwise:
    """tanh(c z)."""

    def of(z: Tensor, degree: int) -> list[Tensor]:
        t = torch.tanh(factor * z)
        slope = 1 - t * t
        return [t] if not degree else [t, factor * slope, -2 * factor**2 * t * slope]

    return of


def sigmoid(z: Tensor, degree: int) -> list[Tensor]:
    """1 / (1 + exp(-z))."""
    s = torch.sigmoid(z)
    return [s] if not degree else [s, s * (1 - s), s * (1 - s) * (1 - 2 * s)]


def gelu(z: Tensor, degree: int) -> list[Tensor]:
    """Z Phi(z), Phi the normal distribution."""
    phi = 0.5 * (1 + torch.erf(z / math.sqrt(2)))
    if not degree:
        return [z * phi]
    density = torch.exp(-0.5 * z * z) / math.sqrt(2 * math.pi)
    return [z * phi, phi + z * density, density * (2 - z * z)]


def relu(z: Tensor, degree: int) -> list[Tensor]:
    """max(z, 0); its second derivative is taken as 0, the kink being a set of measure zero."""
    return [torch.relu(z), (z > 0).to(z), torch.zeros_like(z)][: 1 if not degree else 3]


def exponential(z: Tensor, degree: int) -> list[Tensor]:
    """Exp z; of complex numbers too."""
    return [torch.exp(z)] * (1 + degree)


def cosine_of(z: Tensor, degree: int) -> list[Tensor]:
    """Cos z."""
    c = torch.cos(z)
    return [c] if not degree else [c, -torch.sin(z), -c]


def sinc(z: Tensor, degree: int) -> list[Tensor]:
    """Sin z / z; near 0 by its series, of which the terms left out are below 1e-17."""
    near, far = z.abs() < 0.5, torch.where(z.abs() < 0.5, 1.0, z)
    value, c = torch.sin(far) / far, torch.cos(far)
    slope = (c - value) / far
    closed = [value, slope, -value - 2 * slope / far]
    terms = [((-1) ** m / math.factorial(2 * m + 1), 2 * m) for m in range(8)]
    series = [sum(a * math.perm(p, d) * z ** max(p - d, 0) for a, p in terms) for d in range(3)]
    return [torch.where(near, s, f) for s, f in zip(series, closed, strict=True)][: 1 if not degree else 3]


def power(exponent: float) -> Pointwise:
    """z^p of positive z."""

    def of(z: Tensor, degree: int) -> list[Tensor]:
        v = z**exponent
        return [v] if not degree else [v, exponent * v / z, exponent * (exponent - 1) * v / (z * z)]

    return of
