"""A PDEBench HDF5 file: one of the five layouts of its data sets.

===  ======================================  =============================================================
 A   scalar evolution                        ``tensor (n,t,x)``, ``x-coordinate``, ``t-coordinate``
 B   compressible flow                       ``density``, ``pressure``, ``Vx``, … ``(n,t,x[,y[,z]])``
 C   Darcy                                   ``nu (n,x,y)``, ``tensor (n,1,x,y)``
 D   a group a seed, ``0000``, ``0001``, …   ``data (t,x[,y],c)``, ``grid/x``, ``grid/t``; YAML in ``config``
 E   incompressible flow                     ``velocity (n,t,x,y,2)``, ``particles``, ``force``, ``t``
===  ======================================  =============================================================

The domain is that of the stored coordinates, never of the documentation. Nodes are cell centres; on periodic axes a
period begins at the first node. Boundary kinds, which no file states, are those of the generators: A periodic; B as
the file name says (``periodic``, or ``trans``: outflow); C Dirichlet; D no flux (2D_diff-react), outflow (2D_rdb),
Dirichlet and outflow (1D_diff-sorp, where the right end has a Cauchy condition); E Dirichlet.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ...pde import Axis, Grid, Signature
from ..dataset import Dataset
from ._coordinates import FLUX_WALLS, OPEN, PERIODIC, WALLS, Ends, axis_of
from ._foreign import ABOUT, Meaning, Report, about, assembled, blocks, evolution, named, numbered, own_meaning, side
from ._hdf5 import hdf5_fits, numbers_of, open_hdf5, peeked, shapes_of, text_of
from ._layout import Fit, Layout, Shape, Shapes, first_fit, fit, misfits
from ._slices import Part, Side
from ._warnings import Assumption, KnownFault, tell

if TYPE_CHECKING:
    import h5py

SUFFIXES = (".hdf5", ".h5")

_X = {"x-coordinate": "x"}
_FIELD = "ntx|ntxy|ntxyz"
_SPACE = {"y-coordinate": "y", "z-coordinate": "z"}
_FLOW = ("density", "pressure", "Vx", "Vy", "Vz")
_SEED = re.compile(r"\d{4}")

DARCY = Layout("C", {"tensor": "n1xy", "nu": "nxy", **_X, "y-coordinate": "y"})
SCALAR = Layout("A", {"tensor": _FIELD, **_X, "t-coordinate": "T"}, _SPACE)
FLOW = Layout(
    "B", {**dict.fromkeys(_FLOW[:3], _FIELD), **_X, "t-coordinate": "T"}, {**dict.fromkeys(_FLOW[3:], _FIELD), **_SPACE}
)
SEEDS = Layout("D", {"data": "txc|txyc", "grid/x": "x", "grid/t": "T"}, {"grid/y": "y"})
INCOMPRESSIBLE = Layout("E", {"velocity": "ntxyc", "particles": "ntxyc", "force": "nxyc", "t": "nt"})
_FAULTS = {
    "advection": "the paper's domain and scaling are not the files' (PDEBench issues 46 and 51)",
    "burgers": "the paper and the generator's configuration have another domain than the files (PDEBench issue 51)",
    "fisher_kpp": "states relax to almost constant ones, so persistence is a strong baseline (PDEBench issue 94)",
}
WHOLE = (DARCY, SCALAR, FLOW, INCOMPRESSIBLE)  # in order of sniffing: C is A to the eye


def matches(path: Path) -> bool:
    if hdf5_fits(path, WHOLE):
        return True
    with peeked(path) as file:
        return file is not None and not isinstance(fit(SEEDS, _seed_shapes(file)), str)


def misfit(path: Path) -> str:
    with peeked(path) as file:
        if file is None:
            return "not an HDF5 file"
        return f"{misfits(WHOLE, shapes_of(file))}; {misfits((SEEDS,), _seed_shapes(file))} in a group '0000'"


def read(path: Path) -> Dataset:
    path = Path(path).resolve()
    with open_hdf5(path) as file:
        found = first_fit(WHOLE, shapes_of(file))
        if found is None:
            return _read_seeds(path, file)
        readers = {"A": _scalar, "B": _flow, "C": _darcy, "E": _incompressible}
        meaning, sides = readers[found.layout.name](path, file, found)
        own = own_meaning(file.attrs.get(ABOUT), found.shape, 0 if found.layout is DARCY else found.sizes["t"])
        return assembled(
            path,
            "pdebench",
            found.layout.name,
            own or meaning(),
            functools.partial(open_hdf5, path),
            sides,
            count=found.sizes["n"],
            dtype=file[next(iter(found.layout.arrays))].dtype,
        )


def _grid(path: Path, file: Any, found: Fit, boundary: Ends, pattern: str = "{}-coordinate") -> Grid:
    axes = []
    for letter in found.space:
        name = pattern.format(letter)
        if name in found.axes:
            values = np.asarray(file[name])
        else:
            tell(Assumption, f"{path.name}: no {name!r}; axis {letter} is taken to be [0, 1].")
            values = (np.arange(found.sizes[letter]) + 0.5) / found.sizes[letter]
        axes.append(axis_of(letter, values, boundary, what=f"{path.name}: {name}", placement="centres"))
    return Grid(tuple(axes))


def _times(path: Path, file: Any, found: Fit, name: str) -> np.ndarray:
    times, frames = np.asarray(file[name]), found.sizes["t"]
    if len(times) > frames:
        tell(KnownFault, f"{path.name}: {name} has {len(times)} entries for {frames} frames; the last is left out.")
    return times[:frames]


def _scalar(path: Path, file: h5py.File, found: Fit) -> tuple[Any, tuple[Side, ...]]:
    def meaning() -> Meaning:
        parameters = {name: value for name, value in numbers_of(file.attrs).items() if name in ("beta", "Nu", "rho")}
        problem = _scalar_problem(path, parameters)
        grid = _grid(path, file, found, PERIODIC)
        signature = evolution(named(["u"]), _times(path, file, found, "t-coordinate"), found.sizes["t"], what=path.name)
        if problem in _FAULTS:
            period = f"a period of {grid.axes[0].length:.6g} from {grid.axes[0].lower:.6g}"
            tell(KnownFault, f"{path.name}: {_FAULTS[problem]}; the stored coordinate says {period}.")
        return Meaning(problem, signature, grid, parameters)

    return meaning, (side(Part("tensor", found.axes["tensor"])),)


def _scalar_problem(path: Path, parameters: Mapping[str, float]) -> str:
    if "rho" in parameters:
        return "fisher_kpp"
    if "Nu" in parameters:
        return "burgers"
    if "beta" in parameters:
        return "advection"
    words = {"advection": "advection", "burgers": "burgers", "reacdiff": "fisher_kpp"}
    return next((name for word, name in words.items() if word in path.stem.lower()), path.stem)


def _flow(path: Path, file: h5py.File, found: Fit) -> tuple[Any, tuple[Side, ...]]:
    fields = [name for name in _FLOW if name in found.axes]

    def meaning() -> Meaning:
        parameters = {name: value for name, value in numbers_of(file.attrs).items() if name in ("eta", "zeta", "M")}
        words = {"periodic": PERIODIC, "trans": OPEN, "sod": OPEN}
        boundary = next((ends for word, ends in words.items() if word in path.stem.lower()), None)
        if boundary is None:
            tell(Assumption, f"{path.name}: the name says neither 'periodic' nor 'trans'; the ends count as outflow.")
        grid = _grid(path, file, found, boundary or OPEN)
        times = _times(path, file, found, "t-coordinate")
        signature = evolution(named(fields), times, found.sizes["t"], what=path.name)
        return Meaning("compressible_navier_stokes", signature, grid, parameters)

    return meaning, (side(*(Part(name, found.axes[name]) for name in fields)),)


def _darcy(path: Path, file: h5py.File, found: Fit) -> tuple[Any, tuple[Side, ...]]:
    def meaning() -> Meaning:
        told = "how the coefficient was drawn is not documented (PDEBench issues 29 and 48)"
        tell(KnownFault, f"{path.name}: {told}.")
        parameters = {name: value for name, value in numbers_of(file.attrs).items() if name == "beta"}
        return Meaning("darcy", Signature(named(["nu"]), named(["u"])), _grid(path, file, found, WALLS), parameters)

    return meaning, (side(Part("nu", "nxy")), side(Part("tensor", "n1xy")))


def _incompressible(path: Path, file: h5py.File, found: Fit) -> tuple[Any, tuple[Side, ...]]:
    def meaning() -> Meaning:
        channels = [name for key in ("velocity", "particles", "force") for name in _flat(key, file[key].shape[-1])]
        tell(KnownFault, f"{path.name}: the velocity is 0 on the walls, this flow is not periodic (PDEBench issue 36).")
        tell(Assumption, f"{path.name}: no coordinates; the domain is taken to be the unit square of cells.")
        tell(Assumption, f"{path.name}: 'force' is constant in time and stands among the channels of the state.")
        rows = np.asarray(file["t"])
        if abs(rows - rows[:1]).max() > 1e-5 * abs(rows).max():
            raise ValueError(f"{path}: its samples have different times; a dataset has one list of times.")
        signature = evolution(named(channels), rows[0], found.sizes["t"], what=path.name)
        grid = Grid(tuple(Axis(name, found.sizes[name], 0.0, 1.0, WALLS, "centres") for name in "xy"))
        parameters = _config_numbers(text_of(file.attrs.get("config", "")))
        return Meaning("incompressible_navier_stokes", signature, grid, parameters)

    parts = [Part(name, found.axes[name]) for name in ("velocity", "particles", "force")]
    return meaning, (side(*parts),)


def _flat(key: str, count: int) -> list[str]:
    names = {"velocity": "V", "force": "force_"}
    return [key] if count == 1 else [f"{names.get(key, key)}{'xyz'[i]}" for i in range(count)]


class _Seeds:
    """The groups of layout D as one array ``(n, t, x[, y], c)``."""

    def __init__(self, file: h5py.File) -> None:
        self.keys = _seed_names(file)
        first = file[self.keys[0]]["data"]
        self.shape = (len(self.keys), *first.shape)
        self.dtype = first.dtype
        self._file = file

    def __getitem__(self, key: tuple[slice, ...]) -> np.ndarray:
        numbers = range(len(self.keys))[key[0]]
        values = np.empty((len(numbers), *self.shape[1:]), self.dtype)
        for place, number in enumerate(numbers):
            held = self._file[self.keys[number]]["data"]
            if held.shape != self.shape[1:]:
                raise ValueError(f"Group {self.keys[number]!r} has data {held.shape}, the first has {self.shape[1:]}.")
            held.read_direct(values, dest_sel=place)
        return values


def _open_seeds(path: Path) -> dict[str, Any]:
    return {"data": _Seeds(open_hdf5(path))}


def _seed_names(file: h5py.File) -> list[str]:
    return sorted(name for name in file if _SEED.fullmatch(name))


def _seed_shapes(file: h5py.File) -> Shapes:
    name = next((name for name in file if _SEED.fullmatch(name)), None)
    return (lambda _: None) if name is None else shapes_of(file[name])


def _read_seeds(path: Path, file: h5py.File) -> Dataset:
    names = _seed_names(file)
    found = fit(SEEDS, shapes_of(file[names[0]])) if names else "no group '0000'"
    if isinstance(found, str):
        raise ValueError(f"{path} is in no layout of PDEBench: {misfit(path)}.")
    group = file[names[0]]
    own = own_meaning(file.attrs.get(ABOUT), found.shape, found.sizes["t"])
    parts = (side(Part("data", "n" + found.axes["data"])),)
    meaning = own or _seed_meaning(path, group, found)
    told = {"config": text_of(group.attrs["config"])} if "config" in group.attrs else {}
    opening = functools.partial(_open_seeds, path)
    return assembled(
        path, "pdebench", "D", meaning, opening, parts, count=len(names), dtype=group["data"].dtype, told=told
    )


def _seed_meaning(path: Path, group: h5py.Group, found: Fit) -> Meaning:
    channels = int(group["data"].shape[-1])
    sorption, reaction = len(found.space) == 1, channels == 2
    ends: Ends
    names: list[str]
    grid = _grid(path, group, found, WALLS, "grid/{}")  # placement is judged first, ends are set below
    if sorption:
        problem, ends, names = "diffusion_sorption", ("dirichlet", "outflow"), ["u"]
        tell(KnownFault, f"{path.name}: initial states are constant in space (PDEBench issue 61).")
        tell(Assumption, f"{path.name}: the Cauchy condition at the right end counts as outflow.")
    elif reaction:
        problem, ends, names = "fitzhugh_nagumo", FLUX_WALLS, ["activator", "inhibitor"]
    else:
        problem, ends, names = "shallow_water", OPEN, ["height"]
    state = named(names) if len(names) == channels else numbered("u", channels)
    grid = Grid(tuple(replace(axis, boundary=ends) for axis in grid.axes))
    signature = evolution(state, _times(path, group, found, "grid/t"), found.sizes["t"], what=path.name)
    return Meaning(problem, signature, grid, _config_numbers(text_of(group.attrs.get("config", ""))))


def _config_numbers(config: str) -> dict[str, float]:
    """The ``name: number`` lines of a YAML text; of equal names the first."""
    found: dict[str, float] = {}
    for name, value in re.findall(r"^\s*(\w+):\s*([-+]?[\d.]+(?:[eE][-+]?\d+)?)\s*$", config, flags=re.MULTILINE):
        found.setdefault(name, float(value))
    return found


# ------------------------------------------------------------------------------------------------ writing


def write(dataset: Dataset, path: Path, report: Report) -> None:
    """Layout C for a static map in 2-D with one input and one output, B for states of density, pressure and velocity,
    A for other states of one channel, D for the rest.
    """
    import h5py

    names = [channel.name for channel in dataset.signature.outputs]
    with h5py.File(path, "w") as file:
        file.attrs[ABOUT] = about(dataset)
        for name, value in dataset.parameters.items():
            if isinstance(value, int | float):
                file.attrs[name] = value
        if not dataset.signature.evolves:
            _write_darcy(dataset, file, report)
        elif names == list(_FLOW[: 2 + dataset.grid.dim]):
            _write_fields(dataset, file, names, report)
        elif len(names) == 1:
            _write_fields(dataset, file, ["tensor"], report)
        else:
            _write_seeds(dataset, file, report)


def _write_coordinates(dataset: Dataset, group: Any, pattern: str) -> None:
    for letter, axis in zip("xyz", dataset.grid.axes, strict=False):
        group[pattern.format(letter)] = axis.coordinates().numpy()
    if dataset.signature.evolves:
        group[pattern.format("t")] = np.array([0.0, *dataset.signature.times])


def _write_darcy(dataset: Dataset, file: h5py.File, report: Report) -> None:
    sides, shape = (dataset.signature.inputs, dataset.signature.outputs), dataset.grid.shape
    if len(shape) != 2 or any(len(one) != 1 for one in sides):
        raise ValueError(
            "PDEBench holds static maps of one input and one output on two axes; this one has "
            f"{len(sides[0])} and {len(sides[1])} channels on {len(shape)} axes. Choose netcdf or zarr."
        )
    _write_coordinates(dataset, file, "{}-coordinate")
    inputs = file.create_dataset("nu", (len(dataset), *shape), "<f4")
    outputs = file.create_dataset("tensor", (len(dataset), 1, *shape), "<f4")
    for rows, (given, solved) in blocks(dataset, report):
        inputs[rows] = given[:, 0].numpy()
        outputs[rows] = solved.numpy()


def _write_fields(dataset: Dataset, file: h5py.File, names: list[str], report: Report) -> None:
    _write_coordinates(dataset, file, "{}-coordinate")
    shape: Shape = (len(dataset), 1 + dataset.signature.frames, *dataset.grid.shape)
    made = [file.create_dataset(name, shape, "<f4") for name in names]
    for rows, (states,) in blocks(dataset, report):
        for place, target in enumerate(made):
            target[rows] = states[:, :, place].numpy()


def _write_seeds(dataset: Dataset, file: h5py.File, report: Report) -> None:
    if dataset.grid.dim > 2:
        raise ValueError("PDEBench holds states of several channels on one or two axes. Choose the_well or netcdf.")
    if len(dataset) > 10_000:
        raise ValueError(f"PDEBench numbers its groups with four digits: 10000 samples, got {len(dataset)}.")
    for rows, (states,) in blocks(dataset, report):
        for number, trajectory in zip(range(rows.start, rows.stop), states.movedim(2, -1).numpy(), strict=True):
            group = file.create_group(f"{number:04d}")
            group["data"] = trajectory
            _write_coordinates(dataset, group, "grid/{}")
