r"""Whether a posterior says how wrong it may be: ranks of truths among samples, coverage, and wrongly guessed phases.

rank       position of the truth among the samples, between 0 and 1; uniform for a posterior that is right (Talts et al.
           2018)
coverage   share of nodes whose rank lies in the central interval of a level: with values that never repeat, how often
           credible intervals hold the truth. Where values repeat, as phases do, the rank among equals is drawn:
           intervals of two values would otherwise hold nearly everything, and say nothing
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Generator, Tensor


def ranks(
    samples: Float[Tensor, "sample *rest"], truth: Float[Tensor, "*rest"], *, generator: Generator
) -> Float[Tensor, "*rest"]:
    """(samples below + U (equal samples + 1)) / (samples + 1), with U uniform for each value."""
    below = (samples < truth).double().sum(dim=0)
    equal = (samples == truth).double().sum(dim=0)
    chance = torch.rand(truth.shape, generator=generator, dtype=torch.float64)
    return (below + chance * (equal + 1)) / (len(samples) + 1)


def coverage(
    samples: Float[Tensor, "sample *rest"], truth: Float[Tensor, "*rest"], *, level: float = 0.9, generator: Generator
) -> float:
    """Share of values whose rank lies in the central interval; ``level`` for a posterior that is right."""
    if not 0 < level < 1:
        raise ValueError(f"A credible level lies between 0 and 1, got {level}.")
    inside = (ranks(samples, truth, generator=generator) - 0.5).abs() <= level / 2
    return float(inside.double().mean())


def likely(samples: Float[Tensor, "sample *rest"]) -> Float[Tensor, "*rest"]:
    """The most frequent value at each node: of a medium of phases, the phase to bet on."""
    return samples.mode(dim=0).values


def wrong_cells(samples: Float[Tensor, "sample *rest"], truth: Float[Tensor, "*rest"]) -> float:
    """Share of nodes where the phase to bet on is not the true one; phases are told apart by half their distance."""
    phases = truth.unique()
    if len(phases) < 2:
        return float((likely(samples) - truth).abs().gt(0.5 * truth.abs().max()).double().mean())
    nearest = 0.5 * float(phases.diff().min())
    return float((likely(samples) - truth).abs().gt(nearest).double().mean())


def relative_error(guess: Float[Tensor, "*rest"], truth: Float[Tensor, "*rest"]) -> float:
    """Relative L2 over nodes (and frames)."""
    guess, truth = guess.double(), truth.double()
    return float((guess - truth).norm() / truth.norm())
