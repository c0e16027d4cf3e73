r"""Koopman spectra that can be trusted: extended dynamic mode decomposition, each eigenpair with its residual.

The Koopman operator of :math:`x_{n+1} = F(x_n)` maps functions g to :math:`g \circ F`. With features
:math:`\Psi` (a dictionary) at snapshots x and their images F(x), quadrature weights W, and
:math:`\sqrt W\,\Psi_X = Q R`, :math:`C = \sqrt W\,\Psi_Y R^{-1}`,

.. math:: A = Q^* C,\qquad A v = \lambda v,\qquad
   \mathrm{res}(\lambda, v) = \frac{\|(C - \lambda Q) v\|}{\|v\|},\qquad
   \mathrm{res}(z) = \sigma_{\min}(C - z Q)

res    how far the function is from an eigenfunction, in the L2 norm that the weights stand for: not how well A was
       fitted, but how far the operator leaves the dictionary's span (Colbrook and Townsend 2024, ResDMD; Colbrook,
       Mezic, Stepanenko). As the quadrature converges, {z: res(z) < e} is within the e-pseudospectrum of the operator.
       Where the flow preserves the measure behind the weights, the operator is an isometry: res(z) >= | |z| - 1 |, and
       where it is also invertible a point of the spectrum lies within res(z) of z.

Residuals are computed from C - z Q itself: the Gram matrices that the definition is often written with square the
condition number. C - zQ is first compressed to 2N rows by one QR of [C Q], so a pseudospectrum does not see the data.

An eigenvalue without a small residual says nothing, and a residual says nothing where there are few more snapshots
than features (it vanishes when there are none more), so that is refused. ``held_out`` are the same residuals on
snapshots that did not determine the eigenpairs; the gap between the two is what sampling costs.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Complex, Float, Inexact
from torch import Tensor

from ._dictionaries import Dictionary, States

DEPENDENT = 1e-10  # features whose independent part is below this share of the largest singular value are dropped
ENOUGH = 2  # snapshots a feature, at least
CHUNK = 256  # points of a pseudospectrum at a time


class FewSnapshots(ValueError):
    """Fewer snapshots than a residual can be believed from."""


@dataclass(frozen=True)
class Koopman:
    """Eigenpairs in order of their residuals, and what verifies them.

    vectors    coefficients of each eigenfunction in the dictionary
    residuals  on the snapshots that determined the pairs; ``held_out``: on others, or None
    step       time between a snapshot and its image
    pencil     C and Q, compressed
    """

    dictionary: Dictionary
    eigenvalues: Complex[Tensor, " pair"]
    vectors: Complex[Tensor, "feature pair"]
    residuals: Float[Tensor, " pair"]
    held_out: Float[Tensor, " pair"] | None
    step: float
    pencil: tuple[Complex[Tensor, "row kept"], Complex[Tensor, "row kept"]]

    @property
    def errors(self) -> Float[Tensor, " pair"]:
        """The larger of the two residuals of each pair."""
        return self.residuals if self.held_out is None else torch.maximum(self.residuals, self.held_out)

    def verified(self, tolerance: float) -> Bool[Tensor, " pair"]:
        """Which eigenpairs have residuals of at most this, on held-out snapshots too."""
        if not tolerance > 0:
            raise ValueError(f"tolerance is a residual, positive; got {tolerance}.")
        return self.errors <= tolerance

    @property
    def rates(self) -> Complex[Tensor, " pair"]:
        """log(lambda) / step: growth rate and angular frequency, which is known up to multiples of 2 pi / step."""
        return torch.log(self.eigenvalues) / self.step

    def eigenfunctions(self, states: States) -> Complex[Tensor, "sample pair"]:
        return self.dictionary(states).to(self.vectors.dtype) @ self.vectors

    def pseudospectrum(self, points: Complex[Tensor, "*points"]) -> Float[Tensor, "*points"]:
        """res(z) at each of these points: the least residual that any function of the span has there."""
        image, here = self.pencil
        found = [torch.linalg.svdvals(image - z[:, None, None] * here)[:, -1] for z in points.flatten().split(CHUNK)]
        return torch.cat(found).view(points.shape)


@torch.no_grad()
def koopman(
    states: States,
    images: States,
    dictionary: Dictionary,
    *,
    weights: Float[Tensor, " sample"] | None = None,
    step: float = 1.0,
    held_out: tuple[Tensor, Tensor] | None = None,
    dependent: float = DEPENDENT,
) -> Koopman:
    """Eigenpairs of the Koopman operator in the dictionary's span, each with its residual.

    images     of the states, one ``step`` later, row by row
    weights    quadrature weights of the states: equal where they were drawn from (or visited by) the measure meant;
               those of a rule where they are its nodes
    held_out   other states and their images, on which the residuals are measured again (equal weights)
    dependent  relative size below which combinations of features are dropped as linearly dependent

    Raises :class:`FewSnapshots` for less than two snapshots a feature.
    """
    _check(states, images, weights, step)
    count = len(states)
    root = torch.ones(count, dtype=torch.float64) / count if weights is None else weights.double() / weights.sum()
    root = root.sqrt()[:, None]
    here, there = (root * _features(dictionary, each) for each in (states, images))
    if count < ENOUGH * here.shape[1]:
        raise FewSnapshots(
            f"{here.shape[1]} features need at least {ENOUGH * here.shape[1]} snapshots, got {count}: with fewer, "
            "residuals are small whatever the dynamics. Take a smaller dictionary, or more data."
        )
    orthonormal, back = _orthonormalised(here, dependent)
    image = there @ back
    values, vectors = torch.linalg.eig(orthonormal.mH @ image)
    sizes = (image @ vectors - orthonormal @ vectors * values).norm(dim=0) / vectors.norm(dim=0)
    order = sizes.argsort()
    values, coefficients = values[order], (back @ vectors)[:, order]
    others = None if held_out is None else residuals_on(dictionary, values, coefficients, *held_out)
    compressed = torch.linalg.qr(torch.cat([image, orthonormal], dim=1), mode="r")[1]
    kept = orthonormal.shape[1]
    return Koopman(
        dictionary,
        values,
        coefficients,
        sizes[order],
        others,
        step,
        (compressed[:, :kept].contiguous(), compressed[:, kept:].contiguous()),
    )


def residuals_on(
    dictionary: Dictionary,
    values: Complex[Tensor, " pair"],
    vectors: Complex[Tensor, "feature pair"],
    states: States,
    images: States,
) -> Float[Tensor, " pair"]:
    """Of given eigenpairs on given snapshots, equally weighted."""
    _check(states, images, None, 1.0)
    here, there = (_features(dictionary, each) @ vectors for each in (states, images))
    return (there - here * values).norm(dim=0) / here.norm(dim=0).clamp_min(1e-300)


def pairs_of(trajectories: Float[Tensor, "batch time unknown"]) -> tuple[States, States]:
    """All (state, next state) of trajectories at equal times."""
    if trajectories.shape[1] < 2:
        raise ValueError(f"A trajectory needs at least two times, got {trajectories.shape[1]}.")
    return trajectories[:, :-1].flatten(0, 1), trajectories[:, 1:].flatten(0, 1)


def delayed(trajectories: Float[Tensor, "batch time unknown"], count: int) -> Float[Tensor, "batch later delayed"]:
    """States beside their ``count - 1`` predecessors: what is seen of a system becomes a state (Takens)."""
    if not 1 <= count < trajectories.shape[1]:
        raise ValueError(f"{trajectories.shape[1]} times allow 1 to {trajectories.shape[1] - 1} delays, got {count}.")
    length = trajectories.shape[1] - count + 1
    return torch.cat([trajectories[:, i : i + length] for i in reversed(range(count))], dim=2)


def _features(dictionary: Dictionary, states: States) -> Complex[Tensor, "sample feature"]:
    values = dictionary(states.double())
    if not bool(torch.isfinite(torch.view_as_real(values.to(torch.complex128))).all()):
        raise ValueError("A feature is not finite on these states: scale them, or take a lower degree.")
    return values.to(torch.complex128)


def _orthonormalised(
    features: Inexact[Tensor, "sample feature"], dependent: float
) -> tuple[Complex[Tensor, "sample kept"], Complex[Tensor, "feature kept"]]:
    """Q and R^{-1} of the features, by a singular value decomposition of the features at equal size."""
    sizes = features.norm(dim=0)
    if not bool((sizes > 0).any()):
        raise ValueError("Every feature vanishes on these states.")
    scale = torch.where(sizes > 0, sizes, torch.ones_like(sizes))
    left, values, right = torch.linalg.svd(features / scale, full_matrices=False)
    kept = int((values > dependent * values[0]).sum())
    if kept < len(values):
        warnings.warn(
            f"{len(values) - kept} of {len(values)} combinations of features depend on the others on these states "
            "(to ten digits) and were dropped.",
            stacklevel=3,
        )
    return left[:, :kept], right[:kept].mH / values[:kept] / scale[:, None]


def _check(states: Tensor, images: Tensor, weights: Tensor | None, step: float) -> None:
    if states.ndim != 2 or states.shape != images.shape:
        raise ValueError(
            f"States and images are both (sample, unknown), row by row; got {tuple(states.shape)} and "
            f"{tuple(images.shape)}."
        )
    for name, values in (("state", states), ("image", images)):
        bad = (~torch.isfinite(values)).any(dim=1).nonzero().flatten().tolist()
        if bad:
            raise ValueError(f"Every {name} must be finite; number {bad[:8]} are not. Leave those pairs out.")
    if weights is not None and (weights.shape != (len(states),) or not bool((weights > 0).all())):
        raise ValueError(f"weights are {len(states)} positive numbers, got {tuple(weights.shape)}.")
    if not step > 0:
        raise ValueError(f"step is the time between a snapshot and its image, positive; got {step}.")
