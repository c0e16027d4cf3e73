"""A plan into a fitted solver: from its folder where the weights are there, by training where not."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ..data import Splits
from ..pde import Solver
from ..training import Callback, Diverged, LearnedSolver, Progress
from ._reporter import Reporter
from ._request import Plan
from ._saved import load_model, save_model

CHECKPOINT = "checkpoint.pt"
LOG = "log.jsonl"


@dataclass(frozen=True)
class Fitted:
    """A solver ready to be judged, and what making it has cost."""

    solver: Solver
    history: Sequence[dict[str, Any]] = ()
    seconds: float = 0.0
    status: str = "ok"
    message: str = ""

    @property
    def parameters(self) -> int:
        return self.solver.parameter_count if isinstance(self.solver, LearnedSolver) else 0


def has_model(folder: Path) -> bool:
    """Whether a model was fitted there: it is used as it is."""
    return (folder / "model.json").exists()


def fitted(plan: Plan, splits: Splits, folder: Path, device: torch.device, reporter: Reporter) -> Fitted:
    """The fitted solver of a plan. Training resumes from the folder's checkpoint; Ctrl-C leaves one."""
    if has_model(folder):
        return _reused(folder, device)
    solver = plan.blueprint.make_solver()
    if hasattr(solver, "to"):
        solver.to(device)
    if not isinstance(solver, LearnedSolver):  # nothing to fit: it solves each instance as it comes
        save_model(folder, plan.blueprint, solver)
        _log(folder, {"event": "fitted", "seconds": 0.0, "history": []})
        return Fitted(solver)
    size = f" ({solver.parameter_count:,} parameters)" if solver.parameter_count else ""
    reporter.stage(f"training {plan.blueprint.model}{size}", 1.0)
    return _trained(plan, solver, splits, folder, reporter)


def _trained(plan: Plan, solver: LearnedSolver, splits: Splits, folder: Path, reporter: Reporter) -> Fitted:
    folder.mkdir(parents=True, exist_ok=True)
    watcher = _Watcher(reporter, folder)
    started = time.monotonic()
    status, message = "ok", ""
    best: tuple[dict[str, Any], ...] = ()
    try:
        history = solver.fit(
            splits.train,
            validation=splits.validation,
            budget=plan.budget,
            callbacks=[watcher],
            checkpoint=folder / CHECKPOINT,
        )
        best, seconds = tuple(history.rows), history.seconds
    except Diverged as error:
        if not any("validation" in row for row in watcher.rows):
            raise  # nothing good to keep
        status, message = "diverged", str(error)
        best, seconds = tuple(watcher.rows), time.monotonic() - started
        reporter.say(message)
    save_model(folder, plan.blueprint, solver)
    _log(folder, {"event": "fitted", "seconds": seconds, "status": status, "message": message, "history": best})
    (folder / CHECKPOINT).unlink(missing_ok=True)
    return Fitted(solver, best, seconds, status, message)


def _reused(folder: Path, device: torch.device) -> Fitted:
    _, solver = load_model(folder, device)
    told = _fitted_line(folder)
    return Fitted(
        solver, told.get("history", ()), told.get("seconds", 0.0), told.get("status", "ok"), told.get("message", "")
    )


class _Watcher(Callback):
    """Training, told to the reporter and to ``log.jsonl``."""

    def __init__(self, reporter: Reporter, folder: Path) -> None:
        self.reporter, self.folder = reporter, folder
        self.rows: list[dict[str, Any]] = []
        self.validation = ""

    def batch(self, progress: Progress) -> None:
        text = f"epoch {progress.epoch}/{progress.epochs}  loss {progress.loss:.4f}{self.validation}"
        self.reporter.advance(progress.fraction, f"{text}  {progress.samples_per_second:.0f} samples/s")

    def epoch(self, record: dict[str, Any]) -> None:
        self.rows.append(record)
        if "validation" in record:
            self.validation = f"  validation {record['validation']:.4f}"
        _log(self.folder, {"event": "epoch", **record})

    def stop(self) -> bool:
        return self.reporter.stopping()


def _log(folder: Path, line: Mapping[str, Any]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / LOG).open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")


def _fitted_line(folder: Path) -> dict[str, Any]:
    """The last line that a finished training has logged; {} where the log was removed (the weights still stand)."""
    try:
        lines = (folder / LOG).read_text(encoding="utf-8").splitlines()
    except OSError:
        return {}
    for text in reversed(lines):
        try:
            line = json.loads(text)
        except ValueError:
            continue
        if line.get("event") == "fitted":
            return line
    return {}
