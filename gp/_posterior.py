r"""The solution as a random field: mean, standard deviations and samples of it and of its derivatives, from noisy data.

.. math:: y = A u + \epsilon,\quad \epsilon \sim N(0, \Sigma),\quad u \sim GP(0, s^2 k):\qquad
          E\,u = s^2 k A^T C^{-1} y,\quad \mathrm{cov}\,u = s^2 k - s^4 k A^T C^{-1} A k,\quad C = s^2 A k A^T + \Sigma

A       the equation at all nodes and the conditions on all faces (linear equations)
Sigma   given variances of the source's and of the boundary data's errors, independent from node to node
s²      the scale of the prior, by maximum likelihood with Sigma as it is, or with a factor on Sigma that is learnt too:
        one eigendecomposition of the whitened A k A^T, then a search in one dimension

C is formed: up to a few thousand observations. Deviations are exact; samples come from the root of the posterior
covariance at the points asked for.
"""

from __future__ import annotations

import copy
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from scipy.optimize import minimize_scalar
from torch import Generator, Tensor

from ..pde import Grid, SolverError
from ..pde._equation import Equation
from ._condition import MOST, Functional, covariance_of, observations
from ._covariance import Covariance, LineSpectrum
from ._likelihood import gram_of
from ._spectrum import Band, prior_of

ROUNDING = 1e-13  # of an observation's prior variance: noise that is always there
REACH = 0.95  # of the Nyquist limit: how far the prior goes where noise is stated
HANN = 2  # half width of the main lobe of Hann's window, in bins; stated errors are far above its side lobes
SLOWEST = 2.0  # waves an axis below which boundary data decide
STANDS_OUT = 10.0  # times the median power: a wave, not noise
SILENT = 1e-20  # of the largest power: what a source without stated errors may hide
SCALES = (-40.0, 10.0)  # range of log s² about the scale at which the prior has the size of the data
Orders = Sequence[int]


@dataclass(frozen=True)
class Noise:
    """Standard deviations of the errors of source and boundary data, in their units."""

    source: float = 0.0
    boundary: float = 0.0

    def __post_init__(self) -> None:
        if not (0 <= self.source < math.inf and 0 <= self.boundary < math.inf):
            raise ValueError(f"Noise is given as standard deviations, finite and not negative; got {self}.")

    def variances(self, observed: Sequence[Functional]) -> Tensor:
        """Of all observations; the equation's come last."""
        sizes = [self.boundary] * (len(observed) - 1) + [self.source]
        parts = [torch.full((len(o.points),), s**2, dtype=torch.float64) for o, s in zip(observed, sizes, strict=True)]
        return torch.cat(parts)


class RandomField(ABC):
    """A posterior of a scalar field: everything on tensor grids of points, of any derivative."""

    scale: float  # s², of the prior
    noise: float  # factor on the variances of the errors that were stated: 1, or learnt

    @abstractmethod
    def mean(self, points: Sequence[Tensor], orders: Orders | None = None) -> Float[Tensor, " *space"]: ...

    @abstractmethod
    def deviation(self, points: Sequence[Tensor], orders: Orders | None = None) -> Float[Tensor, " *space"]: ...

    @abstractmethod
    def sample(
        self, count: int, points: Sequence[Tensor], orders: Orders | None = None, *, generator: Generator
    ) -> Float[Tensor, "count *space"]: ...

    def band(
        self, points: Sequence[Tensor], orders: Orders | None = None, *, level: float = 0.95
    ) -> tuple[Tensor, Tensor]:
        """The pointwise interval that holds the value with this probability."""
        mean, half = self.mean(points, orders), half_width(level) * self.deviation(points, orders)
        return mean - half, mean + half

    def coverage(
        self, truth: Tensor, points: Sequence[Tensor], orders: Orders | None = None, *, level: float = 0.95
    ) -> float:
        """The share of points at which the band holds the truth."""
        lower, upper = self.band(points, orders, level=level)
        return float(((truth >= lower) & (truth <= upper)).double().mean())


def half_width(level: float) -> float:
    """Of a central interval, in standard deviations."""
    if not 0 < level < 1:
        raise ValueError(f"The level of a band is a probability between 0 and 1, got {level}.")
    return float(torch.special.ndtri(torch.tensor(0.5 + 0.5 * level, dtype=torch.float64)))


def mesh_of(points: Sequence[Tensor]) -> Tensor:
    return torch.stack(torch.meshgrid(*[p.double() for p in points], indexing="ij"), dim=-1)


