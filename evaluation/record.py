"""The written record of a run: one frozen object, one JSON file, read back only if it is whole.

JSON has no word for numbers that are not finite; they are written as the strings ``"NaN"``, ``"Infinity"`` and
``"-Infinity"``, which every reader of numbers here understands. Times are seconds, errors as in ``metrics``.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from ..data import write_atomically
from ._machine import machine, versions
from .cost import CostCurve, Rung, Speedup, speedup_at_equal_accuracy
from .judge import Judgement, Status

__all__ = [
    "Classical",
    "DamagedRun",
    "Inverted",
    "Judged",
    "Provenance",
    "Rival",
    "Run",
    "Score",
    "Seconds",
    "machine",
    "read_run",
    "seconds_of",
    "versions",
    "write_run",
]

FORMAT = "resolvent-run-1"


class DamagedRun(ValueError):
    """A file that is not a whole run record; the message names it."""


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=False, protected_namespaces=())


class Score(_Record):
    """One metric: its mean over the test samples and the value of each."""

    mean: float
    samples: tuple[float, ...]

    @model_validator(mode="after")
    def _mean_is_the_mean(self) -> Score:
        expected = sum(self.samples) / len(self.samples) if self.samples else math.nan
        same = math.isclose(expected, self.mean, rel_tol=1e-9) or (math.isnan(expected) and math.isnan(self.mean))
        if not same:
            raise ValueError(f"the mean {self.mean} is not the mean of the samples, {expected}")
        return self

    @classmethod
    def of(cls, values: Sequence[float]) -> Score:
        """From per-sample values; the mean is theirs."""
        samples = tuple(float(v) for v in values)
        return cls(mean=sum(samples) / len(samples) if samples else math.nan, samples=samples)

    @property
    def standard_error(self) -> float:
        """Of the mean, over test samples: sample standard deviation / sqrt(n); nan for fewer than two."""
        count = len(self.samples)
        if count < 2 or not math.isfinite(self.mean):
            return math.nan
        return math.sqrt(sum((v - self.mean) ** 2 for v in self.samples) / (count - 1) / count)


class Seconds(_Record):
    """Cost. ``generate`` and ``fit`` once (elapsed); ``predict`` and ``predict_one`` per sample, by ``Run.clock``.

    ``predict`` is the better of one sample at a time (``predict_one``) and in batches of ``batch``. None: not measured.
    """

    generate: float | None = None
    fit: float | None = None
    predict: float | None = None
    predict_one: float | None = None
    batch: int = 0


class Judged(_Record):
    """One question put to one solver: rollout from a start, or a static map (no times)."""

    start: int = 0
    times: tuple[float, ...] = ()  # of the frames, counted from the start
    metrics: dict[str, Score]
    by_frame: tuple[tuple[float, ...], ...] = ()  # sample, frame: relative L2 of each frame
    shells: tuple[int, ...] = ()
    error_energy: tuple[float, ...] = ()  # per shell, mean over samples
    prediction_energy: tuple[float, ...] = ()
    truth_energy: tuple[float, ...] = ()
    status: Status = "ok"
    message: str = ""
    truth: str = ""  # what the answers were compared with, and its precision
    notes: tuple[str, ...] = ()  # what the solver warned of about its own answers
    health: tuple[dict[str, Any], ...] = ()  # per sample, what the solver found about its answer; {} where it has none

    @model_validator(mode="after")
    def _lengths_agree(self) -> Judged:
        counts = {len(score.samples) for score in self.metrics.values()} | (
            {len(self.by_frame)} if self.times else set()
        )
        if len(counts) > 1:
            raise ValueError(f"metrics and curves are of different numbers of samples: {sorted(counts)}")
        if any(len(curve) != len(self.times) for curve in self.by_frame):
            raise ValueError(f"curves over frames need {len(self.times)} values each")
        return self

    @classmethod
    def of(cls, verdict: Judgement) -> Judged:
        """What a judgement says, in plain numbers."""
        return cls(
            start=verdict.start,
            times=verdict.times,
            metrics={name: Score.of(values.tolist()) for name, values in verdict.metrics.items()},
            by_frame=() if verdict.by_frame is None else tuple(map(tuple, verdict.by_frame.tolist())),
            shells=tuple(verdict.shells.tolist()),
            error_energy=tuple(verdict.error_energy.mean(dim=0).tolist()),
            prediction_energy=tuple(verdict.prediction_energy.mean(dim=0).tolist()),
            truth_energy=tuple(verdict.truth_energy.mean(dim=0).tolist()),
            status=verdict.status,
            message=verdict.message,
            truth=verdict.truth,
            notes=verdict.notes,
            health=tuple(dict(found) for found in verdict.health),
        )


def seconds_of(verdict: Judgement, *, generate: float | None = None, fit: float | None = None) -> Seconds:
    """The cost of a judged solver; what was not measured is None."""
    one, best = (s if math.isfinite(s) else None for s in (verdict.seconds_one, verdict.seconds))
    return Seconds(generate=generate, fit=fit, predict=best, predict_one=one, batch=verdict.batch)


class Rival(_Record):
    """Another solver on the same test samples."""

    metrics: dict[str, Score]  # of the first start: the headline
    seconds: Seconds = Seconds()
    parameters: int = 0
    options: dict[str, Any] = Field(default_factory=dict)
    starts: tuple[Judged, ...] = ()
    status: str = "ok"
    message: str = ""


class ClassicalRung(_Record):
    """One classical solver on the ladder; nan where it was not measured."""

    name: str
    error: float  # mean relative L2
    seconds: float  # per sample
    status: str = "ok"
    message: str = ""

    def measured(self) -> Rung:
        """As the cost curve knows it; one number of seconds stands for both ways of timing."""
        return Rung(self.name, self.error, (), self.seconds, self.seconds, self.status, self.message)


class Classical(_Record):
    """The classical solver's cost-accuracy curve, and where the learned solver stands on it."""

    rungs: tuple[ClassicalRung, ...]
    reference: ClassicalRung
    samples: int  # how many test samples it was measured on, the first ones
    threads: int
    clock: str
    raw: float = math.nan  # speed-up against the reference
    equal_accuracy: float = math.nan  # speed-up at equal accuracy; inf: no rung is as accurate
    rung: str = ""  # the cheapest rung at least as accurate
    note: str = ""
    break_even: float = math.nan  # solves after which the surrogate has paid for itself

    @classmethod
    def of(cls, curve: CostCurve, speedup: Speedup, break_even: float = math.nan) -> Classical:
        """From the measured curve and the comparison with it."""
        return cls(
            rungs=tuple(_rung(rung) for rung in curve.rungs),
            reference=_rung(curve.reference),
            samples=curve.samples,
            threads=curve.threads,
            clock=curve.clock,
            raw=speedup.raw,
            equal_accuracy=speedup.equal_accuracy,
            rung=speedup.rung,
            note=speedup.note,
            break_even=break_even,
        )

    def speedup(self, error: float, seconds: float | None) -> Speedup:
        """What any solver of this mean relative L2 error and these seconds per sample gains on the same curve."""
        curve = CostCurve(
            tuple(rung.measured() for rung in self.rungs),
            self.reference.measured(),
            self.samples,
            0,
            self.threads,
            self.clock,
        )
        return speedup_at_equal_accuracy(curve, error, math.nan if seconds is None else seconds)


