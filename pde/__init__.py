"""The equations, and the solvers we trust. One public file a problem; machinery is private.

What a problem outside this repository needs is here too: :class:`Semilinear` and :class:`PeriodicEvolution` for
periodic evolution equations, random fields, Fourier resampling.
"""

from ._grid import Axis, Grid
from ._periodic import OnCoarserGrid, PeriodicEvolution, Semilinear, coarse_ladder
from ._problem import Channel, Problem, Setup, Signature, WithExact, WithResidual
from ._random_fields import dirichlet_field, neumann_field, periodic_field
from ._solver import OneFrame, Solver, SolverError, Stepped, check_fields, check_times, frame_numbers, rollout
from ._spectral import Modes, fourier_resample

__all__ = [
    "Axis",
    "Channel",
    "Grid",
    "Modes",
    "OnCoarserGrid",
    "OneFrame",
    "PeriodicEvolution",
    "Problem",
    "Semilinear",
    "Setup",
    "Signature",
    "Solver",
    "SolverError",
    "Stepped",
    "WithExact",
    "WithResidual",
    "check_fields",
    "check_times",
    "coarse_ladder",
    "dirichlet_field",
    "fourier_resample",
    "frame_numbers",
    "neumann_field",
    "periodic_field",
    "rollout",
]