class Dense(RandomField):
    """Any prior, any observations with given noise variances; the cube of their number."""

    def __init__(
        self,
        priors: Sequence[Covariance],
        observed: Sequence[Functional],
        values: Tensor,
        variances: Tensor,
        *,
        learn_noise: bool = False,
    ) -> None:
        if len(values) > MOST:
            raise SolverError(f"A dense posterior takes at most {MOST} observations, got {len(values)}.")
        self.priors, self.observed = tuple(priors), tuple(observed)
        gram = gram_of(priors, observed)
        reference = _reference_scale(gram, values)
        self.whitener = (variances + ROUNDING * reference * gram.diagonal()).rsqrt()
        eigenvalues, self.vectors = torch.linalg.eigh(self.whitener[:, None] * gram * self.whitener)
        self.eigenvalues = eigenvalues.clamp_min(0)
        self.kept: dict[tuple, Tensor] = {}
        self.learn_noise = learn_noise
        self._take(values, reference)

    def _take(self, values: Tensor, reference: float) -> None:
        self.inner, self.reference = self.vectors.T @ (self.whitener * values), reference
        self.noise = 1.0  # factor on the variances given
        if self.learn_noise:
            self.scale, self.noise = best_scale_and_noise(self.eigenvalues, self.inner, reference)
        else:
            self.scale = best_scale(self.eigenvalues, self.inner, reference)

    def given(self, values: Tensor) -> Dense:
        """The posterior of other values of the same observations, at the cost of a product."""
        other = copy.copy(self)
        other._take(values, self.reference)
        return other

    def log_likelihood(self) -> float:
        """Of the observations, at the scale found."""
        total = self.scale * self.eigenvalues + self.noise
        constant = math.log(2 * math.pi) * len(total) - 2 * float(self.whitener.log().sum())
        return -0.5 * (float((self.inner.square() / total).sum() + total.log().sum()) + constant)

    def _cross(self, wanted: Functional) -> Tensor:
        """Prior covariance with the observations, in the eigenbasis of these; the last one is kept."""
        key = (wanted.points.numpy().tobytes(), wanted.terms[0][0])
        if key not in self.kept:
            blocks = [covariance_of(self.priors, wanted, o) for o in self.observed]
            self.kept.clear()
            self.kept[key] = (torch.cat(blocks, 1) * self.whitener) @ self.vectors
        return self.kept[key]

    def mean_of(self, wanted: Functional) -> Tensor:
        return self._cross(wanted) @ (self.scale * self.inner / (self.scale * self.eigenvalues + self.noise))

    def covariance_of(self, wanted: Functional) -> Tensor:
        cross = self._cross(wanted)
        taken = (cross * (self.scale**2 / (self.scale * self.eigenvalues + self.noise))) @ cross.T
        return self.scale * covariance_of(self.priors, wanted, wanted) - taken

    def mean(self, points: Sequence[Tensor], orders: Orders | None = None) -> Tensor:
        mesh = mesh_of(points)
        return self.mean_of(Functional.value(mesh.flatten(0, -2), orders)).reshape(mesh.shape[:-1])

    def deviation(self, points: Sequence[Tensor], orders: Orders | None = None) -> Tensor:
        mesh = mesh_of(points)
        wanted = Functional.value(mesh.flatten(0, -2), orders)
        parts = [Functional(part, wanted.terms) for part in wanted.points.split(256)]
        own = torch.cat([covariance_of(self.priors, part, part).diagonal() for part in parts])
        taken = self._cross(wanted).square() @ (self.scale**2 / (self.scale * self.eigenvalues + self.noise))
        return (self.scale * own - taken).clamp_min(0).sqrt().reshape(mesh.shape[:-1])

    def sample(
        self, count: int, points: Sequence[Tensor], orders: Orders | None = None, *, generator: Generator
    ) -> Tensor:
        mesh = mesh_of(points)
        wanted = Functional.value(mesh.flatten(0, -2), orders)
        values, vectors = torch.linalg.eigh(self.covariance_of(wanted))
        white = torch.randn((count, len(values)), generator=generator, dtype=torch.float64)
        draws = self.mean_of(wanted) + (white * values.clamp_min(0).sqrt()) @ vectors.T
        return draws.reshape(count, *mesh.shape[:-1])


def _reference_scale(gram: Tensor, values: Tensor) -> float:
    """A scale at which the prior has the size of the data: what rounding is relative to."""
    return float((values.square() / gram.diagonal()).mean()) or 1.0


