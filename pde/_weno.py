r"""From values at cell centres to values at cell faces: what shock capturing does between two cells.

Everything acts on the last axis and on six neighbours :math:`v_{i-2}, …, v_{i+3}` of a face :math:`x_{i+1/2}`.

``weno``   fifth-order WENO-Z interpolation of point values: three parabolas, linear weights 1/16, 10/16, 5/16, the
           smoothness indicators of Jiang and Shu (J. Comput. Phys. 126, 1996) and the weights of Borges et al.
           (J. Comput. Phys. 227, 2008) with power 2. The flux of the interpolated states plus ``flux_correction``
           is a conservative fifth-order scheme (Jiang, Shu and Zhang, SIAM J. Sci. Comput. 35, 2013, "alternative
           WENO"): it takes any Riemann solver, and needs no quadrature over the faces in two dimensions.
``muscl``  second order, with van Leer's limiter (J. Comput. Phys. 32, 1979).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

Wall = Literal["periodic", "outflow", "wall"]
GHOSTS = 3  # cells beyond each end that a face stencil reaches


def neighbours(padded: Float[Tensor, "*lead padded"]) -> Float[Tensor, "6 *lead faces"]:
    """The six neighbours of every face, as a view."""
    return padded.unfold(-1, 2 * GHOSTS, 1).movedim(-1, 0)


def weno(
    v: Float[Tensor, "6 *faces"], floor: Float[Tensor, "*faces"]
) -> tuple[Float[Tensor, "*faces"], Float[Tensor, "*faces"]]:
    """States to the left and to the right of each face, of fifth order where smooth.

    Differences whose squares are well below ``floor`` count as smooth. It is (scale of v)² (h / length)⁴, by which the
    order holds at extrema too (Don and Borges, J. Comput. Phys. 250, 2013).
    """
    d = v[1:] - v[:-1]
    return v[2] + _weno_step(d[0], d[1], d[2], d[3], floor), v[3] - _weno_step(d[4], d[3], d[2], d[1], floor)


def muscl(v: Float[Tensor, "6 *faces"]) -> tuple[Float[Tensor, "*faces"], Float[Tensor, "*faces"]]:
    """States to the left and to the right of each face, of second order where smooth."""
    a, b, c = v[2] - v[1], v[3] - v[2], v[4] - v[3]
    return v[2] + 0.5 * _van_leer(a, b), v[3] - 0.5 * _van_leer(b, c)


def flux_correction(flux: Float[Tensor, "6 *faces"]) -> Float[Tensor, "*faces"]:
    r""":math:`-\frac{h^2}{24} f_{xx} + \frac{7 h^4}{5760} f_{xxxx}` at the faces, by central differences of order 6."""
    outer, middle, inner = flux[0] + flux[5], flux[1] + flux[4], flux[2] + flux[3]
    return (57 * outer - 411 * middle + 354 * inner) / 11520


def pad(values: Tensor, ends: Sequence[Wall], mirrored: Tensor) -> Tensor:
    """Ghost cells along the last axis; ``mirrored`` are the values as a wall reflects them."""
    if ends[0] == "periodic":
        return torch.cat([values[..., -GHOSTS:], values, values[..., :GHOSTS]], dim=-1)
    low = mirrored[..., :GHOSTS].flip(-1) if ends[0] == "wall" else _repeat(values[..., :1])
    high = mirrored[..., -GHOSTS:].flip(-1) if ends[1] == "wall" else _repeat(values[..., -1:])
    return torch.cat([low, values, high], dim=-1)


def _repeat(edge: Tensor) -> Tensor:
    return edge.expand(*edge.shape[:-1], GHOSTS)


def _weno_step(d0: Tensor, d1: Tensor, d2: Tensor, d3: Tensor, floor: Tensor) -> Tensor:
    """From the value at a centre to the face beyond it, by the four differences around: two before, two behind it."""
    b0 = _smoothness(d1 - d0, 3 * d1 - d0)
    b1 = _smoothness(d2 - d1, d1 + d2)
    b2 = _smoothness(d3 - d2, 3 * d2 - d3)
    rough = (b0 - b2).abs_()
    w0, w1, w2 = (_weight(c, rough, b.add_(floor)) for c, b in ((1.0, b0), (10.0, b1), (5.0, b2)))
    steps = w0 * (7 * d1 - 3 * d0) + w1 * (d1 + 3 * d2) + w2 * (5 * d2 - d3)
    return steps / (w0.add_(w1).add_(w2).mul_(8))


def _smoothness(second: Tensor, first: Tensor) -> Tensor:
    return second.square_().mul_(13 / 12) + first.square_().mul_(0.25)


def _weight(linear: float, rough: Tensor, smoothness: Tensor) -> Tensor:
    return (rough / smoothness).square_().add_(1.0).mul_(linear)


def _van_leer(a: Tensor, b: Tensor) -> Tensor:
    """Harmonic mean of two slopes of one sign, else 0."""
    product = (a * b).clamp_min_(0.0)
    total = a + b
    return torch.where(product > 0, 2 * product / torch.where(product > 0, total, torch.ones_like(total)), 0.0)
