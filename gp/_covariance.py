r"""Covariances of a function of one coordinate and of its derivatives, in closed form.

.. math:: \mathrm{cov}(\partial^p u(x), \partial^q u(x')) = \partial_x^p\, \partial_{x'}^q\, k(x, x')
          = (-1)^q\, k^{(p+q)}(x - x') \quad\text{(stationary)}

========================  ====================================================================  ==================
covariance                k(tau), r = abs(tau)                                                    largest p + q
========================  ====================================================================  ==================
SquaredExponential        v exp(-tau² / (2 l²))                                                   any
Matern (nu = p + 1/2)     v P_p(c r) exp(-c r), c = sqrt(2 nu) / l                                2 p
SpectralMixture           sum_q w_q exp(-2 pi² s_q² tau²) cos(2 pi mu_q tau)                      any
StudentMixture            sum_q w_q Matern-5/2(c_q r) cos(2 pi mu_q tau), c_q = sqrt 5 b_q        4
LineSpectrum              sum_j w_j cos(2 pi mu_j tau)                                            any
========================  ====================================================================  ==================

Frequencies mu and bandwidths s are in cycles a unit length, lengths l in units, b in inverse units. The Student-t
mixture is the transform of Student-t densities with 5 degrees of freedom and scale b / (2 pi). Derivatives come from
recursions, never from differentiating abs(tau): they are exact at coincident points.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

ANY = 1000  # derivatives of every order exist
TURN = 2 * math.pi


class Covariance(ABC):
    """One method on two points; matrices and the algebra of covariances follow from it."""

    smoothness: int = ANY  # the largest p + q with a finite variance

    @abstractmethod
    def at(self, x: Tensor, y: Tensor, p: int = 0, q: int = 0) -> Tensor:
        """cov(d^p u(x), d^q u(y)), elementwise on tensors that broadcast."""

    def matrix(
        self, x: Float[Tensor, " row"], y: Float[Tensor, " column"], p: int = 0, q: int = 0
    ) -> Float[Tensor, "row column"]:
        """All pairs; the points of a uniform grid cost one evaluation a lag."""
        self.check(p, q)
        return self.at(x[:, None], y, p, q)

    def check(self, p: int, q: int) -> None:
        if p < 0 or q < 0 or p + q > self.smoothness:
            raise ValueError(
                f"{type(self).__name__} has derivatives with p + q up to {self.smoothness}, got p = {p} and q = {q}: "
                "choose a smoother covariance."
            )

    def __add__(self, other: Covariance) -> Covariance:
        return Sum(self, other)

    def __mul__(self, other: Covariance) -> Covariance:
        return Product(self, other)


class Stationary(Covariance):
    """A covariance of the lag alone."""

    @abstractmethod
    def lag(self, tau: Tensor, order: int = 0) -> Tensor:
        """The derivative of k of this order, elementwise."""

    def lags(self, tau: Float[Tensor, " lag"], orders: Sequence[int]) -> dict[int, Tensor]:
        """Several orders at once, for those who can share work."""
        return {order: self.lag(tau, order) for order in orders}

    def at(self, x: Tensor, y: Tensor, p: int = 0, q: int = 0) -> Tensor:
        self.check(p, q)
        return (-1) ** q * self.lag(x - y, p + q)

    def matrix(self, x: Tensor, y: Tensor, p: int = 0, q: int = 0) -> Tensor:
        self.check(p, q)
        step = _common_step(x, y)
        if step is None:
            return self.at(x[:, None], y, p, q)
        numbers = torch.arange(1 - len(y), len(x), dtype=x.dtype, device=x.device)
        values = (-1) ** q * self.lag((x[0] - y[0]) + step * numbers, p + q)
        rows, columns = (torch.arange(len(z), device=x.device) for z in (x, y))
        return values[len(y) - 1 + rows[:, None] - columns]


def _common_step(x: Tensor, y: Tensor) -> Tensor | None:
    """The spacing of two uniform sets of points, where it is the same; None where Toeplitz does not apply."""
    if len(x) < 3 or len(y) < 3:
        return None
    step = (x[-1] - x[0]) / (len(x) - 1)
    # the lags of a grid are multiples of its step up to the rounding of its coordinates
    slack = 1e-12 * torch.maximum(x.abs().max(), y.abs().max())
    even = all(bool(((z - z[0]) - step * torch.arange(len(z), dtype=z.dtype, device=z.device)).abs().max() <= slack)
               for z in (x, y))  # fmt: skip
    return step if even else None


def _column(values: Tensor | float, like: Tensor) -> Tensor:
    """Parameters along a leading axis, so that they broadcast against lags of any shape."""
    return torch.as_tensor(values, dtype=like.dtype, device=like.device).reshape(-1, *(1,) * like.ndim)


@dataclass(frozen=True)
class SquaredExponential(Stationary):
    length: Tensor | float = 1.0
    variance: Tensor | float = 1.0

    def lag(self, tau: Tensor, order: int = 0) -> Tensor:
        rate = 0.5 / torch.as_tensor(self.length, dtype=tau.dtype) ** 2
        if not order:
            return self.variance * torch.exp(-rate * tau.square())
        return self.variance * _gaussian_wave(tau, rate, torch.zeros_like(rate), order)


def _gaussian_wave(tau: Tensor, rate: Tensor, turn: Tensor, order: int) -> Tensor:
    """The derivative of exp(-rate tau²) cos(turn tau): h_{n+1} = L h_n - 2 rate n h_{n-1}, L = -2 rate tau + i turn."""
    slope = torch.complex(-2 * rate * tau, turn * torch.ones_like(tau))
    before, now = torch.zeros_like(slope), torch.ones_like(slope)
    for n in range(order):
        before, now = now, slope * now - 2 * rate * n * before
    phase = turn * tau
    return torch.exp(-rate * tau.square()) * (now.real * torch.cos(phase) - now.imag * torch.sin(phase))


# P(z) of the Matern covariance with nu = p + 1/2, ascending powers
_MATERN = {1.5: (1.0, 1.0), 2.5: (1.0, 1.0, 1 / 3), 3.5: (1.0, 1.0, 2 / 5, 1 / 15)}


def _matern(tau: Tensor, rate: Tensor, nu: float, order: int) -> Tensor:
    """Derivatives of P(c r) exp(-c r): Q_{n+1} = Q_n' - Q_n, with the sign of tau at odd orders (0 at 0)."""
    powers = list(_MATERN[nu])
    for _ in range(order):
        slope = [*(k * c for k, c in enumerate(powers) if k), 0.0]
        powers = [a - b for a, b in zip(slope, powers, strict=True)]
    z = rate * tau.abs()
    value = torch.zeros_like(z)
    for c in reversed(powers):
        value = value * z + c
    sign = torch.sign(tau) if order % 2 else 1.0
    return rate**order * sign * value * torch.exp(-z)


