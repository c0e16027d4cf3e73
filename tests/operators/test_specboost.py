"""Boosting: what it starts from, what it freezes, what it learns, and that it is bookkeeping anyone can check."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest
import torch
from resolvent.data import Dataset
from resolvent.operators import _boosting, fno, specboost
from resolvent.operators._boosting import Residuals, _unfaded, shell_energy, start_at_zero
from resolvent.operators.specboost import PRESETS, Boosted, build
from resolvent.pde import Channel, Grid, Signature
from resolvent.pde.burgers import Burgers
from resolvent.pde.darcy import Darcy
from resolvent.pde.navier_stokes import NavierStokes
from resolvent.training import Budget, Callback, History, Interrupted, LearnedSolver, NetworkSolver, Recipe, relative_l2
from torch import Tensor

NODES = 32
DECAY = 1.5
RECIPE = Recipe(epochs=40, batch=8, learning_rate=5e-3)
SMALL = "modes=16 width=8 layers=2"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Toy(Burgers):
    """A static map or an evolution on a circle, of fields with a steep spectrum."""

    steps: int = 0

    @property
    def signature(self) -> Signature:
        state = (Channel("u"),)
        return Signature(state, state, frames=self.steps, spacing=0.5 if self.steps else 0.0)


GRID = Grid.box(NODES, dim=1)


def fields(count: int, seed: int = 0) -> Tensor:
    """Random waves of amplitude k^-DECAY."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.arange(NODES, dtype=torch.float64) / NODES
    k = torch.arange(1, 13, dtype=torch.float64)
    waves = torch.stack([torch.cos(2 * math.pi * k[:, None] * x), torch.sin(2 * math.pi * k[:, None] * x)])
    size = torch.randn(count, 2, len(k), generator=generator, dtype=torch.float64) / k**DECAY
    return torch.einsum("btk,tkx->bx", size, waves)[:, None].float()


def moved(state: Tensor) -> Tensor:
    """A shift and a quadratic term: no layer has it exactly."""
    return state.roll(3, dims=-1) + 0.3 * state.square() - 0.3 * state.square().mean(dim=-1, keepdim=True)


def linear(state: Tensor) -> Tensor:
    return state.roll(3, dims=-1) - 0.5 * state.roll(-2, dims=-1)


def toy_data(count: int, *, steps: int = 0, seed: int = 0, by=moved) -> Dataset:
    states = [fields(count, seed)]
    for _ in range(max(1, steps)):
        states.append(by(states[-1]))
    outputs = torch.stack(states[1:], dim=1) if steps else states[1]
    return Dataset.from_tensors(states[0], outputs, grid=GRID, signature=Toy(steps=steps).signature)


def toy(*, steps: int = 0, recipe: Recipe = RECIPE, **options) -> Boosted:
    return build(Toy(steps=steps), GRID, base_options=SMALL, recipe=recipe, **options)


class Stub(LearnedSolver):
    """Answers with a function and remembers what it was trained on."""

    parameter_count = 1

    def __init__(self, function, signature: Signature) -> None:
        self.function, self.signature = function, signature
        self.seen: Any = None

    def __call__(self, inputs: Tensor, grid: Grid, times=None) -> Tensor:
        return self.function(self, inputs)

    def fit(self, data: Dataset, **options) -> History:
        self.seen, self.budget = data.read(range(len(data))), options["budget"]
        return History(rows=[{"epoch": 1, "step": 1, "seconds": 0.0}], status="complete")

    def state(self) -> dict[str, Tensor]:
        return {}

    def restore(self, state: dict[str, Tensor]) -> None:
        pass


def boosted_by(functions, *, folds: int = 1, feed: bool = False) -> tuple[Boosted, list[list[Stub]]]:
    made: list[list[Stub]] = [[] for _ in functions]

    def make(number: int) -> Stub:
        made[number].append(Stub(functions[number], Toy().signature))
        return made[number][-1]

    return Boosted(make, Toy(), GRID, RECIPE, stages=len(functions), feed=feed, folds=folds), made


