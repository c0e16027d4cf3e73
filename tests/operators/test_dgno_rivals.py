"""The same equation as an objective of other networks: PI-DeepONet, PI-MultiONet, PINO."""

from __future__ import annotations

import math
from types import ModuleType

import pytest
import torch
from resolvent.data import Dataset
from resolvent.operators import deeponet, fno, multionet
from resolvent.pde import Grid
from resolvent.pde.burgers import Burgers
from resolvent.pde.darcy import Darcy
from resolvent.pde.poisson import Poisson
from resolvent.training import Budget, NetworkSolver, Recipe
from resolvent.training._windows import Windows
from torch import Tensor

RIVALS = [
    pytest.param(deeponet, {"width": 16, "walls": "zero"}, id="deeponet"),
    pytest.param(multionet, {"width": 16, "walls": "zero", "factors": "one"}, id="multionet"),
    pytest.param(fno, {"width": 8, "modes": 4}, id="fno"),
]
PROBLEM = Darcy(law="log_normal", source=10.0)


def samples(nodes: int = 9, count: int = 8) -> tuple[Grid, Tensor, Tensor]:
    grid = PROBLEM.grid(nodes)
    inputs = PROBLEM.sample(count, grid, generator=torch.Generator().manual_seed(0))
    return grid, inputs.float(), PROBLEM.reference()(inputs, grid).float()


def trained(model: ModuleType, options: dict[str, object], outputs: Tensor, **train: object) -> NetworkSolver:
    grid, inputs, _ = samples()
    torch.manual_seed(0)
    recipe = Recipe(**{"epochs": 2, "batch": 4, **train})
    solver: NetworkSolver = model.build(PROBLEM, grid, recipe=recipe, **options)
    solver.problem = PROBLEM
    data = Dataset.from_tensors(inputs, outputs, grid=grid, signature=PROBLEM.signature, problem="darcy")
    solver.fit(data)
    return solver


def same(one: NetworkSolver, other: NetworkSolver) -> bool:
    return all(torch.equal(value, other.state()[name]) for name, value in one.state().items())


@pytest.mark.parametrize(("model", "options"), RIVALS)
def test_without_labels_outputs_are_not_read(model: ModuleType, options: dict[str, object]) -> None:
    _, _, outputs = samples()
    blind = {"equation": 1.0, "labels": 0}
    assert same(trained(model, options, outputs, **blind), trained(model, options, 0 * outputs, **blind))


@pytest.mark.parametrize(("model", "options"), RIVALS)
def test_few_labels_are_the_first(model: ModuleType, options: dict[str, object]) -> None:
    _, _, outputs = samples()
    behind, inside = outputs.clone(), outputs.clone()
    behind[3:] *= 2
    inside[1] *= 2
    few = {"equation": 1.0, "labels": 3}
    plain = trained(model, options, outputs, **few)
    assert same(plain, trained(model, options, behind, **few))
    assert not same(plain, trained(model, options, inside, **few))


def test_few_labels_without_the_equation_are_a_small_data_set() -> None:
    """Nothing is learned from inputs without a label, of problems without a weak form either."""
    grid, inputs, outputs = samples()

    def learned(count: int, **train: int) -> NetworkSolver:
        torch.manual_seed(0)
        solver = fno.build(PROBLEM, grid, width=8, modes=4, recipe=Recipe(epochs=2, batch=2, **train))
        data = (inputs[:count], outputs[:count])
        solver.fit(Dataset.from_tensors(*data, grid=grid, signature=PROBLEM.signature, problem="darcy"))
        return solver

    assert same(learned(8, labels=3), learned(3))
    assert not same(learned(8, labels=3), learned(8))


