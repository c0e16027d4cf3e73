"""Residual dynamic mode decomposition on systems whose Koopman spectra are known."""

from __future__ import annotations

import cmath
import math

import pytest
import torch
from resolvent.dynamics import odeint
from resolvent.dynamics._dictionaries import Dictionary, Fourier, Hermite, Polynomials, Product, RadialBasis
from resolvent.dynamics._koopman import FewSnapshots, delayed, koopman, pairs_of
from scipy.special import eval_legendre
from torch import Tensor


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=generator(seed), dtype=torch.float64)


def uniform(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, generator=generator(seed), dtype=torch.float64)


TURN = 0.7
LINEAR = torch.tensor([[0.9, 0.2], [0.0, 0.5]], dtype=torch.float64)


def torus_grid(nodes: int) -> Tensor:
    line = torch.arange(nodes, dtype=torch.float64) / nodes
    return torch.stack(torch.meshgrid(line, line, indexing="ij"), dim=-1).flatten(0, 1)


def cat_map(x: Tensor) -> Tensor:
    """Arnold's, which permutes the nodes of a regular grid: the measure behind equal weights is preserved exactly."""
    return (x @ torch.tensor([[2.0, 1.0], [1.0, 1.0]], dtype=torch.float64).T) % 1


def test_a_rotation_has_the_eigenvalues_exp_i_n_theta_with_residual_zero() -> None:
    """On equally spaced points of the circle waves are exactly orthogonal; 1e-12 is rounding."""
    angle = torch.arange(32, dtype=torch.float64)[:, None] * 2 * math.pi / 32
    found = koopman(angle, angle + TURN, Fourier(5, [2 * math.pi]), step=TURN)
    assert float(found.residuals.max()) < 1e-12
    expected = [cmath.exp(1j * n * TURN) for n in range(-5, 6)]
    for value in expected:
        assert float((found.eigenvalues - value).abs().min()) < 1e-12
    rates = sorted(round(float(rate.imag)) for rate in found.rates)
    assert rates == [-4, *range(-4, 5), 4]  # 5 turns of 0.7 are beyond pi: its frequency is known up to 2 pi / step
    assert bool(found.verified(1e-10).all())


def test_a_linear_map_has_the_products_of_its_eigenvalues() -> None:
    states = 2 * uniform(400, 2) - 1
    found = koopman(states, states @ LINEAR.T, Polynomials(3, [-1, -1], [1, 1]))
    expected = sorted(0.9**i * 0.5**j for i in range(4) for j in range(4 - i))
    values = sorted(float(v.real) for v in found.eigenvalues)
    torch.testing.assert_close(torch.tensor(values), torch.tensor(expected), rtol=0, atol=1e-9)
    assert float(found.residuals.max()) < 1e-9
    x = normal(5, 2, seed=3)
    torch.testing.assert_close(
        found.eigenfunctions(x @ LINEAR.T), found.eigenfunctions(x) * found.eigenvalues, rtol=1e-7, atol=1e-8
    )


def test_where_the_measure_is_preserved_no_interior_point_has_a_small_residual() -> None:
    """An isometry: res(z) >= | |z| - 1 |, here without quadrature error; EDMD's interior eigenvalues are all flagged."""
    states = torus_grid(24)
    found = koopman(states, cat_map(states), Fourier(2, [1.0, 1.0]))
    inside = found.eigenvalues.abs() < 0.9
    assert int(inside.sum()) > 5
    assert bool((found.residuals >= (found.eigenvalues.abs() - 1).abs() - 1e-10).all())
    assert not bool(found.verified(0.05)[inside].any())
    points = 1.3 * torch.exp(1j * 2 * math.pi * uniform(40)) * uniform(40, seed=1)
    assert bool((found.pseudospectrum(points) >= (points.abs() - 1).abs() - 1e-10).all())


def test_the_pseudospectrum_is_the_definition() -> None:
    """Smallest eigenvalue of L - z A* - conj(z) A + |z|^2, formed as it is written, on well-conditioned data."""
    states = torus_grid(12)
    images = (states + torch.tensor([0.11, 0.23]) + 0.03 * torch.sin(2 * math.pi * states.flip(1))) % 1
    found = koopman(states, images, Fourier(1, [1.0, 1.0]))
    here, there = (found.dictionary(x) / math.sqrt(len(states)) for x in (states, images))
    q, r = torch.linalg.qr(here)
    c = there @ torch.linalg.inv(r)
    a, gram = q.mH @ c, c.mH @ c
    for z in (0.3 + 0.4j, -0.9j, 1.0 + 0j):
        matrix = gram - z * a.mH - z.conjugate() * a + abs(z) ** 2 * torch.eye(len(a))
        expected = float(torch.linalg.eigvalsh(matrix)[0].clamp_min(0).sqrt())
        got = float(found.pseudospectrum(torch.tensor([z], dtype=torch.complex128))[0])
        assert got == pytest.approx(expected, abs=1e-7)  # the Gram form has half of the digits


