r"""The trusted solver of periodic evolution equations: a linear symbol and a nonlinear term are all it needs.

Space is a dealiased Fourier pseudo-spectral method, time an exponential integrator of fourth order. The step is
chosen for a few samples together and anew for every frame (or part of a long one): from the CFL condition where the
equation names a speed, and from accuracy. For accuracy, the first two steps are compared with one of twice the
length; that costs one step in the twenty or so of a frame, because the two count.

Modes beyond the 2/3 rule take no part in the nonlinear term and follow the linear part alone. Everything is computed
where the inputs are, on a GPU too; per block of steps a few numbers come back, to choose the next step length.
"""

from __future__ import annotations

import functools
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ._etdrk import Method, Step, exponential_step, linear_flow
from ._grid import Grid
from ._problem import Signature
from ._solver import Solver, SolverError, check_fields, check_times
from ._spectral import Modes, fourier_resample, modes_of

ORDER = 4
# A fourth-order Runge-Kutta step is stable for advection while |k| speed dt < 2 sqrt 2 = 2.83, and where the linear
# part damps a mode at rate d, at least while |k| speed dt < 2.83 + 0.35 d dt (tests/pde/test_etdrk.py). Steps are
# planned to CFL_LIMIT, which leaves room for the flow to speed up; a block that ends beyond STABLE is taken again.
CFL_LIMIT = 2.4
STABLE = 2.8
DAMPING_HELPS = 0.35
# A wave at the plain bound, damped or not, is what a front that is about to form will be made of, and no estimate sees
# it before. So damping relaxes the bound for tolerances above this only, and as an error of fourth order lets it.
STRICT = 2e-5
# Step counts a block: few values, so that the coefficients of a step length are computed once and reused.
STEP_COUNTS = tuple(sorted({round(2 ** (i / 12)) for i in range(12, 97)}))
LONGEST_BLOCK = 64  # steps between two choices of the step length
TOO_MANY = 2**24  # steps a frame, were all as short as the one asked for: the solution is blowing up
SMALLEST_SHARE = 1 / 64  # of the tolerance for a block, however short: what a rough start takes, it damps again
PRUDENCE = 1.08  # more steps than the estimate says, so that the next block rarely has to be tried twice
FURTHEST = 4  # times as many steps in one try: before a stiff transient is resolved, errors fall not as dt^5 but slower
ROUND_OFF = 16 * torch.finfo(torch.float64).eps  # a smaller difference of two results says nothing
FEWEST_NODES = 4  # an axis of fewer keeps no wave under the 2/3 rule, so that a nonlinear term would do nothing there
CPU_CHUNK = 2**15  # nodes advanced together: measured fastest at 64² (8 samples), where a field stays in the L2 cache
GPU_CHUNK = 2**23


class Semilinear(ABC):
    r"""A periodic evolution equation :math:`u_t = L u + N(u)`, L acting on each Fourier mode alone.

    Spectra have shape ``batch channel *modes`` (see ``_spectral``); the modes may be truncated.
    """

    @property
    @abstractmethod
    def signature(self) -> Signature: ...

    @abstractmethod
    def symbol(self, modes: Modes) -> Tensor:
        """L per mode, real or complex: one number for all channels (``*modes``), one for each (``channel *modes``),
        or, where it couples them, a matrix (``channel channel *modes``; row: of what, column: from what).
        """

    def nonlinear(self, spectrum: Tensor, modes: Modes) -> Tensor:
        """N as a spectrum, zero outside ``modes.kept``, as is the spectrum that comes in."""
        return torch.zeros_like(spectrum)

    @property
    def linear(self) -> bool:
        """Whether N = 0: such an equation is solved exactly, in one step."""
        return type(self).nonlinear is Semilinear.nonlinear

    def top_speed(self, spectrum: Tensor, modes: Modes) -> float:
        """Largest advection speed in the batch, for the CFL condition; 0 where advection plays no part."""
        return 0.0

    def check_state(self, spectrum: Tensor, modes: Modes) -> None:  # noqa: B027
        """Raises ``ValueError`` for initial states that the equation does not admit; by default it admits all."""


@dataclass
class _March:
    """One chunk on its way: its kept modes, and what is known for choosing the next step length."""

    spectrum: Tensor
    modes: Modes
    first: int  # number of its first sample in the whole batch, for messages
    now: float
    speed: float
    rate: float = 0.0  # steps per time that accuracy asked for in the last block
    worst: int = 0  # the sample with the largest estimated error


