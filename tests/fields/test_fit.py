"""Fitting: exact on what is exact, resumed as if never stopped, gradients, bandwidth by held-out points, adjustment."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from resolvent.fields import siren, winner
from resolvent.fields._adjust import Adjustment, tangent_kernel
from resolvent.fields._fit import Plan, Samples, fit, gridded, heldout_error, represent
from resolvent.pde import Grid
from resolvent.training import Callback, DamagedCheckpoint, Diverged, Interrupted
from torch import Tensor

WALLS = Grid.box((20, 20), dim=2, boundary="dirichlet")


def wave(points: Tensor) -> tuple[Tensor, Tensor]:
    """sin 4x cos 3y and its gradient."""
    x, y = points.unbind(1)
    gradient = torch.stack([4 * torch.cos(4 * x) * torch.cos(3 * y), -3 * torch.sin(4 * x) * torch.sin(3 * y)], dim=1)
    return (torch.sin(4 * x) * torch.cos(3 * y))[:, None], gradient[:, None]


def samples(count: int = 200, **more: Any) -> Samples:
    points = torch.rand(count, 2, generator=torch.Generator().manual_seed(3))
    return Samples(points=points, values=wave(points)[0], **more)


def small(seed: int = 0) -> Any:
    return siren.field(WALLS, width=24, layers=2, first=5.0, seed=seed)


def test_a_smooth_field_is_learnt_between_the_points() -> None:
    field = small()
    history = fit(field, samples(300), Plan(steps=200, learning_rate=5e-3))
    fresh = torch.rand(500, 2, generator=torch.Generator().manual_seed(8))
    error = heldout_error(field, Samples(points=fresh, values=wave(fresh)[0]))
    assert error < 0.05
    assert history.status == "complete"
    assert history.rows[-1]["validation"] == pytest.approx(error, rel=1.0)  # 40 points estimate it


def test_gradients_alone_give_the_field_up_to_a_constant() -> None:
    known = samples(300)
    gradients = wave(known.points)[1]
    field = small()
    fit(
        field,
        dataclasses.replace(known, gradients=gradients),
        Plan(steps=150, learning_rate=5e-3, values=False, holdout=0),
    )
    with torch.no_grad():
        misfit = field(known.points) - known.values
    assert float((misfit - misfit.mean()).norm() / (known.values - known.values.mean()).norm()) < 0.05


class StopAt(Callback):
    """Asks to stop after so many steps."""

    def __init__(self, steps: int) -> None:
        self.left = steps

    def stop(self) -> bool:
        self.left -= 1
        return self.left == 0


def test_a_fit_that_was_stopped_goes_on_as_if_it_had_not_been(tmp_path: Path) -> None:
    plan = Plan(steps=12, batch=50, report_every=4)
    whole, stopped, resumed = small(), small(), small()
    fit(whole, samples(), plan)
    with pytest.raises(Interrupted, match="step 5 of 12"):
        fit(stopped, samples(), plan, callbacks=[StopAt(5)], checkpoint=tmp_path / "fit.pt")
    history = fit(resumed, samples(), plan, checkpoint=tmp_path / "fit.pt")
    assert [row["step"] for row in history.rows] == [4, 8, 12]
    for a, b in zip(whole.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(a, b)
    with pytest.raises(DamagedCheckpoint, match="another plan"):
        fit(small(), samples(), dataclasses.replace(plan, seed=1), checkpoint=tmp_path / "fit.pt")


def test_weights_of_points_are_those_of_repeated_points() -> None:
    """A point of weight 3 is a point given three times: the same fit, up to rounding of the sums."""
    once = samples(40, weights=torch.where(torch.arange(40) < 10, 3.0, 1.0))
    thrice = once.at(torch.cat([torch.arange(40), torch.arange(10), torch.arange(10)]))
    thrice = dataclasses.replace(thrice, weights=None)
    plan = Plan(steps=1, holdout=0)
    from resolvent.fields._fit import loss_of

    ones = (torch.ones(1), None)
    torch.testing.assert_close(loss_of(small(), once, plan, ones), loss_of(small(), thrice, plan, ones))


@pytest.mark.usefixtures("unchecked")
def test_bad_samples_and_plans_are_refused() -> None:
    with pytest.raises(ValueError, match="Non-finite values at 1 of 3"):
        Samples(points=torch.zeros(3, 2), values=torch.tensor([[1.0], [math.nan], [0.0]]))
    with pytest.raises(ValueError, match="are 2 for 3"):
        Samples(points=torch.zeros(3, 2), values=torch.zeros(2, 1))
    with pytest.raises(ValueError, match="steps"):
        Plan(steps=0)
    with pytest.raises(ValueError, match="none are given"):
        fit(small(), samples(), Plan(values=False))
    with pytest.raises(Diverged, match="lower the learning rate"):
        fit(small(), samples(), Plan(steps=4, learning_rate=1e30, schedule="constant"))


def test_bandwidth_is_chosen_by_points_held_out_and_noise_is_memorised() -> None:
    grid = Grid.box((16, 16), dim=2)
    noise = torch.randn(1, 16, 16, generator=torch.Generator().manual_seed(0))
    tried: list[float] = []

    def make(kappa: float) -> Any:
        tried.append(kappa)
        return winner.field(grid, values=noise, kappa=kappa, width=16, layers=2)

    _, _, errors = represent(noise, grid, make, Plan(steps=20), kappas=(0.2, 1.0))
    assert tried == [0.2, 1.0, 1.0]  # nothing predicts white noise between the nodes: the broadest is taken
    assert min(errors.values()) > 0.5
    with pytest.raises(ValueError, match="shape"):
        gridded(noise[..., :-1], grid)


@pytest.mark.slow
def test_winner_wins_the_spectral_bottleneck() -> None:
    """Dossier W3: SIREN gives zero, WINNER the signal (the table has 500 steps, here 150)."""
    n = 4096
    grid = Grid.box(n, dim=1, boundary="dirichlet")
    generator = torch.Generator().manual_seed(0)
    t = torch.arange(n) / n
    phases = 2 * math.pi * torch.rand(1200, generator=generator)
    signal = torch.stack([torch.cos(2 * math.pi * (400 + m) * t + phases[m]) for m in range(1200)]).sum(dim=0)[None]
    signal = signal / signal.std()
    plan = Plan(steps=150, learning_rate=1e-3, schedule="decay", holdout=0)
    errors = []
    for field in (
        siren.field(grid, width=64, layers=4),
        winner.field(grid, values=signal, kappa=1.0, width=64, layers=4),
    ):
        fit(field, gridded(signal, grid), plan)
        errors.append(heldout_error(field, gridded(signal, grid)))
    assert errors[0] > 0.95
    assert errors[1] < 0.1


def test_adjustment_flattens_the_kernel_and_none_is_the_plain_gradient() -> None:
    field, known = small(), samples(48)
    kernel = tangent_kernel(field, known.points[:12])
    assert kernel.shape == (12, 12)
    adjusted = Adjustment(groups=12, leading=3).matrix(kernel) @ kernel
    values = torch.linalg.eigvals(adjusted).real.sort(descending=True).values
    expected = torch.linalg.eigvalsh(kernel).flip(0)
    torch.testing.assert_close(values[:4], expected[3].expand(4), rtol=1e-6, atol=0)
    torch.testing.assert_close(values[4:8], expected[4:8], rtol=1e-4, atol=0)

    def gradient(adjust: Adjustment | None) -> Tensor:
        field.zero_grad()
        out = field(known.points)
        misfit = out - known.values
        loss = misfit.square().mean() if adjust is None else adjust.loss(field, known.points, out, misfit)
        loss.backward()
        return torch.cat([p.grad.flatten() for p in field.parameters()])

    plain = gradient(None)
    torch.testing.assert_close(gradient(Adjustment(groups=12, leading=0).on(known.points)), plain, rtol=1e-4, atol=1e-7)
    assert float((gradient(Adjustment(groups=12, leading=3).on(known.points)) - plain).norm() / plain.norm()) > 1e-2


def test_adjusted_descent_of_a_linear_model_equalises_the_leading_rates() -> None:
    """Gradient descent on f = J w: the component along v_i falls as exp(-lambda_i t), here with lambda_q for i < q."""
    j = torch.randn(8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(5))
    kernel = j @ j.t()
    values, vectors = torch.linalg.eigh(kernel)
    residual = vectors.sum(dim=1)
    change = kernel @ Adjustment(groups=8, leading=3).matrix(kernel) @ residual
    rates = vectors.t() @ change
    torch.testing.assert_close(rates[-4:], values[-4].expand(4))
    torch.testing.assert_close(rates[:4], values[:4], rtol=1e-8, atol=1e-10)


def test_groups_are_disjoint_neighbourhoods_led_by_their_middle() -> None:
    points = torch.rand(50, 2, generator=torch.Generator().manual_seed(1))
    members = Adjustment(groups=7, leading=2).on(points).members
    assert members is not None
    present = members[members >= 0]
    assert torch.equal(present.sort().values, torch.arange(50))
    for group in members:
        inside = points[group[group >= 0]]
        distance = (inside - inside.mean(dim=0)).norm(dim=1)
        assert int(distance.argmin()) == 0
