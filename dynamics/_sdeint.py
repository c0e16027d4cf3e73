r"""Stochastic differential equations with diagonal noise: :math:`dy_i = f_i(t, y)\,dt + g_i(t, y)\,dW_i`.

==============  ============  ======  ====  ==============================================================
method          calculus      strong  weak  step
==============  ============  ======  ====  ==============================================================
euler_maruyama  Ito           1/2     1     y + h f + g dW
milstein        Ito           1       1     + (g(y + h f + g sqrt h) - g) / sqrt h (dW^2 - h) / 2  (Platen)
euler_heun      Stratonovich  1       1     y + h/2 (f + f(p, t + h)) + dW/2 (g + g(p, t + h)), p = y + h f + g dW
==============  ============  ======  ====  ==============================================================

Strong order 1 holds where :math:`g_i` depends on :math:`y_i` (and t) only; it is 1/2 otherwise. ``euler_heun`` carries
the error estimate of Lamba (J. Comput. Appl. Math. 161, 2003) and is the adaptive one:

    E_d = h/2 (f(K, t + h) - f),  E_s = (g(y + g sqrt h) - g) / sqrt h \cdot dW^2 / 2,  K = y + h f
    E   = RMS((E_d / 6 + E_s) / (atol + rtol max(|y|, |y_1|)))

A path is a function of its seed (:class:`Brownian`), so a rejected step is refined on the same path, never redrawn, and
a solution converges to that of its path as tolerances tighten.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from ..pde import SolverError
from ._brownian import Brownian
from ._steppers import error_ratio

Term = Callable[[Tensor, Tensor], Tensor]
Method = Literal["euler_maruyama", "milstein", "euler_heun"]
DETERMINISTIC = 1 / 6  # weight of E_d, as in the released solvers


@dataclass(frozen=True)
class Path:
    """States at the asked times, and the steps taken.

    time, step    of each accepted step
    error         E of each accepted step, with its gradient; None where the method has no estimate
    starts        states at which steps start, detached
    evaluations   of the drift and of the diffusion, each for the whole batch
    """

    times: Tensor
    states: Float[Tensor, "batch time unknown"]
    brownian: Brownian
    time: Float[Tensor, " step"]
    step: Float[Tensor, " step"]
    error: Float[Tensor, " step"] | None
    starts: Float[Tensor, "step batch unknown"]
    accepted: int
    rejected: int
    evaluations: tuple[int, int]
    rtol: float
    atol: float


class Equation:
    """Drift and diffusion on time and state, counted."""

    def __init__(self, drift: Term, diffusion: Term) -> None:
        self._drift, self._diffusion, self.calls = drift, diffusion, [0, 0]

    def f(self, time: float, state: Tensor) -> Tensor:
        self.calls[0] += 1
        return self._checked(self._drift(state.new_tensor(time), state), state, "drift")

    def g(self, time: float, state: Tensor) -> Tensor:
        self.calls[1] += 1
        return self._checked(self._diffusion(state.new_tensor(time), state), state, "diffusion")

    @staticmethod
    def _checked(values: Tensor, state: Tensor, what: str) -> Tensor:
        if values.shape != state.shape:
            raise ValueError(
                f"The {what} must have the shape of the state, {tuple(state.shape)} (noise is diagonal); got "
                f"{tuple(values.shape)}."
            )
        return values


Step = Callable[[Equation, float, float, Tensor, Tensor], tuple[Tensor, Tensor | None]]


def _euler_maruyama(eq: Equation, time: float, step: float, state: Tensor, noise: Tensor) -> tuple[Tensor, None]:
    return state + step * eq.f(time, state) + eq.g(time, state) * noise, None


def _milstein(eq: Equation, time: float, step: float, state: Tensor, noise: Tensor) -> tuple[Tensor, None]:
    drift, spread, root = step * eq.f(time, state), eq.g(time, state), math.sqrt(step)
    bent = (eq.g(time, state + drift + spread * root) - spread) / root
    return state + drift + spread * noise + 0.5 * bent * (noise.square() - step), None


def _euler_heun(eq: Equation, time: float, step: float, state: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
    drift, spread, root = eq.f(time, state), eq.g(time, state), math.sqrt(step)
    ahead = state + step * drift
    there = ahead + spread * noise
    new = state + 0.5 * step * (drift + eq.f(time + step, there)) + 0.5 * (spread + eq.g(time + step, there)) * noise
    deterministic = 0.5 * step * (eq.f(time + step, ahead) - drift)
    stochastic = (eq.g(time, state + spread * root) - spread) / root * noise.square() / 2
    return new, DETERMINISTIC * deterministic + stochastic


STEPS: dict[str, Step] = {"euler_maruyama": _euler_maruyama, "milstein": _milstein, "euler_heun": _euler_heun}


def sdeint(
    drift: Term,
    diffusion: Term,
    state: Float[Tensor, "batch unknown"],
    times: Sequence[float],
    *,
    seed: int,
    method: Method = "euler_heun",
    step: float | None = None,
    rtol: float = 1e-2,
    atol: float = 1e-2,
    brownian: Brownian | None = None,
    max_steps: int = 100_000,
) -> Path:
    """Integrate one path a sample through increasing ``times``; gradients run through every step.

    drift, diffusion   f(t, y) and g(t, y), both ``batch unknown``; in the calculus of the method
    seed               of the Brownian path
    step               fixed step [time], shortened to meet asked times; adaptive (euler_heun) where None
    rtol, atol         tolerances of the local error estimate
    brownian           a path to use instead of the seed's
    max_steps          attempts before giving up
    """
    clock = _checked(state, times, method, step, rtol, atol)
    path = brownian or Brownian(
        seed=seed, start=clock[0], end=clock[-1], batch=len(state), unknowns=state.shape[1], device=state.device
    )
    if (path.batch, path.unknowns) != tuple(state.shape):
        raise ValueError(f"The Brownian path is for {(path.batch, path.unknowns)}, the state is {tuple(state.shape)}.")
    return _Run(Equation(drift, diffusion), state, clock, path, method, step, rtol, atol, max_steps).run()


def _checked(
    state: Tensor, times: Sequence[float], method: str, step: float | None, rtol: float, atol: float
) -> list[float]:
    if method not in get_args(Method):
        raise ValueError(f"Unknown method {method!r}: there are {', '.join(get_args(Method))}.")
    if step is None and method != "euler_heun":
        raise ValueError(f'{method} has no error estimate: give it a step, or use method="euler_heun".')
    if (step is not None and not step > 0) or not (rtol >= 0 and atol > 0):
        raise ValueError(f"step and atol must be positive and rtol not negative; got {step}, {atol}, {rtol}.")
    if state.ndim != 2 or not state.is_floating_point() or not bool(torch.isfinite(state.detach()).all()):
        raise ValueError(f"The state is finite and real, batch unknown; got {state.dtype} {tuple(state.shape)}.")
    clock = [float(t) for t in times]
    if len(clock) < 2 or not all(b > a for a, b in zip(clock, clock[1:], strict=False)):
        raise ValueError(f"Times must strictly increase, at least two; got {clock[:8]}.")
    return clock


class _Run:
    def __init__(
        self,
        equation: Equation,
        state: Tensor,
        clock: list[float],
        path: Brownian,
        method: str,
        step: float | None,
        rtol: float,
        atol: float,
        max_steps: int,
    ) -> None:
        self.equation, self.state, self.clock, self.path, self.method = equation, state, clock, path, method
        self.fixed, self.rtol, self.atol, self.max_steps = step, rtol, atol, max_steps
        self.rows: list[tuple[float, float, Tensor | None, Tensor]] = []
        self.rejected = 0

    def run(self) -> Path:
        found, time, level = [self.state], self.clock[0], self.path(self.clock[0])
        step = self.fixed or self._first()
        for goal in self.clock[1:]:
            while time < goal:
                # a remainder at rounding level is no step of its own
                arrives = step >= (goal - time) * (1 - 1e-9)
                used = goal - time if arrives else step
                until = goal if arrives else time + used
                there = self.path(until)
                noise = (there - level).to(self.state.dtype)
                new, error = STEPS[self.method](self.equation, time, used, self.state, noise)
                ratio, value = self._ratio(error, new)
                factor = min(max(0.9 * max(value, 1e-10) ** (-1 / 1.5), 0.2), 5.0)  # E falls as h^(strong order + 1/2)
                if value <= 1:
                    self.rows.append((time, used, ratio, self.state.detach()))
                    self.state, time, level = new, until, there
                    step = step if self.fixed else (max(step, used * factor) if arrives else used * factor)
                else:
                    self.rejected += 1
                    step = used * factor
                self._check(time, step, math.isfinite(value), goal)
            found.append(self.state)
        return self._path(found)

    def _first(self) -> float:
        """A step that the tolerance would allow if the estimates were drift and diffusion themselves."""
        with torch.no_grad():
            scale = self.atol + self.rtol * self.state.abs()
            rates = self.equation.f(self.clock[0], self.state), self.equation.g(self.clock[0], self.state)
            slope, spread = (float((rate / scale).square().mean().sqrt()) for rate in rates)
        span = self.clock[-1] - self.clock[0]
        return min(0.1 * span, 1.0 / max(slope + spread**2, 1e-12))

    def _ratio(self, error: Tensor | None, new: Tensor) -> tuple[Tensor | None, float]:
        if error is None:
            return None, 0.0 if bool(torch.isfinite(new.detach()).all()) else math.inf
        ratio = error_ratio(error, self.state, new, rtol=self.rtol, atol=self.atol, each=False)
        value = float(ratio.detach())
        if not math.isfinite(value):
            return ratio, math.inf
        return ratio, 0.0 if self.fixed else value

    def _check(self, time: float, step: float, finite: bool, goal: float) -> None:
        least = 16 * self.path.cell
        norm = float(torch.linalg.vector_norm(self.state.detach()))
        where = f"at time {time:.8g}, step {step:.3g}, state norm {norm:.3g}"
        if time < goal and (step < least or (self.fixed and not finite)):
            why = "is not finite" if not finite else f"needs steps below 16 cells of the Brownian path ({least:.3g})"
            raise SolverError(
                f"{self.method}: the solution {why}, {where}. Loosen rtol and atol, take smaller steps, or give a "
                "deeper Brownian path."
            )
        if len(self.rows) + self.rejected >= self.max_steps and time < goal:
            raise SolverError(f"{self.method}: {self.max_steps} steps were not enough, {where}. Loosen rtol and atol.")

    def _path(self, found: list[Tensor]) -> Path:
        numbers = torch.tensor([row[:2] for row in self.rows], dtype=torch.float64)
        errors = [row[2] for row in self.rows if row[2] is not None]
        return Path(
            times=torch.tensor(self.clock, dtype=torch.float64),
            states=torch.stack(found, dim=1),
            brownian=self.path,
            time=numbers[:, 0],
            step=numbers[:, 1],
            error=torch.stack(errors) if errors else None,
            starts=torch.stack([row[3] for row in self.rows]),
            accepted=len(self.rows),
            rejected=self.rejected,
            evaluations=(self.equation.calls[0], self.equation.calls[1]),
            rtol=self.rtol,
            atol=self.atol,
        )
