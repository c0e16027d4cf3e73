"""Large grids: the Kronecker posterior against its dense twin, samples with their moments, the dense one as referee."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from resolvent.gp._covariance import LineSpectrum
from resolvent.gp._grid_posterior import Gridded
from resolvent.gp._kronecker import apply
from resolvent.gp._posterior import Noise, measured_prior
from resolvent.gp.gp import GaussianProcess
from resolvent.pde import Equation, Grid
from resolvent.pde._equation import Term, dirichlet
from resolvent.pde.high_frequency_advection import HighFrequencyAdvection
from resolvent.pde.high_frequency_poisson import HighFrequencyPoisson
from torch import Tensor

P2D2 = HighFrequencyPoisson(case="p2d2", spread=0.0)


def posed(nodes: int, share: float) -> tuple[Grid, Equation, Noise, list[LineSpectrum]]:
    grid = P2D2.grid(nodes)
    generator = torch.Generator().manual_seed(0)
    equation = P2D2.equation(P2D2.sample(1, grid, generator=generator), grid)
    noise = Noise(share * float(equation.source.std()))
    error = torch.randn(equation.source.shape, generator=generator, dtype=torch.float64)
    equation = dataclasses.replace(equation, source=equation.source + noise.source * error)
    return grid, equation, noise, measured_prior(equation, grid, noise)  # type: ignore[return-value]


def small() -> tuple[Gridded, Equation, Grid, Noise]:
    """-u_xx - 2 u_yy + u = f with waves of few frequencies on 9 x 8 nodes."""
    axes = tuple(dataclasses.replace(axis, size=n) for axis, n in zip(P2D2.grid(9).axes, (9, 8), strict=True))
    grid = Grid(axes)
    lines = [
        LineSpectrum(torch.tensor([1.0, 0.6, 0.3], dtype=torch.float64), torch.tensor([0.0, 0.07, 0.15]).double())
    ] * 2
    x, y = grid.coordinates()
    source = torch.cos(x)[:, None] * torch.sin(0.5 * y)
    faces = dirichlet((0.1 * x[:, None] + 0.2 * y + 0.01 * x[:, None] * y)[None])
    equation = Equation((Term((2, 0), -1.0), Term((0, 2), -2.0), Term((0, 0), 1.0)), source[None], faces)
    noise = Noise(0.1)
    return Gridded(equation, grid, lines, noise), equation, grid, noise


def maps(field: Gridded, points: list[Tensor], orders: tuple[int, ...]) -> Tensor:
    """eta -> a derivative of u at the points, a dense matrix."""
    count = field.sizes.numel()
    eye = torch.eye(count, dtype=torch.float64).reshape(count, *field.sizes.shape)
    known = field._field(torch.zeros((1, *field.sizes.shape), dtype=torch.float64), points, orders)
    return (field._field(eye, points, orders) - known).flatten(1).T


@pytest.mark.parametrize("orders", [(0, 0), (1, 0), (0, 2)])
def test_the_dense_twin(orders: tuple[int, int]) -> None:
    """eta ~ N(0, s²), y = (Q t) eta + error: the conditional by dense matrices, and so that of u."""
    field, equation, _, noise = small()
    points = [torch.linspace(0.5, 6.0, 5, dtype=torch.float64), torch.linspace(0.3, 5.5, 4, dtype=torch.float64)]
    seen = torch.kron(*field.turns) * field.sizes.flatten()
    y = (equation.source[0] - field.known).flatten()
    gram = field.scale * seen @ seen.T + noise.source**2 * torch.eye(len(y), dtype=torch.float64)
    gain = field.scale * torch.linalg.solve(gram, seen).T
    covariance = field.scale * (torch.eye(seen.shape[1], dtype=torch.float64) - gain @ seen)
    through = maps(field, points, orders)
    known = field._field(torch.zeros((1, *field.sizes.shape), dtype=torch.float64), points, orders)[0]
    mean = (through @ (gain @ y)).reshape(known.shape) + known
    deviation = (through @ covariance @ through.T).diagonal().clamp_min(0).sqrt().reshape(known.shape)
    torch.testing.assert_close(field.mean(points, orders), mean, rtol=1e-8, atol=1e-9)
    torch.testing.assert_close(field.deviation(points, orders), deviation, rtol=1e-7, atol=1e-9)


def test_the_mean_solves_the_equation_with_the_mean_source() -> None:
    """L u of the posterior mean is the posterior mean of f: the operator and its inverse agree at the nodes."""
    grid, equation, noise, prior = posed(100, 0.05)
    field = Gridded(equation, grid, prior, noise)
    got = torch.stack([t.coefficient * field.mean(grid.coordinates(), t.orders) for t in equation.terms]).sum(dim=0)
    expected = apply(field.turns, field.sizes * field.means) + field.known
    assert float((got - expected).norm()) < 0.01 * float(expected.norm())  # of 5 % noise


def test_samples_have_the_posterior_moments() -> None:
    """4000 draws: means to 4.5 standard errors, deviations to 4.5 / sqrt(2 n)."""
    field, _, _, _ = small()
    points, count = [torch.tensor([1.0, 3.0], dtype=torch.float64), torch.tensor([2.0, 5.0], dtype=torch.float64)], 4000
    for orders in ((0, 0), (1, 0)):
        draws = field.sample(count, points, orders, generator=torch.Generator().manual_seed(0))
        deviation = field.deviation(points, orders)
        assert bool(((draws.mean(dim=0) - field.mean(points, orders)).abs() < 4.5 * deviation / math.sqrt(count)).all())
        assert bool(((draws.std(dim=0) / deviation - 1).abs() < 4.5 / math.sqrt(2 * count)).all())


def test_a_large_grid_with_a_learnt_noise_level() -> None:
    """160² nodes, 5 % noise: the model answers in Kronecker form; 25 600 values know the noise to a percent."""
    grid, equation, noise, _ = posed(160, 0.05)
    prior = measured_prior(equation, grid, noise, learn_noise=True)
    field = Gridded(equation, grid, prior, Noise(noise.source), learn_noise=True)
    assert field.noise == pytest.approx(1.0, abs=0.05)
    points = P2D2.grid(30).coordinates()
    truth = P2D2.solution.field(points)
    prior = measured_prior(equation, grid, noise)
    sharp = Gridded(equation, grid, prior, noise)
    error = sharp.mean(points) - truth
    assert float(error.norm() / truth.norm()) < 0.03  # of 5 % in the source
    few = [p[::6] for p in points]
    inner = sharp.deviation(few)[1:-1, 1:-1]
    assert bool((error[::6, ::6][1:-1, 1:-1].abs() < 4 * inner).all())
    torch.testing.assert_close(sharp.given(equation.source[0]).mean(few), sharp.mean(few))


def test_what_it_is_not_for_is_refused() -> None:
    grid, equation, noise, prior = posed(20, 0.05)
    with pytest.raises(ValueError, match="boundary data are exact"):
        Gridded(equation, grid, prior, Noise(noise.source, 0.1))
    with pytest.raises(ValueError, match="boundary data are exact"):
        Gridded(equation, grid, prior, Noise())
    mixed = dataclasses.replace(equation, terms=(*equation.terms, Term((1, 1), 0.5)))
    with pytest.raises(ValueError, match="constant coefficients"):
        Gridded(mixed, grid, prior, noise)
    moving = HighFrequencyAdvection(spread=0.0)
    grid = moving.grid(60)
    inputs = moving.sample(1, grid, generator=torch.Generator().manual_seed(0))
    field = GaussianProcess(moving).posterior(inputs, grid, noise=Noise(source=1e-3))
    assert isinstance(field, Gridded)
    with pytest.raises(ValueError, match="initial-value direction"):
        field.deviation(grid.coordinates())
