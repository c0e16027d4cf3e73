r"""A running mean of the weights along the training, which is usually better than where the training ends.

.. math:: m_{s+1} = d\, m_s + (1 - d)\, w_{s+1},\qquad d = \min\{D, (1 + s) / (10 + s)\},

w the weights after step s, D the decay: a plain mean of few weights at first, then one over about 1 / (1 - D) steps.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn


class Average:
    """The mean beside the parameters, and both exchanged while the mean is judged."""

    def __init__(self, parameters: Sequence[nn.Parameter], decay: float) -> None:
        self.parameters, self.decay = tuple(parameters), decay
        self.values: list[Tensor] = [p.detach().clone() for p in parameters]

    @torch.no_grad()
    def update(self, step: int) -> None:
        """After optimiser step number ``step``, from 0."""
        weight = 1 - min(self.decay, (1 + step) / (10 + step))
        for value, parameter in zip(self.values, self.parameters, strict=True):
            # lerp knows no complex numbers on every device
            value.add_(parameter - value, alpha=weight)

    @torch.no_grad()
    def put(self) -> None:
        """Give the parameters the values of the mean."""
        for value, parameter in zip(self.values, self.parameters, strict=True):
            parameter.copy_(value)

    def load(self, values: Sequence[Tensor]) -> None:
        for mine, value in zip(self.values, values, strict=True):
            mine.copy_(value)

    @contextlib.contextmanager
    def in_place(self) -> Iterator[None]:
        """The parameters are the mean inside, and what they were, bit for bit, after."""
        kept = [p.detach().clone() for p in self.parameters]
        self.put()
        try:
            yield
        finally:
            with torch.no_grad():
                for value, parameter in zip(kept, self.parameters, strict=True):
                    parameter.copy_(value)
