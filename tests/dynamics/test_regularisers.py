"""Regularisers: their gradients, their sampling, and what the released local variant does wrong."""

from __future__ import annotations

import pytest
import torch
from resolvent.dynamics import (
    ERNODE,
    ERNODE_PAPER,
    SRNODE,
    SRNODE_PAPER,
    Global,
    Local,
    Solution,
    Weight,
    odeint,
)
from torch import Generator, Tensor, nn

F64 = torch.float64


class Right(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = nn.Linear(2, 6, dtype=F64), nn.Linear(6, 2, dtype=F64)

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        return self.second(torch.tanh(2 * self.first(y))) * (1 + 0.3 * torch.sin(3 * t))


def start() -> Tensor:
    return torch.randn(4, 2, dtype=F64, generator=Generator().manual_seed(3))


def solved(right: nn.Module, **options: object) -> Solution:
    return odeint(right, start(), [0.0, 2.0], trace=True, **{"rtol": 1e-4, "atol": 1e-5, **options})


def test_aggregates_are_what_they_are_called() -> None:
    solution = solved(Right())
    trace = solution.trace
    assert trace is not None
    assert trace.stiffness is not None
    terms = (trace.error * trace.step)[:, 0]
    torch.testing.assert_close(ERNODE(solution), terms.mean())
    torch.testing.assert_close(ERNODE_PAPER(solution), terms.sum())
    torch.testing.assert_close(SRNODE(solution), trace.stiffness.max() / 3.5068)
    torch.testing.assert_close(SRNODE_PAPER(solution), trace.stiffness.sum() / 3.5068)


@pytest.mark.parametrize("regulariser", [ERNODE, SRNODE], ids=["ERNODE", "SRNODE"])
@pytest.mark.parametrize("control", ["batch", "sample"])
def test_the_gradient_is_that_of_differences_with_the_steps_frozen(regulariser: Global, control: str) -> None:
    right = Right()
    value = lambda: regulariser(solved(right, step=0.21, control=control))  # noqa: E731
    got = torch.autograd.grad(value(), right.second.bias)[0]
    expected = []
    for i in range(2):
        ends = []
        for sign in (1, -1):
            with torch.no_grad():
                right.second.bias[i] += sign * 1e-6
                ends.append(float(value()))
                right.second.bias[i] -= sign * 1e-6
        expected.append((ends[0] - ends[1]) / 2e-6)
    torch.testing.assert_close(got, torch.tensor(expected, dtype=F64), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("control", ["batch", "sample"])
@pytest.mark.parametrize("measure", ["error", "stiffness"])
def test_the_local_step_is_the_solvers_own(measure: str, control: str) -> None:
    """Taken again from each accepted step's start it gives that step's term: biased sampling averages to the mean."""
    right = Right()
    solution = solved(right, control=control)
    trace = solution.trace
    assert trace is not None
    local = Local(measure=measure)
    for n in range(len(trace.time)):
        taken = trace.taken[n]
        if not bool(taken.all()):
            continue
        lanes = len(taken)
        got = local.at(right, trace, torch.full((lanes,), n), torch.zeros(lanes, dtype=F64))
        terms = trace.error * trace.step.to(trace.error) if measure == "error" else trace.stiffness / 3.5068
        torch.testing.assert_close(got, terms[n].mean(), rtol=1e-9, atol=1e-14)


def test_biased_sampling_draws_each_step_but_the_last_alike() -> None:
    trace = solved(Right()).trace
    assert trace is not None
    generator, steps = Generator().manual_seed(0), len(trace.time)
    drawn = torch.cat([Local(measure="error").draw(trace, generator)[0] for _ in range(2000)])
    shares = torch.bincount(drawn, minlength=steps) / 2000
    assert float(shares[-1]) == 0.0
    assert float((shares[:-1] - 1 / (steps - 1)).abs().max()) < 4 * (1 / (steps - 1) / 2000) ** 0.5


def test_biased_sampling_of_each_samples_own_steps() -> None:
    trace = solved(Right(), control="sample").trace
    assert trace is not None
    generator = Generator().manual_seed(0)
    for _ in range(200):
        chosen, _ = Local(measure="error").draw(trace, generator)
        for lane, n in enumerate(chosen.tolist()):
            assert bool(trace.taken[n, lane])
            assert n < int(trace.taken[:, lane].nonzero().max())


def test_the_unbiased_estimator_averages_to_the_quadrature_along_the_trajectory() -> None:
    """E(t) h(t) over t, by 20 points a step, against 400 draws: within three standard errors."""
    right, local = Right(), Local(measure="error", sampling="unbiased")
    trace = solved(right).trace
    assert trace is not None
    with torch.no_grad():
        total = 0.0
        for n in range(len(trace.time)):
            parts = (torch.arange(20, dtype=F64) + 0.5) / 20
            values = [float(local.at(right, trace, torch.tensor([n]), p[None])) for p in parts]
            total += sum(values) / 20 * float(trace.step[n, 0]) / 2.0
        generator = Generator().manual_seed(1)
        draws = torch.tensor([float(local.at(right, trace, *local.draw(trace, generator))) for _ in range(400)])
    assert abs(float(draws.mean()) - total) < 3 * float(draws.std()) / 20


def test_a_common_change_of_all_slopes_costs_nothing_unless_the_first_is_frozen() -> None:
    """y' = f + c: the error weights sum to zero, so d R / d c = 0 for a field of time alone; frozen k_1 breaks it."""
    shift = torch.zeros((), dtype=F64, requires_grad=True)
    right = lambda t, y: torch.sin(5 * t) * torch.ones_like(y) + shift  # noqa: E731
    solution = odeint(right, torch.ones(1, 1, dtype=F64), [0.0, 2.0], trace=True, rtol=0.0, atol=1e-5)
    assert solution.trace is not None
    place = (torch.tensor([2]), torch.zeros(1, dtype=F64))
    gradients = {}
    for variant in ("corrected", "released"):
        value = Local(measure="error", variant=variant).at(right, solution.trace, *place)
        gradients[variant] = abs(float(torch.autograd.grad(value, shift)[0]))
    assert gradients["corrected"] < 1e-9
    # |bt_1| h^2 / tol with the automatic initial step (about 1e-2): far from zero
    assert gradients["released"] > 1e-3


def test_a_local_regulariser_goes_with_any_adjoint_and_a_global_one_says_that_it_does_not() -> None:
    right = Right()
    for gradient in ("discrete", "backsolve", "interpolated"):
        solution = solved(right, gradient=gradient)
        value = Local(measure="error")(right, solution, generator=Generator().manual_seed(2))
        loss = solution.states[:, -1].square().sum() + value
        assert bool(torch.isfinite(torch.autograd.grad(loss, right.second.bias)[0]).all())
    with pytest.raises(ValueError, match='gradient="discrete"'):
        ERNODE(solution)


def test_what_is_missing_is_said() -> None:
    right = Right()
    with pytest.raises(ValueError, match="trace=True"):
        ERNODE(odeint(right, start(), [0.0, 1.0]))
    with pytest.raises(ValueError, match="bosh3 has no two stages"):
        SRNODE(solved(right, method="bosh3"))
    with pytest.raises(ValueError, match="positive"):
        Weight(start=0.0, end=1.0)


def test_weights_fall_exponentially() -> None:
    weight = Weight(start=100.0, end=1.0)
    assert [weight(x) for x in (0.0, 0.5, 1.0)] == pytest.approx([100.0, 10.0, 1.0])