def test_no_function_is_better_than_the_pseudospectrum_says_and_a_larger_span_is_never_worse() -> None:
    states = torus_grid(20)
    images = (states + torch.tensor([0.11, 0.23]) + 0.05 * torch.sin(2 * math.pi * states.flip(1))) % 1
    points = torch.complex(*(2 * uniform(30, 2) - 1).unbind(dim=1))
    last = torch.full((30,), math.inf, dtype=torch.float64)
    for highest in (1, 2, 3):
        found = koopman(states, images, Fourier(highest, [1.0, 1.0]))
        least = found.pseudospectrum(found.eigenvalues)
        assert bool((least <= found.residuals + 1e-10).all())
        now = found.pseudospectrum(points)
        assert bool((now <= last + 1e-10).all())
        last = now


def test_quadrature_weights_stand_for_the_measure() -> None:
    """Gauss-Legendre nodes with their weights and many equal-weight draws agree; equal weights at the nodes do not."""
    nodes, weights = (torch.from_numpy(each) for each in __import__("numpy").polynomial.legendre.leggauss(40))

    def images(x: Tensor) -> Tensor:
        return 0.5 * x + 0.4 * x**2

    basis = Polynomials(3, [-1], [1])
    z = torch.tensor([0.2 + 0.3j, 0.7 + 0j], dtype=torch.complex128)
    ruled = koopman(nodes[:, None], images(nodes[:, None]), basis, weights=weights).pseudospectrum(z)
    drawn = 2 * uniform(200_000, 1) - 1
    torch.testing.assert_close(koopman(drawn, images(drawn), basis).pseudospectrum(z), ruled, rtol=2e-2, atol=0)
    wrong = koopman(nodes[:, None], images(nodes[:, None]), basis).pseudospectrum(z)
    assert float(((wrong - ruled) / ruled).abs().max()) > 5e-2


def test_dependent_features_are_dropped_and_said() -> None:
    class Twice(Dictionary):
        def __call__(self, states: Tensor) -> Tensor:
            return torch.cat([Polynomials(2, [-1], [1])(states)] * 2, dim=1)

    states = 2 * uniform(100, 1) - 1
    with pytest.warns(UserWarning, match="3 of 6"):
        found = koopman(states, 0.5 * states, Twice())
    torch.testing.assert_close(
        found.eigenvalues.real.sort().values, torch.tensor([0.25, 0.5, 1.0], dtype=torch.float64), rtol=0, atol=1e-9
    )


def test_small_residuals_survive_bad_conditioning() -> None:
    """Eigenfunctions x^k of x -> 0.8 x, in a basis with condition number 1e9: Gram matrices would lose them."""

    class Monomials(Dictionary):
        def __call__(self, states: Tensor) -> Tensor:
            return torch.cat([states**k for k in range(9)], dim=1)

    states = 1 + 0.2 * uniform(300, 1)
    found = koopman(states, 0.8 * states, Monomials(), dependent=1e-14)
    best = min(float(found.residuals[(found.eigenvalues - 0.8**k).abs().argmin()]) for k in (0, 1, 2))
    assert best < 1e-9
    assert float(found.pseudospectrum(torch.tensor([0.8 + 0j], dtype=torch.complex128))[0]) < 1e-11


def test_held_out_snapshots_unmask_what_was_only_fitted() -> None:
    """Images drawn at random: 30 features of 60 snapshots look half predictable, on others nothing is."""
    states, others = uniform(60, 1), uniform(4000, 1, seed=5)
    images, later = uniform(60, 1, seed=2), uniform(4000, 1, seed=6)
    found = koopman(states, images, Fourier(14, [1.0]), held_out=(others, later))
    moving = found.eigenvalues.abs() > 0.3
    moving &= (found.eigenvalues - 1).abs() > 1e-6
    assert found.held_out is not None
    assert bool((found.held_out[moving] > found.residuals[moving]).all())
    assert int(found.verified(0.3).sum()) == 1  # the constant


