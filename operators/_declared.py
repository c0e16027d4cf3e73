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
from ..pde._weak_form import Functions
from ._waves import Decoder, Straight


class Declared(Decoder):
    """``points`` and ``weights`` integrate over the domain; ``hidden``: widths of the branch's layers.

    stay   points that will be asked for again and again, as these very tensors: what is known there is kept
    """

    basis: Tensor  # function feature

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
        self.functions = functions
        rows = functions.call(points)[..., None]
        for order in range(functions.order):
            rows = _bent(functions, points) if order == 1 else derivatives(functions.call, points)[1]
        share = (weights / weights.sum()).repeat(rows.shape[-1])
        self.register_buffer("basis", whitened(rows.movedim(-1, 0).flatten(0, 1), share), persistent=False)
        self.network = Straight([code, *hidden, self.basis.shape[1]])
        for parameter in self.network.line.parameters():  # a flow of random functions has a residual of a thousand
            nn.init.zeros_(parameter)
        self._kept = [(points, self._bends(points)) for points in stay]

    def coefficients(self, code: Float[Tensor, "batch code"]) -> Float[Tensor, "batch feature"]:
        return self.network(code)

    def features(self, points: Float[Tensor, "point dim"]) -> Float[Tensor, "point feature"]:
        return (self.functions.call(points.double()) @ self.basis.double()).to(points)

    def sweep(
        self, points: Float[Tensor, "point dim"]
    ) -> tuple[Float[Tensor, "point feature"], Float[Tensor, "point feature dim"]]:
        dim, every = points.shape[1], self.bends(points)
        return every[..., 0], every[..., 1 : 1 + dim]

    def bends(self, points: Float[Tensor, "point dim"]) -> Float[Tensor, "point feature all"]:
        for known, bends in self._kept:
            if points is known:
                return bends
        return self._bends(points)

    def _bends(self, points: Tensor) -> Float[Tensor, "point feature all"]:
        where = points.double()
        values, slopes = derivatives(self.functions.call, where)
        every = torch.cat([values[..., None], slopes, _bent(self.functions, where)], dim=-1)
        found = torch.einsum("pfd,fk->kpd", every, self.basis.double()).to(points)
        return found.contiguous().transpose(0, 1)  # the feature outermost, as products with coefficients want it


def _bent(functions: Functions, points: Tensor) -> Float[Tensor, "point function all"]:
    """Second derivatives, one direction after the other."""
    directions = torch.eye(points.shape[1], dtype=points.dtype, device=points.device)

    def slopes(where: Tensor) -> Tensor:
        return derivatives(functions.call, where)[1]

    return torch.cat([torch.func.jvp(slopes, (points,), (d.expand_as(points),))[1] for d in directions], dim=-1)
