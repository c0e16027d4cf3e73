r"""A Gaussian process with a spectral prior solves one instance of a declared equation, with no data and no training.

.. math:: u \sim GP(0, k),\quad \mathcal L u + r(u) = f,\quad \text{conditions on the faces given}

For every problem that declares its equation (:class:`~resolvent.pde._equation.WithEquation`): linear or semilinear,
boundary-value or initial-boundary-value, 1-D to 3-D on boxes. The spectrum of the prior, the collocation nodes and the
bandwidth follow from periodograms of the source and of the boundary data; there is nothing to set. Where the problem
knows its source between the nodes, the nodes are chosen independently of the grid that is asked for.

What it does not do: curved domains, systems of equations, sources with jumps (accuracy is then that of the nodes'
resolution, and it says so), waves beyond the Nyquist limit of nodes that are all one has.

Method ``green`` (what ``auto`` takes) inverts one-directional operators in the waves of the prior; ``condition`` is
plain Gaussian conditioning on all nodes, which costs the cube of their number and also gives a posterior covariance;
with ``learn`` its prior is a spectral mixture whose every hyperparameter maximises the marginal likelihood. ``map`` is
the published method (GP-HM), on the nodes of the grid that is asked for.

``posterior`` answers with a random field instead of a field: mean, standard deviations and samples of the solution and
of its derivatives, from sources and boundary data with stated errors.
"""

from __future__ import annotations

import dataclasses
import math
import warnings
from collections.abc import Sequence
from typing import Any, Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from ..pde import Grid, Problem, Solver, SolverError
from ..pde._equation import Equation, Term, WithEquation
from ._collocation import Answer, Collocation, split
from ._condition import Conditioned, conditioned
from ._grid_posterior import Gridded
from ._health import ELSEWHERE, EXCELLENT, Health, HealthWarning, check_misfit, check_resolution
from ._learning import conditioned_on_learnt
from ._map import Map, MapAnswer, Mixture, Optimiser, Published
from ._posterior import Noise, RandomField, measured_prior, posterior_of
from ._spectrum import Band, band_of, enough_nodes, prior_of, widened

PROBED = 9  # nodes an axis of the instance that is posed when a solver is built
LARGE = 3000  # nodes up to which a posterior is dense
INSTANCES = 1  # it learns from no data: `solve` poses so many instances, and answers them one by one
Method = Literal["auto", "green", "condition", "map"]
Solution = Answer | Conditioned | MapAnswer
RESOLVED = 0.5  # of the Nyquist limit: chosen nodes put the highest wave below this
NODES_A_WAVE = 4.4
MOST_NODES = {1: 6000, 2: 1200, 3: 200}  # an axis, of chosen grids
FEWEST = 65  # nodes an axis to start the search from
DOUBLINGS = 12
REPETITIONS = 3
SETTLED = 1e-8  # amplitude at the Nyquist limit relative to the largest: the spectrum has ended
SLACK = 8.0  # bins by which two grids may differ about the highest wave


