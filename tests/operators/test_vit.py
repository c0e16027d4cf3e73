"""Attention as a quadrature, patches with a length, and the transformer made of them: any grid, one operator."""

from __future__ import annotations

import math
import subprocess
import sys
from itertools import pairwise

import pytest
import torch
from resolvent.operators._attention import SelfAttention, attend, measure_or_none
from resolvent.operators._local import Patchwork, blend, moments, positions, tiles, tiles_of_length
from resolvent.operators.vit import ViT, build
from resolvent.pde import Grid
from resolvent.pde._grid import Axis
from resolvent.pde.burgers import Burgers
from resolvent.pde.darcy import Darcy
from resolvent.pde.navier_stokes import NavierStokes
from resolvent.training import Recipe
from torch import Tensor

KINDS = {
    "periodic": lambda n: Axis("x", n, 0.0, 3.0),
    "walls": lambda n: Axis("x", n, 0.0, 3.0, ("dirichlet", "dirichlet"), "ends"),
    "cells": lambda n: Axis("x", n, 0.0, 3.0, ("neumann", "neumann"), "centres"),
}
UNEVEN = (0.0, 0.3, 0.45, 1.0)


def fields(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def network(grid: Grid, **options) -> ViT:
    torch.manual_seed(0)
    small = {"patch": 0.25, "width": 8, "layers": 2, "heads": 2, "hidden": 16, "channels": 4, "degrees": 3}
    return ViT(1, 2, grid, **{**small, **options}).double().eval()


# ---------------------------------------------------------------------- attention


def test_attention_is_the_quotient_of_the_formula():
    q, k, v, w = fields(2, 3, 5, 4), fields(2, 3, 7, 4, seed=2), fields(2, 3, 7, 6, seed=3), fields(7, seed=4).exp()
    weights = torch.exp(0.3 * torch.einsum("bhtc,bhpc->bhtp", q, k)) * w
    expected = (weights / weights.sum(-1, keepdim=True)) @ v
    torch.testing.assert_close(attend(q, k, v, w, scale=0.3), expected, rtol=1e-12, atol=1e-12)
    plain = torch.softmax(0.3 * torch.einsum("bhtc,bhpc->bhtp", q, k), dim=-1) @ v
    torch.testing.assert_close(attend(q, k, v, scale=0.3), plain, rtol=1e-12, atol=1e-12)


def test_a_point_split_in_two_halves_changes_nothing():
    q, k, v, w = fields(1, 2, 5, 4), fields(1, 2, 6, 4, seed=2), fields(1, 2, 6, 4, seed=3), fields(6, seed=4).exp()
    twice = [0, 1, 2, 2, 3, 4, 5]
    halved = w[twice].clone()
    halved[2:4] /= 2
    torch.testing.assert_close(
        attend(q, k[:, :, twice], v[:, :, twice], halved), attend(q, k, v, w), rtol=1e-13, atol=1e-13
    )
    drifted = attend(q, k[:, :, twice], v[:, :, twice])
    assert float((drifted - attend(q, k, v)).abs().max()) > 1e-2, "without measures the softmax drifts"


@pytest.mark.parametrize("spread", [1.0, 1.7], ids=["even", "uneven"])
def test_attention_over_points_converges_to_the_integral_with_order_two(spread):
    """Trapezoidal measures; uneven points are the even ones to a power. The integral by a rule of 20000 points."""

    def answer(n: int) -> Tensor:
        x = torch.linspace(0, 1, n, dtype=torch.float64) ** spread
        gaps = x.diff()
        measure = torch.cat([gaps[:1], gaps[1:] + gaps[:-1], gaps[-1:]]) / 2
        key = torch.stack([torch.sin(3 * x), torch.cos(x)], dim=-1)[None]
        query = torch.tensor([[[1.0, -2.0]]], dtype=torch.float64)
        return attend(query, key, x.exp()[None, :, None], measure).flatten()

    exact = answer(20001)
    errors = [float((answer(n) - exact).abs()) for n in (17, 33, 65)]
    orders = [math.log2(a / b) for a, b in zip(errors, errors[1:], strict=False)]
    assert all(abs(order - 2) < 0.15 for order in orders), orders  # h is halved; the next term is of order 4


def test_equal_measures_are_left_out_and_give_the_same():
    torch.manual_seed(0)
    layer, tokens = SelfAttention(8, 2).double(), fields(2, 5, 8)
    equal = torch.full((5,), 0.2, dtype=torch.float64)
    torch.testing.assert_close(layer(tokens, equal), layer(tokens), rtol=1e-12, atol=1e-12)
    assert measure_or_none(equal) is None
    assert measure_or_none(torch.tensor([0.2, 0.3])) is not None


# ---------------------------------------------------------------------- patches


@pytest.mark.parametrize("edges", [tiles(4), UNEVEN], ids=["even", "uneven"])
@pytest.mark.parametrize("kind", KINDS)
def test_moments_of_a_line_are_exact_wherever_the_edges_lie(kind, edges):
    """A line is its own interpolant: mean a + b x_t, first moment b |p_t| / (2 sqrt 3), all higher ones zero."""
    axis = KINDS[kind](11)
    x = (axis.coordinates() - axis.lower) / axis.length
    found = (moments(axis, edges, 3) @ (0.7 - 2.0 * x)).reshape(-1, 3)
    e = torch.tensor(edges, dtype=torch.float64)
    inside = slice(None, -1) if kind == "periodic" else slice(None)  # the last patch holds the jump across the ends
    centre, width = 0.5 * (e[1:] + e[:-1]), e.diff()
    expected = torch.stack([0.7 - 2 * centre, -2 * width / (2 * math.sqrt(3)), torch.zeros_like(width)], dim=-1)
    torch.testing.assert_close(found[inside], expected[inside], rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("kind", KINDS)
def test_moments_converge_with_order_two_and_count_the_whole_domain(kind):
    def found(n: int) -> Tensor:
        axis = KINDS[kind](n)
        x = (axis.coordinates() - axis.lower) / axis.length
        return moments(axis, UNEVEN, 3) @ torch.cos(2 * math.pi * x + 0.4)

    sizes = [2 * n - (kind == "walls") for n in (32, 64, 128)]
    errors = [float((found(n) - found(4097)).abs().max()) for n in sizes]
    orders = [math.log2(a / b) for a, b in zip(errors, errors[1:], strict=False)]
    assert min(orders) > 1.8, orders  # edges move through the cells, so the constant of h^2 varies
    axis = KINDS[kind](9)
    means = moments(axis, UNEVEN, 1) @ axis.weights() ** 0
    torch.testing.assert_close(means, torch.ones(3, dtype=torch.float64))


@pytest.mark.parametrize("edges", [tiles(1), tiles(2), tiles(5), UNEVEN], ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_blended_constants_are_constant_and_blends_are_functions(kind, edges):
    """The hats sum to one; what is evaluated on a fine grid agrees with a coarse one at their common nodes."""
    one = torch.zeros(len(edges) - 1, 3, dtype=torch.float64)
    one[:, 0] = 1
    axis = KINDS[kind](12)
    ones = torch.ones(12, dtype=torch.float64)
    torch.testing.assert_close(blend(axis, edges, 3) @ one.flatten(), ones, rtol=1e-12, atol=1e-12)
    coefficients = fields(3 * (len(edges) - 1))
    thrice = KINDS[kind]({"periodic": 36, "walls": 34, "cells": 36}[kind])
    step = slice(1, None, 3) if kind == "cells" else slice(None, None, 3)
    fine = (blend(thrice, edges, 3) @ coefficients)[step]
    torch.testing.assert_close(fine, blend(axis, edges, 3) @ coefficients, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_the_first_patch_reaches_the_last_nodes_on_a_torus_only(kind):
    """Behind the outermost centre, 0.9, patches other than the last have a say where the axis closes, else none."""
    far = blend(KINDS[kind](40), tiles(5), 2)[-2:].reshape(2, 5, 2).abs().sum(dim=(0, 2))
    assert bool(far[4] > 0) and not bool(far[1:4].any())  # noqa: PT018
    assert bool(far[0] > 0) == (kind == "periodic")


def test_blended_functions_are_continuous_across_the_period():
    edges, n = UNEVEN, 1000
    values = blend(KINDS["periodic"](n), edges, 3) @ fields(9)
    jumps = (values - values.roll(1)).abs()
    assert float(jumps[0]) < 3 * float(jumps.median()) + 0.05  # steep but without a jump of O(1)


def test_patches_have_the_length_asked_for_and_measure_the_domain():
    grid = Grid((Axis("x", 20, 0.0, 2.0), Axis("y", 11, 0.0, 1.0, ("neumann", "neumann"), "centres")))
    edges = tiles_of_length(0.3, grid)
    assert [len(e) - 1 for e in edges] == [7, 4]
    lengths = [(b - a) * axis.length for axis, e in zip(grid.axes, edges, strict=True) for a, b in pairwise(e)]
    assert lengths == pytest.approx([0.3] * 6 + [0.2] + [0.3] * 3 + [0.1])
    measure = Patchwork(grid, edges, 1).measures()
    assert float(measure.sum()) == pytest.approx(1.0)
    assert float(measure[0]) == pytest.approx(0.09 / 2)
    assert float(measure[-1]) == pytest.approx(0.02 / 2)


def test_positions_are_continuous_across_the_period():
    (cos, sin) = positions(Grid.box(8, dim=1))
    torch.testing.assert_close(cos.square() + sin.square(), torch.ones(8, dtype=torch.float64))
    (line,) = positions(Grid.box(5, dim=1, boundary="dirichlet"))
    assert line.tolist() == [-1.0, -0.5, 0.0, 0.5, 1.0]


# ---------------------------------------------------------------------- the network

GRIDS = {
    "circle": lambda n: Grid.box(n, dim=1),
    "square": lambda n: Grid.box(n + 1, dim=2, boundary="dirichlet"),
    "uneven": lambda n: Grid.box((n, 2 * n), upper=(1.0, 1.9)),
    "box": lambda n: Grid.box(n // 2 + 1, dim=3, boundary="neumann"),
}


def smooth(grid: Grid) -> Tensor:
    """Three waves, periodic where the grid is and odd at no wall in particular."""
    mesh = grid.mesh()
    waves = [torch.sin(2 * math.pi * (1 + i % 2) * x / grid.lengths[i] + i) for i, x in enumerate(mesh)]
    return torch.stack(waves).sum(dim=0)[None, None]


@pytest.mark.parametrize("name", GRIDS)
def test_answers_converge_with_order_two(name):
    """The input is one function; answers on n, 2 n, 4 n intervals are compared at the nodes of the first."""
    make, n = GRIDS[name], 16 if name != "box" else 12
    vit = network(make(n))
    with torch.no_grad():
        coarse, middle, fine = (vit(smooth(make(k * n))) for k in (1, 2, 4))
    first = (coarse - middle[(..., *[slice(None, None, 2)] * make(n).dim)]).norm()
    second = (middle - fine[(..., *[slice(None, None, 2)] * make(n).dim)])[
        (..., *[slice(None, None, 2)] * make(n).dim)
    ].norm()
    order = math.log2(float(first / second))
    assert abs(order - 2) < 0.25, order
    assert float(first / coarse.norm()) < 0.05


def test_every_weight_is_used_and_uneven_patches_change_the_attention():
    grid = GRIDS["uneven"](8)
    vit = network(grid)
    assert vit.uneven
    outputs = vit(fields(2, 1, *grid.shape))
    assert outputs.shape == (2, 2, *grid.shape)
    outputs.square().sum().backward()
    assert [name for name, p in vit.named_parameters() if p.grad is None or not bool(p.grad.abs().sum() > 0)] == []
    before = outputs.detach()
    vit.uneven = False
    assert float((vit(fields(2, 1, *grid.shape)).detach() - before).abs().max()) > 1e-6


def test_tokens_and_fields_are_each_others_inverse():
    vit = network(Grid.box((8, 12), upper=(1.0, 2.0)))
    tokens = fields(3, math.prod(vit.patches.counts), vit.embed.in_features)
    torch.testing.assert_close(vit._tokens(vit._fields(tokens)), tokens, rtol=0, atol=0)


def test_weights_move_to_another_grid_and_serve_it_alike():
    darcy = Darcy()
    solver = build(darcy, darcy.grid(17), width=8, layers=1, channels=4)
    other = build(darcy, darcy.grid(33), width=8, layers=1, channels=4)
    other.restore(solver.state())
    values = darcy.sample(2, darcy.grid(33), generator=torch.Generator().manual_seed(0)).float()
    with torch.no_grad():  # single precision matrices on one side, cast double ones on the other
        torch.testing.assert_close(solver(values, darcy.grid(33)), other(values, darcy.grid(33)), rtol=1e-5, atol=1e-5)


def test_rollouts_serve_another_grid_and_several_steps():
    flow = Burgers()
    solver = build(flow, flow.grid(32), width=8, layers=1, channels=4)
    state = flow.sample(2, flow.grid(48), generator=torch.Generator().manual_seed(0)).float()
    times = flow.signature.times
    with torch.no_grad():
        answer = solver(state, flow.grid(48), times)
        by_hand = state
        for _ in times:
            by_hand = solver._map(by_hand)
    assert answer.shape == (2, len(times), 1, 48)
    torch.testing.assert_close(answer[:, -1], by_hand)


def test_a_grid_too_small_is_refused_with_the_smallest_that_works():
    darcy, flow = Darcy(), NavierStokes()
    with pytest.raises(ValueError, match=r"smallest grid that works has \(32, 32\)"):
        build(darcy, darcy.grid(17), patch=1 / 16)
    build(darcy, darcy.grid(32), patch=1 / 16, width=8, layers=1)
    with pytest.raises(ValueError, match=r"smallest grid that works has \(64, 64\)"):
        build(flow, flow.grid(32), patch=1 / 16, recipe=Recipe(coarsen=2))
    with pytest.raises(ValueError, match="use a width of 8"):
        build(darcy, darcy.grid(32), width=10, heads=4)
    with pytest.raises(ValueError, match=r"patch in \(0, 1\]"):
        build(darcy, darcy.grid(32), patch=0.0)


COMPILED = """
import torch
from resolvent.operators import lsm, vit
from resolvent.pde.burgers import Burgers
torch.set_num_threads(1)
problem = Burgers()
grid = problem.grid(16)
for name, solver in (
    ("vit", vit.build(problem, grid, width=8, layers=1, channels=4)),
    ("lsm", lsm.build(problem, grid, width=8, scales=2)),
    ("published lsm", lsm.build(problem, grid, width=8, scales=2, form="published")),
):
    network = solver.network.eval()
    inputs = torch.randn(3, 1, 16)
    expected = network(inputs)
    compiled = torch.compile(network, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(inputs), expected, rtol=1e-4, atol=1e-5)
    batch = torch.export.Dim("batch", min=1, max=1024)
    program = torch.export.export(network, (inputs,), dynamic_shapes=({0: batch},), strict=False)
    more = torch.randn(5, 1, 16)
    torch.testing.assert_close(program.module()(more), network(more), rtol=1e-4, atol=1e-5)
    print(name)
"""


@pytest.mark.slow
def test_compiled_and_exported_networks_answer_alike_with_any_batch():
    """In a process of its own, without the shape checker, which no compiler can follow."""
    told = subprocess.run([sys.executable, "-c", COMPILED], capture_output=True, text=True, timeout=300, check=False)
    assert told.stdout.split("\n") == ["vit", "lsm", "published lsm", ""], told.stderr[-2000:]
