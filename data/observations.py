r"""What sensors said: values of one field at scattered points, and what is known about their errors.

.. math:: y_i = u(x_i) + \sigma\,\epsilon_i,\qquad \epsilon_i \sim N(0, 1)

u      one channel of a problem's inputs or outputs, in its unit
x_i    positions in the grid's units; for an evolution also times, counted from the initial state
sigma  standard deviation of the errors, or None where it is to be inferred with the rest

In a file (netCDF-4, CF ``featureType = "point"``): ``<field>(point)`` with coordinates ``x(point)``, ``y(point)``, …,
``time(point)``, and a number ``noise``, absent where it is not known. Synthetic observations carry the truth beside
them, on ``grid_x``, ``grid_y``, …, for pictures and scores; nothing that infers reads it.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ..pde import Grid, Signature
from ._files import canonical_json, digest, write_atomically
from ._netcdf import CONVENTIONS, Variable, netcdf_bytes, stored_variables, units_of, versions
from .dataset import as_arrays

if TYPE_CHECKING:
    import xarray

POINT, NOISE, TIME = "point", "noise", "time"
_LETTERS = "XYZ"
_NEAR = 1e-6  # of an axis: what coordinates stored as float32 may lie beyond its ends


@dataclass(frozen=True, eq=False)
class Truth:
    """What synthetic observations were made from: one sample of a data set."""

    inputs: Float[Tensor, "channel *space"]
    outputs: Float[Tensor, "*rest"]  # [time] channel *space
    grid: Grid
    signature: Signature

    def fields(self) -> dict[str, Float[Tensor, "*rest"]]:
        """Every channel by its name in files, ``[time] *space``, the initial state first."""
        arrays = as_arrays(self.signature, self.inputs[None], self.outputs[None])
        return {stored.name: stored.of(arrays)[0] for stored in stored_variables(self.signature, self.grid)}


@dataclass(frozen=True, eq=False)
class Observations:
    """Values of one field at points, all of one unknown state.

    field    name of the observed channel
    points   where, in physical units
    values   what was measured
    noise    standard deviation of the errors, in the field's unit; None: to be inferred
    times    when, of an evolution
    axes     names of the columns of ``points``
    units    of the field, of each axis by its name, and of ``time``; pure numbers where none is given
    truth    what they were made from, where they are synthetic
    source   where they come from: plain JSON values
    """

    field: str
    points: Float[Tensor, "point dim"]
    values: Float[Tensor, " point"]
    noise: float | None = None
    times: Float[Tensor, " point"] | None = None
    axes: tuple[str, ...] = ()
    units: Mapping[str, str] = dataclasses.field(default_factory=dict)
    truth: Truth | None = dataclasses.field(default=None, repr=False)
    source: Mapping[str, Any] = dataclasses.field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        for name in ("points", "values", "times"):
            if getattr(self, name) is not None:
                object.__setattr__(self, name, torch.as_tensor(getattr(self, name)).detach().to("cpu", torch.float64))
        object.__setattr__(self, "axes", tuple(self.axes) or tuple("xyz"[: self.points.shape[-1]]))
        self._check()

    def _check(self) -> None:
        shapes = [tuple(t.shape) for t in (self.points, self.values, self.times) if t is not None]
        if self.points.ndim != 2 or any(shape != shapes[0][:1] for shape in shapes[1:]):
            raise ValueError(
                f"Observations are points (point, dim) with one value (and time) each, got shapes {shapes}."
            )
        if not len(self.values):
            raise ValueError("There are no observations: at least 1 point is needed.")
        if len(self.axes) != self.points.shape[1]:
            raise ValueError(f"Points have {self.points.shape[1]} coordinates, named {self.axes}: one name each.")
        for name, tensor in (("values", self.values), ("positions", self.points), ("times", self.times)):
            if tensor is not None and not bool(torch.isfinite(tensor).all()):
                bad = (~torch.isfinite(tensor).reshape(len(self.values), -1).all(dim=1)).nonzero().flatten().tolist()
                raise ValueError(f"Non-finite {name} of observations at point(s) {bad[:8]}.")
        if self.noise is not None and not 0 < self.noise < math.inf:
            raise ValueError(
                f"The noise of observations is a positive standard deviation, or absent; got {self.noise}."
            )

    def __len__(self) -> int:
        return len(self.values)

    @property
    def fingerprint(self) -> str:
        """A hash of what an inference depends on: the truth is not part of it."""
        tensors = [self.points, self.values, *([] if self.times is None else [self.times])]
        parts = [digest(np.ascontiguousarray(tensor.numpy()).tobytes()) for tensor in tensors]
        return digest(canonical_json([self.field, self.noise, list(self.axes), parts]))

    def places(self, signature: Signature, grid: Grid) -> Float[Tensor, "point dim"]:
        """The points as a model of this problem takes them: with the time as last column where it evolves.

        Raises ``ValueError`` for an unknown field, other axes, points outside the domain, missing or later times.
        """
        known = observable(signature, grid)
        if self.field not in known:
            near = difflib.get_close_matches(self.field, known, n=1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise ValueError(f"Unknown field {self.field!r} in the observations; known: {', '.join(known)}.{hint}")
        names = tuple(axis.name for axis in grid.axes)
        if self.axes != names:
            raise ValueError(f"Observations need the coordinates {names}, got {self.axes}.")
        check_inside(self.points, self.times, signature, grid)
        return self.points if self.times is None else torch.cat([self.points, self.times[:, None]], dim=1)

    def save(self, path: Path | str) -> None:
        """Write a netCDF-4 file, atomically."""
        told = {
            "Conventions": CONVENTIONS,
            "featureType": "point",
            "title": f"{len(self)} observations of {self.field}",
            "source": f"resolvent {versions()['resolvent']}",
            "origin": canonical_json(dict(self.source)),
        }
        if self.truth is not None:
            told |= {
                "signature": canonical_json(self.truth.signature.to_dict()),
                "grid": canonical_json(self.truth.grid.to_dict()),
            }
        write_atomically(path, netcdf_bytes(self._variables(), told))

    def _variables(self) -> dict[str, Variable]:
        columns = dict(zip(self.axes, self.points.unbind(dim=1), strict=True))
        letters = dict(zip(self.axes, _LETTERS, strict=False))
        if self.times is not None:
            columns[TIME], letters[TIME] = self.times, "T"
        made = {
            name: Variable(
                (POINT,),
                column.numpy(),
                {"units": self._unit(name), "long_name": name, **({"axis": letters[name]} if name in letters else {})},
            )
            for name, column in columns.items()
        }
        about = {"units": self._unit(self.field), "coordinates": " ".join(columns)}
        if self.noise is not None:
            about["ancillary_variables"] = NOISE
            error = {"units": self._unit(self.field), "long_name": "standard deviation of the errors"}
            made[NOISE] = Variable((), np.asarray(self.noise), error)
        made[self.field] = Variable((POINT,), self.values.numpy(), about)
        return made | ({} if self.truth is None else _truth_variables(self.truth))

    def _unit(self, name: str) -> str:
        return units_of(self.units.get(name, "1"))

    @classmethod
    def load(cls, path: Path | str) -> Observations:
        """Read a netCDF file as :meth:`save` writes it, or with as little as ``<field>(point)`` and ``x(point)``, ….

        Raises ``FileNotFoundError``, and ``ValueError`` naming the file and what is wrong with it.
        """
        import xarray

        path = Path(path)
        if not path.exists():
            raise FileNotFoundError(f"There is no file {path}.")
        try:
            with xarray.open_dataset(path, decode_times=False) as held:
                return _from_xarray(held.load())
        except (OSError, ValueError, KeyError) as error:
            raise ValueError(f"{path} does not hold observations: {error}") from error


def observable(signature: Signature, grid: Grid) -> list[str]:
    """Fields that sensors can see: of a static map inputs and outputs, of an evolution its state."""
    stored = stored_variables(signature, grid)
    return [one.name for one in stored if one.role in ("output", "state")] + [
        one.name for one in stored if one.role == "input"
    ]


def check_inside(points: Tensor, times: Tensor | None, signature: Signature, grid: Grid) -> None:
    """Refuse points and times outside the domain, and times that are missing or make no sense."""
    if signature.evolves != (times is not None):
        raise ValueError(
            "Observations of an evolution need a time each, counted from the initial state."
            if signature.evolves
            else "This problem does not depend on time: leave the times of observations out."
        )
    for i, axis in enumerate(grid.axes):
        _within(points[:, i], axis.lower, axis.upper, axis.name)
    if times is not None:
        _within(times, 0.0, signature.times[-1], TIME)


def check_clear(points: Float[Tensor, "point dim"], free: Bool[Tensor, " point"]) -> None:
    """Refuse points that are not free of an obstacle."""
    if not bool(free.all()):
        first = int((~free).nonzero()[0])
        where = ", ".join(f"{float(x):.6g}" for x in points[first])
        raise ValueError(
            f"{int((~free).sum())} of {len(points)} observations lie outside the domain, inside its obstacle: point "
            f"{first} is ({where})."
        )


def _within(values: Tensor, lower: float, upper: float, name: str) -> None:
    margin = _NEAR * (upper - lower)
    outside = (values < lower - margin) | (values > upper + margin)
    if bool(outside.any()):
        first = int(outside.nonzero()[0])
        raise ValueError(
            f"{int(outside.sum())} of {len(values)} observations lie outside the domain: {name} is in "
            f"[{lower:g}, {upper:g}], point {first} has {name} = {float(values[first]):.6g}."
        )


def _truth_variables(truth: Truth) -> dict[str, Variable]:
    made = {
        f"grid_{axis.name}": Variable(
            (f"grid_{axis.name}",), axis.coordinates().numpy(), {"units": units_of(axis.unit)}
        )
        for axis in truth.grid.axes
    }
    if truth.signature.evolves:
        frames = np.asarray((0.0, *truth.signature.times))
        made["frame"] = Variable(("frame",), frames, {"units": units_of(truth.signature.time_unit)})
    fields = truth.fields()
    for stored in stored_variables(truth.signature, truth.grid):
        dims = (*(("frame",) if stored.role == "state" else ()), *(f"grid_{axis.name}" for axis in truth.grid.axes))
        unit = {"units": units_of(stored.channel.unit)}
        made[f"{stored.name}_truth"] = Variable(dims, fields[stored.name].numpy(), unit)
    return made


def _from_xarray(held: xarray.Dataset) -> Observations:
    columns = {str(name): held[name] for name in held.variables if held[name].dims == (POINT,)}
    where = [
        name for name in columns if name in held.coords or "axis" in held[name].attrs or name in ("x", "y", "z", TIME)
    ]
    fields = [name for name in columns if name not in where]
    if len(fields) != 1 or not [name for name in where if name != TIME]:
        raise ValueError(
            f"expected one field and its coordinates along the dimension {POINT!r}, got fields {fields} and "
            f"coordinates {where}."
        )
    order = {letter: i for i, letter in enumerate(_LETTERS)}
    axes = sorted((n for n in where if n != TIME), key=lambda n: (order.get(str(held[n].attrs.get("axis", "")), 9), n))
    name = fields[0]
    noise = float(held[NOISE]) if NOISE in held else None
    return Observations(
        name,
        torch.from_numpy(np.stack([held[axis].values.astype(np.float64) for axis in axes], axis=1)),
        torch.from_numpy(held[name].values.astype(np.float64)),
        noise,
        torch.from_numpy(held[TIME].values.astype(np.float64)) if TIME in where else None,
        tuple(axes),
        {n: str(held[n].attrs.get("units", "1")) for n in (name, *where)},
        _truth_from(held),
        json.loads(held.attrs.get("origin", "{}")),
    )


def _truth_from(held: xarray.Dataset) -> Truth | None:
    if "signature" not in held.attrs or "grid" not in held.attrs:
        return None
    signature = Signature.from_dict(json.loads(held.attrs["signature"]))
    grid = Grid.from_dict(json.loads(held.attrs["grid"]))
    parts: dict[str, list[Tensor]] = {"state": [], "given": [], "input": [], "output": []}
    for stored in stored_variables(signature, grid):
        parts[stored.role].append(torch.from_numpy(held[f"{stored.name}_truth"].values))
    if not signature.evolves:
        return Truth(torch.stack(parts["input"]), torch.stack(parts["output"]), grid, signature)
    states = torch.stack(parts["state"], dim=1)
    return Truth(
        torch.cat([states[0], *([torch.stack(parts["given"])] if parts["given"] else [])]), states[1:], grid, signature
    )
