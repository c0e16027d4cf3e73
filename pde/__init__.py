"""The equations, and the solvers we trust. One public file a problem; machinery is private.

What a problem outside this repository needs is here too: :class:`Semilinear` and :class:`PeriodicEvolution` for
periodic evolution equations, :class:`RefinedEvolution` and :class:`BetweenWalls` around them, :class:`ConservationLaw`
and :class:`FiniteVolumes` for shocks, :class:`WithEquation` for a strong form as data, :class:`WithWeakForm` for a weak
one, random fields, resampling.
"""

from ._coarser_cells import OnCoarserCells, shock_ladder
from ._equation import Condition, Derivatives, Equation, Term, WithEquation, WithRemainder, dirichlet
from ._finite_volume import ConservationLaw, FiniteVolumes
from ._grid import Axis, Grid
from ._periodic import OnCoarserGrid, PeriodicEvolution, Semilinear, coarse_ladder
from ._problem import Channel, Problem, Setup, Signature, WithExact, WithResidual
from ._products import pointwise
from ._random_fields import dirichlet_field, neumann_field, periodic_field
from ._refined import RefinedEvolution, refined_ladder
from ._solver import OneFrame, Solver, SolverError, Stepped, advanced, check_fields, check_times, frame_numbers, rollout
from ._spectral import Modes, fourier_resample
from ._symmetry import Symmetry, WithSymmetries, square_symmetries, symmetries_of
from ._varied import Varied, varied
from ._walls import BetweenWalls, between_walls, torus_of, wall_field, wall_grid
from ._weak_form import Balance, Candidate, WithWeakForm

__all__ = [
    "Axis",
    "Balance",
    "BetweenWalls",
    "Candidate",
    "Channel",
    "Condition",
    "ConservationLaw",
    "Derivatives",
    "Equation",
    "FiniteVolumes",
    "Grid",
    "Modes",
    "OnCoarserCells",
    "OnCoarserGrid",
    "OneFrame",
    "PeriodicEvolution",
    "Problem",
    "RefinedEvolution",
    "Semilinear",
    "Setup",
    "Signature",
    "Solver",
    "SolverError",
    "Stepped",
    "Symmetry",
    "Term",
    "Varied",
    "WithEquation",
    "WithExact",
    "WithRemainder",
    "WithResidual",
    "WithSymmetries",
    "WithWeakForm",
    "advanced",
    "between_walls",
    "check_fields",
    "check_times",
    "coarse_ladder",
    "dirichlet",
    "dirichlet_field",
    "fourier_resample",
    "frame_numbers",
    "neumann_field",
    "periodic_field",
    "pointwise",
    "refined_ladder",
    "rollout",
    "shock_ladder",
    "square_symmetries",
    "symmetries_of",
    "torus_of",
    "varied",
    "wall_field",
    "wall_grid",
]
