"""Tables of methods: order conditions, observed orders, dense output, stability."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from resolvent.dynamics import odeint
from resolvent.dynamics._field import Field
from resolvent.dynamics._steppers import Attempt, stepper_of
from resolvent.dynamics._tableaus import TABLEAUS, Rosenbrock, Tableau

ALL = [pytest.param(t, id=name) for name, t in TABLEAUS.items()]
EXPLICIT = [pytest.param(t, id=name) for name, t in TABLEAUS.items() if not isinstance(t, Rosenbrock)]


def right(t: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """A turning pair beside an equation with time in it."""
    return torch.stack([y[:, 1], -y[:, 0], y[:, 2] * torch.cos(t)], dim=1)


def exact(t: float) -> torch.Tensor:
    return torch.tensor([[math.sin(t), math.cos(t), math.exp(math.sin(t))]], dtype=torch.float64)


def observed(errors: list[float]) -> float:
    """Order from the finest halving."""
    return math.log2(errors[-2] / errors[-1])


def end_error(name: str, count: int) -> float:
    end = odeint(right, exact(0.0), [0.0, 5.0], method=name, step=5.0 / count).states[:, -1]
    return float((end - exact(5.0)).norm())


@pytest.mark.parametrize("tableau", ALL)
def test_observed_order_is_the_claimed_one(tableau: Tableau) -> None:
    """From 64 to 128 steps errors are asymptotic and 1e4 times rounding."""
    assert abs(observed([end_error(tableau.name, n) for n in (64, 128)]) - tableau.order) < 0.1


def one_step(tableau: Tableau, step: float) -> tuple[Attempt, torch.Tensor]:
    """The first attempt from t = 0, and its dense output at 0.35 of the step."""
    y = exact(0.0)
    field = Field(right, y, 1.0)
    stepper = stepper_of(tableau, field, y, graph=False)
    attempt = stepper.attempt(0.0, step, y, field(0.0, y))
    return attempt, stepper.interpolate(torch.tensor([0.35], dtype=torch.float64), y, attempt.stages)[0]


@pytest.mark.parametrize("tableau", ALL)
def test_the_estimate_is_the_local_error_of_the_embedded_solution(tableau: Tableau) -> None:
    """y_1 - e is of order ``embedded``: its local error falls as h^(embedded + 1), and e is that error."""
    errors, estimates = [], []
    for step in (0.1, 0.05):
        attempt, _ = one_step(tableau, step)
        errors.append(float((attempt.state - attempt.error - exact(step)).norm()))
        estimates.append(float(attempt.error.norm()))
    assert abs(observed(estimates) - (tableau.embedded + 1)) < 0.25  # the next order: some h
    assert estimates[-1] == pytest.approx(errors[-1], rel=0.1)


@pytest.mark.parametrize("tableau", ALL)
def test_dense_output_has_its_order_between_and_meets_the_end(tableau: Tableau) -> None:
    errors = [float((one_step(tableau, h)[1] - exact(0.35 * h)).norm()) for h in (0.1, 0.05)]
    # local orders: Hermite's cubic on what the low pairs give, quartics for the fifth-order ones
    local = {"heun_euler": 3, "bosh3": 4, "dopri5": 5, "tsit5": 5, "rodas4": 4}[tableau.name]
    assert observed(errors) > local - 0.25
    assert [sum(row) for row in tableau.dense] == pytest.approx(list(tableau.weights), abs=2e-14)


@pytest.mark.parametrize("tableau", EXPLICIT)
def test_quadrature_conditions(tableau: Tableau) -> None:
    r"""\sum b_i c_i^k = 1/(k+1) to the order; the embedded weights to theirs; nodes are row sums."""
    c = torch.tensor(tableau.nodes, dtype=torch.float64)
    b = torch.tensor(tableau.weights, dtype=torch.float64)
    e = torch.tensor(tableau.error, dtype=torch.float64)
    for k in range(tableau.order):
        assert float(b @ c**k) == pytest.approx(1 / (k + 1), abs=1e-13)
    for k in range(tableau.embedded):
        assert float(e @ c**k) == pytest.approx(0.0, abs=1e-13)
    assert abs(float(e @ c**tableau.embedded)) > 1e-5  # not one order more: it would be no estimate
    assert [sum(row) for row in tableau.stages] == pytest.approx(list(tableau.nodes), abs=1e-14)


def growth(tableau: Tableau, z: float) -> float:
    """|R(z)|: what one step of size 1 makes of 1 for y' = z y."""
    y = torch.ones(1, 1, dtype=torch.float64)
    field = Field(lambda t, y: z * y, y, 1.0)
    return abs(float(stepper_of(tableau, field, y, graph=False).attempt(0.0, 1.0, y, field(0.0, y)).state))


@pytest.mark.parametrize("tableau", EXPLICIT)
def test_the_real_stability_interval_ends_where_the_table_says(tableau: Tableau) -> None:
    assert growth(tableau, -0.999 * tableau.real_axis) < 1 < growth(tableau, -1.001 * tableau.real_axis)


def test_rodas4_is_l_stable_on_the_real_axis() -> None:
    values = [growth(TABLEAUS["rodas4"], z) for z in (-1.0, -10.0, -1e3, -1e6, -1e9)]
    assert all(later < earlier for earlier, later in itertools.pairwise(values))
    assert values[-1] < 1e-8


@pytest.mark.parametrize("tableau", ALL)
def test_an_adaptive_solution_is_as_good_between_its_steps(tableau: Tableau) -> None:
    """Dense output at 50 times against the closed form; Heun's thousands of steps at a looser tolerance."""
    tol = 1e-4 if tableau.name == "heun_euler" else 1e-6
    times = torch.linspace(0, 4, 50, dtype=torch.float64)
    got = odeint(right, exact(0.0), times, method=tableau.name, rtol=tol, atol=tol).states[0]
    truth = torch.cat([exact(float(t)) for t in times])
    torch.testing.assert_close(got, truth, rtol=0, atol=10 * tol)


def test_row_sums_of_the_rosenbrock_table_are_its_nodes() -> None:
    """With J = 0 and f = 1: arguments move by c_i, stages add up to one step (a digit of a_53 once cost 1e-9)."""
    table = TABLEAUS["rodas4"]
    assert isinstance(table, Rosenbrock)
    stages: list[float] = []
    for row in table.coupling:
        stages.append(table.gamma * (1 + sum(c * k for c, k in zip(row, stages, strict=False))))
    moved = [sum(a * k for a, k in zip(row, stages, strict=False)) for row in table.stages]
    assert moved == pytest.approx(list(table.nodes), abs=1e-14)
    assert stages == pytest.approx(list(table.time), abs=1e-14)  # of t' = 1: its own derivative weights
