r"""The prior's spectrum from data that are already there: periodograms of the source and of the boundary data.

Along each axis the band of the solution is read from windowed periodograms; the prior is then a line spectrum on that
band whose spacing 1 / (T L), T > 1, makes the waves complete for functions on an interval of length L that are not
periodic (a Fourier extension), with variances that fall as those of a twice integrated white source. Bands in which the
data hold nothing are pruned: few lines mean a small, well-conditioned problem.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float
from scipy.signal.windows import kaiser
from torch import Tensor

from ..pde import Axis
from ._covariance import LineSpectrum

EXTENSION = 2.4  # T: measured on p1 to p5, errors rise below 2 and above 3
KAISER = 28.0  # side lobes below 1e-12 of a peak
LOBE = 9  # half width of its main lobe, in bins
SIGNIFICANT = 1e-10  # of the largest amplitude
FLOOR = 30.0  # times the noise at the top of the spectrum: what counts as a peak above it
ROUGH = 1e-4  # of the largest amplitude: a spectrum that has not fallen below this at the Nyquist limit
HIGHEST = 0.84  # of the Nyquist limit: as far as lines go, so that nodes outnumber the waves they determine
CROWDED = 0.75  # of the Nyquist limit: beyond it a lone wave cannot be told from its alias
COMFORT = 0.6  # of the Nyquist limit: as far as lines go for data without an end of their spectrum
MARGIN = 4.0  # bins added above the highest line found


@dataclass(frozen=True)
class Band:
    """What the data hold along one axis, in cycles a unit.

    top       highest frequency of the prior
    peak      highest frequency found in the data
    nyquist   half the sampling rate
    filled    frequency intervals in which there is something
    floor     amplitude at the top of the spectrum relative to the largest: noise, roughness or aliasing
    edge      root of the share of the energy in the last part of the spectrum, from CROWDED of the Nyquist limit on
    """

    top: float
    nyquist: float
    filled: tuple[tuple[float, float], ...]
    floor: float
    peak: float = 0.0
    edge: float = 0.0

    @property
    def crowding(self) -> float:
        """The share of the Nyquist limit that is used."""
        return self.top / self.nyquist


def band_of(fields: Sequence[Tensor], axis: int, grid_axis: Axis) -> Band:
    """The band that these nodal fields occupy along one axis; each counts relative to its own largest amplitude."""
    nyquist = 0.5 / grid_axis.spacing
    spectra = [amplitudes(field.movedim(1 + axis, -1).flatten(0, -2), grid_axis) for field in fields]
    spectra = [s / s.max() for s in spectra if float(s.max()) > 0]
    if not spectra:
        return Band(1 / grid_axis.length, nyquist, (), 0.0)
    spectrum = torch.stack(spectra).amax(dim=0)
    size = len(spectrum)
    floor = float(spectrum[-max(2, size // 16) :].median())
    cut = max(SIGNIFICANT, FLOOR * floor if floor < ROUGH else 0.0)
    step = nyquist / (size - 1)
    bins = (spectrum > cut).nonzero().flatten()
    # a line at s lights up the bins within a lobe of it
    lobe = 0 if grid_axis.periodic else min(LOBE - 1, size // 8)
    peak = max(float(bins.max()) - lobe, 1.0) * step
    # where data go on beyond the nodes' reach, waves that the nodes hardly determine only carry noise
    top = min(peak + MARGIN / grid_axis.length, (HIGHEST if floor < ROUGH else COMFORT) * nyquist)
    edge = max(float((s[int(CROWDED * size) :].square().sum() / s.square().sum()).sqrt()) for s in spectra)
    return Band(top, nyquist, _intervals(bins, step), floor, peak, edge)


def amplitudes(rows: Float[Tensor, "row node"], axis: Axis) -> Float[Tensor, " frequency"]:
    """Windowed amplitude spectrum along the last axis, root mean square over rows."""
    count = rows.shape[-1]
    window = torch.ones(count, dtype=torch.float64) if axis.periodic else _window(count)
    return torch.fft.rfft(rows.double() * window).abs().square().mean(dim=0).sqrt()


def _window(count: int) -> Tensor:
    # a short grid cannot afford the wide lobe of the strongest window
    beta = min(KAISER, 0.5 * count)
    return torch.from_numpy(np.asarray(kaiser(count, beta)))


def _intervals(bins: Tensor, step: float) -> tuple[tuple[float, float], ...]:
    """Consecutive bins as frequency intervals, widened by one bin."""
    found: list[list[int]] = []
    for b in bins.tolist():
        if found and b <= found[-1][1] + 2:
            found[-1][1] = b
        else:
            found.append([b, b])
    return tuple(((low - 1) * step, (high + 1) * step) for low, high in found)


def prior_of(band: Band, axis: Axis) -> LineSpectrum:
    """Lines on the band, without the parts in which nothing was found; low frequencies always stay."""
    if axis.periodic:
        count = min(int(band.top * axis.length) + 1, (axis.size - 1) // 2)
        lines = torch.arange(count + 1, dtype=torch.float64) / axis.length
        return LineSpectrum(_falling(lines, axis.length), lines)
    spacing = 1 / (EXTENSION * axis.length)
    lines = spacing * torch.arange(math.ceil(band.top / spacing) + 1, dtype=torch.float64)
    kept = lines <= _low(axis)
    for low, high in band.filled:
        kept |= (lines >= low) & (lines <= high)
    lines = lines[kept]
    return LineSpectrum(_falling(lines, axis.length), lines)


def _low(axis: Axis) -> float:
    """Below this every frequency stays: a second integral of the source needs it, whatever the source holds."""
    return 6 / axis.length


def _falling(lines: Tensor, length: float) -> Tensor:
    """Variances of a solution whose second derivative is white above the scale of the box."""
    return (lines.square() + length**-2).reciprocal().square() * length**-4


def enough_nodes(band: Band, axis: Axis, ratio: float) -> int:
    """Nodes with ``ratio`` nodes a wave of the highest frequency, and some for the ends."""
    return math.ceil(ratio * band.top * axis.length) + 16


def widened(band: Band, *, full: bool = False) -> Band:
    """The same band without gaps; ``full``: as far as nodes still outnumber the waves comfortably."""
    top = max(band.top, COMFORT * band.nyquist) if full else band.top
    return replace(band, top=top, filled=((0.0, top),))
