"""latent_ode: what the encoder sees, the bound that is minimised, irregular series, refusals."""

from __future__ import annotations

import math

import pytest
import torch
from resolvent.dynamics._series import pace
from resolvent.dynamics.latent_ode import Encoder, LatentODE, Series, build
from resolvent.pde.van_der_pol import VanDerPol
from resolvent.training import Budget, Recipe
from torch import Generator, Tensor

PROBLEM = VanDerPol(frames=6)
GRID = PROBLEM.grid(2)


def made(**options: object) -> LatentODE:
    torch.manual_seed(0)
    size = {"latent": 3, "width": 8, "layers": 1, "recipe": Recipe(epochs=2, batch=8, unroll=3)}
    return build(PROBLEM, GRID, **{**size, **options})


def circles(count: int = 24) -> tuple[list[float], Tensor]:
    """Points on a circle from random phases, at uneven times."""
    times = [0.0, 0.3, 0.4, 0.9, 1.3, 1.4, 2.0]
    phase = 6.28 * torch.rand(count, 1, generator=Generator().manual_seed(0)) + torch.tensor(times)
    return times, torch.stack([phase.cos(), phase.sin()], dim=2)


def test_what_was_not_observed_does_not_matter_and_what_was_does() -> None:
    torch.manual_seed(0)
    encoder, times = Encoder(2, 3, width=8, given=0), torch.tensor([0.0, 0.5, 2.0, 2.5])
    values = torch.randn(5, 4, 2)
    mask = torch.ones(5, 4, 2)
    mask[:, 2] = 0
    mask[:, 1, 1] = 0
    changed = torch.where(mask > 0, values, 77.0)
    first, second = encoder(times, values, mask, None), encoder(times, changed, mask, None)
    torch.testing.assert_close(first, second)
    # a time at which nothing was seen could as well be missing
    kept = [0, 1, 3]
    torch.testing.assert_close(encoder(times[kept], values[:, kept], mask[:, kept], None), first)
    assert not torch.allclose(encoder(times, values + mask, mask, None)[0], first[0])
    assert not torch.allclose(encoder(times * 2, values, mask, None)[0], first[0])


def test_the_encoder_is_the_recurrence_written_step_by_step() -> None:
    """A cell backwards over all times, at rest where nothing was seen; one series was not seen at all.

    With an observation goes the time since the one before it, or since the first of all times.
    """
    torch.manual_seed(0)
    encoder, times = Encoder(2, 3, width=8, given=0), torch.tensor([0.0, 0.5, 2.0, 2.5, 2.6])
    values, mask = torch.randn(6, 5, 2), (torch.rand(6, 5, 2) < 0.4).float()
    mask[3] = 0
    cell = torch.nn.GRUCell(5, 8)
    cell.load_state_dict({name.removesuffix("_l0"): value for name, value in encoder.cell.state_dict().items()})
    hidden, known = torch.zeros(6, 8), mask.amax(dim=2) > 0
    for n in range(4, -1, -1):
        gap = torch.stack([times[n] - max([times[m] for m in range(n) if row[m]] or [times[0]]) for row in known])
        inputs = torch.cat([values[:, n] * mask[:, n], mask[:, n], gap[:, None]], dim=1)
        hidden = torch.where(known[:, n, None], cell(inputs, hidden), hidden)
    mean, _ = encoder.head(torch.zeros(()), hidden, None).chunk(2, dim=1)
    torch.testing.assert_close(encoder(times, values, mask, None)[0], mean)


def test_the_pace_of_series_is_their_rate() -> None:
    """Straight lines of slopes 2 and 0, seen at uneven times: root mean square over the channels, sqrt(2)."""
    times = [0.0, 0.1, 1.0, 4.0]
    values = torch.tensor(times)[None, :, None] * torch.tensor([2.0, 0.0])
    values = torch.cat([values, values + 50])  # nothing is told from one series to the next
    seen = torch.ones(2, 4, 2, dtype=torch.bool)
    assert pace(times, values, seen) == pytest.approx(2**0.5)
    seen[0, 1] = False
    assert pace(times, torch.where(seen, values, 99.0), seen) == pytest.approx(2**0.5)
    with pytest.raises(ValueError, match="observed twice"):
        pace(times, values, seen & (torch.arange(4) == 2)[None, :, None])


