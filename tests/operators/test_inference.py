"""Posteriors against closed forms: waves with Gaussian amplitudes, seen through a linear map with Gaussian noise."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from resolvent.data import Dataset
from resolvent.data.observations import Observations
from resolvent.operators._discrepancy import Discrepancy, measured
from resolvent.operators._inference import Inversion, invert, invert_all
from resolvent.operators._information import SILENT
from resolvent.operators._posterior import Posterior
from resolvent.operators.dgno import build
from resolvent.pde import Channel, Signature
from resolvent.pde.darcy import Darcy

from ._latent_waves import (
    DOUBLE,
    GAUSSIAN,
    GRID,
    NOISE,
    SHORT,
    SIGNATURE,
    SIZE,
    Decaying,
    Phases,
    Squared,
    Waves,
    assert_gaussian,
    exact,
    found,
    seen,
)


@pytest.mark.parametrize("method", ["hmc", "variational", "laplace"])
@pytest.mark.parametrize("noise", [NOISE, 0.5], ids=["data", "prior"])
def test_a_gaussian_posterior_is_met(method, noise):
    """Sensors see a linear map with Gaussian noise: mean and covariance are known. The data decide, then the prior."""
    _, observations = seen(Waves(), noise=noise)
    how = dataclasses.replace(SHORT if method == "hmc" else GAUSSIAN, method=method, steps=200)
    posterior = found(Waves(), observations, how)
    mean, covariance = exact(observations, noise**2 * torch.eye(12, dtype=DOUBLE))
    told = posterior.diagnosis
    assert_gaussian(posterior.latents, mean, covariance, effective=told.ess or len(posterior))
    assert told.informed
    assert told.method == method


def test_the_mode_of_a_gaussian_is_its_mean():
    """Found to rounding, for the polish is Newton's method on a quadratic."""
    _, observations = seen(Waves())
    posterior = found(Waves(), observations, dataclasses.replace(GAUSSIAN, method="map", steps=5))
    mean, _ = exact(observations, NOISE**2 * torch.eye(12, dtype=DOUBLE))
    torch.testing.assert_close(posterior.latents[0], mean, rtol=0, atol=1e-9)
    assert any("The mode alone" in note for note in posterior.diagnosis.notes)


def test_low_rank_and_full_covariance_agree_where_the_rank_is_full():
    _, observations = seen(Waves())
    how = dataclasses.replace(GAUSSIAN, method="variational", rank=SIZE, steps=300)
    mean, covariance = exact(observations, NOISE**2 * torch.eye(12, dtype=DOUBLE))
    assert_gaussian(found(Waves(), observations, how).latents, mean, covariance, effective=400)
    with pytest.raises(ValueError, match="rank is at most"):
        found(Waves(), observations, dataclasses.replace(how, rank=SIZE + 1))


def test_chains_are_judged():
    """Independent chains on a Gaussian: they agree, accept as they should, and give a good part of their draws."""
    _, observations = seen(Waves())
    told = found(Waves(), observations).diagnosis
    assert told.rhat < 1.05
    assert told.ess > 100
    assert 0.65 < told.acceptance < 0.95
    assert told.divergent == 0


def test_the_noise_is_inferred():
    """Against quadrature over its logarithm, with the amplitudes integrated out in closed form."""
    _, observations = seen(Waves(), 30, told=False)
    posterior = found(Waves(), observations, dataclasses.replace(SHORT, draws=80))
    design = Waves().waves(observations.points, 2.0)
    middle = 0.1 * float(observations.values.square().mean().sqrt())
    logs = torch.linspace(-6, 6, 2001, dtype=DOUBLE)
    sigmas = middle * logs.exp()
    zero = torch.zeros(30, dtype=DOUBLE)
    weights = torch.stack(
        [
            torch.distributions.MultivariateNormal(
                zero, design @ design.T + s**2 * torch.eye(30, dtype=DOUBLE)
            ).log_prob(observations.values)
            - 0.5 * (log / 1.5) ** 2
            for s, log in zip(sigmas, logs, strict=True)
        ]
    ).softmax(dim=0)
    mean = (weights * sigmas.log()).sum()
    std = (weights * (sigmas.log() - mean).square()).sum().sqrt()
    effective = posterior.diagnosis.ess
    assert abs(posterior.noise.log().mean() - mean) < 4 * std / math.sqrt(effective)
    assert abs(posterior.noise.log().std() / std - 1) < 4 / math.sqrt(2 * effective)


