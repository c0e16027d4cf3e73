"""Darcy flow by an independent method: finite elements against closed forms and against the finite volumes."""

import itertools
import math

import jaxtyping
import numpy as np
import pytest
import torch
from resolvent.pde import Grid
from resolvent.pde._finite_elements import cosine_exponential, darcy_elements, on_volumes
from resolvent.pde.darcy import Darcy


@pytest.fixture
def unchecked(monkeypatch):
    """As for users: no type checker in front of our own messages."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def relative(prediction, truth):
    return float(((prediction - truth).flatten(1).norm(dim=1) / truth.flatten(1).norm(dim=1)).mean())


def orders(errors, factor=2.0):
    return [math.log(a / b, factor) for a, b in itertools.pairwise(errors)]


@pytest.mark.parametrize(("element", "order"), [("P1", 2), ("Q1", 2), ("Q2", 4)])
def test_manufactured_solution_at_contrast_1000(element, order):
    """u = sin(pi x) sin(pi y), a = exp(ln 1000 (x + y) / 2): -div(a grad u) = a (2 pi² u - s (u_x + u_y))."""
    s = math.log(1000.0) / 2

    def coefficient(x, y):
        return np.exp(s * (x + y))

    def source(x, y):
        u = np.sin(math.pi * x) * np.sin(math.pi * y)
        slopes = np.cos(math.pi * x) * np.sin(math.pi * y) + np.sin(math.pi * x) * np.cos(math.pi * y)
        return coefficient(x, y) * (2 * math.pi**2 * u - s * math.pi * slopes)

    errors = []
    for n in (9, 17, 33):
        grid = Darcy().grid(n)
        x, y = grid.mesh().numpy()
        got = darcy_elements(coefficient, source, grid, element)
        errors.append(np.abs(got - np.sin(math.pi * x) * np.sin(math.pi * y)).max())
    assert orders(errors)[-1] > order - 0.15


@pytest.mark.parametrize("faces", ["harmonic", "arithmetic"])
def test_smooth_coefficient_of_contrast_1000_by_both_methods(faces):
    """Finite volumes converge at order 2, quadratic elements at 4 in the nodes, to one solution."""
    problem = Darcy(law="log_normal", alpha=3.0, faces=faces)
    grid = problem.grid(9)
    logs = problem.sample(1, grid, generator=seeded()).log()
    a = torch.exp(logs * (math.log(1000.0) / float(logs.max() - logs.min())))
    truth = problem.second_opinion(element="Q2", refine=4)(a, grid)
    volumes = [relative(problem.reference(refine=r)(a, grid), truth) for r in (4, 8, 16)]
    elements = [relative(problem.second_opinion(element="Q2", refine=r)(a, grid), truth) for r in (1, 2)]
    assert volumes[-1] < 5e-3
    assert elements[-1] < 1e-4
    assert all(abs(order - 2) < 0.1 for order in orders(volumes)[-1:])
    assert orders(elements)[0] > 3.5


@pytest.mark.parametrize("contrast", [4.0, 1000.0])
def test_both_methods_converge_to_one_solution_on_two_phases(contrast):
    """Same phases, same control volumes; the difference falls at the order that corners of interfaces leave.

    Factor three a step. A random field of phases has corners of exponent below one: the order is 1.35 at contrast 4, and
    1.2 at contrast 1000, where no two phases meet in a chequerboard point in this sample.
    """
    problem = Darcy(contrast=contrast)
    grid = problem.grid(9)
    a = problem.sample(2, grid, generator=seeded())
    truth = problem.second_opinion(element="Q2", refine=6)(a, grid)
    volumes = [relative(problem.reference(refine=r)(a, grid), truth) for r in (2, 6, 18)]
    elements = [relative(problem.second_opinion(refine=r)(a, grid), truth) for r in (1, 3, 9)]
    assert volumes[-1] < 5e-3
    assert elements[-1] < 3e-3
    assert min(orders(volumes, 3.0)) > 1.0
    assert min(orders(elements, 3.0)) > 1.0


def test_nearest_node_and_cosine_series_are_the_coefficients_of_the_finite_volumes():
    grid = Grid.box((3, 5), boundary="dirichlet", upper=(1.0, 2.0))
    values = torch.arange(1.0, 16.0, dtype=torch.float64).reshape(3, 5).numpy()
    x, y = grid.mesh().numpy()
    np.testing.assert_array_equal(on_volumes(values, grid)(x, y), values)
    assert on_volumes(values, grid)(np.array([0.24]), np.array([0.26])) == values[0, 1]
    np.testing.assert_allclose(cosine_exponential(values, grid)(x, y), values, rtol=1e-13)
    wave = np.exp(np.cos(math.pi * x) * np.cos(2 * math.pi * y / 2))
    there = np.array([0.3, 0.9]), np.array([0.1, 1.7])
    exact = np.exp(np.cos(math.pi * there[0]) * np.cos(math.pi * there[1]))
    np.testing.assert_allclose(cosine_exponential(wave, grid)(*there), exact, rtol=1e-13)


def test_bad_input_is_refused(unchecked):
    problem = Darcy()
    with pytest.raises(ValueError, match="element"):
        problem.second_opinion(element="P3")
    with pytest.raises(ValueError, match="refine"):
        problem.second_opinion(refine=0)
    with pytest.raises(ValueError, match="positive"):
        problem.second_opinion()(torch.zeros(1, 1, 5, 5, dtype=torch.float64), problem.grid(5))
