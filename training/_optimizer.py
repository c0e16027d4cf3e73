r"""The optimizers of the one loop, by name.

``muon`` (Jordan et al. 2024): a matrix of weights W moves along the nearest orthogonal matrix to its averaged gradient
M, so that all directions are learned at one speed, however unlike their gradients are:

.. math:: W \leftarrow W - 0.2\,\eta\sqrt{\max(n, m)}\;U V^\top,\qquad M = U \Sigma V^\top

by five Newton-Schulz steps in place of the decomposition, with the factor that makes steps as large as AdamW's, whose
rates therefore serve. Every other parameter (vectors, kernels of convolutions, complex weights) gets AdamW.

These are the steps of ``torch.optim.Muon``, which rounds to bfloat16 inside. Processors that have no such arithmetic
imitate it, and were at that for six sevenths of the training of a DGNO; here they are in the precision of the weights.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torch.optim import Optimizer

from ._recipe import Recipe

MOMENTUM, STEPS, COEFFICIENTS = 0.95, 5, (3.4445, -4.7750, 2.0315)  # those of the source
NOTHING = 1e-8  # entries of a matrix of norm 1 that five steps leave below 5e-6


def optimizers_of(parameters: Sequence[nn.Parameter], recipe: Recipe) -> list[Optimizer]:
    """One or two, which together hold every parameter once."""
    options: dict[str, Any] = {"lr": recipe.learning_rate, "weight_decay": recipe.weight_decay}
    if recipe.optimizer != "muon":
        kind = torch.optim.AdamW if recipe.optimizer == "adamw" else torch.optim.Adam
        return [kind(parameters, **options)]
    matrices = [p for p in parameters if is_matrix(p)]
    others = [p for p in parameters if not is_matrix(p)]
    found: list[Optimizer] = []
    if matrices:
        found.append(Muon(matrices, **options))
    return [*found, torch.optim.AdamW(others, **options)] if others else found


class Muon(Optimizer):
    """Orthogonal steps for matrices, with Nesterov's look ahead; ``weight_decay`` is decoupled from the gradient."""

    def __init__(self, matrices: Sequence[nn.Parameter], lr: float, weight_decay: float) -> None:
        super().__init__(matrices, {"lr": lr, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override] # the loop has no closures
        for group in self.param_groups:
            for weights in group["params"]:
                if weights.grad is not None:
                    self._move(weights, weights.grad, group["lr"], group["weight_decay"])

    def _move(self, weights: Tensor, gradient: Tensor, rate: float, decay: float) -> None:
        if not self.state[weights]:
            self.state[weights]["mean"] = torch.zeros_like(weights)
        mean = self.state[weights]["mean"].lerp_(gradient, 1 - MOMENTUM)
        towards = orthogonal(gradient.lerp(mean, MOMENTUM))
        weights.mul_(1 - rate * decay).add_(towards, alpha=-0.2 * rate * math.sqrt(max(weights.shape)))


def orthogonal(matrix: Float[Tensor, "row column"]) -> Float[Tensor, "row column"]:
    """Near U V' of the matrix U S V': singular values s / |S| go to a s + b s^3 + c s^5 in every step."""
    a, b, c = COEFFICIENTS
    wide = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T
    # rows without a gradient fade through numbers whose products are denormal: steps took up to 46 times as long
    wide = F.hardshrink(wide / wide.norm().clamp(min=1e-7), NOTHING)
    for _ in range(STEPS):
        gram = wide @ wide.T
        wide = torch.addmm(wide, torch.addmm(gram, gram, gram, beta=b, alpha=c), wide, beta=a)
    return wide if matrix.shape[0] <= matrix.shape[1] else wide.T


def is_matrix(parameter: Tensor) -> bool:
    return parameter.ndim == 2 and min(parameter.shape) > 1 and not parameter.is_complex()