def test_the_models_own_error_widens_the_posterior():
    """Errors of covariance noise^2 I + E E^T: the closed form again; and the error is learnt where it is seen."""
    _, observations = seen(Waves())
    x = GRID.mesh()[0]
    spread = 0.1 * torch.stack([torch.ones_like(x), torch.cos(3 * x)])
    mean_error = torch.full_like(x, 0.3)
    error = Discrepancy({"heat": mean_error}, {"heat": spread}, GRID, SIGNATURE)
    shifted = dataclasses.replace(observations, values=observations.values + 0.3)
    how = dataclasses.replace(GAUSSIAN, samples=4000)
    posterior = found(Waves(), shifted, how, discrepancy=error)
    columns = error.at("heat", observations.points)[1]
    covariance = NOISE**2 * torch.eye(12, dtype=DOUBLE) + columns @ columns.T
    mean, inverse = exact(observations, covariance)
    assert_gaussian(posterior.latents, mean, inverse, effective=4000)
    # the solution itself, decoder and error together, is Gaussian too: amplitudes and columns are one linear model
    at_nodes = torch.cat([Waves().waves(GRID.mesh().T, 2.0), spread.T], dim=1)
    at_sensors = torch.cat([Waves().waves(observations.points, 2.0), columns], dim=1)
    precision = torch.eye(SIZE + 2, dtype=DOUBLE) + at_sensors.T @ at_sensors / NOISE**2
    joint = torch.linalg.solve(precision, at_sensors.T @ observations.values) / NOISE**2
    deviation = (at_nodes @ torch.linalg.inv(precision) @ at_nodes.T).diagonal().sqrt()
    heat = posterior.outputs[:, 0].double()
    inner = slice(1, -1)
    away = (heat.mean(dim=0) - at_nodes @ joint - 0.3)[inner] / deviation[inner]
    assert float(away.abs().max()) < 4 / math.sqrt(4000)
    assert float((heat.std(dim=0)[inner] / deviation[inner] - 1).abs().max()) < 4 / math.sqrt(8000)


def test_the_models_own_error_is_measured():
    """Outputs that are 0.2 too high, plus a random multiple of x, beyond what the decoder says."""
    generator = torch.Generator().manual_seed(0)
    latents = torch.randn(200, SIZE, generator=generator, dtype=DOUBLE)
    points, x = GRID.mesh().flatten(1).T, GRID.mesh()[0]
    made = Waves().fields(latents, points)
    slopes = 0.5 * torch.randn(200, 1, generator=generator, dtype=DOUBLE)
    outputs = made["heat"] + 0.2 + slopes * x
    data = Dataset.from_tensors(
        made["source"][:, None].float(), outputs[:, None].float(), grid=GRID, signature=SIGNATURE
    )
    error = measured(Waves(), data)
    torch.testing.assert_close(error.mean["heat"], 0.2 + slopes.mean() * x, rtol=0, atol=1e-4)
    variance = error.spread["heat"].square().sum(dim=0)
    torch.testing.assert_close(variance, slopes.var() * x.square(), rtol=0, atol=1e-4)
    again = Discrepancy.from_state(error.state(), GRID, SIGNATURE)
    torch.testing.assert_close(again.spread["heat"], error.spread["heat"], rtol=0, atol=0)
    assert measured(Waves(), data.subset(range(5))) is None


def test_how_much_was_learnt():
    """The divergence of two Gaussians in closed form: large by the Gaussian, small by weights of the prior's draws."""
    for noise, tolerance in ((NOISE, 0.05), (3.0, 0.1)):  # 2048 draws; 0.05 nats at least in the latter
        _, observations = seen(Waves(), noise=noise)
        mean, covariance = exact(observations, noise**2 * torch.eye(12, dtype=DOUBLE))
        nats = 0.5 * float(covariance.trace() + mean @ mean - SIZE - torch.logdet(covariance))
        how = dataclasses.replace(GAUSSIAN, samples=4000)
        told = found(Waves(), observations, how).diagnosis
        assert told.information == pytest.approx(nats, rel=tolerance)
        assert told.information_from == ("gaussian" if noise == NOISE else "prior samples")
        errors = Waves().waves(observations.points, 2.0)
        law = torch.distributions.MultivariateNormal(
            torch.zeros(12, dtype=DOUBLE), errors @ errors.T + noise**2 * torch.eye(12, dtype=DOUBLE)
        )
        assert told.evidence == pytest.approx(float(law.log_prob(observations.values)), abs=1e-6)


def test_observations_that_say_nothing_leave_the_prior():
    """Two sensors on the walls, where the field is zero whatever the source: no nats, and it says so."""
    walls = Observations("heat", torch.tensor([[0.0], [1.0]]), torch.tensor([0.01, -0.02]), NOISE)
    posterior = found(Waves(), walls, dataclasses.replace(SHORT, samples=400))
    told = posterior.diagnosis
    assert not told.informed
    assert told.method == "prior"
    assert told.information < SILENT
    assert "the posterior is the prior" in told.notes[0]
    assert_gaussian(posterior.latents, torch.zeros(SIZE, dtype=DOUBLE), torch.eye(SIZE, dtype=DOUBLE), effective=300)


