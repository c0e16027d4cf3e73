"""How a network is trained: one frozen table of choices, a budget, and the presets that a model ships with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch

Objective = Literal["relative_l2", "relative_h1", "relative_h1_difference", "mean_square"]
Schedule = Literal["cosine", "one_cycle", "step", "constant"]
Optimizer = Literal["adamw", "adam", "muon"]
Resample = Literal["none", "fourier", "cubic", "linear"]
Normalise = Literal["channel", "pointwise", "none"]
Precision = Literal["float32", "bfloat16"]


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Options of the one training loop (``--train.*``).

    epochs          passes over the training pairs, unless the budget says otherwise
    batch           pairs per step
    learning_rate   peak of the schedule
    weight_decay    decoupled from the gradient (adamw, muon) or added to it as an L2 penalty (adam)
    optimizer       adamw; adam, which the published scripts of this field mean by weight decay; muon, for networks of
                    dense layers
    schedule        cosine (linear warm-up), one_cycle (cosine up, then down), step, constant
    rise            share of the training spent raising the learning rate (cosine, one_cycle)
    step_every      step: epochs between reductions of the rate; below 1: a share of the training
    step_factor     step: what each reduction multiplies the rate by
    ema             decay a step of a running mean of the weights, which is validated and answers; 0: none
    objective       relative_l2, relative_h1 (Fourier), relative_h1_difference (any boundary), mean_square
    normalise       by statistics of the training split: channel (any grid), pointwise (this grid), none
    clip            largest gradient norm; 0 switches clipping off
    patience        stop after this many epochs without a better validation error; 0 never
    unroll          frames rolled out inside the objective (evolutions)
    noise           standard deviation, in units of the normalised field, of noise on the inputs
    increment       evolutions of several frames: the network predicts the change of state, not the next state
    augment         each batch is seen through one symmetry that the problem declares, drawn at random
    symmetrise      answers are means over the declared symmetries, so that they commute with them exactly
    resolutions     nodes of the first axis of coarser grids: each batch is trained on one of them or on the data's grid
    resample        serve other grids by way of the training grid: fourier (cosines between walls), cubic, linear
    coarsen         periodic grids: learn on a grid coarser by this factor (exact Fourier restriction)
    equation        static problems with a weak form: its weight beside the objective; the energy where there is one, or
                    else mean squared residuals on balls
    labels          training samples, from the first, whose outputs are learned from; -1: all (of dgno: none)
    precision       of training steps: bfloat16 runs products and convolutions in bfloat16, spectral parts in float32;
                    answers are always given in float32
    validate_every  epochs between validations
    seed            order of pairs and noise; who builds the network seeds its weights with it too
    """

    epochs: int = 50
    batch: int = 16
    learning_rate: float = 2e-3
    weight_decay: float = 1e-5
    optimizer: Optimizer = "adamw"
    schedule: Schedule = "cosine"
    rise: float = 0.1
    step_every: float = 0.2
    step_factor: float = 0.5
    objective: Objective = "relative_l2"
    normalise: Normalise = "channel"
    clip: float = 1.0
    patience: int = 0
    unroll: int = 1
    noise: float = 0.0
    increment: bool = True
    ema: float = 0.0
    augment: bool = False
    symmetrise: bool = False
    resolutions: Sequence[int] = ()
    resample: Resample = "none"
    coarsen: int = 1
    equation: float = 0.0
    labels: int = -1
    precision: Precision = "float32"
    validate_every: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "resolutions", tuple(self.resolutions))  # JSON has lists
        for name, least in (("epochs", 1), ("batch", 1), ("unroll", 1), ("coarsen", 1), ("validate_every", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"train.{name} must be at least {least}, got {getattr(self, name)}.")
        if not self.learning_rate > 0:
            raise ValueError(f"train.learning_rate must be positive, got {self.learning_rate}.")
        for name in ("weight_decay", "clip", "patience", "noise", "equation"):
            if getattr(self, name) < 0:
                raise ValueError(f"train.{name} must not be negative, got {getattr(self, name)}.")
        if self.labels < -1:
            raise ValueError(f"train.labels is a number of samples, or -1 for all; got {self.labels}.")
        if not 0 <= self.rise < 1:
            raise ValueError(f"train.rise is a share of the training in [0, 1), got {self.rise}.")
        if not 0 <= self.ema < 1:
            raise ValueError(f"train.ema is a decay a step in [0, 1), got {self.ema}.")
        if not self.step_every > 0 or not 0 < self.step_factor <= 1:
            raise ValueError(
                "train.step_every must be positive and train.step_factor in (0, 1], got "
                f"{self.step_every} and {self.step_factor}."
            )
        if any(n < 2 for n in self.resolutions):
            raise ValueError(f"train.resolutions are numbers of nodes, at least 2; got {self.resolutions}.")


def native_bfloat16() -> bool:
    """Whether this processor multiplies in bfloat16; where it does not, emulation is slower than float32."""
    if torch.cuda.is_available():
        return torch.cuda.is_bf16_supported(including_emulation=False)
    probes = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")  # not in every release
    return any(bool(getattr(torch.cpu, probe, bool)()) for probe in probes)


@dataclass(frozen=True, kw_only=True)
class Budget:
    """What training may cost. Whichever limit comes first ends it, with the schedule run to its end."""

    epochs: int | None = None
    seconds: float | None = None

    def __post_init__(self) -> None:
        if self.epochs is not None and self.epochs < 1:
            raise ValueError(f"A budget has at least 1 epoch, got {self.epochs}.")
        if self.seconds is not None and not self.seconds > 0:
            raise ValueError(f"A budget has more than 0 seconds, got {self.seconds}.")


@dataclass(frozen=True, kw_only=True)
class Preset:
    """What ``--preset`` means for one model on one problem: options of its ``build`` and of the :class:`Recipe`."""

    model: Mapping[str, Any] = field(default_factory=dict)
    train: Mapping[str, Any] = field(default_factory=dict)
    seconds: float | None = None  # time limit of the training; None: none
