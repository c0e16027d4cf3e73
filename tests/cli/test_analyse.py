"""``resolvent analyse`` as a user types it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from resolvent.cli.main import main

Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Command:
    monkeypatch.chdir(tmp_path)

    def run(*words: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as stop:
            main(list(words))
        captured = capsys.readouterr()
        return int(stop.value.code or 0), captured.out, captured.err

    return run


@pytest.fixture
def waves(tmp_path: Path) -> Path:
    """Decaying waves that travel: trajectories sample, time, channel, space as APEBench's files have them."""
    x, t = np.arange(16) * 2 * np.pi / 16, 0.2 * np.arange(20)
    phase = 2 * np.pi * np.random.default_rng(0).random((10, 1, 1))
    values = np.exp(-0.05 * t)[None, :, None] * np.sin(x[None, None] - t[None, :, None] + phase)
    np.save(tmp_path / "waves.npy", values[:, :, None].astype(np.float32))
    return tmp_path / "waves.npy"


def test_koopman_says_and_writes_the_rates_of_a_wave(command: Command, waves: Path) -> None:
    """One frame turns by 0.2 and decays by exp(-0.01), whatever unit of time the file has: lambda is what is checked."""
    status, out, err = command(
        "analyse", "koopman", str(waves), "--features", "linear", "--components", "2", "--output", "told", "--json"
    )
    assert (status, err.replace("Note:", "").count("Error")) == (0, 0)
    told = json.loads(out)
    found = [complex(*e["eigenvalue"]) for e in told["eigenvalues"] if e["verified"]]
    expected = [np.exp(-0.01 + 0.2j), np.exp(-0.01 - 0.2j)]
    assert all(min(abs(value - known) for value in found) < 1e-3 for known in expected)
    assert {path.name for path in Path("told").iterdir()} == {"analysis.json", "spectrum.png", "eigenfunctions.png"}


def test_attractor_compares_two_files(command: Command, waves: Path) -> None:
    status, out, _ = command("analyse", "attractor", str(waves), "--against", str(waves), "--components", "2")
    assert status == 0
    assert "state space" in out
    assert "truth_95_percent" in out


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (("koopman", "waves.npy", "--size", "9", "--components", "4"), "snapshots"),
        (("attractor", "waves.npy"), "--run"),
        (("koopman", "absent.npy"), "absent.npy"),
        (("symbols", "absent", "waves.npy"), "absent"),
    ],
    ids=["few snapshots", "nothing to compare", "no file", "no run"],
)
def test_what_cannot_be_analysed_is_said_in_one_line(
    command: Command, waves: Path, words: tuple[str, ...], reason: str
) -> None:
    status, _, err = command("analyse", *words)
    assert status in (1, 2)
    assert reason in err
    assert len([line for line in err.splitlines() if not line.startswith("Note:")]) == 1
