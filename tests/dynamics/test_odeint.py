"""The integrator: accuracy against tolerance, per-sample steps, counts, events, stiff systems, dtypes, refusals."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
import torch
from resolvent.dynamics import odeint
from resolvent.dynamics._systems import kepler, kepler_start, lotka_volterra, robertson, van_der_pol
from resolvent.dynamics._tableaus import TABLEAUS
from resolvent.pde import SolverError
from scipy.integrate import RK45, solve_ivp

CONTROLS = ("batch", "sample")
F64 = torch.float64


def circle(t: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return torch.stack([y[:, 1], -y[:, 0]], dim=1)


@pytest.mark.parametrize("exponent", range(3, 11))
@pytest.mark.parametrize("method", ["tsit5", "dopri5"])
def test_the_error_follows_the_tolerance_over_seven_decades(method: str, exponent: int) -> None:
    """Largest error over a full turn, within a factor of ten of the tolerance."""
    tol = 10.0**-exponent
    times = torch.linspace(0, 2 * math.pi, 20, dtype=F64)
    got = odeint(circle, torch.tensor([[0.0, 1.0]], dtype=F64), times, method=method, rtol=tol, atol=tol).states[0]
    error = float((got - torch.stack([times.sin(), times.cos()], dim=1)).abs().max())
    assert 0.1 * tol < error < 10 * tol


@pytest.mark.parametrize("control", CONTROLS)
def test_backwards_returns_to_the_start(control: str) -> None:
    start = kepler_start(0.3)
    there = odeint(kepler, start, [0.0, 3.0], rtol=1e-11, atol=1e-11, control=control).states[:, -1]
    back = odeint(kepler, there, [3.0, 1.0, 0.0], rtol=1e-11, atol=1e-11, control=control)
    torch.testing.assert_close(back.states[:, -1], start, rtol=0, atol=1e-8)  # error growth of one revolution: 1e2
    assert back.times.tolist() == [3.0, 1.0, 0.0]


def test_time_enters_with_its_sign_when_integrating_backwards() -> None:
    """y' = cos t y backwards, for every method (the Rosenbrock one needs f_t)."""
    for method in ("tsit5", "rodas4"):
        y = torch.tensor([[math.exp(math.sin(2.0))]], dtype=F64)
        got = odeint(lambda t, y: torch.cos(t) * y, y, [2.0, -1.0], method=method, rtol=1e-9, atol=1e-9).states
        assert float(got[0, -1]) == pytest.approx(math.exp(math.sin(-1.0)), abs=1e-7)


@pytest.mark.parametrize("method", ["tsit5", "bosh3", "rodas4"])
def test_a_sample_steps_as_if_it_were_alone(method: str) -> None:
    starts = torch.cat([kepler_start(e) for e in (0.0, 0.3, 0.8)])
    times = [0.0, 1.0, 2.5, 6.0]
    tol = 1e-5 if method == "rodas4" else 1e-7  # a Jacobian a step
    options = {"method": method, "rtol": tol, "atol": tol, "control": "sample"}
    together = odeint(kepler, starts, times, **options)
    for i in range(3):
        alone = odeint(kepler, starts[i : i + 1], times, **options)
        # products with a matrix may be summed in another order for another batch: rounding, grown along the orbit
        torch.testing.assert_close(together.states[i], alone.states[0], rtol=0, atol=1e-11)
        for name in ("evaluations", "accepted", "rejected"):
            assert int(getattr(together.counts, name)[i]) == int(getattr(alone.counts, name)[0])
    easy, _, hard = together.counts.evaluations.tolist()
    assert easy < 0.8 * hard


