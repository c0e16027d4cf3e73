"""What can be known about an answer before it is believed, and the refusal with a remedy where it cannot be trusted."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ..pde import Axis, SolverError
from ._line import Line
from ._spectrum import Band

UNRESOLVED = 0.15  # amplitude (root of the energy share) close to the Nyquist limit that no prior can make sense of
BELIEVED = 1e-5  # relative misfit of the equation below which nothing is said
EXCELLENT = 1e-6  # and below which no richer prior is tried
REFUSED = 0.3  # and above which there is no answer
ELSEWHERE = 1e-2  # relative misfit between the nodes, where it can be had, that shows them to have seen aliases
CORNERS = 1e-5  # mismatch of data on neighbouring faces, relative to the largest


class HealthWarning(UserWarning):
    """The answer stands, with a limit that is stated."""


@dataclass(frozen=True)
class Health:
    """Of one solve.

    crowding    share of the Nyquist limit that data use, per axis
    floor       amplitude of data at the Nyquist limit relative to the largest, per axis
    misfit      of the equation at the nodes, relative to the source and the lifted data
    ranks       of the discrete Green operators, per axis
    nodes       collocation nodes, per axis
    steps       corrections (linear) or Newton steps (with a reaction)
    """

    crowding: tuple[float, ...]
    floor: tuple[float, ...]
    misfit: float
    ranks: tuple[int, ...]
    nodes: tuple[int, ...]
    steps: int

    def warning(self) -> str:
        """What a user should know; empty where all is well."""
        if self.misfit <= BELIEVED:
            return ""
        return (
            f"The prior explains the equation to {self.misfit:.1e} only on {'x'.join(map(str, self.nodes))} nodes "
            f"(data reach {max(self.crowding):.0%} of the Nyquist limit, at {max(self.floor):.0e} of their peak). "
            "The solution, being smoother, is usually better than that; use more nodes to see it converge."
        )


def check_resolution(bands: list[Band], axes: tuple[Axis, ...]) -> None:
    """Refuse data that the nodes do not resolve. Aliases of waves beyond twice the limit cannot be seen from nodes."""
    for band, axis in zip(bands, axes, strict=True):
        if band.edge > UNRESOLVED:
            wanted = int(4.4 * max(band.top, band.nyquist) * axis.length) + 16
            raise SolverError(
                f"Along {axis.name!r} the grid does not resolve the data: {band.edge:.0%} of their amplitude is "
                f"close to the Nyquist limit, {band.nyquist:.3g} cycles a unit, of its {axis.size} nodes (waves up to "
                f"{band.peak:.3g}), so that it may be an alias of anything. Use at least {wanted} nodes there."
            )


def check_corners(mismatch: float, largest: float) -> None:
    """Refuse boundary data that contradict each other where faces meet."""
    if mismatch > CORNERS * max(largest, 1e-300):
        raise SolverError(
            f"The boundary data contradict each other: where faces meet they differ by {mismatch:.2e} (largest value "
            f"{largest:.2e}). Make the faces agree in their common edges and corners."
        )


def check_signs(line: Line) -> None:
    """Between walls the inverse of a second derivative without lower orders has one sign; another one is breakdown."""
    if line.axis.periodic or line.initial or [m for m, _ in line.operator] != [2]:
        return
    values = torch.linalg.eigvals(line.inverse).real * line.operator[0][1]
    if float(values.max()) >= 0:
        raise SolverError(
            f"Along {line.axis.name!r} the discrete inverse has an eigenvalue of the wrong sign "
            f"({float(values.max()):.1e}): the prior is too rich for {line.cut:.0e}. Use a larger cut or fewer lines."
        )


def check_misfit(health: Health) -> None:
    """Refuse an answer that does not satisfy its equation."""
    if not health.misfit <= REFUSED:
        raise SolverError(
            f"No answer: the equation is satisfied to {health.misfit:.1e} only (relative), on "
            f"{'x'.join(map(str, health.nodes))} nodes with data up to {max(health.crowding):.0%} of the Nyquist "
            "limit. Use more nodes; sources with jumps or corner layers need a method for those."
        )
