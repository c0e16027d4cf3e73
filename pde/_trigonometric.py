r"""Poisson's equation with constant coefficients by fast sine, cosine and Fourier transforms, in O(N log N).

Each axis brings the transform that diagonalises its Laplacian, so boundary kinds mix freely:

===========================  ============  ==============================================
boundary, placement          transform     wavenumbers
===========================  ============  ==============================================
periodic, ``left``           DFT           2 pi n / L
dirichlet (zero), ``ends``   DST-I         pi n / L, n = 1 … N-2
neumann (zero), ``centres``  DCT-II        pi n / L, n = 0 … N-1
===========================  ============  ==============================================

The symbol of -d²/dx² is ``spectral`` (k²: exact for band-limited data) or ``second_order``
((2/h sin(k h/2))²: the three-point difference, whose eigenvectors these are on these nodes).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, Literal, get_args

import numpy as np
import torch
from jaxtyping import Float
from scipy import fft
from torch import Tensor

from ._grid import Axis, Grid

Symbol = Literal["spectral", "second_order"]
Series = Literal["fourier", "sine", "cosine"]


@torch.no_grad()
def fast_poisson(
    source: Float[Tensor, "*batch_and_space"], grid: Grid, *, symbol: Symbol = "spectral", shift: float = 0.0
) -> Float[Tensor, "*batch_and_space"]:
    r"""Solve :math:`-\Delta u - s u = f` (s: shift) over the last ``grid.dim`` axes, float64; zero at Dirichlet nodes.

    Without a Dirichlet axis there is a solution only for sources of zero mean, and it is free up to a constant: the
    mean of the source is removed and the solution of zero mean is returned. A mode whose eigenvalue is the shift itself
    resonates: its part of the source is removed likewise. Raises ``ValueError`` for a boundary
    kind, a placement or a shape that this method does not serve.
    """
    if symbol not in get_args(Symbol):
        raise ValueError(f"symbol is 'spectral' or 'second_order', got {symbol!r}.")
    if tuple(source.shape[source.ndim - grid.dim :]) != grid.shape:
        raise ValueError(f"Expected a source whose last axes are {grid.shape}, got shape {tuple(source.shape)}.")
    kinds = [_series(axis) for axis in grid.axes]
    values = source.detach().to("cpu", torch.float64).numpy()
    values = values[(..., *(slice(1, -1) if kind == "sine" else slice(None) for kind in kinds))]
    for j, kind in enumerate(kinds, start=-grid.dim):
        values = _FORWARD[kind](values, axis=j)
    values = values * _inverse_symbol(grid, symbol, shift)
    for j, kind in enumerate(kinds, start=-grid.dim):
        values = _BACKWARD[kind](values, axis=j)
    solution = torch.from_numpy(np.ascontiguousarray(values.real))
    padding = [width for kind in reversed(kinds) for width in ((1, 1) if kind == "sine" else (0, 0))]
    return torch.nn.functional.pad(solution, padding).to(source)


_FORWARD: dict[Series, Callable[..., np.ndarray]] = {
    "fourier": fft.fft,
    "sine": functools.partial(fft.dst, type=1),
    "cosine": functools.partial(fft.dct, type=2),
}
_BACKWARD: dict[Series, Callable[..., np.ndarray]] = {
    "fourier": fft.ifft,
    "sine": functools.partial(fft.idst, type=1),
    "cosine": functools.partial(fft.idct, type=2),
}


def _series(axis: Axis) -> Series:
    if axis.periodic:
        return "fourier"
    if axis.boundary == ("dirichlet", "dirichlet") and axis.placement == "ends" and axis.size > 2:
        return "sine"
    if axis.boundary == ("neumann", "neumann") and axis.placement == "centres":
        return "cosine"
    raise ValueError(
        f"Axis {axis.name!r} ({axis.size} nodes placed {axis.placement!r}, boundary {axis.boundary}) has no fast "
        "transform: periodic nodes go with 'left', dirichlet with 'ends' (3 or more nodes), neumann with 'centres'."
    )


@functools.lru_cache(maxsize=32)
def _inverse_symbol(grid: Grid, symbol: Symbol, shift: float) -> np.ndarray:
    total = np.zeros(())
    for axis in grid.axes:
        k = wavenumbers(axis).numpy()
        squares = k**2 if symbol == "spectral" else (2 / axis.spacing * np.sin(k * axis.spacing / 2)) ** 2
        total = total[..., None] + squares
    total = total - shift
    return np.divide(1.0, total, out=np.zeros_like(total), where=total != 0)


def wavenumbers(axis: Axis) -> Float[Tensor, " modes"]:
    """Angular wavenumbers [1/unit] of the series that belongs to the axis."""
    kind = _series(axis)
    if kind == "fourier":
        return 2 * math.pi / axis.length * torch.from_numpy(fft.fftfreq(axis.size, 1 / axis.size))
    numbers = torch.arange(1, axis.size - 1) if kind == "sine" else torch.arange(axis.size)
    return numbers.to(torch.float64) * (math.pi / axis.length)


@functools.lru_cache(maxsize=32)
def sine_second_derivative(axis: Axis) -> Float[Tensor, "interior interior"]:
    """-d²/dx² of the sine interpolant, as a matrix on the interior nodes: differentiable where a transform is not."""
    k = wavenumbers(axis)
    basis = torch.sin(k[:, None] * (axis.coordinates()[1:-1] - axis.lower))
    return (basis.T * k.square()) @ basis * (2 / (axis.size - 1))


def sine_resample(values: Float[Tensor, "*batch_and_space"], shape: Sequence[int]) -> Tensor:
    """The sine series through the interior ``ends`` nodes, on a grid of another shape: cut off or continued by zeros.

    Zero at the end nodes. Exact wherever both grids resolve the series; float64.
    """
    nodes = values.to(torch.float64).numpy()
    within: tuple[Any, ...] = (..., *(slice(1, -1),) * len(shape))
    inner = nodes[within]
    for j, size in enumerate(shape, start=-len(shape)):
        old = inner.shape[j] + 2
        spectrum = _fit(fft.dst(inner, type=1, axis=j), j, size - 2)
        inner = fft.idst(spectrum, type=1, axis=j) * ((size - 1) / (old - 1))
    return torch.nn.functional.pad(torch.from_numpy(inner), (1, 1) * len(shape))


def cosine_refine(values: Float[Tensor, "*batch_and_space"], shape: Sequence[int]) -> Tensor:
    """The cosine series through ``ends`` nodes, evaluated on a grid of ``ends`` nodes at least as fine; float64."""
    fields = values.to(torch.float64).numpy()
    for j, size in enumerate(shape, start=-len(shape)):
        old = fields.shape[j]
        if size < old:
            raise ValueError(f"cosine_refine goes from coarse to fine; got {old} nodes and target {size}.")
        spectrum = fft.dct(fields, type=1, axis=j)
        if size > old:  # the highest mode of a DCT-I carries double weight, and is not the highest any more
            np.moveaxis(spectrum, j, 0)[-1] *= 0.5
        fields = fft.idct(_fit(spectrum, j, size), type=1, axis=j) * ((size - 1) / (old - 1))
    return torch.from_numpy(fields)


def _fit(spectrum: np.ndarray, axis: int, size: int) -> np.ndarray:
    """The first ``size`` coefficients along an axis, zeros where there were fewer."""
    moved = np.moveaxis(spectrum, axis, -1)
    kept = moved[..., :size]
    padded = np.zeros((*moved.shape[:-1], size))
    padded[..., : kept.shape[-1]] = kept
    return np.moveaxis(padded, -1, axis)
