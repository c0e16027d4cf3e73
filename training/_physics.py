r"""An equation as an objective: mean squares of the virtual observables of a batch, where no label is needed.

.. math:: L_b = \frac1n \sum_j \Big(\frac{R_j}{\ell}\Big)^{2p} \frac{r_{bj}^2}{s_b^2}
          + \frac1m \sum_i \frac{|\sigma_{bi} - F_{bi}|^2}{(s_b\,\ell)^2} + \frac1k \sum_i \frac{g_{bi}^2}{\gamma^2}

r      residuals on balls of radius R around random centres, fresh each step and the same for all samples of the batch,
       so that whatever depends on points alone is computed once
s      size of each equation, l a quarter of the domain's mean width
       form ``energy``, for problems that minimise one: its integral instead, over one random point in each cell of the
       grid, in units of the source times the solution; every test function at once, and no noise from their choice
       form ``dual``, on boxes: the square of the residual's dual norm (``pde._dual_norm``) in units of (s l)²; every
       test function at once for equations that minimise nothing
sigma  fluxes decoded on their own (mixed form), which the balances then use in place of F; none in the primal form
g      conditions at points of the boundary that are not built into the answer
p      0: every ball counts alike (published); 1: as much as its test function resolves, the norm dual to energy
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float
from scipy.interpolate import CubicSpline
from torch import Generator, Tensor

from ..pde import Axis, Grid, Problem
from ..pde._balls import BallRule, Balls, Rule, ball_rule, check_radii, draw_balls
from ..pde._dual_norm import BoxNorm, DualNorm, TestedNorm
from ..pde._weak_form import (
    Balance,
    Candidate,
    Lattice,
    Places,
    WithWeakForm,
    centres,
    draw_strata,
    listed,
    minimises,
)

STRATA = 4096  # points of an energy at most, as many an axis
TESTED, NODES = 1.5, 2.5  # test functions of a dual norm and nodes of its rule for each wave of an answer, an axis

Form = Literal["balls", "energy", "dual"]


@dataclass(frozen=True)
class Answer:
    """A network at shared points: outputs ``batch point`` and gradients ``batch point dim`` by name, and fluxes by name
    of the balance, where they are decoded on their own.
    """

    outputs: Mapping[str, Tensor]
    gradients: Mapping[str, Tensor]
    fluxes: Mapping[str, Tensor] = field(default_factory=dict)


Ask = Callable[[Places], Answer]  # points -> what a network says there


class Physics:
    """The objective of one problem on one grid.

    balls    test functions a step
    radii    of their balls, in parts of the domain's smallest width
    rule     quadrature of a ball; ``nodes`` of it along a radius
    edges    points a step where conditions are asked for
    power    p
    form     residuals on ``balls``, the problem's ``energy``, or the ``dual`` norm of all residuals
    waves    an axis that the dual norm is to test
    fixed    the energy at the centres of the cells: no noise, for inputs and answers that the grid resolves
    """

    def __init__(
        self,
        problem: Problem,
        grid: Grid,
        *,
        balls: int = 100,
        radii: Sequence[float] = (0.03, 0.1),
        rule: Rule = "gauss",
        nodes: int = 4,
        edges: int = 100,
        power: float = 1.0,
        form: Form = "balls",
        waves: int = 16,
        fixed: bool = False,
    ) -> None:
        if not isinstance(problem, WithWeakForm):
            raise ValueError(
                f"{problem.name} declares no weak form, so nothing can be learned from its equation alone. Problems "
                "that do: burgers, darcy, helmholtz, poisson, stokes."
            )
        if balls < 1 or edges < 1:
            raise ValueError(f"There is at least 1 ball and 1 point on the boundary a step, got {balls} and {edges}.")
        self.problem, self.grid, self.balls, self.edges, self.power = problem, grid, balls, edges, power
        self.posed: Problem = problem
        self.form, self.fixed, self.waves = form, fixed, waves
        if form == "energy" and not minimises(problem):
            raise ValueError(f"{problem.name} minimises no energy; use its weak residuals (form primal or mixed).")
        self.domain = problem.weak_domain(grid)
        self.rule: BallRule = ball_rule(grid.dim, nodes, rule)
        width = min(axis.length for axis in self.domain.axes[: grid.dim])
        self.radii = [radius * width for radius in radii]
        check_radii(self.domain, grid.dim, self.radii)
        self.dual = self._dual_norm() if form == "dual" else None
        self.stay: list[Tensor] = []  # points that are the same in every step
        if isinstance(self.dual, TestedNorm):
            edge = problem.boundary_points(edges, grid, generator=torch.Generator().manual_seed(0)).float()
            self.stay = [self.dual.places, edge]
        self.length = sum(axis.length for axis in self.domain.axes[: grid.dim]) / grid.dim / 4

    def loss(self, inputs: Float[Tensor, "batch channel *space"], ask: Ask, generator: Generator) -> Tensor:
        """One value a sample; inputs in physical units on the grid, ``ask`` for the same samples."""
        if self.form != "balls":
            every = self._energy(inputs, ask, generator) if self.dual is None else self._dual(self.dual, inputs, ask)
            return every + self.conditions(inputs, ask, generator)
        balls = self.draw(generator, inputs)
        points = balls.points
        answer = ask(points)
        total = inputs.new_zeros(len(inputs))
        weight, scales = (balls.radii / self.length) ** self.power, self.scales(inputs)
        for name, balance in self.problem.balances(self.candidate(inputs, points, answer)).items():
            scale = scales[name]
            if name in answer.fluxes:
                misfit = (answer.fluxes[name] - balance.flux) / (scale[:, None, None] * self.length)
                total = total + misfit.square().sum(dim=2).mean(dim=1)
                balance = Balance(answer.fluxes[name], balance.density)
            total = total + (weight * balls.observe(balance) / scale[:, None]).square().mean(dim=1)
        return total + self.conditions(inputs, ask, generator)

    def _energy(self, inputs: Tensor, ask: Ask, generator: Generator) -> Tensor:
        cells = energy_cells(self.domain)
        places: Places = (
            centres(self.domain, cells) if self.fixed else draw_strata(self.domain, cells, generator=generator)
        )
        places = places.to(inputs)
        density = self.problem.energy(self.candidate(inputs, places, ask(places)))
        assert density is not None
        (scale,), (size,) = self.scales(inputs).values(), self.problem.output_scales(inputs, self.grid).values()
        return density.mean(dim=1) / (scale * size)

    def _dual_norm(self) -> DualNorm:
        if self.problem.functions(1):
            return TestedNorm(*self.problem.quadrature(), self.problem.tests(self.waves))
        tests, nodes = (math.ceil(ratio * self.waves) for ratio in (TESTED, NODES))
        dim = self.grid.dim
        options: dict[str, Any] = {"fed": self.problem.fed([tests] * dim), "stiffness": self.problem.stiffness}
        norm = BoxNorm(self.domain, dim, waves=[tests] * dim, nodes=[nodes] * dim, **options)
        points = listed(norm.places)
        if not bool(self.problem.clear(points, points.new_zeros(len(points))).all()):
            raise ValueError(f"{self.posed.name} has an obstacle and declares no functions around it: use form primal.")
        return norm

    def _dual(self, norm: DualNorm, inputs: Tensor, ask: Ask) -> Tensor:
        points = norm.places.to(inputs)
        scales = self.scales(inputs)
        balances = self.problem.balances(self.candidate(inputs, points, ask(points)))
        parts = [norm.square(balance, name) / (scales[name] * self.length) ** 2 for name, balance in balances.items()]
        return torch.stack(parts).sum(dim=0)

    @property
    def conditioned(self) -> bool:
        """Whether points on the boundary are asked at all: not where conditions are built in, or part of the norm."""
        if isinstance(self.dual, BoxNorm) and self.dual.fed:
            return False
        return bool(len(self.problem.boundary_points(1, self.grid, generator=torch.Generator())))

    def conditions(self, inputs: Tensor, ask: Ask, generator: Generator) -> Tensor:
        """Mean squares of what the boundary asks for, one value a sample."""
        total = inputs.new_zeros(len(inputs))
        if self.conditioned:
            points = (
                self.stay[1] if self.stay else self.problem.boundary_points(self.edges, self.grid, generator=generator)
            ).to(inputs)
            for residual in self.problem.conditions(self.candidate(inputs, points, ask(points))).values():
                total = total + residual.square().mean(dim=1)
        return total

    def draw(self, generator: Generator, like: Tensor) -> Balls:
        """Fresh balls in the clear, in the coordinates and on the device of the inputs."""
        drawn = draw_balls(self.domain, self.rule, self.balls, self.radii, generator=generator)
        free = self.problem.clear(drawn.centres, drawn.radii)
        return Balls(drawn.centres[free].to(like), drawn.radii[free].to(like), self.rule)

    def scales(self, inputs: Tensor) -> Mapping[str, Tensor]:
        """The size of each equation, one a sample."""
        return self.problem.balance_scales(inputs, self.grid)

    def between(self, points: Places) -> Between:
        """Nodal inputs at points of the domain."""
        return Between(self.grid, points, nearest=bool(self.problem.phases))

    def candidate(self, inputs: Tensor, points: Places, answer: Answer) -> Candidate:
        where = self.between(points)
        names = [channel.name for channel in self.posed.signature.inputs]
        given = {name: where(inputs[:, channel]) for channel, name in enumerate(names)}
        return Candidate(listed(points), given, answer.outputs, answer.gradients)


def energy_cells(domain: Grid) -> list[int]:
    """Cells an axis by which the energy is summed. Their centres integrate cos(k pi x) exactly for k < 2 cells."""
    most = round(STRATA ** (1 / domain.dim))
    return [min(most, axis.size - (axis.placement == "ends")) for axis in domain.axes]


class Between:
    """Nodal fields at places between the nodes: by cubic splines, or the value at the nearest node. Coordinates behind
    those of the grid (time) do not matter.
    """

    def __init__(self, grid: Grid, places: Places, *, nearest: bool = False) -> None:
        self.grid, self.places, self.nearest = grid, places, nearest

    def __call__(self, fields: Float[Tensor, "batch *space"]) -> Float[Tensor, "batch point"]:
        if self.nearest:
            return fields.flatten(1)[:, self._nearest]
        return self._sum(fields, [0] * self.grid.dim)

    def gradient(self, fields: Float[Tensor, "batch *space"]) -> Float[Tensor, "batch point dim"]:
        """Of the splines."""
        each = [[int(i == j) for i in range(self.grid.dim)] for j in range(self.grid.dim)]
        return torch.stack([self._sum(fields, orders) for orders in each], dim=-1)

    def _sum(self, fields: Tensor, orders: Sequence[int]) -> Tensor:
        if isinstance(self.places, Lattice):
            return self._rows(self.places, fields, orders)
        batch = fields.shape[0]
        values = fields.movedim(0, -1)  # the batch last: each axis is then one product with the rest
        for number, order in enumerate(orders):
            matrix = self._matrix(number, self.places[:, number], order)
            values = (
                (matrix @ values.flatten(1)).unflatten(1, values.shape[1:])
                if number == 0
                else torch.einsum("ps,ps...->p...", matrix, values)
            )
        return values.reshape(-1, batch).t()

    def _rows(self, lattice: Lattice, fields: Tensor, orders: Sequence[int]) -> Tensor:
        for number, order in enumerate(orders):
            matrix = self._matrix(number, lattice.axes[number], order)
            fields = (fields.movedim(number + 1, -1) @ matrix.t()).movedim(-1, number + 1)
        times = math.prod(lattice.shape[self.grid.dim :])
        return fields.flatten(1)[..., None].expand(-1, -1, times).flatten(1)

    def _matrix(self, number: int, x: Tensor, order: int) -> Float[Tensor, "point node"]:
        places = x.detach().cpu().double().numpy()
        return torch.from_numpy(_spline(self.grid.axes[number])(places, order)).to(x)

    @functools.cached_property
    def _nearest(self) -> Tensor:
        points = listed(self.places)
        number = torch.zeros(len(points), dtype=torch.long, device=points.device)
        for x, axis in zip(points.unbind(1), self.grid.axes, strict=False):
            first = axis.lower + (0.5 * axis.spacing if axis.placement == "centres" else 0.0)
            index = ((x - first) / axis.spacing).round().long()
            index = index % axis.size if axis.periodic else index.clamp(0, axis.size - 1)
            number = number * axis.size + index
        return number


@functools.lru_cache(maxsize=32)
def _spline(axis: Axis) -> CubicSpline:
    nodes, identity = axis.coordinates().numpy(), np.eye(axis.size)
    if axis.periodic:  # the first node closes the circle
        return CubicSpline(np.append(nodes, axis.upper), np.vstack([identity, identity[:1]]), bc_type="periodic")
    return CubicSpline(nodes, identity)
