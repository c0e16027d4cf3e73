"""How every figure looks: colours told apart with any eyes and in grey, sizes that are read from the back row."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import Colormap
from matplotlib.figure import Figure
from matplotlib.text import Annotation

# Okabe & Ito's colour-blind-safe set without yellow, which is lost on white
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#555555")
MARKERS = ("o", "s", "D", "^", "v", "P", "X")
LINES = ("-", "--", "-.", ":")
TRUTH = "#000000"
GREY = "#888888"
TITLE, LABEL, SMALL = 12, 11, 9.5  # [pt]

SIGNED, POSITIVE, ERROR = "RdBu_r", "viridis", "PuOr_r"
_SIDES = ((1, 0, "left"), (-1, 0, "right"), (0, 1, "center"), (0, -1, "center"), (1, 1, "left"), (-1, -1, "right"))
LOST = "#b0b0b0"  # where a prediction is not finite


def colours_of(names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """One colour, marker and line style a name, in order; all three differ between neighbours."""
    return {
        name: {
            "color": COLOURS[i % len(COLOURS)],
            "marker": MARKERS[i % len(MARKERS)],
            "linestyle": LINES[i % len(LINES)],
        }
        for i, name in enumerate(names)
    }


def new_figure(width: float, height: float) -> Figure:
    """A figure of this size [inch], laid out without overlaps; nothing global is touched."""
    return Figure(figsize=(width, height), layout="constrained")


def colormap(name: str) -> Colormap:
    """A named map that shows what is not finite in grey."""
    return colormaps[name].with_extremes(bad=LOST)


def dress(axes: Axes, *, title: str = "", x: str = "", y: str = "", grid: bool = True) -> None:
    """Title, labels, sizes, light grid lines."""
    axes.set_title(title, fontsize=TITLE)
    axes.set_xlabel(x, fontsize=LABEL)
    axes.set_ylabel(y, fontsize=LABEL)
    axes.tick_params(labelsize=SMALL)
    if grid:
        axes.grid(True, which="major", color="#dddddd", linewidth=0.7)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)


def logarithmic(axes: Axes, *, x: bool = False) -> None:
    """Logarithmic from here on; limits of its own where nothing positive was drawn, for which there is no scale."""
    for wanted, name in ((x, "x"), (True, "y")):
        if wanted:
            drawn = [np.asarray(line.get_data()["xy".index(name)], dtype=float) for line in axes.lines]
            empty = not any((np.isfinite(values) & (values > 0)).any() for values in drawn)
            if empty:
                axes.set(**{f"{name}lim": (1e-3, 1.0)})
            axes.set(**{f"{name}scale": "log"})


def place_labels(
    figure: Figure,
    axes: Axes,
    labels: Sequence[tuple[float, float, str, str]],
    *,
    avoid: Sequence[Sequence[Any]] = (),
) -> None:
    """Write (x, y, text, colour) beside points, each on the first side where it covers nothing.

    Kept clear: the other labels and points, and ``avoid``, further points (x, y, …).
    """
    figure.draw_without_rendering()  # the layout settles before anything is measured
    points = [axes.transData.transform((x, y)) for x, y, *_ in (*labels, *avoid)]
    taken: list[Any] = []
    for i, (x, y, text, colour) in enumerate(labels):
        note = _free_place(axes, (x, y), text, colour, taken, points[:i] + points[i + 1 :])
        taken.append(note.get_window_extent())


def _free_place(
    axes: Axes, at: tuple[float, float], text: str, colour: str, taken: Sequence[Any], points: Sequence[Any]
) -> Annotation:
    inside = axes.get_window_extent()
    note = axes.annotate(
        text, at, xytext=(8, 0), textcoords="offset points", color=colour, fontsize=SMALL, fontweight="bold"
    )
    for distance in (8, 16, 26, 38):
        for dx, dy, ha in _SIDES:
            note.set(position=(dx * distance, dy * distance), ha=ha, va="center")
            box = note.get_window_extent()
            free = not any(box.overlaps(other) for other in taken)
            free = free and not any(box.contains(*point) for point in points)
            if free and inside.x0 <= box.x0 and box.x1 <= inside.x1 and inside.y0 <= box.y0 and box.y1 <= inside.y1:
                return note
    return note
