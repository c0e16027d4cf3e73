r"""Evolutions as equations in space and time: what a field of both satisfies, and how it begins.

A strong form is a function of the jet of u at points of (space…, t): the value, the first derivatives by each axis, the
second ones. ``order`` is that of its highest derivative in time: 1: begins with u, 2: with u and u_t, the two channels
of the state. A problem is added by ``@strong_form.register``.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from ..pde import Problem
from ..pde.allen_cahn import AllenCahn
from ..pde.burgers import Burgers
from ..pde.fisher_kpp import FisherKPP
from ..pde.heat import Heat
from ..pde.wave import Wave


@dataclass(frozen=True)
class SpaceTime:
    """The jet of one function of space and time, by name."""

    jet: Tensor  # point order

    @property
    def axes(self) -> int:
        return (self.jet.shape[1] - 1) // 2

    @property
    def u(self) -> Tensor:
        return self.jet[:, 0]

    @property
    def u_t(self) -> Tensor:
        return self.jet[:, self.axes]

    @property
    def u_tt(self) -> Tensor:
        return self.jet[:, -1]

    @property
    def u_x(self) -> Tensor:
        return self.jet[:, 1]

    @property
    def laplacian(self) -> Tensor:
        """In space."""
        return self.jet[:, 1 + self.axes : -1].sum(dim=1)


@dataclass(frozen=True)
class Strong:
    """The highest time derivative less all that it equals, and that derivative's order.

    diffusivity   of the Laplacian on the right, where there is one and the order is 1
    speed         its square is the factor of that Laplacian, where the order is 2
    """

    residual: Callable[[SpaceTime], Tensor]
    order: int = 1
    diffusivity: float = 0.0
    speed: float = 0.0

    def rows(self, jets: Tensor, chosen: Tensor) -> Tensor:
        return self.residual(SpaceTime(jets[:, 0]))[:, None]

    def pace(self, jets: Tensor, weights: Tensor) -> float:
        """Root (weighted) mean square of what the highest time derivative equals."""
        still = jets[:, 0].clone()
        axes = (still.shape[1] - 1) // 2
        still[:, axes], still[:, -1] = 0.0, 0.0
        return float((weights * self.residual(SpaceTime(still)).square()).mean().sqrt())


@functools.singledispatch
def strong_form(problem: Problem) -> Strong:
    known = ", ".join(sorted(kind.__module__.rpartition(".")[2] for kind in strong_form.registry if kind is not object))
    raise ValueError(
        f"Fields solve the evolutions whose strong form they know ({known}); {problem.name} is not one of them. "
        "Register it with resolvent.fields._strong.strong_form."
    )


@strong_form.register
def _(problem: Burgers) -> Strong:
    return Strong(lambda j: j.u_t + j.u * j.u_x - problem.viscosity * j.laplacian, diffusivity=problem.viscosity)


@strong_form.register
def _(problem: AllenCahn) -> Strong:
    a, b = problem.growth, problem.saturation
    return Strong(
        lambda j: j.u_t - problem.diffusivity * j.laplacian - a * j.u + b * j.u**3, diffusivity=problem.diffusivity
    )


@strong_form.register
def _(problem: FisherKPP) -> Strong:
    return Strong(
        lambda j: j.u_t - problem.diffusivity * j.laplacian - problem.rate * j.u * (1 - j.u),
        diffusivity=problem.diffusivity,
    )


@strong_form.register
def _(problem: Heat) -> Strong:
    return Strong(lambda j: j.u_t - problem.diffusivity * j.laplacian, diffusivity=problem.diffusivity)


@strong_form.register
def _(problem: Wave) -> Strong:
    return Strong(lambda j: j.u_tt - problem.speed**2 * j.laplacian, order=2, speed=problem.speed)
