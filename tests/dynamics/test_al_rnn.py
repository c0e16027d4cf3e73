"""Almost-linear recurrent networks: the fast scan against the plain one, and what is exact about affine pieces."""

from __future__ import annotations

import math

import pytest
import torch
from resolvent.data import Dataset
from resolvent.dynamics import al_rnn
from resolvent.dynamics._al_rnn import Recurrence, rectify, scan, scan_reference
from resolvent.dynamics._symbolic import (
    block_entropy,
    code_of,
    cycle_of,
    cycles,
    fixed_points,
    lyapunov_exponents,
    symbols_of,
)
from resolvent.pde.lorenz import Lorenz
from resolvent.training import Recipe
from torch import Tensor


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def recurrence(observed: int = 2, hidden: int = 3, rectified: int = 2, given: int = 0) -> Recurrence:
    torch.manual_seed(0)
    made = Recurrence(observed, hidden, rectified, given=given).double()
    with torch.no_grad():
        made.weight.copy_(0.4 * normal(*made.weight.shape, seed=1))
        made.offset.copy_(0.3 * normal(made.units, seed=2))
    return made


def affine_pieces(slope: float = 2.0, hidden: int = 0) -> Recurrence:
    """One rectified unit: z -> 1 - slope |z| is 1 + slope z - 2 slope max(0, z), the tent map on [-1, 1] for slope 2."""
    made = Recurrence(1, hidden, 1).double()
    with torch.no_grad():
        made.diagonal.fill_(slope)
        made.weight.fill_(-2 * slope)
        made.offset.fill_(1.0)
    return made


# ---------------------------------------------------------------------- the recurrence


@pytest.mark.parametrize("forced", ["free", "sparse", "generalised"])
@pytest.mark.parametrize("rectified", [0, 2, 5])
def test_the_scan_is_the_recurrence_in_values_and_gradients(forced: str, rectified: int) -> None:
    made, steps = recurrence(rectified=rectified), 9
    start, push = normal(4, 5, seed=3).requires_grad_(), normal(4, 5, seed=4).requires_grad_()
    strengths = {"free": [0.0] * steps, "sparse": [float(t % 3 == 2) for t in range(steps)]}.get(forced, [0.3] * steps)
    teacher = None if forced == "free" else (normal(4, steps, 2, seed=5), strengths)
    weights = (made.diagonal, made.weight, push, start)
    answers = []
    for run in (scan, scan_reference):
        found = run(*weights, steps, rectified, 2, teacher)
        grads = torch.autograd.grad((found * normal(4, steps, 5, seed=6)).sum(), weights)
        answers.append((found, *grads))
    for fast, plain in zip(*answers, strict=True):
        torch.testing.assert_close(fast, plain, rtol=1e-11, atol=1e-11)


def test_a_step_is_the_equation_and_leaves_its_state_alone() -> None:
    made, state = recurrence(given=2), normal(3, 5, seed=3)
    kept, given = state.clone(), normal(3, 2, seed=4)
    push = made.push(given, 3)
    got = made.step(state, push)
    expected = torch.stack([
        torch.stack([
            made.diagonal[i] * state[b, i]
            + sum(made.weight[i, j] * (state[b, j] if j < 3 else max(state[b, j], torch.zeros(()))) for j in range(5))
            + made.offset[i]
            + (made.drive[i] * given[b]).sum()
            for i in range(5)
        ])
        for b in range(3)
    ])  # fmt: skip
    torch.testing.assert_close(got, expected)
    assert torch.equal(state, kept)
    torch.testing.assert_close(made.run(state, push, 1, None)[:, 0], got)


def test_fully_forced_only_one_step_is_learned() -> None:
    """With the data put in at every step and nothing hidden, outputs are one-step forecasts of the data."""
    made, data = recurrence(observed=5, hidden=0), normal(3, 6, 5, seed=7)
    whole = made.run(normal(3, 5), made.push(None, 3), 6, (data, [1.0] * 6))
    torch.testing.assert_close(whole[:, 1:], torch.stack([made.step(data[:, t]) for t in range(5)], dim=1))


