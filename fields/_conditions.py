r"""Values and slopes on faces that hold exactly: u = g + sum of w_q N_q, where g has them and no term changes them.

g is the Boolean sum of blendings along the axes, :math:`1 - \prod_j (1 - P_j)`, where P_j carries what is given on the
faces of axis j into the box by the polynomials of ``KINDS``. Between the nodes of a face its values are a
tensor-product spline of degree up to 7 (periodic axes, and waves that travel between walls: a trigonometric
interpolant). With s from 0 to 1 along the axis:

=====================  ==========================================  ================================================
given                  weights of free functions                   for
=====================  ==========================================  ================================================
values at one end      s N                                         an initial value
values at both         4 s (1 - s) N                               walls
value, slope, one end  s² N                                        an initial value with its velocity
slope at one end       N(0, y) + s² N                              a free end (Neumann)
slopes at both         (1 - q) N(0, y) + q N(1, y) + s²(1-s)² N    q = 3 s² - 2 s³
=====================  ==========================================  ================================================

and value with slope at opposite ends. Any smooth function with these values and slopes is of this form: where the value
on a face is not given it is a function of its own, an output of the network with s held there.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Literal, cast

import numpy as np
import torch
from jaxtyping import Float
from scipy.interpolate import make_interp_spline
from torch import Tensor, nn

from ..pde import Axis, Condition, Grid
from ._activations import cosine_of, exponential, sinc, sine
from ._jet import Jet, Pointwise, joined, seed

DEGREE = 7  # of splines: 6 continuous derivatives, order 8
End = Literal["lower", "upper"]
Series = Literal["fourier", "sine", "cosine"]
Change = Callable[[Tensor], Jet]  # factors of waves by their wave numbers
Given = tuple[End, int]  # an end, the order of the derivative that is given there
Polynomial = tuple[float, ...]  # in s, ascending
Kind = tuple[Mapping[Given, Polynomial], tuple[tuple[Polynomial, End | None], ...]]

# given -> what carries each datum into the box (slopes: by s), weights of the free functions with the end s is held at
KINDS: dict[frozenset[Given], Kind] = {
    frozenset(given): (dict(zip(given, blends, strict=True)), parts)
    for given, blends, parts in cast(
        "list[tuple[tuple[Given, ...], tuple[Polynomial, ...], tuple[tuple[Polynomial, End | None], ...]]]",
        [
            ((), (), (((1.0,), None),)),
            ((("lower", 0),), ((1.0,),), (((0.0, 1.0), None),)),
            ((("lower", 1),), ((0.0, 1.0),), (((1.0,), "lower"), ((0.0, 0.0, 1.0), None))),
            ((("lower", 0), ("lower", 1)), ((1.0,), (0.0, 1.0)), (((0.0, 0.0, 1.0), None),)),
            ((("lower", 0), ("upper", 0)), ((1.0, -1.0), (0.0, 1.0)), (((0.0, 4.0, -4.0), None),)),
            (
                (("lower", 0), ("upper", 1)),
                ((1.0,), (0.0, 1.0)),
                (((0.0, 2.0, -1.0), "upper"), ((0.0, 6.75, -13.5, 6.75), None)),
            ),
            (
                (("lower", 1), ("upper", 1)),
                ((0.0, 1.0, -0.5), (0.0, 0.0, 0.5)),
                (
                    ((1.0, 0.0, -3.0, 2.0), "lower"),
                    ((0.0, 0.0, 3.0, -2.0), "upper"),
                    ((0.0, 0.0, 16.0, -32.0, 16.0), None),
                ),
            ),
        ],
    )
}


def kind_of(given: frozenset[Given], axis: str) -> tuple[bool, Kind]:
    """The row of the table, and whether it is to be read from the other end."""
    mirrored = frozenset((_other(end), order) for end, order in given)
    if given in KINDS or mirrored in KINDS:
        return given not in KINDS, KINDS.get(given) or KINDS[mirrored]
    raise ValueError(
        f"On axis {axis!r} {', '.join(f'order {order} at {end}' for end, order in sorted(given))} cannot all hold "
        "exactly; a value, a slope or a value and a slope at one end, or one of them at each end, can."
    )


def _other(end: End) -> End:
    return "upper" if end == "lower" else "lower"


class AxisBasis(nn.Module):
    """Interpolants between the nodes of an axis: of waves (periodic axes; others where asked for), else of splines."""

    knots: Tensor
    to_coefficients: Tensor  # basis node

    def __init__(self, axis: Axis, series: Series | None = None) -> None:
        super().__init__()
        self.axis, self.degree = axis, min(DEGREE, axis.size - 1)
        self.waves, turn, made = _SERIES["fourier" if axis.periodic else series]
        self.turn = turn / axis.length
        knots, matrix = made(axis)
        self.register_buffer("knots", torch.from_numpy(knots))
        self.register_buffer("to_coefficients", torch.from_numpy(matrix))

    def forward(self, x: Jet, change: Change | None = None) -> tuple[Jet, Tensor]:
        """The basis functions that are not zero at each point, and which they are, ``point basis``."""
        return self._waves(x, change) if self.waves else self._pieces(x)

    def at_end(self, end: End, order: int) -> Float[Tensor, " node"]:
        """Weights of the nodes for the value (the slope) of the interpolant at an end."""
        place = self.axis.lower if end == "lower" else self.axis.upper
        basis, which = self(seed(self.knots.new_full((1, 1), place), gradient=True))
        return basis.orders[order, 0] @ self.to_coefficients[which[0]]

    def _waves(self, x: Jet, change: Change | None) -> tuple[Jet, Tensor]:
        k = self.turn * self.knots
        angles = (x + -self.axis.lower) * k
        basis = joined([angles.through(wave) for wave in self.waves])
        if change is not None:
            basis = basis * change(k.repeat(len(self.waves)))
        count = basis.orders.shape[-1]
        return basis, torch.arange(count, device=self.knots.device).expand(basis.orders.shape[1], count)

    def _pieces(self, x: Jet) -> tuple[Jet, Tensor]:
        """Cox and de Boor's recursion, local; at the ends, and outside, the polynomials of the last pieces."""
        t, k = self.knots, self.degree
        place = torch.searchsorted(t[k + 1 : -k - 1].contiguous(), x.value.detach()[:, 0].contiguous(), right=True) + k
        basis = x * 0.0 + 1.0
        for p in range(1, k + 1):
            left = place[:, None] + torch.arange(1 - p, 1, device=place.device)  # of the functions of degree p - 1
            start, width = t[left], t[left + p] - t[left]
            share = (x * torch.ones_like(start) + -start) * (1 / width) * basis
            basis = _shifted(basis - share, 0) + _shifted(share, 1)
        return basis, place[:, None] + torch.arange(-k, 1, device=place.device)


