r"""Darcy flow on the unit square: :math:`-\nabla\cdot(a \nabla u) = f`, u = 0 on the boundary; a -> u.

a     coefficient (mobility)  [1]   given; from a Gaussian field g ~ N(0, tau^{2 alpha - 2} (-Delta + tau²)^{-alpha})
                                    with Neumann boundary conditions and without its mean:
                                    ``two_phase``      low * contrast where g >= 0, else low (Li et al. 2021: 12, 3)
                                    ``log_normal``     exp(amplitude g)
                                    or, without g,
                                    ``trigonometric``  prod_{k=1..6} (1 + cos(a_k pi (x+y)) / 2)
                                                       (1 + sin(a_k pi (y-3x)) / 2), a_k ~ U[2^{k-1}, 1.5 2^{k-1}]
f     source                  [1]   given, constant
u     pressure                [1]   sought

Non-dimensional: lengths in sides of the square. The published data draw g at the cell centres of a 421² grid, carry it
to the nodes by splines and subsample; here the cosine series of g is evaluated at the nodes themselves, at any
resolution: the same law without the detour. The sampled coefficient then *is* the coefficient, constant on the
control volume of each node (two-phase), so that inputs determine outputs; published solutions at 421² depend on
details between the nodes of the subsampled coefficient.

Presets are published sets, and say as much as is known:

``fno_darcy``            12 and 3, tau = 3 (Li et al. 2021), 421² subsampled to 85² or 211²
``darcy_rough``          12 and 2, tau = 5, 512² to 256²; ``darcy_rough_ood`` tau = 18 and contrast 3, its
                         out-of-distribution test (the values themselves are not published; 12 and 4 here: a common
                         factor only rescales u)
``darcy_multiscale``     the trigonometric law; the formula goes around in the literature, without a public generator to
                         verify it against. Published at 1023², every fourth node kept. Its shortest waves (a_6 = 48)
                         span 3.5 nodes of 256²: draw and solve at 1021² and keep every fourth node to have that
``dgno_two_phase``,      29², f = 10 (Zang & Koutsourelakis 2025). The laws of a are in data files only: 10 and 5 by
``dgno_smooth``          the sign of g, and exp(g), are our choice
``pdebench_beta_…``      f = beta on phases 1 and 0.1. PDEBench publishes beta; the law of its coefficient is not
                         documented, so the values and the field under them are our choice. u is linear in beta: these
                         sets differ by a factor only
``neuraloperator_small`` the set of neuraloperator's tutorials, which is *not* 12 and 3. Read off its solutions:
                         -Delta u is 50.000 in one phase and 2.7778 in the other to five digits: a is 0.02 and 0.36 for
                         f = 1 (contrast 18; only f / a is determined). The nodes are centres (i s + 1/2)/512 of a 512²
                         grid, s = 32 at 16² and 16 at 32²: solutions vanish half a cell before the first node, at 0,
                         and 31.5 or 15.5 cells behind the last, at 1. Phases correlate as for about alpha = 3, tau = 10
                         (fitted to 1000 coefficients; alpha = 2, tau = 3 is excluded). Solving for the subsampled
                         coefficients leaves 6.6 % (16²) and 2.7 % (32²) relative L2 to its 50 test solutions and a bias
                         of 0.1 %: where the interfaces run between the published nodes is not known
``contrast_1000``        two phases 1000 and 1: the hard case for multigrid and for networks
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal, get_args

import torch
from jaxtyping import Float
from scipy.interpolate import CubicSpline
from torch import Generator, Tensor

from ._elliptic import Faces, Method, apply_along, diffusion, face_coefficients, interior, solve_dirichlet
from ._equation import Equation, Term, WithEquation, dirichlet
from ._grid import Axis, Grid
from ._problem import Channel, Problem, Setup, Signature, WithResidual
from ._random_fields import neumann_field
from ._solver import Solver, check_fields
from ._symmetry import Symmetry, WithSymmetries, square_symmetries
from ._trigonometric import cosine_refine
from ._weak_form import Balance, Candidate, WithWeakForm, box_envelope

Law = Literal["two_phase", "log_normal", "trigonometric"]
BETAS = (0.01, 0.1, 1.0, 10.0, 100.0)  # sources of the five published PDEBench sets
CREST = 0.0737  # largest value of the solution for a = f = 1
LADDER = (6, 4, 3, 2, 1.5)  # how many times coarser the rungs of the ladder are


@dataclass(frozen=True, kw_only=True)
class Darcy(Problem, WithEquation, WithResidual, WithSymmetries, WithWeakForm):
    """Steady flow through a random porous medium."""

    law: Law = "two_phase"
    low: float = 3.0  # coefficient of the less permeable phase (two_phase)
    contrast: float = 4.0  # ratio of the phases (two_phase)
    amplitude: float = 1.0  # of log a (log_normal)
    tau: float = 3.0  # inverse correlation length of g
    alpha: float = 2.0  # smoothness of g, more than 1
    source: float = 1.0  # f
    faces: Faces = "harmonic"  # mean at the faces; the published generator takes arithmetic ones

    setups: ClassVar[Mapping[str, Setup]] = {
        "quick": Setup(resolution=61, train=1000, validation=40, test=100),
        "paper": Setup(resolution=85, train=1000, validation=100, test=100),
    }
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "fno_darcy": {"low": 3.0, "contrast": 4.0, "tau": 3.0, "faces": "arithmetic"},
        "darcy_rough": {"low": 2.0, "contrast": 6.0, "tau": 5.0, "faces": "arithmetic"},
        "darcy_rough_ood": {"low": 4.0, "contrast": 3.0, "tau": 18.0, "faces": "arithmetic"},
        "darcy_multiscale": {"law": "trigonometric"},
        "dgno_two_phase": {"low": 5.0, "contrast": 2.0, "source": 10.0},
        "dgno_smooth": {"law": "log_normal", "source": 10.0},
        **{f"pdebench_beta_{beta:g}": {"low": 0.1, "contrast": 10.0, "source": beta} for beta in BETAS},
        "neuraloperator_small": {"low": 0.02, "contrast": 18.0, "alpha": 3.0, "tau": 10.0, "faces": "arithmetic"},
        "contrast_1000": {"low": 1.0, "contrast": 1000.0},
    }

    def __post_init__(self) -> None:
        for name, known in (("law", get_args(Law)), ("faces", get_args(Faces))):
            if getattr(self, name) not in known:
                raise ValueError(f"{name} is one of {known}, got {getattr(self, name)!r}.")
        for name in ("low", "contrast", "amplitude", "tau"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be positive, got {getattr(self, name)}.")
        if not self.alpha > 1:
            raise ValueError(f"In two dimensions alpha must exceed 1, got {self.alpha}.")
        if self.source == 0:
            raise ValueError("With source 0 every solution is 0; choose another value.")

    @property
    def signature(self) -> Signature:
        return Signature((Channel("coefficient", "1", "coefficient a"),), (Channel("pressure", "1", "pressure u"),))

    def grid(self, resolution: int | Sequence[int]) -> Grid:
        return Grid.box(resolution, dim=2, boundary="dirichlet")

    def sample(self, count: int, grid: Grid, *, generator: Generator) -> Float[Tensor, "batch channel *space"]:
        if self.law == "trigonometric":
            return _trigonometric(count, grid, generator)[:, None]
        field = neumann_field(count, grid, alpha=self.alpha, tau=self.tau, generator=generator)[:, None]
        if self.law == "log_normal":
            return torch.exp(self.amplitude * field)
        return self.low * torch.where(field >= 0, field.new_tensor(self.contrast), field.new_tensor(1.0))

    def reference(self, **accuracy: Any) -> FiniteVolumes:
        """Second-order finite volumes; see :class:`FiniteVolumes` for ``refine``, ``method``, ``tolerance``."""
        return FiniteVolumes(self, **accuracy)

    def second_opinion(self, **accuracy: Any) -> Solver:
        """An independent method: finite elements, see :class:`DarcyElements` for ``element`` and ``refine``."""
        from ._finite_elements import DarcyElements  # scikit-fem costs a fifth of a second, and few need it

        return DarcyElements(self, **accuracy)

    def ladder(self, grid: Grid) -> Mapping[str, Solver]:
        """Finite volumes on coarser grids, cheap to dear, and at last the reference itself.

        Coefficients are averaged onto the coarse faces, solutions carried back by cubic splines. Where the problem
        takes arithmetic means at the faces, harmonic ones are shown too: better on coarse grids, biased on fine ones.
        """
        shapes = {tuple(max(4, round((n - 1) / k) + 1) for n in grid.shape) for k in LADDER}
        means: list[Faces] = ["harmonic"] if self.faces == "harmonic" else ["harmonic", "arithmetic"]
        ladder: dict[str, Solver] = {}
        for shape in sorted(shape for shape in shapes if shape < grid.shape):
            for faces in means:
                name = f"finite volumes ({faces}) {'x'.join(map(str, shape))}"
                ladder[name] = FiniteVolumes(replace(self, faces=faces), shape=shape)
        ladder[f"finite volumes ({self.faces}) {'x'.join(map(str, grid.shape))}"] = FiniteVolumes(self)
        return ladder

    def symmetries(self, grid: Grid) -> Sequence[Symmetry]:
        """The eight of the square, which the laws by a Gaussian field share; the oblique waves have a direction."""
        return square_symmetries()[: 1 if self.law == "trigonometric" else 8]

    def equation(self, inputs: Tensor, grid: Grid) -> Equation:
        """-a u_xx - a u_yy - a_x u_x - a_y u_y = f, with the slopes of log a from its cosine series.

        The log-normal law only: the strong form asks for a coefficient with a derivative, of which two phases have none
        where they meet, and the oblique waves no cosine series that converges fast.
        """
        if self.law != "log_normal":
            raise ValueError(
                f"Darcy's equation is declared in strong form for law='log_normal', whose coefficient has slopes; got "
                f"law={self.law!r}. Use reference(), second_opinion() or a method that learns."
            )
        check_coefficient(inputs, grid)
        a = inputs[:, 0]
        slopes = [a * cosine_slope(a.log(), axis, place) for place, axis in enumerate(grid.axes, start=1)]
        second = [Term((2, 0), -a), Term((0, 2), -a)]
        first = [Term((1, 0), -slopes[0]), Term((0, 1), -slopes[1])]
        return Equation((*second, *first), torch.full_like(a, self.source), dirichlet(torch.zeros_like(a)))

    def balances(self, candidate: Candidate) -> Mapping[str, Balance]:
        """Flow: a grad u, fed by f. The coefficient is never differentiated."""
        flux = candidate.inputs["coefficient"][..., None] * candidate.gradients["pressure"]
        return {"flow": Balance(flux, torch.full_like(flux[..., 0], -self.source))}

    def energy(self, candidate: Candidate) -> Float[Tensor, "batch point"]:
        """A |grad u|² / 2 - f u."""
        stored = candidate.inputs["coefficient"] * candidate.gradients["pressure"].square().sum(dim=-1)
        return 0.5 * stored - self.source * candidate.outputs["pressure"]

    def balance_scales(self, inputs: Tensor, grid: Grid) -> Mapping[str, Tensor]:
        return {"flow": inputs.new_full((len(inputs),), abs(self.source))}

    def output_scales(self, inputs: Tensor, grid: Grid) -> Mapping[str, float]:
        return {"pressure": CREST * abs(self.source) * float(inputs.reciprocal().mean())}

    @property
    def phases(self) -> tuple[float, ...]:
        return (self.low, self.low * self.contrast) if self.law == "two_phase" else ()

    def envelope(self, points: Tensor) -> Mapping[str, Tensor]:
        return {"pressure": box_envelope(self.grid(2), points)}

    def residual(self, inputs: Tensor, outputs: Tensor, grid: Grid) -> Tensor:
        r""":math:`-\nabla\cdot(a\nabla u) - f` of the discrete operator at inner nodes, u itself at boundary nodes.

        Zero to round-off for the reference at ``refine=1``; differentiable.
        """
        check_coefficient(inputs, grid)
        check_fields(outputs, grid, 1, "outputs")
        faces = face_coefficients(inputs[:, 0], grid, faces=self.faces)
        inner = diffusion(faces, outputs[:, 0], grid) - self.source
        edge = torch.ones(grid.shape, dtype=torch.bool, device=outputs.device)
        interior(edge, grid.dim).fill_(False)
        return torch.where(edge, outputs[:, 0], torch.nn.functional.pad(inner, (1, 1) * grid.dim))[:, None]


class FiniteVolumes(Solver):
    """Finite volumes on the grid itself, or on another one with the solution carried back.

    refine     solve on a grid this many times finer: the two-phase coefficient is continued as a constant on control
               volumes, the logarithm of a smooth one as its cosine series
    shape      solve on a grid with these numbers of nodes instead
    method     ``direct``, ``amg`` or ``auto`` (the faster)
    tolerance  relative residual at which ``amg`` stops

    Order 2 for smooth coefficients (observed). Where phases meet in a corner the solution has a singular gradient and
    the order falls to about 1.35. Measured at 61², relative L2 against ``refine=10``: two-phase 0.37 % (harmonic) and
    0.77 % (arithmetic), log-normal 0.03 %; ``refine=2`` gives 0.14 %, 0.14 % and 0.007 % at eleven times the cost.
    """

    def __init__(
        self,
        problem: Darcy,
        *,
        refine: int = 1,
        shape: Sequence[int] | None = None,
        method: Method = "auto",
        tolerance: float = 1e-10,
    ) -> None:
        if refine < 1:
            raise ValueError(f"refine must be at least 1, got {refine}.")
        if refine > 1 and shape is not None:
            raise ValueError(f"Give refine or shape, not both: got {refine} and {tuple(shape)}.")
        if not 0 < tolerance < 1:
            raise ValueError(f"tolerance is a relative residual between 0 and 1, got {tolerance}.")
        self.problem = problem
        self.refine = refine
        self.shape = None if shape is None else tuple(shape)
        self.method: Method = method
        self.tolerance = tolerance

    @torch.no_grad()
    def __call__(self, inputs: Tensor, grid: Grid, times: Sequence[float] | None = None) -> Tensor:
        check_coefficient(inputs, grid)
        target = grid.at(self.shape or [self.refine * (n - 1) + 1 for n in grid.shape])
        parts = inputs.detach().to("cpu", torch.float64)[:, 0].split(max(1, 2**22 // target.size))  # 32 MiB a field
        return torch.cat([self._solve(part, grid, target) for part in parts])[:, None].to(inputs)

    def _solve(self, coefficient: Tensor, grid: Grid, target: Grid) -> Tensor:
        origin = grid
        if self.problem.law != "two_phase" and self.refine > 1:
            coefficient, origin = cosine_refine(coefficient.log(), target.shape).exp(), target
        faces = face_coefficients(coefficient, origin, target=target, faces=self.problem.faces)
        source = torch.full((len(coefficient), *target.shape), self.problem.source, dtype=torch.float64)
        solution = solve_dirichlet(faces, source, target, method=self.method, tolerance=self.tolerance)
        return _at_nodes(solution, target, grid)


def _at_nodes(values: Tensor, source: Grid, target: Grid) -> Tensor:
    """Values at the target's nodes: those it shares with the source, or else by cubic splines."""
    steps = [(n - 1) // (m - 1) for n, m in zip(source.shape, target.shape, strict=True)]
    if all((n - 1) == k * (m - 1) for n, m, k in zip(source.shape, target.shape, steps, strict=True)):
        for j, k in enumerate(steps, start=1):
            values = values.index_select(j, torch.arange(0, values.shape[j], k))
        return values
    for j, (old, new) in enumerate(zip(source.axes, target.axes, strict=True), start=1):
        values = apply_along(_spline(old, new), values, j)
    return values


@functools.lru_cache(maxsize=32)
def _spline(source: Axis, target: Axis) -> Tensor:
    """Cubic spline interpolation (not-a-knot) as a matrix."""
    identity = torch.eye(source.size, dtype=torch.float64).numpy()
    return torch.from_numpy(CubicSpline(source.coordinates().numpy(), identity)(target.coordinates().numpy()))


def cosine_slope(values: Float[Tensor, "batch x y"], axis: Axis, place: int) -> Float[Tensor, "batch x y"]:
    """The derivative along an axis (number ``place`` of the tensor) of the cosine series through its nodes."""
    even = values.movedim(place, -1)
    cells = axis.size - 1
    even = torch.cat([even, even[..., 1:-1].flip(-1)], dim=-1)
    waves = math.pi / axis.length * torch.fft.fftfreq(2 * cells, d=1 / (2 * cells), dtype=torch.float64)
    waves[cells] = 0  # the highest cosine has no slope at any node
    slope = torch.fft.ifft(1j * waves.to(even.device) * torch.fft.fft(even)).real[..., : axis.size]
    return slope.to(values).movedim(-1, place)


def _trigonometric(count: int, grid: Grid, generator: Generator) -> Float[Tensor, "batch x y"]:
    """Six octaves of oblique waves; between 2^-12 and 1.5^12, so of contrast up to 531,441."""
    x, y = grid.mesh()
    octaves = 2.0 ** torch.arange(6, dtype=torch.float64)
    rates = octaves * (1 + 0.5 * torch.rand(count, 6, dtype=torch.float64, generator=generator))
    product = torch.ones(count, *grid.shape, dtype=torch.float64)
    for rate in (math.pi * rates[..., None, None]).unbind(1):
        product *= (1 + 0.5 * torch.cos(rate * (x + y))) * (1 + 0.5 * torch.sin(rate * (y - 3 * x)))
    return product


def check_coefficient(inputs: Tensor, grid: Grid) -> None:
    check_fields(inputs, grid, 1)
    positive = (inputs > 0).flatten(1).all(dim=1)
    if not bool(positive.all()):
        bad = (~positive).nonzero().flatten().tolist()
        raise ValueError(
            f"The coefficient must be positive everywhere; it is not at sample(s) {bad[:8]} of {len(inputs)}."
        )


build = Darcy