class GaussianProcess(Solver):
    """One instance at a time; ``health`` holds what was found about each sample of the last call."""

    def __init__(
        self,
        problem: Problem,
        *,
        method: Method = "auto",
        learn: bool = False,
        published: Published = Published(),  # noqa: B008 - frozen
    ) -> None:
        if not isinstance(problem, WithEquation):
            raise ValueError(
                f"gp solves problems that declare their equation (WithEquation); {problem.name} does not. "
                "Name a problem that does, or add its 'equation'."
            )
        if method not in get_args(Method):
            raise ValueError(f"method is one of {get_args(Method)}, got {method!r}.")
        if problem.signature.evolves or len(problem.signature.outputs) != 1:
            raise ValueError(
                f"gp solves for one scalar field, with time as an axis of the grid where there is one; {problem.name} "
                f"has {len(problem.signature.outputs)} output(s) and {problem.signature.frames} frame(s)."
            )
        if learn and method != "condition":
            raise ValueError(f"Hyperparameters are learnt with method='condition', not {method!r}.")
        self.problem, self.method, self.learn, self.published = problem, method, learn, published
        self.health: tuple[Health, ...] = ()

    def __call__(self, inputs: Tensor, grid: Grid, times: Sequence[float] | None = None) -> Tensor:
        """Solve on nodes of its own and evaluate on the grid. Raises ``SolverError`` where no answer can be trusted."""
        answers = self.solve(inputs, grid)
        return torch.stack([answer(grid.coordinates())[0] for answer in answers])[:, None].to(inputs)

    @torch.no_grad()
    def solve(self, inputs: Tensor, grid: Grid) -> list[Solution]:
        """The solutions as functions, one a sample."""
        exact = inputs.detach().to("cpu", torch.float64)
        self._declared().equation(exact, grid)  # the door: shapes and values are refused before any work
        answers: list[Solution] = []
        for i, sample in enumerate(exact):
            try:
                answers.append(self._one(sample[None], grid))
            except SolverError as error:
                raise SolverError(f"Sample {i} of {len(exact)}: {error}") from error
        self.health = tuple(answer.health for answer in answers)
        return answers

    @torch.no_grad()
    def posterior(
        self,
        inputs: Float[Tensor, "one channel *space"],
        grid: Grid,
        *,
        noise: Noise = Noise(),  # noqa: B008 - frozen
        learn_noise: bool = False,
    ) -> RandomField:
        """The solution of one linear instance with its uncertainty; nodes are those of the grid.

        noise         standard deviations of the errors of source and boundary data. Where neither has any, uncertainty
                      is what the nodes leave open.
        learn_noise   these are relative: a factor on their squares is learnt with the scale of the prior

        Up to ``LARGE`` nodes the posterior is dense; beyond, it is in Kronecker form (see :mod:`._grid_posterior`).
        """
        if learn_noise and not (noise.source or noise.boundary):
            raise ValueError("To learn a noise level, state its shape: Noise(source=1.0), Noise(boundary=1.0) or both.")
        if len(inputs) != 1:
            raise ValueError(f"A posterior is that of one instance, got {len(inputs)}: pass inputs[i : i + 1].")
        equation = self._declared().equation(inputs.detach().to("cpu", torch.float64), grid)
        if math.prod(grid.shape) > LARGE:
            prior = measured_prior(equation, grid, noise, learn_noise=learn_noise)
            return Gridded(equation, grid, prior, noise, learn_noise=learn_noise)
        if noise.source or noise.boundary:
            prior = measured_prior(equation, grid, noise, learn_noise=learn_noise)
            return posterior_of(equation, grid, prior, noise, learn_noise=learn_noise)
        bands = bands_of(equation, grid)
        check_resolution(bands, grid.axes)
        return posterior_of(equation, grid, [prior_of(b, a) for b, a in zip(bands, grid.axes, strict=True)], noise)

    def _declared(self) -> Any:
        return self.problem

    def _one(self, inputs: Tensor, grid: Grid) -> Solution:
        """On chosen nodes if the problem can be posed on any: until the equation holds between the nodes too."""
        if self.method == "map":
            return Map(self._declared().equation(inputs, grid), grid, self.published).run().answer()
        if self._declared().posed(inputs, grid, grid) is None:
            return self._on(inputs, grid)
        now = grid.at([max(n, FEWEST) for n in grid.shape])
        for _ in range(REPETITIONS):
            posed, now = self._nodes(inputs, grid, now)
            answer = self._on(posed, now)
            between = now.at([math.ceil(1.37 * n) for n in now.shape])
            asked = self._declared().equation(self._declared().posed(inputs, grid, between), between)
            misfit = misfit_at(answer, asked, between)
            if misfit <= ELSEWHERE:
                return answer
            now = now.at([self._more(n, False, grid.dim) for n in now.shape])
        raise SolverError(
            f"The equation holds at the nodes ({'x'.join(map(str, now.shape))}) but not between them (misfit "
            f"{misfit:.1e}): the source has waves that these nodes only see as aliases. Pose the problem on more nodes."
        )

    def _on(self, inputs: Tensor, grid: Grid) -> Solution:
        equation: Equation = self._declared().equation(inputs, grid)
        bands = bands_of(equation, grid)
        check_resolution(bands, grid.axes)
        if self.method == "condition":
            return (conditioned_on_learnt if self.learn else conditioned)(equation, grid, bands)
        best = self._best(equation, grid, bands)
        check_misfit(best.health)
        if best.health.warning():
            warnings.warn(best.health.warning(), HealthWarning, stacklevel=5)
        return best

    @staticmethod
    def _best(equation: Equation, grid: Grid, bands: list[Band]) -> Answer:
        """The pruned prior; where it leaves a misfit, also wider ones, and the best of them."""
        best: Answer | None = None
        plain = all(_plain(term) for term in equation.terms)
        for tried in (bands, [widened(b) for b in bands], [widened(b, full=True) for b in bands])[0 if plain else 2 :]:
            answer = Collocation(equation, grid, tried).solve()
            if best is None or answer.health.misfit < 0.5 * best.health.misfit:
                best = answer
            if best.health.misfit <= EXCELLENT:
                break
        assert best is not None
        return best

    def _nodes(self, inputs: Tensor, grid: Grid, now: Grid) -> tuple[Tensor, Grid]:
        """Nodes, from ``now`` on, that resolve the inputs, as few as possible.

        One resolved grid could show aliases only, so a second, incommensurate one has to find the same band.
        """
        before: tuple[float, ...] = ()
        for _ in range(DOUBLINGS):
            bands = bands_of(self._declared().equation(self._declared().posed(inputs, grid, now), now), now)
            tops = tuple(band.peak for band in bands)
            fine = [band.peak <= RESOLVED * band.nyquist and band.floor < SETTLED for band in bands]
            slack = [SLACK / axis.length for axis in now.axes]
            if all(fine) and before and all(abs(a - b) <= s for a, b, s in zip(before, tops, slack, strict=True)):
                return self._least(inputs, grid, now, bands)
            before, last = tops, now.shape
            now = now.at([self._more(n, ok, grid.dim) for n, ok in zip(now.shape, fine, strict=True)])
            if now.shape == last:
                break
        raise SolverError(
            f"No grid of up to {'x'.join(map(str, now.shape))} nodes resolves the source (highest wave "
            f"{max(tops):.3g} cycles a unit, at {max(band.crowding for band in bands):.0%} of the Nyquist limit)."
        )

    @staticmethod
    def _more(nodes: int, fine: bool, dim: int) -> int:
        return min(math.ceil((1.31 if fine else 1.87) * nodes), MOST_NODES[dim])

    def _least(self, inputs: Tensor, grid: Grid, now: Grid, bands: list[Band]) -> tuple[Tensor, Grid]:
        """No more nodes than the band needs."""
        shape = [
            min(axis.size, max(64, enough_nodes(band, axis, NODES_A_WAVE)))
            for axis, band in zip(now.axes, bands, strict=True)
        ]
        target = now.at(shape)
        return self._declared().posed(inputs, grid, target), target


