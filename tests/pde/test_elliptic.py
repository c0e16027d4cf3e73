"""Finite volumes and fast transforms against closed forms, each other and their claimed orders."""

import itertools
import math

import jaxtyping
import numpy as np
import pyamg
import pytest
import torch
from resolvent.pde import Axis, Grid, SolverError
from resolvent.pde._elliptic import (
    _shares,
    apply_along,
    assemble,
    diffusion,
    face_coefficients,
    factorise,
    interior,
    solve_dirichlet,
)
from resolvent.pde._trigonometric import cosine_refine, fast_poisson, sine_resample, sine_second_derivative, wavenumbers


@pytest.fixture
def unchecked(monkeypatch):
    """As for users: no type checker in front of our own messages."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)


def dirichlet(shape, upper=1.0):
    return Grid.box(shape, boundary="dirichlet", upper=upper)


def phases(grid, contrast, seed=0, count=1):
    """A random checkerboard of 8 x 8 tiles: corners, thin channels, isolated inclusions."""
    generator = torch.Generator().manual_seed(seed)
    tiles = torch.rand((count, *(8,) * grid.dim), generator=generator, dtype=torch.float64)
    picked = [torch.div(torch.arange(n) * 8, n, rounding_mode="floor") for n in grid.shape]
    for axis, index in enumerate(picked, start=1):
        tiles = tiles.index_select(axis, index)
    return 1.0 + (contrast - 1.0) * (tiles > 0.5).to(torch.float64)


def solve(coefficient, source, grid, faces="harmonic", **options):
    return solve_dirichlet(face_coefficients(coefficient, grid, faces=faces), source, grid, **options)


@pytest.mark.parametrize("faces", ["harmonic", "arithmetic"])
@pytest.mark.parametrize("dim", [1, 2, 3])
def test_manufactured_solution_at_second_order(dim, faces):
    """u = prod sin(pi x), a = exp(sum x / 2): -div(a grad u) = a (dim pi² u - sum d_j u / 2)."""
    errors = []
    counts = (9, 17, 33) if dim == 3 else (17, 33, 65)
    for n in counts:
        grid = dirichlet((n,) * dim)
        x = grid.mesh()
        u = torch.sin(math.pi * x).prod(0)
        a = torch.exp(x.sum(0) / 2)
        slopes = [math.pi * torch.cos(math.pi * x[j]) * _others(x, j) for j in range(dim)]
        f = a * (dim * math.pi**2 * u - sum(slopes) / 2)
        errors.append(float((solve(a[None], f[None], grid, faces)[0] - u).abs().max()))
    orders = [math.log2(a / b) for a, b in itertools.pairwise(errors)]
    assert min(orders) >= 1.9
    assert max(orders) <= 2.1


def _others(x, j):
    return torch.sin(math.pi * torch.cat([x[:j], x[j + 1 :]])).prod(0)


def test_boundary_data_and_unequal_spacings():
    """u = 1 + 2 x - y + x y is in the kernel of the five-point operator: exact to round-off for a = 1."""
    grid = dirichlet((12, 31), upper=(1.0, 3.0))
    x, y = grid.mesh()
    u = (1 + 2 * x - y + x * y)[None]
    got = solve(torch.ones_like(u), torch.zeros_like(u), grid, boundary=u)
    torch.testing.assert_close(got, u, rtol=1e-12, atol=1e-12)  # condition number of about 1e3 times round-off


def layers(grid):
    """Layers whose interfaces lie half-way between nodes, where the control volumes meet."""
    values = torch.full((grid.shape[0],), 2.0, dtype=torch.float64)
    values[5:9], values[9:14], values[14:] = 500.0, 0.3, 7.0
    return values


@pytest.mark.parametrize("faces", ["harmonic", "arithmetic"])
def test_layered_medium_is_exact_with_harmonic_faces(faces):
    """f = 0, u(0) = 0, u(1) = 1: the flux is constant, so u is the integral of 1/a over its total."""
    grid = dirichlet((21,))
    a = layers(grid)
    boundary = torch.zeros(1, 21, dtype=torch.float64)
    boundary[0, -1] = 1.0
    resistance = torch.cat([torch.zeros(1, dtype=torch.float64), (0.5 / a[1:] + 0.5 / a[:-1]).cumsum(0)])
    got = solve(a[None], torch.zeros(1, 21, dtype=torch.float64), grid, faces, boundary=boundary)[0]
    error = float((got - resistance / resistance[-1]).abs().max())
    assert error < 1e-12 if faces == "harmonic" else error > 0.01


@pytest.mark.parametrize("target", [7, 21, 24, 61])
def test_layered_medium_is_exact_on_any_other_grid(target):
    """Averaging onto another grid's faces keeps the resistance between its nodes: exact there too, in 2-D as in 1-D."""
    grid = dirichlet((21, 9))
    a = layers(grid)[:, None].expand(21, 9)[None]
    edges = torch.cat([grid.coordinates()[0][:1], grid.coordinates()[0][:-1] + grid.spacing[0] / 2, torch.ones(1)])
    other = grid.at((target, 6))
    x = other.coordinates()[0]
    shares = (torch.minimum(x[:, None], edges[1:]) - edges[:-1]).clamp_min(0)
    profile = (shares / layers(grid)).sum(1)
    boundary = (profile / profile[-1])[:, None].expand(target, 6)[None]
    faces = face_coefficients(a, grid, target=other)
    got = solve_dirichlet(faces, torch.zeros_like(boundary), other, boundary=boundary)
    torch.testing.assert_close(got, boundary, rtol=0, atol=1e-12)


