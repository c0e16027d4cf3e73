r"""Inversion: from noisy, sparse observations to samples of inputs and solution, for any model with a latent.

.. math:: \pi(z, \sigma \mid y) \propto p(y \mid u(\cdot\,; z), \sigma)\, p(z)\, p(\sigma)

``hmc``          samples of the posterior itself (``_hamiltonian.py``), started from its modes
``variational``  of the Gaussian that fits it best (``_modes.py``)
``laplace``      of the Gaussian at its mode
``map``          its mode alone: deviations are then only those that the decoder states
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from ..data.observations import Observations, check_clear
from ..pde import Grid, Signature
from ._discrepancy import Discrepancy, Seen
from ._drawn_fields import Drawing
from ._hamiltonian import sample
from ._information import Known, learnt
from ._latent import WithLatent
from ._log_posterior import LogPosterior
from ._mixing import effective_size, split_rhat
from ._modes import Gaussian, Modes, find_modes, laplace, variational
from ._posterior import Posterior

Method = Literal["hmc", "variational", "laplace", "map"]
Progress = Callable[[float, str], None]

WORTH = 10.0  # nats below the best mode at which another one still starts a chain


@dataclass(frozen=True, kw_only=True)
class Inversion:
    """How a posterior is looked for.

    method    hmc: samples of the posterior; variational, laplace: of a Gaussian fitted to it; map: its mode
    samples   how many are kept
    chains    of hmc
    warmup    transitions of each chain before draws count
    draws     transitions of each chain that count
    starts    from which the mode is sought
    steps     of the search for the mode, and of the variational fit
    rank      of the variational covariance, beside one deviation an unknown; 0: full
    equation  as many virtual observables as the equation counts for: residuals of what is decoded, 0 each, with the
              deviation that they have on held-out samples; not of laplace
    seed      of all that is drawn
    """

    method: Method = "hmc"
    samples: int = 400
    chains: int = 8
    warmup: int = 200
    draws: int = 200
    starts: int = 16
    steps: int = 300
    rank: int = 0
    equation: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.method not in get_args(Method):
            raise ValueError(f"The method is one of {', '.join(get_args(Method))}; got {self.method!r}.")
        least = {"samples": 2, "chains": 2, "warmup": 20, "draws": 4, "starts": 1, "steps": 1, "rank": 0, "equation": 0}
        for name, value in least.items():
            if getattr(self, name) < value:
                raise ValueError(f"An inversion needs {name} of at least {value}, got {getattr(self, name)}.")
        of_others = {"hmc": ("chains", "warmup", "draws"), "variational": ("rank",)}
        for method, names in of_others.items():
            for name in names:
                if self.method != method and getattr(self, name) != getattr(type(self), name):
                    raise ValueError(f"{name} is an option of the method {method}, and does nothing in {self.method}.")
        if self.equation and self.method == "laplace":
            raise ValueError("laplace fits the readings alone: for the equation use hmc, variational or map.")
        if self.chains * self.draws < self.samples and self.method == "hmc":
            raise ValueError(
                f"{self.chains} chains of {self.draws} draws are fewer than the {self.samples} samples to keep."
            )


def invert(
    model: WithLatent,
    observations: Observations,
    signature: Signature,
    grid: Grid,
    *,
    how: Inversion = Inversion(),
    discrepancy: Discrepancy | None = None,
    dtype: torch.dtype = torch.float32,
    progress: Progress | None = None,
) -> Posterior:
    """The posterior on ``grid`` given one set of observations.

    discrepancy   the model's own error, measured on held-out samples; None: its decoder is taken at its word
    dtype         in which the model computes

    Raises ``ValueError`` for observations that this problem cannot have.
    """
    return invert_all(
        model, [observations], signature, grid, how=how, discrepancy=discrepancy, dtype=dtype, progress=progress
    )[0]


def invert_all(
    model: WithLatent,
    many: Sequence[Observations],
    signature: Signature,
    grid: Grid,
    *,
    how: Inversion = Inversion(),
    discrepancy: Discrepancy | None = None,
    dtype: torch.dtype = torch.float32,
    progress: Progress | None = None,
) -> list[Posterior]:
    """Posteriors of several unknown states seen by the same sensors, found together."""
    started = time.perf_counter()
    target = _target(model, many, signature, grid, discrepancy, dtype, how.equation)
    generator = Generator().manual_seed(how.seed)
    known = Known.of(target, generator)
    modes = _modes(target, known, how, progress)
    found = _METHODS[how.method](target, modes, how, generator, progress)
    evidence = laplace(target, modes).bound
    posteriors = []
    for i in range(len(many)):
        states, told = learnt(
            target,
            known,
            i,
            found.states[i],
            found.judged[i],
            found.told[i],
            float(evidence[i]),
            method=how.method,
            generator=generator,
        )
        drawing = Drawing(target, signature, grid, discrepancy, generator)
        seconds = (time.perf_counter() - started) / len(many)
        posteriors.append(drawing.posterior(many[i], i, states, told, seconds))
    return posteriors


def _target(
    model: WithLatent,
    many: Sequence[Observations],
    signature: Signature,
    grid: Grid,
    discrepancy: Discrepancy | None,
    dtype: torch.dtype,
    equation: int,
) -> LogPosterior:
    places = [observations.places(signature, grid) for observations in many]
    first = many[0]
    alike = all(
        torch.equal(place, places[0]) and one.field == first.field and (one.noise is None) == (first.noise is None)
        for place, one in zip(places, many, strict=True)
    )
    if not alike:
        raise ValueError(
            "Posteriors are found together for one field at the same points, with noise known for all or for none; "
            "invert these observations one by one."
        )
    noise = None if first.noise is None else torch.tensor([float(o.noise or 0.0) for o in many], dtype=torch.float64)
    check_clear(places[0], model.clear(places[0]))
    seen = Seen.of(discrepancy, first.field, places[0], model.input_errors.get(first.field, 0.0))
    phased = bool(model.phases) and first.field == signature.inputs[0].name
    values = torch.stack([one.values for one in many])
    if equation and (discrepancy is None or discrepancy.residual is None):
        raise ValueError(
            "equation compares residuals with those on held-out samples, and none were measured: give the run "
            "validation samples (--setup.validation), or leave equation out."
        )
    virtual = equation / discrepancy.residual if equation and discrepancy and discrepancy.residual else 0.0
    return LogPosterior(model, first.field, places[0], values, noise, seen, dtype, phased, virtual)


def _modes(target: LogPosterior, known: Known, how: Inversion, progress: Progress | None) -> Modes:
    """From the draws of the prior that the values like best, so that few starts go far."""
    chosen = known.likelihood.topk(min(how.starts, len(known.states)), dim=1).indices
    return find_modes(target, known.states[chosen], known.widest, steps=how.steps, progress=_named(progress, "mode"))


def _named(progress: Progress | None, word: str) -> Callable[[float], None] | None:
    return None if progress is None else lambda part: progress(part, word)


@dataclass(frozen=True, eq=False)
class _Found:
    """Samples of each posterior, and what the method says about them."""

    states: Float[Tensor, "truth sample size"]
    judged: Float[Tensor, "truth sample size"]  # by which the information is judged
    told: list[dict[str, float | int]]


def _by_hmc(target: LogPosterior, modes: Modes, how: Inversion, g: Generator, progress: Progress | None) -> _Found:
    chains = sample(
        target,
        _starts(modes, how.chains, g),
        modes.frame,
        draws=how.draws,
        warmup=how.warmup,
        generator=g,
        progress=_named(progress, "sampling"),
    )
    told: list[dict[str, float | int]] = []
    for i in range(len(chains.states)):
        watched = torch.cat([chains.states[i], chains.log_density[i][..., None]], dim=-1)
        told.append(
            {
                "rhat": float(split_rhat(watched).max()),
                "ess": float(effective_size(watched).min()),
                "acceptance": float(chains.acceptance[i]),
                "divergent": int(chains.divergent[i]),
            }
        )
    pooled = chains.states.transpose(1, 2).flatten(1, 2)  # by draw, then by chain: thinning takes from all chains
    kept = torch.linspace(0, pooled.shape[1] - 1, how.samples, dtype=torch.float64).round().long()
    return _Found(pooled[:, kept], pooled[:, kept], told)


def _starts(modes: Modes, chains: int, generator: Generator) -> Float[Tensor, "truth chain size"]:
    """Around the ends of the search that are worth it, in turn, the best first."""
    starts = []
    for ends, densities, best in zip(modes.ends, modes.ends_density, modes.best, strict=True):
        order = densities.argsort(descending=True)
        worth = ends[order[densities[order] > densities.max() - WORTH]]
        worth = torch.cat([best[None], worth[1:]])
        starts.append(worth[torch.arange(chains) % len(worth)])
    around = torch.randn(len(starts), chains, modes.best.shape[1], generator=generator, dtype=torch.float64)
    return torch.stack(starts) + around @ modes.frame.factor.mT


def _by_gaussian(target: LogPosterior, gaussian: Gaussian, how: Inversion, g: Generator) -> _Found:
    drawn = gaussian.sample(how.samples, generator=g)
    return _Found(drawn, drawn, [{} for _ in target.values])


def _by_variation(
    target: LogPosterior, modes: Modes, how: Inversion, g: Generator, progress: Progress | None
) -> _Found:
    fitted = variational(
        target, modes, rank=how.rank, steps=how.steps, generator=g, progress=_named(progress, "variational fit")
    )
    return _by_gaussian(target, fitted, how, g)


def _by_laplace(target: LogPosterior, modes: Modes, how: Inversion, g: Generator, progress: Progress | None) -> _Found:
    return _by_gaussian(target, laplace(target, modes), how, g)


def _at_mode(target: LogPosterior, modes: Modes, how: Inversion, g: Generator, progress: Progress | None) -> _Found:
    around = laplace(target, modes).sample(how.samples, generator=g)  # a mode has no width to judge by
    return _Found(modes.best[:, None].expand(-1, how.samples, -1), around, [{} for _ in target.values])


_METHODS = {"hmc": _by_hmc, "variational": _by_variation, "laplace": _by_laplace, "map": _at_mode}
