r"""Layers of Fourier neural operators: pointwise maps, the spectral convolution as a part, and the block around it.

The block does not know how its convolution holds its weights: whoever builds the network passes a
:data:`Convolution`, which makes a module ``batch width *space`` -> ``batch width *space`` from the width, the kept
modes and the basis of each axis. :class:`SpectralConv` has one dense matrix a mode; a factorised one is a TFNO.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias, cast

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from ..kernels import channel_mix, channel_mlp, fourier_block, spectral_conv
from ..kernels.pointwise import Layer

Placement = Literal["left", "ends", "centres"]
NormKind = Literal["none", "group", "instance", "adaptive"]
SkipKind = Literal["linear", "gate", "identity", "none"]
Stabiliser = Literal["none", "tanh"]
EPS = 1e-5  # of the norms, as in torch
# (width, kept modes an axis, basis an axis) -> batch width *space -> batch width *space, bias included
Convolution: TypeAlias = Callable[[int, tuple[int, ...], tuple[str, ...]], nn.Module]


class SpectralConv(nn.Module):
    """The dense spectral convolution: one ``width x width`` matrix a kept mode, and a bias a channel.

    modes      as kept: the last Fourier axis halved
    published  the first weights of the published code (uniform, over C_in C_out), not neuraloperator's (normal)
    """

    def __init__(
        self, width: int, modes: tuple[int, ...], basis: tuple[str, ...] = (), *, published: bool = False
    ) -> None:
        super().__init__()
        self.basis = basis or ("fourier",) * len(modes)
        dtype = torch.complex64 if "fourier" in self.basis else torch.float32
        self.weight = nn.Parameter(torch.empty(width, width, *modes, dtype=dtype))
        self.bias = nn.Parameter(torch.empty(width))
        self._initialise(width, published=published)

    @torch.no_grad()
    def _initialise(self, width: int, *, published: bool) -> None:
        if published:  # uniform in the unit square of the complex plane, over C_in C_out
            real = torch.view_as_real(self.weight) if self.weight.is_complex() else self.weight
            real.uniform_(0, 1 / width**2)
            self.bias.uniform_(-1 / math.sqrt(width), 1 / math.sqrt(width))
        else:  # standard deviation sqrt(2 / (C_in + C_out))
            self.weight.normal_(0, 1 / math.sqrt(width))
            self.bias.normal_(0, 1 / math.sqrt(width))

    def forward(self, values: Float[Tensor, "batch width *space"]) -> Float[Tensor, "batch width *space"]:
        return spectral_conv(values, self.weight, self.bias, basis=self.basis)


class Pointwise(nn.Module):
    """A linear map of the channels, the same at every node (a 1x1 convolution, whatever the dimension)."""

    def __init__(self, c_in: int, c_out: int, *, bias: bool = True) -> None:
        super().__init__()
        bound = 1 / math.sqrt(c_in)
        self.weight = nn.Parameter(torch.empty(c_out, c_in).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(c_out).uniform_(-bound, bound)) if bias else None

    def forward(self, values: Tensor, plus: Tensor | None = None, gate: Tensor | None = None) -> Tensor:
        """``weight @ values + bias + gate * plus``."""
        return channel_mix(values, self.weight, self.bias, plus, gate)


class PointwiseMLP(nn.Module):
    """Two pointwise linear maps with a GELU between."""

    def __init__(self, c_in: int, hidden: int, c_out: int) -> None:
        super().__init__()
        self.first = Pointwise(c_in, hidden)
        self.second = Pointwise(hidden, c_out)

    def forward(
        self, values: Tensor, plus: Tensor | None = None, gate: Tensor | None = None, *, activate: bool = False
    ) -> Tensor:
        first, second = (cast(Layer, (layer.weight, layer.bias)) for layer in (self.first, self.second))
        return channel_mlp(values, first, second, plus, gate, activate=activate)


class Skip(nn.Module):
    """What passes a block by: a linear map of the channels, one factor a channel (at first 1), or the values."""

    def __init__(self, width: int, kind: SkipKind) -> None:
        super().__init__()
        self.kind = kind
        bound = 1 / math.sqrt(width)
        self.weight: nn.Parameter | None = None
        if kind == "linear":
            self.weight = nn.Parameter(torch.empty(width, width).uniform_(-bound, bound))
        elif kind == "gate":
            self.weight = nn.Parameter(torch.ones(width))

    def forward(self, values: Tensor, plus: Tensor) -> Tensor:
        """``plus`` and what passes."""
        if self.weight is None:
            return plus if self.kind == "none" else plus + values
        if self.kind == "linear":
            return channel_mix(values, self.weight, None, plus)
        return torch.addcmul(plus, self.weight.view(-1, *(1,) * (values.ndim - 2)), values)

    def around(self, mlp: PointwiseMLP, inner: Tensor, values: Tensor, *, activate: bool) -> Tensor:
        """The MLP of ``inner`` and what passes of ``values``, in the fused form where there is one."""
        if self.kind == "none":
            return mlp(inner, activate=activate)
        if self.kind == "linear":
            return mlp(inner, plus=channel_mix(values, cast(Tensor, self.weight)), activate=activate)
        return mlp(inner, plus=values, gate=self.weight, activate=activate)


class FieldNorm(nn.Module):
    r""":math:`\gamma\,(v - m)/\sqrt{s^2 + 10^{-5}} + \beta`; m and s^2 are averages over the domain, by quadrature.

    So they are those of the function, not of its grid. ``instance``: a channel for itself, without gamma and beta.
    ``group``: over all channels, gamma and beta learned. ``adaptive``: as instance, gamma and beta a learned function
    of numbers that describe the sample (AdaIN); at first 1 and 0. Statistics over the batch are not offered: an
    answer would depend on which other questions were asked with it.
    """

    def __init__(
        self, width: int, kind: NormKind, placements: Sequence[Placement], *, conditions: int = 0, hidden: int = 64
    ) -> None:
        super().__init__()
        self.kind, self.placements = kind, tuple(placements)
        self.weight = nn.Parameter(torch.ones(width)) if kind == "group" else None
        self.bias = nn.Parameter(torch.zeros(width)) if kind == "group" else None
        self.condition: nn.Sequential | None = None
        if kind == "adaptive":
            last = nn.Linear(hidden, 2 * width)
            with torch.no_grad():
                last.weight.mul_(0.1)
                last.bias.copy_(torch.cat([torch.ones(width), torch.zeros(width)]))
            self.condition = nn.Sequential(nn.Linear(conditions, hidden), nn.GELU(), last)

    def forward(self, values: Tensor, condition: Tensor | None = None) -> Tensor:
        groups = 1 if self.kind == "group" else values.shape[1]
        values = self._standardised(values) if "ends" in self.placements else F.group_norm(values, groups, eps=EPS)
        factor, shift = self.weight, self.bias
        if self.condition is not None:
            factor, shift = self.condition(condition).chunk(2, dim=-1)
        if factor is None or shift is None:
            return values
        ones = (1,) * (values.ndim - 2)
        return shift.view(*shift.shape, *ones) + factor.view(*factor.shape, *ones) * values

    def _standardised(self, values: Tensor) -> Tensor:
        over = [*range(1 if self.kind == "group" else 2, values.ndim)]
        share = shares(tuple(values.shape[2:]), self.placements, values.dtype, values.device)
        share = share / (values.shape[1] if self.kind == "group" else 1)
        centred = values - (share * values).sum(over, keepdim=True)
        return centred * ((share * centred.square()).sum(over, keepdim=True) + EPS).rsqrt()


class BiasFunction(nn.Module):
    r"""b_c(x), a function of position a channel: a learned sum of low waves of the domain, at first zero.

    Products of 1, cos, sin(2 pi m x) on periodic axes and of cos(pi m x) on others, m = 1 .. modes, but for the
    constant, which the convolution has. It is evaluated wherever nodes lie, so it is the same function on every grid.
    """

    def __init__(self, channels: int, modes: int, periodic: Sequence[bool]) -> None:
        super().__init__()
        self.modes, self.periodic = modes, tuple(periodic)
        count = math.prod((2 if wraps else 1) * modes + 1 for wraps in periodic) - 1
        self.weight = nn.Parameter(torch.zeros(channels, count))

    def forward(self, where: Sequence[Tensor]) -> Float[Tensor, "channels *space"]:
        """``where``: the positions of the nodes on each axis, in lengths of the domain."""
        waves = torch.ones(1, dtype=where[0].dtype, device=where[0].device)
        for x, wraps in zip(where, self.periodic, strict=True):
            rows = _low_waves(x, self.modes, wraps=wraps)
            rows = rows.view(1, len(rows), *(1,) * (waves.ndim - 1), -1)
            waves = (waves[:, None, ..., None] * rows).flatten(0, 1)
        return (self.weight @ waves[1:].flatten(1)).unflatten(1, waves.shape[1:])


@dataclass(frozen=True, kw_only=True)
class BlockStyle:
    """What a block is made of, beside its convolution.

    mlp_width        hidden channels of the channel MLP; 0: none
    skip, mlp_skip   what passes the convolution, and what passes the MLP
    norm             of the convolution's result (or, with preactivation, of its input), and before the last activation
    preactivation    activation and norm before the convolution, not after
    stabiliser       tanh before the convolution, against overflow in half precision
    once             without MLP: one activation (published), not two (neuraloperator)
    conditions       numbers that describe a sample, for the adaptive norm; condition_width: hidden units of its network
    """

    mlp_width: int = 0
    skip: SkipKind = "linear"
    mlp_skip: SkipKind = "gate"
    norm: NormKind = "none"
    preactivation: bool = False
    stabiliser: Stabiliser = "none"
    once: bool = False
    conditions: int = 0
    condition_width: int = 64


class FourierBlock(nn.Module):
    """One layer of the network: spectral convolution, bias function, skip, activation, channel MLP with its own skip.

    placements   of the nodes of the box, for averages over it
    bias         a function of position, or None
    """

    def __init__(
        self,
        width: int,
        convolution: nn.Module,
        style: BlockStyle,
        *,
        placements: Sequence[Placement],
        bias: BiasFunction | None = None,
        last: bool,
    ) -> None:
        super().__init__()
        self.style, self.last = style, last
        self.convolution, self.bias = convolution, bias
        self.skip = Skip(width, style.skip)
        self.mlp = PointwiseMLP(width, style.mlp_width, width) if style.mlp_width else None
        self.mlp_skip = Skip(width, style.mlp_skip) if style.mlp_width else None
        self.norms: nn.ModuleList | None = None
        if style.norm != "none":
            options = {"conditions": style.conditions, "hidden": style.condition_width}
            self.norms = nn.ModuleList(FieldNorm(width, style.norm, placements, **options) for _ in range(2))

    def forward(
        self,
        values: Float[Tensor, "batch width *space"],
        where: Sequence[Tensor] = (),
        condition: Tensor | None = None,
    ) -> Float[Tensor, "batch width *space"]:
        """``where``: positions of the nodes on each axis, for the bias; ``condition``: for the norm."""
        if self._plain:
            return self._in_one_pass(values)
        before = self.style.preactivation
        if before:
            values = self._norm(0, F.gelu(values), condition)
        mixed = self.convolution(torch.tanh(values) if self.style.stabiliser == "tanh" else values)
        if not before:
            mixed = self._norm(0, mixed, condition)
        mixed = self.skip(values, mixed if self.bias is None else mixed + self.bias(where))
        if not self.last:
            mixed = F.gelu(mixed)
        if before:
            mixed = self._norm(1, mixed, condition)
        active = not (self.last or before)
        fused = active and self.norms is None
        if self.mlp is not None and self.mlp_skip is not None:
            mixed = self.mlp_skip.around(self.mlp, mixed, values, activate=fused)
        elif self.style.once:
            return mixed
        if not before:
            mixed = self._norm(1, mixed, condition)
        return F.gelu(mixed) if active and (self.mlp is None or not fused) else mixed

    @property
    def _plain(self) -> bool:
        """Whether the block is the default one, for which there is a fused form (tests compare the two)."""
        style = self.style
        kinds = (style.skip, style.mlp_skip) == ("linear", "gate") and self.mlp is not None
        return kinds and self.norms is None and self.bias is None and not style.preactivation

    def _in_one_pass(self, values: Tensor) -> Tensor:
        mlp, gate = cast(PointwiseMLP, self.mlp), cast(Tensor, cast(Skip, self.mlp_skip).weight)
        first, second = (cast(Layer, (layer.weight, layer.bias)) for layer in (mlp.first, mlp.second))
        mixed = self.convolution(torch.tanh(values) if self.style.stabiliser == "tanh" else values)
        skip = (cast(Tensor, self.skip.weight), None)
        return fourier_block(values, mixed, skip, first, second, gate, activate=not self.last)

    def _norm(self, which: int, values: Tensor, condition: Tensor | None) -> Tensor:
        return values if self.norms is None else self.norms[which](values, condition)


def kept_modes(modes: Sequence[int], basis: Sequence[str] = (), *, symmetric: bool = False) -> tuple[int, ...]:
    """Shape of the kept spectrum of ``modes`` total modes an axis: of the last Fourier axis the non-negative ones.

    symmetric   as many negative as non-negative modes, as in the published code: one column fewer
    """
    words = basis or ["fourier"] * len(modes)
    halved = max((i for i, word in enumerate(words) if word == "fourier"), default=-1)
    return tuple(m // 2 + (not symmetric) if i == halved else m for i, m in enumerate(modes))


def _remembered(make: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Keep the last results, but never the traced stand-ins of a compiler or of ``torch.export``."""
    known = functools.lru_cache(maxsize=64)(make)

    @functools.wraps(make)
    def made(*key: object) -> Tensor:
        if torch.compiler.is_compiling():
            return make(*key)
        with torch.inference_mode(False):  # or it could not serve autograd later
            return known(*key)

    return made


