"""neural_ode: coordinates, right-hand sides and their forms, answers at any time, training, refusals."""

from __future__ import annotations

import dataclasses
import math
import warnings

import pytest
import torch
from resolvent.data import Dataset
from resolvent.dynamics import odeint
from resolvent.dynamics._coordinates import Channels, Conditions, Modes, rates_of
from resolvent.dynamics._learner import Extrapolated
from resolvent.dynamics._networks import Convolutional, Dense, Flow, Spectral
from resolvent.dynamics._penalty import Penalty
from resolvent.dynamics.neural_ode import NeuralODE, build
from resolvent.evaluation.judge import judge
from resolvent.pde import Axis, Grid, Problem, SolverError, varied
from resolvent.pde.heat import Heat
from resolvent.pde.lorenz import Lorenz
from resolvent.pde.poisson import Poisson
from resolvent.pde.spiral import Spiral
from resolvent.pde.van_der_pol import VanDerPol
from resolvent.training import Diverged, Recipe
from torch import Generator, Tensor

F64 = torch.float64
TRAIN = Recipe(epochs=2, batch=16, unroll=2, learning_rate=5e-3)
LINE = Grid.box(32)


def data_of(problem: Problem, count: int = 12, nodes: int = 16) -> Dataset:
    grid = problem.grid(nodes)
    inputs = problem.sample(count, grid, generator=Generator().manual_seed(0))
    made = {"grid": grid, "signature": problem.signature, "problem": problem.name}
    return Dataset.from_tensors(inputs.float(), problem.reference()(inputs, grid).float(), **made)


def made(problem: Problem, nodes: int = 16, seed: int = 0, **options: object) -> NeuralODE:
    torch.manual_seed(seed)
    size = {"width": 8, "layers": 1, "recipe": TRAIN}
    return build(problem, problem.grid(nodes), **{**size, **options})


def field(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=Generator().manual_seed(seed))


# ---------------------------------------------------------------------- coordinates


def test_channels_go_there_and_back() -> None:
    fields, states = field(9, 2, 5) * 3 + 1, Channels(2, (5,))
    states.fit(lambda: iter([fields]), 9)
    there = states(fields)
    torch.testing.assert_close(there.mean(dim=(0, 2)), torch.zeros(2), rtol=0, atol=1e-6)
    torch.testing.assert_close(there.std(dim=(0, 2), correction=0), torch.ones(2), rtol=1e-6, atol=0)
    torch.testing.assert_close(states.inverse(there), fields, rtol=1e-5, atol=1e-5)


def test_modes_hold_what_they_span_and_as_much_energy_as_asked() -> None:
    """Three modes of known share: 0.9, 0.09, 0.01 of the variance."""
    x = 2 * math.pi * LINE.mesh()[0]
    waves = torch.stack([x.sin(), (2 * x).cos(), (3 * x).sin()])
    sizes = torch.tensor([0.9, 0.09, 0.01], dtype=F64).sqrt()
    draws = torch.linalg.qr(field(400, 3).double() - field(400, 3).double().mean(dim=0))[0]
    fields = (5 + (draws * sizes) @ waves)[:, None].float()
    for energy, kept in ((0.85, 1), (0.98, 2), (0.9999, 3)):
        states = Modes(1, (32,), 5, energy)
        states.fit(lambda: iter(fields.split(150)), 400)
        assert states.kept == kept
        back = states.inverse(states(fields))
        lost = float((back - fields).square().sum() / (fields - fields.mean(dim=0)).square().sum())
        assert abs(lost - (1 - sizes.square()[:kept].sum())) < 2e-3
        assert bool((states(fields)[:, kept:] == 0).all())
    torch.testing.assert_close(states.basis[:, :3].T @ states.basis[:, :3], torch.eye(3), rtol=0, atol=1e-5)