def test_the_encoder_knows_how_far_back_the_start_lies() -> None:
    """The same observations, asked for the state at another time before them."""
    torch.manual_seed(0)
    encoder, values = Encoder(2, 3, width=8, given=0), torch.randn(1, 3, 2)
    mask = torch.tensor([0.0, 1.0, 1.0])[None, :, None].expand(1, 3, 2)
    first, second = (encoder(torch.tensor([0.0, t, t + 1]), values, mask, None)[0] for t in (0.5, 2.0))
    assert not torch.allclose(first, second, atol=1e-3)


def test_what_is_compared_grows_to_the_whole_and_begins_anywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """The stretches that are integrated, by what the solver was asked for at each stage of the training."""
    times, values = [0.0, 0.5, 1.0, 3.0, 10.0], torch.randn(4, 5, 2, generator=Generator().manual_seed(0))
    for grow, progress, allowed in (
        (0.5, 0.0, {(0.0, 0.5, 1.0), (0.5, 1.0), (1.0, 3.0), (3.0, 10.0)}),
        (0.5, 0.125, {(0.0, 0.5, 1.0, 3.0), (0.5, 1.0, 3.0), (1.0, 3.0), (3.0, 10.0)}),
        (0.5, 0.5, {tuple(times)}),
        (0.0, 0.0, {tuple(times)}),
    ):
        solver = made(grow=grow, recipe=Recipe(batch=1), method="heun_euler", rtol=0.5, atol=0.5, control="batch")
        seen: set[tuple[float, ...]] = set()
        solved = solver._solved
        monkeypatch.setattr(type(solver), "progress", property(lambda _, p=progress: p))
        monkeypatch.setattr(
            solver, "_solved", lambda a, b, t, s=seen, f=solved, **o: (s.add(tuple(t)), f(a, b, t, **o))[1]
        )
        solver.fit_series(Series(times, values), budget=Budget(epochs=6 if len(allowed) > 1 else 1))
        assert seen == allowed


def test_the_bound_is_likelihood_and_divergence_in_closed_form() -> None:
    """With q = N(m, s^2) fixed by the head's bias and a decoder that says 0: |x|^2 / 2 sigma^2 and KL by hand."""
    solver = made(sigma=0.5, beta=2.0)
    with torch.no_grad():
        for module in (solver.encoder.head.last, solver.decoder.last):  # type: ignore[union-attr]
            for parameter in module.parameters():
                parameter.zero_()
        solver.encoder.head.last.bias[:3] = 0.7
    values = torch.randn(4, 3, 2, generator=Generator().manual_seed(1))
    judged = torch.ones_like(values)
    judged[:, 2] = 0
    solver._trainer = None  # progress 0: the divergence has no weight yet
    told = ([0.0, 0.2, 0.4], values, judged, judged, None)
    found = solver._bound(*told, Generator().manual_seed(0), 0.4)
    expected = values[:, :2].square().sum(dim=(1, 2)) / 4 / (2 * 0.25)
    torch.testing.assert_close(found, expected)
    type(solver).progress, kept = property(lambda _: 1.0), type(solver).progress  # type: ignore[method-assign,assignment]
    try:
        full = solver._bound(*told, Generator().manual_seed(0), 0.4)
    finally:
        type(solver).progress = kept  # type: ignore[method-assign]
    deviation = 1e-4 + math.log(2.0)  # softplus of zero
    divergence = 0.5 * (0.49 + deviation**2 - 1 - 2 * math.log(deviation))
    torch.testing.assert_close(full - found, torch.full((4,), 2.0 * divergence))


