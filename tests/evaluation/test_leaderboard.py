"""The ranking is a pure function of the records and never mixes test sets."""

from __future__ import annotations

import csv
import io
import math

import pytest
from resolvent.evaluation.leaderboard import leaderboard, to_csv, to_markdown
from resolvent.evaluation.record import Provenance, Run, Score


def scored(run: Run, model: str, *values: float, **changes) -> Run:
    return run.model_copy(update={"model": model, "metrics": {"relative_l2": Score.of(values)}, **changes})


def test_sorted_by_the_mean_with_the_lost_last(run: Run) -> None:
    runs = [
        scored(run, "blown", math.inf, 0.1, 0.1, status="diverged"),
        scored(run, "worst", 0.5, 0.6, 0.7),
        scored(run, "best", 0.1, 0.2, 0.3),
        scored(run, "unknown", math.nan, 0.1, 0.1, status="failed"),
    ]
    rows = leaderboard(runs)
    assert [row.model for row in rows[:2]] == ["best", "worst"]
    assert {row.model for row in rows[2:]} == {"blown", "unknown"}
    assert [row.rank for row in rows] == [1, 2, 3, 4]
    assert rows[0].mean == pytest.approx(0.2)
    assert rows[0].standard_error == pytest.approx(0.1 / math.sqrt(3))
    assert to_csv(leaderboard(reversed(runs))) == to_csv(rows)


@pytest.mark.parametrize(
    "change",
    [
        {"problem": "darcy"},
        {"problem_parameters": {"viscosity": 1e-4}},
        {"data": Provenance(fingerprint="f" * 64, split="5" * 64, test="8" * 64)},
        {"starts": ()},
    ],
    ids=["problem", "parameters", "test samples", "question"],
)
def test_different_questions_are_never_ranked_together(run: Run, change: dict) -> None:
    rows = leaderboard([scored(run, "a", 0.1), scored(run, "b", 0.2, **change)])
    assert [row.rank for row in rows] == [1, 1]
    assert rows[0].group != rows[1].group
    assert to_markdown(rows).count("\n## ") == 2


def test_the_same_test_samples_out_of_other_training_data_are_ranked_together(run: Run) -> None:
    other = Provenance(fingerprint="e" * 64, split="4" * 64, test=run.data.test)
    rows = leaderboard([scored(run, "a", 0.1), scored(run, "b", 0.2, data=other)])
    assert [row.rank for row in rows] == [1, 2]


def test_rivals_are_rows_where_asked_for(run: Run) -> None:
    rows = leaderboard([run], rivals=True)
    assert [(row.model, row.source) for row in rows] == [
        ("mgno", "run"),
        ("persistence", "rival of mgno"),
        ("unet", "rival of mgno"),
    ]
    assert len(leaderboard([run])) == 1


def test_markdown(run: Run) -> None:
    text = to_markdown(leaderboard([run]))
    assert "## navier_stokes" in text
    assert "viscosity 0.001; 2 frames from frame 10; test set `777777777777`, 3 samples" in text
    assert "| 1 | mgno | 0.0200 ± 0.0058 | 123,456 | 200 | 0.00100 | 0 | cpu | ok |" in text
    lines = [line for line in text.splitlines() if line.startswith("|")]
    assert len({line.count("|") for line in lines}) == 1  # head, rule and rows agree


def test_csv_reads_back(run: Run) -> None:
    rows = leaderboard([run, scored(run, "a,b|c", 0.1)])
    read = list(csv.DictReader(io.StringIO(to_csv(rows))))
    assert [line["model"] for line in read] == ["mgno", "a,b|c"]
    assert float(read[0]["mean"]) == rows[0].mean
    assert "a,b\\|c" in to_markdown(rows)


def test_an_unknown_metric_is_answered_with_the_known(run: Run) -> None:
    with pytest.raises(ValueError, match=r"'rsme'\. There are: maximum, relative_l2"):
        leaderboard([run], metric="rsme")
    assert leaderboard([run], metric="maximum")[0].mean == 2.0


def test_no_runs_no_rows() -> None:
    assert leaderboard([]) == []
    assert to_markdown([]) == ""