def test_a_pendulum_has_its_invariants_and_no_interior_spectrum() -> None:
    """Dossier's dictionary (waves of the angle, Hermite functions of the velocity), steps of 0.5, on a grid of states.

    The flow preserves area; the box in velocity leaks only where features are exponentially small.
    """
    angles, speeds = torch.arange(40, dtype=torch.float64) * 2 * math.pi / 40, torch.linspace(-6, 6, 61).double()
    states = torch.stack(torch.meshgrid(angles, speeds, indexing="ij"), dim=-1).flatten(0, 1)

    def pendulum(_: Tensor, y: Tensor) -> Tensor:
        return torch.stack([y[:, 1], -torch.sin(y[:, 0])], dim=1)

    images = odeint(pendulum, states, [0.0, 0.5], rtol=1e-9, atol=1e-9).states[:, -1]
    found = koopman(states, images, Product(Fourier(4, [2 * math.pi]), Hermite(8, 1.0), 1), step=0.5)
    assert bool((found.residuals >= (found.eigenvalues.abs() - 1).abs() - 1e-3).all())
    best = found.eigenvalues[0]
    assert float(found.residuals[0]) < 0.05
    assert abs(complex(best) - 1) < 0.05  # functions of the energy are conserved


def test_polynomials_are_legendres_and_hermite_functions_are_orthonormal() -> None:
    """SciPy's values on [-1, 1]; integrals of products of Hermite functions by the trapezoidal rule, exact to rounding."""
    x = torch.linspace(0, 2, 9, dtype=torch.float64)[:, None]
    expected = torch.stack([torch.from_numpy(eval_legendre(n, x[:, 0].numpy() - 1)) for n in range(6)], dim=1)
    torch.testing.assert_close(Polynomials(5, [0.0], [2.0])(x), expected)
    line = torch.linspace(-20, 20, 2001, dtype=torch.float64)[:, None]
    values = Hermite(6, 1.5)(line)
    gram = values.T @ values * 0.02 / 1.5
    torch.testing.assert_close(gram, torch.eye(7, dtype=torch.float64), rtol=0, atol=1e-12)


def test_bumps_about_centres_are_placed_and_scaled_by_the_data() -> None:
    states = torch.cat([normal(100, 2) * 0.01 + torch.tensor([side, 0.0]) for side in (-1.0, 1.0)])
    basis = RadialBasis.around(states, 2)
    assert sorted(round(float(c)) for c in basis.centres[:, 0]) == [-1, 1]
    assert basis.scale == pytest.approx(1.0, abs=0.02)
    assert basis(states).shape == (200, 3)


def test_delays_put_predecessors_beside_a_state() -> None:
    path = torch.arange(5, dtype=torch.float64)[None, :, None]
    torch.testing.assert_close(delayed(path, 3)[0], torch.tensor([[2.0, 1, 0], [3, 2, 1], [4, 3, 2]]).double())
    states, images = pairs_of(delayed(path, 2))
    torch.testing.assert_close(images[:, 1:], states[:, :1])


def test_a_hidden_oscillator_is_found_through_delays() -> None:
    """Only cos(t) is seen; with one delay the eigenvalues exp(+-i dt) come out exactly."""
    path = torch.cos(0.3 * torch.arange(60, dtype=torch.float64) + 0.2)[None, :, None]
    states, images = pairs_of(delayed(path, 2))
    found = koopman(states, images, Polynomials(1, [-1, -1], [1, 1]), step=0.3)
    for sign in (1, -1):
        assert float((found.eigenvalues - cmath.exp(sign * 0.3j)).abs().min()) < 1e-10


def test_too_few_snapshots_and_bad_input_are_refused(unchecked: None) -> None:
    x = uniform(20, 1)
    with pytest.raises(FewSnapshots, match="11 features need at least 22 snapshots, got 20"):
        koopman(x, x, Fourier(5, [1.0]))
    with pytest.raises(ValueError, match="image must be finite"):
        koopman(x, torch.full_like(x, math.nan), Fourier(1, [1.0]))
    with pytest.raises(ValueError, match="positive"):
        koopman(x, x, Fourier(1, [1.0]), weights=torch.zeros(20))
    with pytest.raises(ValueError, match="row by row"):
        koopman(x, x[:5], Fourier(1, [1.0]))
    with pytest.raises(ValueError, match="2 variables"):
        koopman(x, x, Polynomials(2, [0, 0], [1, 1]))
    with pytest.raises(ValueError, match="centres"):
        RadialBasis.around(x, 21)
