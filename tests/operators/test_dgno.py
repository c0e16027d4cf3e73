"""DGNO: what is decoded is what was decided, and every problem with a weak form is served."""

from __future__ import annotations

import dataclasses
import functools
import math
from typing import Any

import pytest
import torch
from resolvent.evaluation import registry
from resolvent.evaluation._request import preset_of
from resolvent.operators import dgno
from resolvent.operators._declared import Declared
from resolvent.operators._generative import Components
from resolvent.operators._generative_solver import GenerativeSolver
from resolvent.operators._generative_start import measure
from resolvent.operators._latent import PHASES
from resolvent.operators._waves import Products, Waves
from resolvent.pde import Problem
from resolvent.pde._weak_form import Functions
from resolvent.pde.burgers import Burgers
from resolvent.pde.darcy import Darcy
from resolvent.pde.helmholtz import Helmholtz
from resolvent.pde.poisson import Poisson
from resolvent.pde.stokes import Stokes
from resolvent.training import Recipe
from torch import Tensor

from ._small_dgno import TWO_PHASE, built, dataset, drawn

# ---------------------------------------------------------------------- every problem, every option

STAGES: dict[str, tuple[dict[str, Any], int]] = {
    "darcy": ({"low": 5.0, "contrast": 2.0, "source": 10.0}, 9),
    "poisson": ({}, 9),
    "burgers": ({"boundary": "dirichlet", "frames": 3, "spacing": 0.1, "lower": -1.0, "length": 2.0}, 17),
    "helmholtz": ({"omega": 200.0, "rule": "dispersion"}, 33),
    "stokes": ({}, 17),
}


@pytest.mark.parametrize("name", list(STAGES))
def test_a_problem_with_a_weak_form_is_served(name: str) -> None:
    options, nodes = STAGES[name]
    problem = registry.find_problem(name).build(**options)
    grid, inputs, outputs = drawn(problem, nodes, count=4)
    solver = built(problem, grid)
    history = solver.fit(dataset(problem, grid, inputs, outputs))
    assert all(math.isfinite(row["train"]) for row in history.rows)
    answer = solver(inputs, grid)
    assert answer.shape == outputs.shape
    latent = solver.encode(inputs, grid)
    assert latent.shape == (4, solver.latent_size)
    points = torch.rand(6, len(solver.physics.domain.axes))
    fields = solver.fields(latent, points)
    names = {channel.name for channel in (*problem.signature.inputs, *problem.signature.outputs)}
    assert set(fields) - {PHASES} == names
    assert all(fields[channel].shape == (4, 6) for channel in names)
    again = built(problem, grid)
    for decoder in again.network.outputs.each:
        if isinstance(decoder, Declared):  # as eigenvectors of another machine may come out
            decoder.span.basis.mul_(-1)
    again.restore(solver.state())
    assert torch.equal(again(inputs, grid), answer)
    if name == "stokes":
        assert bool((answer[:, :, ~problem.fluid(grid)] == 0).all())
        across = torch.linspace(0.3, 0.7, 5)
        entering = solver.fields(latent, torch.stack([torch.zeros(5), across], dim=1))
        torch.testing.assert_close(entering["u"], entering["inflow"], rtol=0, atol=1e-4)  # what is decoded comes in


def test_inputs_of_declared_functions_begin_as_what_they_are() -> None:
    """Sines across the inlet, by regression on principal components, as many as there are: nothing is left to learn."""
    problem = Stokes()
    grid, inputs, _ = drawn(problem, 17, count=40)
    solver = built(problem, grid, code=16)
    measure(solver, solver._windows(dataset(problem, grid, inputs, inputs.expand(-1, 3, -1, -1)), 0))
    code = solver.network.bound(solver._encoded(inputs)[0])
    decoded = solver.decoded.inputs(code, solver.nodes).unflatten(-1, grid.shape)
    torch.testing.assert_close(decoded, inputs, rtol=0, atol=1e-4)  # ridge of 1e-6 in single precision: 8e-6 of 6
    walls = decoded[..., [0, -1]]
    torch.testing.assert_close(walls, torch.zeros_like(walls), rtol=0, atol=1e-6)


