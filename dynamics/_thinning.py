r"""The usual ways to make a network smaller, as rivals of order reduction: truncated weights, pruned neurons.

``truncated``   every weight W (of a convolution: output channels by everything else) becomes the product of the thin
                factors of its leading singular triples; a layer stays dense where that would not save operations
``pruned``      hidden neurons (of a convolution: channels) of the least importance are left out: importance is the
                standard deviation of what the neuron says on given states times the norm of what is made of it; its
                mean is kept, in the next bias

Both keep the state as it is, so they save operations and no steps. They work on ``Linear`` and ``Conv`` layers, one in
each affine map of a :class:`LayeredField` (beside padding and reshaping).
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ._layered import LayeredField

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
Weighted = nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d


@torch.no_grad()
def truncated(field: LayeredField, share: float) -> LayeredField:
    """Every weight of rank ``share`` times its full one, rounded up."""
    _check_share(share)
    made = copy.deepcopy(field)
    for i, affine in enumerate(made.maps):
        layer = weighted(affine)
        rank = max(1, round(share * min(layer.weight.flatten(1).shape)))
        made.maps[i] = _replaced(affine, layer, _factors(layer, rank))
    return made


def _factors(layer: Weighted, rank: int) -> nn.Module:
    matrix = layer.weight.flatten(1)
    if rank * sum(matrix.shape) >= matrix.numel():
        return layer
    left, values, right = torch.linalg.svd(matrix, full_matrices=False)
    inner, outer = values[:rank, None] * right[:rank], left[:, :rank]
    first, second = _like(layer, rank, layer.weight.shape[1], bias=False), _pointwise(layer, rank)
    first.weight.copy_(inner.view_as(first.weight))
    second.weight.copy_(outer.reshape_as(second.weight))
    if layer.bias is not None:
        second.bias.copy_(layer.bias)
    return nn.Sequential(first, second)


@torch.no_grad()
def pruned(field: LayeredField, share: float, states: Float[Tensor, "sample *state"]) -> LayeredField:
    """The share of each hidden layer's neurons or channels that matters most on these states."""
    _check_share(share)
    made = copy.deepcopy(field)
    values = [_by_neuron(kept) for kept in field.hidden(states)[1:]]
    for i, said in enumerate(values):
        here, after = weighted(made.maps[i]), weighted(made.maps[i + 1])
        if isinstance(here, nn.Linear) != isinstance(after, nn.Linear):
            raise ValueError("Neurons are pruned between two dense layers, channels between two convolutions.")
        importance = said.std(dim=0) * after.weight.transpose(0, 1).flatten(1).norm(dim=1)
        count = max(1, round(share * len(importance)))
        kept = importance.topk(count).indices.sort().values
        gone = torch.ones(len(importance), dtype=torch.bool)
        gone[kept] = False
        made.maps[i] = _replaced(made.maps[i], here, _kept_outputs(here, kept))
        made.maps[i + 1] = _replaced(made.maps[i + 1], after, _kept_inputs(after, kept, gone, said.mean(dim=0)))
    return made


def _by_neuron(values: Tensor) -> Float[Tensor, "sample neuron"]:
    return values.movedim(1, -1).flatten(0, -2)


def _kept_outputs(layer: Weighted, kept: Tensor) -> Weighted:
    made = _like(layer, len(kept), layer.weight.shape[1], bias=layer.bias is not None)
    made.weight.copy_(layer.weight[kept])
    if layer.bias is not None:
        made.bias.copy_(layer.bias[kept])  # type: ignore[union-attr]
    return made


def _kept_inputs(layer: Weighted, kept: Tensor, gone: Tensor, means: Tensor) -> Weighted:
    """The mean of what is gone goes into the bias (in the interior of zero-padded fields exactly)."""
    made = _like(layer, layer.weight.shape[0], len(kept), bias=True)
    made.weight.copy_(layer.weight[:, kept])
    taps = layer.weight[:, gone].flatten(2).sum(dim=2) if layer.weight.ndim > 2 else layer.weight[:, gone]
    made.bias.copy_((0 if layer.bias is None else layer.bias) + taps @ means[gone])  # type: ignore[union-attr]
    return made


def weighted(affine: nn.Module) -> Weighted:
    """The one layer with weights in an affine map."""
    found = [m for m in affine.modules() if isinstance(m, nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d)]
    plain = len(found) == 1 and (not isinstance(found[0], CONVOLUTIONS) or found[0].groups == 1)
    if not plain or sum(p.numel() for p in affine.parameters()) != sum(p.numel() for p in found[0].parameters()):
        raise ValueError(
            f"Thinning needs one Linear or ungrouped Conv layer in each affine map; {type(affine).__name__} has "
            f"{[type(m).__name__ for m in found]}. POD-DEIM takes any affine map."
        )
    return found[0]


def _replaced(affine: nn.Module, old: nn.Module, new: nn.Module) -> nn.Module:
    if affine is old:
        return new
    for name, module in list(affine.named_modules()):
        if module is old:
            parent, _, leaf = name.rpartition(".")
            setattr(affine.get_submodule(parent), leaf, new)
    return affine


def _like(layer: Weighted, outputs: int, inputs: int, *, bias: bool) -> Weighted:
    kind: dict[str, Any] = {"dtype": layer.weight.dtype, "device": layer.weight.device, "bias": bias}
    if isinstance(layer, nn.Linear):
        return nn.Linear(inputs, outputs, **kind)
    shape: dict[str, Any] = {name: getattr(layer, name) for name in ("stride", "padding", "dilation", "padding_mode")}
    return type(layer)(inputs, outputs, layer.kernel_size, **shape, **kind)  # type: ignore[arg-type]


def _pointwise(layer: Weighted, inputs: int) -> Any:
    kind: dict[str, Any] = {"dtype": layer.weight.dtype, "device": layer.weight.device}
    kind["bias"] = layer.bias is not None
    outputs = layer.weight.shape[0]
    return (
        nn.Linear(inputs, outputs, **kind) if isinstance(layer, nn.Linear) else type(layer)(inputs, outputs, 1, **kind)
    )


def _check_share(share: float) -> None:
    if not 0 < share <= 1:
        raise ValueError(f"share is what is kept, in (0, 1]; got {share}.")
