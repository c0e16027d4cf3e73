"""Plain systems: closed forms, invariants, published digits; the two trusted integrators against each other."""

from __future__ import annotations

import math

import pytest
import torch
from resolvent.pde import Grid, SolverError, varied
from resolvent.pde._system import Integrated
from resolvent.pde.lorenz import Lorenz
from resolvent.pde.lotka_volterra import LotkaVolterra
from resolvent.pde.robertson import Robertson
from resolvent.pde.spiral import Spiral
from resolvent.pde.van_der_pol import VanDerPol
from torch import Generator, Tensor

F64 = torch.float64
POINT = Grid(())
SYSTEMS = (Spiral(), LotkaVolterra(), Lorenz(), VanDerPol(), Robertson())


def drawn(problem: object, count: int = 5) -> Tensor:
    return problem.sample(count, POINT, generator=Generator().manual_seed(3))  # type: ignore[attr-defined]


@pytest.mark.parametrize("problem", SYSTEMS, ids=lambda p: p.name)
def test_a_system_lives_on_a_point(problem: Spiral) -> None:
    assert problem.grid(7) == POINT
    assert (POINT.dim, POINT.size, POINT.shape, POINT.periodic) == (0, 1, (), False)
    assert Grid.from_dict(POINT.to_dict()) == POINT
    assert float(POINT.weights()) == 1.0


@pytest.mark.parametrize("problem", [VanDerPol(mu=30.0), Robertson()], ids=lambda p: p.name)
def test_a_jacobian_is_the_derivative_of_the_slope(problem: VanDerPol) -> None:
    state = drawn(problem)
    rows = torch.stack([torch.autograd.functional.jacobian(lambda y: problem.slope(y[None])[0], y) for y in state])
    torch.testing.assert_close(problem.jacobian(state), rows, rtol=1e-13, atol=1e-13)


def test_without_damping_the_spiral_keeps_its_fourth_powers() -> None:
    problem = Spiral(damping=0.0)
    state = drawn(problem)
    powers = (problem.reference()(state, POINT) ** 4).sum(dim=-1)
    # 2.5 turns at a local tolerance of 1e-11: errors add up over some hundred steps
    torch.testing.assert_close(powers, (state**4).sum(dim=-1)[:, None].expand_as(powers), rtol=1e-8, atol=0)


def test_the_damped_spiral_falls_at_its_rate() -> None:
    """d/dt (x^4 + y^4) = -4 a (x^6 + y^6), by central differences over 2e-3."""
    problem, state = Spiral(), drawn(Spiral())
    before, now, after = problem.reference()(state, POINT, [1.0, 1.001, 1.002]).unbind(dim=1)
    rate = ((after**4).sum(dim=1) - (before**4).sum(dim=1)) / 2e-3
    torch.testing.assert_close(rate, -0.4 * (now**6).sum(dim=1), rtol=1e-3, atol=1e-6)


def test_prey_and_predators_stay_on_their_orbit() -> None:
    problem, state = LotkaVolterra(), drawn(LotkaVolterra())
    invariant = lambda y: (y[..., 0] - 3 * y[..., 0].log()) + (y[..., 1] - 1.5 * y[..., 1].log())  # noqa: E731
    found = invariant(problem.reference()(state, POINT))
    torch.testing.assert_close(found, invariant(state)[:, None].expand_as(found), rtol=0, atol=1e-8)


def test_lorenz_on_the_axis_in_closed_form_and_its_symmetry() -> None:
    problem = Lorenz()
    axis = torch.tensor([[0.0, 0.0, 5.0]], dtype=F64)
    times = [0.3, 1.0, 2.0]
    found = problem.reference()(axis, POINT, times)[0]
    expected = 5 * torch.exp(-8 / 3 * torch.tensor(times, dtype=F64))
    torch.testing.assert_close(found[:, 2], expected, rtol=0, atol=1e-9)
    assert bool((found[:, :2] == 0).all())
    state, turned = drawn(problem), drawn(problem) * torch.tensor([-1.0, -1.0, 1.0], dtype=F64)
    solver = problem.reference()
    other = solver(turned, POINT, [1.0]) * torch.tensor([-1.0, -1.0, 1.0], dtype=F64)
    torch.testing.assert_close(solver(state, POINT, [1.0]), other, rtol=0, atol=1e-9)


def test_lorenz_below_the_first_bifurcation_comes_to_rest_and_starts_on_the_attractor_above() -> None:
    quiet = Lorenz(rho=0.5)
    assert float(quiet.reference()(drawn(quiet), POINT, [60.0]).abs().max()) < 1e-8
    states = drawn(Lorenz(), 400)
    # known means of the attractor: z 23.55, x^2 62.8 (their own deviations 8.6 and 60, over 20)
    assert abs(float(states[:, 2].mean()) - 23.55) < 4 * 8.6 / 20
    assert abs(float(states[:, 0].square().mean()) - 62.8) < 4 * 60 / 20


