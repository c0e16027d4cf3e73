r"""Fourth-order steps for :math:`\hat u_t = L \hat u + N(\hat u)` with a (possibly stiff) L, diagonal in the modes.

L is one number a mode and channel, or, where it *couples* the channels, one small matrix a mode.

The linear part is integrated exactly, the nonlinear part by four evaluations a step:

* ``etdrk4``  exponential time differencing (Cox & Matthews, J. Comput. Phys. 176, 2002). Its coefficients cancel
  catastrophically for small \|L dt\|, so there they are taken as means over a circle around L dt (contour integrals,
  Kassam & Trefethen, SIAM J. Sci. Comput. 26, 2005).
* ``ifrk4``  integrating factor, classical Runge-Kutta in the variable exp(-L t) u (Lawson 1967). Cheaper to set up;
  a larger error constant where L is stiff.

Both are order 4 (observed: tests/pde/test_etdrk.py) and, for L = 0, the classical Runge-Kutta method: stable for
oscillations i w while w dt < 2 sqrt 2.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from ._matrix_functions import phi_functions

Nonlinear = Callable[[Tensor], Tensor]
Step = Callable[[Tensor, Nonlinear], Tensor]
Method = Literal["etdrk4", "ifrk4"]

# The circle has radius 2 and is used for |z| < 1, so that it stays at distance 1 from the cancellation at 0 (a unit
# circle passes through it for |z| = 1). The trapezoidal rule converges like 2^M / M!: 32 points are past round-off.
CONTOUR_RADIUS = 2.0
CONTOUR_POINTS = 32
CLOSED_FORM_FROM = 1.0


def exponential_step(method: Method, symbol: Tensor, dt: float, *, coupled: bool = False) -> Step:
    """One step of length ``dt`` as a function of the spectrum and of the nonlinear term.

    symbol    L of shape ``*modes`` or ``channel *modes``; where it is ``coupled``, ``channel channel *modes``
    """
    if method == "etdrk4":
        return _etdrk4(symbol, dt, coupled)
    if method == "ifrk4":
        return _ifrk4(symbol, dt, coupled)
    raise ValueError(f"Unknown time stepping method {method!r}; choose 'etdrk4' or 'ifrk4'.")


def linear_flow(symbol: Tensor, time: float, *, coupled: bool = False) -> Callable[[Tensor], Tensor]:
    """exp(L t) as a function of a spectrum ``batch channel *modes``: exact."""
    if not coupled:
        return functools.partial(torch.mul, _complex(torch.exp(symbol * time)))
    return functools.partial(_coupled_times, _complex(_matrix_exponential(symbol * time)))


def _etdrk4(symbol: Tensor, dt: float, coupled: bool) -> Step:
    z = symbol * dt
    factors = _coupled_factors(z, dt) if coupled else _diagonal_factors(z, dt)
    full, half, half_minus_1, q, f1, f2, f3 = map(_factor, factors)
    view, unview = _views(symbol)
    times, add, add_ = _products(coupled)

    def step(spectrum: Tensor, nonlinear: Nonlinear) -> Tensor:
        u = view(spectrum)
        n_u = view(nonlinear(spectrum))
        u_half = times(half, u)
        a = add(u_half, q, n_u)
        n_a = view(nonlinear(unview(a)))
        b = add(u_half, q, n_a)
        n_b = view(nonlinear(unview(b)))
        # Cox & Matthews: half a + q (2 n_b - n_u), where q n_u = a - u_half
        c = add_(add_(u_half, half_minus_1, a), q, n_b, value=2)
        n_c = view(nonlinear(unview(c)))
        return unview(add_(add_(add_(times(full, u), f1, n_u), f2, n_a + n_b), f3, n_c))

    return step


def _ifrk4(symbol: Tensor, dt: float, coupled: bool) -> Step:
    exponential = _matrix_exponential if coupled else torch.exp
    full, half = _factor(exponential(symbol * dt)), _factor(exponential(symbol * (dt / 2)))
    view, unview = _views(symbol)
    times, add, add_ = _products(coupled)

    def step(spectrum: Tensor, nonlinear: Nonlinear) -> Tensor:
        u = view(spectrum)
        k1 = view(nonlinear(spectrum))
        u_half = times(half, u)
        k2 = view(nonlinear(unview(add(u_half, half, k1, value=dt / 2))))
        k3 = view(nonlinear(unview(torch.add(u_half, k2, alpha=dt / 2))))
        u_full = times(full, u)
        k4 = view(nonlinear(unview(add(u_full, half, k3, value=dt))))
        result = add_(add_(u_full, full, k1, value=dt / 6), half, k2 + k3, value=dt / 3)
        return unview(result.add_(k4, alpha=dt / 6))

    return step


def _diagonal_factors(z: Tensor, dt: float) -> tuple[Tensor, ...]:
    """What an ETDRK4 step multiplies with: exp z, exp z/2, exp z/2 - 1 and the four coefficients."""
    coefficients = etdrk4_coefficients(z)
    return torch.exp(z), torch.exp(z / 2), torch.expm1(z / 2), *(dt * c for c in coefficients)


def _coupled_factors(z: Tensor, dt: float) -> tuple[Tensor, ...]:
    """The same for matrices, in terms of phi functions, which do not cancel."""
    matrices = z.movedim((0, 1), (-2, -1))
    full, phi1, phi2, phi3 = phi_functions(matrices, 3)
    half, phi1_half = phi_functions(matrices / 2, 1)
    columns = (
        *(full, half, (matrices / 2) @ phi1_half, dt / 2 * phi1_half),
        *(dt * (phi1 - 3 * phi2 + 4 * phi3), dt * (2 * phi2 - 4 * phi3), dt * (4 * phi3 - phi2)),
    )
    return tuple(column.movedim((-2, -1), (0, 1)).contiguous() for column in columns)


def _matrix_exponential(z: Tensor) -> Tensor:
    (exponential,) = phi_functions(z.movedim((0, 1), (-2, -1)), 0)
    return exponential.movedim((-2, -1), (0, 1)).contiguous()


def _products(coupled: bool) -> tuple[Callable[..., Tensor], Callable[..., Tensor], Callable[..., Tensor]]:
    """Functions for factor * x, for total + value * factor * x, and for that in place; factors as in the symbol."""
    if coupled:
        return _coupled_times, _coupled_add, _coupled_add_
    return torch.mul, torch.addcmul, torch.Tensor.addcmul_


def _coupled_times(factor: Tensor, x: Tensor) -> Tensor:
    product = factor[:, 0] * x[:, :1]
    for j in range(1, x.shape[1]):
        product.addcmul_(factor[:, j], x[:, j : j + 1])
    return product


def _coupled_add(total: Tensor, factor: Tensor, x: Tensor, *, value: float = 1) -> Tensor:
    return _coupled_add_(total.clone(), factor, x, value=value)


def _coupled_add_(total: Tensor, factor: Tensor, x: Tensor, *, value: float = 1) -> Tensor:
    for j in range(x.shape[1]):
        total.addcmul_(factor[:, j], x[:, j : j + 1], value=value)
    return total


def etdrk4_coefficients(z: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The four functions of z = L dt, per unit dt: of the half steps, of N(u), of N(a) + N(b) and of N(c)."""
    if z.is_complex():
        return _coefficients(z)
    # on a torus many modes share one |k|²: a third at 64²
    values, place = z.unique(return_inverse=True)
    q, f1, f2, f3 = _coefficients(values)
    return q[place], f1[place], f2[place], f3[place]


