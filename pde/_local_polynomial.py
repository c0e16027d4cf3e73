r"""Interpolation and integration of nodal values by polynomials through the nearest nodes, as matrices.

With ``degree`` p the value between two nodes is that of the polynomial through the p + 1 nodes around them (shifted
inwards near the ends): exact for polynomials of degree p, of order p + 1 for smooth functions.
"""

from __future__ import annotations

import functools

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from ._grid import Axis

HIGHEST = 9  # degree: beyond it, one-sided stencils at the ends amplify noise in the values


def check_degree(degree: int) -> None:
    """Refuse degrees for which no sensible stencil exists."""
    if not (1 <= degree <= HIGHEST and degree % 2 == 1):
        raise ValueError(f"degree is an odd number from 1 to {HIGHEST} (as many nodes on both sides), got {degree}.")


@functools.lru_cache(maxsize=32)
def interpolation(axis: Axis, points: tuple[float, ...], degree: int) -> Float[Tensor, "points nodes"]:
    """Values at ``points`` from values at the nodes."""
    place = (np.asarray(points) - float(axis.coordinates()[0])) / axis.spacing
    cells = np.clip(np.floor(place).astype(int), 0, axis.size - 2)
    matrix = np.zeros((len(place), axis.size))
    for row, (x, cell) in enumerate(zip(place, cells, strict=True)):
        first, nodes = _stencil(int(cell), axis.size, degree)
        matrix[row, first : first + len(nodes)] = _lagrange(nodes, np.asarray([x - first]))[0]
    return torch.from_numpy(matrix)


@functools.lru_cache(maxsize=32)
def integration(axis: Axis, degree: int) -> Float[Tensor, "nodes nodes"]:
    """Integrals from the first node to each node."""
    abscissae, weights = np.polynomial.legendre.leggauss((degree + 2) // 2)  # exact for the degree
    matrix = np.zeros((axis.size, axis.size))
    for cell in range(axis.size - 1):
        first, nodes = _stencil(cell, axis.size, degree)
        inner = cell - first + 0.5 * (1 + abscissae)
        matrix[cell + 1] = matrix[cell]
        matrix[cell + 1, first : first + len(nodes)] += axis.spacing * 0.5 * weights @ _lagrange(nodes, inner)
    return torch.from_numpy(matrix)


def _stencil(cell: int, size: int, degree: int) -> tuple[int, np.ndarray]:
    """First node and local positions of the nodes around a cell."""
    count = min(degree + 1, size)
    first = int(np.clip(cell - (count - 1) // 2, 0, size - count))
    return first, np.arange(count, dtype=float)


def _lagrange(nodes: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Rows: points; columns: Lagrange polynomials of the nodes."""
    columns = []
    for j, node in enumerate(nodes):
        others = np.delete(nodes, j)
        columns.append(np.prod((points[:, None] - others) / (node - others), axis=1))
    return np.stack(columns, axis=1)
