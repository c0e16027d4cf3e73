"""The one loop: it learns what can be learned, stops when told, resumes bit for bit, and never hides a blow-up."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import pytest
import torch
from resolvent.data import Dataset
from resolvent.pde import Grid
from resolvent.training import (
    Budget,
    Callback,
    DamagedCheckpoint,
    Diverged,
    Interrupted,
    NetworkSolver,
    Normalizer,
    Recipe,
    relative_h1,
    relative_h1_difference,
    relative_l2,
)
from resolvent.training._schedule import learning_rate
from resolvent.training._windows import Windows
from torch import nn

RECIPE = Recipe(epochs=30, batch=4, learning_rate=0.05, weight_decay=0.0, seed=3)


def solver_for(data: Dataset, recipe: Recipe = RECIPE, width: int = 1) -> NetworkSolver:
    torch.manual_seed(recipe.seed)
    network = (
        nn.Conv2d(1, 1, 1) if width == 1 else nn.Sequential(nn.Conv2d(1, width, 1), nn.GELU(), nn.Conv2d(width, 1, 1))
    )
    return NetworkSolver(network, data.signature, data.grid, recipe, any_resolution=True)


def test_a_linear_map_is_learned_to_round_off(doubling: Dataset) -> None:
    """A 1x1 convolution between normalisers represents 2 u + 1 exactly, so only float32 and the last step size remain."""
    solver = solver_for(doubling, dataclasses.replace(RECIPE, epochs=60))
    history = solver.fit(doubling, validation=doubling)
    inputs, outputs = doubling.read(range(4))
    assert history.status == "complete"
    assert len(history.rows) == 60
    error = (solver(inputs, doubling.grid) - outputs).norm() / outputs.norm()
    assert error < 1e-3
    assert history.rows[-1]["validation"] < 0.01 * history.rows[0]["validation"]


def test_an_evolution_is_the_rollout_of_the_learned_step(decay: Dataset) -> None:
    solver = solver_for(decay)
    solver.fit(decay)
    state, _ = decay.read(range(3))
    with torch.no_grad():
        frames = solver(state, decay.grid)
    assert frames.shape == (3, 4, 1, 8, 8)
    for k in range(4):
        state = solver(state, decay.grid, (0.5,))[:, 0]
        torch.testing.assert_close(frames[:, k], state, rtol=1e-5, atol=1e-6)
    assert (frames[:, -1] / decay.read(range(3))[0]).median() == pytest.approx(0.9**4, rel=1e-2)
    with pytest.raises(ValueError, match=r"multiples of its frame spacing 0\.5"):
        solver(state, decay.grid, (0.7,))


def test_same_seed_same_weights_other_seed_other_weights(doubling: Dataset) -> None:
    def trained(seed: int) -> torch.Tensor:
        solver = solver_for(doubling, dataclasses.replace(RECIPE, epochs=2, seed=seed, noise=0.1), width=4)
        solver.fit(doubling)
        return torch.cat([p.flatten() for p in solver.network.parameters()])

    assert torch.equal(trained(1), trained(1))
    assert not torch.equal(trained(1), trained(2))


class StopAfter(Callback):
    def __init__(self, steps: int) -> None:
        self.left = steps

    def stop(self) -> bool:
        self.left -= 1
        return self.left == 0


@pytest.mark.parametrize("steps", [1, 6, 7, 20])
def test_resumed_training_equals_uninterrupted_training_bit_for_bit(
    doubling: Dataset, tmp_path: Path, steps: int
) -> None:
    """Interrupted within an epoch and at its end (6 batches an epoch); noise and order go on where they stopped."""
    recipe = dataclasses.replace(RECIPE, epochs=5, noise=0.05)
    whole = solver_for(doubling, recipe, width=4)
    history = whole.fit(doubling, validation=doubling)
    path = tmp_path / "checkpoint.pt"
    with pytest.raises(Interrupted, match="resumes"):
        solver_for(doubling, recipe, width=4).fit(
            doubling, validation=doubling, checkpoint=path, callbacks=[StopAfter(steps)]
        )
    resumed = solver_for(doubling, recipe, width=4)
    again = resumed.fit(doubling, validation=doubling, checkpoint=path)
    for name, value in whole.state().items():
        assert torch.equal(value, resumed.state()[name]), name
    assert [row["train"] for row in again.rows] == [row["train"] for row in history.rows]


def test_streaming_in_blocks_sees_every_window_once_and_resumes_alike(decay: Dataset) -> None:
    windows = Windows(decay, lambda fields: fields, limit=decay.nbytes // 4)
    assert windows.block == 3
    batches = list(windows.batches(5, torch.Generator().manual_seed(0)))
    seen = torch.cat(
        [torch.stack([inputs.flatten(1).sum(1), targets.flatten(1).sum(1)]) for _, inputs, targets in batches], 1
    )
    whole = Windows(decay, lambda fields: fields)
    everything = [torch.stack([i.flatten(1).sum(1), t.flatten(1).sum(1)]) for _, i, t in whole.batches(1000)]
    torch.testing.assert_close(seen.T.sort(0).values, torch.cat(everything, 1).T.sort(0).values)
    assert len(batches) == windows.batches_per_epoch(5)
    skipped = list(windows.batches(5, torch.Generator().manual_seed(0), skip=4))
    assert all(torch.equal(a[1], b[1]) for a, b in zip(batches[4:], skipped, strict=True))


def test_unrolled_windows_hold_consecutive_frames(decay: Dataset) -> None:
    windows = Windows(decay, lambda fields: fields, unroll=3)
    assert len(windows) == 12 * 2
    _, state, targets = next(windows.batches(24))
    for k in range(3):
        torch.testing.assert_close(targets[:, k], state * 0.9 ** (k + 1), rtol=1e-5, atol=1e-6)


def test_unrolled_training_learns_the_same_step(decay: Dataset) -> None:
    solver = solver_for(decay, dataclasses.replace(RECIPE, unroll=2))
    solver.fit(decay)
    inputs, outputs = decay.read(range(2))
    assert ((solver(inputs, decay.grid) - outputs).norm() / outputs.norm()) < 0.01


def test_a_time_budget_ends_training_with_the_schedule_at_its_end(doubling: Dataset) -> None:
    solver = solver_for(doubling, dataclasses.replace(RECIPE, epochs=2_000))
    history = solver.fit(doubling, budget=Budget(seconds=0.5))
    assert history.status == "out of time"
    assert 0.4 < history.seconds < 5
    assert history.rows[-1]["learning_rate"] < 0.05 * RECIPE.learning_rate


def test_early_stopping_keeps_the_best_epoch(doubling: Dataset) -> None:
    """With a huge constant rate the error bounces, so patience ends it; the weights are those of the best epoch."""
    recipe = dataclasses.replace(RECIPE, epochs=200, learning_rate=1.0, schedule="constant", patience=3)
    solver = solver_for(doubling, recipe)
    history = solver.fit(doubling, validation=doubling)
    assert history.status == "stopped early"
    errors = [row["validation"] for row in history.rows]
    assert history.best_epoch == errors.index(min(errors)) + 1
    inputs, outputs = doubling.read(range(24))
    with torch.no_grad():
        error = relative_l2(solver(inputs, doubling.grid), outputs, doubling.grid).mean()
    assert float(error) == pytest.approx(min(errors), rel=1e-4)


class Exploding(nn.Module):
    """Fine for the first calls, then infinite."""

    def __init__(self, good: int) -> None:
        super().__init__()
        self.left, self.weight = good, nn.Parameter(torch.ones(()))

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        self.left -= 1
        return values * self.weight * (1.0 if self.left >= 0 else math.inf)


class Snapshots(Callback):
    """The weights at the end of each epoch."""

    def __init__(self, solver: NetworkSolver) -> None:
        self.solver = solver
        self.states: list[dict[str, torch.Tensor]] = []

    def epoch(self, record: dict) -> None:
        self.states.append(self.solver.state())


def test_divergence_names_epoch_step_and_samples_and_keeps_the_best(doubling: Dataset) -> None:
    """Six steps and one validation an epoch: the third step of the second epoch is infinite."""
    solver = NetworkSolver(Exploding(9), doubling.signature, doubling.grid, RECIPE)
    snapshots = Snapshots(solver)
    with pytest.raises(Diverged, match=r"epoch 2, step \d+: the loss is \w+ on training samples \[.*epoch 1"):
        solver.fit(doubling, validation=doubling, callbacks=[snapshots])
    kept = solver.state()
    assert all(torch.equal(value, kept[name]) for name, value in snapshots.states[0].items())


def test_a_damaged_or_foreign_checkpoint_is_refused(doubling: Dataset, tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pt"
    solver_for(doubling, dataclasses.replace(RECIPE, epochs=1)).fit(doubling, checkpoint=path)
    with pytest.raises(DamagedCheckpoint, match="batch differ"):
        solver_for(doubling, dataclasses.replace(RECIPE, epochs=1, batch=5)).fit(doubling, checkpoint=path)
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(DamagedCheckpoint, match="damaged"):
        solver_for(doubling, dataclasses.replace(RECIPE, epochs=1)).fit(doubling, checkpoint=path)


# ---------------------------------------------------------------------- normalisers, objectives, schedules


@pytest.mark.parametrize("kind", ["channel", "pointwise"])
def test_normalised_fields_have_mean_0_and_deviation_1_whatever_the_batches(kind: str) -> None:
    values = (
        1e4
        + torch.randn(40, 2, 6, 5, generator=torch.Generator().manual_seed(1)) * torch.tensor([1.0, 3.0])[:, None, None]
    )
    normalizer = Normalizer(2, (6, 5), kind)  # type: ignore[arg-type]
    normalizer.fit(values.split(7))
    axes = (0,) if kind == "pointwise" else (0, 2, 3)
    scaled = normalizer(values)
    # the mean 1e4 has float32 spacing 1e-3, a thousandth of the deviation
    torch.testing.assert_close(scaled.mean(dim=axes), torch.zeros_like(scaled.mean(dim=axes)), rtol=0, atol=2e-3)
    torch.testing.assert_close(
        scaled.std(dim=axes, correction=0), torch.ones_like(scaled.mean(dim=axes)), rtol=2e-3, atol=0
    )
    torch.testing.assert_close(normalizer.inverse(scaled), values, rtol=1e-6, atol=0)


def test_a_node_that_never_varies_is_not_blown_up() -> None:
    values = torch.randn(10, 1, 4)
    values[..., 0] = 0.0
    normalizer = Normalizer(1, (4,), "pointwise")
    normalizer.fit([values])
    assert torch.equal(normalizer(values)[..., 0], torch.zeros(10, 1))
    values[..., 0] = 1e-3  # a test sample may differ there a little
    assert torch.equal(normalizer(values)[..., 0], values[..., 0])


def test_relative_objectives_of_a_scaled_truth_are_the_scale() -> None:
    grid = Grid.box(16, dim=2)
    truth = torch.randn(3, 2, 16, 16)
    for objective in (relative_l2, relative_h1, relative_h1_difference):
        torch.testing.assert_close(objective(1.25 * truth, truth, grid), torch.full((3,), 0.25), rtol=1e-5, atol=0)
        torch.testing.assert_close(objective(truth, truth, grid), torch.zeros(3), rtol=0, atol=1e-6)


@pytest.mark.parametrize("size", [16, 15])
def test_fourier_h1_of_two_waves_is_the_closed_form(size: int) -> None:
    """An error wave of index m weighs sqrt(1 + m²) against a truth wave of index n: Parseval on either parity of grid."""
    grid = Grid.box(size, dim=2)
    x, y = grid.mesh(dtype=torch.float32)
    truth = torch.sin(2 * math.pi * (x + 2 * y))[None, None]
    error = 0.1 * torch.cos(2 * math.pi * (3 * x - 4 * y))[None, None]
    expected = 0.1 * math.sqrt((1 + 25) / (1 + 5))
    torch.testing.assert_close(relative_h1(truth + error, truth, grid), torch.tensor([expected]), rtol=1e-5, atol=0)


def test_fourier_h1_counts_the_nyquist_mode_once() -> None:
    """cos(pi N y) is 1 or -1 at every node: mean square 1, not 1/2, and index N/2."""
    grid = Grid.box(16, dim=2)
    x, y = grid.mesh(dtype=torch.float32)
    truth = torch.sin(2 * math.pi * (x + 2 * y))[None, None]
    error = 0.1 * torch.cos(math.pi * 16 * y)[None, None]
    expected = 0.1 * math.sqrt((1 + 64) / (1 + 5) / 0.5)
    torch.testing.assert_close(relative_h1(truth + error, truth, grid), torch.tensor([expected]), rtol=1e-5, atol=0)


def test_difference_h1_of_a_linear_field_is_exact_at_walls() -> None:
    """u = 3 x on [0, 2] has slope 3 at every node, ends included: one-sided differences of a line are exact."""
    grid = Grid.box(5, upper=2.0, boundary="dirichlet")
    line = 3 * grid.coordinates(dtype=torch.float32)[0][None, None]
    shifted = line + 1
    expected = math.sqrt(5 / (line.square().sum().item() + 9 * 5))
    torch.testing.assert_close(relative_h1_difference(shifted, line, grid), torch.tensor([expected]), rtol=1e-5, atol=0)


@pytest.mark.parametrize("schedule", ["cosine", "one_cycle"])
def test_schedules_rise_to_the_peak_and_fall(schedule: str) -> None:
    recipe = Recipe(schedule=schedule, rise=0.25, learning_rate=1.0)  # type: ignore[arg-type]
    rates = [learning_rate(recipe, p / 100) for p in range(101)]
    assert max(rates) == pytest.approx(1.0, abs=1e-3)
    assert rates.index(max(rates)) == 25
    assert all(b >= a for a, b in zip(rates[:25], rates[1:26], strict=True))
    assert all(b <= a for a, b in zip(rates[25:], rates[26:], strict=False))
    assert rates[-1] < 0.0051


@pytest.mark.parametrize("values", [{"epochs": 0}, {"learning_rate": 0.0}, {"rise": 1.0}, {"noise": -1.0}])
def test_impossible_recipes_are_refused(values: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(values))):
        Recipe(**values)  # type: ignore[arg-type]


# ---------------------------------------------------------------------- the solver around the network


def test_coarsening_is_exact_for_fields_that_the_coarse_grid_carries(finer_decay: Dataset) -> None:
    """The waves have index at most 2, which 8 nodes carry: a working grid of 8 nodes on data of 16 loses nothing."""
    solver = solver_for(finer_decay, dataclasses.replace(RECIPE, coarsen=2))
    assert solver.working.shape == (8, 8)
    solver.fit(finer_decay)
    inputs, outputs = finer_decay.read(range(6))
    assert ((solver(inputs, finer_decay.grid) - outputs).norm() / outputs.norm()) < 0.01


def test_coarsening_that_loses_the_data_is_refused(white_noise: Dataset) -> None:
    """A quarter of the modes is kept, so sqrt(3/4) = 87 % of the norm is lost."""
    with pytest.raises(ValueError, match=r"lose 8\d\.\d% of their norm; use --train.coarsen 1"):
        solver_for(white_noise, dataclasses.replace(RECIPE, coarsen=2)).fit(white_noise)


def test_a_grid_bound_network_refuses_other_grids(doubling: Dataset) -> None:
    solver = NetworkSolver(nn.Conv2d(1, 1, 1), doubling.signature, doubling.grid, RECIPE)
    with pytest.raises(ValueError, match=r"trained on a grid of shape \(8, 8\)"):
        solver(torch.randn(1, 1, 9, 9), Grid.box(9, dim=2))


def test_the_surrogate_is_differentiable(decay: Dataset) -> None:
    solver = solver_for(decay)
    state = decay.read([0])[0].requires_grad_()
    solver(state, decay.grid).sum().backward()
    assert state.grad is not None
    assert bool((state.grad != 0).all())


def test_bfloat16_training_reaches_its_own_precision(doubling: Dataset) -> None:
    """Training products carry eight bits, about 0.4 %; the loss must come down to that, and answers are float32."""
    solver = solver_for(doubling, dataclasses.replace(RECIPE, precision="bfloat16", epochs=60))
    solver.fit(doubling)
    inputs, outputs = doubling.read(range(8))
    assert ((solver(inputs, doubling.grid) - outputs).norm() / outputs.norm()) < 0.02
