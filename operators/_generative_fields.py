"""What a generative model decodes, in physical units: inputs, outputs with their walls, derivatives and fluxes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from ..pde import Signature
from ..pde._weak_form import Places, WithWeakForm, in_the_clear, listed
from ..training._physics import Answer, Physics
from ._declared import Carrier
from ._generative import Envelope, Generative, Medium, enveloped, opened, picked

AT_ONCE = 16384  # points at which trunks are evaluated at a time

Found = Callable[[Tensor], Mapping[str, Tensor]]  # points -> outputs there, by name


class DecodedFields:
    """Functions of a bounded code, ``batch code``, at points ``point dim`` of space, or of space and time.

    sized     buffers of sizes: ``outputs_size`` of what is decoded, ``centre_size`` and ``spread_size`` of inputs
    physics   the objective without labels: its grid, and the units of fluxes
    envelope  factors that build boundary conditions in, by name of the output, where decoders do not do so themselves
    carriers  what the decoded input brings into a potential by itself, by name
    flux      ``none`` (primal form), ``one`` for all phases, or one for each of ``phases``
    """

    def __init__(
        self,
        problem: WithWeakForm,
        signature: Signature,
        network: Generative,
        sized: nn.Module,
        physics: Physics,
        *,
        flux: str,
        envelope: Envelope,
        carriers: Mapping[str, Carrier],
    ) -> None:
        self.problem, self.signature, self.medium = problem, signature, Medium(problem.phases)
        self.network, self.sized, self.physics = network, sized, physics
        self.flux, self.envelope, self.carriers = flux, envelope, carriers

    @property
    def names(self) -> list[str]:
        """Of what is decoded: the outputs, or the potentials that they derive from."""
        return list(self.problem.potentials) or [channel.name for channel in self.signature.outputs]

    # ------------------------------------------------------------------ outputs

    def shown(
        self, bounded: Float[Tensor, "batch code"], points: Float[Tensor, "point dim"]
    ) -> dict[str, Float[Tensor, "batch point"]]:
        """Outputs at any number of points; inside an obstacle there is nothing."""
        parts = [self.outputs(bounded, part) for part in points.split(AT_ONCE)]
        clear = self.clear(points)
        if not bool(clear.all()):
            parts = [
                {name: value * free for name, value in part.items()}
                for part, free in zip(parts, clear.to(points).split(AT_ONCE), strict=True)
            ]
        return {name: torch.cat([part[name] for part in parts], dim=1) for name in parts[0]}

    def clear(self, points: Float[Tensor, "point dim"]) -> Bool[Tensor, " point"]:
        return in_the_clear(self.problem, points)

    def outputs(
        self, bounded: Float[Tensor, "batch code"], points: Float[Tensor, "point dim"]
    ) -> dict[str, Float[Tensor, "batch point"]]:
        if self.problem.potentials:
            return dict(self._from_potentials(bounded, points)[0])
        values = self.network.outputs(bounded, points)
        return enveloped(self.names, self._sizes, self.envelope, points, values)[0]

    def stacked(self, outputs: Mapping[str, Tensor]) -> Float[Tensor, "batch channel point"]:
        return torch.stack([outputs[channel.name] for channel in self.signature.outputs], dim=1)

    def at_nodes(
        self, found: Found, points: Float[Tensor, "point dim"], times: Sequence[float]
    ) -> Float[Tensor, "batch *frame channel point"]:
        """What is found at these points of space, of an evolution at each of these times."""
        if not self.signature.evolves:
            return self.stacked(found(points))
        moments = [torch.cat([points, torch.full_like(points[:, :1], time)], dim=1) for time in times]
        return torch.stack([self.stacked(found(moment)) for moment in moments], dim=1)

    # ------------------------------------------------------------------ inputs

    def logits(
        self, bounded: Float[Tensor, "batch code"], points: Float[Tensor, "point dim"]
    ) -> Float[Tensor, "batch function point"]:
        return torch.cat([self.network.inputs(bounded, part) for part in points.split(AT_ONCE)], dim=2)

    def inputs(
        self, bounded: Float[Tensor, "batch code"], points: Float[Tensor, "point dim"]
    ) -> Float[Tensor, "batch channel point"]:
        """Their means given the code."""
        if self.signature.evolves:  # the state at time 0
            points = nn.functional.pad(points[:, : self.physics.grid.dim], (0, 1))
            return self.stacked(self.outputs(bounded, points))
        raw = self.logits(bounded, points)
        if self.medium.phases:
            return self.medium.mean(raw)[:, None]
        return raw * self.sized.spread_size[:, None] + self.sized.centre_size[:, None]  # type: ignore[index]

    # ------------------------------------------------------------------ what the equation is asked of

    def answer(self, bounded: Float[Tensor, "batch code"], inputs: Tensor, places: Places) -> Answer:
        """Outputs and gradients, and fluxes of their own."""
        points = listed(places)
        if self.problem.potentials:
            outputs, gradients = self._from_potentials(bounded, points)
        else:
            values, slopes = self.network.outputs.with_gradients(bounded, places)
            outputs, gradients = enveloped(self.names, self._sizes, self.envelope, points, values, slopes)
        return Answer(outputs, gradients, self._fluxes(bounded, inputs, points))

    def _from_potentials(self, bounded: Tensor, points: Tensor) -> tuple[Mapping[str, Tensor], Mapping[str, Tensor]]:
        raw = self.network.outputs.with_curvatures(bounded, points)
        sizes = dict(zip(self.names, self._sizes, strict=True))
        sized = [{name: size * part[:, i] for i, (name, size) in enumerate(sizes.items())} for part in raw]
        for name, carrier in self.carriers.items():
            given = self.inputs(bounded, carrier.sensors.to(points))[:, 0]
            brought = opened(carrier.bends(given, points), points.shape[1])
            for part, more in zip(sized, brought, strict=True):
                part[name] = part[name] + more
        return self.problem.from_potentials(*sized)

    def _fluxes(self, bounded: Tensor, inputs: Tensor, points: Tensor) -> dict[str, Tensor]:
        """Of every balance, in units of its scale times a length."""
        if self.flux == "none":
            return {}
        raw = self.network.fluxes(bounded, points)
        index = None
        if self.flux == "phases":
            index = self.medium.indices(self.physics.between(points)(inputs[:, 0]))
        scales = self.physics.scales(inputs)
        parts = raw.unflatten(1, (len(scales), -1)).unbind(dim=1)
        return {
            name: picked(part, index, self.physics.grid.dim) * (scale[:, None, None] * self.physics.length)
            for part, (name, scale) in zip(parts, scales.items(), strict=True)
        }

    @property
    def _sizes(self) -> Float[Tensor, " function"]:
        return self.sized.outputs_size  # type: ignore[return-value]
