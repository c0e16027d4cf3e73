"""A solver's answers against the stored truth, sample by sample, in batches: the data set never sits in memory.

A static map is asked for its outputs. An evolution is started from a stored frame (0: the inputs) and asked for the
frames that follow; equations are taken as autonomous, so its clock starts at 0 there. A solver that raises or blows
up scores ``inf`` on those samples, and the judgement says so: it never stops the comparison of the others.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor

from ..data import Dataset
from ..pde import Grid, Solver
from ._asking import Answers, Question, ask, warm_seconds
from ._common import finite
from ._instances import truth_of
from ._timing import clock_name
from .curves import energy_by_wavenumber, error_by_wavenumber, relative_l2_by_frame
from .metrics import Metric, metric_table

__all__ = ["Example", "Judgement", "Status", "judge"]

Status = Literal["ok", "stopped", "diverged", "failed"]


@dataclass(frozen=True)
class Example:
    """One sample kept for figures; ``prediction`` may hold values that are not finite."""

    index: int
    inputs: Tensor  # channel *space: the state the solver started from
    prediction: Tensor  # [time] channel *space
    truth: Tensor  # [time] channel *space


@dataclass(frozen=True)
class Judgement:
    """What was measured; vectors are per sample, in the order of the data set.

    ``diverged``: some samples gave values that are not finite. ``stopped``: the only samples without an answer are
    those for which the solver raised a :class:`SolverError`, a reason instead of values. ``failed``: it cannot do this
    at all (it raised something else, or returned another shape).
    """

    status: Status
    message: str  # what the solver said, "" where all went well
    metrics: Mapping[str, Tensor]  # name -> batch
    start: int
    times: tuple[float, ...]  # of the frames, counted from the start; () for a static map
    by_frame: Tensor | None  # batch time: relative L2 of each frame
    shells: Tensor  # shell
    error_energy: Tensor  # batch shell
    prediction_energy: Tensor  # batch shell
    truth_energy: Tensor  # batch shell
    seconds_one: float  # per sample, one at a time, warm, median; nan where it never ran
    seconds_batched: float  # per sample, in batches, warm, median
    batch: int
    clock: str  # "cpu": processor time, "wall": elapsed
    notes: tuple[str, ...] = ()  # what the solver warned of about its own answers, with the sample's number
    health: tuple[Mapping[str, Any], ...] = ()  # what it found about each sample; {} where it gave no answer
    truth: str = ""  # what the answers were compared with
    examples: tuple[Example, ...] = field(default=(), repr=False)

    @property
    def seconds(self) -> float:
        """Per sample, the better of one at a time and in batches; nan where nothing was timed."""
        return min((s for s in (self.seconds_one, self.seconds_batched) if math.isfinite(s)), default=math.nan)

    def mean(self, metric: str) -> float:
        """Mean over samples: ``inf`` as soon as one sample is lost."""
        return float(self.metrics[metric].mean())


def judge(
    solver: Solver,
    data: Dataset,
    *,
    metrics: Mapping[str, Metric] | Sequence[str] | None = None,
    start: int = 0,
    horizon: int = 0,
    batch: int = 16,
    keep: int = 3,
    device: torch.device | str = "cpu",
    progress: Callable[[int, int], None] | None = None,
) -> Judgement:
    """Judge a solver on every sample of a data set (pass the test split).

    metrics     functions by name, or names out of ``metric_table()`` (None: all of them)
    start       frame to start an evolution from, 0 for the inputs; a static map ignores it and ``horizon``
    horizon     frames to predict; 0: all that are stored after the start
    batch       samples a call
    keep        the first so many samples are kept whole, for figures
    progress    called with (samples done, samples in all) after each batch

    Raises ``ValueError`` where the question makes no sense (no samples, no such frame, unknown metric).
    """
    if batch < 1:
        raise ValueError(f"batch must be at least 1, got {batch}.")
    functions = _functions(metrics)
    question = Question.of(data, start, horizon, device)
    tally = _Tally(functions, data.grid, keep)
    for indices, inputs, truth in question.batches(data, batch):
        answers = Answers.none(truth) if tally.failed else ask(solver, question, inputs, truth)
        tally.add(indices, inputs, answers, truth)
        if progress is not None:
            progress(indices[-1] + 1, len(data))
    return tally.judgement(solver, question, truth_of(data))


def _functions(metrics: Mapping[str, Metric] | Sequence[str] | None) -> dict[str, Metric]:
    known = metric_table()
    if metrics is None:
        return known
    if isinstance(metrics, Mapping):
        return dict(metrics)
    unknown = [name for name in metrics if name not in known]
    if unknown:
        raise ValueError(f"Unknown metric {unknown[0]!r}. Known: {', '.join(known)}.")
    return {name: known[name] for name in metrics}


class _Tally:
    """What judge adds up, batch by batch: small vectors only, and a few whole samples."""

    def __init__(self, functions: Mapping[str, Metric], grid: Grid, keep: int) -> None:
        self.functions = functions
        self.grid = grid
        self.keep = keep
        self.failed = False
        self.said: list[str] = []
        self.notes: list[str] = []
        self.health: list[Mapping[str, Any]] = []
        self.seconds: list[float] = []
        self.parts: dict[str, list[Tensor]] = {}
        self.shells = torch.empty(0)
        self.first = torch.empty(0)  # inputs of the first batch that was answered, for timing
        self.examples: list[Example] = []

    def add(self, indices: list[int], inputs: Tensor, answers: Answers, truth: Tensor) -> None:
        prediction = answers.prediction
        self.failed = self.failed or answers.failed
        self.said += [answers.said] if answers.said else []
        where = f"Test sample {indices[0]}" + (f" to {indices[-1]}" if len(indices) > 1 else "")
        self.notes += [f"{where}: {note}" for note in answers.noted]
        self.health += answers.health
        if not self.parts or (math.isfinite(answers.seconds) and not any(map(math.isfinite, self.seconds))):
            self.first, self.seconds = inputs, []
        if len(inputs) == len(self.first):
            self.seconds.append(answers.seconds)
        for name, function in self.functions.items():
            self._put(f"metric {name}", function(prediction, truth, self.grid))
        if truth.ndim == self.grid.dim + 3:
            self._put("by_frame", relative_l2_by_frame(prediction, truth, self.grid))
        self.shells, error, energy = error_by_wavenumber(prediction, truth, self.grid)
        self._put("error_energy", error)
        self._put("prediction_energy", energy_by_wavenumber(prediction, self.grid)[1])
        self._put("truth_energy", energy)
        self._put("lost", ~finite(prediction))
        self._put("stopped", torch.isnan(prediction).flatten(1).all(dim=1) & bool(answers.said))
        for fields in zip(indices, inputs, prediction, truth, strict=True):
            if len(self.examples) < self.keep:
                self.examples.append(Example(fields[0], *(values.clone() for values in fields[1:])))

    def _put(self, name: str, values: Tensor) -> None:
        self.parts.setdefault(name, []).append(values)

    def judgement(self, solver: Solver, question: Question, truth: str) -> Judgement:
        joined = {name: torch.cat(parts) for name, parts in self.parts.items()}
        lost = joined["lost"]
        never = self.failed or bool(lost.all())
        one, batched = (math.nan, math.nan) if never else warm_seconds(solver, question, self.first, self.seconds)
        return Judgement(
            status=self._status(lost, joined["stopped"]),
            message=self._message(int(lost.sum()), len(lost)),
            metrics={name: joined[f"metric {name}"] for name in self.functions},
            start=question.start,
            times=question.times,
            by_frame=joined.get("by_frame"),
            shells=self.shells,
            error_energy=joined["error_energy"],
            prediction_energy=joined["prediction_energy"],
            truth_energy=joined["truth_energy"],
            seconds_one=one,
            seconds_batched=batched,
            batch=len(self.first),
            clock=clock_name(question.device),
            notes=tuple(self.notes),
            health=tuple(self.health) if len(self.health) == len(lost) else (),
            truth=truth,
            examples=tuple(self.examples),
        )

    def _status(self, lost: Tensor, stopped: Tensor) -> Status:
        if self.failed:
            return "failed"
        return "ok" if not bool(lost.any()) else "stopped" if bool(stopped[lost].all()) else "diverged"

    def _message(self, lost: int, count: int) -> str:
        if not lost and not self.failed:
            return ""
        said = self.said[0] if self.said else "it returned values that are not finite."
        return f"No finite answer for {lost} of {count} samples: {said}"
