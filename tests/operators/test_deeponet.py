"""DeepONet: its bilinear form, its layouts, its bases, and what it may know between nodes."""

from __future__ import annotations

import dataclasses
import math
import subprocess
import sys

import pytest
import torch
from resolvent.data import Dataset
from resolvent.operators._branched import sensor_grid
from resolvent.operators._branches import Convolutional, Dense, Flat, Stacked
from resolvent.operators._trunk import Positions, points_of
from resolvent.operators.deeponet import PRESETS, DeepONet, build, dense_trunk, groups_of
from resolvent.pde import Channel, Grid, Signature
from resolvent.pde.antiderivative import Antiderivative
from resolvent.pde.burgers import Burgers
from resolvent.pde.darcy import Darcy
from resolvent.pde.diffusion_reaction import DiffusionReaction
from resolvent.pde.navier_stokes import NavierStokes
from resolvent.pde.poisson import Poisson
from resolvent.training import Budget, Recipe
from torch import Tensor, nn

TORUS = Grid.box((8, 6), dim=2)
WALLS = Grid.box((9, 7), dim=2, boundary="dirichlet")
FORMS = ["independent", "split_both", "split_branch", "split_trunk"]
# double precision, sums of some hundred terms of order one
ROUND = {"rtol": 1e-12, "atol": 1e-12}


