"""A file of The Well (HDF5, specification 1.2): ``t0_fields``, ``t1_fields``, ``t2_fields`` over ``dimensions``.

Also a folder of such files, such as ``<name>/data/train``: their samples follow each other in the order of the names.
Attributes decide which axes a field has (``sample_varying``, ``time_varying``, ``dim_varying``), checked against its
shape. Channels are flattened as The Well does: ``name``, ``name_x``, ``name_xy``, all of t0, then t1, then t2. Fields
constant in time stand among the channels of the state. Boundaries are those of the masks: periodic, wall (here
dirichlet) and open (outflow, and where nothing is said).
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ...pde import Grid
from ..dataset import Dataset
from ._coordinates import OPEN, PERIODIC, Ends, axis_of, even
from ._foreign import (
    ABOUT,
    Meaning,
    Report,
    about,
    assembled,
    blocks,
    evolution,
    named,
    need_evolution,
    own_meaning,
    side,
)
from ._hdf5 import open_hdf5, peeked, text_of
from ._slices import Joined, Part
from ._warnings import Assumption, tell

if TYPE_CHECKING:
    import h5py

SUFFIXES = (".hdf5", ".h5")

_GROUPS = ("t0_fields", "t1_fields", "t2_fields")
_NEEDED = (*_GROUPS, "dimensions", "boundary_conditions", "scalars")
_FILES = (".hdf5", ".h5")


@dataclass(frozen=True)
class _Field:
    """A stored field, its axes, and the names of its channels."""

    part: Part
    channels: tuple[str, ...]
    varies: bool  # in time


def matches(path: Path) -> bool:
    return all(_is_one(file) for file in _files(path)) and bool(_files(path))


def misfit(path: Path) -> str:
    if path.is_dir():
        return "no folder of files of The Well"
    with peeked(path) as file:
        if file is None:
            return "not an HDF5 file"
        return "no " + ", ".join(f"group {name!r}" for name in _NEEDED if name not in file)


def read(path: Path) -> Dataset:
    path = Path(path).resolve()
    parts = [_read_one(file) for file in _files(path)]
    first = parts[0]
    for other, file in zip(parts, _files(path), strict=True):
        if (other.grid, other.signature) != (first.grid, first.signature):
            raise ValueError(f"{file} differs from {_files(path)[0].name} in its grid, its fields or its times.")
    if len(parts) == 1:
        return first
    common = {
        k: v for k, v in first.parameters.items() if all(other.parameters.get(k) == v for other in parts)
    }  # what differs between files is no parameter of the whole
    told = {**first.source, "file": path.name, "files": [file.name for file in _files(path)]}
    samples = Joined(tuple(part.samples for part in parts))
    return Dataset(first.problem, common, first.signature, first.grid, told, samples)


def _files(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    return sorted(entry for entry in path.iterdir() if entry.suffix in _FILES)


def _is_one(path: Path) -> bool:
    with peeked(path) as file:
        return file is not None and all(name in file for name in _NEEDED)


def _read_one(path: Path) -> Dataset:
    with open_hdf5(path) as file:
        dims = [text_of(name) for name in np.atleast_1d(file["dimensions"].attrs["spatial_dims"])]
        sizes = {"n": int(file.attrs["n_trajectories"]), "t": int(file["dimensions/time"].shape[-1])}
        sizes |= {letter: int(file[f"dimensions/{dim}"].shape[-1]) for letter, dim in zip("xyz", dims, strict=False)}
        fields = [field for group in _GROUPS for field in _fields(path, file[group], dims, sizes)]
        if not fields:
            raise ValueError(f"{path} names no field in {', '.join(_GROUPS)}.")
        frames = sizes["t"]
        shape = tuple(sizes[letter] for letter in "xyz"[: len(dims)])
        meaning = own_meaning(file.attrs.get(ABOUT), shape, frames) or _meaning(path, file, dims, fields, frames)
        parts = (side(*(field.part for field in fields)),)
        opening = functools.partial(open_hdf5, path)
        dtype = file[fields[0].part.name].dtype
        return assembled(path, "the_well", "1.2", meaning, opening, parts, count=sizes["n"], dtype=dtype)


def _fields(path: Path, group: h5py.Group, dims: Sequence[str], sizes: Mapping[str, int]) -> list[_Field]:
    rank = int(group.name[2])
    found = []
    for name in (text_of(name) for name in np.atleast_1d(group.attrs.get("field_names", []))):
        held = group[name]
        flags = np.atleast_1d(held.attrs["dim_varying"]).astype(bool)
        letters = "n" * bool(held.attrs["sample_varying"]) + "t" * bool(held.attrs["time_varying"])
        letters += "".join(letter for letter, varies in zip("xyz", flags, strict=False) if varies)
        expected = (*(sizes[letter] for letter in letters), *(len(dims),) * rank)
        if tuple(held.shape) != expected:
            raise ValueError(
                f"{path}: {group.name}/{name} has shape {tuple(held.shape)}, but its attributes sample_varying, "
                f"time_varying and dim_varying promise {expected}."
            )
        suffixes = ["".join(pair) for pair in itertools.product(dims, repeat=rank)]
        channels = tuple(f"{name}_{suffix}" if suffix else name for suffix in suffixes)
        part = Part(f"{group.name.strip('/')}/{name}", letters + "c" * rank)
        found.append(_Field(part, channels, "t" in letters))
    return found


def _meaning(path: Path, file: h5py.File, dims: Sequence[str], fields: Sequence[_Field], frames: int) -> Meaning:
    still = [field.part.name for field in fields if not field.varies]
    if still:
        tell(Assumption, f"{path.name}: {', '.join(still)} are constant in time and stand among the state's channels.")
    kind = text_of(file.attrs.get("grid_type", "cartesian"))
    if kind != "cartesian":
        tell(Assumption, f"{path.name}: the grid is {kind}; its angles are taken as axes like others.")
    channels = named([name for field in fields for name in field.channels])
    signature = evolution(channels, _times(path, file["dimensions/time"]), frames, what=path.name)
    axes = []
    for place, dim in enumerate(dims):
        values = file[f"dimensions/{dim}"]
        if values.ndim != 1:
            raise ValueError(f"{path}: coordinate {dim!r} differs from sample to sample; a dataset has one grid.")
        axes.append(axis_of(dim, values[...], _ends(path, file, dims, place), what=f"{path.name}: dimensions/{dim}"))
    problem = text_of(file.attrs.get("dataset_name", path.stem))
    return Meaning(problem, signature, Grid(tuple(axes)), _parameters(path, file))


def _times(path: Path, held: h5py.Dataset) -> np.ndarray:
    """One list of times, from 0 on; several samples may begin at several times."""
    rows = np.atleast_2d(np.asarray(held, dtype=np.float64))
    rows = rows - rows.min(axis=1, keepdims=True)
    if abs(rows - rows[:1]).max() > 1e-5 * max(abs(rows).max(), 1e-300):
        raise ValueError(f"{path}: its samples have different time steps; a dataset has one.")
    even(rows[0], f"{path}: time")
    return rows[0]


def _ends(path: Path, file: h5py.File, dims: Sequence[str], place: int) -> Ends:
    """Both ends of one axis from the masks: a wall needs all entries of the end slice, the others any."""
    ends: list[Any] = ["outflow", "outflow"]
    for condition in file["boundary_conditions"].values():
        names = [text_of(name) for name in np.atleast_1d(condition.attrs["associated_dims"])]
        if dims[place] not in names:
            continue
        kind = text_of(condition.attrs["bc_type"]).lower()
        mask = np.asarray(condition["mask"], dtype=bool)
        if bool(condition.attrs.get("sample_varying", False)):
            mask = mask[0]
        for end in (0, 1):
            edge = np.take(mask, -end, axis=names.index(dims[place]))
            if edge.all() if kind == "wall" else edge.any():
                ends[end] = {"wall": "dirichlet", "periodic": "periodic"}.get(kind, "outflow")
    if ends.count("periodic") == 1:
        tell(Assumption, f"{path.name}: {dims[place]} is periodic at one end only; its ends count as outflow.")
        return OPEN
    if "dirichlet" in ends:
        tell(Assumption, f"{path.name}: what holds on the walls of {dims[place]} is not said; they count as dirichlet.")
    return PERIODIC if ends[0] == "periodic" else (ends[0], ends[1])


def _parameters(path: Path, file: h5py.File) -> dict[str, float]:
    names = [text_of(name) for name in np.atleast_1d(file.attrs.get("simulation_parameters", []))]
    told = {name: float(file.attrs[name]) for name in names if name in file.attrs}
    constant, varying = _scalars(file["scalars"])
    if varying:
        tell(Assumption, f"{path.name}: the scalars {', '.join(varying)} vary and are left out.")
    return {**constant, **told}


def _scalars(group: h5py.Group) -> tuple[dict[str, float], list[str]]:
    """Those that hold for all samples and times, and the names of the others."""
    names = [text_of(name) for name in np.atleast_1d(group.attrs.get("field_names", []))]
    constant = [name for name in names if np.size(group[name]) == 1]
    return {name: float(np.reshape(group[name], ())) for name in constant}, [n for n in names if n not in constant]


# ------------------------------------------------------------------------------------------------ writing


def write(dataset: Dataset, path: Path, report: Report) -> None:
    """One file. Channels ``v_x``, ``v_y`` … that stand last become vectors (t1), the others scalars (t0)."""
    import h5py

    need_evolution(dataset, "The Well")
    scalars, vectors = _grouped(dataset)
    with h5py.File(path, "w") as file:
        _write_head(dataset, file)
        _write_boundaries(dataset, file)
        tall = (len(dataset), 1 + dataset.signature.frames, *dataset.grid.shape)
        targets = [(_create(file["t0_fields"], name, tall, dataset), [place]) for name, place in scalars]
        dim = dataset.grid.dim
        targets += [
            (_create(file["t1_fields"], name, (*tall, dim), dataset), list(range(place, place + dim)))
            for name, place in vectors
        ]
        for group, names in (("t0_fields", scalars), ("t1_fields", vectors), ("t2_fields", []), ("scalars", [])):
            file[group].attrs["field_names"] = np.array([name for name, _ in names], dtype=h5py.string_dtype())
        for rows, (states,) in blocks(dataset, report):
            for target, places in targets:
                chosen = states[:, :, places]
                target[rows] = (chosen[:, :, 0] if target.ndim == len(tall) else chosen.movedim(2, -1)).numpy()


def _grouped(dataset: Dataset) -> tuple[list[tuple[str, int]], list[tuple[str, int]]]:
    """Scalars and vectors by name and first channel, in the order in which they will be read."""
    names = [channel.name for channel in dataset.signature.outputs]
    axes = [axis.name for axis in dataset.grid.axes]
    vectors: list[tuple[str, int]] = []
    end = len(names)
    while len(axes) > 1 and end >= len(axes):
        stem = names[end - len(axes)].removesuffix(f"_{axes[0]}")
        if names[end - len(axes) : end] != [f"{stem}_{axis}" for axis in axes]:
            break
        end -= len(axes)
        vectors.insert(0, (stem, end))
    return [(name, place) for place, name in enumerate(names[:end])], vectors


def _write_head(dataset: Dataset, file: h5py.File) -> None:
    import h5py

    words = h5py.string_dtype()
    numbers = {name: float(v) for name, v in dataset.parameters.items() if isinstance(v, int | float)}
    file.attrs[ABOUT] = about(dataset)
    file.attrs["simulation_parameters"] = np.array(list(numbers), dtype=words)
    for name, value in numbers.items():
        file.attrs[name] = value
    file.attrs["dataset_name"] = dataset.problem
    file.attrs["grid_type"] = "cartesian"
    file.attrs["n_spatial_dims"] = dataset.grid.dim
    file.attrs["n_trajectories"] = len(dataset)
    for name in _NEEDED:
        file.create_group(name)
    dimensions = file["dimensions"]
    dimensions.attrs["spatial_dims"] = np.array([axis.name for axis in dataset.grid.axes], dtype=words)
    dimensions["time"] = np.array([0.0, *dataset.signature.times], dtype=np.float32)
    dimensions["time"].attrs["sample_varying"] = False
    for axis in dataset.grid.axes:
        dimensions[axis.name] = axis.coordinates().numpy().astype(np.float32)
        dimensions[axis.name].attrs["sample_varying"] = dimensions[axis.name].attrs["time_varying"] = False


def _write_boundaries(dataset: Dataset, file: h5py.File) -> None:
    import h5py

    kinds = {"periodic": "periodic", "outflow": "open"}
    for axis in dataset.grid.axes:
        for end, told in enumerate(axis.boundary):
            group = file["boundary_conditions"].create_group(f"{axis.name}_{'lower' if end == 0 else 'upper'}")
            group.attrs["associated_dims"] = np.array([axis.name], dtype=h5py.string_dtype())
            group.attrs["associated_fields"] = np.array([], dtype=h5py.string_dtype())
            group.attrs["bc_type"] = kinds.get(told, "wall")
            group.attrs["sample_varying"] = group.attrs["time_varying"] = False
            mask = np.zeros(axis.size, dtype=bool)
            mask[-end] = True
            group["mask"] = mask


def _create(group: h5py.Group, name: str, shape: tuple[int, ...], dataset: Dataset) -> h5py.Dataset:
    made = group.create_dataset(name, shape, "<f4")
    made.attrs["dim_varying"] = np.ones(dataset.grid.dim, dtype=bool)
    made.attrs["sample_varying"] = made.attrs["time_varying"] = True
    return made
