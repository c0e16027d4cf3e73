"""Gridded values of a file that xarray opens, read where they are sliced: what an archive is made of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..data import Assumption
from ..data.formats._coordinates import axis_of
from ..data.formats._warnings import tell
from ..data.formats.netcdf import open_netcdf
from ..pde import Axis, Channel, Grid

if TYPE_CHECKING:
    import xarray


class FileValues:
    """``channel *space`` values of variables of a file with the same dimensions."""

    def __init__(self, held: xarray.Dataset, names: Sequence[str], at: Mapping[str, int]) -> None:
        self._parts = [held[name].isel(dict(at)) for name in names]
        self.dims = tuple(str(dim) for dim in self._parts[0].dims)
        self._parts = [part.transpose(*self.dims) for part in self._parts]
        self.shape = (len(names), *self._parts[0].shape)
        self.dtype = np.result_type(np.float32, *(part.dtype for part in self._parts))  # of integers, what holds them

    def __getitem__(self, place: tuple[slice, ...]) -> np.ndarray:
        chosen, *space = place if isinstance(place, tuple) else (place,)
        parts = self._parts[chosen]
        return np.stack([part[tuple(space)].values for part in parts]).astype(self.dtype, copy=False)


def open_values(
    path: Path,
    *,
    variables: Sequence[str] = (),
    at: Mapping[str, int] = {},
    periodic: Sequence[str] = (),
) -> tuple[FileValues, Grid, tuple[Channel, ...]]:
    """The values, their axes (time is one), names and units.

    variables   which; none: all real ones that have the most dimensions
    at          one number of a dimension that shall be no axis, such as a sample
    periodic    axes that are, where the file does not say so itself

    Raises ``FileNotFoundError``, and ``ValueError`` saying what was expected and what the file has.
    """
    if not path.exists():
        raise FileNotFoundError(f"There is no file {path}.")
    held = open_netcdf(path)
    names = _names(path, held, variables)
    for dim, number in at.items():
        if dim not in held[names[0]].dims or not -held.sizes[dim] <= number < held.sizes[dim]:
            raise ValueError(f"{path}: {dim}={number} is not among its dimensions {dict(held[names[0]].sizes)}.")
    values = FileValues(held, names, at)
    if absent := sorted(set(periodic) - set(values.dims)):
        raise ValueError(f"{path}: axes are {', '.join(values.dims)}; periodic names {', '.join(absent)}.")
    grid = Grid(tuple(_axis(path, held, dim, dim in periodic) for dim in values.dims))
    channels = tuple(
        Channel(name, str(held[name].attrs.get("units", "1")), str(held[name].attrs.get("long_name", "")))
        for name in names
    )
    return values, grid, channels


def _names(path: Path, held: xarray.Dataset, wanted: Sequence[str]) -> list[str]:
    real = {str(name): v for name, v in held.data_vars.items() if v.dtype.kind in "fiu" and v.ndim}
    if absent := [name for name in wanted if name not in real]:
        raise ValueError(f"{path} has no real variable {', '.join(absent)}; it has {', '.join(real) or 'none'}.")
    most = max((v.ndim for v in real.values()), default=0)
    names = list(wanted) or [name for name, v in real.items() if v.ndim == most]
    if not names:
        raise ValueError(f"{path} has no real variable on a grid.")
    sizes = {name: dict(real[name].sizes) for name in names}
    if any(set(one.items()) != set(sizes[names[0]].items()) for one in sizes.values()):
        raise ValueError(f"{path}: variables of one archive lie on the same nodes; these have {sizes}. Choose some.")
    return names


def _axis(path: Path, held: xarray.Dataset, dim: str, periodic: bool) -> Axis:
    size = held.sizes[dim]
    if size < 2:
        raise ValueError(f"{path}: axis {dim!r} has {size} point, a field needs two: leave it out by --at {dim}=0.")
    if dim not in held.coords:
        tell(Assumption, f"{path}: dimension {dim!r} has no coordinate; its nodes are numbered from 0.")
    known = held[dim].values if dim in held.coords else np.arange(size)
    attributes: Mapping[str, Any] = held[dim].attrs if dim in held.coords else {}
    boundary: Any = tuple(str(attributes.get("boundary", "")).split())
    if periodic:
        boundary = ("periodic", "periodic")
    elif not boundary:
        boundary = ("outflow", "outflow")
        if dim not in ("time", "t", "sample"):
            tell(Assumption, f"{path}: coordinate {dim!r} says nothing of its ends; not periodic (--periodic {dim}).")
    unit = str(attributes.get("units", "1"))
    what = f"{path}: coordinate {dim!r}"
    if not periodic and {"lower", "upper", "placement"} <= set(attributes):
        told = Axis(dim, size, float(attributes["lower"]), float(attributes["upper"]), boundary,
                    attributes["placement"], unit)  # fmt: skip
        if np.allclose(told.coordinates().numpy(), known, rtol=0, atol=1e-3 * told.spacing):
            return told
    return axis_of(dim, np.asarray(known), boundary, what=what, unit=unit)
