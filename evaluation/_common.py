"""What metrics and curves share: the check at the door, and what is said of numbers that are not finite."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from ..pde import Grid


def doubles(prediction: Tensor, truth: Tensor, grid: Grid) -> tuple[Tensor, Tensor]:
    """The door check that metrics and curves share: same shape, on this grid; both in double precision."""
    if prediction.shape != truth.shape:
        raise ValueError(
            f"A prediction is compared with a truth of its own shape; got {tuple(prediction.shape)} "
            f"and {tuple(truth.shape)}."
        )
    if truth.ndim - grid.dim not in (2, 3) or tuple(truth.shape[truth.ndim - grid.dim :]) != grid.shape:
        raise ValueError(
            f"Expected fields of shape ('batch', ['time',] 'channel', *{grid.shape}), got {tuple(truth.shape)}."
        )
    return prediction.detach().to(torch.float64), truth.detach().to(torch.float64)


def scored(values: Tensor, prediction: Tensor, truth: Tensor) -> Tensor:
    """Settle samples that are not finite, whatever arithmetic made of them: prediction ``inf``, truth ``nan``."""
    shape = (len(values),) + (1,) * (values.ndim - 1)
    values = torch.where(finite(prediction).view(shape), values, torch.inf)
    return torch.where(finite(truth).view(shape), values, torch.nan)


def finite(values: Float[Tensor, "batch *rest"]) -> Tensor:
    """Per sample, whether every value is a finite number."""
    return torch.isfinite(values).flatten(1).all(dim=1)
