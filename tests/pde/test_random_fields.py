"""Each field has the covariance of its series; tolerances are five standard errors of the estimate."""

import math

import pytest
import torch
from resolvent.pde import Axis, Grid
from resolvent.pde._random_fields import dirichlet_field, neumann_field, periodic_field

COUNT = 4000


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def series_covariance(kind, grid, alpha, tau, modes=64):
    """Sum over modes of sigma² (lambda + tau²)^-alpha phi(x) phi(y) between all nodes, from the definition, in 2-D."""
    sigma2 = tau ** (2 * alpha - grid.dim)
    basis, eigenvalues = [], []
    for axis in grid.axes:
        x = axis.coordinates() / axis.length
        if kind == "periodic":
            n = torch.arange(-modes // 2, modes // 2, dtype=torch.float64)
            basis.append(torch.exp(2j * math.pi * n[:, None] * x))
            eigenvalues.append((2 * math.pi * n / axis.length) ** 2)
        elif kind == "neumann":
            n = torch.arange(modes, dtype=torch.float64)
            basis.append(torch.cos(math.pi * n[:, None] * x) * torch.where(n > 0, math.sqrt(2.0), 1.0)[:, None])
            eigenvalues.append((math.pi * n / axis.length) ** 2)
        else:
            n = torch.arange(1, modes, dtype=torch.float64)
            basis.append(torch.sin(math.pi * n[:, None] * x) * math.sqrt(2))
            eigenvalues.append((math.pi * n / axis.length) ** 2)
    weights = sigma2 * (eigenvalues[0][:, None] + eigenvalues[1] + tau**2) ** -alpha
    weights[(eigenvalues[0][:, None] + eigenvalues[1]) == 0] = 0.0
    phi = torch.einsum("ax,by->abxy", basis[0], basis[1]).flatten(2).flatten(0, 1)
    return torch.einsum("k,ki,kj->ij", weights.flatten().to(phi.dtype), phi, phi.conj()).real


def box(kind, shape=(8, 8), upper=1.0):
    boundary, placement = {
        "periodic": ("periodic", "left"),
        "neumann": ("neumann", "centres"),
        "neumann_ends": ("dirichlet", "ends"),
        "dirichlet": ("dirichlet", "ends"),
    }[kind]
    return Grid.box(shape, boundary=boundary, placement=placement, upper=upper)


FIELDS = {
    "periodic": periodic_field,
    "neumann": neumann_field,
    "neumann_ends": neumann_field,
    "dirichlet": dirichlet_field,
}


@pytest.mark.parametrize("upper", [1.0, (1.0, 2.5)], ids=["unit", "long"])
@pytest.mark.parametrize("kind", FIELDS)
def test_measured_covariance_is_that_of_the_series(kind, upper):
    """Variance of the estimate: (C_ij² + C_ii C_jj) / count. Truncation adds at most 2e-3 of the variance."""
    grid = box(kind, (17, 17) if "ends" in kind or kind == "dirichlet" else (16, 16), upper)
    alpha, tau = 3.0, 3.0
    samples = FIELDS[kind](COUNT, grid, alpha=alpha, tau=tau, generator=seeded()).flatten(1)
    measured = samples.T @ samples / COUNT
    expected = series_covariance(kind.removesuffix("_ends"), grid, alpha, tau)
    variance = expected.diagonal()
    error = ((expected.square() + variance[:, None] * variance) / COUNT).sqrt()
    assert float(((measured - expected).abs() - 5 * error - 2e-3 * variance.max()).max()) < 0
    assert float(((samples.mean(0)).abs() - 5 * (variance / COUNT).sqrt()).max()) < 1e-12


@pytest.mark.parametrize("kind", FIELDS)
def test_one_dimensional_variance(kind):
    """The mean over the nodes of the pointwise variance is the sum of the eigenvalues of the covariance."""
    grid = Grid((box(kind, (33, 33)).axes[0],))
    alpha, tau = 2.0, 5.0
    samples = FIELDS[kind](COUNT, grid, alpha=alpha, tau=tau, generator=seeded(1))
    power = samples.square() @ grid.weights()
    n = torch.arange(1, 2000, dtype=torch.float64)
    factor = 2 * math.pi if kind == "periodic" else math.pi
    eigenvalues = tau ** (2 * alpha - 1) * ((factor * n) ** 2 + tau**2) ** -alpha
    expected = float(eigenvalues.sum()) * (2 if kind == "periodic" else 1)
    spread = float(power.std()) / math.sqrt(COUNT)
    assert abs(float(power.mean()) - expected) < 5 * spread + 1e-3 * expected


def test_navier_stokes_initial_vorticity_has_standard_deviation_0185():
    """tau³ sum_k (4 pi² |k|² + tau²)^(-5/2), over all k but 0, is 0.185²: the check the dossier asks for."""
    n = torch.arange(-200, 201, dtype=torch.float64)
    eigenvalues = 7.0**3 * (4 * math.pi**2 * (n[:, None] ** 2 + n**2) + 49) ** -2.5
    eigenvalues[200, 200] = 0
    analytic = math.sqrt(float(eigenvalues.sum()))
    assert abs(analytic - 0.185) < 5e-4
    field = periodic_field(600, Grid.box(64, dim=2), alpha=2.5, tau=7.0, generator=seeded())
    per_sample = field.square().flatten(1).mean(1)
    assert abs(float(per_sample.mean()) - analytic**2) < 5 * float(per_sample.std()) / math.sqrt(600)


@pytest.mark.parametrize("kind", FIELDS)
def test_law_does_not_depend_on_the_resolution(kind):
    """The spatial mean square has the same expectation on a grid twice as fine (five standard errors)."""
    mean, error = [], []
    for shape in ((17, 17), (33, 33)):
        grid = box(kind, shape)
        power = (FIELDS[kind](1500, grid, alpha=2.5, tau=4.0, generator=seeded(3)).square() * grid.weights()).sum(
            (1, 2)
        )
        mean.append(float(power.mean()))
        error.append(float(power.std()) / math.sqrt(1500))
    assert abs(mean[0] - mean[1]) < 5 * math.hypot(*error) + 2e-3 * mean[1]


def test_end_values_and_means():
    field = dirichlet_field(3, box("dirichlet", (9, 12)), alpha=2.0, tau=3.0, generator=seeded())
    edges = torch.cat([field[:, [0, -1]].flatten(), field[:, :, [0, -1]].flatten()])
    assert field.dtype == torch.float64
    assert torch.equal(edges, torch.zeros_like(edges))
    for kind in ("periodic", "neumann"):
        mean = FIELDS[kind](3, box(kind), alpha=2.0, tau=3.0, generator=seeded()).mean((1, 2))
        torch.testing.assert_close(mean, torch.zeros_like(mean), rtol=0, atol=1e-14)  # a 64-point sum of O(1) doubles


def test_neumann_field_has_no_normal_derivative_at_the_ends():
    """A cosine series is even about the ends: the one-sided difference is O(h), not O(1)."""
    grid = Grid.box(513, boundary="dirichlet")
    field = neumann_field(20, grid, alpha=4.0, tau=3.0, generator=seeded())
    slope = (field[:, 1] - field[:, 0]) / grid.spacing[0]
    inner = (field[:, 1:] - field[:, :-1]).abs().amax(1) / grid.spacing[0]
    assert float((slope.abs() / inner).max()) < 0.05


def test_same_generator_same_samples():
    grid = box("neumann")
    first, second, other = (neumann_field(2, grid, alpha=2.0, tau=3.0, generator=seeded(seed)) for seed in (5, 5, 6))
    assert torch.equal(first, second)
    assert not torch.equal(first, other)


@pytest.mark.parametrize(
    ("field", "kind"), [(periodic_field, "neumann"), (dirichlet_field, "neumann"), (neumann_field, "periodic")]
)
def test_wrong_placement_is_refused(field, kind):
    with pytest.raises(ValueError, match="placed"):
        field(1, box(kind), alpha=2.0, tau=3.0, generator=seeded())


def test_mixed_placement_is_refused():
    ends = Axis("x", 9, boundary=("dirichlet", "dirichlet"), placement="ends")
    centres = Axis("y", 9, boundary=("neumann", "neumann"), placement="centres")
    with pytest.raises(ValueError, match="placed"):
        neumann_field(1, Grid((ends, centres)), alpha=2.0, tau=3.0, generator=seeded())


@pytest.mark.parametrize(
    ("alpha", "tau", "message"),
    [(1.0, 3.0, "variance"), (2.0, -1.0, "inverse length"), (2.0, 0.0, "sigma"), (math.nan, 1.0, "finite")],
)
def test_parameters_without_a_field_are_refused(alpha, tau, message):
    with pytest.raises(ValueError, match=message):
        periodic_field(1, Grid.box(8, dim=2), alpha=alpha, tau=tau, generator=seeded())
