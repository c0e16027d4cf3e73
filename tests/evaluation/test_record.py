"""The record: what is written is what is read, and nothing else is read."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path

import pytest
from pydantic import ValidationError
from resolvent.cli._solve import told
from resolvent.data import Dataset
from resolvent.evaluation.judge import judge
from resolvent.evaluation.record import (
    DamagedRun,
    Judged,
    Run,
    Score,
    machine,
    read_run,
    seconds_of,
    versions,
    write_run,
)

from .conftest import Decay


def test_round_trip(run: Run, tmp_path: Path) -> None:
    assert Run.from_json(run.to_json()) == run
    write_run(run, tmp_path / "deep" / "run.json")
    assert read_run(tmp_path / "deep" / "run.json") == run
    assert read_run(tmp_path / "deep") == run
    assert [p.name for p in (tmp_path / "deep").iterdir()] == ["run.json"]  # no part left behind


def test_the_file_has_what_the_design_names(run: Run) -> None:
    values = json.loads(run.to_json())
    names = {"problem", "model", "options", "seed", "metrics", "seconds", "parameters", "device", "versions", "compare"}
    assert names <= set(values)
    assert values["metrics"]["relative_l2"] == {"mean": 0.02, "samples": [0.01, 0.02, 0.03]}
    assert {"generate", "fit", "predict"} <= set(values["seconds"])
    assert values["compare"]["persistence"]["seconds"]["predict"] == 1e-6


def test_numbers_that_are_not_finite_survive_as_legal_json(run: Run) -> None:
    lost = Score.of([math.inf, 0.5, math.nan])
    assert math.isnan(lost.mean)
    one = Score.of([math.inf, 0.5])
    rows = ({"epoch": 1, "train": math.nan, "validation": None},)
    odd = run.model_copy(update={"metrics": {"relative_l2": one, "relative_h1": lost}, "starts": (), "history": rows})
    text = odd.to_json()
    assert not re.search(r'(?<!")(NaN|Infinity)', text)
    back = Run.from_json(text)
    assert back.metrics["relative_l2"] == one
    assert math.isnan(back.metrics["relative_h1"].mean)
    assert [math.isnan(v) for v in back.metrics["relative_h1"].samples] == [False, False, True]
    assert math.isnan(back.history[0]["train"])
    assert back.history[0]["epoch"] == 1
    assert back.history[0]["validation"] is None


def test_the_record_is_frozen(run: Run) -> None:
    with pytest.raises(ValidationError):
        run.model = "other"


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda text: text[: len(text) // 2], "is damaged: not JSON"),
        (lambda text: "", "is damaged: not JSON"),
        (lambda text: "[1, 2]", "is not a run record of this program: its format is 'list'"),
        (lambda text: '{"accuracy": 0.9}', "is not a run record of this program: its format is None"),
        (lambda text: text.replace("resolvent-run-1", "resolvent-run-9"), "its format is 'resolvent-run-9'"),
        (lambda text: text.replace('"seed": 0', '"seed": "zero"'), "is damaged at seed"),
        (lambda text: text.replace('"seed": 0,', ""), "is damaged at seed: Field required"),
        (lambda text: text.replace('"mean": 0.02', '"mean": 0.01', 1), "is not the mean of the samples"),
        (lambda text: text.replace('"seed": 0', '"seed": 0, "extra": 1'), "is damaged at extra"),
        (lambda text: text.replace('"generate": 10.0', '"generate": NaN'), "NaN is not JSON"),
    ],
)
def test_a_damaged_or_foreign_file_is_named_and_refused(run: Run, tmp_path: Path, damage, said: str) -> None:
    text = run.to_json()
    assert damage(text) != text
    path = tmp_path / "run.json"
    path.write_text(damage(text))
    with pytest.raises(DamagedRun) as caught:
        read_run(path)
    assert said in str(caught.value)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_absent_and_binary_files_are_named(tmp_path: Path) -> None:
    for path, content in ((tmp_path / "none.json", None), (tmp_path / "some.json", b"\x89HDF\xff")):
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(DamagedRun, match=re.escape(str(path))):
            read_run(path)


def test_standard_error_by_hand() -> None:
    """1, 2, 3: variance 1, over sqrt(3)."""
    assert Score.of([1.0, 2.0, 3.0]).standard_error == pytest.approx(1 / math.sqrt(3), rel=1e-12)
    assert math.isnan(Score.of([1.0]).standard_error)
    assert math.isnan(Score.of([1.0, math.inf]).standard_error)


def test_a_judgement_becomes_a_record(decays: Dataset) -> None:
    verdict = judge(Decay(1.1), decays, start=1, horizon=3, batch=4)
    got = Judged.of(verdict)
    assert got.start == 1
    assert got.times == pytest.approx((0.25, 0.5, 0.75))
    assert got.metrics["relative_l2"].samples == pytest.approx([0.1] * 10, rel=1e-5)
    assert len(got.by_frame) == 10
    assert all(len(curve) == 3 for curve in got.by_frame)
    assert got.error_energy[1] == pytest.approx(float(verdict.error_energy[:, 1].mean()))
    cost = seconds_of(verdict, fit=3.0)
    assert cost.predict == verdict.seconds
    assert cost.predict_one == verdict.seconds_one
    assert (cost.fit, cost.generate, cost.batch) == (3.0, None, 4)
    assert Judged.model_validate(json.loads(got.model_dump_json())) == got


def test_a_lost_solver_has_no_seconds(decays: Dataset) -> None:
    cost = seconds_of(judge(Decay(math.inf), decays))
    assert (cost.predict, cost.predict_one) == (None, None)


def test_curves_of_another_length_are_refused(run: Run) -> None:
    start = run.starts[0].model_dump()
    with pytest.raises(ValidationError, match="different numbers of samples"):
        Judged.model_validate({**start, "by_frame": start["by_frame"][:2]})
    with pytest.raises(ValidationError, match="need 3 values"):
        Judged.model_validate({**start, "times": (1.0, 2.0, 3.0)})


def test_the_speedup_of_others_is_read_off_the_same_curve(run: Run) -> None:
    """The record's own numbers again: error 0.02 at 1 ms against the rung of 0.01 at 4 ms."""
    assert run.classical is not None
    got = run.classical.speedup(0.02, 0.001)
    assert got.equal_accuracy == pytest.approx(run.classical.equal_accuracy)
    assert got.raw == pytest.approx(run.classical.raw)
    assert math.isnan(run.classical.speedup(0.02, None).equal_accuracy)


def test_versions_and_machine_are_read_here() -> None:
    import platform

    import torch

    assert versions()["torch"] == torch.__version__.partition("+")[0] or versions()["torch"] == torch.__version__
    assert versions()["python"] == platform.python_version()
    assert "resolvent" in versions()
    assert platform.node() not in machine()  # no host name
    assert "cores" in machine()


def test_a_run_without_a_single_answer_is_a_failure(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert told(run) == 0
    none = run.model_copy(update={"metrics": {"relative_l2": Score.of([math.nan])}, "message": "The solver\ngave up."})
    assert told(none) == 1
    assert "The solver gave up." in capsys.readouterr().err
