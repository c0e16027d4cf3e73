"""Helmholtz equation with a source: closed form, Poisson as its special case, resonances at the door."""

import itertools
import math

import pytest
import torch
from resolvent.gp.gp import GaussianProcess
from resolvent.pde.helmholtz_source import HelmholtzSource, ShiftedSine
from resolvent.pde.poisson import Poisson


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def relative(prediction, truth):
    return float((prediction - truth).norm() / truth.norm())


@pytest.mark.parametrize("dim", [1, 2, 3])
def test_manufactured_solution_to_round_off(dim):
    """u = prod sin(n_j pi x_j) solves -Laplace u - k² u = (pi² |n|² - k²) u, below and above the resonance."""
    problem = HelmholtzSource(dim=dim)
    grid = problem.grid((14, 17, 12)[:dim])
    for numbers in ((3, 1, 5)[:dim], (9, 7, 8)[:dim]):
        u = torch.stack([torch.sin(n * math.pi * x) for n, x in zip(numbers, grid.mesh(), strict=True)]).prod(0)
        source = (math.pi**2 * sum(n**2 for n in numbers) - 400.0) * u
        got = problem.reference()(source[None, None], grid)
        # nearest eigenvalue 4 % or more off (1 % in 2-D): round-off grows a hundredfold
        torch.testing.assert_close(got[0, 0], u, rtol=0, atol=1e-11)


def test_wavenumber_zero_is_poissons_equation():
    grid = Poisson().grid(17)
    f = Poisson().sample(2, grid, generator=seeded())
    still = HelmholtzSource(wavenumber=0.0)
    torch.testing.assert_close(still.exact(f, grid), Poisson().exact(f, grid), rtol=0, atol=0)
    u = still.exact(f, grid)
    torch.testing.assert_close(still.residual(f, 2 * u, grid), Poisson().residual(f, 2 * u, grid), rtol=0, atol=0)


def test_differences_are_of_second_order_once_they_resolve_the_wave():
    problem = HelmholtzSource(wavenumber=10.0)
    errors = []
    for n in (33, 65, 129):
        grid = problem.grid(n)
        x, y = grid.mesh()
        u = (torch.sin(3 * math.pi * x) * torch.sin(2 * math.pi * y))[None, None]
        errors.append(relative(ShiftedSine(problem, symbol="second_order")((13 * math.pi**2 - 100) * u, grid), u))
    assert all(abs(math.log2(a / b) - 2) < 0.2 for a, b in itertools.pairwise(errors))


def test_residual_vanishes_for_the_exact_solution_only():
    """Round-off: eps (pi N)² u, u itself being of order f / 5."""
    problem = HelmholtzSource()
    grid = problem.grid(17)
    f = problem.sample(2, grid, generator=seeded())
    u = problem.exact(f, grid)
    assert float(problem.residual(f, u, grid).abs().max()) < 1e-9
    torch.testing.assert_close(problem.residual(f, 1.5 * u, grid), 0.5 * f, rtol=0, atol=1e-9)
    assert float(problem.residual(f, u + 1.0, grid)[:, :, 0].min()) == 1.0
    v = u[:1].clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda v: problem.residual(f[:1], v, grid), v)


def test_ladder_ends_in_the_exact_solution():
    problem = HelmholtzSource()
    grid = problem.grid(65)
    f = problem.sample(2, grid, generator=seeded())
    errors = {name: relative(solver(f, grid), problem.exact(f, grid)) for name, solver in problem.ladder(grid).items()}
    assert errors["sine 65x65"] == 0.0
    sines = [error for name, error in errors.items() if name.startswith("sine")]
    assert sines == sorted(sines, reverse=True)


def test_too_coarse_grids_are_refused_with_the_least_number():
    problem = HelmholtzSource()
    grid = problem.grid(7)
    with pytest.raises(ValueError, match="at least 8 nodes"):
        problem.reference()(problem.sample(1, grid, generator=seeded()), grid)


@pytest.mark.parametrize(
    "options",
    [{"dim": 4}, {"tau": 0.0}, {"alpha": 1.0}, {"wavenumber": -1.0}, {"wavenumber": math.sqrt(41) * math.pi}],
    ids=str,
)
def test_impossible_parameters_and_resonances_are_refused(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        HelmholtzSource(**options)


@pytest.mark.parametrize("wavenumber", [0.0, 20.0])
def test_the_declared_equation_is_solved_to_the_closed_form(wavenumber):
    """k = 0 is Poisson's equation, of two terms; at k = 20 the nearest eigenvalue is 1 % off, which costs two digits."""
    problem = HelmholtzSource(wavenumber=wavenumber)
    grid = problem.grid(33)
    f = problem.sample(1, grid, generator=seeded())
    assert len(problem.equation(f, grid).terms) == (2 if wavenumber == 0 else 3)
    assert relative(GaussianProcess(problem)(f, grid), problem.exact(f, grid)) < 1e-6
