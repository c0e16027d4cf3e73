"""Unknown coefficients by marginal likelihood: the truth is found, and intervals hold it as often as they say."""

from __future__ import annotations

import math

import pytest
import torch
from resolvent.gp._covariance import Covariance, SquaredExponential
from resolvent.gp._inverse import Estimate, Measurements, infer
from resolvent.gp._posterior import Noise
from resolvent.pde import Grid, SolverError
from resolvent.pde._equation import Equation, Term, dirichlet
from resolvent.pde._grid import Axis
from torch import Tensor

LINE = Grid((Axis("x", 21, 0.0, 1.0, ("dirichlet", "dirichlet"), "ends"),))
PLANE = Grid(
    (
        Axis("x", 11, 0.0, 1.0, ("dirichlet", "dirichlet"), "ends"),
        Axis("t", 11, 0.0, 1.0, ("dirichlet", "outflow"), "ends"),
    )
)
RATE, WAVE = 2.0, 3.0


def same(length: Tensor) -> list[Covariance]:
    return [SquaredExponential(length)]


def both(length: Tensor) -> list[Covariance]:
    return [SquaredExponential(length), SquaredExponential(length)]


def helmholtz(theta: Tensor) -> Equation:
    """u'' + theta u = f with u = sin(3 pi x) + x and theta = 3² (truth)."""
    (x,) = LINE.coordinates()
    u = (torch.sin(3 * math.pi * x) + x)[None]
    source = -((3 * math.pi) ** 2) * torch.sin(3 * math.pi * x)[None] + WAVE**2 * u
    return Equation((Term((2,), 1.0), Term((0,), theta[0])), source, dirichlet(u))


def reaction_diffusion(theta: Tensor) -> Equation:
    """-a u'' + c u = f with two unknowns, a = 0.5 and c = 2."""
    (x,) = LINE.coordinates()
    u = torch.sin(2 * math.pi * x)[None]
    source = (0.5 * (2 * math.pi) ** 2 + RATE) * u + RATE * x[None] - 0 * u
    return Equation((Term((2,), -theta[0]), Term((0,), theta[1])), source, dirichlet(u + x))


def heat(theta: Tensor) -> Equation:
    """u_t = nu u_xx with u = exp(-nu pi² t) sin(pi x), nu = 0.2, from its initial and wall values."""
    x, t = PLANE.coordinates()
    u = (torch.exp(-0.2 * math.pi**2 * t) * torch.sin(math.pi * x)[:, None])[None]
    terms = (Term((0, 1), 1.0), Term((2, 0), -theta[0]))
    return Equation(terms, torch.zeros_like(u), dirichlet(u, [(0, "lower"), (0, "upper"), (1, "lower")]))


def measured(grid: Grid, truth, count: int, noise: float, seed: int) -> Measurements:
    generator = torch.Generator().manual_seed(seed)
    points = torch.rand((count, grid.dim), generator=generator, dtype=torch.float64)
    error = noise * torch.randn(count, generator=generator, dtype=torch.float64)
    return Measurements(points, truth(points) + error, noise)


def found(name: str, seed: int, noise: float = 0.02, count: int = 20) -> tuple[Estimate, Tensor]:
    if name == "helmholtz":
        data = measured(LINE, lambda p: torch.sin(3 * math.pi * p[:, 0]) + p[:, 0], count, noise, seed)
        return infer(helmholtz, [5.0], data, LINE, same), torch.tensor([WAVE**2], dtype=torch.float64)
    if name == "reaction_diffusion":
        data = measured(LINE, lambda p: torch.sin(2 * math.pi * p[:, 0]) + p[:, 0], count, noise, seed)
        return infer(reaction_diffusion, [1.0, 1.0], data, LINE, same), torch.tensor([0.5, RATE], dtype=torch.float64)
    data = measured(
        PLANE, lambda p: torch.exp(-0.2 * math.pi**2 * p[:, 1]) * torch.sin(math.pi * p[:, 0]), count, noise, seed
    )
    estimate = infer(heat, [1.0], data, PLANE, both, noise=Noise(source=1e-3, boundary=1e-3), length=0.5)
    return estimate, torch.tensor([0.2], dtype=torch.float64)


@pytest.mark.parametrize("name", ["helmholtz", "reaction_diffusion", "heat"])
def test_the_truth_is_found_within_its_interval(name: str) -> None:
    """99 % intervals of one fixed draw; and they say something: a tenth of the value, not a decade."""
    estimate, truth = found(name, seed=3)
    lower, upper = estimate.interval(0.99)
    assert bool(((lower < truth) & (truth < upper)).all()), (lower, estimate.values, upper)
    assert bool((estimate.deviations < 0.3).all())


def test_less_noise_means_a_narrower_interval_about_the_truth() -> None:
    wide, truth = found("helmholtz", seed=1, noise=0.05)
    narrow, _ = found("helmholtz", seed=1, noise=0.0005)
    # not a hundredth: the jitter of 1e-9 on an exact source is then the larger error
    assert float(narrow.deviations) < 0.5 * float(wide.deviations)
    assert float((narrow.values - truth).abs() / truth) < 0.01


def test_intervals_hold_the_truth_as_often_as_they_say() -> None:
    """15 draws, 90 % intervals: 13.5 expected with a deviation of 1.2; at least 10 is within 3 of it."""
    inside = 0
    for seed in range(15):
        estimate, truth = found("helmholtz", seed=100 + seed)
        lower, upper = estimate.interval(0.9)
        inside += bool((lower < truth) & (truth < upper))
    assert inside >= 10


def test_the_field_comes_along() -> None:
    estimate, _ = found("helmholtz", seed=3)
    x = torch.linspace(0, 1, 30, dtype=torch.float64)
    truth = torch.sin(3 * math.pi * x) + x
    assert float((estimate.field.mean([x]) - truth).abs().max()) < 0.05


def test_what_cannot_be_determined_is_refused() -> None:
    """A solution of zero says nothing about the coefficient in front of it."""

    def silent(theta: Tensor) -> Equation:
        zero = torch.zeros((1, 21), dtype=torch.float64)
        return Equation((Term((2,), 1.0), Term((0,), theta[0])), zero, dirichlet(zero))

    points = torch.linspace(0.1, 0.9, 5, dtype=torch.float64)[:, None]
    data = Measurements(points, torch.zeros(5, dtype=torch.float64), 0.1)
    with pytest.raises(SolverError, match="do not determine"):
        infer(silent, [1.0], data, LINE, same)
    with pytest.raises(ValueError, match="positive values"):
        infer(helmholtz, [-1.0], data, LINE, same)
    with pytest.raises(ValueError, match="positive standard deviation"):
        Measurements(points, torch.zeros(5, dtype=torch.float64), 0.0)
