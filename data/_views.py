"""A dataset as an ``xarray.Dataset`` whose values are read when asked for, without dask."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray
from xarray.backends import BackendArray
from xarray.core import indexing

from ._netcdf import Stored, Variable, describe, sample_coordinate, space_coordinates, stored_variables, time_coordinate
from .dataset import Dataset, as_arrays


class _Lazy(BackendArray):
    """One variable of a dataset: ``sample [time] *space``."""

    def __init__(self, dataset: Dataset, stored: Stored, shape: tuple[int, ...]) -> None:
        self.dataset = dataset
        self.stored = stored
        self.shape = shape
        self.dtype = np.dtype(np.float32)

    def __getitem__(self, key: indexing.ExplicitIndexer) -> Any:
        return indexing.explicit_indexing_adapter(key, self.shape, indexing.IndexingSupport.OUTER, self._read)

    def _read(self, key: tuple[Any, ...]) -> np.ndarray:
        """``key`` has an integer, a slice or a vector per axis, each acting on its own axis."""
        sample, *rest = key
        wanted = np.atleast_1d(np.arange(self.shape[0])[sample])
        values = self._values(wanted)
        for axis in reversed(range(1, values.ndim)):
            values = values[(slice(None),) * axis + (rest[axis - 1],)]
        return values[0] if np.ndim(sample) == 0 and not isinstance(sample, slice) else values

    def _values(self, wanted: np.ndarray) -> np.ndarray:
        arrays = as_arrays(self.dataset.signature, *self.dataset.read(wanted))
        return self.stored.of(arrays).numpy()


def as_xarray(dataset: Dataset) -> xarray.Dataset:
    """See :meth:`Dataset.to_xarray`."""
    signature, grid = dataset.signature, dataset.grid
    coordinates = {"sample": sample_coordinate(dataset.numbers), **space_coordinates(grid)}
    if signature.evolves:
        coordinates["time"] = time_coordinate([0.0, *signature.times], signature.time_unit)
    variables = {}
    for stored in stored_variables(signature, grid):
        dims = stored.dims(signature, grid)
        shape = tuple(len(coordinates[dim].values) for dim in dims)
        lazy = indexing.LazilyIndexedArray(_Lazy(dataset, stored, shape))
        variables[stored.name] = xarray.Variable(dims, lazy, describe(stored))
    attributes = {"title": f"Samples of {dataset.problem}", "problem": dataset.problem}
    return xarray.Dataset(variables, {k: _plain(v) for k, v in coordinates.items()}, attributes)


def _plain(variable: Variable) -> xarray.Variable:
    return xarray.Variable(variable.dims, variable.values, dict(variable.attributes))
