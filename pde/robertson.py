r"""Robertson's three reactions, the stiff system of every textbook: concentrations (A, B, C)(0) -> later.

.. math:: \dot a = -k_1 a + k_3 b c,\quad \dot b = k_1 a - k_2 b^2 - k_3 b c,\quad \dot c = k_2 b^2

A -> B slowly, 2 B -> B + C very fast, B + C -> A + C fast.

a, b, c   concentrations  [1]; their sum stays what it was
k1        slow rate       [1/s]  given: 0.04
k2        fastest rate    [1/s]  given: 3e7
k3        fast rate       [1/s]  given: 1e4

Robertson 1966; Hairer and Wanner II, section IV.10, from (1, 0, 0): at t = 40 it is (0.7158, 9.185e-6, 0.2842), at
t = 1e11 (2.083340149701255e-8, 8.333360770334713e-14, 0.9999999791665050). b is 1e-5 of a: a learner needs it scaled.

Law of the states: c(0) uniform in [0, largest], b(0) = 0, sum 1; ours. The common state is (1, 0, 0).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from ._grid import Grid
from ._periodic import check_positive
from ._problem import Channel, Setup, Signature
from ._system import State, System


@dataclass(frozen=True, kw_only=True)
class Robertson(System):
    """Time scales from 1e-4 s to ever longer ones."""

    k1: float = 0.04  # slow rate [1/s]
    k2: float = 3e7  # fastest rate [1/s]
    k3: float = 1e4  # fast rate [1/s]
    largest: float = 0.5  # of c(0)
    frames: int = 40
    spacing: float = 1.0  # time between frames [s]

    setups: ClassVar[Mapping[str, Setup]] = {
        "quick": Setup(resolution=2, train=128, validation=16, test=32),
        "paper": Setup(resolution=2, train=1000, validation=100, test=200),
    }
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "robertson_1966": {"k1": 0.04, "k2": 3e7, "k3": 1e4},
    }

    def __post_init__(self) -> None:
        check_positive(k1=self.k1, k2=self.k2, k3=self.k3, frames=self.frames, spacing=self.spacing)
        if not 0 < self.largest <= 1:
            raise ValueError(f"largest is a share of the whole in (0, 1], got {self.largest}.")

    @property
    def signature(self) -> Signature:
        state = (Channel("a"), Channel("b"), Channel("c"))
        return Signature(state, state, self.frames, self.spacing, "s")

    def sample(self, count: int, grid: Grid, *, generator: Generator) -> Tensor:
        made = self.largest * torch.rand(count, generator=generator, dtype=torch.float64)
        return torch.stack([1 - made, torch.zeros_like(made), made], dim=1)

    def check(self, state: State) -> None:
        bad = (state < 0).any(dim=1).nonzero().flatten().tolist()
        if bad:
            raise ValueError(f"Concentrations are not negative; they are in sample(s) {bad[:8]}.")

    @property
    def stiff(self) -> bool:
        return True

    def slope(self, state: State) -> State:
        a, b, c = state.unbind(dim=1)
        slow, back, made = self.k1 * a, self.k3 * b * c, self.k2 * b**2
        return torch.stack([back - slow, slow - made - back, made], dim=1)

    def jacobian(self, state: State) -> Float[Tensor, "batch row column"]:
        _, b, c = state.unbind(dim=1)
        zero, slow = torch.zeros_like(b), torch.full_like(b, self.k1)
        by_b, by_c, made = self.k3 * c, self.k3 * b, 2 * self.k2 * b
        rows = ((-slow, by_b, by_c), (slow, -made - by_b, -by_c), (zero, made, zero))
        return torch.stack([torch.stack(row, dim=1) for row in rows], dim=1)


build = Robertson
