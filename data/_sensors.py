r"""Synthetic observations of a stored sample: where the sensors stand, and noise of a stated strength.

.. math:: \sigma^2 = \overline{u^2}\, 10^{-\mathrm{SNR}/10}

the mean square over the nodes of the observed field (and its frames), the signal-to-noise ratio in decibels.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Literal, get_args

import torch
from jaxtyping import Float, Int64
from torch import Generator, Tensor

from ..pde import Grid, Signature
from ._netcdf import stored_variables
from ._points import at_points, nodes
from .dataset import Dataset
from .observations import TIME, Observations, Truth, check_clear, check_inside, observable

Layout = Literal["random", "grid"]


def observe(
    data: Dataset,
    sample: int = 0,
    *,
    sensors: int = 100,
    layout: Layout = "random",
    at: Float[Tensor, "point dim"] | None = None,
    snr: float = 25.0,
    known: bool = True,
    field: str | None = None,
    clear: Callable[[Tensor], Tensor] | None = None,
    generator: Generator,
) -> Observations:
    """Noisy values of one field of one sample.

    sensors    how many
    layout     ``random``: distinct nodes (of an evolution: nodes and frames, the initial state among them); ``grid``:
               the nodes nearest to an even lattice of about that many points
    at         given points instead (an evolution: with the time as last column); values between nodes are multilinear
    snr        signal-to-noise ratio [dB]
    known      whether the observations tell the noise; if not, it is to be inferred
    field      default: the first output
    clear      which points of the box are in the domain; no sensor stands elsewhere. None: all
    """
    if layout not in get_args(Layout):
        raise ValueError(f"layout is one of {get_args(Layout)}, got {layout!r}.")
    if not math.isfinite(snr):
        raise ValueError(
            f"The signal-to-noise ratio is a finite number of decibels, got {snr}: observations have errors."
        )
    signature, grid = data.signature, data.grid
    inputs, outputs = data.read([sample])
    truth = Truth(inputs[0], outputs[0], grid, signature)
    seen = _field(field, signature, grid)
    values = truth.fields()[seen].double()
    places, free = nodes(signature, grid), clear or _everywhere
    if at is not None:
        points, clean = _given(at, values, truth)
        check_clear(points, free(points))
    else:
        picked = _chosen(values, truth, free(places), sensors, layout, generator)
        points, clean = places[picked], values.flatten()[picked]
    noise = float(values.square().mean().sqrt()) * 10 ** (-snr / 20)
    if not noise > 0:
        raise ValueError(f"{seen} is zero everywhere in sample {sample}: there is no signal to set the noise by.")
    measured = clean + noise * torch.randn(len(clean), generator=generator, dtype=torch.float64)
    source = {"problem": data.problem, "parameters": dict(data.parameters), "sample": int(data.numbers[sample])}
    source |= {"snr": snr, "noise": noise, "key": data.source.get("key", ""), "seed": data.source.get("seed")}
    return Observations(
        seen,
        points[:, : grid.dim],
        measured,
        noise if known else None,
        points[:, grid.dim] if signature.evolves else None,
        tuple(axis.name for axis in grid.axes),
        _units(seen, signature, grid),
        truth,
        source,
    )


def _field(name: str | None, signature: Signature, grid: Grid) -> str:
    known = observable(signature, grid)
    if name is not None and name not in known:
        raise ValueError(f"There is no field {name!r} to observe; known: {', '.join(known)}.")
    return name or known[0]


def _units(name: str, signature: Signature, grid: Grid) -> dict[str, str]:
    stored = {one.name: one.channel.unit for one in stored_variables(signature, grid)}
    return {name: stored[name], TIME: signature.time_unit, **{axis.name: axis.unit for axis in grid.axes}}


def _everywhere(points: Tensor) -> Tensor:
    return torch.ones(len(points), dtype=torch.bool)


def _axes(truth: Truth) -> list[Tensor]:
    """Coordinates of the nodes an axis, in the order of the stored array: time first."""
    times = [torch.tensor((0.0, *truth.signature.times), dtype=torch.float64)] if truth.signature.evolves else []
    return [*times, *truth.grid.coordinates()]


def _chosen(
    values: Tensor, truth: Truth, free: Tensor, sensors: int, layout: Layout, generator: Generator
) -> Int64[Tensor, " point"]:
    """Numbers of nodes (and frames) in the clear."""
    most = int(free.sum())
    if not 1 <= sensors <= most:
        raise ValueError(f"Between 1 and {most} sensors fit on the nodes, got {sensors}.")
    if layout == "random":
        order = torch.randperm(values.numel(), generator=generator)
        return order[free[order]][:sensors].sort().values
    picked = _lattice(_axes(truth), sensors)
    return picked[free[picked]]


def _lattice(axes: list[Tensor], sensors: int) -> Int64[Tensor, " point"]:
    """Numbers of the nodes nearest to the centres of equal boxes, about ``sensors`` of them."""
    lengths = [float(axis[-1] - axis[0]) for axis in axes]
    scale = (sensors / math.prod(lengths)) ** (1 / len(axes))
    around = [
        sorted({min(max(k, 1), len(axis)) for k in (math.floor(scale * length), math.ceil(scale * length))})
        for axis, length in zip(axes, lengths, strict=True)
    ]
    counts = min(itertools.product(*around), key=lambda chosen: abs(math.prod(chosen) - sensors))
    rows = [
        ((torch.arange(count, dtype=torch.float64) + 0.5) / count * (len(axis) - 1)).round().long()
        for axis, count in zip(axes, counts, strict=True)
    ]
    picked = torch.zeros((), dtype=torch.int64)
    for axis, row in zip(axes, rows, strict=True):
        picked = picked[..., None] * len(axis) + row
    return picked.flatten().unique()


def _given(at: Tensor, values: Tensor, truth: Truth) -> tuple[Tensor, Tensor]:
    grid, signature = truth.grid, truth.signature
    wanted = grid.dim + signature.evolves
    if at.ndim != 2 or at.shape[1] != wanted:
        names = (*(axis.name for axis in grid.axes), *((TIME,) if signature.evolves else ()))
        raise ValueError(f"Sensors are given by {wanted} numbers each, {names}; got shape {tuple(at.shape)}.")
    at = at.double()
    times = at[:, grid.dim] if signature.evolves else None
    check_inside(at[:, : grid.dim], times, signature, grid)
    if times is None:
        return at, at_points(values, grid, at)
    place = times / signature.spacing
    low = place.floor().long().clamp(0, signature.frames - 1)
    frames = at_points(values, grid, at[:, : grid.dim])  # time point
    number = torch.arange(len(at))
    return at, torch.lerp(frames[low, number], frames[low + 1, number], place - low)
