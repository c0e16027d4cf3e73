"""Regression between functions: the dense Gaussian conditional, ridge regression as a special case, error bars."""

from __future__ import annotations

import math

import pytest
import torch
from resolvent.data import Dataset
from resolvent.gp._regression import covariance, evidence, noise_of, principal_directions
from resolvent.gp.gp_operator import GPOperator
from resolvent.pde import Channel, Grid, Signature
from resolvent.pde._grid import Axis

GRID = Grid((Axis("x", 16),))
SIGNATURE = Signature((Channel("a", "1", "a"),), (Channel("u", "1", "u"),))


def maps(count: int, *, linear: bool, seed: int = 0, noise: float = 0.0) -> tuple[torch.Tensor, torch.Tensor]:
    """Three random waves; u is their derivative, or a square of it."""
    generator = torch.Generator().manual_seed(seed)
    (x,) = GRID.coordinates()
    waves = torch.stack([torch.sin(2 * math.pi * x), torch.cos(2 * math.pi * x), torch.sin(4 * math.pi * x)])
    slopes = torch.stack([torch.cos(2 * math.pi * x), -torch.sin(2 * math.pi * x), 2 * torch.cos(4 * math.pi * x)])
    z = torch.randn((count, 3), generator=generator, dtype=torch.float64)
    u = z @ slopes if linear else (z @ slopes).square() / 4 + z @ waves
    return (z @ waves)[:, None], (u + noise * torch.randn(u.shape, generator=generator, dtype=torch.float64))[:, None]


def dataset(inputs: torch.Tensor, outputs: torch.Tensor) -> Dataset:
    return Dataset.from_tensors(inputs.float(), outputs.float(), grid=GRID, signature=SIGNATURE, problem="test")


def fitted(count: int, *, linear: bool, nonlinear: bool = True, noise: float = 0.0) -> GPOperator:
    model = GPOperator(SIGNATURE, GRID, nonlinear=nonlinear)
    model.fit(dataset(*maps(count, linear=linear, noise=noise)))
    return model


def relative(model: GPOperator, *, linear: bool) -> float:
    inputs, outputs = maps(50, linear=linear, seed=9)
    return float((model(inputs, GRID) - outputs).norm() / outputs.norm())


def test_a_linear_map_is_found_from_few_samples() -> None:
    """Three degrees of freedom, 12 samples in single precision."""
    assert relative(fitted(12, linear=True), linear=True) < 1e-3
    assert relative(fitted(12, linear=True, nonlinear=False), linear=True) < 1e-4


def test_a_smooth_nonlinear_map_needs_the_nonlinear_part() -> None:
    straight, curved = (fitted(100, linear=False, nonlinear=n) for n in (False, True))
    assert relative(curved, linear=False) < 0.15 * relative(straight, linear=False)


def test_the_answer_is_the_dense_conditional_mean() -> None:
    model = fitted(30, linear=False)
    part = model.parts
    z, hyper = part["coordinates"], part["hyperparameters"]
    inputs = maps(5, linear=False, seed=3)[0]
    there = (inputs - part["input_mean"]).flatten(1) / part["input_scale"] @ part["input_basis"]
    gram = covariance(z, z, part["input_variances"], hyper, True) + noise_of(hyper) * torch.eye(30, dtype=torch.float64)
    cross = covariance(there, z, part["input_variances"], hyper, True)
    outputs = maps(30, linear=False)[1].float().double()
    mean = outputs.mean(dim=0)
    expected = mean + (cross @ torch.linalg.solve(gram, (outputs - mean).flatten(1)))[:, None]
    torch.testing.assert_close(model(inputs, GRID), expected, rtol=1e-5, atol=1e-6)


def test_without_the_nonlinear_part_it_is_ridge_regression() -> None:
    """theta_1 z z' + rho: weights (Z^T Z + rho / theta_1)^{-1} Z^T Y; the constant of centred data changes nothing."""
    model = fitted(40, linear=True, nonlinear=False, noise=0.3)
    part = model.parts
    z, hyper = part["coordinates"], part["hyperparameters"]
    outputs = (maps(40, linear=True, noise=0.3)[1].float().double() - part["output_mean"]).flatten(1)
    penalty = float(noise_of(hyper) / hyper[2].exp()) * torch.eye(z.shape[1], dtype=torch.float64)
    weights = torch.linalg.solve(z.T @ z + penalty, z.T @ outputs)
    inputs = maps(5, linear=True, seed=3)[0]
    there = (inputs - part["input_mean"]).flatten(1) / part["input_scale"] @ part["input_basis"]
    torch.testing.assert_close(
        (model(inputs, GRID) - part["output_mean"]).flatten(1), there @ weights, rtol=1e-6, atol=1e-7
    )


