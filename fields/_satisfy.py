r"""A field made to satisfy laws at points: least squares over all of its weights, in double precision.

.. math:: \min_\theta \sum_k \frac1{n_k s_k^2}
          \sum_i \bigl|R_k\bigl(u, \partial_j u, \partial_j^2 u\bigr)(x_{ki})\bigr|^2

A :class:`Law` has points, rows R (any differentiable function of the field's jet, point by point: systems, nonlinear
equations, conditions that are not imposed) and their size s. First the last layer alone is solved for, then all weights
by Levenberg and Marquardt's method (``levenberg``, the natural gradient of least squares), or by L-BFGS where there are
too many weights for a matrix of them (``lbfgs``). Where a law has more points than are wanted, these are drawn anew
every few iterations: half of them evenly, half by the residual, with weights one over the probability, so that the sum
stays that over all points. A tenth of the points is kept out: the residual there is what is reported, and what the best
weights are chosen by.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Generator, Tensor, nn

from ._field import Field
from ._jet import Jet, seed
from ._levenberg import PATIENCE, Damping, descend, linear_part

HELD = 0.1  # share of the points that is kept out
ROWS, LINEAR = 2, 8  # points a weight; where the last layer alone is sought, which fits more of what lies between
CHUNK = 512  # points whose rows are made at once
ROUND = 10  # iterations on one set of points
STEPS = 30  # of L-BFGS that count as one iteration
TARGET = 1e-11  # relative residual at which there is nothing left to do in double precision
Finish = Literal["levenberg", "lbfgs"]
Watch = Callable[[float], bool]
# (jets ``point channel order``: value, first and second derivatives by each axis; which points) -> ``point row``
RowsOf = Callable[[Tensor, Tensor], Tensor]
Draw = list[tuple[Tensor, Tensor]]  # of each law: which points, the root of their weights


@dataclass(frozen=True)
class Law:
    """Rows that vanish at points where the field is right, and the size that they are relative to.

    weights   of the points, one over the density that they were drawn with; None: all alike
    """

    points: Float[Tensor, "point dim"]
    rows: RowsOf
    size: float = 1.0
    weights: Float[Tensor, " point"] | None = None

    def __post_init__(self) -> None:
        if not self.size > 0 or not math.isfinite(self.size):
            raise ValueError(f"Rows are relative to a positive size, got {self.size}.")


def satisfy(
    field: Field, laws: Sequence[Law], *, iterations: int = 60, points: int = 0, seed: int = 0,
    finish: Finish = "levenberg", target: float = TARGET, watch: Watch | None = None,
) -> float:  # fmt: skip
    """Leaves the best weights in the field; the relative residual at points kept out.

    iterations   of Levenberg-Marquardt at most; of L-BFGS ``STEPS`` steps each; 0: the last layer alone
    points       of a law at a time; 0: ``enough``
    target       relative residual at which to stop
    watch        is told the sum of squares and says when to stop
    """
    if iterations < 0 or points < 0:
        raise ValueError(f"iterations and points are at least 0, got {iterations} and {points}.")
    if finish not in ("levenberg", "lbfgs"):
        raise ValueError(f"finish is 'levenberg' or 'lbfgs', got {finish!r}.")
    system = System(field, laws)
    count = points or enough(field.network, iterations)
    watch = watch or (lambda cost: False)
    generator = Generator().manual_seed(seed)
    held, used = system.parted(generator)
    weights, damping = system.vector(), Damping()
    weights[system.last_layer()] = 0.0  # what is not better than nothing is not kept
    candidates = [weights, system.vector()] if not torch.equal(weights, system.vector()) else [weights]
    best, least = min(((w, system.misfit(w, held)) for w in candidates), key=lambda pair: pair[1])
    weights = best
    for done in range(0, max(iterations, 1), ROUND):
        if least <= target:
            break
        draw, some = system.draw(weights, used, count, generator), min(ROUND, iterations - done)
        weights = system.with_last_layer(weights, draw)
        if some and finish == "levenberg":
            weights, _ = descend(
                weights, lambda w: system.rows(w, draw), lambda w: system.jacobian(w, draw),  # noqa: B023 - used at once
                damping, some, target**2, watch,
            )  # fmt: skip
        elif some:
            weights = quasi_newton(weights, lambda w: system.cost(w, draw), some * STEPS, watch)  # noqa: B023
        misfit = system.misfit(weights, held)
        if misfit < least:
            best, least = weights, misfit
        if damping.idle >= PATIENCE or not math.isfinite(misfit) or watch(misfit**2):
            break
    system.put(best)
    return least


def enough(network: nn.Module, iterations: int) -> int:
    """Points for the weights that are sought: all, or those of the last layer."""
    weights = [p.numel() * (1 + p.is_complex()) for p in network.parameters()]
    return ROWS * sum(weights) if iterations else LINEAR * sum(weights[-2:])


def quasi_newton(weights: Tensor, cost: Callable[[Tensor], Tensor], steps: int, watch: Watch) -> Tensor:
    """L-BFGS with 50 pairs and a line search by Wolfe's strong conditions."""
    at = weights.clone().requires_grad_()
    optimiser = torch.optim.LBFGS(
        [at], max_iter=steps, history_size=50, line_search_fn="strong_wolfe", tolerance_grad=0.0, tolerance_change=0.0
    )

    def closure() -> Tensor:
        optimiser.zero_grad()
        value = cost(at)
        value.backward()
        return value

    if not watch(float(cost(weights).detach())):
        optimiser.step(closure)
    found = at.detach()
    return found if float(cost(found)) < float(cost(weights)) else weights


