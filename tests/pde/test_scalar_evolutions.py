"""Every nonlinear scalar evolution against an independent solution, at its order in time, and on any grid.

The independent solution shares nothing with ours: dense differentiation matrices, products at the nodes without
dealiasing, and SciPy's implicit Radau method of order five.
"""

import math

import numpy as np
import pytest
import torch
from resolvent.pde import Grid, SolverError, _refined
from resolvent.pde.allen_cahn import AllenCahn
from resolvent.pde.burgers import Burgers
from resolvent.pde.fisher_kpp import FisherKPP
from resolvent.pde.kdv import KortewegDeVries
from resolvent.pde.kuramoto_sivashinsky import KuramotoSivashinsky
from resolvent.pde.swift_hohenberg import SwiftHohenberg
from scipy.integrate import solve_ivp

TAU = 2 * math.pi


def derivative(size, length):
    """The periodic differentiation matrix of an even number of nodes (Trefethen 2000), to be squared and cubed."""
    i = np.arange(size)
    difference = i[:, None] - i
    with np.errstate(divide="ignore"):
        matrix = 0.5 * (-1.0) ** difference / np.tan(np.pi * difference / size)
    matrix[difference == 0] = 0.0
    return matrix * 2 * np.pi / length


# name: problem, nodes, time, u(0) of x from 0 to 2 pi over the length, and u_t of u and the first derivative matrix
CASES = {
    "burgers": (
        Burgers(viscosity=0.2, length=TAU, spacing=1.0),
        *(64, 1.0, lambda x: np.sin(x) + 0.5),
        lambda u, d: -u * (d @ u) + 0.2 * (d @ (d @ u)),
    ),
    "kdv": (
        KortewegDeVries(nonlinearity=1.0, dispersion=0.5, length=TAU, spacing=1.0),
        *(48, 1.0, lambda x: 0.5 * np.cos(x)),
        lambda u, d: -u * (d @ u) - 0.5 * (d @ (d @ (d @ u))),
    ),
    "kdv with hyperviscosity": (
        KortewegDeVries(nonlinearity=-2.0, dispersion=0.2, hyperviscosity=0.01, length=TAU, spacing=1.0),
        *(48, 1.0, lambda x: 0.5 * np.cos(x)),
        lambda u, d: 2 * u * (d @ u) - 0.2 * (d @ (d @ (d @ u))) - 0.01 * (d @ (d @ (d @ (d @ u)))),
    ),
    "kuramoto_sivashinsky, conservative": (
        KuramotoSivashinsky(nonlinearity=0.8, antidiffusion=1.2, hyperdiffusion=0.9, length=22.0, spacing=2.0),
        *(64, 2.0, lambda x: np.cos(x) + 0.1 * np.sin(2 * x)),
        lambda u, d: -0.8 * u * (d @ u) - 1.2 * (d @ (d @ u)) - 0.9 * (d @ (d @ (d @ (d @ u)))),
    ),
    "kuramoto_sivashinsky, combustion": (
        KuramotoSivashinsky(form="combustion", length=22.0, spacing=4.0),
        *(64, 4.0, lambda x: np.cos(x) + 0.1 * np.sin(2 * x)),
        lambda u, d: -0.5 * (d @ u) ** 2 - d @ (d @ u) - d @ (d @ (d @ (d @ u))),
    ),
    "allen_cahn": (
        AllenCahn(diffusivity=0.1, growth=1.5, saturation=2.0, length=TAU, spacing=1.0),
        *(64, 1.0, lambda x: 0.7 * np.sin(x) + 0.2 * np.cos(2 * x)),
        lambda u, d: 0.1 * (d @ (d @ u)) + 1.5 * u - 2 * u**3,
    ),
    "fisher_kpp": (
        FisherKPP(diffusivity=0.05, rate=2.0, length=TAU, spacing=1.0),
        *(64, 1.0, lambda x: 0.3 + 0.2 * np.sin(x)),
        lambda u, d: 0.05 * (d @ (d @ u)) + 2 * u * (1 - u),
    ),
    "swift_hohenberg": (
        SwiftHohenberg(growth=0.4, wavenumber=1.1, quadratic=0.6, cubic=1.2, length=4 * math.pi, spacing=1.0),
        *(48, 1.0, lambda x: 0.4 * np.sin(x) + 0.3 * np.cos(2 * x)),
        lambda u, d: (
            0.4 * u - (1.1**4 * u + 2 * 1.1**2 * (d @ (d @ u)) + d @ (d @ (d @ (d @ u)))) + 0.6 * u**2 - 1.2 * u**3
        ),
    ),
}
EACH = pytest.mark.parametrize("name", CASES)


