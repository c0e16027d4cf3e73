"""Solvers that need no data, and what cannot be built or answered, as a user asks for it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import xarray
from resolvent.evaluation import read_run

Command = Callable[..., tuple[int, str, str]]


def test_one_instance_is_solved_without_data(command: Command, tmp_path: Path) -> None:
    """1e-8 and better, against a closed form in double precision; nothing is generated, nothing trained, and reused."""
    words = ["--pde", "high_frequency_poisson", "--pde.preset", "p1", "--model", "gp"]
    status, out, err = command(*words, "--cache", str(tmp_path / "cache"))
    assert status == 0, err
    assert "gp on high_frequency_poisson, 1 instance, relative L2 error:" in out
    assert not (tmp_path / "cache").exists()
    assert "generating" not in err
    assert "training" not in err
    (folder,) = tmp_path.glob("runs/high_frequency_poisson-gp-*")
    run = read_run(folder)
    assert run.metrics["relative_l2"].mean < 1e-7
    assert (run.setup["train"], run.setup["test"], run.seconds.generate) == (0, 1, 0.0)
    assert run.starts[0].truth == "closed form, float64"
    assert run.starts[0].health[0]["misfit"] < 1e-6
    assert run.data.source["precision"] == "float64"
    assert (folder / "figures" / "fields-close-up.png").exists()  # 100 waves
    page = (folder / "report.html").read_text()
    for said in ("What the solver found about its answers", "misfit", "closed form", "on 1 instance"):
        assert said in page
    for unsaid in ("training samples", "One seed"):
        assert unsaid not in page
    assert "Reusing" in command(*words)[2]
    held = xarray.open_dataset(folder / "predictions.nc")
    assert held.solution.dtype == "float64"
    error = held.solution - held.solution_truth
    assert float((error**2).sum() / (held.solution_truth**2).sum()) ** 0.5 < 1e-7
    status, _, err = command(*words, "--setup.train", "5")
    assert status == 2
    assert "learns from no data" in err
    status, help_text, _ = command(*words, "--help")
    assert status == 0
    assert "SETUP.TEST" in help_text.upper()


def test_warnings_of_the_solver_are_notes_of_the_record(command: Command, tmp_path: Path) -> None:
    """A rough coefficient has no highest wave: the answer stands, with its limit beside it, and on standard error not."""
    words = ["--pde", "darcy", "--pde.law", "log_normal", "--model", "gp", "--setup.resolution", "33"]
    status, out, err = command(*words, "--setup.test", "2", "--json")
    assert status == 0, err
    record = json.loads(out)
    assert record["starts"][0]["truth"] == "reference solver, float64"
    assert len(record["starts"][0]["health"]) == 2
    assert any("Test sample" in note and "use more nodes" in note for note in record["notes"])
    assert "Warning" not in err
    (folder,) = tmp_path.glob("runs/darcy-gp-*")
    assert "use more nodes" in (folder / "report.html").read_text()


def test_what_cannot_be_built_is_refused_before_data_are_made(command: Command, tmp_path: Path) -> None:
    words = ("--pde", "darcy", "--setup.resolution", "17", "--model", "fno", "--model.modes", "40")
    status, _, err = command(*words, "--cache", str(tmp_path / "cache"))
    assert status == 2
    assert "--model.modes 17" in err
    assert not list(tmp_path.glob("cache/*"))


def test_what_a_model_cannot_answer_is_refused_with_its_reason(command: Command) -> None:
    status, _, err = command("--pde", "darcy", "--model", "gp", "--setup.resolution", "17")
    assert status == 2
    assert "law='log_normal'" in err.strip().splitlines()[-1]
    status, _, err = command("--pde", "burgers", "--model", "gp", "--setup.resolution", "17")
    assert status == 2
    assert "declare their equation" in err


def test_one_instance_beside_learned_rivals(command: Command) -> None:
    """They need data, so the problem's own sizes stand, and all are judged on the same samples."""
    sizes = ["--setup.resolution", "17", "--setup.train", "6", "--setup.validation", "2", "--setup.test", "3"]
    status, out, err = command("--pde", "poisson", "--model", "gp", "--rivals", "linear", *sizes, "--json")
    assert status == 0, err
    record = json.loads(out)
    assert record["metrics"]["relative_l2"]["mean"] < 1e-8
    assert len(record["compare"]["linear"]["metrics"]["relative_l2"]["samples"]) == 3
    assert record["compare"]["linear"]["starts"][0]["truth"] == "stored samples, float32"
    assert record["seconds"]["generate"] == 0.0  # it needed none of the data