def test_van_der_pol_has_its_published_period_and_the_harmonic_one() -> None:
    circle = VanDerPol(mu=0.0)
    state = drawn(circle)
    torch.testing.assert_close(circle.reference()(state, POINT, [2 * math.pi])[:, 0], state, rtol=0, atol=1e-9)
    problem, period = VanDerPol(mu=1.0), 6.6632868593231
    cycle = problem.reference()(drawn(problem, 1), POINT, [27.0])[:, 0]  # on the cycle: 1e-3 a turn, four turns
    torch.testing.assert_close(problem.reference()(cycle, POINT, [period])[:, 0], cycle, rtol=0, atol=1e-8)


def test_robertson_at_the_published_times() -> None:
    """Hairer and Wanner's digits at t = 40 and 1e11; the small ones are 1e-8 and 1e-13 of a sum of 1."""
    state = torch.tensor([[1.0, 0.0, 0.0]], dtype=F64)
    found = Robertson().reference()(state, POINT, [40.0, 1e5, 1e11])[0]
    torch.testing.assert_close(found.sum(dim=1), torch.ones(3, dtype=F64), rtol=0, atol=1e-9)
    expected = torch.tensor([0.7158270688, 9.185534765e-6, 0.2841637457], dtype=F64)
    torch.testing.assert_close(found[0], expected, rtol=1e-8, atol=0)
    late = torch.tensor([2.083340149701255e-8, 8.333360770334713e-14, 0.9999999791665050], dtype=F64)
    torch.testing.assert_close(found[2], late, rtol=1e-3, atol=0)  # absolute errors near 1e-12


def test_both_integrators_agree_between_stiff_and_not() -> None:
    mild = VanDerPol(mu=10.0, spacing=1.0, frames=10)
    state = drawn(mild)
    smooth, stiff = Integrated(mild), Integrated(mild, tolerance=1e-10)
    explicit = smooth(state, POINT)
    implicit = stiff._implicit(state, mild.signature.times)
    torch.testing.assert_close(explicit, implicit, rtol=0, atol=1e-5)  # phase errors, times rates near 15 in a jump


def test_a_stiff_sample_does_not_depend_on_its_company() -> None:
    problem = VanDerPol(mu=100.0, frames=3, spacing=30.0)
    state, solver = drawn(problem, 3), VanDerPol(mu=100.0).reference()
    both, alone = (solver(s, POINT, [30.0, 90.0]) for s in (state, state[1:2]))
    torch.testing.assert_close(both[1:2], alone, rtol=0, atol=1e-11)


def test_order_eight_of_the_extrapolation_is_observed() -> None:
    from resolvent.pde._system import extrapolated

    problem, state = VanDerPol(mu=0.5), torch.tensor([[1.0, 0.5]], dtype=F64)
    errors = []
    for step in (0.8, 0.4):
        truth = Integrated(problem, tolerance=1e-13)._explicit(state, [step])[:, 0]
        errors.append(float((extrapolated(problem, state, torch.tensor([step], dtype=F64))[0] - truth).abs().max()))
    assert 8.3 < math.log2(errors[0] / errors[1]) < 9.7  # the local error of order 8


def test_parameters_drawn_per_sample_are_told_and_used() -> None:
    problem = varied(Lorenz(frames=4, warm_up=1.0), "rho=20:30")
    inputs = problem.sample(3, POINT, generator=Generator().manual_seed(0))
    assert inputs.shape == (3, 4)
    found = problem.reference()(inputs, POINT)
    own = Lorenz(rho=float(inputs[2, 3]), frames=4).reference()(inputs[2:, :3], POINT)
    torch.testing.assert_close(found[2:], own, rtol=0, atol=1e-10)


def test_bad_states_and_parameters_are_refused() -> None:
    with pytest.raises(ValueError, match=r"not negative.*\[0\]"):
        Robertson().reference()(torch.tensor([[1.0, -1e-3, 0.0]], dtype=F64), POINT)
    with pytest.raises(ValueError, match="not negative"):
        LotkaVolterra().reference()(torch.tensor([[1.0, -1.0]], dtype=F64), POINT)
    with pytest.raises(ValueError, match="inner <= outer"):
        Spiral(inner=2.0, outer=1.0)
    with pytest.raises(ValueError, match="tolerance lies between"):
        Integrated(Spiral(), tolerance=1.0)
    with pytest.raises(ValueError, match="strictly increasing"):
        Spiral().reference()(drawn(Spiral()), POINT, [1.0, 1.0])


class Exploding(Spiral):
    """Grows to infinity in a finite time: y' = y^3."""

    def slope(self, state: Tensor) -> Tensor:
        return state**3


def test_a_solution_that_ends_is_reported() -> None:
    problem = Exploding()
    with pytest.raises(SolverError, match="stopped before time 10"):
        problem.reference()(drawn(problem), POINT, [10.0])
