"""A zarr group, v2 or v3, with dimensions ``sample, [time,] x[, y[, z]]`` as in ``netcdf``."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .._netcdf import describe, stored_variables
from ..dataset import Dataset
from ._foreign import Report, blocks, global_attributes
from ._xarray import read_xarray
from .netcdf import coordinates_of

if TYPE_CHECKING:
    import xarray

SUFFIXES = (".zarr",)

_MARKS = (".zgroup", ".zmetadata", "zarr.json")
_CHUNK_BYTES = 1 << 20


def matches(path: Path) -> bool:
    return path.is_dir() and any((path / name).exists() for name in _MARKS)


def misfit(path: Path) -> str:
    return "not a folder with " + " or ".join(_MARKS)


def read(path: Path) -> Dataset:
    """The samples of a group, read lazily; needs the extra ``zarr``."""
    _library()
    return read_xarray(path, "zarr", _open)


def _library() -> Any:
    try:
        import zarr
    except ImportError as error:
        raise ValueError("Zarr needs the package zarr: pip install 'resolvent[zarr]'.") from error
    return zarr


def _open(path: Path) -> xarray.Dataset:
    import xarray

    group = _library().open_group(path, mode="r")
    # version 2 fills with 0 unless told otherwise; xarray would take every 0 for a missing value
    masked = all(array.fill_value != 0 for _, array in group.arrays())
    consolidated = (path / ".zmetadata").exists()
    try:
        return xarray.open_zarr(path, chunks=None, decode_times=False, mask_and_scale=masked, consolidated=consolidated)
    except (OSError, ValueError, KeyError) as error:
        raise ValueError(f"{path} cannot be opened as zarr: {error}") from error


def write(dataset: Dataset, path: Path, report: Report) -> None:
    """Version 2 with consolidated metadata, which every reader knows; some samples a chunk."""
    zarr = _library()
    coordinates = coordinates_of(dataset)
    stored = stored_variables(dataset.signature, dataset.grid)
    group = zarr.create_group(path, zarr_format=2, attributes=global_attributes(dataset))
    for name, variable in coordinates.items():
        made = group.create_array(name, shape=variable.values.shape, dtype=variable.values.dtype)
        made[...] = variable.values
        made.attrs.update({**variable.attributes, "_ARRAY_DIMENSIONS": list(variable.dims)})
    targets = []
    for one in stored:
        dims = one.dims(dataset.signature, dataset.grid)
        shape = tuple(len(coordinates[dim].values) for dim in dims)
        chunks = (max(1, min(len(dataset), _CHUNK_BYTES // (4 * math.prod(shape[1:])))), *shape[1:])
        made = group.create_array(one.name, shape=shape, chunks=chunks, dtype="<f4", fill_value=np.nan)
        made.attrs.update({**describe(one), "_ARRAY_DIMENSIONS": list(dims)})
        targets.append(made)
    for rows, arrays in blocks(dataset, report):
        for target, one in zip(targets, stored, strict=True):
            target[rows] = one.of(arrays).numpy()
    zarr.consolidate_metadata(path)
