r"""Latent ordinary differential equation: series observed now and then, as one smooth hidden trajectory.

    h_0 = GRU over the observations, backwards in time        q(z_0) = N(mu(h_0), s(h_0)^2)
    \dot z = f(z, a),  x(t) = D(z(t)),                        -L = |x - x_obs|^2 / (2 sigma^2) + beta KL(q | N(0, I))

x      coordinates of the state: channels of a plain system, POD coefficients of a field    a   what is given beside it
mask   what was observed: the GRU sees values, mask and the time since the observation before (or since time 0, so that
       it knows how far back the state lies that it is asked for), and rests where nothing was

The likelihood is averaged over what was observed, the divergence over latent dimensions (Rubanova, Chen and Duvenaud,
NeurIPS 2019; the settings of Pal et al. 2021: no differential equation in the encoder). ``beta`` grows linearly over
the first third of the training; over its share ``grow`` so does the stretch that is integrated and compared: a long
trajectory has poor minima (one that rests in the middle), a short one has not, and is cheaper. A short stretch of a
series may begin anywhere in it, as time does not enter.

As a solver of an evolution it is asked with one observation, the state at time 0; it is trained on random parts of
windows of frames, that state always among them, so that it serves both. :meth:`LatentODE.follow` takes series as they
are: any times, any of the values missing; :meth:`LatentODE.fit_series` trains on them. What the encoder says of a
series it has learned from others; ``refine`` goes on from there to the z_0 that minimises the bound's own sum for this
series (q being a point: semi-amortised, Kim et al., ICML 2018).
"""

from __future__ import annotations

import bisect
from collections.abc import Mapping, Sequence
from typing import Any, Literal, final

import torch
from jaxtyping import Float
from torch import Generator, Tensor, nn

from ..data import Dataset
from ..pde import Grid, Problem, Signature
from ..training import Budget, History, Preset, Recipe
from ..training._loop import Trainer
from ._coordinates import Coordinates, rates_of
from ._learner import LearnedDynamics, check_learnable, conditions_of, counted, in_a_vector, trajectories
from ._networks import Dense, Flow, bound
from ._odeint import Control, odeint
from ._penalty import Penalty
from ._series import Rows, Series, backwards, pace
from ._solution import Solution

WARM_UP = 1 / 3  # share of the training over which beta grows
SHORTEST = 0.1  # of the stretch, where training begins (``grow``)
SMALLEST = 1e-4  # deviation of q
REFINING = 0.03  # rate of ``refine``, in units of the latent state
ROUNDING = 1e-9  # of a stretch: its end belongs to it


class Encoder(nn.Module):
    """Observations backwards in time -> mean and deviation of the latent state at the first of all times."""

    def __init__(self, unknowns: int, latent: int, *, width: int, given: int) -> None:
        super().__init__()
        self.cell = nn.GRU(2 * unknowns + 1, width, batch_first=True)
        self.head = Dense(width, 2 * latent, width=width, layers=1, given=given)

    def forward(
        self,
        times: Tensor,
        values: Float[Tensor, "batch time unknown"],
        mask: Float[Tensor, "batch time unknown"],
        given: Tensor | None,
    ) -> tuple[Float[Tensor, "batch latent"], Float[Tensor, "batch latent"]]:
        """Times from 0, in units in which the series change by about one."""
        place, number = backwards(mask.amax(dim=2) > 0)
        row = torch.arange(len(values), device=values.device)[:, None]
        seen, clock = mask[row, place], times[place]
        before = torch.cat([clock[:, 1:], times[:1].expand(len(values), 1)], dim=1)
        first = torch.arange(place.shape[1], device=values.device) >= number[:, None] - 1
        gap = clock - torch.where(first, times[0], before)
        states, _ = self.cell(torch.cat([values[row, place] * seen, seen, gap[..., None]], dim=2))
        hidden = states[row[:, 0], number.clamp_min(1) - 1] * (number > 0)[:, None]
        mean, raw = self.head(times.new_zeros(()), hidden, given).chunk(2, dim=1)
        return mean, SMALLEST + nn.functional.softplus(raw)


