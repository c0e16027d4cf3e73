"""The latent spectral model: its published checks, its two forms, any dimension."""

from __future__ import annotations

import math

import pytest
import torch
from resolvent.operators._neural_spectral import (
    DoubleConv,
    NeuralSpectralBlock,
    Pyramid,
    SpectralProcessor,
    joined,
    scale_widths,
    split,
)
from resolvent.operators.lsm import LSM, PRESETS, build, patches_for, sides_for, smallest_size
from resolvent.pde import Grid
from resolvent.pde._grid import Axis
from resolvent.pde.burgers import Burgers
from resolvent.pde.darcy import Darcy
from resolvent.pde.navier_stokes import NavierStokes
from resolvent.training import Recipe
from torch import Tensor


def fields(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def block(width: int = 16, **options) -> NeuralSpectralBlock:
    torch.manual_seed(0)
    return NeuralSpectralBlock(width, **{"patch": (3, 2), "tokens": 4, "basis": 5, "heads": 8, **options}).double()


def network(grid: Grid, **options) -> LSM:
    torch.manual_seed(0)
    small = {"width": 8, "scales": 3, "tokens": 2, "basis": 3, "heads": 4, "patch": (2,) * grid.dim, "norm": "group"}
    return LSM(1, 2, grid, **{**small, **options}).double().eval()


def square(n: int) -> Grid:
    return Grid.box(n, dim=2, boundary="dirichlet")


# ---------------------------------------------------------------------- the processor (checks 1, 2, 4)


def test_the_processor_is_the_series_of_the_formula_in_the_values():
    """Angles pi k x / N with k = 0 ... N-1, one set of weights a channel, each point by itself."""
    processor = SpectralProcessor(3, 4).double()
    values = fields(2, 5, 3)
    expected = values.clone()
    for c in range(3):
        for k in range(4):
            angle = math.pi * k * values[..., c] / 4
            a, b = processor.weight[c, k], processor.weight[c, 4 + k]
            expected[..., c] = expected[..., c] + (a * angle.sin() + b * angle.cos()).detach()
    torch.testing.assert_close(processor(values).detach(), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("k", range(5))
def test_wave_k_has_the_period_two_n_over_k_in_the_value(k):
    """Not 2 pi k x: what is added to x repeats after 2 N / k and after nothing shorter; k = 0 is a constant."""
    processor = SpectralProcessor(1, 5).double()
    with torch.no_grad():
        processor.weight.zero_()
        processor.weight[0, k] = processor.weight[0, 5 + k] = 1.0
    values = fields(50, 1)

    def added(x: Tensor) -> Tensor:
        return (processor(x) - x).detach()

    if k == 0:
        torch.testing.assert_close(added(values), torch.ones(50, 1, dtype=torch.float64), rtol=0, atol=1e-14)
        return
    torch.testing.assert_close(added(values + 10 / k), added(values), rtol=0, atol=1e-13)
    torch.testing.assert_close(added(values + 5 / k), -added(values), rtol=0, atol=1e-13)


def test_the_processor_has_w_times_2n_parameters_a_scale():
    """The published Darcy network: width 64, 12 basis pairs, widths 64, 128, 256, 512, 512."""
    assert scale_widths(64, 5) == [64, 128, 256, 512, 512]
    assert [sum(p.numel() for p in SpectralProcessor(w, 12).parameters()) for w in scale_widths(64, 5)] == [
        64 * 24,
        128 * 24,
        256 * 24,
        512 * 24,
        512 * 24,
    ]
    initial = SpectralProcessor(64, 12).weight.detach()
    assert 0 <= float(initial.min()) < float(initial.max()) <= 1 / 64


def test_zero_weights_make_the_processor_and_the_block_the_identity():
    processor = SpectralProcessor(4, 3).double()
    with torch.no_grad():
        processor.weight.zero_()
    assert torch.equal(processor(fields(2, 4)), fields(2, 4))
    nsb = block()
    values = fields(2, 16, 9, 4)
    assert float((nsb(values) - values).detach().abs().max()) > 1e-3
    with torch.no_grad():
        for weight in (nsb.tokens, nsb.value.weight, nsb.value.bias, nsb.processor.weight):
            weight.zero_()
    torch.testing.assert_close(nsb(values).detach(), values, rtol=0, atol=0)


# ---------------------------------------------------------------------- the block (check 3)


def test_the_block_is_the_formula_with_unscaled_attention():
    """One patch, by loops over heads: softmax of plain inner products, keys and values of the decoder are the tokens."""
    nsb = block(patch=(3, 2))
    values = fields(1, 16, 3, 2)
    v = values.flatten(2)[0].t()  # point channel
    key, value, query = (layer(v).unflatten(1, (8, 2)) for layer in (nsb.key, nsb.value, nsb.query))
    latent = torch.empty(4, 8, 2, dtype=torch.float64)
    for h in range(8):
        latent[:, h] = nsb.tokens[h] + torch.softmax(nsb.tokens[h] @ key[:, h].t(), dim=-1) @ value[:, h]
    latent = nsb.processor(latent.flatten(1)).unflatten(1, (8, 2))
    answers = [torch.softmax(query[:, h] @ latent[:, h].t(), dim=-1) @ latent[:, h] for h in range(8)]
    expected = v + torch.cat(answers, dim=1)
    got = nsb(values).flatten(2)[0].t()
    torch.testing.assert_close(got, expected, rtol=1e-12, atol=1e-12)


def test_points_of_a_patch_may_be_permuted_and_patches_do_not_meet():
    nsb = block()
    points = split(fields(2, 16, 9, 4), (3, 2))

    def act(points: Tensor) -> Tensor:
        latent = nsb._merge(nsb.encode(points))
        return nsb.decode(points, nsb.processor(latent)).detach()

    order = torch.randperm(6, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(act(points[:, :, order]), act(points)[:, :, order], rtol=1e-12, atol=1e-12)
    changed = points.clone()
    changed[:, 2] += 1
    same = [i for i in range(6) if i != 2]
    torch.testing.assert_close(act(changed)[:, same], act(points)[:, same], rtol=0, atol=1e-14)
    assert float((act(changed)[:, 2] - act(points)[:, 2]).abs().max()) > 1e-3


@pytest.mark.parametrize("patch", [(4,), (3, 2), (2, 1, 3)], ids=str)
def test_patches_are_blocks_and_come_back(patch):
    values = fields(2, 3, *(2 * p for p in patch))
    points = split(values, patch)
    assert points.shape == (2, 2 ** len(patch), math.prod(patch), 3)
    first = values[(0, 0, *(slice(p) for p in patch))]
    assert torch.equal(points[0, 0, :, 0], first.flatten())
    assert torch.equal(joined(points, patch, values.shape[2:]), values)


# ---------------------------------------------------------------------- the pyramid and the two forms


def test_the_published_parameter_count_follows_from_the_published_widths():
    """Convolutions without bias with two norm parameters a channel; a block: tokens, three maps, the processor."""
    w, tokens, basis = 64, 4, 12

    def double(c_in: int, middle: int, c_out: int) -> int:
        return 9 * c_in * middle + 2 * middle + 9 * middle * c_out + 2 * c_out

    def nsb(c: int) -> int:
        return c * tokens + (c * 2 * c + 2 * c) + (c * c + c) + 2 * basis * c

    down = double(w, w, w) + double(w, 2 * w, 2 * w) + double(2 * w, 4 * w, 4 * w)
    down += double(4 * w, 8 * w, 8 * w) + double(8 * w, 8 * w, 8 * w)
    up = double(16 * w, 8 * w, 4 * w) + double(8 * w, 4 * w, 2 * w) + double(4 * w, 2 * w, w) + double(2 * w, w, w)
    blocks = sum(nsb(c) for c in (w, 2 * w, 4 * w, 8 * w, 8 * w))
    ends = (3 * w + w) + (w * w + w) + (w * 128 + 128) + (128 + 1)
    darcy = Darcy()
    solver = build(darcy, darcy.grid(85), **PRESETS["paper", "darcy"].model)
    assert solver.parameter_count == down + up + blocks + ends
    assert solver.network.frame.sides == (96, 96)
    norms = [m for m in solver.network.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    assert len(norms) == 18


@pytest.mark.parametrize(
    ("shape", "patch", "side"),
    [
        ((85, 85), (6, 6), (96, 96)),
        ((129, 129), (9, 9), (144, 144)),
        ((64, 64), (4, 4), (64, 64)),
        ((41, 41), (3, 3), (48, 48)),
        ((221, 51), (14, 4), (224, 64)),
        ((211, 211), (14, 14), (224, 224)),
    ],
    ids=str,
)
def test_padding_is_computed_as_published(shape, patch, side):
    """Of the published table: the padded side is 16 patches, so that the coarsest scale is one patch."""
    grid = Grid.box(shape, boundary="dirichlet")
    assert patches_for(grid, 5, 0, "published") == patch
    assert sides_for(grid, 5, patch, "published") == side
    assert sides_for(grid, 5, (3, 3), "published") == tuple(48 * math.ceil(n / 48) for n in shape)


def test_the_physical_form_counts_intervals():
    assert patches_for(square(65), 5, 0, "physical") == (4, 4)
    assert patches_for(Grid.box(64, dim=2), 5, 0, "physical") == (4, 4)
    assert patches_for(square(65), 5, 0, "published") == (5, 5)


def test_the_published_network_pads_behind_and_crops():
    """What the pyramid sees beyond the nodes is zero, whatever came in; answers have the nodes' shape."""
    lsm = network(Grid.box((13, 9), boundary="dirichlet"), form="published", patch=(2, 3), norm="batch")
    inner = lsm.frame.enter(fields(2, 8, 13, 9))
    assert inner.shape == (2, 8, 16, 12)
    assert not bool(inner[..., 13:, :].any()) and not bool(inner[..., 9:].any())  # noqa: PT018
    assert lsm(fields(2, 1, 13, 9)).shape == (2, 2, 13, 9)
    placed = lsm.frame.place(fields(1, 1, 13, 9))
    torch.testing.assert_close(placed[0, 1, :, 4], torch.linspace(0, 1, 13, dtype=torch.float64), rtol=1e-6, atol=0)


GRIDS = {
    "circle": lambda n: Grid.box(n, dim=1),
    "walls": lambda n: square(n + 1),
    "mixed": lambda n: Grid((Axis("x", n), Axis("y", n, 0.0, 1.0, ("neumann", "neumann"), "centres"))),
    "box": lambda n: Grid.box(n + 1, dim=3, boundary="neumann"),
}


@pytest.mark.parametrize("form", ["physical", "published"])
@pytest.mark.parametrize("name", GRIDS)
def test_every_dimension_and_boundary_uses_every_weight(name, form):
    grid = GRIDS[name](8)
    lsm = network(grid, form=form, scales=2, norm="batch" if form == "published" else "group").train()
    outputs = lsm(fields(2, 1, *grid.shape))
    assert outputs.shape == (2, 2, *grid.shape)
    outputs.square().sum().backward()
    assert [n for n, p in lsm.named_parameters() if p.grad is None or not bool(p.grad.abs().sum() > 0)] == []


def test_a_single_cell_on_the_coarsest_scale_has_its_mirror_image_at_a_neumann_wall():
    """Mirrored at the face beside it a cell is its own neighbour; mirrored at its centre it would need another."""
    grid = Grid.box(5, dim=2, boundary="neumann")
    lsm = network(grid, patch=(1, 1))
    assert lsm.frame.cells.counts == (4, 4)
    assert bool(torch.isfinite(lsm(fields(1, 1, 5, 5))).all())


def smooth(grid: Grid) -> Tensor:
    waves = [torch.sin(2 * math.pi * (1 + i % 2) * x / grid.lengths[i] + i) for i, x in enumerate(grid.mesh())]
    return torch.stack(waves).sum(dim=0)[None, None]


@pytest.mark.parametrize("name", ["circle", "walls", "box"])
def test_answers_of_the_physical_form_converge_with_order_two(name):
    """The input is one function; answers on n, 2 n, 4 n intervals are compared at the nodes of the first."""
    make, n = GRIDS[name], 32 if name != "box" else 12
    lsm, half = network(make(n)), (..., *[slice(None, None, 2)] * make(n).dim)
    with torch.no_grad():
        coarse, middle, fine = (lsm(smooth(make(k * n))) for k in (1, 2, 4))
    first, second = (coarse - middle[half]).norm(), (middle - fine[half])[half].norm()
    assert abs(math.log2(float(first / second)) - 2) < 0.35  # maxima and ReLU have kinks that the cells may cross
    assert float(first / coarse.norm()) < 0.05


def test_on_the_torus_the_physical_form_commutes_with_shifts_by_its_coarsest_cells():
    """Without positions: a quarter of the period is one patch of the coarsest of three scales of 4 cells."""
    grid = Grid.box(32, dim=2)
    lsm = network(grid, scales=3, patch=(2, 2))
    with torch.no_grad():
        lsm.lift.weight[:, 1:] = 0
    assert lsm.frame.cells.counts == (32, 32)
    values = fields(1, 1, 32, 32)
    torch.testing.assert_close(lsm(values.roll(8, 2)), lsm(values).roll(8, 2), rtol=0, atol=1e-10)
    assert float((lsm(values.roll(1, 2)) - lsm(values).roll(1, 2)).detach().abs().max()) > 1e-6


def test_raising_a_line_gives_the_line_between_cells_and_corners_as_published():
    grid = square(9)
    cells, corners = (network(grid, form=form).pyramid._raise for form in ("physical", "published"))
    line = torch.arange(4, dtype=torch.float64)[None, None, :, None].expand(1, 1, 4, 4).contiguous()
    expected = torch.tensor([0.0, 0.25, 0.75, 1.25, 1.75, 2.25, 2.75, 3.0], dtype=torch.float64)
    torch.testing.assert_close(cells(line)[0, 0, :, 3], expected)
    torch.testing.assert_close(corners(line)[0, 0, :, 3], torch.linspace(0, 3, 8, dtype=torch.float64))


def test_only_the_norm_knows_the_batch():
    """Batch norm answers a sample differently in other company while it trains; group norm never does."""
    values = fields(4, 3, 8, 8)
    torch.manual_seed(0)
    for norm, same in (("batch", False), ("group", True)):
        conv = DoubleConv(3, 4, 4, padding=("zeros", "zeros"), norm=norm).double().train()
        assert torch.allclose(conv(values[:1]), conv(values)[:1], atol=1e-12) is same


# ---------------------------------------------------------------------- build


def test_rollouts_serve_another_grid_in_the_physical_form_only():
    flow = Burgers()
    state = flow.sample(2, flow.grid(48), generator=torch.Generator().manual_seed(0)).float()
    solver = build(flow, flow.grid(32), width=8, scales=3)
    with torch.no_grad():
        assert solver(state, flow.grid(48)).shape == (2, len(flow.signature.times), 1, 48)
    published = build(flow, flow.grid(32), width=8, scales=3, form="published")
    with pytest.raises(ValueError, match="trained on a grid of shape"):
        published(state, flow.grid(48))


def test_a_grid_too_small_is_refused_with_the_smallest_that_works():
    darcy, flow = Darcy(), NavierStokes()
    assert smallest_size(5, 0) == 16
    for patch, smallest in ((0, 16), (1, 16), (6, 48)):
        with pytest.raises(ValueError, match=f"smallest grid that works has {smallest}"):
            build(darcy, darcy.grid(smallest - 1), width=8, patch=patch)
        build(darcy, darcy.grid(smallest), width=8, patch=patch)
    with pytest.raises(ValueError, match="smallest grid that works has 32"):
        build(flow, flow.grid(30), width=8, recipe=Recipe(coarsen=2))
    with pytest.raises(ValueError, match="use a width of 16"):
        build(darcy, darcy.grid(32), width=12)
    with pytest.raises(ValueError, match="tokens and basis"):
        build(darcy, darcy.grid(32), width=8, basis=0)
    with pytest.raises(ValueError, match="scales of at least 1"):
        build(darcy, darcy.grid(32), width=8, scales=0)


@pytest.mark.parametrize("form", ["physical", "published"])
def test_the_norm_is_the_published_one_unless_it_is_said(form):
    darcy = Darcy()
    for norm, kind in (({}, torch.nn.BatchNorm2d), ({"norm": "group"}, torch.nn.GroupNorm)):
        solver = build(darcy, darcy.grid(17), width=8, scales=3, form=form, **norm)
        norms = [m for m in solver.network.modules() if isinstance(m, (torch.nn.BatchNorm2d, torch.nn.GroupNorm))]
        assert len(norms) == 10
        assert all(isinstance(m, kind) for m in norms)


def test_one_scale_has_no_pyramid():
    pyramid = Pyramid(
        8, scales=1, padding=("zeros",), norm="group", patch=(4,), tokens=2, basis=3, heads=4, corners=False
    ).double()
    assert len(pyramid.up) == 0
    assert pyramid(fields(2, 8, 8)).shape == (2, 8, 8)
