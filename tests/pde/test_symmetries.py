"""Declared symmetries commute with the solution operator, form a group, and leave the law of the inputs alone."""

from __future__ import annotations

import itertools

import pytest
import torch
from resolvent.evaluation import registry
from resolvent.pde import Grid, Symmetry, WithSymmetries, square_symmetries, symmetries_of
from resolvent.pde.darcy import Darcy
from resolvent.pde.navier_stokes import NavierStokes

DECLARING = [name for name in registry.problems() if isinstance(registry.find_problem(name).build(), WithSymmetries)]
FLOW = {"frames": 1, "spacing": 0.5, "viscosity": 1e-2}
CASES = [
    pytest.param(Darcy(), id="darcy two_phase"),
    pytest.param(Darcy(law="log_normal", faces="arithmetic"), id="darcy log_normal"),
    pytest.param(Darcy(law="trigonometric"), id="darcy trigonometric"),
    pytest.param(NavierStokes(**FLOW), id="navier_stokes fno"),
    pytest.param(NavierStokes(**FLOW, forcing="kolmogorov"), id="navier_stokes kolmogorov"),
    pytest.param(NavierStokes(**FLOW, forcing="none"), id="navier_stokes none"),
    *(pytest.param(registry.find_problem(n).build(), id=n) for n in DECLARING if n not in ("darcy", "navier_stokes")),
]


def posed(problem, count=1):
    grid = problem.grid(32 if problem.grid(16).periodic else 17)
    return problem.sample(count, grid, generator=torch.Generator().manual_seed(3)), grid


@pytest.mark.parametrize("problem", CASES)
def test_the_reference_commutes_with_every_declared_symmetry(problem):
    """All as one batch. Fixed time steps follow the fields, which a symmetry does not change in size: round-off."""
    inputs, grid = posed(problem)
    group = symmetries_of(problem, grid)
    assert group[0].inputs(inputs, grid) is not None
    assert torch.equal(group[0].inputs(inputs, grid), inputs), "the identity comes first"
    moved = torch.cat([symmetry.inputs(inputs, grid) for symmetry in group])
    answers, expected = problem.reference()(moved, grid), problem.reference()(inputs, grid)
    for answer, symmetry in zip(answers, group, strict=True):
        wanted = symmetry.outputs(expected, grid)[0]
        torch.testing.assert_close(answer, wanted, rtol=0, atol=1e-9 * float(wanted.abs().max()), msg=str(symmetry))


@pytest.mark.parametrize("problem", CASES)
def test_declared_symmetries_are_a_group(problem):
    """The images of one field that nothing leaves alone: no two alike, and moved by any element the same set."""
    _, grid = posed(problem)
    group = symmetries_of(problem, grid)
    field = torch.randn(1, len(problem.signature.inputs), *grid.shape, generator=torch.Generator().manual_seed(0))
    images = {symmetry.inputs(field, grid).contiguous().numpy().tobytes() for symmetry in group}
    assert len(images) == len(group)
    for symmetry in group[:: max(1, len(group) // 7)]:
        again = {
            symmetry.inputs(other.inputs(field, grid), grid).contiguous().numpy().tobytes()
            for other in group[:: max(1, len(group) // 50)]
        }
        assert again <= images


@pytest.mark.parametrize("problem", CASES)
def test_undoing_undoes(problem):
    inputs, grid = posed(problem, count=2)
    for symmetry in symmetries_of(problem, grid):
        assert torch.equal(symmetry.inputs(symmetry.inputs(inputs, grid), grid, undo=True), inputs)
        assert torch.equal(symmetry.inputs(symmetry.inputs(inputs, grid, undo=True), grid), inputs)


def test_sizes_of_the_declared_groups():
    assert len(symmetries_of(Darcy(), Darcy().grid(9))) == 8
    assert len(symmetries_of(Darcy(law="trigonometric"), Darcy().grid(9))) == 1
    flow = NavierStokes()
    assert len(symmetries_of(flow, flow.grid(64))) == 4 * 8
    assert len(symmetries_of(NavierStokes(forcing="none"), flow.grid(64))) == 8 * 64
    assert len(symmetries_of(object(), flow.grid(64))) == 0


def test_a_grid_keeps_the_symmetries_of_its_nodes_and_walls():
    """No exchange of unequal axes, no mirror between different walls, no shift by part of a node."""
    darcy = Darcy()
    assert len(symmetries_of(darcy, darcy.grid((9, 17)))) == 4
    one_sided = [
        a.__class__("xy"[i], 9, 0.0, 1.0, ("dirichlet", "outflow"), "ends") for i, a in enumerate(darcy.grid(9).axes)
    ]
    assert [s.axes for s in symmetries_of(darcy, Grid(tuple(one_sided)))] == [(0, 1), (1, 0)]
    flow = NavierStokes()
    assert len(symmetries_of(flow, flow.grid(12))) == 4 * 4  # 12 nodes are moved by quarters only


def test_mirrors_of_walls_and_of_a_torus():
    """Between walls the first node becomes the last; on a torus node 0 stays and 1 becomes -1."""
    line = torch.arange(4.0)[None, None]
    mirror = Symmetry(axes=(0,), mirrored=(True,), shift=(0.0,), input_signs=(-1.0,))
    assert mirror.outputs(line, Grid.box(4, boundary="dirichlet")).flatten().tolist() == [3, 2, 1, 0]
    assert mirror.outputs(line, Grid.box(4)).flatten().tolist() == [0, 3, 2, 1]
    assert mirror.inputs(line, Grid.box(4)).flatten().tolist() == [0, -3, -2, -1]
    shift = Symmetry(axes=(0,), mirrored=(False,), shift=(0.25,))
    assert shift.inputs(line, Grid.box(4)).flatten().tolist() == [3, 0, 1, 2]


def test_the_eight_of_the_square_are_different():
    field = torch.arange(9.0).reshape(1, 1, 3, 3)
    grid = Grid.box(3, dim=2, boundary="dirichlet")
    images = [symmetry.inputs(field, grid) for symmetry in square_symmetries()]
    assert all(not torch.equal(a, b) for a, b in itertools.combinations(images, 2))