def test_without_rectified_units_the_map_is_linear() -> None:
    made = recurrence(rectified=0)
    a, b = normal(1, 5, seed=1), normal(1, 5, seed=2)
    mixed = made.step(0.3 * a + 0.7 * b)
    torch.testing.assert_close(mixed, 0.3 * made.step(a) + 0.7 * made.step(b))
    assert code_of(made, normal(20, 5)).visited == (0,)


# ---------------------------------------------------------------------- symbols


def test_symbols_are_the_bits_of_the_active_units() -> None:
    made = recurrence(rectified=2)
    states = torch.tensor([[1.0, 1, 1, -1, -1], [0, 0, 0, -1, 1], [0, 0, 0, 1, -1], [0, 0, 0, 1, 1]]).double()
    assert symbols_of(made, states).tolist() == [0, 1, 2, 3]
    torch.testing.assert_close(rectify(states, 2)[1], torch.tensor([0.0, 0, 0, 0, 1]).double())


def test_the_jacobian_of_a_region_is_that_of_autograd() -> None:
    made = recurrence()
    for state in normal(6, 5, seed=8):
        exact = torch.autograd.functional.jacobian(lambda z: made.step(z[None])[0], state)
        torch.testing.assert_close(made.jacobian(made.regions(state)), exact)


def test_the_tent_map_has_its_published_numbers() -> None:
    """Exponent log 2, entropy rate and topological entropy 1 bit, fixed points 1/3 and -1, a 2-cycle of 0.2 and 0.6.

    The orbit is driven from a random number: in binary the doubling of digits ends at 0 after 53 steps.
    """
    made = affine_pieces(2.0)
    draw, orbit, z = torch.Generator().manual_seed(0), [], 0.1
    for _ in range(20_000):
        z = 1 - 2 * abs(z) + 1e-12 * (float(torch.rand((), generator=draw)) - 0.5)
        orbit.append(max(-1.0, min(1.0, z)))
    states = torch.tensor(orbit, dtype=torch.float64)[:, None]
    code = code_of(made, states)
    assert sorted(code.visited) == [0, 1]
    assert code.shares[0] == pytest.approx(0.5, abs=0.02)
    assert code.entropy_rate(4) == pytest.approx(1.0, abs=0.01)
    assert code.topological_entropy(2) == pytest.approx(1.0, abs=1e-9)
    assert float(lyapunov_exponents(made, states, count=1)[0]) == pytest.approx(math.log(2), abs=1e-9)
    points = {round(float(p.states[0, 0]), 9): p for p in fixed_points(made, (0, 1))}
    assert set(points) == {round(1 / 3, 9), -1.0}
    assert all(p.real for p in points.values())
    two = cycle_of(made, (0, 1))
    assert two is not None
    torch.testing.assert_close(
        two.states.flatten().sort().values, torch.tensor([-0.2, 0.6], dtype=torch.float64), rtol=0, atol=1e-12
    )
    assert float(two.multipliers.real[0]) == pytest.approx(-4.0)
    assert two.real
    lengths = {len(c.word) for c in cycles(made, states[:4000], shortest=1, longest=5)}
    assert {1, 2, 3, 4, 5} <= lengths


def test_a_cycle_closes_and_its_multipliers_are_those_of_the_product_in_order() -> None:
    made, word = recurrence(), (0, 1, 3)
    found = cycle_of(made, word)
    assert found is not None
    pieces = [made.jacobian(torch.tensor([s >> 1 & 1, s & 1]).double()) for s in word]
    for i, piece in enumerate(pieces):
        torch.testing.assert_close(piece @ found.states[i] + made.offset, found.states[(i + 1) % 3])
    expected = torch.linalg.eigvals(pieces[2] @ pieces[1] @ pieces[0])
    assert all(float((expected - value).abs().min()) < 1e-10 for value in found.multipliers)


def test_a_fixed_point_run_through_twice_is_no_cycle() -> None:
    """An orbit at rest returns after any number of steps, but its words repeat shorter ones."""
    made = affine_pieces(2.0)
    rest = torch.full((50, 1), 1 / 3, dtype=torch.float64)
    assert not cycles(made, rest, shortest=2, longest=6)
    assert [cycle.word for cycle in cycles(made, rest, shortest=1, longest=6)] == [(1,)]