def _shifted(jet: Jet, by: int) -> Jet:
    """One channel more, a zero before or after."""
    return Jet(nn.functional.pad(jet.orders, (by, 1 - by)), jet.dim, jet.second)


def interpolated(bases: Sequence[AxisBasis], at: Sequence[Jet], values: Tensor, change: Change | None = None) -> Jet:
    """The interpolant of nodal values, one or two axes; one channel.

    change   what the waves of the first axis have become by the time of each point
    """
    first, which = bases[0](at[0], change)
    coefficients = torch.tensordot(bases[0].to_coefficients, values, dims=1)
    if len(bases) == 1:
        return (first * coefficients[which]).sum()
    second, others = bases[1](at[1], change)
    chosen = (coefficients @ bases[1].to_coefficients.t())[which[:, :, None], others[:, None, :]]
    along = Jet(torch.einsum("opi,pij->opj", first.orders, chosen), first.dim, first.second)
    return (along * second).sum()


def _spline(axis: Axis) -> tuple[np.ndarray, np.ndarray]:
    nodes = axis.coordinates().numpy()
    spline = make_interp_spline(nodes, np.eye(axis.size), k=min(DEGREE, axis.size - 1))
    return np.ascontiguousarray(spline.t, dtype=float), np.ascontiguousarray(spline.c, dtype=float)