@dataclass(frozen=True)
class Matern(Stationary):
    nu: float = 2.5  # 1.5, 2.5 or 3.5
    length: Tensor | float = 1.0
    variance: Tensor | float = 1.0

    def __post_init__(self) -> None:
        if self.nu not in _MATERN:
            raise ValueError(f"nu is one of {tuple(_MATERN)}, got {self.nu}.")
        object.__setattr__(self, "smoothness", round(2 * self.nu) - 1)

    def lag(self, tau: Tensor, order: int = 0) -> Tensor:
        rate = math.sqrt(2 * self.nu) / torch.as_tensor(self.length, dtype=tau.dtype)
        return self.variance * _matern(tau, rate, self.nu, order)


@dataclass(frozen=True, eq=False)
class SpectralMixture(Stationary):
    """A Gaussian mixture as spectral density."""

    weights: Float[Tensor, " component"]  # w, variances
    frequencies: Float[Tensor, " component"]  # mu [cycles a unit]
    bandwidths: Float[Tensor, " component"]  # s [cycles a unit]

    def lag(self, tau: Tensor, order: int = 0) -> Tensor:
        rate = 0.5 * (TURN * _column(self.bandwidths, tau)) ** 2
        waves = _gaussian_wave(tau, rate, TURN * _column(self.frequencies, tau), order)
        return (_column(self.weights, tau) * waves).sum(dim=0)

    def density(self, frequency: Tensor) -> Tensor:
        """The spectral density, symmetric, in variance a cycle."""
        s, mu, width = frequency[..., None], self.frequencies, self.bandwidths
        bells = torch.exp(-0.5 * ((s - mu) / width) ** 2) + torch.exp(-0.5 * ((s + mu) / width) ** 2)
        return (self.weights * bells / (2 * math.sqrt(TURN) * width)).sum(dim=-1)

    def lines(self, length: float) -> LineSpectrum:
        """The same covariance on lags up to ``length``, to rounding, as a sum of lines.

        The trapezoidal rule in frequency repeats k with the period 1 / spacing; the repetition is kept so far away that
        the broadest Gaussian envelope is below 1e-17 where it begins.
        """
        narrowest, widest = float(self.bandwidths.min()), float(self.bandwidths.max())
        spacing = 1 / (length + 1.42 / narrowest)
        top = float(self.frequencies.abs().max()) + 8.8 * widest
        frequencies = spacing * torch.arange(math.ceil(top / spacing) + 1, dtype=torch.float64)
        weights = 2 * spacing * self.density(frequencies)
        weights[0] *= 0.5
        return LineSpectrum(weights, frequencies)


