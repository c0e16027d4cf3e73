r"""Fitting a field to values, judged on points held out; with derivatives where they are known.

.. math:: \min_\theta\ \mathrm{mean}_i\, w_i\, |u(x_i)-u_i|^2/s^2
          + \gamma\,\mathrm{mean}_i\, w_i\, |\nabla u(x_i)-g_i|^2/s_g^2

s and s_g are root mean squares of the values (about their mean) and of the gradients, so that the two weigh alike at
gamma = 1. Training-node errors say nothing about a field: the error that is reported, and by which the best weights are
kept, is that on points held out. Deterministic under a seed; a checkpoint resumes bit for bit on the same machine.
"""

from __future__ import annotations

import copy
import dataclasses
import math
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from ..pde import Grid
from ..training import Callback, DamagedCheckpoint, Diverged, History, Interrupted, Progress
from ..training._checkpoint import load_checkpoint, save_checkpoint
from ._adjust import Adjustment
from ._field import CHUNK, Field, points_of

Schedule = Literal["cosine", "decay", "constant"]
SAVE_SECONDS = 20.0  # a killed fit loses at most this much work
KAPPAS = (0.2, 0.4, 1.0)  # bandwidths that are tried
PROBE = 0.15  # share of the steps that each of them gets
LOST = 0.5  # relative error on held-out points beyond which nothing was predicted there, whatever the bandwidth


@dataclass(frozen=True, kw_only=True)
class Samples:
    """What is known: points, values, and where known their gradients and weights (cell volumes)."""

    points: Float[Tensor, "point dim"]
    values: Float[Tensor, "point channel"]
    gradients: Tensor | None = None  # point channel dim
    weights: Tensor | None = None  # point

    def __post_init__(self) -> None:
        for name in ("points", "values", "gradients", "weights"):
            given = getattr(self, name)
            if given is None:
                continue
            if len(given) != len(self.points):
                raise ValueError(f"{name} are {len(given)} for {len(self.points)} points.")
            if not bool(torch.isfinite(given).all()):
                bad = int((~torch.isfinite(given)).flatten(1).any(dim=1).sum()) if given.ndim > 1 else 1
                raise ValueError(f"Non-finite {name} at {bad} of {len(given)} points: mask or fill them first.")

    def at(self, indices: Tensor) -> Samples:
        """Some of the points."""
        rest = {n: None if (v := getattr(self, n)) is None else v[indices] for n in ("gradients", "weights")}
        return Samples(points=self.points[indices], values=self.values[indices], **rest)

    def __len__(self) -> int:
        return len(self.points)


class Pool(ABC):
    """Where a fit draws its points from.

    held    points kept out of the fit and judged on
    sizes   per channel: deviation of the values, root mean square of the gradients where there are any
    """

    held: Samples
    sizes: tuple[Tensor, Tensor | None]

    @abstractmethod
    def draw(self, step: int, count: int, generator: Generator) -> Samples:
        """So many points for a step (0: all), the same whenever it is asked with the same generator's state."""

    @abstractmethod
    def __len__(self) -> int:
        """Points that may be drawn."""

    @property
    @abstractmethod
    def fingerprint(self) -> float:
        """A number that other values would hardly have."""


