"""Order reduction of neural ODEs as they are built and trained here."""

from __future__ import annotations

import pytest
import torch
from resolvent.data import Dataset
from resolvent.dynamics import neural_ode
from resolvent.dynamics._layered import LayeredField
from resolvent.dynamics._reduced_ode import Reduction, field_of, reduce
from resolvent.pde import Grid
from resolvent.pde.burgers import Burgers
from resolvent.pde.lorenz import Lorenz
from torch import nn

ZERO = torch.zeros(())


def burgers(count: int = 16) -> tuple[Burgers, Dataset]:
    problem = Burgers(viscosity=0.05, frames=4, spacing=0.05)
    grid = problem.grid(32)
    inputs = problem.sample(count, grid, generator=torch.Generator().manual_seed(0))
    outputs = problem.reference()(inputs, grid)
    return problem, Dataset.from_tensors(
        inputs.float(), outputs.float(), grid=grid, signature=problem.signature, problem="burgers"
    )


def fitted(problem: Burgers, data: Dataset) -> neural_ode.NeuralODE:
    """Scales as after training, weights as before it, made louder: something happens, and no minute is spent."""
    torch.manual_seed(0)
    solver = neural_ode.build(problem, data.grid, right="convolutional", width=6, layers=2, rtol=1e-5, atol=1e-6)
    fields = data.trajectories(range(len(data))).flatten(0, 1)
    solver.states.fit(lambda: iter([fields]), len(fields))
    solver.prepare(data)
    with torch.no_grad():
        solver.flow.network.last.weight.mul_(3.0)
    return solver


def circular(inputs: int, outputs: int) -> nn.Conv1d:
    return nn.Conv1d(inputs, outputs, 3, padding=1, padding_mode="circular")


def test_layers_of_your_own_are_read_with_their_bypass() -> None:
    problem, data = burgers(8)
    solver = fitted(problem, data)
    field = LayeredField([circular(1, 4), circular(4, 1)], [nn.GELU()], bypass=circular(1, 1))
    solver.flow.network = field
    states = torch.randn(5, 1, 32)
    torch.testing.assert_close(field_of(solver)(ZERO, states), solver.right_hand_side()(ZERO, states))


@pytest.mark.parametrize("right", ["convolutional", "dense"])
def test_the_layers_are_those_of_the_right_hand_side(right: str) -> None:
    problem, data = burgers()
    if right == "dense":
        system = Lorenz()
        solver = neural_ode.build(system, Grid(()), width=8, layers=2)
        solver.flow.fit(torch.tensor([1.0, 2.0, 3.0]), torch.tensor([4.0, 5.0, 6.0]))
        states = torch.randn(5, 3)
    else:
        solver, states = fitted(problem, data), torch.randn(5, 1, 32)
    torch.testing.assert_close(field_of(solver)(ZERO, states), solver.right_hand_side()(ZERO, states))


def test_a_reduced_neural_ode_answers_like_the_full_one_with_fewer_unknowns() -> None:
    problem, data = burgers()
    solver = fitted(problem, data)
    inputs, _ = data.read(range(4))
    reduction = Reduction(solver, data)
    with torch.no_grad():
        full, errors = solver(inputs, data.grid), []
        for lost in (1e-3, 1e-5, 1e-8):
            small = reduction(lost=lost, oversample=1.5)
            answer = small(inputs, data.grid)
            assert answer.shape == full.shape
            errors.append(float((answer - full).norm() / full.norm()))
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 2e-3  # tolerances 1e-5, single precision
    assert small.small.modes < 32
    assert len(small.health) == 4
    assert float(small(inputs.double(), data.grid).dtype == torch.float64)


def test_one_reduction_of_a_kind_is_the_shared_one() -> None:
    problem, data = burgers(8)
    solver = fitted(problem, data)
    one, other = reduce(solver, data, lost=1e-5), Reduction(solver, data)(lost=1e-5)
    inputs, _ = data.read([0])
    assert torch.equal(one(inputs, data.grid), other(inputs, data.grid))


def test_what_cannot_be_reduced_is_refused() -> None:
    problem, data = burgers(8)
    small = reduce(fitted(problem, data), data, lost=1e-4)
    with pytest.raises(ValueError, match="grid"):
        small(problem.sample(1, problem.grid(64), generator=torch.Generator()).float(), problem.grid(64))
    with pytest.raises(ValueError, match="augmentation"):
        field_of(neural_ode.build(problem, data.grid, augment=1))
    with pytest.raises(ValueError, match="dense or convolutional"):
        field_of(neural_ode.build(problem, data.grid, right="spectral", modes=8))
