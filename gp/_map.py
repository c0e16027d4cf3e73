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

Gradients are hand-written through the solves (K^{-1} and log|K| share one Cholesky factor); the covariance is evaluated
at the lags of a uniform grid. ``eliminated``: U is the minimiser for given hyperparameters, a linear solve
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

from ..pde import Grid, SolverError
from ..pde._equation import Condition, Equation
from ._covariance import TURN, SpectralMixture, Stationary, StudentMixture
from ._health import Health
from ._kronecker import apply
from ._likelihood import Minimiser

Mixture = Literal["student", "gaussian", "matern", "squared_exponential"]
Optimiser = Literal["adam", "lbfgs"]
LARGEST_DENSE = 3000  # nodes up to which U is eliminated by a dense solve
GAUSS_NEWTON = 30  # steps at most, with a reaction
SHORTEST = 1e-3  # part of a step below which it is given up
SETTLED = 1e-10  # relative change of U at which Gauss-Newton ends


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


class Spectrum:
    """The free parameters of one axis' covariance."""

    def __init__(self, mixture: Mixture, components: int, highest: float) -> None:
        self.mixture = mixture
        start = torch.full((components,), -math.log(components), dtype=torch.float64)
        self.log_weights = start.requires_grad_()
        self.log_lengths = torch.zeros(components, dtype=torch.float64, requires_grad=True)
        waves = mixture in ("student", "gaussian")
        top = highest if waves else 0.0
        self.frequencies = torch.linspace(0, top, components, dtype=torch.float64).requires_grad_(waves)

    @property
    def free(self) -> list[Tensor]:
        every = [self.log_weights, self.log_lengths, self.frequencies]
        return [one for one in every if one.requires_grad]

    def covariance(self) -> Stationary:
        """The stored length is the logarithm of 2 pi² s² (Gaussian) or of the inverse length b (Student-t)."""
        weights = self.log_weights.exp()
        if self.mixture in ("gaussian", "squared_exponential"):
            return SpectralMixture(weights, self.frequencies, (0.5 * self.log_lengths).exp() * math.sqrt(2) / TURN)
        return StudentMixture(weights, self.frequencies, self.log_lengths.exp())

    def matrices(self, nodes: Tensor, orders: Sequence[int]) -> dict[int, Tensor]:
        """K^(p) on uniform nodes: (anti)symmetric Toeplitz, from the lags to the right."""
        covariance, lags = self.covariance(), nodes - nodes[0]
        return {p: _Toeplitz.apply(covariance.lag(lags, p), -1.0 if p % 2 else 1.0) for p in orders}


class _Toeplitz(torch.autograd.Function):
    """Row i, column j: value at abs(i - j), with a sign above the diagonal; the gradient sums along diagonals."""

    @staticmethod
    def forward(ctx, values: Tensor, sign: float) -> Tensor:
        ctx.sign = sign
        line = torch.cat([sign * values[1:].flip(0), values])
        return line.unfold(0, len(values), 1).flip(1)

    @staticmethod
    def backward(ctx, by: Tensor):
        n = len(by)
        # rows shifted against each other turn diagonals into columns: entry (i, j) lands in column n - 1 + i - j
        padded = torch.cat([by.flip(1), by.new_zeros(n, n)], dim=1).flatten()[: n * (2 * n - 1)].reshape(n, 2 * n - 1)
        sums = padded.sum(dim=0)
        lower, upper = sums[n - 1 :], sums[: n - 1].flip(0)
        return torch.cat([lower[:1], lower[1:] + ctx.sign * upper]), None


class _Solved(torch.autograd.Function):
    """(K^{-1} B along an axis of B, log|K|) from one factor."""

    @staticmethod
    def forward(ctx, matrix: Tensor, right: Tensor, axis: int) -> tuple[Tensor, Tensor]:
        factor, info = torch.linalg.cholesky_ex(matrix)
        if int(info):
            raise SolverError(
                "A covariance of the prior is not positive definite with this jitter: a larger one, fewer nodes or a "
                "smaller learning rate is needed."
            )
        solved = _solve(factor, right, axis)
        ctx.axis = axis
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(factor, solved)
        return solved, 2 * factor.diagonal().log().sum()

    @staticmethod
    def backward(ctx, by_solved: Tensor | None, by_logdet: Tensor | None):
        factor, solved = ctx.saved_tensors
        if by_solved is None:
            by_solved = torch.zeros_like(solved)
        back = _solve(factor, by_solved, ctx.axis)
        rows, columns = (t.movedim(ctx.axis, 0).reshape(len(factor), -1) for t in (back, solved))
        by_matrix = -(rows @ columns.T)
        if by_logdet is not None:  # the determinant is taken once a factor
            by_matrix += by_logdet * torch.cholesky_inverse(factor)
        return by_matrix, back, None


def _solve(factor: Tensor, right: Tensor, axis: int) -> Tensor:
    flat = right.movedim(axis, 0)
    return torch.cholesky_solve(flat.reshape(len(flat), -1), factor).reshape(flat.shape).movedim(0, axis)


