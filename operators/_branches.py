r"""Networks that read a sampled function: fully connected, stacked, convolutional; and the activations of MultiONet.

Weights start Glorot normal, biases at zero, as in DeepONet's published scripts.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

Activation = Literal["relu", "tanh", "gelu", "silu", "tanh_sin", "silu_sin", "silu_id", "sinc"]
_CONV = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}


def tanh_sin(z: Tensor) -> Tensor:
    """tanh(sin(pi (z + 1))) + z."""
    return z - torch.tanh(torch.sin(math.pi * z))


def silu_sin(z: Tensor) -> Tensor:
    """SiLU(sin(pi (z + 1))) + z."""
    return z + F.silu(-torch.sin(math.pi * z))


def silu_id(z: Tensor) -> Tensor:
    """SiLU(z) + z."""
    return F.silu(z) + z


def sinc(z: Tensor) -> Tensor:
    """Identity times sine, z sin z; called Sinc where it was published."""
    return z * torch.sin(z)


def activation_named(name: Activation) -> Callable[[Tensor], Tensor]:
    known: dict[Activation, Callable[[Tensor], Tensor]] = {
        "relu": F.relu,
        "tanh": torch.tanh,
        "gelu": F.gelu,
        "silu": F.silu,
        "tanh_sin": tanh_sin,
        "silu_sin": silu_sin,
        "silu_id": silu_id,
        "sinc": sinc,
    }
    if name not in known:
        raise ValueError(f"activation is one of {', '.join(get_args(Activation))}; got {name!r}.")
    return known[name]


class Dense(nn.Module):
    """Linear layers of the given sizes with activations between, and after the last one too where ``last``."""

    def __init__(self, sizes: Sequence[int], activation: Activation, *, last: bool = False) -> None:
        super().__init__()
        check_sizes(sizes)
        self.activation, self.last = activation_named(activation), last
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(sizes))
        for layer in self.layers:
            _glorot(layer)

    def forward(self, values: Float[Tensor, "*batch c_in"]) -> Float[Tensor, "*batch c_out"]:
        for layer in self.layers[:-1]:
            values = self.activation(layer(values))
        values = self.layers[-1](values)
        return self.activation(values) if self.last else values

    def hidden(self, values: Float[Tensor, "*batch c_in"], count: int) -> Float[Tensor, "*batch layer width"]:
        """The results of the last ``count`` layers, each after its activation; they have the same width."""
        kept = []
        for layer in self.layers:
            values = self.activation(layer(values))
            kept.append(values)
        return torch.stack(kept[-count:], dim=-2)


class Stacked(nn.Module):
    """``nets`` separate networks, one output each, on the same input; computed together."""

    def __init__(self, nets: int, sizes: Sequence[int], activation: Activation) -> None:
        super().__init__()
        check_sizes([nets, *sizes])
        self.activation = activation_named(activation)
        shapes = list(pairwise([*sizes, 1]))
        self.weights = nn.ParameterList(torch.empty(nets, b, a) for a, b in shapes)
        self.biases = nn.ParameterList(torch.zeros(nets, b) for _, b in shapes)
        for weight in self.weights:
            for each in weight.unbind(0):
                nn.init.xavier_normal_(each)

    def forward(self, values: Float[Tensor, "batch c_in"]) -> Float[Tensor, "batch nets"]:
        hidden = torch.einsum("noi,bi->bno", self.weights[0], values) + self.biases[0]
        for weight, bias in zip(self.weights[1:], self.biases[1:], strict=True):
            hidden = torch.einsum("noi,bni->bno", weight, self.activation(hidden)) + bias
        return hidden.squeeze(-1)


class Flat(nn.Module):
    """A network of vectors, given fields."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, values: Float[Tensor, "batch c_in *sensor"]) -> Float[Tensor, "batch c_out"]:
        return self.network(values.flatten(1))


class Convolutional(nn.Module):
    """Unpadded convolutions with stride 2, each followed by its activation, then linear layers.

    DeepONet's for Darcy: channels 64 and 128, 5 wide; DGNO's encoder: 64, 64, 64, 3 wide.
    """

    def __init__(
        self,
        c_in: int,
        shape: Sequence[int],
        channels: Sequence[int],
        sizes: Sequence[int],
        activation: Activation,
        *,
        wide: int = 5,
    ) -> None:
        """``sizes`` of the linear layers, without that of their input, which follows from the rest."""
        super().__init__()
        check_sizes([c_in, *channels, *sizes])
        left = tuple(_remaining(n, len(channels), wide) for n in shape)
        if min(left) < 1:
            raise ValueError(
                f"{len(channels)} convolutions {wide} wide with stride 2 leave nothing of {tuple(shape)} sensors: they "
                f"need at least {_smallest(len(channels), wide)} an axis. Use more sensors, or fully connected layers "
                "(fc)."
            )
        self.activation = activation_named(activation)
        conv = _CONV[len(shape)]
        self.convolutions = nn.ModuleList(conv(a, b, wide, stride=2) for a, b in pairwise([c_in, *channels]))
        for layer in self.convolutions:
            _glorot(layer)
        self.dense = Dense([channels[-1] * math.prod(left), *sizes], activation)

    def forward(self, values: Float[Tensor, "batch c_in *space"]) -> Float[Tensor, "batch c_out"]:
        for layer in self.convolutions:
            values = self.activation(layer(values))
        return self.dense(values.flatten(1))


def check_sizes(sizes: Sequence[int]) -> None:
    """Refuse networks without layers or neurons."""
    if len(sizes) < 2 or min(sizes) < 1:
        raise ValueError(f"A network has at least one layer and one neuron in each, got layer sizes {list(sizes)}.")


def _remaining(nodes: int, layers: int, wide: int) -> int:
    for _ in range(layers):
        nodes = (nodes - wide) // 2 + 1
    return nodes


def _smallest(layers: int, wide: int) -> int:
    nodes = 1
    for _ in range(layers):
        nodes = 2 * (nodes - 1) + wide
    return nodes


def _glorot(layer: nn.Module) -> None:
    nn.init.xavier_normal_(layer.weight)  # type: ignore[arg-type]
    nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