# ---------------------------------------------------------------------- check 1: it starts from stage 0


@pytest.mark.parametrize("base", ["fno", "mgno", "unet", "deeponet", "multionet"])
@pytest.mark.parametrize("feed", [False, True])
def test_a_residual_stage_starts_at_zero_exactly(base, feed):
    problem = Darcy()
    grid = problem.grid(17)
    try:
        boosted = build(problem, grid, base=base, stages=3, feed=feed)
    except ValueError as refusal:
        pytest.skip(f"{base} refuses: {refusal}")
    inputs = problem.sample(2, grid, generator=torch.Generator().manual_seed(0)).float()
    with torch.no_grad():
        assert torch.equal(boosted(inputs, grid), boosted.stages[0](inputs, grid))
    assert boosted.parameter_count == sum(stage.parameter_count for stage in boosted.stages)


@pytest.mark.parametrize("base", ["fno", "unet", "deeponet"])
@pytest.mark.parametrize("feed", [False, True])
def test_a_residual_stage_begins_with_the_features_of_the_stage_before(base, feed):
    problem = Darcy()
    grid = problem.grid(17)
    boosted = build(problem, grid, base=base, feed=feed)
    first, second = boosted.stages
    for parameter in first.network.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    begun = boosted._begun(1, second)
    seen = torch.randn(2, 2 if feed else 1, *grid.shape)
    assert not bool(begun(seen, grid).any())
    theirs = dict(_unfaded(first).named_parameters())
    mine = [(p, theirs[name]) for name, p in _unfaded(begun).named_parameters() if p.shape == theirs[name].shape]
    assert len(mine) > 4
    assert sum(torch.equal(*pair) for pair in mine) >= len(mine) - 2  # but for the last layer's weight and bias
    fresh = build(problem, grid, base=base, feed=feed, start="fresh")
    before = [parameter.clone() for parameter in fresh.stages[1].network.parameters()]
    after = fresh._begun(1, fresh.stages[1]).network.parameters()
    assert all(torch.equal(one, other) for one, other in zip(before, after, strict=True))


def test_a_network_without_a_linear_end_starts_at_zero_by_a_factor():
    network = torch.nn.Sequential(torch.nn.Conv1d(1, 4, 1), torch.nn.Conv1d(4, 1, 1), torch.nn.Softplus())
    stage = NetworkSolver(network, Toy().signature, GRID)
    start_at_zero(stage, 1, GRID)
    inputs = fields(2)
    answer = stage(inputs, GRID)
    assert not bool(answer.detach().any())
    stage._map(inputs).sum().backward()
    assert any(p.grad is not None and bool(p.grad.any()) for p in stage.network.parameters()), "it can leave zero"


# ---------------------------------------------------------------------- check 2: earlier stages are frozen


def test_one_stage_is_the_plain_operator_and_later_ones_leave_it_bit_identical():
    data, exam = toy_data(24), toy_data(8, seed=1)
    with torch.random.fork_rng():
        torch.manual_seed(RECIPE.seed)
        plain = fno.build(Toy(), GRID, modes=16, width=8, layers=2, recipe=RECIPE)
    plain.fit(data, validation=exam, budget=Budget(epochs=3))
    one, two = toy(stages=1), toy(stages=2)
    one.fit(data, validation=exam, budget=Budget(epochs=3))
    two.fit(data, validation=exam, budget=Budget(epochs=6))
    for boosted in (one, two):
        for name, value in plain.state().items():
            assert torch.equal(boosted.stages[0].state()[name], value), name
    assert all(
        (not p.requires_grad and p.grad is None) or not p.requires_grad for p in two.stages[0].module.parameters()
    )
    assert torch.equal(one(exam.read([0])[0], GRID), plain(exam.read([0])[0], GRID))