def test_the_evidence_and_its_gradient() -> None:
    generator = torch.Generator().manual_seed(0)
    root = torch.randn((5, 5), generator=generator, dtype=torch.float64)
    rows = torch.randn((5, 7), generator=generator, dtype=torch.float64)
    gram = (root @ root.T + torch.eye(5, dtype=torch.float64)).requires_grad_()

    def value(m: torch.Tensor) -> torch.Tensor:
        return evidence(0.5 * (m + m.T), rows @ rows.T)

    assert torch.autograd.gradcheck(value, gram)
    # the profiled log likelihood of 7 columns, up to its constant
    scale = (rows * torch.linalg.solve(gram, rows)).sum() / 35
    normal = torch.distributions.MultivariateNormal(torch.zeros(5, dtype=torch.float64), scale * gram)
    constant = -35 / 2 * (math.log(2 * math.pi) + 1 - math.log(35))
    torch.testing.assert_close(normal.log_prob(rows.T).sum(), constant - 7 * value(gram), rtol=1e-10, atol=0)


def test_error_bars_hold_the_truth_and_samples_have_their_size() -> None:
    """Errors of 0.3 in every training value: 95 % bands for new noisy values, 50 samples of 16 nodes."""
    model = fitted(60, linear=True, noise=0.3)
    inputs, outputs = maps(50, linear=True, seed=9, noise=0.3)
    deviation = model.deviation(inputs, GRID)
    covered = float(((model(inputs, GRID) - outputs).abs() < 1.96 * deviation).double().mean())
    assert 0.9 < covered < 0.99
    draws = model.sample(2000, inputs[:2], GRID, generator=torch.Generator().manual_seed(0))
    # 2000 draws know a deviation to 1.6 %; four times that
    torch.testing.assert_close(draws.std(dim=0), deviation[:2], rtol=0.064, atol=0)


def test_bands_are_set_by_samples_held_out() -> None:
    """Fewer samples than directions, where a sample left out in closed form is foretold exactly (it is in the mean)."""
    generator = torch.Generator().manual_seed(0)
    inputs, more = (torch.randn((n, 1, 16), generator=generator, dtype=torch.float64) for n in (14, 200))
    model = GPOperator(SIGNATURE, GRID)
    history = model.fit(dataset(inputs, inputs.cumsum(dim=-1)))
    error, truth = model(more, GRID) - more.cumsum(dim=-1), more.cumsum(dim=-1)
    covered = float((error.abs() < 1.96 * model.deviation(more, GRID)).double().mean())
    assert 0.88 < covered < 0.995
    found = float((error.flatten(1).norm(dim=1) / truth.flatten(1).norm(dim=1)).mean())
    assert 0.5 < history.rows[0]["train"] / found < 2


def test_principal_directions_span_the_rows() -> None:
    rows = torch.randn((6, 10), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    rows = rows - rows.mean(dim=0)
    for given in (rows, rows.T - rows.T.mean(dim=0)):
        basis = principal_directions(given, 100)
        torch.testing.assert_close(given @ basis @ basis.T, given, rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(basis.T @ basis, torch.eye(basis.shape[1], dtype=torch.float64), rtol=0, atol=1e-10)


def test_refusals() -> None:
    model = GPOperator(SIGNATURE, GRID)
    with pytest.raises(ValueError, match="not been fitted"):
        model(torch.zeros((1, 1, 16)), GRID)
    with pytest.raises(ValueError, match="samples >= 2"):
        GPOperator(SIGNATURE, GRID, samples=1)
    with pytest.raises(ValueError, match="Weights of gp_operator"):
        model.restore({})
    with pytest.raises(ValueError, match="at least 2 training pairs"):
        model.fit(dataset(*maps(1, linear=True)))
