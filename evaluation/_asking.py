"""Putting the question to a solver: which frames, in which batches, and what to make of it when it raises."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import statistics
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..data import Dataset
from ..gp._health import HealthWarning
from ..pde import Grid, Solver, SolverError
from ..pde._solver import advanced
from ._timing import median_seconds, seconds_of

SLOW = 2.0  # [s] a call that takes longer is not repeated only to be timed again


@dataclass(frozen=True)
class Question:
    """What is asked: outputs of a static map (no times), or frames of an evolution counted from a start."""

    grid: Grid
    start: int
    times: tuple[float, ...]
    device: torch.device

    @classmethod
    def of(cls, data: Dataset, start: int, horizon: int, device: torch.device | str) -> Question:
        """Check the question against what is stored."""
        if not len(data):
            raise ValueError("There is no sample to judge on: the data set is empty.")
        signature = data.signature
        if not signature.evolves:
            return cls(data.grid, 0, (), torch.device(device))
        horizon = horizon or signature.frames - start
        if start < 0 or horizon < 1 or start + horizon > signature.frames:
            raise ValueError(
                f"Frames 0 to {signature.frames} are stored; a rollout of {horizon} frames from frame {start} "
                "does not fit between them."
            )
        times = tuple(signature.spacing * (i + 1) for i in range(horizon))
        return cls(data.grid, start, times, torch.device(device))

    def batches(self, data: Dataset, size: int) -> Iterator[tuple[list[int], Tensor, Tensor]]:
        """Indices, the inputs to start from (what is given included), and the truth, in the order of the data set."""
        for first in range(0, len(data), size):
            indices = list(range(first, min(first + size, len(data))))
            if self.times:
                given, later = data.read(indices)
                begin = advanced(given, later[:, self.start - 1]) if self.start else given
                yield indices, begin, later[:, self.start : self.start + len(self.times)]
            else:
                yield indices, *data.read(indices)

    def call(self, solver: Solver, inputs: Tensor) -> Tensor:
        """One call, transfers included, without recording gradients (a solver that needs them enables them itself)."""
        with torch.no_grad():
            return solver(inputs.to(self.device), self.grid, self.times or None).detach().cpu()


@dataclass(frozen=True)
class Answers:
    """What a solver gave for one batch: NaN where it failed, with what it said."""

    prediction: Tensor
    said: str = ""
    failed: bool = False  # not a blow-up of a sample: it cannot serve this question
    seconds: float = math.nan
    noted: tuple[str, ...] = ()  # warnings of the solver about its own answer
    health: tuple[dict[str, Any], ...] = ()  # what it found about each sample, where it says so

    @classmethod
    def none(cls, truth: Tensor, said: str = "") -> Answers:
        return cls(torch.full_like(truth, torch.nan), said, failed=True)


def ask(solver: Solver, question: Question, inputs: Tensor, truth: Tensor) -> Answers:
    """Solve one batch. Where a :class:`SolverError` stops it, each sample gets a try of its own."""
    noted: list[str] = []
    try:
        with listening(noted):
            prediction, seconds = seconds_of(lambda: question.call(solver, inputs), question.device)
    except SolverError as error:
        if len(inputs) == 1:
            unknown: tuple[dict[str, Any], ...] = ({},) if hasattr(solver, "health") else ()
            return Answers(torch.full_like(truth, torch.nan), _one_line(error), health=unknown)
        return _one_by_one(solver, question, inputs, truth, _one_line(error))
    except Exception as error:  # whatever a stranger's solver raises is that solver's result, not ours
        return Answers.none(truth, _one_line(error))
    if prediction.shape != truth.shape:
        shapes = f"{tuple(prediction.shape)}, expected {tuple(truth.shape)}"
        return Answers.none(truth, f"The solver returned the shape {shapes}.")
    return Answers(prediction, seconds=seconds, noted=tuple(noted), health=_health_of(solver, len(inputs)))


def _one_by_one(solver: Solver, question: Question, inputs: Tensor, truth: Tensor, said: str) -> Answers:
    alone = [ask(solver, question, *pair) for pair in zip(inputs.split(1), truth.split(1), strict=True)]
    return Answers(
        torch.cat([answer.prediction for answer in alone]),
        next((answer.said for answer in alone if answer.said), said),
        any(answer.failed for answer in alone),
        noted=tuple(note for answer in alone for note in answer.noted),
        health=tuple(found for answer in alone for found in answer.health),
    )


@contextlib.contextmanager
def listening(noted: list[str]) -> Iterator[None]:
    """Collect what a solver warns of about its own answers; any other warning goes where it always goes."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", HealthWarning)
        try:
            yield
        finally:
            noted += [str(warning.message) for warning in caught if issubclass(warning.category, HealthWarning)]
    for warning in caught:
        if not issubclass(warning.category, HealthWarning):
            warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)


def _health_of(solver: Solver, count: int) -> tuple[dict[str, Any], ...]:
    """A solver that examines its answers keeps what it found in ``health``: one frozen record a sample."""
    found = getattr(solver, "health", ())
    whole = isinstance(found, tuple) and len(found) == count and all(dataclasses.is_dataclass(one) for one in found)
    return tuple(dataclasses.asdict(one) for one in found) if whole else ()


def warm_seconds(solver: Solver, question: Question, inputs: Tensor, streamed: Sequence[float]) -> tuple[float, float]:
    """Seconds per sample, one at a time and in batches of ``inputs``.

    ``streamed`` are seconds of whole batches already met, the first of them cold. Quick calls are repeated: the median
    of five. Slow ones count as met. NaN where the solver cannot do it.
    """
    try:
        with listening([]):
            return _timed(solver, question, inputs, [s for s in streamed if math.isfinite(s)])
    except Exception:  # already reported by ask; a timing of failures would mean nothing
        return math.nan, math.nan


def _timed(solver: Solver, question: Question, inputs: Tensor, known: Sequence[float]) -> tuple[float, float]:
    size = len(inputs)
    if known and (len(known) > 5 or max(known) > SLOW):
        batched = statistics.median(known[1:] or known)
    else:
        batched = median_seconds(lambda: question.call(solver, inputs), question.device, limit=SLOW)
    if size == 1:
        return batched, batched
    return median_seconds(lambda: question.call(solver, inputs[:1]), question.device, limit=SLOW), batched / size


def _one_line(error: Exception) -> str:
    text = " ".join(str(error).split())
    return text if isinstance(error, SolverError) and text else f"{type(error).__name__}: {text}"
