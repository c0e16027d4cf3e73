"""Velocities in three dimensions: exact flows, the Taylor series of the Taylor-Green vortex, invariants, order."""

import math

import numpy as np
import pytest
import torch
from resolvent.pde import SolverError, fourier_resample
from resolvent.pde._spectral import modes_of
from resolvent.pde.navier_stokes_3d import NavierStokes3D, vorticity

TIMES = (0.25, 1.0)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def relative(got, expected):
    return float((got - expected).norm() / expected.norm())


def resolved(problem, grid, seed=0):
    u = problem.sample(1, grid, generator=generator(seed))
    modes = modes_of(grid, u)
    return modes.inverse(modes.forward(u) * modes.kept)


def divergence(u, grid):
    modes = modes_of(grid, u)
    return modes.inverse(sum(ik * s for ik, s in zip(modes.ik, modes.forward(u).unbind(dim=-4), strict=True)))


@pytest.mark.parametrize("axes", [(0, 1, 2), (1, 2, 0), (2, 0, 1)])
def test_the_two_dimensional_taylor_green_vortex(axes):
    """(sin x cos y, -cos x sin y, 0) decays as exp(-2 nu t), in any of the three planes."""
    problem = NavierStokes3D(reynolds=20.0)
    grid = problem.grid(12)
    x, y, _ = (grid.mesh()[j] for j in axes)
    u = torch.zeros(1, 3, *grid.shape, dtype=torch.float64)
    u[0, axes[0]], u[0, axes[1]] = torch.sin(x) * torch.cos(y), -torch.cos(x) * torch.sin(y)
    got = problem.reference()(u, grid, TIMES)
    expected = torch.stack([math.exp(-2 * t / 20) * u for t in TIMES], dim=1)
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-13)


def test_a_beltrami_flow_decays():
    """Arnold-Beltrami-Childress, curl u = k u: u x curl u = 0, so u decays as exp(-nu k² t), with all products nonzero."""
    problem = NavierStokes3D(reynolds=50.0)
    grid = problem.grid(16)
    x, y, z = 2 * grid.mesh()
    a, b, c = 1.0, 0.7, -0.4
    u = torch.stack(
        [
            a * torch.sin(z) + c * torch.cos(y),
            b * torch.sin(x) + a * torch.cos(z),
            c * torch.sin(y) + b * torch.cos(x),
        ]
    )[None]
    torch.testing.assert_close(vorticity(u, grid), 2 * u, rtol=0, atol=1e-13)
    got = problem.reference()(u, grid, TIMES)
    expected = torch.stack([math.exp(-4 * t / 50) * u for t in TIMES], dim=1)
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-12)


def plain_terms(u, v, k, k2):
    """-P (u . grad) v from its definition, complex FFTs in NumPy; nothing aliases while the modes are few."""
    gradient = [np.fft.ifftn(1j * kj * np.fft.fftn(v, axes=(1, 2, 3)), axes=(1, 2, 3)).real for kj in k]
    s = np.fft.fftn(-sum(u[j] * gradient[j] for j in range(3)), axes=(1, 2, 3))
    along = sum(kj * sj for kj, sj in zip(k, s, strict=True)) / np.where(k2 > 0, k2, 1.0)
    return np.stack([sj - kj * along for kj, sj in zip(k, s, strict=True)])


def taylor_series(u, viscosity, order):
    """u(t) = sum u_n t^n from (n + 1) u_{n+1} = nu Laplace u_n - sum_j P (u_j . grad) u_{n-j}."""
    n = u.shape[-1]
    k1 = np.fft.fftfreq(n, 1 / n)
    k = [k1[:, None, None], k1[None, :, None], k1[None, None, :]]
    k2 = k[0] ** 2 + k[1] ** 2 + k[2] ** 2
    terms = [u]
    for m in range(order):
        s = -viscosity * k2 * np.fft.fftn(terms[m], axes=(1, 2, 3))
        for j in range(m + 1):
            s = s + plain_terms(terms[j], terms[m - j], k, k2)
        terms.append(np.fft.ifftn(s, axes=(1, 2, 3)).real / (m + 1))
    return terms


@pytest.mark.parametrize("reynolds", [100.0, 1600.0])
def test_the_taylor_green_vortex_follows_its_series(reynolds):
    """To t = 0.4 twelve terms suffice, exact on 28 nodes: term n has modes up to n + 1."""
    problem = NavierStokes3D(reynolds=reynolds, initial="taylor_green")
    coarse, grid = problem.grid(28), problem.grid(40)
    u = problem.sample(1, coarse, generator=generator())
    terms = taylor_series(u[0].numpy(), 1 / reynolds, 12)
    times = (0.2, 0.4)
    got = problem.reference(tolerance=1e-9)(problem.sample(1, grid, generator=generator()), grid, times)
    for frame, t in zip(got[0], times, strict=True):
        expected = torch.from_numpy(sum(term * t**n for n, term in enumerate(terms)))
        assert relative(frame, fourier_resample(expected, grid.shape)) < 1e-8
    assert relative(expected, u[0]) > 0.05