def test_one_sample_is_the_same_under_either_control() -> None:
    one, other = (
        odeint(kepler, kepler_start(0.5), [0.0, 2.0, 5.0], rtol=1e-8, atol=1e-8, control=control, trace=True)
        for control in CONTROLS
    )
    torch.testing.assert_close(one.states, other.states, rtol=0, atol=1e-12)
    assert one.counts.evaluations.tolist() == other.counts.evaluations.tolist()
    assert one.trace is not None
    assert other.trace is not None
    torch.testing.assert_close(one.trace.error, other.trace.error, rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(one.trace.stiffness, other.trace.stiffness, rtol=1e-6, atol=1e-9)


def test_a_refused_step_is_followed_by_the_same_ones_under_either_control() -> None:
    """Bumps that steps run into: what is kept of the step before and what may grow again decide on all that follow."""
    right = lambda t, y: -y * (1 + 40 * torch.exp(-300 * (torch.sin(2 * t) - 0.5) ** 2))  # noqa: E731
    one = odeint(right, torch.ones(1, 1, dtype=F64), [0.0, 4.0], rtol=1e-5, atol=1e-9)
    y = torch.tensor([[1.0], [1e-6]], dtype=F64)  # the other one takes other steps
    two = odeint(right, y, [0.0, 4.0], rtol=1e-5, atol=1e-9, control="sample")
    for name in ("evaluations", "accepted", "rejected"):
        assert int(getattr(one.counts, name)[0]) == int(getattr(two.counts, name)[0])
    torch.testing.assert_close(one.states[0], two.states[0], rtol=1e-12, atol=0)
    assert int(one.counts.rejected[0]) > 3
    assert int(two.counts.rejected[1]) != int(two.counts.rejected[0])


def test_times_of_their_own_for_every_sample() -> None:
    times = torch.tensor([[0.0, 1.0, 2.0], [1.0, 1.5, 4.0]], dtype=F64)
    y = torch.tensor([[1.0], [2.0]], dtype=F64)
    got = odeint(lambda t, y: -y + 0 * t, y, times, rtol=1e-10, atol=1e-10, control="sample").states[..., 0]
    torch.testing.assert_close(got, y * torch.exp(times[:, :1] - times), rtol=1e-8, atol=0)


@pytest.mark.parametrize("control", CONTROLS)
@pytest.mark.parametrize("method", list(TABLEAUS))
def test_counts_are_exact(method: str, control: str) -> None:
    """What the right-hand side itself has counted; two for the first step, then stages - 1 an attempt."""
    calls = 0

    def right(t: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        nonlocal calls
        calls += 1
        return -y * (1 + 20 * torch.exp(-50 * (t - 1) ** 2))

    solution = odeint(right, torch.ones(1, 1, dtype=F64), [0.0, 2.0], method=method, control=control, rtol=1e-4)
    counts, tableau = solution.counts, TABLEAUS[method]
    attempts = int(counts.accepted + counts.rejected)
    implicit = method == "rodas4"
    assert counts.calls == int(counts.evaluations) == calls - counts.jacobians  # a Jacobian is counted apart
    assert counts.calls == 2 + (tableau.size if implicit else tableau.size - 1) * attempts
    assert counts.jacobians == (int(counts.accepted) if implicit else 0) or (implicit and control == "sample")
    assert int(counts.rejected) > 0  # the case is one with rejections


def test_error_estimates_and_steps_are_those_of_scipy() -> None:
    """Dormand and Prince on Lotka and Volterra: one step of SciPy's stepper from each of our steps' starts."""
    y0 = torch.tensor([[1.0, 1.0]], dtype=F64)
    solution = odeint(lotka_volterra, y0, [0.0, 5.0], method="dopri5", rtol=1e-6, atol=1e-8, trace=True)
    trace = solution.trace
    assert trace is not None

    def right(t: float, y: np.ndarray) -> np.ndarray:
        return lotka_volterra(torch.tensor(t), torch.from_numpy(y)[None])[0].numpy()

    for n in range(0, len(trace.time), 5):
        start, step = trace.states[n, 0].numpy(), float(trace.step[n, 0])
        solver = RK45(right, 0.0, start, 10.0, first_step=step, rtol=1e9, atol=1e9)
        solver.step()
        error = solver._estimate_error(solver.K, step)
        scale = 1e-8 + 1e-6 * np.maximum(np.abs(start), np.abs(solver.y))
        assert float(trace.error[n, 0]) == pytest.approx(np.sqrt(np.mean((error / scale) ** 2)), rel=1e-6)
        if n + 1 < len(trace.time):
            np.testing.assert_allclose(trace.states[n + 1, 0].numpy(), solver.y, rtol=1e-13)


def test_stiffness_is_the_largest_eigenvalue_while_the_fast_mode_lives() -> None:
    """y' = diag(-1, -50) y: S = 50 to 1 % for t < 0.15; then h settles at the stability bound, 50 h near 3.5."""
    right = lambda t, y: y * y.new_tensor([-1.0, -50.0])  # noqa: E731
    trace = odeint(right, torch.ones(1, 2, dtype=F64), [0.0, 5.0], rtol=1e-6, atol=1e-6, trace=True).trace
    assert trace is not None
    early = trace.stiffness[trace.time < 0.15]
    assert float((early / 50 - 1).abs().max()) < 0.01
    late = trace.step[(trace.time > 1.5) & (trace.time < 4.5)] * 50
    assert 3.0 < float(late.mean()) < 4.2


# ---------------------------------------------------------------------- who has arrived leaves the batch


def swing(t: torch.Tensor, y: torch.Tensor, rate: torch.Tensor) -> torch.Tensor:
    return rate[:, None] * torch.stack([y[:, 1], -torch.sin(y[:, 0])], dim=1)


@pytest.mark.parametrize("method", ["dopri5", "rodas4"])
def test_leaving_changes_cost_and_nothing_else(method: str) -> None:
    """Pendulums of rates 1 to 16: states, counts and gradients as if all stayed; the long ones run alone."""
    rows: list[int] = []

    def noted(t: torch.Tensor, y: torch.Tensor, rate: torch.Tensor) -> torch.Tensor:
        rows.append(len(y))
        return swing(t, y, rate)

    rate = torch.logspace(0, 1.2, 8, dtype=F64).requires_grad_()
    y = torch.tensor([[1.0, 0.0]], dtype=F64).expand(8, 2)
    tol = 1e-3 if method == "rodas4" else 1e-5  # a Jacobian a step, with its graph
    options = {"method": method, "rtol": tol, "atol": tol, "control": "sample"}
    left = odeint(noted, y, [0.0, 0.4, 1.0], given=(rate,), **options)
    stayed = odeint(lambda t, y: swing(t, y, rate), y, [0.0, 0.4, 1.0], **options)
    torch.testing.assert_close(left.states, stayed.states, rtol=0, atol=1e-11)  # rounding
    for name in ("evaluations", "accepted", "rejected"):
        assert getattr(left.counts, name).tolist() == getattr(stayed.counts, name).tolist()
    first, second = (torch.autograd.grad(each.states.square().sum(), rate)[0] for each in (left, stayed))
    torch.testing.assert_close(first, second, rtol=1e-8, atol=1e-10)
    assert rows[-1] <= 2
    assert sum(rows) < 0.6 * 8 * left.counts.calls


def test_events_are_the_same_when_others_have_left() -> None:
    """Stones in fields of different strength: sqrt(2 h / g), the last after the others."""
    g = torch.tensor([9.81, 20.0, 1.6, 0.05], dtype=F64)
    right = lambda t, y, g: torch.stack([y[:, 1], -g], dim=1)  # noqa: E731
    y = torch.tensor([[1.0, 0.0]], dtype=F64).expand(4, 2)
    # polynomials are exact: with steps that short each lands in one of its own
    options = {"control": "sample", "event": lambda t, y, g: y[:, 0], "given": (g,), "step": 0.05}
    solution = odeint(right, y, [0.0, 0.1, 8.0], **options)
    assert solution.event_times is not None
    assert solution.event_states is not None
    landed = (2 / g).sqrt()
    torch.testing.assert_close(solution.event_times, landed, rtol=1e-12, atol=0)
    torch.testing.assert_close(solution.event_states[:, 1], -g * landed, rtol=1e-12, atol=0)
    torch.testing.assert_close(solution.states[:, 1, 0], 1 - g / 200, rtol=1e-12, atol=0)
    torch.testing.assert_close(solution.states[:, 2, 1], -g * landed, rtol=1e-12, atol=0)


def test_who_has_arrived_is_not_asked_beyond_the_end() -> None:
    """y' = -y sqrt(1 - t / end) is no number later, and a NaN behind a zero gradient is a NaN."""
    end = torch.tensor([1.0, 3.0], dtype=F64)
    rate = torch.ones(1, dtype=F64, requires_grad=True)
    right = lambda t, y: -rate * y * (1 - t / end[:, None]).sqrt()  # noqa: E731
    times = torch.stack([torch.zeros(2, dtype=F64), end * (1 - 1e-7)], dim=1)
    solution = odeint(right, torch.ones(2, 1, dtype=F64), times, control="sample", rtol=1e-8, atol=1e-8, trace=True)
    area = 2 / 3 * end  # of the root
    torch.testing.assert_close(solution.states[:, 1, 0], torch.exp(-area), rtol=1e-6, atol=0)
    (slope,) = torch.autograd.grad(solution.states[:, 1].sum(), rate)
    assert float(slope) == pytest.approx(-float((area * torch.exp(-area)).sum()), rel=1e-6)


@pytest.mark.usefixtures("unchecked")
def test_what_is_given_has_a_row_for_each_sample() -> None:
    with pytest.raises(ValueError, match="one row per sample: got shape"):
        odeint(swing, torch.ones(3, 2, dtype=F64), [0.0, 1.0], given=(torch.ones(2, dtype=F64),), control="sample")


# ---------------------------------------------------------------------- events


def fall(t: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return torch.stack([y[:, 1], torch.full_like(y[:, 0], -9.81)], dim=1)


def test_an_event_is_found_where_it_is_and_stops_its_sample() -> None:
    """Stones fall from 1 m, 2 m and 100 m: sqrt(2 h / g); the last does not land in time."""
    heights = torch.tensor([1.0, 2.0, 100.0], dtype=F64)
    y = torch.stack([heights, torch.zeros(3, dtype=F64)], dim=1)
    solution = odeint(fall, y, [0.0, 0.2, 1.0], control="sample", event=lambda t, y: y[:, 0])
    assert solution.event_times is not None
    assert solution.event_states is not None
    landed = (2 * heights / 9.81).sqrt()
    torch.testing.assert_close(solution.event_times[:2], landed[:2], rtol=1e-12, atol=0)
    assert bool(solution.event_times[2].isnan())
    torch.testing.assert_close(solution.states[:2, -1, 1], -9.81 * landed[:2], rtol=1e-12, atol=0)
    torch.testing.assert_close(solution.states[2, -1, 0], heights[2] - 9.81 / 2, rtol=1e-12, atol=0)


def test_the_state_at_an_event_has_its_gradient_along_the_event() -> None:
    """Landing speed -sqrt(2 g h): d/dh = -sqrt(g / 2h); the height there is 0 whatever h is."""
    y = torch.tensor([[2.0, 0.0]], dtype=F64, requires_grad=True)
    solution = odeint(fall, y, [0.0, 5.0], control="sample", event=lambda t, y: y[:, 0])
    assert solution.event_states is not None
    (speed,) = torch.autograd.grad(solution.event_states[0, 1], y, retain_graph=True)
    assert float(speed[0, 0]) == pytest.approx(-math.sqrt(9.81 / 4), rel=1e-10)
    (height,) = torch.autograd.grad(solution.event_states[0, 0], y)
    assert abs(float(height[0, 0])) < 1e-10


# ---------------------------------------------------------------------- stiff systems


def test_robertson_to_1e5() -> None:
    """Against SciPy's Radau at 1e-10; mass is conserved."""
    y = torch.tensor([[1.0, 0.0, 0.0]], dtype=F64)
    solution = odeint(robertson, y, [0.0, 40.0, 1e5], method="rodas4", rtol=1e-6, atol=1e-10)
    slow, fast = (lambda y: 0.04 * y[0] - 1e4 * y[1] * y[2]), (lambda y: 3e7 * y[1] ** 2)
    right = lambda t, y: [-slow(y), slow(y) - fast(y), fast(y)]  # noqa: E731
    truth = solve_ivp(right, (0, 1e5), [1.0, 0, 0], method="Radau", rtol=1e-9, atol=1e-13, t_eval=[40.0, 1e5]).y.T
    np.testing.assert_allclose(solution.states[0, 1:].numpy(), truth, rtol=2e-5)
    assert float(solution.states[0, -1].sum()) == pytest.approx(1.0, abs=1e-12)
    assert int(solution.counts.accepted) < 500


@pytest.mark.parametrize("control", CONTROLS)
def test_van_der_pol_is_stiff_for_one_method_and_not_for_the_other(control: str) -> None:
    y = torch.tensor([[2.0, 0.0]], dtype=F64)
    options = {"rtol": 1e-5, "atol": 1e-6, "control": control}
    stiff = odeint(van_der_pol(1000.0), y, [0.0, 500.0], method="rodas4", **options)
    right = lambda t, y: [y[1], 1000.0 * (1 - y[0] ** 2) * y[1] - y[0]]  # noqa: E731
    truth = solve_ivp(right, (0, 500), [2.0, 0.0], method="Radau", rtol=1e-9, atol=1e-11).y[:, -1]
    np.testing.assert_allclose(stiff.states[0, -1].numpy(), truth, rtol=1e-4)
    with pytest.raises(SolverError, match=r"tsit5: 500 steps were not enough.*time .* step .* norm .*rodas4"):
        odeint(van_der_pol(1000.0), y, [0.0, 500.0], max_steps=500, **options)


# ---------------------------------------------------------------------- dtypes and refusals


@pytest.mark.parametrize("control", CONTROLS)
@pytest.mark.parametrize("method", list(TABLEAUS))
def test_single_precision_stays_single(method: str, control: str) -> None:
    kinds = set()

    def right(t: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        kinds.update((t.dtype, y.dtype))
        return -y

    solution = odeint(right, torch.ones(2, 1), [0.0, 1.0], method=method, control=control, rtol=1e-4, atol=1e-4)
    assert kinds == {torch.float32}
    assert solution.states.dtype == torch.float32
    assert float((solution.states[:, -1] - math.exp(-1)).abs().max()) < 1e-3


def test_tolerances_at_rounding_level_are_warned_about() -> None:
    with pytest.warns(UserWarning, match="rounding level of torch.float32"):
        odeint(lambda t, y: -y, torch.ones(1, 1), [0.0, 0.1], rtol=1e-8, atol=1e-3)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        odeint(lambda t, y: -y, torch.ones(1, 1), [0.0, 0.1], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("control", CONTROLS)
def test_a_singularity_is_named_with_time_step_and_norm(control: str) -> None:
    """y' = y^2 from 1 ends at t = 1."""
    with pytest.raises(SolverError, match=r"tsit5: the step.* fell to .* at time (1|0\.9999).*state norm.*rodas4"):
        odeint(lambda t, y: y**2, torch.ones(1, 1, dtype=F64), [0.0, 2.0], control=control)


@pytest.mark.parametrize("control", CONTROLS)
def test_a_right_hand_side_that_ceases_to_be_finite_is_said_so(control: str) -> None:
    right = lambda t, y: torch.where(t > 0.5, torch.nan, 1.0) * torch.ones_like(y)  # noqa: E731
    with pytest.raises(SolverError, match=r"at time 0\.5.*because the right-hand side is not finite"):
        odeint(right, torch.ones(1, 1, dtype=F64), [0.0, 1.0], control=control)
    with pytest.raises(SolverError, match=r"not finite at the initial state of sample\(s\) \[1\]"):
        odeint(lambda t, y: 1 / y, torch.tensor([[1.0], [0.0]], dtype=F64), [0.0, 1.0], control=control)


@pytest.mark.parametrize("times", [[0.0, 1.0, 1.0], [0.0, 2.0, 1.0], [1.0, 0.0, 0.5], [0.0], [0.0, math.nan]])
def test_times_that_turn_are_refused(times: list[float]) -> None:
    with pytest.raises(ValueError, match="Times"):
        odeint(lambda t, y: -y, torch.ones(1, 1, dtype=F64), times)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"method": "rk4"}, "Unknown method 'rk4': there are heun_euler"),
        ({"rtol": -1.0}, "rtol must be positive"),
        ({"atol": 0.0}, "atol must be positive"),
        ({"step": -0.1}, "step must be positive"),
        ({"control": "each"}, "control is one of"),
        ({"gradient": "adjoint"}, "gradient is one of"),
        ({"event": lambda t, y: y[:, 0]}, 'use control="sample"'),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_options_are_refused_at_the_door(options: dict, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        odeint(lambda t, y: -y, torch.ones(1, 1, dtype=F64), [0.0, 1.0], **options)


@pytest.mark.usefixtures("unchecked")
def test_states_and_slopes_of_the_wrong_kind_are_refused() -> None:
    with pytest.raises(ValueError, match="batch"):
        odeint(lambda t, y: -y, torch.ones(2, 1, dtype=torch.complex128), [0.0, 1.0])
    with pytest.raises(ValueError, match=r"Non-finite initial state in sample\(s\) \[1\]"):
        odeint(lambda t, y: -y, torch.tensor([[1.0], [torch.nan]]), [0.0, 1.0])
    with pytest.raises(ValueError, match=r"float64 of shape \(1, 2\)"):
        odeint(lambda t, y: -y[:, :1], torch.ones(1, 2, dtype=F64), [0.0, 1.0])


def test_steps_of_their_own_pay_on_samples_whose_fast_stretches_do_not_coincide() -> None:
    """Relaxation oscillators out of phase: one step size for all has to be small almost always."""
    y = torch.stack([torch.linspace(-2, 2, 16, dtype=F64), torch.linspace(0, 3, 16, dtype=F64)], dim=1)
    calls = [odeint(van_der_pol(10.0), y, [0.0, 20.0], control=control).counts.calls for control in CONTROLS]
    assert calls[0] > 1.5 * calls[1]
