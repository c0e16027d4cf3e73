"""What a run record says, in plain sentences: the headline, and what was not measured."""

from __future__ import annotations

import math

from ._instances import CLOSED_FORM, REFERENCE
from ._numbers import duration, number, percent
from .record import Run

HEADLINE = "relative_l2"


def headline(run: Run) -> list[str]:
    """The result in a few sentences, the first of which may stand alone."""
    return [text for text in (_accuracy(run), _speed(run), _cost(run)) if text]


def limits(run: Run) -> list[str]:
    """What this record does not show, read off from the record itself."""
    told = [run.message, *run.notes] if run.status != "ok" else list(run.notes)
    told += [f"{name}: {rival.message}" for name, rival in run.compare.items() if rival.message]
    told += _untrained(run) if alone(run) else _trained(run)
    told.append(_truth(run))
    if not run.compare:
        told.append("No rival was judged: say --compare to put baselines beside this model.")
    return [text for text in (*told, *_classical_limits(run)) if text]


def alone(run: Run) -> bool:
    """Whether instances were posed and solved, each by itself: nothing was learned from any data."""
    return run.setup.get("train", 1) == 0


def _trained(run: Run) -> list[str]:
    return [
        f"One seed ({run.seed}). The error bars are over test samples; the spread over seeds was not measured.",
        "Test samples come from the distribution of the training samples: other distributions were not tested.",
        "The cost of searching for hyperparameters is not counted.",
    ]


def _untrained(run: Run) -> list[str]:
    count = run.setup.get("test", 1)
    if count == 1:
        return ["One instance was solved: how the error varies between instances was not measured."]
    return [f"{count} instances of one distribution were solved: those of others may be harder."]


def _truth(run: Run) -> str:
    """How far below which error no score means much."""
    truth = run.starts[0].truth if run.starts else ""
    if truth == CLOSED_FORM:
        return "The truth is a closed form, in double precision: its error is that of rounding."
    text = "The truth is a numerical solution. Its own error was not measured here, and no score below it means much."
    return f"{text} It is compared in double precision." if truth == REFERENCE else text


def question(run: Run) -> str:
    """What the headline was measured on."""
    count = len(run.metrics[HEADLINE].samples) if HEADLINE in run.metrics else 0
    samples = f"{count} {'instance' if alone(run) else 'test sample'}{'s' if count != 1 else ''}"
    if run.starts and run.starts[0].times:
        first = run.starts[0]
        return f"{samples}, rollouts of {len(first.times)} frames from frame {first.start}"
    return samples


def _accuracy(run: Run) -> str:
    score = run.metrics.get(HEADLINE)
    if score is None:
        return f"{run.model} gave no answer for {run.problem}: {run.message}"
    lost = sum(not math.isfinite(value) for value in score.samples)
    if lost:
        return f"{run.model} gave no finite answer for {lost} of {question(run)} of {run.problem}."
    bar = f" (standard error {percent(score.standard_error)})" if math.isfinite(score.standard_error) else ""
    error = f"{percent(score.mean)}{bar}"
    mean = "mean " if len(score.samples) > 1 else ""
    return f"{run.model} solves {run.problem} with a {mean}relative L2 error of {error}, on {question(run)}."


def _speed(run: Run) -> str:
    if run.seconds.predict is None:
        return ""
    kind = "processor time" if run.clock == "cpu" else "elapsed time"
    text = f"A solution takes {duration(run.seconds.predict)} of {kind}"
    classical = run.classical
    if classical is None or math.isnan(classical.raw):
        return f"{text}."
    text += f", {_ratio(classical.raw)} the reference solver{'' if alone(run) else ' that made the data'}"
    if math.isinf(classical.equal_accuracy):
        return f"{text}. No classical solver that was measured is as accurate."
    if math.isnan(classical.equal_accuracy):
        return f"{text}."
    return f"{text}; at equal accuracy it is {_ratio(classical.equal_accuracy)} the cheapest classical solver."


def _ratio(speedup: float) -> str:
    if speedup >= 1:
        return f"{number(speedup)} times faster than"
    return f"{number(1 / speedup)} times slower than"


def _cost(run: Run) -> str:
    fit, generate = run.seconds.fit, run.seconds.generate
    if not fit:
        return ""
    text = f"Training took {duration(fit)}" + (f", its data {duration(generate)}" if generate else "") + "."
    solves = run.classical.break_even if run.classical else math.nan
    if math.isnan(solves):
        return text
    if math.isinf(solves):
        return f"{text} Against a classical solver of equal accuracy this does not pay off, however many are solved."
    return f"{text} Against a classical solver of equal accuracy this pays off after {math.ceil(solves):,} solutions."


def _classical_limits(run: Run) -> list[str]:
    classical = run.classical
    if classical is None:
        return ["The classical solver's cost at equal accuracy was not measured."]
    told = [f"The classical solver was timed on {classical.samples} samples, with {classical.threads} thread(s)."]
    missing = [rung.name for rung in classical.rungs if rung.status == "not measured"]
    if missing:
        told.append(f"Not measured for want of time: {', '.join(missing)}.")
    return told
