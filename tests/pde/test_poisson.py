"""Poisson's equation: exact to round-off, and its rungs at their orders."""

import itertools
import math

import pytest
import torch
from resolvent.gp.gp import GaussianProcess
from resolvent.pde.poisson import FastSine, Poisson


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def relative(prediction, truth):
    return float(((prediction - truth).flatten(1).norm(dim=1) / truth.flatten(1).norm(dim=1)).mean())


@pytest.mark.parametrize("dim", [1, 2, 3])
def test_manufactured_solution_to_round_off(dim):
    """u = prod sin(n_j pi x_j) solves -Laplace u = pi² |n|² u."""
    problem = Poisson(dim=dim)
    grid = problem.grid((14, 17, 12)[:dim])
    numbers = (3, 1, 5)[:dim]
    u = torch.stack([torch.sin(n * math.pi * x) for n, x in zip(numbers, grid.mesh(), strict=True)]).prod(0)
    got = problem.reference()(math.pi**2 * sum(n**2 for n in numbers) * u[None, None], grid)
    torch.testing.assert_close(got[0, 0], u, rtol=0, atol=1e-13)  # transforms of O(1) doubles, log2(N) roundings each


def test_samples_are_solved_exactly_as_their_series():
    """The coefficients of a sample, by quadrature against each sine, divided by pi² |n|²: no transform involved."""
    problem = Poisson()
    grid = problem.grid(12)
    f = problem.sample(2, grid, generator=seeded())
    assert f.dtype == torch.float64
    n = torch.arange(1, 11, dtype=torch.float64)
    sines = torch.sin(math.pi * n[:, None] * grid.coordinates()[0])
    coefficients = torch.einsum("mx,ny,bcxy->bcmn", sines, sines, f) * (2 / 11) ** 2
    u = torch.einsum("mx,ny,bcmn->bcxy", sines, sines, coefficients / (math.pi**2 * (n[:, None] ** 2 + n**2)))
    torch.testing.assert_close(problem.exact(f, grid), u, rtol=0, atol=1e-14)
    torch.testing.assert_close(problem.reference()(f, grid), u, rtol=0, atol=1e-14)


def test_difference_solver_is_of_second_order():
    """Against the closed form of a smooth source on three grids."""
    errors = []
    for n in (17, 33, 65):
        grid = Poisson().grid(n)
        x, y = grid.mesh()
        u = (torch.sin(2 * math.pi * x) * torch.sin(math.pi * y))[None, None]
        errors.append(relative(FastSine(symbol="second_order")(5 * math.pi**2 * u, grid), u))
    assert all(abs(math.log2(a / b) - 2) < 0.1 for a, b in itertools.pairwise(errors))


@pytest.mark.parametrize("dim", [1, 2, 3])
def test_residual_vanishes_for_the_exact_solution_only(dim):
    """Round-off of a second derivative: eps * (pi N)² * u, far below 1e-9."""
    problem = Poisson(dim=dim)
    grid = problem.grid(13)
    f = problem.sample(2, grid, generator=seeded())
    u = problem.exact(f, grid)
    assert float(problem.residual(f, u, grid).abs().max()) < 1e-9
    scaled = problem.residual(f, 1.5 * u, grid)
    torch.testing.assert_close(scaled, 0.5 * f, rtol=0, atol=1e-9)
    assert float(problem.residual(f, u + 1.0, grid)[:, :, 0].min()) == 1.0  # boundary nodes: u itself


def test_residual_is_differentiable():
    problem = Poisson()
    grid = problem.grid(6)
    f = problem.sample(1, grid, generator=seeded())
    u = torch.rand(1, 1, 6, 6, dtype=torch.float64, generator=seeded(), requires_grad=True)
    assert torch.autograd.gradcheck(lambda u: problem.residual(f, u, grid), u)


@pytest.mark.parametrize(("dim", "nodes"), [(1, 33), (2, 17), (3, 9)])
def test_the_declared_equation_is_solved_to_the_closed_form(dim, nodes):
    """The Gaussian process knows nothing of sine series; it finds the nodes that it needs. Measured 5e-11 at worst."""
    problem = Poisson(dim=dim)
    grid = problem.grid(nodes)
    f = problem.sample(1, grid, generator=seeded())
    assert relative(GaussianProcess(problem)(f, grid), problem.exact(f, grid)) < 1e-8


def test_sources_are_known_between_the_nodes_as_their_series():
    """One sine on other nodes, finer and no multiple, is that sine; with values on the faces it is not known there."""
    problem = Poisson()
    grid, target = problem.grid((10, 14)), problem.grid((23, 31))
    waves = [torch.sin(5 * math.pi * x) * torch.sin(2 * math.pi * y) for x, y in (grid.mesh(), target.mesh())]
    torch.testing.assert_close(problem.posed(waves[0][None, None], grid, target)[0, 0], waves[1], rtol=0, atol=1e-13)
    assert problem.posed(torch.ones(1, 1, 10, 14), grid, target) is None


def test_a_source_with_values_on_the_faces_is_solved_on_its_nodes():
    """-u'' = 2: u = x (1 - x), of which the sine series would be wrong by the Gibbs phenomenon."""
    problem = Poisson(dim=1)
    grid = problem.grid(65)
    x = grid.coordinates()[0]
    got = GaussianProcess(problem)(torch.full((1, 1, 65), 2.0, dtype=torch.float64), grid)
    assert relative(got, (x * (1 - x))[None, None]) < 1e-7


def test_ladder_improves_to_the_exact_solution():
    problem = Poisson()
    grid = problem.grid(65)
    f = problem.sample(4, grid, generator=seeded())
    truth = problem.exact(f, grid)
    errors = {name: relative(solver(f, grid), truth) for name, solver in problem.ladder(grid).items()}
    for method in ("differences", "sine"):
        rungs = [error for name, error in errors.items() if name.startswith(method)]
        assert len(rungs) >= 4
        assert rungs == sorted(rungs, reverse=True)
    assert errors["sine 65x65"] == 0.0


def test_output_follows_the_input_dtype_and_resolution():
    problem = Poisson()
    grid = problem.grid((10, 15))
    f = problem.sample(2, grid, generator=seeded()).float()
    assert problem.reference()(f, grid).dtype == torch.float32
    assert all(solver(f, grid).dtype == torch.float32 for solver in problem.ladder(grid).values())


def test_bad_input_is_refused():
    problem = Poisson()
    with pytest.raises(ValueError, match="shape"):
        problem.reference()(torch.zeros(1, 1, 9, 8), problem.grid(9))
    bad = torch.zeros(2, 1, 9, 9)
    bad[1, 0, 4, 4] = math.inf
    with pytest.raises(ValueError, match=r"\[1\]"):
        problem.reference()(bad, problem.grid(9))


@pytest.mark.parametrize("options", [{"dim": 4}, {"tau": 0.0}, {"alpha": 1.0}], ids=str)
def test_impossible_parameters_are_refused(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        Poisson(**options)
