r"""A sine layer with its derivatives: value, gradient and Laplacian of :math:`\sin(\omega (W v(x) + b))` in one pass.

What goes through the layers is a *jet*, ``order point channel``: the value v, then (optional) its derivatives
:math:`v_j = \partial v/\partial x_j` along the dim directions, then (optional) its Laplacian. With z = W v + b

.. math:: s = \sin\omega z,\qquad s_j = \omega\cos(\omega z)\, W v_j,\qquad
          \Delta s = \omega\cos(\omega z)\, W \Delta v - \omega^2 \sin(\omega z) \sum_j (W v_j)^2

All orders share one matrix product and one sine and cosine. Reverse mode goes through it as through any function, so a
loss may contain the Laplacian. Nested forward-mode derivatives (``sine_layer_reference``) give the same numbers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor


def sine_layer(
    jet: Float[Tensor, "order point c_in"],
    weight: Float[Tensor, "c_out c_in"],
    bias: Float[Tensor, " c_out"],
    frequency: float = 30.0,
    *,
    laplacian: bool = False,
    activate: bool = True,
) -> Float[Tensor, "order point c_out"]:
    """The jet of the layer from the jet of its inputs; see :func:`jet_of_points` for the first layer's.

    frequency  omega, 30 in the published networks (Sitzmann et al. 2020)
    laplacian  whether the last order of the jet is a Laplacian
    activate   False: the linear map alone (the last layer of a network)
    """
    if laplacian and len(jet) < 3:
        raise ValueError(f"A jet with a Laplacian has a value, derivatives and the Laplacian; got {len(jet)} orders.")
    products = jet @ weight.t()
    if not activate:
        return torch.cat([products[:1] + bias, products[1:]])
    angle = frequency * (products[0] + bias)
    sine = torch.sin(angle)
    if len(jet) == 1:
        return sine[None]
    slope = frequency * torch.cos(angle)
    if not laplacian:
        return torch.cat([sine[None], slope * products[1:]])
    squares = products[1:-1].square().sum(dim=0)
    curvature = torch.addcmul(slope * products[-1], sine, squares, value=-(frequency**2))
    return torch.cat([sine[None], slope * products[1:-1], curvature[None]])


def jet_of_points(
    points: Float[Tensor, "point dim"], *, gradient: bool = False, laplacian: bool = False
) -> Float[Tensor, "order point dim"]:
    """The identity x and, as asked, its derivatives (unit vectors) and its Laplacian (zero)."""
    orders = [points[None]]
    if gradient or laplacian:
        dim = points.shape[1]
        unit = torch.eye(dim, dtype=points.dtype, device=points.device)
        orders.append(unit[:, None].expand(dim, *points.shape))
    if laplacian:
        orders.append(torch.zeros_like(points)[None])
    return torch.cat(orders)


def sine_layer_reference(
    field: Callable[[Tensor], Tensor], points: Float[Tensor, "point dim"]
) -> Float[Tensor, "order point channel"]:
    """Value, gradient and Laplacian of any function of one point ``dim -> channel``, by nested forward mode."""

    def of_one(point: Tensor) -> Tensor:
        gradient = torch.func.jacfwd(field)(point)
        second = torch.func.jacfwd(torch.func.jacfwd(field))(point)
        return torch.cat([field(point)[None], gradient.t(), second.diagonal(dim1=1, dim2=2).sum(dim=1)[None]])

    return torch.func.vmap(of_one)(points).transpose(0, 1)


@dataclass(frozen=True)
class Case:
    """Points and two layers, for the parity test and the benchmark alike."""

    name: str
    points: Tensor
    layers: tuple[tuple[Tensor, Tensor], ...]  # weight, bias
    frequency: float


def cases(dtype: torch.dtype = torch.float64, device: torch.device | str = "cpu") -> list[Case]:
    """One to three dimensions, two layers, low and high frequency."""
    generator = torch.Generator().manual_seed(20_23)

    def draw(*shape: int) -> Tensor:
        return torch.rand(*shape, dtype=torch.float64, generator=generator).mul(2).sub(1).to(device, dtype)

    made = []
    for name, dim, count, width, frequency in (("1d", 1, 7, 5, 3.0), ("2d", 2, 6, 8, 30.0), ("3d", 3, 5, 4, 1.0)):
        layers = tuple((draw(b, a) / a, draw(b)) for a, b in ((dim, width), (width, width), (width, 2)))
        made.append(Case(name, draw(count, dim), layers, frequency))
    return made
