"""Eigenfunctions of the Laplacian on an interval, and polynomials of a time: what waves and test functions are made of.

``sine``     zero at both ends
``cosine``   free there
``fourier``  periodic
``growth``   1 and t times Legendre polynomials: the first alone is the beginning
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

Kind = Literal["sine", "cosine", "fourier", "growth"]


def family(kind: Kind, count: int, x: Float[Tensor, " point"], order: int) -> Float[Tensor, "point wave"]:
    """The lowest functions on [0, 1], or their first derivatives (``order`` 1)."""
    if kind == "growth":
        values, slopes = _legendre(count - 1, 2 * x - 1, 0), _legendre(count - 1, 2 * x - 1, 1)
        grown = x[:, None] * values if order == 0 else values + x[:, None] * slopes
        return torch.cat([torch.full_like(x[:, None], float(order == 0)), grown], dim=1)
    if kind == "fourier":
        waves = 2 * math.pi * torch.arange(1, (count + 1) // 2 + 1, dtype=x.dtype, device=x.device)
        angle = x[:, None] * waves
        pair = (angle.cos(), angle.sin()) if order == 0 else (-waves * angle.sin(), waves * angle.cos())
        flat = torch.full_like(x[:, None], float(order == 0))
        return torch.cat([flat, torch.stack(pair, dim=2).flatten(1)], dim=1)[:, :count]
    first = 1 if kind == "sine" else 0
    waves = math.pi * torch.arange(first, first + count, dtype=x.dtype, device=x.device)
    angle = x[:, None] * waves
    if kind == "sine":
        return angle.sin() if order == 0 else waves * angle.cos()
    return angle.cos() if order == 0 else -waves * angle.sin()


def _legendre(count: int, s: Tensor, order: int) -> Float[Tensor, "point wave"]:
    """Three-term recurrences; derivatives by P'_{n+1} = P'_{n-1} + (2 n + 1) P_n, and 2 for the width of [0, 1]."""
    values, slopes = [torch.ones_like(s), s], [torch.zeros_like(s), torch.ones_like(s)]
    for n in range(1, count):
        slopes.append(slopes[-2] + (2 * n + 1) * values[-1])
        values.append(((2 * n + 1) * s * values[-1] - n * values[-2]) / (n + 1))
    return torch.stack(values[:count], dim=1) if order == 0 else 2 * torch.stack(slopes[:count], dim=1)


def eigenvalues_of(kind: Kind, count: int) -> Float[Tensor, " wave"]:
    """Of minus the second derivative on [0, 1]; of growth, the fourth power of the degree."""
    number = torch.arange(count, dtype=torch.float64)
    if kind == "growth":
        return number**4  # a slope of the n-th is n² times its size, and levelled so
    if kind == "fourier":
        return (2 * math.pi * ((number + 1) // 2)) ** 2
    return (math.pi * (number + (kind == "sine"))) ** 2
