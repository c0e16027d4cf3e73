r"""One direction of an equation, discretised by a Gaussian process: its differential operator inverted on a line.

The prior is a line spectrum and a polynomial trend, k(x, y) = phi(x) phi(y)^T with waves and Legendre polynomials phi.
Conditions (a value or slope at an end) are met exactly by bridging, k0 = k - k_b k_bb^{-1} k_b^T, in the factor a
projection: phi0 = phi (I - Q Q^T), Q spanning the rows of the conditions. With the operator D of this direction and the
singular value decomposition D phi0 = V S W^T in L2 of the interval (at Gauss-Legendre nodes, however the data lie)

    G = phi0 W / S      maps coefficients of D u (in V) to u, anywhere: the discrete Green operator
    H = <V, G>          the inverse of D compressed to its range

Singular values below ``cut`` times the largest are dropped. Coefficients of a source known at nodes are its conditional
mean. The covariance of D u has the eigenvalues S²: working with the factor keeps the digits that its matrix would lose.

For the second derivative between walls the Green operator is symmetric and negative, and so is its compression in L2:
eigenvalues of the wrong sign cannot appear, whatever the nodes (with H = V^T G at the nodes themselves they do: p2d3 on
100² nodes then has an error of 1, with this form 1e-7). The trend is there because inverses produce straight lines,
which waves of a pruned band represent badly (p3d: 1e-6 without, 3e-7 with).

Boundary-value directions are diagonalised (H X = X h); initial-value directions, where D is a Volterra operator and
eigenvectors are useless, are brought to Schur form (H Z = Z T); periodic directions are Fourier modes.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from numpy.polynomial import legendre
from scipy.linalg import schur
from torch import Tensor

from ..pde import Axis
from ._covariance import LineSpectrum

CUT = 1e-8  # of the singular values of D phi0; rounding grows as 1e-16 / CUT, what is dropped falls with it
FIT_CUT = 3e-11  # of the singular values of phi at the nodes: below it second derivatives of a fit are rounding
DEGREE = 5  # of the trend
WORST_VECTORS = 1e8  # condition of the eigenvectors beyond which the Schur form is taken
SYMMETRIC = 1e-5  # relative asymmetry of H up to which it is rounding
Operator = tuple[tuple[int, float], ...]  # (order of derivative, coefficient)
Pin = tuple[str, int]  # (end, order of derivative) that is given


@dataclass(frozen=True)
class Modes:
    """A basis of one direction in which ``D`` is numerators over denominators, or triangular.

    analysis    nodal values -> coefficients of D u
    synthesis   weights W of the waves: u^(m)(x) = phi^(m)(x) W b
    over, under D acts on mode i as under_i / over_i (over is folded into the synthesis); None where triangular
    triangle    H in Schur form, upper triangular, where over and under are None
    """

    analysis: Tensor
    synthesis: Tensor
    over: Tensor | None = None
    under: Tensor | None = None
    triangle: Tensor | None = None


class Line:
    """One axis with its nodes, covariance, operator and conditions."""

    def __init__(
        self, axis: Axis, covariance: LineSpectrum, operator: Operator, pins: Sequence[Pin], *, cut: float = CUT
    ) -> None:
        self.axis, self.covariance, self.operator, self.pins = axis, covariance, operator, tuple(pins)
        self.cut = cut
        self.nodes = axis.coordinates()
        order = max((m for m, _ in operator), default=0)
        if not axis.periodic and len(self.pins) != order:
            raise ValueError(
                f"Along {axis.name!r} the operator is of order {order}, which needs {order} condition(s) at its ends; "
                f"got {len(self.pins)}: {list(self.pins)}."
            )

    @property
    def initial(self) -> bool:
        """All conditions at one end: a Volterra operator."""
        return not self.axis.periodic and len({end for end, _ in self.pins}) == 1

    def place(self, end: str) -> Tensor:
        return torch.tensor([self.axis.lower if end == "lower" else self.axis.upper], dtype=torch.float64)

    def waves(self, x: Float[Tensor, " point"], order: int = 0) -> Tensor:
        """Derivatives of the features: the trend (unless periodic), then waves measured from the middle of the axis."""
        waves = self.covariance.features(x - 0.5 * (self.axis.lower + self.axis.upper), order)
        return waves if self.axis.periodic else torch.cat([self._trend(x, order), waves], dim=1)

    def _trend(self, x: Tensor, order: int) -> Tensor:
        at = (2 * (x - self.axis.lower) / self.axis.length - 1).numpy()
        columns = [legendre.legval(at, legendre.legder(row, order) if order else row) for row in np.eye(DEGREE + 1)]
        scale = float(self.covariance.weights.max().sqrt()) * (2 / self.axis.length) ** order
        return scale * torch.from_numpy(np.stack(columns, axis=1))

    @functools.cached_property
    def quadrature(self) -> tuple[Tensor, Tensor]:
        """Gauss-Legendre nodes and weights that integrate products of two waves."""
        turns = float(self.covariance.frequencies.max()) * self.axis.length
        nodes, weights = legendre.leggauss(math.ceil(1.1 * math.pi * turns) + 50)
        return (
            self.axis.lower + 0.5 * (torch.from_numpy(nodes) + 1) * self.axis.length,
            0.5 * self.axis.length * torch.from_numpy(weights),
        )

    def image(self, x: Float[Tensor, " point"]) -> Tensor:
        """D phi0."""
        return self.bridged(torch.stack([c * self.waves(x, m) for m, c in self.operator]).sum(dim=0))

    @functools.cached_property
    def pinned(self) -> Float[Tensor, "feature pin"]:
        """Orthonormal directions of the features that the conditions determine."""
        rows = torch.cat([self.waves(self.place(end), order) for end, order in self.pins])
        return torch.linalg.qr((rows / rows.norm(dim=1, keepdim=True)).T)[0]

    def bridged(self, values: Tensor) -> Tensor:
        return values if not self.pins else values - (values @ self.pinned) @ self.pinned.T

    @functools.cached_property
    def factors(self) -> tuple[Tensor, Tensor, Tensor]:
        """V (times the root of the quadrature weights), S, W, without the directions below the cut."""
        x, weights = self.quadrature
        left, sizes, right = torch.linalg.svd(weights.sqrt()[:, None] * self.image(x), full_matrices=False)
        rank = int((sizes > self.cut * sizes[0]).sum())
        return left[:, :rank], sizes[:rank], self.bridged(right[:rank]).T

    @property
    def rank(self) -> int:
        return self.modes.analysis.shape[0]

    @functools.cached_property
    def inverse(self) -> Float[Tensor, "mode mode"]:
        """H: the inverse of D, compressed to its own range; symmetric where its asymmetry is rounding."""
        left, sizes, right = self.factors
        x, weights = self.quadrature
        inverse = left.T @ (weights.sqrt()[:, None] * (self.waves(x) @ right)) / sizes
        if float((inverse - inverse.T).norm()) <= SYMMETRIC * float(inverse.norm()):
            return 0.5 * (inverse + inverse.T)
        return inverse

    @functools.cached_property
    def observed(self) -> Float[Tensor, "mode node"]:
        """Nodal values of D u -> coefficients in V: the conditional mean in the prior of variances S²."""
        _, sizes, right = self.factors
        left, inner, turn = torch.linalg.svd(self.image(self.nodes) @ right, full_matrices=False)
        rank = int((inner > self.cut * inner[0]).sum())
        return sizes[:, None] * (turn[:rank].T / inner[:rank]) @ left[:, :rank].T

    @functools.cached_property
    def modes(self) -> Modes:
        if self.axis.periodic:
            return self._fourier()
        _, sizes, right = self.factors
        if not self.initial:
            if torch.equal(self.inverse, self.inverse.T):
                values, vectors = torch.linalg.eigh(self.inverse)
                return self._diagonal(values, vectors)
            values, vectors = torch.linalg.eig(self.inverse)
            if float(torch.linalg.cond(vectors)) < WORST_VECTORS:
                return self._diagonal(values, vectors)
        triangle, turn = (torch.from_numpy(part) for part in schur(self.inverse.numpy(), output="complex"))
        return Modes(turn.mH @ self.observed.to(turn), (right / sizes).to(turn) @ turn, triangle=triangle)

    def _diagonal(self, values: Tensor, vectors: Tensor) -> Modes:
        _, sizes, right = self.factors
        analysis = torch.linalg.solve(vectors, self.observed.to(vectors))
        return Modes(analysis, (right / sizes).to(vectors) @ vectors, values, torch.ones_like(values))

    def _fourier(self) -> Modes:
        """Complex waves of the box, as combinations of the (cosine, sine) features."""
        turn = 2 * torch.pi * self.covariance.frequencies
        size, count = self.covariance.weights.sqrt(), len(turn)
        middle = 0.5 * (self.axis.lower + self.axis.upper)
        rows = torch.cat([torch.diag(1 / size), torch.diag(1j / size)]).to(torch.complex128)
        synthesis = torch.cat([rows, rows.conj()[:, 1:]], dim=1)
        signed = torch.cat([turn, -turn[1:]])
        symbol = torch.stack([c * (1j * signed) ** m for m, c in self.operator]).sum(dim=0)
        phase = torch.exp(-1j * signed[:, None] * (self.nodes - middle)) / len(self.nodes)
        assert len(signed) == 2 * count - 1
        return Modes(phase, synthesis, torch.ones_like(symbol), symbol)

    @functools.cached_property
    def fit(self) -> Float[Tensor, "feature node"]:
        """Nodal values -> coefficients of the features, without any condition: for data on faces, for coefficients."""
        left, sizes, right = torch.linalg.svd(self.waves(self.nodes), full_matrices=False)
        rank = int((sizes > FIT_CUT * sizes[0]).sum())
        return right[:rank].T @ (left[:, :rank] / sizes[:rank]).T

    @functools.cached_property
    def blends(self) -> list[Tensor]:
        """For each condition the coefficients of a polynomial that meets it and is zero in the others (ascending)."""
        first = 0 if any(order == 0 for _, order in self.pins) else 1
        powers = range(first, first + len(self.pins))
        rows = torch.stack([_monomials(self.place(end), powers, order)[0] for end, order in self.pins])
        return list(torch.linalg.inv(rows).T)

    def blend(self, number: int, x: Tensor, order: int = 0) -> Tensor:
        first = 0 if any(m == 0 for _, m in self.pins) else 1
        return _monomials(x, range(first, first + len(self.pins)), order) @ self.blends[number]


def _monomials(x: Tensor, powers: Sequence[int], order: int) -> Tensor:
    columns = []
    for power in powers:
        falling = 1
        for k in range(order):
            falling *= power - k
        columns.append(falling * x ** max(0, power - order))
    return torch.stack(columns, dim=1)
