"""``xarray.open_dataset("u.rfield")``: values at the nodes, computed where they are looked at; ``ds.field``: anywhere.

At the nodes the dataset has what was stored, within its bound where there is one. ``ds.field`` asks the continuous
field, without what was stored beside it at the nodes:

.. code-block:: python

    ds.field.sel(x=0.3, y=[0.1, 0.2])            # one position, or positions an axis; DataArrays are taken pointwise
    ds.field.d("x").sel(x=0.3, y=0.1)            # exact derivatives; .d("x", "x"), .d("x").d("y")
    ds.field.laplacian().sel(x=0.3, y=0.1)       # along all axes but time

Axes that are not named are taken at their nodes. A position outside the domain is refused unless ``extrapolate=True``.
Importing this module registers the accessor; it imports torch only when an archive is read.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray
from xarray.backends import BackendArray, BackendEntrypoint
from xarray.core import indexing

if TYPE_CHECKING:
    from ._archive import Archive

SUFFIX, MARK = ".rfield", b"\x89RFIELD\n"
SOURCE = "rfield"  # key of the encoding that says which file
TIMES = ("time", "t")  # axes that a Laplacian leaves out


class FieldBackend(BackendEntrypoint):
    """Opens ``.rfield`` archives; the entry point ``rfield`` of the group ``xarray.backends``."""

    description = "Fields of resolvent: values at nodes, computed when looked at"
    open_dataset_parameters = ("filename_or_obj", "drop_variables")

    def open_dataset(
        self, filename_or_obj: Any, *, drop_variables: str | Iterable[str] | None = None
    ) -> xarray.Dataset:
        from ._archive import load_field

        path = str(Path(filename_or_obj).resolve())
        archive = load_field(path)
        dropped = {drop_variables} if isinstance(drop_variables, str) else set(drop_variables or ())
        dims = tuple(axis.name for axis in archive.grid.axes)
        variables = {}
        for number, channel in enumerate(archive.channels):
            if channel.name not in dropped:
                lazy = indexing.LazilyIndexedArray(_Nodes(path, number))
                attributes = {"units": channel.unit, "long_name": channel.label or channel.name}
                variables[channel.name] = xarray.Variable(dims, lazy, attributes, encoding={SOURCE: path})
        told = {"bits_per_value": archive.bits_per_value, **_flat(archive.report)}
        if archive.residual is not None:
            told["error_bound"] = archive.residual.bound
        made = xarray.Dataset(variables, _coordinates(archive), told)
        made.encoding[SOURCE] = path
        return made

    def guess_can_open(self, filename_or_obj: Any) -> bool:
        if not isinstance(filename_or_obj, str | os.PathLike):
            return False
        path = Path(filename_or_obj)
        if path.suffix == SUFFIX:
            return True
        if not path.is_file():
            return False
        with open(path, "rb") as file:
            return file.read(len(MARK)) == MARK


class _Nodes(BackendArray):
    """One channel at the nodes; holds the path alone, so that it may be sent to other processes."""

    def __init__(self, path: str, channel: int) -> None:
        archive = _archive(path)
        self.path, self.channel = path, channel
        self.shape = archive.grid.shape
        self.dtype = np.dtype("f8" if archive.residual is None else archive.residual.dtype)

    def __getitem__(self, key: indexing.ExplicitIndexer) -> np.typing.ArrayLike:
        return indexing.explicit_indexing_adapter(key, self.shape, indexing.IndexingSupport.OUTER, self._at)

    def _at(self, key: tuple[Any, ...]) -> np.ndarray:
        places = [np.atleast_1d(np.arange(n)[k]) for n, k in zip(self.shape, key, strict=True)]
        values = _archive(self.path).values(places)[self.channel]
        kept = tuple(0 if isinstance(k, int | np.integer) else slice(None) for k in key)
        return np.asarray(values[kept])


@xarray.register_dataset_accessor("field")
class FieldAccessor:
    """The continuous field of a dataset that was opened from an archive."""

    def __init__(self, dataset: xarray.Dataset) -> None:
        self._path = dataset.encoding.get(SOURCE) or next(
            (v.encoding[SOURCE] for v in dataset.data_vars.values() if SOURCE in v.encoding), None
        )
        self._names = [str(name) for name in dataset.data_vars]

    def sel(self, *, extrapolate: bool = False, **positions: Any) -> xarray.Dataset:
        """Values; see the module."""
        return self._query().sel(extrapolate=extrapolate, **positions)

    def d(self, *axes: str) -> Query:
        """The derivative by these axes, one after the other."""
        return self._query().d(*axes)

    def laplacian(self, *axes: str) -> Query:
        """The sum of second derivatives along these axes; none named: along all but time."""
        return self._query().laplacian(*axes)

    def _query(self) -> Query:
        if self._path is None:
            raise ValueError(
                f'This dataset does not come from an {SUFFIX} archive: xarray.open_dataset("u{SUFFIX}").field does.'
            )
        return Query(self._path, tuple(self._names))


class Query:
    """A derivative, to be asked at positions. ``terms``: sequences of axes to differentiate by, which are summed."""

    def __init__(self, path: str, names: tuple[str, ...], terms: tuple[tuple[str, ...], ...] = ((),)) -> None:
        self.path, self.names, self.terms = path, names, terms

    def d(self, *axes: str) -> Query:
        """The derivative of this by these axes."""
        known = [axis.name for axis in _archive(self.path).grid.axes]
        if not axes or set(axes) - set(known):
            raise ValueError(f"Derivatives are by {', '.join(known)}; got {', '.join(axes) or 'no axis'}.")
        return Query(self.path, self.names, tuple((*term, *axes) for term in self.terms))

    def laplacian(self, *axes: str) -> Query:
        """The Laplacian of this."""
        known = [axis.name for axis in _archive(self.path).grid.axes]
        chosen = axes or tuple(name for name in known if name not in TIMES)
        if not chosen:
            raise ValueError(f"There is no space axis among {', '.join(known)}: name the axes.")
        parts = [self.d(name, name).terms for name in chosen]
        return Query(self.path, self.names, sum(parts, ()))

    def sel(self, *, extrapolate: bool = False, **positions: Any) -> xarray.Dataset:
        """At positions: a number, several (an axis of the answer), or DataArrays, which broadcast by their names."""
        archive = _archive(self.path)
        axes = [axis.name for axis in archive.grid.axes]
        if unknown := sorted(set(positions) - set(axes)):
            raise ValueError(f"Axes of this field are {', '.join(axes)}; got {', '.join(unknown)}.")
        given = [_position(archive, name, positions.get(name)) for name in axes]
        spread = xarray.broadcast(*given)
        points = np.stack([np.asarray(part.values, dtype=np.float64).reshape(-1) for part in spread], axis=1)
        values = _evaluated(archive, points, self.terms, extrapolate)
        coordinates = dict(zip(axes, given, strict=True))
        variables = {}
        for channel, column in zip(archive.channels, values.T, strict=True):
            if channel.name in self.names:
                attributes = {"units": self._unit(archive, channel.unit), "long_name": channel.label or channel.name}
                variables[channel.name] = (spread[0].dims, column.reshape(spread[0].shape), attributes)
        return xarray.Dataset(variables, coordinates)

    def _unit(self, archive: Archive, unit: str) -> str:
        known = {axis.name: axis.unit for axis in archive.grid.axes}
        below = "".join(f" {known[name]}-1" for name in self.terms[0] if known[name] != "1")
        return f"{unit}{below}" if unit != "1" or not below else below.strip()


def _position(archive: Archive, name: str, given: Any) -> xarray.DataArray:
    axis = next(axis for axis in archive.grid.axes if axis.name == name)
    attributes = {"units": axis.unit}
    if isinstance(given, xarray.DataArray):
        return given
    values = axis.coordinates().numpy() if given is None else np.asarray(given, dtype=np.float64)
    if values.ndim > 1:
        raise ValueError(f"Positions along {name} are numbers in a row; for other shapes give DataArrays.")
    return xarray.DataArray(values, dims=(name,) if values.ndim else (), attrs=attributes)


def _evaluated(archive: Archive, points: np.ndarray, terms: tuple[tuple[str, ...], ...], extrapolate: bool) -> Any:
    import torch

    from ._field import CHUNK, derivative

    field, names = archive.field, [axis.name for axis in archive.grid.axes]
    where = torch.from_numpy(points)
    if not extrapolate:
        field.check(where)
    indices = [tuple(names.index(name) for name in term) for term in terms]
    with torch.no_grad():
        parts = [sum(derivative(field, part, along) for along in indices) for part in where.split(CHUNK)]
    return torch.cat(parts).numpy()  # type: ignore[arg-type] # tensors


def _archive(path: str) -> Archive:
    from ._archive import load_field

    return load_field(path)


def _coordinates(archive: Archive) -> dict[str, Any]:
    """With the attributes by which this program knows the axes again."""
    made = {}
    for axis in archive.grid.axes:
        ends = {"boundary": " ".join(axis.boundary), "placement": axis.placement}
        attributes = {"units": axis.unit, **ends, "lower": axis.lower, "upper": axis.upper}
        made[axis.name] = (axis.name, axis.coordinates().numpy(), attributes)
    return made


def _flat(report: Mapping[str, Any]) -> dict[str, Any]:
    """What attributes of a dataset can hold."""
    return {name: value for name, value in report.items() if isinstance(value, int | float | str)}
