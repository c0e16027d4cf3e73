"""The prior of codes: couplings that leave what they must, and laws that no Gaussian holds."""

from __future__ import annotations

import math

import pytest
import torch
from resolvent.operators._prior import Coupling, Prior, standard_normal


@pytest.mark.parametrize("size", [5, 6])
@pytest.mark.parametrize("parity", [0, 1])
def test_a_coupling_leaves_every_second_entry_where_it_was(size, parity):
    torch.manual_seed(0)
    coupling = Coupling(size, parity, 8).double()
    torch.nn.init.normal_(coupling.network.layers[-1].weight)
    values = torch.randn(3, size, dtype=torch.float64)
    moved, volume = coupling(values)
    torch.testing.assert_close(moved[:, parity::2], values[:, parity::2], rtol=0, atol=0)
    assert bool((moved[:, 1 - parity :: 2] != values[:, 1 - parity :: 2]).all())
    back, undone = coupling.inverse(moved)
    torch.testing.assert_close(back, values, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(volume, -undone, rtol=1e-12, atol=1e-12)


def test_a_flow_learns_what_no_gaussian_holds():
    """(x, x² + 0.1 n): the best Gaussian is log(2.01 / 0.01) / 2 = 2.65 nats away, a flow a tenth of that."""
    torch.manual_seed(0)
    x, noise = torch.randn(2, 4000)
    codes = torch.stack([x, x.square() + 0.1 * noise], dim=1)
    own = standard_normal(torch.stack([x, noise], dim=1)) - math.log(0.1)
    gaussian, flow = Prior(2, "gaussian"), Prior(2, "flow", couplings=4, width=32)
    gaussian.fit(codes)
    optimiser = torch.optim.Adam(flow.parameters(), lr=5e-3)
    for _ in range(150):
        optimiser.zero_grad()
        (-flow.log_density(codes[torch.randint(4000, (500,))]).mean()).backward()
        optimiser.step()
    with torch.no_grad():
        away = [float((own - prior.log_density(codes)).mean()) for prior in (gaussian, flow)]
    assert away[0] == pytest.approx(0.5 * math.log(201), abs=0.1)  # 4000 codes: variances within 4 %
    assert away[1] < 0.25
