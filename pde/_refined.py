r"""A trusted answer on any grid: the periodic solver on as fine a grid as the solution needs, read off at the nodes.

A state sampled on n nodes says what its trigonometric interpolant is; the equation then makes finer scales than n
nodes carry (Burgers at viscosity 0.01/pi steepens -sin(pi x) until it needs some 4000 modes). So the state is
interpolated onto 1, 2, 4, … times as many nodes, exactly, and solved there; every node of the given grid is among
them. Whether a grid was fine enough is seen in the spectrum, at the end of every block of time steps: the top tenth of
the modes that the 2/3 rule keeps may hold no more than ``tolerance`` of the norm.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from ._grid import Grid
from ._periodic import CPU_CHUNK, GPU_CHUNK, PeriodicEvolution, Semilinear, coarse_ladder
from ._problem import Signature
from ._solver import Solver, SolverError, check_fields, check_times
from ._spectral import Modes, fourier_resample

Nodes = int | Literal["auto", "given"]

EDGE = 0.9  # where the top of the kept modes begins, as a share of the highest
MOST_NODES = 2**20  # of one sample; beyond, an answer would take hours
FINEST_AXIS = 2**15


class RefinedEvolution(Solver):
    """:class:`PeriodicEvolution` of an equation on a finer grid than the fields are given on.

    nodes       ``auto`` (default): doubled, sample by sample, until the spectrum says that it is enough;
                ``given``: the nodes of the fields; a number: at least so many an axis (between walls: of the axis
                twice as long that carries the reflection)
    tolerance   relative L2 error allowed per frame spacing, in time, and of the norm in the top tenth of the modes

    ``step``, ``method`` and ``chunk`` are those of :class:`PeriodicEvolution`. Order 4 in time, spectral in space.
    Raises :class:`SolverError` where no grid of 2^15 nodes an axis and 2^20 in all is fine enough.
    """

    def __init__(
        self, equation: Semilinear, *, nodes: Nodes = "auto", tolerance: float = 1e-6, **accuracy: Any
    ) -> None:
        if not (nodes in ("auto", "given") or (isinstance(nodes, int) and 2 <= nodes <= FINEST_AXIS)):
            raise ValueError(f"nodes is 'auto', 'given' or a number from 2 to {FINEST_AXIS}, got {nodes!r}.")
        self.nodes = nodes
        self.tolerance = tolerance
        self._watched = _Watched(equation, tolerance)
        self.evolution = PeriodicEvolution(self._watched, tolerance=tolerance, **accuracy)

    @property
    def equation(self) -> Semilinear:
        return self._watched.equation

    @property
    def steps_taken(self) -> int:
        """Nonlinear steps since construction, for cost reports."""
        return self.evolution.steps_taken

    @torch.no_grad()
    def __call__(self, inputs: Tensor, grid: Grid, times: Sequence[float] | None = None) -> Tensor:
        signature = self.equation.signature
        check_fields(inputs, grid, len(signature.inputs))
        times = tuple(signature.times if times is None else times)
        check_times(times)
        factor = 1
        while isinstance(self.nodes, int) and factor * min(grid.shape) < self.nodes:
            factor *= 2
        outputs = inputs.new_empty(len(inputs), len(times), *inputs.shape[1:])
        pending = list(range(len(inputs)))
        while pending:
            pending = self._solve(inputs, grid, times, factor, pending, outputs)
            factor *= 2
            if pending and (grid.size * factor**grid.dim > MOST_NODES or max(grid.shape) * factor > FINEST_AXIS):
                raise SolverError(
                    f"Sample(s) {pending[:8]} are not resolved to {self.tolerance:g} on {max(grid.shape) * factor // 2}"
                    " nodes an axis. Use more diffusion, a larger tolerance, or nodes='given'."
                )
        return outputs

    def _solve(
        self, inputs: Tensor, grid: Grid, times: tuple[float, ...], factor: int, pending: list[int], outputs: Tensor
    ) -> list[int]:
        """Solve the pending samples on a grid so many times finer; which of them it did not resolve."""
        fine = grid.at([factor * n for n in grid.shape])
        most = CPU_CHUNK if inputs.device.type == "cpu" else GPU_CHUNK
        chunk = self.evolution.chunk or max(1, most // fine.size)
        every = (slice(None),) * 3 + (slice(None, None, factor),) * grid.dim
        left = []
        for first in range(0, len(pending), chunk):
            numbers = pending[first : first + chunk]
            states = fourier_resample(inputs[numbers].to(torch.float64), fine.shape)
            self._watched.start(patient=self.nodes != "auto")
            try:
                answers = self.evolution(states, fine, times)
            except _TooCoarse:
                left += numbers
                continue
            unresolved = self._watched.unresolved() if self.nodes == "auto" else []
            done = [i for i in range(len(numbers)) if i not in unresolved]
            outputs[[numbers[i] for i in done]] = answers[done][every].to(outputs.dtype)
            left += [numbers[i] for i in unresolved]
        return left


def refined_ladder(equation: Semilinear, grid: Grid) -> dict[str, Solver]:
    """:func:`coarse_ladder`, and for fields that make finer scales than the grid carries, rungs that refine it."""
    refined = {f"refined tol {tol:g}": RefinedEvolution(equation, tolerance=tol) for tol in (1e-2, 1e-4)}
    return {**coarse_ladder(equation, grid), **refined}


class _TooCoarse(Exception):
    """No sample of the chunk is resolved any more: no use going on."""


class _Watched(Semilinear):
    """The same equation, which notes the top of the spectrum whenever the solver asks for its speed: once a block.

    The first time is the initial state: what that holds there is the user's.
    """

    def __init__(self, equation: Semilinear, tolerance: float) -> None:
        self.equation = equation
        self.tolerance = tolerance
        self.start(patient=True)

    def start(self, *, patient: bool) -> None:
        self.patient = patient
        self.worst: Tensor | None = None

    def unresolved(self) -> list[int]:
        if self.worst is None:  # a linear equation: exact on any grid
            return []
        return (self.worst > self.tolerance).nonzero().flatten().tolist()

    @property
    def signature(self) -> Signature:
        return self.equation.signature

    @property
    def linear(self) -> bool:
        return self.equation.linear

    def symbol(self, modes: Modes) -> Tensor:
        return self.equation.symbol(modes)

    def nonlinear(self, spectrum: Tensor, modes: Modes) -> Tensor:
        return self.equation.nonlinear(spectrum, modes)

    def check_state(self, spectrum: Tensor, modes: Modes) -> None:
        self.equation.check_state(spectrum, modes)

    def top_speed(self, spectrum: Tensor, modes: Modes) -> float:
        if self.worst is None:
            self.worst = spectrum.real.new_zeros(len(spectrum))
        else:
            self.worst = torch.maximum(self.worst, _share_at_the_edge(spectrum, modes))
            if not self.patient and bool((self.worst > self.tolerance).all()):
                raise _TooCoarse
        return self.equation.top_speed(spectrum, modes)


def _share_at_the_edge(spectrum: Tensor, modes: Modes) -> Tensor:
    """Of each sample's norm, what lies in the top tenth of the kept modes; a solution gone to zero is resolved."""
    power = (spectrum.real.square() + spectrum.imag.square()).sum(dim=1)
    total = power.flatten(1).sum(dim=1)
    edge = (power * _edge(modes)).flatten(1).sum(dim=1)
    return torch.where(total > 0, edge / total.clamp_min(torch.finfo(total.dtype).tiny), 0.0).sqrt()


@functools.lru_cache(maxsize=32)
def _edge(modes: Modes) -> Tensor:
    """1 on the kept modes in the top tenth of any axis, 0 elsewhere."""
    edge = torch.zeros((), dtype=torch.bool, device=modes.k2.device)
    for n, size in zip(modes.integers, modes.grid.shape, strict=True):
        edge = edge | (n.abs() >= EDGE * (-(-size // 3) - 1))
    return edge * modes.kept
