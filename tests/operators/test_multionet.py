"""MultiONet: its formula, its published sizes, and the derivatives of its trunk."""

from __future__ import annotations

import math

import pytest
import torch
from resolvent.data import Dataset
from resolvent.operators import deeponet
from resolvent.operators._branched import BranchedSolver
from resolvent.operators._branches import Convolutional, Dense, Flat, silu_id, silu_sin, sinc, tanh_sin
from resolvent.operators._trunk import Positions
from resolvent.operators.deeponet import DeepONet
from resolvent.operators.multionet import PRESETS, MultiONet, MultiONetX, Pair, build, combine
from resolvent.pde import Channel, Grid, Signature
from resolvent.pde.burgers import Burgers
from resolvent.pde.darcy import Darcy
from resolvent.pde.navier_stokes import NavierStokes
from resolvent.pde.poisson import Poisson
from resolvent.pde.stokes import Stokes
from resolvent.training import Budget, Recipe
from torch import Tensor, nn
from torch.nn import functional as F

# double precision, sums of some hundred terms of order one
ROUND = {"rtol": 1e-12, "atol": 1e-12}
WIDE = {"branch": [6] * 4, "trunk": [6] * 4}


def count(module: torch.nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def decoder(**options: object) -> MultiONet:
    torch.manual_seed(0)
    made = MultiONet(2, 3, **{**WIDE, **options}).double()
    with torch.no_grad():
        made.weight.normal_()
        made.bias.fill_(0.3)
        for layer in [*made.pair.branch.layers, *made.pair.trunk.layers]:
            layer.bias.normal_()
    return made


def codes(batch: int = 5) -> Tensor:
    return torch.randn(batch, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(batch))


def points(*shape: int) -> Tensor:
    return torch.rand(*shape, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(7))


# ---------------------------------------------------------------------- published sizes


@pytest.mark.parametrize(
    ("width", "layers", "dim", "last", "expected"),
    [(100, 5, 2, 4, 94_005), (100, 6, 2, 5, 114_206), (128, 5, 1, 4, 148_869), (128, 5, 2, 4, 148_997)],
)
def test_parameter_counts_are_the_published_ones_and_follow_the_formula(width, layers, dim, last, expected):
    made = MultiONet(dim, 128, branch=[width] * layers, trunk=[width] * layers, last=last)
    formula = (dim + 1) * width + 129 * width + 2 * (layers - 1) * width * (width + 1) + last + 1
    assert count(made) == expected == formula


def test_encoders_have_the_published_sizes_too():
    """DGNO: Darcy two-phase 595,328, Darcy smooth 140,416, Burgers 82,496; its Burgers total 196,702."""
    assert count(Dense([841, 512, 256, 128], "silu")) == 595_328
    assert count(Convolutional(1, (29, 29), [64] * 3, [128] * 3, "silu", wide=3)) == 140_416
    burgers = Dense([128, 256, 128, 64, 128], "silu")
    assert count(burgers) == 82_496
    assert count(burgers) + count(MultiONet(2, 128, branch=[100] * 6, trunk=[100] * 6, last=5)) == 196_702


def test_build_makes_the_published_networks():
    darcy, burgers = Darcy(), Burgers()
    two_phase = build(darcy, darcy.grid(29), **PRESETS["paper", "darcy"].model)
    assert two_phase.parameter_count == 595_328 + 94_005
    periodic = build(burgers, burgers.grid(128), **PRESETS["paper", "burgers"].model, harmonics=0)
    assert periodic.parameter_count == 82_496 + 148_869


# ---------------------------------------------------------------------- the formula


@pytest.mark.parametrize("last", [1, 2, 3])
def test_the_answer_is_the_formula_layer_by_layer(last):
    made = decoder(last=last, branch_activation="sinc", trunk_activation="tanh_sin")
    beta, y = codes(), points(4)
    b, t, layers = beta, y, []
    for ours, theirs in zip(made.pair.branch.layers, made.pair.trunk.layers, strict=True):
        z = b @ ours.weight.t() + ours.bias
        b = z * torch.sin(z)
        z = t @ theirs.weight.t() + theirs.bias
        t = torch.tanh(torch.sin(math.pi * (z + 1))) + z
        layers.append((b, t))
    expected = made.bias + sum(w * (b @ t.t()) for w, (b, t) in zip(made.weight, layers[-last:], strict=True)) / last
    torch.testing.assert_close(made(beta, y)[:, 0], expected, **ROUND)


def test_activations_are_the_published_formulas():
    z = torch.linspace(-4, 4, 41, dtype=torch.float64)
    turned = torch.sin(math.pi * (z + 1))
    torch.testing.assert_close(tanh_sin(z), torch.tanh(turned) + z, **ROUND)
    torch.testing.assert_close(silu_sin(z), turned * torch.sigmoid(turned) + z, **ROUND)
    torch.testing.assert_close(silu_id(z), z * torch.sigmoid(z) + z, **ROUND)
    torch.testing.assert_close(sinc(z), z * z.sin(), **ROUND)


def test_one_layer_with_factor_one_is_a_deeponet_whose_branch_keeps_its_activation():
    grid = Grid.box((4, 3), dim=2, boundary="dirichlet")
    made = MultiONet(2, grid.size, **WIDE, last=1, factors="one", trunk_activation="tanh", branch_activation="tanh")
    branch, trunk = (Dense([n, *[6] * 4], "tanh", last=True) for n in (grid.size, 2))
    branch.load_state_dict(made.pair.branch.state_dict())
    trunk.load_state_dict(made.pair.trunk.state_dict())
    plain = DeepONet(grid, grid, [Flat(branch)], [trunk], outputs=1, groups=(1, 1), features=6)
    with torch.no_grad():
        made.bias.fill_(0.4)
        plain.bias.fill_(0.4)
    made, plain = made.double(), plain.double()
    values, y = torch.randn(3, 1, 4, 3, dtype=torch.float64), points(5)
    torch.testing.assert_close(made(values.flatten(1), y), plain.at(values, y), **ROUND)


def test_at_the_published_start_the_answer_is_the_constant_and_only_factors_learn():
    made = MultiONet(2, 3, **WIDE).double()
    with torch.no_grad():
        made.bias.fill_(0.7)
    out = made(codes(), points(4))
    assert torch.equal(out, torch.full_like(out, 0.7))
    (out - 1).square().sum().backward()
    slopes = {name: float(p.grad.abs().max()) for name, p in made.named_parameters()}
    assert {name for name, slope in slopes.items() if slope > 0} == {"weight", "bias"}
    mean = MultiONet(2, 3, **WIDE, factors="one").double()
    mean(codes(), points(4)).square().sum().backward()
    assert all(float(p.grad.abs().max()) > 0 for p in mean.parameters())


def test_adding_a_layer_adds_its_weighted_product_over_l():
    made, beta, y = decoder(), codes(), points(4)
    before = made(beta, y)
    product = torch.einsum("bw,nw->bn", made.pair.code_layers(beta)[:, 1], made.pair.features(y)[:, 1])
    with torch.no_grad():
        made.weight[1] += 2.0
    torch.testing.assert_close(made(beta, y)[:, 0] - before[:, 0], 2.0 * product / 3, **ROUND)


def test_without_last_all_layers_but_the_first_are_summed():
    assert Pair(2, 3, **WIDE).last == 3
    assert Pair(2, 3, **WIDE).features(points(4).float()).shape == (4, 3, 6)


# ---------------------------------------------------------------------- several outputs, layouts


def test_the_vector_form_is_products_first_then_one_linear_map():
    torch.manual_seed(0)
    made = MultiONetX(2, 3, 4, **WIDE, last=2).double()
    beta, y = codes(), points(7)
    b = made.pair.branch.hidden(beta.reshape(5, 3, 1), 2)  # batch code layer width
    t = made.pair.trunk.hidden(y, 2)
    products = torch.einsum("bclw,nlw->bnc", b, t) / 2
    expected = F.linear(products, made.head.weight, made.head.bias).movedim(-1, 1)
    torch.testing.assert_close(made(beta, y), expected, **ROUND)
    assert count(made) == (3 * 6 + 6 * 2) + 2 * 3 * 6 * 7 + (3 * 4 + 4)


@pytest.mark.parametrize("made", [decoder(), MultiONetX(2, 3, 4, **WIDE).double()], ids=["separate", "vector"])
def test_cartesian_and_batch_layouts_agree(made):
    beta, y = codes(), points(5, 9)
    torch.testing.assert_close(made(beta, y[0]), made(beta, y[0].expand(5, 9, 2)), **ROUND)
    own = made(beta, y)
    for i in range(5):
        torch.testing.assert_close(own[i], made(beta[i : i + 1], y[i])[0], **ROUND)


@pytest.mark.parametrize("outputs", ["separate", "vector"])
def test_the_operator_on_the_grid_is_the_function_at_the_nodes(outputs):
    """Three channels of Stokes flow, which share one code."""
    problem = Stokes()
    grid = problem.grid(9)
    net = build(problem, grid, width=8, layers=3, code=5, hidden="7", outputs=outputs, factors="zero").network.double()
    for made in net.decoders:
        if outputs == "separate":
            made.weight.data.normal_()
    values = torch.randn(2, len(problem.signature.inputs), *grid.shape, dtype=torch.float64)
    torch.testing.assert_close(net.at(values, net.nodes), net(values).flatten(2), **ROUND)
    own = net.nodes.expand(2, -1, -1)
    torch.testing.assert_close(net.at(values, own), net(values).flatten(2), **ROUND)
    each = torch.cat([made(net.encode(values), net.nodes) for made in net.decoders], dim=1)
    torch.testing.assert_close(net.at(values, net.nodes), each, **ROUND)
    assert len(net.decoders) == (1 if outputs == "vector" else len(problem.signature.outputs))


def test_a_bounded_code_is_the_hyperbolic_tangent_of_the_encoders():
    problem = Poisson()
    net = build(problem, problem.grid(9), width=8, layers=2, code=4, bounded=True).network
    values = 50 * torch.randn(3, 1, 9, 9)
    torch.testing.assert_close(net.encode(values), torch.tanh(net.encoder(values)))
    assert float(net.encode(values).detach().abs().max()) <= 1


def test_the_trunk_is_evaluated_once_for_the_whole_batch():
    problem = Poisson()
    net = build(problem, problem.grid(9), width=8, layers=2).network
    seen: list[tuple[int, ...]] = []
    net.decoders[0].pair.trunk.layers[0].register_forward_hook(lambda _m, given, _o: seen.append(tuple(given[0].shape)))
    net(torch.randn(6, 1, 9, 9))
    assert seen == [(81, 2)]


# ---------------------------------------------------------------------- derivatives


@pytest.mark.parametrize("activation", ["tanh_sin", "silu_sin", "silu_id", "sinc", "tanh"])
def test_forward_derivatives_of_the_trunk_are_those_of_autograd(activation):
    torus = Grid.box(8, lower=-1.0, upper=2.0, dim=2)
    where = Positions(torus)
    for positions, dim in ((None, 2), (where, where.count)):
        pair = Pair(dim, 3, **WIDE, trunk_activation=activation, positions=positions).double()
        y = points(6).requires_grad_()
        features, slopes = pair.features_and_gradients(y)
        expected = pair.features(y)
        torch.testing.assert_close(features, expected, **ROUND)
        for layer in range(3):
            for w in range(6):
                (slope,) = torch.autograd.grad(expected[:, layer, w].sum(), y, retain_graph=True)
                torch.testing.assert_close(slopes[:, layer, w], slope, rtol=1e-10, atol=1e-10)


def test_the_gradient_of_the_answer_is_the_product_with_the_gradients():
    """For all codes from one sweep of the trunk; and through it the weights get their gradients."""
    made, beta = decoder(), codes()
    y = points(6).requires_grad_()
    _, slopes = made.pair.features_and_gradients(y)
    forward = torch.stack([combine(made.code_layers(beta), slopes[..., j])[:, 0] for j in range(2)], dim=-1)
    backward = torch.stack([torch.autograd.grad(made(beta, y)[i].sum(), y, create_graph=True)[0] for i in range(5)])
    torch.testing.assert_close(forward, backward, rtol=1e-10, atol=1e-10)
    weight = made.pair.trunk.layers[0].weight
    ours, theirs = (torch.autograd.grad(each.square().sum(), weight)[0] for each in (forward, backward))
    torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)


