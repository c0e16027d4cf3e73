"""Run records into a ranking: a pure function of the records, one table per test set.

Two runs stand in one table only if they answered the same question on the same samples: same problem and physical
parameters, same fingerprint of the test data, same start and frames. Everything else gets a table of its own.
Failed and diverged runs stay, at the end.
"""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ._numbers import number, plus_minus
from .record import Run, Score, Seconds

_COLUMNS = (
    "problem",
    "parameters",
    "test",
    "question",
    "rank",
    "model",
    "metric",
    "mean",
    "standard_error",
    "samples",
    "parameter_count",
    "fit_seconds",
    "predict_seconds",
    "seed",
    "device",
    "preset",
    "status",
    "source",
)


@dataclass(frozen=True)
class Row:
    """One solver on one test set."""

    problem: str
    parameters: str  # physical, as canonical JSON
    test: str  # fingerprint of the test samples; of the data where only that is known
    question: str  # "static", or "10 frames from frame 10"
    rank: int  # within the group, from 1
    model: str
    metric: str
    mean: float
    standard_error: float
    samples: int
    parameter_count: int
    fit_seconds: float | None
    predict_seconds: float | None
    seed: int
    device: str
    preset: str
    status: str
    source: str  # "run", or "rival of MODEL" for one that another run was compared with

    @property
    def group(self) -> tuple[str, str, str, str]:
        """What must agree for two rows to be compared."""
        return self.problem, self.parameters, self.test, self.question


def leaderboard(runs: Iterable[Run], *, metric: str = "relative_l2", rivals: bool = False) -> list[Row]:
    """Rows sorted by group, then by the mean of the metric; what has no finite mean comes last.

    rivals    also list the solvers that the runs were compared with
    Raises ``ValueError`` where no run has the metric at all, naming those there are.
    """
    runs = list(runs)
    known = sorted({name for run in runs for name in run.metrics})
    if runs and metric not in known:
        raise ValueError(f"No run has the metric {metric!r}. There are: {', '.join(known) or 'none'}.")
    rows = [row for run in runs for row in _rows_of(run, metric, rivals)]
    rows.sort(key=_order)
    ranked: list[Row] = []
    for row in rows:
        before = ranked[-1].rank if ranked and ranked[-1].group == row.group else 0
        ranked.append(Row(**{**vars(row), "rank": before + 1}))
    return ranked


def to_markdown(rows: Sequence[Row]) -> str:
    """One table per group, under a heading that says what was asked."""
    parts: list[str] = []
    for i, row in enumerate(rows):
        if i == 0 or rows[i - 1].group != row.group:
            parts.append(_heading(row))
        parts.append("| " + " | ".join(_cells(row)) + " |\n")
    return "".join(parts)


def to_csv(rows: Sequence[Row]) -> str:
    """All rows in one table; empty where nothing was measured."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(_COLUMNS)
    for row in rows:
        writer.writerow(["" if getattr(row, name) is None else getattr(row, name) for name in _COLUMNS])
    return text.getvalue()


def _rows_of(run: Run, metric: str, rivals: bool) -> list[Row]:
    def row(
        model: str, metrics: dict[str, Score], seconds: Seconds, count: int, status: str, source: str, device: str
    ) -> Row:
        score = metrics.get(metric) or Score.of([])
        return Row(
            problem=run.problem,
            parameters=json.dumps(run.problem_parameters, sort_keys=True),
            test=run.data.test or run.data.fingerprint,
            question=_question(run),
            rank=0,
            model=model,
            metric=metric,
            mean=score.mean,
            standard_error=score.standard_error,
            samples=len(score.samples),
            parameter_count=count,
            fit_seconds=seconds.fit,
            predict_seconds=seconds.predict,
            seed=run.seed,
            device=device,
            preset=run.preset,
            status=status,
            source=source,
        )

    rows = [row(run.model, run.metrics, run.seconds, run.parameters, run.status, "run", run.device)]
    if rivals:
        rows += [
            row(name, r.metrics, r.seconds, r.parameters, r.status, f"rival of {run.model}", run.device)
            for name, r in run.compare.items()
        ]
    return rows


def _order(row: Row) -> tuple[tuple[str, str, str, str], float, str, int]:
    # nan compares with nothing: left in the key, it would make the order depend on that of the runs
    return row.group, row.mean if math.isfinite(row.mean) else math.inf, row.model, row.seed


def _question(run: Run) -> str:
    if not run.starts or not run.starts[0].times:
        return "static"
    first = run.starts[0]
    return f"{len(first.times)} frames from frame {first.start}"


def _heading(row: Row) -> str:
    parameters = ", ".join(f"{name} {value}" for name, value in json.loads(row.parameters).items())
    told = [part for part in (parameters, row.question if row.question != "static" else "") if part]
    test = f"test set `{row.test[:12] or 'unknown'}`, {row.samples} samples"
    head = ("rank", "model", row.metric, "parameters", "training [s]", "s per sample", "seed", "device", "status")
    rule = ("--:", ":--", *(["--:"] * 5), ":--", ":--")
    lines = [f"\n## {row.problem}\n", "; ".join([*told, test]) + "\n", f"| {' | '.join(head)} |", f"|{'|'.join(rule)}|"]
    return "\n".join(lines).replace("\n\n\n", "\n\n") + "\n"


def _cells(row: Row) -> list[str]:
    model = row.model if row.source == "run" else f"{row.model} ({row.source})"
    return [
        str(row.rank),
        model.replace("|", "\\|"),
        plus_minus(row.mean, row.standard_error),
        f"{row.parameter_count:,}",
        number(row.fit_seconds),
        number(row.predict_seconds),
        str(row.seed),
        row.device,
        row.status,
    ]
