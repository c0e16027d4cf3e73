r"""Fields of space and time solve an evolution, window after window: causal, each begins where the one before ended.

.. math:: u = u_k(x) + (t - t_k)\,v_k(x) + w(x)\,(t - t_k)^m N_\theta(x, t),\qquad t_k \le t \le t_{k+1}

with m = 1 (no v; along periodic axes u_k spreads by the equation's own diffusivity), or 2 for equations of second
order in time (along one axis, periodic or between walls of one kind, u_k and v_k travel with the equation's own speed:
what two terms in t make of short waves, which turn often in a window, no network mends). Beginning and walls hold
exactly, periodic axes with all derivatives; what is left is the equation at random points of the window, by Levenberg
and Marquardt's method in double precision (:mod:`._satisfy`: half of the points evenly, half by the residual). u_k is
taken from the window before at ``NODES`` nodes an axis and interpolated between them. Where m = 1 the network sees it
as one coordinate more, so that fronts and kinks of the beginning are where it can use them; where m = 2 they leave
their place. In time a network starts with the waves that the equation gives the beginning, (rms of what the highest
time derivative equals / rms of u)^(1/m). Weights begin as those of the window before.
"""

from __future__ import annotations

import itertools
import math
import warnings
from collections.abc import Sequence
from typing import Any

import torch
from torch import Generator, Tensor

from ..pde import Axis, Condition, Grid, Problem, Solver
from ..pde._solver import check_fields, check_times
from ._conditions import Lift, given_on
from ._field import Field, points_of
from ._jet import seed
from ._satisfy import Finish, Law, System, enough, satisfy
from ._solve import POOR, Make, MisfitWarning, check_counts
from ._spectrum import bandwidths
from ._strong import Strong, strong_form

# nodes of an axis that a window begins on, for so many directions of space: by splines, by waves
NODES = {1: (1025, 512), 2: (129, 128)}
PIECE = 8192  # points at a time
IN_TIME = 9  # nodes of a window in time, for what is given on walls
OVER = 8  # candidates a point
SLOWEST = math.pi / 2  # least wave number of a network, and that in u_k [rad per internal unit]
PROBES = 2000  # points at which a beginning's pace is measured


class MarchingSolver(Solver):
    """One trajectory at a time; ``misfits``: of each, the largest relative residual of a window, at points kept out.

    windows   of time, of equal length, each with a field of its own
    """

    def __init__(
        self, problem: Problem, grid: Grid, make: Make, *, windows: int, iterations: int, points: int, seed: int,
        finish: Finish = "levenberg",
    ) -> None:  # fmt: skip
        check_counts(iterations, points)
        if windows < 1:
            raise ValueError(f"windows are at least 1, got {windows}.")
        self.problem, self.strong, self.make, self.windows = problem, strong_form(problem), make, windows
        self.iterations, self.points, self.seed, self.finish = iterations, points, seed, finish
        self.misfits: tuple[float, ...] = ()
        if grid.dim not in NODES:
            raise ValueError(f"Fields march in {' or '.join(map(str, NODES))} directions of space, got {grid.dim}.")
        given_on(grid, walls_of(grid))

    def __call__(self, inputs: Tensor, grid: Grid, times: Sequence[float] | None = None) -> Tensor:
        asked = tuple(self.problem.signature.times if times is None else times)
        check_times(asked)
        marched = self.solve(inputs, grid, asked[-1])
        axes = grid.coordinates()
        answers = [torch.stack([state_at(fields, time, axes, self.strong) for time in asked]) for fields in marched]
        return torch.stack(answers).to(inputs)

    def solve(self, inputs: Tensor, grid: Grid, until: float) -> list[list[Field]]:
        """Of each sample the fields of all windows."""
        check_fields(inputs, grid, len(self.problem.signature.inputs))
        exact = inputs.detach().to("cpu", torch.float64)
        solved = [self._march(sample, grid, until) for sample in exact]
        self.misfits = tuple(max(misfits) for _, misfits in solved)
        if max(self.misfits, default=0.0) > POOR:
            warnings.warn(
                f"Relative residual {max(self.misfits):.1e}: allow more windows, width, points or iterations.",
                MisfitWarning, stacklevel=2,
            )  # fmt: skip
        return [fields for fields, _ in solved]

    def _march(self, state: Tensor, grid: Grid, until: float) -> tuple[list[Field], list[float]]:
        fields: list[Field] = []
        misfits: list[float] = []
        waves: list[float] = []  # of the first window's beginning: all networks are alike
        ends = [until * k / self.windows for k in range(self.windows + 1)]
        for number, (begin, end) in enumerate(itertools.pairwise(ends)):
            domain, promises = self._posed(state, grid, begin, end)
            waves = waves or self._waves(state, grid, domain, promises["conditions"])
            field = self.make(domain, waves, **promises)
            if fields:
                field.network.load_state_dict(fields[-1].network.state_dict())
            misfits.append(self._window(field, steepness(state[0], grid), self.seed + number))
            fields.append(field)
            grid = grid.at(
                [max(axis.size, NODES[grid.dim][axis.periodic or self.strong.order > 1]) for axis in grid.axes]
            )
            state = state_at(fields, end, grid.coordinates(), self.strong)
        return fields, misfits

    def _posed(self, state: Tensor, grid: Grid, begin: float, end: float) -> tuple[Grid, dict[str, Any]]:
        """Space and time of a window, and what its field promises: the beginning and the walls."""
        time = Axis("t", IN_TIME, begin, end, ("outflow", "outflow"), "ends", self.problem.signature.time_unit)
        start = [Condition(grid.dim, "lower", state[m][None], order=m) for m in range(self.strong.order)]
        conditions = [*start, *walls_of(grid, IN_TIME)]
        moves = {"diffusivity": self.strong.diffusivity, "speed": self.strong.speed}
        how = {"sees_lift": self.strong.order == 1, "dtype": torch.float64}
        return Grid((*grid.axes, time)), {"conditions": conditions, **moves, **how}

    def _waves(self, state: Tensor, grid: Grid, domain: Grid, conditions: Sequence[Condition]) -> list[float]:
        """Of space by the beginning's spectrum, of time by its pace, of the beginning as a coordinate."""
        lift = Lift(domain, conditions, self.strong.diffusivity, self.strong.speed)
        in_time = 0.5 * domain.axes[-1].length * rate_of(lift, self.strong)
        waves = [max(k, SLOWEST) for k in (*bandwidths(state[:1], grid), in_time)]
        return waves + [SLOWEST] * (self.strong.order == 1)

    def _window(self, field: Field, density: Tensor, seed: int) -> float:
        count = self.points or enough(field.network, self.iterations)
        points, weights = scattered(field.domain, density, OVER * count, Generator().manual_seed(seed))
        law = Law(points, self.strong.rows, size_of(field, points, weights, self.strong), weights)
        return satisfy(field, [law], iterations=self.iterations, points=count, seed=seed, finish=self.finish)