def bands_of(equation: Equation, grid: Grid) -> list[Band]:
    """What source, data and coefficients hold along each axis; being resolved is asked of source and data only."""
    coefficients = [t.coefficient.double() for t in equation.terms if isinstance(t.coefficient, Tensor)]
    bands = []
    for j, axis in enumerate(grid.axes):
        faces = [c.values.double().unsqueeze(1 + c.axis) for c in equation.conditions if c.axis != j]
        given = band_of([equation.source.double(), *faces], j, axis)
        whole = band_of([equation.source.double(), *faces, *coefficients], j, axis) if coefficients else given
        bands.append(dataclasses.replace(whole, edge=given.edge))
    return bands


@dataclasses.dataclass(frozen=True)
class _There:
    """The derivatives of an answer at the nodes of a grid."""

    answer: Solution
    grid: Grid

    def d(self, orders: tuple[int, ...]) -> Tensor:
        return self.answer(self.grid.coordinates(), orders)


def misfit_at(answer: Solution, equation: Equation, grid: Grid) -> float:
    """Of the equation at the nodes of any grid, relative to the largest of its terms there."""
    there = _There(answer, grid)
    parts = [(term.coefficient * there.d(term.orders)).norm() for term in equation.terms]
    return float(equation.residual(there).norm()) / max(float(torch.stack(parts).max()), math.ulp(0.0))


def _plain(term: Term) -> bool:
    return term.constant


def build(
    problem: Problem,
    grid: Grid,
    *,
    method: Method = "auto",
    learn: bool = False,
    mixture: Mixture = "student",
    components: int = 30,
    highest: float = 20.0,
    steps: int = 100_000,
    weight: float = 200.0,
    optimiser: Optimiser = "adam",
    eliminated: bool = False,
    extra: float = 0.0,
) -> GaussianProcess:
    """A Gaussian process on the problem's declared equation.

    method       green: inverse operators in waves; condition: on all nodes; map: the published one; auto: green
    learn        condition: hyperparameters of the prior by marginal likelihood
    mixture      map: spectrum (student, gaussian), or sums without cosines (matern, squared_exponential)
    components   map: Q, terms of the mixture, an axis
    highest      map: F, frequencies start evenly from 0 to it [cycles a unit]
    steps        map: of the optimiser
    weight       map: lambda_b, of the boundary likelihood
    optimiser    map: adam (published) or lbfgs
    eliminated   map: solution as the minimiser for given hyperparameters, in place of free values
    extra        map: share of the steps after which a second process is added; 0: never
    """
    published = Published(
        mixture=mixture, components=components, highest=highest, steps=steps, weight=weight, optimiser=optimiser,
        eliminated=eliminated, extra=extra,
    )  # fmt: skip
    solver = GaussianProcess(problem, method=method, learn=learn, published=published)
    _probe(problem, grid)
    return solver


def _probe(problem: Problem, grid: Grid) -> None:
    """Pose one instance on few nodes: what has no strong form, or one outside the class, is refused before any work."""
    coarse = grid.at([min(n, PROBED) for n in grid.shape])
    inputs = problem.sample(1, coarse, generator=torch.Generator().manual_seed(0)).double()
    equation: Equation = problem.equation(inputs, coarse)  # type: ignore[attr-defined] # checked by GaussianProcess
    split(equation, grid.dim)
