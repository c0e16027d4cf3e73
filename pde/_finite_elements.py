r"""Finite elements by scikit-fem: an independent method for Darcy flow, and Taylor-Hood elements for Stokes flow.

scikit-fem is imported by the functions that need it: only those who solve pay for it.

Stokes flow is :math:`-\mu\Delta u + \nabla p = f,\ \nabla\cdot u = 0`, velocity piecewise quadratic and continuous,
pressure piecewise linear and continuous (P2/P1, inf-sup stable): order 3 for the velocity and 2 for the pressure in L2
on smooth solutions. On edges without Dirichlet data the natural condition :math:`\mu\,\partial_n u = p\, n` holds.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import fft, sparse
from scipy.sparse.linalg import splu
from torch import Tensor

from ._grid import Grid
from ._solver import Solver
from .darcy import Darcy, check_coefficient

if TYPE_CHECKING:
    from skfem import Basis, Mesh

Array = NDArray[np.float64]
Function = Callable[[Array, Array], Array]  # of x and y, any shape
Element = Literal["P1", "Q1", "Q2"]


class DarcyElements(Solver):
    """Finite elements on the grid's nodes and the middles between them, the same coefficient as the finite volumes.

    element  ``P1`` triangles, ``Q1`` or ``Q2`` squares; for smooth coefficients the values at the nodes are of order 2,
             2 and 4 (observed; Q2 superconverges there, its L2 order is 3)
    refine   elements a half spacing

    A two-phase coefficient is constant on the control volume of each node, and every control volume is a union of
    elements; the logarithm of a smooth one is its cosine series, evaluated at the quadrature points.
    """

    def __init__(self, problem: Darcy, *, element: Element = "Q1", refine: int = 1) -> None:
        if element not in get_args(Element):
            raise ValueError(f"element is one of {get_args(Element)}, got {element!r}.")
        if refine < 1:
            raise ValueError(f"refine must be at least 1, got {refine}.")
        self.problem = problem
        self.element: Element = element
        self.refine = refine

    @torch.no_grad()
    def __call__(self, inputs: Tensor, grid: Grid, times: Sequence[float] | None = None) -> Tensor:
        check_coefficient(inputs, grid)
        make = on_volumes if self.problem.law == "two_phase" else cosine_exponential
        every = 2 * self.refine
        fine = grid.at([every * (n - 1) + 1 for n in grid.shape])
        solved = []
        for sample in inputs.detach().to("cpu", torch.float64)[:, 0].numpy():
            values = darcy_elements(make(sample, grid), self.problem.source, fine, self.element)
            solved.append(torch.from_numpy(values[::every, ::every].copy()))
        return torch.stack(solved)[:, None].to(inputs)


def darcy_elements(coefficient: Function, source: float | Function, grid: Grid, element: Element) -> Array:
    """-div(a grad u) = f with u = 0 on the boundary, one element (or two triangles) a cell; values at the nodes."""
    import skfem
    from skfem.helpers import dot, grad

    lines = [axis.coordinates().numpy() for axis in grid.axes]
    mesh = (skfem.MeshTri if element == "P1" else skfem.MeshQuad).init_tensor(*lines)
    kind = {"P1": skfem.ElementTriP1, "Q1": skfem.ElementQuad1, "Q2": skfem.ElementQuad2}[element]
    basis = skfem.Basis(mesh, kind(), intorder=5 if element == "Q2" else 3)

    @skfem.BilinearForm
    def stiffness(u: Any, v: Any, w: Any) -> Any:
        return coefficient(w.x[0], w.x[1]) * dot(grad(u), grad(v))

    @skfem.LinearForm
    def load(v: Any, w: Any) -> Any:
        return (source(w.x[0], w.x[1]) if callable(source) else source) * v

    values = basis.zeros()
    inside = basis.complement_dofs(basis.get_dofs())
    matrix = sparse.csc_array(stiffness.assemble(basis))[inside][:, inside]
    values[inside] = _factorised(matrix).solve(load.assemble(basis)[inside])
    return _at_vertices(values, basis, grid)


def _factorised(matrix: sparse.csc_array) -> Any:
    """Minimum degree on A + A^T: the fastest ordering of SuperLU for symmetric patterns."""
    return splu(sparse.csc_array(matrix), permc_spec="MMD_AT_PLUS_A")


def _at_vertices(values: Array, basis: Basis, grid: Grid) -> Array:
    places = [np.rint((p - a.lower) / a.spacing).astype(int) for p, a in zip(basis.mesh.p, grid.axes, strict=True)]
    nodes = np.empty(grid.shape)
    nodes[tuple(places)] = values[basis.nodal_dofs[0]]
    return nodes


def on_volumes(values: Array, grid: Grid) -> Function:
    """Constant on the control volume of each node: the value of the nearest node."""

    def nearest(*points: Array) -> Array:
        return values[
            tuple(
                np.clip(np.floor((p - a.lower) / a.spacing + 0.5).astype(int), 0, a.size - 1)
                for p, a in zip(points, grid.axes, strict=True)
            )
        ]

    return nearest


def cosine_exponential(values: Array, grid: Grid) -> Function:
    """The function whose logarithm is the cosine series through the nodes."""
    coefficients = fft.dctn(np.log(values), type=1)
    for j, n in enumerate(grid.shape):
        ends = np.ones(n)
        ends[[0, -1]] = 0.5
        coefficients *= (ends / (n - 1)).reshape([-1 if i == j else 1 for i in range(grid.dim)])

    def function(x: Array, y: Array) -> Array:
        first, second = (
            np.cos(np.pi / a.length * np.arange(a.size) * (p[..., None] - a.lower))
            for p, a in zip((x, y), grid.axes, strict=True)
        )
        return np.exp(((first @ coefficients) * second).sum(-1))

    return function


@dataclass(frozen=True)
class TaylorHood:
    """Stokes flow on a triangulation whose boundary parts ``dirichlet`` carry velocities; factorised once."""

    mesh: Mesh
    viscosity: float
    dirichlet: tuple[str, ...]  # names of boundary parts of the mesh

    @cached_property
    def velocity(self) -> Basis:
        import skfem

        return skfem.Basis(self.mesh, skfem.ElementVector(skfem.ElementTriP2()), intorder=4)

    @cached_property
    def pressure(self) -> Basis:
        import skfem

        return self.velocity.with_element(skfem.ElementTriP1())

    @cached_property
    def matrix(self) -> sparse.csc_array:
        """[[A, -B^T], [-B, 0]] with all degrees of freedom: symmetric, indefinite."""
        import skfem
        from skfem.helpers import ddot, div, grad

        stiffness = skfem.BilinearForm(lambda u, v, w: self.viscosity * ddot(grad(u), grad(v))).assemble(self.velocity)
        divergence = skfem.BilinearForm(lambda u, q, w: -div(u) * q).assemble(self.velocity, self.pressure)
        return sparse.csc_array(sparse.block_array([[stiffness, divergence.T], [divergence, None]]))

    @cached_property
    def fixed(self) -> NDArray[np.integer]:
        """Velocity unknowns with given values; one pressure too where no edge is free: p is then up to a constant."""
        held = self.velocity.get_dofs(list(self.dirichlet)).all()
        enclosed = len(held) == len(self.velocity.get_dofs().all())
        return np.append(held, self.velocity.N) if enclosed else held

    @cached_property
    def _free(self) -> tuple[NDArray[np.integer], Any]:
        free = np.setdiff1d(np.arange(self.velocity.N + self.pressure.N), self.fixed)
        return free, splu(self.matrix[free][:, free])

    def solve(self, held: Array, load: Array | None = None) -> Array:
        """All unknowns, velocity before pressure, for columns of given values (read at ``fixed``) and of loads."""
        free, factor = self._free
        right = (0.0 if load is None else load) - self.matrix[:, self.fixed] @ held[self.fixed]
        solution = held.copy()
        solution[free] = factor.solve(np.ascontiguousarray(right[free]))
        return solution

    def load(self, force: Callable[[Array, Array], Array]) -> Array:
        """The right side of a body force (2, ...) as a function of x and y."""
        import skfem
        from skfem.helpers import dot

        part = skfem.LinearForm(lambda v, w: dot(force(w.x[0], w.x[1]), v)).assemble(self.velocity)
        return np.concatenate([part, np.zeros(self.pressure.N)])

    def probes(self, points: Array) -> tuple[sparse.csr_array, ...]:
        """Matrices that take all unknowns to u, v and p at points (2, count) of the domain."""
        import skfem

        # points are located in the straight triangles: within an element of those next to a convex hole, its polynomial
        # is continued by less than the height of the arc
        corners = np.ascontiguousarray(self.mesh.p[:, : self.mesh.nvertices])
        straight = skfem.MeshTri(corners, self.mesh.t, sort_t=False)
        cells = straight.element_finder()(*points)
        places = self.velocity.mapping.invF(points[:, :, None], tind=cells)
        count = points.shape[1]
        moving = self._observe(self.velocity, places, cells, 2 * count)
        resting = self._observe(self.pressure, places, cells, count)
        before, after = (sparse.csr_array((count, basis.N)) for basis in (self.velocity, self.pressure))
        parts = [(moving[:count], after), (moving[count:], after), (before, resting)]
        return tuple(sparse.hstack(part, format="csr") for part in parts)

    def _observe(self, basis: Basis, places: Array, cells: NDArray[np.integer], rows: int) -> sparse.csr_array:
        """Basis functions at places of the reference element: components one after the other."""
        values = [np.asarray(basis.elem.gbasis(basis.mapping, places, k, tind=cells)[0]) for k in range(basis.Nbfun)]
        repeats = rows // len(cells)
        columns = basis.element_dofs[:, np.tile(cells, repeats)]
        row = np.tile(np.arange(rows), basis.Nbfun)
        return sparse.csr_array(sparse.coo_array((np.ravel(values), (row, columns.ravel())), shape=(rows, basis.N)))

    def force(self, solution: Array, part: str) -> Array:
        """Force (2,) of the fluid on a boundary part whose velocity is given: the residual of its own equations."""
        reaction = (self.matrix @ solution)[: self.velocity.N]
        held = self.velocity.get_dofs(part)
        return -np.array([reaction[held.all([f"u^{i}"])].sum() for i in (1, 2)])