@dataclass(frozen=True, eq=False)
class StudentMixture(Stationary):
    """A mixture of Student-t densities (5 degrees of freedom) as spectral density."""

    weights: Float[Tensor, " component"]  # w, variances
    frequencies: Float[Tensor, " component"]  # mu [cycles a unit]
    rates: Float[Tensor, " component"]  # b, inverse lengths

    smoothness = 4

    def lag(self, tau: Tensor, order: int = 0) -> Tensor:
        rate, turn = math.sqrt(5.0) * _column(self.rates, tau), TURN * _column(self.frequencies, tau)
        cosine, sine = torch.cos(turn * tau), torch.sin(turn * tau)
        # exact quarter turns: cos(phase + pi/2) is 6e-17 at phase 0, enough for an optimiser to move a frequency of 0
        waves = (cosine, -sine, -cosine, sine)
        total = torch.zeros((), dtype=tau.dtype, device=tau.device)
        for k in range(order + 1):  # Leibniz: envelope differentiated order - k times, cosine k times
            envelope = _matern(tau, rate, 2.5, order - k)
            total = total + math.comb(order, k) * envelope * turn**k * waves[k % 4]
        return (_column(self.weights, tau) * total).sum(dim=0)

    def lags(self, tau: Float[Tensor, " lag"], orders: Sequence[int]) -> dict[int, Tensor]:
        """With a gradient in closed form: waves and envelopes are evaluated once for all orders and slopes."""
        rows = _StudentLags.apply(
            self.weights, TURN * self.frequencies, math.sqrt(5.0) * self.rates, tau, tuple(orders)
        )
        return dict(zip(orders, rows, strict=True))


class _StudentLags(torch.autograd.Function):
    """Rows of k^(p), one an order, from w, m = 2 pi mu and c; differentiable in these, not in the lags.

    With e_j the envelope's derivatives, W_k the quarter turns of the cosine: k^(p) = w sum_k C(p, k) e_{p-k} m^k W_k,
    d/dm (m^k W_k) = k m^(k-1) W_k + m^k tau W_{k+1}, and for e_j = c^j Q_j(z) exp(-z), z = c r:
    c de_j/dc = j e_j + tau e_{j+1}.
    """

    @staticmethod
    def forward(ctx, weights: Tensor, turn: Tensor, rate: Tensor, tau: Tensor, orders: tuple[int, ...]) -> Tensor:
        m, c, top = turn[:, None], rate[:, None], max(orders)
        cosine, sine = torch.cos(m * tau), torch.sin(m * tau)
        waves = (cosine, -sine, -cosine, sine)
        powers = [m**k * waves[k % 4] for k in range(top + 1)]
        turned = [tau * m**k * waves[(k + 1) % 4] + (k * m ** (k - 1) * waves[k % 4] if k else 0.0)
                  for k in range(top + 1)]  # fmt: skip
        envelopes = [_matern(tau, c, 2.5, j) for j in range(top + 2)]
        scaled = [j * envelopes[j] + tau * envelopes[j + 1] for j in range(top + 1)]
        slopes = [[_leibniz(p, *pair) for p in orders] for pair in
                  ((envelopes, powers), (envelopes, turned), (scaled, powers))]  # fmt: skip
        ctx.save_for_backward(weights, rate, *(torch.stack(each) for each in slopes))
        return torch.stack([weights @ value for value in slopes[0]])

    @staticmethod
    def backward(ctx, by: Tensor):
        weights, rate, *slopes = ctx.saved_tensors
        by_weight, by_turn, by_rate = (torch.einsum("pql,pl->q", each, by) for each in slopes)
        return by_weight, weights * by_turn, weights * by_rate / rate, None, None


