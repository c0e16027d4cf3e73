r"""The optimizers of the one loop, by name.

``muon`` (Jordan et al. 2024; ``torch.optim.Muon``): a matrix of weights W moves along the nearest orthogonal matrix to
its averaged gradient M, so that all directions are learned at one speed, however unlike their gradients are:

.. math:: W \leftarrow W - 0.2\,\eta\sqrt{\max(n, m)}\;U V^\top,\qquad M = U \Sigma V^\top

by five Newton-Schulz steps in place of the decomposition, with the factor that makes steps as large as AdamW's, whose
rates therefore serve. Every other parameter (vectors, kernels of convolutions, complex weights) gets AdamW.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from ._recipe import Recipe


def optimizers_of(parameters: Sequence[nn.Parameter], recipe: Recipe) -> list[Optimizer]:
    """One or two, which together hold every parameter once."""
    options: dict[str, Any] = {"lr": recipe.learning_rate, "weight_decay": recipe.weight_decay}
    if recipe.optimizer != "muon":
        kind = torch.optim.AdamW if recipe.optimizer == "adamw" else torch.optim.Adam
        return [kind(parameters, **options)]
    if not hasattr(torch.optim, "Muon"):
        raise ValueError(
            f"train.optimizer muon needs PyTorch 2.9 or newer, this is {torch.__version__}: update it, or use adamw."
        )
    matrices = [p for p in parameters if is_matrix(p)]
    others = [p for p in parameters if not is_matrix(p)]
    found: list[Optimizer] = []
    if matrices:
        found.append(torch.optim.Muon(matrices, adjust_lr_fn="match_rms_adamw", **options))
    return [*found, torch.optim.AdamW(others, **options)] if others else found


def is_matrix(parameter: Tensor) -> bool:
    return parameter.ndim == 2 and min(parameter.shape) > 1 and not parameter.is_complex()
