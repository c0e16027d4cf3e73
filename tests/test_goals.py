"""The figures that the README and the issues promise, measured anew (slow: about six minutes on one core)."""

from __future__ import annotations

from pathlib import Path

import pytest
from resolvent.evaluation import Request, solve

pytestmark = pytest.mark.slow


def test_navier_stokes_rollouts_of_the_main_job(tmp_path: Path) -> None:
    """Ten frames from t = 10: at most 0.04. From t = 0, where amplitudes are small, it must work too."""
    run = solve(Request(pde="navier_stokes", model="mgno", runs=tmp_path)).run
    late, early = (judged.metrics["relative_l2"].mean for judged in run.starts)
    assert (run.starts[0].start, len(run.starts[0].times)) == (10, 10)
    assert late <= 0.04
    assert early <= 0.04


def test_two_phase_darcy(tmp_path: Path) -> None:
    run = solve(Request(pde="darcy", model="mgno", runs=tmp_path)).run
    assert run.setup["resolution"] == 61
    assert run.problem_parameters["law"] == "two_phase"
    assert run.metrics["relative_l2"].mean <= 0.03