def test_enstrophy_of_the_inviscid_vortex_grows_as_published():
    """Brachet et al. 1983: 3/8 + 5/128 t² + …: the t² term of the series in exact numbers, from the code's own steps."""
    problem = NavierStokes3D(reynolds=math.inf, initial="taylor_green")
    grid = problem.grid(20)
    u = problem.sample(1, grid, generator=generator())
    assert float(problem.energy(u)) == pytest.approx(1 / 8, rel=1e-14)
    assert float(problem.enstrophy(u, grid)) == pytest.approx(3 / 8, rel=1e-14)
    small, large = 0.05, 0.1
    got = problem.reference(tolerance=1e-12)(u, grid, (small, large))[0]
    growth = [(float(e) - 3 / 8) / t**2 for e, t in zip(problem.enstrophy(got, grid), (small, large), strict=True)]
    extrapolated = (4 * growth[0] - growth[1]) / 3  # the next term is of order t^4
    assert extrapolated == pytest.approx(5 / 128, rel=1e-4)
    torch.testing.assert_close(problem.energy(got), torch.full((2,), 0.125, dtype=torch.float64), rtol=1e-11, atol=0)


def test_energy_decays_by_the_enstrophy():
    """dE/dt = -2 nu Z, integrated by Simpson's rule over ten frames."""
    problem = NavierStokes3D(reynolds=50.0, frames=10, spacing=0.1)
    grid = problem.grid(20)
    u = resolved(problem, grid)
    frames = torch.cat([u[:, None], problem.reference(tolerance=1e-8)(u, grid)], dim=1)[0]
    z = problem.enstrophy(frames, grid)
    weights = torch.tensor([1, *[4, 2] * 4, 4, 1], dtype=torch.float64) * 0.1 / 3
    loss = float(problem.energy(frames)[0] - problem.energy(frames)[-1])
    assert loss == pytest.approx(2 / 50 * float((weights * z).sum()), rel=2e-5)
    assert loss > 0.05


def test_without_viscosity_energy_and_helicity_are_conserved_and_divergence_stays_zero():
    problem = NavierStokes3D(reynolds=math.inf)
    grid = problem.grid(16)
    u = resolved(problem, grid)
    last = problem.reference(tolerance=1e-9)(u, grid, (1.0,))[:, 0]
    helicity = lambda v: float((v * vorticity(v, grid)).sum(dim=1).mean())  # noqa: E731
    assert relative(last, u) > 0.3
    assert float(problem.energy(last)) == pytest.approx(float(problem.energy(u)), rel=1e-8)
    assert helicity(last) == pytest.approx(helicity(u), rel=1e-6, abs=1e-7)
    assert float(divergence(last, grid).abs().max()) < 1e-12
    torch.testing.assert_close(last.mean(dim=(2, 3, 4)), u.mean(dim=(2, 3, 4)), rtol=0, atol=1e-14)


@pytest.mark.parametrize("shape", [(8, 9, 10), (12, 12, 12)])
@pytest.mark.parametrize("truncated", [False, True])
def test_the_flux_form_is_the_projected_u_grad_u(shape, truncated):
    """On kept modes both are the same; the definition is taken on twice the nodes, where it does not alias."""
    problem = NavierStokes3D()
    grid = problem.grid(shape)
    u = resolved(problem, grid)
    modes = modes_of(grid, u, truncated=truncated)
    got = modes.inverse(problem.nonlinear(modes.forward(u) * modes.kept, modes))
    fine = fourier_resample(u, [2 * n for n in shape])[0].numpy()
    numbers = [np.fft.fftfreq(2 * n, 1 / (2 * n)) for n in shape]
    k = [m.reshape([-1 if i == j else 1 for i in range(3)]) for j, m in enumerate(numbers)]
    spectrum = plain_terms(fine, fine, k, k[0] ** 2 + k[1] ** 2 + k[2] ** 2)
    expected = torch.from_numpy(np.fft.ifftn(spectrum, axes=(1, 2, 3)).real)[None]
    full = modes_of(grid, u)
    expected = full.inverse(full.forward(fourier_resample(expected, shape)) * full.kept)
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("method", ["etdrk4", "ifrk4"])
def test_observed_order_is_four(method):
    problem = NavierStokes3D(reynolds=50.0)
    grid = problem.grid(12)
    u = resolved(problem, grid)
    truth = problem.reference(tolerance=1e-11)(u, grid, (0.5,))
    coarse, fine = (relative(problem.reference(step=0.5 / n, method=method)(u, grid, (0.5,)), truth) for n in (8, 16))
    assert math.log2(coarse / fine) == pytest.approx(4.0, abs=0.4)


def test_samples_have_no_divergence_and_others_are_refused():
    problem = NavierStokes3D()
    grid = problem.grid(16)
    u = problem.sample(2, grid, generator=generator())
    assert float(divergence(u, grid).abs().max()) < 1e-12
    x = grid.mesh()[0]
    u[1, 0] += torch.sin(x)
    with pytest.raises(ValueError, match=r"divergence at sample\(s\) \[1\]"):
        problem.reference()(u, grid)
    assert problem.reference()(u[:1].float(), grid).dtype == torch.float32


def test_a_fixed_step_beyond_cfl_is_refused():
    problem = NavierStokes3D()
    grid = problem.grid(32)
    with pytest.raises(SolverError, match="breaks the CFL condition"):
        problem.reference(step=0.25)(problem.sample(1, grid, generator=generator()), grid)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"reynolds": -1.0}, "reynolds must be positive"),
        ({"reynolds": math.nan}, "reynolds must be positive"),
        ({"initial": "wind"}, "'random_field' or 'taylor_green'"),
        ({"alpha": 1.5}, "alpha must be above 1.5"),
        ({"length": -1.0}, "length must be positive"),
    ],
)
def test_parameters_out_of_range_are_refused(values, message, unchecked):
    with pytest.raises(ValueError, match=message):
        NavierStokes3D(**values)
