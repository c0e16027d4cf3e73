r"""A long leading Fourier axis at half the multiplications: its halves added for even waves, subtracted for odd ones.

.. math:: e^{2\pi i k (j + N/2)/N} = (-1)^k e^{2\pi i k j/N},\qquad
          \hat u_k = \sum_{j < N/2} \big(u_j \pm u_{j + N/2}\big)\,e^{-2\pi i k j/N}

with + for even and - for odd k: the first step of a fast Fourier transform, then matrices of half the length. Fields
go through in pieces that stay in the cache. Two pairs of functions, each the other's derivative.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

PIECE = 1 << 18  # numbers of a piece: 1 MB in single precision


def halves(matrix: Float[Tensor, "rows size"]) -> tuple[Tensor, Tensor]:
    """The rows of even and of odd wavenumbers, two a wavenumber, on the first half of the nodes."""
    first = matrix.view(len(matrix) // 2, 2, -1)[..., : matrix.shape[1] // 2]
    return first[0::2].flatten(0, 1), first[1::2].flatten(0, 1)


class Folded(torch.autograd.Function):
    """Fields to their coefficients of even and of odd waves."""

    @staticmethod
    def forward(
        values: Float[Tensor, "count size rest"], even: Float[Tensor, "p half"], odd: Float[Tensor, "q half"]
    ) -> tuple[Float[Tensor, "count p rest"], Float[Tensor, "count q rest"]]:
        count, size, rest = values.shape
        of_even, of_odd = (values.new_empty(count, len(matrix), rest) for matrix in (even, odd))
        step = max(1, PIECE // (size * rest))
        for at in range(0, count, step):
            first, second = values[at : at + step].split(size // 2, dim=1)
            torch.bmm(even.expand(len(first), -1, -1), first + second, out=of_even[at : at + step])
            torch.bmm(odd.expand(len(first), -1, -1), first - second, out=of_odd[at : at + step])
        return of_even, of_odd

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor], output: tuple[Tensor, Tensor]) -> None:
        _, ctx.even, ctx.odd = inputs

    @staticmethod
    def backward(ctx: Any, of_even: Tensor, of_odd: Tensor) -> tuple[Tensor, None, None]:
        return Unfolded.apply(of_even, of_odd, ctx.even, ctx.odd), None, None


class Unfolded(torch.autograd.Function):
    """The adjoint of :class:`Folded`: coefficients of even and of odd waves to fields."""

    @staticmethod
    def forward(
        of_even: Float[Tensor, "count p rest"],
        of_odd: Float[Tensor, "count q rest"],
        even: Float[Tensor, "p half"],
        odd: Float[Tensor, "q half"],
    ) -> Float[Tensor, "count size rest"]:
        (count, _, rest), half = of_even.shape, even.shape[1]
        values = of_even.new_empty(count, 2 * half, rest)
        step = max(1, PIECE // (2 * half * rest))
        for at in range(0, count, step):
            first, second = values[at : at + step].split(half, dim=1)
            same = torch.bmm(even.t().expand(len(first), -1, -1), of_even[at : at + step])
            other = torch.bmm(odd.t().expand(len(first), -1, -1), of_odd[at : at + step])
            torch.add(same, other, out=first)
            torch.sub(same, other, out=second)
        return values

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor, Tensor], output: Tensor) -> None:
        _, _, ctx.even, ctx.odd = inputs

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None, None]:
        return *Folded.apply(gradient, ctx.even, ctx.odd), None, None


class Interleaved(torch.autograd.Function):
    """Coefficients field by field, of even and of odd wavenumbers apart, to wave by wave in turn."""

    @staticmethod
    def forward(
        even: Shaped[Tensor, "count p"], odd: Shaped[Tensor, "count q"], height: int
    ) -> Shaped[Tensor, "waves count"]:
        (count, p), heights = even.shape, (height + 1) // 2
        waves = even.new_empty(height, p // heights, count)
        waves[0::2] = even.t().unflatten(0, (heights, -1))
        waves[1::2] = odd.t().unflatten(0, (height - heights, -1))
        return waves.flatten(0, 1)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, int], output: Tensor) -> None:
        ctx.height = inputs[2]

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None]:
        return *Apart.apply(gradient, ctx.height), None


class Apart(torch.autograd.Function):
    """The inverse of :class:`Interleaved`."""

    @staticmethod
    def forward(waves: Shaped[Tensor, "waves count"], height: int) -> tuple[Tensor, Tensor]:
        rows = waves.unflatten(0, (height, -1))
        even, odd = (rows[first::2].flatten(0, 1).t().contiguous() for first in (0, 1))
        return even, odd

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, int], output: tuple[Tensor, Tensor]) -> None:
        ctx.height = inputs[1]

    @staticmethod
    def backward(ctx: Any, of_even: Tensor, of_odd: Tensor) -> tuple[Tensor, None]:
        return Interleaved.apply(of_even, of_odd, ctx.height), None
