"""Pictures of trajectories: unknowns over time and phase portraits, what steps an integration took, what accuracy cost,
and how far in time a model can be believed. Plain arrays in, a matplotlib ``Figure`` out, no global state.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike
from torch import Tensor

from ..pde import Channel
from ._panels import bracketed, named
from ._style import COLOURS, GREY, SMALL, TITLE, TRUTH, colours_of, dress, logarithmic, new_figure

PANELS = 6  # channels shown, the first so many
PREDICTION = COLOURS[1]


def trajectories_figure(
    times: Sequence[float],
    prediction: Float[Tensor, "time channel"],
    truth: Float[Tensor, "time channel"],
    channels: Sequence[Channel],
    *,
    trained: float | None = None,
    time_unit: str = "1",
    title: str = "",
) -> Figure:
    """Each channel over time, truth and prediction; what lies beyond ``trained`` is shaded."""
    known, shown = _arrays(truth, prediction)
    if known.shape != (len(times), len(channels)) or shown.shape != known.shape:
        raise ValueError(
            f"Expected trajectories of shape {(len(times), len(channels))}, got {known.shape} and {shown.shape}."
        )
    count = min(len(channels), PANELS)
    figure = new_figure(7.2, 1.2 + 1.9 * count)
    panels = figure.subplots(count, 1, sharex=True, squeeze=False)[:, 0]
    for i, panel in enumerate(panels):
        panel.plot(times, known[:, i], color=TRUTH, lw=2.4, label="truth")
        panel.plot(times, shown[:, i], color=PREDICTION, lw=1.6, ls="--", label="prediction")
        _shade(panel, trained, max(times))
        dress(panel, y=named(channels[i]), x=_clock(time_unit) if i == count - 1 else "")
    panels[0].legend(fontsize=SMALL, frameon=False, loc="best")
    return _titled(figure, title)


def phase_figure(
    prediction: Float[Tensor, "batch time channel"],
    truth: Float[Tensor, "batch time channel"],
    channels: Sequence[Channel],
    *,
    title: str = "",
) -> Figure:
    """The first two channels against each other, and the first and third where there are three."""
    known, shown = _arrays(truth, prediction)
    if known.shape != shown.shape or known.ndim != 3 or known.shape[2] != len(channels) or len(channels) < 2:
        raise ValueError(
            f"A phase portrait needs two channels at least, and trajectories of one shape; got {known.shape} and "
            f"{shown.shape} of {len(channels)} channel(s)."
        )
    pairs = [(0, 1)] if len(channels) == 2 else [(0, 1), (0, 2)]
    figure = new_figure(5.4 * len(pairs), 4.8)
    for panel, pair in zip(figure.subplots(1, len(pairs), squeeze=False)[0], pairs, strict=True):
        for k, (a, b) in enumerate(zip(known[..., pair], shown[..., pair], strict=True)):
            told = ("truth", "prediction", "start") if k == 0 and pair == (0, 1) else (None, None, None)
            panel.plot(*a.T, color=TRUTH, lw=1.8, label=told[0])
            panel.plot(*b.T, color=PREDICTION, lw=1.3, ls="--", label=told[1])
            panel.plot(*a[:1].T, color=GREY, ls="", marker="o", ms=5, label=told[2])
        dress(panel, x=named(channels[pair[0]]), y=named(channels[pair[1]]))
    figure.legend(fontsize=SMALL, frameon=False, loc="outside right upper")
    return _titled(figure, title)


def steps_figure(
    time: ArrayLike,
    step: ArrayLike,
    error: ArrayLike,
    stiffness: ArrayLike | None = None,
    *,
    time_unit: str = "1",
    title: str = "",
) -> Figure:
    """Along one trajectory: step size, error ratio (accepted up to 1), and the stiffness that the solver saw.

    They are the columns of a trace: ``trace.time[:, lane]`` and so on, where ``trace.taken[:, lane]``.
    """
    at, sizes, ratios = (np.asarray(values, dtype=float) for values in (time, step, error))
    rows = [(np.abs(sizes), f"step  {bracketed(time_unit)}".strip(), COLOURS[0]), (ratios, "error ratio E", COLOURS[1])]
    if stiffness is not None:
        rows.append((np.asarray(stiffness, dtype=float), "stiffness S  [1 / time]", COLOURS[2]))
    if any(values.shape != at.shape for values, *_ in rows):
        raise ValueError(f"One value a step: got {at.shape} times and {[values.shape for values, *_ in rows]} values.")
    figure = new_figure(7.2, 1.2 + 1.9 * len(rows))
    panels = figure.subplots(len(rows), 1, sharex=True)
    for panel, (values, label, colour) in zip(panels, rows, strict=True):
        panel.plot(at, _positive(values), color=colour, lw=1.4, marker=".")
        logarithmic(panel)
        dress(panel, y=label)
    panels[1].axhline(1.0, color=GREY, lw=0.9, ls=":")
    panels[-1].set_xlabel(_clock(time_unit))
    return _titled(figure, title)


def work_figure(
    curves: Mapping[str, tuple[ArrayLike, ArrayLike]],
    *,
    quality: str = "accuracy",
    log: bool = False,
    title: str = "",
) -> Figure:
    """Accuracy (or an error, ``log``) against evaluations of the right-hand side: ``{name: (evaluations, quality)}``.

    Each point is one trained model, or one tolerance.
    """
    figure = new_figure(7.2, 4.4)
    axes = figure.add_subplot()
    for name, style in colours_of(list(curves)).items():
        evaluations, values = (np.asarray(part, dtype=float) for part in curves[name])
        if evaluations.shape != values.shape:
            raise ValueError(f"{name!r}: {evaluations.shape} evaluations and {values.shape} values do not pair.")
        axes.plot(evaluations, values, ls="", ms=7, marker=style["marker"], color=style["color"], label=name)
    if log:
        logarithmic(axes, x=True)
    dress(axes, title=title, x="evaluations of the right-hand side", y=quality)
    figure.legend(fontsize=SMALL, frameon=False, loc="outside right upper")
    return figure


def extrapolation_figure(
    times: Sequence[float],
    errors: Mapping[str, ArrayLike],
    *,
    trained: float,
    time_unit: str = "1",
    title: str = "",
) -> Figure:
    """Relative error over time, ``{model: batch time}``: median and quartiles; beyond ``trained`` is extrapolation."""
    figure = new_figure(7.6, 4.4)
    axes = figure.add_subplot()
    for name, style in colours_of(list(errors)).items():
        values = np.asarray(errors[name], dtype=float)
        if values.ndim != 2 or values.shape[1] != len(times):
            raise ValueError(f"{name!r}: expected errors of shape ('batch', {len(times)}), got {values.shape}.")
        # a lost sample counts as the worst of all
        ranked = np.percentile(np.where(np.isfinite(values), values, 1e300), [25, 50, 75], axis=0)
        low, middle, high = (np.where(q < 1e200, _positive(q), np.nan) for q in ranked)
        axes.plot(times, middle, lw=2, ls=style["linestyle"], color=style["color"], label=name)
        axes.fill_between(times, low, high, color=style["color"], alpha=0.15, lw=0)
    logarithmic(axes)
    _shade(axes, trained, max(times))
    dress(axes, title=title, x=_clock(time_unit), y="relative error")
    figure.legend(fontsize=SMALL, frameon=False, loc="outside right upper")
    return figure


def _arrays(*tensors: Tensor) -> list[Any]:
    return [np.asarray(values.detach().cpu(), dtype=float) for values in tensors]


def _clock(unit: str) -> str:
    return f"time  {bracketed(unit)}".strip()


def _positive(values: Any) -> Any:
    return np.where(np.isfinite(values) & (values > 0), values, np.nan)


def _titled(figure: Figure, title: str) -> Figure:
    if title:
        figure.suptitle(title, fontsize=TITLE + 1)
    return figure


def _shade(axes: Axes, trained: float | None, last: float) -> None:
    if trained is not None and last > trained:
        axes.axvspan(trained, last, color="#eeeeee", zorder=0, label="beyond the training times")
