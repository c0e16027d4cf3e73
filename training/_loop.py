"""The one training loop: every network of every room is trained here.

Deterministic under a seed; a checkpoint holds everything that the future depends on, so that training interrupted
anywhere and resumed gives the weights of training never interrupted, bit for bit on the same machine and threads
(under an epoch budget: a time budget follows the clock).
"""

from __future__ import annotations

import contextlib
import copy
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Generator, Tensor, nn

from ._average import Average
from ._callback import Callback, Progress
from ._checkpoint import DamagedCheckpoint, load_checkpoint, save_checkpoint
from ._optimizer import optimizers_of
from ._recipe import Budget, Recipe
from ._schedule import learning_rate
from ._windows import Windows

CHECKPOINT_SECONDS = 20.0  # a killed training loses at most this much work

BatchLoss = Callable[[Tensor, Tensor, Generator], Tensor]


class Diverged(RuntimeError):
    """The loss was not finite. The solver holds the best weights seen so far."""


class Interrupted(RuntimeError):
    """Training was asked to stop; the checkpoint resumes it."""


@dataclass
class History:
    """One row per epoch: epoch, step, seconds, train, validation, learning_rate."""

    rows: list[dict[str, Any]] = field(default_factory=list)
    status: str = "new"  # complete | out of time | stopped early | diverged | interrupted
    best_epoch: int = 0
    seconds: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


