"""Pictures of dynamics: Koopman spectra with what verifies them, attractors beside each other, symbolic codes.

Plain arrays and results in, a matplotlib ``Figure`` out, no global state.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from torch import Tensor

from ..dynamics._koopman import Koopman
from ..dynamics._symbolic import Code
from ._style import COLOURS, GREY, SMALL, TRUTH, colormap, dress, new_figure
from .attractor import power_spectrum

SHOWN = 4  # eigenfunctions
POINTS = 4000  # of an orbit that are drawn
GENERATED = "#D55E00"


def spectrum_figure(
    koopman: Koopman, *, tolerance: float, extent: float = 1.2, resolution: int = 61, title: str = ""
) -> Figure:
    """Eigenvalues on the map of res(z): full dots are verified, open ones are not.

    Shades are upper bounds of the distance to an approximate eigenfunction; where they are dark something is there,
    whether or not an eigenvalue was computed.
    """
    figure = new_figure(7.4, 6.2)
    axes = figure.subplots()
    line = torch.linspace(-extent, extent, resolution, dtype=torch.float64)
    points = torch.complex(*torch.meshgrid(line, line, indexing="xy"))
    sizes = koopman.pseudospectrum(points).clamp_min(1e-6).numpy()
    low = max(1e-4, float(sizes.min()))
    shade = axes.pcolormesh(
        line.numpy(),
        line.numpy(),
        sizes,
        norm=LogNorm(low, max(1.0, 10 * low)),
        cmap=colormap("viridis"),
        shading="nearest",
    )
    bar = figure.colorbar(shade, ax=axes, shrink=0.9)
    bar.set_label("res(z)", fontsize=SMALL + 1)
    turn = np.linspace(0, 2 * np.pi, 300)
    axes.plot(np.cos(turn), np.sin(turn), color="white", lw=1.0, ls="--")
    good = koopman.verified(tolerance).numpy()
    values = koopman.eigenvalues.numpy()
    bad = values[~good]
    axes.plot(bad.real, bad.imag, "o", mfc="none", mec="white", ms=5, label=f"not verified ({len(bad)})")
    axes.plot(
        values[good].real,
        values[good].imag,
        "o",
        color=GENERATED,
        ms=6,
        label=f"residual ≤ {tolerance:g} ({good.sum()})",
    )
    axes.set(xlim=(-extent, extent), ylim=(-extent, extent), aspect="equal")
    dress(axes, title=title or "Koopman spectrum", x="real part of λ", y="imaginary part of λ", grid=False)
    axes.legend(fontsize=SMALL, loc="upper right", facecolor="#777777", labelcolor="white")
    return figure


def eigenfunctions_figure(
    koopman: Koopman, states: Float[Tensor, "sample unknown"], names: Sequence[str], *, tolerance: float
) -> Figure:
    """Phase and size of the best verified eigenfunctions that are not constant, over the first two unknowns.

    One unknown: over it alone. Of each conjugate pair the upper one is shown.
    """
    chosen = _shown(koopman, tolerance)
    few = states[:: max(1, len(states) // POINTS)]
    values = koopman.eigenfunctions(few).numpy()
    figure = new_figure(3.6 * max(1, len(chosen)) + 0.8, 3.6)
    panels = figure.subplots(1, max(1, len(chosen)), squeeze=False)[0]
    if not chosen:
        panels[0].set_axis_off()
        panels[0].text(0.5, 0.5, f"no eigenfunction but the constant\nhas a residual ≤ {tolerance:g}", ha="center")
        return figure
    place = few.numpy()
    for panel, pair in zip(panels, chosen, strict=True):
        moving = abs(float(koopman.eigenvalues[pair].imag)) > 1e-9
        shown = np.angle(values[:, pair]) if moving else values[:, pair].real
        other = place[:, 1] if place.shape[1] > 1 else np.abs(values[:, pair])
        dots = panel.scatter(place[:, 0], other, c=shown, s=4, cmap=colormap("twilight" if moving else "viridis"))
        figure.colorbar(dots, ax=panel, shrink=0.8).ax.tick_params(labelsize=SMALL)
        value = complex(koopman.eigenvalues[pair])
        head = f"λ = {value.real:.3f}{value.imag:+.3f}i\nresidual {float(koopman.errors[pair]):.2g}"
        y = names[1] if place.shape[1] > 1 else "modulus"
        dress(panel, title=head, x=names[0], y=y if panel is panels[0] else "")
    figure.suptitle("eigenfunctions: phase (rotating) or value (decaying)", fontsize=SMALL + 1)
    return figure


def _shown(koopman: Koopman, tolerance: float) -> list[int]:
    good = koopman.verified(tolerance) & (koopman.eigenvalues.imag >= -1e-9) & ((koopman.eigenvalues - 1).abs() > 1e-6)
    order = koopman.errors.argsort().tolist()
    return [i for i in order if bool(good[i])][:SHOWN]


def attractor_figure(
    truth: Float[Tensor, "time unknown"],
    generated: Float[Tensor, "time unknown"],
    names: Sequence[str],
    *,
    spacing: float,
    time_unit: str = "1",
) -> Figure:
    """Two orbits: portraits, occupation of each unknown, power spectra."""
    known, shown = (np.asarray(each.detach().cpu(), dtype=float) for each in (truth, generated))
    shown = shown[np.isfinite(shown).all(axis=1)]
    unknowns = known.shape[1]
    figure = new_figure(3.2 * max(2, unknowns) + 0.6, 8.2)
    rows = figure.subplots(3, max(2, unknowns), squeeze=False)
    second = min(2, unknowns - 1)
    for panel, path, colour, head in zip(
        rows[0], (known, shown), (TRUTH, GENERATED), ("truth", "generated"), strict=False
    ):
        panel.plot(path[:POINTS, 0], path[:POINTS, second], color=colour, lw=0.4)
        panel.set(xlim=_limits(known[:, 0]), ylim=_limits(known[:, second]))
        dress(panel, title=head, x=names[0], y=names[second])
    for panel in rows[0][2:]:
        panel.set_visible(False)
    rate = "1" if time_unit == "1" else f"1/{time_unit}"
    for i in range(unknowns):
        edges = np.linspace(*_limits(known[:, i]), 60)
        for path, colour in ((known, TRUTH), (shown, GENERATED)):
            rows[1, i].hist(path[:, i], bins=edges, density=True, histtype="step", color=colour, lw=1.5)
            if len(path) > 1:
                power = power_spectrum(path)[:, i]
                rows[2, i].semilogy(np.fft.rfftfreq(len(path), spacing)[1:], power[1:], color=colour, lw=1.2)
        dress(rows[1, i], x=names[i], y="occupation" if i == 0 else "")
        dress(rows[2, i], x=f"frequency [{rate}]", y="power share" if i == 0 else "")
    for panel in (*rows[1][unknowns:], *rows[2][unknowns:]):
        panel.set_visible(False)
    return figure


def _limits(values: Any) -> tuple[float, float]:
    low, high = float(np.min(values)), float(np.max(values))
    margin = 0.08 * (high - low) or 1.0
    return low - margin, high + margin


def symbols_figure(
    states: Float[Tensor, "time unknown"], code: Code, names: Sequence[str], *, most: int = 12
) -> Figure:
    """An orbit coloured by its symbols, how long it stays in each region, and which follows which."""
    place = np.asarray(states.detach().cpu(), dtype=float)[:POINTS]
    figure = new_figure(13.6, 4.4)
    portrait, bars, table = figure.subplots(1, 3, gridspec_kw={"width_ratios": (1.3, 1, 1.1)})
    second = min(2, place.shape[1] - 1)
    visited = code.visited[:most]
    symbols = code.symbols[:POINTS].numpy()
    for i, symbol in enumerate(visited):
        inside = symbols == symbol
        portrait.plot(
            place[inside, 0], place[inside, second], ".", ms=2.5, color=COLOURS[i % len(COLOURS)], label=str(symbol)
        )
    dress(portrait, title=f"{len(code.visited)} of {code.regions} regions visited", x=names[0], y=names[second])
    portrait.legend(fontsize=SMALL, markerscale=4, title="symbol", title_fontsize=SMALL)
    bars.bar(range(len(visited)), code.shares[: len(visited)], color=[COLOURS[i % len(COLOURS)] for i in range(most)])
    bars.set_xticks(range(len(visited)), [str(symbol) for symbol in visited])
    dress(bars, title="share of the time", x="symbol")
    matrix = code.transitions[: len(visited), : len(visited)].numpy()
    shade = table.imshow(np.where(matrix > 0, matrix, np.nan), cmap=colormap("viridis"), norm=LogNorm(1e-4, 1))
    for ticks in (table.set_xticks, table.set_yticks):
        ticks(range(len(visited)), [str(symbol) for symbol in visited])
    figure.colorbar(shade, ax=table, shrink=0.8).ax.tick_params(labelsize=SMALL)
    dress(table, title="probability of the next symbol", x="next", y="symbol", grid=False)
    portrait.margins(0.05)
    table.set_facecolor(GREY)
    return figure
