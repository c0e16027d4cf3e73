"""Samples of the neuraloperator library: ``x`` and ``y`` in a ``.pt`` dictionary, an HDF5 file or a zarr group.

=========  ==========================================  =========================================================
 static    ``x (n,*space)``, ``y (n,*space)``          with or without a channel axis after ``n``
 Burgers   ``x (n,x)``, ``y (n,t,x)``                  the initial state and its evolution
=========  ==========================================  =========================================================

``.pt`` files are loaded with ``weights_only=True`` and mapped, not read whole. No file says its coordinates: Darcy
(``x`` boolean, or ``darcy`` in the name) lies on the unit square, and whether the first and last nodes are on the
walls is seen from the solution, which is 0 there; anything else counts as a unit period.
"""

from __future__ import annotations

import functools
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ...pde import Axis, Grid, Signature
from ..dataset import Dataset
from ._coordinates import WALLS
from ._foreign import ABOUT, Meaning, Report, about, assembled, blocks, evolution, named, numbered, own_meaning, side
from ._hdf5 import is_hdf5, open_hdf5, peeked, shapes_of
from ._layout import Fit, Layout, Shapes, first_fit, misfits
from ._slices import Part
from ._warnings import Assumption, KnownFault, tell

SUFFIXES = (".pt",)

_STATIC = "nx|nxy|ncxy|ncxyz"
LAYOUTS = (
    Layout("evolution in 1-D", {"x": "nx", "y": "ntx"}),
    Layout("static", {"x": _STATIC, "y": _STATIC}),
)

_LOOKED_AT = 64  # samples by which walls are found
_ON_WALL = 0.01  # of the largest mean: below, a line of nodes lies on a wall


def matches(path: Path) -> bool:
    return first_fit(LAYOUTS, _shapes(path)) is not None


def misfit(path: Path) -> str:
    if not (_is_pt(path) or is_hdf5(path) or _is_zarr(path)):
        return "neither a .pt file of torch nor HDF5 nor zarr"
    return misfits(LAYOUTS, _shapes(path))


def read(path: Path) -> Dataset:
    path = Path(path).resolve()
    found = first_fit(LAYOUTS, _shapes(path))
    if found is None:
        raise ValueError(f"{path} is in no layout of neuraloperator: {misfit(path)}.")
    opening = functools.partial(_opener(path), path)
    held = opening()
    times = "t" in found.sizes
    begins = times and _begins(held)  # whether y repeats the initial state
    frames = found.sizes["t"] + (not begins) if times else 0
    own = own_meaning(_about(held), found.shape, frames)
    parts = [Part(name, found.axes[name]) for name in ("x", "y")]
    whole = parts[1] if begins else tuple(parts)
    sides = (side(whole),) if times else tuple(side(part) for part in parts)
    meaning = own or _meaning(path, held, found, frames)
    layout = f"{found.layout.name}, {path.suffix.lstrip('.') or 'folder'}"
    dtype = held["y"].dtype
    return assembled(path, "neuralop", layout, meaning, opening, sides, count=found.sizes["n"], dtype=dtype)


def _begins(held: Mapping[str, Any]) -> bool:
    return bool(np.array_equal(np.asarray(held["y"][:4])[:, 0], np.asarray(held["x"][:4])))


def _meaning(path: Path, held: Mapping[str, Any], found: Fit, frames: int) -> Meaning:
    boolean = held["x"].dtype == np.bool_
    channels = [held[name].shape[1] if "c" in found.axes[name] else 1 for name in ("x", "y")]
    name = path.stem.lower()
    if boolean:
        told = "the coefficient is stored as a boolean, so the file does not say the values of the two phases"
        tell(KnownFault, f"{path.name}: {told}; it is read as 0 and 1.")
    if boolean or "darcy" in name:
        signature = Signature(numbered("coefficient", channels[0]), numbered("pressure", channels[1]))
        return Meaning("darcy", signature, _walled(path, held, found))
    tell(Assumption, f"{path.name}: coordinates are not in the file; the domain is taken to be a unit period.")
    grid = Grid(tuple(Axis(letter, found.sizes[letter]) for letter in found.space))
    if frames:
        return Meaning("burgers" if "burgers" in name else path.stem, _evolves(path, frames), grid)
    if "ns" in name and grid.dim == 2:
        return Meaning("navier_stokes", Signature(named(["forcing"]), named(["vorticity"])), grid)
    return Meaning(path.stem, Signature(numbered("x_in", channels[0]), numbered("u", channels[1])), grid)


def _evolves(path: Path, frames: int) -> Signature:
    return evolution(named(["u"]), None, frames, what=path.name)


def _walled(path: Path, held: Mapping[str, Any], found: Fit) -> Grid:
    """The unit interval per axis; a line of nodes on which the solution is 0 lies on a wall."""
    sample = abs(np.asarray(held["y"][:_LOOKED_AT], dtype=np.float64)).mean(axis=0)
    sample = sample.mean(axis=0) if "c" in found.axes["y"] else sample
    return Grid(tuple(_walled_axis(path, letter, _profile(sample, i)) for i, letter in enumerate(found.space)))


