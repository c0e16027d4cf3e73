r"""How fast a field varies, along each axis: what the first layer of a network is matched to.

.. math:: k_{\mathrm{rms},i} = \sqrt{\langle(\partial_i u)^2\rangle / \langle (u-\bar u)^2\rangle}

in radians per internal unit (the axis runs from -1 to 1), from the n-dimensional power spectrum: the same number on
every grid that resolves the field. On axes that are not periodic values are taken through a Hann window.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from ..pde import Axis, Grid


def nyquist(axis: Axis) -> float:
    """The highest angular wave number of the nodes [rad per internal unit]: pi over the spacing."""
    return math.pi * axis.length / (2 * axis.spacing)


def bandwidths(values: Float[Tensor, "channel *space"], grid: Grid) -> tuple[float, ...]:
    """k_rms of each axis, from all channels together (each in units of its deviation); 0 of a constant."""
    fields = values.detach().to("cpu", torch.float64)
    if tuple(fields.shape[1:]) != grid.shape:
        raise ValueError(f"Values on this grid have shape (channel, {grid.shape}), got {tuple(fields.shape)}.")
    axes = tuple(range(1, fields.ndim))
    fields = fields - fields.mean(dim=axes, keepdim=True)
    deviation = fields.square().mean(dim=axes, keepdim=True).sqrt()
    fields = fields / deviation.clamp_min(1e-300)
    for j, axis in enumerate(grid.axes, start=1):
        if not axis.periodic:
            window = torch.hann_window(axis.size + 2, periodic=False, dtype=torch.float64)[1:-1]
            fields = (fields.movedim(j, -1) * window).movedim(-1, j)
    power = torch.fft.fftn(fields, dim=axes).abs().square().sum(dim=0)
    return tuple(_rms(power, j, axis) for j, axis in enumerate(grid.axes))


def _rms(power: Tensor, j: int, axis: Axis) -> float:
    along = power.sum(dim=[i for i in range(power.ndim) if i != j]) if power.ndim > 1 else power
    waves = 2 * math.pi * torch.fft.fftfreq(axis.size, d=2 * axis.spacing / axis.length, dtype=torch.float64)
    if not axis.periodic:
        along = along * (waves.abs() > 1.5 * waves[1])  # what the window makes of the mean and the slowest wave
    total = float(along.sum())
    return math.sqrt(float((along * waves.square()).sum()) / total) if total > 0 else 0.0


def centroid(signal: Float[Tensor, "channel *space"]) -> float:
    """The published spectral centroid in units of the Nyquist limit: of each channel's values in array order, amplitude
    weighted, mean over channels (Chandravamsi et al. 2025).
    """
    amplitude = torch.fft.rfft(signal.detach().double().flatten(1), dim=1).abs()
    frequencies = torch.fft.rfftfreq(signal[0].numel(), dtype=torch.float64)
    total = amplitude.sum(dim=1)
    return float((2 * (amplitude * frequencies).sum(dim=1) / total.clamp_min(1e-300)).mean())
