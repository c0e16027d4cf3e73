"""The commands as a user types them: what comes out, what is reused, and one clear line for everything that goes wrong."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import xarray
from resolvent.cli.main import main, solve_command
from resolvent.evaluation import load, read_run

SMALL = [
    "--setup.resolution",
    "16",
    "--setup.train",
    "12",
    "--setup.validation",
    "4",
    "--setup.test",
    "4",
    "--setup.starts",
    "1",
    "--setup.starts",
    "0",
    "--setup.horizon",
    "2",
    "--pde.frames",
    "3",
]
MGNO = ["--pde", "navier_stokes", "--model", "mgno", "--model.width", "4", "--model.layers", "2"]
MGNO += ["--train.coarsen", "1", *SMALL, "--train.epochs", "2"]

Command = Callable[..., tuple[int, str, str]]


def test_the_main_job_end_to_end(command: Command, tmp_path: Path) -> None:
    """Run folder, record, JSON on standard output, reuse, surrogate on a file, leaderboard: one small run shows all."""
    status, out, err = command(*MGNO, "--rivals", "persistence", "linear", "--json")
    assert status == 0, err
    record = json.loads(out)
    assert record["problem"] == "navier_stokes"
    assert record["options"]["model"]["width"] == 4
    assert record["options"]["train"]["epochs"] == 2
    assert record["options"]["train"]["objective"] == "relative_l2"  # defaults are written out
    assert set(record["compare"]) == {"persistence", "linear"}
    for key in ("problem", "model", "options", "seed", "metrics", "seconds", "parameters", "device", "versions"):
        assert key in record
    samples = record["metrics"]["relative_l2"]["samples"]
    assert len(samples) == 4
    assert record["metrics"]["relative_l2"]["mean"] == pytest.approx(sum(samples) / 4)
    assert record["classical"]["rungs"]
    (folder,) = tmp_path.glob("runs/navier_stokes-mgno-*")
    for name in ("run.json", "model.safetensors", "model.json", "predictions.nc", "report.html", "log.jsonl"):
        assert (folder / name).stat().st_size > 0
    assert {path.name for path in (folder / "figures").iterdir()} >= {
        "fields-from-1.png",
        "rollout-from-0.png",
        "spectra.png",
        "training.png",
        "cost.png",
    }
    began = time.monotonic()
    status, again, err = command(*MGNO, "--rivals", "persistence", "linear", "--json")
    assert (status, json.loads(again)) == (0, record)
    assert "Reusing" in err
    assert time.monotonic() - began < 5

    other = [word if previous != "--setup.horizon" else "1" for previous, word in zip(["", *MGNO], MGNO, strict=False)]
    status, out, err = command(*other, "--json")  # the same weights, judged otherwise: no training, another record
    assert status == 0, err
    assert len(json.loads(out)["starts"][0]["times"]) == 1
    assert "training" not in err
    assert len(list(tmp_path.glob("runs/navier_stokes-mgno-*"))) == 1
    assert command(*MGNO, "--rivals", "persistence", "linear")[0] == 0

    surrogate = load(folder)
    held = xarray.open_dataset(folder / "predictions.nc")
    state = held[["vorticity"]].isel(time=0)
    state.to_netcdf(tmp_path / "a.nc", engine="h5netcdf")
    status, out, err = command("--run", str(folder), "--input", "a.nc", "--output", "u.nc")
    assert status == 0, err
    written = xarray.open_dataset(tmp_path / "u.nc")
    assert written.vorticity.dims == ("sample", "time", "x", "y")
    assert written.vorticity.attrs["units"] == "1/s"
    from_array = surrogate(state)
    assert from_array.vorticity.dims == ("sample", "time", "x", "y")
    torch.testing.assert_close(torch.tensor(from_array.vorticity.values), torch.tensor(written.vorticity.values))
    field = torch.tensor(state.vorticity.values)[:, None].requires_grad_()
    answer = surrogate(field)
    answer.square().sum().backward()
    assert field.grad is not None
    assert bool(field.grad.any())
    torch.testing.assert_close(answer[:, :, 0].detach(), torch.tensor(written.vorticity.values), rtol=1e-5, atol=1e-6)
    one = surrogate(state.vorticity.values[0][None])  # NumPy, without a batch axis
    assert one.shape == (3, 1, 16, 16)

    status, table, err = command("leaderboard", str(folder), entry=main)
    assert status == 0, err
    assert "| mgno" in table
    status, csv, _ = command("leaderboard", str(folder), "--format", "csv", entry=main)
    assert csv.count("\n") == 2  # the head and one row
    status, csv, _ = command("leaderboard", str(folder), "--format", "csv", "--rivals", "--metric", "rmse", entry=main)
    assert csv.count("\n") == 4
    assert "rival of mgno" in csv
    status, _, err = command("leaderboard", str(folder), "--metric", "rsme", entry=main)
    assert status == 2
    assert "rmse" in err
    assert read_run(folder).model == "mgno"


def test_list_and_doctor(command: Command) -> None:
    status, out, _ = command("list", entry=main)
    assert status == 0
    assert "navier_stokes" in out
    assert "mgno" in out
    status, out, _ = command("doctor", entry=main)
    assert status == 0
    assert "torch" in out
    assert "cores" in out
    assert "\\" not in command("list", entry=main)[1], "LaTeX in a terminal"


def test_help_shows_the_options_of_the_named_problem_and_model(command: Command) -> None:
    status, out, _ = command("--pde", "navier_stokes", "--model", "mgno", "--help")
    assert status == 0
    for flag in ("--pde.viscosity", "--model.width", "--train.learning-rate", "--setup.train"):
        assert flag in out


# ---------------------------------------------------------------------- wrong arguments: exit 2, one line, nearest names


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--pde", "navier_stoke", "--model", "mgno"], "navier_stokes"),
        (["--pde", "darcy", "--model", "mgn"], "mgno"),
        (["--pde", "darcy", "--model", "mgno", "--model.widht", "3"], "--model.width"),
        (["--pde", "darcy", "--model", "mgno", "--pde.contrst", "3"], "--pde.contrast"),
        (["--pde", "darcy", "--model", "mgno", "--model.width", "wide"], "int"),
        (["--pde", "navier_stokes", "--model", "mgno", "--pde.preset", "fno_ns_1e-6"], "fno_ns_1e-5"),
        (["--pde", "navier_stokes", "--model", "mgno", "--pde.viscosity", "-1"], "viscosity"),
        (["--pde", "darcy", "--model", "mgno", "--preset", "fast"], "quick"),
        (["--pde", "darcy", "--model", "mgno", "--budget", "soon"], "90s"),
        (["--pde", "darcy"], "--model"),
        (["--pde", "darcy", "--model", "mgno", "--device", "abacus"], "cpu"),
        (["--pde", "darcy", "--model", "mgno", "--model.levels", "9"], "nodes an axis"),
        (["--pde", "darcy", "--model", "mgno", "--rivals", "unett"], "unet"),
    ],
    ids=lambda value: value[-1] if isinstance(value, list) else None,
)
def test_wrong_arguments_are_answered_in_one_line(command: Command, words: list[str], said: str) -> None:
    small = ["--setup.train", "4", "--setup.validation", "2", "--setup.test", "2", "--setup.resolution", "17"]
    status, out, err = command(*words, *(small if "mgno" in words else []))
    assert status == 2
    assert out == ""
    line = err.strip().splitlines()[-1]
    assert said in line
    assert "Traceback" not in err


# ---------------------------------------------------------------------- files that are not what they should be


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One finished run, with its own cache beside it; tests damage copies."""
    folder = tmp_path_factory.mktemp("finished")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("RESOLVENT_CACHE", str(folder / "cache"))
        with pytest.raises(SystemExit) as stop:
            solve_command(MGNO)
    assert stop.value.code == 0
    return folder