class System:
    """The rows of all laws as functions of the weights as one real vector."""

    def __init__(self, field: Field, laws: Sequence[Law]) -> None:
        if next(iter(field.parameters())).dtype not in (torch.float64, torch.complex128):
            raise ValueError("Laws are satisfied in double precision: make the field with dtype=torch.float64.")
        if field.form != "plain":
            raise ValueError(f"Laws are satisfied by plain fields, this one is {field.form}.")
        self.field, self.laws, self.dim = field, tuple(laws), field.domain.dim
        values = dict(field.network.named_parameters())
        self.names = list(values)
        self.complex = {name for name in self.names if values[name].is_complex()}
        self.shapes = [_real(values[name].detach()).shape for name in self.names]
        self.trials = [_Trial(field, law.points) for law in self.laws]

    # ---- rows and their derivatives

    @torch.no_grad()
    def rows(self, weights: Tensor, draw: Draw) -> Tensor:
        parts = [self._rows(k, weights, chosen)[1] * root[:, None] for k, (chosen, root) in enumerate(draw)]
        return torch.cat([part.flatten() for part in parts])

    def cost(self, weights: Tensor, draw: Draw) -> Tensor:
        """Their sum of squares, differentiable."""
        parts = []
        for k, (chosen, root) in enumerate(draw):
            rows = self._law(k, self.trials[k].jets(self._network(weights), chosen), chosen)
            parts.append((rows * root[:, None]).square().sum())
        return torch.stack(parts).sum()

    def jacobian(self, weights: Tensor, draw: Draw, last: int | None = None) -> tuple[Tensor, Tensor]:
        """Rows and their derivatives by the weights, or by so many of the last of them."""
        values, slopes = [], []
        still, moving = weights.split([len(weights) - last, last]) if last else (weights[:0], weights)
        weighed = functools.partial(self._weighed, still)
        for k, (chosen, root) in enumerate(draw):
            for part, roots in zip(chosen.split(CHUNK), root.split(CHUNK), strict=True):
                jets, rows = self._rows(k, weights, part)
                adjoints = self._adjoints(k, jets, part)  # point row free order
                count = rows.shape[1]
                inner = self.trials[k].inner[part].repeat_interleave(count, dim=0)
                gradients = torch.func.vmap(torch.func.grad(weighed), in_dims=(None, 0, 0))(
                    moving, inner, adjoints.flatten(0, 1)
                )
                values.append((rows * roots[:, None]).flatten())
                slopes.append(gradients * roots.repeat_interleave(count)[:, None])
        return torch.cat(values), torch.cat(slopes)

    def _rows(self, k: int, weights: Tensor, chosen: Tensor) -> tuple[Tensor, Tensor]:
        with torch.no_grad():
            network = self._network(weights)
            jets = torch.cat([self.trials[k].jets(network, part) for part in chosen.split(8 * CHUNK)])
            return jets, self._law(k, jets, chosen)

    def _law(self, k: int, jets: Tensor, chosen: Tensor) -> Tensor:
        return self.laws[k].rows(jets, chosen) / self.laws[k].size

    def _adjoints(self, k: int, jets: Tensor, chosen: Tensor) -> Tensor:
        """Derivatives of the rows by the jets of the network's outputs."""
        with torch.enable_grad():
            at = jets.detach().requires_grad_()
            rows = self._law(k, at, chosen)
            slopes = [torch.autograd.grad(rows[:, r].sum(), at, retain_graph=True)[0] for r in range(rows.shape[1])]
        return torch.stack([self.trials[k].transposed(slope, chosen) for slope in slopes], dim=1)

    def _weighed(self, still: Tensor, moving: Tensor, inner: Tensor, adjoint: Tensor) -> Tensor:
        """One row at one point, with the jet that it weighs."""
        network = self._network(torch.cat([still, moving]))
        return (_outputs(network, inner[None], self.dim)[0] * adjoint).sum()

    def _network(self, weights: Tensor) -> Callable[[Jet], Jet]:
        named = self.named(weights)
        return lambda jet: torch.func.functional_call(self.field.network, named, (jet,))

    # ---- weights as one vector

    def vector(self) -> Tensor:
        values = dict(self.field.network.named_parameters())
        return torch.cat([_real(values[name].detach()).flatten() for name in self.names])

    def named(self, weights: Tensor) -> dict[str, Tensor]:
        parts = weights.split([shape.numel() for shape in self.shapes])
        shaped = {name: part.view(shape) for name, part, shape in zip(self.names, parts, self.shapes, strict=True)}
        return {name: torch.view_as_complex(p.clone()) if name in self.complex else p for name, p in shaped.items()}

    @torch.no_grad()
    def put(self, weights: Tensor) -> None:
        """Into the network."""
        for name, values in self.named(weights).items():
            self.field.network.get_parameter(name).copy_(values)

    def last_layer(self) -> Tensor:
        """Numbers of the weights in which the network is linear: its two last parameters."""
        total, last = len(self.vector()), sum(shape.numel() for shape in self.shapes[-2:])
        return torch.arange(total - last, total)

    def with_last_layer(self, weights: Tensor, draw: Draw) -> Tensor:
        which = self.last_layer()
        _, matrix = self.jacobian(weights, draw, last=len(which))
        return linear_part(weights, which, lambda w: self.rows(w, draw), matrix)

    # ---- points

    def parted(self, generator: Generator) -> tuple[Draw, list[Tensor]]:
        """Of each law: points kept out, the others."""
        held, used = [], []
        for k, law in enumerate(self.laws):
            order = torch.randperm(len(law.points), generator=generator)
            cut = math.ceil(HELD * len(order))
            held.append((order[:cut], self._roots(k, order[:cut])))
            used.append(order[cut:])
        return held, used

    def misfit(self, weights: Tensor, draw: Draw) -> float:
        return float(self.rows(weights, draw).square().sum().sqrt())

    def draw(self, weights: Tensor, used: Sequence[Tensor], count: int, generator: Generator) -> Draw:
        """All points; or some, half evenly and half by the residual, with weights one over their probability."""
        drawn = []
        for k, every in enumerate(used):
            if len(every) <= count:
                drawn.append((every, self._roots(k, every)))
                continue
            roots = self._roots(k, every)
            size = roots * self._rows(k, weights, every)[1].norm(dim=1)
            share = 0.5 / len(every) + 0.5 * size / size.sum().clamp_min(1e-300)
            chosen = torch.multinomial(share, count, replacement=True, generator=generator)
            drawn.append((every[chosen], roots[chosen] / (count * share[chosen]).sqrt()))
        return drawn

    def _roots(self, k: int, chosen: Tensor) -> Tensor:
        """Of the weights of a mean over these points."""
        given = self.laws[k].weights
        weights = torch.ones(len(chosen), dtype=torch.float64) if given is None else given[chosen]
        return (weights / max(len(chosen), 1)).sqrt()


