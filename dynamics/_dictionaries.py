r"""Functions of the state in whose span a Koopman operator is looked for: ``state`` -> ``feature``, the same for all.

====================  ===========================================================  =================================
``Fourier``           exp(i n . 2 pi x / period), all \|n_j\| <= highest             tori: angles, phases
``Polynomials``       products of Legendre polynomials, total degree <= degree     boxes; well conditioned up to 10
``Hermite``           H_n(x / scale) exp(-x^2 / 2 scale^2), each variable          the line
``RadialBasis``       exp(-r / scale) about centres, and 1                         scattered data in few dimensions
``Product``           every product of features of the first and the other         mixed: an angle and a velocity
                      variables
====================  ===========================================================  =================================
"""

from __future__ import annotations

import itertools
import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Inexact
from scipy.cluster.vq import kmeans2
from torch import Tensor

States = Float[Tensor, "sample unknown"]
Features = Inexact[Tensor, "sample feature"]


class Dictionary(ABC):
    """Features of states; the first is the constant wherever the span holds it."""

    @abstractmethod
    def __call__(self, states: States) -> Features: ...


@dataclass(frozen=True)
class Fourier(Dictionary):
    """Waves on a torus.

    highest   wavenumber a variable
    periods   of each variable
    """

    highest: int
    periods: Sequence[float]

    def __call__(self, states: States) -> Features:
        _check_width(states, len(self.periods), "Fourier")
        numbers = sorted(
            itertools.product(range(-self.highest, self.highest + 1), repeat=len(self.periods)),
            key=lambda n: sum(abs(k) for k in n),
        )
        waves = torch.tensor(numbers, dtype=states.dtype) * 2 * math.pi / torch.tensor(self.periods, dtype=states.dtype)
        return torch.exp(1j * (states @ waves.T))


@dataclass(frozen=True)
class Polynomials(Dictionary):
    """Legendre polynomials on a box.

    degree         total degree
    lower, upper   of the box; features grow fast outside
    """

    degree: int
    lower: Sequence[float]
    upper: Sequence[float]

    @classmethod
    def around(cls, states: States, degree: int) -> Polynomials:
        """On the smallest box that holds these states."""
        low, high = states.amin(dim=0), states.amax(dim=0)
        wide = torch.where(high > low, high, low + 1)
        return cls(degree, low.tolist(), wide.tolist())

    def __call__(self, states: States) -> Features:
        _check_width(states, len(self.lower), "Polynomials")
        low, high = (torch.tensor(end, dtype=states.dtype) for end in (self.lower, self.upper))
        ladder = [torch.ones_like(states), 2 * (states - low) / (high - low) - 1]
        for n in range(1, self.degree):
            ladder.append(((2 * n + 1) * ladder[1] * ladder[n] - n * ladder[n - 1]) / (n + 1))
        table = torch.stack(ladder[: self.degree + 1])  # power sample unknown
        return torch.stack([_product_of(table, powers) for powers in _powers(self.degree, states.shape[1])], dim=1)


@dataclass(frozen=True)
class Hermite(Dictionary):
    """Hermite functions of each variable and their products, degree <= ``degree`` each; ``scale`` in its unit."""

    degree: int
    scale: float = 1.0

    def __call__(self, states: States) -> Features:
        x = states / self.scale
        ladder = [torch.exp(-0.5 * x**2) / math.pi**0.25]
        ladder.append(math.sqrt(2) * x * ladder[0])
        for n in range(1, self.degree):
            ladder.append(math.sqrt(2 / (n + 1)) * x * ladder[n] - math.sqrt(n / (n + 1)) * ladder[n - 1])
        table = torch.stack(ladder[: self.degree + 1])
        powers = itertools.product(range(self.degree + 1), repeat=states.shape[1])
        return torch.stack([_product_of(table, each) for each in powers], dim=1)


@dataclass(frozen=True)
class RadialBasis(Dictionary):
    """Bumps exp(-r / scale), and the constant."""

    centres: Float[Tensor, "centre unknown"]
    scale: float

    @classmethod
    def around(cls, states: States, count: int, *, seed: int = 0) -> RadialBasis:
        """Centres by k-means; the scale is the mean distance of the states to their mean."""
        if not 1 <= count <= len(states):
            raise ValueError(f"k-means finds 1 to {len(states)} centres in {len(states)} states, not {count}.")
        plain = states.detach().double().cpu().numpy()
        centres, _ = kmeans2(plain, count, minit="++", seed=np.random.default_rng(seed))
        scale = float((states - states.mean(dim=0)).norm(dim=1).mean())
        return cls(torch.from_numpy(centres), scale or 1.0)

    def __call__(self, states: States) -> Features:
        _check_width(states, self.centres.shape[1], "RadialBasis")
        bumps = torch.exp(-torch.cdist(states, self.centres.to(states)) / self.scale)
        return torch.cat([torch.ones_like(bumps[:, :1]), bumps], dim=1)


@dataclass(frozen=True)
class Product(Dictionary):
    """Every feature of the first ``split`` variables times every one of the others."""

    first: Dictionary
    second: Dictionary
    split: int

    def __call__(self, states: States) -> Features:
        one, other = self.first(states[:, : self.split]), self.second(states[:, self.split :])
        return (one[:, :, None] * other[:, None, :]).flatten(1)


def _powers(degree: int, variables: int) -> list[tuple[int, ...]]:
    every = itertools.product(range(degree + 1), repeat=variables)
    return sorted((powers for powers in every if sum(powers) <= degree), key=sum)


def _product_of(table: Float[Tensor, "power sample unknown"], powers: Sequence[int]) -> Float[Tensor, " sample"]:
    total = torch.ones_like(table[0, :, 0])
    for variable, power in enumerate(powers):
        total = total * table[power, :, variable]
    return total


def _check_width(states: Tensor, expected: int, name: str) -> None:
    if states.shape[1] != expected:
        raise ValueError(f"{name} was made for {expected} variables, got states of {states.shape[1]}.")
