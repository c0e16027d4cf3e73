r"""Manufactured solutions: sums of products of waves, one factor an axis, from which sources and data follow exactly.

.. math:: u(x) = \sum_k a_k \prod_j (x_j - c_{kj})^{p_{kj}} \sin(\omega_{kj} x_j + \varphi_{kj})

A draw perturbs amplitudes and phases; frequencies stay. Every draw lies in a space of known waves (sine and cosine of
each factor), so the closed form is recovered from the inputs by least squares: linear in the waves for a linear
equation, a few Gauss-Newton steps with a reaction.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Generator, Tensor

from ._equation import Reaction

QUARTER = math.pi / 2
ROWS = 4000  # nodes from which the closed form is recovered
NEWTON_STEPS = 30
RECOVERED = 1e-5  # relative misfit up to which inputs count as the problem's own: single precision stores 6e-8


@dataclass(frozen=True)
class Wave:
    """(x - centre)^power sin(frequency x + phase), the frequency in radians a unit length."""

    frequency: float = 0.0
    phase: float = 0.0
    power: int = 0
    centre: float = 0.0

    def __call__(self, x: Tensor, order: int = 0) -> Tensor:
        """The derivative of this order at x, by Leibniz' rule."""
        total = torch.zeros_like(x)
        for k in range(min(order, self.power) + 1):
            falling = math.comb(order, k) * math.perm(self.power, k)
            wave = self.frequency ** (order - k) * torch.sin(self.frequency * x + self.phase + (order - k) * QUARTER)
            total = total + falling * (x - self.centre) ** (self.power - k) * wave
        return total

    @property
    def family(self) -> tuple[Wave, ...]:
        """What it can become when its phase moves."""
        if self.frequency == 0:
            return (replace(self, phase=QUARTER),)
        return replace(self, phase=0.0), replace(self, phase=QUARTER)


def sine(frequency: float) -> Wave:
    return Wave(frequency)


def cosine(frequency: float) -> Wave:
    return Wave(frequency, QUARTER)


ONE = Wave(phase=QUARTER)


@dataclass(frozen=True)
class Product:
    """An amplitude times one wave an axis."""

    amplitude: float
    factors: tuple[Wave, ...]

    def __call__(self, coordinates: Sequence[Tensor], orders: Sequence[int]) -> Tensor:
        """On the tensor grid of these coordinates."""
        value = torch.as_tensor(self.amplitude, dtype=torch.float64)
        for wave, x, order in zip(self.factors, coordinates, orders, strict=True):
            value = value[..., None] * wave(x, order)
        return value

    def drawn(self, spread: float, generator: Generator) -> Product:
        """Another of its family: amplitude (1 + spread n) and phases moved by spread pi u, n normal, u in [-1, 1]."""
        amplitude = self.amplitude * (1 + spread * float(torch.randn((), dtype=torch.float64, generator=generator)))
        turns = 2 * torch.rand(len(self.factors), dtype=torch.float64, generator=generator) - 1
        factors = tuple(
            replace(wave, phase=wave.phase + spread * math.pi * float(turn)) if wave.frequency else wave
            for wave, turn in zip(self.factors, turns, strict=True)
        )
        return Product(amplitude, factors)


Terms = Sequence[tuple[tuple[int, ...], float]]  # (orders of differentiation, coefficient)


