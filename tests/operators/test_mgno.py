"""MgNO against the dossier's checks: linearity, the V-cycle it generalises, Poisson, counts, shifts, boundaries."""

from __future__ import annotations

import math

import pytest
import torch
from resolvent.operators._multigrid import Cycle, VCycle, default_steps, level_shapes
from resolvent.operators.mgno import BiasFunction, MgNO, build
from resolvent.pde import Axis, Grid
from resolvent.pde.navier_stokes import NavierStokes
from resolvent.training import Recipe
from torch import Tensor, nn

CIRCULAR = ("circular", "circular")


def count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


# ---------------------------------------------------------------------- published counts (dossier 5.2)


def test_parameters_of_the_published_darcy_model() -> None:
    grid = Grid.box(256, dim=2, boundary="dirichlet")
    cycle = Cycle(steps=((1, 0),) * 5 + ((2, 0),))
    assert count(MgNO(1, 1, grid, width=24, layers=4, cycle=cycle, skip=True, bias="constant")) == 572_661
    assert count(MgNO(3, 1, grid, width=24, layers=4, cycle=cycle, skip=True, bias="constant")) == 578_685


def test_parameters_of_the_published_navier_stokes_model() -> None:
    cycle = Cycle(steps=((1, 0),) * 3 + ((2, 0),) * 2, padding=CIRCULAR)
    model = MgNO(
        1, 1, Grid.box(64, dim=2), width=32, layers=5, cycle=cycle, skip=False, bias="inside", norm="prolongation"
    )
    assert count(model) == 2_885_194
    assert sum(count(m) for m in model.modules() if isinstance(m, nn.LayerNorm)) == 1_740_800


# ---------------------------------------------------------------------- W_Mg is linear


@pytest.mark.parametrize("restrict", ["data", "residual"])
@pytest.mark.parametrize("post", [0, 1])
def test_the_multigrid_operator_is_linear(restrict: str, post: int) -> None:
    cycle = Cycle(steps=((1, post),) * 3, restrict=restrict, padding=("zeros", "reflect"))  # type: ignore[arg-type]
    operator = VCycle(2, 3, (17, 16), cycle).double()
    f, g = torch.randn(2, 1, 2, 17, 16, dtype=torch.float64)
    combined = operator(2.0 * f - 3.0 * g)
    torch.testing.assert_close(combined, 2.0 * operator(f) - 3.0 * operator(g), rtol=1e-12, atol=1e-12)


# ---------------------------------------------------------------------- special case: the textbook V-cycle

OMEGA = 0.8
FULL_WEIGHTING = torch.tensor([[1.0, 2.0, 1.0], [2.0, 4.0, 2.0], [1.0, 2.0, 1.0]], dtype=torch.float64) / 16


def five_point(u: Tensor, h: float) -> Tensor:
    """-Laplacian with zero boundary values."""
    p = torch.nn.functional.pad(u, (1, 1, 1, 1))
    return (4 * u - p[..., 2:, 1:-1] - p[..., :-2, 1:-1] - p[..., 1:-1, 2:] - p[..., 1:-1, :-2]) / h**2


def jacobi(u: Tensor, f: Tensor, h: float) -> Tensor:
    return u + OMEGA * h**2 / 4 * (f - five_point(u, h))


def hand_written_cycle(f: Tensor, h: float, steps: list[tuple[int, int]]) -> Tensor:
    """Damped Jacobi, full weighting, bilinear interpolation; written without a convolution."""
    pre, post = steps[0]
    u = torch.zeros_like(f)
    for _ in range(pre):
        u = jacobi(u, f, h)
    if len(steps) > 1:
        r = f - five_point(u, h)
        n = f.shape[-1]
        coarse = sum(
            FULL_WEIGHTING[i, j] * r[..., i : n - 2 + i : 2, j : n - 2 + j : 2] for i in range(3) for j in range(3)
        )
        e = hand_written_cycle(coarse, 2 * h, steps[1:])
        fine = torch.zeros_like(f)
        for i in range(3):
            for j in range(3):
                fine[..., i : n - 2 + i : 2, j : n - 2 + j : 2] += 4 * FULL_WEIGHTING[i, j] * e
        u = u + fine
    for _ in range(post):
        u = jacobi(u, f, h)
    return u


def textbook(n: int, steps: list[tuple[int, int]]) -> VCycle:
    """The learned cycle with the weights of the textbook one: A the 5-point stencil, S Jacobi, Pi = 0."""
    cycle = Cycle(steps=tuple(steps), restrict="residual", coarsening="interior")
    operator = VCycle(1, 1, (n, n), cycle).double()
    stencil = torch.tensor([[0.0, -1.0, 0.0], [-1.0, 4.0, -1.0], [0.0, -1.0, 0.0]], dtype=torch.float64)
    with torch.no_grad():
        for j in range(len(steps)):
            h = 2**j / (n + 1)
            for smoother in (*operator.pre[j], *operator.post[j]):
                smoother.s.weight.zero_()[0, 0, 1, 1] = OMEGA * h**2 / 4
                if smoother.a is not None:
                    smoother.a.weight[0, 0] = stencil / h**2
            if j < len(steps) - 1:
                operator.residual[j].weight[0, 0] = stencil / h**2
                operator.restrict_u[j].weight.zero_()
                operator.restrict_f[j].weight[0, 0] = FULL_WEIGHTING
                operator.prolong[j].weight[0, 0] = 4 * FULL_WEIGHTING
    return operator