class _Trial:
    """What of u = g + sum of w_f N_f does not depend on the weights; where nothing is imposed, of u_f = w_f N_f.

    given   ``point channel order``      weight   ``point free order``      inner   ``point place order dim``
    """

    @torch.no_grad()
    def __init__(self, field: Field, points: Tensor) -> None:
        self.dim, self.joined = points.shape[1], field.lift is not None
        pieces = [self._piece(field, part) for part in points.double().split(4 * CHUNK)]
        self.given, self.weight, self.inner = (torch.cat(column) for column in zip(*pieces, strict=True))

    def _piece(self, field: Field, points: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        at = seed(points, second="axes")
        if field.lift is None:
            one = at.select(slice(0, 1)) * 0.0 + 1.0
            given, weight = one * field.mean, one * field.scale
            places = [at]
        else:
            given, parts = field.lift(at)
            for free, _ in parts:
                given = given + free * field.mean
            weight = Jet(torch.cat([free.orders for free, _ in parts], dim=-1), at.dim, at.second) * field.scale
            places = [where for _, where in parts]
        inner = torch.stack([field.inner(where).orders for where in places])
        return given.orders.permute(1, 2, 0), weight.orders.permute(1, 2, 0), inner.permute(2, 0, 1, 3).contiguous()

    def jets(self, network: Callable[[Jet], Jet], chosen: Tensor) -> Tensor:
        """Of the field, ``point channel order``."""
        free, w = _outputs(network, self.inner[chosen], self.dim), self.weight[chosen]
        n = self.dim
        value, first, second = free[..., :1], free[..., 1 : 1 + n], free[..., 1 + n :]
        w0, w1, w2 = w[..., :1], w[..., 1 : 1 + n], w[..., 1 + n :]
        parts = [w0 * value, w1 * value + w0 * first, w2 * value + 2 * w1 * first + w0 * second]
        product = torch.cat(parts, dim=-1)
        return self.given[chosen] + (product.sum(dim=1, keepdim=True) if self.joined else product)

    def transposed(self, slopes: Tensor, chosen: Tensor) -> Tensor:
        """From derivatives by the jet of the field to those by the jets of the network's outputs."""
        w, n = self.weight[chosen], self.dim
        s = slopes.expand(-1, w.shape[1], -1) if self.joined else slopes
        s0, s1, s2 = s[..., :1], s[..., 1 : 1 + n], s[..., 1 + n :]
        w0, w1, w2 = w[..., :1], w[..., 1 : 1 + n], w[..., 1 + n :]
        value = s0 * w0 + (s1 * w1 + s2 * w2).sum(dim=-1, keepdim=True)
        return torch.cat([value, s1 * w0 + 2 * s2 * w1, s2 * w0], dim=-1)


def _outputs(network: Callable[[Jet], Jet], inner: Tensor, dim: int) -> Tensor:
    """``point place order dim`` -> ``point free order``; of several places the first output at the first, …"""
    count, places = inner.shape[:2]
    orders = network(Jet(inner.flatten(0, 1).movedim(1, 0), dim, "axes")).orders
    if places == 1:
        return orders.permute(1, 2, 0)
    return orders.unflatten(1, (count, places)).diagonal(dim1=2, dim2=3).permute(1, 2, 0)


def _real(values: Tensor) -> Tensor:
    return torch.view_as_real(values) if values.is_complex() else values