# ---------------------------------------------------------------------- deployment, the door


@pytest.mark.parametrize("options", [{}, {"encoder": "cnn", "channels": "4 4"}, {"outputs": "vector"}, {"sensors": 7}])
def test_exports_with_a_batch_of_any_size(options):
    problem = Poisson()
    net = build(problem, problem.grid(17), width=8, layers=2, **options).network.eval()
    batch = {0: torch.export.Dim("batch")}
    exported = torch.export.export(net, (torch.randn(3, 1, 17, 17),), dynamic_shapes=(batch,)).module()
    for number in (1, 5):
        values = torch.randn(number, 1, 17, 17)
        torch.testing.assert_close(exported(values), net(values))


@pytest.mark.parametrize(("branch", "trunk"), [([6, 6, 6], [6, 6]), ([6, 6], [7, 7]), ([6, 7], [6, 7])])
def test_unequal_widths_are_refused(branch, trunk):
    with pytest.raises(ValueError, match="the same width"):
        MultiONet(2, 3, branch=branch, trunk=trunk)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"last": 5}, "from 1 to 4"),
        ({"last": -1}, "from 1 to 4"),
        ({"layers": 1}, "2 at least"),
        ({"width": 0}, "at least 1"),
        ({"hidden": "12 x"}, "hidden"),
        ({"hidden": ""}, "hidden"),
        ({"outputs": "vector", "factors": "one"}, "no factors"),
        ({"encoder": "cnn", "sensors": 9}, "at least 15 an axis"),
    ],
)
def test_options_out_of_range_are_refused_with_what_is_admissible(options, message):
    problem = Poisson()
    with pytest.raises(ValueError, match=message):
        build(problem, problem.grid(17), **options)


