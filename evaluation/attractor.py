r"""Whether generated trajectories live on the same attractor as true ones: statistics, where states cannot agree.

Beyond a few Lyapunov times no two solvers agree on a state of a chaotic system, but they can agree on how often it is
where, and at which frequencies it moves:

state space   :math:`D = \sum_b p_b \log (p_b / q_b)` of occupation histograms, ``bins`` a variable over the box of the
              truth, and one more bin for everything outside; counts smoothed by 1e-5 [nat]
spectrum      mean over variables of the Hellinger distance :math:`\sqrt{1 - \sum_k \sqrt{p_k q_k}}` of power spectra,
              smoothed by a Gaussian of ``sigma`` frequencies and normalised

(the definitions of Koppe et al. 2019, Mikhaeil et al. 2022, Brenner et al. 2024). Both are positive between two true
trajectories too, because they are finite: that spread is the yardstick (:func:`spread_of_truth`), and it shrinks with
the length of the trajectories.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from scipy.ndimage import gaussian_filter1d
from torch import Tensor

from ..pde import Grid, Solver

BINS, SMOOTHING, SIGMA = 30, 1e-5, 20.0  # as published
Path = Float[Tensor, "time unknown"]
Distance = Callable[[Tensor, Tensor], float]


def state_space_distance(generated: Path, truth: Path, *, bins: int = BINS, smoothing: float = SMOOTHING) -> float:
    """KL divergence of the occupation histograms, truth from generated [nat]; infinite for states that are not finite.

    A cell is a product of ``bins`` a variable: for more than three variables look at some of them.
    """
    known, shown = _arrays(generated, truth)
    if bins ** known.shape[1] > 10**7:
        raise ValueError(f"{bins} bins of {known.shape[1]} variables are too many cells: choose up to 4 variables.")
    if not np.isfinite(shown).all():
        return float("inf")
    low, high = known.min(axis=0), known.max(axis=0)
    counts = [_counts(path, low, high, bins) + smoothing for path in (known, shown)]
    p, q = (each / each.sum() for each in counts)
    return float((p * np.log(p / q)).sum())


def _counts(path: np.ndarray, low: np.ndarray, high: np.ndarray, bins: int) -> np.ndarray:
    """Of every cell; the last one is outside."""
    wide = np.where(high > low, high - low, 1.0)
    place = np.minimum(np.floor((path - low) / wide * bins).astype(np.int64), bins - (path <= high))
    inside = ((path >= low) & (path <= high)).all(axis=1)
    cells = np.ravel_multi_index(tuple(place[inside].T), (bins,) * path.shape[1])
    counts = np.bincount(cells, minlength=bins ** path.shape[1]).astype(float)
    return np.append(counts, float((~inside).sum()))


def spectrum_distance(generated: Path, truth: Path, *, sigma: float = SIGMA) -> float:
    """Mean Hellinger distance of the variables' power spectra, between 0 and 1; both of one length."""
    known, shown = _arrays(generated, truth)
    if len(known) != len(shown):
        raise ValueError(f"Spectra are compared at one length: got {len(shown)} and {len(known)} times.")
    if not np.isfinite(shown).all():
        return 1.0
    overlap = np.sqrt(power_spectrum(known, sigma=sigma) * power_spectrum(shown, sigma=sigma)).sum(axis=0)
    return float(np.sqrt(np.maximum(0.0, 1 - overlap)).mean())


def power_spectrum(path: np.ndarray, *, sigma: float = SIGMA) -> np.ndarray:
    """Shares of the variance by frequency (0 ... half the sampling rate), smoothed; each variable by itself."""
    centred = path - path.mean(axis=0)
    power = np.abs(np.fft.rfft(centred, axis=0)) ** 2
    smooth = gaussian_filter1d(power, sigma, axis=0, mode="nearest") if sigma else power
    return smooth / np.maximum(smooth.sum(axis=0), 1e-300)


DISTANCES: Mapping[str, Distance] = {"state space": state_space_distance, "spectrum": spectrum_distance}