class PeriodicEvolution(Solver):
    """Fourth-order exponential time stepping of a :class:`Semilinear` equation, spectral in space.

    tolerance   relative L2 error allowed per frame spacing, estimated by step doubling (adaptive steps)
    step        fixed step length instead, shortened to divide each frame; refused where it breaks the CFL condition
    method      ``etdrk4`` (default) or ``ifrk4``
    chunk       samples advanced together with one step length; None (default): as many as stay in the cache

    Raises :class:`SolverError` naming samples and time where the solution blows up. A sample's values depend on the
    other samples of its chunk within the tolerance only.
    """

    def __init__(
        self,
        equation: Semilinear,
        *,
        tolerance: float = 2e-5,
        step: float | None = None,
        method: Method = "etdrk4",
        chunk: int | None = None,
    ) -> None:
        if not 1e-13 <= tolerance <= 1:
            raise ValueError(f"tolerance is a relative error from 1e-13 to 1, got {tolerance}.")
        if step is not None and not 0 < step < math.inf:
            raise ValueError(f"step is a positive, finite time (or None: chosen from the tolerance), got {step}.")
        if method not in ("etdrk4", "ifrk4"):
            raise ValueError(f"method is 'etdrk4' or 'ifrk4', got {method!r}.")
        if chunk is not None and chunk < 1:
            raise ValueError(f"chunk is at least 1 sample (or None: chosen from the grid), got {chunk}.")
        self.equation = equation
        self.tolerance = tolerance
        self.step = step
        self.method: Method = method
        self.chunk = chunk
        self.steps_taken = 0  # for cost reports: nonlinear steps since construction
        self._step_of = functools.lru_cache(maxsize=24)(self._make_step)
        self._cached_flow = functools.lru_cache(maxsize=24)(self._make_flow)
        self._damping_of = functools.lru_cache(maxsize=8)(self._make_damping)

    @torch.no_grad()
    def __call__(self, inputs: Tensor, grid: Grid, times: Sequence[float] | None = None) -> Tensor:
        signature = self._signature
        check_fields(inputs, grid, len(signature.inputs))
        times = tuple(signature.times if times is None else times)
        check_times(times)
        self._check_resolution(grid)
        chunk = self.chunk or max(1, (CPU_CHUNK if inputs.device.type == "cpu" else GPU_CHUNK) // grid.size)
        if self.equation.linear and len(times) == 1 and len(inputs) <= chunk:  # nothing to gather
            return self._exact_frame(inputs, grid, times[0])
        outputs = inputs.new_empty(len(inputs), len(times), *inputs.shape[1:])
        for first in range(0, len(inputs), chunk):
            state = inputs[first : first + chunk].to(torch.float64)
            self._solve(state, grid, times, first, outputs[first : first + chunk])
        return outputs

    @functools.cached_property
    def _signature(self) -> Signature:
        return self.equation.signature

    def _exact_frame(self, inputs: Tensor, grid: Grid, time: float) -> Tensor:
        state = inputs.to(torch.float64)
        modes = modes_of(grid, state)
        spectrum = modes.forward(state)
        self.equation.check_state(spectrum, modes)
        frame = modes.inverse(self._flow_of(modes, time)(spectrum))
        _check_finite(frame, 0, time)
        return frame[:, None].to(inputs.dtype)

    def _check_resolution(self, grid: Grid) -> None:
        if not self.equation.linear and min(grid.shape) < FEWEST_NODES:
            raise ValueError(
                f"With the 2/3 rule an axis needs at least {FEWEST_NODES} nodes to keep any wave; got {grid.shape}."
            )

    def _solve(self, state: Tensor, grid: Grid, times: tuple[float, ...], first: int, outputs: Tensor) -> None:
        # in one dimension a transform pads and cuts anyway: what a truncated spectrum saves is less than it costs
        every, modes = modes_of(grid, state), modes_of(grid, state, truncated=grid.dim > 1)
        spectrum = every.forward(state)
        self.equation.check_state(spectrum, every)
        march = None
        if not self.equation.linear:
            low = modes.forward(state) * modes.kept
            march = _March(low, modes, first, now=0.0, speed=self.equation.top_speed(low, modes))
            spectrum = spectrum * (1 - every.kept)
        for i, time in enumerate(times):
            frame = every.inverse(self._flow_of(every, time)(spectrum))
            if march is not None:
                self._advance(march, time)
                frame += modes.inverse(march.spectrum)
            _check_finite(frame, first, time)
            outputs[:, i] = frame

    def _advance(self, march: _March, time: float) -> None:
        """To the next frame, in one block of equal steps or, where it takes many, in several."""
        # Frame times such as 0.3 - 0.2 differ in their last digits; rounded, they share their coefficients.
        start, duration = march.now, float(f"{time - march.now:.13g}")
        if self.step is not None:
            self._fixed(march, duration, self.step)
            march.now = time
            return
        parts, done = 1, 0
        count = self._planned(march, duration)
        while done < parts:
            while count > LONGEST_BLOCK:
                parts, done, count = 2 * parts, 2 * done, _listed(-(-count // 2))
            if parts * count > TOO_MANY:
                raise SolverError(_blow_up([march.worst], march.now))
            needed = self._try_block(march, duration / parts, count)
            if needed > count:
                count = needed
                continue
            done += 1
            march.now = start + duration * done / parts
            while done % 2 == 0 and self._planned(march, 2 * duration / parts) <= LONGEST_BLOCK // 2:
                parts, done = parts // 2, done // 2
            count = self._planned(march, duration / parts)
        march.now = time

    def _fixed(self, march: _March, duration: float, step: float) -> None:
        count = max(1, math.ceil(duration / step * (1 - 1e-12)))
        cfl = self._cfl(march, duration / count)
        if cfl > STABLE:
            raise SolverError(
                f"At time {march.now:g} the fixed step {step:g} breaks the CFL condition; the largest stable step is "
                f"{duration / count * STABLE / cfl:.3g}. Leave step unset to have it chosen."
            )
        march.spectrum = self._run(march, march.spectrum, duration / count, count)
        march.speed = self.equation.top_speed(march.spectrum, march.modes)

    def _cfl(self, march: _March, dt: float) -> float:
        """The number that may reach STABLE for a step of this length."""
        plain = march.speed * max(march.modes.highest)
        if (self.step is None and self.tolerance <= STRICT) or plain == 0:
            return plain * dt
        damped = float((march.speed * march.modes.top - DAMPING_HELPS * self._damping_of(march.modes)).max())
        if self.step is None:
            damped = max(damped, plain * (STRICT / self.tolerance) ** (1 / ORDER))
        return max(damped, 0.0) * dt

    def _planned(self, march: _March, duration: float) -> int:
        """Steps for the next block from what is known before taking any."""
        # beyond TOO_MANY, or not a number: left to _advance to refuse
        from_cfl = min(TOO_MANY + 1, self._cfl(march, duration) / CFL_LIMIT)
        return _listed(max(2, math.ceil(march.rate * duration), math.ceil(from_cfl)))

    def _try_block(self, march: _March, duration: float, count: int) -> int:
        """Advance by ``count`` equal steps if tolerance and stability allow; otherwise stay, and say how many would."""
        dt = duration / count
        spectrum = self._run(march, march.spectrum, dt, 2)
        needed = self._needed(march, spectrum, duration, count)
        if needed > count:
            return needed
        spectrum = self._run(march, spectrum, dt, count - 2)
        size = _norms(spectrum)
        if not bool(torch.isfinite(size).all()):
            march.worst = march.first + int(torch.nan_to_num(size, nan=math.inf).argmax())
            return _listed(FURTHEST * count)
        before, march.speed = march.speed, self.equation.top_speed(spectrum, march.modes)
        if self._cfl(march, dt) > STABLE:
            march.speed = before
            return _listed(2 * count)
        march.spectrum = spectrum
        return count

    def _needed(self, march: _March, two_steps: Tensor, duration: float, count: int) -> int:
        """Smallest listed number of steps whose local errors add up to the block's share of the tolerance."""
        one_step = self._run(march, march.spectrum, 2 * duration / count, 1)
        error = _norms(one_step - two_steps) / _norms(two_steps).clamp_min(torch.finfo(torch.float64).tiny)
        error = torch.nan_to_num(error, nan=math.inf)
        march.worst = march.first + int(error.argmax())
        largest = float(error.max())
        if not math.isfinite(largest):
            return _listed(FURTHEST * count)
        if largest < ROUND_OFF:
            march.rate = 0.0
            return count
        # of the local error C dt^5 the difference shows (2^5 - 2) C dt^5; over the block errors add up to C dt^4
        allowed = self.tolerance * max(duration / self.equation.signature.spacing, SMALLEST_SHARE)
        exact = count * (count * largest / (2 ** (ORDER + 1) - 2) / allowed) ** (1 / ORDER)
        march.rate = PRUDENCE * exact / duration
        return count if exact <= count else _listed(math.ceil(min(PRUDENCE * exact, FURTHEST * count)))

    def _run(self, march: _March, spectrum: Tensor, dt: float, count: int) -> Tensor:
        step = self._step_of(march.modes, dt)
        nonlinear = functools.partial(self.equation.nonlinear, modes=march.modes)
        for _ in range(count):
            spectrum = step(spectrum, nonlinear)
        self.steps_taken += count
        return spectrum

    def _make_step(self, modes: Modes, dt: float) -> Step:
        symbol, coupled = self._symbol(modes)
        return exponential_step(self.method, symbol, dt, coupled=coupled)

    def _flow_of(self, modes: Modes, time: float) -> Callable[[Tensor], Tensor]:
        """exp(L time); kept for the next call where that takes less memory than a field of a batch."""
        return (self._cached_flow if modes.grid.size <= CPU_CHUNK else self._make_flow)(modes, time)

    def _make_flow(self, modes: Modes, time: float) -> Callable[[Tensor], Tensor]:
        symbol, coupled = self._symbol(modes)
        return linear_flow(symbol, time, coupled=coupled)

    def _make_damping(self, modes: Modes) -> Tensor | float:
        """Rate at which the linear part damps each mode of every channel; 0 where it couples them."""
        symbol, coupled = self._symbol(modes)
        if coupled:
            return 0.0
        damping = -symbol.real if symbol.is_complex() else -symbol
        return damping.clamp_min(0.0)

    def _symbol(self, modes: Modes) -> tuple[Tensor, bool]:
        """L, and whether it couples the channels."""
        symbol = self.equation.symbol(modes)
        return symbol, symbol.ndim == modes.grid.dim + 2


class OnCoarserGrid(Solver):
    """A classical solver at lower resolution: inputs restricted, solved, solution interpolated back, spectrally.

    This is what a learned solver competes with at equal accuracy.
    """

    def __init__(self, solver: Solver, shape: Sequence[int]) -> None:
        self.solver = solver
        self.shape = tuple(shape)

    def __call__(self, inputs: Tensor, grid: Grid, times: Sequence[float] | None = None) -> Tensor:
        coarse = grid.at(self.shape)
        outputs = self.solver(fourier_resample(inputs, self.shape), coarse, times)
        return fourier_resample(outputs, grid.shape)


def coarse_ladder(
    equation: Semilinear, grid: Grid, *, tolerances: Sequence[float] = (1e-1, 1e-3, 1e-5), smallest: int = 8
) -> Mapping[str, Solver]:
    """The pseudo-spectral solver on coarser grids and looser tolerances, cheap to dear, each serving ``grid``.

    ``smallest`` is the least number of nodes an axis on which the equation makes sense.
    """
    ladder: dict[str, Solver] = {}
    for divisor in (4, 3, 2, 1):
        shape = tuple(min(n, max(smallest, 2 * round(n / divisor / 2))) for n in grid.shape)
        label = "x".join(str(n) for n in shape)
        if equation.linear:
            ladder[f"spectral {label}"] = OnCoarserGrid(PeriodicEvolution(equation), shape)
            continue
        for tolerance in tolerances:
            solver = PeriodicEvolution(equation, tolerance=tolerance)
            ladder[f"spectral {label} tol {tolerance:g}"] = OnCoarserGrid(solver, shape)
    return ladder


def check_positive(**values: int | float) -> None:
    """Refuse parameters that are not positive, finite numbers."""
    for name, value in values.items():
        if not 0 < value < math.inf:
            raise ValueError(f"{name} must be positive and finite, got {value}.")


def check_not_negative(**values: int | float) -> None:
    """Refuse parameters that are negative or not finite."""
    for name, value in values.items():
        if not 0 <= value < math.inf:
            raise ValueError(f"{name} must be at least 0 and finite, got {value}.")


def check_box(grid: Grid, dim: int, problem: str) -> Grid:
    """Refuse a grid of the wrong dimension."""
    if grid.dim != dim:
        raise ValueError(f"{problem} is posed in {dim} dimension(s); got a resolution for {grid.dim}: {grid.shape}.")
    return grid


def _listed(count: int) -> int:
    return next((n for n in STEP_COUNTS if n >= count), count)


def _norms(spectrum: Tensor) -> Tensor:
    return torch.linalg.vector_norm(spectrum.flatten(1), dim=1)


def _check_finite(frame: Tensor, first: int, time: float) -> None:
    if math.isfinite(float(frame.sum())):  # one pass; a sum that overflows is looked at again
        return
    finite = torch.isfinite(frame).flatten(1).all(dim=1)
    if not bool(finite.all()):
        raise SolverError(_blow_up([first + i for i in (~finite).nonzero().flatten().tolist()], time))


def _blow_up(samples: Sequence[int], time: float) -> str:
    return (
        f"The solution blew up near time {time:g} at sample(s) {list(samples[:8])}. "
        "Use a finer grid, a smaller tolerance, or check the inputs."
    )