def walls_of(grid: Grid, *rest: int) -> list[Condition]:
    """Nothing passes walls of a kind: u = 0 (``dirichlet``) or its slope is (``neumann``)."""
    conditions = []
    for j, axis in enumerate(grid.axes):
        shape = [n for i, n in enumerate(grid.shape) if i != j] + list(rest)
        for end, kind in zip(("lower", "upper"), axis.boundary, strict=True):
            if kind in ("dirichlet", "neumann"):
                zero = torch.zeros(1, *shape, dtype=torch.float64)
                conditions.append(Condition(j, end, zero, order=int(kind == "neumann")))  # type: ignore[arg-type]
    return conditions


def steepness(state: Tensor, grid: Grid) -> Tensor:
    """A density at the nodes of space: half of it even, half by the size of the gradient."""
    slopes = [torch.gradient(state, spacing=axis.spacing, dim=j)[0] for j, axis in enumerate(grid.axes)]
    size = torch.stack(slopes).square().sum(dim=0).sqrt()
    return 0.5 + 0.5 * size / size.mean().clamp_min(1e-300) if bool(size.any()) else torch.ones_like(size)


def scattered(domain: Grid, density: Tensor, count: int, generator: Generator) -> tuple[Tensor, Tensor]:
    """Random points of space (by the density) and time (even), and their weights, one over the density."""
    space = Grid(domain.axes[:-1])
    share = density.flatten() / density.sum()
    nodes = torch.multinomial(share, count, replacement=True, generator=generator)
    unit = torch.rand(count, domain.dim, generator=generator, dtype=torch.float64)
    columns = []
    for j, axis in enumerate(space.axes):  # evenly within the node's cell; what leaves the axis comes back
        x = points_of(space)[nodes, j] + (unit[:, j] - 0.5) * axis.spacing
        if not axis.periodic:
            x = torch.where(x < axis.lower, 2 * axis.lower - x, torch.where(x > axis.upper, 2 * axis.upper - x, x))
        columns.append(x)
    time = domain.axes[-1]
    points = torch.stack([*columns, time.lower + unit[:, -1] * time.length], dim=1)
    return points, 1 / (density.flatten()[nodes] / density.mean())


@torch.no_grad()
def rate_of(lift: Lift, strong: Strong) -> float:
    """How fast the equation changes a beginning [rad per unit of time]."""
    box = lift.domain
    unit = torch.rand(PROBES, box.dim, dtype=torch.float64, generator=Generator().manual_seed(0))
    places = torch.tensor([axis.lower for axis in box.axes]) + unit * torch.tensor(box.lengths, dtype=torch.float64)
    jets = lift(seed(places, second="axes"))[0].orders.permute(1, 2, 0)
    size = float(jets[:, 0, 0].square().mean().sqrt())
    return (strong.pace(jets, torch.ones(PROBES, dtype=torch.float64)) / size) ** (1 / strong.order) if size else 0.0


def size_of(field: Field, points: Tensor, weights: Tensor, strong: Strong) -> float:
    """What residuals of a window are relative to: what drives it at its beginning, or a change of u within it."""
    jets = System(field, [Law(points, strong.rows)]).trials[0].given
    change = float((weights * jets[:, 0, 0].square()).mean().sqrt()) / field.domain.axes[-1].length ** strong.order
    return max(strong.pace(jets, weights), 1e-3 * change, 1e-300)


@torch.no_grad()
def state_at(fields: Sequence[Field], time: float, axes: Sequence[Tensor], strong: Strong) -> Tensor:
    """The state at a time on the product of positions, ``channel *space``."""
    ends = [field.domain.axes[-1].upper for field in fields]
    field = fields[next((k for k, end in enumerate(ends) if time <= end * (1 + 1e-12)), len(ends) - 1)]
    mesh = torch.stack(torch.meshgrid(*axes, indexing="ij")).flatten(1).t()
    points = torch.cat([mesh, torch.full_like(mesh[:, :1], time)], dim=1)
    states = []
    for part in points.split(PIECE):
        jet = field.jet(part, gradient=strong.order > 1)
        states.append(jet.orders[[0, jet.dim] if strong.order > 1 else [0], :, 0])
    return torch.cat(states, dim=1).unflatten(1, [len(x) for x in axes])
