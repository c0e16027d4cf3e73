"""Chains whose mixing is known, and a sampler on densities whose moments are."""

from __future__ import annotations

import math

import pytest
import torch
from resolvent.operators._hamiltonian import Frame, _Walk, sample
from resolvent.operators._mixing import effective_size, split_rhat


def draws(chains, count, correlation=0.0, seed=0):
    """Stationary autoregressive chains of unit variance."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(chains, count, generator=generator, dtype=torch.float64)
    values = [noise[:, 0]]
    for i in range(1, count):
        values.append(correlation * values[-1] + math.sqrt(1 - correlation**2) * noise[:, i])
    return torch.stack(values, dim=1)


def test_independent_draws_agree_and_count_in_full():
    independent = draws(4, 1000)
    assert float(split_rhat(independent)) < 1.005
    assert float(effective_size(independent)) == pytest.approx(4000, rel=0.1)


@pytest.mark.parametrize("correlation", [0.5, 0.9])
def test_autoregressive_chains_count_by_their_correlation(correlation):
    """(1 - r) / (1 + r) of the draws."""
    expected = 16000 * (1 - correlation) / (1 + correlation)
    assert float(effective_size(draws(8, 2000, correlation))) == pytest.approx(expected, rel=0.15)


def test_alternating_draws_count_more_than_in_full():
    assert float(effective_size(draws(4, 1000, -0.5))) > 8000


def test_chains_apart_do_not_agree():
    """Means two deviations apart in halves of the chains; the same for a drift that each chain shows."""
    apart = draws(4, 500) + torch.tensor([0.0, 0.0, 2.0, 2.0])[:, None]
    assert float(split_rhat(apart)) > 1.4
    # of half chains: means of variance 8/7, and 1 within; the drift leaves 4/3 within
    drifting = draws(4, 500) + torch.linspace(-2, 2, 500)
    assert float(split_rhat(drifting)) > 1.3
    assert float(effective_size(apart)) < 20


def test_ranks_make_heavy_tails_harmless():
    """A monotone map leaves ranks, and so everything, as it was."""
    normal = draws(4, 500, 0.3)
    torch.testing.assert_close(split_rhat(normal.sinh().pow(3)), split_rhat(normal), rtol=0, atol=0)
    torch.testing.assert_close(effective_size(normal.exp()), effective_size(normal), rtol=0, atol=0)


def test_each_unknown_is_judged_by_itself():
    both = torch.stack([draws(4, 500), draws(4, 500, 0.9, seed=1)], dim=-1)
    torch.testing.assert_close(split_rhat(both)[1], split_rhat(both[..., 1]), rtol=0, atol=0)
    torch.testing.assert_close(effective_size(both)[1], effective_size(both[..., 1]), rtol=1e-12, atol=0)


def test_too_few_draws_are_not_judged():
    with pytest.raises(ValueError, match="At least 4 draws"):
        split_rhat(torch.zeros(2, 3))


def flat(truths, size):
    return Frame(
        torch.zeros(truths, size, dtype=torch.float64), torch.eye(size, dtype=torch.float64).repeat(truths, 1, 1)
    )


def test_a_law_that_is_not_gaussian_is_sampled():
    """Logistic: variance pi²/3, fourth moment 7 pi⁴/15. Started in a frame that is too narrow."""

    def logistic(state):
        return -(state + 2 * torch.nn.functional.softplus(-state)).sum(dim=-1)

    start = torch.randn(1, 32, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    chains = sample(logistic, start, flat(1, 2), draws=150, warmup=80, generator=torch.Generator().manual_seed(0))
    states = chains.states.flatten(0, 2)
    effective = float(effective_size(chains.states[0]).min())
    variance, fourth = math.pi**2 / 3, 7 * math.pi**4 / 15
    assert float(states.mean(dim=0).abs().max()) < 4 * math.sqrt(variance / effective)
    spread = 4 * math.sqrt((fourth - variance**2) / effective)
    assert float((states.square().mean(dim=0) - variance).abs().max()) < 1.5 * spread  # squares mix more slowly
    assert 0.7 < float(chains.acceptance) < 0.9


def walk_of(density, start, step):
    walk = _Walk(density, flat(1, start.shape[-1]), start, torch.Generator().manual_seed(0))
    walk.step = torch.tensor([step], dtype=torch.float64)
    return walk


def quartic(state):
    return -(0.5 * state.square() + 0.25 * state.pow(4)).sum(dim=-1)


def test_trajectories_run_back_the_way_they_came():
    """What detailed balance rests on: with the momentum turned round, the same steps lead to the start."""
    start = torch.tensor([[[0.3, -1.1]]], dtype=torch.float64)
    momentum = torch.tensor([[[0.7, 0.2]]], dtype=torch.float64)
    there = walk_of(quartic, start, 0.1)
    q, p, _, _ = there._leapfrog(momentum, 20)
    back = walk_of(quartic, q, 0.1)
    again, turned, _, _ = back._leapfrog(-p, 20)
    torch.testing.assert_close(again, start, rtol=0, atol=1e-12)
    torch.testing.assert_close(-turned, momentum, rtol=0, atol=1e-12)


def test_the_energy_error_is_of_second_order():
    start = torch.tensor([[[0.3, -1.1]]], dtype=torch.float64)
    momentum = torch.tensor([[[0.7, 0.2]]], dtype=torch.float64)
    before = quartic(start) - 0.5 * momentum.square().sum(dim=-1)
    errors = []
    for count in (20, 40, 80):
        _, p, value, _ = walk_of(quartic, start, 2.0 / count)._leapfrog(momentum, count)
        errors.append(abs(float(value - 0.5 * p.square().sum(dim=-1) - before)))
    assert 1.8 < math.log2(errors[0] / errors[1]) < 2.2
    assert 1.9 < math.log2(errors[1] / errors[2]) < 2.1


def test_posteriors_are_sampled_side_by_side():
    """Two Gaussians of different centre and width, each with its own step; narrow by a hundred in one direction."""
    centre = torch.tensor([[0.0, 5.0], [-3.0, 0.0]], dtype=torch.float64)
    width = torch.tensor([[1.0, 1.0], [0.05, 5.0]], dtype=torch.float64)

    def density(state):
        return -0.5 * ((state - centre[:, None]) / width[:, None]).square().sum(dim=-1)

    start = centre[:, None].repeat(1, 8, 1)
    chains = sample(density, start, flat(2, 2), draws=200, warmup=300, generator=torch.Generator().manual_seed(0))
    found = chains.states.flatten(1, 2)
    assert float(((found.mean(dim=1) - centre) / width).abs().max()) < 0.2
    assert float((found.std(dim=1) / width - 1).abs().max()) < 0.15
    assert chains.step.shape == (2,)


@pytest.mark.parametrize("beyond", [-math.inf, math.nan])
def test_what_is_impossible_is_never_drawn(beyond):
    """No density beyond a wall: every draw stays on its side, and trajectories into it count as diverged."""

    def half(state):
        inside = -0.5 * state.square().sum(dim=-1)
        return torch.where(state[..., 0] > 0, inside, beyond)

    start = torch.ones(1, 32, 1, dtype=torch.float64)
    chains = sample(half, start, flat(1, 1), draws=60, warmup=60, generator=torch.Generator().manual_seed(0))
    assert float(chains.states.min()) > 0
    assert float(chains.divergent) > 0
    assert float(chains.states.mean()) == pytest.approx(math.sqrt(2 / math.pi), abs=0.1)  # of half a normal law