def _rung(rung: Rung) -> ClassicalRung:
    return ClassicalRung(
        name=rung.name, error=rung.error, seconds=rung.seconds, status=rung.status, message=rung.message
    )


class Provenance(_Record):
    """Which data. Two runs were judged on the same samples if, and only if, ``test`` is the same."""

    fingerprint: str = ""  # of the whole data set
    split: str = ""  # hash of the split
    test: str = ""  # fingerprint of the test samples
    source: dict[str, Any] = Field(default_factory=dict)  # seed, solver, versions, hashes


class Inverted(_Record):
    """One set of observations, and what was found to lie behind them."""

    observations: str  # the file
    fingerprint: str
    field: str
    sensors: int
    noise: float | None  # stated; None: inferred
    folder: str  # of its posterior and pictures, in the run's
    how: dict[str, Any]  # method, samples, chains, …
    diagnosis: dict[str, Any]
    noise_found: float  # mean over samples
    error_samples: int = 0  # held-out samples behind the model's own error; 0: not known, the decoder was trusted
    scores: dict[str, float] = Field(default_factory=dict)  # against the truth, where the observations have one
    command: str = ""
    date: str = ""


class Run(_Record):
    """Everything about one run that a report, a leaderboard or a stranger needs."""

    format: Literal["resolvent-run-1"] = "resolvent-run-1"
    problem: str
    problem_parameters: dict[str, Any] = Field(default_factory=dict)  # physical, with defaults
    model: str
    options: dict[str, Any]  # of the model and its training, resolved with defaults
    preset: str = "quick"
    seed: int
    metrics: dict[str, Score]  # the headline: of the first start
    starts: tuple[Judged, ...] = ()
    seconds: Seconds
    parameters: int  # learned numbers
    device: str
    threads: int
    clock: str = "cpu"  # what `predict` counts: "cpu" (processor time) or "wall" (elapsed)
    machine: str = ""
    versions: dict[str, str]
    setup: dict[str, Any] = Field(default_factory=dict)  # resolution, train, validation, test, …
    grid: dict[str, Any] = Field(default_factory=dict)
    signature: dict[str, Any] = Field(default_factory=dict)
    data: Provenance = Provenance()
    history: tuple[dict[str, int | float | dict[str, list[float]] | None], ...] = ()  # one row per epoch
    compare: dict[str, Rival] = Field(default_factory=dict)
    classical: Classical | None = None
    inversions: tuple[Inverted, ...] = ()
    command: str = ""  # what reproduces it
    notes: tuple[str, ...] = ()
    status: str = "ok"  # ok | stopped | diverged | failed | timeout | interrupted
    message: str = ""
    date: str = ""  # UTC, ISO 8601

    def to_json(self) -> str:
        """JSON text, legal for every reader."""
        return json.dumps(_legal(self.model_dump(mode="python")), indent=1, allow_nan=False, ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str, *, name: str = "the run record") -> Run:
        """Read back. Raises :class:`DamagedRun`, with ``name`` and the first thing that is wrong."""
        try:
            values = json.loads(text, parse_constant=_refuse)
        except ValueError as error:
            raise DamagedRun(f"{name} is damaged: not JSON ({error}).") from error
        if not isinstance(values, dict) or values.get("format") != FORMAT:
            found = values.get("format") if isinstance(values, dict) else type(values).__name__
            raise DamagedRun(f"{name} is not a run record of this program: its format is {found!r}, not {FORMAT!r}.")
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"]) or "the record"
            raise DamagedRun(f"{name} is damaged at {where}: {first['msg']}.") from error


def write_run(run: Run, path: Path) -> None:
    """Write the record in one step, so that no reader ever meets half of one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, run.to_json().encode())


def read_run(path: Path) -> Run:
    """A run record from its file, or from the ``run.json`` of a folder. Raises :class:`DamagedRun`."""
    path = path / "run.json" if path.is_dir() else path
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DamagedRun(f"{path} cannot be read as a run record: {error}.") from error
    return Run.from_json(text, name=str(path))


def _legal(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if isinstance(value, Mapping):
        return {str(key): _legal(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_legal(item) for item in value]
    if value is None or isinstance(value, str | int | float):
        return value
    return str(value)


def _refuse(word: str) -> float:
    raise ValueError(f"{word} is not JSON")
