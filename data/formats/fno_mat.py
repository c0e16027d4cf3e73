"""A MATLAB file of the FNO or PINN literature: v5 (through scipy) or v7.3 (HDF5, whose axes are all reversed).

==========  ===================================================  ===========================================
 Darcy      ``coeff (n,x,y)``, ``sol (n,x,y)``                   nodes on both walls of the unit square
 flow       ``a (n,x,y)``, ``u (n,x,y,t)``, ``t``                vorticity on the unit torus, ``a`` at time 0
 Burgers    ``a (n,x)``, ``u (n,x)``                             unit period: u(0) -> u(1)
 PINN       ``usol (x,t)``, ``x``, ``t``                         one trajectory between its end nodes
==========  ===================================================  ===========================================

A v5 array is loaded whole at its first use (scipy cannot do otherwise; v5 ends at 2 GB), a v7.3 array by slices.
"""

from __future__ import annotations

import datetime
import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ...pde import Axis, Grid, Signature
from ..dataset import Dataset
from ._coordinates import WALLS, axis_of
from ._foreign import ABOUT, Meaning, Report, about, assembled, blocks, evolution, named, own_meaning, side
from ._hdf5 import is_hdf5, open_hdf5, peeked, shapes_of
from ._layout import Fit, Layout, Shapes, first_fit, misfits
from ._slices import Part, Side
from ._warnings import Assumption, tell

SUFFIXES = (".mat",)

DARCY = Layout("Darcy", {"coeff": "nxy", "sol": "nxy"})
FLOW = Layout("flow", {"a": "nxy", "u": "nxyt"}, {"t": "t|1t|t1"})
LINE = Layout("flow in 1-D", {"a": "nx", "u": "nxt"}, {"t": "t|1t|t1"})
BURGERS = Layout("Burgers", {"a": "nx", "u": "nx"})
PINN = Layout("PINN", {"usol": "xt", "x": "x|x1|1x", "t": "t|t1|1t"})
LAYOUTS = (DARCY, FLOW, LINE, BURGERS, PINN)

_HEADER = 512  # bytes that MATLAB puts before HDF5
_V5 = b"MATLAB 5.0"


def matches(path: Path) -> bool:
    return _is_mat(path) and first_fit(LAYOUTS, _shapes(path)) is not None


def misfit(path: Path) -> str:
    return misfits(LAYOUTS, _shapes(path)) if _is_mat(path) else "not a MATLAB file"


def read(path: Path) -> Dataset:
    path = Path(path).resolve()
    found = first_fit(LAYOUTS, _shapes(path))
    if found is None:
        raise ValueError(f"{path} is in no layout of the FNO files: {misfit(path)}.")
    version = "v7.3" if is_hdf5(path) else "v5"
    opening = functools.partial(_open_reversed if version == "v7.3" else _Loaded, path)
    held = opening()
    told = {ABOUT: _text(path, held)}
    frames = _frames(found, _times(held, found))
    own = own_meaning(told[ABOUT], found.shape, frames)
    sides = _sides(found, frames)
    count = found.sizes.get("n", 1)
    return assembled(
        path,
        "fno_mat",
        f"{found.layout.name}, {version}",
        own or _meaning(path, held, found, frames),
        opening,
        sides,
        count=count,
        dtype=held[next(iter(found.layout.arrays))].dtype,
    )


def _times(held: Mapping[str, Any], found: Fit) -> np.ndarray | None:
    return np.asarray(held["t"][...], dtype=np.float64).reshape(-1) if "t" in found.axes else None


def _frames(found: Fit, times: np.ndarray | None) -> int:
    """Frames in all; 0: a static map. ``u`` begins after the initial state ``a``, unless its own time is 0."""
    if found.layout in (DARCY, BURGERS):
        return 0
    stored = found.sizes["t"]
    if found.layout is PINN or (times is not None and times[0] == 0):
        return stored
    return 1 + stored


def _sides(found: Fit, frames: int) -> tuple[Side, ...]:
    parts = {name: Part(name, axes) for name, axes in found.axes.items()}
    if found.layout is DARCY:
        return side(parts["coeff"]), side(parts["sol"])
    if found.layout is BURGERS:
        return side(parts["a"]), side(parts["u"])
    if found.layout is PINN:
        return (side(parts["usol"]),)
    return (side((parts["a"], parts["u"]) if frames > found.sizes["t"] else parts["u"]),)


def _meaning(path: Path, held: Mapping[str, Any], found: Fit, frames: int) -> Meaning:
    sizes, axes = found.sizes, found.space
    if found.layout is PINN:
        values = np.asarray(held["x"][...]).reshape(-1)
        grid = Grid((axis_of("x", values, WALLS, what=f"{path.name}: x", placement="ends"),))
        return Meaning(path.stem, evolution(named(["u"]), _times(held, found), frames, what=path.name), grid)
    if found.layout is DARCY:
        grid = Grid(tuple(Axis(name, sizes[name], 0.0, 1.0, WALLS, "ends") for name in axes))
        return Meaning("darcy", Signature(named(["coefficient"]), named(["pressure"])), grid)
    grid = Grid(tuple(Axis(name, sizes[name]) for name in axes))
    tell(Assumption, f"{path.name}: coordinates are not in the file; the domain is taken to be a unit period.")
    if found.layout is BURGERS:
        return Meaning("burgers", Signature(named(["u_0"]), named(["u"])), grid)
    times = _times(held, found)
    if times is not None and frames > len(times):
        times = np.concatenate([[0.0], times])
    channel = "vorticity" if found.layout is FLOW else "u"
    problem = "navier_stokes" if found.layout is FLOW else path.stem
    return Meaning(problem, evolution(named([channel]), times, frames, what=path.name), grid)