def test_no_gradient_flows_into_an_earlier_stage(monkeypatch):
    """Its gradients are thrown away after its own training and none comes while the next one trains."""
    boosted, data = toy(stages=2), toy_data(16)
    original = specboost.Course.fit

    def watched(self, solver, *rest, **told):
        if told["stage"] == 1:
            for parameter in boosted.stages[0].module.parameters():
                parameter.grad = None
        return original(self, solver, *rest, **told)

    monkeypatch.setattr(specboost.Course, "fit", watched)
    boosted.fit(data, budget=Budget(epochs=4))
    assert all(parameter.grad is None for parameter in boosted.stages[0].module.parameters())
    assert any(parameter.grad is not None for parameter in boosted.stages[1].module.parameters())


# ---------------------------------------------------------------------- checks 3 and 4: spectra


def flatness(energy: list[float]) -> float:
    """Geometric over arithmetic mean, of the shells that the fields have."""
    kept = torch.tensor(energy[1:13], dtype=torch.float64)
    return float(kept.log().mean().exp() / kept.mean())


@pytest.fixture(scope="module")
def trained() -> tuple[Boosted, History, Dataset]:
    """A linear map of a steep spectrum, stage 0 cut at |k| = 4, the next stage not."""
    recipe = Recipe(epochs=24, batch=16, learning_rate=1e-2)
    boosted = build(Toy(), GRID, base_options="modes=8 width=8 layers=1", residual_options="modes=26", recipe=recipe)
    exam = toy_data(32, seed=1, by=linear)
    return boosted, boosted.fit(toy_data(128, by=linear), validation=exam), exam


def test_the_residual_is_flatter_than_the_target_and_the_second_stage_lowers_it_in_the_middle(trained):
    """Check 3; and check 4 where it must hold: beyond the cut, shells that stage 0 could not learn."""
    _, history, _ = trained
    first, second = (row["spectra"] for row in history.rows if "spectra" in row)
    assert flatness(first["residual"]) > 3 * flatness(first["target"])
    assert second["target"] == first["residual"]
    assert sum(second["residual"][5:13]) < 0.5 * sum(second["target"][5:13])


def test_boosting_lowers_the_error_and_says_by_stage_what_it_did(trained):
    boosted, history, exam = trained
    inputs, outputs = exam.read(range(len(exam)))
    errors = [float(relative_l2(boosted.step(inputs, GRID, n), outputs, GRID).mean()) for n in (1, 2)]
    assert errors[1] < 0.8 * errors[0]
    assert [row["epoch"] for row in history.rows] == list(range(1, 25))
    assert [row["stage"] for row in history.rows] == [0] * 12 + [1] * 12
    assert history.status == "complete"
    seconds = [row["seconds"] for row in history.rows]
    assert seconds == sorted(seconds)


def test_the_stages_are_drawn_and_kept_on_record(trained):
    """One curve for the outputs and one a stage; the record takes the rows as they are."""
    from resolvent.evaluation.figures import stages_figure, training_figure
    from resolvent.evaluation.record import Run, Seconds

    _, history, _ = trained
    axes = stages_figure(history.rows).axes[0]
    assert [line.get_label() for line in axes.get_lines()] == ["outputs", "left by stage 0", "left by stage 1"]
    ends = [row["spectra"] for row in history.rows if "spectra" in row]
    drawn = torch.as_tensor(axes.get_lines()[2].get_ydata())
    torch.testing.assert_close(drawn, torch.tensor(ends[1]["residual"][1:], dtype=torch.float64))
    training_figure(history.rows)
    run = Run(
        problem="toy", model="specboost", options={}, seed=0, metrics={}, seconds=Seconds(), parameters=1,
        device="cpu", threads=1, versions={}, history=tuple(history.rows),
    )  # fmt: skip
    assert Run.from_json(run.to_json()).history == run.history
    with pytest.raises(ValueError, match="no stages to draw"):
        stages_figure([{"epoch": 1}])