def _leibniz(order: int, first: Sequence[Tensor], second: Sequence[Tensor]) -> Tensor:
    """The derivative of a product from those of its factors."""
    total = first[order] * second[0]
    for k in range(1, order + 1):
        total = total + math.comb(order, k) * first[order - k] * second[k]
    return total


@dataclass(frozen=True, eq=False)
class LineSpectrum(Stationary):
    """A discrete spectrum: finitely many waves, so that the covariance has an exact factor."""

    weights: Float[Tensor, " line"]  # variances
    frequencies: Float[Tensor, " line"]  # [cycles a unit]

    def lag(self, tau: Tensor, order: int = 0) -> Tensor:
        turn = TURN * self.frequencies
        waves = torch.cos(tau[..., None] * turn + order * (math.pi / 2))
        return waves @ (self.weights * turn**order)

    def features(self, x: Float[Tensor, " point"], order: int = 0) -> Float[Tensor, "point feature"]:
        """Derivatives of the waves: the covariance is the product of two such factors, for any orders and points.

        Working with this factor instead of the matrix halves the digits that ill-conditioning takes.
        """
        turn = TURN * self.frequencies
        size = self.weights.sqrt() * turn**order
        phase = x[:, None] * turn + order * (math.pi / 2)
        return torch.cat([torch.cos(phase) * size, torch.sin(phase) * size], dim=1)


@dataclass(frozen=True)
class Sum(Covariance):
    first: Covariance
    second: Covariance

    def __post_init__(self) -> None:
        object.__setattr__(self, "smoothness", min(self.first.smoothness, self.second.smoothness))

    def at(self, x: Tensor, y: Tensor, p: int = 0, q: int = 0) -> Tensor:
        return self.first.at(x, y, p, q) + self.second.at(x, y, p, q)

    def matrix(self, x: Tensor, y: Tensor, p: int = 0, q: int = 0) -> Tensor:
        return self.first.matrix(x, y, p, q) + self.second.matrix(x, y, p, q)


@dataclass(frozen=True)
class Product(Covariance):
    """The elementwise product; derivatives by Leibniz' rule in either argument."""

    first: Covariance
    second: Covariance

    def __post_init__(self) -> None:
        object.__setattr__(self, "smoothness", min(self.first.smoothness, self.second.smoothness))

    def at(self, x: Tensor, y: Tensor, p: int = 0, q: int = 0) -> Tensor:
        return self._leibniz("at", x, y, p, q)

    def matrix(self, x: Tensor, y: Tensor, p: int = 0, q: int = 0) -> Tensor:
        self.check(p, q)
        return self._leibniz("matrix", x, y, p, q)

    def _leibniz(self, how: str, x: Tensor, y: Tensor, p: int, q: int) -> Tensor:
        first, second = getattr(self.first, how), getattr(self.second, how)
        parts = [
            math.comb(p, i) * math.comb(q, j) * first(x, y, i, j) * second(x, y, p - i, q - j)
            for i in range(p + 1)
            for j in range(q + 1)
        ]
        return torch.stack(parts).sum(dim=0)


class Bridged(Covariance):
    """Conditioned on functionals (point, order of derivative) being zero: k0 = k - k_b k_bb^{-1} k_b^T."""

    def __init__(self, base: Covariance, pins: tuple[tuple[float, int], ...]) -> None:
        self.base, self.pins = base, pins
        self.smoothness = base.smoothness
        gram = [[base.at(_point(a), _point(b), p, q) for b, q in pins] for a, p in pins]
        self.factor = torch.linalg.cholesky(torch.stack([torch.stack(row) for row in gram]))

    def at(self, x: Tensor, y: Tensor, p: int = 0, q: int = 0) -> Tensor:
        left = torch.stack([self.base.at(x, _point(b), p, m) for b, m in self.pins], dim=-1)
        right = torch.stack([self.base.at(_point(b), y, m, q) for b, m in self.pins], dim=-1)
        solved = torch.cholesky_solve(right.reshape(-1, len(self.pins)).T, self.factor).T.reshape(right.shape)
        return self.base.at(x, y, p, q) - (left * solved).sum(dim=-1)


def _point(value: float) -> Tensor:
    return torch.tensor(value, dtype=torch.float64)