def test_conditions_as_a_vector_are_numbers_and_coefficients() -> None:
    number, wave = field(7, 1, 1).expand(7, 1, 32), field(7, 1, 32)
    given = torch.cat([number, wave], dim=1)
    conditions = Conditions([True, False], (32,), vector=True, components=7)
    conditions.fit(lambda: iter([given]), 7)
    found = conditions(given)
    assert found.shape == (7, conditions.features) == (7, 8)
    torch.testing.assert_close(found[:, 0], (number[:, 0, 0] - number.mean()) / number[:, 0, 0].std(correction=0))
    # all coefficients of seven fields: distances are kept, in units of the one scale
    apart = torch.cdist(wave[:, 0], wave[:, 0]) / conditions.normalizer.std.flatten()[1]
    torch.testing.assert_close(
        torch.cdist(found[:, 1:], found[:, 1:]) * conditions.modes.scale, apart, rtol=1e-3, atol=1e-3
    )


def test_rates_are_those_of_a_straight_line() -> None:
    """u = a t: the rate is |a| over the deviation of the channel, exactly."""
    states = Channels(1, ())
    line = (torch.arange(6.0) * 0.5)[None, :, None] * torch.tensor([2.0, -2.0])[:, None, None]
    states.fit(lambda: iter([line.flatten(0, 1)]), 12)
    deviation, rate = rates_of(states, iter([line]), 0.5)
    torch.testing.assert_close(deviation, torch.ones(1))
    torch.testing.assert_close(rate, 2.0 / states.scales().flatten())


# ---------------------------------------------------------------------- networks and flows


def dense(c_in: int, c_out: int) -> Dense:
    return Dense(c_in, c_out, width=8, layers=1)


def test_first_order_is_rate_times_network_and_augments_begin_at_zero() -> None:
    flow = Flow(dense, 2, dim=0, augment=3)
    flow.fit(torch.tensor([2.0, 4.0]), torch.tensor([1.0, 8.0]))
    state = field(5, 2)
    whole = flow.begin(state)
    assert whole.shape == (5, 5)
    assert bool((whole[:, 2:] == 0).all())
    raw = flow.network(torch.zeros(()), torch.cat([state / torch.tensor([2.0, 4.0]), whole[:, 2:]], dim=1))
    expected = torch.cat([raw[:, :2] * torch.tensor([1.0, 8.0]), raw[:, 2:] * (0.5 + 2.0) / 2], dim=1)
    torch.testing.assert_close(flow(torch.zeros(()), whole), expected)


def test_second_order_with_learned_velocities_moves_places_by_them() -> None:
    flow = Flow(dense, 2, dim=0, order=2)
    flow.fit(torch.ones(2), torch.tensor([3.0, 5.0]))
    whole = flow.begin(field(4, 2))
    assert whole.shape == (4, 4)
    torch.testing.assert_close(flow(torch.zeros(()), whole)[:, :2], whole[:, 2:] * torch.tensor([3.0, 5.0]))


def test_observed_velocities_are_the_rates_of_the_places_in_physical_units() -> None:
    """Whatever the network says: d place / dt of the answer is the answer's rate."""
    problem = VanDerPol(frames=4)
    solver = made(problem, order=2, velocities="observed", rtol=1e-6, atol=1e-6)
    solver.fit(data_of(problem))
    state = problem.sample(3, problem.grid(2), generator=Generator().manual_seed(1)).float()
    times = [0.2, 0.201, 0.202]
    before, now, after = solver(state, problem.grid(2), times).detach().double().unbind(dim=1)
    torch.testing.assert_close((after[:, 0] - before[:, 0]) / 2e-3, now[:, 1], rtol=2e-3, atol=2e-3)  # float32 places


def test_stencils_commute_with_shifts_on_a_torus_and_see_walls() -> None:
    torch.manual_seed(0)
    grid = Grid.box((8, 12))
    network, state = Convolutional(2, 2, grid, width=4, layers=2), field(1, 2, 8, 12)
    zero = torch.zeros(())
    shifted = network(zero, state.roll((3, -5), (2, 3)))
    torch.testing.assert_close(shifted, network(zero, state).roll((3, -5), (2, 3)), rtol=1e-5, atol=1e-6)
    axis = Axis("x", 9, 0.0, 1.0, ("dirichlet", "dirichlet"), "ends")
    walls = Convolutional(1, 1, Grid((axis,)), width=4, layers=1)
    flat = walls(zero, torch.ones(1, 1, 9))[0, 0]
    assert abs(float((flat[0] - flat[4]).detach())) > 1e-6  # zeros beyond the wall
    closed = dataclasses.replace(axis, boundary=("neumann", "neumann"), placement="centres")
    flat = Convolutional(1, 1, Grid((closed,)), width=4, layers=1)(zero, torch.ones(1, 1, 9))[0, 0]
    torch.testing.assert_close(flat, flat[4].expand(9))