@pytest.mark.parametrize("walls", [False, True])
def test_the_shells_of_a_field_add_up_to_its_mean_square(walls):
    grid = Grid.box((12, 9), boundary="dirichlet" if walls else "periodic")
    values = torch.randn(3, 2, 12, 9, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    energy = shell_energy(values, grid)
    torch.testing.assert_close(energy.sum(), values.square().mean(), rtol=1e-12, atol=0)


def test_a_wave_lies_in_the_shell_of_its_number():
    x = torch.arange(NODES, dtype=torch.float64) / NODES
    energy = shell_energy(3 * torch.cos(2 * math.pi * 5 * x)[None, None], GRID)
    assert float(energy[5]) == pytest.approx(4.5, rel=1e-12)
    assert float(energy.sum()) == pytest.approx(4.5, rel=1e-12)


def test_the_report_knows_the_same_spectra():
    from resolvent.evaluation.curves import energy_by_wavenumber

    for grid in (Grid.box((12, 9)), Grid.box((9, 8), boundary="neumann", placement="centres")):
        values = torch.randn(3, 2, *grid.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
        expected = energy_by_wavenumber(values, grid)[1].mean(dim=0)
        torch.testing.assert_close(shell_energy(values, grid), expected, rtol=1e-10, atol=1e-14)


# ---------------------------------------------------------------------- check 6: nothing to learn


def test_where_stage_0_is_exact_the_next_one_stays_at_zero():
    exact = Stub(lambda self, a: moved(a), Toy().signature)
    network = toy(stages=2).stages[1]
    boosted = Boosted(lambda n: (exact, network)[n], Toy(), GRID, RECIPE, stages=2, feed=False, folds=1)
    data = toy_data(32)
    boosted.fit(data, budget=Budget(epochs=10))
    inputs, outputs = data.read(range(32))
    assert float(boosted.scales[1]) == 1.0  # a residual of nothing is not blown up
    assert float(relative_l2(boosted(inputs, GRID), outputs, GRID).max()) < 1e-5


def test_a_stage_that_does_not_help_on_validation_samples_is_left_out():
    boosted, _ = boosted_by([lambda self, a: 0.5 * moved(a), lambda self, a: -moved(a), lambda self, a: moved(a)])
    history = boosted.fit(toy_data(16), validation=toy_data(8, seed=1), budget=Budget(epochs=3))
    assert boosted.kept.tolist() == [1.0, 0.0, 1.0]
    assert [row["kept"] for row in history.rows] == [1, 0, 1]
    inputs = toy_data(4, seed=2).read(range(4))[0]
    expected = (0.5 + float(boosted.scales[2])) * moved(inputs)
    torch.testing.assert_close(boosted(inputs, GRID), expected, rtol=1e-6, atol=1e-6)


# ---------------------------------------------------------------------- what a stage is given


def test_residuals_come_divided_by_their_size_and_with_the_answer_so_far():
    boosted, made = boosted_by([lambda self, a: a, lambda self, a: torch.zeros_like(a[:, :1])], feed=True)
    data = toy_data(16)
    boosted.fit(data, budget=Budget(epochs=2))
    inputs, outputs = data.read(range(16))
    told, left = made[1][0].seen
    torch.testing.assert_close(told, torch.cat([inputs, inputs], dim=1), rtol=0, atol=0)
    size = (outputs - inputs).square().mean().sqrt()
    torch.testing.assert_close(boosted.scales[1], size[None], rtol=1e-6, atol=0)
    torch.testing.assert_close(left, (outputs - inputs) / size, rtol=1e-5, atol=1e-6)


def test_every_frame_of_an_evolution_gives_a_pair():
    data = toy_data(3, steps=4)
    pairs = Residuals(data, [], feed=False)
    assert len(pairs) == 12
    states = data.trajectories([1])[0]
    inputs, left = Dataset("", {}, Toy().signature, GRID, {}, pairs).read([4, 7])
    torch.testing.assert_close(inputs, states[[0, 3]], rtol=0, atol=0)
    torch.testing.assert_close(left, states[[1, 4]], rtol=0, atol=0)


def test_with_folds_no_residual_is_of_a_model_that_saw_its_sample():
    """Each stub answers 0 where it was trained on the input and 1 elsewhere: out of fold all residuals are u - 1."""

    def knows(self, a):
        seen = torch.stack([(a[i] == self.seen[0]).flatten(1).all(dim=1).any() for i in range(len(a))])
        return torch.where(seen.view(-1, 1, 1), 0.0, torch.ones_like(a))

    boosted, made = boosted_by([knows, lambda self, a: torch.zeros_like(a)], folds=3)
    data = toy_data(10)
    boosted.fit(data, budget=Budget(epochs=10))
    outputs = data.read(range(10))[1]
    left = made[1][0].seen[1] * boosted.scales[1]
    torch.testing.assert_close(left, outputs - 1, rtol=1e-5, atol=1e-5)
    assert [len(stub.seen[0]) for stub in made[0]] == [10, 6, 7, 7]
    # the budget of 10 epochs, among 2 stages and 3 folds
    assert {stub.budget.epochs for stubs in made for stub in stubs} == {2}


def test_an_evolution_is_boosted_by_steps_and_rolled_out():
    boosted = toy(stages=2, steps=3)
    data = toy_data(16, steps=3)
    boosted.fit(data, budget=Budget(epochs=4))
    inputs = data.read(range(4))[0]
    frames = boosted(inputs, GRID)
    assert frames.shape == (4, 3, 1, NODES)
    first, second = boosted.stages
    state = inputs
    for frame in frames.unbind(dim=1):
        state = first(state, GRID, [0.5])[:, 0] + boosted.scales[1] * second(state, GRID)
        torch.testing.assert_close(frame, state, rtol=0, atol=1e-6)
    torch.testing.assert_close(boosted(inputs, GRID, [1.0]), frames[:, 1:2], rtol=0, atol=0)


def test_a_coarse_working_grid_serves_all_stages():
    data = toy_data(16)
    boosted = toy(stages=2, recipe=dataclasses.replace(RECIPE, coarsen=2, epochs=4))
    assert {stage.grid.shape for stage in boosted.stages} == {(NODES // 2,)}
    boosted.fit(data)
    inputs = data.read(range(2))[0]
    answer = boosted(inputs, GRID)
    assert answer.shape == inputs.shape
    energy = shell_energy(answer, GRID)
    assert float(energy[9:].sum()) < 1e-10 * float(energy.sum()), "what the working grid does not carry is not answered"


# ---------------------------------------------------------------------- saving, resuming


class StopAfter(Callback):
    def __init__(self, steps: int) -> None:
        self.left = steps

    def batch(self, progress) -> None:
        self.left -= 1

    def stop(self) -> bool:
        return self.left <= 0


@pytest.mark.parametrize("steps", [2, 7, 16])
@pytest.mark.parametrize("folds", [1, 2])
def test_training_cut_short_in_any_stage_resumes_bit_for_bit(steps, folds, tmp_path):
    """Three batches an epoch, two epochs a training: the cut falls into the first, the second and a later one."""
    data, exam = toy_data(20), toy_data(6, seed=1)
    options = {"validation": exam, "budget": Budget(epochs=2 * (2 + (2 if folds == 2 else 0)))}
    whole, cut = toy(stages=2, folds=folds), toy(stages=2, folds=folds)
    history = whole.fit(data, **options)
    path = tmp_path / "checkpoint.pt"
    if steps < len(history.rows) * 2:
        with pytest.raises(Interrupted):
            cut.fit(data, **options, callbacks=[StopAfter(steps)], checkpoint=path)
    again = toy(stages=2, folds=folds)
    resumed = again.fit(data, **options, checkpoint=path)
    for name, value in whole.state().items():
        assert torch.equal(again.state()[name], value), name
    assert [row["train"] for row in resumed.rows] == [row["train"] for row in history.rows]
    assert not list(tmp_path.iterdir()), "a finished training leaves no checkpoint"


def test_state_and_restore_are_inverse_and_refuse_what_does_not_fit():
    boosted = toy(stages=2)
    boosted.fit(toy_data(16), budget=Budget(epochs=2))
    again = toy(stages=2, recipe=dataclasses.replace(RECIPE, seed=5))
    again.restore(boosted.state())
    inputs = fields(2)
    assert torch.equal(again(inputs, GRID), boosted(inputs, GRID))
    for wrong in ({}, {**boosted.state(), "stages.2.x": torch.zeros(1)}, {**boosted.state(), "scales": torch.ones(3)}):
        with pytest.raises(ValueError, match="do not fit"):
            again.restore(wrong)


def test_the_budget_is_shared_and_seen_whole_by_who_watches():
    seen: list[tuple[int, int, float]] = []

    class Watch(Callback):
        def batch(self, progress) -> None:
            seen.append((progress.epoch, progress.epochs, progress.fraction))

    toy(stages=3).fit(toy_data(8), budget=Budget(epochs=6), callbacks=[Watch()])
    assert [epoch for epoch, _, _ in seen] == [1, 2, 3, 4, 5, 6]
    assert {epochs for _, epochs, _ in seen} == {6}
    fractions = [fraction for _, _, fraction in seen]
    assert fractions == pytest.approx([1 / 6, 2 / 6, 3 / 6, 4 / 6, 5 / 6, 1])
    boosted, made = boosted_by([lambda self, a: a, lambda self, a: a])
    boosted.fit(toy_data(8), budget=Budget(epochs=4, seconds=10.0))
    assert [stub.budget.seconds for stubs in made for stub in stubs] == [5.0, 5.0]
    with pytest.raises(ValueError, match="at least 3 epochs"):
        toy(stages=3).fit(toy_data(8), budget=Budget(epochs=2))


# ---------------------------------------------------------------------- words


def test_stages_may_differ_and_unknown_words_are_answered_with_near_ones():
    boosted = build(Toy(), GRID, base_options="modes=8 width=6 layers=1 norm=group", residual_options="modes=16")
    networks = [stage.network for stage in boosted.stages]
    assert [network.modes for network in networks] == [(8,), (16,)]
    assert {network.style.norm for network in networks} == {"group"}
    for options, said in (
        ({"base": "fnoo"}, "Did you mean 'fno'"),
        ({"base": "persistence"}, "does not"),
        ({"base": "specboost"}, "Unknown base"),
        ({"base_options": "widht=3"}, "Did you mean 'width'"),
        ({"base_options": "width"}, "written like"),
        ({"stages": 0}, "at least 1"),
        ({"folds": 0}, "at least 1"),
    ):
        with pytest.raises(ValueError, match=said):
            build(Toy(), GRID, **options)


def test_a_model_of_a_stranger_is_boosted_by_its_path():
    boosted = build(Toy(), GRID, base="resolvent.operators.fno", base_options=SMALL)
    assert boosted.parameter_count == toy().parameter_count


@pytest.mark.parametrize("key", [key for key in PRESETS if key[0] == "quick"])
def test_presets_build_and_quick_ones_have_the_parameters_of_the_plain_model(key):
    name = key[1] if key[1] != "*" else "darcy"
    problem = {"darcy": Darcy(), "navier_stokes": NavierStokes()}[name]
    entry = PRESETS[key]
    preset = entry(problem) if callable(entry) else entry
    grid = problem.grid(problem.setups[key[0]].resolution)
    boosted = build(problem, grid, **preset.model, recipe=Recipe(**preset.train))
    plain = fno.PRESETS[key]
    plain = plain(problem) if callable(plain) else plain
    count = fno.build(problem, grid, **plain.model).parameter_count
    assert 0.9 < boosted.parameter_count / count < 1.1


def test_residuals_too_large_for_memory_are_computed_when_read(monkeypatch):
    monkeypatch.setattr(_boosting, "MEMORY_LIMIT", 0)
    lazy, held, data = toy(stages=2), toy(stages=2), toy_data(16)
    lazy.fit(data, budget=Budget(epochs=4))
    monkeypatch.undo()
    held.fit(data, budget=Budget(epochs=4))
    for name, value in held.state().items():
        assert torch.equal(lazy.state()[name], value), name
