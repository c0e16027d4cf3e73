r"""Networks that are right-hand sides: :math:`\dot y = f(t, y;\, a)` with what is given, a.

Dense           perceptron on ``batch unknown``: tanh layers, time and a joined to the input (time to each layer)
Convolutional   3-wide stencils on ``batch channel *space``, whose padding is the boundary condition
Spectral        Fourier layers (sines and cosines between walls), pointwise mixing beside them: any resolution

:class:`Flow` puts units around a network: y in deviations :math:`\sigma`, its rates in :math:`\rho`, so that a network
of order one is a right-hand side of the data's speed, and adds what is not observed:

    first order     z' = rho N(z / sigma, w),   w' = omega N_w            w: ``augment`` unknowns, zero at the start
    second order    z' = rho v,                 v' = omega N(z / sigma, v, w),   v(0) = V(z(0))       learned velocities
                    z = (x, u):  x' = u in physical units,  u' = rho N                               observed ones

omega is the mean of rho / sigma, an inverse time. Augmented: Dupont, Doucet and Teh 2019; second order: Norcliffe,
Bodnar, Day, Simidjievski and Lio 2020. Where modes are switched off (sigma of zeros) they stay zero.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from ..kernels import spectral_conv
from ..pde import Axis, Grid

Velocities = Literal["learned", "observed"]
_CONVOLUTIONS = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
QUIET = 0.1  # of the usual size of the last layer: a flow begins slow, and integrations short


class Dense(nn.Module):
    """``width`` by ``layers`` hidden units. ``time``: t is one more input of every layer."""

    def __init__(self, c_in: int, c_out: int, *, width: int, layers: int, given: int = 0, time: bool = False) -> None:
        super().__init__()
        check_size(width, layers)
        sizes = [c_in + given, *[width] * layers]
        self.layers = nn.ModuleList(nn.Linear(a + time, b) for a, b in zip(sizes, sizes[1:], strict=False))
        self.last = quiet(nn.Linear(width + time, c_out))
        self.time = time

    def forward(self, t: Tensor, state: Tensor, given: Tensor | None = None) -> Tensor:
        values = state if given is None else torch.cat([state, given], dim=1)
        for layer in self.layers:
            values = torch.tanh(layer(self._timed(t, values)))
        return self.last(self._timed(t, values))

    def _timed(self, t: Tensor, values: Tensor) -> Tensor:
        if not self.time:
            return values
        return torch.cat([values, t.to(values).reshape(-1, 1).expand(len(values), 1)], dim=1)


class Convolutional(nn.Module):
    """Stencils of three nodes an axis."""

    def __init__(self, c_in: int, c_out: int, grid: Grid, *, width: int, layers: int, given: int = 0) -> None:
        super().__init__()
        check_size(width, layers)
        stencil, sizes = _CONVOLUTIONS[grid.dim], [c_in + given, *[width] * layers]
        self.layers = nn.ModuleList(stencil(a, b, 3) for a, b in zip(sizes, sizes[1:], strict=False))
        self.last = quiet(stencil(width, c_out, 3))
        self.ends = tuple(_padding(axis) for axis in grid.axes)

    def forward(self, t: Tensor, state: Tensor, given: Tensor | None = None) -> Tensor:
        values = state if given is None else torch.cat([state, given], dim=1)
        for layer in self.layers:
            values = torch.tanh(layer(self._padded(values)))
        return self.last(self._padded(values))

    def _padded(self, values: Tensor) -> Tensor:
        for i, mode in enumerate(reversed(self.ends)):
            values = F.pad(values, [1 if j // 2 == i else 0 for j in range(2 * len(self.ends))], mode=mode)
        return values


def _padding(axis: Axis) -> str:
    if axis.periodic:
        return "circular"
    return {"dirichlet": "constant", "neumann": "replicate" if axis.placement == "centres" else "reflect"}.get(
        axis.boundary[0], "replicate"
    )


class Spectral(nn.Module):
    """``modes`` waves an axis (in total of a periodic one), mixed wave by wave."""

    def __init__(
        self, c_in: int, c_out: int, grid: Grid, *, width: int, layers: int, modes: int, given: int = 0
    ) -> None:
        super().__init__()
        check_size(width, layers)
        self.basis = tuple(_waves(axis) for axis in grid.axes)
        kept = self._kept(grid, modes)
        self.halved = "fourier" in self.basis
        self.lift, self.last = nn.Linear(c_in + given, width), quiet(nn.Linear(width, c_out))
        size = (layers, width, width, *kept, *([2] if self.halved else []))
        self.weights = nn.Parameter(torch.randn(size) / width)
        self.mixes = nn.ModuleList(nn.Linear(width, width) for _ in range(layers))

    def _kept(self, grid: Grid, modes: int) -> tuple[int, ...]:
        fourier = [i for i, word in enumerate(self.basis) if word == "fourier"]
        kept = [modes // 2 + 1 if fourier[-1:] == [i] else modes for i in range(grid.dim)]
        pairs = enumerate(zip(grid.shape, self.basis, strict=True))
        most = [n // 2 + 1 if fourier[-1:] == [i] else n - (word == "sine") for i, (n, word) in pairs]
        if modes < 1 or any(k > m for k, m in zip(kept, most, strict=True)):
            raise ValueError(f"modes lies between 1 and the nodes of the grid {grid.shape}; got {modes}.")
        return tuple(kept)

    def forward(self, t: Tensor, state: Tensor, given: Tensor | None = None) -> Tensor:
        values = _over_channels(self.lift, state if given is None else torch.cat([state, given], dim=1))
        for weight, mix in zip(self.weights, self.mixes, strict=True):
            matrix = torch.view_as_complex(weight) if self.halved else weight
            values = F.gelu(spectral_conv(values, matrix, basis=self.basis) + _over_channels(mix, values))
        return _over_channels(self.last, values)


def _over_channels(layer: nn.Module, values: Tensor) -> Tensor:
    return layer(values.movedim(1, -1)).movedim(-1, 1)


def _waves(axis: Axis) -> str:
    if axis.periodic:
        return "fourier"
    if axis.boundary == ("dirichlet", "dirichlet"):
        return "sine" if axis.placement == "ends" else "sine-centres"
    return "cosine" if axis.placement == "centres" else "cosine-ends"


def check_size(width: int, layers: int) -> None:
    if width < 1 or layers < 1:
        raise ValueError(f"width and layers are at least 1, got {width} and {layers}.")


def quiet(layer: nn.Module) -> nn.Module:
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.mul_(QUIET)
    return layer


class Flow(nn.Module):
    """A right-hand side in coordinates: ``forward(t, y, given)``; see the head of this file.

    make         (c_in, c_out) -> network
    unknowns     observed coordinates (channels, of fields)
    velocities   of the second order; observed ones are the second half of the channels
    units        (mean, deviation) a channel, where velocities are observed; ``channel``
    """

    deviation: Tensor
    rate: Tensor

    def __init__(
        self,
        make: Callable[[int, int], nn.Module],
        unknowns: int,
        *,
        dim: int,
        order: Literal[1, 2] = 1,
        velocities: Velocities = "learned",
        augment: int = 0,
        start: Callable[[int, int], nn.Module] | None = None,
    ) -> None:
        super().__init__()
        if order not in (1, 2) or augment < 0:
            raise ValueError(f"order is 1 or 2 and augment not negative, got {order} and {augment}.")
        self.unknowns, self.augment, self.ones = unknowns, augment, (1,) * dim
        self.learned = order == 2 and velocities == "learned"
        self.observed = order == 2 and velocities == "observed"
        if self.observed and unknowns % 2:
            raise ValueError(
                f"Observed velocities are the second half of the channels, and there are {unknowns}: say "
                "velocities learned, or give positions and velocities."
            )
        self.network = make(unknowns * (1 + self.learned) + augment, unknowns + augment)
        self.start = (start or make)(unknowns, unknowns) if self.learned else None
        self.register_buffer("deviation", torch.ones(unknowns))
        self.register_buffer("rate", torch.ones(unknowns))
        self.register_buffer("units", torch.tensor([[0.0], [1.0]]).repeat(1, unknowns))

    def fit(self, deviation: Tensor, rate: Tensor, units: tuple[Tensor, Tensor] | None = None) -> None:
        """Scales of the data: of coordinates and rates; of channels (mean, deviation) where velocities are observed."""
        self.deviation.copy_(deviation)
        self.rate.copy_(rate)
        if units is not None:
            self.units.copy_(torch.stack([u.reshape(-1) for u in units]))  # type: ignore[operator]

    def begin(self, state: Float[Tensor, "batch unknown *space"], given: Tensor | None = None) -> Tensor:
        """The whole initial state: what is observed, velocities, and zeros."""
        parts = [state]
        if self.start is not None:
            zero = state.new_zeros(())
            parts.append(self.start(zero, self._scaled(state), given))
        if self.augment:
            parts.append(state.new_zeros(len(state), self.augment, *state.shape[2:]))
        return torch.cat(parts, dim=1) if len(parts) > 1 else state

    def seen(self, whole: Float[Tensor, "batch whole *space"]) -> Float[Tensor, "batch unknown *space"]:
        """What is observed of a whole state."""
        return whole[:, : self.unknowns]

    def forward(self, t: Tensor, whole: Tensor, given: Tensor | None = None) -> Tensor:
        if not (self.augment or self.learned or self.observed):  # nothing but z: half the operations of what follows
            return self._column(self.rate) * self.network(t, self._scaled(whole), given)
        state, rest = whole[:, : self.unknowns], whole[:, self.unknowns :]
        inputs = self._scaled(state)
        inputs = torch.cat([inputs, rest], dim=1) if rest.shape[1] else inputs
        raw = self.network(t, inputs, given)
        rate, omega = self._column(self.rate), (self.rate / self.deviation).mean()
        own, extra = raw[:, : self.unknowns], omega * raw[:, self.unknowns :]
        if self.learned:
            parts = [rate * rest[:, : self.unknowns], omega * own, extra]
        elif self.observed:
            half = self.unknowns // 2
            parts = [self._velocity(state, half), (rate * own)[:, half:], extra]
        else:
            parts = [rate * own, extra]
        return torch.cat(parts, dim=1)

    def _velocity(self, state: Tensor, half: int) -> Tensor:
        mean, deviation = (self._column(part) for part in self.units)  # type: ignore[union-attr]
        return (state[:, half:] * deviation[half:] + mean[half:]) / deviation[:half]

    def _scaled(self, state: Tensor) -> Tensor:
        return state / self._column(self.deviation)

    def _column(self, values: Tensor) -> Tensor:
        return values.view(-1, *self.ones)


def bound(flow: Flow, given: Tensor | None) -> Callable[[Tensor, Tensor], Tensor]:
    """f(t, y) with what is given."""
    return (lambda t, y: flow(t, y, given)) if given is not None else (lambda t, y: flow(t, y))
