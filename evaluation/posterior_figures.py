"""Pictures of a posterior: what is known, what is likely, how sure that is, where the sensors stand.

The truth is drawn where the observations are synthetic. Mean and truth share one scale, taken from the truth.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from torch import Tensor

from ..data.observations import Truth
from ..operators._posterior import Posterior
from ..pde import Channel
from ._panels import _along, _dress_map, _error_scale, _map, _scale, bracketed, named
from ._style import COLOURS, POSITIVE, SMALL, TITLE, TRUTH, dress, new_figure

BAND = 0.9  # level of the bands
SHADES = (COLOURS[0], COLOURS[1])


def posterior_figure(posterior: Posterior, name: str, *, truth: Truth | None = None, title: str = "") -> Figure:
    """One field: truth, mean, standard deviation, and the error of the mean or the probability of the last phase.

    An evolution is shown at its last frame; a volume at mid-height.
    """
    comparable = truth is not None and truth.grid.shape == posterior.grid.shape
    known = _last(truth.fields()[name], posterior) if truth is not None and comparable else None
    mean, std = (_last(values, posterior) for values in (posterior.mean(name), posterior.std(name)))
    draw = _lines if posterior.grid.dim == 1 else _maps
    figure = draw(posterior, name, known, mean, std)
    if title:
        figure.suptitle(title, fontsize=TITLE + 1)
    return figure


def predictive_figure(posterior: Posterior, *, title: str = "") -> Figure:
    """What each sensor said against what the posterior expects of it, with its spread, noise included."""
    figure = new_figure(5.2, 4.8)
    axes = figure.add_subplot()
    mean, noise = posterior.predicted.mean(dim=0), posterior.noise.square().mean()
    spread = (posterior.predicted.var(dim=0) + noise).sqrt()
    seen = posterior.values
    ends = [float(seen.min()), float(seen.max())]
    axes.plot(ends, ends, color=TRUTH, lw=1.0)
    axes.errorbar(seen, mean, yerr=1.645 * spread, fmt="o", ms=4, lw=0.9, color=SHADES[0], ecolor="#9ecae1")
    unit = bracketed(_channel(posterior, posterior.field).unit)
    dress(axes, title=title, x=f"observed {posterior.field} {unit}", y=f"predicted, 90 % {unit}")
    return figure


def _channel(posterior: Posterior, name: str) -> Channel:
    return posterior._stored(name).channel


def _last(values: Tensor, posterior: Posterior) -> Any:
    """The last frame of a field with time; of a volume the plane at mid-height."""
    array = np.asarray(values.detach(), dtype=float)
    if array.ndim > posterior.grid.dim:
        array = array[-1]
    return array[..., posterior.grid.shape[2] // 2] if posterior.grid.dim == 3 else array


def _maps(posterior: Posterior, name: str, known: Any, mean: Any, std: Any) -> Figure:
    channel, grid = _channel(posterior, name), posterior.grid
    phases = posterior.phases is not None and posterior._stored(name).role == "input"
    heads = [*([] if known is None else ["truth"]), "posterior mean", "standard deviation"]
    heads += ["probability of the last phase"] if phases else ([] if known is None else ["mean \N{MINUS SIGN} truth"])
    figure = new_figure(3.6 * len(heads), 3.9)
    panels = list(figure.subplots(1, len(heads), squeeze=False)[0])
    shared = [mean] if known is None else [known, mean]
    _map(figure, panels[: len(shared)], shared, grid, named(channel), _scale(shared[0]))
    top = float(std.max()) or 1.0
    label = f"deviation {bracketed(channel.unit)}"
    _map(figure, [panels[len(shared)]], [std], grid, label, (POSITIVE, Normalize(0.0, top)))
    if phases:
        assert posterior.phases is not None
        probability = _last(posterior.phases[-1], posterior)
        _map(figure, panels[-1:], [probability], grid, "probability", (POSITIVE, Normalize(0.0, 1.0)))
    elif known is not None:
        _map(figure, panels[-1:], [mean - known], grid, f"error {bracketed(channel.unit)}", _error_scale(mean - known))
    for panel, head in zip(panels, heads, strict=True):
        _dress_map(panel, grid, head, left=panel is panels[0])
    if name == posterior.field:
        _sensors(panels[: len(shared)], posterior)
    return figure


def _sensors(panels: list[Axes], posterior: Posterior) -> None:
    x, y = posterior.places[_shown(posterior), :2].T
    for panel in panels:
        panel.plot(x, y, ls="", marker="o", ms=3.5, mfc="white", mec="black", mew=0.7)


def _lines(posterior: Posterior, name: str, known: Any, mean: Any, std: Any) -> Figure:
    channel, grid = _channel(posterior, name), posterior.grid
    figure = new_figure(6.8, 4.6)
    above, below = figure.subplots(2, 1, sharex=True, gridspec_kw={"height_ratios": (3, 1)})
    x = grid.axes[0].coordinates().numpy()
    low, high = (_last(end, posterior) for end in posterior.interval(name, BAND))
    above.fill_between(x, low, high, color=SHADES[0], alpha=0.25, lw=0, label="90 % interval")
    if known is not None:
        above.plot(x, known, color=TRUTH, lw=2.2, label="truth")
    above.plot(x, mean, color=SHADES[0], lw=1.6, ls="--", label="posterior mean")
    if name == posterior.field:
        shown = _shown(posterior)
        at, values = posterior.places[shown, 0], posterior.values[shown]
        above.plot(at, values, ls="", marker="o", ms=4, color=SHADES[1], label="observed")
    dress(above, y=named(channel))
    above.legend(fontsize=SMALL, frameon=False)
    below.plot(x, std, color=SHADES[0], lw=1.5)
    dress(below, x=_along(grid.axes[0]), y=f"deviation {bracketed(channel.unit)}")
    return figure


def _shown(posterior: Posterior) -> Tensor:
    """Which sensors belong into the picture: all, or those of the last frame."""
    if posterior.places.shape[1] == posterior.grid.dim:
        return torch.ones(len(posterior.values), dtype=torch.bool)
    frame = posterior.signature.times[-1]
    return (posterior.places[:, -1] - frame).abs() < 0.5 * posterior.signature.spacing
