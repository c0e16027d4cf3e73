r"""Functions of position, the trunk side of DeepONet and MultiONet: what a point is described by, bases, walls.

A trunk is any module ``forward(points: "point dim") -> "point feature"``, points in the units of the grid: layers on
top of :class:`Positions`, a field of ``fields/`` (:class:`FieldTrunk`), or a fixed basis with values between the nodes
(:class:`PodBasis`).

Between nodes a sampled function is its trigonometric interpolant on periodic axes and the polynomial through the
nearest nodes on others (:func:`between_nodes`): at a node both give the nodal value.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ..fields._builder import fields_named, limited, options_of
from ..fields._jet import Jet
from ..fields._network import Layered
from ..pde import Axis, Grid
from ..pde._local_polynomial import interpolation
from .linear import Blocks, principal_components

Interpolation = Literal["linear", "cubic"]
Form = Literal["independent", "split_both", "split_branch", "split_trunk"]
_DEGREE = {"linear": 1, "cubic": 3}
BLOCK = 256  # fields in double precision at a time


class Positions(nn.Module):
    """Points -> their description: x from -1 to 1 on each axis; on periodic axes cos and sin of 2 pi h x, h = 1 …
    ``harmonics``, which are periodic as the functions are (0: x there too).
    """

    def __init__(self, grid: Grid, harmonics: int = 2) -> None:
        super().__init__()
        if harmonics < 0:
            raise ValueError(f"harmonics must be 0 (the position itself) or more, got {harmonics}.")
        self.harmonics = harmonics
        self.axes = tuple((axis.lower, axis.length, axis.periodic and harmonics > 0) for axis in grid.axes)
        self.count = sum(2 * harmonics if periodic else 1 for _, _, periodic in self.axes)

    def forward(self, points: Float[Tensor, "*batch dim"]) -> Float[Tensor, "*batch feature"]:
        described = []
        for x, (lower, length, periodic) in zip(points.unbind(-1), self.axes, strict=True):
            unit = (x - lower) / length
            if periodic:
                angles = [2 * math.pi * h * unit for h in range(1, self.harmonics + 1)]
                described += [wave for angle in angles for wave in (angle.cos(), angle.sin())]
            else:
                described.append(2 * unit - 1)
        return torch.stack(described, dim=-1)


class FieldTrunk(nn.Module):
    """A field of ``fields/`` as a trunk: its channels are the features, its hidden layers those of a MultiONet.

    name     of the field's file: siren, winner, fkan, …
    waves    root mean square number of waves across each axis that its first layer starts with; it is to be that of the
             outputs, which nobody knows before the training

    Each feature starts with mean square 1 over the nodes (a SIREN's are of size 0.02 otherwise), weights are drawn by
    the global generator as those of other trunks are. On periodic axes the features are periodic.
    """

    def __init__(self, grid: Grid, name: str, features: int, *, width: int, layers: int, waves: float) -> None:
        super().__init__()
        fields = fields_named(name)
        if not waves > 0:
            raise ValueError(f"trunk_waves is a positive number of waves across an axis, got {waves}.")
        sizes = {"width": width, "layers": layers}
        options: dict[str, Any] = {key: value for key, value in sizes.items() if key in options_of(fields.network)}
        ones = torch.ones(features)
        bandwidth = limited([math.pi * waves] * grid.dim, grid)
        seed = int(torch.randint(2**31, ()))
        self.field = fields.starting(grid, bandwidth, 0 * ones, ones, seed=seed, **options)
        with torch.no_grad():
            size = self(points_of(grid, dtype=torch.float32)).square().mean(dim=0).sqrt()
            if not bool((size > 0).all()):
                raise ValueError(f"A {name} starts as zero: it makes no trunk. Use another field, such as siren.")
            self.field.scale /= size

    def forward(self, points: Float[Tensor, "*batch dim"]) -> Float[Tensor, "*batch feature"]:
        return self.field.jet(points.flatten(0, -2)).value.unflatten(0, points.shape[:-1])

    def hidden(self, points: Float[Tensor, "*batch dim"], count: int) -> Float[Tensor, "*batch layer width"]:
        """The last ``count`` activated layers."""
        if not isinstance(self.field.network, Layered):
            kind = type(self.field.network).__name__
            raise ValueError(f"{kind} has no plain layers to be multiplied with a branch's: use siren.")
        inner = (points.flatten(0, -2) - self.field.lower) * self.field.slope - 1
        layers = self.field.network.hidden(Jet(inner[None]))[-count:]
        return torch.stack([jet.value for jet in layers], dim=-2).unflatten(0, points.shape[:-1])


def points_of(grid: Grid, *, dtype: torch.dtype = torch.float64) -> Float[Tensor, "point dim"]:
    """The nodes of a grid as a list of points, in array order."""
    return grid.mesh(dtype=dtype).flatten(1).t().contiguous()


def wall_factor(grid: Grid, points: Float[Tensor, "*batch dim"]) -> Float[Tensor, "*batch"]:
    """Zero on Dirichlet walls, positive inside, about 1 in the middle: the product of the distances to the walls,
    4 x (1 - x) between two of them, x or 1 - x beside one (x from 0 to 1).
    """
    factor = torch.ones_like(points[..., 0])
    for x, axis in zip(points.unbind(-1), grid.axes, strict=True):
        unit = (x - axis.lower) / axis.length
        ends = [kind == "dirichlet" for kind in axis.boundary]
        for wall, distance in zip(ends, (unit, 1 - unit), strict=True):
            factor = factor * distance * (2 if all(ends) else 1) if wall else factor
    return factor


@functools.lru_cache(maxsize=64)
def between_nodes(
    axis: Axis, points: tuple[float, ...], method: Interpolation = "cubic"
) -> Float[Tensor, "points nodes"]:
    """The matrix from values at the nodes of an axis to values at points (float64)."""
    if not axis.periodic:
        return interpolation(axis, points, _DEGREE[method])
    n = axis.size
    place = (torch.tensor(points, dtype=torch.float64) - axis.lower) / axis.length * n
    distance = place[:, None] - torch.arange(n, dtype=torch.float64)  # in cells
    half = math.pi / n * distance
    # the Dirichlet kernel; of an even axis the Nyquist mode counts half at +n/2 and half at -n/2
    kernel = torch.sin(math.pi * distance) / (n * (torch.tan(half) if n % 2 == 0 else torch.sin(half)))
    on_node = (distance - n * (distance / n).round()).abs() < 1e-9  # there the quotient is 0 / 0
    return torch.where(on_node.any(dim=1, keepdim=True), on_node.to(torch.float64), kernel)


def resample(values: Tensor, source: Grid, target: Grid, method: Interpolation = "cubic") -> Tensor:
    """Fields ``... *space`` at the nodes of another grid of the same domain."""
    for axis, (old, new) in enumerate(zip(source.axes, target.axes, strict=True), start=-source.dim):
        if old != new:
            matrix = between_nodes(old, tuple(new.coordinates().tolist()), method)
            values = (values.movedim(axis, -1) @ matrix.to(values).t()).movedim(-1, axis)
    return values


class PodBasis(nn.Module):
    """Leading principal components of training outputs as a trunk; feature 0 is their mean, whose coefficient is 1.

    One set of components for each output (``independent``, ``split_both``), one whose members have all outputs
    (``split_trunk``: the branch shares its coefficients), or one for all outputs alike (``split_branch``). Components
    are orthogonal with mean square 1 over the nodes. What the data do not span is left zero.
    """

    values: Tensor  # output node feature

    def __init__(self, grid: Grid, outputs: int, modes: int, form: Form, method: Interpolation = "cubic") -> None:
        super().__init__()
        self.grid, self.form, self.method = grid, form, method
        self.register_buffer("values", torch.zeros(outputs, grid.size, modes + 1))

    @torch.no_grad()
    def fit(self, fields: Float[Tensor, "field output *space"]) -> None:
        """Raises ``ValueError`` where there are fewer fields than components need."""
        rows = fields.flatten(2)
        modes = self.values.shape[-1] - 1
        if modes > len(rows) - 1:
            raise ValueError(
                f"{len(rows)} training outputs have at most {len(rows) - 1} principal components, but {modes} are "
                f"wanted: use --model.features {max(1, len(rows) - 1)}, or more samples."
            )
        mean = rows.double().mean(dim=0)
        self.values.zero_()
        self.values[..., 0].copy_(mean)
        for chosen, part in self._parts(rows.double() - mean):
            found = principal_components(_blocks(part), modes).components  # orthonormal
            found = found.unflatten(0, (-1, self.grid.size)) * math.sqrt(len(found))
            self.values[chosen, :, 1 : 1 + found.shape[-1]] = found.to(self.values)

    def _parts(self, rows: Tensor) -> Iterator[tuple[slice, Tensor]]:
        """(outputs, fields whose components they get)."""
        if self.form == "split_trunk":
            yield slice(None), rows.flatten(1)
        elif self.form == "split_branch":
            yield slice(None), rows.flatten(0, 1)
        else:
            for output in range(rows.shape[1]):
                yield slice(output, output + 1), rows[:, output]

    def on_nodes(self) -> Float[Tensor, "node output feature"]:
        return self.values.transpose(0, 1)

    def forward(self, points: Float[Tensor, "point dim"]) -> Float[Tensor, "point output feature"]:
        """By interpolation between the nodes; one axis after the other."""
        values = self.on_nodes().unflatten(0, self.grid.shape)
        for number, (x, axis) in enumerate(zip(points.unbind(-1), self.grid.axes, strict=True)):
            matrix = between_nodes(axis, tuple(x.double().tolist()), self.method).to(values)
            values = (
                torch.einsum("ps,s...->p...", matrix, values)
                if number == 0
                else torch.einsum("ps,ps...->p...", matrix, values)
            )
        return values


def _blocks(rows: Tensor) -> Blocks:
    return lambda: iter(rows.split(BLOCK))