@pytest.fixture
def trained(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a run of one's own."""
    shutil.copytree(finished, tmp_path, dirs_exist_ok=True)
    monkeypatch.setenv("RESOLVENT_CACHE", str(tmp_path / "cache"))
    return next(tmp_path.glob("runs/navier_stokes-mgno-*"))


def test_damaged_weights_are_named_and_refused(command: Command, trained: Path) -> None:
    folder = trained
    path = folder / "model.safetensors"
    data = bytearray(path.read_bytes())
    data[-3] ^= 1
    path.write_bytes(data)
    (folder / "run.json").unlink()
    status, _, err = command(*MGNO)
    assert status == 1
    assert "model.safetensors is damaged" in err
    status, _, err = command("--run", str(folder), "--input", "a.nc", "--output", "u.nc")
    assert status == 1
    assert "model.safetensors is damaged" in err


def test_a_damaged_record_is_named_and_refused(command: Command, trained: Path) -> None:
    folder = trained
    (folder / "run.json").write_text((folder / "run.json").read_text()[:100])
    for words, entry in ((MGNO, solve_command), (["leaderboard", str(folder)], main)):
        status, _, err = command(*words, entry=entry)
        assert status == 1
        assert "run.json is damaged" in err


def test_a_damaged_shard_is_named_and_refused(command: Command, tmp_path: Path, trained: Path) -> None:
    shard = next((tmp_path / "cache").glob("*/shard-*.nc"))
    data = bytearray(shard.read_bytes())
    data[len(data) // 2] ^= 1
    shard.write_bytes(data)
    status, _, err = command(*MGNO[:-1], "1")
    assert status == 1
    assert shard.name in err


def test_input_files_of_another_shape_or_name_say_what_was_expected(
    command: Command, tmp_path: Path, trained: Path
) -> None:
    folder = trained
    held = xarray.open_dataset(folder / "predictions.nc")
    good = held[["vorticity"]].isel(time=0)
    cases = {
        "renamed": (good.rename(vorticity="w"), "vorticity"),
        "other-grid": (good.isel(x=slice(0, 8)), "coordinate 'x'"),
        "with-time": (held[["vorticity"]], "isel(time=0)"),
    }
    for name, (fields, said) in cases.items():
        fields.to_netcdf(tmp_path / f"{name}.nc", engine="h5netcdf")
        status, _, err = command("--run", str(folder), "--input", f"{name}.nc", "--output", "u.nc")
        assert status == 2, name
        assert said in err, name
    status, _, err = command("--run", str(folder), "--input", "absent.nc", "--output", "u.nc")
    assert status == 1
    assert "absent.nc" in err
    assert not (tmp_path / "u.nc").exists()


def test_training_that_diverges_says_where(command: Command) -> None:
    """A learning rate of 1e30 overflows in the first steps; nothing good exists yet, so the run fails."""
    status, _, err = command(
        *MGNO, "--train.learning-rate", "1e30", "--train.clip", "0", "--train.schedule", "constant"
    )
    assert status == 1
    assert "Training diverged at epoch" in err


# ---------------------------------------------------------------------- killed in the middle


def test_a_killed_training_resumes_to_the_same_weights(command: Command, tmp_path: Path, trained: Path) -> None:
    """SIGTERM while training: exit 130, a checkpoint, the resuming command; the rerun ends with the same weights as a
    run that nobody stopped. The data are there already."""
    words = [*MGNO[:-1], "30", "--runs"]
    code = "import sys; from resolvent.cli.main import solve_command; solve_command(sys.argv[1:])"
    killed = subprocess.Popen(
        [sys.executable, "-c", code, *words, "stopped"],
        cwd=tmp_path,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 120
    log = tmp_path / "stopped"
    while time.monotonic() < deadline and not any(log.glob("*/log.jsonl")):
        time.sleep(0.05)
    killed.send_signal(signal.SIGTERM)
    _, err = killed.communicate(timeout=60)
    assert killed.returncode == 130
    assert "resumes it" in err
    assert list(log.glob("*/checkpoint.pt"))
    assert not list(log.glob("*/run.json"))
    for runs in ("whole", "stopped"):
        status, _, err = command(*words, runs)
        assert status == 0, err
    weights = [next((tmp_path / runs).glob("*/model.safetensors")).read_bytes() for runs in ("whole", "stopped")]
    assert weights[0] == weights[1]
    assert not list(log.glob("*/checkpoint.pt"))
    lines = [json.loads(line) for line in next(log.glob("*/log.jsonl")).read_text().splitlines()]
    assert [line["epoch"] for line in lines if line["event"] == "epoch"] == list(range(1, 31))  # none of them twice


# ---------------------------------------------------------------------- the user's own data


def test_a_users_own_file_is_trained_on_and_judged(command: Command, tmp_path: Path) -> None:
    """A netCDF file of decaying waves: u(t + 1) = 0.5 u(t), which the linear baseline finds exactly."""
    x = torch.arange(16) / 16
    phase = 2 * torch.pi * torch.rand(20, 1, generator=torch.Generator().manual_seed(0))
    start = torch.sin(2 * torch.pi * x + phase)
    frames = torch.stack([start * 0.5**k for k in range(4)], dim=1)
    fields = xarray.Dataset(
        {"height": (("sample", "time", "x"), frames.numpy(), {"units": "m"})},
        coords={
            "time": ("time", [0.0, 1.0, 2.0, 3.0]),
            "x": ("x", x.numpy(), {"boundary": "periodic periodic", "placement": "left"}),
        },
    )
    fields.to_netcdf(tmp_path / "own.nc", engine="h5netcdf")
    status, out, err = command("--data", "own.nc", "--model", "linear", "--json")
    assert status == 0, err
    record = json.loads(out)
    assert record["problem"] == "data"
    assert record["setup"]["train"] == 16
    assert record["metrics"]["relative_l2"]["mean"] < 1e-5
    assert record["classical"] is None
    (folder,) = tmp_path.glob("runs/data-linear-*")
    assert load(folder).signature.outputs[0].unit == "m"


def test_data_that_fit_no_layout_are_answered_with_what_was_found(command: Command, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("not a field")
    status, _, err = command("--data", "notes.txt", "--model", "linear")
    assert status == 1
    assert "notes.txt" in err
    xarray.Dataset({"a": (("case", "x"), torch.zeros(3, 4).numpy())}).to_netcdf(tmp_path / "odd.nc", engine="h5netcdf")
    status, _, err = command("--data", "odd.nc", "--model", "linear")
    assert status in (1, 2)
    assert "sample" in err
    assert "case" in err