@dataclass(frozen=True)
class Agreement:
    """A distance between generated and true trajectories, beside that between true ones.

    generated   every generated against every true trajectory
    truth       every pair of different true trajectories
    """

    name: str
    generated: tuple[float, ...]
    truth: tuple[float, ...]

    @property
    def mean(self) -> float:
        return float(np.mean(self.generated))

    @property
    def usual(self) -> tuple[float, float, float]:
        """Mean, 95th percentile and largest distance of true trajectories."""
        return float(np.mean(self.truth)), float(np.percentile(self.truth, 95)), float(np.max(self.truth))

    @property
    def within(self) -> bool:
        """Whether generated trajectories are on average no further from true ones than 95 % of true ones are."""
        return self.mean <= self.usual[1]


def spread_of_truth(
    truths: Float[Tensor, "path time unknown"], distance: Distance = state_space_distance
) -> tuple[float, ...]:
    """Between every pair of different true trajectories, both ways round."""
    if len(truths) < 2:
        raise ValueError("A spread needs at least two true trajectories.")
    return tuple(distance(a, b) for a, b in itertools.permutations(truths, 2))


def agreement(
    generated: Float[Tensor, "path time unknown"], truths: Float[Tensor, "path2 time unknown"]
) -> tuple[Agreement, ...]:
    """Every distance; trajectories of one length, without their transients."""
    if generated.shape[1:] != truths.shape[1:]:
        raise ValueError(
            f"Generated and true trajectories are compared at one length: got {tuple(generated.shape[1:])} and "
            f"{tuple(truths.shape[1:])}."
        )
    return tuple(
        Agreement(
            name,
            tuple(distance(a, b) for a in generated for b in truths),
            spread_of_truth(truths, distance),
        )
        for name, distance in DISTANCES.items()
    )


@torch.no_grad()
def largest_exponent(
    step: Solver,
    states: Float[Tensor, "batch channel *space"],
    grid: Grid,
    *,
    spacing: float,
    steps: int,
    skip: int = 100,
    distance: float = 1e-5,
    every: int = 1,
) -> Float[Tensor, " batch"]:
    """The largest Lyapunov exponent [1/time] of a one-frame map: two orbits, drawn together after ``every`` frames.

    The map has no memory beside its fields (an ``al_rnn`` has hidden units: see ``lyapunov_exponents`` there).

    distance   between them, relative to the states' norm: well above rounding (1e-3 for answers in single precision)

    NaN where an orbit leaves the numbers.
    """
    generator = torch.Generator().manual_seed(0)
    size = distance * float(states.flatten(1).norm(dim=1).mean())
    drawn = torch.randn(states.shape, generator=generator, dtype=states.dtype)
    drawn = drawn / _norm(drawn) * size
    apart, total = drawn, torch.zeros(len(states), dtype=torch.float64)
    for i in range(skip + steps):
        both = torch.cat([states, states + apart])
        for _ in range(every):
            both = step(both, grid)
            if not bool(torch.isfinite(both).all()):
                return torch.full((len(states),), torch.nan, dtype=torch.float64)
        states, other = both.chunk(2)
        apart = other - states
        stretch = _norm(apart)
        met = stretch < 1e-6 * size  # below rounding: a new direction, and no faster decay can be told
        if i >= skip:
            total += torch.log(stretch.clamp_min(1e-6 * size).flatten() / size).double()
        apart = torch.where(met, drawn, apart / stretch.clamp_min(1e-6 * size) * size)
    return total / (steps * every * spacing)


def _norm(values: Tensor) -> Tensor:
    return values.flatten(1).norm(dim=1).view(-1, *[1] * (values.ndim - 1))


def _arrays(generated: Tensor, truth: Tensor) -> tuple[np.ndarray, np.ndarray]:
    known, shown = (np.asarray(path.detach().cpu(), dtype=float) for path in (truth, generated))
    if known.ndim != 2 or known.shape[1] != shown.shape[1]:
        raise ValueError(f"Expected paths (time, unknown) of the same unknowns, got {shown.shape} and {known.shape}.")
    return known, shown
