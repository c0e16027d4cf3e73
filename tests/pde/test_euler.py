"""Gas dynamics against exact Riemann solutions, travelling waves, conservation and symmetry."""

import dataclasses
import math

import pytest
import torch
from resolvent.pde.euler import Euler
from scipy.optimize import brentq

NAMES = {"sod": 0.2, "lax": 0.13, "double_rarefaction": 0.15}


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def rates(errors):
    return [math.log2(a / b) for a, b in zip(errors, errors[1:], strict=False)]


def star(left, right, gamma):
    """Pressure and velocity between the outer waves: the root of the pressure function (Toro 2009, chapter 4)."""

    def velocity_change(p, state):
        rho, p0, _ = state
        if p > p0:
            return (p - p0) * math.sqrt(2 / (rho * ((gamma + 1) * p + (gamma - 1) * p0)))
        sound = math.sqrt(gamma * p0 / rho)
        return 2 * sound / (gamma - 1) * ((p / p0) ** ((gamma - 1) / (2 * gamma)) - 1)

    jump = right[2] - left[2]
    p = brentq(lambda p: velocity_change(p, left) + velocity_change(p, right) + jump, 1e-12, 1e6, xtol=1e-15)
    return p, 0.5 * (left[2] + right[2] + velocity_change(p, right) - velocity_change(p, left))


def one_side(xi, state, p, u, gamma):
    """Density, pressure, velocity at speeds xi left of the contact."""
    rho, p0, u0 = state
    c = math.sqrt(gamma * p0 / rho)
    if p > p0:
        ratio = (gamma - 1) / (gamma + 1)
        behind = rho * (p / p0 + ratio) / (ratio * p / p0 + 1)
        speed = u0 - c * math.sqrt((gamma + 1) / (2 * gamma) * p / p0 + (gamma - 1) / (2 * gamma))
        ahead = xi < speed
        return [torch.where(ahead, a, b) for a, b in ((rho, behind), (p0, p), (u0, u))]
    head, tail = u0 - c, u - c * (p / p0) ** ((gamma - 1) / (2 * gamma))
    fan = 2 / (gamma + 1) + (gamma - 1) / ((gamma + 1) * c) * (u0 - xi)
    inside = (
        rho * fan.clamp_min(0) ** (2 / (gamma - 1)),
        p0 * fan.clamp_min(0) ** (2 * gamma / (gamma - 1)),
        2 / (gamma + 1) * (c + (gamma - 1) / 2 * u0 + xi),
    )
    behind = (rho * (p / p0) ** (1 / gamma), p, u)
    return [
        torch.where(xi < head, a, torch.where(xi > tail, b, f)) for a, b, f in zip(state, behind, inside, strict=True)
    ]


def exact_riemann(xi, left, right, gamma):
    p, u = star(left, right, gamma)
    first = one_side(xi, left, p, u, gamma)
    rho, pressure, velocity = one_side(-xi, (right[0], right[1], -right[2]), p, -u, gamma)
    return torch.stack([torch.where(xi < u, a, b) for a, b in zip(first, (rho, pressure, -velocity), strict=True)])


def test_the_exact_solver_knows_the_tabulated_star_states():
    """Toro 2009, table 4.2: tests 1 (Sod), 2 (double rarefaction) and 3."""
    for left, right, pressure, velocity in (
        ((1.0, 1.0, 0.0), (0.125, 0.1, 0.0), 0.30313, 0.92745),
        ((1.0, 0.4, -2.0), (1.0, 0.4, 2.0), 0.00189, 0.0),
        ((1.0, 1000.0, 0.0), (1.0, 0.01, 0.0), 460.894, 19.5975),
    ):
        p, u = star(left, right, 1.4)
        assert p == pytest.approx(pressure, abs=1e-5, rel=2e-6)
        assert u == pytest.approx(velocity, abs=6e-5)  # printed with five digits


def tube(law, count, **options):
    """Solution and closed form of a shock tube, and the mean error of each channel."""
    problem = Euler(law=law, boundary="outflow")
    grid = problem.grid(count)
    start = problem.sample(1, grid, generator=generator())
    got = problem.reference(**options)(start, grid, (NAMES[law],))[0, 0]
    xi = (grid.coordinates()[0] - 0.5) / NAMES[law]
    expected = exact_riemann(xi, tuple(start[0, :, 0].tolist()), tuple(start[0, :, -1].tolist()), 1.4)
    return got, expected, (got - expected).abs().mean(dim=1)


