r"""What architectures are made of: layers that act on jets, periodic axes, and initialisation by variance theory.

A network maps the jet of a position, each axis of the domain running from -1 to 1, to the jet of its outputs. It is
periodic, with all its derivatives, on the axes it was told are: waves get whole wave numbers on them (:class:`Waves`),
other activations see :math:`(\cos \pi x, \sin \pi x)` in place of x (:class:`Circles`).
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Generator, Tensor, nn

from ._activations import cosine_of, sine
from ._jet import Jet, Pointwise, joined

Initialisation = Literal["published", "vi3nr"]
PIECE = 65_536  # points at a time on a product of positions
PROBES = 4096  # points that an encoding's second moment is measured on


class Network(nn.Module, ABC):
    """Positions on [-1, 1]^dim -> channels, as jets.

    precise    beginnings of the names of parameters that set phases: an archive keeps them in single precision
    grows      the option that makes it larger
    in_steps   names of parameters that are coefficients of orthogonal functions: an archive gives all of them one step
    """

    precise: tuple[str, ...] = ("linears.0.",)
    grows: str = "width"
    in_steps: tuple[str, ...] = ()

    @classmethod
    def matched(cls, waves: Sequence[float], /, **options: Any) -> dict[str, Any]:
        """The options of a network that starts with these root mean square waves, one an axis [rad per internal unit],
        from those that a user may give.
        """
        return {"bandwidth": tuple(waves), **options}

    @abstractmethod
    def forward(self, points: Jet) -> Jet:
        """The jet of the outputs."""

    def outer(self, axes: Sequence[Tensor]) -> Float[Tensor, "channel *space"]:
        """Values on the product of positions along each axis; a network that is a product may be faster at it."""
        mesh = torch.stack(torch.meshgrid(*axes, indexing="ij")).flatten(1).t()
        values = torch.cat([self(Jet(part[None])).value for part in mesh.split(PIECE)])
        return values.t().unflatten(1, [len(x) for x in axes])


class Circles(nn.Module):
    """Periodic axes as points of a circle, the others as they are."""

    def __init__(self, periodic: Sequence[bool]) -> None:
        super().__init__()
        self.periodic = tuple(periodic)
        self.count = sum(2 if circle else 1 for circle in self.periodic)

    def forward(self, points: Jet) -> Jet:
        if not any(self.periodic):
            return points
        parts = []
        for j, circle in enumerate(self.periodic):
            x = points.select(slice(j, j + 1))
            angle = x * math.pi
            parts += [angle.through(cosine_of), angle.through(sine(1.0))] if circle else [x]
        return joined(parts)


class Waves(nn.Linear):
    """The first layer of a network of sine waves sin(omega (W x + b)), with whole waves on periodic axes.

    There omega W is rounded to multiples of pi, and stays: a wave number that moves is not whole.
    """

    whole: Tensor

    def __init__(self, linear: nn.Linear, periodic: Sequence[bool], frequency: float) -> None:
        super().__init__(linear.in_features, linear.out_features, dtype=linear.weight.dtype)
        self.frequency = frequency
        self.load_state_dict(linear.state_dict())
        self.register_buffer("whole", torch.tensor(list(periodic)), persistent=False)
        self.round_()

    @torch.no_grad()
    def round_(self) -> None:
        """Round what has to be whole; to be called after the weights were set."""
        unit = math.pi / self.frequency
        self.weight.copy_(torch.where(self.whole, (self.weight / unit).round() * unit, self.weight))

    @property
    def moving(self) -> Float[Tensor, "c_out c_in"]:
        """The weights, of which those on periodic axes have no gradient."""
        return torch.where(self.whole, self.weight.detach(), self.weight)


class Layered(Network):
    """Affine layers with one activation between them; the last has none."""

    def __init__(self, linears: Sequence[nn.Linear], activation: Pointwise, encoding: nn.Module | None = None) -> None:
        super().__init__()
        self.encoding, self.linears, self.activation = encoding or nn.Identity(), nn.ModuleList(linears), activation

    def forward(self, points: Jet) -> Jet:
        return apply(self.linears[-1], self.features(points))

    def features(self, points: Jet) -> Jet:
        """What the last layer combines."""
        return self.hidden(points)[-1]

    def hidden(self, points: Jet) -> list[Jet]:
        """Every activated layer."""
        layers: list[Jet] = [self.encoding(points)]
        for level, linear in enumerate(self.linears[:-1]):
            layers.append(self.activated(level, linear, layers[-1]))
        return layers[1:] or layers

    def activated(self, level: int, linear: nn.Module, jet: Jet) -> Jet:
        """One layer with its activation."""
        return apply(linear, jet).through(self.activation)


def apply(linear: nn.Module, jet: Jet) -> Jet:
    """An affine layer on a jet."""
    weight = linear.moving if isinstance(linear, Waves) else linear.weight
    return jet.linear(weight, linear.bias)  # type: ignore[arg-type] # Linear's attributes


def dense(
    c_in: int, c_out: int, *, bound: float | None = None, bias: float | None = None,
    generator: Generator, dtype: torch.dtype = torch.float32,
) -> nn.Linear:  # fmt: skip
    """Weights and biases uniform within bounds; torch's default bound is 1 / sqrt(fan-in) for both."""
    linear = nn.utils.skip_init(nn.Linear, c_in, c_out, dtype=dtype)
    default = 1 / math.sqrt(c_in)
    with torch.no_grad():
        for values, limit in ((linear.weight, bound), (linear.bias, bias)):
            uniform_(values, default if limit is None else limit, generator)
    return linear


