r"""Attention as an operator: sums over points are quadratures.

.. math:: y(x) = \frac{\sum_j e^{s\,q(x)\cdot k_j}\, v_j\, \Delta_j}{\sum_j e^{s\,q(x)\cdot k_j}\, \Delta_j}

Delta_j is the measure of what point j stands for. A point split in two with half the measure each changes nothing, so
the sum approaches an integral under refinement, on uneven points too (Berner et al. 2025). Equal measures cancel: that
is the usual softmax.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn


def attend(
    query: Float[Tensor, "*batch head target channel"],
    key: Float[Tensor, "*batch head point channel"],
    value: Float[Tensor, "*batch head point c_out"],
    measure: Float[Tensor, " point"] | None = None,
    *,
    scale: float = 1.0,
) -> Float[Tensor, "*batch head target c_out"]:
    """The quotient above for each head; without ``measure`` all points count the same."""
    mask = None if measure is None else measure.log().expand(query.shape[-2], -1).to(query.dtype)
    return F.scaled_dot_product_attention(query, key, value, attn_mask=mask, scale=scale)


class SelfAttention(nn.Module):
    """Every token asks all; scale 1 / sqrt(channels a head). ``measure``: what each token stands for."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.ask = nn.Linear(width, 3 * width)
        self.join = nn.Linear(width, width)

    def forward(
        self, tokens: Float[Tensor, "batch token width"], measure: Float[Tensor, " token"] | None = None
    ) -> Float[Tensor, "batch token width"]:
        split = self.ask(tokens).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        query, key, value = split.unbind(0)
        answers = attend(query, key, value, measure, scale=query.shape[-1] ** -0.5)
        return self.join(answers.transpose(1, 2).flatten(2))


def check_heads(width: int, heads: int) -> None:
    if heads < 1 or width < 1 or width % heads:
        near = max(1, round(width / max(1, heads))) * max(1, heads)
        raise ValueError(
            f"The channels are shared out among the heads: width {width} is no multiple of {heads} heads; "
            f"use a width of {near}, or other --model.heads."
        )


def measure_or_none(measure: Tensor) -> Tensor | None:
    """Equal measures cancel in the quotient; without them attention is faster."""
    return None if torch.allclose(measure, measure[0].expand_as(measure), rtol=1e-9) else measure
