"""The pictures, predictions and report of a run folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..data.fields import save_fields
from . import figures, trajectory_figures
from ._request import Task
from .curves import cutoff
from .judge import Example, Judgement
from .record import Judged, Run
from .report import write_report


def draw(run: Run, folder: Path, task: Task, verdicts: list[Judgement]) -> None:
    """``predictions.nc``, ``figures/*.png`` and ``report.html``; a stranger's run has only the record to draw from."""
    pictures = folder / "figures"
    headline = verdicts[0]
    if headline.examples:
        _predictions(folder / "predictions.nc", task, headline)
        if not task.grid.axes:
            _dynamics(task, headline, run, pictures)
        for verdict in verdicts if task.grid.axes else ():
            figures.save(_fields(task, verdict, run), pictures / f"fields{_suffix(task, verdict)}.png")
        closer = None if headline.times or not task.grid.axes else _closer(task, headline, run)
        if closer is not None:
            figures.save(closer, pictures / "fields-close-up.png")
        if task.grid.axes:
            figures.save(_spectra(task, run.starts[0]), pictures / "spectra.png")
    for position, verdict in enumerate(verdicts):
        if verdict.times:
            figures.save(_rollout(run, task, position), pictures / f"rollout{_suffix(task, verdict)}.png")
    if run.history and "train" in run.history[0]:
        training = figures.training_figure(run.history, title=f"{run.model} on {run.problem}")
        figures.save(training, pictures / "training.png")
    if any(row.get("spectra") for row in run.history):
        stages = figures.stages_figure(run.history, title=f"{run.model} on {run.problem}: stage by stage")
        figures.save(stages, pictures / "stages.png")
    if run.classical is not None:
        figures.save(_cost(run), pictures / "cost.png")
    write_report(run, folder)


def _suffix(task: Task, verdict: Judgement) -> str:
    return f"-from-{verdict.start}" if task.problem.signature.evolves else ""


def _predictions(path: Path, task: Task, verdict: Judgement) -> None:
    """The kept test samples: prediction, and the truth under ``<channel>_truth``."""
    signature = task.problem.signature
    known = torch.stack([example.truth for example in verdict.examples])
    made = torch.stack([example.prediction for example in verdict.examples])
    channels = [
        type(channel)(f"{channel.name}{end}", channel.unit, f"{channel.label or channel.name} ({word})")
        for end, word in (("", "prediction"), ("_truth", "truth"))
        for channel in signature.outputs
    ]
    save_fields(
        path,
        torch.cat([made, known], dim=-1 - task.grid.dim),
        channels,
        task.grid,
        times=verdict.times or None,
        time_unit=signature.time_unit,
    )


def _fields(task: Task, verdict: Judgement, run: Run) -> Any:
    example = verdict.examples[0]
    start = f", from frame {verdict.start}" if verdict.times else ""
    return figures.fields_figure(
        example.inputs,
        example.prediction,
        example.truth,
        task.grid,
        task.problem.signature,
        times=verdict.times,
        title=f"{run.model} on {run.problem}: test sample {example.index}{start}{_told(task, example)}",
    )


def _dynamics(task: Task, verdict: Judgement, run: Run, pictures: Path) -> None:
    """Of a system without space: its unknowns over time, and against each other."""
    channels, example = task.problem.signature.outputs, verdict.examples[0]
    title = f"{run.model} on {run.problem}: test sample {example.index}"
    unit = task.problem.signature.time_unit
    drawn = trajectory_figures.trajectories_figure(
        verdict.times, example.prediction, example.truth, channels, time_unit=unit, title=title
    )
    figures.save(drawn, pictures / "trajectories.png")
    if len(channels) > 1:
        kept = [(one.prediction, one.truth) for one in verdict.examples]
        made, known = (torch.stack(side) for side in zip(*kept, strict=True))
        portrait = trajectory_figures.phase_figure(made, known, channels, title=f"{run.model} on {run.problem}")
        figures.save(portrait, pictures / "phase.png")


def _told(task: Task, example: Example) -> str:
    """The parameters that this sample was drawn with."""
    uniform = [(c, i) for i, c in enumerate(task.problem.signature.inputs) if c.uniform]
    return "".join(f", {channel.name} {float(example.inputs[i].flatten()[0]):.3g}" for channel, i in uniform)


def _closer(task: Task, verdict: Judgement, run: Run) -> Any:
    """A few waves around the largest error; None where the whole picture shows the waves."""
    example = verdict.examples[0]
    found = figures.close_up(example.prediction, example.truth, task.grid)
    if found is None:
        return None
    part, windows = found
    cut = (slice(None), *windows)
    return figures.fields_figure(
        example.inputs[cut],
        example.prediction[cut],
        example.truth[cut],
        part,
        task.problem.signature,
        title=f"{run.model} on {run.problem}: test sample {example.index}\nclose-up of the largest error",
    )


def _spectra(task: Task, judged: Judged) -> Any:
    return figures.spectra_figure(
        *(np.asarray(x) for x in (judged.shells, judged.truth_energy, judged.prediction_energy, judged.error_energy)),
        cutoff=cutoff(task.grid),
        title="Energy by wavenumber, mean over test samples",
    )


def _rollout(run: Run, task: Task, position: int) -> Any:
    own = run.starts[position]
    curves = {run.model: np.asarray(own.by_frame)}
    for name, rival in run.compare.items():
        if len(rival.starts) > position and rival.starts[position].by_frame:
            curves[name] = np.asarray(rival.starts[position].by_frame)
    return figures.rollout_figure(
        own.times,
        curves,
        time_unit=task.problem.signature.time_unit,
        title=f"Rollout from frame {own.start}: median and quartiles over test samples",
    )


def _cost(run: Run) -> Any:
    assert run.classical is not None
    rungs = [*run.classical.rungs, run.classical.reference]
    ladder = [(rung.name, rung.error, rung.seconds) for rung in rungs]
    models = {run.model: (run.metrics["relative_l2"].mean, run.seconds.predict or float("nan"))}
    for name, rival in run.compare.items():
        if rival.metrics and rival.seconds.predict:
            models[name] = (rival.metrics["relative_l2"].mean, rival.seconds.predict)
    return figures.cost_figure(ladder, models, clock=run.clock, title="What accuracy costs")
