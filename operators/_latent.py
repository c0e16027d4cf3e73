r"""Solvers that generate inputs and solutions from one latent code: what an inversion needs, whichever network it is.

.. math:: p(z)\, p(a \mid z)\, \delta(u - u(\cdot; z)),\qquad z \in \mathbb R^{n}

Observations of the inputs or of the solution at any points turn the prior of z into a posterior (``_inference.py``).
Latents are unbounded numbers; a model whose codes live in a box maps them there itself and counts the volume in
``log_prior``. Physical units everywhere.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping

import torch
from jaxtyping import Bool, Float
from torch import Generator, Tensor

from ..pde import Grid

PHASES = "phases"  # the key of a medium's phase probabilities, beside the names of the channels


class WithLatent(ABC):
    """For fitted solvers whose inputs and outputs are functions of a latent vector."""

    @property
    @abstractmethod
    def latent_size(self) -> int:
        """Entries of a latent."""

    @abstractmethod
    def log_prior(self, latent: Float[Tensor, "batch latent"]) -> Float[Tensor, " batch"]:
        """The log density of each latent before anything is observed, normalised; differentiable."""

    @abstractmethod
    def fields(self, latent: Float[Tensor, "batch latent"], points: Float[Tensor, "point dim"]) -> Mapping[str, Tensor]:
        """Every channel of inputs and outputs by name, each ``batch point``; differentiable by the latent.

        A medium of several phases: its channel is the mean over the phases (values weighted by probabilities), and
        ``phases`` holds the probabilities, ``batch point phase``.
        """

    @abstractmethod
    def draw(
        self, latent: Float[Tensor, "batch latent"], points: Float[Tensor, "point dim"], *, generator: Generator
    ) -> Mapping[str, Tensor]:
        """Inputs by name, ``batch point``, drawn given the latent: a phase at each point, or a value with its noise."""

    @property
    def phases(self) -> tuple[float, ...]:
        """Values of a medium of phases, in the order of their probabilities; none for continuous inputs."""
        return ()

    @property
    def input_errors(self) -> Mapping[str, float]:
        """Standard deviations of continuous inputs about ``fields``, as ``draw`` has them; none: no error."""
        return {}

    def clear(self, points: Float[Tensor, "point dim"]) -> Bool[Tensor, " point"]:
        """Which points of the box are in the domain: all but those inside an obstacle."""
        return torch.ones(len(points), dtype=torch.bool)

    def residual(self, latent: Float[Tensor, "batch latent"]) -> Float[Tensor, " batch"] | None:
        """How far what is decoded is from solving the equation for the decoded input: a square, 0 where it does;
        differentiable. None for a model that knows no equation.
        """
        return None

    @abstractmethod
    def encode(self, inputs: Float[Tensor, "batch channel *space"], grid: Grid) -> Float[Tensor, "batch latent"]:
        """The latent that the model gives these inputs: the mean, where it gives a distribution."""