@dataclass
class Process:
    """A prior and the values of a solution at the nodes of a grid."""

    grid: Grid
    spectra: tuple[Spectrum, ...]
    values: Tensor  # U
    jitter: float

    @property
    def hyperparameters(self) -> list[Tensor]:
        return [one for spectrum in self.spectra for one in spectrum.free]

    def fields(self, wanted: set[tuple[int, ...]]) -> tuple[dict[tuple[int, ...], Tensor], Tensor, Tensor]:
        """Derivatives at the nodes as conditional means, log|C|, and U^T C^{-1} U."""
        solved, logdet, whole = [], torch.zeros((), dtype=torch.float64), self.values
        matrices = []
        for j, spectrum in enumerate(self.spectra):
            orders = {orders[j] for orders in wanted} | {0}
            found = spectrum.matrices(self.grid.axes[j].coordinates(), sorted(orders))
            jittered = found[0] + self.jitter * torch.eye(len(found[0]), dtype=torch.float64)
            alone, log = _Solved.apply(jittered, self.values, j)
            whole = alone if j == 0 else _Solved.apply(jittered, whole, j)[0]
            logdet = logdet + log * (self.values.numel() / len(jittered))
            solved.append(alone)
            matrices.append((found, jittered))
        fields = {orders: self._derivative(orders, matrices, solved) for orders in wanted}
        return fields, logdet, (self.values * whole).sum()

    def _derivative(self, orders: tuple[int, ...], matrices: list, solved: list[Tensor]) -> Tensor:
        field = self.values
        for j, order in enumerate(orders):
            if order:
                found, jittered = matrices[j]
                inner = solved[j] if field is self.values else _Solved.apply(jittered, field, j)[0]
                field = apply([found[order] if i == j else None for i in range(len(orders))], inner)
        return field

    @torch.no_grad()
    def predict(self, points: Sequence[Tensor], orders: Sequence[int]) -> Tensor:
        """The conditional mean of a derivative on a tensor grid of points."""
        rows, whole = [], self.values
        for j, (spectrum, x, order) in enumerate(zip(self.spectra, points, orders, strict=True)):
            nodes, covariance = self.grid.axes[j].coordinates(), spectrum.covariance()
            gram = spectrum.matrices(nodes, (0,))[0] + self.jitter * torch.eye(len(nodes), dtype=torch.float64)
            whole = _Solved.apply(gram, whole, j)[0]
            rows.append(covariance.matrix(x, nodes, order))
        return apply(rows, whole)


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


@torch.no_grad()
def eliminate(solver: Map) -> None:
    """Put U where the objective is smallest for the current hyperparameters.

    With A = [conditions; linearised equation] on nodal values and noise S = diag(1 / (lambda_b tau), 1 / v) it is the
    conditional mean C A^T (A C A^T + S)^{-1} y; with a reaction, Gauss-Newton steps from the last U.
    """
    state, process = solver.state, solver.state.process
    factors, maps = _dense_maps(process, solver.wanted)
    prior = _kron(factors)
    zero, count = solver.zero, math.prod(solver.grid.shape)
    numbers = torch.arange(count).reshape(solver.grid.shape)
    rows = torch.cat(
        [
            maps[solver._orders(c)][numbers.select(c.axis, 0 if c.end == "lower" else -1).flatten()]
            for c in solver.equation.conditions
        ]
    )
    linear = torch.zeros_like(prior)
    for term in solver._terms():
        coefficient = torch.as_tensor(term.coefficient, dtype=torch.float64).expand(solver.grid.shape)
        linear += coefficient.reshape(-1, 1) * maps[term.orders]
    tau, v = (state.log_tau.exp() * solver.settings.weight), state.log_v.exp()
    noise = torch.cat([(1 / tau).expand(len(rows)), (1 / v).expand(count)])
    for _ in range(GAUSS_NEWTON if solver.equation.reaction is not None else 1):
        now = process.values.flatten()
        fields = {orders: (matrix @ now).reshape(solver.grid.shape) for orders, matrix in maps.items()}
        if state.known:
            fields = {orders: value + state.known[orders] for orders, value in fields.items()}
        slope = solver.equation.slope(fields[zero]).reshape(-1, 1) * maps[zero]
        observed = torch.cat([rows, linear + slope])
        target = observed @ now - torch.cat(solver.misfits(fields))
        cross = prior @ observed.T
        system = observed @ cross + torch.diag(noise)
        size = system.diagonal().sqrt()
        factor, info = torch.linalg.cholesky_ex(system / size[:, None] / size)
        if int(info):
            raise SolverError("The system for U is not positive definite: use more jitter, or eliminated=False.")
        after = cross @ (torch.cholesky_solve((target / size)[:, None], factor)[:, 0] / size)
        _step_to(solver, after)
        change = float((process.values.flatten() - now).norm())
        if change <= SETTLED * float(after.norm()):
            break


def _step_to(solver: Map, target: Tensor) -> None:
    """All the way where the objective falls by it (always, in a linear equation), else part of the way."""
    process = solver.state.process
    now, change, share = process.values, target.reshape(process.values.shape) - process.values, 1.0
    if solver.equation.reaction is None:
        process.values = now + change
        return
    before = float(solver.loss())
    while share > SHORTEST:
        process.values = now + share * change
        if float(solver.loss()) < before:
            return
        share /= 2
    process.values = now


def _dense_maps(process: Process, wanted: set[tuple[int, ...]]) -> tuple[list[Tensor], dict[tuple[int, ...], Tensor]]:
    """The jittered factors, and dense matrices from nodal values to nodal derivatives."""
    factors, along = [], []
    for j, spectrum in enumerate(process.spectra):
        orders = sorted({orders[j] for orders in wanted} | {0})
        found = spectrum.matrices(process.grid.axes[j].coordinates(), orders)
        eye = torch.eye(len(found[0]), dtype=torch.float64)
        factors.append(found[0] + process.jitter * eye)
        along.append({p: eye if p == 0 else torch.linalg.solve(factors[-1], found[p], left=False) for p in orders})
    return factors, {orders: _kron([a[p] for a, p in zip(along, orders, strict=True)]) for orders in wanted}


def _kron(matrices: Sequence[Tensor]) -> Tensor:
    total = torch.ones((1, 1), dtype=torch.float64)
    for matrix in matrices:
        total = torch.kron(total, matrix)
    return total
