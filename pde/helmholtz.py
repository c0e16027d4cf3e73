r"""Helmholtz equation :math:`-\Delta u - (\omega/c)^2 u = 0` in the unit square, driven through its top edge; c -> u.

c     wave speed   [m/s]    given; c = mean + spread tanh(g), g = sum of xi_l sqrt(lambda_l) phi_l over the ``modes``
                            lowest cosines but the constant, lambda_l = (pi² |l|² + tau²)^{-2}, xi_l ~ N(0, 1)
omega frequency    [rad/s]  given
u     amplitude    [m]      sought; real, since nothing absorbs

Sign conventions: time dependence :math:`e^{-i\omega t}`, outward normal, Neumann data :math:`\partial u/\partial n = 1`
on the part |x - 1/2| < 0.15 of the top edge y = 1 and 0 on the rest of the boundary, so the edge *feeds*
:math:`+\int v` into the weak form. Lengths in metres, the side being 1 m.

The published set (de Hoop, Huang, Qian & Stuart 2022; 40,000 samples) is the default: omega = 1000, mean 20, tau = 3,
100 modes, bilinear elements on 101² nodes, 12.6 nodes a wavelength of 0.126 m. Its solutions are those of the
*discrete* problem: at that resolution waves of bilinear elements are (k h)²/24 = 1 % too long or short, which adds up
over eight wavelengths and, in a box that resonates, changes everything. Measured on three samples against
``dispersion`` at ``refine=6``, relative L2: 0.85, 0.61, 0.60. ``rule="gauss"`` gives these published solutions;
``rule="dispersion"`` (the same matrix pattern, integrated at ±sqrt(2/3) instead of ±sqrt(1/3); Guddati & Yue 2004) has
a phase error of order 4 and costs the same: 0.65, 0.04, 0.04 (the first sample is near a resonance), and 0.085, 0.002,
0.002 at ``refine=3``.

For solvers of the equation itself the solution is parted. Of the load's cosines (edge data that jump: u has r log r)
those shorter than waves travel in the box, m > ``SHORT`` k / pi with k = omega / c at the ends of the load, stay at the
edge: sum of g_m cos(m pi x) cosh(q y) / (q sinh q), q² = (m pi)² - k² > 0, solves the equation of constant k. What is
left of u is smooth: the other cosines drive it, and (omega²/c² - k²) times that sum. Such answers are judged by
``dispersion`` elements of ``FINE`` nodes a wavelength.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, get_args

import numpy as np
import torch
from jaxtyping import Float, Shaped
from scipy import sparse
from scipy.sparse.linalg import splu
from scipy.special import hankel1
from torch import Generator, Tensor

from ._equation import Condition, End, Equation, Term, WithRemainder
from ._grid import Grid
from ._problem import Channel, Problem, Setup, Signature, WithResidual
from ._solver import Solver, SolverError, check_fields
from ._trigonometric import cosine_refine
from ._weak_form import Balance, Candidate, WithWeakForm

Rule = Literal["gauss", "dispersion"]
POINTS = {"gauss": math.sqrt(1 / 3), "dispersion": math.sqrt(2 / 3)}  # ± of the reference interval [-1, 1]
USUAL = 12.0  # nodes a wavelength of the published set: where no refinement is asked for, at least so many
LEAST = 6.0  # below, waves of bilinear elements are more than 5 % too short, and soon none at all
FINE = 60.0  # nodes a wavelength of the solution that others of the equation itself are judged by
SHORT = 1.2  # cosines of the load so many times shorter than waves at its ends do not travel
TERMS = 8192  # cosines of the load: those left out change u by at most 1e-5, at the two ends of the load
NEAR = 0.02  # by so much of k² a wave is taken to miss its resonance at least
WINDOW = (0.35, 0.65)  # the part of the top edge that is driven [m]
CORNERS = tuple(itertools.product((0, 1), repeat=2))


@dataclass(frozen=True, kw_only=True)
class Helmholtz(Problem, WithRemainder, WithResidual, WithWeakForm):
    """Standing waves in a box of slightly varying wave speed: the solution oscillates, the input does not."""

    omega: float = 1000.0  # [rad/s]
    mean: float = 20.0  # wave speed [m/s]
    spread: float = 1.0  # largest deviation from it [m/s]
    tau: float = 3.0  # inverse correlation length of g [1/m]
    modes: int = 100  # terms of g
    rule: Rule = "gauss"  # how elements are integrated

    setups: ClassVar[Mapping[str, Setup]] = {
        "quick": Setup(resolution=101, train=400, validation=40, test=100),
        "paper": Setup(resolution=101, train=4000, validation=200, test=200),
    }
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "de_hoop_2022": {},
        "accurate": {"rule": "dispersion"},
        "low_frequency": {"omega": 200.0, "rule": "dispersion"},
    }

    def __post_init__(self) -> None:
        for name in ("omega", "mean", "tau"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be positive, got {getattr(self, name)}.")
        if not 0 <= self.spread < self.mean:
            raise ValueError(f"spread must lie between 0 and mean, {self.mean}: got {self.spread}.")
        if self.modes < 1:
            raise ValueError(f"modes must be at least 1, got {self.modes}.")
        if self.rule not in get_args(Rule):
            raise ValueError(f"rule is one of {get_args(Rule)}, got {self.rule!r}.")

    @property
    def signature(self) -> Signature:
        return Signature((Channel("speed", "m s-1", "wave speed c"),), (Channel("amplitude", "m", "amplitude u"),))

    def grid(self, resolution: int | Sequence[int]) -> Grid:
        return Grid.box(resolution, dim=2, boundary="neumann", unit="m")

    def sample(self, count: int, grid: Grid, *, generator: Generator) -> Float[Tensor, "batch 1 x y"]:
        """The same random numbers on every grid: xi_l is drawn for a mode, not for a node."""
        numbers = _lowest(self.modes)
        xi = torch.randn(count, self.modes, dtype=torch.float64, generator=generator)
        xi = xi / (math.pi**2 * numbers.square().sum(1) + self.tau**2)
        first, second = (_cosines(numbers[:, j], x) for j, x in enumerate(grid.coordinates()))
        return self.mean + self.spread * torch.tanh(torch.einsum("bl,lx,ly->bxy", xi, first, second))[:, None]

    def reference(self, **accuracy: Any) -> Bilinear:
        """Bilinear finite elements, order 2; see :class:`Bilinear` for ``refine`` and ``rule``."""
        return Bilinear(self, **accuracy)

    def continuum(self) -> Bilinear:
        """Elements fine enough to be judged by: 0.002 on usual samples, more near a resonance."""
        return Bilinear(self, rule="dispersion", usual=FINE)

    def posed(self, inputs: Tensor, grid: Grid, target: Grid) -> Tensor | None:
        """The cosine series of the speed, on nodes at least as fine."""
        if any(new < old for new, old in zip(target.shape, grid.shape, strict=True)):
            return None
        return cosine_refine(inputs.cpu(), target.shape).to(inputs)

    def known(self, inputs: Tensor, grid: Grid) -> Tensor:
        check_speed(inputs, grid)
        return torch.stack([_at_edge(k, grid) for k in self._wavenumbers(inputs, grid)])

    def remainder(self, inputs: Tensor, grid: Grid) -> Equation:
        check_speed(inputs, grid)
        squares, wavenumbers = (self.omega / inputs[:, 0].double()).square(), self._wavenumbers(inputs, grid)
        source = (squares - torch.tensor(wavenumbers)[:, None, None].square()) * self.known(inputs, grid)
        x, along = grid.coordinates()[0], [source.new_zeros(len(inputs), n) for n in grid.shape]
        driven = torch.stack([torch.cos(x[:, None] * waves) @ sizes for waves, sizes in map(_travelling, wavenumbers)])
        faces: list[tuple[int, End, Tensor]] = [
            (0, "lower", along[1]), (0, "upper", along[1]), (1, "lower", along[0]), (1, "upper", driven)
        ]  # fmt: skip
        conditions = tuple(Condition(axis, end, values, order=1) for axis, end, values in faces)
        return Equation((Term((2, 0), -1.0), Term((0, 2), -1.0), Term((0, 0), -squares)), source, conditions)

    def _wavenumbers(self, inputs: Tensor, grid: Grid) -> list[float]:
        """At the two ends of the load, their mean; by the cosine series of the speed, so the same on any nodes."""
        n = grid.shape[0] - 1
        m = torch.arange(n + 1, dtype=torch.float64)
        halves = torch.where((m == 0) | (m == n), 0.5, 1.0)
        at = torch.cos(math.pi * torch.tensor(WINDOW, dtype=torch.float64)[:, None] * m)
        weights = (2 / n) * (at * halves) @ torch.cos(math.pi / n * m[:, None] * m) * halves
        return (self.omega / (inputs[:, 0, :, -1].double() @ weights.t()).mean(dim=1)).tolist()

    def ladder(self, grid: Grid) -> Mapping[str, Solver]:
        """Bilinear elements by both rules, from the fewest nodes a wavelength to twice the usual."""
        ladder: dict[str, Solver] = {}
        for refine in range(*self._refinements(grid)):
            size = "x".join(str(refine * (n - 1) + 1) for n in grid.shape)
            for rule in get_args(Rule):
                ladder[f"bilinear ({rule}) {size}"] = Bilinear(self, refine=refine, rule=rule)
        return ladder

    def _refinements(self, grid: Grid) -> tuple[int, int]:
        wavelength, h = 2 * math.pi * (self.mean - self.spread) / self.omega, max(grid.spacing)
        return math.ceil(LEAST * h / wavelength), max(2, math.ceil(1.25 * USUAL * h / wavelength)) + 1

    def balances(self, candidate: Candidate) -> Mapping[str, Balance]:
        wavenumber = self.omega / candidate.inputs["speed"]
        return {
            "wave": Balance(candidate.gradients["amplitude"], -wavenumber.square() * candidate.outputs["amplitude"])
        }

    def fed(self, waves: Sequence[int]) -> Mapping[str, Tensor]:
        """The window of the top edge, where cosines along y are 1 and -1 in turn."""
        along, across = waves
        loads = _load(0.0)[1][:along]
        loads[1:] /= 2
        return {"wave": loads[:, None] * (-1.0) ** torch.arange(across, dtype=torch.float64)}

    def stiffness(self, squares: Tensor) -> Tensor:
        """Less k² of the mean speed; the rest of a wave that resonates is what the speed's deviations leave of it."""
        travelling = (self.omega / self.mean) ** 2
        return (squares - travelling).abs().clamp_min(NEAR * travelling)

    def balance_scales(self, inputs: Tensor, grid: Grid) -> Mapping[str, Tensor]:
        """As the part of the edge that is driven gives it to the box."""
        return {"wave": inputs.new_full((len(inputs),), self.omega / self.mean * (WINDOW[1] - WINDOW[0]))}

    def output_scales(self, inputs: Tensor, grid: Grid) -> Mapping[str, float]:
        return {"amplitude": self.mean / self.omega}

    def boundary_points(self, count: int, grid: Grid, *, generator: Generator) -> Float[Tensor, "point 2"]:
        """On the four edges in turn."""
        along = torch.rand(count, generator=generator, dtype=torch.float64)
        edge = torch.arange(count) % 4
        across = (edge % 2).to(torch.float64)
        return torch.where((edge < 2)[:, None], torch.stack([across, along], 1), torch.stack([along, across], 1))

    def conditions(self, candidate: Candidate) -> Mapping[str, Tensor]:
        """The normal slope, 1 in the window of the top edge and 0 elsewhere."""
        x, y = candidate.points.unbind(1)
        driven = ((y == 1) & (x > WINDOW[0]) & (x < WINDOW[1])).to(candidate.points)
        sides = (x == 0) | (x == 1)
        along, up = candidate.gradients["amplitude"].unbind(-1)
        return {"edges": torch.where(sides, along, up) - driven}

    def residual(self, inputs: Tensor, outputs: Tensor, grid: Grid) -> Tensor:
        """The equations of the bilinear elements on this very grid, divided by the area of each node; differentiable.

        Zero to round-off for the reference at ``refine=1``.
        """
        check_speed(inputs, grid)
        check_fields(outputs, grid, 1, "outputs")
        weak = weak_form(self.omega / inputs[:, 0], outputs[:, 0], grid, self.rule)
        load = top_load(grid).to(outputs)
        return ((weak - load) / grid.weights(device=outputs.device).to(outputs))[:, None]