@pytest.mark.parametrize("form", ["energy", "primal", "mixed"])
@pytest.mark.parametrize("trunk", ["multionet", "waves"])
def test_walls_are_built_in(form: str, trunk: str) -> None:
    grid, inputs, _ = drawn(TWO_PHASE, 9)
    answer = built(TWO_PHASE, grid, form=form, trunk=trunk)(inputs, grid).detach()
    rim = torch.ones(grid.shape, dtype=torch.bool)
    rim[1:-1, 1:-1] = False
    assert float(answer[..., rim].abs().max()) < 1e-6 * float(answer.abs().max())


@pytest.mark.parametrize(("posterior", "prior"), [("deterministic", "box"), ("deterministic", "gaussian"),
                                              ("deterministic", "flow"), ("variational", "gaussian"),
                                              ("variational", "flow")])  # fmt: skip
def test_encoders_and_priors_train_and_latents_lead_back(posterior: str, prior: str) -> None:
    """A latent of the encoder decodes to the very answer of the solver."""
    grid, inputs, outputs = drawn(TWO_PHASE, 9)
    bounded = prior == "box"
    solver = built(TWO_PHASE, grid, posterior=posterior, prior=prior, bounded=bounded)
    solver.fit(dataset(TWO_PHASE, grid, inputs, outputs))
    latent = solver.encode(inputs, grid)
    fields = solver.fields(latent, solver.nodes)
    torch.testing.assert_close(fields["pressure"], solver(inputs, grid).flatten(1), rtol=1e-3, atol=1e-5)
    chances = fields[PHASES]
    assert chances.shape == (8, grid.size, 2)
    torch.testing.assert_close(chances.sum(-1), torch.ones(8, grid.size))
    torch.testing.assert_close(fields["coefficient"], 5 + 5 * chances[..., 1])
    hard = solver.draw(latent, solver.nodes, generator=torch.Generator().manual_seed(0))["coefficient"]
    assert set(hard.unique().tolist()) <= {5.0, 10.0}


def test_components_that_are_hardly_there_are_not_blown_up_to_the_size_of_others() -> None:
    torch.manual_seed(0)
    fields = torch.randn(200, 3) @ torch.diag(torch.tensor([1.0, 1.0, 1e-5])) @ torch.randn(3, 50)
    reader = Components(50, 3, [8], 3)
    reader.start(fields[:, None])
    first, second, third = reader(fields[:, None]).std(dim=0).tolist()
    assert min(first, second) == pytest.approx(1.0, rel=0.02)
    assert third < 0.05  # a hundredth of the others' thousandth, times 1000


def test_fields_are_differentiable_by_the_latent() -> None:
    grid, _, _ = drawn(TWO_PHASE, 9)
    solver = built(TWO_PHASE, grid)
    latent = torch.randn(2, 8, requires_grad=True)
    fields = solver.fields(latent, torch.rand(5, 2))
    (sum(value.sum() for value in fields.values()) + solver.log_prior(latent).sum()).backward()
    assert latent.grad is not None
    assert bool((latent.grad != 0).any())


def test_a_truth_made_by_the_decoder_is_recovered_from_its_solution() -> None:
    """Dense, noise-free values of u alone: the latent by Gauss and Newton from zero, the medium to below 1 %."""
    grid, inputs, outputs = drawn(TWO_PHASE, 9)
    recipe = Recipe(epochs=60, batch=8, learning_rate=1e-2)
    solver = built(TWO_PHASE, grid, recipe, code=4)
    solver.fit(dataset(TWO_PHASE, grid, inputs, outputs))
    truth = 0.7 * torch.randn(1, 4, generator=torch.Generator().manual_seed(3))
    target = solver.fields(truth, solver.nodes)
    size = target["pressure"].abs().max()

    def misfit(latent: Tensor) -> Tensor:
        return ((solver.fields(latent[None], solver.nodes)["pressure"] - target["pressure"]) / size)[0]

    latent, damping = torch.zeros(4), 1e-1
    for _ in range(60):
        jacobian, wrong = torch.func.jacfwd(misfit)(latent), misfit(latent)
        step = torch.linalg.solve(jacobian.t() @ jacobian + damping * torch.eye(4), jacobian.t() @ wrong)
        better = misfit(latent - step).square().sum() < wrong.square().sum()
        latent, damping = (latent - step, damping / 3) if better else (latent, damping * 3)
    found = solver.fields(latent[None], solver.nodes)["coefficient"]
    assert float((found - target["coefficient"]).norm() / target["coefficient"].norm()) < 0.01