@_remembered
def along(
    count: int, size: int, placement: Placement, dtype: torch.dtype, device: torch.device
) -> Float[Tensor, " count"]:
    """Positions of ``count`` nodes, of which ``size`` span the domain, in lengths of the domain."""
    nodes = torch.arange(count, dtype=torch.float64) + (0.5 if placement == "centres" else 0.0)
    return (nodes / (size - 1 if placement == "ends" else size)).to(device, dtype)


@_remembered
def positions(
    space: tuple[int, ...], placements: tuple[Placement, ...], dtype: torch.dtype, device: torch.device
) -> Float[Tensor, "dim *space"]:
    """Positions of the nodes in the unit box, one channel an axis."""
    axes = [along(n, n, placement, dtype, device) for n, placement in zip(space, placements, strict=True)]
    return torch.stack(torch.meshgrid(*axes, indexing="ij"))


@_remembered
def shares(
    space: tuple[int, ...], placements: tuple[Placement, ...], dtype: torch.dtype, device: torch.device
) -> Float[Tensor, "*space"]:
    """The share of each node in an average over the domain: half a share at nodes on a wall. They add up to 1."""
    total = torch.ones((), dtype=torch.float64)
    for n, placement in zip(space, placements, strict=True):
        share = torch.ones(n, dtype=torch.float64)
        if placement == "ends":
            share[[0, -1]] = 0.5
        total = total[..., None] * (share / share.sum())
    return total.to(device, dtype)


def _low_waves(x: Float[Tensor, " size"], modes: int, *, wraps: bool) -> Float[Tensor, "rows size"]:
    """1, then waves of square mean 1."""
    rows = [torch.ones_like(x)]
    for m in range(1, modes + 1):
        rows.append(math.sqrt(2) * torch.cos((2 if wraps else 1) * math.pi * m * x))
        if wraps:
            rows.append(math.sqrt(2) * torch.sin(2 * math.pi * m * x))
    return torch.stack(rows)
