"""The panels of a field: maps and lines of truth, prediction and error, as arrays of one channel."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from ..pde import Axis, Channel, Grid
from ._style import ERROR, GREY, LABEL, POSITIVE, SIGNED, SMALL, TRUTH, colormap, dress, new_figure

DIFFERENCE = "prediction \N{MINUS SIGN} truth"
Scale = tuple[str, Normalize]
CROSSINGS = 60  # of the mean, in one line, from which on lines are drawn thin
FEW_NODES = 64  # up to which each is marked
_POWER = re.compile(r"\^(-?\d+)")
_RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
_ENDS: tuple[Literal["neither", "min", "max", "both"], ...] = ("neither", "min", "max", "both")


def maps_static(start: Any, known: Any, shown: Any, *, grid: Grid, given: Channel, sought: Channel) -> Figure:
    """Input, truth, prediction and error side by side."""
    figure = new_figure(14.2, 3.9)
    panels = figure.subplots(1, 4)
    _map(figure, [panels[0]], [start], grid, named(given), _scale(start))
    _map(figure, list(panels[1:3]), [known, shown], grid, named(sought), _scale(known))
    _map(figure, [panels[3]], [shown - known], grid, f"error {bracketed(sought.unit)}", _error_scale(shown - known))
    for panel, head in zip(panels, ("input", "truth", "prediction", DIFFERENCE), strict=True):
        _dress_map(panel, grid, head, left=panel is panels[0])
    return figure


def maps_of_frames(known: Any, shown: Any, grid: Grid, name: Channel, heads: Sequence[str]) -> Figure:
    """Rows truth, prediction, error; a column a frame."""
    figure = new_figure(2.6 * len(heads) + 1.8, 7.6)
    rows = figure.subplots(3, len(heads), squeeze=False)
    _map(figure, [*rows[0], *rows[1]], [*known, *shown], grid, named(name), _scale(known))
    error = shown - known
    _map(figure, list(rows[2]), list(error), grid, f"error {bracketed(name.unit)}", _error_scale(error))
    for row, kind in enumerate(("truth", "prediction", DIFFERENCE)):
        for i, panel in enumerate(rows[row]):
            _dress_map(panel, grid, heads[i] if row == 0 else "", left=i == 0, below=row == 2, kind=kind)
    return figure


def lines_static(start: Any, known: Any, shown: Any, *, grid: Grid, given: Channel, sought: Channel) -> Figure:
    """Input, output and error below each other."""
    figure = new_figure(6.8, 6.6)
    rows = figure.subplots(3, 1, sharex=True, gridspec_kw={"height_ratios": (2, 3, 1.6)})
    x = grid.axes[0].coordinates().numpy()
    rows[0].plot(x, start, color="#009E73", lw=0.6 if _dense(start) else 1.8)
    dress(rows[0], title="input", y=named(given))
    _two_lines(rows[1], x, known, shown)
    dress(rows[1], title="output", y=named(sought))
    # above the panel: waves leave no place inside
    rows[1].legend(fontsize=SMALL, frameon=False, loc="lower right", bbox_to_anchor=(1.0, 1.0), ncols=2)
    _error_line(rows[2], x, shown - known)
    dress(rows[2], x=_along(grid.axes[0]), y=f"error {bracketed(sought.unit)}")
    return figure


def lines_of_frames(known: Any, shown: Any, grid: Grid, name: Channel, heads: Sequence[str]) -> Figure:
    """Truth and prediction above their difference; a column a frame."""
    figure = new_figure(2.9 * len(heads) + 1.0, 4.8)
    heights = {"height_ratios": (2, 1)}
    rows = figure.subplots(2, len(heads), sharex=True, sharey="row", squeeze=False, gridspec_kw=heights)
    x = grid.axes[0].coordinates().numpy()
    for i, head in enumerate(heads):
        _two_lines(rows[0, i], x, known[i], shown[i])
        _error_line(rows[1, i], x, shown[i] - known[i])
        dress(rows[0, i], title=head, y=named(name) if i == 0 else "")
        dress(rows[1, i], x=_along(grid.axes[0]), y=f"error {bracketed(name.unit)}" if i == 0 else "")
    low, high = float(known.min()), float(known.max())
    margin = 0.2 * (high - low) or 1.0
    rows[0, 0].set_ylim(low - margin, high + margin)  # a diverged prediction leaves the picture, not the truth
    rows[0, -1].legend(fontsize=SMALL, frameon=False)
    return figure


def bracketed(unit: str) -> str:
    """A unit as it stands beside a name, ``m^2`` with a raised 2; nothing for pure numbers."""
    return "" if unit == "1" else f"[{re.sub(_POWER, lambda power: power[1].translate(_RAISED), unit)}]"


def named(channel: Channel) -> str:
    """A channel as an axis label."""
    return f"{channel.label or channel.name} {bracketed(channel.unit)}".strip()


def _map(figure: Figure, panels: list[Axes], fields: list[Any], grid: Grid, label: str, scale: Scale) -> None:
    name, norm = scale
    extent = (*_ends(grid.axes[0]), *_ends(grid.axes[1]))
    sides = (extent[1] - extent[0], extent[3] - extent[2])
    for panel, field in zip(panels, fields, strict=True):
        drawn = panel.imshow(
            np.ma.masked_invalid(field.T),
            origin="lower",
            extent=extent,
            cmap=colormap(name),
            norm=norm,
            aspect="equal" if max(sides) <= 4 * min(sides) else "auto",
            interpolation="nearest",
        )
    bar = figure.colorbar(drawn, ax=panels, extend=_beyond(fields, norm), shrink=0.9, pad=0.02)
    bar.set_label(label, fontsize=LABEL)
    bar.ax.tick_params(labelsize=SMALL)


def _beyond(fields: list[Any], norm: Normalize) -> Literal["neither", "min", "max", "both"]:
    """Which ends of the scale some value lies beyond."""
    values = np.concatenate([np.ravel(field) for field in fields])
    values = values[np.isfinite(values)]
    low, high = float(norm.vmin or 0.0), float(norm.vmax or 0.0)
    margin = 0.02 * (high - low)  # of no account to the eye
    return _ENDS[bool((values < low - margin).any()) + 2 * bool((values > high + margin).any())]


def _dress_map(panel: Axes, grid: Grid, head: str, *, left: bool, below: bool = True, kind: str = "") -> None:
    beside = "\n".join(part for part in (kind, _along(grid.axes[1])) if part)
    dress(panel, title=head, x=_along(grid.axes[0]) if below else "", y=beside if left else "", grid=False)
    panel.tick_params(labelleft=left, labelbottom=below)


def _two_lines(axes: Axes, x: Any, known: Any, shown: Any) -> None:
    thin = 0.35 if _dense(known) else 1.0
    nodes = "." if len(x) <= FEW_NODES else ""
    axes.plot(x, known, color=TRUTH, lw=2.6 * thin, label="truth")
    axes.plot(x, shown, color="#D55E00", lw=1.6 * thin, ls="--", marker=nodes, label="prediction")
    low, high = float(known.min()), float(known.max())
    margin = 0.2 * (high - low) or 1.0
    axes.set_ylim(low - margin, high + margin)


def _dense(values: Any) -> bool:
    """Whether so many waves are drawn that thick lines would cover the picture."""
    signs = np.sign(values - values.mean())
    return int((signs[1:] * signs[:-1] < 0).sum()) > CROSSINGS


def _error_line(axes: Axes, x: Any, error: Any) -> None:
    axes.axhline(0, color=GREY, lw=0.8)
    axes.plot(x, error, color="#0072B2", lw=1.5)


def _scale(values: Any) -> Scale:
    """Diverging and symmetric where both signs matter (the smaller is a tenth of the larger), sequential elsewhere."""
    finite = values[np.isfinite(values)]
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 1.0)
    size = max(-low, high)
    if low < 0 < high and min(-low, high) > 0.1 * size:
        return SIGNED, Normalize(-size, size)
    return POSITIVE, Normalize(low, high if high > low else low + 1.0)


def _error_scale(values: Any) -> Scale:
    finite = values[np.isfinite(values)]
    size = float(np.abs(finite).max()) if finite.size else 0.0
    return ERROR, Normalize(-(size or 1.0), size or 1.0)


def _ends(axis: Axis) -> tuple[float, float]:
    """The outer borders of the first and last pixel."""
    half = 0.5 * axis.spacing if axis.placement == "ends" else 0.0
    return axis.lower - half, axis.upper + half


def _along(axis: Axis) -> str:
    return f"{axis.name} {bracketed(axis.unit)}".strip()
