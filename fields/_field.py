r"""A field: a function of position as a network, in physical units, that keeps its promises everywhere.

Points in, values out (``point dim -> point channel``), with exact derivatives in the same pass. What is imposed is
exact: periodic axes (all derivatives), values and slopes on faces (:math:`u = g + \sum_q w_q N_q`, see
:mod:`._conditions`), vectors without divergence (:math:`u = \nabla\times\psi`), positive values (:math:`u = e^N`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Generator, Tensor, nn

from ..pde import Axis, Condition, Grid
from ._activations import exponential
from ._conditions import Lift, free_functions
from ._jet import Jet, Second, by_forward_mode, joined, seed
from ._network import Initialisation, Layered, Network, stable_deviation, vi3nr_

Form = Literal["plain", "positive", "solenoidal"]
CHUNK = 65_536  # points at a time in a query
EDGE = 1e-9  # of an axis: what rounding may put outside


class Field(nn.Module):
    """u(x) on the box of a grid.

    mean, scale   of each channel: u = mean + scale N; exp of that, where the form is ``positive``
    form          ``solenoidal``: the network's outputs are the stream function (plane) or vector potential (space)
    conditions    values and slopes on faces that hold exactly, of one channel
    sees_lift     the network has g, what the conditions say of a point, as one coordinate more: where a field begins
                  with a front or a kink, what follows has it at the same place
    diffusivity   with which the beginning (of the last axis) spreads in g along periodic axes, as heat does
    speed         with which it travels in g along a periodic axis, as waves do
    """

    lower: Tensor
    slope: Tensor
    mean: Tensor
    scale: Tensor
    span: Tensor  # middle and half range of the values given

    def __init__(
        self,
        domain: Grid,
        network: Network,
        *,
        mean: Sequence[float] | Tensor = (0.0,),
        scale: Sequence[float] | Tensor = (1.0,),
        form: Form = "plain",
        conditions: Sequence[Condition] = (),
        sees_lift: bool = False,
        diffusivity: float = 0.0,
        speed: float = 0.0,
    ) -> None:
        super().__init__()
        if sees_lift and not conditions:
            raise ValueError("A network sees the lift of conditions; this field has none.")
        if conditions and form != "plain":
            raise ValueError(f"Conditions on faces are imposed on plain fields; this one is {form}.")
        if form == "solenoidal" and domain.dim not in (2, 3):
            raise ValueError(f"A field without divergence lives in 2 or 3 dimensions, got {domain.dim}.")
        self.domain, self.network, self.form, self.conditions = domain, network, form, tuple(conditions)
        self.sees_lift, self.diffusivity, self.speed = sees_lift, diffusivity, speed
        self.recipe: tuple[str, dict[str, Any]] | None = None  # file and options of the network, where it is one's
        dtype = next(network.parameters()).dtype
        dtype = torch.float64 if dtype in (torch.float64, torch.complex128) else torch.float32
        self.lift = Lift(domain, conditions, diffusivity, speed).to(dtype) if conditions else None
        for name, values in (
            ("lower", [axis.lower for axis in domain.axes]),
            ("slope", [2 / axis.length for axis in domain.axes]),
            ("mean", mean),
            ("scale", scale),
            ("span", _span(conditions)),
        ):
            self.register_buffer(name, torch.as_tensor(values, dtype=torch.float64).to(dtype))

    def forward(
        self, points: Float[Tensor, "point dim"], *, extrapolate: bool = False
    ) -> Float[Tensor, "point channel"]:
        """Values. Points outside the domain are refused unless asked for (periodic axes have no outside)."""
        if not extrapolate:
            self.check(points)
        if len(points) <= CHUNK:
            return self.jet(points).value
        return torch.cat([self.jet(part).value for part in points.split(CHUNK)])

    def value_gradient_laplacian(
        self, points: Float[Tensor, "point dim"]
    ) -> tuple[Float[Tensor, "point channel"], Float[Tensor, "point channel dim"], Float[Tensor, "point channel"]]:
        """In one pass, in physical units."""
        self.check(points)
        jet = self.jet(points, gradient=True, second="laplacian")
        return jet.value, jet.first.movedim(0, -1), jet.seconds[0]

    def jet(self, points: Float[Tensor, "point dim"], *, gradient: bool = False, second: Second = "none") -> Jet:
        """Values with the derivatives asked for; not checked for points outside."""
        if self.form == "solenoidal":
            if gradient or second != "none":
                return by_forward_mode(self._curl, points, second=second)
            return Jet(self._curl(points)[None])
        return self._plain(seed(points, gradient=gradient, second=second))

    def outer(self, axes: Sequence[Tensor], *, extrapolate: bool = False) -> Float[Tensor, "channel *space"]:
        """Values on the product of positions along each axis [physical units], which some networks do faster."""
        if not extrapolate:
            self.check_axes(axes)
        if self.form != "plain" or self.lift is not None:
            mesh = torch.stack(torch.meshgrid(*axes, indexing="ij")).flatten(1).t()
            return self(mesh, extrapolate=True).t().unflatten(1, [len(x) for x in axes])
        internal = [(x.to(self.lower) - a) * b - 1 for x, a, b in zip(axes, self.lower, self.slope, strict=True)]
        shape = (-1, *[1] * len(axes))
        return self.network.outer(internal) * self.scale.view(shape) + self.mean.view(shape)

    def check_axes(self, axes: Sequence[Tensor]) -> None:
        """Refuse positions along axes that are not of this domain."""
        if len(axes) != self.domain.dim:
            raise ValueError(f"Points of this field have {self.domain.dim} coordinates, got {len(axes)}.")
        for axis, x in zip(self.domain.axes, axes, strict=True):
            check_along(axis, x)

    def check(self, points: Float[Tensor, "point dim"]) -> None:
        """Refuse points that are not of this domain."""
        if points.shape[1] != self.domain.dim:
            raise ValueError(f"Points of this field have {self.domain.dim} coordinates, got {points.shape[1]}.")
        for j, axis in enumerate(self.domain.axes):
            check_along(axis, points[:, j])

    def _plain(self, at: Jet) -> Jet:
        """The jet of the values from that of the positions."""
        if self.lift is not None:
            total, parts = self.lift(at)
            for q, (weight, where) in enumerate(parts):
                free = self.network(self.inner(where)).select(slice(q, q + 1))
                total = total + weight * (free * self.scale + self.mean)
            return total
        jet: Jet = self.network(self.inner(at))
        jet = jet * self.scale + self.mean
        return jet.through(exponential) if self.form == "positive" else jet

    def inner(self, at: Jet) -> Jet:
        """Positions as the network has them: each axis from -1 to 1, so too the lift where it is seen."""
        places = (at - self.lower) * self.slope + -1.0
        if self.lift is None or not self.sees_lift:
            return places
        return joined([places, (self.lift(at)[0] + -self.span[0]) * (1 / self.span[1])])

    def _curl(self, points: Float[Tensor, "point dim"]) -> Float[Tensor, "point dim"]:
        first = self._plain(seed(points, gradient=True)).first
        if self.domain.dim == 2:
            return torch.stack([first[1, :, 0], -first[0, :, 0]], dim=-1)
        pairs = ((1, 2), (2, 0), (0, 1))
        return torch.stack([first[a, :, b] - first[b, :, a] for a, b in pairs], dim=-1)


def _span(conditions: Sequence[Condition]) -> tuple[float, float]:
    values = [condition.values.detach().double().flatten() for condition in conditions if condition.order == 0]
    if not values:
        return 0.0, 1.0
    least, most = float(torch.cat(values).min()), float(torch.cat(values).max())
    return (least + most) / 2, (most - least) / 2 or 1.0


def check_along(axis: Axis, x: Float[Tensor, " point"]) -> None:
    """Refuse positions along an axis that are outside of it, or not numbers."""
    slack = EDGE * axis.length + 1e-6 * max(abs(axis.lower), abs(axis.upper)) * (x.dtype == torch.float32)
    outside = ~torch.isfinite(x)
    if not axis.periodic:
        outside |= (x < axis.lower - slack) | (x > axis.upper + slack)
    if bool(outside.any()):
        raise ValueError(
            f"{int(outside.sum())} of {len(x)} points lie outside {axis.name} in [{axis.lower:g}, {axis.upper:g}] "
            f"(first: {float(x[outside][0]):g}); pass extrapolate=True to ask all the same."
        )


def composed(
    domain: Grid,
    network: Callable[[int], Network],
    channels: int,
    *,
    generator: Generator,
    form: Form = "plain",
    init: Initialisation = "published",
    sigma: float = 0.0,
    **promises: Any,
) -> Field:
    """A field around the network of as many outputs as the form needs.

    form     plain | positive | solenoidal
    init     the architecture's published initialisation, or ``vi3nr``: by variance theory
    sigma    vi3nr: standard deviation of pre-activations; 0: where the gradients are stable too (sines: as small as is
             looked at, 1e-3; scan it)
    """
    outputs = channels
    if form == "solenoidal":
        if channels != domain.dim:
            raise ValueError(f"A field without divergence has {domain.dim} channels, one a direction; got {channels}.")
        outputs = 1 if domain.dim == 2 else 3
    conditions = promises.get("conditions", ())
    if conditions:
        if channels != 1:
            raise ValueError(f"Conditions hold exactly for fields of one channel, this one has {channels}.")
        outputs = free_functions(domain, conditions)
    made = network(outputs)
    if init == "vi3nr":
        if not isinstance(made, Layered):
            raise ValueError(
                f"vi3nr is about affine layers with one real activation; {type(made).__name__} is not made of these. "
                "Use init='published'."
            )
        vi3nr_(made, domain.dim, sigma=sigma or stable_deviation(made.activation), generator=generator)
    return Field(domain, made, form=form, **promises)


def derivative(field: Field, points: Float[Tensor, "point dim"], axes: Sequence[int]) -> Float[Tensor, "point channel"]:
    """The derivative by these axes, one after the other, in physical units; not checked for points outside.

    Up to the second along one axis from one jet, others by forward mode through the jets of lower ones.
    """
    if not axes:
        return field.jet(points).value
    if len(axes) == 1:
        return field.jet(points, gradient=True).first[axes[0]]
    if len(axes) == 2 and axes[0] == axes[1]:
        return field.jet(points, second="axes").seconds[axes[0]]
    *rest, last = sorted(axes)  # equal ones together
    unit = torch.zeros_like(points)
    unit[:, last] = 1.0
    return torch.func.jvp(lambda x: derivative(field, x, rest), (points,), (unit,))[1]


def points_of(grid: Grid, *, dtype: torch.dtype = torch.float64) -> Float[Tensor, "point dim"]:
    """The nodes of a grid as a list, in array order."""
    return grid.mesh(dtype=dtype).flatten(1).t().contiguous()


def on_grid(field: Field, grid: Grid, *, dtype: torch.dtype = torch.float32) -> Float[Tensor, "channel *space"]:
    """A field at the nodes of a grid."""
    with torch.no_grad():
        return field.outer(grid.coordinates(dtype=dtype))
