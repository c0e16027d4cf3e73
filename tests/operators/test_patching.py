"""Multi-grid patches: cut and put together exactly, one point on every level, the boundary as the equation has it."""

from __future__ import annotations

import itertools
import math
from fractions import Fraction

import pytest
import torch
from resolvent.operators._patching import Patching, edges_of, patching_of
from resolvent.pde import Axis, Grid
from torch import Tensor
from torch.nn import functional as F

PERIODIC, REFLECT, ZERO, LAST = (("periodic",) * 2, ("reflect",) * 2, ("zero",) * 2, ("replicate",) * 2)
# edges and placement of every kind of axis, walls of two kinds among them
KINDS = {
    "periodic": (PERIODIC, "left"),
    "reflect at nodes": (REFLECT, "ends"),
    "reflect at centres": (REFLECT, "centres"),
    "zero": (ZERO, "ends"),
    "last": (LAST, "centres"),
    "mixed": (("zero", "reflect"), "ends"),
}


def patching(levels: int, space: tuple[int, ...], kind: str, margin: int, **options) -> Patching:
    edges, placement = KINDS[kind]
    cells = [n - (placement == "ends") for n in space]
    shares = tuple(Fraction(margin, n) for n in cells)
    return Patching(levels, shares, (edges,) * len(space), (placement,) * len(space), **options)


def sizes(kind: str, *cells: int) -> tuple[int, ...]:
    return tuple(n + (KINDS[kind][1] == "ends") for n in cells)


def cut_and_joined(cutting: Patching, values: Tensor, network=lambda window: window) -> Tensor:
    space, channels = values.shape[2:], values.shape[1]
    views = cutting.views(values)
    answers = [network(cutting.windows(views, j))[:, :channels] for j in range(cutting.count)]
    return cutting.stitched([cutting.piece(a, j, space) for j, a in enumerate(answers)], space)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("levels", "margin"), list(itertools.product((0, 1, 2), (0, 3))))
@pytest.mark.parametrize("dim", [1, 2, 3])
def test_cut_and_put_together_is_the_field_bit_for_bit(kind, levels, margin, dim):
    """Rectangular fields in one to three dimensions; any margin."""
    space = sizes(kind, 16, 24, 8)[:dim]
    values = torch.randn(2, 3, *space, generator=torch.Generator().manual_seed(0))
    cutting = patching(levels, space, kind, margin)
    views = cutting.views(values)
    assert cutting.windows(views, 0).shape[1] == (levels + 1) * 3
    assert torch.equal(cut_and_joined(cutting, values), values)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("blend", [0.34, 1.0])
def test_blended_patches_of_one_function_are_the_function(kind, blend):
    """Weights of a border sum to one; at walls they are normalised."""
    space = sizes(kind, 16, 24)
    values = torch.randn(2, 1, *space, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    cutting = patching(1, space, kind, 3, blend=blend)
    torch.testing.assert_close(cut_and_joined(cutting, values), values, rtol=0, atol=1e-14)


def test_blending_makes_a_jump_between_patches_a_ramp():
    """Two patches that answer 0 and 1: the field climbs by 1 / (2 q) a node across 2 q = 4 nodes."""
    cutting = patching(1, (17,), "zero", 2, blend=1.0)
    answers = [torch.full((1, 1, 13), float(j)) for j in range(2)]
    field = cutting.stitched([cutting.piece(a, j, (17,)) for j, a in enumerate(answers)], (17,))[0, 0]
    expected = torch.tensor([0.0] * 6 + [0.125, 0.375, 0.625, 0.875] + [1.0] * 7)
    torch.testing.assert_close(field, expected, rtol=0, atol=1e-6)


def test_no_level_is_the_field_with_its_margin_wrapped():
    values = torch.randn(2, 3, 12, 10)
    cutting = patching(0, (12, 10), "periodic", 0)
    assert torch.equal(cutting.windows(cutting.views(values), 0), values)
    wrapped = Patching(0, (Fraction(1, 6), Fraction(1, 5)), (PERIODIC,) * 2, ("left",) * 2)
    padded = F.pad(values, (2, 2, 2, 2), mode="circular")
    assert torch.equal(wrapped.windows(wrapped.views(values), 0), padded)


@pytest.mark.parametrize("levels", [1, 2])
def test_windows_are_those_of_the_published_algorithm(levels):
    """Field 64: level 0 by circular padding and unfolding, level l by unfolding the field [::2^l] with stride s / 2^l."""
    values = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(2))
    margin, n = 5, 2**levels
    patch = 64 // n
    cutting = patching(levels, (64, 64), "periodic", margin)
    for j in range(cutting.count):
        found = cutting.windows(cutting.views(values), j).unflatten(1, (levels + 1, 3))
        for level in range(levels + 1):
            coarse = values[..., :: 2**level, :: 2**level]
            stride = patch // 2**level
            # as wide as the windows are, and centred on the same patch
            around = margin + (patch - stride) // 2
            row, column = (stride * k for k in divmod(j, n))
            start = [(64 >> level) + k - around for k in (row, column)]
            padded = coarse.repeat(1, 1, 3, 3)
            window = padded[..., start[0] : start[0] + patch + 2 * margin, start[1] : start[1] + patch + 2 * margin]
            assert torch.equal(found[:, level], window), (j, level)


