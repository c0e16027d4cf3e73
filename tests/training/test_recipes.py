"""The options of the recipe: each does what its line says, and resumes bit for bit."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from resolvent.data import Dataset
from resolvent.evaluation._saved import Blueprint
from resolvent.evaluation.registry import find_problem
from resolvent.pde import Grid, Symmetry, square_symmetries
from resolvent.training import Callback, Interrupted, NetworkSolver, Recipe, relative_l2
from resolvent.training._average import Average
from resolvent.training._optimizer import optimizers_of, orthogonal
from resolvent.training._schedule import learning_rate
from torch import Tensor, nn

from .conftest import RECIPE, STATIC, solver_for, walled

SQUARE = square_symmetries()


# ---------------------------------------------------------------------- schedule, optimiser


def test_a_step_schedule_halves_every_so_many_epochs_or_shares():
    """Every 100 of 500 epochs is every fifth of the training; a budget of other epochs moves the steps."""
    by_share = Recipe(schedule="step", learning_rate=1.0, step_every=0.2)
    by_epoch = Recipe(schedule="step", learning_rate=1.0, step_every=100, epochs=500)
    for tenth, expected in enumerate([1, 1, 0.5, 0.5, 0.25, 0.25, 0.125, 0.125, 0.0625, 0.0625]):
        assert learning_rate(by_share, tenth / 10) == expected
        assert learning_rate(by_epoch, tenth / 10) == expected
    assert learning_rate(by_epoch, 0.55, epochs=200) == 0.5
    assert learning_rate(dataclasses.replace(by_share, step_factor=0.1), 0.5) == pytest.approx(0.01)


@pytest.mark.parametrize("optimizer", ["adam", "adamw"])
def test_weight_decay_is_coupled_or_not(optimizer):
    """Without a gradient from the data, L2 in Adam steps by the full rate (its gradient is normalised), decoupled
    decay shrinks by rate times decay."""

    class Nothing(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.ones(()))

        def forward(self, values):
            return values + 0 * self.weight

    data = walled(8)
    recipe = Recipe(epochs=1, batch=24, learning_rate=0.1, weight_decay=0.5, schedule="constant", optimizer=optimizer)
    solver = NetworkSolver(Nothing(), data.signature, data.grid, recipe)
    solver.fit(data)
    expected = {"adam": 1 - 0.1, "adamw": 1 - 0.1 * 0.5}[optimizer]
    assert float(solver.network.weight.detach()) == pytest.approx(expected, rel=1e-5)


class Layers(nn.Module):
    """A matrix and vectors, at every node."""

    def __init__(self) -> None:
        super().__init__()
        self.dense = nn.Sequential(nn.Linear(1, 12), nn.GELU(), nn.Linear(12, 8), nn.GELU(), nn.Linear(8, 1))

    def forward(self, values: Tensor) -> Tensor:
        return self.dense(values.movedim(1, -1)).movedim(-1, 1)


def test_muon_moves_matrices_by_orthogonal_steps_and_all_else_by_adamw():
    """A step has the singular vectors of the gradient, and values 0.2 rate sqrt(12) wherever the gradient's exceed a
    fiftieth of its norm: five iterations lift those to (0.7, 1.2). A vector's first step is the rate, by sign."""
    torch.manual_seed(0)
    data, rate = walled(8), 1e-3
    recipe = Recipe(epochs=1, batch=24, learning_rate=rate, weight_decay=0.0, schedule="constant", optimizer="muon")
    solver = NetworkSolver(Layers(), data.signature, data.grid, recipe)
    matrix, vector = solver.network.dense[2].weight, solver.network.dense[2].bias
    before = matrix.detach().clone(), vector.detach().clone()
    solver.fit(data)
    left, sizes, right = torch.linalg.svd(matrix.grad, full_matrices=False)
    moved = left.T @ (before[0] - matrix.detach()) @ right.T / (0.2 * rate * math.sqrt(12))
    large = sizes > sizes.norm() / 50
    assert float(sizes[large][0] / sizes[large][-1]) > 2  # wider than the window below
    moved = moved[large][:, large]
    assert float(moved.diagonal().min()) > 0.65
    assert float(moved.diagonal().max()) < 1.25
    assert float((moved - moved.diagonal().diag()).abs().max()) < 0.05
    torch.testing.assert_close((vector.detach() - before[1]).abs(), torch.full((8,), rate), rtol=1e-3, atol=0)


@pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="older than PyTorch 2.9")
@pytest.mark.parametrize("shape", [(12, 8), (8, 12)])
def test_muon_is_that_of_torch_without_its_rounding(shape: tuple[int, int], monkeypatch):
    """Three steps with decay; bit for bit where torch is told not to round to bfloat16."""
    recipe = dataclasses.replace(RECIPE, optimizer="muon", weight_decay=0.1)
    torch.manual_seed(0)
    start, gradients = torch.randn(shape), torch.randn(3, *shape)

    def after(make: Callable[[torch.nn.Parameter], torch.optim.Optimizer]) -> Tensor:
        weights = torch.nn.Parameter(start.clone())
        optimizer = make(weights)
        for gradient in gradients:
            weights.grad = gradient.clone()
            optimizer.step()
        return weights.detach()

    def theirs(weights: torch.nn.Parameter) -> torch.optim.Optimizer:
        options = {"lr": recipe.learning_rate, "weight_decay": 0.1, "adjust_lr_fn": "match_rms_adamw"}
        return torch.optim.Muon([weights], **options)

    ours = after(lambda weights: optimizers_of([weights], recipe)[0])
    rounded = after(theirs)
    monkeypatch.setattr(Tensor, "bfloat16", Tensor.float)
    assert torch.equal(ours, after(theirs))
    assert not torch.equal(ours, rounded)


@pytest.mark.parametrize("size", [1e-18, 1e-20, 1e-35, 1e-41])
def test_rows_that_fade_cost_no_denormal_arithmetic(size: float):
    """Rows without a gradient fade by 0.95 a step. What is left is exactly nothing: no denormal number is ever met."""
    torch.manual_seed(0)
    matrix = torch.randn(40, 60)
    matrix[:10] *= size
    found = orthogonal(matrix)
    assert bool((found[:10] == 0).all())
    torch.testing.assert_close(found[10:], orthogonal(matrix[10:]), rtol=1e-4, atol=1e-6)


def test_muon_resumes_bit_for_bit(tmp_path: Path):
    def begun() -> NetworkSolver:
        torch.manual_seed(0)
        return NetworkSolver(Layers(), data.signature, data.grid, recipe, any_resolution=True)

    data, recipe, path = walled(8), dataclasses.replace(RECIPE, optimizer="muon"), tmp_path / "checkpoint.pt"
    whole = begun()
    whole.fit(data)
    with pytest.raises(Interrupted):
        begun().fit(data, checkpoint=path, callbacks=[StopAfter(7)])
    resumed = begun()
    resumed.fit(data, checkpoint=path)
    assert all(torch.equal(value, resumed.state()[name]) for name, value in whole.state().items())


# ---------------------------------------------------------------------- running mean of the weights


