"""A JAX-CFD netCDF file: ``u, v[, w][, c]`` with dims ``sample, time, x, y[, z]`` and the attribute ``domain_size``.

The torus is periodic, of side ``domain_size``. Velocities are stored on the faces of cells (attribute ``offset``); they
are read as they lie, with a warning, because a shift of half a cell is an error of first order in comparisons.
"""

from __future__ import annotations

import functools
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ...pde import Axis, Grid
from ..dataset import Dataset
from ._coordinates import even
from ._foreign import Meaning, assembled, evolution, named, side
from ._slices import Part
from ._warnings import Assumption, KnownFault, tell
from .netcdf import matches as is_netcdf
from .netcdf import open_netcdf

if TYPE_CHECKING:
    import xarray

_DIMS = {"sample": "n", "time": "t", "x": "x", "y": "y", "z": "z"}


def matches(path: Path) -> bool:
    if not is_netcdf(path):
        return False
    try:
        with warnings.catch_warnings(action="ignore"), open_netcdf(path) as held:
            return "domain_size" in held.attrs and {"u", "v"} <= set(held.data_vars)
    except ValueError:
        return False


def misfit(path: Path) -> str:
    return "no variables u, v with an attribute domain_size" if is_netcdf(path) else "not a netCDF file"


def read(path: Path) -> Dataset:
    path = Path(path).resolve()
    with open_netcdf(path) as held:
        names = [name for name in ("u", "v", "w", "c") if name in held]
        odd = set(held["u"].dims) - set(_DIMS)
        if odd or not {"time", "x", "y"} <= set(held["u"].dims):
            raise ValueError(f"{path}: u has dims {held['u'].dims}, expected sample, time, x, y[, z].")
        meaning = _meaning(path, held, names)
        parts = [Part(name, "".join(_DIMS[str(dim)] for dim in held[name].dims)) for name in names]
        count = int(held.sizes.get("sample", 1))
        dtype = held["u"].dtype
    opening = functools.partial(_open, path)
    layout = f"{meaning.grid.dim}-D"
    return assembled(path, "jax_cfd", layout, meaning, opening, (side(*parts),), count=count, dtype=dtype)


def _meaning(path: Path, held: xarray.Dataset, names: list[str]) -> Meaning:
    length = float(held.attrs["domain_size"])
    axes = []
    for dim in (dim for dim in "xyz" if dim in held["u"].dims):
        values = held[dim].values if dim in held.coords else length * np.arange(held.sizes[dim]) / held.sizes[dim]
        step = even(values, f"{path.name}: {dim}")
        if abs(step * len(values) - length) > 1e-3 * step:
            raise ValueError(f"{path}: {len(values)} steps of {step:.6g} along {dim} are not domain_size {length:.6g}.")
        axes.append(Axis(dim, len(values), float(values[0]), float(values[0]) + length))
    moved = [f"{name} {held[name].attrs['offset']}" for name in names if "offset" in held[name].attrs]
    if moved:
        told = f"velocities lie on faces (offsets in cells: {', '.join(moved)}), their coordinates do not say so"
        tell(KnownFault, f"{path.name}: {told}; interpolate before comparing with collocated solvers.")
    if "time" not in held.coords:
        tell(Assumption, f"{path.name}: no time coordinate.")
    times: Any = held["time"].values if "time" in held.coords else None
    signature = evolution(named(names), times, int(held.sizes["time"]), what=path.name)
    numbers = {name: float(v) for name, v in held.attrs.items() if isinstance(v, int | float | np.number)}
    return Meaning("incompressible_navier_stokes", signature, Grid(tuple(axes)), numbers)


class _Variables(dict[str, Any]):
    """The variables of an open file, whose slices are arrays."""


def _open(path: Path) -> _Variables:
    held = open_netcdf(path)
    return _Variables({str(name): held[name].variable for name in held.data_vars})
