r"""Decoders whose trunk the problem declares: sums of functions that satisfy its conditions, made orthonormal.

.. math:: G(\beta)(x) = \sum_k \alpha_k(\beta)\,q_k(x),\qquad \int D q_k\,D q_l = \delta_{kl},\qquad
          \alpha = \text{network}(\beta)

D is the derivative of the functions' ``order``: coefficients of order one then make fields of order one in the norm
that the equation measures, and all directions are learned at one pace.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ..pde._dual_norm import derivatives, whitened
from ..pde._weak_form import Call, Carried, Functions
from ._waves import Decoder, Straight, regress


class Span(nn.Module):
    """Functions times a basis, with their derivatives. The basis is part of the state: eigenvectors that are computed
    again elsewhere may have other signs.

    stay   points that are asked for again and again: what is known there is kept, on the device that asks
    """

    basis: Float[Tensor, "function feature"]

    def __init__(self, call: Call, basis: Float[Tensor, "function feature"], stay: Sequence[Tensor] = ()) -> None:
        super().__init__()
        self.call, self.stay = call, tuple(stay)
        self.register_buffer("basis", basis)
        self._kept: dict[tuple[int, torch.device], tuple[int, Tensor]] = {}  # version of the basis, what is known

    def forward(self, points: Float[Tensor, "point dim"]) -> Float[Tensor, "point feature"]:
        return (self.call(points.double()) @ self.basis.to(points.device)).to(points)

    def bends(self, points: Float[Tensor, "point dim"]) -> Float[Tensor, "point feature all"]:
        """Values, slopes and second derivatives."""
        for number, known in enumerate(self.stay):
            if points is known or (points.shape == known.shape and torch.equal(points.to(known), known)):
                version, found = self._kept.get((number, points.device), (-1, points))
                if version != self.basis._version:
                    found = self._bends(points)
                    self._kept[number, points.device] = self.basis._version, found
                return found
        return self._bends(points)

    @torch.no_grad()
    def _bends(self, points: Tensor) -> Float[Tensor, "point feature all"]:
        where = points.double()
        values, slopes = derivatives(self.call, where)
        every = torch.cat([values[..., None], slopes, bent(self.call, where)], dim=-1)
        found = torch.einsum("pfd,fk->kpd", every, self.basis.to(points.device)).to(points)
        return found.contiguous().transpose(0, 1)  # the feature outermost, as products with coefficients want it


class Declared(Decoder):
    """``points`` and ``weights`` integrate over the domain; ``hidden``: widths of the branch's layers."""

    def __init__(
        self,
        functions: Functions,
        points: Float[Tensor, "point dim"],
        weights: Float[Tensor, " point"],
        code: int,
        hidden: Sequence[int],
        *,
        stay: Sequence[Tensor] = (),
    ) -> None:
        super().__init__()
        rows = (_itself, _sloped, bent)[functions.order](functions.call, points)
        share = (weights / weights.sum()).repeat(rows.shape[-1])
        self.span = Span(functions.call, whitened(rows.movedim(-1, 0).flatten(0, 1), share), stay)
        self.network = Straight([code, *hidden, self.span.basis.shape[1]])
        for parameter in self.network.line.parameters():  # a flow of random functions has a residual of a thousand
            nn.init.zeros_(parameter)

    def coefficients(self, code: Float[Tensor, "batch code"]) -> Float[Tensor, "batch feature"]:
        return self.network(code)

    def start(
        self,
        codes: Float[Tensor, "sample code"],
        points: Float[Tensor, "point dim"],
        values: Float[Tensor, "sample point"],
    ) -> None:
        """Begin as the regression of sampled functions on their codes."""
        regress(self.network, codes, self.features(points), values)

    def features(self, points: Float[Tensor, "point dim"]) -> Float[Tensor, "point feature"]:
        return self.span(points)

    def sweep(
        self, points: Float[Tensor, "point dim"]
    ) -> tuple[Float[Tensor, "point feature"], Float[Tensor, "point feature dim"]]:
        dim, every = points.shape[1], self.bends(points)
        return every[..., 0], every[..., 1 : 1 + dim]

    def bends(self, points: Float[Tensor, "point dim"]) -> Float[Tensor, "point feature all"]:
        return self.span.bends(points)


def _itself(call: Call, points: Tensor) -> Float[Tensor, "point function one"]:
    return call(points)[..., None]


def _sloped(call: Call, points: Tensor) -> Float[Tensor, "point function dim"]:
    return derivatives(call, points)[1]


def bent(call: Call, points: Tensor) -> Float[Tensor, "point function all"]:
    """Second derivatives, one direction after the other."""
    directions = torch.eye(points.shape[1], dtype=points.dtype, device=points.device)

    def slopes(where: Tensor) -> Tensor:
        return derivatives(call, where)[1]

    return torch.cat([torch.func.jvp(slopes, (points,), (d.expand_as(points),))[1] for d in directions], dim=-1)


class Carrier:
    """What the input itself brings into an output."""

    def __init__(self, carried: Carried, stay: Sequence[Tensor] = ()) -> None:
        self.sensors, self.weights = carried.sensors.float(), carried.weights.float()
        identity = torch.eye(len(carried.weights), dtype=torch.float64)
        self.span = Span(carried.call, identity, stay)

    def bends(
        self, inputs: Float[Tensor, "batch sensor"], points: Float[Tensor, "point dim"]
    ) -> Float[Tensor, "batch point all"]:
        """Value, slopes and second derivatives, from the input at the sensors."""
        return torch.einsum("bk,pkd->bpd", inputs @ self.weights.to(inputs).t(), self.span.bends(points))
