r"""What training minimises. Every objective maps fields ``batch channel *space`` to one value per sample.

Relative norms, :math:`\|\hat u - u\| / \|u\|` per sample, norms over all channels and nodes, averaged over the batch
by the loop (never summed: the step size would change with the batch).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from ..pde import Grid
from ._recipe import Objective

Loss = Callable[[Tensor, Tensor, Grid], Tensor]
# A field that vanishes identically has no relative error; this keeps its loss finite and its gradient zero-ish.
TINY = 1e-12


def objective_named(name: Objective) -> Loss:
    return {
        "relative_l2": relative_l2,
        "relative_h1": relative_h1,
        "relative_h1_difference": relative_h1_difference,
        "mean_square": mean_square,
    }[name]


def relative_l2(
    prediction: Float[Tensor, "batch channel *space"], truth: Float[Tensor, "batch channel *space"], grid: Grid
) -> Float[Tensor, " batch"]:
    return _norm(prediction - truth) / _norm(truth)


def relative_h1(
    prediction: Float[Tensor, "batch channel *space"], truth: Float[Tensor, "batch channel *space"], grid: Grid
) -> Float[Tensor, " batch"]:
    r"""Fourier flavour (FNO, MgNO): weight :math:`\sqrt{1 + |n|^2}`, n the integer index, on the FFT of the fields.

    It takes fields as periodic, so use it where they are, or where they vanish on the boundary.
    """
    return _fourier_h1(prediction - truth, grid.dim) / _fourier_h1(truth, grid.dim)


def relative_h1_difference(
    prediction: Float[Tensor, "batch channel *space"], truth: Float[Tensor, "batch channel *space"], grid: Grid
) -> Float[Tensor, " batch"]:
    r"""Finite-difference flavour: :math:`\|u\|^2 + \|\nabla u\|^2` with central differences, wrapped on periodic axes
    and one-sided at walls, in physical units.
    """
    return _difference_h1(prediction - truth, grid) / _difference_h1(truth, grid)


def mean_square(
    prediction: Float[Tensor, "batch channel *space"], truth: Float[Tensor, "batch channel *space"], grid: Grid
) -> Float[Tensor, " batch"]:
    return (prediction - truth).square().flatten(1).mean(dim=1)


def _norm(values: Tensor) -> Tensor:
    return (values.square().flatten(1).sum(dim=1) + TINY).sqrt()


def _fourier_h1(values: Tensor, dim: int) -> Tensor:
    axes = tuple(range(-dim, 0))
    shape = values.shape[-dim:]
    weight = torch.ones((), device=values.device)
    for i, n in enumerate(shape):
        half = i == dim - 1
        index = torch.fft.rfftfreq(n, 1 / n) if half else torch.fft.fftfreq(n, 1 / n)
        weight = weight[..., None] + index.to(values.device).square()
    # the halved axis stores one of each conjugate pair
    twice = torch.full((shape[-1] // 2 + 1,), 2.0, device=values.device)
    twice[0] = 1.0
    if shape[-1] % 2 == 0:
        twice[-1] = 1.0
    spectrum = torch.fft.rfftn(values, dim=axes, norm="ortho")
    energy = (spectrum.real.square() + spectrum.imag.square()) * weight * twice
    return (energy.flatten(1).sum(dim=1) + TINY).sqrt()


def _difference_h1(values: Tensor, grid: Grid) -> Tensor:
    total = values.square()
    for i, axis in enumerate(grid.axes, start=-grid.dim):
        total = total + _difference(values, i, axis.spacing, periodic=axis.periodic).square()
    return (total.flatten(1).sum(dim=1) + TINY).sqrt()


def _difference(values: Tensor, axis: int, spacing: float, *, periodic: bool) -> Tensor:
    if periodic:
        return (values.roll(-1, axis) - values.roll(1, axis)) / (2 * spacing)
    return torch.gradient(values, spacing=spacing, dim=axis)[0]
