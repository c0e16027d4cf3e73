"""From states of a latent model to fields on a grid, with the errors that the model states of itself."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from ..data._points import nodes
from ..data.observations import Observations
from ..pde import Grid, Signature
from ._discrepancy import Discrepancy
from ._latent import PHASES
from ._log_posterior import CHUNK, LogPosterior
from ._posterior import Diagnosis, Posterior


@dataclass(frozen=True, eq=False)
class Drawing:
    """From states to fields on the grid."""

    target: LogPosterior
    signature: Signature
    grid: Grid
    discrepancy: Discrepancy | None
    generator: Generator

    def posterior(
        self, observations: Observations, i: int, states: Tensor, told: Diagnosis, seconds: float
    ) -> Posterior:
        target, signature = self.target.only(i), self.signature
        latents = target.latents(states)
        made, drawn = self._fields(latents)
        with torch.no_grad():
            predicted = target.predicted(states[None])[0]
            noise = target.sigma(states[None])[0]
        misfit = observations.values - predicted
        outputs = self._outputs(made, misfit, noise)
        seen = target.seen
        if observations.field in drawn and not signature.evolves:
            predicted = target.drawn(latents, generator=self.generator)
        else:
            predicted = predicted + seen.mean + seen.errors(misfit, noise, seen.columns, generator=self.generator)
        inputs, expected = self._inputs(made, drawn, outputs)
        phases = made[PHASES].mean(dim=0).T.unflatten(1, self.grid.shape) if PHASES in made else None
        return Posterior(
            signature,
            self.grid,
            observations.field,
            target.places,
            observations.values,
            inputs.float(),
            (outputs[:, 1:] if signature.evolves else outputs[:, 0]).float(),
            expected,
            phases,
            latents,
            noise,
            predicted,
            dataclasses.replace(told, seconds=seconds),
        )

    def _fields(self, latents: Tensor) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Of every latent: expected values at all nodes (and frames), and inputs drawn at the nodes."""
        model, dtype = self.target.model, self.target.dtype
        where = nodes(self.signature, self.grid).to(dtype)
        begin = where[: self.grid.size]
        made: dict[str, list[Tensor]] = {}
        drawn: dict[str, list[Tensor]] = {}
        with torch.no_grad():
            for part in latents.to(dtype).split(CHUNK):
                for name, values in model.fields(part, where).items():
                    made.setdefault(name, []).append(values.cpu())
                for name, values in model.draw(part, begin, generator=self.generator).items():
                    drawn.setdefault(name, []).append(values.cpu())
        joined = ({name: torch.cat(parts) for name, parts in one.items()} for one in (made, drawn))
        first, second = joined
        return first, second

    def _outputs(self, made: dict[str, Tensor], misfit: Tensor, noise: Tensor) -> Float[Tensor, "sample *rest"]:
        """``sample frame channel *space``, the model's own error added where it is known."""
        frames = self.signature.frames + 1 if self.signature.evolves else 1
        values = [made[c.name].double() for c in self.signature.outputs]
        if self.discrepancy is not None:
            where = nodes(self.signature, self.grid)
            means, columns = zip(*(self.discrepancy.at(c.name, where) for c in self.signature.outputs), strict=True)
            wide = torch.cat(columns)
            if self.target.seen.columns.shape[1]:
                errors = self.target.seen.errors(misfit, noise, wide, generator=self.generator)
            else:  # an input was observed: nothing is learnt about the error of the outputs
                drawn = torch.randn(len(noise), wide.shape[1], generator=self.generator, dtype=torch.float64)
                errors = drawn @ wide.T
            parts = errors.chunk(len(values), dim=1)
            values = [value + mean + part for value, mean, part in zip(values, means, parts, strict=True)]
        stacked = torch.stack([value.unflatten(1, (frames, *self.grid.shape)) for value in values], dim=2)
        return stacked

    def _inputs(
        self, made: dict[str, Tensor], drawn: dict[str, Tensor], outputs: Tensor
    ) -> tuple[Float[Tensor, "sample channel *space"], Float[Tensor, "channel *space"]]:
        samples, expected = [], []
        for i, channel in enumerate(self.signature.inputs):
            if self.signature.evolves and i < len(self.signature.outputs):  # the state where it begins
                samples.append(outputs[:, 0, i])
                expected.append(outputs[:, 0, i].mean(dim=0))
                continue
            mean = made[channel.name][:, : self.grid.size].double()
            samples.append(drawn.get(channel.name, mean).double().unflatten(1, self.grid.shape))
            expected.append(mean.mean(dim=0).unflatten(0, self.grid.shape))
        return torch.stack(samples, dim=1), torch.stack(expected)
