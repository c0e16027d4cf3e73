"""The one implementation that every network shares."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch
from jaxtyping import Float
from torch import Generator, Tensor, nn

from ..data import Dataset
from ..pde import Grid, Problem, Signature, Symmetry, check_fields, fourier_resample, frame_numbers
from ..pde._solver import advanced
from ..pde._weak_form import Places, WithWeakForm, minimises
from ._callback import Callback
from ._learned import ModuleSolver
from ._loop import History, Trainer
from ._normalizer import Normalizer
from ._objectives import objective_named, relative_l2
from ._physics import Answer, Ask, Between, Physics
from ._recipe import Budget, Recipe
from ._resample import coarser, resample, restrict
from ._windows import Windows

# Working on a coarser grid is refused where the training fields lose more than this share of their norm by it.
COARSEN_LOSS = 0.01


_USUAL = Recipe()


class NetworkSolver(ModuleSolver):
    """A network between normalisers, trained by the one loop.

    A static map is ``network``; an evolution is the rollout of ``network`` frame by frame: the state evolves, what is
    given beside it (a parameter, a forcing) stays. With ``recipe.coarsen``
    everything happens on a coarser periodic grid, exactly restricted and interpolated by Fourier series.

    network          ``batch c_in *space`` -> ``batch c_out *space``, in normalised units
    grid             the grid of the training data
    any_resolution   whether the network means the same operator on other grids; if not, they are refused
    symmetries       what ``recipe.augment`` draws from and ``recipe.symmetrise`` averages over; whoever builds from a
                     problem gives those it declares (``symmetries_of(problem, solver.working)``)
    problem          whose weak form ``recipe.equation`` adds to the objective; given by whoever builds from a problem
    """

    def __init__(
        self,
        network: nn.Module,
        signature: Signature,
        grid: Grid,
        recipe: Recipe = Recipe(),  # noqa: B008 - frozen
        *,
        any_resolution: bool = False,
        symmetries: Sequence[Symmetry] = (),
        problem: Problem | None = None,
    ) -> None:
        self.signature, self.grid, self.recipe, self.any_resolution = signature, grid, recipe, any_resolution
        self.symmetries, self.problem = tuple(symmetries), problem
        self.physics: Physics | None = None
        self.working = coarse_grid(grid, recipe.coarsen)
        self.resolutions = self._resolutions()
        kind, shape = recipe.normalise, self.working.shape
        # a single far frame (Burgers at t = 1) may be much smaller than the state: its change would hide it
        self.increment = recipe.increment and signature.frames > 1
        uniform = tuple(i for i, channel in enumerate(signature.inputs) if channel.uniform)
        inputs = Normalizer(len(signature.inputs), shape, kind, uniform=uniform)
        outputs = Normalizer(len(signature.outputs), shape, "channel" if self.increment and kind != "none" else kind)
        self.module = nn.ModuleDict({"network": network, "inputs": inputs, "outputs": outputs})
        self.objective = objective_named(recipe.objective)

    @property
    def network(self) -> nn.Module:
        return self.module["network"]

    @property
    def parameter_count(self) -> int:
        return sum(p.numel() for p in self.network.parameters())

    @property
    def device(self) -> torch.device:
        return self.module["inputs"].mean.device  # type: ignore[return-value]

    # ------------------------------------------------------------------ answering

    def __call__(
        self,
        inputs: Float[Tensor, "batch channel *space"],
        grid: Grid,
        times: Sequence[float] | None = None,
    ) -> Float[Tensor, "batch *rest"]:
        check_fields(inputs, grid, len(self.signature.inputs))
        if self.recipe.resample != "none" and grid.shape != self.grid.shape:
            there = resample(inputs, grid, self.grid, self.recipe.resample)
            return resample(self(there, self.grid, times), self.grid, grid, self.recipe.resample)
        working = self._serve(grid)
        values = fourier_resample(inputs, working.shape) if working.shape != grid.shape else inputs
        values = values.to(self.device, torch.float32)
        outputs = self._symmetrised(values, times) if self.recipe.symmetrise else self._answer(values, times)
        if working.shape != grid.shape:
            outputs = fourier_resample(outputs, grid.shape)
        return outputs.to(inputs)  # device and dtype of what came in

    def _serve(self, grid: Grid) -> Grid:
        """The grid on which the network works for a request on ``grid``, or a refusal."""
        if grid.shape == self.grid.shape:
            return self.working
        if not self.any_resolution:
            raise ValueError(
                f"This model was trained on a grid of shape {self.grid.shape} and its stencils are tied to it; it was "
                f"asked for {grid.shape}. Resample the inputs, or train at that resolution."
            )
        return coarse_grid(grid, self.recipe.coarsen)

    def _answer(self, values: Tensor, times: Sequence[float] | None) -> Tensor:
        return self._evolve(values, times) if self.signature.evolves else self._map(values)

    def _symmetrised(self, values: Tensor, times: Sequence[float] | None) -> Tensor:
        r"""Mean of :math:`T^{-1} N(T a)` over the group: it commutes with every T, whatever N does."""
        grid = self.working.at(values.shape[2:])
        total = torch.zeros(())
        for symmetry in self._declared("symmetrise"):
            answer = self._answer(symmetry.inputs(values, grid), times)
            total = total + symmetry.outputs(answer, grid, undo=True)
        return total / len(self.symmetries)

    def _evolve(self, inputs: Tensor, times: Sequence[float] | None) -> Tensor:
        wanted = frame_numbers(self.signature.times if times is None else times, self.signature.spacing)
        frames = []
        for _ in range(wanted[-1]):
            frames.append(self._map(inputs))
            inputs = advanced(inputs, frames[-1])
        return torch.stack([frames[n - 1] for n in wanted], dim=1)

    def _map(self, values: Tensor) -> Tensor:
        """One application on the working grid, in physical units."""
        with self._precision():
            raw = self.network(self.module["inputs"](values))
        change = self.module["outputs"].inverse(raw.float())  # type: ignore[operator]
        answer = values[:, : change.shape[1]] + change if self.increment else change
        return answer * self._vanishing(self.working.at(values.shape[2:])) if self.recipe.equation else answer

    def _vanishing(self, grid: Grid) -> Tensor:
        """Factors ``channel *space`` of what is zero on walls: an energy without them has no smallest value."""
        factors = torch.ones(len(self.signature.outputs), *grid.shape)
        if isinstance(self.problem, WithWeakForm):
            known = self.problem.envelope(grid.mesh().flatten(1).t())
            for number, channel in enumerate(self.signature.outputs):
                if channel.name in known:
                    factors[number] = known[channel.name].view(grid.shape)
        return factors.to(self.device)

    def _precision(self) -> contextlib.AbstractContextManager[Any]:
        if self.recipe.precision == "float32" or not self.module.training:  # answers are given in float32
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, dtype=torch.bfloat16)

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
        self._check_data(data)
        if self.recipe.augment:
            self._declared("augment")
        labels = self.recipe.labels
        if labels > 0 and not self.recipe.equation:  # of samples without a label there is nothing to learn
            data, labels = data.subset(range(min(labels, len(data)))), -1
        unroll = self.recipe.unroll if self.signature.evolves else 1
        windows = Windows(data, self._prepare, unroll=unroll, labels=None if labels < 0 else labels)
        self.module["inputs"].fit(windows.inputs())  # type: ignore[operator]
        if self.recipe.equation or not labels:
            self.physics = self._physics()
            self._scale(data)
        else:
            self._check_coarsening(data)
            self.module["outputs"].fit(windows.increments() if self.increment else windows.outputs())  # type: ignore[operator]
        held_out = Windows(validation, self._prepare) if validation is not None and len(validation) else None
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
        return trainer.run()

    def _loss(self, inputs: Tensor, targets: Tensor, noise: Generator) -> Tensor:
        """Mean objective over the unrolled frames, one value per sample; targets ``batch frame channel *space``."""
        inputs, targets = self._varied(inputs, targets, noise)
        if self.physics is not None:
            return self._informed(self.physics, inputs.to(self.device), targets.to(self.device), noise)
        grid = self.working.at(inputs.shape[2:])
        inputs = self._noisy(inputs.to(self.device), noise) if self.recipe.noise else inputs.to(self.device)
        total = torch.zeros(len(inputs), device=self.device)
        for target in targets.to(self.device).unbind(dim=1):
            answer = self._map(inputs)
            total = total + self.objective(answer, target, grid)
            inputs = advanced(inputs, answer) if self.signature.evolves else inputs
        return total / targets.shape[1]

    def _informed(self, physics: Physics, inputs: Tensor, targets: Tensor, noise: Generator) -> Tensor:
        """The objective where there is a label, and the equation everywhere; a static map."""
        answer, ask = self._ask(inputs)
        total = self.recipe.equation * physics.loss(inputs, ask, noise)
        known = torch.isfinite(targets).flatten(1).all(dim=1).nonzero().flatten()
        if not len(known):
            return total
        return total.index_add(0, known, self.objective(answer[known], targets[known, 0], self.working))

    def _ask(self, inputs: Tensor) -> tuple[Tensor, Ask]:
        """The answer at the nodes, and what tells it between them: here its cubic splines."""
        answer = self._map(inputs)
        names = [channel.name for channel in self.signature.outputs]

        def ask(places: Places) -> Answer:
            between = Between(self.working, places)
            channels = [(name, answer[:, number]) for number, name in enumerate(names)]
            outputs = {name: between(field) for name, field in channels}
            return Answer(outputs, {name: between.gradient(field) for name, field in channels})

        return answer, ask

    def _physics(self) -> Physics:
        if self.problem is None:
            raise ValueError("train.equation and train.labels need the problem itself: NetworkSolver(..., problem=…).")
        odd = [
            name for name in ("coarsen", "noise", "resolutions") if getattr(self.recipe, name) != getattr(_USUAL, name)
        ]
        if self.signature.evolves or odd:
            raise ValueError(
                "train.equation and train.labels are for static problems on the grid of the data; "
                f"{'train.' + odd[0] + ' is set' if odd else self.problem.name + ' evolves'}. dgno learns evolutions."
            )
        if not self.recipe.equation and not self.recipe.labels:
            raise ValueError("Without labels there is only the equation to learn from: give train.equation a weight.")
        minimal = isinstance(self.problem, WithWeakForm) and minimises(self.problem)
        return Physics(self.problem, self.working, form="energy" if minimal else "balls")

    def _scale(self, data: Dataset) -> None:
        """Units of the outputs: from the labels, or without any from the inputs by the problem's estimate."""
        outputs, labels = self.module["outputs"], min(self.recipe.labels, len(data))
        if labels:
            known = data if labels < 0 else data.subset(range(labels))
            outputs.fit(Windows(known, self._prepare).outputs())  # type: ignore[operator]
            return
        assert self.physics is not None
        first = next(iter(Windows(data, self._prepare).inputs()))[:256].double()
        scales = self.physics.problem.output_scales(first, self.working)
        assert isinstance(outputs, Normalizer)
        outputs.mean.zero_()
        for number, channel in enumerate(self.signature.outputs):
            outputs.std[number] = scales[channel.name]

    def _noisy(self, inputs: Tensor, generator: Generator) -> Tensor:
        """Gaussian noise on the inputs, in parts of their deviation; what is given to an evolution is exact."""
        drawn = len(self.signature.inputs) - len(self.signature.given)
        scale = self.recipe.noise * self.module["inputs"].std[:drawn]  # type: ignore[index]
        states = inputs[:, :drawn]
        return advanced(inputs, states + scale * torch.randn(states.shape, generator=generator).to(self.device))

    def _varied(self, inputs: Tensor, targets: Tensor, generator: Generator) -> tuple[Tensor, Tensor]:
        """The batch through a symmetry of the problem and on one of the training grids, both drawn at random."""
        if self.recipe.augment:
            symmetry = _drawn(self.symmetries, generator)
            inputs, targets = symmetry.inputs(inputs, self.working), symmetry.outputs(targets, self.working)
        if self.resolutions:
            grid = _drawn((self.working, *self.resolutions), generator)
            inputs, targets = (restrict(fields, self.working, grid) for fields in (inputs, targets))
        return inputs, targets

    def _declared(self, option: str) -> tuple[Symmetry, ...]:
        if not self.symmetries:
            raise ValueError(
                f"train.{option} needs a problem that declares symmetries of the grid {self.working.shape}; give them "
                f"to the solver (symmetries=symmetries_of(problem, grid)), or leave train.{option} out."
            )
        return self.symmetries

    def _resolutions(self) -> tuple[Grid, ...]:
        if not self.recipe.resolutions:
            return ()
        if not self.any_resolution or self.recipe.normalise == "pointwise":
            raise ValueError(
                f"train.resolutions {self.recipe.resolutions} is for models that serve any grid and are normalised by "
                f"channel; this one is tied to {self.working.shape} by its stencils or by train.normalise pointwise."
            )
        return tuple(coarser(self.working, nodes) for nodes in self.recipe.resolutions)

    def _validate(self, windows: Windows) -> float:
        """Mean relative L2 of one application over the validation split: one yardstick whatever the objective.
        Without labels there is none, and the equation itself is asked, on balls that stay the same.
        """
        if self.physics is not None and self.recipe.labels == 0:
            noise = torch.Generator().manual_seed(self.recipe.seed)
            found = [self.physics.loss(a, self._ask(a)[1], noise) for _, a, _ in self._on_device(windows)]
            return float(torch.cat(found).mean())
        errors = [
            relative_l2(self._map(inputs.to(self.device)), targets[:, 0].to(self.device), self.working)
            for _, inputs, targets in windows.batches(64)
        ]
        return float(torch.cat(errors).mean())

    def _on_device(self, windows: Windows) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        for numbers, inputs, targets in windows.batches(64):
            yield numbers, inputs.to(self.device), targets

    def _prepare(self, fields: Tensor) -> Tensor:
        fields = fields.to(torch.float32)
        return fourier_resample(fields, self.working.shape) if self.working.shape != self.grid.shape else fields

    def _check_data(self, data: Dataset) -> None:
        if data.grid.shape != self.grid.shape:
            raise ValueError(f"The model was built for a grid {self.grid.shape}, the data have {data.grid.shape}.")
        if not len(data):
            raise ValueError("The training split is empty.")

    def _check_coarsening(self, data: Dataset) -> None:
        if self.working.shape == self.grid.shape:
            return
        _, outputs = data.read(torch.arange(min(16, len(data))))
        flat = outputs.flatten(0, 1)[:, None] if outputs.ndim == 3 + self.grid.dim else outputs
        kept = fourier_resample(fourier_resample(flat, self.working.shape), self.grid.shape)
        lost = float(((kept - flat).square().sum() / flat.square().sum()).sqrt())
        if lost > COARSEN_LOSS:
            raise ValueError(
                f"On the working grid {self.working.shape} the training outputs lose {lost:.1%} of their norm; "
                f"use --train.coarsen 1 (now {self.recipe.coarsen})."
            )


T = TypeVar("T")


def _drawn(choices: Sequence[T], generator: Generator) -> T:
    return choices[int(torch.randint(len(choices), (), generator=generator))]


def coarse_grid(grid: Grid, factor: int) -> Grid:
    """The grid with ``factor`` times fewer nodes an axis; only periodic axes can be coarsened exactly."""
    if not grid.axes:
        raise ValueError("This model maps fields over space, and here is none: use linear, gp_operator or neural_ode.")
    if factor == 1:
        return grid
    if not grid.periodic:
        raise ValueError(f"train.coarsen is for periodic grids and this one has walls: use 1, not {factor}.")
    if any(n % factor for n in grid.shape):
        raise ValueError(f"train.coarsen must divide the grid {grid.shape}, got {factor}.")
    return grid.at([n // factor for n in grid.shape])