def test_faces_on_the_same_grid_are_the_plain_means_and_the_special_case_of_shares():
    grid = dirichlet((9, 6))
    a = phases(grid, 50.0) + torch.rand(1, 9, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    left, right = a[:, :-1], a[:, 1:]
    torch.testing.assert_close(face_coefficients(a, grid)[0], 2 * left * right / (left + right), rtol=1e-14, atol=0)
    plain = face_coefficients(a, grid, faces="arithmetic")[1]
    torch.testing.assert_close(plain, (a[:, :, :-1] + a[:, :, 1:]) / 2, rtol=1e-14, atol=0)
    axis = grid.axes[1]
    torch.testing.assert_close(apply_along(_shares(axis, axis, "segments"), a, 2), plain, rtol=1e-14, atol=0)
    torch.testing.assert_close(apply_along(_shares(axis, axis, "volumes"), a, 2), a, rtol=1e-14, atol=0)


@pytest.mark.parametrize("contrast", [4.0, 1000.0])
@pytest.mark.parametrize("shape", [(40, 29), (11, 12, 13)], ids=str)
def test_direct_equals_multigrid(shape, contrast):
    """The multigrid residual is 1e-10 of the right side; at these condition numbers the solutions meet to 1e-8."""
    grid = dirichlet(shape)
    a = phases(grid, contrast, count=2)
    source = torch.ones_like(a)
    direct = solve(a, source, grid, method="direct")
    iterated = solve(a, source, grid, method="amg")
    assert float((direct - iterated).abs().max() / direct.abs().max()) < 1e-8


def test_sparse_lu_equals_multigrid_beyond_the_band_limit():
    grid = dirichlet((205, 206))
    a = phases(grid, 1000.0)
    direct = solve(a, torch.ones_like(a), grid, method="direct")
    iterated = solve(a, torch.ones_like(a), grid)
    assert float((direct - iterated).abs().max() / direct.abs().max()) < 1e-8


def test_high_contrast_satisfies_the_equation():
    """The operator applied to the solution returns the source, and the solution obeys the maximum principle."""
    grid = dirichlet((50, 50))
    a = phases(grid, 1000.0)
    u = solve(a, torch.ones_like(a), grid)
    residual = diffusion(face_coefficients(a, grid), u, grid) - 1
    assert float(residual.abs().max()) < 1e-7  # cancellation: eps * 1000 * 4 / h² is 2e-9 for u = O(1)
    assert float(interior(u, 2).min()) > 0


@pytest.mark.parametrize("shape", [(7,), (6, 9), (5, 4, 6)], ids=str)
def test_matrix_is_symmetric_positive_definite_and_is_the_operator(shape):
    grid = dirichlet(shape)
    a = phases(grid, 1000.0)
    faces = face_coefficients(a, grid)
    matrix = assemble([face[0].numpy() for face in faces], grid.spacing).toarray()
    assert np.array_equal(matrix, matrix.T)
    assert np.linalg.eigvalsh(matrix).min() > 0
    u = torch.zeros(1, *shape, dtype=torch.float64)
    inner = torch.rand(interior(u, grid.dim).shape, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    interior(u, grid.dim).copy_(inner)
    applied = diffusion(faces, u, grid)[0].flatten().numpy()
    np.testing.assert_allclose(matrix @ inner.flatten().numpy(), applied, rtol=1e-12, atol=1e-9)
    inverse = factorise([face[0].numpy() for face in faces], grid.spacing)
    np.testing.assert_allclose(inverse(applied.reshape(inner.shape[1:])), inner[0].numpy(), rtol=1e-10, atol=1e-12)


def test_operator_is_differentiable():
    grid = dirichlet((5, 6))
    a = (phases(grid, 3.0)).requires_grad_()
    u = torch.rand(1, 5, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    assert torch.autograd.gradcheck(lambda a, u: diffusion(face_coefficients(a, grid), u, grid), (a, u))


def test_indefinite_matrix_is_reported_with_its_sample():
    grid = dirichlet((9, 9))
    a = torch.ones(2, 9, 9, dtype=torch.float64)
    a[1] = -1.0
    with pytest.raises(SolverError, match=r"Sample 1 of 2.*positive definite"):
        solve(a, torch.ones_like(a), grid)


@pytest.mark.parametrize("iterations", [1, 3])
def test_multigrid_that_stalls_says_so(iterations, monkeypatch):
    """One iteration is not enough, nor are three."""
    make = pyamg.ruge_stuben_solver

    def stalled(*args, **options):
        hierarchy = make(*args, **options)
        full = hierarchy.solve
        monkeypatch.setattr(hierarchy, "solve", lambda right, **how: full(right, **{**how, "maxiter": iterations}))
        return hierarchy

    monkeypatch.setattr(pyamg, "ruge_stuben_solver", stalled)
    grid = dirichlet((41, 41))
    a = phases(grid, 4.0)
    with pytest.raises(SolverError, match="relative residual"):
        solve(a, torch.ones_like(a), grid, method="amg")


def test_multigrid_at_round_off_is_an_answer():
    """At contrast 1000 on 513² nodes, round-off of the operator is more than 1e-10 of the right side."""
    grid = dirichlet((513, 513))
    a = torch.ones(1, 513, 513, dtype=torch.float64)
    a[:, 160:353, 160:353] = 1000.0
    u = solve(a, torch.ones_like(a), grid)
    misfit = diffusion(face_coefficients(a, grid), u, grid) - 1
    assert 1e-10 < float(misfit.norm()) / 511 < 1e-7
    torch.testing.assert_close(u, u.transpose(1, 2), rtol=1e-6, atol=0)  # the inclusion is symmetric


@pytest.mark.parametrize("options", [{"faces": "geometric"}, {"method": "jacobi"}])
def test_unknown_words_are_refused(options, unchecked):
    grid = dirichlet((5, 5))
    ones = torch.ones(1, 5, 5, dtype=torch.float64)
    with pytest.raises(ValueError, match=next(iter(options.values()))):
        solve(ones, ones, grid, **options)


def test_other_placements_are_refused():
    grid = Grid.box(8, dim=2)
    with pytest.raises(ValueError, match="ends"):
        face_coefficients(torch.ones(1, 8, 8), grid)
    with pytest.raises(ValueError, match="interior"):
        face_coefficients(torch.ones(1, 2, 8), dirichlet((2, 8)))


# --- fast transforms -------------------------------------------------------------------------------------------------

AXES = {
    "periodic": Axis("x", 12, 0.0, 1.5),
    "dirichlet": Axis("y", 11, 0.0, 0.8, ("dirichlet", "dirichlet"), "ends"),
    "neumann": Axis("z", 10, -1.0, 1.0, ("neumann", "neumann"), "centres"),
}


def mode(axis):
    """An eigenfunction of the axis, and its wavenumber."""
    k = float(wavenumbers(axis)[3])
    x = axis.coordinates() - axis.lower
    return (torch.sin(k * x) if axis.placement == "ends" else torch.cos(k * x)), k


@pytest.mark.parametrize("symbol", ["spectral", "second_order"])
@pytest.mark.parametrize("kinds", [c for n in (1, 2, 3) for c in itertools.combinations(AXES, n)], ids="-".join)
def test_single_mode_is_divided_by_its_eigenvalue(kinds, symbol):
    """-Laplace of a product of modes is sum k² times it; (2/h sin(k h/2))² for the three-point difference."""
    grid = Grid(tuple(AXES[kind] for kind in kinds))
    source, eigenvalue = torch.ones((), dtype=torch.float64), 0.0
    for axis in grid.axes:
        shape, k = mode(axis)
        source = source[..., None] * shape
        eigenvalue += k**2 if symbol == "spectral" else (2 / axis.spacing * math.sin(k * axis.spacing / 2)) ** 2
    got = fast_poisson(source[None, None], grid, symbol=symbol)[0, 0]
    torch.testing.assert_close(got, source / eigenvalue, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("shape", [(33,), (20, 33), (9, 12, 10)], ids=str)
def test_fast_sine_solver_equals_the_sparse_solver(shape):
    grid = dirichlet(shape, upper=tuple(1.0 + 0.5 * j for j in range(len(shape))))
    source = torch.randn(2, *shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    sparse = solve(torch.ones_like(source), source, grid)
    torch.testing.assert_close(fast_poisson(source, grid, symbol="second_order"), sparse, rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("kind", ["periodic", "neumann"])
def test_second_order_solution_satisfies_the_difference_equation(kind):
    """Wrapped or mirrored three-point differences return the source without its mean; the solution has none."""
    axis = AXES[kind]
    source = torch.randn(axis.size, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    u = fast_poisson(source, Grid((axis,)), symbol="second_order")
    padded = torch.cat([u[-1:], u, u[:1]]) if kind == "periodic" else torch.cat([u[:1], u, u[-1:]])
    torch.testing.assert_close(-padded.diff(n=2) / axis.spacing**2, source - source.mean(), rtol=0, atol=1e-12)
    assert abs(float(u.mean())) < 1e-15


@pytest.mark.parametrize("kind", AXES)
def test_second_order_symbol_converges_at_second_order(kind):
    errors = []
    for n in (32, 64, 128):
        grid = Grid((AXES[kind],)).at(n)
        source, k = mode(grid.axes[0])
        errors.append(float((fast_poisson(source, grid, symbol="second_order") - source / k**2).abs().max()))
    assert all(abs(math.log2(a / b) - 2) < 0.1 for a, b in itertools.pairwise(errors))


def test_sine_second_derivative_inverts_the_spectral_solver():
    axis = AXES["dirichlet"]
    source = torch.zeros(axis.size, dtype=torch.float64)
    source[1:-1] = torch.randn(axis.size - 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    u = fast_poisson(source, Grid((axis,)))
    torch.testing.assert_close(sine_second_derivative(axis) @ u[1:-1], source[1:-1], rtol=0, atol=1e-12)


def test_resampling_series_is_exact_for_what_both_grids_resolve():
    coarse, fine = dirichlet((9, 12)), dirichlet((23, 30))

    def sines(grid):
        x, y = grid.mesh()
        return torch.sin(7 * math.pi * x) * torch.sin(2 * math.pi * y) - torch.sin(math.pi * x) * torch.sin(
            10 * math.pi * y
        )

    def cosines(grid):
        x, y = grid.mesh()
        return 0.3 + torch.cos(8 * math.pi * x) * torch.cos(11 * math.pi * y) + torch.cos(2 * math.pi * x)

    torch.testing.assert_close(sine_resample(sines(coarse)[None], fine.shape)[0], sines(fine), rtol=0, atol=1e-13)
    torch.testing.assert_close(sine_resample(sines(fine)[None], coarse.shape)[0], sines(coarse), rtol=0, atol=1e-13)
    torch.testing.assert_close(cosine_refine(cosines(coarse)[None], fine.shape)[0], cosines(fine), rtol=0, atol=1e-13)
    with pytest.raises(ValueError, match="coarse to fine"):
        cosine_refine(cosines(fine)[None], coarse.shape)


def test_fast_solver_refuses_what_it_does_not_serve(unchecked):
    centred = Axis("x", 8, boundary=("dirichlet", "dirichlet"), placement="centres")
    with pytest.raises(ValueError, match="no fast"):
        fast_poisson(torch.zeros(8), Grid((centred,)))
    with pytest.raises(ValueError, match="shape"):
        fast_poisson(torch.zeros(2, 7), Grid.box(8))
    with pytest.raises(ValueError, match="symbol"):
        fast_poisson(torch.zeros(8), Grid.box(8), symbol="fourth_order")
