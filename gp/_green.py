r"""Discrete Green operators on tensor grids: the sum of one operator a direction, inverted without forming it.

.. math:: \sum_j D_j u = F,\quad u = (G_1 \otimes\dots\otimes G_d)\, B,\qquad
          \sum_j \Big(\bigotimes_{i \ne j} H_i\Big) B = (V_1^T \otimes\dots\otimes V_d^T)\, F

In the bases in which each direction is diagonal the system is a division; a direction in Schur form costs a triangular
solve a mode of the others, two of them a Bartels-Stewart sweep. Factored once, a right side costs 2 d matrix products.

Values on faces are lifted by transfinite blending (a Boolean sum: Coons' patch in two dimensions): w meets all
conditions, and the equation is solved for u - w with zero ones.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from scipy.linalg import get_lapack_funcs
from torch import Tensor

from ..pde import SolverError
from ._kronecker import apply
from ._line import Line

Orders = tuple[int, ...]
CHUNK = 2**22  # entries of triangular systems solved at a time
NOTHING = 1e-10  # of the source: what a singular mode may carry before it is a contradiction


class Green:
    """The inverse of a sum of one-directional operators under zero conditions."""

    def __init__(self, lines: Sequence[Line]) -> None:
        self.lines = tuple(lines)
        self.modes = [line.modes for line in self.lines]
        self.triangular = [j for j, mode in enumerate(self.modes) if mode.triangle is not None]
        if (len(self.triangular) == 2 and len(self.lines) != 2) or len(self.triangular) > 2:
            raise ValueError(
                f"At most one direction with conditions at one end is solved beside others in {len(self.lines)} "
                f"dimensions; here {[self.lines[j].axis.name for j in self.triangular]} are."
            )
        self.denominator = self._denominator()

    def __call__(self, source: Tensor) -> Tensor:
        """U at the nodes, from the source at the nodes."""
        return self.field(self.coefficients(source))

    def coefficients(self, source: Tensor) -> Tensor:
        """B for a source at the nodes (leading axes are a batch)."""
        return self.inverted(apply([mode.analysis for mode in self.modes], source))

    def inverted(self, hat: Tensor) -> Tensor:
        """B for the source's coefficients in the modes of all directions."""
        if not self.triangular:
            return self._divided(hat)
        if len(self.triangular) == 2:
            return self._bartels_stewart(hat)
        return self._swept(hat)

    def field(
        self, coefficients: Tensor, points: Sequence[Tensor] | None = None, orders: Orders | None = None
    ) -> Tensor:
        """A derivative of u on the tensor grid of these points (default: u at the nodes)."""
        where = [line.nodes for line in self.lines] if points is None else points
        return apply(self.rows(where, orders or (0,) * len(self.lines)), coefficients).real

    def rows(self, points: Sequence[Tensor], orders: Orders) -> list[Tensor]:
        """One matrix a direction: coefficients -> derivative at the points."""
        return [
            line.waves(x, order).to(mode.synthesis) @ mode.synthesis
            for line, mode, x, order in zip(self.lines, self.modes, points, orders, strict=True)
        ]

    def _denominator(self) -> Tensor:
        """sum_j under_j prod_{i != j} over_i on the grid of the diagonal directions' modes (triangular ones: 1)."""
        total: Tensor | None = None
        for j in range(len(self.lines)):
            if j not in self.triangular:
                part = self._product({j: "under"}, skip=())
                total = part if total is None else total + part
        return torch.ones((1,) * len(self.lines)) if total is None else total

    def _product(self, special: dict[int, str], skip: Sequence[int]) -> Tensor:
        dim = len(self.lines)
        total = torch.ones((1,) * dim, dtype=torch.float64)
        for i, mode in enumerate(self.modes):
            if i not in skip and mode.over is not None and mode.under is not None:
                value = mode.under if special.get(i) == "under" else mode.over
                total = total * value.reshape([-1 if k == i else 1 for k in range(dim)])
        return total

    def _divided(self, hat: Tensor) -> Tensor:
        size = self.denominator.abs()
        singular = size <= 1e-13 * size.max() if any(line.axis.periodic for line in self.lines) else size == 0
        if bool(singular.any()):
            left = float((hat * singular).abs().max())
            if left > NOTHING * max(float(hat.abs().max()), 1e-300):
                raise SolverError(
                    "The equation has no solution for this source: a mode that the operator maps to zero (a constant, "
                    f"under periodic or flux conditions) carries {left:.1e}. Subtract the mean of the source, or add a "
                    "term without derivative."
                )
        return torch.where(singular, torch.zeros_like(hat), hat / torch.where(singular, 1.0, self.denominator))

    def _swept(self, hat: Tensor) -> Tensor:
        """(prod over) b + (sum of the others' operators) T b = hat, for each mode of the diagonal directions."""
        (j,) = self.triangular
        triangle = self.modes[j].triangle
        assert triangle is not None
        dim = len(self.lines)
        if dim == 1:
            return hat
        lead = hat.ndim - dim
        moved = hat.movedim(lead + j, -1)
        shape = moved.shape
        ones = self._product({}, skip=()).expand(self._shape(1)).movedim(j, -1).reshape(-1)
        others = self.denominator.expand(self._shape(1)).movedim(j, -1).reshape(-1)
        flat = moved.reshape(*shape[:lead], -1, shape[-1]).to(triangle)
        batch = flat.reshape(-1, *flat.shape[-2:]).movedim(0, -1)  # mode, triangular direction, batch
        eye = torch.eye(len(triangle), dtype=triangle.dtype)
        step = max(1, CHUNK // triangle.numel())
        parts = []
        for a in range(0, len(ones), step):
            system = ones[a : a + step, None, None] * eye + others[a : a + step, None, None] * triangle
            parts.append(torch.linalg.solve_triangular(system, batch[a : a + step], upper=True))
        solved = torch.cat(parts).movedim(-1, 0).reshape(shape)
        return solved.movedim(-1, lead + j)

    def _shape(self, triangular: int) -> tuple[int, ...]:
        return tuple(triangular if mode.triangle is not None else mode.analysis.shape[0] for mode in self.modes)

    def _bartels_stewart(self, hat: Tensor) -> Tensor:
        """T1 B + B T2^T = hat: LAPACK solves T1 X + X T2^H, so the second factor is conjugated with its rows."""
        first, second = (self.modes[j].triangle for j in (0, 1))
        assert first is not None
        assert second is not None
        (trsyl,) = get_lapack_funcs(("trsyl",), (first.numpy(), second.numpy()))
        answers = []
        for right in hat.reshape(-1, *hat.shape[-2:]):
            solution, scale, info = trsyl(first.numpy(), second.numpy().conj(), right.resolve_conj().numpy(), tranb="C")
            if info:
                raise SolverError("The two directions' operators cancel each other: the equation is singular.")
            answers.append(torch.from_numpy(solution / scale))
        return torch.stack(answers).reshape(hat.shape)


class Lift:
    """A field that meets all conditions: the Boolean sum of one-directional polynomial interpolations."""

    def __init__(self, lines: Sequence[Line]) -> None:
        self.lines = tuple(lines)

    def __call__(self, values: Sequence[Sequence[Tensor]]) -> tuple[Tensor, float]:
        """Nodal values of w, and the largest mismatch left on any face (0 where the data agree in the corners).

        values   for each direction the values of each of its conditions, ``batch *face``
        """
        shape = tuple(len(line.nodes) for line in self.lines)
        batch = next(face.shape[0] for faces in values for face in faces) if any(values) else 1
        w = torch.zeros((batch, *shape), dtype=torch.float64)
        for j, (line, faces) in enumerate(zip(self.lines, values, strict=True)):
            left = [face - self.trace(w, j, pin) for pin, face in zip(line.pins, faces, strict=True)]
            for number, face in enumerate(left):
                blend = line.blend(number, line.nodes).reshape([-1 if i == j else 1 for i in range(len(shape))])
                w = w + blend * face.unsqueeze(1 + j)
        mismatch = [
            float((face - self.trace(w, j, pin)).abs().max())
            for j, (line, faces) in enumerate(zip(self.lines, values, strict=True))
            for pin, face in zip(line.pins, faces, strict=True)
        ]
        return w, max(mismatch, default=0.0)

    def trace(self, w: Tensor, axis: int, pin: tuple[str, int]) -> Tensor:
        """What a nodal field has where the condition is stated."""
        end, order = pin
        if order == 0:
            return w.select(1 + axis, 0 if end == "lower" else -1)
        line = self.lines[axis]
        row = line.waves(line.place(end), order) @ line.fit
        return torch.tensordot(w, row[0], dims=([1 + axis], [0]))

    def coefficients(self, w: Tensor) -> Tensor:
        """Of a nodal field, in waves and straight lines."""
        return apply([line.fit for line in self.lines], w)

    def field(
        self, coefficients: Tensor, points: Sequence[Tensor] | None = None, orders: Orders | None = None
    ) -> Tensor:
        orders = orders or (0,) * len(self.lines)
        where = [line.nodes for line in self.lines] if points is None else points
        rows = [line.waves(x, order) for line, x, order in zip(self.lines, where, orders, strict=True)]
        return apply(rows, coefficients)


def relative(part: Tensor, whole: Tensor) -> float:
    """The norm of one field in that of another."""
    return float(part.norm()) / max(float(whole.norm()), math.ulp(0.0))
