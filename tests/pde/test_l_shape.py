"""Poisson's equation on the L-shape: the singular function at the order of the corner, symmetry, the door."""

import itertools
import math

import pytest
import torch
from resolvent.pde.l_shape import LShape, closure, inside, singular_function, solve


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def relative(prediction, truth):
    return float((prediction - truth).norm() / truth.norm())


def orders(errors):
    return [math.log2(a / b) for a, b in itertools.pairwise(errors)]


def test_singular_function_is_met_at_the_order_of_the_corner():
    """r^(2/3) sin(2 theta / 3) with its own boundary values: 2 alpha = 4/3 in L2 for the corner exponent alpha = 2/3."""
    errors = []
    for n in (33, 65, 129, 257):
        grid = LShape().grid(n)
        exact = singular_function(grid)
        got = solve(torch.zeros(1, n, n, dtype=torch.float64), grid, exact[None])[0]
        errors.append(relative(got, exact))
    assert errors[1] < 1.2e-3
    assert all(1.22 < order < 4 / 3 for order in orders(errors))  # from below: 1.26, 1.29, 1.31
    assert orders(errors) == sorted(orders(errors))


def test_smooth_solution_is_met_at_second_order():
    """u = sin(pi x) sin(2 pi y) vanishes on every edge, the inner ones too: no singular part."""
    errors = []
    for n in (17, 33, 65):
        grid = LShape().grid(n)
        x, y = grid.mesh()
        u = torch.where(inside(grid), torch.sin(math.pi * x) * torch.sin(2 * math.pi * y), 0.0)
        errors.append(relative(LShape().reference()(5 * math.pi**2 * u[None, None], grid)[0, 0], u))
    assert all(abs(order - 2) < 0.05 for order in orders(errors))


def test_boundary_values_without_singularity_are_exact():
    """1 + 2 x - y + x y is in the kernel of the five-point operator."""
    grid = LShape().grid((13, 17))
    x, y = grid.mesh()
    u = torch.where(closure(grid), 1 + 2 * x - y + x * y, 0.0)
    got = solve(torch.zeros(1, 13, 17, dtype=torch.float64), grid, u[None])[0]
    torch.testing.assert_close(got, u, rtol=0, atol=1e-13)


def test_the_singular_function_is_zero_on_both_edges_and_outside():
    u = singular_function(LShape().grid(9))
    assert float(u[4:, :5].abs().max()) < 1e-15
    assert float(u[4, 5]) > 0


def test_the_diagonal_mirror_is_kept():
    """(x, y) -> (-y, -x) maps the L onto itself."""
    problem = LShape()
    grid = problem.grid(21)
    f = problem.sample(2, grid, generator=seeded())
    mirrored = f.transpose(2, 3).flip(2, 3).contiguous()
    u = problem.reference()(f, grid)
    torch.testing.assert_close(
        problem.reference()(mirrored, grid), u.transpose(2, 3).flip(2, 3), rtol=1e-11, atol=1e-14
    )


def test_fields_are_zero_outside_and_the_residual_vanishes():
    problem = LShape()
    grid = problem.grid(17)
    f = problem.sample(2, grid, generator=seeded())
    u = problem.reference()(f, grid)
    assert float(f[..., 9:, :8].abs().max()) == 0.0
    assert float(u[..., 8:, :9].abs().max()) == 0.0
    assert float(f[..., 8, 8].abs().min()) > 0
    assert float(problem.residual(f, u, grid).abs().max()) < 1e-12
    shifted = problem.residual(f, u + 1.0, grid)
    assert float(shifted[..., 9:, :8].min()) == 1.0
    assert float(problem.residual(f.float(), u.float(), grid).abs().max()) < 1e-4
    v = u[:1].clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda v: problem.residual(f[:1], v, grid), v)


def test_refinement_converges_and_the_ladder_climbs():
    problem = LShape()
    grid = problem.grid(33)
    f = problem.sample(2, grid, generator=seeded())
    truth = problem.reference(refine=16)(f, grid)
    errors = [relative(problem.reference(refine=r)(f, grid), truth) for r in (1, 2, 4)]
    assert errors[0] < 0.02
    assert min(orders(errors)) > 1.3
    rungs = [relative(solver(f, grid), truth) for solver in problem.ladder(grid).values()]
    assert len(rungs) == 4
    assert rungs == sorted(rungs, reverse=True)


def test_bad_input_is_refused():
    problem = LShape()
    with pytest.raises(ValueError, match=r"odd.*\(17, 17\).*\(16, 16\)"):
        problem.sample(1, problem.grid(16), generator=seeded())
    grid = problem.grid(9)
    with pytest.raises(ValueError, match="shape"):
        problem.reference()(torch.zeros(1, 1, 9, 8), grid)
    with pytest.raises(ValueError, match="refine"):
        problem.reference(refine=0)
    with pytest.raises(ValueError, match="not both"):
        problem.reference(refine=2, shape=(9, 9))


@pytest.mark.parametrize("options", [{"tau": 0.0}, {"alpha": 1.0}], ids=str)
def test_impossible_parameters_are_refused(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        LShape(**options)
