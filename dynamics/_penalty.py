"""Regularisers by the words of the command line, with their weights over the training."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from ._odeint import Gradient
from ._regularisers import ERNODE, ERNODE_PAPER, SRNODE, SRNODE_PAPER, Global, Local, Weight
from ._solution import Solution
from ._tableaus import tableau_named

WORDS: dict[str, Global | Local] = {
    "ernode": ERNODE,
    "ernode_paper": ERNODE_PAPER,
    "srnode": SRNODE,
    "srnode_paper": SRNODE_PAPER,
    "local": Local(measure="error"),
    "local_unbiased": Local(measure="error", sampling="unbiased"),
    "local_stiffness": Local(measure="stiffness"),
    "local_released": Local(measure="error", variant="released"),
}


@dataclass(frozen=True)
class Penalty:
    """A weighted sum of regularisers."""

    terms: tuple[tuple[Global | Local, Weight], ...]

    @classmethod
    def of(
        cls, words: str, weight: float, final: float, stiffness: float, method: str, gradient: Gradient
    ) -> Penalty | None:
        """From words joined by ``+``; None for ``none``."""
        if words == "none":
            return None
        terms = []
        for word in words.split("+"):
            if word not in WORDS:
                raise ValueError(f"Unknown regulariser {word!r}: none, or words joined by + of {', '.join(WORDS)}.")
            term = WORDS[word]
            if isinstance(term, Global) and gradient != "discrete":
                raise ValueError(f"{word} needs gradient discrete: adjoint equations do not see the steps. Use local.")
            if term.measure == "stiffness" and tableau_named(method).stiffness is None:
                raise ValueError(f"{method} cannot see stiffness: with {word} use tsit5, dopri5 or heun_euler.")
            ends = (weight, final) if term.measure == "error" else (stiffness, stiffness)
            terms.append((term, Weight(start=ends[0], end=ends[1])))
        return cls(tuple(terms))

    def __call__(
        self,
        function: Callable[[Tensor, Tensor], Tensor],
        solution: Solution,
        progress: float,
        generator: Generator,
    ) -> Float[Tensor, ""]:
        total = torch.zeros((), device=solution.states.device)
        for term, weight in self.terms:
            value = term(solution) if isinstance(term, Global) else term(function, solution, generator=generator)
            total = total + weight(progress) * value
        return total