class Trainer:
    """One training of one module: ``run`` once.

    loss       (inputs, targets, generator) -> one value per sample
    validate   current validation error, or None where there is no validation split
    checkpoint file to write, and to resume from where it exists
    """

    def __init__(
        self,
        module: nn.Module,
        loss: BatchLoss,
        windows: Windows,
        *,
        recipe: Recipe,
        budget: Budget,
        validate: Callable[[], float] | None = None,
        checkpoint: Path | None = None,
        callbacks: Sequence[Callback] = (),
    ) -> None:
        self.module, self.loss, self.windows, self.validate = module, loss, windows, validate
        self.recipe, self.budget, self.checkpoint, self.callbacks = recipe, budget, checkpoint, callbacks
        self.epochs = budget.epochs or recipe.epochs
        self.per_epoch = windows.batches_per_epoch(recipe.batch)
        parameters = [p for p in module.parameters() if p.requires_grad]
        self.optimizers = optimizers_of(parameters, recipe)
        self.average = Average(parameters, recipe.ema) if recipe.ema else None
        self.order = torch.Generator().manual_seed(recipe.seed)
        self.noise = torch.Generator().manual_seed(recipe.seed + 1)
        self.history = History()
        self.step = 0
        self.batch = 0  # within the epoch
        self.sum = 0.0  # of the losses within the epoch
        self.elapsed = 0.0
        self.best = math.inf
        self.best_state: dict[str, Tensor] = {}
        self.fingerprint = {**asdict(recipe), "epochs": self.epochs, "windows": len(windows)}

    def run(self) -> History:
        with torch.random.fork_rng(devices=[]), torch.enable_grad():
            torch.manual_seed(self.recipe.seed)
            if self.checkpoint is not None and self.checkpoint.exists():
                self._resume(load_checkpoint(self.checkpoint))
            self.started = time.monotonic() - self.elapsed
            self.saved = time.monotonic()
            while self.history.status not in ("complete", "out of time", "stopped early"):
                self._epoch()
        self._keep_best()
        self.history.seconds = self._seconds()
        self.module.eval()
        return self.history

    # ------------------------------------------------------------------ one epoch, one step

    def _epoch(self) -> None:
        self.order_state = self.order.get_state()
        self.module.train()
        if self.batch == 0:
            self.sum = 0.0
        for samples, inputs, targets in self.windows.batches(self.recipe.batch, self.order, skip=self.batch):
            self._step(samples, inputs, targets)
            self.batch += 1
            if self._fraction() >= 1 and self.batch < self.per_epoch:
                break
            self._housekeeping()
        self._finish_epoch()

    def _step(self, samples: Tensor, inputs: Tensor, targets: Tensor) -> None:
        rate = learning_rate(self.recipe, self._fraction(), self.epochs)
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = rate
            optimizer.zero_grad(set_to_none=True)
        loss = self.loss(inputs, targets, self.noise).mean()
        value = float(loss.detach())
        if not math.isfinite(value):
            self._diverged(samples, value)
        loss.backward()
        if self.recipe.clip:
            nn.utils.clip_grad_norm_(self.module.parameters(), self.recipe.clip)
        for optimizer in self.optimizers:
            optimizer.step()
        if self.average is not None:
            self.average.update(self.step)
        self.step += 1
        self.sum += value
        self._report(value)

    def _finish_epoch(self) -> None:
        number = len(self.history.rows) + 1
        row: dict[str, Any] = {
            "epoch": number,
            "step": self.step,
            "seconds": self._seconds(),
            "train": self.sum / max(1, self.batch),
            "learning_rate": self.optimizers[0].param_groups[0]["lr"],
        }
        self.batch = 0
        last = self._fraction() >= 1
        if self.validate and (last or number % self.recipe.validate_every == 0):
            row["validation"] = self._validated(number)
        self.history.rows.append(row)
        for callback in self.callbacks:
            callback.epoch(row)
        if last:
            self.history.status = "complete" if number >= self.epochs else "out of time"
        elif self.recipe.patience and number - self.history.best_epoch >= self.recipe.patience and self.validate:
            self.history.status = "stopped early"
        if self.history.status != "new":
            self.order_state = self.order.get_state()
            self._save()

    def _validated(self, epoch: int) -> float:
        assert self.validate is not None
        self.module.eval()
        with torch.no_grad(), self._averaged():
            value = self.validate()
            if value < self.best:
                self.best, self.history.best_epoch = value, epoch
                self.best_state = copy.deepcopy(self.module.state_dict())
        return value

    def _averaged(self) -> contextlib.AbstractContextManager[None]:
        return contextlib.nullcontext() if self.average is None else self.average.in_place()

    def _keep_best(self) -> None:
        """The weights that answer: the best validated ones, or else the last, averaged where the recipe says so."""
        if self.best_state:
            self.module.load_state_dict(self.best_state)
        elif self.average is not None:
            self.average.put()

    # ------------------------------------------------------------------ budget and reports

    def _seconds(self) -> float:
        return time.monotonic() - self.started

    def _fraction(self) -> float:
        """Share of the budget that is spent; the schedule follows it, so the rate is low when any limit is reached."""
        share = self.step / (self.epochs * self.per_epoch)
        return max(share, self._seconds() / self.budget.seconds) if self.budget.seconds else share

    def _report(self, loss: float) -> None:
        seconds = self._seconds()
        progress = Progress(
            epoch=len(self.history.rows) + 1,
            epochs=self.epochs,
            step=self.step,
            fraction=min(1.0, self._fraction()),
            loss=loss,
            seconds=seconds,
            samples_per_second=self.step * self.recipe.batch / max(seconds, 1e-9),
        )
        for callback in self.callbacks:
            callback.batch(progress)

    def _diverged(self, samples: Tensor, value: float) -> None:
        kept = "no epoch was finished before"
        if self.best_state:
            self._keep_best()
            kept = f"the weights of epoch {self.history.best_epoch} (validation {self.best:.4g}) are kept"
        self.module.eval()
        self.history.status, self.history.seconds = "diverged", self._seconds()
        raise Diverged(
            f"Training diverged at epoch {len(self.history.rows) + 1}, step {self.step + 1}: the loss is {value} on "
            f"training samples {samples.tolist()[:8]}; {kept}. Try a smaller --train.learning_rate."
        )

    # ------------------------------------------------------------------ checkpoints

    def _housekeeping(self) -> None:
        asked = [callback.stop() for callback in self.callbacks]  # each is asked, none is skipped
        stop = any(asked)
        if self.checkpoint is not None and (stop or time.monotonic() - self.saved > CHECKPOINT_SECONDS):
            self._save()
        if stop:
            self.history.status = "interrupted"
            where = "" if self.checkpoint is None else " The checkpoint is complete; the same command resumes it."
            raise Interrupted(f"Training stopped at epoch {len(self.history.rows) + 1}, step {self.step}.{where}")

    def _save(self) -> None:
        if self.checkpoint is None:
            return
        self.saved = time.monotonic()
        values = {
            "fingerprint": self.fingerprint,
            "module": self.module.state_dict(),
            "best_state": self.best_state,
            "average": [] if self.average is None else self.average.values,
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "order": self.order_state,
            "noise": self.noise.get_state(),
            "global": torch.get_rng_state(),
            "history": self.history.to_dict(),
            "numbers": {k: getattr(self, k) for k in ("step", "batch", "sum", "best")} | {"elapsed": self._seconds()},
        }
        save_checkpoint(self.checkpoint, values)

    def _resume(self, values: dict[str, Any]) -> None:
        # an option that was not known when the checkpoint was written has its default
        theirs = {**asdict(Recipe()), **values["fingerprint"]}
        changed = sorted(key for key, value in self.fingerprint.items() if theirs.get(key, "absent") != value)
        if changed:
            raise DamagedCheckpoint(
                f"The checkpoint {self.checkpoint} belongs to other training options ({', '.join(changed)} differ). "
                "Delete it, or give the options it was made with."
            )
        self.module.load_state_dict(values["module"])
        for optimizer, state in zip(self.optimizers, values["optimizers"], strict=True):
            optimizer.load_state_dict(state)
        if self.average is not None:
            self.average.load(values["average"])
        self.best_state = values["best_state"]
        self.order.set_state(values["order"])
        self.noise.set_state(values["noise"])
        torch.set_rng_state(values["global"])
        self.history = History(**values["history"])
        for name, value in values["numbers"].items():
            setattr(self, name, value)
