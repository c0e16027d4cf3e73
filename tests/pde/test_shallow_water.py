"""Shallow water against Stoker's dam break, in symmetry, at rest, and at its order."""

import math

import pytest
import torch
from resolvent.pde.shallow_water import ShallowWater
from scipy.optimize import brentq


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def stoker(xi, left, right, g):
    """Dam break on a wet bed (Stoker 1957): a fan, a constant state, a bore."""

    def bore(h):  # velocity behind a bore into still water
        return (h - right) * math.sqrt(0.5 * g * (1 / h + 1 / right))

    h = brentq(lambda h: bore(h) + 2 * (math.sqrt(g * h) - math.sqrt(g * left)), right, left, xtol=1e-15)
    u = bore(h)
    speed = h * u / (h - right)
    fan = (2 * math.sqrt(g * left) - xi) ** 2 / (9 * g)
    height = torch.where(xi < speed, h, right).double()
    height = torch.where(xi < u - math.sqrt(g * h), fan, height)
    return torch.where(xi < -math.sqrt(g * left), left, height)


def dam(grid, left, right):
    state = torch.zeros(1, 1 + grid.dim, *grid.shape, dtype=torch.float64)
    state[:, 0] = torch.where(grid.mesh()[0] < 0, left, right)
    return state


@pytest.mark.parametrize(("right", "g", "bound"), [(1.0, 1.0, 0.004), (0.1, 9.81, 0.012), (1e-4, 1.0, 0.02)])
def test_the_dam_break_on_a_wet_bed_is_stokers(right, g, bound):
    """Down to nearly dry: Ritter's fan 4/9 h0, with a thin bore before it. L1 error, as a share of the height behind."""
    problem = ShallowWater(dim=1, gravity=g)
    errors = []
    for count in (100, 200):
        grid = problem.grid(count)
        time = 1.0 / math.sqrt(g)
        got = problem.reference()(dam(grid, 2.0, right), grid, (time,))[0, 0, 0]
        errors.append(float((got - stoker(grid.coordinates()[0] / time, 2.0, right, g)).abs().mean()) / 2)
        assert float(got.min()) > 0.9 * right
    assert errors[1] < bound
    assert errors[1] < 0.75 * errors[0]


def test_order_on_smooth_waves():
    """A simple wave: u - 2 c is constant and the rest is carried at u + c (exact before it breaks)."""
    problem = ShallowWater(dim=1, boundary="periodic", length=1.0, smallest=0.1, largest=0.2)
    errors = []
    for count in (32, 64):
        grid = problem.grid(count)
        x = grid.coordinates()[0]

        def speed(y):  # u + c = 3 c - 2
            return 1 + 0.3 * torch.sin(2 * math.pi * y)

        def state(carried):
            c = (carried + 2) / 3
            return torch.stack([c.square(), 2 * c - 2])

        foot = x - 0.2 * speed(x)
        for _ in range(60):
            foot = foot - (foot + 0.2 * speed(foot) - x) / (1 + 0.2 * 0.6 * math.pi * torch.cos(2 * math.pi * foot))
        got = problem.reference()(state(speed(x))[None], grid, (0.2,))[0, 0]
        errors.append(float((got - state(speed(foot))).abs().mean()))
    assert math.log2(errors[0] / errors[1]) > 4.0
    assert errors[1] < 1e-6


@pytest.mark.parametrize("boundary", ["periodic", "outflow", "wall"])
def test_a_lake_at_rest_stays_at_rest(boundary):
    problem = ShallowWater(boundary=boundary)
    grid = problem.grid(16)
    lake = dam(grid, 1.7, 1.7)
    assert torch.equal(problem.reference()(lake, grid, (1.0,))[:, 0], lake)


def test_the_radial_dam_break_is_as_symmetric_as_the_square():
    problem = ShallowWater()
    grid = problem.grid(32)
    state = problem.sample(2, grid, generator=generator())
    end = problem.reference()(state, grid, (0.5,))[:, 0]
    flip = torch.tensor([1.0, -1.0, 1.0]).double()[:, None, None]
    torch.testing.assert_close(end.flip(2) * flip, end, rtol=0, atol=1e-13)
    torch.testing.assert_close(end.transpose(2, 3)[:, [0, 2, 1]], end, rtol=0, atol=1e-13)
    assert float((end - state).abs().max()) > 0.3


