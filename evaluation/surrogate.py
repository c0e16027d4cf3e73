"""A finished run as a function: ``surrogate = resolvent.load("runs/…")``, ``u = surrogate(a)``.

xarray, NumPy or torch goes in, the same comes out, with coordinates and units where they are known. A torch input that
requires gradients gets them, so a surrogate can stand inside an optimiser.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from ..data.fields import from_xarray, load_fields, save_fields, to_xarray
from ..data.observations import Observations
from ..operators._discrepancy import Discrepancy
from ..operators._inference import Inversion, invert
from ..operators._posterior import Posterior
from ..pde import Grid, Signature, Solver
from . import registry
from ._inverting import latent_of, load_discrepancy
from ._request import instances_of
from ._saved import load_model
from .pipeline import device_named

if TYPE_CHECKING:
    import xarray

    Fields = TypeVar("Fields", Tensor, np.ndarray, xarray.Dataset, xarray.DataArray)


class Surrogate:
    """A fitted solver with its problem's signature and the grid it was trained on.

    dtype         in which fields of files and of xarray are read
    discrepancy   the model's own error, which inversions count with the noise; None: it is taken at its word
    """

    def __init__(
        self,
        solver: Solver,
        signature: Signature,
        grid: Grid,
        device: torch.device,
        dtype: torch.dtype = torch.float32,
        discrepancy: Discrepancy | None = None,
    ) -> None:
        self.solver, self.signature, self.grid, self.device, self.dtype = solver, signature, grid, device, dtype
        self.discrepancy = discrepancy

    def __call__(self, inputs: Any, times: Sequence[float] | None = None) -> Any:
        """Solve for one or many inputs.

        torch, NumPy   ``[batch] channel *space``; the result has a batch axis if the input has, and a time axis
                       after it for an evolution
        xarray         a Dataset with the input channels as variables, or the DataArray of the only one, with
                       dimensions ``[sample,] x[, y[, z]]``; the result is a Dataset of the output channels
        times          of the frames of an evolution; default: those it was judged on
        """
        if isinstance(inputs, Tensor):
            return self._torch(inputs, times)
        if isinstance(inputs, np.ndarray):
            with torch.no_grad():
                return self._torch(torch.from_numpy(inputs), times).numpy()
        if hasattr(inputs, "dims") and hasattr(inputs, "coords"):
            return self._xarray(inputs, times)
        raise ValueError(f"A surrogate takes xarray, NumPy or torch fields, got {type(inputs).__name__}.")

    def _torch(self, inputs: Tensor, times: Sequence[float] | None) -> Tensor:
        single = inputs.ndim == 1 + self.grid.dim
        batch = inputs[None] if single else inputs
        channels = len(self.signature.inputs)
        if batch.ndim != 2 + self.grid.dim or batch.shape[1] != channels:
            names = ", ".join(channel.name for channel in self.signature.inputs)
            raise ValueError(
                f"Expected fields of shape [batch,] channel, *space with {channels} channel(s) ({names}) on "
                f"{self.grid.dim} axes, such as {(channels, *self.grid.shape)}; got {tuple(inputs.shape)}."
            )
        grid = self.grid if tuple(batch.shape[2:]) == self.grid.shape else self.grid.at(batch.shape[2:])
        values = batch if batch.is_floating_point() else batch.to(torch.float32)
        outputs = self.solver(values.to(self.device), grid, times).to(inputs.device)
        return outputs[0] if single else outputs

    def _xarray(self, inputs: Any, times: Sequence[float] | None) -> Any:
        import xarray

        if isinstance(inputs, xarray.DataArray):
            if len(self.signature.inputs) != 1:
                names = [channel.name for channel in self.signature.inputs]
                raise ValueError(f"This surrogate takes the fields {names}; give a Dataset with these variables.")
            inputs = inputs.to_dataset(name=self.signature.inputs[0].name)
        values, grid = from_xarray(inputs, self.signature.inputs, self.grid, dtype=self.dtype)
        outputs = self._answer(values, grid, times)
        return to_xarray(
            outputs, self.signature.outputs, grid, times=self._times(times), time_unit=self.signature.time_unit
        )

    def _answer(self, values: Tensor, grid: Grid, times: Sequence[float] | None) -> Tensor:
        with torch.no_grad():
            return self.solver(values.to(self.device), grid, times).cpu()

    def invert(
        self,
        observations: Observations | Path | str,
        *,
        how: Inversion = Inversion(),  # noqa: B008 - frozen
        resolution: int | Sequence[int] | None = None,
    ) -> Posterior:
        """What may lie behind observations (or a file of them), as samples of inputs and solution.

        resolution   of the grid on which the posterior is wanted; default: the training grid's

        Raises ``ValueError`` for models without a latent, and for observations that this problem cannot have.
        """
        known = observations if isinstance(observations, Observations) else Observations.load(observations)
        grid = self.grid if resolution is None else self.grid.at(resolution)
        model = latent_of(self.solver)
        return invert(model, known, self.signature, grid, how=how, discrepancy=self.discrepancy)

    def _times(self, times: Sequence[float] | None) -> Sequence[float] | None:
        """Of the frames of an answer; None for a static map."""
        return (times or self.signature.times) if self.signature.evolves else None

    def apply(self, source: Path, target: Path) -> None:
        """Read input fields from netCDF, write the answer to netCDF, coordinates and units included."""
        signature = self.signature
        values, grid = load_fields(source, signature.inputs, self.grid, dtype=self.dtype)
        outputs = self._answer(values, grid, None)
        save_fields(target, outputs, signature.outputs, grid, times=self._times(None), time_unit=signature.time_unit)


def load(folder: str | Path, device: str = "cpu") -> Surrogate:
    """The surrogate of a finished run. Raises ``DamagedModel`` if its files are not exactly what was saved."""
    target = device_named(device)
    blueprint, solver = load_model(Path(folder), target)
    alone = instances_of(registry.find_model(blueprint.model)) > 0  # exact beyond single precision, so asked in double
    dtype = torch.float64 if alone else torch.float32
    signature, grid = Signature.from_dict(blueprint.signature), Grid.from_dict(blueprint.grid)
    return Surrogate(solver, signature, grid, target, dtype, load_discrepancy(Path(folder), signature, grid))