def test_sod_at_400_cells():
    """The issue asks for 0.004. No new extrema: the solution lies between its states to 0.1 %."""
    got, _, error = tube("sod", 400)
    assert float(error[0]) < 0.0015
    assert float(got[0].min()) > 0.125 - 1e-4
    assert float(got[0].max()) < 1 + 1e-4


@pytest.mark.parametrize(("law", "bound"), [("sod", 0.006), ("lax", 0.022), ("double_rarefaction", 0.012)])
def test_shock_tubes_converge_at_first_order(law, bound):
    """L1 errors of density; a contact is smeared over a slowly growing number of cells, so slightly below 1."""
    errors = [float(tube(law, count)[2][0]) for count in (50, 100)]
    assert errors[-1] < bound
    assert all(0.6 < rate < 1.4 for rate in rates(errors))


@pytest.mark.parametrize("options", [{"scheme": "muscl"}, {"riemann": "rusanov"}])
def test_the_cheaper_choices_converge_to_the_same_solution(options):
    errors = [float(tube("sod", count, **options)[2][0]) for count in (50, 100)]
    assert errors[1] < 0.65 * errors[0]
    assert errors[1] < 0.012


def density_wave(x, time):
    """Carried along by velocity 1 under pressure 1: exact for every profile."""
    rho = 1 + 0.5 * torch.sin(2 * math.pi * (x - time))
    return torch.stack([rho, torch.ones_like(x), torch.ones_like(x)])


@pytest.mark.parametrize(("options", "order"), [({}, 5), ({"riemann": "rusanov"}, 5), ({"scheme": "muscl"}, 2)])
def test_order_on_a_smooth_density_wave(options, order):
    problem, errors = Euler(), []
    for count in (32, 64) if order == 5 else (64, 128):
        grid = problem.grid(count)
        x = grid.coordinates()[0]
        got = problem.reference(**options)(density_wave(x, 0.0)[None], grid, (0.3,))[0, 0]
        errors.append(float((got - density_wave(x, 0.3)).abs().mean()))
    assert all(order - 0.15 < rate < order + 0.3 for rate in rates(errors))