@final
class LatentODE(LearnedDynamics):
    """See the head of this file; ``parts`` of the module are encoder, flow and decoder."""

    def __init__(
        self,
        signature: Signature,
        grid: Grid,
        states: Coordinates,
        encoder: Encoder,
        flow: Flow,
        decoder: nn.Module,
        recipe: Recipe = Recipe(),  # noqa: B008 - frozen
        *,
        latent: int,
        sigma: float = 0.05,
        beta: float = 1e-3,
        grow: float = 0.0,
        penalty: Penalty | None = None,
        method: str = "tsit5",
        rtol: float = 1e-4,
        atol: float = 1e-5,
        control: Control = "sample",
    ) -> None:
        conditions = conditions_of(signature, grid, vector=True)
        parts = {"encoder": encoder, "flow": flow, "decoder": decoder}
        super().__init__(signature, grid, recipe, states, conditions, parts)
        if not (sigma > 0 and beta >= 0 and 0 <= grow <= 1):
            raise ValueError(
                f"sigma is positive, beta not negative and grow in [0, 1]; got {sigma}, {beta} and {grow}."
            )
        self.encoder, self.flow, self.decoder = encoder, flow, decoder
        self.latent, self.sigma, self.beta, self.grow, self.penalty = latent, sigma, beta, grow, penalty
        self.options: dict[str, Any] = {"method": method, "rtol": rtol, "atol": atol, "control": control}

    # ------------------------------------------------------------------ answering

    def trajectory(self, fields: Tensor, given: Tensor | None, times: Sequence[float]) -> Tensor:
        state = self.states(fields)[:, None]
        mean, _ = self._encoded([0.0], state, torch.ones_like(state), given)
        solution = self._solved(mean, given, [0.0, *times], trace=False)
        counts = solution.counts
        self.health = counted(counts.evaluations, counts.accepted, counts.rejected)
        found = self._decoded(solution)[:, 1:]
        return self.states.inverse(found.flatten(0, 1)).unflatten(0, found.shape[:2])

    @torch.no_grad()
    def follow(self, series: Series, times: Sequence[float], *, refine: int = 0) -> Float[Tensor, "batch time channel"]:
        """The series at any times after its first: between its observations and beyond them.

        refine   updates by which each series' start is fitted to its observations, from what the encoder says
        """
        self._plain("follow")
        if refine < 0:
            raise ValueError(f"refine is a number of updates, at least 0; got {refine}.")
        begin = float(series.times[0])
        if min(times) < begin or any(b <= a for a, b in zip(times, times[1:], strict=False)):
            raise ValueError(f"Asked times strictly increase from {begin:g}, the first of the series; got {times[:8]}.")
        state, seen = self.states(_rows(series.values)), series.seen
        values, mask = (_back(x, series.values) for x in (state, _rows(seen)))
        mean, _ = self._encoded(list(series.times), values, mask.to(values), None)
        if refine:
            mean = self._refined(mean, list(series.times), values, mask.to(values), refine)
        later = [t for t in times if t > begin]
        solution = self._solved(mean, None, [begin, *later] if later else [begin, begin + 1.0], trace=False)
        found = self._decoded(solution)[:, 1 - (len(later) < len(times)) : 1 + len(later)]
        return _back(self.states.inverse(_rows(found)), found).to(series.values)

    @torch.enable_grad()
    def _refined(self, mean: Tensor, times: list[float], values: Tensor, judged: Tensor, updates: int) -> Tensor:
        """Adam on the starts alone, at a rate that falls to zero; series do not see each other."""
        start = mean.detach().clone().requires_grad_()
        optimizer = torch.optim.Adam([start], lr=REFINING)
        for i in range(updates):
            optimizer.param_groups[0]["lr"] = REFINING * (1 - i / updates)
            solution = self._solved(start, None, times, trace=False)
            total = self._misfit_of(solution, values, judged) + 0.5 * self.beta * start.square().mean(dim=1)
            (start.grad,) = torch.autograd.grad(total.sum(), start)
            optimizer.step()
        return start.detach()

    def _misfit_of(self, solution: Solution, values: Tensor, judged: Tensor) -> Float[Tensor, " batch"]:
        """The likelihood's part of the bound."""
        squares = (self._decoded(solution) - values).square() * judged
        return squares.flatten(1).sum(dim=1) / judged.flatten(1).sum(dim=1).clamp_min(1) / (2 * self.sigma**2)

    def _plain(self, what: str) -> None:
        if self.grid.axes or self.signature.given:
            raise ValueError(f"{what} takes series of plain systems: no space, nothing given beside the state.")

    def _encoded(
        self, times: Sequence[float], values: Tensor, mask: Tensor, given: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        clock = (torch.tensor(times, dtype=torch.float64) - times[0]).to(values) * self.flow.rate[0]
        return self.encoder(clock, values, mask, given)

    def _solved(self, start: Tensor, given: Tensor | None, times: Sequence[float], *, trace: bool) -> Solution:
        clock = [t - times[0] for t in times]
        beside = () if given is None else (given,)
        return odeint(self.flow, start, clock, **self.options, given=beside, trace=trace)

    def _decoded(self, solution: Solution) -> Float[Tensor, "batch time unknown"]:
        zero = solution.states.new_zeros(())
        return self.decoder(zero, _rows(solution.states)).unflatten(0, solution.states.shape[:2])

    # ------------------------------------------------------------------ learning

    def loss(self, fields: Tensor, given: Tensor | None, targets: Tensor, noise: Generator) -> Tensor:
        """On a random part of each window: its share is uniform too, so that some see the first state only."""
        whole = torch.cat([fields[:, None], targets], dim=1)
        values = self.states(whole.flatten(0, 1)).unflatten(0, whole.shape[:2])
        share, chance = torch.rand(len(values), 1, generator=noise), torch.rand(values.shape[:2], generator=noise)
        seen = chance < share
        seen[:, 0] = True
        mask = seen[..., None].to(values).expand_as(values)
        times = [0.0, *self.frames(targets.shape[1])]
        return self._bound(times, values, mask, torch.ones_like(mask), given, noise, self._share * times[-1])

    def _bound(
        self,
        times: Sequence[float],
        values: Tensor,
        mask: Tensor,
        judged: Tensor,
        given: Tensor | None,
        noise: Generator,
        length: float,
    ) -> Float[Tensor, " batch"]:
        """The negative evidence bound; what the encoder sees (``mask``) and what is compared (``judged``), which are
        the times within ``length``, two at least.
        """
        mean, deviation = self._encoded(times, values, mask, given)
        start = mean + deviation * torch.randn(mean.shape, generator=noise).to(mean)
        count = max(2, bisect.bisect_right(times, times[0] + length * (1 + ROUNDING)))
        values, judged = values[:, :count], judged[:, :count]
        solution = self._solved(start, given, times[:count], trace=self.penalty is not None)
        misfit = self._misfit_of(solution, values, judged)
        divergence = 0.5 * (mean.square() + deviation.square() - 1 - 2 * deviation.log()).mean(dim=1)
        total = misfit + self.beta * min(1.0, self.progress / WARM_UP) * divergence
        if self.penalty is None:
            return total
        return total + self.penalty(bound(self.flow, given), solution, self.progress, noise)

    @property
    def _share(self) -> float:
        """Of the whole stretch, what is compared at this stage of the training."""
        return SHORTEST + (1 - SHORTEST) * min(1.0, self.progress / self.grow) if self.grow else 1.0

    def prepare(self, data: Dataset) -> None:
        deviation, rate = rates_of(self.states, trajectories(data), self.signature.spacing)
        self._paced(float((rate / deviation).mean()))

    def _paced(self, omega: float) -> None:
        ones = torch.ones_like(self.flow.rate)
        self.flow.fit(ones, omega * ones)

    def fit_series(
        self,
        series: Series,
        *,
        budget: Budget = Budget(),  # noqa: B008 - frozen
        validation: Series | None = None,
    ) -> History:
        """Train on irregular series: of each, a random part is shown and all that was observed is compared."""
        self._plain("fit_series")
        seen = series.seen
        self.states.fit(lambda: iter([_rows(series.values)[_rows(seen).all(dim=1)]]), 1)
        times = list(series.times)
        self._paced(pace(times, self.states(_rows(series.values)).unflatten(0, seen.shape[:2]), seen))

        def loss(values: Tensor, mask: Tensor, noise: Generator) -> Tensor:
            length = self._share * (times[-1] - times[0])
            # not behind the last time but one: there are two to compare
            room = bisect.bisect_right(times[:-1], times[-1] - length * (1 - ROUNDING))
            begin = int(torch.randint(max(1, room), (), generator=noise))
            values, mask = values[:, begin:], mask[:, begin:]
            state = _back(self.states(_rows(values)), values)
            judged = mask.to(state)
            shown = torch.rand(judged.shape[:2], generator=noise) < 0.5 + 0.5 * torch.rand(
                len(state), 1, generator=noise
            )
            return self._bound(times[begin:], state, judged * shown[..., None], judged, None, noise, length)

        self._trainer = Trainer(
            self.module,
            loss,
            Rows(series.values.float(), seen),
            recipe=self.recipe,
            budget=budget,
            validate=None if validation is None else lambda: self._misfit(validation),
        )
        try:
            return self._trainer.run()
        finally:
            self._trainer = None

    def _misfit(self, series: Series) -> float:
        """Root of the mean square over what was observed, in deviations of the channels."""
        found = self.follow(Series(series.times, series.values.float(), series.mask), list(series.times))
        errors = (self.scaled(found) - self.scaled(series.values.float())).square()
        return float((errors * series.seen).sum().div(series.seen.sum()).sqrt())


def _rows(values: Tensor) -> Tensor:
    return values.flatten(0, 1)


def _back(rows: Tensor, like: Tensor) -> Tensor:
    return rows.unflatten(0, like.shape[:2])


def build(
    problem: Problem,
    grid: Grid,
    *,
    latent: int = 8,
    width: int = 64,
    layers: int = 2,
    components: int = 16,
    energy: float = 0.9999,
    sigma: float = 0.05,
    beta: float = 1e-3,
    grow: float = 0.0,
    regulariser: str = "none",
    weight: float = 1.0,
    final_weight: float = 0.0,
    stiffness_weight: float = 0.1,
    method: Literal["tsit5", "dopri5", "bosh3", "heun_euler"] = "tsit5",
    rtol: float = 1e-4,
    atol: float = 1e-5,
    control: Control = "sample",
    recipe: Recipe = Recipe(),  # noqa: B008 - frozen
) -> LatentODE:
    """A latent ODE for an evolution.

    latent            dimensions of the hidden state
    width             hidden units of encoder, right-hand side and decoder
    layers            hidden layers of the right-hand side and the decoder
    components        POD modes of a field, at most
    energy            share of the variance that the POD modes hold
    sigma             deviation of the observations' noise, in deviations of the coordinates
    beta              weight of the divergence from the prior
    grow              share of the training over which the compared stretch grows to the whole; 0: whole from the start
    regulariser       none, or words joined by + (as neural_ode)
    weight            of the error regulariser, in units of 1/tolerance
    final_weight      to which it changes over the training, exponentially; 0: it stays
    stiffness_weight  of the stiffness regulariser
    method            of integration, explicit
    rtol              tolerance of the local error, relative
    atol              the same in units of the latent state
    control           one step size for the batch (quicker to train), or one for each sample
    """
    check_learnable(problem, recipe, "latent_ode", objective=False)
    if latent < 1:
        raise ValueError(f"latent is at least 1, got {latent}.")
    size: dict[str, Any] = {"width": width, "layers": layers, "components": components, "energy": energy}
    states, network, given = in_a_vector(problem.signature, grid, **size)
    unknowns = states.shape[0]
    return LatentODE(
        problem.signature,
        grid,
        states,
        Encoder(unknowns, latent, width=width, given=given),
        Flow(network, latent, dim=0),
        Dense(latent, unknowns, width=width, layers=layers),
        recipe,
        latent=latent,
        sigma=sigma,
        beta=beta,
        grow=grow,
        penalty=Penalty.of(regulariser, weight, final_weight or weight, stiffness_weight, method, "discrete"),
        method=method,
        rtol=rtol,
        atol=atol,
        control=control,
    )


def _quick(problem: Problem) -> Preset:
    frames = max(1, problem.signature.frames)
    train = {"epochs": 60, "batch": 64, "learning_rate": 5e-3, "unroll": min(frames, 20), "weight_decay": 0.0}
    return Preset(train=train, seconds=120.0)


def _paper(problem: Problem) -> Preset:
    """The Physionet experiment of Pal et al. 2021; there: AdaMax, tolerance 1.4e-8 (rounding in single precision)."""
    size = {"latent": 20, "width": 50, "layers": 4, "sigma": 0.01, "beta": 1.0, "rtol": 2e-6, "atol": 2e-6}
    steered = {"regulariser": "ernode", "weight": 1000.0, "final_weight": 100.0, "control": "batch"}
    frames = max(1, problem.signature.frames)
    train = {"epochs": 300, "batch": 512, "learning_rate": 1e-2, "unroll": min(frames, 48), "weight_decay": 0.0}
    return Preset(model={**size, **steered}, train=train)


PRESETS: Mapping[tuple[str, str], object] = {("quick", "*"): _quick, ("paper", "*"): _paper}