def test_intervals_hold_the_truth_as_often_as_they_say():
    """60 truths of the prior, 5 amplitudes of each: ranks are uniform, so 90 % of 240 within 4 deviations (8 %)."""
    truths, many = zip(*(seen(Waves(), seed=seed) for seed in range(60)), strict=True)
    many = [dataclasses.replace(one, points=many[0].points) for one in many]
    clean = [Waves().fields(truth[None], many[0].points)["heat"][0] for truth in truths]
    noise = torch.randn(60, 12, generator=torch.Generator().manual_seed(1), dtype=DOUBLE)
    many = [dataclasses.replace(o, values=c + NOISE * e) for o, c, e in zip(many, clean, noise, strict=True)]
    how = dataclasses.replace(SHORT, samples=200, draws=25, steps=20, starts=2)
    posteriors = invert_all(Waves(), many, SIGNATURE, GRID, how=how, dtype=DOUBLE)
    ranks = torch.stack([(p.latents < truth).double().mean(dim=0) for p, truth in zip(posteriors, truths, strict=True)])
    inside = float(((ranks - 0.5).abs() <= 0.45).double().mean())
    assert abs(inside - 0.9) < 0.08
    assert abs(float(ranks.mean()) - 0.5) < 4 / math.sqrt(12 * 240)


def test_phases_have_probabilities():
    """Of a medium of two: they sum to one, the mean follows from them, draws take only the two values."""
    truth, observations = seen(Phases(), 12, noise=0.001)
    posterior = found(Phases(), observations)
    torch.testing.assert_close(posterior.phases.sum(dim=0), torch.ones(17, dtype=DOUBLE), rtol=0, atol=1e-12)
    torch.testing.assert_close(posterior.mean("source"), 1 + 2 * posterior.phases[1], rtol=0, atol=1e-12)
    assert set(posterior.inputs.unique().tolist()) <= {1.0, 3.0}
    drawn = (posterior.inputs[:, 0] == 3).double().mean(dim=0)
    assert float((drawn - posterior.phases[1]).abs().max()) < 4 * 0.5 / math.sqrt(400)
    known = Phases().high(truth[None], GRID.mesh().T)[0] > 0.5
    sure = (posterior.phases[1] - 0.5).abs() > 0.4
    assert bool(((posterior.phases[1] > 0.5) == known)[sure].all())
    assert int(sure.sum()) > 8


def test_two_modes_are_not_mistaken_for_one():
    """Only the square of the amplitude is seen: either both signs are among the samples, or a note warns of it."""
    points = torch.tensor([[0.5], [0.4]], dtype=DOUBLE)
    values = Squared().fields(torch.tensor([[1.5]], dtype=DOUBLE), points)["heat"][0]
    told = found(Squared(), Observations("heat", points, values, 0.02), dataclasses.replace(SHORT, starts=16))
    signs = told.latents.sign().unique()
    assert len(signs) == 2
    assert told.diagnosis.rhat > 1.05
    assert any("do not agree" in note for note in told.diagnosis.notes)
    assert float((told.latents.abs() - 1.5).abs().max()) < 0.1


def test_a_truth_that_the_model_cannot_have_is_noticed():
    """A jump of five noises between neighbours that no wave can follow."""
    points = torch.linspace(0.3, 0.7, 12, dtype=DOUBLE)[:, None]
    values = 0.5 * (-1.0) ** torch.arange(12, dtype=DOUBLE)
    told = found(Waves(), Observations("heat", points, values, 0.05)).diagnosis
    assert told.misfit > 2
    assert any("unlike anything" in note for note in told.notes)


def test_an_evolution_is_inverted():
    """Sensors in space and time; the input is the state at time 0, the output the later frames."""
    state = (Channel("u"),)
    signature = Signature(state, state, 2, 0.25, "s")
    generator = torch.Generator().manual_seed(0)
    points, times = torch.rand(2, 20, generator=generator, dtype=DOUBLE) * torch.tensor([[1.0], [0.5]])
    latent = torch.randn(1, SIZE, generator=generator, dtype=DOUBLE)
    places = torch.stack([points, times], dim=1)
    values = Decaying().fields(latent, places)["u"][0]
    observations = Observations("u", points[:, None], values, 1e-3, times)
    posterior = invert(Decaying(), observations, signature, GRID, how=SHORT, dtype=DOUBLE)
    assert posterior.outputs.shape == (400, 2, 1, 17)
    assert posterior.samples("u").shape == (400, 3, 17)
    for frame, time in enumerate((0.0, 0.25, 0.5)):
        at = torch.stack([GRID.mesh()[0], torch.full((17,), time, dtype=DOUBLE)], dim=1)
        truth = Decaying().fields(latent, at)["u"][0]
        torch.testing.assert_close(posterior.mean("u")[frame].double(), truth, rtol=0, atol=0.02)


