"""``resolvent represent`` as a user types it: the archive, the report, one clear line for what goes wrong, resumption."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import xarray
from resolvent.cli import _represent
from resolvent.cli.main import main
from resolvent.data import Assumption
from resolvent.fields._archive import load_field
from resolvent.fields._xarray import FieldBackend

Command = Callable[..., tuple[int, str, str]]
SIREN = ["--field", "siren", "--field.layers", "2", "--rate", "8", "--steps", "8", "--batch", "64", "--kappa", "0.4"]


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Command:
    """Run a command in a folder with u.nc: (exit status, standard output, standard error)."""
    monkeypatch.chdir(tmp_path)
    x, y = np.arange(24) / 24, np.linspace(0, 2, 17)
    u = (np.sin(2 * np.pi * x)[:, None] * np.exp(y)).astype("f4")
    axes = {"x": ("x", x, {"units": "m", "boundary": "periodic periodic"}), "y": ("y", y, {"units": "m"})}
    held = xarray.Dataset({"u": (("x", "y"), u, {"units": "K"}), "w": (("sample", "x", "y"), np.stack([u, -u]))}, axes)
    held.to_netcdf("u.nc", engine="h5netcdf")

    def run(*words: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as stop:
            main(["represent", *words])
        captured = capsys.readouterr()
        return int(stop.value.code or 0), captured.out, captured.err

    return run


def test_a_file_becomes_a_field_with_units_and_a_kept_bound(command: Command) -> None:
    with pytest.warns(Assumption, match="says nothing of its ends"):
        status, out, err = command("u.nc", "--variable", "u", "--bound", "1e-3", "--json")
    assert status == 0, err
    told = json.loads(out)
    assert told["bound"] == 1e-3
    assert told["greatest"] <= 1e-3
    assert told["bytes"] == Path("u.rfield").stat().st_size
    assert told["bits_per_value"] == pytest.approx(8 * told["bytes"] / (24 * 17), abs=1e-3)
    archive = load_field("u.rfield")
    assert archive.channels[0].unit == "K"
    assert [axis.periodic for axis in archive.grid.axes] == [True, False]
    assert not Path("u.rfield.work").exists()
    with xarray.open_dataset("u.nc") as held, xarray.open_dataset("u.rfield", engine=FieldBackend) as found:
        assert float(abs(found.u - held.u).max()) <= 1e-3


def test_a_trained_field_is_reported_on_nodes_it_has_not_seen(command: Command) -> None:
    status, out, err = command("u.nc", "--variable", "u", *SIREN, "--output", "s.rfield", "--bits", "16")
    assert status == 0, err
    assert "relative L2 error" in out
    assert "at nodes it has not seen" in out
    assert load_field("s.rfield").bits == 16
    assert command("u.nc", "--variable", "u", *SIREN, "--output", "s.rfield")[0] == 2  # exists


def test_a_stopped_fit_goes_on_with_the_same_command(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ["u.nc", "--variable", "u", *SIREN]
    command(*words, "--output", "whole.rfield")
    asked: list[int] = []

    def stop(self: object) -> bool:
        asked.append(1)
        return len(asked) == 3

    with monkeypatch.context() as patch:
        patch.setattr(_represent._Watch, "stop", stop)
        status, _, err = command(*words, "--output", "part.rfield")
    assert status == 130
    assert "Resume with" in err
    assert not Path("part.rfield").exists()
    assert command(*words, "--output", "part.rfield")[0] == 0
    a, b = (load_field(name) for name in ("whole.rfield", "part.rfield"))
    np.testing.assert_array_equal(a.values(), b.values())


def test_what_goes_wrong_is_one_clear_line(command: Command) -> None:
    one = xarray.Dataset({"u": (("x", "y"), np.zeros((4, 1)))}, {"x": np.arange(4.0), "y": [0.0]})
    one.to_netcdf("one.nc", engine="h5netcdf")
    bad = xarray.Dataset({"u": ("x", [1.0, np.nan, 2.0])}, {"x": np.arange(3.0)})
    bad.to_netcdf("bad.nc", engine="h5netcdf")
    Path("torn.nc").write_bytes(b"\x89HDF\r\n")
    for words, status, reason in (
        (["absent.nc"], 1, "no file absent.nc"),
        (["one.nc"], 2, "axis 'y' has 1 point, a field needs two: leave it out by --at y=0"),
        (["bad.nc"], 2, "1 values are not finite (first at x=1)"),
        (["torn.nc"], 2, "cannot be opened"),
        (["u.nc", "--variable", "q"], 2, "no real variable q"),
        (["u.nc", "--variable", "w", "--at", "sample=2"], 2, "sample=2 is not among its dimensions"),
        (["u.nc", "--variable", "u", "--at", "x"], 2, "--at takes NAME=NUMBER"),
        (["u.nc", "--variable", "u", "--periodic", "z"], 2, "periodic names z"),
        (["u.nc", "--variable", "u", "w"], 2, "lie on the same nodes"),
        (["u.nc", "--field", "sirene"], 2, "siren"),
        (["u.nc", "--field", "fno"], 2, "is a model but no field"),
        (["u.nc", "--variable", "u", "--bits", "9"], 2, "bits of a weight"),
    ):
        got, _, err = command(*words)
        assert (got, reason in err) == (status, True), (words, err)
    assert command("u.nc", "--variable", "w", "--at", "sample=1")[0] == 0
    assert command("one.nc", "--at", "y=0")[0] == 0


def test_values_larger_than_the_memory_are_streamed(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_represent, "MEBIBYTE", 400)  # bytes, of the 1632 of the values
    words = ["u.nc", "--variable", "u", *SIREN, "--memory", "1", "--bound", "0.01", "--json"]
    status, out, err = command(*words)
    assert status == 0, err
    assert json.loads(out)["greatest"] <= 0.01
    assert command("u.nc", "--variable", "u", "--memory", "1", "--output", "v.rfield")[0] == 2  # series: all at once
