"""``reference()`` of every problem answers what others ask: their states, their grids, their times.

The states are smooth waves, none of them from a problem's own law. A new problem is asked too, with the default state.
"""

import dataclasses
import functools
import math

import pytest
import torch
from resolvent.evaluation import registry

PROBLEMS = registry.problems()


def waves(grid, shift=0.0):
    """A smooth field from -1 to 1, different along each axis, without symmetries, of the period of the box."""
    total = 0.0
    for j, (axis, x) in enumerate(zip(grid.axes, grid.mesh(), strict=True)):
        s = 2 * math.pi * (x - axis.lower) / axis.length
        total = total + torch.sin(s + 0.3 + j + shift) + 0.4 * torch.cos(2 * s + 0.7 * j)
    return total / (1.4 * grid.dim)


def bump(grid):
    """Zero on the faces of the box."""
    sides = [torch.sin(math.pi * (x - a.lower) / a.length) for a, x in zip(grid.axes, grid.mesh(), strict=True)]
    return math.prod(sides) * (1 + 0.5 * waves(grid))


def plain(count):
    """So many channels, of zero mean."""
    return lambda grid: torch.stack([0.8 * waves(grid, j) for j in range(count)])


def without_divergence(grid):
    """Velocities on the torus of side 2 pi."""
    x, y, z = grid.mesh()
    return torch.stack([torch.sin(y) + torch.cos(2 * z), torch.cos(x) + 0.5 * torch.sin(z), torch.sin(x + y)])


def in_l(grid):
    x, y = grid.mesh()
    return torch.where((x >= 0) & (y <= 0), 0.0, waves(grid))[None]


def scaled(*offset_and_size):
    return lambda grid: torch.stack([o + s * waves(grid, j) for j, (o, s) in enumerate(offset_and_size)])


def point(*values):
    """The unknowns of a system without space."""
    return lambda grid: torch.tensor(values, dtype=torch.float64)


# what a problem admits: densities and coefficients are positive, inflow is constant along x, …
STATES = {
    "darcy": scaled((2.0, 1.0)),
    "diffusion_reaction": lambda grid: waves(grid)[:, :1].expand(grid.shape)[None],
    "euler": scaled((1.0, 0.2), (1.0, 0.2), (0.0, 0.3)),
    "fisher_kpp": scaled((0.5, 0.4)),
    "gray_scott": scaled((0.7, 0.2), (0.2, 0.1)),
    "helmholtz": scaled((200.0, 10.0)),
    "high_frequency_allen_cahn": scaled((0.0, 0.1), (0.0, 0.1)),  # larger ones have several solutions, or none
    "high_frequency_advection": lambda grid: torch.stack([waves(grid), waves(grid, 1)]),
    "l_shape": in_l,
    "lorenz": point(-5.0, -6.0, 22.0),
    "lotka_volterra": point(1.0, 2.0),
    "navier_stokes_3d": without_divergence,
    "robertson": point(1.0, 0.0, 0.0),
    "shallow_water": scaled((1.0, 0.1), (0.0, 0.1), (0.0, 0.1)),
    "spiral": point(1.5, 0.5),
    "stokes": lambda grid: bump(grid)[grid.shape[0] // 2].expand(grid.shape)[None],
    "van_der_pol": point(1.0, 0.5),
}
# not square, and few: these are questions of form
NODES = {0: (), 1: (32,), 2: (20, 24), 3: (12, 14, 16)}
OPTIONS = {"fitzhugh_nagumo": {"frames": 4}, "forced_navier_stokes": {"time": 1.0}}


@functools.cache
def asked(name):
    problem = registry.find_problem(name).build()
    problem = dataclasses.replace(problem, **OPTIONS.get(name, {}))
    dim = problem.grid(problem.setups["quick"].resolution).dim
    return problem, grid_of(problem, NODES[dim])


def grid_of(problem, cells):
    """So many cells along each axis: one more node where both ends have one."""
    ends = any(axis.placement == "ends" for axis in problem.grid(cells).axes)
    return problem.grid([n + 1 for n in cells] if ends else list(cells))


def state(name, problem, grid):
    make = STATES.get(name) or plain(len(problem.signature.inputs))
    return make(grid)[None]


def times_of(problem):
    """An irregular list within the problem's first frames, or None where there is no time."""
    if not problem.signature.evolves:
        return None
    spacing = problem.signature.spacing
    return tuple(round(part * spacing, 12) for part in (0.13, 0.5, 0.77, 1.0, 1.31))


@functools.cache
def answer(name):
    problem, grid = asked(name)
    return problem.reference()(state(name, problem, grid), grid, times_of(problem))


def relative(got, expected):
    return float((got - expected).norm() / expected.norm())


EACH = pytest.mark.parametrize("name", PROBLEMS)


@EACH
def test_a_users_state_is_answered_on_a_users_grid_at_a_users_times(name):
    problem, grid = asked(name)
    times = times_of(problem)
    frames = () if times is None else (len(times),)
    got = answer(name)
    assert got.shape == (1, *frames, len(problem.signature.outputs), *grid.shape)
    assert bool(torch.isfinite(got).all())
    assert float(got.norm()) > 0


@pytest.mark.parametrize("name", [n for n in PROBLEMS if asked(n)[0].signature.evolves])
def test_the_answer_at_a_time_does_not_depend_on_the_other_times(name):
    problem, grid = asked(name)
    times = times_of(problem)
    alone = problem.reference()(state(name, problem, grid), grid, (times[2], times[4]))
    assert relative(alone, answer(name)[:, [2, 4]]) < 1e-4


@EACH
def test_a_batch_of_two_is_answered_as_each_alone(name):
    """And single precision stays single: the same numbers to its 1e-7, which a few steps of instability multiply."""
    problem, grid = asked(name)
    first = state(name, problem, grid)
    other = first * (1.0 + 0.1 * torch.rand(1, generator=torch.Generator().manual_seed(0), dtype=torch.float64))
    both = problem.reference()(torch.cat([other, first]).float(), grid, times_of(problem))
    assert both.dtype == torch.float32
    assert relative(both[1:].double(), answer(name)) < 1e-4


# measured, times 1.5 to 3; elsewhere what is spectral agrees to its tolerance, the rest to 1e-3 on these few nodes
AGREEMENT = {
    "fitzhugh_nagumo": 5e-3,
    "gray_scott": 3e-2,  # its fronts are a quarter of a cell thick
    "helmholtz": 1e-2,  # bilinear elements
    "helmholtz_source": 6e-2,  # sine series of a source that is not zero on the faces, near a resonance
    "inviscid_burgers": 5e-3,
    "l_shape": 1e-2,  # the corner's order, 4/3
    "poisson": 1e-2,  # sine series of a source that is not zero on the faces
    "shallow_water": 3e-3,
}


@pytest.mark.parametrize("name", [n for n in PROBLEMS if asked(n)[1].axes])
def test_two_resolutions_agree(name):
    problem, grid = asked(name)
    factor = 3 if grid.axes[0].placement == "centres" else 2  # so that the coarse nodes are among the fine
    fine = grid_of(problem, [factor * n for n in NODES[grid.dim]])
    got = problem.reference()(state(name, problem, fine), fine, times_of(problem))
    common = got[(..., *(slice(factor // 3, None, factor) for _ in grid.shape))]
    assert relative(answer(name), common) < AGREEMENT.get(name, 1e-3)