def test_the_radial_dam_break_is_radial():
    """Water within a ring of radii has one height but for the cells' size: spread within rings falls as h does."""
    problem = ShallowWater(smallest=0.7, largest=0.7)
    spreads = []
    for count in (32, 64):
        grid = problem.grid(count)
        end = problem.reference()(problem.sample(1, grid, generator=generator()), grid, (0.6,))[0, 0, 0]
        radius = grid.mesh().square().sum(dim=0).sqrt()
        rings = torch.floor(radius / 0.05).to(torch.int64).flatten()
        inside = rings < 40
        count_of = torch.zeros(40).double().index_add(0, rings[inside], torch.ones(int(inside.sum())).double())
        mean = torch.zeros(40).double().index_add(0, rings[inside], end.flatten()[inside]) / count_of.clamp_min(1)
        spreads.append(float((end.flatten()[inside] - mean[rings[inside]]).abs().mean()))
    assert spreads[1] < 0.02


@pytest.mark.parametrize("boundary", ["periodic", "wall"])
def test_water_is_conserved_to_round_off(boundary):
    problem = ShallowWater(boundary=boundary, length=2.0)
    grid = problem.grid(24)
    state = problem.sample(2, grid, generator=generator())
    end = problem.reference()(state, grid, (0.7, 1.5))
    volume = end[:, :, 0].sum(dim=(2, 3)) / state[:, None, 0].sum(dim=(2, 3))
    torch.testing.assert_close(volume, torch.ones_like(volume), rtol=0, atol=1e-13)
    if boundary == "periodic":
        momentum = problem.conserved(end[:, -1])[:, 1:].sum(dim=(2, 3))
        assert float(momentum.abs().max()) < 1e-10


def test_energy_falls_in_a_bore():
    """Sum of g h² / 2 + h |v|² / 2: the entropy of the equations."""
    problem = ShallowWater(boundary="periodic", length=2.0)
    grid = problem.grid(24)
    state = problem.sample(1, grid, generator=generator())
    frames = torch.cat([state[:, None], problem.reference()(state, grid, (0.2, 0.4, 0.6))], dim=1)[0]
    energy = (0.5 * frames[:, 0].square() + 0.5 * frames[:, 0] * frames[:, 1:].square().sum(dim=1)).sum(dim=(1, 2))
    assert bool((energy.diff() < 0).all())


def test_two_dimensions_along_the_grid_are_one_dimension():
    line, plane = ShallowWater(dim=1), ShallowWater()
    expected = line.reference(step=0.02)(dam(line.grid(40), 2.0, 1.0), line.grid(40), (0.6,))[0, 0]
    grid = plane.grid((9, 40))
    state = torch.zeros(1, 3, 9, 40, dtype=torch.float64)
    state[:, 0] = dam(line.grid(40), 2.0, 1.0)[:, 0, None]
    got = plane.reference(step=0.02)(state, grid, (0.6,))[0, 0]
    torch.testing.assert_close(got[[0, 2]], expected[:, None].expand(-1, 9, -1), rtol=0, atol=1e-13)
    assert float(got[1].abs().max()) == 0.0


def test_radii_have_the_published_range():
    """The volume above the outside height is (inside - outside) pi R², to the rule's accuracy on 128² cells."""
    problem = ShallowWater(**ShallowWater.presets["pdebench_radial_dam_break"])
    grid = problem.grid(128)
    state = problem.sample(200, grid, generator=generator())
    radius = torch.sqrt(((state[:, 0] - 1) * grid.weights()).sum(dim=(1, 2)) / math.pi)
    assert 0.299 < float(radius.min()) < 0.31
    assert 0.69 < float(radius.max()) < 0.701
    assert float(radius.mean()) == pytest.approx(0.5, abs=4 * 0.4 / math.sqrt(12 * 200))
    assert problem.signature.times[-1] == pytest.approx(1.0)
    assert len(problem.signature.times) == 100


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"gravity": 0.0}, "gravity must be positive"),
        ({"outside": 0.0}, "outside must be positive"),
        ({"smallest": 0.8}, "smallest <= largest"),
        ({"largest": 3.0}, "length / 2"),
        ({"frames": 0}, "frames must be positive"),
    ],
)
def test_parameters_out_of_range_are_refused(values, message):
    with pytest.raises(ValueError, match=message):
        ShallowWater(**values)


def test_dry_beds_are_refused():
    problem = ShallowWater(dim=1)
    grid = problem.grid(16)
    with pytest.raises(ValueError, match="height must be positive"):
        problem.reference()(dam(grid, 1.0, 0.0), grid)
