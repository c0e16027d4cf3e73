"""Node positions as files store them, into axes: evenly spaced or refused; half-cell shifts found, not assumed."""

from __future__ import annotations

import math

import numpy as np

from ...pde import Axis
from ...pde._grid import Boundary, Placement
from ._warnings import Assumption, tell

Ends = tuple[Boundary, Boundary]

PERIODIC: Ends = ("periodic", "periodic")
WALLS: Ends = ("dirichlet", "dirichlet")
FLUX_WALLS: Ends = ("neumann", "neumann")
OPEN: Ends = ("outflow", "outflow")

_EVEN = 1e-3  # of a spacing: what coordinates stored as float32 may be off
_DIGITS = 5  # an end of a domain with more decimals than these is no number anybody chose
REACH: dict[Placement, tuple[float, float]] = {"left": (0.0, 1.0), "ends": (0.0, 0.0), "centres": (0.5, 0.5)}


def even(values: np.ndarray, what: str) -> float:
    """The spacing of a coordinate [its unit]; refused where it is not evenly spaced and increasing."""
    values = np.asarray(values, dtype=np.float64)
    steps = np.diff(values)
    step = float(steps.mean()) if len(steps) else math.nan
    off = _EVEN * step + 4 * np.finfo(np.float32).eps * abs(values).max(initial=0.0)
    if not np.isfinite(values).all() or (len(steps) and (step <= 0 or abs(steps - step).max() > off)):
        raise ValueError(
            f"{what} must be evenly spaced and increasing; its steps lie between "
            f"{steps.min():.6g} and {steps.max():.6g}. Interpolate to an even grid first."
        )
    return step


def axis_of(
    name: str, values: np.ndarray, boundary: Ends, *, what: str, placement: Placement | None = None, unit: str = "1"
) -> Axis:
    """The axis whose nodes these are.

    Periodic nodes are ``left`` whatever the file calls them: a period may begin at any node, so cell centres become
    the left ends of cells shifted by half a cell, and the positions stay those of the file. Otherwise nodes are
    ``ends`` or ``centres``, whichever gives the domain the rounder ends; ``placement`` is what the format says, it
    decides a draw, and where the nodes speak against it a warning says so.
    """
    values = np.asarray(values, dtype=np.float64).reshape(-1)
    if len(values) < 2:
        raise ValueError(f"{what} needs at least 2 nodes, it has {len(values)}.")
    step = even(values, what)
    if boundary == PERIODIC:
        placed: Placement = "left"
    else:
        placed = inferred_placement(values, placement or "ends")
        if placement is not None and placed != placement:
            tell(Assumption, f"{what}: this format has nodes at {placement}, but these lie at {placed}; taken so.")
    below, above = REACH[placed]
    lower, upper = (_rounded(v, step) for v in (values[0] - below * step, values[-1] + above * step))
    return Axis(name, len(values), lower, upper, boundary, placed, unit)


def inferred_placement(values: np.ndarray, otherwise: Placement) -> Placement:
    """``ends`` or ``centres`` of nodes that are not periodic: the one with the rounder domain."""
    step = float(values[-1] - values[0]) / (len(values) - 1)
    ends = _decimals(values[0], step) + _decimals(values[-1], step)
    centres = _decimals(values[0] - step / 2, step) + _decimals(values[-1] + step / 2, step)
    if ends == centres:
        return otherwise
    return "ends" if ends < centres else "centres"


def _decimals(value: float, step: float) -> int:
    """Decimals that say a number as exactly as float32 coordinates can."""
    near = _EVEN * step
    return next((d for d in range(_DIGITS) if abs(value - round(value, d)) < near), _DIGITS)


def _rounded(value: float, step: float) -> float:
    """Without the round-off of float32, where a round number is meant."""
    digits = _decimals(value, step)
    return round(float(value), digits) + 0.0 if digits < _DIGITS else float(value)