# ------------------------------------------------------------------------------------------------ files


def _is_mat(path: Path) -> bool:
    if not path.is_file():
        return False
    with open(path, "rb") as stream:
        head = stream.read(16)
    return head.startswith(_V5) or (is_hdf5(path) and (head.startswith(b"MATLAB 7.3") or path.suffix == ".mat"))


def _shapes(path: Path) -> Shapes:
    if is_hdf5(path):
        with peeked(path) as file:
            if file is None:
                return lambda _: None
            names = [name for name in file if shapes_of(file)(name) is not None]
            found = {name: tuple(file[name].shape[::-1]) for name in names}
        return found.get
    import scipy.io

    try:
        listed = scipy.io.whosmat(path)
    except (OSError, ValueError, TypeError, NotImplementedError):
        return lambda _: None
    return {name: shape for name, shape, kind in listed if kind not in ("char", "cell", "struct", "object")}.get


def _text(path: Path, held: Mapping[str, Any]) -> str:
    """Our own words, stored as a MATLAB string."""
    try:
        values = np.asarray(held[ABOUT][...])
    except KeyError:
        return ""
    return "".join(map(str, values.reshape(-1))) if values.dtype.kind in "US" else "".join(map(chr, values.reshape(-1)))


class _Loaded(dict[str, Any]):
    """The arrays of a v5 file, each loaded when it is first asked for."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path

    def __missing__(self, name: str) -> np.ndarray:
        import scipy.io

        loaded = scipy.io.loadmat(self.path, variable_names=[name])
        if name not in loaded:
            raise KeyError(name)
        self[name] = loaded[name]
        return self[name]


class _Reversed:
    """A column-major array as MATLAB shows it: h5py has all its axes in reverse."""

    def __init__(self, held: Any) -> None:
        self._held = held
        self.shape = tuple(held.shape[::-1])
        self.dtype = held.dtype

    def __getitem__(self, key: Any) -> np.ndarray:
        key = () if key is Ellipsis else key
        full = (*key, *(slice(None),) * (len(self.shape) - len(key)))
        return np.asarray(self._held[full[::-1]]).T


def _open_reversed(path: Path) -> dict[str, _Reversed]:
    file = open_hdf5(path)
    return {name: _Reversed(held) for name, held in file.items() if hasattr(held, "dtype")}


# ------------------------------------------------------------------------------------------------ writing


def write(dataset: Dataset, path: Path, report: Report) -> None:
    """v7.3, streamed. Static maps of one channel each way in 1-D (``a``, ``u``) and 2-D (``coeff``, ``sol``);
    evolutions of one channel with the initial state ``a``, later frames ``u`` and times ``t``.
    """
    import h5py

    signature, dim = dataset.signature, dataset.grid.dim
    if len(signature.inputs) != 1 or len(signature.outputs) != 1 or dim > 2:
        raise ValueError(
            "These files hold one channel on one or two axes; this set has "
            f"{len(signature.inputs)} in, {len(signature.outputs)} out on {dim}. Choose netcdf or zarr."
        )
    with h5py.File(path, "w", userblock_size=_HEADER) as file:
        names = ("coeff", "sol") if dim == 2 and not signature.evolves else ("a", "u")
        shape = dataset.grid.shape
        later = (*shape, signature.frames) if signature.evolves else shape
        first, second = (_create(file, n, (len(dataset), *s)) for n, s in zip(names, (shape, later), strict=True))
        for rows, arrays in blocks(dataset, report):
            if signature.evolves:
                states = arrays[0][:, :, 0].numpy()
                given, solved = states[:, 0], np.moveaxis(states[:, 1:], 1, -1)
            else:
                given, solved = (array[:, 0].numpy() for array in arrays)
            first[..., rows] = given.T
            second[..., rows] = solved.T
        if signature.evolves:
            _create(file, "t", (1, signature.frames), "double")[...] = np.array(signature.times)[:, None]
        text = np.frombuffer(about(dataset).encode("utf-16-le"), "<u2")
        _create(file, ABOUT, (1, len(text)), "char")[...] = text[:, None]
    _write_header(path)


def _create(file: Any, name: str, shape: tuple[int, ...], kind: str = "single") -> Any:
    """An array of this shape in MATLAB, reversed on disk; one sample a chunk, so that both ends stream."""
    types = {"single": "<f4", "double": "<f8", "char": "<u2"}
    chunks = (*shape[:0:-1], 1) if kind == "single" else None
    made = file.create_dataset(name, shape[::-1], types[kind], chunks=chunks)
    made.attrs["MATLAB_class"] = np.bytes_(kind)
    if kind == "char":
        made.attrs["MATLAB_int_decode"] = np.int32(2)
    return made


def _write_header(path: Path) -> None:
    """The 128 bytes by which MATLAB knows its files: text, version 0x0200, the mark of little-endian."""
    today = datetime.datetime.now(datetime.UTC).strftime("%a %b %d %H:%M:%S %Y")
    text = f"MATLAB 7.3 MAT-file, Platform: any, Created on: {today} HDF5 schema 1.00 .".ljust(124)
    with open(path, "r+b") as stream:
        stream.write(text.encode("ascii")[:124] + b"\x00\x02IM")