@dataclass(frozen=True)
class Manufactured:
    """A sum of products, and the operator that turns it into a source."""

    products: tuple[Product, ...]

    def field(self, coordinates: Sequence[Tensor], orders: Sequence[int] | None = None) -> Tensor:
        orders = orders or (0,) * len(coordinates)
        total = self.products[0](coordinates, orders)
        for product in self.products[1:]:
            total = total + product(coordinates, orders)
        return total

    def source(self, coordinates: Sequence[Tensor], terms: Terms, reaction: Reaction | None = None) -> Tensor:
        """The left side of the equation on the tensor grid of these coordinates."""
        parts = torch.stack([c * self.field(coordinates, orders) for orders, c in terms])
        total = parts.sum(dim=0)
        if float(total.abs().max()) <= 1e-13 * float(parts.abs().max()):  # terms that cancel leave rounding only
            total = torch.zeros_like(total)
        return total if reaction is None else total + reaction(self.field(coordinates))

    def drawn(self, spread: float, generator: Generator) -> Manufactured:
        return Manufactured(tuple(product.drawn(spread, generator) for product in self.products))

    @property
    def basis(self) -> tuple[Product, ...]:
        """The waves that span all draws."""
        found = {
            Product(1.0, factors): None
            for product in self.products
            for factors in itertools.product(*(wave.family for wave in product.factors))
        }
        return tuple(found)

    def recovered(
        self,
        source: Tensor,
        data: Tensor,
        given: Tensor,
        coordinates: Sequence[Tensor],
        terms: Terms,
        reaction: Reaction | None = None,
    ) -> Manufactured | None:
        """The sum of waves with this source, and these data where ``given`` is true; None where there is none.

        source, data, given   one sample on the tensor grid of the coordinates
        """
        # a few thousand equations determine a few dozen numbers; all of them judge the result
        inner, outer = _some(torch.ones_like(given)), _some(given)
        values, linear = (self._columns(coordinates, inner, t) for t in (None, terms))
        faces = self._columns(coordinates, outer, None)
        # both kinds of rows are brought to comparable size, so that neither decides alone
        scale = linear.abs().max().clamp_min(1.0)
        weights = values.new_zeros(values.shape[1])
        for _ in range(1 if reaction is None else NEWTON_STEPS):
            known = (values @ weights).requires_grad_()
            react, slope = torch.zeros_like(known), torch.zeros_like(known)
            if reaction is not None:
                with torch.enable_grad():
                    react = reaction(known)
                    slope = torch.autograd.grad(react.sum(), known)[0]
            misfit = source[inner] - linear @ weights - react.detach()
            rows = torch.cat([(linear + slope[:, None] * values) / scale, faces])
            right = torch.cat([misfit / scale, data[outer] - faces @ weights])
            step = torch.linalg.lstsq(rows, right[:, None], driver="gelsd").solution[:, 0]
            weights = weights + step
            if float(step.norm()) <= 1e-13 * float(weights.norm()):
                break
        found = Manufactured(tuple(replace(p, amplitude=float(w)) for p, w in zip(self.basis, weights, strict=True)))
        misfit = (found.source(coordinates, terms, reaction) - source).abs().max() / scale
        apart = (found.field(coordinates) - data)[given].abs()
        worst = max(float(misfit), float(apart.max()) if apart.numel() else 0.0)
        return found if worst <= RECOVERED * float(weights.abs().max()) else None

    def _columns(self, coordinates: Sequence[Tensor], where: tuple[Tensor, ...], terms: Terms | None) -> Tensor:
        """Each wave of the basis (terms: the linear left side of it) at the nodes with these indices."""
        points = [x[index] for x, index in zip(coordinates, where, strict=True)]
        parts = terms or (((0,) * len(points), 1.0),)
        columns = [
            torch.stack([c * _product([w(x, m) for w, x, m in zip(p.factors, points, orders, strict=True)])
                         for orders, c in parts]).sum(dim=0)
            for p in self.basis
        ]  # fmt: skip
        return torch.stack(columns, dim=-1)


def _product(values: Sequence[Tensor]) -> Tensor:
    total = values[0]
    for value in values[1:]:
        total = total * value
    return total


def _some(mask: Tensor) -> tuple[Tensor, ...]:
    """Indices of at most ROWS of the true entries, always the same ones."""
    places = mask.nonzero()
    chosen = torch.randperm(len(places), generator=Generator().manual_seed(0))[:ROWS]
    return tuple(places[chosen].T)