@pytest.mark.parametrize("boundary", ["periodic", "dirichlet", "neumann"])
def test_fourier_layers_say_the_same_on_a_finer_grid(boundary: str) -> None:
    """A wave that both grids hold, one layer before the activation's products: equal where nodes meet, to aliasing."""
    torch.manual_seed(0)
    placement = {"periodic": "left", "dirichlet": "ends", "neumann": "centres"}[boundary]
    size = {"periodic": (32, 96), "dirichlet": (33, 97), "neumann": (32, 96)}[boundary]
    coarse, fine = (Grid.box(n, boundary=boundary, placement=placement) for n in size)
    network = Spectral(1, 1, coarse, width=4, layers=1, modes=6)
    wave = lambda grid: torch.sin(2 * math.pi * grid.mesh()).float()[None] * 0.5  # noqa: E731
    if boundary == "neumann":
        wave = lambda grid: torch.cos(math.pi * grid.mesh()).float()[None] * 0.5  # noqa: E731
    small, large = (network(torch.zeros(()), wave(grid))[0, 0] for grid in (coarse, fine))
    step = slice(1, None, 3) if boundary == "neumann" else slice(None, None, 3)
    torch.testing.assert_close(large[step], small, rtol=0, atol=1e-5)


# ---------------------------------------------------------------------- answers


def test_the_plain_right_hand_side_is_what_is_integrated() -> None:
    problem = Spiral(frames=4)
    solver, grid = made(problem), problem.grid(2)
    solver.fit(data_of(problem))
    state = problem.sample(3, grid, generator=Generator().manual_seed(5)).float()
    right = solver.right_hand_side()
    found = odeint(right, solver.states(state), [0.0, 0.1, 0.4], rtol=1e-4, atol=1e-5, control="sample")
    expected = solver.states.inverse(found.states[:, 1:].flatten(0, 1)).unflatten(0, (3, 2))
    torch.testing.assert_close(solver(state, grid, [0.1, 0.4]), expected)
    counts = found.counts
    assert [(w.evaluations, w.accepted) for w in solver.health] == list(
        zip(counts.evaluations.tolist(), counts.accepted.tolist(), strict=True)
    )


def test_any_times_are_answered_and_a_sample_does_not_depend_on_its_company() -> None:
    problem = Spiral(frames=4)
    solver, grid = made(problem, rtol=1e-6, atol=1e-6), problem.grid(2)
    state = problem.sample(4, grid, generator=Generator().manual_seed(5)).float()
    whole = solver(state, grid, [0.03, 0.2, 0.37])
    torch.testing.assert_close(solver(state, grid, [0.2])[:, 0], whole[:, 1], rtol=0, atol=1e-5)
    torch.testing.assert_close(solver(state[2:3], grid, [0.03, 0.2, 0.37]), whole[2:3], rtol=0, atol=1e-6)


def test_times_beyond_the_training_are_warned_of_and_bad_ones_refused() -> None:
    problem = Spiral(frames=4)
    solver, grid, state = made(problem), problem.grid(2), torch.ones(1, 2)
    with pytest.warns(Extrapolated, match=r"up to time 0.5, but the training trajectories end at 0.4 \[s\]"):
        solver(state, grid, [0.5])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        solver(state, grid)
    for times in ([0.2, 0.1], [0.0, 0.1], [0.1, 0.1]):
        with pytest.raises(ValueError, match="strictly increasing"):
            solver(state, grid, times)


