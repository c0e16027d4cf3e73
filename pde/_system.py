r"""Plain systems of ordinary differential equations, :math:`\dot y = f(y)`, as problems: a grid without axes.

A system is its slope f, written for a batch. The trusted solver:

* not stiff: the whole batch as one system by Dormand and Prince's explicit pair of order 8 (DOP853; Hairer, Norsett
  and Wanner; SciPy's);
* stiff: each sample with steps of its own by extrapolated linearly implicit Euler (SEULEX; Hairer and Wanner II,
  section IV.9), which needs the Jacobian J: :math:`(I - \tfrac{H}{n} J)(y_{i+1} - y_i) = \tfrac{H}{n} f(y_i)`,
  n = 1 ... 8, and the polynomial in H/n through the eight results, taken at 0: order 8, and each damps stiff parts.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from ._grid import Grid
from ._problem import Problem, Signature
from ._solver import Solver, SolverError, check_fields, check_times

State = Float[Tensor, "batch unknown"]
LEVELS = 8  # rows of the extrapolation table, and its order
SMOOTH, STIFF = 1e-11, 1e-8  # tolerances
LADDER = (1e-2, 1e-4, 1e-6, 1e-8)
LOOSEST, TIGHTEST = 0.1, 1e-13
MOST = 200_000  # steps


@dataclass(frozen=True, kw_only=True)
class System(Problem):
    """A problem without space. ``slope`` is all it needs; ``stiff`` ones give a ``jacobian`` too."""

    @abstractmethod
    def slope(self, state: State) -> State:
        """f(y), differentiable."""

    @property
    def stiff(self) -> bool:
        return False

    def jacobian(self, state: State) -> Float[Tensor, "batch row column"]:
        """df/dy; asked of stiff systems."""
        raise NotImplementedError(f"{self.name} gives no Jacobian.")

    def check(self, state: State) -> None:
        """Refuse states that the equation does not admit."""
        return

    def grid(self, resolution: int | Sequence[int]) -> Grid:
        """A point, whatever the resolution: there is no space to resolve."""
        return Grid(())

    def reference(self, **accuracy: Any) -> Integrated:
        """Order 8; see :class:`Integrated` for ``tolerance``."""
        return Integrated(self, **accuracy)

    def ladder(self, grid: Grid) -> Mapping[str, Solver]:
        """The reference with looser tolerances."""
        return {f"tolerance {tolerance:g}": Integrated(self, tolerance=tolerance) for tolerance in LADDER}


class Integrated(Solver):
    """The state at any times, to a tolerance of the local error.

    tolerance   of a step, relative to the largest state of each unknown so far (default 1e-11; of stiff systems 1e-8,
                whose estimate, that of order 7, is far above the error); errors of the answer grow with the system's
                own instability (a chaotic one multiplies them by e every Lyapunov time)
    """

    def __init__(self, problem: System, *, tolerance: float | None = None) -> None:
        tolerance = (STIFF if problem.stiff else SMOOTH) if tolerance is None else tolerance
        if not TIGHTEST <= tolerance <= LOOSEST:
            raise ValueError(f"tolerance lies between {TIGHTEST:g} and {LOOSEST:g}, got {tolerance:g}.")
        self.problem, self.tolerance = problem, tolerance

    @torch.no_grad()
    def __call__(self, inputs: Tensor, grid: Grid, times: Sequence[float] | None = None) -> Tensor:
        signature: Signature = self.problem.signature
        check_fields(inputs, grid, len(signature.inputs))
        wanted = list(signature.times if times is None else times)
        check_times(wanted)
        state = inputs.double()
        self.problem.check(state)
        solve = self._implicit if self.problem.stiff else self._explicit
        return solve(state, wanted).to(inputs)

    def _explicit(self, state: State, times: Sequence[float]) -> Float[Tensor, "batch time unknown"]:
        from scipy.integrate import solve_ivp

        shape = state.shape

        def slope(_: float, flat: Any) -> Any:
            return self.problem.slope(torch.from_numpy(flat).view(shape)).reshape(-1).numpy()

        size = state.abs().amax(dim=0).clamp_min(1e-300).expand(shape).reshape(-1)
        options = {"method": "DOP853", "rtol": max(self.tolerance, 3e-14), "atol": (self.tolerance * size).numpy()}
        found = solve_ivp(slope, (0.0, times[-1]), state.cpu().reshape(-1).numpy(), t_eval=times, **options)
        if not found.success:
            raise SolverError(
                f"{self.problem.name}: the reference stopped before time {times[-1]:g} ({found.message.strip('.')}). "
                "The states or parameters lead to steps at rounding level."
            )
        return torch.from_numpy(found.y.T.copy()).view(len(times), *shape).transpose(0, 1).to(state.device)

    def _implicit(self, state: State, times: Sequence[float]) -> Float[Tensor, "batch time unknown"]:
        """Steps of their own for every sample, which end at the asked times."""
        frames, taken, largest = [], 0, state.abs()
        now = state.new_zeros(len(state))
        step = torch.full_like(now, 1e-6 * times[0])
        for goal in times:
            while bool((now < goal).any()):
                left = goal - now
                used = torch.minimum(step, left)  # 0 for those that have arrived: they stay
                new, error = extrapolated(self.problem, state, used)
                size = torch.maximum(largest, new.abs())
                # unknowns that are still zero have no size of their own yet
                scale = torch.maximum(size, 1e-8 * size.amax(dim=1, keepdim=True)).clamp_min(1e-300)
                ratio = (error / (self.tolerance * scale)).abs().amax(dim=1).nan_to_num(torch.inf, torch.inf)
                good = ratio <= 1
                column = good[:, None]
                state, largest = torch.where(column, new, state), torch.where(column, size, largest)
                now = torch.where(good, torch.where(used == left, goal, now + used), now)
                grown = (0.8 * ratio.clamp_min(1e-10) ** (-1 / LEVELS)).clamp(0.1, 4.0)
                # a step that was cut short to meet a time says nothing about longer ones
                kept = (left <= 0) | (good & (used < step) & (grown > 1))
                step = torch.where(kept, step, used * grown)
                taken += 1
                self._check(now, step, goal, taken)
            frames.append(state)
        return torch.stack(frames, dim=1)

    def _check(self, now: Tensor, step: Tensor, goal: float, taken: int) -> None:
        lost = (now < goal) & ((step < 1e-14 * goal) | (taken > MOST))
        if bool(lost.any()):
            sample = int(lost.nonzero()[0])
            raise SolverError(
                f"{self.problem.name}: the reference got no further than time {float(now[sample]):.8g} of {goal:g} "
                f"with sample {sample}, its step fell to {float(step[sample]):.3g}. Loosen the tolerance "
                f"({self.tolerance:g}), or look at the states and parameters."
            )


def extrapolated(problem: System, state: State, step: Float[Tensor, " batch"]) -> tuple[State, State]:
    """One extrapolated step and its error estimate, the difference of the last two columns of the table."""
    step = step[:, None]
    jacobian = problem.jacobian(state)
    identity = torch.eye(state.shape[1], dtype=state.dtype, device=state.device)
    rows: list[Tensor] = []
    for j in range(1, LEVELS + 1):
        factors = torch.linalg.lu_factor(identity - (step / j)[..., None] * jacobian)
        y = state
        for _ in range(j):
            y = y + torch.linalg.lu_solve(*factors, (step / j * problem.slope(y))[..., None])[..., 0]
        new = [y]
        for k, before in enumerate(rows, start=1):
            new.append(new[-1] + (new[-1] - before) / (j / (j - k) - 1))
        rows = new
    return rows[-1], rows[-1] - rows[-2]


def uniform(
    count: int, lower: Sequence[float], upper: Sequence[float], generator: torch.Generator
) -> Float[Tensor, "batch unknown"]:
    """Independent in a box."""
    low, high = (torch.tensor(ends, dtype=torch.float64) for ends in (lower, upper))
    return low + (high - low) * torch.rand(count, len(low), generator=generator, dtype=torch.float64)
