"""Fields as the bytes of a netCDF-4 file with CF coordinates; the layout is written down in ``format.md``.

The file is made in memory and handed over as bytes, so that a full disk shows as one clean ``OSError``, the hash
needs no second reading, and equal values give equal bytes. Variables are contiguous: measured on Navier-Stokes
trajectories, zlib 1 with shuffle saves 21-24 % of the space but writes 4-6 times and reads 3-5 times slower.
"""

from __future__ import annotations

import importlib.metadata
import io
import platform
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from ..pde import Axis, Channel, Grid, Signature

CONVENTIONS = "CF-1.11"
_WRITING = threading.Lock()
Role = Literal["state", "given", "input", "output"]

# Long unit names of time make xarray decode numbers to durations; the UDUNITS symbols mean the same and stay numbers.
_SYMBOLS = {
    "days": "d",
    "hours": "h",
    "minutes": "min",
    "seconds": "s",
    "milliseconds": "ms",
    "microseconds": "us",
    "nanoseconds": "ns",
}


@dataclass(frozen=True)
class Variable:
    """A netCDF variable: dimension names, values, attributes."""

    dims: tuple[str, ...]
    values: np.ndarray
    attributes: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Stored:
    """Where a channel of a signature lies in a file: variable name, role, position among the channels of its role."""

    name: str
    role: Role
    position: int
    channel: Channel

    def dims(self, signature: Signature, grid: Grid) -> tuple[str, ...]:
        """Of its variable: what is given to an evolution has no time."""
        time = ("time",) if signature.evolves and self.role != "given" else ()
        return ("sample", *time, *(axis.name for axis in grid.axes))

    def of(self, arrays: Sequence[Any]) -> Any:
        """Its values in what :meth:`Source.arrays` gives, ``sample [time] *space``: a view."""
        side = arrays[0] if self.role in ("state", "input") else arrays[-1]
        return side[:, :, self.position] if self.role == "state" else side[:, self.position]


def stored_variables(signature: Signature, grid: Grid) -> tuple[Stored, ...]:
    """The variables of a dataset, in order. An input that shares its name with an output is called ``<name>_input``."""
    if signature.evolves:
        stored = [Stored(c.name, "state", i, c) for i, c in enumerate(signature.outputs)]
        stored += [Stored(c.name, "given", i, c) for i, c in enumerate(signature.given)]
    else:
        taken = {channel.name for channel in signature.outputs}
        stored = [Stored(c.name + "_input" * (c.name in taken), "input", i, c) for i, c in enumerate(signature.inputs)]
        stored += [Stored(c.name, "output", i, c) for i, c in enumerate(signature.outputs)]
    names = [s.name for s in stored]
    reserved = {"sample", "time", *(axis.name for axis in grid.axes)}
    if len(set(names)) < len(names) or reserved & set(names):
        raise ValueError(f"Channels need names that differ from each other and from {sorted(reserved)}; got {names}.")
    return tuple(stored)


def describe(stored: Stored) -> dict[str, str]:
    """The attributes of a channel's variable."""
    channel = stored.channel
    return {"units": units_of(channel.unit), "long_name": channel.label or channel.name, "role": stored.role}


def sample_coordinate(numbers: np.ndarray) -> Variable:
    return Variable(("sample",), numbers.astype(np.int64), {"units": "1", "long_name": "sample number"})


def time_coordinate(times: Sequence[float], unit: str) -> Variable:
    attributes = {"units": units_of(unit), "long_name": "time", "axis": "T"}
    return Variable(("time",), np.asarray(times, dtype=np.float64), attributes)


def space_coordinates(grid: Grid) -> dict[str, Variable]:
    return {axis.name: _space_coordinate(axis, "XYZ"[i]) for i, axis in enumerate(grid.axes)}


def _space_coordinate(axis: Axis, letter: str) -> Variable:
    attributes = {
        "units": units_of(axis.unit),
        "long_name": axis.name,
        "axis": letter,
        "boundary": " ".join(axis.boundary),
        "placement": axis.placement,
        "lower": axis.lower,
        "upper": axis.upper,
    }
    return Variable((axis.name,), axis.coordinates().numpy(), attributes)


def netcdf_bytes(variables: Mapping[str, Variable], attributes: Mapping[str, Any]) -> bytes:
    """A netCDF-4 file with these variables (coordinates are variables named like their dimension)."""
    import h5netcdf

    sizes: dict[str, int] = {}
    for name, variable in variables.items():
        if len(variable.dims) != variable.values.ndim:
            raise ValueError(f"Variable {name!r} has dims {variable.dims} but shape {variable.values.shape}.")
        for dim, size in zip(variable.dims, variable.values.shape, strict=True):
            if sizes.setdefault(dim, size) != size:
                raise ValueError(f"Dimension {dim!r} has size {size} in {name!r} and {sizes[dim]} elsewhere.")
    buffer = io.BytesIO()
    # One file at a time, and no use of freed space: h5netcdf makes a dimension twice, and whether the first one's space
    # was free for the next object differed between threads (one run in four), so equal values gave unequal bytes.
    with _WRITING, h5netcdf.File(buffer, "w", fs_strategy="none") as file:
        file.dimensions = sizes
        for name, variable in variables.items():
            made = file.create_variable(name, variable.dims, data=np.ascontiguousarray(variable.values))
            for key, value in variable.attributes.items():
                made.attrs[key] = value
        for key, value in attributes.items():
            file.attrs[key] = value
    return buffer.getvalue()


def versions() -> dict[str, str]:
    """What made the file, read from the installation."""
    names = ("resolvent", "torch", "numpy", "scipy", "h5netcdf", "h5py")
    return {"python": platform.python_version(), **{name: importlib.metadata.version(name) for name in names}}


def units_of(unit: str) -> str:
    """The unit as files state it."""
    return _SYMBOLS.get(unit, unit)
