"""A PDEArena HDF5 file: a group named after the split with smoke ``u`` and velocity ``vx``, ``vy`` ``(n,t,x,y)``.

Also its 1-D Kuramoto-Sivashinsky files, whose array is called ``pde_…`` ``(n,t,x)``. Smoke has no flux through the
walls and the velocity is 0 on them: the grid says dirichlet, cell centres.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ...pde import Axis, Grid
from ..dataset import Dataset
from ._coordinates import PERIODIC, WALLS, axis_of
from ._foreign import Meaning, assembled, evolution, named, side
from ._hdf5 import open_hdf5, peeked, shapes_of
from ._layout import Fit, Layout, first_fit, misfits
from ._slices import Part
from ._warnings import Assumption, KnownFault, tell

if TYPE_CHECKING:
    import h5py

_SPLITS = ("train", "valid", "test")


def matches(path: Path) -> bool:
    with peeked(path) as file:
        return file is not None and first_fit(_layouts(file), shapes_of(file)) is not None


def misfit(path: Path) -> str:
    with peeked(path) as file:
        return "not an HDF5 file" if file is None else misfits(_layouts(file), shapes_of(file))


def read(path: Path) -> Dataset:
    path = Path(path).resolve()
    with open_hdf5(path) as file:
        found = first_fit(_layouts(file), shapes_of(file))
        if found is None:
            raise ValueError(f"{path} is in no layout of PDEArena: {misfits(_layouts(file), shapes_of(file))}.")
        names = [name for name, axes in found.axes.items() if "x" in axes and "t" in axes]
        meaning = _smoke(path, file, found) if len(found.space) == 2 else _ks(path, file, found)
        parts = (side(*(Part(name, found.axes[name]) for name in names)),)
        opening = functools.partial(open_hdf5, path)
        dtype = file[names[0]].dtype
        return assembled(
            path, "pdearena", found.layout.name, meaning, opening, parts, count=found.sizes["n"], dtype=dtype
        )


def _layouts(file: h5py.File) -> tuple[Layout, ...]:
    split = next((name for name in _SPLITS if name in file), _SPLITS[0])
    fields = {f"{split}/{name}": "ntxy" for name in ("u", "vx", "vy")}
    held = file.get(split, {})
    series = next((name for name in held if name.startswith("pde_")), "pde_")
    extra = {f"{split}/t": "nt|t", f"{split}/x": "nx|x", f"{split}/y": "ny|y"}
    smoke = Layout("smoke", fields, extra)
    return smoke, Layout("Kuramoto-Sivashinsky", {f"{split}/{series}": "ntx"})


def _smoke(path: Path, file: h5py.File, found: Fit) -> Meaning:
    split = next(iter(found.axes)).partition("/")[0]
    if f"{split}/buo_y" in file:
        tell(KnownFault, f"{path.name}: conditioned data did not use the sampled buoyancy (PDEArena issue 23).")
    axes = []
    for letter in "xy":
        name = f"{split}/{letter}"
        values = _first(file, name)
        if values is None:
            tell(Assumption, f"{path.name}: no {name!r}; axis {letter} is taken to be [0, 1].")
            values = (np.arange(found.sizes[letter]) + 0.5) / found.sizes[letter]
        axes.append(axis_of(letter, values, WALLS, what=f"{path.name}: {name}", placement="centres"))
    state = named(["u", "vx", "vy"])
    signature = evolution(state, _first(file, f"{split}/t"), found.sizes["t"], what=path.name)
    return Meaning("incompressible_navier_stokes", signature, Grid(tuple(axes)))


def _ks(path: Path, file: h5py.File, found: Fit) -> Meaning:
    split = next(iter(found.axes)).partition("/")[0]
    steps = {name: _first(file, f"{split}/{name}") for name in ("dx", "dt")}
    told: Sequence[str] = [name for name, value in steps.items() if value is None]
    if told:
        tell(Assumption, f"{path.name}: no {', '.join(told)}; the missing steps count as 1.")
    dx, dt = (1.0 if value is None else float(np.reshape(value, -1)[0]) for value in steps.values())
    for name in ("dx", "dt", "v"):
        held = file.get(f"{split}/{name}")
        if held is not None and np.ptp(np.asarray(held)) > 1e-6 * abs(np.asarray(held)).max():
            tell(Assumption, f"{path.name}: {name} differs from sample to sample; the first sample's is taken.")
    size = found.sizes["x"]
    grid = Grid((Axis("x", size, 0.0, size * dx, PERIODIC),))
    times: Any = dt * np.arange(found.sizes["t"])
    return Meaning("kuramoto_sivashinsky", evolution(named(["u"]), times, found.sizes["t"], what=path.name), grid)


def _first(file: h5py.File, name: str) -> np.ndarray | None:
    """An array, of several samples the first one's; all are taken to be alike."""
    held = file.get(name)
    if held is None:
        return None
    values = np.asarray(held, dtype=np.float64)
    return values[0] if values.ndim > 1 else values
