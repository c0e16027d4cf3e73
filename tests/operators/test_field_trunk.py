"""Fields as trunks by name: basis functions of unit size, periodic where the grid is, whose gradients reach the start."""

from __future__ import annotations

import math

import pytest
import torch
from resolvent.operators import deeponet, multionet
from resolvent.operators._trunk import FieldTrunk, points_of
from resolvent.pde import Grid
from resolvent.pde.burgers import Burgers
from resolvent.pde.poisson import Poisson

TORUS = Grid.box((12, 10), dim=2, upper=(2.0, 1.0))


@pytest.mark.parametrize("name", ["siren", "winner", "fkan", "rff", "wire", "kaf", "finer", "gauss", "pref", "neurbf"])
def test_features_have_unit_size_and_the_period_of_the_grid(name: str) -> None:
    trunk = FieldTrunk(TORUS, name, 5, width=16, layers=2, waves=1.0)
    nodes = points_of(TORUS, dtype=torch.float32)
    with torch.no_grad():
        here, there = trunk(nodes), trunk(nodes + torch.tensor([2.0, -1.0]))
    torch.testing.assert_close(here.square().mean(dim=0), torch.ones(5), rtol=1e-3, atol=0)
    # single precision: phases of some ten radians
    torch.testing.assert_close(there, here, rtol=0, atol=2e-3)


def test_waves_of_the_outputs_make_the_better_basis() -> None:
    """64 functions at 256 nodes; of random ones cos 2 pi x cos 2 pi y would keep sqrt(3/4)."""
    grid = Grid.box((16, 16), dim=2)
    nodes = points_of(grid, dtype=torch.float32)
    wanted = (torch.cos(2 * math.pi * nodes[:, 0]) * torch.cos(2 * math.pi * nodes[:, 1]))[:, None].double()
    left = []
    for waves in (1.5, 6.0):
        torch.manual_seed(0)
        with torch.no_grad():
            basis = FieldTrunk(grid, "siren", 64, width=64, layers=2, waves=waves)(nodes).double()
        fitted = basis @ torch.linalg.lstsq(basis, wanted, driver="gelsd").solution
        left.append(float((fitted - wanted).norm() / wanted.norm()))
    assert left[0] < 0.5
    assert left[1] > 1.4 * left[0]


@pytest.mark.parametrize("module", [deeponet, multionet], ids=["deeponet", "multionet"])
def test_an_operator_has_it_by_name(module: object) -> None:
    """Same answer on a finer output grid at common points; every trunk weight is trained."""
    problem = Burgers(frames=1) if hasattr(Burgers(), "frames") else Burgers()
    grid = problem.grid(16)
    torch.manual_seed(1)
    more = {"factors": "one"} if module is multionet else {}
    solver = module.build(problem, grid, trunk="siren", width=16, layers=3, **more)  # type: ignore[attr-defined]
    trunks = [m for m in solver.network.modules() if isinstance(m, FieldTrunk)]
    assert len(trunks) == 1
    torch.randn(3, 1, 16)
    code = solver.network.encode(torch.randn(3, 1, *solver.network.sensors.shape))
    found = [solver.network.combine(code, solver.network.features(points_of(g).float())) for g in (grid, grid.at(32))]
    torch.testing.assert_close(found[1][..., ::2], found[0], rtol=1e-4, atol=1e-4)
    found[0].square().sum().backward()
    first = trunks[0].field.network.linears[0]  # type: ignore[index, union-attr]
    assert float(first.bias.grad.abs().max()) > 0


def test_what_makes_no_trunk_is_refused() -> None:
    problem = Poisson(dim=2)
    grid = problem.grid(9)
    with pytest.raises(ValueError, match="starts as zero"):
        deeponet.build(problem, grid, trunk="series")
    with pytest.raises(ValueError, match="Unknown kind of field 'sirene'"):
        deeponet.build(problem, grid, trunk="sirene")
    with pytest.raises(ValueError, match="kind pod"):
        deeponet.build(problem, grid, kind="pod", trunk="siren")
    with pytest.raises(ValueError, match="no plain layers"):
        multionet.build(problem, grid, trunk="fkan")
    with pytest.raises(ValueError, match="trunk_waves"):
        deeponet.build(problem, grid, trunk="siren", trunk_waves=0.0)
