r"""Order reduction of a trained ``neural_ode``: the same solver in POD coordinates, with interpolated layers.

>>> from resolvent.dynamics._reduced_ode import reduce  # doctest: +SKIP
>>> small = reduce(solver, data, lost=1e-6)  # solver: a fitted NeuralODE; data: its training split  # doctest: +SKIP
>>> small(inputs, grid)  # doctest: +SKIP

Snapshots are the training states *and* those of the network's own trajectories from the training starts: what will be
interpolated is what the network does there. Tolerances keep their meaning: the error of a step is measured over the k
coordinates so that it is that over the nodes (an orthonormal basis keeps the 2-norm; the RMS of k numbers is that of n
times sqrt(n / k)), with a size of the states that is fixed by the training data.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ..data import Dataset
from ..pde import Grid, Solver, check_fields, check_times
from ._layered import LayeredField
from ._learner import Work, counted, trajectories
from ._networks import Convolutional, Dense
from ._odeint import odeint
from ._order_reduction import Reduced, Reducer
from .neural_ode import NeuralODE

SNAPSHOTS = 1024  # states behind the bases, evenly spread
ROUNDING = 10 * torch.finfo(torch.float32).eps  # the least relative tolerance that is not about rounding


def field_of(solver: NeuralODE) -> LayeredField:
    """The layers of a neural ODE's right-hand side, on its coordinates; the weights are shared.

    Takes first-order, autonomous flows, to which nothing is given, of tanh layers (dense or convolutional) or of a
    :class:`LayeredField` of your own.
    """
    flow, network = solver.flow, solver.flow.network
    if flow.augment or flow.learned or flow.observed or solver.conditions is not None:
        raise ValueError("Order reduction takes first-order neural ODEs without augmentation and given channels.")
    if isinstance(network, LayeredField) and network.drive is None:
        pad: Callable[[Tensor], Tensor] = _unchanged
        layers, functions, bypass = list(network.maps), list(network.functions), network.bypass
    elif isinstance(network, Dense | Convolutional) and not getattr(network, "time", False):
        pad = network._padded if isinstance(network, Convolutional) else _unchanged
        layers, bypass = [*network.layers, network.last], None
        functions = [nn.Tanh() for _ in network.layers]
    else:
        raise ValueError(
            f"Order reduction reads layers that are dense or convolutional, not {type(network).__name__} ones. Train "
            "with --model.right convolutional or dense, or give a LayeredField of your own."
        )
    ones = (1,) * (len(solver.states.shape) - 1)
    before, after = 1 / flow.deviation.view(-1, *ones), flow.rate.view(-1, *ones)
    maps: list[nn.Module] = [_Map(layer, pad) for layer in layers]
    maps[0] = _Map(layers[0], pad, before=before, after=after if len(layers) == 1 else None)
    if len(layers) > 1:
        maps[-1] = _Map(layers[-1], pad, after=after)
    return LayeredField(maps, functions, bypass=bypass and _Map(bypass, _unchanged, before, after))


def _unchanged(values: Tensor) -> Tensor:
    return values


class _Map(nn.Module):
    """An affine layer behind its padding, between scales."""

    before: Tensor | None
    after: Tensor | None

    def __init__(
        self,
        layer: nn.Module,
        pad: Callable[[Tensor], Tensor],
        before: Tensor | None = None,
        after: Tensor | None = None,
    ) -> None:
        super().__init__()
        self.layer, self.pad = layer, pad
        self.register_buffer("before", before)
        self.register_buffer("after", after)

    def forward(self, values: Tensor) -> Tensor:
        values = values if self.before is None else values * self.before
        values = self.layer(self.pad(values))
        return values if self.after is None else values * self.after


@final
class ReducedODE(Solver):
    """A neural ODE in reduced coordinates; ``health`` says what integrations took."""

    def __init__(self, full: NeuralODE, small: Reduced, size: float) -> None:
        self.full, self.small = full, small
        self.health: tuple[Work, ...] = ()
        rtol, atol = (float(full.options[name]) for name in ("rtol", "atol"))
        wider = math.sqrt(small.vectors.shape[0] / small.modes)
        self.options: dict[str, Any] = {**full.options, "rtol": ROUNDING, "atol": (atol + rtol * size) * wider}

    @torch.no_grad()
    def __call__(
        self, inputs: Float[Tensor, "batch channel *space"], grid: Grid, times: Sequence[float] | None = None
    ) -> Float[Tensor, "batch time channel *space"]:
        full = self.full
        check_fields(inputs, grid, len(full.signature.inputs))
        if grid.shape != full.grid.shape:
            raise ValueError(f"The bases are fields on the grid {full.grid.shape}; asked for {grid.shape}.")
        wanted = list(full.signature.times if times is None else times)
        check_times(wanted)
        start = self.small.encode(full.states(inputs.to(full.device, torch.float32)))
        solution = odeint(self.small, start, [0.0, *wanted], **self.options)
        counts = solution.counts
        self.health = counted(counts.evaluations, counts.accepted, counts.rejected)
        path = self.small.decode(solution.states[:, 1:])
        return full.states.inverse(path.flatten(0, 1)).unflatten(0, path.shape[:2]).to(inputs)


class Reduction:
    """Reductions of one fitted neural ODE: the decompositions are made once, each size follows in no time.

    data        the training split
    snapshots   states behind the bases
    """

    @torch.no_grad()
    def __init__(self, solver: NeuralODE, data: Dataset, *, snapshots: int = SNAPSHOTS) -> None:
        states = _states(solver, data, snapshots)
        self.solver, self.size = solver, float(states.square().mean().sqrt())
        self.reducer = Reducer(field_of(solver), states)

    def __call__(self, **options: Any) -> ReducedODE:
        """``options`` are those of :class:`Reducer`."""
        return ReducedODE(self.solver, self.reducer(**options), self.size)


def reduce(solver: NeuralODE, data: Dataset, *, snapshots: int = SNAPSHOTS, **options: Any) -> ReducedODE:
    """A fitted neural ODE with fewer unknowns and function values (:class:`Reduction`)."""
    return Reduction(solver, data, snapshots=snapshots)(**options)


def _states(solver: NeuralODE, data: Dataset, count: int) -> Float[Tensor, "sample *state"]:
    known = torch.cat([solver.states(block.flatten(0, 1)) for block in trajectories(data)])
    few = data.subset(range(0, len(data), -(-len(data) // max(1, count // (2 * (1 + data.signature.frames))))))
    starts, _ = few.read(range(len(few)))
    own = solver.states(solver(starts.float(), data.grid).flatten(0, 1))
    half = count // 2
    return torch.cat([_spread(known, half), _spread(own, half)])


def _spread(values: Tensor, count: int) -> Tensor:
    return values[:: -(-len(values) // count)]
