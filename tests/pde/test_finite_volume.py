"""The scheme itself, on equations small enough to see through."""

import dataclasses
import math

import pytest
import torch
from resolvent.pde import Axis, Grid, SolverError
from resolvent.pde._coarser_cells import OnCoarserCells, _cell_means, _linear
from resolvent.pde._finite_volume import METHODS, FiniteVolumes
from resolvent.pde._weno import flux_correction, muscl, neighbours, pad, weno
from resolvent.pde.euler import Euler
from resolvent.pde.inviscid_burgers import InviscidBurgers


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def faces(function, count, rule):
    """Errors of left and right states at the faces of a periodic grid."""
    h = 2 * math.pi / count
    x = torch.arange(count, dtype=torch.float64) * h
    v = neighbours(pad(function(x), ("periodic", "periodic"), x))
    truth = function(torch.arange(count + 1, dtype=torch.float64) * h - 0.5 * h)
    floor = torch.full_like(truth, float(count) ** -4)
    left, right = weno(v, floor) if rule == "weno" else muscl(v)
    return float((left - truth).abs().mean()), float((right - truth).abs().mean())


@pytest.mark.parametrize(("rule", "order"), [("weno", 5), ("muscl", 2)])
def test_face_states_are_of_the_claimed_order_also_at_extrema(rule, order):
    def wave(x):
        return torch.sin(x) + 0.3 * torch.cos(3 * x)

    coarse, fine = faces(wave, 64, rule), faces(wave, 128, rule)
    for side in (0, 1):
        assert order - 0.3 < math.log2(coarse[side] / fine[side]) < order + 0.9


@pytest.mark.parametrize("power", range(5))
def test_the_three_parabolas_make_a_quartic_exact_where_it_is_smooth(power):
    """With a floor far above all differences, the weights are the linear ones and degree 4 is exact."""
    x = torch.arange(6, dtype=torch.float64)
    left, right = weno((x**power)[:, None], torch.full((1,), 1e30, dtype=torch.float64))
    torch.testing.assert_close(torch.cat([left, right]), torch.full((2,), 2.5**power, dtype=torch.float64))


@pytest.mark.parametrize("power", range(6))
def test_flux_differences_are_exact_derivatives_up_to_degree_five(power):
    """f at the faces plus its correction, differenced over a cell, is f' at the centre."""
    x = torch.arange(-3, 5, dtype=torch.float64)
    corrected = (torch.tensor([0.5, 1.5], dtype=torch.float64) - 0.0) ** power + flux_correction(
        torch.stack([(x[k : k + 2] + 1) ** power for k in range(6)])
    )
    expected = power * 1.0 if power else 0.0  # d/dx x^power at 1
    assert float(corrected[1] - corrected[0]) == pytest.approx(expected, abs=1e-10)


@pytest.mark.parametrize("rule", ["weno", "muscl"])
def test_a_jump_is_not_interpolated_across(rule):
    """Face states beside a unit jump stay on their side of it to 1e-6."""
    v = neighbours((torch.arange(20) >= 10).double())
    floor = torch.full((15,), 1e-8, dtype=torch.float64)
    left, right = weno(v, floor) if rule == "weno" else muscl(v)
    at = 7  # the face between cells 9 and 10 of 20
    assert abs(float(left[at])) < 1e-6
    assert abs(float(right[at]) - 1) < 1e-6
    assert float(left.min()) > -1e-6
    assert float(right.max()) < 1 + 1e-6


