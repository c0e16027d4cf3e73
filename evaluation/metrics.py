r"""How far a prediction p is from the truth u, one number a sample: every public function here that takes
``(prediction, truth, grid)`` is a metric, and is offered by name on the command line.

With e = p - u, sums over all nodes, channels and frames of one sample (pooled, "Frobenius"), h the quadrature weights:

relative_l2   :math:`\|e\| / \|u\|`, plain sums over nodes (Li et al. 2021), channels pooled, not averaged
relative_h1   :math:`\sqrt{(\|e\|_h^2 + \|\nabla e\|_h^2) / (\|u\|_h^2 + \|\nabla u\|_h^2)}`, integrals over the domain,
              derivatives in the grid's units: spectral on periodic axes, second-order differences elsewhere
rmse          :math:`\sqrt{\mathrm{mean}\, e^2}`, in the channel's unit
maximum       :math:`\max |e|`, in the channel's unit

All are computed in double precision and are 0 for a prediction against itself. A prediction that is not finite
scores ``inf``; a truth that is not finite scores ``nan``; a relative error against a zero truth is 0 for the zero
prediction and ``inf`` for every other.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from inspect import isfunction, signature

import torch
from jaxtyping import Float
from torch import Tensor

from ..pde import Grid
from ._common import doubles, scored

Metric = Callable[[Tensor, Tensor, Grid], Tensor]


def relative_l2(
    prediction: Float[Tensor, "batch *rest"], truth: Float[Tensor, "batch *rest"], grid: Grid
) -> Float[Tensor, " batch"]:
    """Root of the summed squares of the error over that of the truth, everything but the batch pooled."""
    prediction, truth = doubles(prediction, truth, grid)
    return scored(_ratio(_energy(prediction - truth), _energy(truth)).sqrt(), prediction, truth)


def relative_h1(
    prediction: Float[Tensor, "batch *rest"], truth: Float[Tensor, "batch *rest"], grid: Grid
) -> Float[Tensor, " batch"]:
    """As relative_l2, with the integral of the squared gradient added above and below."""
    prediction, truth = doubles(prediction, truth, grid)
    return scored(_ratio(_sobolev(prediction - truth, grid), _sobolev(truth, grid)).sqrt(), prediction, truth)


def rmse(
    prediction: Float[Tensor, "batch *rest"], truth: Float[Tensor, "batch *rest"], grid: Grid
) -> Float[Tensor, " batch"]:
    """Root of the mean squared error over nodes, channels and frames."""
    prediction, truth = doubles(prediction, truth, grid)
    return scored((prediction - truth).square().flatten(1).mean(dim=1).sqrt(), prediction, truth)


def maximum(
    prediction: Float[Tensor, "batch *rest"], truth: Float[Tensor, "batch *rest"], grid: Grid
) -> Float[Tensor, " batch"]:
    """Largest absolute error over nodes, channels and frames."""
    prediction, truth = doubles(prediction, truth, grid)
    return scored((prediction - truth).abs().flatten(1).amax(dim=1), prediction, truth)


def metric_table() -> dict[str, Metric]:
    """All metrics by name, in the order in which this file defines them."""
    here = vars(sys.modules[__name__])
    return {
        name: function
        for name, function in here.items()
        if not name.startswith("_")
        and isfunction(function)
        and function.__module__ == __name__
        and tuple(signature(function).parameters) == ("prediction", "truth", "grid")
    }


def _energy(values: Tensor) -> Tensor:
    return values.square().flatten(1).sum(dim=1)


def _ratio(error: Tensor, truth: Tensor) -> Tensor:
    """Error / truth with 0 / 0 = 0: a zero field predicted as zero is predicted exactly."""
    return torch.where(error == 0, 0.0, error / truth)


def _sobolev(values: Tensor, grid: Grid) -> Tensor:
    weights = grid.weights(dtype=values.dtype, device=values.device)
    total = _energy(values * weights.sqrt())
    for axis in range(grid.dim):
        total = total + _energy(_derivative(values, grid, axis) * weights.sqrt())
    return total


def _derivative(values: Tensor, grid: Grid, axis: int) -> Tensor:
    place = axis - grid.dim
    if not grid.axes[axis].periodic:
        # one-sided second order at the ends needs three nodes
        order = 2 if values.shape[place] > 2 else 1
        return torch.gradient(values, spacing=grid.spacing[axis], dim=place, edge_order=order)[0]
    size = values.shape[place]
    spectrum = torch.fft.rfft(values, dim=place).movedim(place, -1)
    symbol = 2j * torch.pi / grid.lengths[axis] * torch.arange(size // 2 + 1, dtype=torch.float64, device=values.device)
    if size % 2 == 0:
        symbol[-1] = 0  # at Nyquist sin(k x) vanishes at every node; not every FFT drops what is left there
    return torch.fft.irfft(spectrum * symbol, n=size, dim=-1).movedim(-1, place)
