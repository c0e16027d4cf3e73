r"""Where an error sits: in time (frame by frame) and in scale (wavenumber shell by shell), per sample.

Shells. A mode has the wave vector :math:`k`, measured in cycles over the longest side of the domain:
:math:`n = |k| L / 2\pi`; shell s holds the modes with :math:`s - 1/2 \le n < s + 1/2`. The corners of the spectrum
are included, so nothing is lost: the energies of all shells add up to the mean square over nodes, channels and frames
(Parseval).

Periodic axes are transformed by the FFT. Other axes are transformed by the orthonormal DCT-II, whose mode m is half
a wave over n cells, n = m/2 cycles: it takes any values at the ends and, continuing the field evenly, puts no
false tail where the ends differ. Nodes are taken as cell centres, so an axis whose nodes include both ends counts
as n cells of its spacing, a length of L n / (n - 1).
"""

from __future__ import annotations

import functools

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..pde import Grid
from ._common import doubles, scored


def relative_l2_by_frame(
    prediction: Float[Tensor, "batch time channel *space"],
    truth: Float[Tensor, "batch time channel *space"],
    grid: Grid,
) -> Float[Tensor, "batch time"]:
    """The relative L2 error of each frame by itself, channels pooled; ``inf`` from the frame on that is not finite."""
    prediction, truth = doubles(prediction, truth, grid)
    if truth.ndim != grid.dim + 3:
        raise ValueError(f"A curve over frames needs a time axis; got fields of shape {tuple(truth.shape)}.")
    error = (prediction - truth).square().flatten(2).sum(dim=2)
    size = truth.square().flatten(2).sum(dim=2)
    ratio = torch.where(error == 0, 0.0, error / size).sqrt()
    lost = (~torch.isfinite(prediction).flatten(2).all(dim=2)).cummax(dim=1).values
    return torch.where(lost, torch.inf, ratio)


def error_by_wavenumber(
    prediction: Float[Tensor, "batch *rest"], truth: Float[Tensor, "batch *rest"], grid: Grid
) -> tuple[Int[Tensor, " shell"], Float[Tensor, "batch shell"], Float[Tensor, "batch shell"]]:
    """Shell numbers, energy of the error and energy of the truth in each shell (see the head of this file).

    Time and channels are averaged. A prediction that is not finite has infinite error energy in every shell.
    """
    prediction, truth = doubles(prediction, truth, grid)
    error = _by_shell(prediction - truth, grid)
    return _shells(grid), scored(error, prediction, truth), _by_shell(truth, grid)


def energy_by_wavenumber(
    values: Float[Tensor, "batch *rest"], grid: Grid
) -> tuple[Int[Tensor, " shell"], Float[Tensor, "batch shell"]]:
    """Shell numbers, and the energy of a field in each shell; ``inf`` where the field is not finite."""
    values, _ = doubles(values, values, grid)
    return _shells(grid), scored(_by_shell(values, grid), values, torch.zeros_like(values))


def cutoff(grid: Grid) -> float:
    """The largest wavenumber, in shells, that the grid resolves in every direction: beyond are only corners."""
    sides = [axis.size * axis.spacing for axis in grid.axes]
    return min(axis.size / 2 * max(sides) / side for axis, side in zip(grid.axes, sides, strict=True))


def _shells(grid: Grid) -> Tensor:
    return torch.arange(int(_shell_of_mode(grid).max()) + 1)


def _by_shell(values: Tensor, grid: Grid) -> Tensor:
    shell = _shell_of_mode(grid).to(values.device)
    for axis, place in zip(grid.axes, range(-grid.dim, 0), strict=True):
        values = torch.fft.fft(values, dim=place, norm="ortho") if axis.periodic else _dct(values, place)
    energy = values.abs().square().reshape(len(values), -1, grid.size).mean(dim=1) / grid.size
    total = energy.new_zeros(len(energy), int(shell.max()) + 1)
    return total.index_add(1, shell, energy)


@functools.lru_cache(maxsize=16)
def _shell_of_mode(grid: Grid) -> Tensor:
    """The shell number of each mode, flattened as the transformed field is."""
    sides = [axis.size * axis.spacing for axis in grid.axes]
    total = torch.zeros((), dtype=torch.float64)
    for axis, side in zip(grid.axes, sides, strict=True):
        count = torch.arange(axis.size, dtype=torch.float64)
        cycles = (torch.fft.fftfreq(axis.size, dtype=torch.float64) * axis.size) if axis.periodic else 0.5 * count
        total = total[..., None] + (cycles * (max(sides) / side)).square()
    # 1e-9: a mode on the border of two shells shall not fall by rounding
    return torch.floor(total.sqrt() + 0.5 + 1e-9).to(torch.int64).flatten()


def _dct(values: Tensor, place: int) -> Tensor:
    """Orthonormal DCT-II along one axis, by an FFT of the evenly continued field; real or complex input."""
    values = values.movedim(place, -1)
    size = values.shape[-1]
    mirrored = torch.fft.fft(torch.cat([values, values.flip(-1)], dim=-1), dim=-1)[..., :size]
    count = torch.arange(size, dtype=torch.float64, device=values.device)
    shift = torch.exp(-0.5j * torch.pi * count / size) / (2 * size) ** 0.5
    shift[0] = shift[0] / 2**0.5
    return (mirrored * shift).movedim(-1, place)