@pytest.mark.parametrize(("model", "options"), RIVALS)
def test_the_equation_is_asked_of_the_answer_itself(model: ModuleType, options: dict[str, object]) -> None:
    """Between nodes an answer goes through its values at the nodes, and its gradient is that of what is told."""
    grid, inputs, outputs = samples()
    solver = trained(model, options, outputs, equation=1.0, labels=0)
    solver.module.requires_grad_(False)
    answer, ask = solver._ask(inputs)
    nodes = grid.mesh(dtype=torch.float32).flatten(1).t()
    torch.testing.assert_close(ask(nodes).outputs["pressure"], answer[:, 0].flatten(1), rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(answer, solver(inputs, grid), rtol=1e-4, atol=1e-5)
    points, step = 0.1 + 0.8 * torch.rand(5, 2), 1e-2
    for axis in range(2):
        shift = step * torch.eye(2)[axis]
        low, high = (ask(points + sign * shift).outputs["pressure"] for sign in (-1, 1))
        slope = ask(points).gradients["pressure"][..., axis]
        scale = float(slope.abs().max())
        torch.testing.assert_close(slope, (high - low) / (2 * step), rtol=0, atol=0.02 * scale)  # step², float32


@pytest.mark.parametrize(
    ("model", "epochs", "options"),
    [
        pytest.param(deeponet, 80, {"width": 24, "layers": 3, "walls": "zero"}, id="deeponet"),
        pytest.param(multionet, 80, {"width": 24, "layers": 3, "walls": "zero", "factors": "one", "encoder": "fc"}, id="multionet"),
        pytest.param(fno, 150, {"width": 12, "modes": 6}, id="fno"),
    ],
)  # fmt: skip
def test_the_equation_alone_teaches_a_network(model: ModuleType, epochs: int, options: dict[str, object]) -> None:
    """Poisson with one mode of many sizes, without a label, to 10 % (observed 1 to 3 %); 100 % at the start."""
    problem = Poisson()
    grid = problem.grid(17)
    sine = torch.sin(math.pi * grid.mesh())
    inputs = (torch.linspace(0.5, 1.5, 8)[:, None, None, None].double() * sine[0] * sine[1]).float()
    truth = problem.reference()(inputs, grid)
    recipe = Recipe(epochs=epochs, batch=8, learning_rate=3e-3, equation=1.0, labels=0)
    torch.manual_seed(0)
    solver = model.build(problem, grid, recipe=recipe, **options)
    solver.problem = problem
    data = Dataset.from_tensors(inputs, 0 * truth, grid=grid, signature=problem.signature, problem="poisson")
    solver.fit(data)
    assert float((solver(inputs, grid).detach() - truth).norm() / truth.norm()) < 0.1


def test_an_energy_is_not_asked_of_answers_that_may_be_anything_on_walls() -> None:
    """Without walls it has no smallest value: a branched network builds them in or is refused, all others get them."""
    _, _, outputs = samples()
    with pytest.raises(ValueError, match="walls zero"):
        trained(deeponet, {"width": 16}, outputs, equation=1.0, labels=0)
    solver = trained(fno, {"width": 8, "modes": 4}, outputs, equation=1.0, labels=0)
    for nodes in (9, 17):
        answer = solver(samples(nodes)[1], PROBLEM.grid(nodes))
        edges = torch.cat([answer[..., 0], answer[..., -1], answer[..., 0, :], answer[..., -1, :]])
        assert float(answer.abs().max()) > 0
        assert float(edges.abs().max()) == 0


def test_what_has_no_meaning_is_refused() -> None:
    _, _, outputs = samples()
    options: dict[str, object] = {"width": 8, "modes": 3}
    with pytest.raises(ValueError, match="only the equation to learn from"):
        trained(fno, options, outputs, labels=0)
    with pytest.raises(ValueError, match=r"train\.noise is set"):
        trained(fno, options, outputs, equation=1.0, noise=0.1)
    with pytest.raises(ValueError, match="a number of samples, or -1"):
        Recipe(labels=-2)
    burgers = Burgers()
    grid = burgers.grid(16)
    inputs = burgers.sample(2, grid, generator=torch.Generator().manual_seed(0)).float()
    data = Dataset.from_tensors(inputs, inputs[:, None], grid=grid, signature=burgers.signature, problem="burgers")
    solver = fno.build(burgers, grid, width=8, modes=3, recipe=Recipe(equation=1.0))
    solver.problem = burgers
    with pytest.raises(ValueError, match="burgers evolves"):
        solver.fit(data, budget=Budget(epochs=1))


def test_windows_hide_what_is_no_label() -> None:
    grid, inputs, outputs = samples(count=6)
    data = Dataset.from_tensors(inputs, outputs, grid=grid, signature=PROBLEM.signature, problem="darcy")
    for numbers, given, targets in Windows(data, lambda fields: fields, labels=2).batches(4, torch.Generator()):
        known = torch.isfinite(targets).flatten(1).all(1)
        assert torch.equal(known, numbers < 2)
        assert torch.equal(given, inputs[numbers])
        assert torch.equal(targets[known, 0], outputs[numbers[known]])