def test_a_flow_that_explodes_names_time_step_and_method() -> None:
    problem = Spiral(frames=4)
    solver = made(problem)
    with torch.no_grad():
        for parameter in solver.flow.network.last.parameters():
            parameter.fill_(torch.inf)
    with pytest.raises(SolverError, match=r"not finite at the initial state of sample\(s\) \[0\]"):
        solver(torch.ones(1, 2), problem.grid(2))
    with pytest.warns(UserWarning, match="Training: The right-hand side"), pytest.raises(Diverged, match="nan"):
        solver.fit(data_of(problem))


def test_work_is_told_in_a_judgement() -> None:
    problem = Spiral(frames=3)
    solver, data = made(problem), data_of(problem, 5)
    verdict = judge(solver, data, batch=2)
    assert [set(found) for found in verdict.health] == [{"evaluations", "accepted", "rejected"}] * 5
    # Tsitouras: two for the first step, six an attempt
    assert all(one["evaluations"] == 2 + 6 * (one["accepted"] + one["rejected"]) for one in verdict.health)


# ---------------------------------------------------------------------- learning


def test_an_oscillator_is_learned_and_predicted_beyond_its_windows() -> None:
    """A circle of period 2 pi, learned from windows of 0.6: a quarter of the error of standing still, at most."""
    problem = VanDerPol(mu=0.0, frames=10)
    data = data_of(problem, 24)
    train = Recipe(epochs=40, batch=48, unroll=3, learning_rate=1e-2, weight_decay=0.0)
    solver = made(problem, width=16, recipe=train, control="batch", rtol=1e-3)
    history = solver.fit(data.subset(range(16)), validation=data.subset(range(16, 20)))
    assert history.rows[-1]["validation"] < 0.25 * history.rows[0]["validation"]
    state, truth = data.read(range(20, 24))
    error = (solver(state, data.grid).detach() - truth).norm()
    assert float(error) < 0.25 * float((state[:, None] - truth).norm())


@pytest.mark.parametrize("right", ["convolutional", "spectral", "reduced"])
def test_fields_are_learned_in_every_form(right: str) -> None:
    problem = Heat(frames=2)
    data = data_of(problem, 8, 16)
    recipe = dataclasses.replace(TRAIN, unroll=1, epochs=6)
    solver = build(problem, data.grid, right=right, width=8, layers=1, modes=6, components=6, recipe=recipe)
    history = solver.fit(data, validation=data)
    assert history.rows[-1]["train"] < history.rows[0]["train"]
    assert solver(data.read([0])[0], data.grid).shape == data.read([0])[1].shape


@pytest.mark.parametrize("right", ["dense", "convolutional", "reduced"])
def test_parameters_condition_every_form(right: str) -> None:
    """An untrained network told another parameter gives another slope; the parameter itself stands still."""
    plain = right == "dense"
    problem = (
        varied(Lorenz(frames=2, warm_up=0.1), "rho=20:30")
        if plain
        else varied(Heat(frames=2), "diffusivity=0.001:0.05")
    )
    data = data_of(problem, 6, 16)
    torch.manual_seed(0)
    unroll = min(2, problem.signature.frames)
    recipe = dataclasses.replace(TRAIN, unroll=unroll, epochs=1)
    solver = build(problem, data.grid, right=right, width=8, layers=1, components=4, recipe=recipe)
    solver.fit(data)
    inputs, outputs = data.read(range(2))
    assert solver(inputs, data.grid).shape == outputs.shape
    swapped = inputs.clone()
    swapped[:, len(problem.signature.outputs) :] = inputs.flip(0)[:, len(problem.signature.outputs) :]
    assert not torch.allclose(solver(inputs, data.grid), solver(swapped, data.grid), rtol=1e-6, atol=0)


@pytest.mark.parametrize("gradient", ["backsolve", "interpolated"])
def test_adjoint_gradients_are_those_through_the_solver(gradient: str) -> None:
    problem, found = Spiral(frames=2), {}
    data = data_of(problem, 4)
    for how in ("discrete", gradient):
        solver = made(problem, gradient=how, control="batch", rtol=1e-6, atol=1e-6)
        solver.states.fit(lambda: iter([data.read(range(4))[0]]), 4)
        state, targets = data.read(range(4))
        loss = solver.loss(state, None, targets, Generator().manual_seed(0)).mean()
        found[how] = torch.autograd.grad(loss, solver.flow.network.last.weight)[0]
    torch.testing.assert_close(found[gradient], found["discrete"], rtol=1e-3, atol=1e-5)  # float32 at 1e-6


