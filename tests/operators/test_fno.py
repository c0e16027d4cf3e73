"""The Fourier neural operator: its published counts, its invariances, its resolution, and neuraloperator's weights."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from resolvent.kernels.pointwise import channel_mlp_reference
from resolvent.operators._fourier import BiasFunction, FieldNorm, FourierBlock, SpectralConv, along
from resolvent.operators._neuralop_weights import from_neuralop, neuralop_options, to_neuralop_state_dict
from resolvent.operators.fno import FNO, PRESETS, Pointwise, build, positions
from resolvent.pde import Grid
from resolvent.pde.burgers import Burgers
from resolvent.pde.darcy import Darcy
from resolvent.pde.navier_stokes import NavierStokes
from resolvent.training import Recipe
from torch import Tensor
from torch.nn import functional as F


def count(network: torch.nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


def band_limited(size: int, *, channels: int = 1) -> Tensor:
    """A few modes below |k| = 3 on the unit torus, the same function at every resolution."""
    x = torch.arange(size, dtype=torch.float64)[:, None] / size
    y = x.t()
    fields = [
        torch.sin(2 * math.pi * (x + 2 * y)) + 0.5 * torch.cos(2 * math.pi * (2 * x - y + 0.1 * c)) + 0.3 * c
        for c in range(channels)
    ]
    return torch.stack(fields)[None]


def test_published_darcy_network_has_its_published_parameter_count():
    """4 * 2 * 12^2 * 32^2 spectral + 4 (32^2 + 32) skips + (3 * 32 + 32) P + (32 * 128 + 128) + (128 + 1) Q."""
    spectral = 4 * 2 * 12**2 * 32**2
    expected = spectral + 4 * (32**2 + 32) + (3 * 32 + 32) + (32 * 128 + 128) + (128 + 1)
    assert expected == 1_188_353
    assert count(FNO(1, 1, modes=24, width=32, layers=4, block="legacy")) == expected


def test_published_recurrent_navier_stokes_network_has_its_published_parameter_count():
    """Ten frames in, one out, modes 12, width 20: 465,557 (dossier 1.2)."""
    assert count(FNO(10, 1, modes=24, width=20, layers=4, block="legacy")) == 465_557


@pytest.mark.parametrize("block", ["modern", "legacy"])
def test_translation_equivariant_without_coordinates(block):
    torch.manual_seed(0)
    network = FNO(2, 3, modes=(6, 8), width=8, layers=2, block=block, coordinates=False).double()
    values = torch.randn(2, 2, 15, 18, dtype=torch.float64)
    moved = network(values.roll((4, 7), (2, 3)))
    torch.testing.assert_close(moved, network(values).roll((4, 7), (2, 3)), rtol=0, atol=1e-12)
    with_positions = FNO(2, 3, modes=(6, 8), width=8, layers=2, block=block).double()
    difference = with_positions(values.roll(4, 2)) - with_positions(values).roll(4, 2)
    assert float(difference.detach().abs().max()) > 1e-3


@pytest.mark.parametrize(("coarse", "fine", "stride"), [(64, 128, (1, 2)), (63, 126, (1, 2)), (64, 96, (2, 3))])
def test_the_same_function_at_another_resolution_gives_the_same_answer(coarse, fine, stride):
    """Inputs at the finer grid, frozen weights. What differs is aliasing of GELU, small on a smooth field."""
    torch.manual_seed(1)
    network = FNO(1, 1, modes=8, width=8, layers=2, coordinates=False).double()
    at_coarse, at_fine = network(band_limited(coarse)), network(band_limited(fine))
    difference = at_fine[..., :: stride[1], :: stride[1]] - at_coarse[..., :: stride[0], :: stride[0]]
    # measured below 1e-6 at 64 nodes; a spectrum shifted by one mode gives 0.1
    assert float(difference.detach().abs().max()) < 1e-5 * float(at_coarse.detach().abs().max())


@pytest.mark.parametrize("size", [12, 13])
def test_a_linear_network_is_exact_at_twice_the_resolution(size, monkeypatch):
    """Dossier check 1 through the whole network: with sigma = identity nothing aliases."""
    monkeypatch.setattr(F, "gelu", lambda values: values)
    monkeypatch.setattr(FourierBlock, "_plain", False)  # the fused form has its own
    monkeypatch.setattr("resolvent.operators._fourier.channel_mlp", channel_mlp_reference)
    torch.manual_seed(2)
    network = FNO(2, 2, modes=7, width=6, layers=3, coordinates=False).double()
    at_once, at_twice = network(band_limited(size, channels=2)), network(band_limited(2 * size, channels=2))
    torch.testing.assert_close(at_twice[..., ::2, ::2], at_once, rtol=0, atol=1e-12)


@pytest.mark.parametrize("dim", [1, 2, 3])
def test_every_dimension_keeps_shape_and_uses_every_parameter(dim):
    torch.manual_seed(3)
    network = FNO(2, 3, dim=dim, modes=4, width=6, layers=2, padding=0.2)
    outputs = network(torch.randn(2, 2, *(9, 8, 10)[:dim]))
    assert outputs.shape == (2, 3, *(9, 8, 10)[:dim])
    outputs.square().sum().backward()
    unused = [name for name, p in network.named_parameters() if p.grad is None or not bool(p.grad.abs().sum() > 0)]
    assert unused == []


def test_padding_keeps_the_periodic_box_at_every_resolution():
    """Nodes at both ends: 61 and 121 nodes with share 0.1 become 66 and 132, both 1.1 domains long."""
    network = FNO(1, 1, dim=1, modes=8, padding=0.1, placements=["ends"])
    for size, extended in ((61, 66), (121, 132)):
        assert network._extend(torch.zeros(1, 1, size), (size,)).shape[-1] == extended
    centred = FNO(1, 1, dim=1, modes=8, padding=0.1, placements=["centres"])
    assert centred._extend(torch.zeros(1, 1, 60), (60,)).shape[-1] == 66


def test_positions_follow_the_placement_of_nodes():
    found = positions((4, 5), ("left", "ends"), torch.float64, torch.device("cpu"))
    torch.testing.assert_close(found[0, :, 0], torch.tensor([0, 0.25, 0.5, 0.75], dtype=torch.float64))
    torch.testing.assert_close(found[1, 0], torch.tensor([0, 0.25, 0.5, 0.75, 1.0], dtype=torch.float64))
    centres = positions((2,), ("centres",), torch.float64, torch.device("cpu"))
    torch.testing.assert_close(centres[0], torch.tensor([0.25, 0.75], dtype=torch.float64))


@pytest.mark.parametrize("bias", [True, False])
def test_pointwise_map_is_the_one_by_one_convolution(bias):
    torch.manual_seed(4)
    linear = Pointwise(3, 5, bias=bias).double()
    values, plus = torch.randn(2, 3, 4, 6, dtype=torch.float64), torch.randn(2, 5, 4, 6, dtype=torch.float64)
    gate = torch.randn(5, dtype=torch.float64)
    plain = F.conv2d(values, linear.weight[:, :, None, None], linear.bias)
    for got, expected in (
        (linear(values), plain),
        (linear(values, plus), plain + plus),
        (linear(values, plus, gate), plain + gate[:, None, None] * plus),
    ):
        torch.testing.assert_close(got, expected, rtol=0, atol=1e-13)


SMALL = {"n_modes": (6, 8), "in_channels": 1, "out_channels": 1, "hidden_channels": 6, "n_layers": 2}
NEURALOP = {
    "1d": {"n_modes": (9,), "in_channels": 2, "out_channels": 1, "hidden_channels": 6},
    "2d": {"n_modes": (8, 10), "in_channels": 1, "out_channels": 2, "hidden_channels": 8},
    "2d odd modes": {"n_modes": (7, 7), "in_channels": 1, "out_channels": 1, "hidden_channels": 8, "n_layers": 2},
    "2d no positions": {
        "n_modes": (16, 16), "in_channels": 3, "out_channels": 1, "hidden_channels": 6,
        "positional_embedding": None, "lifting_channel_ratio": 3, "channel_mlp_expansion": 1,
    },
    "3d": {"n_modes": (4, 6, 4), "in_channels": 1, "out_channels": 1, "hidden_channels": 4, "n_layers": 2},
    "group norm": {**SMALL, "norm": "group_norm"},
    "instance norm": {**SMALL, "norm": "instance_norm"},
    "1d group norm": {**SMALL, "n_modes": (6,), "norm": "group_norm"},
    "3d instance norm": {**SMALL, "n_modes": (4, 4, 4), "norm": "instance_norm"},
    "preactivation": {**SMALL, "preactivation": True},
    "preactivation, group norm": {**SMALL, "preactivation": True, "norm": "group_norm"},
    "stabiliser": {**SMALL, "stabilizer": "tanh"},
    "stabiliser, preactivation": {**SMALL, "stabilizer": "tanh", "preactivation": True},
    "no channel mlp": {**SMALL, "use_channel_mlp": False},
    "no channel mlp, group norm": {**SMALL, "use_channel_mlp": False, "norm": "group_norm"},
    "no channel mlp, preactivation": {**SMALL, "use_channel_mlp": False, "preactivation": True},
    **{
        f"skips {f}, {c}": {**SMALL, "fno_skip": f, "channel_mlp_skip": c, **more}
        for f, c, more in (
            ("soft-gating", "linear", {}), ("identity", "identity", {}), ("linear", None, {}), (None, "soft-gating", {}),
            ("soft-gating", "linear", {"preactivation": True}), ("identity", None, {"norm": "group_norm"}),
        )
    },
    "padding": {**SMALL, "domain_padding": 0.125},
    "padding each, group norm": {**SMALL, "domain_padding": [0.25, 0.0], "norm": "group_norm"},
    "expansion 2": {**SMALL, "channel_mlp_expansion": 2},
}  # fmt: skip


@pytest.mark.parametrize("options", NEURALOP.values(), ids=NEURALOP.keys())
def test_neuraloperator_weights_read_and_written_give_equal_outputs(options):
    from neuralop.models import FNO as Theirs

    torch.manual_seed(5)
    theirs = Theirs(**options)
    for p in theirs.parameters():  # gates start at one, which would hide a swap
        p.data += 0.1 * torch.randn_like(p)
    values = torch.randn(2, options["in_channels"], *(16, 24, 9)[: len(options["n_modes"])])
    expected = theirs(values)
    ours = from_neuralop(theirs)
    # single precision through four layers, outputs of order one
    tolerance = 1e-5 * max(1.0, float(expected.detach().abs().max()))
    torch.testing.assert_close(ours(values), expected, rtol=0, atol=tolerance)

    back = Theirs(**neuralop_options(ours))
    back.load_state_dict(to_neuralop_state_dict(ours))
    torch.testing.assert_close(back(values), expected, rtol=0, atol=tolerance)
    assert count(back) == count(theirs) == count(ours)


def test_neuraloperator_state_dict_without_metadata_is_read():
    from neuralop.models import FNO as Theirs

    theirs = Theirs(n_modes=(6, 6), in_channels=1, out_channels=1, hidden_channels=4, n_layers=1)
    tensors = {name: value for name, value in theirs.state_dict().items() if isinstance(value, Tensor)}
    values = torch.randn(1, 1, 12, 12)
    torch.testing.assert_close(from_neuralop(tensors)(values), theirs(values), rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"norm": "batch_norm"}, "norm"),
        ({"channel_mlp_dropout": 0.1}, "dropout"),
        ({"non_linearity": F.relu}, "non_linearity"),
        ({"factorization": "tucker", "rank": 0.5}, "factorization"),
        ({"resolution_scaling_factor": 2}, "scaling"),
    ],
)
def test_neuraloperator_networks_of_another_kind_are_refused(options, named):
    from neuralop.models import FNO as Theirs

    theirs = Theirs(n_modes=(6, 6), in_channels=1, out_channels=1, hidden_channels=4, n_layers=1, **options)
    with pytest.raises(ValueError, match=named):
        from_neuralop(theirs)


def test_networks_that_neuraloperator_cannot_hold_are_refused():
    with pytest.raises(ValueError, match="legacy"):
        to_neuralop_state_dict(FNO(1, 1, modes=4, width=4, block="legacy"))
    for options in (
        {"placements": ["ends", "left"]},
        {"basis": ["fourier", "sine"]},
        {"norm": "adaptive"},
        {"bias_functions": 2},
    ):
        with pytest.raises(ValueError, match="holds modern blocks of Fourier waves"):
            to_neuralop_state_dict(FNO(1, 1, modes=4, width=4, **options))


def test_build_pads_walls_only():
    darcy, flow = Darcy(), NavierStokes()
    walls = build(darcy, darcy.grid(21), modes=8, width=4, layers=1)
    torus = build(flow, flow.grid(16), modes=8, width=4, layers=1)
    assert all(share > 0 for share in walls.network.padding)
    assert set(walls.network.placements) == {"ends"}
    assert torus.network.padding == (0.0, 0.0)


def test_modes_beyond_the_grid_are_refused_when_built_and_when_asked():
    flow = NavierStokes()
    with pytest.raises(ValueError, match=r"smallest grid that works has 20 nodes .* --model.modes 16"):
        build(flow, flow.grid(16), modes=20)
    with pytest.raises(ValueError, match=r"smallest grid that works has 32 nodes"):
        build(flow, flow.grid(24), modes=16, recipe=Recipe(coarsen=2))
    with pytest.raises(ValueError, match="a grid of"):
        FNO(1, 1, modes=8, width=4, layers=1)(torch.zeros(1, 1, 6, 6))
    with pytest.raises(ValueError, match="even modes"):
        FNO(1, 1, modes=7, block="legacy")


@pytest.mark.parametrize("key", PRESETS)
def test_presets_name_options_that_exist(key):
    entry = PRESETS[key]
    for problem in (NavierStokes(), NavierStokes(viscosity=1e-4)) if key[1] == "navier_stokes" else (Darcy(),):
        preset = entry(problem) if callable(entry) else entry
        grid = problem.grid(problem.setups[key[0]].resolution)
        solver = build(problem, grid, **preset.model, recipe=Recipe(**preset.train))
        assert solver.parameter_count > 0


# ---------------------------------------------------------------------- norms


def test_adaptive_norm_is_that_of_neuraloperator():
    """AdaIN: their one embedding for the whole batch is ours for each sample."""
    from neuralop.layers.normalization_layers import AdaIN

    torch.manual_seed(0)
    theirs, ours = AdaIN(3, 4).double(), FieldNorm(4, "adaptive", ["left"] * 2, conditions=3, hidden=512).double()
    assert ours.condition is not None
    ours.condition.load_state_dict(theirs.mlp.state_dict())
    values, embedding = torch.randn(2, 4, 6, 5, dtype=torch.float64), torch.randn(3, dtype=torch.float64)
    theirs.set_embedding(embedding)
    torch.testing.assert_close(ours(values, embedding.expand(2, 3)), theirs(values), rtol=0, atol=1e-13)
    each = torch.stack([embedding, -embedding])
    theirs.set_embedding(-embedding)
    torch.testing.assert_close(ours(values, each)[1:], theirs(values[1:]), rtol=0, atol=1e-13)


@pytest.mark.parametrize("kind", ["group", "instance"])
def test_averages_of_a_norm_are_those_of_the_function(kind):
    """v = exp(x): mean e - 1, mean square (e^2 - 1)/2. The trapezoidal rule is off by O(h^2), a plain mean by O(h)."""
    mean, square = math.e - 1, (math.e**2 - 1) / 2
    errors = []
    for size in (17, 33, 65):
        x = torch.linspace(0, 1, size, dtype=torch.float64)
        values = torch.stack([x.exp(), x.exp()])[None]
        exact = (values - mean) / math.sqrt(square - mean**2 + 1e-5)
        errors.append(float((FieldNorm(2, kind, ["ends"]).double()(values) - exact).detach().abs().max()))
    for coarse, fine in itertools.pairwise(errors):
        assert abs(math.log2(coarse / fine) - 2) < 0.05


def test_the_adaptive_norm_reads_mean_and_deviation_off_the_inputs():
    """A constant channel, as a scalar parameter is given, is known by its value at every resolution."""
    network = FNO(2, 1, modes=4, width=4, norm="adaptive", placements=["ends", "left"]).double()
    for size in (9, 17):
        x = torch.linspace(0, 1, size, dtype=torch.float64)[:, None].expand(size, 8)
        found = network._moments(torch.stack([torch.full_like(x, 3.5), x.square()])[None])
        expected = torch.tensor([[3.5, 1 / 3, 0.0, math.sqrt(1 / 5 - 1 / 9)]], dtype=torch.float64)
        # the trapezoidal rule is off by h^2 / 6 = 0.003 (a plain mean by 0.02), sqrt(eps) stands for 0
        torch.testing.assert_close(found, expected, rtol=0, atol=0.008)


def test_the_adaptive_norm_listens_to_a_scalar_and_starts_as_the_instance_norm():
    torch.manual_seed(0)
    options = {"modes": 4, "width": 6, "layers": 2, "coordinates": False}
    adaptive = FNO(1, 1, norm="adaptive", conditions=1, **options)
    values = torch.randn(2, 1, 12, 12)
    low, high = (adaptive(values, torch.full((2, 1), number)) for number in (-1.0, 1.0))
    assert float((low - high).detach().abs().max()) > 1e-4
    instance = FNO(1, 1, norm="instance", **options)
    instance.load_state_dict({k: v for k, v in adaptive.state_dict().items() if ".norms." not in k})
    with torch.no_grad():
        for block in adaptive.blocks:
            for norm in block.norms:
                norm.condition[2].weight.zero_()
    torch.testing.assert_close(adaptive(values, torch.ones(2, 1)), instance(values), rtol=0, atol=1e-6)


# ---------------------------------------------------------------------- walls and resolutions


def identity_activation(monkeypatch) -> None:
    monkeypatch.setattr(F, "gelu", lambda values: values)
    monkeypatch.setattr(FourierBlock, "_plain", False)  # the fused form has its own
    monkeypatch.setattr("resolvent.operators._fourier.channel_mlp", channel_mlp_reference)


def sizes_of(placement: str, size: int) -> tuple[tuple[int, int], ...]:
    """(nodes, stride to the coarsest) of three grids each twice as fine as the one before."""
    if placement == "ends":
        return tuple((2**i * (size - 1) + 1, 2**i) for i in range(3))
    return tuple((2**i * size, 2**i) for i in range(3))


@pytest.mark.parametrize("placement", ["left", "ends"])
@pytest.mark.parametrize("options", [{}, {"bias_functions": 2}, {"skip": "gate", "mlp_skip": "linear"}])
def test_the_linear_part_is_exact_at_one_two_and_four_times_the_resolution(placement, options, monkeypatch):
    """Band-limited inputs: Fourier waves on the torus, cosines between walls."""
    identity_activation(monkeypatch)
    torch.manual_seed(2)
    basis = "fourier" if placement == "left" else "cosine"
    network = FNO(
        1, 1, modes=7, width=5, layers=3, coordinates=False, placements=[placement] * 2, basis=basis, **options
    ).double()
    for name, parameter in network.named_parameters():
        if name.endswith("bias.weight"):
            torch.nn.init.normal_(parameter)
    answers = []
    for size, stride in sizes_of(placement, 12):
        x, y = positions((size, size), (placement,) * 2, torch.float64, torch.device("cpu"))
        waves = 2 * math.pi if placement == "left" else math.pi
        fields = torch.cos(waves * 2 * x) * torch.cos(waves * y) + 0.3
        answers.append(network(fields[None, None])[..., ::stride, ::stride])
    for finer in answers[1:]:
        torch.testing.assert_close(finer, answers[0], rtol=0, atol=1e-12)


# basis and placement -> observed order of the whole network, activations, norm, bias functions, padding and all
ORDERS = {
    "cosine ends": ("cosine", "ends", 0.0, 2),
    "cosine centres": ("cosine", "centres", 0.0, 2),
    "sine ends": ("sine", "ends", 0.0, 2),
    "alternate ends": ("alternate", "ends", 0.0, 2),
    "sine strided": ("sine", "left", 0.0, 2),
    "fourier padded ends": ("fourier", "ends", 0.25, 1),
    "fourier padded centres": ("fourier", "centres", 0.25, 2),
}


@pytest.mark.parametrize(("basis", "placement", "padding", "order"), ORDERS.values(), ids=ORDERS.keys())
def test_refining_the_grid_converges_at_the_stated_order(basis, placement, padding, order):
    """The input is a smooth function, fixed; answers on four grids, compared by the mean over the domain times y."""
    torch.manual_seed(3)
    network = FNO(
        1, 1, dim=1, modes=6, width=6, layers=2, placements=[placement], basis=basis, padding=padding,
        norm="group", bias_functions=2,
    ).double()  # fmt: skip
    for name, parameter in network.named_parameters():
        if name.endswith("bias.weight"):
            torch.nn.init.normal_(parameter)
    at = 0.25 + 0.5 * torch.linspace(0, 1, 5, dtype=torch.float64)
    answers = []
    for cells in (32, 64, 128, 256, 512):
        size = cells + (placement == "ends")
        x = along(size, size, placement, torch.float64, torch.device("cpu"))
        fields = torch.exp(x) * torch.sin(3 * x + 0.4)
        answers.append(interpolated(x, network(fields[None, None]).detach()[0, 0], at))
    gaps = [float((fine - coarse).abs().max()) for coarse, fine in itertools.pairwise(answers)]
    observed = [math.log2(a / b) for a, b in itertools.pairwise(gaps)]
    assert abs(observed[-1] - order) < 0.35, (observed, gaps)


def interpolated(x: Tensor, values: Tensor, at: Tensor) -> Tensor:
    """Cubic interpolation, of an order above those observed."""
    from scipy.interpolate import CubicSpline

    return torch.from_numpy(CubicSpline(x.numpy(), values.numpy())(at.numpy()))


@pytest.mark.parametrize("placement", ["ends", "centres"])
def test_sines_vanish_at_the_walls_and_cosines_have_no_slope_there(placement):
    """Up to the bias. Four waves, 64 cells of pi h k <= 0.2: extrapolated values to 0.02, first differences to 0.04."""
    torch.manual_seed(4)
    cells = 64
    values = torch.randn(1, 2, cells + (placement == "ends"), dtype=torch.float64)
    for words, vanishes in ((("sine", "sine-centres"), True), (("cosine-ends", "cosine"), False)):
        layer = SpectralConv(2, (4,), (words[placement == "centres"],)).double()
        answer = (layer(values) - layer.bias[:, None]).detach()
        size = float(answer.abs().max())
        for first, second in ((answer[..., 0], answer[..., 1]), (answer[..., -1], answer[..., -2])):
            wall = first if placement == "ends" else 1.5 * first - 0.5 * second
            assert (float(wall.abs().max()) < 0.02 * size) == vanishes
            assert vanishes or float((first - second).abs().max()) < 0.04 * size


def test_padding_behind_or_on_both_sides_is_the_same_operator():
    """A periodic box has no ends: rolling the extended field by any number of nodes commutes with every block."""
    torch.manual_seed(5)
    network = FNO(1, 1, modes=6, width=6, layers=2, padding=0.5, norm="group").double()
    fields = network._extend(network.lifting(torch.randn(1, 3, 12, 12, dtype=torch.float64)), (12, 12))
    behind, around = fields, fields.roll((3, 3), (2, 3))
    for block in network.blocks:
        behind, around = block(behind), block(around)
    torch.testing.assert_close(around.roll((-3, -3), (2, 3)), behind, rtol=0, atol=1e-12)


def test_a_built_network_has_one_box_on_grids_that_refine_each_other():
    """17 nodes, share 0.1: 2 of 16 cells, and 4 of 32, 8 of 64."""
    network = build(Darcy(), Darcy().grid(17), modes=8, width=4, layers=1).network
    assert network.padding == (0.125, 0.125)
    for cells in (16, 32, 64):
        extended = network._extend(torch.zeros(1, 4, cells + 1, cells + 1), (cells + 1, cells + 1))
        assert extended.shape[2:] == (cells * 9 // 8,) * 2


def test_bias_functions_are_functions_of_position():
    """Known coefficients give the known function on any grid; at first they are zero and change nothing."""
    bias = BiasFunction(1, 2, [True, False]).double()
    assert bias.weight.shape == (1, 5 * 3 - 1)
    with torch.no_grad():
        bias.weight[0, 3 * 3 + 1 - 1] = 1.0  # cos(4 pi x) cos(pi y): row 3 of 1 c1 s1 c2 s2, row 1 of 1 c1 c2
    for size in (8, 13):
        x, y = along(size, size, "left", torch.float64, torch.device("cpu")), torch.linspace(0, 1, 9).double()
        expected = 2 * torch.cos(4 * math.pi * x)[:, None] * torch.cos(math.pi * y)
        torch.testing.assert_close(bias([x, y])[0].detach(), expected, rtol=0, atol=1e-12)
    torch.manual_seed(0)
    with_functions = FNO(1, 1, modes=4, width=4, layers=2, bias_functions=2)
    torch.manual_seed(0)
    without = FNO(1, 1, modes=4, width=4, layers=2)
    values = torch.randn(1, 1, 8, 8)
    assert torch.equal(with_functions(values), without(values))


def test_words_of_the_command_line_become_waves_by_walls_and_nodes():
    darcy, grid = Darcy(), Darcy().grid(21)
    network = build(darcy, grid, modes=8, width=4, layers=3, basis="alternate").network
    words = [block.convolution.basis for block in network.blocks]
    assert words == [("sine",) * 2, ("cosine-ends",) * 2, ("sine",) * 2]
    assert network.blocks[0].convolution.weight.dtype == torch.float32
    assert set(build(darcy, grid, modes=8, width=4, basis="auto").network.basis) == {"alternate"}
    flow = NavierStokes()
    assert set(build(flow, flow.grid(16), modes=8, width=4, basis="sine").network.basis) == {"fourier"}
    neumann = Grid.box(12, dim=2, boundary="neumann", placement="centres")
    assert set(build(darcy, neumann, modes=8, width=4, basis="auto").network.basis) == {"cosine"}
    with pytest.raises(ValueError, match=r"more than the 19 .* smallest grid that works has 22 .* --model.modes 19"):
        build(darcy, grid, modes=20, basis="sine")


def test_a_strided_axis_has_its_wall_node_back():
    """0, 1/16, ..., 15/16 with a wall at 1: sines on 17 nodes, the same function at 32 nodes."""
    from dataclasses import replace

    axis = replace(Grid.box(16, boundary="dirichlet").axes[0], upper=15 / 16, boundary=("dirichlet", "outflow"))
    network = build(Burgers(), Grid((axis,)), modes=8, width=4, basis="auto").network
    assert network.placements == ("left",)
    assert network.basis == ("alternate",)
    assert network._extend(torch.zeros(1, 4, 16), (16,)).shape[-1] == 17


@pytest.mark.usefixtures("unchecked")
def test_exports_with_any_batch():
    network = FNO(1, 1, modes=6, width=4, layers=2, norm="group", bias_functions=1, padding=0.25).eval()
    values = torch.randn(3, 1, 12, 12)
    shapes = ({0: torch.export.Dim("batch")},)
    exported = torch.export.export(network, (values,), dynamic_shapes=shapes, strict=False).module()
    for count in (3, 5):
        values = torch.randn(count, 1, 12, 12)
        expected = network(values)
        torch.testing.assert_close(exported(values), expected, rtol=0, atol=1e-5)


def test_options_that_do_not_fit_are_refused():
    for options in ({"padding": -0.1}, {"bias_functions": -1}, {"basis": ["sine"]}, {"layers": 0}):
        with pytest.raises(ValueError, match="FNO needs"):
            FNO(1, 1, modes=4, width=4, **options)
