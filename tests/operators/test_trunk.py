"""What trunks are made of: values between nodes, distances to walls, principal components."""

from __future__ import annotations

import math

import pytest
import torch
from resolvent.data import Dataset
from resolvent.operators._trunk import PodBasis, between_nodes, points_of, resample, wall_factor
from resolvent.operators.deeponet import build
from resolvent.pde import Axis, Grid, fourier_resample
from resolvent.pde.navier_stokes import NavierStokes
from resolvent.pde.poisson import Poisson
from resolvent.training import Budget
from torch import Tensor

TORUS = Grid.box((8, 6), dim=2)
WALLS = Grid.box((9, 7), dim=2, boundary="dirichlet")
# double precision, sums of some hundred terms of order one
ROUND = {"rtol": 1e-12, "atol": 1e-12}


def fields(count: int, grid: Grid, channels: int = 1) -> Tensor:
    return torch.randn(
        count, channels, *grid.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(count)
    )


def inside(grid: Grid, *shape: int) -> Tensor:
    """Random points of the domain."""
    unit = torch.rand(*shape, grid.dim, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    return unit * torch.tensor(grid.lengths) + torch.tensor([axis.lower for axis in grid.axes])


def poisson_data(n: int = 9) -> tuple[Poisson, Dataset]:
    problem = Poisson()
    grid = problem.grid(n)
    inputs = problem.sample(12, grid, generator=torch.Generator().manual_seed(0))
    outputs = problem.reference()(inputs, grid)
    return problem, Dataset.from_tensors(inputs.float(), outputs.float(), grid=grid, signature=problem.signature)


@pytest.mark.parametrize("n", [8, 9])
def test_periodic_interpolation_is_the_fourier_series(n):
    values = torch.randn(3, n, dtype=torch.float64)
    axis = Grid.box(n).axes[0]
    fine = Grid.box(3 * n + 1).axes[0]
    found = values @ between_nodes(axis, tuple(fine.coordinates().tolist())).t()
    torch.testing.assert_close(found, fourier_resample(values, (3 * n + 1,)), **ROUND)


@pytest.mark.parametrize("axis", [Grid.box(8).axes[0], Grid.box(9, boundary="dirichlet", upper=3.0).axes[0]])
def test_on_a_node_the_value_is_the_nodes(axis):
    matrix = between_nodes(axis, tuple(axis.coordinates().tolist()))
    torch.testing.assert_close(matrix, torch.eye(axis.size, dtype=torch.float64), rtol=0, atol=1e-12)
    turned = between_nodes(axis, (float(axis.coordinates()[0] + axis.length),))
    if axis.periodic:
        torch.testing.assert_close(turned[0], torch.eye(axis.size, dtype=torch.float64)[0])


@pytest.mark.parametrize(("method", "order"), [("linear", 2), ("cubic", 4)])
def test_inputs_from_finer_grids_with_walls_are_sensed_at_the_stated_order(method, order):
    """exp(x) sin(3 y) at 7 x 7 sensors, from 22, 43 and 85 nodes an axis, whose cells no sensor shares."""

    def field(grid: Grid) -> Tensor:
        x, y = grid.mesh()
        return (x.exp() * (3 * y).sin())[None, None]

    sensors = WALLS.at(7)
    errors = [
        float((resample(field(WALLS.at(n)), WALLS.at(n), sensors, method) - field(sensors)).abs().max())
        for n in (20, 39, 77)  # 19, 38 and 76 cells against 6
    ]
    observed = [math.log2(a / b) for a, b in zip(errors, errors[1:], strict=False)]
    assert observed[-1] == pytest.approx(order, abs=0.5), observed


def test_the_wall_factor_is_one_in_the_middle_and_zero_on_dirichlet_walls():
    mixed = Grid(
        (
            Axis("x", 5, 0.0, 2.0, ("dirichlet", "dirichlet"), "ends"),
            Axis("t", 5, 0.0, 1.0, ("dirichlet", "outflow"), "ends"),
        )
    )
    points = torch.tensor([[1.0, 1.0], [0.0, 0.7], [2.0, 0.3], [1.0, 0.0], [0.5, 0.5]], dtype=torch.float64)
    assert wall_factor(mixed, points).tolist() == pytest.approx([1.0, 0.0, 0.0, 0.0, 0.75 * 0.5])


# ---------------------------------------------------------------------- principal components


@pytest.mark.parametrize("form", ["independent", "split_both", "split_branch", "split_trunk"])
def test_all_components_and_least_squares_reproduce_the_training_outputs(form):
    """Six fields have five components; one basis for both outputs needs what they have together, here three fields."""
    outputs = fields(6, WALLS, channels=2)
    if form == "split_branch":
        weights = fields(6, Grid.box(3), channels=2) * torch.tensor([[1.0, 1.0, 0.0], [0.0, 1.0, 1.0]])
        outputs = torch.einsum("bck,kxy->bcxy", weights, fields(3, WALLS)[:, 0])
    basis = PodBasis(WALLS, 2, 5, form).double()
    basis.fit(outputs)
    parts = basis.on_nodes().movedim(0, 1)  # output node feature
    left = (outputs.flatten(2) - parts[..., 0]).movedim(0, -1)  # output node field
    parts = parts[..., 1:]
    if form == "split_trunk":  # the coefficients are common
        parts, left = parts.flatten(0, 1)[None], left.flatten(0, 1)[None]
    missed = left - parts @ (torch.linalg.pinv(parts) @ left)
    assert float(missed.abs().max()) < 1e-10  # doubles, fields of order one
    if form == "split_branch":
        assert torch.equal(parts[0], parts[1])


def test_components_are_orthogonal_of_mean_square_one_and_largest_first():
    basis = PodBasis(WALLS, 1, 4, "split_both").double()
    outputs = fields(6, WALLS)
    basis.fit(outputs)
    parts = basis.values[0, :, 1:]
    torch.testing.assert_close(parts.t() @ parts / WALLS.size, torch.eye(4, dtype=torch.float64), rtol=0, atol=1e-10)
    variances = ((outputs.flatten(2)[:, 0] - basis.values[0, :, 0]) @ parts).square().sum(0)
    assert variances.tolist() == sorted(variances.tolist(), reverse=True)
    centred = outputs.flatten(1) - outputs.flatten(1).mean(0)
    singular = torch.linalg.svdvals(centred)[:4].square() * WALLS.size
    torch.testing.assert_close(variances, singular, rtol=1e-8, atol=0)


def test_the_basis_is_that_of_the_training_outputs_and_travels_with_the_state():
    problem, data = poisson_data()
    solver = build(problem, data.grid, kind="pod", width=8, layers=2, features=4)
    solver.fit(data.subset(range(8)), validation=data.subset(range(8, 12)), budget=Budget(epochs=1))
    mean = solver.network.basis.values[0, :, 0].unflatten(0, data.grid.shape)
    _, outputs = data.read(range(8))
    found = solver.module["outputs"].inverse(mean[None, None])
    torch.testing.assert_close(found[0], outputs.mean(0), rtol=1e-4, atol=1e-6 * float(outputs.abs().max()))
    again = build(problem, data.grid, kind="pod", width=8, layers=2, features=4)
    again.restore(solver.state())
    inputs, _ = data.read(range(2))
    assert torch.equal(again(inputs, data.grid), solver(inputs, data.grid))
    learned = {name.partition(".")[0] for name, _ in solver.network.named_parameters()}
    assert learned == {"branches"}


def test_too_many_components_are_refused_with_the_number_that_there_are():
    problem, data = poisson_data()
    solver = build(problem, data.grid, kind="pod", width=8, layers=2, features=12)
    with pytest.raises(ValueError, match=r"--model.features 11"):
        solver.fit(data, budget=Budget(epochs=1))


@pytest.mark.parametrize("grid", [TORUS, WALLS], ids=["torus", "walls"])
def test_components_between_the_nodes_are_the_interpolated_fields(grid):
    """Waves 1 and 2 on the torus, cubics between walls: interpolation is exact, and nodal values are kept."""
    x, y = grid.mesh()

    def field(a: Tensor, x: Tensor, y: Tensor) -> Tensor:
        if grid.periodic:
            return a[0] * (2 * math.pi * (2 * x + y)).sin() + a[1] * (2 * math.pi * (x - 2 * y)).cos()
        return a[0] * x**3 * y + a[1] * y**2

    weights = torch.randn(5, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    outputs = torch.stack([field(a, x, y) for a in weights])[:, None]
    basis = PodBasis(grid, 1, 2, "split_both").double()
    basis.fit(outputs)
    nodal, points = basis.on_nodes()[:, 0], inside(grid, 6)
    torch.testing.assert_close(basis(points_of(grid))[:, 0], nodal, rtol=0, atol=1e-11)
    coefficients = torch.linalg.lstsq(nodal, outputs[3].flatten()[:, None]).solution
    expected = field(weights[3], *points.unbind(-1))
    torch.testing.assert_close((basis(points)[:, 0] @ coefficients)[:, 0], expected, rtol=0, atol=1e-10)


def test_an_evolution_has_the_components_of_its_changes():
    """Navier-Stokes, two frames: what the network predicts is a change, and the mean of the basis is that of changes."""
    problem = NavierStokes(frames=2)
    grid = problem.grid(12)
    states = fields(5, grid, channels=3).float()
    data = Dataset.from_tensors(
        states[:, :1], states[:, 1:, None], grid=grid, signature=problem.signature, problem="navier_stokes"
    )
    solver = build(problem, grid, kind="pod", width=8, layers=2, features=3)
    solver.fit(data, budget=Budget(epochs=1))
    changes = torch.cat([states[:, 1] - states[:, 0], states[:, 2] - states[:, 1]])
    mean = solver.network.basis.values[0, :, 0].unflatten(0, grid.shape)
    found = solver.module["outputs"].inverse(mean[None, None])[0, 0]
    torch.testing.assert_close(found, changes.mean(0), rtol=0, atol=1e-5)