@pytest.mark.parametrize("steps", [(1, 0), (1, 1), (2, 2)], ids=str)
def test_with_textbook_weights_it_is_the_textbook_cycle(steps: tuple[int, int]) -> None:
    f = torch.randn(2, 1, 31, 31, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    schedule = [steps] * 4
    torch.testing.assert_close(
        textbook(31, schedule)(f), hand_written_cycle(f, 1 / 32, schedule), rtol=1e-12, atol=1e-13
    )


@pytest.mark.parametrize(("steps", "contraction"), [((1, 0), 0.585), ((1, 1), 0.359), ((2, 2), 0.181)], ids=str)
@pytest.mark.parametrize("n", [31, 63])
def test_iterating_it_converges_to_the_discrete_poisson_solution(
    n: int, steps: tuple[int, int], contraction: float
) -> None:
    """At the rate of the textbook cycle, whatever the grid; the limit solves A u = f to round-off."""
    levels = int(math.log2(n + 1)) - 1
    cycle = textbook(n, [steps] * (levels - 1) + [(50, 0)])  # the coarsest level solved to below the rest
    h = 1 / (n + 1)
    u_exact = torch.randn(1, 1, n, n, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    f, u = five_point(u_exact, h), torch.zeros_like(u_exact)
    errors = []
    for _ in range(90):
        u = u + cycle(f - five_point(u, h))
        errors.append((u - u_exact).norm().item())
    assert errors[-1] < 1e-11 * u_exact.norm().item()
    # the dossier's rates are asymptotic; at the 16th cycle they are within 3 % of it, and round-off is still far
    assert errors[15] / errors[14] == pytest.approx(contraction, rel=0.03)


def test_a_shared_operator_is_the_own_ones_where_those_are_equal() -> None:
    """Nine weights a pair of channels less for each A that is not there; the same answer for equal weights."""
    options = {"steps": ((2, 1), (2, 0)), "restrict": "residual"}
    shared, own = (VCycle(2, 3, (9, 9), Cycle(**options, shared=kind)).double() for kind in (True, False))
    # A of the first level: steps 2 to 3 and the residual; of the second: steps 1 and 2
    assert count(own) - count(shared) == 9 * 2 * 3 * ((3 - 1) + (2 - 1))
    assert shared.pre[0][1].a is shared.residual[0]
    own.load_state_dict(shared.state_dict())
    f = torch.randn(1, 2, 9, 9, dtype=torch.float64)
    assert torch.equal(shared(f), own(f))


# ---------------------------------------------------------------------- boundary conditions


def test_the_periodic_operator_commutes_with_shifts_by_the_coarsest_cell() -> None:
    cycle = Cycle(steps=((1, 1),) * 3, padding=CIRCULAR)
    operator = VCycle(1, 2, (16, 24), cycle).double()
    f = torch.randn(1, 1, 16, 24, dtype=torch.float64)
    rolled = operator(f.roll((4, 8), (-2, -1)))
    torch.testing.assert_close(rolled, operator(f).roll((4, 8), (-2, -1)), rtol=1e-12, atol=1e-12)
    published = VCycle(1, 2, (16, 24), Cycle(steps=((1, 1),) * 3, padding=CIRCULAR, exact=False)).double()
    published.load_state_dict(operator.state_dict())
    assert not torch.allclose(published(f.roll(4, -1)), published(f).roll(4, -1), atol=1e-6)


@pytest.mark.parametrize(("padding", "parity"), [("zeros", -1), ("reflect", 1)])
def test_padding_is_the_boundary_condition(padding: str, parity: int) -> None:
    """One smoothing step with an even stencil = the same step on the field continued oddly (Dirichlet, zero just
    outside) or evenly (Neumann, mirrored at the wall node) over the wall, on a periodic line."""
    n = 9
    operator = VCycle(1, 1, (n,), Cycle(steps=((2, 0),), padding=(padding,))).double()  # type: ignore[arg-type]
    with torch.no_grad():
        for p in operator.parameters():
            p.copy_((p + p.flip(-1)) / 2)
    f = torch.randn(1, 1, n, dtype=torch.float64)
    if parity < 0:
        zero = torch.zeros(1, 1, 1, dtype=torch.float64)
        whole, start = torch.cat([zero, f, zero, -f.flip(-1)], -1), 1
    else:
        whole, start = torch.cat([f, f[..., 1:-1].flip(-1)], -1), 0
    periodic = VCycle(1, 1, (whole.shape[-1],), Cycle(steps=((2, 0),), padding=("circular",))).double()
    periodic.load_state_dict(operator.state_dict())
    torch.testing.assert_close(operator(f), periodic(whole)[..., start : start + n], rtol=1e-12, atol=1e-12)


def test_mixed_boundaries_pad_each_axis_in_its_own_way() -> None:
    """A field that does not vary along one axis gives the 1-D answer of the other, whatever that axis wraps."""
    operator = VCycle(1, 1, (8, 9), Cycle(steps=((2, 0),), padding=("circular", "zeros"))).double()
    line = VCycle(1, 1, (9,), Cycle(steps=((2, 0),), padding=("zeros",))).double()
    with torch.no_grad():
        for p, q in zip(line.parameters(), operator.parameters(), strict=True):
            p.copy_(q.sum(dim=-2))
    f = torch.randn(1, 1, 9, dtype=torch.float64)
    expected = line(f)[:, :, None].expand(1, 1, 8, 9)
    torch.testing.assert_close(operator(f[:, :, None].expand(1, 1, 8, 9)), expected, rtol=1e-12, atol=1e-12)


# ---------------------------------------------------------------------- grids


@pytest.mark.parametrize(
    ("n", "coarsening", "expected"),
    [
        (211, "padded", [211, 106, 53, 27, 14, 7]),  # published Darcy smooth
        (101, "interior", [101, 50, 24, 11, 5]),  # published Helmholtz
        (64, "padded", [64, 32, 16, 8, 4]),
    ],
)
def test_published_grid_hierarchies(n: int, coarsening: str, expected: list[int]) -> None:
    cycle = Cycle(steps=((1, 0),) * len(expected), coarsening=coarsening)  # type: ignore[arg-type]
    assert [shape[0] for shape in level_shapes((n, n), cycle)] == expected
    operator = VCycle(1, 2, (n, n), cycle)
    kernels = [p.weight.shape[-1] for p in operator.prolong]
    published = {211: [3, 4, 3, 3, 4], 101: [3, 4, 4, 3], 64: [4, 4, 4, 4]}[n]
    assert kernels == published
    assert operator(torch.zeros(1, 1, n, n)).shape == (1, 2, n, n)


def test_too_many_levels_are_refused_with_the_smallest_grid() -> None:
    cycle = Cycle(steps=((1, 0),) * 6)
    with pytest.raises(ValueError, match="at least 33 nodes"):
        level_shapes((30, 64), cycle)
    level_shapes((33, 64), cycle)


def test_default_levels_leave_at_least_four_nodes() -> None:
    assert len(default_steps((64, 64), 0, 1, 0, 2)) == 5
    assert len(default_steps((61, 61), 0, 1, 0, 2)) == 5
    assert len(default_steps((5,), 0, 1, 0, 2)) == 1


@pytest.mark.parametrize("dim", [1, 2, 3])
def test_any_dimension_and_growing_channels(dim: int) -> None:
    grid = Grid.box((8,) * dim, boundary="neumann", placement="centres")
    cycle = Cycle(steps=((1, 0), (1, 1)), padding=("reflect",) * dim, growing=True)
    model = MgNO(2, 3, grid, width=4, layers=2, cycle=cycle, norm="layer", head="multigrid")
    assert model(torch.randn(2, 2, *grid.shape)).shape == (2, 3, *grid.shape)


# ---------------------------------------------------------------------- bias functions and build


def test_bias_functions_are_orthonormal_modes_that_start_at_zero() -> None:
    grid = Grid((Axis("x", 16), Axis("y", 24, 0.0, 3.0, ("neumann", "neumann"), "centres")))
    bias = BiasFunction(2, grid, modes=3)
    assert len(bias.basis) == 7 * 4
    assert torch.equal(bias(), torch.zeros(2, 16, 24))
    gram = torch.einsum("mxy,nxy->mn", bias.basis, bias.basis) / grid.size
    torch.testing.assert_close(gram, torch.eye(28), rtol=0, atol=1e-5)
    x, y = (values.float() for values in grid.mesh())
    half_wave, whole_wave = math.sqrt(2) * torch.cos(math.pi * y / 3), math.sqrt(2) * torch.cos(2 * math.pi * x)
    torch.testing.assert_close(bias.basis[1], half_wave, rtol=0, atol=1e-6)  # walls: half waves
    torch.testing.assert_close(bias.basis[4], whole_wave, rtol=0, atol=1e-6)  # periodic: whole ones


def test_build_follows_the_grid_and_the_published_notation() -> None:
    problem = NavierStokes()
    solver = build(problem, problem.grid(32), cycle="10 11 20", width=4, layers=2)
    cycle = solver.network.layers[0].multigrid  # type: ignore[union-attr, index]
    assert cycle.steps_of == ((1, 0), (1, 1), (2, 0))
    assert cycle.pre[0][0].s.padding == CIRCULAR
    coarse = build(problem, problem.grid(32), width=4, layers=2, recipe=Recipe(coarsen=2))
    assert coarse.working.shape == (16, 16)
    with pytest.raises(ValueError, match="words of one digit"):
        build(problem, problem.grid(32), cycle="1x 20")