class Memory(Pool):
    """All samples in memory; a random share of them is held out."""

    def __init__(self, samples: Samples, holdout: float, generator: Generator) -> None:
        order = torch.randperm(len(samples), generator=generator)
        kept = round(holdout * len(samples))
        self.held, self.train = samples.at(order[:kept].sort().values), samples.at(order[kept:].sort().values)
        self.sizes = _sizes(samples)

    def draw(self, step: int, count: int, generator: Generator) -> Samples:
        if not 0 < count < len(self.train):
            return self.train
        return self.train.at(torch.randint(len(self.train), (count,), generator=generator))

    def __len__(self) -> int:
        return len(self.train)

    @property
    def fingerprint(self) -> float:
        return float(self.train.values.double().sum())


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How a field is fitted.

    steps          of Adam
    learning_rate  at the start
    schedule       cosine: to zero; decay: times ``factor`` every ``every`` steps; constant
    batch          points a step, drawn at random; 0: all
    holdout        share of the points that is kept out of the fit and judged on
    gradient       gamma, weight of the gradients where they are given; with ``values=False`` they alone are fitted
    values         whether values are fitted
    report_every   steps between judgements on held-out points
    """

    steps: int = 2000
    learning_rate: float = 1e-3
    schedule: Schedule = "cosine"
    factor: float = 0.99
    every: int = 20
    batch: int = 0
    holdout: float = 0.1
    gradient: float = 1.0
    values: bool = True
    report_every: int = 100
    seed: int = 0

    def __post_init__(self) -> None:
        if self.steps < 1 or self.batch < 0 or self.every < 1 or self.report_every < 1:
            raise ValueError(f"steps, every and report_every are at least 1, batch at least 0; got {self}.")
        if not self.learning_rate > 0 or not 0 <= self.holdout < 1 or self.gradient < 0:
            raise ValueError(f"learning_rate > 0, 0 <= holdout < 1 and gradient >= 0 are needed; got {self}.")

    def rate(self, step: int) -> float:
        """The learning rate of a step (from 0)."""
        if self.schedule == "cosine":
            return self.learning_rate * 0.5 * (1 + math.cos(math.pi * step / self.steps))
        return self.learning_rate * (self.factor ** (step // self.every) if self.schedule == "decay" else 1.0)


def fit(
    field: Field,
    samples: Samples | Pool,
    plan: Plan = Plan(),
    *,
    callbacks: Sequence[Callback] = (),
    checkpoint: Path | None = None,
    adjust: Adjustment | None = None,
) -> History:
    """Fit in place; the field is left with the best weights on the points held out (without any: the last ones).

    samples     all of them, or a pool that draws them from where they lie
    checkpoint  a file to write, and to resume from where it exists
    adjust      inductive gradient adjustment of the residuals (full batch, values only)
    """
    gradients = isinstance(samples, Samples) and samples.gradients is not None
    if adjust is not None and (gradients or plan.batch or isinstance(samples, Pool)):
        raise ValueError("Gradient adjustment is for values on all points: leave gradients out, and batch=0.")
    if not plan.values and not gradients:
        raise ValueError("values=False fits gradients alone, but none are given.")
    return _Fit(field, samples, plan, callbacks, checkpoint, adjust).run()


class _Fit:
    """One fit: ``run`` once."""

    def __init__(
        self, field: Field, samples: Samples | Pool, plan: Plan, callbacks: Sequence[Callback],
        checkpoint: Path | None, adjust: Adjustment | None,
    ) -> None:  # fmt: skip
        self.field, self.plan, self.callbacks, self.checkpoint = field, plan, callbacks, checkpoint
        self.generator = Generator().manual_seed(plan.seed)
        self.pool = samples if isinstance(samples, Pool) else Memory(samples, plan.holdout, self.generator)
        self.held = self.pool.held
        self.adjust = None if adjust is None else adjust.on(self.pool.draw(0, 0, self.generator).points)
        self.optimizer = torch.optim.Adam([p for p in field.parameters() if p.requires_grad], lr=plan.learning_rate)
        self.history, self.step, self.spent = History(), 0, 0.0
        self.least, self.best = math.inf, copy.deepcopy(field.network.state_dict())

    def run(self) -> History:
        if self.checkpoint is not None and self.checkpoint.exists():
            self._restore(self.checkpoint)
        begun, saved = time.monotonic() - self.spent, time.monotonic()
        while self.step < self.plan.steps:
            loss = self._update()
            self.spent = time.monotonic() - begun
            if not math.isfinite(loss):
                self._finish("diverged")
                raise Diverged(f"The loss was not finite at step {self.step}: lower the learning rate.")
            if self.step % self.plan.report_every == 0 or self.step == self.plan.steps:
                self._judge(loss)
            if self._told(loss):
                self._save()
                self._finish("interrupted")
                raise Interrupted(f"Stopped at step {self.step} of {self.plan.steps}; the checkpoint resumes it.")
            if self.checkpoint is not None and time.monotonic() - saved > SAVE_SECONDS:
                self._save()
                saved = time.monotonic()
        self._save()
        self._finish("complete")
        return self.history

    def _update(self) -> float:
        for group in self.optimizer.param_groups:
            group["lr"] = self.plan.rate(self.step)
        self.optimizer.zero_grad(set_to_none=True)
        loss, told = self._loss()
        loss.backward()
        self.optimizer.step()
        self.step += 1
        return told

    def _loss(self) -> tuple[Tensor, float]:
        part = self.pool.draw(self.step, self.plan.batch, self.generator)
        if self.adjust is not None:
            values = self.field.jet(part.points).value / self.pool.sizes[0]
            misfit = values - part.values / self.pool.sizes[0]
            return self.adjust.loss(self.field, part.points, values, misfit), float(misfit.detach().square().mean())
        loss = loss_of(self.field, part, self.plan, self.pool.sizes)
        return loss, float(loss.detach())

    def _judge(self, loss: float) -> None:
        error = heldout_error(self.field, self.held) if len(self.held) else None
        row = {"epoch": self.step, "step": self.step, "seconds": self.spent, "train": loss, "validation": error}
        row["learning_rate"] = self.plan.rate(self.step - 1)
        self.history.rows.append(row)
        if error is None or error < self.least:
            self.least = math.inf if error is None else error
            self.best, self.history.best_epoch = copy.deepcopy(self.field.network.state_dict()), self.step
        for callback in self.callbacks:
            callback.epoch(row)

    def _told(self, loss: float) -> bool:
        rate = self.step * (self.plan.batch or len(self.pool)) / max(self.spent, 1e-9)
        fraction = self.step / self.plan.steps
        progress = Progress(self.step, self.plan.steps, self.step, fraction, loss, self.spent, rate)
        for callback in self.callbacks:
            callback.batch(progress)
        return any(callback.stop() for callback in self.callbacks) and self.step < self.plan.steps

    def _finish(self, status: str) -> None:
        self.history.status, self.history.seconds = status, self.spent
        self.field.network.load_state_dict(self.best)

    def _key(self) -> list[Any]:
        return [str(self.plan), len(self.pool), self.pool.fingerprint]

    def _save(self) -> None:
        if self.checkpoint is None:
            return
        save_checkpoint(self.checkpoint, {
            "key": self._key(), "network": self.field.network.state_dict(), "best": self.best,
            "optimizer": self.optimizer.state_dict(), "generator": self.generator.get_state(), "step": self.step,
            "spent": self.spent, "least": self.least, "rows": self.history.rows, "best_epoch": self.history.best_epoch,
        })  # fmt: skip

    def _restore(self, path: Path) -> None:
        saved = load_checkpoint(path)
        if saved["key"] != self._key():
            raise DamagedCheckpoint(f"{path} belongs to another plan or other samples. Delete it to fit afresh.")
        self.field.network.load_state_dict(saved["network"])
        self.optimizer.load_state_dict(saved["optimizer"])
        self.generator.set_state(saved["generator"])
        self.step, self.spent, self.least, self.best = saved["step"], saved["spent"], saved["least"], saved["best"]
        self.history.rows, self.history.best_epoch = saved["rows"], saved["best_epoch"]


def loss_of(field: Field, samples: Samples, plan: Plan, sizes: tuple[Tensor, Tensor | None]) -> Tensor:
    """Weighted mean squares, of values and of gradients."""
    weights = torch.ones_like(samples.values[:, 0]) if samples.weights is None else samples.weights
    weights = (weights / weights.mean())[:, None]
    jet = field.jet(samples.points, gradient=samples.gradients is not None)
    loss = jet.value.new_zeros(())
    if plan.values:
        loss = loss + (weights * ((jet.value - samples.values) / sizes[0]).square()).mean()
    if samples.gradients is not None and sizes[1] is not None:
        misfit = (jet.first.movedim(0, -1) - samples.gradients) / sizes[1]
        loss = loss + plan.gradient * (weights[..., None] * misfit.square()).mean()
    return loss


def _sizes(samples: Samples) -> tuple[Tensor, Tensor | None]:
    """Per channel: deviation of the values, root mean square of the gradients."""
    tiny = torch.finfo(samples.values.dtype).tiny
    values = samples.values.std(dim=0, correction=0).clamp_min(tiny)
    if samples.gradients is None:
        return values, None
    return values, samples.gradients.square().mean(dim=(0, 2)).sqrt().clamp_min(tiny)[:, None]


@torch.no_grad()
def heldout_error(field: Field, samples: Samples) -> float:
    """Relative L2 of the deviation from the mean of each channel, all channels together."""
    values = torch.cat([field.jet(part).value for part in samples.points.split(CHUNK)])
    spread = samples.values - samples.values.mean(dim=0)
    sizes = spread.square().mean(dim=0).clamp_min(torch.finfo(values.dtype).tiny)
    return float(((values - samples.values).square().mean(dim=0) / sizes).mean().sqrt())


def gridded(values: Float[Tensor, "channel *space"], grid: Grid) -> Samples:
    """The nodes of a grid as samples."""
    if tuple(values.shape[1:]) != grid.shape:
        raise ValueError(f"Values on this grid have shape (channel, {grid.shape}), got {tuple(values.shape)}.")
    return Samples(points=points_of(grid, dtype=values.dtype), values=values.flatten(1).t().contiguous())


def represent(
    values: Float[Tensor, "channel *space"],
    grid: Grid,
    make: Callable[[float], Field],
    plan: Plan = Plan(),
    *,
    kappas: Sequence[float] = KAPPAS,
    callbacks: Sequence[Callback] = (),
    checkpoint: Path | None = None,
) -> tuple[Field, History, dict[float, float]]:
    """A field for gridded values, of the bandwidth that predicts points held out best; also their errors.

    make(kappa)   a field whose first layer has kappa times the waves of the values. The last candidate, the broadest,
                  is taken where none predicts anything between the nodes: what is noise there can only be memorised.
    """
    samples = gridded(values, grid)
    best, errors = bandwidth_for(samples, make, plan, kappas=kappas)
    field = make(best)
    return field, fit(field, samples, plan, callbacks=callbacks, checkpoint=checkpoint), errors


def bandwidth_for(
    samples: Samples | Pool,
    make: Callable[[float], Field],
    plan: Plan,
    *,
    kappas: Sequence[float] = KAPPAS,
    callbacks: Sequence[Callback] = (),
    work: Path | None = None,
) -> tuple[float, dict[float, float]]:
    """The bandwidth that predicts points held out best after a short fit, and the errors of all that were tried.

    work    a folder for checkpoints, from which the choice resumes
    """
    holdout = plan.holdout or 0.1
    steps = max(1, round(PROBE * plan.steps))
    probe = dataclasses.replace(plan, steps=steps, holdout=holdout, report_every=steps)
    errors: dict[float, float] = {}
    for kappa in kappas if len(kappas) > 1 else ():
        tried = _Fit(make(kappa), samples, probe, callbacks, work and work / f"probe-{kappa:g}.pt", None)
        tried.run()
        errors[kappa] = heldout_error(tried.field, tried.held)
    best = kappas[0] if not errors else min(errors, key=errors.__getitem__)
    return (kappas[-1] if errors and errors[best] > LOST else best), errors