class Bilinear(Solver):
    """Bilinear finite elements on the grid, or on a finer one whose nodes include the grid's; sparse LU each sample.

    refine    elements a spacing; default: as many as give the published 12 nodes to the shortest wavelength. Fewer than
              6 nodes a wavelength are refused. The speed is continued as a cosine series
    rule      how elements are integrated; default: the problem's
    usual     nodes a wavelength where ``refine`` is not given

    Order 2 (observed) by both rules for variable c; the phase error at constant c is of order 2 (``gauss``) or 4
    (``dispersion``). Near a resonance of the box all errors grow by 1/distance.
    """

    def __init__(
        self, problem: Helmholtz, *, refine: int | None = None, rule: Rule | None = None, usual: float = USUAL
    ) -> None:
        if refine is not None and refine < 1:
            raise ValueError(f"refine must be at least 1, got {refine}.")
        if rule is not None and rule not in get_args(Rule):
            raise ValueError(f"rule is one of {get_args(Rule)}, got {rule!r}.")
        self.problem = problem
        self.refine, self.usual = refine, usual
        self.rule: Rule = rule or problem.rule

    @torch.no_grad()
    def __call__(self, inputs: Tensor, grid: Grid, times: Sequence[float] | None = None) -> Tensor:
        check_speed(inputs, grid)
        speed = inputs.detach().to("cpu", torch.float64)[:, 0]
        every = self._refinement(float(speed.min()), grid)
        fine = grid.at([every * (n - 1) + 1 for n in grid.shape])
        load = top_load(fine).numpy()
        solved = []
        for i, c in enumerate(speed):
            wavenumber = self.problem.omega / (cosine_refine(c, fine.shape) if every > 1 else c)
            solved.append(torch.from_numpy(_solve(wavenumber, load, fine, self.rule, i))[::every, ::every])
        return torch.stack(solved)[:, None].to(inputs)

    def _refinement(self, slowest: float, grid: Grid) -> int:
        """Elements a spacing, for the shortest wavelength of the batch."""
        wavelength, h = 2 * math.pi * slowest / self.problem.omega, max(grid.spacing)
        if self.refine is None:  # three per cent of slack: slow spots of the published speeds on their own 101² nodes
            return math.ceil(0.97 * self.usual * h / wavelength)
        if self.refine * wavelength / h < LEAST:
            raise ValueError(
                f"refine={self.refine} on {grid.shape} nodes gives {self.refine * wavelength / h:.1f} nodes to the "
                f"shortest wavelength {wavelength:.3g} m; at least {LEAST:g} are needed, "
                f"that is refine={math.ceil(LEAST * h / wavelength)} or more."
            )
        return self.refine


