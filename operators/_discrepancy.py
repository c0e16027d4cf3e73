r"""How far a generative model's answers are from the reference's: the error that noise does not explain.

.. math:: u(x) = u(x; z) + e(x),\qquad e \sim N(\bar e, E E^T),\qquad e_i = u_i - u(\cdot\,; z(a_i))

e_i   of held-out samples (a_i, u_i) with z(a_i) the model's own code of a_i: what its decoder gets wrong and what its
      latent cannot hold, together (the approximation error of Kaipio & Somersalo 2007)
E     the centred e_i over sqrt(count - 1), kept as they are: rank at most count - 1

Left out, a posterior trusts the decoder as if it were the equation, and its intervals are too narrow.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from ..data import Dataset
from ..data._netcdf import stored_variables
from ..data._points import corners, nodes
from ..pde import Grid, Signature
from ._latent import WithLatent

AT_ONCE = 32  # samples whose residuals are measured together
LEAST = 8  # samples from which a spread is estimated


@dataclass(frozen=True, eq=False)
class Discrepancy:
    """The mean error of every output, and its spread as columns; by the output's name, ``[time] *space``.

    residual   mean of what the equation leaves at the codes of these samples, where the model knows it
    """

    mean: Mapping[str, Float[Tensor, "*space"]]
    spread: Mapping[str, Float[Tensor, "column *space"]]
    grid: Grid
    signature: Signature
    residual: float | None = None

    @property
    def columns(self) -> int:
        return len(next(iter(self.spread.values())))

    def at(self, name: str, places: Float[Tensor, "point dim"]) -> tuple[Tensor, Tensor]:
        """Mean ``point`` and columns ``point column`` of an output at places (with the time last, of an evolution)."""
        both = torch.cat([self.mean[name][None], self.spread[name]])
        seen = _at_places(both, places, self.grid, self.signature)
        return seen[0], seen[1:].T

    def state(self) -> dict[str, Tensor]:
        """As named tensors, for a file."""
        parts = (("mean", self.mean), ("spread", self.spread))
        told = {f"{kind}.{name}": values for kind, part in parts for name, values in part.items()}
        return told if self.residual is None else told | {"residual": torch.tensor(self.residual, dtype=torch.float64)}

    @classmethod
    def from_state(cls, state: Mapping[str, Tensor], grid: Grid, signature: Signature) -> Discrepancy:
        parts: dict[str, dict[str, Tensor]] = {"mean": {}, "spread": {}}
        residual = float(state["residual"]) if "residual" in state else None
        for key, value in state.items():
            kind, _, name = key.partition(".")
            if name:
                parts[kind][name] = value.double()
        return cls(parts["mean"], parts["spread"], grid, signature, residual)


def measured(model: WithLatent, data: Dataset, *, most: int = 200) -> Discrepancy | None:
    """From held-out samples (at most ``most``); None where they are too few to say anything."""
    count = min(len(data), most)
    if count < LEAST:
        return None
    grid, signature = data.grid, data.signature
    inputs, outputs = data.read(range(count))
    names = [one.name for one in stored_variables(signature, grid) if one.role in ("output", "state")]
    with torch.no_grad():
        latents = model.encode(inputs, grid)
        made = model.fields(latents, nodes(signature, grid).to(latents))
        left = [model.residual(part) for part in latents.split(AT_ONCE)]
    asked = [part for part in left if part is not None]
    frames = torch.cat([inputs[:, None, : len(names)], outputs], dim=1) if signature.evolves else outputs[:, None]
    mean, spread = {}, {}
    for i, channel in enumerate(signature.outputs):
        known = frames[:, :, i].double()
        error = known - made[channel.name].double().cpu().reshape(known.shape)
        error = error if signature.evolves else error[:, 0]
        mean[names[i]] = error.mean(dim=0)
        spread[names[i]] = (error - mean[names[i]]) / math.sqrt(count - 1)
    residual = float(torch.cat(asked).mean()) if asked else None
    return Discrepancy(mean, spread, grid, signature, residual)


def _at_places(values: Tensor, places: Tensor, grid: Grid, signature: Signature) -> Tensor:
    """Multilinear, in time too: ``… [time] *space`` -> ``… point``."""
    index, weight = corners(grid, places[:, : grid.dim])
    flat = values.flatten(-grid.dim)
    if not signature.evolves:
        return (flat[..., index] * weight).sum(dim=-1)
    place = (places[:, grid.dim].double() / signature.spacing).clamp(0, signature.frames)
    low = place.floor().long().clamp(max=signature.frames - 1)
    early, late = ((flat[..., frame[:, None], index] * weight).sum(dim=-1) for frame in (low, low + 1))
    return torch.lerp(early, late, place - low)


@dataclass(frozen=True, eq=False)
class Seen:
    """The discrepancy as sensors feel it, in the basis where its covariance is diagonal.

    basis      ``point point``, orthogonal: E_s E_s^T = basis diag(variance) basis^T
    variance   ``point``
    """

    mean: Float[Tensor, " point"]
    columns: Float[Tensor, "point column"]
    basis: Float[Tensor, "point point"]
    variance: Float[Tensor, " point"]

    @classmethod
    def of(
        cls, discrepancy: Discrepancy | None, name: str, places: Float[Tensor, "point dim"], stated: float = 0.0
    ) -> Seen:
        """``stated``: standard deviation that the model itself gives a field whose error was not measured."""
        if discrepancy is None or name not in discrepancy.mean:
            zero = torch.zeros(len(places), dtype=torch.float64)
            none, basis = zero[:, None][:, :0], torch.eye(len(places), dtype=torch.float64)
            return cls(zero, none, basis, torch.full_like(zero, stated**2))
        mean, columns = discrepancy.at(name, places)
        variance, basis = torch.linalg.eigh(columns @ columns.T)
        return cls(mean, columns, basis, variance.clamp(min=0.0))

    def rotated(self, misfit: Float[Tensor, "*batch point"]) -> Float[Tensor, "*batch point"]:
        """Observed minus modelled, its mean error taken off, in the basis."""
        return (misfit - self.mean) @ self.basis

    def errors(
        self,
        misfit: Float[Tensor, "sample point"],
        noise: Float[Tensor, " sample"],
        spread: Float[Tensor, "node column"],
        *,
        generator: Generator,
    ) -> Float[Tensor, "sample node"]:
        """Draws of e - mean at nodes given the misfit at the sensors: a prior draw, corrected by what it misses there
        (Matheron's rule).
        """
        count, columns = len(misfit), self.columns.shape[1]
        drawn = torch.randn(count, columns, generator=generator, dtype=torch.float64)
        errors = noise[:, None] * torch.randn(misfit.shape, generator=generator, dtype=torch.float64)
        left = misfit - self.mean - drawn @ self.columns.T - errors
        gain = (left @ self.basis / (self.variance + noise[:, None].square())) @ self.basis.T
        return (drawn + gain @ self.columns) @ spread.T
