"""A family of equations through the whole of ``solve``: judged with each sample's parameters, from any frame."""

from __future__ import annotations

import pytest
import torch
from resolvent.data import Dataset
from resolvent.evaluation import Request, load, registry, solve
from resolvent.evaluation.judge import judge
from resolvent.operators import linear, mean, persistence
from resolvent.pde import OneFrame, Stepped
from resolvent.pde._varied import Varied, varied
from resolvent.pde.heat import Heat
from resolvent.training import Budget

RANGE = "diffusivity=0.001:0.05"
FAMILY = varied(Heat(frames=4, spacing=0.1), RANGE)


@pytest.fixture(scope="module")
def data() -> Dataset:
    grid = FAMILY.grid(16)
    inputs = FAMILY.sample(24, grid, generator=torch.Generator().manual_seed(0))
    return Dataset.from_tensors(inputs, FAMILY.reference()(inputs, grid), grid=grid, signature=FAMILY.signature)


@pytest.mark.parametrize("start", [0, 2])
def test_the_reference_is_right_from_every_frame(data, start):
    verdict = judge(FAMILY.reference(), data, metrics=["relative_l2"], start=start, batch=5)
    assert verdict.status == "ok", verdict.message
    assert verdict.mean("relative_l2") < 1e-5  # float32 states; small ones have decayed by up to exp(-8)
    assert verdict.examples[0].inputs.shape == (2, 16)


def test_steps_and_whole_evolutions_agree_with_what_is_given(data):
    inputs, outputs = data.read(range(3))
    step = OneFrame(FAMILY.reference(), FAMILY.signature.spacing)
    stepped = Stepped(step, FAMILY.signature)(inputs.double(), data.grid)
    torch.testing.assert_close(stepped.float(), outputs, rtol=0, atol=1e-5 * float(outputs.abs().max()))


def test_baselines_answer_with_the_state_alone(data):
    stays = persistence.build(FAMILY, data.grid)
    inputs, outputs = data.read(range(4))
    assert torch.equal(stays(inputs, data.grid), inputs[:, None, :1].expand(-1, 4, -1, -1))
    for model in (linear.build(FAMILY, data.grid), mean.build(FAMILY, data.grid)):
        model.fit(data)
        answer = model(inputs, data.grid)
        assert answer.shape == outputs.shape
        again = type(model)(FAMILY.signature, data.grid)
        again.restore(model.state())
        assert torch.equal(again(inputs, data.grid), answer)
        if isinstance(model, linear.Linear):  # on its own training data, much better than the answer zero
            assert float((answer - outputs).norm()) < 0.5 * float(outputs.norm())


def test_the_command_line_accepts_it_for_every_problem():
    for name in ("heat", "darcy", "poisson"):
        build = registry.find_problem(name).build
        assert {"preset", "vary"} <= {option.name for option in registry.options_of_problem(build)}
    assert isinstance(registry.posed(Heat, {"vary": RANGE}), Varied)
    assert registry.posed(Heat, {"diffusivity": 0.02, "vary": ""}) == Heat(diffusivity=0.02)


def test_a_run_of_a_family_is_judged_saved_and_applied(tmp_path):
    request = Request(
        model="fno",
        pde="heat",
        problem={"vary": RANGE, "frames": 3},
        options={"width": 8, "modes": 6, "layers": 2},
        setup={"resolution": 16, "train": 16, "validation": 4, "test": 4},
        budget=Budget(epochs=2),
        rivals=("persistence", "linear"),
        runs=tmp_path / "runs",
        cache=tmp_path / "cache",
    )
    outcome = solve(request)
    run = outcome.run
    assert run.status == "ok", run.message
    assert f"--pde.vary {RANGE}" in run.command
    assert run.problem_parameters["diffusivity"] == "0.001:0.05:log"
    assert run.signature["inputs"][1]["uniform"] is True
    assert {rival.status for rival in run.compare.values()} == {"ok"}
    assert run.classical is not None
    assert (outcome.folder / "figures" / "fields-from-0.png").exists()
    surrogate = load(outcome.folder)
    grid = FAMILY.grid(16)
    inputs = FAMILY.sample(2, grid, generator=torch.Generator().manual_seed(0)).float()
    answer = surrogate(inputs)
    assert answer.shape == (2, 3, 1, 16)
    slower = surrogate(torch.cat([inputs[:, :1], torch.full_like(inputs[:, 1:], 1e-3)], dim=1))
    assert not torch.allclose(answer, slower)  # it listens
