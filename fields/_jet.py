r"""A jet: the values of functions at points with their derivatives, and the algebra by which networks act on it.

.. math:: (f\circ v)_j = f'(v)\,v_j,\quad (f\circ v)_{jj} = f'(v)\,v_{jj} + f''(v)\,v_j^2,\quad
          (ab)_{jj} = a_{jj} b + 2 a_j b_j + a b_{jj}

A jet holds ``order point channel``: the value, then (optional) one first derivative a direction, then (optional) the
second derivatives: one a direction, or their sum, the Laplacian. A network written for jets is evaluated, with its
derivatives in one pass, by what the points bring along; a jet of order 0 is the plain forward pass. Every operation is
plain torch, so a loss on derivatives is differentiated as usual. :func:`by_forward_mode` is the slow twin.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Inexact
from torch import Tensor

Second = Literal["none", "laplacian", "axes"]
# value and derivatives up to the degree (0, 1 or 2) of a function of one variable, elementwise
Pointwise = Callable[[Tensor, int], Sequence[Tensor]]


@dataclass(frozen=True)
class Jet:
    """Values and derivatives of ``channel`` functions at ``point`` points; real or complex."""

    orders: Tensor  # order point channel
    dim: int = 0  # directions of the first derivatives; 0: none
    second: Second = "none"

    @property
    def degree(self) -> int:
        return 0 if not self.dim else 1 if self.second == "none" else 2

    @property
    def value(self) -> Inexact[Tensor, "point channel"]:
        return self.orders[0]

    @property
    def first(self) -> Inexact[Tensor, "dim point channel"]:
        return self.orders[1 : 1 + self.dim]

    @property
    def seconds(self) -> Inexact[Tensor, "kept point channel"]:
        """One a direction, or their sum."""
        return self.orders[1 + self.dim :]

    def linear(self, weight: Tensor, bias: Tensor | None = None) -> Jet:
        """W v + b: one product for all orders."""
        orders = self.orders.to(weight.dtype) @ weight.t()
        return self._with(orders) if bias is None else self._with(orders) + bias

    def through(self, function: Pointwise) -> Jet:
        """f(v), elementwise."""
        f = function(self.value, self.degree)
        parts = [f[0][None]]
        if self.degree:
            parts.append(f[1] * self.first)
        if self.degree == 2:
            parts.append(f[1] * self.seconds + f[2] * self._kept(self.first.square()))
        return self._with(torch.cat(parts))

    def __add__(self, other: Jet | Tensor | float) -> Jet:
        if isinstance(other, Jet):
            return self._with(self.orders + other.orders)
        value = (self.value + other)[None]
        return self._with(torch.cat([value, self.orders[1:].expand(-1, *value.shape[1:])]))

    def __sub__(self, other: Jet | Tensor | float) -> Jet:
        return self + (other * -1.0)

    def __mul__(self, other: Jet | Tensor | complex) -> Jet:
        if not isinstance(other, Jet):
            return self._with(self.orders * other)
        parts = [(self.value * other.value)[None]]
        if self.degree:
            parts.append(self.first * other.value + self.value * other.first)
        if self.degree == 2:
            cross = self._kept(self.first * other.first)
            parts.append(self.seconds * other.value + 2 * cross + self.value * other.seconds)
        return self._with(torch.cat(parts))

    __rmul__ = __mul__

    def conj(self) -> Jet:
        """The complex conjugate."""
        return self._with(self.orders.conj())

    def real(self) -> Jet:
        """The real part."""
        return self._with(self.orders.real)

    def select(self, channels: slice) -> Jet:
        """Some of the channels."""
        return self._with(self.orders[..., channels])

    def mean(self) -> Jet:
        """Over the channels, of which one is left."""
        return self._with(self.orders.mean(dim=-1, keepdim=True))

    def sum(self) -> Jet:
        """Over the channels, of which one is left."""
        return self._with(self.orders.sum(dim=-1, keepdim=True))

    def _kept(self, per_direction: Tensor) -> Tensor:
        return per_direction.sum(dim=0, keepdim=True) if self.second == "laplacian" else per_direction

    def _with(self, orders: Tensor) -> Jet:
        return Jet(orders, self.dim, self.second)


def joined(jets: Sequence[Jet]) -> Jet:
    """Channels of several jets side by side."""
    return Jet(torch.cat([jet.orders for jet in jets], dim=-1), jets[0].dim, jets[0].second)


def seed(points: Float[Tensor, "point dim"], *, gradient: bool = False, second: Second = "none") -> Jet:
    """The positions themselves: first derivatives are unit vectors, second ones are zero."""
    orders, dim = [points[None]], points.shape[1]
    if gradient or second != "none":
        unit = torch.eye(dim, dtype=points.dtype, device=points.device)
        orders.append(unit[:, None].expand(dim, *points.shape))
    if second != "none":
        orders.append(points.new_zeros(1 if second == "laplacian" else dim, *points.shape))
    return Jet(torch.cat(orders), dim if len(orders) > 1 else 0, second)


def by_forward_mode(
    function: Callable[[Tensor], Tensor], points: Float[Tensor, "point dim"], *, second: Second = "none"
) -> Jet:
    """The jet of any function ``point dim -> point channel`` of each point alone, by nested forward mode."""
    dim = points.shape[1]
    units = torch.eye(dim, dtype=points.dtype, device=points.device)

    def along(f: Callable[[Tensor], Tensor], unit: Tensor) -> Callable[[Tensor], Tensor]:
        return lambda x: torch.func.jvp(f, (x,), (unit.expand_as(x),))[1]

    orders = [function(points), *(along(function, unit)(points) for unit in units)]
    twice = [along(along(function, unit), unit)(points) for unit in units] if second != "none" else []
    orders += [torch.stack(twice).sum(dim=0)] if second == "laplacian" else twice
    return Jet(torch.stack(orders), dim, second)