def test_files_come_back_the_same(tmp_path):
    _, observations = seen(Phases())
    posterior = found(Phases(), observations, dataclasses.replace(GAUSSIAN, samples=10))
    posterior.save(tmp_path / "posterior.nc")
    back = Posterior.load(tmp_path / "posterior.nc")
    for name in ("inputs", "outputs", "expected", "phases", "latents", "noise", "places", "values", "predicted"):
        torch.testing.assert_close(getattr(back, name), getattr(posterior, name), rtol=0, atol=0)
    assert back.diagnosis == posterior.diagnosis
    assert back.grid == GRID
    held = posterior.to_xarray()
    assert held["source_mean"].attrs["units"] == "W"
    assert held["heat"].dims == ("sample", "x")
    assert set(held.coords) == {"sample", "x"}
    (tmp_path / "words.nc").write_text("words")
    with pytest.raises(ValueError, match="does not hold a posterior"):
        Posterior.load(tmp_path / "words.nc")


def test_intervals_are_quantiles():
    _, observations = seen(Waves())
    posterior = found(Waves(), observations, dataclasses.replace(GAUSSIAN, samples=2000))
    low, high = posterior.interval("heat", 0.9)
    inside = (posterior.outputs[:, 0] >= low) & (posterior.outputs[:, 0] <= high)
    assert float((inside[:, 1:-1].double().mean(dim=0) - 0.9).abs().max()) < 2e-3
    with pytest.raises(ValueError, match="between 0 and 1"):
        posterior.interval("heat", 90)
    with pytest.raises(ValueError, match="not 'pressure'"):
        posterior.mean("pressure")


def test_same_seed_same_samples():
    _, observations = seen(Waves())
    first, second = (found(Waves(), observations) for _ in range(2))
    torch.testing.assert_close(first.latents, second.latents, rtol=0, atol=0)
    other = found(Waves(), observations, dataclasses.replace(SHORT, seed=1))
    assert not torch.equal(first.latents, other.latents)


def test_what_cannot_be_inverted_is_refused():
    _, observations = seen(Waves())
    with pytest.raises(ValueError, match="outside the domain"):
        found(Waves(), dataclasses.replace(observations, points=observations.points + 1))
    with pytest.raises(ValueError, match="Unknown field 'warmth'"):
        found(Waves(), dataclasses.replace(observations, field="warmth"))
    moved = dataclasses.replace(observations, points=observations.points * 0.5)
    with pytest.raises(ValueError, match="one by one"):
        invert_all(Waves(), [observations, moved], SIGNATURE, GRID, how=SHORT, dtype=DOUBLE)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"method": "nuts"}, "one of hmc, variational, laplace, map"),
        ({"chains": 1}, "chains of at least 2"),
        ({"draws": 10, "chains": 2}, "fewer than the 400"),
        ({"method": "laplace", "chains": 3}, "chains is an option of the method hmc"),
        ({"rank": 3}, "rank is an option of the method variational"),
    ],
)
def test_options_are_checked(options, said, unchecked):
    with pytest.raises(ValueError, match=said):
        Inversion(**options)


def test_a_truth_that_the_model_has_made_is_recovered():
    """Every node of a DGNO's own solution, nearly without noise: its input comes back to below 1 %."""
    problem = Darcy(law="log_normal", source=10.0)
    grid = problem.grid(9)
    torch.manual_seed(0)
    model = build(problem, grid, width=24, layers=3, code=3, hidden="16")
    latent = torch.tensor([[1.0, -0.7, 0.4]])
    points = grid.mesh().flatten(1).T.float()
    with torch.no_grad():
        truth = model.fields(latent, points)
    noise = 1e-4 * float(truth["pressure"].square().mean().sqrt())
    observations = Observations("pressure", points, truth["pressure"][0], noise)
    how = dataclasses.replace(GAUSSIAN, method="map", starts=16, steps=200)
    posterior = invert(model, observations, problem.signature, grid, how=how)
    known = truth["coefficient"][0].reshape(9, 9).double()
    spread = float((known - known.mean()).norm() / known.norm())
    error = float((posterior.mean("coefficient") - known).norm() / known.norm())
    assert spread > 0.01  # there is something to find
    assert error < 0.01 * min(1.0, spread / 0.1)