def best_scale(eigenvalues: Tensor, inner: Tensor, reference: float) -> float:
    """The maximum-likelihood s² of N(0, s² diag(eigenvalues) + I) for ``inner``."""
    if not bool((inner != 0).any()):
        return 1.0

    def cost(log_scale: float) -> float:
        total = math.exp(log_scale) * eigenvalues + 1
        return float((inner.square() / total + total.log()).sum())

    return _least(cost, reference)


def best_scale_and_noise(
    eigenvalues: Tensor, inner: Tensor, reference: float, *, outside: tuple[float, int] = (0.0, 0)
) -> tuple[float, float]:
    """The maximum-likelihood (s², n²) of N(0, s² diag(eigenvalues) + n² I) for ``inner``.

    outside   sum of squares and number of further observations that hold noise only

    For a given ratio s² / n² the best n² is a mean, so one dimension is left to search.
    """
    squares, number = outside
    count = len(inner.flatten()) + number

    def noise(log_ratio: float) -> float:
        total = math.exp(log_ratio) * eigenvalues + 1
        return max((float((inner.square() / total).sum()) + squares) / count, math.ulp(0.0))

    def cost(log_ratio: float) -> float:
        total = math.exp(log_ratio) * eigenvalues + 1
        return float(total.log().sum()) + count * math.log(noise(log_ratio))

    ratio = _least(cost, reference)
    found = noise(math.log(ratio))
    return ratio * found, found


def _least(cost: Callable[[float], float], reference: float) -> float:
    """The positive number whose logarithm costs least; there may be several minima: a coarse look, then the best."""
    best = min((math.log(reference) + s for s in torch.linspace(*SCALES, 51).tolist()), key=cost)
    return math.exp(minimize_scalar(cost, bounds=(best - 1, best + 1), method="bounded", options={"xatol": 1e-6}).x)


def broad_prior(grid: Grid) -> list[Covariance]:
    """Waves up to the reach of the nodes: stated noise, not a pruned spectrum, keeps the problem sound."""
    priors: list[Covariance] = []
    for axis in grid.axes:
        nyquist = 0.5 / axis.spacing
        priors.append(prior_of(Band(REACH * nyquist, nyquist, ((0.0, nyquist),), 0.0), axis))
    return priors


def measured_prior(equation: Equation, grid: Grid, noise: Noise, *, learn_noise: bool = False) -> list[Covariance]:
    """The broad prior with its variances raised or lowered to the power that the noisy source shows, along each axis.

    A source of one wave under a prior for white ones would be shrunk where its power is and believed where it has none.
    Errors of the data count as power (no frequency is thought emptier than the noise lets one see), peaks are widened
    by the window's lobe, and the lowest frequencies, which boundary data decide, stay as wide as the highest peak.
    """
    priors: list[Covariance] = []
    for j, (axis, prior) in enumerate(zip(grid.axes, broad_prior(grid), strict=True)):
        assert isinstance(prior, LineSpectrum)
        rows = equation.source.double().movedim(1 + j, -1).flatten(0, -2)
        window = torch.hann_window(axis.size, periodic=False, dtype=torch.float64)
        power = torch.fft.rfft(rows * window).abs().square().mean(dim=0)
        power = power.clamp_min(max(noise.source**2 * float(window.square().sum()), SILENT * float(power.max())))
        power = torch.nn.functional.max_pool1d(power[None], 2 * HANN + 1, 1, HANN)[0]
        bins = (prior.frequencies * 2 * axis.spacing * (len(power) - 1)).round().long().clamp_max(len(power) - 1)
        slow = prior.frequencies <= SLOWEST / axis.length
        found = torch.where(slow, power.max(), power[bins])
        kept = slow | (found > STANDS_OUT * power.median()) if learn_noise else torch.ones_like(slow)
        priors.append(LineSpectrum((prior.weights * found / power.max())[kept], prior.frequencies[kept]))
    return priors


def posterior_of(
    equation: Equation, grid: Grid, priors: Sequence[Covariance], noise: Noise, *, learn_noise: bool = False
) -> Dense:
    """One sample of a linear equation, conditioned on at every node."""
    if equation.reaction is not None:
        raise ValueError(
            "Bands are exact Gaussian posteriors of linear equations; this one has a reaction. Linearise it about a "
            "solution (Equation.slope) and pose the linear equation."
        )
    observed, values = observations(equation, grid)
    return Dense(priors, observed, torch.cat(values), noise.variances(observed), learn_noise=learn_noise)
