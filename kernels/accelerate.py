r"""Make any neuraloperator model faster, in place: the same weights, the same outputs, other arithmetic.

    model = neuralop.models.FNO(n_modes=(16, 16), in_channels=1, out_channels=1, hidden_channels=64)
    resolvent.kernels.accelerate(model)

Its spectral convolutions become truncated transforms (:func:`.spectral_conv`; dense, depthwise, CP, Tucker and TT
weights), its channel MLPs and linear skips matrix products over parts that stay in the cache (:mod:`.pointwise`), and
Fourier blocks without normalisation are joined. Names, shapes and values of parameters stay as they are, so that
checkpoints go both ways.

What neuraloperator 2.0 computes is kept, its faults included: a layer that changes the resolution pads the spectrum
behind the negative modes. Layers with complex data, half or mixed precision, and odd numbers of nodes on a leading
axis (where its spectrum is shifted twice) run its own code.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ._factors import CP, TT, Tucker, Weight, mixing_of, modes_of
from ._memory import reuse_memory
from .fourier_block import fourier_block
from .pointwise import Layer, channel_mix, channel_mlp
from .spectral_conv import spectral_conv

Model = TypeVar("Model", bound=nn.Module)


def accelerate(model: Model, *, reuse: bool = True) -> Model:
    """Swap the spectral and pointwise layers inside ``model`` for ours, in place, and return it.

    reuse  also keep freed memory in this process (:func:`.reuse_memory`), which on large fields matters as much

    Raises ``ValueError`` where there is nothing to swap.
    """
    classes = _classes()
    swapped = 0
    for module in model.modules():
        faster = classes.get(type(module))
        if faster is not None:
            module.__class__ = faster
        swapped += faster is not None or type(module) in classes.values()
    if not swapped:
        raise ValueError(
            f"accelerate found no layer of neuraloperator in this {type(model).__name__}: nothing to swap. It knows "
            f"{', '.join(sorted(known.__name__ for known in classes))}."
        )
    if reuse:
        reuse_memory()
    return model


@functools.cache
def _classes() -> dict[type[nn.Module], type[nn.Module]]:
    """Theirs to ours. Made when first asked for: neuraloperator takes seconds to import."""
    from neuralop.layers.channel_mlp import ChannelMLP
    from neuralop.layers.fno_block import FNOBlocks
    from neuralop.layers.skip_connections import Flattened1dConv
    from neuralop.layers.spectral_convolution import SpectralConv

    class FastSpectralConv(SpectralConv):
        def forward(self, x: Tensor, output_shape: Sequence[int] | None = None) -> Tensor:
            if not _serves(self, x):
                return super().forward(x, output_shape)
            return _spectral(self, x, output_shape)

    class FastChannelMLP(ChannelMLP):
        def forward(self, x: Tensor) -> Tensor:
            if not _plain_mlp(self):
                return super().forward(x)
            return channel_mlp(x, *_layers(self))

    class FastLinearSkip(Flattened1dConv):
        def forward(self, x: Tensor) -> Tensor:
            if self.conv.kernel_size != (1,):
                return super().forward(x)
            return channel_mix(x, self.conv.weight[:, :, 0], self.conv.bias)

    class FastFNOBlocks(FNOBlocks):
        def forward_with_postactivation(
            self, x: Tensor, index: int = 0, output_shape: Sequence[int] | None = None
        ) -> Tensor:
            if not _joinable(self, x, index, output_shape):
                return super().forward_with_postactivation(x, index, output_shape)
            return _joined(self, x, index)

    return {
        SpectralConv: FastSpectralConv,
        ChannelMLP: FastChannelMLP,
        Flattened1dConv: FastLinearSkip,
        FNOBlocks: FastFNOBlocks,
    }


# ---------------------------------------------------------------------- spectral convolution


def _serves(conv: Any, x: Tensor) -> bool:
    return (
        not conv.complex_data
        and conv.fno_block_precision == "full"
        and conv.fft_norm == "forward"
        and x.dtype in (torch.float32, torch.float64)
        and 1 <= conv.order <= 3
        and all(size % 2 == 0 for size in x.shape[2:-1])
    )


def _spectral(conv: Any, x: Tensor, output_shape: Sequence[int] | None) -> Tensor:
    space = tuple(x.shape[2:])
    shape = output_shape
    if shape is None and conv.resolution_scaling_factor is not None:
        shape = tuple(round(n * r) for n, r in zip(space, conv.resolution_scaling_factor, strict=True))
    weight = _weight(conv, (*space[:-1], space[-1] // 2 + 1))
    if shape is None or tuple(shape) == space:
        bias = None if conv.bias is None else conv.bias.flatten()
        return spectral_conv(x, weight, bias)
    out = _padded_behind(x, weight, tuple(shape))
    return out if conv.bias is None else out + conv.bias


def _weight(conv: Any, available: tuple[int, ...]) -> Weight:
    """The modes in use, the innermost of those there are, as one of our weights."""
    cuts = [slice(None)] * (1 if conv.separable else 2)
    for i, (size, wanted, there) in enumerate(zip(available, conv.n_modes, conv.max_n_modes, strict=True)):
        surplus = there - min(size, wanted)
        last = i == len(available) - 1
        start, stop = (0, there - surplus) if last else (surplus // 2, there - surplus // 2)
        cuts.append(slice(start, stop))
    held = (
        conv.weight[tuple(cuts)]
        if any(c != slice(0, n) for c, n in zip(cuts[-conv.order :], conv.max_n_modes, strict=True))
        else conv.weight
    )
    if isinstance(held, Tensor):
        return held
    kind = held.name.lower()
    if kind.endswith("tucker"):
        return Tucker(held.core, tuple(held.factors))
    if kind.endswith("cp"):
        return CP(held.weights, tuple(held.factors))
    return TT(tuple(held.factors)) if kind.endswith("tt") else held.to_tensor()


def _padded_behind(x: Tensor, weight: Weight, shape: tuple[int, ...]) -> Tensor:
    """Onto another grid as neuraloperator goes there: mode k of n nodes becomes the wave k mod n of the new grid."""
    space, dim = x.shape[2:], x.ndim - 2
    modes = modes_of(weight, dim)
    values = torch.fft.rfft(x, dim=-1, norm="forward")[..., : modes[-1]]
    for i in range(dim - 1):
        k = _centred(modes[i], x)
        turns = torch.exp(-2j * math.pi / space[i] * torch.outer(k, _nodes(space[i], x))) / space[i]
        values = torch.movedim(torch.tensordot(turns.to(values.dtype), values, dims=([1], [i + 2])), 0, i + 2)
    waves = values.flatten(2).permute(2, 0, 1)
    mixed = mixing_of(weight, dim, len(x)).complex(waves.real.contiguous(), waves.imag.contiguous())
    values = torch.complex(*mixed).permute(1, 2, 0).unflatten(2, modes)
    for i in range(dim - 1):
        k = _centred(modes[i], x) % space[i]
        turns = torch.exp(2j * math.pi / shape[i] * torch.outer(_nodes(shape[i], x), k)) * (k < shape[i])
        values = torch.movedim(torch.tensordot(turns.to(values.dtype), values, dims=([1], [i + 2])), 0, i + 2)
    return torch.fft.irfft(values, n=shape[-1], dim=-1, norm="forward")


def _centred(count: int, like: Tensor) -> Tensor:
    return torch.arange(-(count // 2), count - count // 2, dtype=torch.float64, device=like.device)


def _nodes(size: int, like: Tensor) -> Tensor:
    return torch.arange(size, dtype=torch.float64, device=like.device)


# ---------------------------------------------------------------------- pointwise layers


def _plain_mlp(mlp: Any) -> bool:
    return mlp.n_layers == 2 and mlp.dropout is None and mlp.non_linearity is F.gelu


def _layers(mlp: Any) -> tuple[Layer, Layer]:
    first, second = mlp.fcs
    return (first.weight[:, :, 0], first.bias), (second.weight[:, :, 0], second.bias)


def _joinable(blocks: Any, x: Tensor, index: int, output_shape: Sequence[int] | None) -> bool:
    """One resolution, GELU, a linear skip beside the convolution and a gated one beside a two-layer channel MLP."""
    if blocks.norm is not None or blocks.stabilizer is not None or blocks.complex_data:
        return False
    if blocks.fno_skips is None or not blocks.use_channel_mlp or blocks.channel_mlp_skips is None:
        return False
    conv, skip, gating = blocks.convs[index], blocks.fno_skips[index], blocks.channel_mlp_skips[index]
    return (
        blocks.non_linearity is F.gelu
        and (output_shape is None or tuple(output_shape) == tuple(x.shape[2:]))
        and conv.resolution_scaling_factor is None
        and type(skip) is _classes()[_linear_skip()]
        and type(gating).__name__ == "SoftGating"
        and gating.bias is None
        and _plain_mlp(blocks.channel_mlp[index])
    )


def _linear_skip() -> type[nn.Module]:
    from neuralop.layers.skip_connections import Flattened1dConv

    return Flattened1dConv


def _joined(blocks: Any, x: Tensor, index: int) -> Tensor:
    skip = blocks.fno_skips[index].conv
    layers = _layers(blocks.channel_mlp[index])
    gate = blocks.channel_mlp_skips[index].weight.flatten()
    linear = skip.weight[:, :, 0], skip.bias
    return fourier_block(x, blocks.convs[index](x), linear, *layers, gate, activate=index < blocks.n_layers - 1)