@pytest.mark.parametrize("key", PRESETS)
def test_presets_name_options_that_exist(key):
    named = {"burgers": Burgers(), "darcy": Darcy(), "stokes": Stokes(), "navier_stokes": NavierStokes()}
    problem = named.get(key[1], Poisson())
    preset = PRESETS[key](problem) if callable(PRESETS[key]) else PRESETS[key]
    solver = build(
        problem, problem.grid(problem.setups[key[0]].resolution), **preset.model, recipe=Recipe(**preset.train)
    )
    assert solver.parameter_count > 0


def smoothing_data(size: int, samples: int) -> Dataset:
    grid = Grid.box(size)
    x = grid.coordinates()[0]
    draws = torch.randn(samples, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    waves = torch.stack([f(2 * math.pi * k * x) for k in (1, 2, 3) for f in (torch.sin, torch.cos)])
    damped = waves * torch.tensor([1 / k**2 for k in (1, 2, 3) for _ in range(2)], dtype=torch.float64)[:, None]
    signature = Signature((Channel("a"),), (Channel("u"),))
    return Dataset.from_tensors(
        (draws @ waves)[:, None].float(), (draws @ damped)[:, None].float(), grid=grid, signature=signature
    )


def test_it_learns_a_smoothing_operator_from_its_zero_start():
    """Six waves damped as k^-2: 300 steps take the error on unseen samples below a tenth."""
    data = smoothing_data(16, 136)
    torch.manual_seed(0)
    solver = build(Burgers(), data.grid, width=32, layers=3, code=16, hidden="32", recipe=Recipe(epochs=37, batch=16))
    solver.signature = data.signature
    solver.fit(data.subset(range(128)), budget=Budget(epochs=37))
    inputs, outputs = data.read(range(128, 136))
    with torch.no_grad():
        error = (solver(inputs, data.grid) - outputs).flatten(1).norm(dim=1) / outputs.flatten(1).norm(dim=1)
    assert float(error.mean()) < 0.1


def same_nets(problem: Burgers, grid: Grid, recipe: Recipe, activation: str) -> BranchedSolver:
    """The DeepONet of the same layers, all with one activation, as published."""
    branch = nn.Sequential(Flat(Dense([128, 256, 128, 128], activation)), Dense([128] * 6, activation))
    trunk = deeponet.dense_trunk(grid, [128] * 5, activation)
    net = DeepONet(grid, grid, [branch], [trunk], outputs=1, groups=(1, 1), features=128)
    return BranchedSolver(net, problem.signature, grid, recipe)


@pytest.mark.slow
def test_at_equal_budget_it_beats_a_deeponet_of_tanh_layers_of_the_same_sizes_on_burgers_twofold():
    """The published pair (0.0050 against 0.0145, parameters equal but for the w_k) as a ratio: same data, same steps.

    0.0114 against 0.072. A DeepONet with MultiONet's own SiLU encoder is as good: see the module's docstring.
    """
    problem = Burgers()
    grid = problem.grid(128)
    inputs = problem.sample(256 + 64, grid, generator=torch.Generator().manual_seed(0))
    outputs = problem.reference()(inputs, grid)
    data = Dataset.from_tensors(inputs.float(), outputs.float(), grid=grid, signature=problem.signature)
    recipe = Recipe(epochs=150, batch=16, learning_rate=1e-3)
    torch.manual_seed(0)
    multi = build(problem, grid, width=128, layers=5, hidden="256 128", factors="one", recipe=recipe)
    torch.manual_seed(0)
    plain = same_nets(problem, grid, recipe, "tanh")
    assert multi.parameter_count == plain.parameter_count + multi.network.decoders[0].pair.last
    errors = []
    for solver in (multi, plain):
        solver.fit(data.subset(range(256)))
        given, wanted = data.read(range(256, 320))
        with torch.no_grad():
            missed = (solver(given, grid) - wanted).flatten(1).norm(dim=1)
        errors.append(float((missed / wanted.flatten(1).norm(dim=1)).mean()))
    assert 2 * errors[0] < errors[1], errors
