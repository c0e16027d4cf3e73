"""A Poseidon file: HDF5 or netCDF-4 with ``velocity (n,t,c,x,y)`` and nothing that says coordinates or times."""

from __future__ import annotations

import functools
from pathlib import Path

from ...pde import Grid
from ..dataset import Dataset
from ._foreign import Meaning, assembled, evolution, numbered, side
from ._hdf5 import hdf5_fits, hdf5_misfits, open_hdf5, shapes_of
from ._layout import Layout, first_fit
from ._slices import Part
from ._warnings import Assumption, tell

LAYOUTS = (Layout("velocity", {"velocity": "ntcxy"}),)


def matches(path: Path) -> bool:
    return hdf5_fits(path, LAYOUTS)


def misfit(path: Path) -> str:
    return hdf5_misfits(path, LAYOUTS)


def read(path: Path) -> Dataset:
    path = Path(path).resolve()
    with open_hdf5(path) as file:
        found = first_fit(LAYOUTS, shapes_of(file))
        if found is None:
            raise ValueError(f"{path} is no file of Poseidon: {hdf5_misfits(path, LAYOUTS)}.")
        held = file["velocity"]
        dtype, channels, sizes = held.dtype, numbered("velocity", held.shape[2]), found.sizes
    tell(Assumption, f"{path.name}: coordinates and boundary are not in the file; it is taken to be the unit torus.")
    signature = evolution(channels, None, sizes["t"], what=path.name)
    meaning = Meaning(path.stem, signature, Grid.box(found.shape))
    parts = (side(Part("velocity", "ntcxy")),)
    opening = functools.partial(open_hdf5, path)
    return assembled(path, "poseidon", "velocity", meaning, opening, parts, count=sizes["n"], dtype=dtype)