def network(grid: Grid = TORUS, *, outputs: int = 1, form: str = "split_both", p: int = 5, seed: int = 0) -> DeepONet:
    torch.manual_seed(seed)
    nets = outputs if form == "independent" else 1
    groups = groups_of(form, outputs)
    made = DeepONet(
        grid,
        grid,
        [Flat(Dense([grid.size, 7, p * groups[0] // nets], "tanh")) for _ in range(nets)],
        [dense_trunk(grid, [7, p * groups[1] // nets], "tanh") for _ in range(nets)],
        outputs=outputs,
        groups=groups,
        features=p,
    )
    with torch.no_grad():
        made.bias.copy_(torch.randn(outputs))
    return made.double()


def fields(count: int, grid: Grid, channels: int = 1) -> Tensor:
    return torch.randn(
        count, channels, *grid.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(count)
    )


def inside(grid: Grid, *shape: int) -> Tensor:
    """Random points of the domain."""
    unit = torch.rand(*shape, grid.dim, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    return unit * torch.tensor(grid.lengths) + torch.tensor([axis.lower for axis in grid.axes])


def static_data(outputs: Tensor, grid: Grid) -> Dataset:
    signature = Signature((Channel("a"),), tuple(Channel(f"u{i}") for i in range(outputs.shape[1])))
    return Dataset.from_tensors(
        fields(len(outputs), grid).float(), outputs.float(), grid=grid, signature=signature, problem="data"
    )


# ---------------------------------------------------------------------- the form


@pytest.mark.parametrize("form", FORMS)
def test_the_answer_is_the_sum_of_products_group_by_group(form):
    """Three outputs, five functions each: written out with indices."""
    net = network(outputs=3, form=form)
    values, points = fields(2, TORUS), inside(TORUS, 4)
    b = torch.cat([branch(values) for branch in net.branches], 1).reshape(2, -1, 5)
    t = torch.cat([trunk(points) for trunk in net.trunks], 1).reshape(4, -1, 5)
    answer = net.at(values, points)
    for i in range(2):
        for g in range(3):
            for j in range(4):
                ours, theirs = b[i, min(g, b.shape[1] - 1)], t[j, min(g, t.shape[1] - 1)]
                torch.testing.assert_close(answer[i, g, j], (ours * theirs).sum() + net.bias[g], **ROUND)
    assert b.shape[1] == (1 if form == "split_trunk" else 3)
    assert t.shape[1] == (1 if form == "split_branch" else 3)


def test_independent_outputs_share_nothing():
    net = network(outputs=2, form="independent")
    values = fields(2, TORUS)
    before = net(values)
    with torch.no_grad():
        for parameter in [*net.branches[0].parameters(), *net.trunks[0].parameters()]:
            parameter.add_(1.0)
    after = net(values)
    assert torch.equal(after[:, 1], before[:, 1])
    assert not torch.equal(after[:, 0], before[:, 0])


def test_one_function_and_a_constant_branch_give_a_scaled_trunk():
    net = network(p=1)
    with torch.no_grad():
        for parameter in net.branches.parameters():
            parameter.zero_()
        net.branches[0].network.layers[-1].bias.fill_(2.5)
        net.bias.zero_()
    points = inside(TORUS, 6)
    torch.testing.assert_close(net.at(fields(3, TORUS), points)[1, 0], 2.5 * net.trunks[0](points)[:, 0], **ROUND)


def test_the_form_is_bilinear_in_branch_and_trunk():
    net = network(outputs=2)
    with torch.no_grad():
        net.bias.zero_()
    b, c = (torch.randn(3, 2, 5, dtype=torch.float64) for _ in range(2))
    t, s = (torch.randn(4, 2, 5, dtype=torch.float64) for _ in range(2))
    both = net.combine(b + 2 * c, t - 3 * s)
    parts = net.combine(b, t) + 2 * net.combine(c, t) - 3 * net.combine(b, s) - 6 * net.combine(c, s)
    torch.testing.assert_close(both, parts, **ROUND)


def test_the_trunk_keeps_its_last_activation_and_the_branch_does_not():
    """tanh bounds the basis by 1; doubling the last layer of the branch doubles the answer."""
    net = network()
    points = inside(TORUS, 50)
    with torch.no_grad():
        for layer in (net.trunks[0][1].layers[-1], net.branches[0].network.layers[-1]):
            layer.weight.mul_(100)
        net.bias.zero_()
    assert float(net.trunks[0](points).detach().abs().max()) <= 1
    assert float(net.branches[0](fields(3, TORUS)).detach().abs().max()) > 1


@pytest.mark.parametrize("form", FORMS)
def test_cartesian_and_aligned_layouts_agree(form):
    """The same points for all, points of each sample's own, and triples (one point a sample)."""
    net, values = network(outputs=2, form=form), fields(5, TORUS)
    points = inside(TORUS, 5, 11)
    shared = points[0]
    torch.testing.assert_close(net.at(values, shared), net.at(values, shared.expand(5, 11, 2)), **ROUND)
    aligned = net.at(values, points)
    for i in range(5):
        torch.testing.assert_close(aligned[i], net.at(values[i : i + 1], points[i])[0], **ROUND)
    triples = net.at(values, points[:, :1])
    torch.testing.assert_close(triples, aligned[..., :1], **ROUND)


@pytest.mark.parametrize("grid", [TORUS, WALLS], ids=["torus", "walls"])
def test_at_the_nodes_the_function_is_the_answer_on_the_grid(grid):
    net, values = network(grid), fields(3, grid)
    torch.testing.assert_close(net.at(values, net.nodes.double()), net(values).flatten(2), **ROUND)


def test_the_trunk_is_evaluated_once_for_the_whole_batch():
    net = network()
    seen: list[tuple[int, ...]] = []
    net.trunks[0].register_forward_hook(lambda _module, given, _out: seen.append(tuple(given[0].shape)))
    net(fields(7, TORUS))
    assert seen == [(TORUS.size, 2)]


def test_stacked_branches_are_separate_networks():
    stacked = Stacked(4, [6, 5, 3], "tanh").double()
    values = torch.randn(7, 6, dtype=torch.float64)
    for k in range(4):
        alone = Dense([6, 5, 3, 1], "tanh").double()
        with torch.no_grad():
            for layer, weight, bias in zip(alone.layers, stacked.weights, stacked.biases, strict=True):
                layer.weight.copy_(weight[k])
                layer.bias.copy_(bias[k] + 0.1)
        with torch.no_grad():
            for layer in alone.layers:
                layer.bias.sub_(0.1)
        torch.testing.assert_close(stacked(values)[:, k : k + 1], alone(values), **ROUND)
    assert sum(p.numel() for p in stacked.parameters()) == 4 * sum(p.numel() for p in alone.parameters())


def test_average_divides_by_the_number_of_functions():
    problem = Poisson()
    torch.manual_seed(0)
    plain = build(problem, problem.grid(9), width=8, layers=2).network
    torch.manual_seed(0)
    mean = build(problem, problem.grid(9), width=8, layers=2, average=True).network
    values = fields(2, problem.grid(9)).float()
    torch.testing.assert_close(8 * mean(values), plain(values))


def test_any_module_of_points_is_a_trunk():
    """A field of another room: no layers of ours."""

    class Waves(nn.Module):
        def forward(self, points: Tensor) -> Tensor:
            return torch.stack([points[:, 0].sin(), points[:, 1].cos()], dim=1)

    branch = Flat(Dense([TORUS.size, 2], "tanh"))
    net = DeepONet(TORUS, TORUS, [branch], [Waves()], outputs=1, groups=(1, 1), features=2).double()
    values, points = fields(3, TORUS), inside(TORUS, 4)
    b = branch(values)
    expected = b[:, :1] * points[:, 0].sin() + b[:, 1:] * points[:, 1].cos()
    torch.testing.assert_close(net.at(values, points)[:, 0], expected, **ROUND)


# ---------------------------------------------------------------------- published sizes and starts


def test_parameter_counts_of_the_published_networks():
    """ODE demo: branch [100, 40, 40], trunk [1, 40, 40]. Darcy: 5x5 convolutions 64 and 128, 128, 128; trunk [2, 128 x 4]."""
    line, flow = Antiderivative(), Darcy()
    ode = build(line, line.grid(100), **PRESETS["paper", "antiderivative"].model)
    assert ode.parameter_count == (100 * 40 + 40) + (40 * 40 + 40) + (40 + 40) + (40 * 40 + 40) + 1 == 7401
    darcy = build(flow, flow.grid(85), **PRESETS["paper", "darcy"].model)
    after = 5 * 5 * 128  # 29 sensors -> 13 -> 5
    cnn = (25 * 64 + 64) + (25 * 64 * 128 + 128) + (after * 128 + 128) + (128 * 128 + 128)
    assert darcy.parameter_count == cnn + (2 * 128 + 128) + 3 * (128 * 128 + 128) + 1


def test_weights_start_glorot_normal_and_biases_at_zero():
    """Standard deviation sqrt(2 / (in + out)); 12,000 draws know it to 0.65 %."""
    torch.manual_seed(0)
    for weight, bias in (
        (lambda layer: (layer.weight, layer.bias))(Dense([120, 100], "relu").layers[0]),
        (lambda made: (made.weights[0], made.biases[0]))(Stacked(1, [120, 100], "relu")),
    ):
        assert float(weight.detach().std()) == pytest.approx(math.sqrt(2 / 220), rel=0.03)
        assert not bool(bias.any())


# ---------------------------------------------------------------------- between the nodes


@pytest.mark.parametrize("grid", [TORUS, WALLS], ids=["torus", "walls"])
def test_another_output_grid_evaluates_the_same_function(grid):
    """A band-limited (torus) or linear (walls) input: the sensors read the same at any resolution."""

    def field(at: Grid) -> Tensor:
        x, y = at.mesh()
        return ((2 * math.pi * x).sin() * (2 * math.pi * y).cos() if grid.periodic else x - 2 * y)[None, None]

    net = network(grid)
    fine = grid.at([2 * n if grid.periodic else 2 * n - 1 for n in grid.shape])
    # float32 positions: 1e-7, times slopes of order ten
    torch.testing.assert_close(net(field(fine))[..., ::2, ::2], net(field(grid)), rtol=0, atol=1e-5)


def test_fewer_sensors_than_nodes_read_every_second_node():
    problem = Poisson()
    solver = build(problem, problem.grid(9), width=8, layers=2, sensors=5)
    values = fields(2, problem.grid(9)).float()
    torch.testing.assert_close(solver.network.sense(values), values[..., ::2, ::2], rtol=0, atol=1e-6)
    assert solver.network.branches[0].network.layers[0].in_features == 25


def test_periodic_trunks_are_periodic_and_see_the_published_waves():
    net, values, points = network(), fields(2, TORUS), inside(TORUS, 9)
    torch.testing.assert_close(net.at(values, points), net.at(values, points + torch.tensor([1.0, -2.0])), **ROUND)
    x = torch.tensor([[0.1]], dtype=torch.float64)
    expected = [f(2 * math.pi * h * 0.1) for h in (1, 2) for f in (math.cos, math.sin)]
    assert Positions(Grid.box(8))(x)[0].tolist() == pytest.approx(expected)
    assert Positions(Grid.box(8, lower=-1.0), harmonics=0)(x)[0].tolist() == pytest.approx([0.1])


# ---------------------------------------------------------------------- walls


def poisson_data(n: int = 9) -> tuple[Poisson, Dataset]:
    problem = Poisson()
    grid = problem.grid(n)
    inputs = problem.sample(12, grid, generator=torch.Generator().manual_seed(0))
    outputs = problem.reference()(inputs, grid)
    return problem, Dataset.from_tensors(inputs.float(), outputs.float(), grid=grid, signature=problem.signature)


def test_answers_vanish_on_the_walls_at_any_resolution_and_point():
    problem, data = poisson_data()
    solver = build(problem, data.grid, width=8, layers=2, walls="zero")
    solver.fit(data, budget=Budget(epochs=1))
    assert float(solver.module["outputs"].mean.abs().max()) > 0
    for n in (9, 14):
        answer = solver(fields(2, problem.grid(n)), problem.grid(n))
        edge = torch.ones(n, n, dtype=torch.bool)
        edge[1:-1, 1:-1] = False
        assert not bool(answer[..., edge].any())
        assert float(answer.detach().abs().max()) > 0
    walls = torch.tensor([[0.0, 0.3], [0.77, 1.0]])
    assert not bool(solver.at(fields(2, data.grid), data.grid, walls).any())


def test_walls_are_refused_where_the_outputs_do_not_vanish():
    grid = WALLS
    data = static_data(torch.ones(4, 1, *grid.shape), grid)
    problem = dataclasses.replace(Poisson())
    solver = build(problem, grid, width=4, layers=1, walls="zero")
    with pytest.raises(ValueError, match=r"reach 1.0e\+00 of their maximum"):
        solver.fit(data, budget=Budget(epochs=1))
    flow = NavierStokes()
    with pytest.raises(ValueError, match="needs a Dirichlet wall"):
        build(flow, flow.grid(8), walls="zero")


def test_points_in_physical_units_meet_the_answer_on_the_grid():
    problem, data = poisson_data()
    for walls in ("free", "zero"):
        solver = build(problem, data.grid, width=8, layers=2, walls=walls)
        solver.fit(data, budget=Budget(epochs=2))
        inputs, _ = data.read(range(3))
        grid_answer = solver(inputs, data.grid).flatten(2)
        points = points_of(data.grid)
        at = solver.at(inputs, data.grid, points)
        torch.testing.assert_close(at, grid_answer, rtol=1e-4, atol=1e-6 * float(grid_answer.detach().abs().max()))
        torch.testing.assert_close(solver.at(inputs, data.grid, points.expand(3, -1, -1)), at, rtol=1e-4, atol=1e-7)


# ---------------------------------------------------------------------- deployment


@pytest.mark.parametrize(
    "options", [{}, {"kind": "stacked"}, {"kind": "pod", "features": 4}, {"branch": "cnn"}, {"sensors": 7}]
)
def test_exports_and_compiles_with_a_batch_of_any_size(options):
    problem = Poisson()
    grid = problem.grid(17)
    net = build(problem, grid, width=8, layers=2, channels=4, **options).network.eval()
    sample = fields(3, grid).float()
    exported = torch.export.export(net, (sample,), dynamic_shapes=({0: torch.export.Dim("batch")},))
    for count in (1, 5):
        values = fields(count, grid).float()
        torch.testing.assert_close(exported.module()(values), net(values))


COMPILED = """
import torch
from resolvent.operators import deeponet, multionet
from resolvent.pde.poisson import Poisson
torch.set_num_threads(1)
problem = Poisson()
grid = problem.grid(9)
for name, solver in (
    ("deeponet", deeponet.build(problem, grid, width=8, layers=2)),
    ("multionet", multionet.build(problem, grid, width=8, layers=2, sensors=5, factors="one")),
):
    network = solver.network
    compiled = torch.compile(network, backend="eager", fullgraph=True)
    for count in (4, 2):
        values = torch.randn(count, 1, *grid.shape)
        torch._dynamo.mark_dynamic(values, 0)
        torch.testing.assert_close(compiled(values), network(values), rtol=1e-4, atol=1e-5)
    print(name)
"""


def test_compiled_steps_are_eager_steps():
    """In a process of its own: no compiler can follow the shape checker."""
    told = subprocess.run([sys.executable, "-c", COMPILED], capture_output=True, text=True, timeout=300, check=False)
    assert told.stdout.split() == ["deeponet", "multionet"], told.stderr[-2000:]


# ---------------------------------------------------------------------- the door


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sensors": 18}, "from 2 to the 17 nodes"),
        ({"sensors": 8, "branch": "cnn"}, "at least 13 an axis"),
        ({"width": 0}, "width of at least 1"),
        ({"kind": "stacked", "branch": "cnn"}, "fully connected"),
        ({"kind": "pod", "walls": "zero"}, "vanish there anyway"),
        ({"harmonics": -1}, "harmonics"),
    ],
)
def test_options_out_of_range_are_refused_with_what_is_admissible(options, message):
    problem = Poisson()
    with pytest.raises(ValueError, match=message):
        build(problem, problem.grid(17), **options)


def test_the_named_smallest_number_of_sensors_works():
    Convolutional(1, (13, 13), [2, 2], [3], "relu")
    with pytest.raises(ValueError, match="at least 13"):
        Convolutional(1, (13, 12), [2, 2], [3], "relu")


def test_points_of_another_shape_and_answers_known_at_nodes_only_are_refused():
    net = network()
    for shape in [(4, 3), (2, 4, 2), (4,)]:
        with pytest.raises(Exception, match=r"points|shape|dim"):
            net.at(fields(3, TORUS), torch.zeros(shape, dtype=torch.float64))
    problem, data = poisson_data()
    pointwise = build(problem, data.grid, width=4, layers=1, recipe=Recipe(normalise="pointwise"))
    with pytest.raises(ValueError, match=r"training grid \(9, 9\)"):
        pointwise(fields(1, problem.grid(12)), problem.grid(12))
    with pytest.raises(ValueError, match="pointwise statistics"):
        pointwise.at(fields(1, data.grid), data.grid, torch.zeros(1, 2))
    assert sensor_grid(TORUS, 0) is TORUS


@pytest.mark.parametrize("key", PRESETS)
def test_presets_name_options_that_exist(key):
    named = {
        "antiderivative": Antiderivative(),
        "burgers": Burgers(),
        "darcy": Darcy(),
        "navier_stokes": NavierStokes(),
        "poisson": Poisson(),
    }
    for problem in [named[key[1]]] if key[1] in named else [Poisson(), Antiderivative(), DiffusionReaction()]:
        entry = PRESETS[key]
        preset = entry(problem) if callable(entry) else entry
        grid = problem.grid(problem.setups[key[0]].resolution)
        assert build(problem, grid, **preset.model, recipe=Recipe(**preset.train)).parameter_count > 0


@pytest.mark.slow
def test_the_antiderivative_demonstration_reaches_its_published_error():
    """10,000 triples (u, y, s), full batches, Adam 1e-3, at most 50,000 iterations: below 1e-5 test mean square.

    The published console shows about 9.3e-7 at its best; a smaller network of the same kind is no faster.
    """
    problem = Antiderivative()
    grid = problem.grid(100)
    inputs = problem.sample(11_000, grid, generator=torch.Generator().manual_seed(0))
    outputs = problem.reference()(inputs, grid).float()
    chosen = torch.randint(grid.size, (len(inputs),), generator=torch.Generator().manual_seed(1))
    points = points_of(grid, dtype=torch.float32)[chosen][:, None]
    targets = outputs[torch.arange(len(inputs)), :, chosen][:, None].squeeze(1)
    torch.manual_seed(0)
    net = build(problem, grid, **PRESETS["paper", "antiderivative"].model).network
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-3)
    train, best = slice(0, 10_000), math.inf
    values = inputs.float()
    for step in range(50_000):
        optimizer.zero_grad()
        (net.at(values[train], points[train])[..., 0] - targets[train]).square().mean().backward()
        optimizer.step()
        if step % 250 == 249:
            with torch.no_grad():
                best = min(best, float((net(values[10_000:]) - outputs[10_000:]).square().mean()))
            if best < 1e-5:
                break
    assert best < 1e-5