def _solve(wavenumber: Tensor, load: np.ndarray, grid: Grid, rule: Rule, index: int = 0) -> np.ndarray:
    matrix = assemble(wavenumber, grid, rule)
    try:
        solution = splu(matrix, permc_spec="MMD_AT_PLUS_A", options={"SymmetricMode": True}).solve(load.ravel())
    except RuntimeError as error:
        raise SolverError(f"Sample {index}: the box resonates at this frequency; change omega or the grid.") from error
    return solution.reshape(grid.shape)


def solve_dirichlet(
    wavenumber: Float[Tensor, "x y"], boundary: Float[Tensor, "parts x y"], grid: Grid, rule: Rule = "dispersion"
) -> Float[Tensor, "parts x y"]:
    """-Delta u - k² u = 0 with the values of ``boundary`` on the edges: real and imaginary part are two parts."""
    matrix = assemble(wavenumber, grid, rule)
    inner = torch.zeros(grid.shape, dtype=torch.bool)
    inner[1:-1, 1:-1] = True
    free, solution = inner.flatten().numpy(), boundary.to(torch.float64).flatten(1).numpy().T.copy()
    solution[free] = splu(matrix[free][:, free]).solve(-(matrix[free][:, ~free] @ solution[~free]))
    return torch.from_numpy(solution.T.copy()).reshape(-1, *grid.shape)


