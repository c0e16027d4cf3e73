"""Files that xarray opens: dimensions ``sample, [time,] x[, y[, z]]``, read lazily. See ``netcdf.py``."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import numpy as np
import torch
from torch import Tensor

from ...pde import Axis, Channel, Grid, Signature
from .._files import PerProcess, path_digest
from .._netcdf import Role, stored_variables
from ..dataset import Dataset, Source
from ._coordinates import REACH, even
from ._warnings import Assumption, tell

if TYPE_CHECKING:
    import xarray

STRETCHES = 20  # of one long series: 16 to train, 2 to select, 2 to judge
_STRETCHED = "resolvent_stretches"

_Sides = tuple[tuple[str, ...], ...]  # (states[, given]) of an evolution, (inputs, outputs) of a static map


Opening = Callable[[Path], "xarray.Dataset"]


def read_xarray(path: Path, kind: str, opening: Opening) -> Dataset:
    """The samples of one file. Raises ``ValueError`` saying what was expected and what the file has."""
    path = Path(path).resolve()
    file = PerProcess(functools.partial(_cut, path, opening))
    held = file.get()
    _tell_cut(path, held)
    channels = _channels(path, held)
    if "signature" in held.attrs and "grid" in held.attrs:  # written by us
        signature = Signature.from_dict(json.loads(held.attrs["signature"]))
        grid = Grid.from_dict(json.loads(held.attrs["grid"]))
        sides = _named(path, held, signature, grid)
    else:
        dims = next(iter(channels.values())).dims
        space = tuple(str(dim) for dim in dims if dim not in ("sample", "time"))
        evolves = any("time" in v.dims for v in channels.values())
        known = len(space) in (1, 2, 3) or (evolves and not space)
        if not known or any(set(v.dims) != _dims(v, space, evolves) for v in channels.values()):
            raise _unexpected(path, held)
        grid = Grid(tuple(_axis(path, held, dim) for dim in space))
        sides = _sides(path, channels, evolves)
        signature = _signature(path, held, channels, sides)
    told = {"kind": kind, "file": path.name, "dtype": str(channels[sides[0][0]].dtype)}
    told |= {name: str(held.attrs[name]) for name in ("source", "title", "seed") if name in held.attrs}
    problem = str(held.attrs.get("problem", path.stem))
    return Dataset(problem, _parameters(path, held), signature, grid, told, _File(path, file, grid, sides))


def _cut(path: Path, opening: Opening) -> xarray.Dataset:
    """One long series without ``sample`` becomes as many stretches as make samples; each begins where one ends."""
    held = opening(path)
    named = [v for v in held.data_vars.values() if v.dtype.kind == "f" and "time" in v.dims]
    placed = all(str(dim) in held.coords for variable in named for dim in variable.dims)
    if "sample" in held.dims or not named or not placed:  # what has no coordinates may be samples under another name
        return held
    import xarray

    _even(path, held, "time")
    count = min(STRETCHES, (held.sizes["time"] - 1) // 2)
    if count < 3:
        raise ValueError(
            f"{path}: one series is cut into stretches of at least 2 steps, and {held.sizes['time']} times do not make "
            "the 3 that training, validation and test need."
        )
    length = (held.sizes["time"] - 1) // count
    first = held["time"].isel(time=slice(0, length + 1))
    parts = [held.isel(time=slice(i * length, (i + 1) * length + 1)) for i in range(count)]
    whole = xarray.concat([part.assign_coords(time=first) for part in parts], dim="sample", data_vars="all")
    return whole.assign_attrs({_STRETCHED: count})


def _tell_cut(path: Path, held: xarray.Dataset) -> None:
    if _STRETCHED in held.attrs:
        steps = held.sizes["time"] - 1
        told = f"{path}: one series, without the dimension sample, is cut into {held.attrs[_STRETCHED]} stretches"
        tell(Assumption, f"{told} of {steps} steps; that takes its law not to change in time.")


class _File(Source):
    """Samples of one netCDF file. ``sides`` are the variables of each array that a source gives."""

    def __init__(self, path: Path, file: PerProcess[xarray.Dataset], grid: Grid, sides: _Sides) -> None:
        self.path = path
        self.sides = sides
        self.space = tuple(axis.name for axis in grid.axes)
        self._file = file
        self._count = int(file.get().sizes["sample"])

    def __len__(self) -> int:
        return self._count

    def arrays(self, indices: np.ndarray) -> tuple[Tensor, ...]:
        held = self._file.get()
        arrays = []
        for side in self.sides:
            parts = [held[name].isel(sample=indices).transpose("sample", ..., *self.space).values for name in side]
            array = torch.from_numpy(np.stack(parts, axis=-1 - len(self.space)).astype(np.float32, copy=False))
            finite = torch.isfinite(array).flatten(1).all(dim=1).numpy()
            if not finite.all():
                bad = indices[~finite].tolist()
                raise ValueError(f"{self.path}: non-finite values in {', '.join(side)} at sample(s) {bad[:8]}.")
            arrays.append(array)
        return tuple(arrays)

    @property
    def fingerprint(self) -> str:
        return path_digest(self.path)


def _found(held: xarray.Dataset) -> str:
    listed = ", ".join(f"{name} {dict(variable.sizes)}" for name, variable in held.data_vars.items())
    return f"the file has {listed or 'no variables'}"


def _unexpected(path: Path, held: xarray.Dataset) -> ValueError:
    return ValueError(
        f"{path}: expected real variables that all have the dimensions sample, [time,] x[, y[, z]] (or sample, time: "
        f"series without space); {_found(held)}."
    )


def _dims(variable: xarray.DataArray, space: tuple[str, ...], evolves: bool) -> set[str]:
    """What a channel must have."""
    return {"sample", *space, *(["time"] if evolves and variable.attrs.get("role") != "given" else [])}


def _channels(path: Path, held: xarray.Dataset) -> dict[str, xarray.DataArray]:
    channels = {str(n): v for n, v in held.data_vars.items() if "sample" in v.dims and v.dtype.kind == "f"}
    if not channels:
        raise _unexpected(path, held)
    return channels


def _named(path: Path, held: xarray.Dataset, signature: Signature, grid: Grid) -> _Sides:
    """The variables that the file's own signature names, checked against its grid."""
    stored = stored_variables(signature, grid)
    known = {axis.name: axis.size for axis in grid.axes} | {"time": 1 + signature.frames}
    for one in stored:
        sizes = {dim: known[dim] for dim in one.dims(signature, grid) if dim != "sample"}
        got = {k: v for k, v in held[one.name].sizes.items() if k != "sample"} if one.name in held else None
        if got != sizes:
            raise ValueError(f"{path}: its signature promises {one.name!r} with {sizes}; {_found(held)}.")
    sides = (tuple(s.name for s in stored if s.role == role) for role in get_args(Role))
    return tuple(side for side in sides if side)