@pytest.mark.parametrize("name", ["weno", "muscl"])
def test_time_steps_have_their_order_and_are_convex(name):
    """On y' = y² (y = 1 / (1 - t)); every stage is a convex combination of Euler steps no longer than dt / bound."""
    method = METHODS[name]

    def solve(count):
        y, dt = 1.0, 0.5 / count
        for _ in range(count):
            stages = [y]
            for mix, rates in zip(method.mix, method.rates, strict=True):
                new = sum(w * stages[k] for k, w in mix.items())
                stages.append(new + dt * sum(w * stages[k] ** 2 for k, w in rates.items()))
            y = stages[-1]
        return abs(y - 2)

    assert abs(math.log2(solve(40) / solve(80)) - method.order) < 0.15
    for mix, rates in zip(method.mix, method.rates, strict=True):
        assert sum(mix.values()) == pytest.approx(1, abs=1e-13)
        assert all(rates[k] <= mix[k] / method.bound * (1 + 1e-3) for k in rates)


@pytest.mark.parametrize(("kind", "expected"), [("outflow", [0.0] * 3), ("wall", [2.0, 1.0, 0.0])])
def test_ghost_cells(kind, expected):
    values = torch.arange(6, dtype=torch.float64)
    padded = pad(values, (kind, kind), -values if kind == "wall" else values)
    sign = -1 if kind == "wall" else 1
    assert padded[:3].tolist() == [sign * v for v in expected]
    assert padded[3:9].tolist() == values.tolist()
    assert pad(values, ("periodic", "periodic"), values)[:3].tolist() == [3.0, 4.0, 5.0]


def states(count, problem, grid):
    return problem.sample(count, grid, generator=generator(4))


def test_a_sample_does_not_depend_on_its_company():
    """To the last bit: every sample takes its own steps, and limiters touch only those that need them."""
    problem = Euler(law="shock", boundary="outflow", mach=3.0)
    grid = problem.grid(32)
    u = states(5, problem, grid)
    u[3, 2] = torch.where(grid.coordinates()[0] < 0.5, -6.0, 6.0)  # nearly a vacuum: the limiter is at work
    together = problem.reference()(u, grid, (0.02, 0.05))
    apart = problem.reference(chunk=2)(u, grid, (0.02, 0.05))
    assert torch.equal(together, apart)
    assert torch.equal(together[3:4], problem.reference()(u[3:4], grid, (0.02, 0.05)))


def test_frames_do_not_depend_on_other_frames_beyond_the_scheme():
    problem = Euler()
    grid = problem.grid(64)
    u = states(1, problem, grid)
    all_of_them = problem.reference()(u, grid, (0.05, 0.07, 0.2))
    for i, time in enumerate((0.05, 0.07, 0.2)):
        torch.testing.assert_close(all_of_them[:, i], problem.reference()(u, grid, (time,))[:, 0], rtol=0, atol=1e-4)
    assert torch.equal(all_of_them, problem.reference()(u, grid, (0.05, 0.07, 0.2)))


def test_results_come_in_the_dtype_of_the_inputs():
    problem = Euler()
    grid = problem.grid(32)
    u = states(1, problem, grid)
    single = problem.reference()(u.float(), grid, (0.1,))
    assert single.dtype == torch.float32
    torch.testing.assert_close(single.double(), problem.reference()(u, grid, (0.1,)), rtol=0, atol=1e-5)


@pytest.mark.parametrize(("scheme", "largest"), [("weno", 0.754), ("muscl", 0.5)])
def test_a_fixed_step_beyond_cfl_is_refused_with_the_admissible_one(scheme, largest):
    problem = InviscidBurgers()
    grid = problem.grid(50)
    u = torch.cat([torch.ones(1, 1, 50), torch.full((1, 1, 50), 4.0)]).double()
    with pytest.raises(SolverError, match=rf"fixed step 0.1 breaks .* sample 1; .* step is {largest / 200:.3g}\."):
        problem.reference(scheme=scheme, step=0.1)(u, grid, (0.3,))
    assert bool(torch.equal(problem.reference(scheme=scheme, step=largest / 201)(u, grid, (0.3,))[:, 0], u))