def test_irregular_series_are_learned_and_followed() -> None:
    """Uneven times, a third of the values missing: the misfit falls to a third of what it was, at most."""
    times, values = circles()
    mask = (torch.rand(values.shape[:2], generator=Generator().manual_seed(1)) < 0.67)[..., None].expand_as(values)
    series = Series(times, values, mask.clone())
    solver = made(
        latent=4, width=16, recipe=Recipe(batch=24, learning_rate=1e-2, validate_every=60), rtol=1e-3, control="batch"
    )
    solver.states.fit(lambda: iter([values.flatten(0, 1)]), 1)
    before = solver._misfit(series)
    history = solver.fit_series(series, budget=Budget(epochs=120), validation=series)
    assert history.rows[-1]["validation"] < before / 3
    between = solver.follow(series, [0.0, 0.65, 3.0])
    assert between.shape == (24, 3, 2)
    torch.testing.assert_close(solver.follow(series, [0.65]), between[:, 1:2], rtol=1e-3, atol=1e-3)
    alone = solver.follow(Series(times, values[3:4], mask[3:4]), [0.65])
    torch.testing.assert_close(alone, between[3:4, 1:2], rtol=1e-3, atol=1e-3)


def test_refined_starts_find_series_of_the_models_own_again() -> None:
    """What the model itself says from known starts, seen at some times, comes back at all; one series at a time too."""
    times, solver = [0.0, 0.3, 0.4, 0.9, 1.3, 1.4, 2.0], made(sigma=0.1, beta=0.0, rtol=1e-3, control="batch")
    with torch.no_grad():
        for parameter in solver.decoder.parameters():
            parameter.mul_(4.0)  # fresh networks say little
        start = 0.5 * torch.randn(4, 3, generator=Generator().manual_seed(3))
        truth = solver._decoded(solver._solved(start, None, times, trace=False))
    mask = (torch.rand(4, 7, generator=Generator().manual_seed(1)) < 0.7)[..., None].expand(4, 7, 2)
    series = Series(times, torch.where(mask, truth, 7.0), mask)
    plain, refined = (solver.follow(series, times, refine=n) for n in (0, 60))
    away = [float((found - truth).square().mean().sqrt()) for found in (plain, refined)]
    assert away[1] < 0.1 * away[0]
    alone = solver.follow(Series(times, series.values[2:3], mask[2:3]), times, refine=60)
    torch.testing.assert_close(alone, refined[2:3], rtol=0, atol=1e-2)  # steps are the batch's
    with pytest.raises(ValueError, match="refine is a number of updates"):
        solver.follow(series, times, refine=-1)


def test_a_start_at_another_time_is_the_same_series() -> None:
    times, values = circles(3)
    solver = made()
    shifted = Series([t + 5 for t in times], values)
    torch.testing.assert_close(
        solver.follow(shifted, [5.0, 6.1]), solver.follow(Series(times, values), [0.0, 1.1]), rtol=1e-4, atol=1e-5
    )


def test_bad_series_and_options_are_refused() -> None:
    times, values = circles(2)
    for bad, told in (
        ([0.0, 0.3, 0.3, 0.9, 1.3, 1.4, 2.0], "after position 1 comes 0.3 behind 0.3"),
        ([0.0, 0.3], "2 times and 7 values"),
    ):
        with pytest.raises(ValueError, match=told):
            Series(bad, values)
    with pytest.raises(ValueError, match="put 0 where the mask"):
        Series(times, torch.full_like(values, torch.nan))
    solver = made()
    with pytest.raises(ValueError, match="strictly increase from 0"):
        solver.follow(Series(times, values), [0.5, 0.4])
    with pytest.raises(ValueError, match="sigma is positive"):
        made(sigma=0.0)
    with pytest.raises(ValueError, match=r"no use for train\.objective"):
        made(recipe=Recipe(objective="mean_square"))