@pytest.mark.parametrize("kind", KINDS)
def test_the_centre_of_every_level_is_the_same_point(kind):
    (size,) = sizes(kind, 64)
    (cut,) = patching(2, (size,), kind, 3).cuts((size,))
    for j in range(4):
        centres = [cut.nodes(j, level)[cut.patch // 2 + 3] for level in range(3)]
        assert centres == [16 * j + 8] * 3
        if j in (1, 2):  # and its neighbours lie 2^l nodes away
            beside = [cut.nodes(j, level)[cut.patch // 2 + 4] for level in range(3)]
            assert beside == [16 * j + 8 + 2**level for level in range(3)]


def test_a_shift_by_a_patch_permutes_the_windows():
    values = torch.randn(1, 2, 16, 24, generator=torch.Generator().manual_seed(3))
    cutting = patching(2, (16, 24), "periodic", 2, low_pass=True)
    views, moved = cutting.views(values), cutting.views(values.roll((4, 6), (2, 3)))
    for j in range(16):
        row, column = divmod(j, 4)
        before = 4 * ((row - 1) % 4) + (column - 1) % 4
        torch.testing.assert_close(cutting.windows(moved, j), cutting.windows(views, before), rtol=0, atol=1e-6)


@pytest.mark.parametrize("kind", ["reflect at nodes", "reflect at centres"])
def test_reflection_is_the_even_extension_on_every_level(kind):
    """Of cos(3 pi x), which is even about both walls: windows see the wave go on, however far they reach."""
    (size,) = sizes(kind, 16)
    cutting = patching(2, (size,), kind, 2)
    shift = 0.5 if kind.endswith("centres") else 0.0
    wave = lambda node: math.cos(3 * math.pi * (node + shift) / 16)  # noqa: E731
    values = torch.tensor([wave(i) for i in range(size)], dtype=torch.float64)[None, None]
    views = cutting.views(values)
    for j in range(4):
        window = cutting.windows(views, j)[0]
        for level in range(3):
            nodes = [4 * j + 2 + 2**level * (i - 4) for i in range(window.shape[-1])]
            expected = torch.tensor([wave(node) for node in nodes], dtype=torch.float64)
            torch.testing.assert_close(window[level], expected, rtol=0, atol=1e-12)


def test_beyond_a_wall_the_field_is_what_its_edge_says():
    values = torch.arange(1.0, 10.0)[None, None]  # 9 nodes, 8 cells
    seen = {}
    for kind in ("zero", "mixed", "reflect at nodes"):
        cutting = patching(1, (9,), kind, 2)
        seen[kind] = [cutting.windows([values], j)[0, 0].tolist() for j in range(2)]
    assert seen["zero"] == [[0, 0, 1, 2, 3, 4, 5, 6, 7], [3, 4, 5, 6, 7, 8, 9, 0, 0]]
    assert seen["mixed"] == [[0, 0, 1, 2, 3, 4, 5, 6, 7], [3, 4, 5, 6, 7, 8, 9, 8, 7]]
    assert seen["reflect at nodes"][0] == [3, 2, 1, 2, 3, 4, 5, 6, 7]
    last = patching(1, (8,), "last", 2)
    assert last.windows([values[..., :8]], 1)[0, 0].tolist() == [3, 4, 5, 6, 7, 8, 8, 8]


def test_the_low_pass_removes_what_would_alias_and_keeps_what_is_linear():
    """On 32 nodes the wave k = 16 is a constant to every second node; the average about a node of a straight line is it."""
    cutting = patching(2, (32,), "periodic", 0, low_pass=True)
    x = torch.arange(32, dtype=torch.float64) / 32
    alias = torch.cos(2 * math.pi * 16 * x)[None, None]
    plain = patching(2, (32,), "periodic", 0)
    assert float(plain.windows(plain.views(alias), 1)[0, 1].std()) == 0
    assert float(plain.windows(plain.views(alias), 1)[0, 1].abs().max()) == 1
    assert float(cutting.windows(cutting.views(alias), 1)[0, 1:].abs().max()) < 1e-13
    eight = torch.cos(2 * math.pi * 8 * x)[None, None]
    assert float(cutting.windows(cutting.views(eight), 1)[0, 2].abs().max()) < 1e-13
    walls = patching(1, (33,), "reflect at nodes", 0, low_pass=True)
    line = torch.arange(33, dtype=torch.float64)[None, None]
    torch.testing.assert_close(walls.views(line)[1][..., 1:-1], line[..., 1:-1], rtol=0, atol=1e-12)
    smooth = torch.cos(2 * math.pi * x)[None, None]
    factor = ((1 + math.cos(2 * math.pi / 32)) / 2) ** 1  # of [1, 2, 1] / 4
    torch.testing.assert_close(cutting.views(smooth)[1], factor * smooth, rtol=0, atol=1e-13)


def test_edges_follow_the_boundary_conditions_of_each_end():
    axes = (
        Axis("x", 9, boundary=("dirichlet", "neumann"), placement="ends"),
        Axis("y", 8),
        Axis("z", 8, boundary=("outflow", "outflow"), placement="centres"),
    )
    assert edges_of(Grid(axes)) == (("zero", "reflect"), ("periodic", "periodic"), ("replicate", "replicate"))


def test_windows_keep_their_physical_size_at_other_resolutions():
    cutting = patching_of(Grid.box((32, 64), dim=2), 1, 0.125)
    for shape in ((32, 64), (64, 128), (8, 16)):
        assert [c.window / c.size for c in cutting.cuts(shape)] == [0.75, 0.75]


@pytest.mark.parametrize(
    ("grid", "levels", "message"),
    [
        (Grid.box((30, 32)), 2, "30 -> 28 or 32"),
        (Grid.box((65, 66), boundary="dirichlet"), 2, "66 -> 65 or 69"),
        (Grid.box(6, dim=1), 3, "6 -> 8"),
    ],
)
def test_sides_that_patches_do_not_divide_are_refused_with_the_nearest(grid, levels, message):
    with pytest.raises(ValueError, match=message):
        patching_of(grid, levels, 0.1)


def test_resolutions_whose_margin_is_no_whole_number_are_refused_with_the_nearest():
    cutting = patching_of(Grid.box(32, dim=1), 1, 0.1)  # 3 of 32 nodes
    with pytest.raises(ValueError, match="40 -> 32 or 64"):
        cutting.cuts((40,))
    with pytest.raises(ValueError, match="for 1 axes"):
        cutting.cuts((32, 32))


def test_the_smallest_grid_for_a_window_is_the_smallest():
    for grid in (Grid.box((32, 48), dim=2), Grid.box(33, dim=2, boundary="dirichlet")):
        cutting = patching_of(grid, 2, 0.0625)
        for wanted in (5, 12, 31):
            found = cutting.smallest(wanted)
            assert all(cut.window >= wanted for cut in cutting.cuts(found))
            step = [cutting._step(axis) for axis in range(2)]
            smaller = tuple(n - s for n, s in zip(found, step, strict=True))
            assert min(smaller) < 2 or all(cut.window < wanted for cut in cutting.cuts(smaller))


@pytest.mark.parametrize("bad", [{"margin": -0.1}, {"margin": 2.0}, {"blend": 1.5}, {"levels": -1}])
def test_unfit_numbers_are_refused(bad):
    options = {"levels": 1, "margin": 0.1, "blend": 0.0, **bad}
    with pytest.raises(ValueError, match=r"\[0, 1\]|at least 0"):
        patching_of(Grid.box(32), options["levels"], options["margin"], blend=options["blend"])
    with pytest.raises(ValueError, match="at both ends or at none"):
        patching_of(Grid.box(32), 1, 0.1, edges=(("periodic", "zero"),))
