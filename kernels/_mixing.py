r"""Channels mixed wave by wave, and complex waves told from cosine and sine rows, each with its own derivative.

.. math:: y_{kbo} = \sum_i x_{kbi}\,W_{iok},\qquad
          \bar x_{kbi} = \sum_o \bar y_{kbo}\,W_{iok}^*,\qquad \bar W_{iok} = \sum_b x_{kbi}^*\,\bar y_{kbo}

The weight has its waves last, the product wants them first, and a weight has as many numbers as a field: it goes
through in pieces that stay in the cache, laid out anew, multiplied, forgotten, and so does its gradient. Torch's own
derivative resolves :math:`W^*` by copying the weight; here the small operand is conjugated instead.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from jaxtyping import Shaped
from torch import Tensor

PIECE = 1 << 17  # complex numbers of a piece of the weight: 512 kB in single precision


def _pieces(weight: Tensor) -> Iterator[slice]:
    c_in, c_out, modes = weight.shape
    step = max(1, PIECE // (c_in * c_out))
    return (slice(at, min(at + step, modes)) for at in range(0, modes, step))


class Mixed(torch.autograd.Function):
    """y of the module."""

    @staticmethod
    def forward(
        values: Shaped[Tensor, "modes batch c_in"], weight: Shaped[Tensor, "c_in c_out modes"]
    ) -> Shaped[Tensor, "modes batch c_out"]:
        c_in, c_out, modes = weight.shape
        mixed = values.new_empty(modes, values.shape[1], c_out)
        flat = weight.reshape(c_in * c_out, modes)
        for piece in _pieces(weight):
            matrices = flat[:, piece].t().contiguous().view(-1, c_in, c_out)
            torch.bmm(values[piece], matrices, out=mixed[piece])
        return mixed

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None]:
        values, weight = ctx.saved_tensors
        wanted = ctx.needs_input_grad
        if torch.is_grad_enabled():  # to be differentiated again
            inwards = torch.einsum("kbo,iok->kbi", gradient, weight.conj()) if wanted[0] else None
            return inwards, torch.einsum("kbi,kbo->iok", values.conj(), gradient) if wanted[1] else None
        gradient = gradient.resolve_conj()
        inwards = _gradient_of_values(gradient, weight) if wanted[0] else None
        return inwards, _gradient_of_weight(values, gradient, weight) if wanted[1] else None


def _gradient_of_values(gradient: Tensor, weight: Tensor) -> Tensor:
    c_in, c_out, modes = weight.shape
    mixed = gradient.new_empty(modes, gradient.shape[1], c_in)
    flat = weight.reshape(c_in * c_out, modes)
    for piece in _pieces(weight):
        matrices = flat[:, piece].t().contiguous().view(-1, c_in, c_out)
        torch.bmm(torch.conj_physical(gradient[piece]), matrices.mT, out=mixed[piece])
        mixed[piece].conj_physical_()
    return mixed


def _gradient_of_weight(values: Tensor, gradient: Tensor, weight: Tensor) -> Tensor:
    of_weight = torch.empty_like(weight, memory_format=torch.contiguous_format)
    flat = of_weight.view(-1, weight.shape[-1])
    for piece in _pieces(weight):
        matrices = torch.bmm(torch.conj_physical(values[piece]).mT, gradient[piece])
        flat[:, piece] = (
            matrices.flatten(1).t().contiguous()
        )  # copied blockwise, then by lines: 2.7 times faster than at once
    return of_weight


class Multiplied(torch.autograd.Function):
    """Batched products of matrices, values (many) times matrices (few rows each): as above without another layout."""

    @staticmethod
    def forward(values: Shaped[Tensor, "modes batch p"], matrices: Shaped[Tensor, "modes p q"]) -> Tensor:
        return torch.bmm(values, matrices)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor]:
        values, matrices = ctx.saved_tensors
        of_values = torch.conj_physical(torch.bmm(torch.conj_physical(gradient), matrices.mT))
        return of_values, torch.bmm(torch.conj_physical(values).mT, gradient)


class Paired(torch.autograd.Function):
    r"""Cosine and sine rows c, s of one axis, k = 0 .. m//2, to its modes -m//2 .. m - m//2 - 1.

    :math:`z_k = c_k + i\sigma s_k` and :math:`z_{-k} = c_k - i\sigma s_k`, with :math:`\sigma = \pm1`.
    """

    @staticmethod
    def forward(rows: Shaped[Tensor, "*dims"], at: int, modes: int, sign: int) -> Shaped[Tensor, "*paired"]:
        cosine, sine = rows.unbind(at + 1)
        negative, positive = modes // 2, modes - modes // 2
        waves = rows.new_empty(*rows.shape[:at], modes, *rows.shape[at + 2 :])
        plus, minus = waves.narrow(at, negative, positive), waves.narrow(at, 0, negative)
        turn = complex(0, sign)
        torch.add(cosine.narrow(at, 0, positive), sine.narrow(at, 0, positive), alpha=turn, out=plus)
        minus.copy_((torch.sub(cosine.narrow(at, 1, negative), sine.narrow(at, 1, negative), alpha=turn)).flip(at))
        return waves

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, int, int, int], output: Tensor) -> None:
        _, ctx.at, _, ctx.sign = inputs

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        return Parted.apply(gradient, ctx.at, -ctx.sign), None, None, None


class Parted(torch.autograd.Function):
    r"""The adjoint of :class:`Paired` with the other sign.

    :math:`c_k = z_k + z_{-k}` and :math:`s_k = i\sigma(z_k - z_{-k})`.
    """

    @staticmethod
    def forward(waves: Shaped[Tensor, "*dims"], at: int, sign: int) -> Shaped[Tensor, "*parted"]:
        modes = waves.shape[at]
        negative, positive = modes // 2, modes - modes // 2
        rows = waves.new_empty(*waves.shape[:at], negative + 1, 2, *waves.shape[at + 1 :])
        cosine, sine = rows.unbind(at + 1)
        minus, plus = waves.narrow(at, 0, negative).flip(at), waves.narrow(at, negative, positive)
        both = positive - 1  # wavenumbers 1 .. both have either sign
        cosine.select(at, 0).copy_(plus.select(at, 0))
        sine.select(at, 0).copy_(plus.select(at, 0))
        torch.add(plus.narrow(at, 1, both), minus.narrow(at, 0, both), out=cosine.narrow(at, 1, both))
        torch.sub(plus.narrow(at, 1, both), minus.narrow(at, 0, both), out=sine.narrow(at, 1, both))
        if modes % 2 == 0:
            cosine.select(at, negative).copy_(minus.select(at, negative - 1))
            torch.neg(minus.select(at, negative - 1), out=sine.select(at, negative))
        sine.mul_(complex(0, sign))
        return rows

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, int, int], output: Tensor) -> None:
        waves, ctx.at, ctx.sign = inputs
        ctx.modes = waves.shape[ctx.at]

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        return Paired.apply(gradient, ctx.at, ctx.modes, -ctx.sign), None, None


class Raised(torch.autograd.Function):
    """The row ``at`` plus a constant, in place."""

    @staticmethod
    def forward(rows: Shaped[Tensor, "waves count"], constant: Shaped[Tensor, " count"], at: int) -> Tensor:
        rows[at] += constant
        return rows

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, int], output: Tensor) -> None:
        ctx.mark_dirty(inputs[0])
        ctx.at = inputs[2]

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None]:
        return gradient, gradient[ctx.at].real.contiguous(), None