def weak_form(
    wavenumber: Float[Tensor, "batch x y"], values: Float[Tensor, "batch x y"], grid: Grid, rule: Rule
) -> Float[Tensor, "batch x y"]:
    """The integral of grad u . grad v - k² u v against each bilinear basis function v; differentiable."""
    products = torch.einsum("...abxy,...bxy->...axy", _local(wavenumber, grid, rule), _corners(values))
    total = torch.zeros_like(values)
    for part, (i, j) in zip(products.unbind(-3), CORNERS, strict=True):
        total = total + torch.nn.functional.pad(part, (j, 1 - j, i, 1 - i))
    return total


def assemble(wavenumber: Float[Tensor, "x y"], grid: Grid, rule: Rule) -> sparse.csc_array:
    """The symmetric matrix of :func:`weak_form`."""
    nodes = _corners(torch.arange(grid.size).reshape(grid.shape))
    local = _local(wavenumber, grid, rule)
    rows, columns = nodes[:, None].expand(local.shape), nodes[None].expand(local.shape)
    places = (rows.flatten().numpy(), columns.flatten().numpy())
    return sparse.csc_array(sparse.coo_array((local.flatten().numpy(), places), shape=(grid.size, grid.size)))


def _local(wavenumber: Tensor, grid: Grid, rule: Rule) -> Float[Tensor, "*batch 4 4 cells_x cells_y"]:
    """Element matrices; the wavenumber is bilinear in each element."""
    shapes, stiffness, area = _rule(grid, rule)
    squares = torch.einsum("qa,...axy->...qxy", shapes.to(wavenumber), _corners(wavenumber)).square()
    masses = torch.einsum("qa,qb->qab", shapes, shapes).to(wavenumber) * (area / len(shapes))
    return stiffness.to(wavenumber)[:, :, None, None] - torch.einsum("qab,...qxy->...abxy", masses, squares)


