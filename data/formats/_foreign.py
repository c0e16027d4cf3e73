"""From a fit to a dataset, and from a dataset to the words that others' files carry along for us.

Writers add one text named ``resolvent`` (:data:`ABOUT`): problem, parameters, signature and grid as JSON. Other
readers pass it over; ours takes it where it fits the arrays, so that writing and reading back loses nothing.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from ...pde import Channel, Grid, Signature
from .._files import canonical_json
from ..dataset import Dataset
from ._slices import Channels, Part, Side, Slices
from ._warnings import Assumption, tell

ABOUT = "resolvent"
BLOCK_BYTES = 16 << 20  # of samples held while writing
Report = Callable[[int], None]  # samples written so far


@dataclass(frozen=True)
class Meaning:
    """What arrays mean."""

    problem: str
    signature: Signature
    grid: Grid
    parameters: Mapping[str, Any] = field(default_factory=dict)


def evolution(channels: tuple[Channel, ...], times: np.ndarray | None, count: int, *, what: str) -> Signature:
    """Of ``count`` frames at these times; without times a frame is the unit, and a warning says so."""
    from ._coordinates import even

    if count < 2:
        raise ValueError(f"{what}: an evolution needs at least 2 frames, it has {count}.")
    if times is None:
        tell(Assumption, f"{what}: the file does not say its times; one frame counts as one unit.")
        return Signature(channels, channels, count - 1, 1.0, "1")
    times = np.asarray(times, dtype=np.float64).reshape(-1)[:count]
    step = even(times, f"{what}: time")
    return Signature(channels, channels, count - 1, _plain(step, times), "1")


def _plain(step: float, times: np.ndarray) -> float:
    """Without the round-off of times stored as float32."""
    near = 4 * np.finfo(np.float32).eps * max(abs(times).max(), step)
    return next((round(step, d) for d in range(7) if abs(step - round(step, d)) * len(times) < near), step)


def named(names: tuple[str, ...] | list[str]) -> tuple[Channel, ...]:
    return tuple(Channel(name) for name in names)


def numbered(prefix: str, count: int) -> tuple[Channel, ...]:
    """Channels whose names the file does not say."""
    return named([prefix] if count == 1 else [f"{prefix}{i}" for i in range(count)])


def about(dataset: Dataset) -> str:
    """See :data:`ABOUT`."""
    told = {"problem": dataset.problem, "parameters": dict(dataset.parameters)}
    return canonical_json({**told, "signature": dataset.signature.to_dict(), "grid": dataset.grid.to_dict()})


def global_attributes(dataset: Dataset) -> dict[str, str]:
    """The attributes by which files that xarray opens say what they mean."""
    return {
        "title": f"Samples of {dataset.problem}",
        "problem": dataset.problem,
        "parameters": canonical_json(dict(dataset.parameters)),
        "grid": canonical_json(dataset.grid.to_dict()),
        "signature": canonical_json(dataset.signature.to_dict()),
    }


def own_meaning(text: Any, shape: tuple[int, ...], frames: int) -> Meaning | None:
    """What :func:`about` wrote, where it fits; ``frames`` with the initial one, 0: a static map."""
    if isinstance(text, bytes):
        text = text.decode("utf-8", "replace")
    try:
        told = json.loads(text)
        signature, grid = Signature.from_dict(told["signature"]), Grid.from_dict(told["grid"])
        meaning = Meaning(str(told["problem"]), signature, grid, dict(told["parameters"]))
    except (TypeError, ValueError, KeyError):
        return None
    stored = 1 + signature.frames if signature.evolves else 0
    return meaning if (grid.shape, stored) == (tuple(shape), frames) else None


def assembled(
    path: Path,
    kind: str,
    layout: str,
    meaning: Meaning,
    opening: Callable[[], Mapping[str, Any]],
    sides: tuple[Side, ...],
    *,
    count: int,
    dtype: Any = None,
    told: Mapping[str, Any] | None = None,
    paths: tuple[Path, ...] = (),
) -> Dataset:
    """The dataset over slices of a file."""
    if count < 1:
        raise ValueError(f"{path} holds no sample.")
    source = {"kind": kind, "layout": layout, "file": path.name, **(told or {})}
    if dtype is not None:
        source["dtype"] = str(np.dtype(dtype)) if not isinstance(dtype, str) else dtype
    frames = 1 + meaning.signature.frames if meaning.signature.evolves else 0
    slices = Slices(paths or (path,), opening, sides, count=count, frames=frames, space=meaning.grid.shape)
    return Dataset(meaning.problem, meaning.parameters, meaning.signature, meaning.grid, source, slices)


def side(*parts: Part | Channels) -> Side:
    """Blocks of channels: a part, or parts that follow each other in time."""
    return tuple((part,) if isinstance(part, Part) else part for part in parts)


def blocks(dataset: Dataset, report: Report) -> Iterator[tuple[slice, tuple[Tensor, ...]]]:
    """All samples in order, in bounded memory: ``(numbers, arrays)`` as :meth:`Source.arrays` gives them."""
    each = max(1, BLOCK_BYTES // max(1, dataset.nbytes // len(dataset)))
    report(0)
    numbers = dataset.numbers
    for first in range(0, len(dataset), each):
        rows = slice(first, min(first + each, len(dataset)))
        yield rows, dataset.samples.arrays(numbers[rows])
        report(rows.stop)


def need_evolution(dataset: Dataset, kind: str) -> None:
    if not dataset.signature.evolves:
        raise ValueError(
            f"{kind} holds evolutions only, and {dataset.problem} is a static map. Choose netcdf, zarr, neuralop, "
            "pdebench or fno_mat."
        )
