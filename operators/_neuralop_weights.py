"""neuraloperator's FNO weights, read and written: the same numbers under the names and shapes of its FNO class.

Readable: dense FNOs with real data, linear spectral skips, and either a soft-gated channel MLP or none; without
normalisation layers, pre-activation, stabiliser, resolution scaling or domain padding (theirs is symmetric and a share
of the nodes, ours one-sided and a share of the length). Outputs agree on grids with an even number of nodes on the
leading axes; on odd ones neuraloperator 2.0 shifts its spectrum twice in the same direction and answers wrongly.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from .fno import FNO

# Options of neuraloperator's FNO that change what its weights mean, with the values that mean what ours do.
_UNDERSTOOD: dict[str, tuple[Any, ...]] = {
    "norm": (None,),
    "complex_data": (False,),
    "channel_mlp_skip": ("soft-gating",),
    "fno_skip": ("linear",),
    "resolution_scaling_factor": (None, 1),
    "domain_padding": (None, 0),
    "stabilizer": (None,),
    "factorization": (None, "dense", "Dense"),
    "separable": (False,),
    "preactivation": (False,),
    "positional_embedding": ("grid", None),
}


def from_neuralop(source: nn.Module | Mapping[str, Any]) -> FNO:
    """The same operator as a neuraloperator ``FNO`` or its ``state_dict()``.

    Its ``_metadata`` entry, where present, tells the options; without it a "grid" embedding is assumed. Raises
    ``ValueError`` for options and tensors that this network does not have.
    """
    state = source.state_dict() if isinstance(source, nn.Module) else source
    told = state.get("_metadata", {})
    told = told if isinstance(told, Mapping) else {}
    _check_options(told)
    tensors = {name: value for name, value in state.items() if isinstance(value, Tensor)}
    network = _empty_network(tensors, coordinates=told.get("positional_embedding", "grid") is not None)
    names = _names(network)
    unknown, missing = sorted(set(tensors) - set(names)), sorted(set(names) - set(tensors))
    if unknown or missing:
        raise ValueError(
            f"Not the weights of a plain neuraloperator FNO: unknown tensors {unknown[:4]}, missing {missing[:4]}."
        )
    own = network.state_dict()
    values = {ours: tensors[theirs].reshape(own[ours].shape) for theirs, (ours, _) in names.items()}
    network.load_state_dict(values)
    return network


def to_neuralop_state_dict(network: FNO) -> dict[str, Tensor]:
    """Weights for ``neuralop.models.FNO`` with the options of :func:`neuralop_options`; refuses what it cannot hold."""
    if network.block != "modern" or any(network.padding) or any(p != "left" for p in network.placements):
        raise ValueError(
            "neuraloperator's FNO holds modern blocks on unpadded grids with nodes at the left of their cells; got "
            f"block {network.block!r}, padding {network.padding}, placements {network.placements}."
        )
    own = network.state_dict()
    return {theirs: own[ours].reshape(shape).clone() for theirs, (ours, shape) in _names(network).items()}


def neuralop_options(network: FNO) -> dict[str, Any]:
    """Keyword arguments of ``neuralop.models.FNO`` for the same architecture."""
    own = network.state_dict()
    lifting, projection = own["lifting.first.weight"], own["projection.first.weight"]
    return {
        "n_modes": network.modes,
        "in_channels": lifting.shape[1] - network.dim * network.coordinates,
        "out_channels": len(own["projection.second.weight"]),
        "hidden_channels": network.width,
        "n_layers": len(network.blocks),
        "lifting_channel_ratio": len(lifting) / network.width,
        "projection_channel_ratio": len(projection) / network.width,
        "channel_mlp_expansion": len(own["blocks.0.mlp.first.weight"]) / network.width,
        "positional_embedding": "grid" if network.coordinates else None,
    }


def _check_options(told: Mapping[str, Any]) -> None:
    for option, values in _UNDERSTOOD.items():
        if option in told and told[option] not in values:
            raise ValueError(
                f"Cannot read a neuraloperator FNO with {option}={told[option]!r}; it must be {values[0]!r}."
            )


def _empty_network(tensors: Mapping[str, Tensor], *, coordinates: bool) -> FNO:
    try:
        weight = tensors["fno_blocks.convs.0.weight.tensor"]
        lifting, projection = tensors["lifting.fcs.0.weight"], tensors["projection.fcs.0.weight"]
        outputs, mlp = tensors["projection.fcs.1.weight"], tensors["fno_blocks.channel_mlp.0.fcs.0.weight"]
    except KeyError as error:
        raise ValueError(f"Not the weights of a plain neuraloperator FNO: it has no tensor {error}.") from error
    dim = weight.ndim - 2
    return FNO(
        lifting.shape[1] - dim * coordinates,
        len(outputs),
        dim=dim,
        modes=(*weight.shape[2:-1], 2 * (weight.shape[-1] - 1)) if weight.shape[-1] > 1 else (*weight.shape[2:-1], 1),
        width=weight.shape[0],
        layers=sum(name.startswith("fno_blocks.convs.") and name.endswith(".weight.tensor") for name in tensors),
        coordinates=coordinates,
        lifting_width=len(lifting),
        projection_width=len(projection),
        mlp_width=len(mlp),
    )


def _names(network: FNO) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Their name -> (our name, their shape)."""
    own = network.state_dict()
    ones = (1,) * network.dim
    pairs: dict[str, tuple[str, tuple[int, ...]]] = {}

    def add(theirs: str, ours: str, *tail: int) -> None:
        pairs[theirs] = (ours, (*own[ours].shape, *tail))

    def add_mlp(theirs: str, ours: str) -> None:
        for i, layer in enumerate(("first", "second")):
            add(f"{theirs}.fcs.{i}.weight", f"{ours}.{layer}.weight", 1)
            add(f"{theirs}.fcs.{i}.bias", f"{ours}.{layer}.bias")

    for i in range(len(network.blocks)):
        add(f"fno_blocks.convs.{i}.bias", f"blocks.{i}.bias", *ones)
        add(f"fno_blocks.convs.{i}.weight.tensor", f"blocks.{i}.weight")
        add(f"fno_blocks.fno_skips.{i}.conv.weight", f"blocks.{i}.skip.weight", 1)
        add_mlp(f"fno_blocks.channel_mlp.{i}", f"blocks.{i}.mlp")
        pairs[f"fno_blocks.channel_mlp_skips.{i}.weight"] = (f"blocks.{i}.gate", (1, network.width, *ones))
    add_mlp("lifting", "lifting")
    add_mlp("projection", "projection")
    return pairs
