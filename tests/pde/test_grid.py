"""Nodes, spacings and quadrature weights against their definitions and exact integrals."""

import math

import pytest
import torch
from resolvent.pde import Axis, Grid


@pytest.mark.parametrize(
    ("axis", "nodes"),
    [
        (Axis("x", 4, 0.0, 1.0), [0.0, 0.25, 0.5, 0.75]),
        (Axis("x", 5, -1.0, 1.0, ("dirichlet", "dirichlet"), "ends"), [-1.0, -0.5, 0.0, 0.5, 1.0]),
        (Axis("x", 4, 0.0, 2.0, ("neumann", "neumann"), "centres"), [0.25, 0.75, 1.25, 1.75]),
    ],
    ids=["left", "ends", "centres"],
)
def test_nodes_lie_where_the_placement_says(axis, nodes):
    torch.testing.assert_close(axis.coordinates(), torch.tensor(nodes, dtype=torch.float64), rtol=0, atol=1e-15)


@pytest.mark.parametrize("placement", ["left", "ends", "centres"])
def test_weights_add_up_to_the_volume_and_integrate(placement):
    """Constants exactly; sin²(pi x) by the trapezoidal and mid-point rules exactly too (aliasing is their only error)."""
    boundary = "periodic" if placement == "left" else "neumann"
    grid = Grid.box((6, 9), upper=(1.0, 3.0), boundary=boundary, placement=placement)
    x, _ = grid.mesh()
    assert math.isclose(float(grid.weights().sum()), 3.0, rel_tol=1e-14)
    integral = float((torch.sin(math.pi * x).square() * grid.weights()).sum())
    assert math.isclose(integral, 1.5, rel_tol=1e-13)


def test_the_first_axis_is_x():
    grid = Grid.box((4, 8), upper=(1.0, 2.0))
    x, y = grid.mesh()
    assert grid.shape == (4, 8)
    assert grid.spacing == (0.25, 0.25)
    assert bool((x[:, 0] == x[:, 5]).all())
    assert bool((y[0] == y[3]).all())


def test_another_resolution_keeps_the_domain():
    grid = Grid.box(8, dim=2, lower=-1.0, upper=(1.0, 3.0), unit="m").at((16, 4))
    assert grid.shape == (16, 4)
    assert grid.lengths == (2.0, 4.0)


def test_a_grid_survives_json():
    grid = Grid((Axis("x", 8), Axis("y", 5, 0.0, 2.0, ("dirichlet", "neumann"), "ends", "m")))
    assert Grid.from_dict(grid.to_dict()) == grid
    assert hash(Grid.from_dict(grid.to_dict())) == hash(grid)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Axis("x", 1), "at least 2 nodes"),
        (lambda: Axis("x", 4, 1.0, 1.0), "upper > lower"),
        (lambda: Axis("x", 4, boundary=("robin", "robin")), "each end is one of"),
        (lambda: Axis("x", 4, boundary=("periodic", "neumann")), "periodic at one end only"),
        (lambda: Axis("x", 4, placement="ends"), "belong together"),
        (lambda: Grid((Axis("x", 4), Axis("x", 4))), "different names"),
        (lambda: Grid.box(4, dim=4), "at most 3"),
        (lambda: Grid.box(4, dim=2).at((4,)), "2 axes, got 1"),
    ],
)
def test_impossible_grids_are_refused(make, message, unchecked):
    with pytest.raises(ValueError, match=message):
        make()
