"""A netCDF file with dimensions ``sample, [time,] x[, y[, z]]`` and a coordinate along each space dimension.

Every real variable with a ``sample`` dimension is a channel.

========== ==========================================================================================
evolution  channels have ``time``, evenly spaced; the first frame is the input, the rest the output;
           channels without ``time`` have the attribute ``role = given``: constant in time, inputs beside the state
static     no channel has ``time``; each has the attribute ``role``, which is ``input`` or ``output``
========== ==========================================================================================

Space may be absent: dimensions ``sample, time`` are series of a plain system. One long series, without ``sample``, is
cut into stretches, which takes its law not to change in time (a warning says so); ``time`` is evenly spaced.

Space coordinates are evenly spaced and increasing. Their attribute ``boundary`` is two words of periodic, dirichlet,
neumann, outflow (lower end, upper end) and ``placement`` is left, ends or centres (see :class:`Axis`); without
them the ends count as outflow with a node at each, and a warning says so. Attributes ``units`` and ``long_name``
are taken over, as are the global attributes ``problem`` and ``parameters`` (JSON).
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .._netcdf import (
    CONVENTIONS,
    Variable,
    describe,
    sample_coordinate,
    space_coordinates,
    stored_variables,
    time_coordinate,
    versions,
)
from ..dataset import Dataset
from ._foreign import Report, blocks, global_attributes
from ._hdf5 import is_hdf5, peeked
from ._xarray import read_xarray

if TYPE_CHECKING:
    import xarray

SUFFIXES = (".nc", ".nc4")

_CDF = (b"CDF\x01", b"CDF\x02", b"CDF\x05")  # the netCDF-3 family


def matches(path: Path) -> bool:
    if not path.is_file():
        return False
    if path.suffix in (".nc", ".nc4", ".cdf", ".netcdf"):
        return True
    with open(path, "rb") as stream:
        if stream.read(4) in _CDF:
            return True
    with peeked(path) as file:
        return file is not None and "_NCProperties" in file.attrs


def misfit(path: Path) -> str:
    return "HDF5 without the mark of netCDF-4" if is_hdf5(path) else "not a netCDF file"


def read(path: Path) -> Dataset:
    """The samples of one file, read lazily. Raises ``ValueError`` saying what was expected and what the file has."""
    return read_xarray(path, "netcdf", open_netcdf)


def open_netcdf(path: Path) -> xarray.Dataset:
    import xarray

    try:
        return xarray.open_dataset(path, decode_times=False, cache=False)
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} cannot be opened as netCDF: {error}") from error


def coordinates_of(dataset: Dataset) -> dict[str, Variable]:
    """The coordinate variables of a dataset as one file."""
    signature = dataset.signature
    made = {"sample": sample_coordinate(np.arange(len(dataset)))}
    if signature.evolves:
        made["time"] = time_coordinate((0.0, *signature.times), signature.time_unit)
    return {**made, **space_coordinates(dataset.grid)}


def write(dataset: Dataset, path: Path, report: Report) -> None:
    """A netCDF-4 file like one of our shards, of any length, written block by block."""
    import h5netcdf

    stored = stored_variables(dataset.signature, dataset.grid)
    with h5netcdf.File(path, "w") as file:
        coordinates = coordinates_of(dataset)
        file.dimensions = {name: len(variable.values) for name, variable in coordinates.items()}
        targets: list[Any] = [
            file.create_variable(s.name, s.dims(dataset.signature, dataset.grid), "<f4") for s in stored
        ]
        for name, variable in coordinates.items():
            made = file.create_variable(name, variable.dims, data=variable.values)
            made.attrs.update(variable.attributes)
        for target, one in zip(targets, stored, strict=True):
            target.attrs.update(describe(one))
        told = {"Conventions": CONVENTIONS, "source": f"resolvent {versions()['resolvent']}"}
        file.attrs.update({**told, **global_attributes(dataset)})
        for rows, arrays in blocks(dataset, report):
            for target, one in zip(targets, stored, strict=True):
                target[rows] = one.of(arrays).numpy()
