"""Brownian paths and stochastic integrators against the geometric Brownian motion's closed form."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from resolvent.dynamics import Brownian, GlobalNoise, LocalNoise, sdeint
from resolvent.pde import SolverError
from torch import Tensor

F64 = torch.float64
GROWTH, NOISE = 0.5, 0.6


def drift(t: Tensor, y: Tensor) -> Tensor:
    return GROWTH * y


def diffusion(t: Tensor, y: Tensor) -> Tensor:
    return NOISE * y


def paths(count: int, seed: int = 5) -> Brownian:
    return Brownian(seed=seed, start=0.0, end=1.0, batch=count, unknowns=1)


def exact(path: Brownian, method: str) -> Tensor:
    """Stratonovich: exp(a t + b W); Ito: with the drift less b^2 / 2."""
    a = GROWTH if method == "euler_heun" else GROWTH - NOISE**2 / 2
    return torch.exp(a + NOISE * path(1.0))


def test_a_path_has_the_covariance_of_brownian_motion() -> None:
    """min(s, t); 4000 paths: standard error of a variance 1/sqrt(2000) = 2.2 %, four of them allowed."""
    path = Brownian(seed=3, start=0.0, end=2.0, batch=2000, unknowns=2)
    times = (0.3, 0.7, 0.70001, 2.0)
    values = torch.stack([path(t).flatten() for t in times])
    covariance = values @ values.T / values.shape[1]
    expected = torch.tensor([[min(s, t) for t in times] for s in times], dtype=F64)
    scale = torch.outer(expected.diag().sqrt(), expected.diag().sqrt())
    assert float(((covariance - expected) / scale).abs().max()) < 0.09
    gap = values[2] - values[1]
    assert float(gap.square().mean()) == pytest.approx(1e-5, rel=0.13)
    assert float((values[3] ** 4).mean()) == pytest.approx(12.0, rel=0.25)  # Gaussian: 3 sigma^4
    assert float(path(0.0).abs().max()) == 0.0


def test_a_path_is_a_function_of_seed_sample_and_time() -> None:
    """Neither the order of questions nor the company of a sample matters."""
    one = paths(3)
    first = one(0.37)
    one(0.2), one(0.9)
    assert torch.equal(one(0.37), first)
    assert torch.equal(paths(7)(0.37)[:3], first)
    assert not torch.equal(paths(3, seed=6)(0.37), first)


def test_increments_of_disjoint_intervals_are_independent() -> None:
    path = Brownian(seed=11, start=0.0, end=1.0, batch=4000, unknowns=1)
    grid = torch.stack([path(i / 8) for i in range(9)])[..., 0]
    steps = grid.diff(dim=0) * math.sqrt(8)
    correlation = steps @ steps.T / steps.shape[1]
    assert float((correlation - torch.eye(8, dtype=F64)).abs().max()) < 4.5 / math.sqrt(4000) * math.sqrt(2)


@pytest.mark.parametrize(("method", "order"), [("euler_maruyama", 0.5), ("milstein", 1.0), ("euler_heun", 1.0)])
def test_strong_order(method: str, order: float) -> None:
    """Root-mean-square distance to the closed form on the same paths, 16 to 128 steps; fit over three halvings."""
    path = paths(1500)
    errors = []
    for count in (16, 32, 64, 128):
        end = sdeint(
            drift,
            diffusion,
            torch.ones(1500, 1, dtype=F64),
            [0.0, 1.0],
            seed=5,
            method=method,
            step=1 / count,
            brownian=path,
        )
        errors.append(float((end.states[:, -1] - exact(path, method)).square().mean().sqrt()))
    assert math.log2(errors[0] / errors[-1]) / 3 == pytest.approx(order, abs=0.1)


@pytest.mark.parametrize("method", ["euler_maruyama", "milstein", "euler_heun"])
def test_weak_order(method: str) -> None:
    """Bias of the mean, the exact solution on the same paths being the control variate: order 1."""
    path = paths(6000)
    errors = []
    for count in (2, 4, 8):
        end = sdeint(
            drift,
            diffusion,
            torch.ones(6000, 1, dtype=F64),
            [0.0, 1.0],
            seed=5,
            method=method,
            step=1 / count,
            brownian=path,
        )
        errors.append(abs(float((end.states[:, -1] - exact(path, method)).mean())))
    # from the coarsest to the finest; the first halving is not asymptotic and the control variate leaves 3 % noise
    assert math.log2(errors[0] / errors[-1]) / 2 == pytest.approx(1.0, abs=0.35)


def test_tightening_the_tolerance_converges_to_the_solution_of_the_same_path() -> None:
    path = paths(200)
    errors, steps = [], []
    for tol in (1e-1, 1e-2, 1e-3):
        got = sdeint(
            drift, diffusion, torch.ones(200, 1, dtype=F64), [0.0, 1.0], seed=5, rtol=tol, atol=tol, brownian=path
        )
        errors.append(float((got.states[:, -1] - exact(path, "euler_heun")).square().mean().sqrt()))
        steps.append(got.accepted)
    assert all(b < 0.4 * a for a, b in itertools.pairwise(errors))
    assert all(b > 3 * a for a, b in itertools.pairwise(steps))


def test_without_noise_heun_is_second_order() -> None:
    """The special case of the deterministic method."""
    ends = [
        sdeint(drift, lambda t, y: 0 * y, torch.ones(1, 1, dtype=F64), [0.0, 1.0], seed=0, step=1 / n).states[0, -1, 0]
        for n in (16, 32)
    ]
    errors = [abs(float(end) - math.exp(GROWTH)) for end in ends]
    assert math.log2(errors[0] / errors[1]) == pytest.approx(2.0, abs=0.05)


def test_the_gradient_runs_through_every_step_on_the_same_noise() -> None:
    rate = torch.tensor(0.5, dtype=F64, requires_grad=True)

    def value(r: Tensor) -> Tensor:
        run = sdeint(
            lambda t, y: r * y,
            lambda t, y: r * torch.sin(y),
            torch.ones(8, 2, dtype=F64),
            [0.0, 0.4, 1.0],
            seed=2,
            step=0.07,
        )
        return run.states.square().sum()

    (got,) = torch.autograd.grad(value(rate), rate)
    with torch.no_grad():
        expected = (value(rate + 1e-6) - value(rate - 1e-6)) / 2e-6
    assert float(got) == pytest.approx(float(expected), rel=1e-7)


def test_regularisers_of_stochastic_equations() -> None:
    """The local one, averaged over all steps that it may choose, is the global one over the same steps."""
    weight = torch.tensor(0.5, dtype=F64, requires_grad=True)
    f = lambda t, y: -weight * y  # noqa: E731
    g = lambda t, y: 0.4 * y * weight  # noqa: E731
    run = sdeint(f, g, torch.ones(16, 1, dtype=F64), [0.0, 1.0], seed=4, rtol=1e-2, atol=1e-2)
    whole = GlobalNoise(aggregate="sum")(run)
    local = LocalNoise()
    terms = torch.stack([local.at(f, g, run, n) for n in range(run.accepted)])
    torch.testing.assert_close(terms.sum(), whole, rtol=1e-9, atol=0)
    (gradient,) = torch.autograd.grad(whole, weight)
    assert float(gradient) > 0  # more noise, more error
    one = local(f, g, run, generator=torch.Generator().manual_seed(0))
    assert bool(torch.isclose(terms[:-1], one, rtol=1e-12).any())
    assert float(GlobalNoise(aggregate="mean")(run)) == pytest.approx(float(whole) / run.accepted)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"method": "sosri"}, "Unknown method 'sosri'"),
        ({"method": "milstein"}, "give it a step"),
        ({"step": 0.0}, "must be positive"),
        ({"times": [0.0, 1.0, 0.5]}, "strictly increase"),
        ({"brownian": paths(3)}, r"for \(3, 1\)"),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_bad_input_is_refused(options: dict, words: str) -> None:
    times = options.pop("times", [0.0, 1.0])
    with pytest.raises(ValueError, match=words):
        sdeint(drift, diffusion, torch.ones(2, 1, dtype=F64), times, seed=0, **options)


def test_what_cannot_be_solved_is_named() -> None:
    with pytest.raises(SolverError, match=r"is not finite, at time .* step .* norm"):
        sdeint(lambda t, y: y * torch.inf, diffusion, torch.ones(2, 1, dtype=F64), [0.0, 1.0], seed=0, step=0.1)
    with pytest.raises(ValueError, match="lives on"):
        paths(1)(2.0)
    with pytest.raises(ValueError, match="shape of the state"):
        sdeint(drift, lambda t, y: y[:, :0], torch.ones(2, 1, dtype=F64), [0.0, 1.0], seed=0)