def _trigonometric(axis: Axis) -> tuple[np.ndarray, np.ndarray]:
    """Wave numbers, and cosine and sine coefficients of the trigonometric interpolant of each node."""
    n = axis.size
    waves = np.arange(n // 2 + 1, dtype=float)
    angles = 2 * np.pi * np.outer(waves, np.arange(n)) / n
    weights = np.where((waves == 0) | (2 * waves == n), 1.0, 2.0)[:, None] / n
    return waves, np.concatenate([weights * np.cos(angles), weights * np.sin(angles)])


def _sines(axis: Axis) -> tuple[np.ndarray, np.ndarray]:
    """Half waves, and the sine coefficients of each node; those at the ends have none."""
    n = axis.size - 1
    waves = np.arange(1.0, n)
    return waves, np.sin(np.pi * np.outer(waves, np.arange(n + 1)) / n) * (2 / n)


def _cosines(axis: Axis) -> tuple[np.ndarray, np.ndarray]:
    """Half waves, and the cosine coefficients of each node in the middle of its cell."""
    waves = np.arange(float(axis.size))
    angles = np.pi * np.outer(waves, np.arange(axis.size) + 0.5) / axis.size
    return waves, np.cos(angles) * (np.where(waves == 0, 1.0, 2.0)[:, None] / axis.size)


_SERIES: Mapping[
    Series | None, tuple[tuple[Pointwise, ...], float, Callable[[Axis], tuple[np.ndarray, np.ndarray]]]
] = {
    None: ((), 0.0, _spline),
    "fourier": ((cosine_of, sine(1.0)), 2 * math.pi, _trigonometric),
    "sine": ((sine(1.0),), math.pi, _sines),
    "cosine": ((cosine_of,), math.pi, _cosines),
}  # waves, phase of the slowest one across the axis, wave numbers and coefficients of each node


def series_of(axis: Axis, conditions: Sequence[Condition]) -> Series | None:
    """The waves of an axis that is periodic, or whose ends both have no value, or no slope, at the nodes of these."""
    if axis.periodic:
        return "fourier"
    ends = {(condition.end, condition.order) for condition in conditions if not bool(condition.values.any())}
    for order, placement, waves in ((0, "ends", "sine"), (1, "centres", "cosine")):
        if {("lower", order), ("upper", order)} <= ends and axis.placement == placement and axis.size > 2:
            return cast("Series", waves)
    return None


class Lift(nn.Module):
    """What conditions on faces leave free: g, and (weight, where) of each of the network's outputs.

    diffusivity   what is given at the beginning of the last axis, time, spreads along periodic axes as heat does: a
                  kink is smooth at once, which no factor of time on a network makes it
    speed         values and slopes at the beginning travel along the axis of space, where there is one, as waves do
                  that meet themselves (periodic) or walls of one kind: short ones turn many times before a factor of
                  time on a network follows the first turn
    """

    def __init__(
        self, domain: Grid, conditions: Sequence[Condition], diffusivity: float = 0.0, speed: float = 0.0
    ) -> None:
        super().__init__()
        self.domain, self.diffusivity, self.speed = domain, diffusivity, speed
        self.given = given_on(domain, conditions)
        faces = [[c for c in conditions if c.axis == j and speed and domain.dim == 2] for j in range(domain.dim)]
        self.bases = nn.ModuleList(
            [AxisBasis(axis, series_of(axis, own)) for axis, own in zip(domain.axes, faces, strict=True)]
        )
        for condition in conditions:
            values = condition.values.detach().double().squeeze(0)
            self.register_buffer(f"face_{condition.axis}_{condition.end}_{condition.order}", values)

    def forward(self, at: Jet) -> tuple[Jet, list[tuple[Jet, Jet]]]:
        units = [self._unit(at, j) for j in range(self.domain.dim)]
        return self._values(at, units), self._parts(at, units)

    def _unit(self, at: Jet, j: int) -> Jet:
        axis = self.domain.axes[j]
        return (at.select(slice(j, j + 1)) + -axis.lower) * (1 / axis.length)

    def _parts(self, at: Jet, units: Sequence[Jet]) -> list[tuple[Jet, Jet]]:
        """Products, over the axes, of their weights, and the positions with what is held there."""
        parts = [(units[0] * 0.0 + 1.0, at)]
        for j, unit in enumerate(units):
            flip, (_, free) = kind_of(frozenset(self.given.get(j, ())), self.domain.axes[j].name)
            s = unit * -1.0 + 1.0 if flip else unit
            ends = [end if end is None or not flip else _other(end) for _, end in free]
            weights = [_polynomial(weight, s) for weight, _ in free]
            parts = [
                (w * weight, where if end is None else self._held(where, j, end))
                for w, where in parts
                for weight, end in zip(weights, ends, strict=True)
            ]
        return parts

    def _held(self, at: Jet, j: int, end: End) -> Jet:
        """Positions with one coordinate at an end, where it stays."""
        axis = self.domain.axes[j]
        orders = at.orders.clone()
        orders[..., j] = 0.0
        orders[0, :, j] = axis.lower if end == "lower" else axis.upper
        return Jet(orders, at.dim, at.second)

    def _values(self, at: Jet, units: Sequence[Jet]) -> Jet:
        """Inclusion and exclusion over the axes that have faces."""
        total = units[0] * 0.0
        if not any(bool(buffer.any()) for name, buffer in self.named_buffers() if name.startswith("face_")):
            return total
        axes = sorted(self.given)
        for count in range(1, len(axes) + 1):
            for chosen in itertools.combinations(axes, count):
                for data in itertools.product(*(self.given[j] for j in chosen)):
                    part = self._corner(at, dict(zip(chosen, data, strict=True)))
                    for j, datum in zip(chosen, data, strict=True):
                        part = part * self._blend(units[j], j, datum)
                    total = total + part * (-1.0) ** (count + 1)
        return total

    def _blend(self, unit: Jet, j: int, datum: Given) -> Jet:
        flip, (blends, _) = kind_of(frozenset(self.given[j]), self.domain.axes[j].name)
        end, order = datum
        scale = (-self.domain.axes[j].length if flip else self.domain.axes[j].length) if order else 1.0
        if flip:
            return _polynomial(blends[_other(end), order], unit * -1.0 + 1.0) * scale
        return _polynomial(blends[datum], unit) * scale

    def _corner(self, at: Jet, data: dict[int, Given]) -> Jet:
        """What is given where these faces meet, between the nodes of what is left of the grid."""
        (first, (end, order)), *others = data.items()
        values = cast(Tensor, getattr(self, f"face_{first}_{end}_{order}"))
        left = [j for j in range(self.domain.dim) if j != first]
        for j, (side, slope) in others:
            weights = cast(AxisBasis, self.bases[j]).at_end(side, slope)
            values = torch.tensordot(weights, values, dims=([0], [left.index(j)]))
            left.remove(j)
        if not left:
            return at.select(slice(0, 1)) * 0.0 + values
        bases = [cast(AxisBasis, self.bases[j]) for j in left]
        change = None
        if (first, end) == (self.domain.dim - 1, "lower"):
            change = self._change(at.select(slice(first, first + 1)) + -self.domain.axes[first].lower, order, len(left))
        return interpolated(bases, [at.select(slice(j, j + 1)) for j in left], values, change)

    def _change(self, time: Jet, order: int, space: int) -> Change | None:
        """Of waves since the beginning: of heat exp(-nu k² t); of u cos(c k t) and of u_t, which has a factor t
        already, sin(c k t) / (c k t).
        """
        if self.diffusivity and order == 0:
            return lambda k: (time * (-self.diffusivity * k.square())).through(exponential)
        if self.speed and space == 1:
            return lambda k: (time * (self.speed * k)).through(sinc if order else cosine_of)
        return None


def given_on(domain: Grid, conditions: Sequence[Condition]) -> dict[int, tuple[Given, ...]]:
    """What is given on the faces of each axis that has any. Raises ``ValueError`` where it cannot hold exactly."""
    given: dict[int, tuple[Given, ...]] = {}
    for condition in conditions:
        if domain.axes[condition.axis].periodic:
            raise ValueError(f"Axis {domain.axes[condition.axis].name!r} is periodic: it has no face for a condition.")
        given[condition.axis] = (*given.get(condition.axis, ()), (condition.end, condition.order))
    for j, data in given.items():
        if len(set(data)) < len(data):
            raise ValueError(f"Axis {domain.axes[j].name!r} is given one thing twice: {data}.")
        kind_of(frozenset(data), domain.axes[j].name)
    return given


def free_functions(domain: Grid, conditions: Sequence[Condition]) -> int:
    """How many outputs of a network the conditions leave free."""
    kinds = (kind_of(frozenset(data), domain.axes[j].name)[1] for j, data in given_on(domain, conditions).items())
    return math.prod(len(free) for _, free in kinds)


def _polynomial(coefficients: Polynomial, s: Jet) -> Jet:
    """Horner's rule."""
    return functools.reduce(lambda total, c: total * s + c, reversed(coefficients[:-1]), s * 0.0 + coefficients[-1])
