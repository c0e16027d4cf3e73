"""Reflections: exact for series between walls, refused where the equation or the data do not fit them."""

import math

import pytest
import torch
from resolvent.pde import Axis, Grid, PeriodicEvolution, SolverError
from resolvent.pde._walls import BetweenWalls, asymmetry, extend, restrict, torus_of, wall_field, wall_grid
from resolvent.pde.heat import Heat
from resolvent.pde.kdv import KortewegDeVries

ROUND_OFF = {"rtol": 0.0, "atol": 1e-13}  # transforms of some fifty O(1) doubles
KINDS = [("dirichlet", "ends"), ("neumann", "centres"), ("neumann", "ends")]


def box(kind, placement, size=12):
    return Grid.box(size, lower=-1.0, upper=1.5, boundary=kind, placement=placement)


def series(kind, x, lower, length, *, derivative=0):
    """A sum of three terms of the sine or cosine series of the walls, or its second derivative."""
    wave = torch.sin if kind == "dirichlet" else torch.cos
    terms = [(0.7, 1), (-0.4, 3), (0.2, 7)]
    return sum(
        a * (-((n * math.pi / length) ** 2)) ** (derivative // 2) * wave(n * math.pi / length * (x - lower))
        for a, n in terms
    )


@pytest.mark.parametrize(("kind", "placement"), KINDS)
def test_the_extension_is_the_series_itself(kind, placement):
    """On twice the interval the sines and cosines simply go on, at the nodes of the torus."""
    grid = box(kind, placement)
    torus = torus_of(grid)
    assert torus.periodic
    assert torus.lengths == (5.0,)
    assert torus.spacing[0] == pytest.approx(grid.spacing[0], rel=1e-15)
    u = series(kind, grid.coordinates()[0], -1.0, 2.5)
    expected = series(kind, torus.coordinates()[0], -1.0, 2.5)
    torch.testing.assert_close(extend(u, grid), expected, **ROUND_OFF)
    torch.testing.assert_close(restrict(extend(u, grid), grid), u, **ROUND_OFF)


@pytest.mark.parametrize(("kind", "placement"), KINDS)
def test_restricting_any_extension_gives_the_field_back(kind, placement):
    grid = Grid((Axis("x", 6), Axis("y", 9, 0.0, 2.0, (kind, kind), placement)))
    u = torch.randn(2, 3, *grid.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    if kind == "dirichlet":
        u[..., 0] = u[..., -1] = 0.0
    torch.testing.assert_close(restrict(extend(u, grid), grid), u, **ROUND_OFF)
    assert float(asymmetry(extend(u, grid), grid).max()) < 1e-13


@pytest.mark.parametrize(("kind", "placement"), KINDS)
def test_restriction_drops_what_lacks_the_symmetry(kind, placement):
    """A cosine between sine walls, or a sine between cosine ones, is all asymmetry."""
    grid = box(kind, placement)
    torus = torus_of(grid)
    wrong = torch.cos if kind == "dirichlet" else torch.sin
    u = wrong(2 * math.pi / 5.0 * (torus.coordinates()[0] + 1.0))[None]
    assert float(restrict(u, grid).abs().max()) < 1e-14
    assert float(asymmetry(u, grid)) == pytest.approx(float(u.norm()), rel=1e-12)


def test_two_axes_of_different_walls_and_a_torus():
    """sin between walls times cos between insulated ones times a wave: decays by the sum of the three rates."""
    grid = Grid(
        (
            Axis("x", 9, 0.0, 1.0, ("dirichlet", "dirichlet"), "ends"),
            Axis("y", 8, 0.0, 2.0, ("neumann", "neumann"), "centres"),
            Axis("z", 6, 0.0, 3.0),
        )
    )
    x, y, z = grid.mesh()
    u = (torch.sin(2 * math.pi * x) * torch.cos(1.5 * math.pi * y) * torch.sin(2 * math.pi * z / 3))[None, None]
    rate = 0.01 * math.pi**2 * (4 + 2.25 + 4 / 9)
    got = BetweenWalls(PeriodicEvolution(Heat(dim=3, diffusivity=0.01)))(u, grid, (0.7,))
    torch.testing.assert_close(got[:, 0], math.exp(-0.7 * rate) * u, rtol=0, atol=1e-14)


def test_a_periodic_grid_passes_through():
    problem = Heat()
    grid = problem.grid(16)
    u = problem.sample(2, grid, generator=torch.Generator().manual_seed(0))
    assert torch.equal(BetweenWalls(PeriodicEvolution(problem))(u, grid), PeriodicEvolution(problem)(u, grid))


def test_single_precision_in_single_precision_out():
    problem = Heat(boundary="neumann")
    grid = problem.grid(16)
    u = problem.sample(2, grid, generator=torch.Generator().manual_seed(0))
    got = problem.reference()(u.float(), grid)
    assert got.dtype == torch.float32
    torch.testing.assert_close(got.double(), problem.reference()(u, grid), rtol=0, atol=1e-6)


@pytest.mark.parametrize(("kind", "placement"), KINDS)
def test_an_equation_that_breaks_the_symmetry_is_refused(kind, placement):
    """Solitons run one way: no wall of these kinds reflects them."""
    grid = box(kind, placement, 32)
    u = series(kind, grid.coordinates()[0], -1.0, 2.5)[None, None]
    with pytest.raises(SolverError, match="lost the symmetry of the walls"):
        BetweenWalls(PeriodicEvolution(KortewegDeVries()))(u, grid, (0.5,))


def test_data_that_do_not_vanish_at_the_wall_are_refused_with_the_sample():
    problem = Heat(boundary="dirichlet")
    grid = problem.grid(17)
    u = problem.sample(3, grid, generator=torch.Generator().manual_seed(0))
    u[1, 0, -1] = 0.1
    with pytest.raises(ValueError, match=r"Sample\(s\) \[1\] do not vanish .* axis 'x': found up to 0.1 "):
        problem.reference()(u, grid)
    u[1, 0, -1] = 1e-8  # what single precision makes of sin(pi)
    assert float(problem.reference()(u, grid)[..., -1].abs().max()) < 1e-16


@pytest.mark.parametrize(
    "axis",
    [
        Axis("x", 8, boundary=("dirichlet", "neumann"), placement="ends"),
        Axis("x", 8, boundary=("dirichlet", "dirichlet"), placement="centres"),
        Axis("x", 8, boundary=("outflow", "outflow"), placement="centres"),
        Axis("x", 2, boundary=("dirichlet", "dirichlet"), placement="ends"),
    ],
)
def test_walls_without_a_reflection_are_refused(axis):
    with pytest.raises(ValueError, match="a reflection takes dirichlet"):
        torus_of(Grid((axis,)))


def test_boxes_have_the_nodes_of_their_walls_and_fields_their_series(unchecked):
    for kind, placement in (("periodic", "left"), ("dirichlet", "ends"), ("neumann", "centres")):
        grid = wall_grid(9, kind, dim=2, upper=2.0)
        assert {axis.placement for axis in grid.axes} == {placement}
        u = wall_field(2, grid, alpha=3.0, tau=3.0, generator=torch.Generator().manual_seed(0))
        assert float(asymmetry(extend(u, grid), grid).max()) < 1e-13
    with pytest.raises(ValueError, match="'periodic', 'dirichlet' or 'neumann'"):
        wall_grid(9, "robin", dim=1)
    mixed = Grid((Axis("x", 8), Axis("y", 8, boundary=("neumann", "neumann"), placement="centres")))
    with pytest.raises(ValueError, match="one kind of walls"):
        wall_field(1, mixed, alpha=3.0, tau=3.0, generator=torch.Generator())
