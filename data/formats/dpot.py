"""DPOT HDF5: ``data (x,y,t,c)``, a file or a folder of files ``data_0.hdf5``, … with a sample each, or ``(n,x,y,t,c)``.

Files of one resolution can be read; DPOT fills channels that a data set does not have with ones, and says neither
coordinates nor times.
"""

from __future__ import annotations

import functools
import re
from pathlib import Path

import numpy as np

from ...pde import Grid
from ..dataset import Dataset
from ._foreign import Meaning, assembled, evolution, numbered, side
from ._hdf5 import hdf5_fits, hdf5_misfits, open_hdf5, shapes_of
from ._layout import Layout, first_fit
from ._slices import Joined, Part
from ._warnings import Assumption, KnownFault, tell

LAYOUTS = (Layout("one sample", {"data": "xytc"}), Layout("many samples", {"data": "nxytc"}))
_NUMBERED = re.compile(r"data_(\d+)\.(hdf5|h5)")


def matches(path: Path) -> bool:
    files = _files(path)
    return bool(files) and hdf5_fits(files[0], LAYOUTS)


def misfit(path: Path) -> str:
    return "no folder of data_0.hdf5, …" if path.is_dir() else hdf5_misfits(path, LAYOUTS)


def read(path: Path) -> Dataset:
    path = Path(path).resolve()
    parts = [_read_one(file) for file in _files(path)]
    first = parts[0]
    for other, file in zip(parts, _files(path), strict=True):
        if (other.grid, other.signature) != (first.grid, first.signature):
            raise ValueError(f"{file} has {other.grid.shape} nodes, the first file {first.grid.shape}.")
    tell(Assumption, f"{path.name}: coordinates and boundary are not in the file; it is taken to be the unit torus.")
    tell(Assumption, f"{path.name}: the file does not say its times; one frame counts as one unit.")
    _warn_of_ones(path, first)
    told = {**first.source, "file": path.name}
    samples = parts[0].samples if len(parts) == 1 else Joined(tuple(part.samples for part in parts))
    return Dataset(path.stem, {}, first.signature, first.grid, told, samples)


def _files(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    found = [(entry, _NUMBERED.fullmatch(entry.name)) for entry in path.iterdir()] if path.is_dir() else []
    return [entry for _, entry in sorted((int(match[1]), entry) for entry, match in found if match)]


def _read_one(path: Path) -> Dataset:
    with open_hdf5(path) as file:
        found = first_fit(LAYOUTS, shapes_of(file))
        if found is None:
            raise ValueError(f"{path} is no file of DPOT: {hdf5_misfits(path, LAYOUTS)}.")
        held = file["data"]
        dtype, channels, frames = held.dtype, numbered("channel", held.shape[-1]), found.sizes["t"]
    signature = evolution(channels, np.arange(frames), frames, what=path.name)
    meaning = Meaning(path.stem, signature, Grid.box(found.shape))
    parts = (side(Part("data", found.axes["data"])),)
    opening = functools.partial(open_hdf5, path)
    count = found.sizes.get("n", 1)
    return assembled(path, "dpot", found.layout.name, meaning, opening, parts, count=count, dtype=dtype)


def _warn_of_ones(path: Path, dataset: Dataset) -> None:
    first = dataset.trajectories([0])[0]
    filled = [c.name for i, c in enumerate(dataset.signature.outputs) if bool((first[:, i] == 1).all())]
    if filled:
        told = f"{', '.join(filled)} hold nothing but ones, DPOT's filling of channels that are missing"
        tell(KnownFault, f"{path.name}: {told}.")