def test_a_penalty_is_added_with_its_weight_over_the_training() -> None:
    problem = Spiral(frames=2)
    data = data_of(problem, 4)
    plain = made(problem)
    both = made(problem, regulariser="ernode+srnode", weight=10.0, final_weight=1.0, stiffness_weight=0.5)
    state, targets = data.read(range(4))
    noise = Generator().manual_seed(0)
    solution = both.integrated(state, None, both.frames(2), trace=True)
    terms = dict(both.penalty.terms)  # type: ignore[union-attr]
    (error, first), (stiff, second) = terms.items()
    assert (first(0.0), first(0.5), second(0.5)) == (10.0, pytest.approx(math.sqrt(10)), 0.5)
    extra = both.loss(state, None, targets, noise) - plain.loss(state, None, targets, noise)
    expected = 10.0 * error(solution) + 0.5 * stiff(solution)
    torch.testing.assert_close(extra, expected.expand(4), rtol=1e-4, atol=1e-6)


@pytest.mark.slow
def test_regularised_training_takes_fewer_evaluations() -> None:
    """From a flow that is far too fast, with a weight that outweighs the data: what the regulariser is for."""
    problem = Spiral(frames=4, spacing=0.25)
    data, spent = data_of(problem, 16), {}
    for word in ("none", "ernode", "local"):
        recipe = Recipe(epochs=24, batch=16, unroll=4, learning_rate=3e-2, weight_decay=0.0)
        solver = made(problem, regulariser=word, weight=1000.0, control="batch", rtol=1e-4, recipe=recipe)
        with torch.no_grad():
            solver.flow.network.last.weight.mul_(100.0)
        solver.fit(data)
        with torch.no_grad():
            solver(data.read(range(16))[0], data.grid)
        spent[word] = solver.health[0].evaluations
    assert spent["ernode"] < 0.7 * spent["none"]
    assert spent["local"] < 0.8 * spent["none"]


# ---------------------------------------------------------------------- refusals


def test_what_does_not_fit_is_refused_with_what_does() -> None:
    spiral, heat = Spiral(), Heat()
    with pytest.raises(ValueError, match="static map"):
        made(Poisson())
    for problem, options, told in (
        (heat, {"right": "dense"}, "use reduced"),
        (spiral, {"right": "spectral"}, "no space"),
        (spiral, {"recipe": Recipe(augment=True)}, r"no use for train\.augment"),
        (spiral, {"recipe": Recipe(objective="relative_h1")}, "needs space"),
        (heat, {"recipe": Recipe(normalise="pointwise")}, "train.normalise channel"),
        (Lorenz(), {"order": 2, "velocities": "observed"}, "second half"),
        (heat, {"order": 2, "velocities": "observed", "right": "reduced"}, "POD mixes"),
        (spiral, {"regulariser": "ernode", "gradient": "backsolve"}, "gradient discrete"),
        (spiral, {"regulariser": "tay"}, "Unknown regulariser 'tay'"),
        (spiral, {"regulariser": "srnode", "method": "bosh3"}, "cannot see stiffness"),
        (spiral, {"width": 0}, "at least 1"),
        (heat, {"right": "spectral", "modes": 99}, "modes lies between"),
    ):
        with pytest.raises(ValueError, match=told):
            made(problem, **options)
    assert Penalty.of("none", 1.0, 1.0, 1.0, "tsit5", "discrete") is None


def test_another_grid_is_refused_unless_the_form_serves_it() -> None:
    problem = Heat()
    fields = field(1, 1, 32)
    assert made(problem, right="spectral", modes=6)(fields, problem.grid(32)).shape[-1] == 32
    with pytest.raises(ValueError, match=r"\(16,\).*asked for \(32,\)"):
        made(problem)(fields, problem.grid(32))