def test_a_variational_encoder_pays_for_its_information() -> None:
    """With a heavy divergence the code forgets the input: its means shrink towards the prior's."""
    grid, inputs, outputs = drawn(TWO_PHASE, 9)

    def spread(weight: float) -> float:
        recipe = Recipe(epochs=80, batch=8, learning_rate=2e-2)
        solver = built(TWO_PHASE, grid, recipe, posterior="variational", divergence_weight=weight, bounded=False)
        solver.fit(dataset(TWO_PHASE, grid, inputs, outputs))
        return float(solver.encode(inputs, grid).detach().std(dim=0).mean())

    assert spread(100.0) < 0.3 * spread(0.0)


def test_what_cannot_be_is_refused_in_one_line() -> None:
    problem = Poisson()
    grid = problem.grid(9)
    for options, words in [
        ({"flux": "phases", "form": "mixed"}, "input of phases"),
        ({"flux": "one", "form": "primal"}, "no flux is decoded"),
        ({"prior": "box", "bounded": False}, "range of tanh"),
        ({"prior": "box", "posterior": "variational", "bounded": True}, "not towards the box"),
        ({"radii": "0.1 wide", "form": "primal"}, "list of numbers"),
        ({"radii": "0.6", "form": "primal"}, "half the domain"),
        ({"width": 0}, "at least 1"),
        ({"balls": 20}, "balls is an option of the balls"),
        ({"power": 0.0, "form": "dual"}, "power is an option of the balls"),
        ({"last": 2}, "last is an option of MultiONets"),
        ({"harmonics": 2, "trunk": "multionet"}, "MultiONets on periodic axes"),
        ({"rule": "grid", "nodes": 3, "form": "primal"}, "none off the middle"),
        ({"waves": 6, "trunk": "multionet"}, "waves is an option of trunk waves"),
        ({"channels": "8 8"}, "channels is an option of encoder cnn"),
        ({"divergence_weight": 2.0}, "divergence_weight is an option of posterior variational"),
        ({"labels_weight": 2.0}, "labels_weight is an option of labelled outputs"),
        ({"edges": 50}, "edges is an option of conditions that are not built in"),
    ]:
        with pytest.raises(ValueError, match=words):
            built(problem, grid, **options)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="edges is an option of conditions"):  # walls that feed are in the norm
        built(Helmholtz(), Helmholtz().grid(9), waves=32, edges=50)
    with pytest.raises(ValueError, match=r"train\.unroll has no meaning"):
        built(problem, grid, Recipe(unroll=2))
    with pytest.raises(ValueError, match=r"train\.increment has no meaning"):
        built(problem, grid, Recipe(increment=False))
    with pytest.raises(ValueError, match=r"train\.augment needs a problem that declares symmetries"):
        built(problem, grid, Recipe(augment=True))
    with pytest.raises(ValueError, match="declares none"):
        built(registry.find_problem("advection").build(), registry.find_problem("advection").build().grid(16))
    with pytest.raises(ValueError, match=r"longer than those that travel in helmholtz.* use 32"):
        built(Helmholtz(), Helmholtz().grid(9), waves=16)
    with pytest.raises(ValueError, match=r"trained on a grid \(9, 9\); it was asked for \(9,\)"):
        built(problem, grid)(torch.zeros(1, 1, 9), Poisson(dim=1).grid(9))
    burgers = registry.find_problem("burgers").build()
    with pytest.raises(ValueError, match="minimises no energy"):
        built(burgers, burgers.grid(16), form="energy")


@pytest.mark.parametrize("name", ["darcy", "stokes"])
def test_gradients_that_the_equation_sees_are_those_of_the_answer(name: str) -> None:
    """With factors of walls (product rule), and through potentials."""
    options, nodes = STAGES[name]
    problem = registry.find_problem(name).build(**options)
    solver = built(problem, problem.grid(nodes), trunk="multionet")
    solver.module.requires_grad_(False)
    bounded, points = torch.randn(2, 8), 0.1 + 0.3 * torch.rand(2, 2)
    inputs = torch.ones(2, 1, *solver.grid.shape)
    answer = solver.decoded.answer(bounded, inputs, points)
    for channel in answer.outputs:
        at = functools.partial(channel_at, solver, bounded, channel)
        expected = torch.stack([torch.func.jacrev(at)(p) for p in points], dim=1)
        torch.testing.assert_close(answer.gradients[channel], expected, rtol=1e-3, atol=1e-4)


def channel_at(solver: GenerativeSolver, bounded: Tensor, channel: str, point: Tensor) -> Tensor:
    return solver.decoded.outputs(bounded, point[None])[channel][:, 0]