def _sides(path: Path, channels: dict[str, xarray.DataArray], evolves: bool) -> _Sides:
    roles = {name: variable.attrs.get("role") for name, variable in channels.items()}
    if evolves:
        given = tuple(name for name, role in roles.items() if role == "given")
        states = tuple(name for name in channels if name not in given)
        return (states, given) if given else (states,)
    sides = tuple(tuple(name for name, told in roles.items() if told == role) for role in ("input", "output"))
    if not all(sides) or set(roles.values()) - {"input", "output"}:
        raise ValueError(
            f"{path}: a static map (no time dimension) needs the attribute role = 'input' or 'output' on every "
            f"variable and at least one of each; the file has {roles}."
        )
    return sides


def _signature(path: Path, held: xarray.Dataset, channels: dict[str, xarray.DataArray], sides: _Sides) -> Signature:
    told = [tuple(_channel(name, channels[name]) for name in side) for side in sides]
    if "time" not in channels[sides[0][0]].dims:
        return Signature(told[0], told[1])
    times, step = _even(path, held, "time")
    if len(times) < 2:
        raise ValueError(f"{path}: an evolution needs at least 2 frames, its time has {len(times)}.")
    unit = str(held["time"].attrs.get("units", "1"))
    return Signature(sum(told, ()), told[0], len(times) - 1, step, unit)


def _channel(name: str, variable: xarray.DataArray) -> Channel:
    return Channel(name, str(variable.attrs.get("units", "1")), str(variable.attrs.get("long_name", "")))


def _even(path: Path, held: xarray.Dataset, dim: str) -> tuple[np.ndarray, float]:
    """A coordinate and its spacing; refused where it is missing or not evenly spaced and increasing."""
    if dim not in held.coords:
        raise ValueError(f"{path}: dimension {dim!r} needs a coordinate variable of the same name.")
    values = held[dim].values.astype(np.float64)
    return values, even(values, f"{path}: coordinate {dim!r}")


def _axis(path: Path, held: xarray.Dataset, dim: str) -> Axis:
    values, step = _even(path, held, dim)
    attributes = held[dim].attrs
    if "boundary" not in attributes:
        told = f"{path}: coordinate {dim!r} has no attribute 'boundary' (such as 'periodic periodic')"
        tell(Assumption, f"{told}; its ends count as outflow.")
    boundary: Any = tuple(str(attributes.get("boundary", "outflow outflow")).split())
    placement = str(attributes.get("placement", "left" if "periodic" in boundary else "ends"))
    first, last = float(values[0]), float(values[-1])
    below, above = REACH.get(placement, (0.0, 0.0))  # type: ignore[call-overload]
    unit = str(attributes.get("units", "1"))
    return Axis(dim, len(values), first - below * step, last + above * step, boundary, placement, unit)  # type: ignore[arg-type]


def _parameters(path: Path, held: xarray.Dataset) -> dict[str, Any]:
    text = held.attrs.get("parameters", "{}")
    try:
        values = json.loads(text)
    except (TypeError, ValueError):
        values = None
    if not isinstance(values, dict):
        raise ValueError(f"{path}: the attribute 'parameters' must be a JSON object, it is {text!r}.")
    return values