@functools.lru_cache(maxsize=32)
def _rule(grid: Grid, rule: Rule) -> tuple[Tensor, Tensor, float]:
    """Basis functions (corner a at point q), the stiffness matrix, and the area of an element."""
    ends = torch.tensor([[1.0, 0.0], [0.0, 1.0]], dtype=torch.float64)
    line = ends * (1 + POINTS[rule]) / 2 + ends.flip(0) * (1 - POINTS[rule]) / 2  # the two hats at the two points
    slopes = torch.tensor([[-1.0, 1.0], [-1.0, 1.0]], dtype=torch.float64)
    (hx, hy), area = grid.spacing, math.prod(grid.spacing)
    gradients = torch.stack([torch.kron(slopes / hx, line), torch.kron(line, slopes / hy)])
    return torch.kron(line, line), torch.einsum("dqa,dqb->ab", gradients, gradients) * (area / 4), area


def _corners(values: Shaped[Tensor, "*batch x y"]) -> Shaped[Tensor, "*batch 4 cells_x cells_y"]:
    n, m = values.shape[-2:]
    return torch.stack([values[..., i : n - 1 + i, j : m - 1 + j] for i, j in CORNERS], dim=-3)


@functools.lru_cache(maxsize=32)
def top_load(grid: Grid) -> Float[Tensor, "x y"]:
    """The integral of each hat function over the driven part of the top edge: exact wherever the nodes lie."""
    x = grid.coordinates()[0].numpy()
    low, high = np.clip(x[:-1], *WINDOW), np.clip(x[1:], *WINDOW)
    rising = ((high - x[:-1]) ** 2 - (low - x[:-1]) ** 2) / (2 * np.diff(x))
    load = torch.zeros(grid.shape, dtype=torch.float64)
    load[1:, -1] += torch.from_numpy(rising)
    load[:-1, -1] += torch.from_numpy(high - low - rising)
    return load


