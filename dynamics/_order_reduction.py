r"""POD-DEIM: a trained right-hand side in few coordinates, every function evaluated at few entries, as plain layers.

.. math:: u \approx \bar u + V z,\qquad \dot z = V^T f(\bar u + V z)

V      POD: the leading left singular vectors of snapshots of u without their mean, as many as their energy asks for
U, P   the same for what a function makes of its argument, h = s(.), and m' >= m rows of it; with the interpolation
       h ~ mean + D P^T (h - mean), D = U (P^T U)^+, s acts on each entry by itself, so only these entries are computed

Between the rows every affine map A_l of :class:`LayeredField` becomes a small dense one, made once:

    first P_1^T A_1 V (m'_1 x k),   then P_l^T A_l D_{l-1} (m'_l x m'_{l-1}),   last V^T A_p D_{p-1} (k x m'_{p-1}),
    bypass V^T B V,   signal V^T Z

and the reduced field is an ordinary network of these layers: it can be fine-tuned. Lehtimaki, Paunonen, Linne,
"Accelerating neural ODEs using model order reduction" (2022), for one layer; here for a chain of them. Rows: greedy
DEIM (Chaturantabut and Sorensen 2010), Q-DEIM (Drmac and Gugercin 2016) and more rows than modes (Peherstorfer, Drmac
and Gugercin 2020, "GappyPOD+E"). The interpolation error is at most ||(P^T U)^+|| ||(I - U U^T)(h - mean)||. Whether
the whole is stable and how far it is off, ``_reduction_error.py`` says: a projection inherits no stability.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import scipy.linalg
import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from ._layered import Drive, LayeredField, check_field, in_double

Selection = Literal["deim", "qdeim"]

CHUNK = 256  # states that pass through the full layers at a time
ROUNDS = 32  # decompositions spent on rows beyond one a mode, at most


@dataclass(frozen=True)
class Basis:
    """Leading directions of snapshots; ``values`` are all singular values."""

    mean: Float[Tensor, " unknown"]
    vectors: Float[Tensor, "unknown mode"]
    values: Float[Tensor, " all"]

    def leading(self, *, lost: float = 1e-6, modes: int | None = None) -> Basis:
        """As many directions as leave out at most the share ``lost`` of the energy, or ``modes`` of them."""
        if modes is None and not 0 <= lost < 1:
            raise ValueError(f"lost is a share of the snapshots' energy in [0, 1), got {lost}.")
        count = modes if modes is not None else energetic(self.values, lost)
        if not 1 <= count <= self.vectors.shape[1]:
            raise ValueError(
                f"These snapshots give 1 to {self.vectors.shape[1]} modes, not {count}. Take more snapshots, or fewer "
                "modes."
            )
        return Basis(self.mean, self.vectors[:, :count].contiguous(), self.values)

    @property
    def lost(self) -> float:
        """The share of the energy, sum of squares about the mean, that is left out."""
        energy = self.values.square()
        return float(energy[self.vectors.shape[1] :].sum() / energy.sum().clamp_min(1e-300))


def pod(
    snapshots: Float[Tensor, "sample unknown"], *, lost: float = 1e-6, modes: int | None = None, centre: bool = True
) -> Basis:
    """The leading directions of snapshots (:meth:`Basis.leading`)."""
    return decomposed(snapshots, centre=centre).leading(lost=lost, modes=modes)


def decomposed(snapshots: Float[Tensor, "sample unknown"], *, centre: bool = True) -> Basis:
    """All directions."""
    if not bool(torch.isfinite(snapshots).all()):
        raise ValueError("Snapshots must be finite.")
    mean = snapshots.mean(dim=0) if centre else snapshots.new_zeros(snapshots.shape[1])
    _, values, rows = torch.linalg.svd(snapshots - mean, full_matrices=False)
    return Basis(mean, rows.T, values)


def energetic(values: Float[Tensor, " all"], lost: float) -> int:
    """The least number of modes beyond which at most the share ``lost`` of the sum of squares lies; at least 1."""
    energy = values.square()
    beyond = energy.flip(0).cumsum(0).flip(0)  # from the small ones on: no cancellation
    enough = torch.cat([beyond[1:], beyond.new_zeros(1)]) <= lost * beyond[0]
    return int(enough.int().argmax()) + 1


@dataclass(frozen=True)
class Interpolation:
    """Values known at ``rows`` become values everywhere.

    lift       D, from the chosen rows to all entries
    constant   ||(P^T U)^+||_2, by which the projection error may be magnified
    """

    basis: Basis
    rows: Int64[Tensor, " row"]
    lift: Float[Tensor, "unknown row"]
    constant: float

    def __call__(self, values: Float[Tensor, "batch unknown"]) -> Float[Tensor, "batch unknown"]:
        return self.basis.mean + (values - self.basis.mean)[:, self.rows] @ self.lift.T

    def bound(self, values: Float[Tensor, "batch unknown"]) -> Float[Tensor, " batch"]:
        """The largest 2-norm that the interpolation error of these values can have."""
        centred = values - self.basis.mean
        missed = centred - centred @ self.basis.vectors @ self.basis.vectors.T
        return self.constant * missed.norm(dim=1)


def interpolation(basis: Basis, *, selection: Selection = "qdeim", oversample: float = 1.0) -> Interpolation:
    """Rows for a basis: as many as modes, times ``oversample``."""
    if selection not in get_args(Selection):
        raise ValueError(f"selection is one of {get_args(Selection)}, got {selection!r}.")
    if not oversample >= 1:
        raise ValueError(f"oversample is the number of rows a mode, at least 1; got {oversample}.")
    vectors = basis.vectors.cpu().numpy()
    modes = vectors.shape[1]
    rows = deim(vectors) if selection == "deim" else qdeim(vectors)
    rows = oversampled(vectors, rows, min(len(vectors), round(oversample * modes)))
    inverse = np.linalg.pinv(vectors[rows])
    lift = torch.from_numpy(vectors @ inverse).to(basis.vectors)
    return Interpolation(basis, torch.tensor(rows), lift, float(np.linalg.norm(inverse, 2)))


def deim(vectors: np.ndarray) -> list[int]:
    """Greedy: the next row is where the next mode is worst interpolated from the rows so far."""
    rows = [int(np.abs(vectors[:, 0]).argmax())]
    for count in range(1, vectors.shape[1]):
        known = np.linalg.solve(vectors[rows, :count], vectors[rows, count])
        rows.append(int(np.abs(vectors[:, count] - vectors[:, :count] @ known).argmax()))
    return rows


def qdeim(vectors: np.ndarray) -> list[int]:
    """The first pivots of U^T: usually the smaller constant, and independent of the order of the modes."""
    return [int(i) for i in scipy.linalg.qr(vectors.T, mode="r", pivoting=True)[1][: vectors.shape[1]]]


def oversampled(vectors: np.ndarray, rows: list[int], count: int) -> list[int]:
    """Further rows, where the smallest singular value of the chosen rows must grow most.

    With the least right singular vector w and the gap g of the two least squared singular values, a row u raises the
    least eigenvalue by at least (g + |u|^2 - sqrt((g + |u|^2)^2 - 4 g (w u)^2)) / 2. One by one up to ROUNDS rows,
    several at a time beyond: each round takes a decomposition.
    """
    rows, at_once = list(rows), max(1, -(-(count - len(rows)) // ROUNDS))
    size = (vectors**2).sum(axis=1)
    while len(rows) < count:
        _, values, right = np.linalg.svd(vectors[rows], full_matrices=False)
        gap = values[-2] ** 2 - values[-1] ** 2 if len(values) > 1 else 0.0
        along = (vectors @ right[-1]) ** 2
        total = gap + size
        gain = total - np.sqrt(np.maximum(total**2 - 4 * gap * along, 0)) if gap else along
        gain[rows] = -1.0
        rows += [int(i) for i in np.argsort(-gain, kind="stable")[: min(at_once, count - len(rows))]]
    return rows


class Reduced(nn.Module):
    """dz/dt = V^T f(mean + V z) with interpolated functions: ``layers`` of plain ``Linear`` and the field's functions.

    basis            of the states
    interpolations   one for each function
    """

    mean: Tensor
    vectors: Tensor

    def __init__(
        self,
        layers: nn.Sequential,
        bypass: nn.Linear | None,
        drive: Drive | None,
        basis: Basis,
        interpolations: tuple[Interpolation, ...],
        shape: torch.Size,
    ) -> None:
        super().__init__()
        self.layers, self.bypass, self.drive = layers, bypass, drive
        self.basis, self.interpolations, self.shape = basis, interpolations, shape
        dtype = next(layers.parameters()).dtype
        self.register_buffer("mean", basis.mean.to(dtype))
        self.register_buffer("vectors", basis.vectors.to(dtype))

    @property
    def modes(self) -> int:
        return self.vectors.shape[1]

    @property
    def operations(self) -> int:
        """Multiplications a state and evaluation."""
        dense = [*self.layers, *([] if self.bypass is None else [self.bypass])]
        return sum(layer.weight.numel() for layer in dense if isinstance(layer, nn.Linear))

    @property
    def activations(self) -> int:
        """Function values a state and evaluation."""
        return sum(len(each.rows) for each in self.interpolations)

    def forward(self, time: Tensor, coordinates: Float[Tensor, "batch mode"]) -> Float[Tensor, "batch mode"]:
        rate = self.layers(coordinates)
        if self.bypass is not None:
            rate = rate + self.bypass(coordinates)
        return rate if self.drive is None else rate + self.drive(time)

    def encode(self, states: Float[Tensor, "*batch_and_state"]) -> Float[Tensor, "*batch mode"]:
        flat = states.flatten(-len(self.shape))
        return (flat - self.mean) @ self.vectors

    def decode(self, coordinates: Float[Tensor, "*batch mode"]) -> Float[Tensor, "*batch_and_state"]:
        return (self.mean + coordinates @ self.vectors.T).unflatten(-1, self.shape)


class Projected(nn.Module):
    """dz/dt = V^T f(mean + V z) with the whole field inside: Galerkin without interpolation, as dear as the field."""

    def __init__(self, field: nn.Module, basis: Basis, shape: torch.Size) -> None:
        super().__init__()
        self.field, self.basis, self.shape = field, basis, shape

    def forward(self, time: Tensor, coordinates: Float[Tensor, "batch mode"]) -> Float[Tensor, "batch mode"]:
        vectors = self.basis.vectors.to(coordinates)
        states = self.basis.mean.to(coordinates) + coordinates @ vectors.T
        return self.field(time, states.unflatten(1, self.shape)).flatten(1) @ vectors


class Reducer:
    """The snapshots of a field, decomposed once: reduced fields of any size follow in no time.

    snapshots   states of trajectories like those that will be asked for (of all kinds, at all times); each layer takes
                one singular value decomposition, so a thousand rather than a hundred thousand
    centre      take means out first
    """

    @torch.no_grad()
    def __init__(self, field: LayeredField, snapshots: Float[Tensor, "sample *state"], *, centre: bool = True) -> None:
        check_field(field, snapshots)
        states = snapshots.detach().double()
        self.field, self.shape = in_double(field), snapshots.shape[1:]
        self.like, self.signal = snapshots[:0], field.drive
        self.states = decomposed(states.flatten(1), centre=centre)
        parts = [[values.flatten(1) for values in self.field.hidden(part)[1:]] for part in states.split(CHUNK)]
        self.hidden = [decomposed(torch.cat(each), centre=centre) for each in zip(*parts, strict=True)]
        self.known: dict[tuple[int, int, str, float], Interpolation] = {}

    @torch.no_grad()
    def __call__(
        self,
        *,
        lost: float = 1e-6,
        modes: int | None = None,
        hidden_lost: float | None = None,
        points: int | None = None,
        selection: Selection = "qdeim",
        oversample: float = 1.0,
    ) -> Reduced:
        """A reduced field.

        lost          share of the states' energy that may be left out; ``modes`` instead names their number
        hidden_lost   the same for the functions' values (as ``lost`` where None); ``points`` instead names the modes
        selection     deim (greedy) or qdeim (pivoted QR)
        oversample    rows for each mode of a function
        """
        basis = self.states.leading(lost=lost, modes=modes)
        limit = lost if hidden_lost is None else hidden_lost
        found = [self._interpolation(i, limit, points, selection, oversample) for i in range(len(self.hidden))]
        layers, bypass, drive = _layers(self.field, basis, found, self.shape), None, None
        if self.field.bypass is not None:
            bypass = _dense(self.field.bypass, basis.mean, basis.vectors, self.shape, basis.vectors)
        if self.signal is not None:
            drive = Drive((basis.vectors.T @ self.signal.matrix.double()).to(self.like), self.signal.signal)
        made = Reduced(layers, bypass, drive, basis, tuple(found), self.shape)
        return made.to(self.like.device, self.like.dtype)

    def _interpolation(
        self, layer: int, lost: float, points: int | None, selection: Selection, oversample: float
    ) -> Interpolation:
        """Rows depend on the function's modes alone, so reductions with other states share them."""
        basis = self.hidden[layer].leading(lost=lost, modes=points)
        key = (layer, basis.vectors.shape[1], selection, oversample)
        if key not in self.known:
            self.known[key] = interpolation(basis, selection=selection, oversample=oversample)
        return self.known[key]