@torch.no_grad()
def set_bandwidth_(linear: nn.Linear, circles: Circles, bandwidth: Sequence[float] | None, frequency: float) -> None:
    """Scale a uniform first layer so that ``frequency`` W has these root mean squares, one an axis; None: as it is.

    On a circle the speed of the argument is pi |W|, which is shared by the two coordinates.
    """
    if bandwidth is None:
        return
    limits = []
    for k, circle in zip(bandwidth, circles.periodic, strict=True):
        limits += [k / (math.pi * frequency)] * 2 if circle else [k / frequency]
    weight = linear.weight
    weight.mul_(torch.tensor(limits, dtype=weight.dtype) / weight.square().mean().sqrt())


def uniform_(values: Tensor, limit: float, generator: Generator) -> None:
    """In place; drawn in double precision, so that float32 and float64 networks are the same."""
    draw = torch.rand(values.shape, dtype=torch.float64, generator=generator)
    values.copy_(((2 * draw - 1) * limit).to(values.dtype))


def normal(shape: Sequence[int], generator: Generator) -> Tensor:
    """Standard normal, double precision."""
    return torch.randn(*shape, dtype=torch.float64, generator=generator)


def check_sizes(**sizes: int) -> None:
    """Refuse sizes that make no network."""
    for name, value in sizes.items():
        if value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}.")


def widths_of(c_in: int, c_out: int, width: int, layers: int) -> list[tuple[int, int]]:
    """(fan-in, fan-out) of ``layers`` activated layers and the last, linear one."""
    check_sizes(width=width, layers=layers, channels=c_out)
    ends = [c_in, *[width] * layers, c_out]
    return list(zip(ends, ends[1:], strict=False))


# ---------------------------------------------------------------------- variance theory


def second_moment(activation: Pointwise, sigma: float, nodes: int = 400) -> float:
    """E f(z)² of a normal z of standard deviation sigma, by the trapezoidal rule on ±12 sigma (spectrally accurate for
    smooth f; ``nodes`` a standard deviation).
    """
    z = torch.linspace(-12.0, 12.0, 24 * nodes + 1, dtype=torch.float64)
    density = torch.exp(-0.5 * z * z) / math.sqrt(2 * math.pi)
    return float((activation(sigma * z, 0)[0].square() * density).sum() / nodes)


def backward_gain(activation: Pointwise, sigma: float, nodes: int = 400) -> float:
    """B = sigma² E f'² / E f²: the factor of the gradients' variance a layer; 1: stable forwards and backwards."""
    z = torch.linspace(-12.0, 12.0, 24 * nodes + 1, dtype=torch.float64)
    density = torch.exp(-0.5 * z * z)
    value, slope, _ = activation(sigma * z, 2)
    return float(sigma**2 * (slope.square() * density).sum() / (value.square() * density).sum())


def stable_deviation(activation: Pointwise, candidates: int = 200) -> float:
    """The pre-activation standard deviation in [1e-3, 10] whose backward gain is nearest 1 (in logarithm)."""
    tried = torch.logspace(-3, 1, candidates, dtype=torch.float64).tolist()
    return min(tried, key=lambda sigma: abs(math.log(max(backward_gain(activation, sigma), 1e-300))))


@torch.no_grad()
def vi3nr_(network: Layered, dim: int, *, sigma: float, generator: Generator) -> None:
    r"""Weights of variance :math:`\sigma^2 / (M\, E f^2)`, of the first layer :math:`\sigma^2 / (M\,E x^2)`; no biases.

    sigma   standard deviation of every pre-activation (Koneputugodage et al. 2025); see :func:`stable_deviation`
    """
    if not sigma > 0:
        raise ValueError(f"sigma, the deviation of pre-activations, must be positive, got {sigma}.")
    points = 2 * torch.rand(PROBES, dim, dtype=torch.float64, generator=generator) - 1
    moment = float(network.encoding(Jet(points[None])).value.square().mean())
    for linear in network.linears:
        bound = sigma * math.sqrt(3 / (linear.in_features * moment))  # type: ignore[operator] # a number
        uniform_(linear.weight, bound, generator)  # type: ignore[arg-type]
        linear.bias.zero_()  # type: ignore[operator]
        if isinstance(linear, Waves):
            linear.round_()
        moment = second_moment(network.activation, sigma)