def test_the_average_is_the_recursion_in_closed_form():
    """Weights 1, 2, 3, …: a mean of decay D trails a straight line by D / (1 - D) steps, here one."""
    weight = nn.Parameter(torch.zeros(2, dtype=torch.complex64))
    average = Average([weight], 0.5)
    expected = 0.0
    for step in range(30):
        with torch.no_grad():
            weight.fill_(step + 1.0)
        average.update(step)
        decay = min(0.5, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * (step + 1.0)
    torch.testing.assert_close(average.values[0].real, torch.full((2,), expected), rtol=1e-6, atol=0)
    assert abs(expected - 29) < 1e-5, "w_i = i + 1 trails by D / (1 - D) = 1 step"
    with average.in_place():
        assert float(weight[0].real) == pytest.approx(expected)
    assert float(weight[0].real) == 30


class Weights(Callback):
    """A copy of the raw weights after every step."""

    def __init__(self, solver: NetworkSolver) -> None:
        self.solver, self.steps = solver, [self._now(solver)]

    @staticmethod
    def _now(solver: NetworkSolver) -> Tensor:
        return torch.cat([p.detach().flatten().clone() for p in solver.network.parameters()])

    def batch(self, progress) -> None:
        self.steps.append(self._now(self.solver))


@pytest.mark.parametrize("validated", [False, True])
def test_the_averaged_weights_answer_and_are_validated(validated):
    """Recomputed from the raw weights of every step; training itself is that without an average, bit for bit."""
    data = walled(8)
    recipe = dataclasses.replace(RECIPE, ema=0.9)
    solver, plain = solver_for(data, recipe), solver_for(data, RECIPE)
    watch, watch_plain = Weights(solver), Weights(plain)
    history = solver.fit(data, validation=data if validated else None, callbacks=[watch])
    plain.fit(data, callbacks=[watch_plain])
    assert all(torch.equal(a, b) for a, b in zip(watch.steps, watch_plain.steps, strict=True))
    mean = watch.steps[0].double()
    for step, raw in enumerate(watch.steps[1:]):
        decay = min(0.9, (1 + step) / (10 + step))
        mean = decay * mean + (1 - decay) * raw.double()
    if not validated or history.best_epoch == 5:
        torch.testing.assert_close(Weights._now(solver).double(), mean, rtol=1e-4, atol=1e-6)
    if validated:
        inputs, outputs = data.read(range(24))
        with torch.no_grad():
            error = relative_l2(solver(inputs, data.grid), outputs, data.grid).mean()
        assert float(error) == pytest.approx(history.rows[history.best_epoch - 1]["validation"], rel=1e-4)


class StopAfter(Callback):
    def __init__(self, steps: int) -> None:
        self.left = steps

    def stop(self) -> bool:
        self.left -= 1
        return self.left == 0


@pytest.mark.parametrize("validated", [False, True])
@pytest.mark.parametrize("steps", [1, 7, 12])
def test_resuming_with_everything_switched_on_is_bit_for_bit(tmp_path: Path, steps: int, validated: bool) -> None:
    recipe = dataclasses.replace(
        RECIPE, ema=0.9, augment=True, resolutions=(5,), noise=0.05, optimizer="adam", schedule="step", weight_decay=0.1
    )
    data = walled(9)
    held = data if validated else None
    whole = solver_for(data, recipe, symmetries=SQUARE)
    history = whole.fit(data, validation=held)
    path = tmp_path / "checkpoint.pt"
    with pytest.raises(Interrupted):
        solver_for(data, recipe, symmetries=SQUARE).fit(
            data, validation=held, checkpoint=path, callbacks=[StopAfter(steps)]
        )
    resumed = solver_for(data, recipe, symmetries=SQUARE)
    again = resumed.fit(data, validation=held, checkpoint=path)
    assert all(torch.equal(value, resumed.state()[name]) for name, value in whole.state().items())
    assert [row["train"] for row in again.rows] == [row["train"] for row in history.rows]


# ---------------------------------------------------------------------- symmetries


def test_augmentation_shows_every_image_and_keeps_pairs_together():
    """The targets are 2 a + 1 of the inputs seen, whatever the symmetry; in enough batches all eight occur."""
    data = walled(5, count=1)
    recipe = dataclasses.replace(RECIPE, augment=True)
    solver = solver_for(data, recipe, symmetries=SQUARE)
    inputs, outputs = data.read([0])
    generator = torch.Generator().manual_seed(0)
    seen = set()
    for _ in range(100):
        a, u = solver._varied(inputs, outputs[:, None], generator)
        torch.testing.assert_close(u[:, 0], 2 * a + 1)
        seen.add(a.contiguous().numpy().tobytes())
    assert seen == {symmetry.inputs(inputs, data.grid).contiguous().numpy().tobytes() for symmetry in SQUARE}


def test_augmented_training_on_one_image_of_the_data_is_training_on_another():
    """With one symmetry in the group, an augmented training equals a plain one on transformed data, bit for bit."""
    data = walled(5)
    turn = SQUARE[6]
    inputs, outputs = data.read(range(24))
    turned = Dataset.from_tensors(
        turn.inputs(inputs, data.grid), turn.outputs(outputs, data.grid), grid=data.grid, signature=STATIC
    )
    one = solver_for(data, dataclasses.replace(RECIPE, augment=True), symmetries=[turn])
    other = solver_for(data, RECIPE)
    one.fit(data)
    other.fit(turned)
    for a, b in zip(one.network.parameters(), other.network.parameters(), strict=True):
        # statistics of the same numbers, summed in another order
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def test_symmetrised_answers_commute_with_every_symmetry():
    data = walled(6)
    solver = solver_for(data, dataclasses.replace(RECIPE, symmetrise=True), symmetries=SQUARE)
    plain = solver_for(data, RECIPE)
    a, _ = data.read(range(2))
    with torch.no_grad():
        for symmetry in SQUARE:
            answer = symmetry.outputs(solver(a, data.grid), data.grid)
            torch.testing.assert_close(solver(symmetry.inputs(a, data.grid), data.grid), answer, rtol=0, atol=1e-5)
        turned = SQUARE[5].inputs(a, data.grid)
        assert not torch.allclose(
            plain(turned, data.grid), SQUARE[5].outputs(plain(a, data.grid), data.grid), atol=1e-3
        )
        mean = sum(s.outputs(plain(s.inputs(a, data.grid), data.grid), data.grid, undo=True) for s in SQUARE) / 8
        torch.testing.assert_close(solver(a, data.grid), mean, rtol=0, atol=1e-5)


def test_symmetries_of_an_evolution_act_on_every_frame(decay: Dataset):
    turn = Symmetry(axes=(1, 0), mirrored=(False, True), shift=(0.25, 0.0), input_signs=(-1.0,), output_signs=(-1.0,))
    back = Symmetry(axes=(1, 0), mirrored=(True, False), shift=(0.0, 0.25), input_signs=(-1.0,), output_signs=(-1.0,))
    same = Symmetry(axes=(0, 1), mirrored=(False, False), shift=(0.0, 0.0))
    state, _ = decay.read(range(2))
    assert not torch.equal(turn.inputs(state, decay.grid), state)
    solver = solver_for(decay, dataclasses.replace(RECIPE, symmetrise=True), symmetries=[same, turn, back])
    with torch.no_grad():
        assert solver(state, decay.grid).shape == (2, 4, 1, 8, 8)


@pytest.mark.parametrize("option", ["augment", "symmetrise"])
def test_a_problem_without_symmetries_is_told(doubling: Dataset, option: str):
    solver = solver_for(doubling, dataclasses.replace(RECIPE, **{option: True}))
    with pytest.raises(ValueError, match=f"train.{option} needs a problem that declares symmetries"):
        solver.fit(doubling) if option == "augment" else solver(doubling.read([0])[0], doubling.grid)


@pytest.mark.parametrize(
    "values", [{"ema": 1.0}, {"step_every": 0.0}, {"step_factor": 0.0}, {"step_factor": 2.0}, {"resolutions": (1,)}]
)
def test_impossible_options_are_refused(values):
    with pytest.raises(ValueError, match=f"train.{next(iter(values))}"):
        Recipe(**values)


def test_models_made_by_name_know_the_symmetries_of_their_problem():
    """Also where the blueprint was read from a file, and on the grid that they work on."""
    grid = Grid.box(17, dim=2, boundary="dirichlet")
    recipe = dataclasses.asdict(Recipe(augment=True, symmetrise=True))
    words = {"problem": "darcy", "problem_options": {}, "model": "unet", "model_options": {"width": 2, "levels": 2}}
    signature = find_problem("darcy").build().signature.to_dict()
    solver = Blueprint(**words, recipe=recipe, grid=grid.to_dict(), signature=signature).make_solver()
    assert solver.symmetries == SQUARE
    inputs = 3 + torch.rand(1, 1, 17, 17, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        turned = solver(inputs.mT.contiguous(), grid)
    torch.testing.assert_close(turned, solver(inputs, grid).mT.detach(), rtol=0, atol=1e-5)


def test_a_recipe_read_back_from_json_is_the_same():
    recipe = Recipe(resolutions=(5, 9))
    assert Recipe(**{**dataclasses.asdict(recipe), "resolutions": [5, 9]}) == recipe
    assert hash(recipe) == hash(Recipe(resolutions=[5, 9]))
