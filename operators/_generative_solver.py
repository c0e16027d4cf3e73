r"""A solver around a generative model: what it minimises, what it answers, and its latent.

.. math:: L = w_a\,\big(-\log p(a\mid\beta)\big) + w_R\,L_R(a, u, \sigma) + w_u\,\frac{\|u - \hat u\|^2}{\|\hat u\|^2}
              + \frac1n\,\mathrm{KL}\big(q(h \mid a)\,\|\,p(h)\big)

L_R   mean squares of virtual observables (``training._physics``), with the input as given, not as decoded
u^    labels, of the first ``train.labels`` training samples; of the others nothing is read
KL    for variational encoders, by one reparameterised draw; n points of the input. A flow under a deterministic encoder
      is fitted to its codes, which do not feel it
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Bool, Float
from torch import Generator, Tensor, nn

from ..data import Dataset
from ..pde import Grid, Problem, Symmetry, check_fields, frame_numbers
from ..pde._weak_form import WithWeakForm
from ..training import Budget, Callback, History, ModuleSolver, Normalizer, Recipe, relative_l2
from ..training._loop import Diverged, Trainer
from ..training._physics import Physics
from ..training._windows import Windows
from ._declared import Carrier
from ._generative import Envelope, Generative, Medium
from ._generative_fields import DecodedFields
from ._generative_start import measure, settle
from ._latent import PHASES, WithLatent
from ._prior import Prior, standard_normal
from ._trunk import points_of, resample

UNUSED = (
    *("objective", "unroll", "increment", "noise", "symmetrise", "resolutions", "resample", "coarsen"),
    *("precision", "equation"),
)


@dataclass(frozen=True, kw_only=True)
class Weights:
    """Of the parts of the objective."""

    inputs: float = 1.0  # w_a
    equation: float = 1.0  # w_R
    labels: float = 1.0  # w_u
    divergence: float = 1.0  # of KL

    def __post_init__(self) -> None:
        for name in ("inputs", "equation", "labels", "divergence"):
            if getattr(self, name) < 0:
                raise ValueError(f"Weights of an objective are not negative, got {name} {getattr(self, name)}.")


class GenerativeSolver(ModuleSolver, WithLatent):
    """A generative model between the units of a problem.

    physics   the objective without labels, of the training grid
    flux, envelope, carriers  as of ``DecodedFields``
    """

    def __init__(
        self,
        problem: Problem,
        network: Generative,
        prior: Prior,
        physics: Physics,
        recipe: Recipe,
        *,
        weights: Weights,
        flux: str,
        envelope: Envelope,
        carriers: Mapping[str, Carrier] | None = None,
        symmetries: Sequence[Symmetry] = (),
    ) -> None:
        assert isinstance(problem, WithWeakForm)
        _refuse_unused(recipe)
        if recipe.augment and not symmetries:
            raise ValueError(
                f"train.augment needs a problem that declares symmetries of the grid {physics.grid.shape}; "
                f"{problem.name} declares none of it: leave train.augment out."
            )
        self.problem, self.signature, self.grid, self.recipe = problem, problem.signature, physics.grid, recipe
        self.physics, self.weights, self.symmetries = physics, weights, tuple(symmetries)
        channels = len(self.signature.inputs)
        inputs = Normalizer(channels, self.grid.shape, recipe.normalise)
        self.module = nn.ModuleDict({"network": network, "prior": prior, "inputs": inputs})
        self.decoded = DecodedFields(
            problem,
            self.signature,
            network,
            self.module,
            physics,
            flux=flux,
            envelope=envelope,
            carriers=carriers or {},
        )
        sizes = {"outputs": len(self.decoded.names), "centre": channels, "spread": channels, "error": channels}
        for name, count in sizes.items():
            self.module.register_buffer(f"{name}_size", torch.ones(count))
        self.nodes = points_of(self.grid, dtype=torch.float32)

    # ------------------------------------------------------------------ what every learned solver has

    @property
    def network(self) -> Generative:
        return self.module["network"]  # type: ignore[return-value]

    @property
    def prior(self) -> Prior:
        return self.module["prior"]  # type: ignore[return-value]

    @property
    def medium(self) -> Medium:
        return self.decoded.medium

    @property
    def parameter_count(self) -> int:
        return sum(p.numel() for p in self.module.parameters())

    @property
    def device(self) -> torch.device:
        return self.prior.mean.device

    def to(self, device: torch.device | str) -> GenerativeSolver:
        super().to(device)
        self.nodes = self.nodes.to(device)
        return self

    # ------------------------------------------------------------------ answering

    def __call__(
        self, inputs: Float[Tensor, "batch channel *space"], grid: Grid, times: Sequence[float] | None = None
    ) -> Float[Tensor, "batch *rest"]:
        code = self._code(inputs, grid)
        points = points_of(grid, dtype=torch.float32).to(self.device)
        times = self.signature.times if times is None else times
        if self.signature.evolves:
            frame_numbers(times, self.signature.spacing)  # the same refusals as of every solver
        shown = functools.partial(self.decoded.shown, self.network.bound(code))
        return self.decoded.at_nodes(shown, points, times).unflatten(-1, grid.shape).to(inputs)

    def _code(self, inputs: Tensor, grid: Grid) -> Float[Tensor, "batch code"]:
        """The mean of the encoder, before its bound."""
        check_fields(inputs, grid, len(self.signature.inputs))
        if grid.shape != self.grid.shape:
            if self.grid.dim != grid.dim:
                raise ValueError(f"The model was trained on a grid {self.grid.shape}; it was asked for {grid.shape}.")
            inputs = resample(inputs, grid, self.grid, "linear" if self.medium.phases else "cubic")
        return self._encoded(inputs.to(self.device, torch.float32))[0]

    def _encoded(self, values: Tensor) -> tuple[Tensor, Tensor | None]:
        return self.network.encode(self.module["inputs"](values))

    # ------------------------------------------------------------------ the latent

    @property
    def latent_size(self) -> int:
        return self.prior.size

    def log_prior(self, latent: Float[Tensor, "batch latent"]) -> Float[Tensor, " batch"]:
        return standard_normal(latent)

    def fields(self, latent: Float[Tensor, "batch latent"], points: Float[Tensor, "point dim"]) -> dict[str, Tensor]:
        """Of an evolution, points are those of space and time, and the fields are its outputs: its input is their
        value at time 0.
        """
        bounded, where = self._bounded(latent), points.to(self.device, torch.float32)
        found = self.decoded.shown(bounded, where)
        if not self.signature.evolves:
            if self.medium.phases:
                found[PHASES] = self.medium.probabilities(self.decoded.logits(bounded, where))
            means = self.decoded.inputs(bounded, where)
            found |= {channel.name: means[:, i] for i, channel in enumerate(self.signature.inputs)}
        return {name: value.to(latent) for name, value in found.items()}

    def _bounded(self, latent: Float[Tensor, "batch latent"]) -> Float[Tensor, "batch code"]:
        return self.network.bound(self.prior.push(latent.to(self.device, torch.float32)))

    @property
    def phases(self) -> tuple[float, ...]:
        return self.medium.phases

    @property
    def input_errors(self) -> dict[str, float]:
        if self.medium.phases or self.signature.evolves:
            return {}
        sizes: list[float] = self.module.error_size.tolist()  # type: ignore[operator]
        return {channel.name: size for channel, size in zip(self.signature.inputs, sizes, strict=True)}

    def clear(self, points: Float[Tensor, "point dim"]) -> Bool[Tensor, " point"]:
        return self.decoded.clear(points)

    @functools.cached_property
    def _tested(self) -> Physics | None:
        """All residuals at once: small balls would tell what is wrong at their size only. None around an obstacle for
        which the problem declares no functions.
        """
        if self.physics.form == "dual":
            return self.physics
        with contextlib.suppress(ValueError):
            return Physics(self.problem, self.grid, form="dual", waves=self.physics.waves)
        return None

    def residual(self, latent: Float[Tensor, "batch latent"]) -> Float[Tensor, " batch"] | None:
        """In the dual norm; a medium of phases is a relaxed draw, the same in every call."""
        if self._tested is None:
            return None
        bounded = self._bounded(latent)
        generator = torch.Generator().manual_seed(0)
        if self.medium.phases:
            inputs = self.medium.relaxed(self.decoded.logits(bounded, self.nodes), generator)[:, None]
        else:
            inputs = self.decoded.inputs(bounded, self.nodes)
        inputs = inputs.unflatten(-1, self.grid.shape)
        ask = functools.partial(self.decoded.answer, bounded, inputs)
        return self._tested.loss(inputs, ask, generator).to(latent)

    @torch.no_grad()
    def draw(
        self, latent: Float[Tensor, "batch latent"], points: Float[Tensor, "point dim"], *, generator: Generator
    ) -> dict[str, Tensor]:
        bounded, where = self._bounded(latent), points.to(self.device, torch.float32)
        names = [channel.name for channel in self.signature.inputs]
        if self.medium.phases:
            return {names[0]: self.medium.drawn(self.decoded.logits(bounded, where), generator).to(latent)}
        means = self.decoded.inputs(bounded, where)
        noise = torch.randn(means.shape, generator=generator).to(means) * self.module.error_size[:, None]  # type: ignore[index]
        return {name: (means + noise)[:, i].to(latent) for i, name in enumerate(names)}

    def encode(self, inputs: Float[Tensor, "batch channel *space"], grid: Grid) -> Float[Tensor, "batch latent"]:
        return self.prior.pull(self._code(inputs, grid)).to(inputs)

    # ------------------------------------------------------------------ learning

    def fit(
        self,
        data: Dataset,
        *,
        validation: Dataset | None = None,
        budget: Budget = Budget(),  # noqa: B008 - frozen
        callbacks: Sequence[Callback] = (),
        checkpoint: Path | None = None,
    ) -> History:
        """From the inputs of the training split, and the outputs of its first ``recipe.labels`` samples.

        ``validation`` selects by relative L2 where there are labels, or else by the objective itself.
        """
        if data.grid.shape != self.grid.shape:
            raise ValueError(f"The model was built for a grid {self.grid.shape}, the data have {data.grid.shape}.")
        if not len(data):
            raise ValueError("The training split is empty.")
        labels = max(0, self.recipe.labels)
        windows = self._windows(data, labels)
        measure(self, windows)
        held_out = None
        if validation is not None and len(validation):
            held_out = self._windows(validation, len(validation) if labels else 0)
        trainer = Trainer(
            self.module,
            self._loss,
            windows,
            recipe=self.recipe,
            budget=budget,
            validate=None if held_out is None else lambda: self._validate(held_out),
            checkpoint=checkpoint,
            callbacks=callbacks,
        )
        try:
            history = trainer.run()
        except Diverged:
            if trainer.best_state:  # the best weights are kept, and with them goes their own prior
                settle(self, windows)
            raise
        settle(self, windows)
        return history

    def _windows(self, data: Dataset, labels: int) -> Windows:
        return Windows(
            data, lambda fields: fields.to(torch.float32), unroll=max(1, self.signature.frames), labels=labels
        )

    def _loss(self, inputs: Tensor, targets: Tensor, noise: Generator) -> Tensor:
        """One value a sample."""
        if self.recipe.augment:
            symmetry = self.symmetries[int(torch.randint(len(self.symmetries), (), generator=noise))]
            inputs, targets = symmetry.inputs(inputs, self.grid), symmetry.outputs(targets, self.grid)
        inputs, targets = inputs.to(self.device), targets.to(self.device)
        code, deviation = self._encoded(inputs)
        total = inputs.new_zeros(len(inputs))
        if deviation is not None:
            mean = code
            code = mean + deviation * torch.randn(mean.shape, generator=noise).to(mean)
            own = standard_normal((code - mean) / deviation) - deviation.log().sum(dim=1)
            divergence = (own - self.prior.log_density(code)) / self.grid.size
            total = total + self.weights.divergence * divergence
        elif self.prior.law == "flow":
            total = total - self.prior.log_density(code.detach()) / self.grid.size
        bounded = self.network.bound(code)
        if self.weights.inputs:
            total = total + self.weights.inputs * self._misfit(bounded, inputs)
        if self.weights.equation:
            ask = functools.partial(self.decoded.answer, bounded, inputs)
            total = total + self.weights.equation * self.physics.loss(inputs, ask, noise)
        return total + self.weights.labels * self._label_loss(bounded, targets) if self.recipe.labels > 0 else total

    def _misfit(self, bounded: Tensor, inputs: Tensor) -> Float[Tensor, " batch"]:
        """-log p(a | beta) a node; of continuous inputs in parts of their variance."""
        if self.medium.phases:
            return self.medium.misfit(self.decoded.logits(bounded, self.nodes), inputs[:, 0].flatten(1))
        found = self.decoded.inputs(bounded, self.nodes)
        parts = (found - inputs.flatten(2)) / self.module.spread_size[:, None]  # type: ignore[index]
        return parts.square().mean(dim=(1, 2))

    def _label_loss(self, bounded: Tensor, targets: Float[Tensor, "batch frame *rest"]) -> Float[Tensor, " batch"]:
        """Squared relative L2 where there is a label, 0 where there is none."""
        known = torch.isfinite(targets).flatten(1).all(dim=1)
        loss = targets.new_zeros(len(targets))
        if bool(known.any()):
            answer = self._frames(bounded[known])
            misfit = (answer - targets[known].flatten(1, 2)).square().flatten(1).sum(dim=1)
            loss = loss.index_put((known.nonzero().flatten(),), misfit / targets[known].square().flatten(1).sum(dim=1))
        return loss

    def _frames(self, bounded: Tensor) -> Float[Tensor, "batch frame_channel *space"]:
        """Answers at the nodes, of an evolution at all its times."""
        found = functools.partial(self.decoded.outputs, bounded)
        answer = self.decoded.at_nodes(found, self.nodes, self.signature.times)
        return answer.flatten(1, -2).unflatten(-1, self.grid.shape)

    def _validate(self, windows: Windows) -> float:
        """Relative L2 over the validation split where labels are known, or else the objective with fixed balls."""
        noise = torch.Generator().manual_seed(self.recipe.seed)
        values = []
        for _, inputs, targets in windows.batches(64):
            if self.recipe.labels > 0:
                answer = self._frames(self.network.bound(self._encoded(inputs.to(self.device))[0]))
                values.append(relative_l2(answer, targets.to(self.device).flatten(1, 2), self.grid))
            else:
                values.append(self._loss(inputs, targets, noise))
        return float(torch.cat(values).mean())


def _refuse_unused(recipe: Recipe) -> None:
    """No option is ignored in silence."""
    usual = Recipe()
    changed = [name for name in UNUSED if getattr(recipe, name) != getattr(usual, name)]
    if changed:
        raise ValueError(
            f"dgno minimises its own objective on the grid of its inputs: train.{changed[0]} has no meaning for it; "
            "leave it out."
        )
