"""The likelihood on a grid equals that of the dense matrix, value and gradient, whatever the rank and the noise."""

from __future__ import annotations

import pytest
import torch
from resolvent.gp._covariance import Covariance, Matern, SpectralMixture, SquaredExponential
from resolvent.gp._grid_likelihood import log_likelihood

MIXTURE = SpectralMixture(*(torch.tensor(v, dtype=torch.float64) for v in ([1.0, 0.5], [0.0, 3.0], [0.5, 0.4])))
CASES = [
    pytest.param((30, 30), (SquaredExponential(0.1), SquaredExponential(0.2)), 0.1, id="smooth"),
    pytest.param((9, 12), (SquaredExponential(0.1), Matern(1.5, 0.2)), 0.1, id="full rank"),
    pytest.param((9, 12), (SquaredExponential(0.1), Matern(1.5, 0.2)), 1e-9, id="little noise"),
    pytest.param((8, 11), (MIXTURE, Matern(2.5, 0.2)), 1e-3, id="waves"),
    pytest.param((5, 6, 7), (SquaredExponential(0.5), SquaredExponential(0.2), Matern(2.5, 0.3)), 0.01, id="3-D"),
    pytest.param((40,), (SquaredExponential(0.1),), 0.01, id="1-D"),
]


@pytest.mark.parametrize(("shape", "covariances", "noise"), CASES)
@pytest.mark.parametrize("smooth", [False, True])
def test_value_and_gradient(
    shape: tuple[int, ...], covariances: tuple[Covariance, ...], noise: float, smooth: bool
) -> None:
    """To 1e-9 of the largest slope; ``smooth`` data are explained by the prior, so that the difference cancels."""
    axes = [torch.linspace(0, 1, n, dtype=torch.float64) for n in shape]
    lags = [c.lag(x).requires_grad_() for c, x in zip(covariances, axes, strict=True)]  # type: ignore[attr-defined]
    variance = torch.tensor(noise, dtype=torch.float64, requires_grad=True)
    field = torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    if smooth:
        field = sum(torch.sin(3 * x).reshape([-1 if i == j else 1 for i in range(len(shape))])
                    for j, x in enumerate(axes)) + noise**0.5 * field  # fmt: skip
    whole = torch.ones((1, 1), dtype=torch.float64)
    for lag in lags:
        i = torch.arange(len(lag))
        whole = torch.kron(whole, lag[(i[:, None] - i).abs()])
    whole = whole + variance * torch.eye(len(whole), dtype=torch.float64)
    expected = torch.distributions.MultivariateNormal(whole.new_zeros(len(whole)), whole).log_prob(field.flatten())
    got = log_likelihood(field, lags, variance)
    torch.testing.assert_close(got, expected, rtol=1e-9, atol=0)
    for ours, theirs in zip(
        torch.autograd.grad(got, (variance, *lags)), torch.autograd.grad(expected, (variance, *lags)), strict=True
    ):
        assert float((ours - theirs).abs().max()) < 1e-9 * float(theirs.abs().max())


def test_refusals() -> None:
    field, lag = torch.zeros((3, 4), dtype=torch.float64), torch.ones(3, dtype=torch.float64)
    with pytest.raises(ValueError, match="one vector an axis"):
        log_likelihood(field, [lag, lag], 0.1)
    with pytest.raises(ValueError, match="positive variance"):
        log_likelihood(field, [lag, torch.ones(4, dtype=torch.float64)], 0.0)