def relative(got, expected):
    return float((got - expected).norm() / expected.norm())


def posed(name):
    problem, size, time, state, rate = CASES[name]
    grid = problem.grid(size)
    x = 2 * np.pi * np.arange(size) / size
    return problem, grid, time, state(x), rate


@EACH
def test_it_agrees_with_an_independent_solution(name):
    """Both are resolved to 1e-9 on these nodes; Radau's tolerance is 1e-10 a step, ours 1e-9 a frame."""
    problem, grid, time, state, rate = posed(name)
    matrix = derivative(grid.size, grid.lengths[0])
    truth = solve_ivp(lambda _, u: rate(u, matrix), (0, time), state, method="Radau", rtol=1e-10, atol=1e-11)
    got = problem.reference(tolerance=1e-9)(torch.from_numpy(state)[None, None], grid, (time,))
    assert relative(got[0, 0, 0], torch.from_numpy(truth.y[:, -1])) < 2e-7


@EACH
def test_its_order_in_time_is_four(name):
    """Halving a fixed step twice: the second change is a sixteenth of the first.

    On half the nodes, where fourth derivatives are less stiff: exponential methods reach their order late on stiff
    modes (Hochbruck & Ostermann 2005).
    """
    problem, grid, time, state, _ = posed(name)
    u, grid = torch.from_numpy(state[::2])[None, None], problem.grid(grid.size // 2)
    solvers = [problem.reference(step=time / count, nodes="given") for count in (128, 256, 512)]
    coarse, middle, fine = (solver(u, grid, (time,)) for solver in solvers)
    assert 3.7 < math.log2(relative(coarse, middle) / relative(middle, fine)) < 4.4


@EACH
def test_the_default_tolerance_is_kept(name):
    """1e-6 a frame, in time and in space, and chaos multiplies errors by a few."""
    problem, grid, time, state, _ = posed(name)
    u = torch.from_numpy(state)[None, None]
    truth = problem.reference(tolerance=1e-9, nodes=2 * grid.size)(u, grid, (time,))
    assert relative(problem.reference()(u, grid, (time,)), truth) < 5e-6


@EACH
def test_a_state_on_few_nodes_is_solved_as_its_interpolant(name):
    """Sixteen nodes carry u(0) exactly, but not what becomes of it: the answer at them is that of the fine grid."""
    problem, grid, time, state, _ = posed(name)
    few = problem.grid(grid.size // 4)
    u = torch.from_numpy(state)[None, None]
    truth = problem.reference(tolerance=1e-9)(u, grid, (time,))[..., ::4]
    assert relative(problem.reference(tolerance=1e-9)(u[..., ::4], few, (time,)), truth) < 1e-7


CUBES = {
    "allen_cahn": AllenCahn(dim=3, diffusivity=0.02, length=TAU),
    "fisher_kpp": FisherKPP(dim=3, diffusivity=0.02, length=TAU),
    "swift_hohenberg": SwiftHohenberg(dim=3, length=TAU),
    "kuramoto_sivashinsky": KuramotoSivashinsky(form="combustion", dim=2, length=12.0),
}


@pytest.mark.parametrize("name", CUBES)
def test_a_state_that_varies_along_one_axis_stays_so(name):
    """More dimensions contain one: whichever axis it is."""
    problem = CUBES[name]
    line = type(problem)(**{**problem.parameters(), "dim": 1})
    grid, row = problem.grid(16), line.grid(16)
    wave = (0.4 + 0.3 * torch.sin(2 * math.pi * torch.arange(16, dtype=torch.float64) / 16))[None, None]
    expected = line.reference(nodes="given", tolerance=1e-9)(wave, row, (0.5,))
    for axis in range(problem.dim):
        shape = [1] * problem.dim
        shape[axis] = 16
        u = wave.reshape(1, 1, *shape).expand(1, 1, *grid.shape).contiguous()
        got = problem.reference(nodes="given", tolerance=1e-9)(u, grid, (0.5,))
        torch.testing.assert_close(got, expected.reshape(1, 1, 1, *shape).expand_as(got), rtol=0, atol=1e-9)


@pytest.mark.parametrize("size", [15, 16])
def test_a_diagonal_wave_mixes_the_axes_as_the_equation_says(size):
    """u(x + y) obeys the one-dimensional equation with k² doubled: combustion, b |grad u|² = 2 b u_s²."""
    flame = KuramotoSivashinsky(form="combustion", dim=2, length=12.0)
    line = KuramotoSivashinsky(form="combustion", nonlinearity=2.0, antidiffusion=2.0, hyperdiffusion=4.0, length=12.0)
    phase = 2 * math.pi * torch.arange(size, dtype=torch.float64) / size
    i = (torch.arange(size)[:, None] + torch.arange(size)) % size
    expected = line.reference(nodes="given", tolerance=1e-10)(torch.sin(phase)[None, None], line.grid(size), (0.5,))
    got = flame.reference(nodes="given", tolerance=1e-10)(torch.sin(phase)[i][None, None], flame.grid(size), (0.5,))
    torch.testing.assert_close(got, expected[..., i], rtol=0, atol=1e-8)


def test_an_answer_that_no_grid_resolves_is_refused(monkeypatch):
    """Without viscosity to speak of, a front is as thin as any grid; here the finest has 256 nodes, to be quick."""
    monkeypatch.setattr(_refined, "FINEST_AXIS", 256)
    problem = Burgers(viscosity=1e-9, length=TAU)
    u = torch.sin(problem.grid(64).coordinates()[0])[None, None]
    with pytest.raises(SolverError, match=r"Sample\(s\) \[0\] are not resolved to 0.001 on 256 nodes"):
        problem.reference(tolerance=1e-3)(u, problem.grid(64), (1.5,))


@pytest.mark.parametrize("nodes", [0, "fine", 2**16, 2.5])
def test_a_number_of_nodes_out_of_range_is_refused(nodes, unchecked):
    with pytest.raises(ValueError, match="nodes is 'auto', 'given' or a number from 2 to 32768"):
        Burgers().reference(nodes=nodes)


def test_samples_are_refined_each_for_itself():
    """A steep wave is solved on more nodes, and its calm neighbour neither waits for it nor notices."""

    class Spy(Burgers):
        def nonlinear(self, spectrum, modes):
            seen.add((len(spectrum), modes.grid.size))
            return super().nonlinear(spectrum, modes)

    seen: set = set()
    problem = Spy(viscosity=0.02, length=TAU)
    grid = problem.grid(32)
    calm = 0.01 * torch.sin(grid.coordinates()[0])[None, None]
    both = problem.reference()(torch.cat([calm, 100 * calm]), grid, (2.0,))
    assert {size for batch, size in seen if batch == 2} == {32}
    assert max(size for batch, size in seen if batch == 1) >= 256
    for row, u in zip(both, (calm, 100 * calm), strict=True):
        torch.testing.assert_close(problem.reference()(u, grid, (2.0,))[0], row, rtol=1e-5, atol=1e-9)


def test_more_nodes_than_given_are_at_least_so_many():
    class Spy(Burgers):
        def symbol(self, modes):
            seen.add(modes.grid.shape)
            return super().symbol(modes)

    seen: set = set()
    problem = Spy(length=TAU)
    problem.reference(nodes=100)(torch.zeros(1, 1, 32, dtype=torch.float64), Grid.box(32, upper=TAU), (0.1,))
    assert seen == {(128,)}
