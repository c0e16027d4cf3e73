"""neuraloperator's FNO weights, read and written: the same numbers under the names and shapes of its FNO class.

Readable: dense FNOs with real data, any kind of skip, group or instance norm or none, with or without channel MLP,
preactivation and stabiliser; not batch norm, dropout and resolution scaling. Its domain padding, a share of the nodes
at both ends, is ours of twice the share behind the last node: in a periodic box the two differ by a shift, which no
layer feels. Outputs agree on grids with an even number of nodes on the leading axes; on odd ones neuraloperator 2.0
shifts its spectrum twice in the same direction and answers wrongly.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from .fno import FNO

# Options of neuraloperator's FNO that change what its weights mean, with the values that mean what ours do.
_UNDERSTOOD: dict[str, tuple[Any, ...]] = {
    "norm": (None, "group_norm", "instance_norm"),
    "non_linearity": (F.gelu,),
    "complex_data": (False,),
    "channel_mlp_dropout": (0,),
    "channel_mlp_skip": ("soft-gating", "linear", "identity", None),
    "fno_skip": ("linear", "soft-gating", "identity", None),
    "resolution_scaling_factor": (None, 1),
    "stabilizer": (None, "tanh"),
    "fno_block_precision": ("full",),
    "factorization": (None, "dense", "Dense"),
    "separable": (False,),
    "positional_embedding": ("grid", None),
}
_SKIPS = {"linear": "linear", "soft-gating": "gate", "identity": "identity", None: "none"}
_NORMS = {"group_norm": "group", "instance_norm": "instance", None: "none"}


def from_neuralop(source: nn.Module | Mapping[str, Any]) -> FNO:
    """The same operator as a neuraloperator ``FNO`` or its ``state_dict()``.

    Its ``_metadata`` entry, where present, tells the options; without it they are neuraloperator's defaults. Raises
    ``ValueError`` for options and tensors that this network does not have.
    """
    state = source.state_dict() if isinstance(source, nn.Module) else source
    told = state.get("_metadata", {})
    told = told if isinstance(told, Mapping) else {}
    _check_options(told)
    tensors = {name: value for name, value in state.items() if isinstance(value, Tensor)}
    network = _empty_network(tensors, told)
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
    plain = network.block == "modern" and set(network.placements) == {"left"} and set(network.basis) == {"fourier"}
    if not plain or network.style.norm == "adaptive" or any(block.bias is not None for block in network.blocks):
        raise ValueError(
            "neuraloperator's FNO holds modern blocks of Fourier waves on nodes at the left of their cells, without "
            f"adaptive norm and bias functions; got block {network.block!r}, basis {network.basis}, placements "
            f"{network.placements}, norm {network.style.norm!r}."
        )
    own = network.state_dict()
    return {theirs: own[ours].reshape(shape).clone() for theirs, (ours, shape) in _names(network).items()}


def neuralop_options(network: FNO) -> dict[str, Any]:
    """Keyword arguments of ``neuralop.models.FNO`` for the same architecture."""
    own, style = network.state_dict(), network.style
    lifting, projection = own["lifting.first.weight"], own["projection.first.weight"]
    skips, norms = ({ours: theirs for theirs, ours in table.items()} for table in (_SKIPS, _NORMS))
    return {
        "n_modes": network.modes,
        "in_channels": lifting.shape[1] - network.dim * network.coordinates,
        "out_channels": len(own["projection.second.weight"]),
        "hidden_channels": network.width,
        "n_layers": len(network.blocks),
        "lifting_channel_ratio": len(lifting) / network.width,
        "projection_channel_ratio": len(projection) / network.width,
        "use_channel_mlp": style.mlp_width > 0,
        "channel_mlp_expansion": style.mlp_width / network.width,
        "channel_mlp_skip": skips[style.mlp_skip],
        "fno_skip": skips[style.skip],
        "norm": norms[style.norm],
        "preactivation": style.preactivation,
        "stabilizer": "tanh" if style.stabiliser == "tanh" else None,
        "domain_padding": [share / 2 for share in network.padding] if any(network.padding) else None,
        "positional_embedding": "grid" if network.coordinates else None,
    }


def _check_options(told: Mapping[str, Any]) -> None:
    for option, values in _UNDERSTOOD.items():
        if option in told and told[option] not in values:
            raise ValueError(
                f"Cannot read a neuraloperator FNO with {option}={told[option]!r}; it must be one of {values!r}."
            )


def _empty_network(tensors: Mapping[str, Tensor], told: Mapping[str, Any]) -> FNO:
    try:
        weight = tensors["fno_blocks.convs.0.weight.tensor"]
        lifting, projection = tensors["lifting.fcs.0.weight"], tensors["projection.fcs.0.weight"]
        outputs = tensors["projection.fcs.1.weight"]
    except KeyError as error:
        raise ValueError(f"Not the weights of a plain neuraloperator FNO: it has no tensor {error}.") from error
    dim = weight.ndim - 2
    coordinates = told.get("positional_embedding", "grid") is not None
    mlp = tensors.get("fno_blocks.channel_mlp.0.fcs.0.weight", ())
    shares = told.get("domain_padding") or 0.0
    return FNO(
        lifting.shape[1] - dim * coordinates,
        len(outputs),
        dim=dim,
        modes=(*weight.shape[2:-1], 2 * (weight.shape[-1] - 1)) if weight.shape[-1] > 1 else (*weight.shape[2:-1], 1),
        width=weight.shape[0],
        layers=sum(name.startswith("fno_blocks.convs.") and name.endswith(".weight.tensor") for name in tensors),
        coordinates=coordinates,
        padding=2.0 * shares if isinstance(shares, int | float) else [2.0 * share for share in shares],
        skip=_SKIPS[told.get("fno_skip", "linear")],  # type: ignore[arg-type]
        mlp_skip=_SKIPS[told.get("channel_mlp_skip", "soft-gating")],  # type: ignore[arg-type]
        norm=_NORMS[told.get("norm")],  # type: ignore[arg-type]
        preactivation=told.get("preactivation", False),
        stabiliser=told.get("stabilizer") or "none",
        lifting_width=len(lifting),
        projection_width=len(projection),
        mlp_width=len(mlp),
    )


def _names(network: FNO) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Their name -> (our name, their shape)."""
    own, style = network.state_dict(), network.style
    ones = (1,) * network.dim
    pairs: dict[str, tuple[str, tuple[int, ...]]] = {}

    def add(theirs: str, ours: str, *tail: int) -> None:
        pairs[theirs] = (ours, (*own[ours].shape, *tail))

    def add_mlp(theirs: str, ours: str) -> None:
        for i, layer in enumerate(("first", "second")):
            add(f"{theirs}.fcs.{i}.weight", f"{ours}.{layer}.weight", 1)
            add(f"{theirs}.fcs.{i}.bias", f"{ours}.{layer}.bias")

    def add_skip(theirs: str, ours: str, kind: str) -> None:
        if kind == "linear":
            add(f"{theirs}.conv.weight", f"{ours}.weight", 1)
        elif kind == "gate":
            pairs[f"{theirs}.weight"] = (f"{ours}.weight", (1, network.width, *ones))

    for i in range(len(network.blocks)):
        add(f"fno_blocks.convs.{i}.bias", f"blocks.{i}.convolution.bias", *ones)
        add(f"fno_blocks.convs.{i}.weight.tensor", f"blocks.{i}.convolution.weight")
        add_skip(f"fno_blocks.fno_skips.{i}", f"blocks.{i}.skip", style.skip)
        if style.mlp_width:
            add_mlp(f"fno_blocks.channel_mlp.{i}", f"blocks.{i}.mlp")
            add_skip(f"fno_blocks.channel_mlp_skips.{i}", f"blocks.{i}.mlp_skip", style.mlp_skip)
        for which in range(2 if style.norm == "group" else 0):
            for part in ("weight", "bias"):
                add(f"fno_blocks.norm.{2 * i + which}.{part}", f"blocks.{i}.norms.{which}.{part}")
    add_mlp("lifting", "lifting")
    add_mlp("projection", "projection")
    return pairs
