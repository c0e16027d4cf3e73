r"""The Fourier side of a torus: transforms, wavenumbers, derivatives, dealiasing, resampling, in 1 to 3 dimensions.

A real field of shape ``... *space`` has the spectrum ``torch.fft.rfftn`` over its space axes (unnormalised, last
axis halved). Angular wavenumbers are :math:`k_j = 2\pi n_j / L_j`, so :math:`\partial_j` is multiplication by
:math:`i k_j`, except at the Nyquist mode of an even axis, whose odd derivatives vanish: there sin(k x) is zero at
every node and the sign of k is not defined.

Quadratic terms are dealiased by the 2/3 rule, so most of a spectrum is zero. A *truncated* spectrum stores the halved
axis only as far as that rule keeps it, a third less to multiply and to transform, and stores it first, which is how
the transforms read and write without copies (together: twice as fast a Navier-Stokes right-hand side). Whoever writes
against ``modes.k``, ``ik``, ``k2``, ``kept``, ``forward`` and ``inverse`` serves both.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence

import torch
from jaxtyping import Complex, Float
from torch import Tensor

from ._grid import Grid


class Modes:
    """Everything that depends on the torus and its resolution only. Get one from :func:`modes_of`, which caches."""

    def __init__(
        self,
        grid: Grid,
        dtype: torch.dtype = torch.float64,
        device: torch.device | str = "cpu",
        *,
        truncated: bool = False,
    ) -> None:
        if not grid.periodic:
            kinds = [axis.boundary for axis in grid.axes]
            raise ValueError(f"A Fourier method needs a periodic grid; the axes have boundaries {kinds}.")
        self.grid = grid
        self.axes = tuple(range(-grid.dim, 0))
        self.truncated = truncated
        numbers = [_integers(n, half=i == grid.dim - 1) for i, n in enumerate(grid.shape)]
        if truncated:
            numbers[-1] = numbers[-1][: -(-grid.shape[-1] // 3)]  # 0 .. the last n with 3 n < N
        self.numbers = [self._along(i, values) for i, values in enumerate(numbers)]
        self.integers = [n.to(device) for n in self.numbers]
        scale = [2 * math.pi / length for length in grid.lengths]
        self.k = [(n * s).to(device, dtype) for n, s in zip(self.numbers, scale, strict=True)]
        odd = [
            torch.where((n.abs() * 2 == size), 0.0, n) * s
            for n, size, s in zip(self.numbers, grid.shape, scale, strict=True)
        ]
        self.ik = [1j * k.to(device, dtype) for k in odd]
        self.k2 = sum((k.square() for k in self.k), start=torch.zeros((), dtype=dtype, device=device))

    def _along(self, axis: int, values: Tensor) -> Tensor:
        shape = [1] * self.grid.dim
        shape[(axis + 1) % self.grid.dim if self.truncated else axis] = -1
        return values.reshape(shape)

    @functools.cached_property
    def inverse_laplacian(self) -> Tensor:
        """Symbol of the inverse Laplacian on mean-free fields: -1/|k|², and 0 for the mean."""
        return torch.where(self.k2 > 0, -1.0 / self.k2.clamp_min(torch.finfo(self.k2.dtype).tiny), 0.0)

    @functools.cached_property
    def kept(self) -> Tensor:
        """The 2/3 rule: 1 where abs(n_j) < N_j / 3 on every axis, 0 elsewhere.

        Quadratic products of kept modes alias only onto modes that are removed.
        """
        keep = torch.ones((), dtype=self.k2.dtype, device=self.k2.device)
        for n, size in zip(self.integers, self.grid.shape, strict=True):
            keep = keep * (n.abs() * 3 < size)
        return keep

    @functools.cached_property
    def top(self) -> Tensor:
        """Largest wavenumber over the axes, of every kept mode; 0 of the others, which take no part."""
        top = functools.reduce(torch.maximum, torch.broadcast_tensors(*(k.abs() for k in self.k)))
        return top * self.kept

    @functools.cached_property
    def highest(self) -> tuple[float, ...]:
        """Largest kept wavenumber per axis [1/length], for the CFL condition."""
        return tuple(
            (-(-size // 3) - 1) * 2 * math.pi / length
            for size, length in zip(self.grid.shape, self.grid.lengths, strict=True)
        )

    def forward(self, values: Float[Tensor, "*batch_and_space"]) -> Complex[Tensor, "*batch_and_modes"]:
        if not self.truncated:
            return torch.fft.rfftn(values, dim=self.axes)
        spectrum = torch.fft.rfft(values, dim=-1)[..., : self.k[-1].numel()].movedim(-1, self.axes[0])
        if len(self.axes) > 1:
            spectrum = torch.fft.fftn(spectrum, dim=self.axes[1:]).contiguous()
        return spectrum

    def inverse(self, spectrum: Complex[Tensor, "*batch_and_modes"]) -> Float[Tensor, "*batch_and_space"]:
        if not self.truncated:
            return torch.fft.irfftn(spectrum, s=self.grid.shape, dim=self.axes)
        if len(self.axes) > 1:
            spectrum = torch.fft.ifftn(spectrum, dim=self.axes[1:])
        return torch.fft.irfft(spectrum.movedim(self.axes[0], -1), n=self.grid.shape[-1], dim=-1)


@functools.lru_cache(maxsize=32)
def _cached_modes(grid: Grid, dtype: torch.dtype, device: torch.device, truncated: bool) -> Modes:
    return Modes(grid, dtype, device, truncated=truncated)


def modes_of(grid: Grid, like: Tensor, *, truncated: bool = False) -> Modes:
    """The modes of this grid in the dtype and on the device of a tensor (complex tensors give their real dtype)."""
    return _cached_modes(grid, like.real.dtype if like.is_complex() else like.dtype, like.device, truncated)


def _integers(size: int, *, half: bool) -> Tensor:
    frequencies = torch.fft.rfftfreq if half else torch.fft.fftfreq
    return (frequencies(size, dtype=torch.float64) * size).round()


def fourier_resample(values: Float[Tensor, "*batch_and_space"], shape: Sequence[int]) -> Tensor:
    """Band-limited interpolation of periodic fields to another number of nodes over the last ``len(shape)`` axes.

    Modes that both grids resolve are kept, the others dropped or zero. The Nyquist mode of an even axis is split
    evenly between +n and -n when refining and folded when coarsening, so that real fields stay real, refining and
    coarsening back is the identity, and each axis commutes with the others.
    """
    for axis, size in enumerate(shape, start=-len(shape)):
        if values.shape[axis] != size:
            values = _resample_axis(values, axis, size)
    return values


def _resample_axis(values: Tensor, axis: int, size: int) -> Tensor:
    old = values.shape[axis]
    spectrum = torch.fft.rfft(values, dim=axis).movedim(axis, -1)
    common = min(old, size)
    kept = spectrum[..., : common // 2 + 1].clone()
    if common % 2 == 0 and old != size:
        # a cosine of amplitude a at Nyquist has coefficient N a on the grid where it is Nyquist, N a / 2 on a finer one
        kept[..., -1] *= 0.5 if size > old else 2.0
        if size < old:
            kept[..., -1] = kept[..., -1].real.to(kept.dtype)
    result = torch.fft.irfft(kept, n=size, dim=-1) * (size / old)
    return result.movedim(-1, axis)
