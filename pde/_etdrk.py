r"""Fourth-order steps for :math:`\hat u_t = L \hat u + N(\hat u)` with a diagonal (possibly stiff) L.

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

import math
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

Nonlinear = Callable[[Tensor], Tensor]
Step = Callable[[Tensor, Nonlinear], Tensor]
Method = Literal["etdrk4", "ifrk4"]

# The circle has radius 2 and is used for |z| < 1, so that it stays at distance 1 from the cancellation at 0 (a unit
# circle passes through it for |z| = 1). The trapezoidal rule converges like 2^M / M!: 32 points are past round-off.
CONTOUR_RADIUS = 2.0
CONTOUR_POINTS = 32
CLOSED_FORM_FROM = 1.0


def exponential_step(method: Method, symbol: Tensor, dt: float) -> Step:
    """One step of length ``dt`` as a function of the spectrum and of the nonlinear term."""
    if method == "etdrk4":
        return _etdrk4(symbol, dt)
    if method == "ifrk4":
        return _ifrk4(symbol, dt)
    raise ValueError(f"Unknown time stepping method {method!r}; choose 'etdrk4' or 'ifrk4'.")


def _etdrk4(symbol: Tensor, dt: float) -> Step:
    z = symbol * dt
    full, half, half_minus_1 = _factor(torch.exp(z)), _factor(torch.exp(z / 2)), _factor(torch.expm1(z / 2))
    q, f1, f2, f3 = (_factor(dt * c) for c in etdrk4_coefficients(z))
    view, unview = _views(symbol)

    def step(spectrum: Tensor, nonlinear: Nonlinear) -> Tensor:
        u = view(spectrum)
        n_u = view(nonlinear(spectrum))
        u_half = half * u
        a = torch.addcmul(u_half, q, n_u)
        n_a = view(nonlinear(unview(a)))
        b = torch.addcmul(u_half, q, n_a)
        n_b = view(nonlinear(unview(b)))
        # Cox & Matthews: half a + q (2 n_b - n_u), where q n_u = a - u_half
        c = u_half.addcmul_(half_minus_1, a).addcmul_(q, n_b, value=2)
        n_c = view(nonlinear(unview(c)))
        result = (full * u).addcmul_(f1, n_u).addcmul_(f2, n_a + n_b).addcmul_(f3, n_c)
        return unview(result)

    return step


def _ifrk4(symbol: Tensor, dt: float) -> Step:
    full, half = _factor(torch.exp(symbol * dt)), _factor(torch.exp(symbol * (dt / 2)))
    view, unview = _views(symbol)

    def step(spectrum: Tensor, nonlinear: Nonlinear) -> Tensor:
        u = view(spectrum)
        k1 = view(nonlinear(spectrum))
        u_half = half * u
        k2 = view(nonlinear(unview(torch.addcmul(u_half, half, k1, value=dt / 2))))
        k3 = view(nonlinear(unview(torch.add(u_half, k2, alpha=dt / 2))))
        u_full = full * u
        k4 = view(nonlinear(unview(torch.addcmul(u_full, half, k3, value=dt))))
        result = u_full.addcmul_(full, k1, value=dt / 6).addcmul_(half, k2 + k3, value=dt / 3)
        return unview(result.add_(k4, alpha=dt / 6))

    return step


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


def _same(values: Tensor) -> Tensor:
    return values