def test_order_on_sound_waves_of_finite_amplitude():
    """A nonlinear simple wave before it steepens: the other waves are at an extremum everywhere, so that weights without
    a floor give order 2.4. Self-convergence at order 4 or more.
    """
    problem = Euler()

    def solve(count):
        grid = problem.grid(count)
        u = 0.1 * torch.sin(2 * math.pi * grid.coordinates()[0])
        c = math.sqrt(1.4) + 0.2 * u  # the Riemann invariant u - 2 c / (gamma - 1) is constant
        p = (c / math.sqrt(1.4)) ** 7
        return problem.reference()(torch.stack([1.4 * p / c.square(), p, u])[None], grid, (0.3,))[0, 0]

    truth = solve(128)
    errors = [float((solve(count) - truth[:, :: 128 // count]).abs().mean()) for count in (16, 32, 64)]
    assert all(rate > 4.0 for rate in rates(errors))


def test_order_on_the_isentropic_vortex():
    """Carried by (1, 1) through a torus 14 wide, where its tail is exp(-24): after one cell's time it has moved a cell."""
    errors = []
    for count in (28, 56):
        problem = Euler(dim=2, law="vortex", length=14.0)
        grid = problem.grid(count)
        start = problem.sample(1, grid, generator=generator())
        got = problem.reference()(start, grid, (1.0,))[:, 0]
        errors.append(float((got - start.roll((count // 14,) * 2, (2, 3))).abs().mean()))
    assert rates(errors)[0] > 4.0
    assert errors[-1] < 5e-5


def total(state, problem, grid):
    return (problem.conserved(state) * grid.weights()).flatten(2).sum(dim=2)


@pytest.mark.parametrize(
    "options",
    [
        {"law": "random", "mach": 1.0},
        {"dim": 2, "law": "random", "mach": 2.0},
        {"dim": 2, "law": "quadrants", "mach": 2.0},
        {"dim": 2, "law": "turbulent", "mach": 1.0},
    ],
)
def test_mass_momentum_and_energy_are_conserved_to_round_off(options):
    problem = Euler(**options)
    grid = problem.grid(24)
    start = problem.sample(2, grid, generator=generator(1))
    end = problem.reference()(start, grid, (0.2,))[:, 0]
    assert float((end - start).abs().max()) > 0.01
    torch.testing.assert_close(total(end, problem, grid), total(start, problem, grid), rtol=1e-12, atol=1e-12)


def test_walls_keep_mass_and_energy_and_mirror_the_flow():
    """A wall is a mirror: the left half of a symmetric flow on twice the interval is the flow before a wall."""
    problem = Euler(boundary="wall")
    grid = problem.grid(60)
    half = problem.sample(1, grid, generator=generator())
    end = problem.reference(step=0.004)(half, grid, (0.2,))[:, 0]
    torch.testing.assert_close(total(end, problem, grid)[:, :2], total(half, problem, grid)[:, :2], rtol=1e-13, atol=0)
    double = dataclasses.replace(problem, length=2.0)
    image = half.flip(-1) * torch.tensor([1.0, 1.0, -1.0]).double()[:, None]
    both = double.reference(step=0.004)(torch.cat([half, image], dim=-1), double.grid(120), (0.2,))[:, 0]
    # not to round-off: what counts as smooth depends on the number of cells an axis
    torch.testing.assert_close(both[..., :60], end, rtol=0, atol=1e-5)


@pytest.mark.parametrize("axis", [0, 1])
def test_two_dimensions_along_the_grid_are_one_dimension(axis):
    line, plane = Euler(law="sod", boundary="outflow"), Euler(dim=2, law="random", boundary="outflow")
    grid, square = line.grid(40), plane.grid((40, 9) if axis == 0 else (9, 40))
    start = line.sample(1, grid, generator=generator())
    expected = line.reference(step=0.002)(start, grid, (0.1,))[0, 0]
    state = torch.zeros(1, 4, 40, 9, dtype=torch.float64)
    state[:, :2], state[:, 2 + axis] = start[:, :2, :, None], start[:, 2, :, None]
    got = plane.reference(step=0.002)(state if axis == 0 else state.transpose(2, 3), square, (0.1,))[0, 0]
    got = got if axis == 0 else got.transpose(1, 2)
    torch.testing.assert_close(got[[0, 1, 2 + axis]], expected[..., None].expand(-1, -1, 9), rtol=0, atol=1e-13)
    assert float(got[3 - axis].abs().max()) == 0.0


def test_a_turned_flow_is_the_flow_turned():
    problem = Euler(dim=2, law="quadrants", boundary="outflow", mach=1.0)
    grid = problem.grid(24)
    start = problem.sample(1, grid, generator=generator(2))
    end = problem.reference()(start, grid, (0.2,))[:, 0]
    turned = problem.reference()(start.transpose(2, 3)[:, [0, 1, 3, 2]], grid, (0.2,))[:, 0]
    torch.testing.assert_close(turned.transpose(2, 3)[:, [0, 1, 3, 2]], end, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("left", "right", "time"),
    [
        ((1.0, 0.4, -2.0), (1.0, 0.4, 2.0), 0.15),
        ((1.0, 0.01, -5.0), (1.0, 0.01, 5.0), 0.05),  # a vacuum opens
        ((1.0, 1000.0, 0.0), (1.0, 0.01, 0.0), 0.012),
        ((1.0, 1.0, 0.0), (1e-6, 1e-6, 0.0), 0.1),  # next to nothing on the right
        ((1.0, 1e-6, 4.0), (1.0, 1e-6, -4.0), 0.1),  # Mach 3400 against itself
    ],
)
def test_density_and_pressure_stay_positive(left, right, time):
    problem = Euler(boundary="outflow")
    grid = problem.grid(100)
    here = grid.coordinates()[0] < 0.5
    state = torch.stack([torch.where(here, a, b) for a, b in zip(left, right, strict=True)])[None].double()
    end = problem.reference()(state, grid, (time / 2, time))
    assert float(end[:, :, :2].min()) > 0
    if left[2] == 0:  # strong shock: in the right place, L1 error a few cells' worth
        xi = (grid.coordinates()[0] - 0.5) / time
        error = (end[0, 1] - exact_riemann(xi, left, right, 1.4)).abs().mean(dim=1)
        assert float(error[1]) < 0.03 * left[1]


def test_an_isolated_contact_stands_still():
    """HLLC resolves it exactly; a uniform pressure and velocity stay uniform."""
    problem = Euler(boundary="outflow")
    grid = problem.grid(20)
    rho = torch.where(grid.coordinates()[0] < 0.5, 1.0, 0.1).double()
    state = torch.stack([rho, torch.ones_like(rho), torch.zeros_like(rho)])[None]
    torch.testing.assert_close(problem.reference()(state, grid, (1.0,))[:, 0], state, rtol=0, atol=1e-13)


def test_random_velocities_have_their_mach_number_and_no_divergence():
    problem = Euler(dim=2, law="turbulent", mach=0.7)
    grid = problem.grid(16)
    state = problem.sample(3, grid, generator=generator())
    square = state[:, 2:].square().sum(dim=1).mean(dim=(1, 2))
    torch.testing.assert_close(square / 1.4, torch.full((3,), 0.49, dtype=torch.float64), rtol=1e-12, atol=0)
    u, v = torch.fft.fft2(state[:, 2]), torch.fft.fft2(state[:, 3])
    k = torch.fft.fftfreq(16, 1 / 16, dtype=torch.float64)
    assert float((k[:, None] * u + k * v).abs().max()) < 1e-10


@pytest.mark.parametrize("law", ["random", "shock", "quadrants", "four_shocks", "vortex"])
def test_samples_are_admissible_and_depend_on_the_seed_where_random(law):
    problem = Euler(dim=2, law=law, length=10.0 if law == "vortex" else 1.0)
    grid = problem.grid(20)
    states = problem.sample(8, grid, generator=generator())
    assert float(states[:, :2].min()) > 0
    random = law not in ("four_shocks", "vortex")
    assert (float((states[0] - states[1]).abs().max()) > 0) == random
    if law == "quadrants":
        assert all(len(state[0].unique()) == 4 for state in states)


def test_four_shocks_join_their_quadrants_by_single_shocks():
    """Rankine-Hugoniot across both shocks of configuration 3: the jumps of flux and of state are parallel."""
    problem = Euler(dim=2, law="four_shocks", boundary="outflow")
    state = problem.sample(1, problem.grid(20), generator=generator())
    low, middle, high = (state[:, :, i, j][..., None, None] for i, j in ((0, 0), (0, -1), (-1, -1)))
    for axis, (a, b) in ((1, (low, middle)), (0, (middle, high))):
        flux = problem.flux(a, axis) - problem.flux(b, axis)
        jump = problem.conserved(a) - problem.conserved(b)
        speed = (flux * jump).sum() / jump.square().sum()
        torch.testing.assert_close(flux, speed * jump, rtol=0, atol=1e-3)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"gamma": 1.0}, "gamma must be above 1"),
        ({"amplitude": 1.0}, "amplitude is from 0 to below 1"),
        ({"law": "vortex"}, "lives in two dimensions"),
        ({"law": "sod"}, "different ends"),
        ({"mach": -1.0}, "mach must be positive"),
        ({"spacing": 0.0}, "spacing must be positive"),
    ],
)
def test_parameters_out_of_range_are_refused(values, message):
    with pytest.raises(ValueError, match=message):
        Euler(**values)


def test_states_without_density_or_pressure_are_refused():
    problem = Euler()
    grid = problem.grid(16)
    state = problem.sample(3, grid, generator=generator())
    state[2, 1, 3] = 0.0
    with pytest.raises(ValueError, match=r"pressure must be positive.*\[2\]"):
        problem.reference()(state, grid)


def column(*values):
    return torch.tensor(values, dtype=torch.float64).reshape(1, -1, 1)


@pytest.mark.parametrize("mirror", [False, True])
def test_the_flux_through_an_isolated_shock_is_that_of_the_state_behind_it(mirror):
    """The wave speed of Roe's mean is a single shock's own, so HLLC meets Rankine and Hugoniot exactly."""
    gamma, mach, ahead = 1.4, 2.0, (1.0, 1.0, 2.0)
    sound = math.sqrt(gamma)
    density = (gamma + 1) * mach**2 / ((gamma - 1) * mach**2 + 2)
    pressure = 1 + 2 * gamma / (gamma + 1) * (mach**2 - 1)
    velocity = 2.0 - 2 * sound / (gamma + 1) * (mach - 1 / mach)
    assert velocity > 0 > 2.0 - mach * sound  # the gas behind flows on through the face, the shock runs against it
    problem, left, right = Euler(), column(*ahead), column(density, pressure, velocity)
    if mirror:
        left, right = problem.mirrored(right, 0), problem.mirrored(left, 0)
    behind = left if mirror else right
    torch.testing.assert_close(problem.riemann_flux(left, right, 0), problem.flux(behind, 0), rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("mirror", [False, True])
def test_faster_than_sound_only_the_side_upwind_counts(mirror):
    problem, left, right = Euler(), column(1.0, 1.0, 3.0), column(0.8, 0.9, 3.2)
    if mirror:
        left, right = problem.mirrored(right, 0), problem.mirrored(left, 0)
    upwind = right if mirror else left
    torch.testing.assert_close(problem.riemann_flux(left, right, 0), problem.flux(upwind, 0), rtol=1e-14, atol=0)
