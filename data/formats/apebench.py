"""An APEBench or exponax array: ``.npy`` with axes ``(n, t, c, *space)`` on a periodic box, the left end included.

What the array does not say is taken from a JSON file of the same stem (or of the stem without ``_train``, ``_test``):
``domain_extent`` (or ``L``), ``dt``, ``name``; else the box is the unit box and a frame is the unit of time. Frame 0 is
the initial state. Arrays are mapped, not loaded.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ...pde import Axis, Grid
from ..dataset import Dataset
from ._foreign import (
    ABOUT,
    Meaning,
    Report,
    about,
    assembled,
    blocks,
    evolution,
    need_evolution,
    numbered,
    own_meaning,
    side,
)
from ._layout import Layout, Shapes, first_fit, misfits
from ._slices import Part
from ._warnings import Assumption, tell

SUFFIXES = (".npy",)

LAYOUTS = (Layout("trajectories", {"array": "ntcx|ntcxy|ntcxyz"}),)
_EXTENT = ("domain_extent", "L")


def matches(path: Path) -> bool:
    return first_fit(LAYOUTS, _shapes(path)) is not None


def misfit(path: Path) -> str:
    return misfits(LAYOUTS, _shapes(path)) if path.suffix == ".npy" else "not a .npy array"


def read(path: Path) -> Dataset:
    path = Path(path).resolve()
    found = first_fit(LAYOUTS, _shapes(path))
    if found is None:
        raise ValueError(f"{path} is no array of APEBench: {misfit(path)}.")
    array = _open(path)["array"]
    told = _beside(path)
    own = own_meaning(json.dumps(told.get(ABOUT)), found.shape, found.sizes["t"])
    meaning = own or _meaning(path, told, found.sizes, array.shape[2])
    parts = (side(Part("array", found.axes["array"])),)
    opening = functools.partial(_open, path)
    return assembled(
        path, "apebench", f"{len(found.shape)}-D", meaning, opening, parts, count=found.sizes["n"], dtype=array.dtype
    )


def _meaning(path: Path, told: Mapping[str, Any], sizes: Mapping[str, int], channels: int) -> Meaning:
    extent = next((float(told[name]) for name in _EXTENT if isinstance(told.get(name), int | float)), None)
    if extent is None:
        told_not = f"no {_EXTENT[0]!r} in a JSON file beside it"
        tell(Assumption, f"{path.name}: {told_not}; the box is taken to be the unit box.")
    step = told.get("dt")
    times = float(step) * np.arange(sizes["t"]) if isinstance(step, int | float) else None
    grid = Grid(tuple(Axis(name, sizes[name], 0.0, extent or 1.0) for name in "xyz" if name in sizes))
    numbers = {name: value for name, value in told.items() if isinstance(value, int | float)}
    signature = evolution(numbered("u", channels), times, sizes["t"], what=path.name)
    return Meaning(str(told.get("name", path.stem)), signature, grid, numbers)


def _beside(path: Path) -> dict[str, Any]:
    stems = [path.stem, path.stem.removesuffix("_train").removesuffix("_test")]
    for candidate in (path.with_name(f"{stem}.json") for stem in stems):
        if candidate.is_file():
            try:
                told = json.loads(candidate.read_text(encoding="utf-8"))
            except ValueError as error:
                raise ValueError(f"{candidate} is not JSON: {error}") from error
            return told if isinstance(told, dict) else {}
    return {}


def _open(path: Path) -> dict[str, np.ndarray]:
    return {"array": np.load(path, mmap_mode="r", allow_pickle=False)}


def _shapes(path: Path) -> Shapes:
    if not (path.is_file() and path.suffix == ".npy"):
        return lambda _: None
    try:
        array = _open(path)["array"]
    except (ValueError, OSError, EOFError):
        return lambda _: None
    found = {"array": tuple(array.shape)} if array.dtype.kind in "fiu" else {}
    return found.get


def write(dataset: Dataset, path: Path, report: Report) -> None:
    """The array, and a JSON file of the same stem with extent, time step and what else is known."""
    need_evolution(dataset, "APEBench")
    grid, signature = dataset.grid, dataset.signature
    if not grid.periodic or len(set(grid.shape)) > 1 or len(set(grid.lengths)) > 1:
        raise ValueError(
            "APEBench's arrays lie on a periodic cube with the same number of nodes on every axis; this grid has "
            f"{grid.shape} nodes on {[(a.length, a.boundary[0]) for a in grid.axes]}. Choose netcdf or zarr."
        )
    shape = (len(dataset), 1 + signature.frames, len(signature.outputs), *grid.shape)
    target = np.lib.format.open_memmap(path, mode="w+", dtype="<f4", shape=shape)
    for rows, (states,) in blocks(dataset, report):
        target[rows] = states.numpy()
    target.flush()
    told = {"name": dataset.problem, "domain_extent": grid.lengths[0], "num_points": grid.shape[0]}
    told |= {"num_spatial_dims": grid.dim, "dt": signature.spacing, ABOUT: json.loads(about(dataset))}
    path.with_suffix(".json").write_text(json.dumps(told, indent=1), encoding="utf-8")