class Runaway(InviscidBurgers):
    """With a flux that feeds u by its cube, u_t ~ 1000 u³: it is infinite in no time, and that must be named."""

    def riemann_flux(self, left, right, axis):
        steep = torch.arange(left.shape[-1], dtype=left.dtype)
        return super().riemann_flux(left, right, axis) - 1e3 * steep * left.abs().amax(dim=-1, keepdim=True) ** 3


@pytest.mark.parametrize("options", [{}, {"step": 1e-4}])
def test_a_blow_up_names_its_sample_and_time(options):
    problem = Runaway(boundary="outflow")
    grid = problem.grid(16)
    u = torch.stack([torch.zeros(1, 16), torch.ones(1, 16)]).double()
    with pytest.raises(SolverError, match=r"(blew up near time 0|fixed step 0.0001 breaks).*sample(\(s\) \[1\]| 1)"):
        problem.reference(**options)(u, grid, (1.0,))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"scheme": "upwind"}, "'weno' or 'muscl'"),
        ({"riemann": "roe"}, "'hllc' or 'rusanov'"),
        ({"cfl": 0.8}, "at most 0.754, got 0.8"),
        ({"cfl": 0.6, "scheme": "muscl"}, "at most 0.5, got 0.6"),
        ({"cfl": 0.0}, "above 0"),
        ({"step": -1.0}, "positive, finite time"),
        ({"chunk": 0}, "at least 1 sample"),
    ],
)
def test_solver_options_out_of_range_are_refused(options, message, unchecked):
    with pytest.raises(ValueError, match=message):
        FiniteVolumes(InviscidBurgers(), **options)


def test_grids_without_cells_are_refused():
    problem = InviscidBurgers()
    u = torch.zeros(1, 1, 16, dtype=torch.float64)
    with pytest.raises(ValueError, match="placement 'ends'"):
        problem.reference()(u, Grid.box(16, boundary="outflow", placement="ends"))
    with pytest.raises(ValueError, match="at least 8 cells"):
        problem.reference()(u[..., :6], problem.grid(6))


AXES = [
    (Axis("x", 12), Axis("x", 5)),
    (
        Axis("x", 12, 0.0, 1.0, ("outflow", "outflow"), "centres"),
        Axis("x", 5, 0.0, 1.0, ("outflow", "outflow"), "centres"),
    ),
]


@pytest.mark.parametrize(("fine", "coarse"), AXES, ids=["periodic", "open"])
def test_going_to_coarser_cells_keeps_totals_and_coming_back_keeps_bounds(fine, coarse):
    down, up = _cell_means(fine, coarse), _linear(coarse, fine)
    torch.testing.assert_close(down.sum(dim=1), torch.ones(5).double())
    torch.testing.assert_close(down.sum(dim=0) * coarse.spacing, torch.full((12,), fine.spacing).double())
    torch.testing.assert_close(up.sum(dim=1), torch.ones(12).double())
    assert float(down.min()) >= 0
    assert float(up.min()) >= 0


def test_a_coarser_grid_of_the_same_size_is_the_same_solver():
    problem = Euler()
    grid = problem.grid(24)
    u = states(1, problem, grid)
    assert torch.equal(OnCoarserCells(problem.reference(), (24,))(u, grid), problem.reference()(u, grid))


def test_the_ladder_gets_better_and_ends_with_the_reference():
    problem = dataclasses.replace(Euler(), frames=2)
    grid = problem.grid(64)
    u = states(2, problem, grid)
    truth = problem.reference()(u, grid)
    ladder = problem.ladder(grid)
    errors = {name: float((rung(u, grid) - truth).norm() / truth.norm()) for name, rung in ladder.items()}
    assert list(ladder)[-1] == "finite volumes (weno) 64"
    assert errors["finite volumes (weno) 64"] == 0
    weno_errors = [e for name, e in errors.items() if "weno" in name]
    assert weno_errors == sorted(weno_errors, reverse=True)
    assert all(errors[f"finite volumes (weno) {n}"] < errors[f"finite volumes (muscl) {n}"] for n in (16, 32, 64))