def test_a_fixed_point_outside_its_region_is_called_virtual() -> None:
    """z -> 1 + z / 2 where z > 0 has the real fixed point 2; where z < 0 the map 1 + z / 4 has 4 / 3, not there."""
    made = Recurrence(1, 0, 1).double()
    with torch.no_grad():
        made.diagonal.fill_(0.25)
        made.weight.fill_(0.25)
        made.offset.fill_(1.0)
    found = {p.word[0]: p for p in fixed_points(made, (0, 1))}
    assert (found[1].real, float(found[1].states[0, 0])) == (True, pytest.approx(2.0))
    assert (found[0].real, float(found[0].states[0, 0])) == (False, pytest.approx(4 / 3))


def test_the_largest_exponent_is_the_rate_at_which_orbits_part() -> None:
    """Twelve units, expanding at times: two orbits 1e-9 apart, followed while they are close."""
    made = affine_pieces(1.7)
    with torch.no_grad():
        states = made.run(torch.tensor([[0.123]]).double(), made.push(None, 1), 3000, None)[0]
        exponent = float(lyapunov_exponents(made, states, count=1)[0])
        pair = torch.cat([states[:2900], states[:2900] + 1e-12])
        later = made.run(pair, made.push(None, len(pair)), 10, None)[:, -1]
    rate = ((later[:2900] - later[2900:]).abs() / 1e-12).log().mean() / 10
    assert exponent == pytest.approx(math.log(1.7), abs=1e-9)
    assert float(rate) == pytest.approx(exponent, abs=0.02)  # some pairs straddle the kink


def test_entropy_of_words_is_that_of_their_frequencies() -> None:
    symbols = torch.tensor([0, 1] * 500)
    assert block_entropy(symbols, 1) == pytest.approx(1.0)
    assert block_entropy(symbols, 5) == pytest.approx(1.0, abs=1e-4)  # two words: nothing new after the first
    coins = torch.randint(0, 2, (60_000,), generator=torch.Generator().manual_seed(0))
    assert block_entropy(coins, 6) - block_entropy(coins, 5) == pytest.approx(1.0, abs=0.01)


# ---------------------------------------------------------------------- the model


def lorenz_data(problem: Lorenz, count: int) -> Dataset:
    grid = problem.grid(2)
    inputs = problem.sample(count, grid, generator=torch.Generator().manual_seed(0))
    outputs = problem.reference(tolerance=1e-8)(inputs, grid)
    return Dataset.from_tensors(
        inputs.float(), outputs.float(), grid=grid, signature=problem.signature, problem=problem.name
    )


def test_training_learns_to_forecast_and_forced_units_follow_the_data() -> None:
    problem = Lorenz(spacing=0.05, frames=20)
    data = lorenz_data(problem, 32)
    torch.manual_seed(0)
    recipe = Recipe(epochs=20, batch=64, learning_rate=1e-2, objective="mean_square", unroll=10, weight_decay=0.0)
    solver = al_rnn.build(problem, data.grid, interval=5, recipe=recipe)
    assert solver.strengths(11) == [float((t + 1) % 5 == 0) for t in range(11)]
    history = solver.fit(data)
    assert history.rows[-1]["train"] < 0.3 * history.rows[0]["train"]
    with torch.no_grad():
        found = solver(data.read([0])[0], data.grid, (0.05,))
    truth = data.read([0])[1][:, :1]
    assert float((found - truth).norm() / truth.norm()) < 0.1


def test_times_between_frames_and_static_maps_are_refused() -> None:
    from resolvent.pde.poisson import Poisson

    problem = Lorenz()
    solver = al_rnn.build(problem, problem.grid(2))
    state = problem.sample(1, problem.grid(2), generator=torch.Generator().manual_seed(0))
    with pytest.raises(ValueError, match="multiples of its frame spacing"):
        solver(state, problem.grid(2), (0.05,))
    with pytest.raises(ValueError, match="static map"):
        al_rnn.build(Poisson(), Poisson().grid(17))
    with pytest.raises(ValueError, match="interval"):
        al_rnn.build(problem, problem.grid(2), interval=0)
    with pytest.raises(ValueError, match="rectified"):
        al_rnn.build(problem, problem.grid(2), hidden=1, rectified=9)
