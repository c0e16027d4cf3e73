r"""Gaussian random fields with the covariance conventions of the published data sets.

All draw from :math:`N(0, \sigma^2 (-\Delta + \tau^2 I)^{-\alpha})` without its constant mode,

.. math:: u(x) = \sum_k \sigma (\lambda_k + \tau^2)^{-\alpha/2}\, \xi_k\, \varphi_k(x),\qquad \xi_k \sim N(0, 1),

with the eigenvalues :math:`\lambda_k` of :math:`-\Delta` on the box and eigenfunctions :math:`\varphi_k` of unit mean
square (on the unit box: orthonormal; elsewhere this is the published convention, without a factor of the volume).
The fields differ in the boundary condition of the Laplacian, and hence in the series:

* ``periodic_field``   Fourier series,  nodes ``left``               (Navier-Stokes, Burgers)
* ``neumann_field``    cosine series,   nodes ``centres`` or ``ends``  (Darcy coefficients)
* ``dirichlet_field``  sine series,     nodes ``ends``               (forcings that vanish on the boundary)

The series holds every mode that the grid resolves and is evaluated at the nodes, so the law does not depend on the
resolution but for the modes beyond it, whose variance is of order :math:`n^{-(2\alpha-d)}`.

The default amplitude is :math:`\sigma = \tau^{(2\alpha - d)/2}`, as in the published generators. (Some print
7^{3/2} as a factor of the covariance; their code multiplies its square root. We follow the code: the pointwise
standard deviation of the Navier-Stokes initial vorticity is 0.185.)
"""

from __future__ import annotations

import math

import torch
from scipy import fft as scipy_fft
from torch import Generator, Tensor

from ._grid import Grid


def periodic_field(
    count: int, grid: Grid, *, alpha: float, tau: float, sigma: float | None = None, generator: Generator
) -> Tensor:
    r"""Samples of shape ``count *space`` (float64): :math:`\hat u_k = \sqrt2 \sigma (4\pi^2|k|^2+\tau^2)^{-\alpha/2}
    \xi_k`, u = Re of the series, with complex normal xi of unit variance.
    """
    _check(alpha, tau, grid.dim)
    _need(grid, "left", "periodic_field")
    k2 = _squares([torch.fft.fftfreq(n, d=1 / n, dtype=torch.float64) for n in grid.shape], grid, 2 * math.pi)
    amplitude = math.sqrt(2) * _amplitude(sigma, alpha, tau, grid) * (k2 + tau**2) ** (-alpha / 2)
    amplitude[(0,) * grid.dim] = 0.0
    noise = torch.randn(count, *grid.shape, dtype=torch.complex128, generator=generator)
    return torch.fft.ifftn(amplitude * noise, dim=tuple(range(1, grid.dim + 1)), norm="forward").real.contiguous()


def neumann_field(
    count: int, grid: Grid, *, alpha: float, tau: float, sigma: float | None = None, generator: Generator
) -> Tensor:
    """Samples of shape ``count *space`` (float64): cosine series without its mean, at cell centres or at end nodes."""
    _check(alpha, tau, grid.dim)
    placement = "ends" if grid.axes[0].placement == "ends" else "centres"
    _need(grid, placement, "neumann_field")
    coefficients = _real_coefficients(count, grid, [torch.arange(n) for n in grid.shape], alpha, tau, sigma, generator)
    coefficients.flatten(1)[:, 0] = 0.0
    axes = tuple(range(1, grid.dim + 1))
    if placement == "centres":
        values = scipy_fft.idctn(coefficients.numpy(), axes=axes, norm="ortho")
        return torch.from_numpy(values) * math.sqrt(grid.size)
    # DCT-I doubles the inner terms and takes the first and the last once: weights 1, sqrt(2)/2, …, sqrt(2)/2, sqrt(2)
    for axis, n in enumerate(grid.shape, start=1):
        weights = torch.full((n,), math.sqrt(0.5), dtype=torch.float64)
        weights[0], weights[-1] = 1.0, math.sqrt(2)
        coefficients = coefficients * weights.reshape(-1, *(1,) * (grid.dim - axis))
    return torch.from_numpy(scipy_fft.dctn(coefficients.numpy(), type=1, axes=axes))


def dirichlet_field(
    count: int, grid: Grid, *, alpha: float, tau: float, sigma: float | None = None, generator: Generator
) -> Tensor:
    """Samples of shape ``count *space`` (float64): sine series, zero at the end nodes."""
    _check(alpha, tau, grid.dim)
    _need(grid, "ends", "dirichlet_field")
    numbers = [torch.arange(1, n - 1) for n in grid.shape]
    coefficients = _real_coefficients(count, grid, numbers, alpha, tau, sigma, generator)
    axes = tuple(range(1, grid.dim + 1))
    interior = scipy_fft.idstn(coefficients.numpy(), type=1, axes=axes, norm="ortho")
    scale = math.sqrt(math.prod(n - 1 for n in grid.shape))
    return torch.nn.functional.pad(torch.from_numpy(interior) * scale, (1, 1) * grid.dim)


def _real_coefficients(
    count: int,
    grid: Grid,
    numbers: list[Tensor],
    alpha: float,
    tau: float,
    sigma: float | None,
    generator: Generator,
) -> Tensor:
    k2 = _squares(numbers, grid, math.pi)
    amplitude = _amplitude(sigma, alpha, tau, grid) * (k2 + tau**2) ** (-alpha / 2)
    return amplitude * torch.randn(count, *k2.shape, dtype=torch.float64, generator=generator)


def _squares(numbers: list[Tensor], grid: Grid, factor: float) -> Tensor:
    total = torch.zeros((), dtype=torch.float64)
    for n, length in zip(numbers, grid.lengths, strict=True):
        total = total[..., None] + (factor * n.to(torch.float64) / length).square()
    return total


def _amplitude(sigma: float | None, alpha: float, tau: float, grid: Grid) -> float:
    if sigma is None and tau == 0:
        raise ValueError("The default sigma is a power of tau and vanishes with it; give sigma for tau = 0.")
    return tau ** ((2 * alpha - grid.dim) / 2) if sigma is None else sigma


def _check(alpha: float, tau: float, dim: int) -> None:
    if not (math.isfinite(alpha) and math.isfinite(tau)):
        raise ValueError(f"alpha and tau are finite numbers; got {alpha} and {tau}.")
    if not 2 * alpha > dim:
        raise ValueError(f"In {dim} dimension(s) the variance is finite only for alpha > {dim / 2}; got {alpha}.")
    if tau < 0:
        raise ValueError(f"tau is an inverse length, at least 0; got {tau}.")


def _need(grid: Grid, placement: str, what: str) -> None:
    if any(axis.placement != placement for axis in grid.axes):
        found = [axis.placement for axis in grid.axes]
        raise ValueError(f"{what} lives on nodes placed {placement!r}; the grid's axes are placed {found}.")