def test_curvatures_are_second_derivatives() -> None:
    problem = registry.find_problem("stokes").build()
    solver = built(problem, problem.grid(9))
    points, code = torch.rand(4, 2), torch.randn(2, 8)
    decoders = solver.network.outputs
    values, gradients, bends = decoders.with_curvatures(code, points)
    again, slopes = decoders.with_gradients(code, points)
    torch.testing.assert_close(values, again)
    torch.testing.assert_close(gradients, slopes)
    expected = torch.stack([torch.func.hessian(lambda p: decoders(code, p[None])[1, 0, 0])(p) for p in points])
    torch.testing.assert_close(bends[1, 0], expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    ("problem", "nodes", "encoder", "decoder", "fluxes"),
    [
        pytest.param(TWO_PHASE, 29, 595_328, 94_005, 2, id="two phases"),
        pytest.param(Darcy(law="log_normal"), 29, 140_416, 114_206, 0, id="smooth"),
        pytest.param(Burgers(boundary="dirichlet"), 128, 82_496, 114_206, 0, id="burgers"),
    ],
)
def test_published_sizes(problem: Problem, nodes: int, encoder: int, decoder: int, fluxes: int) -> None:
    """Parameters of the preset's encoder and of each decoder of an output."""
    chosen = preset_of(dgno, "paper", problem)[0]
    recipe = dataclasses.replace(Recipe(), **chosen.train)
    network = dgno.build(problem, problem.grid(nodes), recipe=recipe, **chosen.model).network
    count = {name: sum(p.numel() for p in part.parameters()) for name, part in network.named_children()}
    assert count["encoder"] == encoder
    assert count["outputs"] == decoder
    assert count["fluxes"] == fluxes * decoder
    assert isinstance(network.outputs.each[0], Products)
    assert not isinstance(network.outputs.each[0], Waves)


def test_what_the_equation_leaves_is_the_distance_to_its_solution() -> None:
    """Of any latent, |grad e|² over (l times the source's root mean square)², e from the reference's answer to the
    decoded input: nothing is trained here, and e is as large as the answer.
    """
    problem = Poisson()
    grid = problem.grid(65)
    solver = built(problem, grid)
    latent = torch.randn(3, solver.latent_size)
    with torch.no_grad():
        found = solver.fields(latent, grid.mesh(dtype=torch.float32).flatten(1).T)
    source, answer = (found[name].double().unflatten(1, (1, *grid.shape)) for name in ("source", "potential"))
    away = (answer - problem.reference()(source, grid))[:, 0]
    slopes = [(away.diff(dim=axis) * 64).square().sum(dim=(1, 2)) / 64**2 for axis in (1, 2)]
    expected = sum(slopes) / (solver.physics.length * source.square().mean(dim=(1, 2, 3)).sqrt()) ** 2
    torch.testing.assert_close(solver.residual(latent).double(), expected, rtol=0.02, atol=0)  # (pi k / 64)² / 12


def test_around_an_obstacle_without_functions_the_equation_leaves_nothing_that_is_known() -> None:
    class Holed(Stokes):
        def functions(self, waves: int) -> dict[str, Functions]:
            return {}

    solver = built(Holed(), Holed().grid(17), trunk="multionet", form="primal")
    assert solver.residual(torch.zeros(1, solver.latent_size)) is None


def test_a_medium_of_phases_is_relaxed_for_the_equation() -> None:
    solver = built(TWO_PHASE, TWO_PHASE.grid(9))
    latent = torch.randn(2, solver.latent_size, requires_grad=True)
    left = solver.residual(latent)
    assert left is not None
    assert torch.equal(left, solver.residual(latent))
    (slope,) = torch.autograd.grad(left.sum(), latent)
    assert bool((slope.norm(dim=1) > 0).all())


@pytest.mark.parametrize(("dim", "nodes", "waves", "fixed"), [(1, 17, 15, True), (1, 17, 16, False), (2, 9, 8, False)])
def test_an_energy_is_summed_at_fixed_points_only_where_they_see_every_wave(
    dim: int, nodes: int, waves: int, fixed: bool
) -> None:
    """16 cells store nothing of the sine with 16 half waves: it has no slope at their centres."""
    problem = Poisson(dim=dim)
    assert built(problem, problem.grid(nodes), waves=waves).physics.fixed is fixed
