"""torchdiffeq as an oracle (skipped where it is not installed)."""

from __future__ import annotations

import pytest
import torch
from resolvent.dynamics import odeint
from resolvent.dynamics._systems import lotka_volterra, spiral

torchdiffeq = pytest.importorskip("torchdiffeq")
F64 = torch.float64


@pytest.mark.parametrize("right", [spiral, lotka_volterra])
@pytest.mark.parametrize("method", ["dopri5"])
def test_solutions_agree_to_the_tolerance(right: object, method: str) -> None:
    y, times = torch.tensor([[2.0, 0.5], [1.0, 1.0]], dtype=F64), torch.linspace(0, 3, 20, dtype=F64)
    ours = odeint(right, y, times, method=method, rtol=1e-8, atol=1e-8).states
    theirs = torchdiffeq.odeint(right, y, times, method=method, rtol=1e-8, atol=1e-8).movedim(0, 1)
    torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-6)  # either is within 100 tolerances


def test_gradients_agree_with_both_of_its_ways() -> None:
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(2, 10), torch.nn.Tanh(), torch.nn.Linear(10, 2)).double()

    class Right(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = net

        def forward(self, t: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            return self.net(y)

    right, y, times = Right(), torch.ones(3, 2, dtype=F64), torch.tensor([0.0, 0.5, 1.5], dtype=F64)
    tight = {"rtol": 1e-10, "atol": 1e-10, "method": "dopri5"}
    truth = torch.autograd.grad(torchdiffeq.odeint(right, y, times, **tight).square().sum(), list(net.parameters()))
    for how in ("discrete", "backsolve", "interpolated"):
        got = torch.autograd.grad(
            odeint(right, y, times, gradient=how, **tight).states.square().sum(), list(net.parameters())
        )
        for mine, other in zip(got, truth, strict=True):
            torch.testing.assert_close(mine, other, rtol=1e-7, atol=1e-8)
