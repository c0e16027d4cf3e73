"""Fields on a grid, in and out of netCDF and xarray: what goes into a solver and what comes out of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from ..pde import Channel, Grid
from ._files import write_atomically
from ._netcdf import (
    CONVENTIONS,
    Variable,
    netcdf_bytes,
    sample_coordinate,
    space_coordinates,
    time_coordinate,
    units_of,
    versions,
)

if TYPE_CHECKING:
    import xarray

_NEAR = 1e-3  # of a spacing: what coordinates stored as float32 may be off


def load_fields(
    path: Path | str, channels: Sequence[Channel], like: Grid, *, dtype: torch.dtype = torch.float32
) -> tuple[Float[Tensor, "batch channel *space"], Grid]:
    """The named fields of a netCDF file and the grid they lie on: the domain of ``like``, at the file's resolution.

    Raises ``FileNotFoundError``, and ``ValueError`` saying what was expected and what the file has; see
    :func:`from_xarray` for what is checked.
    """
    import xarray

    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"There is no file {path}.")
    try:
        held = xarray.open_dataset(path, decode_times=False)
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} cannot be opened as netCDF: {error}") from error
    with held:
        try:
            return from_xarray(held, channels, like, dtype=dtype)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error


def from_xarray(
    held: xarray.Dataset, channels: Sequence[Channel], like: Grid, *, dtype: torch.dtype = torch.float32
) -> tuple[Float[Tensor, "batch channel *space"], Grid]:
    """One variable per channel, by name, with the dimensions of ``like``'s axes and, if there are several, ``sample``.

    A uniform channel may be a number, or one a sample. Dimensions may come in any order. Coordinates must be those of
    ``like``'s domain at some resolution. Raises ``ValueError`` for missing names, other dimensions, other or uneven
    coordinates, and NaN.
    """
    names = [axis.name for axis in like.axes]
    wanted = f"with dims (sample, {', '.join(names)})"
    absent = [channel.name for channel in channels if channel.name not in held]
    if absent:
        raise ValueError(f"expected variables {[c.name for c in channels]} {wanted}; {_has(held)}.")
    parts = []
    for channel in channels:
        variable = _spread(held, channel, channels, names)
        if not set(names) <= set(variable.dims) <= {"sample", *names} or variable.dtype.kind not in "fiu":
            hint = " Choose one frame: .isel(time=0)." if "time" in variable.dims else ""
            raise ValueError(f"expected real {channel.name!r} {wanted}; {_has(held)}.{hint}")
        if "sample" not in variable.dims:
            variable = variable.expand_dims("sample")
        parts.append(variable.transpose("sample", *names))
    if len({part.shape for part in parts}) > 1:
        raise ValueError(f"the variables differ in shape; {_has(held)}.")
    grid = _grid_of(parts[0], like)
    values = torch.from_numpy(np.stack([part.values for part in parts], axis=1)).to(dtype)
    finite = torch.isfinite(values).flatten(1).all(dim=1)
    if not bool(finite.all()):
        raise ValueError(f"non-finite values at sample(s) {(~finite).nonzero().flatten().tolist()[:8]}.")
    return values, grid


def _spread(
    held: xarray.Dataset, channel: Channel, channels: Sequence[Channel], names: Sequence[str]
) -> xarray.DataArray:
    """The variable of a channel; a uniform one without space axes on those of the first that has them."""
    variable = held[channel.name]
    if not channel.uniform or set(names) & set(variable.dims):
        return variable
    like = next((held[c.name] for c in channels if set(names) <= set(held[c.name].dims)), variable)
    return variable.broadcast_like(like)


def save_fields(
    path: Path | str,
    values: Float[Tensor, "batch *rest"],
    channels: Sequence[Channel],
    grid: Grid,
    *,
    times: Sequence[float] | None = None,
    time_unit: str = "1",
    attributes: Mapping[str, Any] | None = None,
) -> None:
    """Write ``batch channel *space``, or with ``times`` ``batch time channel *space``, as a netCDF-4 file, atomically.

    Precision is kept. ``attributes`` are global: words, numbers. Raises ``ValueError`` for a shape that does not
    fit and :class:`DiskFull`.
    """
    variables = _variables(values, channels, grid, times, time_unit)
    told = {"Conventions": CONVENTIONS, "source": f"resolvent {versions()['resolvent']}", **(attributes or {})}
    write_atomically(path, netcdf_bytes(variables, told))


def to_xarray(
    values: Float[Tensor, "batch *rest"],
    channels: Sequence[Channel],
    grid: Grid,
    *,
    times: Sequence[float] | None = None,
    time_unit: str = "1",
) -> xarray.Dataset:
    """The same fields with coordinates and units, in memory."""
    import xarray

    variables = _variables(values, channels, grid, times, time_unit)
    made = {name: xarray.Variable(v.dims, v.values, dict(v.attributes)) for name, v in variables.items()}
    names = {channel.name for channel in channels}
    coordinates = {name: variable for name, variable in made.items() if name not in names}
    return xarray.Dataset({name: made[name] for name in made if name in names}, coordinates)


def _variables(
    values: Tensor, channels: Sequence[Channel], grid: Grid, times: Sequence[float] | None, time_unit: str
) -> dict[str, Variable]:
    frames = () if times is None else (len(times),)
    expected = (len(values), *frames, len(channels), *grid.shape)
    if tuple(values.shape) != expected:
        raise ValueError(f"Expected fields of shape {expected}, got {tuple(values.shape)}.")
    variables = {"sample": sample_coordinate(np.arange(len(values)))}
    if times is not None:
        variables["time"] = time_coordinate(times, time_unit)
    variables |= space_coordinates(grid)
    dims = ("sample", *(("time",) if frames else ()), *(axis.name for axis in grid.axes))
    array = values.detach().cpu().numpy()
    for i, channel in enumerate(channels):
        if channel.name in variables:
            raise ValueError(f"Channel {channel.name!r} has the name of another variable or dimension.")
        attributes = {"units": units_of(channel.unit), "long_name": channel.label or channel.name}
        variables[channel.name] = Variable(dims, array[(slice(None),) * (1 + len(frames)) + (i,)], attributes)
    return variables


def _has(held: xarray.Dataset) -> str:
    listed = ", ".join(f"{name} {dict(variable.sizes)}" for name, variable in held.data_vars.items())
    return f"got {listed or 'no variables'}"


def _grid_of(variable: xarray.DataArray, like: Grid) -> Grid:
    grid = like.at(variable.shape[1:])
    for axis in grid.axes:
        expected = axis.coordinates().numpy()
        wanted = f"{axis.size} even steps from {expected[0]:.6g} to {expected[-1]:.6g} ({' / '.join(axis.boundary)})"
        if axis.name not in variable.coords:
            raise ValueError(f"dimension {axis.name!r} needs its coordinates, {wanted}.")
        got = variable.coords[axis.name].values
        if not np.allclose(got, expected, rtol=0, atol=_NEAR * axis.spacing):
            raise ValueError(f"coordinate {axis.name!r} must be {wanted}; it goes from {got[0]:.6g} to {got[-1]:.6g}.")
    return grid
