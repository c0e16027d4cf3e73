r"""Shock-capturing solver of hyperbolic conservation laws :math:`u_t + \sum_j \partial_j f_j(u) = 0`, in 1-D and 2-D.

Each cell changes by the difference of the fluxes through its faces, so mass, momentum and energy are conserved to
round-off. What is stored are values at the cell centres (= the grid's nodes), which to second order are the cells'
means; for values instead of means the fluxes take a correction by their own derivatives ("alternative WENO", see
``_weno``), and the scheme is of high order in any dimension without quadrature over faces.

========  ===========================================================================  =====  ==================
scheme    faces                                                                        order  time
========  ===========================================================================  =====  ==================
`weno`    WENO-Z of the characteristic variables, flux corrected                       5      SSP-RK(5,4), order 4
`muscl`   van Leer's limiter on the characteristic variables                           2      SSP-RK(2,2), order 2
========  ===========================================================================  =====  ==================

Orders hold for smooth solutions; at shocks every such scheme is of first order in L1. Time steps are convex
combinations of forward Euler steps (see ``_ssp``).

Positivity: forward Euler with the Rusanov flux keeps density and pressure positive while the CFL number is at most
1/2. Where with the high-order flux they would fall below a tenth in one such step, that flux is blended with
Rusanov's, face by face and just as much as needed (Hu, Adams and Shu, J. Comput. Phys. 242, 2013, who ask for a
positive rest only); interpolated face states are drawn towards their cell's in the same way (Zhang and Shu,
J. Comput. Phys. 229, 2010), and the flux correction is left out where density or pressure vary tenfold within a
stencil, for there it means nothing. Smooth flow never meets any of the three.

Every sample takes its own steps, so its values do not depend on the samples beside it.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import ClassVar, Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from ._grid import Boundary, Grid
from ._problem import Signature
from ._solver import Solver, SolverError, check_fields, check_times
from ._ssp import SSP22, SSP54, SspMethod
from ._weno import GHOSTS, Wall, flux_correction, muscl, neighbours, pad, weno

Scheme = Literal["weno", "muscl"]
Riemann = Literal["hllc", "rusanov"]
ENDS: Mapping[Boundary, Wall] = {"periodic": "periodic", "outflow": "outflow", "neumann": "wall"}
EULER_CFL = 0.5  # up to which a forward Euler step with the Rusanov flux keeps positivity, in any dimension
PRUDENCE = 0.9  # of the admissible step is taken, for waves grow faster during a step
# Positive is not enough: a density of next to nothing beside its momentum is a velocity without bound. So the limiters
# see to it that no more than nine tenths go in one forward Euler step, unless they do with the low-order flux too.
KEPT = 0.1
FEWEST_NODES = 8  # an axis: stencils of six faces and their neighbours
HALVINGS = 12  # of a step that fails, before giving up
TOO_MANY = 2**24  # steps a frame
CPU_CHUNK = 2**14  # nodes advanced together: measured fastest in 1-D, 0.33 microseconds a node and stage
GPU_CHUNK = 2**21


class ConservationLaw(ABC):
    """What the solver needs to know of an equation. A *state* holds the signature's channels, ``batch channel *space``.

    ``axis`` is the direction of a flux; the tensors may have any extents after the channel.
    """

    positive: ClassVar[int] = 0  # the first so many channels of a state are positive (concave in what is conserved)

    @property
    @abstractmethod
    def signature(self) -> Signature: ...

    @abstractmethod
    def conserved(self, state: Tensor) -> Tensor:
        """Densities of what is conserved, as many channels as the state has."""

    @abstractmethod
    def state(self, conserved: Tensor) -> Tensor: ...

    @abstractmethod
    def flux(self, state: Tensor, axis: int) -> Tensor: ...

    @abstractmethod
    def speed(self, state: Tensor, axis: int) -> Tensor:
        """Largest speed of a wave along the axis, in absolute value; one channel fewer."""

    @abstractmethod
    def riemann_flux(self, left: Tensor, right: Tensor, axis: int) -> Tensor:
        """Through a face between two states: HLLC, or Godunov's own for a scalar."""

    def to_waves(self, states: Float[Tensor, "6 *state"], mean: Tensor, axis: int) -> Tensor:
        """Characteristic variables of states, linearised about a mean: waves that travel independently."""
        return states

    def from_waves(self, waves: Tensor, mean: Tensor, axis: int) -> Tensor:
        return waves

    def wave_scales(self, mean: Tensor) -> Tensor:
        """Sizes of the characteristic variables: what is far smaller counts as smooth. Here: the sample's largest."""
        largest = mean.abs().amax(dim=tuple(range(2, mean.ndim)), keepdim=True)
        return largest.expand_as(mean).clone()

    def mirrored(self, state: Tensor, axis: int) -> Tensor:
        """The state as a wall across the axis reflects it."""
        return state