def _coefficients(z: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    near = z.abs() < CLOSED_FORM_FROM
    columns = _closed_form(torch.where(near, torch.ones_like(z), z))
    for column, mean in zip(columns, _contour_means(z[near]), strict=True):
        column[near] = mean
    return columns


def _closed_form(z: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    e, z3 = torch.exp(z), z**3
    return (
        torch.expm1(z / 2) / z,
        (-4 - z + e * (4 - 3 * z + z**2)) / z3,
        2 * (2 + z + e * (z - 2)) / z3,
        (-4 - 3 * z - z**2 + e * (4 - z)) / z3,
    )


def _contour_means(z: Tensor) -> list[Tensor]:
    """Means of the closed forms over a circle around each z: Cauchy's formula for the value at its centre."""
    # for real z the lower half circle gives the complex conjugates of the upper
    count = CONTOUR_POINTS if z.is_complex() else CONTOUR_POINTS // 2
    angles = [2 * math.pi * (j + 0.5) / CONTOUR_POINTS for j in range(count)]
    circle = [CONTOUR_RADIUS * complex(math.cos(a), math.sin(a)) for a in angles]
    points = z.to(torch.complex128)[:, None] + torch.tensor(circle, dtype=torch.complex128, device=z.device)
    means = [value.mean(dim=1) for value in _closed_form(points)]
    return [(mean if z.is_complex() else mean.real).to(z.dtype) for mean in means]


def _factor(values: Tensor) -> Tensor:
    """A multiplier of viewed spectra: a real one once for the real and once for the imaginary part.

    Real times complex in torch first makes the real factor complex: a copy and twice the multiplications.
    """
    return values if values.is_complex() else values[..., None].expand(*values.shape, 2).contiguous()


def _views(symbol: Tensor) -> tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]:
    """From a spectrum to the array the factors of this symbol multiply, and back; without copies."""
    if symbol.is_complex():
        return _same, _same
    return torch.view_as_real, torch.view_as_complex


def _complex(values: Tensor) -> Tensor:
    """Once, not at every product with a spectrum."""
    return torch.complex(values, torch.zeros_like(values)) if not values.is_complex() else values


def _same(values: Tensor) -> Tensor:
    return values