def point_source(grid: Grid, wavenumber: float, centre: Sequence[float]) -> Float[Tensor, "2 x y"]:
    r""":math:`\tfrac{i}{4} H_0^{(1)}(k r)`, real and imaginary part: :math:`-\Delta u - k^2 u = \delta` in free space.

    Outgoing for :math:`e^{-i\omega t}`. With its values on the edges it solves the equation in any box without the
    centre. A centre on a node is refused.
    """
    r = (grid.mesh() - torch.tensor(list(centre), dtype=torch.float64)[:, None, None]).square().sum(0).sqrt()
    if bool((r == 0).any()):
        raise ValueError(f"The field of a point source is infinite at its centre {tuple(centre)}, which is a node.")
    values = 0.25j * hankel1(0, wavenumber * r.numpy())
    return torch.from_numpy(np.stack([values.real, values.imag]))


def _load(wavenumber: float) -> tuple[Tensor, Tensor, int]:
    """Wave numbers and sizes of the load's cosines, and how many travel."""
    waves = math.pi * torch.arange(TERMS, dtype=torch.float64)
    low, high = WINDOW
    sizes = 2 * (torch.sin(high * waves) - torch.sin(low * waves)) / waves.clamp_min(1.0)
    sizes[0] = high - low
    return waves, sizes, math.ceil(SHORT * wavenumber / math.pi) + 1


def _travelling(wavenumber: float) -> tuple[Tensor, Tensor]:
    waves, sizes, count = _load(wavenumber)
    return waves[:count], sizes[:count]


def _at_edge(wavenumber: float, grid: Grid) -> Float[Tensor, "x y"]:
    """What the other cosines of the load make of u."""
    (x, y), (waves, sizes, count) = grid.coordinates(), _load(wavenumber)
    waves, sizes = waves[count:], sizes[count:]
    q = (waves.square() - wavenumber**2).sqrt()[:, None]  # cosh(q y) / sinh(q) of large q:
    rise = (torch.exp(q * (y - 1)) + torch.exp(-q * (y + 1))) / (1 - torch.exp(-2 * q))
    return torch.cos(x[:, None] * waves) @ (sizes[:, None] / q * rise)


@functools.lru_cache(maxsize=8)
def _lowest(count: int) -> Float[Tensor, "count 2"]:
    """Pairs of mode numbers by i² + j², without (0, 0); ties in the order of i, as published."""
    reach = math.isqrt(2 * count) + 1
    pairs = [(i, j) for i, j in itertools.product(range(reach + 1), repeat=2) if i or j]
    return torch.tensor(sorted(pairs, key=lambda p: p[0] ** 2 + p[1] ** 2)[:count], dtype=torch.float64)


def _cosines(numbers: Tensor, x: Tensor) -> Float[Tensor, "modes nodes"]:
    """Cosines of unit mean square."""
    return torch.where(numbers > 0, math.sqrt(2), 1.0)[:, None] * torch.cos(math.pi * numbers[:, None] * x)


def check_speed(inputs: Tensor, grid: Grid) -> None:
    check_fields(inputs, grid, 1)
    positive = (inputs > 0).flatten(1).all(dim=1)
    if not bool(positive.all()):
        bad = (~positive).nonzero().flatten().tolist()
        raise ValueError(f"The wave speed must be positive everywhere; it is not at sample(s) {bad[:8]}.")


build = Helmholtz
