"""Pictures of predictions and of their errors: plain arrays in, a matplotlib ``Figure`` out, no global state.

``save`` writes PNG (or whatever the suffix says). Fields have the shapes of one sample, ``[time] channel *space``.
Truth and prediction always share one scale, taken from the truth; the error has its own. Fields of both signs get a
diverging map that is white at zero. Three-dimensional fields are shown on the middle plane of their last axis.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from matplotlib.figure import Figure
from numpy.typing import ArrayLike
from torch import Tensor

from ..pde import Axis, Grid, Signature
from ._panels import bracketed, lines_of_frames, lines_static, maps_of_frames, maps_static
from ._style import GREY, SMALL, TITLE, TRUTH, colours_of, dress, logarithmic, new_figure, place_labels
from .curves import energy_by_wavenumber

SHOWN_FRAMES = 4  # of a rollout, evenly spread, the last among them
DENSE = 40  # waves across a picture from which on they cannot be told apart in it
CLOSE = 8  # waves across a close-up


def fields_figure(
    inputs: Float[Tensor, "channel *space"],
    prediction: Float[Tensor, "*rest"],
    truth: Float[Tensor, "*rest"],
    grid: Grid,
    signature: Signature,
    *,
    times: Sequence[float] = (),
    channel: int = 0,
    title: str = "",
) -> Figure:
    """Truth, prediction and error of one output channel of one sample.

    A static map shows its first input beside them; an evolution (``times`` of the frames, from the start) shows up to
    four frames. Raises ``ValueError`` where shapes and ``times`` do not fit.
    """
    known, shown = (np.asarray(values.detach().cpu(), dtype=float) for values in (truth, prediction))
    expected = (*((len(times),) if times else ()), len(signature.outputs), *grid.shape)
    if known.shape != expected or shown.shape != expected:
        raise ValueError(f"Expected fields of shape {expected}, got {known.shape} and {shown.shape}.")
    name = signature.outputs[channel]
    if times:
        frames = _spread(len(times))
        heads = [_time(times[i], signature.time_unit) for i in frames]
        draw = lines_of_frames if grid.dim == 1 else maps_of_frames
        figure = draw(_plane(known[frames, channel], grid), _plane(shown[frames, channel], grid), grid, name, heads)
    else:
        start = np.asarray(inputs.detach().cpu(), dtype=float)[0]
        planes = (_plane(values, grid) for values in (start, known[channel], shown[channel]))
        draw_one = lines_static if grid.dim == 1 else maps_static
        figure = draw_one(*planes, grid=grid, given=signature.inputs[0], sought=name)
    height = f" ({grid.axes[2].name} at mid-height)" if grid.dim == 3 else ""
    if title or height:
        figure.suptitle(title + height, fontsize=TITLE + 1)
    return figure


def close_up(
    prediction: Float[Tensor, "channel *space"], truth: Float[Tensor, "channel *space"], grid: Grid
) -> tuple[Grid, tuple[slice, ...]] | None:
    """Where to look closer at a field of many waves: a window of a few of them around the largest error.

    The part of the grid and the slices that cut it out; None where the whole picture shows the waves.
    """
    shells, energy = energy_by_wavenumber(truth[None].detach().cpu(), grid)
    weight = energy[0, 1:]  # all but the mean
    waves = float((shells[1:] * weight).sum() / weight.sum()) if float(weight.sum()) > 0 else 0.0
    if not waves > DENSE:
        return None
    error = (prediction - truth).detach().cpu().abs().nan_to_num(0.0, 0.0, 0.0).amax(dim=0)
    worst = np.unravel_index(int(error.argmax()), grid.shape)
    side = CLOSE / waves * max(axis.length for axis in grid.axes)
    windows, axes = [], []
    for axis, node in zip(grid.axes, map(int, worst), strict=True):
        count = min(axis.size, max(CLOSE, round(side / axis.spacing) + 1))
        first = min(max(0, node - count // 2), axis.size - count)
        x = axis.coordinates().tolist()[first : first + count]
        windows.append(slice(first, first + count))
        axes.append(Axis(axis.name, count, x[0], x[-1], ("dirichlet", "dirichlet"), "ends", axis.unit))
    return Grid(tuple(axes)), tuple(windows)


def spectra_figure(
    shells: ArrayLike,
    truth: ArrayLike,
    prediction: ArrayLike,
    error: ArrayLike,
    *,
    cutoff: float | None = None,
    title: str = "",
) -> Figure:
    """Energy in wavenumber shells, log-log, means over samples; ``cutoff``: where the grid's corners begin.

    The shell of the mean (0) has no place on a logarithmic axis and is left out.
    """
    k = np.asarray(shells, dtype=float)[1:]
    figure = new_figure(6.4, 4.4)
    axes = figure.add_subplot()
    known = np.asarray(truth, dtype=float)[1:]
    styles = (
        (truth, "truth", TRUTH, "-", 2.6),
        (prediction, "prediction", "#0072B2", "--", 2.0),
        (error, "error", "#D55E00", "-.", 1.8),
    )
    for values, label, colour, line, width in styles:
        energy = np.asarray(values, dtype=float)[1:]
        finite = np.isfinite(energy)
        label += "" if finite.all() else " (not finite)"
        drawn = np.where(finite & (energy > 0), energy, np.nan)
        axes.plot(k, drawn, color=colour, ls=line, lw=width, label=label)
    logarithmic(axes, x=True)
    axes.set_xlim(k[0], k[-1])
    top = float(np.max(known, where=np.isfinite(known), initial=0.0))
    if top > 0:
        # double precision ends 1e-32 below the largest energy; single, in which data are stored, 1e-14; an error is
        # shown whole where it is smaller still
        wrong = np.asarray(error, dtype=float)[1:]
        largest = float(np.max(wrong, where=np.isfinite(wrong), initial=0.0))
        floor = min(top * 1e-18, largest * 1e-4) if largest > 0 else top * 1e-18
        axes.set_ylim(bottom=max(_smallest((truth, prediction, error)) / 3, floor))
    if cutoff is not None and cutoff < k[-1]:
        axes.axvspan(cutoff, k[-1], color="#eeeeee", zorder=0, label="corners of the spectrum")
    dress(axes, title=title, x="wavenumber |k|  [2π / domain length]", y="energy per shell  [unit²]")
    axes.legend(fontsize=SMALL, frameon=False, loc="lower left")
    return figure


def rollout_figure(
    times: Sequence[float], curves: Mapping[str, ArrayLike], *, time_unit: str = "1", title: str = ""
) -> Figure:
    """Relative L2 error of each frame, ``{model: batch time}``: median over samples, and the band of the quartiles."""
    figure = new_figure(7.2, 4.4)
    axes = figure.add_subplot()
    at = np.asarray(times, dtype=float)
    for name, style in colours_of(list(curves)).items():
        values = np.asarray(curves[name], dtype=float)
        low, middle, high = (_percentile(values, q) for q in (25.0, 50.0, 75.0))
        lost = int((~np.isfinite(values)).any(axis=1).sum())
        label = f"{name}\n({lost} of {len(values)} diverged)" if lost else name
        axes.plot(at, _positive(middle), lw=2, ms=5, label=label, **style)
        axes.fill_between(at, _positive(low), _positive(high), color=style["color"], alpha=0.15, lw=0)
    logarithmic(axes)
    dress(axes, title=title, x=f"time after the start  {bracketed(time_unit)}", y="relative L2 error of the frame")
    figure.legend(fontsize=SMALL, frameon=False, loc="outside right upper")
    return figure


def training_figure(history: Sequence[Mapping[str, Any]], *, title: str = "") -> Figure:
    """Training and validation loss by epoch, the learning rate below. Needs at least one row."""
    if not history:
        raise ValueError("There is no training to draw: the history is empty.")
    figure = new_figure(6.4, 4.8)
    above, below = figure.subplots(2, 1, sharex=True, gridspec_kw={"height_ratios": (3, 1)})
    styles = (("train", "training", "#0072B2", "-"), ("validation", "validation", "#D55E00", "--"))
    for key, label, colour, line in styles:
        rows = [(row["epoch"], row[key]) for row in history if row.get(key) is not None]
        marker = "o" if len(rows) <= 40 else ""
        above.plot(*_columns(rows), color=colour, ls=line, lw=1.8, marker=marker, ms=4, label=label if rows else None)
    logarithmic(above)
    dress(above, title=title, y="loss")
    above.legend(fontsize=SMALL, frameon=False)
    rates = [(row["epoch"], row["learning_rate"]) for row in history if row.get("learning_rate") is not None]
    below.plot(*_columns(rates), color=GREY, lw=1.8, marker="o" if len(rates) == 1 else "")
    dress(below, x="epoch", y="learning rate")
    return figure


def stages_figure(history: Sequence[Mapping[str, Any]], *, title: str = "") -> Figure:
    """Of a boosted model: energy in wavenumber shells of the outputs and of what each stage has left of them."""
    ends = [row["spectra"] for row in history if row.get("spectra")]
    if not ends:
        raise ValueError("There are no stages to draw: no row of the history has spectra.")
    figure = new_figure(6.4, 4.4)
    axes = figure.add_subplot()
    curves = {"outputs": ends[0]["target"]} | {f"left by stage {i}": end["residual"] for i, end in enumerate(ends)}
    for (name, values), style in zip(curves.items(), colours_of(list(curves)).values(), strict=True):
        energy = np.asarray(values, dtype=float)[1:]
        axes.plot(np.arange(1, len(energy) + 1), _positive(energy), lw=1.8, ms=4, label=name, **style)
    logarithmic(axes, x=True)
    dress(axes, title=title, x="wavenumber |k|  [2π / domain length]", y="energy per shell  [unit²]")
    axes.legend(fontsize=SMALL, frameon=False, loc="lower left")
    return figure


def cost_figure(
    ladder: Sequence[tuple[str, float, float]],
    models: Mapping[str, tuple[float, float]],
    *,
    clock: str = "cpu",
    title: str = "",
) -> Figure:
    """Error against seconds per sample, log-log: classical (name, error, seconds) as a curve, models as named points.

    ``models`` are {name: (error, seconds)}. The curve runs through the rungs that no cheaper rung beats; the others
    are open circles. What has no finite positive error and time is left out.
    """
    figure = new_figure(7.4, 4.8)
    axes = figure.add_subplot()
    best, rest = _frontier(ladder)
    axes.plot(*_columns(best), color=TRUTH, lw=1.8, marker="o", ms=5, label="classical, best" if best else None)
    axes.plot(
        *_columns(rest), color=GREY, ls="", marker="o", ms=5, mfc="none", label="classical, other" if rest else None
    )
    labels = []
    for name, style in colours_of(list(models)).items():
        error, seconds = models[name]
        if _drawable(error, seconds):
            axes.plot([seconds], [error], ls="", ms=10, mec="white", marker=style["marker"], color=style["color"])
            labels.append((seconds, error, name, style["color"]))
    logarithmic(axes, x=True)
    axes.margins(x=0.15, y=0.2)
    kind = "processor time" if clock == "cpu" else "elapsed time"
    dress(axes, title=title, x=f"{kind} per sample  [s]", y="relative L2 error")
    if best:
        axes.legend(fontsize=SMALL, frameon=False, loc="lower left")
    ends = [*best[:1], *best[1:][-1:]]  # cheapest and dearest; those between speak for themselves
    labels += [(*rung, "#333333") for rung in ends]
    place_labels(figure, axes, labels, avoid=[*rest, *_along(best)])
    return figure


def save(figure: Figure, path: Path) -> None:
    """Write a figure; the suffix says in which format."""
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)


def _drawable(error: float, seconds: float) -> bool:
    return bool(np.isfinite([error, seconds]).all()) and error > 0 and seconds > 0


def _frontier(ladder: Sequence[tuple[str, float, float]]) -> tuple[list[Any], list[Any]]:
    """(seconds, error, name) of the rungs that no cheaper rung beats, and of the others."""
    usable = sorted((seconds, error, name) for name, error, seconds in ladder if _drawable(error, seconds))
    best: list[tuple[float, float, str]] = []
    for rung in usable:
        if not best or rung[1] < best[-1][1]:
            best.append(rung)
    return best, [rung for rung in usable if rung not in best]


def _along(rungs: Sequence[tuple[float, float, str]]) -> list[tuple[float, float]]:
    """Points so close along the drawn curve that no label slips between them."""
    if not rungs:
        return []
    part, knots = np.linspace(0, len(rungs) - 1, 40 * len(rungs)), np.arange(len(rungs))
    seconds, errors = (np.exp(np.interp(part, knots, np.log(column))) for column in _columns(rungs))
    return list(zip(seconds.tolist(), errors.tolist(), strict=True))


def _columns(rows: Sequence[Sequence[Any]]) -> tuple[list[Any], list[Any]]:
    return [row[0] for row in rows], [row[1] for row in rows]


def _positive(values: Any) -> Any:
    return np.where(np.isfinite(values) & (values > 0), values, np.nan)


def _spread(count: int) -> list[int]:
    return sorted({round(i) for i in np.linspace(0, count - 1, min(count, SHOWN_FRAMES))})


def _plane(values: Any, grid: Grid) -> Any:
    return values[..., grid.shape[2] // 2] if grid.dim == 3 else values


def _time(value: float, unit: str) -> str:
    return f"t = {value:.4g}" + ("" if unit == "1" else f" {unit}")


def _percentile(values: Any, percent: float) -> Any:
    """Over samples; a lost sample counts as the worst of all instead of spoiling the others."""
    ranked = np.percentile(np.where(np.isfinite(values), values, 1e300), percent, axis=0)
    return np.where(ranked < 1e200, ranked, np.inf)


def _smallest(many: Sequence[ArrayLike]) -> float:
    values = np.concatenate([np.asarray(one, dtype=float)[1:] for one in many])
    return float(np.min(values, where=np.isfinite(values) & (values > 0), initial=np.inf))
