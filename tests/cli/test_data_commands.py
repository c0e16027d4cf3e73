"""``resolvent data`` and ``resolvent generate`` as a user types them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from resolvent.cli.main import main, solve_command
from resolvent.data import open_dataset, read
from resolvent.data.formats import KnownFault
from resolvent.pde.burgers import Burgers

Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Command:
    """Run a command in a folder of its own: (exit status, standard output, standard error)."""
    monkeypatch.chdir(tmp_path)

    def run(*words: str, entry: Callable[[list[str]], None] = main) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as stop:
            entry(list(words))
        captured = capsys.readouterr()
        return int(stop.value.code or 0), captured.out, captured.err

    return run


@pytest.fixture
def burgers(tmp_path: Path) -> Path:
    """A PDEBench file of decaying waves, u(t + 0.5) = 0.5 u(t), made by hand."""
    x = (np.arange(16) + 0.5) / 16
    start = np.sin(2 * np.pi * (x + np.random.default_rng(0).random((20, 1))))
    with h5py.File(tmp_path / "1D_Burgers_Sols_Nu0.1.hdf5", "w") as file:
        file["tensor"] = np.stack([start * 0.5**k for k in range(4)], axis=1).astype(np.float32)
        file["x-coordinate"], file["t-coordinate"] = x.astype(np.float32), np.arange(5) * 0.5
        file.attrs["Nu"] = 0.1
        return tmp_path / "1D_Burgers_Sols_Nu0.1.hdf5"


# ------------------------------------------------------------------------------------------------ data info


def test_info_says_what_a_file_holds(command: Command, burgers: Path) -> None:
    status, out, _ = command("data", "info", burgers.name)
    assert status == 0
    for line in (
        "format     pdebench, layout A",
        "problem    burgers",
        "samples    20 (evolution)",
        "outputs    u [1]  (3, 1, 16)",
        "times      frames 0 … 3, every 0.5 [1]",
        "parameter  Nu = 0.1",
        "fault      1D_Burgers_Sols_Nu0.1.hdf5: t-coordinate has 5 entries for 4 frames",
    ):
        assert line in out
    assert "x: 16 nodes (left)" in out


def test_info_as_json_has_the_same_and_more(command: Command, burgers: Path) -> None:
    status, out, err = command("data", "info", burgers.name, "--json")
    assert (status, err) == (0, "")
    told = json.loads(out)
    assert (told["format"], told["samples"], told["frames"]) == ("pdebench", 20, 3)
    assert {w["kind"] for w in told["warnings"]} == {"KnownFault"}
    with warnings.catch_warnings(action="ignore"):
        assert told["sha256"] == read(burgers).samples.fingerprint
    assert "netcdf" in told["written_as"]
    assert json.loads(command("data", "info", burgers.name, "--json", "--no-checksum")[1])["sha256"] is None


def test_files_that_fit_no_layout_are_answered_in_one_line(command: Command, tmp_path: Path, burgers: Path) -> None:
    with h5py.File(burgers, "r+") as file:
        cut = file["tensor"][:, 0]
        del file["tensor"]
        file["tensor"] = cut
    status, out, err = command("data", "info", burgers.name)
    assert (status, out, err.count("\n")) == (1, "", 1)
    assert "'tensor' has shape (20, 16), expected (n, t, x" in err
    assert "the_well" in err
    status, _, err = command("data", "info", "absent.nc")
    assert (status, err) == (1, "There is no file or folder absent.nc.\n")


# ------------------------------------------------------------------------------------------------ data convert


@pytest.mark.parametrize(
    ("target", "words"), [("b.nc", []), ("b.zarr", []), ("b.npy", []), ("b.h5", ["--format", "the_well"])]
)
def test_conversion_keeps_every_value(
    command: Command, tmp_path: Path, burgers: Path, target: str, words: list[str]
) -> None:
    with pytest.warns(KnownFault, match="t-coordinate has 5 entries"):
        status, out, _ = command("data", "convert", burgers.name, target, *words)
    assert (status, out) == (0, f"{target}\n")
    with warnings.catch_warnings(action="ignore"):
        before, after = read(burgers), read(tmp_path / target)
    assert torch.equal(after.trajectories(range(20)), before.trajectories(range(20)))
    assert after.grid.axes[0].length == pytest.approx(1.0)
    assert (after.signature, after.parameters, after.problem) == (before.signature, before.parameters, before.problem)


def test_a_file_that_exists_stays_unless_forced(command: Command, tmp_path: Path, burgers: Path) -> None:
    (tmp_path / "b.nc").write_text("precious")
    status, _, err = command("data", "convert", burgers.name, "b.nc")
    assert status == 1
    assert "b.nc exists; overwrite it explicitly (--force)" in err.splitlines()[-1]
    assert (tmp_path / "b.nc").read_text() == "precious"
    assert command("data", "convert", burgers.name, "b.nc", "--force")[0] == 0
    status, _, err = command("data", "convert", burgers.name, burgers.name, "--format", "pdebench", "--force")
    assert status == 2
    assert "onto itself" in err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["b.hdf5"], "could be pdebench or the_well; name one"),
        (["b.nc", "--format", "matlab"], "Format 'matlab' is not known; written are apebench"),
        (["b.nc", "--format", "folder"], "is read, not written"),
        ([], "target"),
    ],
)
def test_what_cannot_be_written_is_a_wrong_argument(
    command: Command, burgers: Path, words: list[str], said: str
) -> None:
    status, out, err = command("data", "convert", burgers.name, *words)
    assert (status, out) == (2, "")
    assert said.lower() in err.lower()
    assert not list(burgers.parent.glob("b.*"))


def test_values_of_higher_precision_are_said_to_be_rounded(command: Command, tmp_path: Path) -> None:
    np.save(tmp_path / "d.npy", np.random.default_rng(0).random((2, 3, 1, 4)))
    status, _, err = command("data", "convert", "d.npy", "d.nc")
    assert status == 0
    assert "d.npy holds float64; d.nc will hold float32." in err


def test_what_a_reader_has_to_say_is_one_line_without_code(tmp_path: Path, burgers: Path) -> None:
    run = "import sys; from resolvent.cli.main import main; main(sys.argv[1:])"
    words = ["data", "convert", burgers.name, "b.nc"]
    ended = subprocess.run(
        [sys.executable, "-c", run, *words], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0
    notes = [line for line in ended.stderr.splitlines() if "writing" not in line]
    assert len(notes) == 2
    assert all(note.startswith("Note: 1D_Burgers_Sols_Nu0.1.hdf5: ") for note in notes)


# ------------------------------------------------------------------------------------------------ solve --data


def test_a_foreign_file_is_trained_on_and_judged(command: Command, burgers: Path) -> None:
    """Halving is linear: the linear baseline finds it exactly, through any reader that puts axes in their places."""
    with pytest.warns(KnownFault, match="the stored coordinate says a period of 1 "):
        status, out, err = command("--data", burgers.name, "--model", "linear", "--json", entry=solve_command)
    assert status == 0, err
    record = json.loads(out)
    assert record["setup"]["train"] == 16
    assert record["metrics"]["relative_l2"]["mean"] < 1e-5  # float32


# ------------------------------------------------------------------------------------------------ generate


def test_generate_prints_the_folder_of_what_was_asked(command: Command, tmp_path: Path) -> None:
    words = ("generate", "burgers", "--resolution", "32", "--count", "3", "--seed", "5", "--cache", "c")
    status, out, err = command(*words, "--pde.viscosity", "0.05")
    assert status == 0, err
    data = open_dataset(tmp_path / out.strip())
    assert (len(data), data.grid.shape, data.parameters["viscosity"]) == (3, (32,), 0.05)
    inputs, outputs = data.read([1])
    solved = Burgers(viscosity=0.05).reference()(inputs.double(), data.grid)
    torch.testing.assert_close(outputs, solved.float(), rtol=1e-4, atol=1e-5)  # inputs were rounded to float32
    assert command(*words, "--pde.viscosity", "0.05")[1] == out
    assert command("generate", "--pde", *words[1:], "--pde.viscosity", "0.06")[1] != out


def test_generate_takes_a_number_of_nodes_for_each_axis(command: Command, tmp_path: Path) -> None:
    status, out, err = command("generate", "darcy", "--resolution", "9", "12", "--count", "2", "--cache", "c")
    assert status == 0, err
    assert open_dataset(tmp_path / out.strip()).grid.shape == (9, 12)


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (["darci"], 2, "darcy"),
        (["darcy", "--count", "0"], 2, "at least 1 sample"),
        (["darcy", "--pde.preset", "fno"], 2, "Unknown --pde.preset 'fno'"),
        (["darcy", "--pde.contrasts", "3"], 2, "--pde.contrast"),
        (["darcy", "--device", "gpu"], 2, "Unknown device 'gpu'; use cpu, cuda"),
        (["darcy", "--count", "2", "--cluster", "nowhere"], 1, "No dask scheduler answers at 'nowhere'"),
        ([], 2, "pde"),
    ],
)
def test_generate_says_what_is_wrong(command: Command, words: list[str], status: int, said: str) -> None:
    got, out, err = command("generate", *words, "--cache", "c")
    assert (got, out) == (status, "")
    assert said.lower() in err.splitlines()[-1].lower()


def test_help_names_formats_and_options(command: Command) -> None:
    assert "the_well" in command("data", "convert", "--help")[1]
    status, out, _ = command("generate", "burgers", "--help")
    assert status == 0
    assert "--pde.viscosity" in out
    assert "--cluster" in out


def test_ctrl_c_leaves_a_generation_that_resumes(tmp_path: Path) -> None:
    """SIGINT after the first shard: status 130, the shard stays, and the printed command ends the work."""
    code = """
import importlib, os, signal, sys
generating = importlib.import_module("resolvent.data.generate")
generating.GROUP_SAMPLES = 4
publish = generating.Book.publish
def published(book, *rest):
    publish(book, *rest)
    if len(book.shards) == 1:
        os.kill(os.getpid(), signal.SIGINT)
generating.Book.publish = published
from resolvent.cli.main import main
main(sys.argv[1:])
"""
    words = ["generate", "burgers", "--resolution", "32", "--count", "12", "--workers", "1", "--cache", "c"]
    run = [sys.executable, "-c", code, *words]
    stopped = subprocess.run(
        run, cwd=tmp_path, capture_output=True, text=True, check=False, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    assert stopped.returncode == 130, stopped.stderr
    assert "stopped at 4 of 12 samples; complete shards are kept. Resume with:" in stopped.stderr.splitlines()[-1]
    (folder,) = (tmp_path / "c").iterdir()
    assert len(list(folder.glob("shard-*.nc"))) == 1
    assert json.loads((folder / "manifest.json").read_text())["complete"] is False
