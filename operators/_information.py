r"""How much observations say: the divergence of posterior from prior, in nats.

Where it is small it is measured on samples of the prior, exactly as their number N grows: with weights w in proportion
to the likelihood, :math:`\mathrm{KL} = \sum_i w_i \log(N w_i)`. Below 0.01 nats no probability differs by more than
0.071 (Pinsker) from what it was before: the posterior is then returned as what it is, the prior. Where few weights are
left, the evidence of the Gaussian at the mode takes their place: KL is the posterior's mean log likelihood minus it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from ._hamiltonian import Frame, sample
from ._latent import WithLatent
from ._log_posterior import CHUNK, NOISE_SPREAD, LogPosterior
from ._posterior import Diagnosis

SILENT = 0.01  # nats of information below which observations say nothing
PRIOR_DRAWS = 2048
FEW = 20.0  # effective draws of the prior below which their weights are not believed
MIXED = 1.05  # largest R-hat that passes without a word
FIT = 2.0  # mean squared misfit, in expected variances, that passes without a word


@dataclass(frozen=True, eq=False)
class Known:
    """Before the observations: draws of the prior, what they make of the values, how wide they are."""

    states: Float[Tensor, "draw size"]
    likelihood: Float[Tensor, "truth draw"]
    widest: float

    @classmethod
    def of(cls, target: LogPosterior, generator: Generator) -> Known:
        latents = prior_draws(target.model, PRIOR_DRAWS, target.dtype, generator)
        if target.noise is None:
            logs = NOISE_SPREAD * torch.randn(len(latents), 1, generator=generator, dtype=torch.float64)
            latents = torch.cat([latents, logs], dim=1)
        every = latents.expand(len(target.values), *latents.shape)
        with torch.no_grad():
            parts = [target.likelihood(part) for part in every.split(CHUNK, dim=1)]
        widest = float(torch.linalg.eigvalsh(torch.cov(latents.T).reshape(target.size, target.size))[-1])
        return cls(latents, torch.cat(parts, dim=1), widest)

    def information(self, truth: int) -> tuple[float, float]:
        """The divergence in nats by weights, and how many draws these leave."""
        weights = torch.softmax(self.likelihood[truth], dim=0)
        entropy = torch.special.entr(weights).sum()
        return max(0.0, math.log(len(weights)) - float(entropy)), float(1 / weights.square().sum())


def prior_draws(
    model: WithLatent, count: int, dtype: torch.dtype, generator: Generator
) -> Float[Tensor, "draw latent"]:
    """Latents before anything is observed, by the same sampler: as many chains as draws, one draw each."""
    size = model.latent_size

    def density(state: Tensor) -> Tensor:
        return model.log_prior(state.flatten(0, 1).to(dtype)).double().unflatten(0, state.shape[:2])

    start = torch.randn(1, count, size, generator=generator, dtype=torch.float64)
    frame = Frame(torch.zeros(1, size, dtype=torch.float64), torch.eye(size, dtype=torch.float64)[None])
    return sample(density, start, frame, draws=1, warmup=20, generator=generator).states[0, :, 0]


def learnt(
    target: LogPosterior,
    known: Known,
    i: int,
    states: Float[Tensor, "sample size"],
    judged: Float[Tensor, "sample size"],
    told: Mapping[str, float | int],
    evidence: float,
    *,
    method: str,
    generator: Generator,
) -> tuple[Float[Tensor, "sample size"], Diagnosis]:
    """The samples of one posterior, those of the prior where nothing was learnt, and the diagnosis."""
    one = target.only(i)
    information, left = known.information(i)
    source = "prior samples"
    if left < FEW:
        with torch.no_grad():
            likelihood = one.likelihood(judged[None]).mean()
        information, source = max(information, float(likelihood) - evidence), "gaussian"
    informed = information >= SILENT
    if not informed:
        picked = torch.randint(len(known.states), (len(states),), generator=generator)
        states, told = known.states[picked], {}
    with torch.no_grad():
        misfit = float((one.misfits(states[None]).square() / one.variances(states[None])).mean())
    return states, Diagnosis(
        method=method if informed else "prior",
        informed=informed,
        information=information,
        information_from=source,
        misfit=misfit,
        evidence=evidence - 0.5 * len(target.places) * math.log(2 * math.pi),
        notes=tuple(_notes(information, informed, misfit, told, method)),
        **told,  # type: ignore[arg-type]
    )


def _notes(
    information: float, informed: bool, misfit: float, told: Mapping[str, float | int], method: str
) -> list[str]:
    notes = []
    if not informed:
        notes.append(
            f"The observations say nothing: they carry {information:.2g} nats (less than {SILENT}), and the posterior "
            "is the prior. Observe at more points, away from where the field is fixed, or with less noise."
        )
    if told.get("rhat", 1.0) > MIXED:
        notes.append(
            f"The chains do not agree (R-hat {told['rhat']:.3g}, {told['ess']:.0f} effective samples): use more warmup "
            "and draws, or see whether the posterior has several modes."
        )
    if told.get("divergent", 0):
        notes.append(f"{told['divergent']} transitions diverged: the sampler may have missed narrow places.")
    if misfit > FIT:
        notes.append(
            f"The data are {misfit:.2g} times farther from what the model says than noise and its own error explain: "
            "the noise is larger than stated, or the truth is unlike anything the model has learnt."
        )
    if method == "map" and informed:
        notes.append("The mode alone: deviations are those that the decoder states, not those of the posterior.")
    return notes
