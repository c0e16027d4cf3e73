r"""SpecBoost: each stage of any operator learns what the earlier, frozen stages left over (Qin et al. 2024, SpecB-FNO).

.. math:: \hat u = \sum_{s=0}^{S-1} \sigma_s\,G_s(a, [\hat u_{<s}]),\qquad
          r_s = u - \sum_{q<s}\sigma_q G_q,\qquad \sigma_s = \mathrm{rms}(r_s)\ \text{per channel},\ \sigma_0 = 1

a, u   inputs and outputs; of an evolution, a state and the next one (the one-step map is boosted, and rolled out)
G_s    a model of any name (``base``), trained with the loop and the objective of the plain one on r_s / sigma_s

A trained operator has learned the energetic waves and hardly the others; what it leaves has a flat spectrum, from
which the next one learns all waves alike. (arXiv 2404.07200; no official code is known. Whether the paper feeds the
earlier answer to the later stages and how it scales residuals is not known: here both are as said above, ``feed`` off.
Residuals are divided by their size and not shifted, so that a stage that answers 0 changes nothing.)

Residual stages start at 0 exactly: the last linear layer of a network is zero, all others are those of the stage
before. (From new weights under a zero last layer the relative error of a residual can stay at 1 for a whole training:
on Darcy it did on one seed of two, benchmarks/results/specboost.md.) A stage that does not lower the error
on the validation samples is left out. Training residuals are smaller than those on new samples; with ``folds`` each
residual is computed by a model that has not seen its sample. The budget is that of one plain model, split evenly among
all trainings. Each history row names its stage; the last row of a stage holds the spectra of what it was to learn
(``target``) and of what it left (``residual``), on validation samples.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import inspect
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from ..data import Dataset
from ..pde import Grid, Problem, check_fields, fourier_resample, frame_numbers, symmetries_of
from ..pde._solver import advanced
from ..training import (
    Budget,
    Callback,
    Diverged,
    History,
    LearnedSolver,
    NetworkSolver,
    Preset,
    Recipe,
    coarse_grid,
    relative_l2,
)
from ._boosting import (
    Answer,
    Course,
    ResidualProblem,
    Residuals,
    freeze,
    residual_signature,
    residuals,
    restricted,
    root_mean_square,
    shell_energy,
    start_at_zero,
    take_over,
)
from ._words import near, options_in

Make = Callable[[int], LearnedSolver]  # number of the stage -> a new solver for it
CONVERGENCE = 1.0  # of the default base, fno

SHOWN = 64  # pairs from which spectra are taken
SMALLEST = 1e-12  # a residual below this is nothing, and is not divided by


class Boosted(LearnedSolver):
    """Stages whose answers add up.

    make      a new, unfitted solver of a stage; the same number, the same initial weights
    stages    how many
    grid      of the data; with ``recipe.coarsen`` all stages work on the coarser one
    feed      residual stages see the inputs and the answer so far, not the inputs alone
    folds     parts of the training split for residuals of models that have not seen the sample; 1: none
    inherit   a residual stage begins with the weights of the stage before, but for its last layer, which is zero
    """

    def __init__(
        self,
        make: Make,
        problem: Problem,
        grid: Grid,
        recipe: Recipe,
        *,
        stages: int,
        feed: bool,
        folds: int,
        inherit: bool = False,
    ) -> None:
        self.make, self.signature, self.grid, self.recipe = make, problem.signature, grid, recipe
        self.feed, self.folds, self.inherit = feed, folds, inherit
        self.working = coarse_grid(grid, recipe.coarsen)
        self.stages = [make(number) for number in range(stages)]
        channels = len(problem.signature.outputs)
        self.scales = torch.ones(stages, channels)
        self.kept = torch.ones(stages)

    @property
    def parameter_count(self) -> int:
        return sum(stage.parameter_count for stage in self.stages)

    def to(self, device: torch.device | str) -> Boosted:
        for stage in self.stages:
            if hasattr(stage, "to"):
                stage.to(device)
        return self

    def state(self) -> dict[str, Tensor]:
        own = {"scales": self.scales.clone(), "kept": self.kept.clone()}
        return own | {f"stages.{i}.{k}": v for i, stage in enumerate(self.stages) for k, v in stage.state().items()}

    def restore(self, state: dict[str, Tensor]) -> None:
        parts: list[dict[str, Tensor]] = [{} for _ in self.stages]
        for name, value in state.items():
            head, _, rest = name.partition(".")
            number, _, inner = rest.partition(".")
            if head == "stages" and number.isdigit() and int(number) < len(parts):
                parts[int(number)][inner] = value
            elif name not in ("scales", "kept") or value.shape != getattr(self, name).shape:
                raise ValueError(f"These weights do not fit the model: {name} is not of its {len(parts)} stages.")
        if not {"scales", "kept"} <= set(state):
            raise ValueError("These weights do not fit the model: they are not those of specboost.")
        for stage, part in zip(self.stages, parts, strict=True):
            stage.restore(part)
        self.scales, self.kept = state["scales"].clone().cpu(), state["kept"].clone().cpu()

    # ------------------------------------------------------------------ answering

    def __call__(
        self, inputs: Float[Tensor, "batch channel *space"], grid: Grid, times: Sequence[float] | None = None
    ) -> Float[Tensor, "batch *rest"]:
        check_fields(inputs, grid, len(self.signature.inputs))
        working = self.working if grid.shape == self.grid.shape else coarse_grid(grid, self.recipe.coarsen)
        coarse = working.shape != grid.shape
        state = (fourier_resample(inputs, working.shape) if coarse else inputs).to(torch.float32)
        if not self.signature.evolves:
            outputs = self.step(state, working)
        else:
            wanted = frame_numbers(self.signature.times if times is None else times, self.signature.spacing)
            frames = []
            for _ in range(wanted[-1]):
                frames.append(self.step(state, working))
                state = advanced(state, frames[-1])
            outputs = torch.stack([frames[n - 1] for n in wanted], dim=1)
        return (fourier_resample(outputs, grid.shape) if coarse else outputs).to(inputs)

    def step(self, inputs: Tensor, grid: Grid, stages: int | None = None) -> Tensor:
        """The sum of the first stages' answers (default: of all); of an evolution, one frame on."""
        total = torch.zeros(())
        for number in range(len(self.stages) if stages is None else stages):
            total = total + self._adds(number, self.stages[number], inputs, total, grid)
        return total

    def _adds(self, number: int, stage: LearnedSolver, inputs: Tensor, total: Tensor, grid: Grid) -> Tensor:
        """What a stage contributes, in physical units."""
        if number == 0:
            if not self.signature.evolves:
                return stage(inputs, grid)
            return stage(inputs, grid, [self.signature.spacing])[:, 0]
        if not self.kept[number]:
            return torch.zeros_like(total)
        told = torch.cat([inputs, total], dim=1) if self.feed else inputs
        return self._scale(number).to(inputs) * stage(told, grid)

    def _scale(self, number: int) -> Tensor:
        return self.scales[number].view(1, -1, *(1,) * self.grid.dim)

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
        train = restricted(data, self.working)
        held_out = restricted(validation, self.working) if validation is not None and len(validation) else None
        course = Course(self._trainings(), self.recipe, budget, callbacks, checkpoint)
        answers: list[Answer] = []  # of the stages so far, for training samples: by fold where there are folds
        for number in range(len(self.stages)):
            self._fit_stage(number, train, held_out, answers, course)
        course.clear()
        return course.history

    def _trainings(self) -> int:
        """Of whole models: all stages, and the folds of all but the last."""
        return len(self.stages) + (self.folds if self.folds > 1 else 0) * (len(self.stages) - 1)

    def _fit_stage(
        self, number: int, train: Dataset, held_out: Dataset | None, answers: list[Answer], course: Course
    ) -> None:
        stage, known = self._begun(number, self.stages[number]), [self._answer(q) for q in range(number)]
        lessons, exam = train, held_out
        if number:
            left = residuals(train, answers, feed=self.feed)
            size = root_mean_square(left).float()
            self.scales[number] = torch.where(size > SMALLEST, size, 1.0)
            lessons = residuals(train, answers, self._scale(number), feed=self.feed)
            exam = residuals(held_out, known, self._scale(number), feed=self.feed) if held_out else None
        yard = held_out if held_out is not None else train
        before = self._left(yard, number)
        try:
            course.fit(stage, lessons, exam, stage=number)
        except Diverged:
            self.kept[number] = float(number == 0)
            raise
        freeze(stage)
        if number and held_out is not None:
            self.kept[number] = float(self._error(held_out, number + 1) < self._error(held_out, number))
        course.close(self._spectra(before, self._left(yard, number + 1)), kept=bool(self.kept[number]))
        last = number == len(self.stages) - 1
        if not last:
            answers.append(self._answer(number) if self.folds < 2 else self._by_folds(number, lessons, train, course))

    def _begun(self, number: int, stage: LearnedSolver) -> LearnedSolver:
        if number and self.inherit:
            seen = len(self.signature.inputs) + (len(self.signature.outputs) if self.feed else 0)
            take_over(stage, self.stages[number - 1], seen, self.working)
        return stage

    def _answer(self, number: int, chosen: LearnedSolver | None = None) -> Answer:
        stage = chosen or self.stages[number]

        def answer(inputs: Tensor, total: Tensor, samples: np.ndarray) -> Tensor:
            return self._adds(number, stage, inputs, total, self.working).detach()

        return answer

    def _by_folds(self, number: int, lessons: Dataset, train: Dataset, course: Course) -> Answer:
        """Each sample answered by a model of this stage that was trained on the other folds."""
        count, frames = len(train), len(lessons) // len(train)
        order = torch.randperm(count, generator=torch.Generator().manual_seed(self.recipe.seed + 77)).numpy()
        fold_of = np.empty(count, dtype=np.int64)
        fold_of[order] = np.arange(count) % self.folds
        models = []
        for fold in range(self.folds):
            model = self._begun(number, self.make(number))
            others = np.nonzero(fold_of != fold)[0]
            rows = (others[:, None] * frames + np.arange(frames)).ravel()
            course.fit(model, lessons.subset(rows), None, stage=number, fold=fold)
            freeze(model)
            models.append(self._answer(number, model))

        def answer(inputs: Tensor, total: Tensor, samples: np.ndarray) -> Tensor:
            told = fold_of[samples]
            out: Tensor | None = None
            for fold in np.unique(told):
                mine = torch.from_numpy(np.nonzero(told == fold)[0])
                so_far = total if total.ndim == 0 else total[mine]
                part = models[fold](inputs[mine], so_far, samples)
                out = part.new_zeros(len(inputs), *part.shape[1:]) if out is None else out
                out[mine] = part
            assert out is not None
            return out

        return answer

    def _left(self, data: Dataset, stages: int) -> Tensor:
        """Residuals of some pairs after the first stages; with none, the outputs."""
        pairs = Residuals(data, [self._answer(q) for q in range(stages)], feed=False)
        spread = np.unique(np.linspace(0, len(pairs) - 1, min(len(pairs), SHOWN)).round().astype(np.int64))
        return pairs.arrays(spread)[1]

    def _error(self, data: Dataset, stages: int) -> float:
        """Mean relative L2 of one step with the first stages."""
        kept, self.kept = self.kept, torch.ones_like(self.kept)
        self.kept[: stages - 1] = kept[: stages - 1]
        pairs, errors = Residuals(data, [self._answer(q) for q in range(stages)], feed=False), []
        for part in np.array_split(np.arange(len(pairs)), max(1, len(pairs) // SHOWN)):
            inputs, outputs = pairs.pairs(part)
            errors.append(relative_l2(pairs.said(inputs, part).expand_as(outputs), outputs, self.working))
        self.kept = kept
        return float(torch.cat(errors).mean())

    def _spectra(self, before: Tensor, after: Tensor) -> dict[str, list[float]]:
        energies = {"target": shell_energy(before, self.working), "residual": shell_energy(after, self.working)}
        return {name: energy.tolist() for name, energy in energies.items()}

    def _check_data(self, data: Dataset) -> None:
        if data.grid.shape != self.grid.shape:
            raise ValueError(f"The model was built for a grid {self.grid.shape}, the data have {data.grid.shape}.")
        if len(data) < self.folds or not len(data):
            raise ValueError(f"specboost with {self.folds} folds needs as many training samples, got {len(data)}.")


def build(
    problem: Problem,
    grid: Grid,
    *,
    base: str = "fno",
    stages: int = 2,
    base_options: str = "",
    residual_options: str = "",
    feed: bool = False,
    folds: int = 1,
    start: Literal["earlier", "fresh"] = "earlier",
    recipe: Recipe = Recipe(),  # noqa: B008 - frozen
) -> Boosted:
    """Stages of another model, each fitted to what the earlier ones left; the budget is shared evenly.

    base              name of the model of every stage (fno, mgno, unet, ...), or the dotted path of a module with build
    stages            the model itself and so many less one after it; 1 is the plain model
    base_options      options of the model: "width=24 modes=12"
    residual_options  those that are different in the later stages: "modes=20"
    feed              later stages see the answer so far beside the inputs
    folds             later stages learn from residuals on samples the model has not seen, by this many folds; 1: from
                      those on its own training samples
    start             weights of later stages before training: those of the stage before, but for the last layer
                      (earlier), or new ones (fresh), from which they may not leave 0 for a long time

    With ``train.augment`` the later stages see symmetries of the problem only if ``train.symmetrise`` is on too.
    """
    if stages < 1 or folds < 1:
        raise ValueError(f"specboost needs stages and folds of at least 1, got stages {stages} and folds {folds}.")
    module, working = _module(base), coarse_grid(grid, recipe.coarsen)
    options = _options(module, base_options, base)
    later = options | _options(module, residual_options, base)
    inner = dataclasses.replace(recipe, coarsen=1)
    # what a stage leaves over commutes with the symmetries only if its answers do
    inner_later = dataclasses.replace(inner, augment=recipe.augment and recipe.symmetrise)
    posed = ResidualProblem(origin=problem, fields=residual_signature(problem.signature, feed=feed))

    def make(number: int) -> LearnedSolver:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(recipe.seed + 1000 * number)
            trained = inner_later if number else inner
            told = {"recipe": trained} if "recipe" in inspect.signature(module.build).parameters else {}
            if number == 0:
                return _learned(module.build(problem, working, **options, **told), base, problem)
            stage = _learned(module.build(posed, working, **later, **told), base, posed)
            start_at_zero(stage, len(posed.signature.inputs), working)
            return stage

    return Boosted(make, problem, grid, recipe, stages=stages, feed=feed, folds=folds, inherit=start == "earlier")


def _learned(solver: Any, base: str, posed: Problem) -> LearnedSolver:
    if not isinstance(solver, LearnedSolver):
        raise ValueError(f"specboost boosts models that learn from data; {base!r} does not.")
    if isinstance(solver, NetworkSolver):
        solver.symmetries = symmetries_of(posed, solver.working)
    return solver


def _module(base: str) -> ModuleType:
    folder = Path(__file__).parent
    known = sorted(p.stem for p in folder.glob("*.py") if not p.stem.startswith("_") and p.stem != "specboost")
    if base in known:
        return importlib.import_module(f"{__package__}.{base}")
    with contextlib.suppress(ModuleNotFoundError, ValueError):
        if "." in base and hasattr(found := importlib.import_module(base), "build"):
            return found
    told = f"{', '.join(known)}, or the dotted path of a module with a build"
    raise ValueError(f"Unknown base {base!r}.{near(base, known)} Known: {told}.")


def _options(module: ModuleType, text: str, base: str) -> dict[str, Any]:
    """``"width=24 basis=sine"`` as keywords of the base's ``build``."""
    known = [name for name in inspect.signature(module.build).parameters if name not in ("problem", "grid", "recipe")]
    found = options_in(text)
    for name in found:
        if name not in known:
            raise ValueError(f"{base!r} has no option {name!r}.{near(name, known)} It has: {', '.join(known)}.")
    return found


def _navier_stokes_quick(problem: Problem) -> Preset:
    """The quick FNO's set-up, with half of its parameters a stage."""
    smooth = getattr(problem, "viscosity", 0.0) >= 1e-3
    modes, epochs, coarsen = (12, 20, 4) if smooth else (16, 4, 1)
    train = {"epochs": epochs, "batch": 16, "coarsen": coarsen}
    return Preset(model={"base_options": f"modes={modes} width=23"}, train=train, seconds=180.0)


# Quick: as many parameters and as much time in all as the quick preset of fno. Paper: the hyperparameters of the paper
# are not public; those of a full-scale replica, for frames 10 -> 10 of Navier-Stokes at viscosity 1e-5, are.
PRESETS: Mapping[tuple[str, str], Preset | Callable[[Problem], Preset]] = {
    ("quick", "*"): Preset(
        model={"base_options": "modes=12 width=17"}, train={"epochs": 60, "batch": 8}, seconds=200.0
    ),
    ("quick", "navier_stokes"): _navier_stokes_quick,
    ("quick", "darcy"): Preset(
        model={"base_options": "modes=12 width=17"}, train={"epochs": 14, "batch": 8}, seconds=200.0
    ),
    ("paper", "navier_stokes"): Preset(
        model={"base_options": "modes=32 width=100 layers=8"},
        train={"epochs": 200, "batch": 40, "learning_rate": 2e-4, "weight_decay": 0.0, "clip": 10.0},
    ),
}