def _profile(values: np.ndarray, axis: int) -> np.ndarray:
    return values.mean(axis=tuple(i for i in range(values.ndim) if i != axis))


def _walled_axis(path: Path, letter: str, profile: np.ndarray) -> Axis:
    size, largest = len(profile), profile.max()
    lower, upper = (profile[end] < _ON_WALL * largest for end in (0, -1))
    if lower and upper:
        return Axis(letter, size, 0.0, 1.0, WALLS, "ends")
    if lower:
        told = f"the last nodes of {letter} lie inside the domain: the file was strided out of a finer one"
        tell(KnownFault, f"{path.name}: {told}; taken as 0, 1/{size}, …, {size - 1}/{size}, open at the upper end.")
        return Axis(letter, size, 0.0, (size - 1) / size, ("dirichlet", "outflow"), "ends")
    tell(Assumption, f"{path.name}: the solution is not 0 at the ends of {letter}; nodes are taken as cell centres.")
    return Axis(letter, size, 0.0, 1.0, WALLS, "centres")


# ------------------------------------------------------------------------------------------------ files


class _Mapped:
    """A mapped tensor as an array."""

    def __init__(self, tensor: Any) -> None:
        self._values = tensor.numpy()
        self.shape = self._values.shape
        self.dtype = self._values.dtype

    def __getitem__(self, key: Any) -> np.ndarray:
        return self._values[key]


def _open_pt(path: Path) -> dict[str, Any]:
    import torch

    try:
        held = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except Exception as error:  # torch raises several kinds, for cut files and for pickled code alike
        raise ValueError(f"{path} is no dictionary of tensors that can be loaded safely: {error}") from error
    if not isinstance(held, dict):
        raise ValueError(f"{path} holds a {type(held).__name__}, expected a dictionary with 'x' and 'y'.")
    tensors = {k: _Mapped(v) for k, v in held.items() if isinstance(v, torch.Tensor) and v.dtype != torch.bfloat16}
    return {**tensors, ABOUT: held.get(ABOUT)}


def _open_zarr(path: Path) -> Any:
    import zarr

    return zarr.open_group(path, mode="r")


def _opener(path: Path) -> Callable[[Path], Any]:
    if path.is_dir():
        return _open_zarr
    return open_hdf5 if is_hdf5(path) else _open_pt


def _about(held: Any) -> Any:
    return held.get(ABOUT) if isinstance(held, dict) else held.attrs.get(ABOUT)


def _is_pt(path: Path) -> bool:
    return path.is_file() and path.suffix in (".pt", ".pth")


def _is_zarr(path: Path) -> bool:
    return any((path / name).exists() for name in (".zgroup", "zarr.json"))


def _shapes(path: Path) -> Shapes:
    if is_hdf5(path):
        with peeked(path) as file:
            found = {} if file is None else {n: s for n in ("x", "y") if (s := shapes_of(file)(n)) is not None}
        return found.get
    try:
        if not (_is_pt(path) or _is_zarr(path)):
            return lambda _: None
        held = _opener(path)(path)
        return {n: tuple(held[n].shape) for n in ("x", "y") if n in held}.get
    except (ValueError, ImportError):
        return lambda _: None


# ------------------------------------------------------------------------------------------------ writing


def write(dataset: Dataset, path: Path, report: Report) -> None:
    """A ``.pt`` dictionary. One channel loses its axis, and an input of zeros and ones becomes boolean, as theirs do.

    Evolutions are written where they have one channel in 1-D: ``y`` are the frames after ``x``.
    """
    import tempfile

    import torch

    signature, shape = dataset.signature, dataset.grid.shape
    if signature.evolves and (len(signature.outputs) > 1 or len(shape) > 1):
        raise ValueError(
            f"neuraloperator's files hold evolutions of one channel in 1-D; this has {len(signature.outputs)} "
            f"channels in {len(shape)}-D. Choose netcdf, zarr, the_well or pdebench."
        )
    if len(shape) == 1 and max(len(signature.inputs), len(signature.outputs)) > 1:
        raise ValueError("Several channels in 1-D would be read as one channel in 2-D. Choose netcdf or zarr.")
    widths = (1, signature.frames) if signature.evolves else (len(signature.inputs), len(signature.outputs))
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:  # torch.save takes whole tensors, so these are mapped
        given = _mapped(Path(folder) / "x", (len(dataset), widths[0], *shape))
        solved = _mapped(Path(folder) / "y", (len(dataset), widths[1], *shape))
        binary = not signature.evolves
        for rows, arrays in blocks(dataset, report):
            first, later = (arrays[0][:, 0], arrays[0][:, 1:, 0]) if signature.evolves else arrays
            given[rows], solved[rows] = first, later
            binary = binary and bool(((first == 0) | (first == 1)).all())
        bare = len(shape) < 3
        x, y = (given.squeeze(1), solved if signature.evolves else solved.squeeze(1)) if bare else (given, solved)
        torch.save({"x": x.bool() if binary else x, "y": y, ABOUT: about(dataset)}, path)


def _mapped(path: Path, shape: tuple[int, ...]) -> Any:
    """An empty tensor that lives in a file."""
    import torch

    return torch.from_file(str(path), shared=True, size=int(np.prod(shape)), dtype=torch.float32).view(shape)
