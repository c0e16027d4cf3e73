"""The baselines of every table: persistence, the training mean, and ridge regression on principal components."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from resolvent.data import Dataset
from resolvent.operators import linear, mean, persistence
from resolvent.operators.linear import Linear, principal_components
from resolvent.operators.mean import Mean
from resolvent.pde import Channel, Grid, Signature
from resolvent.pde.darcy import Darcy
from resolvent.pde.navier_stokes import NavierStokes
from resolvent.training import Callback, Interrupted
from torch import Tensor

ONE = (Channel("u"),)
TWO = (Channel("u"), Channel("v"))
STATIC = Signature(ONE, TWO)
EVOLUTION = Signature(ONE, ONE, frames=5, spacing=0.5)
GRID = Grid.box(24)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def static_data(count: int, *, seed: int = 1, rank: int = 6, noise: float = 0.0) -> tuple[Dataset, Tensor]:
    """u = A a + b exactly, with inputs in an affine space of the given dimension."""
    span, matrix, offset = normal(rank, 24, seed=11), normal(24, 48, seed=12) / 5, normal(48, seed=13)
    inputs = normal(count, rank, seed=seed) @ span + normal(24, seed=14)
    outputs = inputs @ matrix + offset + noise * normal(count, 48, seed=seed + 1)
    data = Dataset.from_tensors(
        inputs[:, None].float(), outputs.unflatten(1, (2, 24)).float(), grid=GRID, signature=STATIC
    )
    return data, matrix


def rotation_data(count: int, *, seed: int) -> Dataset:
    """States in a plane of two modes that turn by 0.3 a frame: a linear evolution, u = r cos(2 pi (x - c t) + phase)."""
    x = torch.arange(24, dtype=torch.float64) / 24
    amplitude, phase = normal(count, 1, seed=seed).abs() + 0.5, normal(count, 1, seed=seed + 1)
    frames = [amplitude * torch.cos(2 * torch.pi * x + phase - 0.3 * n) for n in range(6)]
    states = torch.stack(frames, dim=1)[:, :, None].float()
    return Dataset.from_tensors(states[:, 0], states[:, 1:], grid=GRID, signature=EVOLUTION)


class TestLinear:
    def test_finds_an_affine_operator_exactly(self):
        data, _ = static_data(40)
        held_out, _ = static_data(10, seed=7)
        solver = Linear(STATIC, GRID)
        history = solver.fit(data, validation=held_out)
        inputs, outputs = static_data(20, seed=9)[0].read(range(20))
        # single-precision fields and tables
        torch.testing.assert_close(solver(inputs, GRID), outputs, rtol=0, atol=2e-5 * float(outputs.abs().max()))
        assert solver.parts["input_basis"].shape == (24, 6)
        assert history.status == "complete"
        assert history.rows[0]["validation"] < 1e-5

    def test_rolls_a_linear_evolution_out(self):
        solver = Linear(EVOLUTION, GRID)
        solver.fit(rotation_data(12, seed=3), validation=rotation_data(4, seed=5))
        states, truth = rotation_data(6, seed=21).read(range(6))
        torch.testing.assert_close(solver(states, GRID), truth, rtol=0, atol=1e-4)
        torch.testing.assert_close(solver(states, GRID, (1.0, 2.5)), truth[:, [1, 4]], rtol=0, atol=1e-4)

    def test_ridge_helps_where_data_are_few_and_noisy(self):
        """The ridge chosen beats the smallest of the ladder on data that chose nothing."""
        data, _ = static_data(26, rank=24, noise=2.0)
        held_out, _ = static_data(200, seed=30, rank=24, noise=2.0)
        fresh, _ = static_data(200, seed=40, rank=24)
        errors = {}
        for name, ladder in (("chosen", linear.RIDGES), ("none", (1e-12,))):
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(linear, "RIDGES", ladder)
                solver = Linear(STATIC, GRID)
                solver.fit(data, validation=held_out)
            inputs, outputs = fresh.read(range(200))
            errors[name] = float((solver(inputs, GRID) - outputs).norm())
        assert errors["chosen"] < 0.8 * errors["none"]

    def test_a_very_large_ridge_leaves_the_mean(self, monkeypatch):
        """The constant is not penalised: it corrects the mean of the snapshots to that of all samples."""
        monkeypatch.setattr(linear, "RIDGES", (1e12,))
        data, _ = static_data(30)
        solver = Linear(STATIC, GRID, snapshots=10)
        solver.fit(data, validation=data)
        inputs, outputs = data.read(range(30))
        expected = outputs.mean(dim=0).expand_as(outputs)
        torch.testing.assert_close(solver(inputs, GRID), expected, rtol=0, atol=1e-5 * float(outputs.abs().max()))

    def test_reported_validation_error_is_that_of_the_answers(self):
        data, held_out = static_data(30, noise=0.5)[0], static_data(12, seed=7, noise=0.5)[0]
        solver = Linear(STATIC, GRID, components=4)
        reported = solver.fit(data, validation=held_out).rows[0]["validation"]
        inputs, outputs = held_out.read(range(12))
        errors = (solver(inputs, GRID) - outputs).flatten(1).norm(dim=1) / outputs.flatten(1).norm(dim=1)
        assert reported == pytest.approx(float(errors.mean()), rel=1e-4)  # single-precision answers

    @pytest.mark.parametrize("block", [3, 256])
    def test_components_are_those_of_the_singular_value_decomposition(self, block):
        rows = normal(20, 4, seed=2) @ normal(4, 30, seed=3) + normal(20, 30, seed=4) * 0.1
        centre, basis = principal_components(lambda: iter(rows.split(block)), 5)
        torch.testing.assert_close(centre, rows.mean(dim=0))
        expected = torch.linalg.svd(rows - rows.mean(dim=0), full_matrices=False)[2][:5].t()
        torch.testing.assert_close(basis.t() @ basis, torch.eye(5, dtype=torch.float64), rtol=0, atol=1e-12)
        # equal up to sign, column by column
        torch.testing.assert_close((basis.t() @ expected).abs(), torch.eye(5, dtype=torch.float64), rtol=0, atol=1e-9)

    @pytest.mark.parametrize("make", [lambda: static_data(30)[0], lambda: rotation_data(9, seed=3)])
    def test_reading_in_small_blocks_or_again_changes_nothing(self, make, monkeypatch):
        data = make()
        inputs, _ = data.read(range(3))
        answers = []
        for block, resident in ((256, 2**30), (4, 0)):
            monkeypatch.setattr(linear, "BLOCK", block)
            monkeypatch.setattr(linear, "RESIDENT", resident)
            solver = Linear(data.signature, GRID)
            solver.fit(data)
            answers.append(solver(inputs, GRID))
        torch.testing.assert_close(answers[0], answers[1], rtol=0, atol=1e-4 * float(answers[0].abs().max()))

    def test_snapshots_are_spread_and_limited(self):
        pairs = linear._Pairs(rotation_data(9, seed=3), ())
        for side in (0, 1):
            rows = torch.cat(list(pairs.spread(side, 20)()))
            everything = torch.cat([pair[side] for pair in pairs.blocks()])
            assert torch.equal(rows, everything[::3])  # 45 pairs, at most 20

    def test_state_restores_the_same_answers_and_refuses_others(self):
        data, _ = static_data(20)
        solver, again = Linear(STATIC, GRID), Linear(STATIC, GRID)
        solver.fit(data)
        again.restore(solver.state())
        inputs, _ = data.read(range(4))
        assert torch.equal(solver(inputs, GRID), again(inputs, GRID))
        assert solver.parameter_count == sum(v.numel() for v in solver.state().values()) - 1
        with pytest.raises(ValueError, match="output mean and basis"):
            Linear(Signature(ONE, ONE), GRID).restore(solver.state())
        with pytest.raises(ValueError, match="Weights of linear"):
            again.restore({"mean": torch.zeros(1)})

    def test_refuses_what_it_cannot_serve(self):
        data, _ = static_data(20)
        solver = Linear(STATIC, GRID)
        with pytest.raises(ValueError, match="not been fitted"):
            solver(torch.zeros(1, 1, 24), GRID)
        solver.fit(data)
        with pytest.raises(ValueError, match="training grid"):
            solver(torch.zeros(1, 1, 48), GRID.at(48))
        with pytest.raises(ValueError, match=r"built for the grid \(48,\)"):
            Linear(STATIC, GRID.at(48)).fit(data)
        with pytest.raises(ValueError, match="components >= 1"):
            Linear(STATIC, GRID, components=0)

    def test_can_be_stopped(self):
        class Stop(Callback):
            def stop(self) -> bool:
                return True

        with pytest.raises(Interrupted):
            Linear(STATIC, GRID).fit(static_data(20)[0], callbacks=[Stop()])


class TestMean:
    def test_is_the_mean_of_the_outputs(self):
        data, _ = static_data(70)
        solver = Mean(STATIC, GRID)
        history = solver.fit(data, validation=data)
        inputs, outputs = data.read(range(70))
        answers = solver(inputs, GRID)
        torch.testing.assert_close(answers, outputs.mean(dim=0).expand_as(answers), rtol=0, atol=1e-5)
        assert solver.parameter_count == 48
        assert history.rows[0]["train"] == history.rows[0]["validation"] > 0

    def test_of_an_evolution_is_over_samples_and_frames(self):
        data = rotation_data(7, seed=3)
        solver = Mean(EVOLUTION, GRID)
        solver.fit(data)
        states, frames = data.read(range(7))
        answers = solver(states, GRID, (0.5, 2.0))
        assert answers.shape == (7, 2, 1, 24)
        torch.testing.assert_close(answers, frames.mean(dim=(0, 1)).expand_as(answers), rtol=0, atol=1e-6)

    def test_state_restores_and_other_grids_are_refused(self):
        data, _ = static_data(5)
        solver, again = Mean(STATIC, GRID), Mean(STATIC, GRID)
        solver.fit(data)
        again.restore(solver.state())
        assert torch.equal(again.state()["mean"], solver.state()["mean"])
        with pytest.raises(ValueError, match="training grid"):
            solver(torch.zeros(1, 1, 48), GRID.at(48))
        with pytest.raises(ValueError, match="one tensor 'mean'"):
            Mean(STATIC, GRID.at(48)).restore(solver.state())
        with pytest.raises(ValueError, match="not been fitted"):
            Mean(STATIC, GRID)(torch.zeros(1, 1, 24), GRID)


class TestPersistence:
    def test_keeps_the_state_at_every_time_and_resolution(self):
        flow = dataclasses.replace(NavierStokes(), frames=3)
        solver = persistence.build(flow, flow.grid(8))
        for size in (8, 12):
            state = normal(2, 1, size, size)
            assert torch.equal(solver(state, flow.grid(size)), state[:, None].expand(2, 3, 1, size, size))
            assert solver(state, flow.grid(size), (0.3, 0.7)).shape[1] == 2

    def test_of_a_static_map_needs_as_many_outputs_as_inputs(self):
        darcy = Darcy()
        coefficient = normal(2, 1, 9, 9)
        assert torch.equal(persistence.build(darcy, darcy.grid(9))(coefficient, darcy.grid(9)), coefficient)
        with pytest.raises(ValueError, match=r"maps \['u'\] to \['u', 'v'\]"):
            persistence.Persistence(STATIC)


@pytest.mark.parametrize("module", [linear, mean])
def test_builds_from_a_problem(module):
    flow = NavierStokes()
    solver = module.build(flow, flow.grid(16))
    assert solver.parameter_count == 0
    assert solver.state() == {}
