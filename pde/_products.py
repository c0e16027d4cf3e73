r"""Products of fields in Fourier space, dealiased exactly.

The 2/3 rule keeps modes below N/3, so that *quadratic* products alias only onto modes that are dropped. A product of
degree p reaches p times as far: it is taken on M > (p + 1) (ceil(N/3) - 1) nodes, 4/3 N of them for cubes, where what
aliases misses the kept modes again. So a cubic term costs transforms a third longer, and is that of the Galerkin
method; the 1/2 rule would drop a quarter of the kept modes for the same.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import torch
from scipy import fft as scipy_fft
from torch import Tensor

from ._spectral import Modes


def pointwise(
    function: Callable[[Tensor], Tensor], spectrum: Tensor, modes: Modes, *, degree: int, times: float = 1.0
) -> Tensor:
    """The kept modes of ``times * function(u)``, a polynomial of at most this degree.

    The spectrum is zero outside ``kept``. The function may overwrite what it is given.
    """
    if degree <= 2:
        return modes.forward(function(modes.inverse(spectrum))).mul_(_kept_times(modes, times))
    return _products_of(modes, degree)(function, spectrum, times)


@functools.lru_cache(maxsize=32)
def minus_half_derivative(modes: Modes) -> Tensor:
    """Of u², along x: u u_x = (u² / 2)_x. Dealiased."""
    return -0.5 * modes.ik[0] * modes.kept


@functools.lru_cache(maxsize=32)
def _kept_times(modes: Modes, factor: float) -> Tensor:
    """Complex: torch would make it so at every product with a spectrum."""
    return torch.complex(factor * modes.kept, torch.zeros_like(modes.kept))


class _Products:
    """What depends on the modes and the degree only: the sizes of the finer nodes, and where each axis is stored."""

    def __init__(self, modes: Modes, degree: int) -> None:
        shape = modes.grid.shape
        self.modes = modes
        self.counts = [-(-n // 3) for n in shape]  # kept modes 0 .. count - 1
        self.sizes = [
            max(n, scipy_fft.next_fast_len((degree + 1) * (count - 1) + 1, real=True))
            for n, count in zip(shape, self.counts, strict=True)
        ]
        # in a truncated spectrum the halved axis is stored first, otherwise last
        places = modes.axes[1:] + modes.axes[:1] if modes.truncated else modes.axes
        self.full, self.half = places[:-1], places[-1]
        self.scale = 1.0
        for size, n in zip(self.sizes, shape, strict=True):
            self.scale *= size / n

    def __call__(self, function: Callable[[Tensor], Tensor], spectrum: Tensor, times: float = 1.0) -> Tensor:
        if not self.full and not self.modes.truncated:
            return self._on_a_line(function, spectrum, times / self.scale)
        return self._down(function(self._up(spectrum)), times / self.scale)

    def _on_a_line(self, function: Callable[[Tensor], Tensor], spectrum: Tensor, scale: float) -> Tensor:
        """A whole spectrum in one dimension: the transform itself pads, and the factor cuts."""
        values = function(torch.fft.irfft(spectrum, n=self.sizes[0], dim=-1).mul_(self.scale))
        return torch.fft.rfft(values, dim=-1)[..., : spectrum.shape[-1]] * _kept_times(self.modes, scale)

    def _up(self, spectrum: Tensor) -> Tensor:
        spectrum = spectrum.narrow(self.half, 0, self.counts[-1])
        for axis, count, size in zip(self.full, self.counts, self.sizes, strict=False):
            spectrum = _refit(spectrum, axis, count, size)
        if self.full:
            spectrum = torch.fft.ifftn(spectrum, dim=self.full)
        values = torch.fft.irfft(spectrum.movedim(self.half, -1), n=self.sizes[-1], dim=-1)
        return values.mul_(self.scale)

    def _down(self, values: Tensor, scale: float) -> Tensor:
        # the product also makes what is kept one block of memory
        spectrum = (torch.fft.rfft(values, dim=-1)[..., : self.counts[-1]] * scale).movedim(-1, self.half)
        if self.full:
            spectrum = torch.fft.fftn(spectrum, dim=self.full)
        for axis, count, size in zip(self.full, self.counts, self.modes.grid.shape, strict=False):
            spectrum = _refit(spectrum, axis, count, size)
        if not self.modes.truncated:
            shape = list(spectrum.shape)
            shape[self.half] = self.modes.grid.shape[-1] // 2 + 1 - self.counts[-1]
            spectrum = torch.cat([spectrum, spectrum.new_zeros(shape)], dim=self.half)
        return spectrum.contiguous() if self.full else spectrum


@functools.lru_cache(maxsize=32)
def _products_of(modes: Modes, degree: int) -> _Products:
    return _Products(modes, degree)


def _refit(spectrum: Tensor, axis: int, count: int, size: int) -> Tensor:
    """The modes below ``count`` of a full axis, with zeros between them up to another number of nodes."""
    shape = list(spectrum.shape)
    low = spectrum.narrow(axis, 0, count)
    high = spectrum.narrow(axis, shape[axis] - (count - 1), count - 1)
    shape[axis] = size - (2 * count - 1)
    return torch.cat([low, spectrum.new_zeros(shape), high], dim=axis)
