"""neural_sde: the score in closed form, no noise is no noise, paths by seed, refusals."""

from __future__ import annotations

import math

import pytest
import torch
from resolvent.dynamics import odeint
from resolvent.dynamics._brownian import Brownian
from resolvent.dynamics.neural_sde import NeuralSDE, Shared, build, energy_score
from resolvent.pde.spiral import Spiral
from resolvent.training import Recipe
from torch import Generator, Tensor

PROBLEM = Spiral(frames=4)
GRID = PROBLEM.grid(2)
F64 = torch.float64


def made(**options: object) -> NeuralSDE:
    torch.manual_seed(0)
    size = {"width": 8, "layers": 1, "recipe": Recipe(epochs=2, batch=8, unroll=2)}
    return build(PROBLEM, GRID, **{**size, **options})


def states(count: int = 3) -> Tensor:
    return PROBLEM.sample(count, GRID, generator=Generator().manual_seed(0)).float()


def test_the_score_of_a_normal_law_is_the_closed_form() -> None:
    """One unknown: y (2 Phi(y) - 1) + 2 phi(y) - 1 / sqrt(pi), by 2000 draws (deviation of the mean 0.02)."""
    draws = torch.randn(1, 2000, 1, 1, generator=Generator().manual_seed(0), dtype=F64).expand(3, -1, -1, -1)
    truth = torch.tensor([0.0, 0.5, -2.0], dtype=F64).view(3, 1, 1)
    normal = torch.distributions.Normal(0.0, 1.0)
    y = truth.flatten()
    expected = y * (2 * normal.cdf(y) - 1) + 2 * normal.log_prob(y).exp() - 1 / math.sqrt(math.pi)
    torch.testing.assert_close(energy_score(draws, truth).flatten(), expected, rtol=0, atol=0.05)


def test_the_score_is_unbiased_in_the_number_of_paths() -> None:
    """Means over many sets of two paths and of twenty agree: three standard errors of 2000 and 200 sets."""
    draws = torch.randn(4000, 2, generator=Generator().manual_seed(1), dtype=F64)
    truth = torch.tensor([0.3, -0.2], dtype=F64)
    few, many = (energy_score(draws.view(-1, n, 1, 2), truth.expand(4000 // n, 1, 2)).flatten() for n in (2, 20))
    spread = math.hypot(float(few.std()) / len(few) ** 0.5, float(many.std()) / len(many) ** 0.5)
    assert abs(float(few.mean() - many.mean())) < 3 * spread


def test_without_noise_it_is_the_ordinary_equation() -> None:
    """Heun's method, 32 steps a frame: second order."""
    solver = made(steps=32, draws=2)
    solver.noise.scale.zero_()
    found = solver(states(), GRID)
    drift = lambda t, z: solver.drift(t, z)  # noqa: E731
    times = [0.0, *PROBLEM.signature.times]
    expected = odeint(drift, solver.states(states()), times, rtol=1e-6, atol=1e-6).states[:, 1:]
    torch.testing.assert_close(
        found, solver.states.inverse(expected.flatten(0, 1)).unflatten(0, (3, 4)), rtol=0, atol=1e-4
    )
    assert float(solver.deviation(states(), GRID).abs().max()) < 1e-6


def test_every_group_has_the_paths_of_one() -> None:
    shape = {"seed": 4, "start": 0.0, "end": 2.0, "unknowns": 3}
    shared, one = Shared(**shape, batch=10, groups=2), Brownian(**shape, batch=5)
    torch.testing.assert_close(shared(0.7), one(0.7).repeat(2, 1), rtol=0, atol=0)


def test_answers_do_not_depend_on_company_and_samples_repeat_under_a_generator() -> None:
    solver = made()
    torch.testing.assert_close(solver(states()[1:2], GRID), solver(states(), GRID)[1:2], rtol=1e-5, atol=1e-6)
    first, again, other = (solver.sample(5, states(), GRID, generator=Generator().manual_seed(s)) for s in (1, 1, 2))
    assert first.shape == (5, 3, 4, 2, *GRID.shape)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    spread = solver.deviation(states(), GRID)
    assert bool((spread > 0).all())
    assert bool((spread[:, 3] > spread[:, 0]).all())  # noise adds up


def test_adaptive_steps_and_regularisers() -> None:
    inputs = states(4)
    targets = PROBLEM.reference()(inputs.double(), GRID)[:, :2].float()
    plain, *others = (
        made(steps=0, regulariser=word, weight=3.0).loss(inputs, None, targets, Generator().manual_seed(0))
        for word in ("none", "ernode", "local")
    )
    for other in others:
        extra = other - plain
        assert float(extra.detach()[0]) > 0
        torch.testing.assert_close(extra, extra[:1].expand(4), rtol=1e-4, atol=1e-6)


def test_what_does_nothing_is_refused() -> None:
    for options, told in (
        ({"regulariser": "ernode"}, "acts on adaptive steps"),
        ({"paths": 1}, "paths is at least 2"),
        ({"recipe": Recipe(objective="mean_square")}, r"no use for train\.objective"),
    ):
        with pytest.raises(ValueError, match=told):
            made(**options)
    with pytest.raises(ValueError, match="at least 2 draws"):
        made(draws=1).deviation(states(), GRID)
