"""The equations, and the solvers we trust. One public file a problem; machinery is private."""

from ._grid import Axis, Grid
from ._problem import Channel, Problem, Setup, Signature, WithExact, WithResidual
from ._solver import OneFrame, Solver, SolverError, Stepped, check_fields, rollout

__all__ = [
    "Axis",
    "Channel",
    "Grid",
    "OneFrame",
    "Problem",
    "Setup",
    "Signature",
    "Solver",
    "SolverError",
    "Stepped",
    "WithExact",
    "WithResidual",
    "check_fields",
    "rollout",
]
