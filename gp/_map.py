r"""The published objective (GP-HM: Fang et al., "Solving high frequency and multi-scale PDEs with Gaussian processes",
ICLR 2024): the solution at the nodes and the spectrum of its prior, found together as a maximum a posteriori.

.. math:: -L = \tfrac12 \log|C| + \tfrac12 U^T C^{-1} U
          + \lambda_b \big[\tfrac\tau2 \|B u - g\|^2 - \tfrac{N_b}2 \log\tau\big]
          + \tfrac v2 \|H u - f\|^2 - \tfrac{N_c}2 \log v,\qquad C = K_1 \otimes\dots\otimes K_d

U        values on a tensor grid, free; derivatives are conditional means: u_xx = K'' K^{-1} U along its own axis
K_j      sums of Q waves, weights w, lengths and frequencies mu free; log w with a flat prior is Jeffreys' prior on w,
         whose effect is that unused frequencies fade
tau, v   precisions of the boundary data and of the equation, free (logarithms)
B u - g  all declared conditions; nodes where faces meet count once for each
lambda_b multiplies the whole boundary part, its logarithm included
jitter   1e-6, absolute, on the diagonal of every K_j: the accuracy floor of the published method

``eliminated``: U is the minimiser for given hyperparameters, a linear solve
(Gauss-Newton with a reaction), and by the envelope theorem the gradient is the partial one: 3 Q d + 2
unknowns are left. ``extra``:
after that share of the steps all is frozen and a second process (one Matern covariance) is added for what is left.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal, get_args

import torch
from torch import Tensor

from ..pde import Grid
from ..pde._equation import Condition, Equation
from ._eliminate import eliminate
from ._health import Health
from ._likelihood import Minimiser
from ._process import Mixture, Process, Spectrum

Optimiser = Literal["adam", "lbfgs"]
LARGEST_DENSE = 3000  # nodes up to which U is eliminated by a dense solve


@dataclass(frozen=True, kw_only=True)
class Published:
    """Settings of the method; the defaults are the authors'.

    mixture     student or gaussian: the spectrum; matern or squared_exponential: the same sums without the cosines
    components  Q, an axis
    highest     F: frequencies start evenly from 0 to F [cycles a unit]
    weight      lambda_b (500 was used for advection)
    rate        Adam's step
    extra       share of the steps after which a second process is added (0: never; 0.5 and 0.01 were used)
    """

    mixture: Mixture = "student"
    components: int = 30
    highest: float = 20.0
    steps: int = 100_000
    weight: float = 200.0
    jitter: float = 1e-6
    optimiser: Optimiser = "adam"
    rate: float = 0.01
    eliminated: bool = False
    extra: float = 0.0

    def __post_init__(self) -> None:
        if self.mixture not in get_args(Mixture) or self.optimiser not in get_args(Optimiser):
            raise ValueError(
                f"mixture is one of {get_args(Mixture)} and optimiser one of {get_args(Optimiser)}, got "
                f"{self.mixture!r} and {self.optimiser!r}."
            )
        if self.components < 1 or self.steps < 1 or min(self.highest, self.weight, self.jitter, self.rate) <= 0:
            raise ValueError("components and steps are at least 1; highest, weight, jitter and rate are positive.")
        if not 0 <= self.extra < 1:
            raise ValueError(f"extra is a share of the steps, from 0 (never) to below 1, got {self.extra}.")


@dataclass
class State:
    """What is optimised: a process, two log precisions, and the fields of what is already there."""

    process: Process
    log_tau: Tensor
    log_v: Tensor
    known: dict[tuple[int, ...], Tensor] = field(default_factory=dict)

    @property
    def hyperparameters(self) -> list[Tensor]:
        return [*self.process.hyperparameters, self.log_tau, self.log_v]


class Map:
    """One instance of an equation on uniform nodes, by the published objective."""

    def __init__(self, equation: Equation, grid: Grid, settings: Published) -> None:
        if any(axis.periodic for axis in grid.axes):
            raise ValueError("The published method has no periodic axes; use method='green'.")
        if settings.eliminated and math.prod(grid.shape) > LARGEST_DENSE:
            raise ValueError(
                f"Eliminating U takes a dense solve of {math.prod(grid.shape)} unknowns; at most {LARGEST_DENSE}. "
                "Use a smaller grid, or eliminated=False."
            )
        self.equation, self.grid, self.settings = equation, grid, settings
        self.zero = (0,) * grid.dim
        self.wanted = {term.orders for term in equation.terms} | {self.zero}
        self.wanted |= {self._orders(condition) for condition in equation.conditions}
        self.states = [self._start(settings.mixture, settings.components)]

    def _orders(self, condition: Condition) -> tuple[int, ...]:
        return tuple(condition.order if j == condition.axis else 0 for j in range(self.grid.dim))

    def _start(self, mixture: Mixture, components: int) -> State:
        spectra = tuple(Spectrum(mixture, components, self.settings.highest) for _ in self.grid.axes)
        values = torch.zeros(self.grid.shape, dtype=torch.float64, requires_grad=not self.settings.eliminated)
        tau, v = (torch.zeros((), dtype=torch.float64, requires_grad=True) for _ in range(2))
        return State(Process(self.grid, spectra, values, self.settings.jitter), tau, v)

    @property
    def state(self) -> State:
        return self.states[-1]

    def misfits(self, fields: dict[tuple[int, ...], Tensor]) -> tuple[Tensor, Tensor]:
        """Of the conditions and of the equation, as flat vectors."""
        faces = [
            (fields[self._orders(c)].select(c.axis, 0 if c.end == "lower" else -1) - c.values[0].double()).flatten()
            for c in self.equation.conditions
        ]
        left = torch.stack([term.coefficient * fields[term.orders] for term in self._terms()]).sum(dim=0)
        if self.equation.reaction is not None:
            left = left + self.equation.reaction(fields[self.zero])
        return torch.cat(faces), (left - self.equation.source[0].double()).flatten()

    def _terms(self):
        return [
            type(t)(t.orders, t.coefficient[0].double() if isinstance(t.coefficient, Tensor) else t.coefficient)
            for t in self.equation.terms
        ]

    def loss(self) -> Tensor:
        """-L for the current state."""
        state = self.state
        fields, logdet, quadratic = state.process.fields(self.wanted)
        if state.known:
            fields = {orders: value + state.known[orders] for orders, value in fields.items()}
        boundary, equation = self.misfits(fields)
        return 0.5 * (
            logdet
            + quadratic
            + self.settings.weight * (state.log_tau.exp() * boundary.square().sum() - len(boundary) * state.log_tau)
            + state.log_v.exp() * equation.square().sum()
            - len(equation) * state.log_v
        )

    # ------------------------------------------------------------------ optimisation

    @torch.enable_grad()
    def run(self, each: Callable[[int, float], bool] | None = None) -> Map:
        """All steps; ``each(step, loss)`` is called after every one of them and may return True to stop."""
        first = round(self.settings.extra * self.settings.steps) or self.settings.steps
        stopped = self._optimise(first, 0, each)
        if self.settings.extra and not stopped:
            self._add_extra()
            self._optimise(self.settings.steps - first, first, each)
        return self

    def _add_extra(self) -> None:
        with torch.no_grad():
            known = self.fields()
            tau = self.state.log_tau.clone()
        state = self._start("matern", 1)
        state.log_tau = tau.requires_grad_()
        state.known = known
        self.states.append(state)

    @torch.no_grad()
    def fields(self) -> dict[tuple[int, ...], Tensor]:
        fields = self.state.process.fields(self.wanted)[0]
        known = self.state.known
        return {orders: value + known[orders] for orders, value in fields.items()} if known else fields

    def _unknowns(self) -> list[Tensor]:
        free = self.state.hyperparameters
        return free if self.settings.eliminated else [self.state.process.values, *free]

    def _evaluate(self) -> Tensor:
        if self.settings.eliminated:
            eliminate(self)
        return self.loss()

    def _optimise(self, steps: int, before: int, each: Callable[[int, float], bool] | None) -> bool:
        return (self._adam if self.settings.optimiser == "adam" else self._lbfgs)(steps, before, each)

    def _adam(self, steps: int, before: int, each: Callable[[int, float], bool] | None) -> bool:
        adam = torch.optim.Adam(self._unknowns(), lr=self.settings.rate)
        for step in range(before, before + steps):
            adam.zero_grad()
            loss = self._evaluate()
            loss.backward()
            adam.step()
            if each is not None and each(step, float(loss.detach())):
                return True
        if self.settings.eliminated:
            eliminate(self)
        return False

    def _lbfgs(self, steps: int, before: int, each: Callable[[int, float], bool] | None) -> bool:
        def told(step: int, loss: float) -> bool:
            return each is not None and each(before + step, loss)

        stopped = Minimiser(self._unknowns()).run(self._evaluate, steps, each=told)
        if self.settings.eliminated:
            eliminate(self)
        return stopped

    # ------------------------------------------------------------------ answers

    def answer(self) -> MapAnswer:
        with torch.no_grad():
            _, equation = self.misfits(self.fields())
        size = max(float(self.equation.source.double().norm()), math.ulp(0.0))
        tops = [float(s.frequencies.detach().abs().max()) for s in self.states[0].process.spectra]
        limits = [0.5 / axis.spacing for axis in self.grid.axes]
        crowding = tuple(top / limit for top, limit in zip(tops, limits, strict=True))
        rank, misfit = (self.settings.components,) * self.grid.dim, float(equation.norm()) / size
        health = Health(crowding, (0.0,) * self.grid.dim, misfit, rank, self.grid.shape, self.settings.steps)
        return MapAnswer(tuple(state.process for state in self.states), health)


@dataclass(frozen=True)
class MapAnswer:
    """The sum of the processes' conditional means as a function on tensor grids."""

    processes: tuple[Process, ...]
    health: Health

    def __call__(self, points: Sequence[Tensor], orders: Sequence[int] | None = None) -> Tensor:
        orders = tuple(orders or (0,) * len(points))
        return torch.stack([process.predict(points, orders) for process in self.processes]).sum(dim=0)[None]