METHODS: Mapping[str, SspMethod] = {"weno": SSP54, "muscl": SSP22}


class FiniteVolumes(Solver):
    """Shock-capturing evolution of a :class:`ConservationLaw`.

    scheme    ``weno`` (fifth order in space, fourth in time) or ``muscl`` (second order, a third of the cost)
    riemann   ``hllc`` (sharp contacts) or ``rusanov`` (the most dissipative; free of carbuncles at grid-aligned shocks)
    cfl       dt sum_j speed_j / h_j, at most 0.754 (weno) or 0.5 (muscl); None (default): 0.9 of that
    step      fixed step length instead, shortened to divide each frame; refused where it breaks the CFL condition
    chunk     samples advanced together; None (default): as many as stay in the cache

    Raises :class:`SolverError` naming sample and time where the solution blows up. A grid axis with boundary
    ``neumann`` is a reflecting wall.
    """

    def __init__(
        self,
        equation: ConservationLaw,
        *,
        scheme: Scheme = "weno",
        riemann: Riemann = "hllc",
        cfl: float | None = None,
        step: float | None = None,
        chunk: int | None = None,
    ) -> None:
        if scheme not in get_args(Scheme):
            raise ValueError(f"scheme is 'weno' or 'muscl', got {scheme!r}.")
        if riemann not in get_args(Riemann):
            raise ValueError(f"riemann is 'hllc' or 'rusanov', got {riemann!r}.")
        self.method = METHODS[scheme]
        self.largest = EULER_CFL * self.method.bound
        if cfl is not None and not 0 < cfl <= self.largest:
            raise ValueError(f"cfl of {scheme} is above 0 and at most {self.largest:.3g}, got {cfl}.")
        if step is not None and not 0 < step < math.inf:
            raise ValueError(f"step is a positive, finite time (or None: chosen from cfl), got {step}.")
        if chunk is not None and chunk < 1:
            raise ValueError(f"chunk is at least 1 sample (or None: chosen from the grid), got {chunk}.")
        self.equation, self.scheme, self.riemann = equation, scheme, riemann
        self.cfl = PRUDENCE * self.largest if cfl is None else cfl
        self.step = step
        self.chunk = chunk
        self.steps_taken = 0  # for cost reports: steps times samples since construction

    @torch.no_grad()
    def __call__(self, inputs: Tensor, grid: Grid, times: Sequence[float] | None = None) -> Tensor:
        check_fields(inputs, grid, len(self.equation.signature.inputs))
        check_walls(grid)
        check_sign(inputs, self.equation)
        times = tuple(self.equation.signature.times if times is None else times)
        check_times(times)
        chunk = self.chunk or max(1, (CPU_CHUNK if inputs.device.type == "cpu" else GPU_CHUNK) // grid.size)
        outputs = inputs.new_empty(len(inputs), len(times), *inputs.shape[1:])
        for first in range(0, len(inputs), chunk):
            values = self.equation.conserved(inputs[first : first + chunk].to(torch.float64))
            now = 0.0
            for i, time in enumerate(times):
                values = self._frame(values, grid, now, time, first)
                outputs[first : first + chunk, i] = self.equation.state(values)
                now = time
        return outputs

    def _frame(self, values: Tensor, grid: Grid, start: float, end: float, first: int) -> Tensor:
        """All samples to the next frame; those that arrive wait for the others."""
        values = values.clone()
        left = values.new_full((len(values),), end - start)  # time still to go
        shrink = torch.ones_like(left)
        counts = None if self.step is None else math.ceil((end - start) / self.step * (1 - 1e-12))
        while bool((left > 0).any()):
            active = (left > 0).nonzero().flatten()
            part, rest = values[active], left[active]
            speeds = self._speeds(part, grid)
            steps = self._steps(speeds.sum(dim=1), rest, shrink[active], counts, (end, first), active)
            new = self._advance(part, rest / steps, grid, speeds)
            sound = self._sound(new)
            if not bool(sound.all()):
                shrink[active] = torch.where(sound, shrink[active], 0.5 * shrink[active])
                self._check(active[~sound], shrink, end - float(rest.max()), first)
            values[active[sound]] = new[sound]
            left[active] = torch.where(sound, torch.where(steps == 1, 0.0, rest - rest / steps), rest)
            counts = None if counts is None else counts - 1
            self.steps_taken += len(active)
        return values

    def _steps(
        self,
        rates: Tensor,
        rest: Tensor,
        shrink: Tensor,
        counts: int | None,
        frame: tuple[float, int],
        active: Tensor,
    ) -> Tensor:
        """In how many steps each sample will arrive, at its present speed of waves."""
        end, first = frame
        if counts is not None:
            worst = float((rates * rest).max()) / counts
            if not worst <= self.largest * (1 + 1e-9):
                now = end - float(rest.max())
                raise SolverError(
                    f"At time {now:.6g} the fixed step {self.step:g} breaks the CFL condition at sample "
                    f"{first + int(active[int(rates.argmax())])}; the largest admissible step is "
                    f"{float(rest[0]) / counts * self.largest / worst:.3g}. Leave step unset to have it chosen."
                )
            return torch.full_like(rest, counts)
        steps = torch.ceil(rates * rest / (self.cfl * shrink) * (1 - 1e-12)).clamp_min(1.0)
        if not bool((steps <= TOO_MANY).all()):
            bad = active[~(steps <= TOO_MANY)].tolist()
            raise SolverError(_blow_up([first + i for i in bad], end - float(rest.max())))
        return steps

    def _check(self, failed: Tensor, shrink: Tensor, now: float, first: int) -> None:
        if self.step is not None or bool((shrink[failed] < 0.5**HALVINGS).any()):
            raise SolverError(_blow_up([first + i for i in failed.tolist()], now))

    def _speeds(self, values: Tensor, grid: Grid) -> Float[Tensor, "batch axis"]:
        """Per sample and axis, the largest speed of a wave over the spacing."""
        state = self.equation.state(values)
        fastest = [self.equation.speed(state, j).flatten(1).amax(dim=1) / h for j, h in enumerate(grid.spacing)]
        return torch.stack(fastest, dim=1)

    def _sound(self, values: Tensor) -> Float[Tensor, " batch"] | Tensor:
        """Per sample: whether all values are finite, and positive where they must be."""
        sound = torch.isfinite(values).flatten(1).all(dim=1)
        if self.equation.positive:
            sound &= (self.equation.state(values)[:, : self.equation.positive] > 0).flatten(1).all(dim=1)
        return sound

    def _advance(self, values: Tensor, dt: Tensor, grid: Grid, speeds: Tensor) -> Tensor:
        """One step of length ``dt`` (one for each sample)."""
        dt = dt.reshape(-1, *(1,) * (values.ndim - 1))
        stages, rates = [values], []
        for mix, share in zip(self.method.mix, self.method.rates, strict=True):
            rates.append(self._rate(stages[-1], dt / self.method.bound, grid, speeds))
            new = sum(weight * stages[k] for k, weight in mix.items())
            stages.append(new + dt * sum(weight * rates[k] for k, weight in share.items()))
        return stages[-1]

    def _rate(self, values: Tensor, dt: Tensor, grid: Grid, speeds: Tensor) -> Tensor:
        """u_t, such that a forward Euler step of length ``dt`` keeps positivity."""
        state = self.equation.state(values)
        fluxes = [self._face_flux(self._along(state, grid, j), j) for j in range(grid.dim)]
        rate = _divergence(fluxes, grid)
        if not self.equation.positive:
            return rate
        count = self.equation.positive
        after = self.equation.state(values + dt * rate)[:, :count]
        short = ~(after >= KEPT * state[:, :count]).flatten(1).all(dim=1)
        if bool(short.any()):
            limited = self._limited([f[short] for f in fluxes], state[short], dt[short], grid, speeds[short])
            rate[short] = _divergence(limited, grid)
        return rate

    def _along(self, state: Tensor, grid: Grid, axis: int) -> Tensor:
        """The state with ghost cells, and with the axis last."""
        ends = [ENDS[kind] for kind in grid.axes[axis].boundary]
        turned = state.movedim(2 + axis, -1)
        return pad(turned, ends, self.equation.mirrored(turned, axis) if "wall" in ends else turned)

    def _face_flux(self, padded: Tensor, axis: int) -> Tensor:
        """The high-order flux, at the faces along the last axis."""
        equation = self.equation
        six = neighbours(padded)
        mean = 0.5 * (six[2] + six[3])
        waves = equation.to_waves(six, mean, axis)
        if self.scheme == "weno":
            floor = equation.wave_scales(mean).square_().mul_((padded.shape[-1] - 2 * GHOSTS) ** -4.0)
            left, right = weno(waves, floor.clamp_min_(torch.finfo(floor.dtype).tiny))
        else:
            left, right = muscl(waves)
        left = self._positive_face(equation.from_waves(left, mean, axis), six[2])
        right = self._positive_face(equation.from_waves(right, mean, axis), six[3])
        flux = self._two_state_flux(left, right, axis)
        if self.scheme == "muscl":
            return flux
        correction = flux_correction(neighbours(equation.flux(padded, axis)))
        if equation.positive:
            guarded = six[:, :, : equation.positive]
            tame = (guarded.amin(dim=0) > KEPT * guarded.amax(dim=0)).all(dim=1, keepdim=True)
            correction = torch.where(tame, correction, 0.0)
        return flux + correction

    def _two_state_flux(self, left: Tensor, right: Tensor, axis: int) -> Tensor:
        if self.riemann == "hllc":
            return self.equation.riemann_flux(left, right, axis)
        return rusanov(self.equation, left, right, axis)

    def _positive_face(self, face: Tensor, cell: Tensor) -> Tensor:
        """The face's state, drawn towards the cell's where density or pressure would fall too low."""
        count = self.equation.positive
        low = face[:, :count] < KEPT * cell[:, :count]
        if not bool(low.any()):
            return face
        share = (1 - KEPT) * cell[:, :count] / (cell[:, :count] - face[:, :count])
        share = torch.where(low, share, torch.ones_like(share)).amin(dim=1, keepdim=True)
        return torch.where(share < 1, cell + share * (face - cell), face)

    def _limited(self, fluxes: list[Tensor], state: Tensor, dt: Tensor, grid: Grid, speeds: Tensor) -> list[Tensor]:
        """The fluxes, blended with Rusanov's where a half cell would lose its positivity.

        A cell's Euler step is the mean of two half steps an axis, one for each face, and the axes share the cell in
        proportion to their waves' speeds.
        """
        weights = speeds / speeds.sum(dim=1, keepdim=True)
        for j, h in enumerate(grid.spacing):
            weight = weights[:, j].reshape(dt.shape)
            factor = 2 * dt / (h * weight.clamp_min(torch.finfo(dt.dtype).tiny))
            padded = self._along(state, grid, j)[..., GHOSTS - 1 : 1 - GHOSTS]
            low = rusanov(self.equation, padded[..., :-1], padded[..., 1:], j)
            cells = self.equation.conserved(padded)
            for k in range(self.equation.positive):
                share = torch.minimum(
                    self._share(cells[..., :-1], -factor * low, -factor * fluxes[j], k),
                    self._share(cells[..., 1:], factor * low, factor * fluxes[j], k),
                )
                fluxes[j] = torch.where(share < 1, low + share * (fluxes[j] - low), fluxes[j])
        return fluxes

    def _share(self, cell: Tensor, low: Tensor, high: Tensor, k: int) -> Tensor:
        """How much of the high-order flux channel k of a half cell's state can bear."""
        safe, risky = (self.equation.state(u)[:, k : k + 1] for u in (cell + low, cell + high))
        floor = KEPT * safe.clamp_min(0.0)
        share = (safe - floor) / (safe - risky).clamp_min(torch.finfo(cell.dtype).tiny)
        return torch.where(risky < floor, share.clamp(0.0, 1.0), torch.ones_like(share))


def rusanov(equation: ConservationLaw, left: Tensor, right: Tensor, axis: int) -> Tensor:
    """Mean flux less half the largest speed times the jump (Rusanov 1961)."""
    speed = torch.maximum(equation.speed(left, axis), equation.speed(right, axis)).unsqueeze(1)
    mean = equation.flux(left, axis) + equation.flux(right, axis)
    return 0.5 * (mean - speed * (equation.conserved(right) - equation.conserved(left)))


def cell_grid(resolution: int | Sequence[int], *, lower: float, upper: float, dim: int, wall: Wall, unit: str) -> Grid:
    """Cells between ``lower`` and ``upper``: a torus, or centres between open ends or walls."""
    boundary: Boundary = {"periodic": "periodic", "outflow": "outflow", "wall": "neumann"}[wall]  # type: ignore[assignment]
    placement: Literal["left", "centres"] = "left" if wall == "periodic" else "centres"
    return Grid.box(resolution, lower=lower, upper=upper, dim=dim, boundary=boundary, placement=placement, unit=unit)


def check_walls(grid: Grid) -> None:
    """Refuse grids whose nodes are no cell centres, or that are too coarse for a stencil."""
    for axis in grid.axes:
        if axis.placement == "ends" or any(kind not in ENDS for kind in axis.boundary):
            raise ValueError(
                f"Finite volumes need cells: placement 'left' (periodic) or 'centres' with ends 'outflow' or 'neumann' "
                f"(wall); axis {axis.name!r} has placement {axis.placement!r} and ends {axis.boundary}."
            )
        if axis.size < FEWEST_NODES:
            raise ValueError(f"Finite volumes need at least {FEWEST_NODES} cells an axis, got grid {grid.shape}.")


def check_sign(inputs: Tensor, equation: ConservationLaw) -> None:
    """Refuse states without density, pressure or height."""
    for k in range(equation.positive):
        negative = (inputs[:, k] <= 0).flatten(1).any(dim=1)
        if bool(negative.any()):
            name = equation.signature.inputs[k].name
            bad = negative.nonzero().flatten().tolist()
            raise ValueError(f"The {name} must be positive everywhere; it is not at sample(s) {bad[:8]}.")


def _divergence(fluxes: Sequence[Tensor], grid: Grid) -> Tensor:
    parts = [
        -(f.diff(dim=-1) / h).movedim(-1, 2 + j) for j, (f, h) in enumerate(zip(fluxes, grid.spacing, strict=True))
    ]
    return parts[0] if len(parts) == 1 else parts[0] + parts[1]


def _blow_up(samples: Sequence[int], time: float) -> str:
    return (
        f"The solution blew up near time {time:g} at sample(s) {list(samples[:8])}. "
        "Use a finer grid, a smaller cfl or step, or check the inputs."
    )
