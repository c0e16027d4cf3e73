r"""Where functions live: a rectangular, uniform grid with a boundary kind at each end of each axis.

Axis order is the array order (``indexing="ij"``): the first space axis is x. Three placements of nodes occur in
this field, and confusing them is a classical source of half-cell errors, so every axis states its own:

====================  =======================================================  ==========================
placement             nodes                                                    used for
====================  =======================================================  ==========================
``left``              x_i = lower + i h,          h = (upper - lower) / n      periodic axes
``ends``              x_i = lower + i h,          h = (upper - lower) / (n-1)  Dirichlet, finite elements
``centres``           x_i = lower + (i + 1/2) h,  h = (upper - lower) / n      finite volumes, Neumann
====================  =======================================================  ==========================
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor

Boundary = Literal["periodic", "dirichlet", "neumann", "outflow"]
Placement = Literal["left", "ends", "centres"]


@dataclass(frozen=True)
class Axis:
    """One direction of a grid: name, number of nodes, extent, boundary kind at each end, unit."""

    name: str
    size: int
    lower: float = 0.0
    upper: float = 1.0
    boundary: tuple[Boundary, Boundary] = ("periodic", "periodic")  # (lower end, upper end)
    placement: Placement = "left"
    unit: str = "1"

    def __post_init__(self) -> None:
        object.__setattr__(self, "boundary", tuple(self.boundary))
        if self.size < 2:
            raise ValueError(f"Axis {self.name!r} needs at least 2 nodes, got {self.size}.")
        if not self.upper > self.lower:
            raise ValueError(f"Axis {self.name!r} needs upper > lower, got [{self.lower}, {self.upper}].")
        if any(kind not in get_args(Boundary) for kind in self.boundary):
            raise ValueError(
                f"Axis {self.name!r} has boundary {self.boundary}; each end is one of {get_args(Boundary)}."
            )
        if ("periodic" in self.boundary) and self.boundary != ("periodic", "periodic"):
            raise ValueError(f"Axis {self.name!r} is periodic at one end only: {self.boundary}.")
        if self.periodic != (self.placement == "left"):
            raise ValueError(
                f"Axis {self.name!r}: placement 'left' and periodic ends belong together, "
                f"got placement {self.placement!r} with boundary {self.boundary}."
            )

    @property
    def periodic(self) -> bool:
        return self.boundary[0] == "periodic"

    @property
    def length(self) -> float:
        return self.upper - self.lower

    @property
    def spacing(self) -> float:
        return self.length / (self.size - 1 if self.placement == "ends" else self.size)

    def coordinates(
        self, *, dtype: torch.dtype = torch.float64, device: torch.device | str | None = None
    ) -> Float[Tensor, " size"]:
        offset = 0.5 if self.placement == "centres" else 0.0
        nodes = torch.arange(self.size, dtype=torch.float64, device=device)
        return (self.lower + (nodes + offset) * self.spacing).to(dtype)

    def weights(
        self, *, dtype: torch.dtype = torch.float64, device: torch.device | str | None = None
    ) -> Float[Tensor, " size"]:
        """Quadrature weights [unit]: trapezoidal where both ends are nodes, the mid-point rule elsewhere."""
        weights = torch.full((self.size,), self.spacing, dtype=dtype, device=device)
        if self.placement == "ends":
            weights[0] = weights[-1] = 0.5 * self.spacing
        return weights


@dataclass(frozen=True)
class Grid:
    """A tensor product of axes. Frozen and hashable, so that solvers may cache what they precompute on it.

    Without axes it is a point: where the state of a plain system of ordinary differential equations lives, a field of
    shape ``batch channel``.
    """

    axes: tuple[Axis, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "axes", tuple(self.axes))
        names = [axis.name for axis in self.axes]
        if len(set(names)) != len(names):
            raise ValueError(f"Grid axes need different names, got {names}.")

    @classmethod
    def box(
        cls,
        resolution: int | Sequence[int],
        *,
        lower: float | Sequence[float] = 0.0,
        upper: float | Sequence[float] = 1.0,
        dim: int | None = None,
        boundary: Boundary = "periodic",
        placement: Placement | None = None,
        unit: str = "1",
    ) -> Grid:
        """The same boundary kind all around; axes are called x, y, z. ``Grid.box(64, dim=2)`` is the unit torus."""
        if isinstance(resolution, int):
            resolution = (resolution,) * (dim or 1)
        count = len(resolution)
        if count > 3:
            raise ValueError(f"Grid.box names axes x, y, z: at most 3 directions, got {count}.")
        lowers = (lower,) * count if isinstance(lower, int | float) else tuple(lower)
        uppers = (upper,) * count if isinstance(upper, int | float) else tuple(upper)
        placed: Placement = placement or ("left" if boundary == "periodic" else "ends")
        return cls(
            tuple(
                Axis("xyz"[i], resolution[i], lowers[i], uppers[i], (boundary, boundary), placed, unit)
                for i in range(count)
            )
        )

    @property
    def dim(self) -> int:
        return len(self.axes)

    @functools.cached_property
    def shape(self) -> tuple[int, ...]:
        return tuple(axis.size for axis in self.axes)

    @property
    def spacing(self) -> tuple[float, ...]:
        return tuple(axis.spacing for axis in self.axes)

    @property
    def lengths(self) -> tuple[float, ...]:
        return tuple(axis.length for axis in self.axes)

    @property
    def size(self) -> int:
        """Number of nodes."""
        return math.prod(self.shape)

    @functools.cached_property
    def periodic(self) -> bool:
        """Whether every axis is; a point is not."""
        return bool(self.axes) and all(axis.periodic for axis in self.axes)

    def coordinates(
        self, *, dtype: torch.dtype = torch.float64, device: torch.device | str | None = None
    ) -> tuple[Tensor, ...]:
        """One vector of node positions per axis."""
        return tuple(axis.coordinates(dtype=dtype, device=device) for axis in self.axes)

    def mesh(
        self, *, dtype: torch.dtype = torch.float64, device: torch.device | str | None = None
    ) -> Float[Tensor, "dim *space"]:
        """Node positions as fields, one per direction."""
        if not self.axes:
            return torch.zeros(0, dtype=dtype, device=device)
        return torch.stack(torch.meshgrid(*self.coordinates(dtype=dtype, device=device), indexing="ij"))

    def weights(
        self, *, dtype: torch.dtype = torch.float64, device: torch.device | str | None = None
    ) -> Float[Tensor, "*space"]:
        """Quadrature weights: ``(u * grid.weights()).sum()`` approximates the integral of u over the domain."""
        total = torch.ones((), dtype=dtype, device=device)
        for axis in self.axes:
            total = total[..., None] * axis.weights(dtype=dtype, device=device)
        return total

    def at(self, resolution: int | Sequence[int]) -> Grid:
        """The same domain with another number of nodes (one number for all axes, or one each)."""
        sizes = (resolution,) * self.dim if isinstance(resolution, int) else tuple(resolution)
        if len(sizes) != self.dim:
            raise ValueError(f"Grid has {self.dim} axes, got {len(sizes)} sizes {sizes}.")
        return Grid(tuple(replace(axis, size=n) for axis, n in zip(self.axes, sizes, strict=True)))

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers and words, for JSON."""
        return {"axes": [{**asdict(axis), "boundary": list(axis.boundary)} for axis in self.axes]}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Grid:
        return cls(tuple(Axis(**{**axis, "boundary": tuple(axis["boundary"])}) for axis in values["axes"]))