def reduced(
    field: LayeredField, snapshots: Float[Tensor, "sample *state"], *, centre: bool = True, **options: Any
) -> Reduced:
    """A reduced field of one size: see :class:`Reducer` and the options of its call."""
    return Reducer(field, snapshots, centre=centre)(**options)


def _layers(field: LayeredField, basis: Basis, found: list[Interpolation], shape: torch.Size) -> nn.Sequential:
    origin, columns = basis.mean, basis.vectors
    made: list[nn.Module] = []
    for i, affine in enumerate(field.maps):
        last = i == len(field.maps) - 1
        taken = basis.vectors if last else found[i].rows
        made.append(_dense(affine, origin, columns, shape, taken))
        if not last:
            made.append(field.functions[i])
            here = found[i]
            shape = affine(origin.unflatten(0, shape)[None]).shape[1:]
            # h ~ mean + D (P^T h - P^T mean): what does not depend on h is where the next map starts from
            origin, columns = here.basis.mean - here.lift @ here.basis.mean[here.rows], here.lift
    return nn.Sequential(*made)


def _dense(affine: nn.Module, origin: Tensor, columns: Tensor, shape: torch.Size, taken: Tensor) -> nn.Linear:
    """The map c -> A(origin + columns c), as seen by ``taken``: numbers of rows, or vectors to project on."""
    start = affine(origin.unflatten(0, shape)[None]).flatten(1)
    still = affine(torch.zeros_like(origin).unflatten(0, shape)[None]).flatten(1)
    images = [affine(part.unflatten(1, shape)).flatten(1) - still for part in columns.T.split(CHUNK)]
    through = torch.cat(images)

    def seen(values: Tensor) -> Tensor:
        return values @ taken if taken.is_floating_point() else values[:, taken]

    weight, bias = seen(through).T, seen(start)[0]
    layer = nn.Linear(weight.shape[1], weight.shape[0], dtype=weight.dtype)
    layer.weight.copy_(weight)  # contiguous: slices would cost more than they save
    layer.bias.copy_(bias)
    return layer
