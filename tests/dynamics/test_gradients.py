"""Gradients: of the digits (discrete) and of the solution (adjoints)."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from resolvent.dynamics import odeint
from torch import Tensor, nn

F64 = torch.float64
TIMES = [0.0, 0.4, 1.0, 2.0]


class Right(nn.Module):
    """A small network with time in it."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = nn.Linear(3, 8, dtype=F64), nn.Linear(8, 2, dtype=F64)

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        clock = t.expand(len(y), 1) if t.ndim == 0 else t
        return self.second(torch.tanh(self.first(torch.cat([y, clock], dim=1))))


def start() -> Tensor:
    return torch.randn(3, 2, dtype=F64, generator=torch.Generator().manual_seed(1))


def loss_of(right: nn.Module, y: Tensor, **options: object) -> Tensor:
    states = odeint(right, y, TIMES, **options).states
    return (states.square() * torch.arange(1.0, 5.0, dtype=F64)[:, None]).sum()


def gradients(right: nn.Module, y: Tensor, **options: object) -> Tensor:
    y = y.clone().requires_grad_()
    found = torch.autograd.grad(loss_of(right, y, **options), [y, *right.parameters()])
    return torch.cat([g.flatten() for g in found])


def against_differences(got: Tensor, value: Callable[[], float], tensors: list[Tensor]) -> None:
    """Along three random directions in all numbers at once; central differences, their errors near 1e-9 of O(10)."""
    draws = torch.Generator().manual_seed(7)
    for _ in range(3):
        ways = [torch.randn(x.shape, dtype=F64, generator=draws) for x in tensors]
        ends = []
        with torch.no_grad():
            for move in (1e-5, -2e-5, 1e-5):
                for x, way in zip(tensors, ways, strict=True):
                    x += move * way
                ends.append(value())
        expected = (ends[0] - ends[1]) / 2e-5
        along = float(got @ torch.cat([way.flatten() for way in ways]))
        assert along == pytest.approx(expected, rel=1e-6, abs=1e-6)


@pytest.mark.parametrize("control", ["batch", "sample"])
@pytest.mark.parametrize("method", ["tsit5", "rodas4", "heun_euler"])
def test_the_discrete_gradient_is_that_of_the_numbers_computed(method: str, control: str) -> None:
    """Fixed steps, so that differences see the same discretisation; steps do not meet the asked times."""
    right, y = Right(), start()
    options = {"method": method, "step": 0.23, "control": control}
    got = gradients(right, y, **options)
    against_differences(got, lambda: float(loss_of(right, y, **options)), [y, *right.parameters()])


@pytest.mark.parametrize("control", ["batch", "sample"])
def test_adaptive_steps_are_numbers_to_the_gradient(control: str) -> None:
    """At a tight tolerance the choice of steps is of no account: the gradient is that of the solution."""
    right, y = Right(), start()
    options = {"rtol": 1e-11, "atol": 1e-11, "control": control}
    got = gradients(right, y, **options)
    against_differences(got, lambda: float(loss_of(right, y, **options)), [y, *right.parameters()])


@pytest.mark.parametrize(
    "options",
    [
        {"gradient": "backsolve"},
        {"gradient": "backsolve", "control": "sample"},
        {"gradient": "interpolated", "checkpoint": 1},
        {"gradient": "interpolated", "checkpoint": 3},
        {"gradient": "interpolated", "checkpoint": 1000},
    ],
    ids=str,
)
@pytest.mark.parametrize("tol", [1e-6, 1e-9])
def test_adjoints_meet_the_true_gradient_to_the_tolerance(options: dict, tol: float) -> None:
    """Documented: within 100 tolerances of O(10) gradients (measured: 1 to 30)."""
    right, y = Right(), start()
    truth = gradients(right, y, rtol=1e-12, atol=1e-12)
    got = gradients(right, y, rtol=tol, atol=tol, **options)
    assert float((got - truth).abs().max()) < 100 * tol * float(truth.abs().max())


@pytest.mark.parametrize("gradient", ["backsolve", "interpolated"])
def test_adjoints_run_backwards_in_time_too(gradient: str) -> None:
    right, y = Right(), start().requires_grad_()
    found = []
    for how in ("discrete", gradient):
        states = odeint(right, y, [1.0, 0.3, -0.5], gradient=how, rtol=1e-10, atol=1e-10).states
        found.append(
            torch.cat([g.flatten() for g in torch.autograd.grad(states.square().sum(), [y, *right.parameters()])])
        )
    torch.testing.assert_close(found[1], found[0], rtol=1e-7, atol=1e-7)


def test_nothing_is_recorded_where_nothing_asks_for_a_gradient() -> None:
    right, y = Right().requires_grad_(False), start()
    assert not odeint(right, y, TIMES).states.requires_grad


def test_an_adjoint_must_know_its_parameters() -> None:
    weight = torch.ones((), dtype=F64, requires_grad=True)
    right = lambda t, y: -weight * y  # noqa: E731
    with pytest.raises(ValueError, match=r"parameters=\(\.\.\.\)"):
        odeint(right, start(), TIMES, gradient="backsolve")
    with pytest.raises(ValueError, match='use gradient="discrete"'):
        odeint(Right(), start(), TIMES, gradient="backsolve", method="rodas4")
    with pytest.raises(ValueError, match='use control="batch"'):
        odeint(Right(), start(), TIMES, gradient="interpolated", control="sample")
    with pytest.raises(ValueError, match="no gradient is formed"):
        odeint(Right(), start(), torch.tensor(TIMES, requires_grad=True))


def test_a_rejected_attempt_that_is_not_finite_leaves_the_gradient_clean() -> None:
    """The square root is NaN beyond the singular line; the first step is made so long that it goes there."""
    y = torch.tensor([[1.0], [0.01]], dtype=F64, requires_grad=True)
    for control in ("batch", "sample"):
        right = lambda t, y: -torch.sqrt(y)  # noqa: E731
        states = odeint(right, y, [0.0, 0.1], first_step=0.099, control=control, rtol=1e-9, atol=1e-9).states
        (got,) = torch.autograd.grad(states[:, -1].sum(), y)
        # y = (sqrt(y0) - t/2)^2
        torch.testing.assert_close(got, ((y.sqrt() - 0.05) / y.sqrt()).detach(), rtol=1e-6, atol=1e-6)
