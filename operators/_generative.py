r"""One code generates the inputs, the solution and its fluxes: MultiONets that are multiplied with shared trunks.

.. math:: z \mid \beta \sim \mathrm{Bernoulli}(\mathrm{sigmoid}\,\ell(x;\beta))\ \text{or}\ a \mid \beta \sim
          N(\mu(x;\beta), \lambda^{-1}),\qquad u = E(x)\, G_u(x;\beta),\qquad \sigma = G_\sigma(x;\beta)

beta   code, tanh of the encoder's answer where it is bounded
l      logits of two phases; of more phases one a phase, and categorical
E      envelope that builds boundary conditions in

With phases, a flux may be decoded once for each phase, and the medium picks: the tangential flux jumps where phases
meet, and a smooth function cannot.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Generator, Tensor, nn

from ..pde._weak_form import Places
from ._branches import Dense
from ._trunk import BLOCK
from ._waves import Decoder
from .linear import principal_components


class Decoders(nn.Module):
    """Functions of the same code. Features of points are computed once, whatever the number of codes."""

    def __init__(self, decoders: Sequence[Decoder]) -> None:
        super().__init__()
        self.each = nn.ModuleList(decoders)

    def __len__(self) -> int:
        return len(self.each)

    def _all(self) -> list[Decoder]:
        return [cast(Decoder, decoder) for decoder in self.each]

    def forward(self, code: Float[Tensor, "batch code"], points: Places) -> Float[Tensor, "batch function point"]:
        return torch.stack([d.values(code, points) for d in self._all()], dim=1)

    def with_gradients(
        self, code: Float[Tensor, "batch code"], points: Places
    ) -> tuple[Float[Tensor, "batch function point"], Float[Tensor, "batch function point dim"]]:
        found = [d.with_slopes(code, points) for d in self._all()]
        return torch.stack([value for value, _ in found], dim=1), torch.stack([slope for _, slope in found], dim=1)

    def with_curvatures(
        self, code: Float[Tensor, "batch code"], points: Float[Tensor, "point dim"]
    ) -> tuple[
        Float[Tensor, "batch function point"],
        Float[Tensor, "batch function point dim"],
        Float[Tensor, "batch function point dim dim"],
    ]:
        """Second derivatives too, for potentials."""
        found = [torch.einsum("bk,pkd->bpd", d.coefficients(code), d.bends(points)) for d in self._all()]
        return opened(torch.stack(found, dim=1), points.shape[1])


def opened(every: Float[Tensor, "*batch all"], dim: int) -> tuple[Tensor, Tensor, Tensor]:
    """Values, gradients and second derivatives out of 1 + dim + dim² numbers."""
    values, gradients, curvatures = every.split([1, dim, dim * dim], dim=-1)
    return values[..., 0], gradients, curvatures.unflatten(-1, (dim, dim))


class Components(nn.Module):
    """An encoder that begins as the projection on the principal components of the training inputs, with layers beside
    it that say nothing at first. Codes of training inputs begin with unit deviations. Measured on two phases at 29²,
    8 s of one thread: 2.6 % wrong cells, 3.2 % where components are scaled half as much, 4.1 % from random projections;
    fully connected layers alone 6.4 % in 12 s.

    outputs   numbers to give, ``code`` or, where deviations are encoded too, twice as many
    """

    def __init__(self, size: int, code: int, hidden: Sequence[int], outputs: int) -> None:
        super().__init__()
        self.line, self.curves = nn.Linear(size, code), Dense([size, *hidden, outputs], "silu")
        nn.init.zeros_(self.curves.layers[-1].weight)  # type: ignore[arg-type]

    @torch.no_grad()
    def start(self, fields: Float[Tensor, "sample *rest"]) -> None:
        """Fewer samples than entries of the code have fewer components; what is left keeps its random weights.
        Components below a thousandth of the first are scaled like that: what is hardly there is rounding.
        """
        rows = fields.flatten(1).double()
        mean, components = principal_components(lambda: iter(rows.split(BLOCK)), self.line.out_features)
        deviations = ((rows - mean) @ components).std(dim=0, correction=0)
        scaled = components / deviations.clamp_min(1e-3 * deviations.max())
        self.line.weight[: scaled.shape[1]] = scaled.t().to(self.line.weight)
        self.line.bias.zero_()
        self.line.bias[: scaled.shape[1]] = -(mean @ scaled).to(self.line.bias)

    def forward(self, values: Float[Tensor, "batch channel *space"]) -> Float[Tensor, "batch number"]:
        flat = values.flatten(1)
        curves = self.curves(flat)
        return curves + F.pad(self.line(flat), (0, curves.shape[1] - self.line.out_features))


class Generative(nn.Module):
    """The encoder and all decoders.

    encoder      ``batch channel *sensor`` -> code; twice as many numbers where it is variational: means, and logarithms
                 of standard deviations
    """

    def __init__(
        self,
        encoder: nn.Module,
        *,
        inputs: Decoders,
        outputs: Decoders,
        fluxes: Decoders,
        bounded: bool,
        variational: bool,
    ) -> None:
        super().__init__()
        self.encoder, self.inputs, self.outputs, self.fluxes = encoder, inputs, outputs, fluxes
        self.bounded, self.variational = bounded, variational

    def encode(self, values: Float[Tensor, "batch channel *space"]) -> tuple[Tensor, Tensor | None]:
        """The mean of the code before its bound, and its standard deviation where it has one."""
        answer = self.encoder(values)
        if not self.variational:
            return answer, None
        mean, log_deviation = answer.chunk(2, dim=1)
        # a posterior as wide as the prior at first would drown the code; narrower ones are learned from here
        return mean, (log_deviation - 2.0).clamp(-12.0, 4.0).exp()

    def bound(self, code: Tensor) -> Tensor:
        return torch.tanh(code) if self.bounded else code


@dataclass(frozen=True)
class Medium:
    """How decoded numbers become an input field and back: the law p(a | beta).

    phases      values of the medium; () for a continuous input
    """

    phases: tuple[float, ...] = ()

    @property
    def logits(self) -> int:
        """Functions to decode."""
        return 1 if len(self.phases) in (0, 2) else len(self.phases)

    def probabilities(self, logits: Float[Tensor, "batch logit point"]) -> Float[Tensor, "batch point phase"]:
        if len(self.phases) == 2:
            second = torch.sigmoid(logits[:, 0])
            return torch.stack([1 - second, second], dim=-1)
        return logits.softmax(dim=1).mT

    def indices(self, fields: Tensor) -> Tensor:
        """The number of the phase at every node: the nearest value."""
        values = torch.tensor(self.phases, dtype=fields.dtype, device=fields.device)
        return (fields[..., None] - values).abs().argmin(dim=-1)

    def mean(self, logits: Float[Tensor, "batch logit point"]) -> Float[Tensor, "batch point"]:
        values = torch.tensor(self.phases, dtype=logits.dtype, device=logits.device)
        return self.probabilities(logits) @ values

    def misfit(
        self, logits: Float[Tensor, "batch logit point"], fields: Float[Tensor, "batch point"]
    ) -> Float[Tensor, " batch"]:
        """-log p(a | beta) a point."""
        index = self.indices(fields)
        if len(self.phases) == 2:
            entropy = F.binary_cross_entropy_with_logits(logits[:, 0], index.to(logits), reduction="none")
        else:
            entropy = F.cross_entropy(logits, index, reduction="none")
        return entropy.mean(dim=1)

    def drawn(self, logits: Float[Tensor, "batch logit point"], generator: Generator) -> Float[Tensor, "batch point"]:
        """A phase at each point."""
        chances = self.probabilities(logits).cumsum(dim=-1)
        throw = torch.rand(chances.shape[:2], generator=generator, dtype=torch.float64).to(chances)
        index = (throw[..., None] > chances[..., :-1]).sum(dim=-1)
        return torch.tensor(self.phases, dtype=logits.dtype, device=logits.device)[index]

    def relaxed(
        self, logits: Float[Tensor, "batch logit point"], generator: Generator, *, draws: int = 25
    ) -> Float[Tensor, "batch point"]:
        r"""A differentiable draw: :math:`\mathrm{softmax}(\ell + \bar g)`, g the mean of Gumbel noises (of two phases
        logistic noises) over ``draws``. One draw is the concrete law; 25, as published, leave a fifth of its deviation.
        """
        shape = (draws, *logits.shape)
        uniform = torch.rand(shape, generator=generator, dtype=torch.float64).clamp(1e-12, 1 - 1e-12)
        noise = torch.logit(uniform) if len(self.phases) == 2 else -torch.log(-torch.log(uniform))
        return self.mean(logits + noise.mean(dim=0).to(logits))


def picked(
    fluxes: Float[Tensor, "batch function point"], index: Tensor | None, components: int
) -> Float[Tensor, "batch point dim"]:
    """The flux of the phase at each point, or the only one."""
    if index is None:
        return fluxes.mT
    choices = fluxes.unflatten(1, (-1, components))  # phase component
    chosen = index[:, None, None].expand(-1, 1, components, -1)
    return choices.gather(1, chosen)[:, 0].mT


Envelope = Callable[[Tensor], Mapping[str, Tensor]]


def enveloped(
    names: Sequence[str],
    sizes: Float[Tensor, " function"],
    envelope: Envelope,
    points: Float[Tensor, "point dim"],
    values: Float[Tensor, "batch function point"],
    gradients: Float[Tensor, "batch function point dim"] | None = None,
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Answers in physical units with their boundary conditions, by name, and their gradients by the product rule."""
    factors = envelope(points)
    slopes = _slopes(envelope, points) if factors and gradients is not None else {}
    out: dict[str, Tensor] = {}
    derived: dict[str, Tensor] = {}
    for number, name in enumerate(names):
        value = sizes[number] * values[:, number]
        slope = None if gradients is None else sizes[number] * gradients[:, number]
        if name in factors:
            if slope is not None:
                slope = slope * factors[name][:, None] + value[..., None] * slopes[name]
            value = value * factors[name]
        out[name] = value
        if slope is not None:
            derived[name] = slope
    return out, derived


def _slopes(envelope: Envelope, points: Tensor) -> Mapping[str, Float[Tensor, "point dim"]]:
    """By one forward sweep a coordinate; the factor at a point depends on that point only."""
    directions = torch.eye(points.shape[1], dtype=points.dtype, device=points.device)
    columns = [torch.func.jvp(envelope, (points,), (d.expand_as(points),))[1] for d in directions]
    return {name: torch.stack([column[name] for column in columns], dim=-1) for name in columns[0]}
