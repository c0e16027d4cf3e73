r"""Neural ordinary differential equation, solved adaptively, made cheap to solve.

.. math:: \dot z = f_\theta(z, a)

z   coordinates of the state (see below)    a   what is given beside it: parameters, inputs

    right=dense            plain systems: the channels, in their own deviations
    right=convolutional    fields, method of lines: three-node stencils whose padding is the boundary condition
    right=spectral         fields, method of lines: Fourier layers (sines and cosines between walls); any resolution
    right=reduced          fields in POD coordinates: the ``components`` modes that hold ``energy`` of the variance
    right=auto             dense where there is no space, else convolutional

Chen, Rubanova, Bettencourt and Duvenaud 2018; ``augment``: Dupont et al. 2019; ``order=2``: Norcliffe et al. 2020.
Regularisers make the learned dynamics cheap: words joined by ``+``, of

    ernode, srnode                 mean of E h, maximum of S (released); ernode_paper, srnode_paper: sums
    local, local_stiffness         one more step at a random accepted step; local_unbiased: at a uniform time
    local_released                 as the authors' code has it: its weight can destroy training (docs/dynamics.md)

>>> import torch
>>> from resolvent.dynamics.neural_ode import build
>>> from resolvent.pde.spiral import Spiral
>>> problem = Spiral()
>>> solver = build(problem, problem.grid(2))
>>> f = solver.right_hand_side()  # an nn.Module: f(t, z), z in coordinates (solver.states), before or after fit
>>> f(torch.zeros(()), torch.ones(3, 2)).shape
torch.Size([3, 2])
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, final

import torch
from torch import Generator, Tensor, nn

from ..data import Dataset
from ..pde import Grid, Problem, Signature
from ..training import Preset, Recipe
from ._coordinates import Channels, Coordinates, Modes, rates_of
from ._learner import LearnedDynamics, check_learnable, conditions_of, counted, trajectories
from ._networks import Convolutional, Dense, Flow, Spectral, Velocities, bound
from ._odeint import Control, Gradient, odeint
from ._penalty import Penalty
from ._solution import Solution

Right = Literal["auto", "dense", "convolutional", "spectral", "reduced"]
Method = Literal["tsit5", "dopri5", "bosh3", "heun_euler", "rodas4"]


@final
class NeuralODE(LearnedDynamics):
    """See the head of this file.

    flow     the right-hand side in coordinates
    penalty  the regulariser and its weight, or None
    """

    def __init__(
        self,
        signature: Signature,
        grid: Grid,
        flow: Flow,
        states: Coordinates,
        recipe: Recipe = Recipe(),  # noqa: B008 - frozen
        *,
        vector: bool = True,
        penalty: Penalty | None = None,
        method: Method = "tsit5",
        rtol: float = 1e-4,
        atol: float = 1e-5,
        control: Control = "sample",
        gradient: Gradient = "discrete",
        any_resolution: bool = False,
    ) -> None:
        conditions = conditions_of(signature, grid, vector=vector)
        super().__init__(signature, grid, recipe, states, conditions, {"flow": flow}, any_resolution=any_resolution)
        self.flow, self.penalty, self.gradient = flow, penalty, gradient
        self.options: dict[str, Any] = {"method": method, "rtol": rtol, "atol": atol, "control": control}

    def right_hand_side(self, given: Tensor | None = None) -> nn.Module:
        """f(t, z) as a module on coordinates ``batch unknown *space`` (``solver.states(fields)``), ``given`` bound.

        given   ``batch channel *space`` in physical units, where the problem has given channels
        """
        return _Bound(self.flow, None if given is None else self.condition(given))

    def integrated(self, fields: Tensor, given: Tensor | None, times: Sequence[float], *, trace: bool) -> Solution:
        """The whole state at 0 and at ``times``, in coordinates."""
        begin = self.flow.begin(self.states(fields), given)
        beside = () if given is None else (given,)
        gradient: Gradient = self.gradient if torch.is_grad_enabled() else "discrete"
        parameters = tuple(self.flow.parameters()) if gradient != "discrete" else None
        options = {**self.options, "gradient": gradient, "given": beside}
        return odeint(self.flow, begin, [0.0, *times], **options, trace=trace, parameters=parameters)

    def trajectory(self, fields: Tensor, given: Tensor | None, times: Sequence[float]) -> Tensor:
        solution = self.integrated(fields, given, times, trace=False)
        counts = solution.counts
        self.health = counted(counts.evaluations, counts.accepted, counts.rejected)
        return self._fields(solution)

    def _fields(self, solution: Solution) -> Tensor:
        whole = solution.states[:, 1:]
        return self.states.inverse(self.flow.seen(whole.flatten(0, 1))).unflatten(0, whole.shape[:2])

    def loss(self, fields: Tensor, given: Tensor | None, targets: Tensor, noise: Generator) -> Tensor:
        traced = self.penalty is not None
        solution = self.integrated(fields, given, self.frames(targets.shape[1]), trace=traced)
        misfit = self.misfit(self._fields(solution), targets)
        if self.penalty is None:
            return misfit
        return misfit + self.penalty(bound(self.flow, given), solution, self.progress, noise)

    def prepare(self, data: Dataset) -> None:
        deviation, rate = rates_of(self.states, trajectories(data), self.signature.spacing)
        units = None
        if self.flow.observed:
            assert isinstance(self.states, Channels)
            normalizer = self.states.normalizer
            units = (normalizer.mean, normalizer.std)
        self.flow.fit(deviation, rate, units)


class _Bound(nn.Module):
    """A flow with what is given."""

    def __init__(self, flow: Flow, given: Tensor | None) -> None:
        super().__init__()
        self.flow, self.given = flow, given

    def forward(self, t: Tensor, state: Tensor) -> Tensor:
        return self.flow(t, state, self.given)


def build(
    problem: Problem,
    grid: Grid,
    *,
    right: Right = "auto",
    width: int = 64,
    layers: int = 2,
    modes: int = 12,
    components: int = 16,
    energy: float = 0.9999,
    augment: int = 0,
    order: Literal[1, 2] = 1,
    velocities: Velocities = "learned",
    regulariser: str = "none",
    weight: float = 100.0,
    final_weight: float = 0.0,
    stiffness_weight: float = 0.1,
    method: Method = "tsit5",
    rtol: float = 1e-4,
    atol: float = 1e-5,
    control: Control = "sample",
    gradient: Gradient = "discrete",
    recipe: Recipe = Recipe(),  # noqa: B008 - frozen
) -> NeuralODE:
    """A neural ODE for an evolution.

    right             form of the right-hand side: dense, convolutional, spectral, reduced; auto
    width             hidden units, or channels
    layers            hidden layers
    modes             waves kept an axis (spectral)
    components        POD modes, at most (reduced)
    energy            share of the variance that the POD modes hold (reduced)
    augment           unknowns beside the state, zero at the start
    order             2: the network is an acceleration
    velocities        of order 2: learned from the state at the start, or observed (the second half of the channels)
    regulariser       none, or words joined by +, such as ernode+srnode or local
    weight            of the error regulariser, in units of 1/tolerance: choose it anew when rtol changes
    final_weight      to which it changes over the training, exponentially; 0: it stays
    stiffness_weight  of the stiffness regulariser
    method            tsit5, dopri5, bosh3, heun_euler; rodas4 for stiff systems of few unknowns
    rtol              tolerance of the local error, relative
    atol              the same in deviations of the coordinates
    control           one step size for the batch, or one for each sample
    gradient          discrete (through the solver), backsolve or interpolated (adjoint equations)
    """
    check_learnable(problem, recipe, "neural_ode")
    signature, right = problem.signature, _right_of(right, grid)
    states = _states(right, signature, grid, components, energy, recipe)
    vector = right in ("dense", "reduced")
    conditions = conditions_of(signature, grid, vector=vector)
    given = 0 if conditions is None else conditions.features

    def make(c_in: int, c_out: int) -> nn.Module:
        size: dict[str, Any] = {"width": width, "layers": layers, "given": given}
        if vector:
            return Dense(c_in, c_out, **size)
        if right == "spectral":
            return Spectral(c_in, c_out, grid, modes=modes, **size)
        return Convolutional(c_in, c_out, grid, **size)

    if order == 2 and velocities == "observed" and right == "reduced":
        raise ValueError("POD mixes places and velocities: with observed velocities choose another right-hand side.")
    flow = Flow(make, states.shape[0], dim=len(states.shape) - 1, order=order, velocities=velocities, augment=augment)
    return NeuralODE(
        signature,
        grid,
        flow,
        states,
        recipe,
        vector=vector,
        penalty=Penalty.of(regulariser, weight, final_weight or weight, stiffness_weight, method, gradient),
        method=method,
        rtol=rtol,
        atol=atol,
        control=control,
        gradient=gradient,
        any_resolution=right == "spectral",
    )


def _right_of(right: Right, grid: Grid) -> Right:
    if right == "auto":
        return "convolutional" if grid.dim else "dense"
    if (right == "dense") != (grid.dim == 0):
        said = "there is no space here: use dense" if not grid.dim else "a field has too many unknowns: use reduced"
        raise ValueError(f"right {right} does not fit the grid of shape {grid.shape}; {said}.")
    return right


def _states(
    right: Right, signature: Signature, grid: Grid, components: int, energy: float, recipe: Recipe
) -> Coordinates:
    channels = len(signature.outputs)
    if right == "reduced":
        return Modes(channels, grid.shape, components, energy)
    kind = recipe.normalise
    if kind == "pointwise":
        raise ValueError(
            "neural_ode scales channels, not nodes: say train.normalise channel (or none, or right reduced)."
        )
    return Channels(channels, grid.shape, kind)


def _quick(problem: Problem) -> Preset:
    """Plain systems: windows of ten frames; fields: of four."""
    frames, plain = max(1, problem.signature.frames), problem.grid(16).dim == 0
    train = {"epochs": 60 if plain else 20, "batch": 64 if plain else 8, "learning_rate": 5e-3 if plain else 3e-3}
    train |= {"unroll": min(frames, 10 if plain else 4), "weight_decay": 0.0}
    return Preset(model={"width": 64 if plain else 32}, train=train, seconds=120.0)


PRESETS: Mapping[tuple[str, str], object] = {
    ("quick", "*"): _quick,
    # torchdiffeq's demonstration (with --pde.preset torchdiffeq_demo): 50 tanh units, windows of ten points, batches of
    # 20, 1e-3. There: cubes as inputs, RMSprop, the absolute error, and 1e-7, which is rounding in single precision.
    ("paper", "spiral"): Preset(
        model={"width": 50, "layers": 1, "method": "dopri5", "rtol": 2e-6, "atol": 2e-6, "control": "batch"},
        train={
            **{"epochs": 1, "batch": 20, "learning_rate": 1e-3, "schedule": "constant", "unroll": 9},
            **{"objective": "mean_square", "weight_decay": 0.0},
        },
    ),
}
