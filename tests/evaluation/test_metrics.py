"""Metrics against closed forms: the analytic vectors A, B, C, D, E of the reference notes, n = 64, u = sin 2 pi x."""

from __future__ import annotations

import math

import pytest
import torch
from resolvent.evaluation._common import doubles
from resolvent.evaluation.metrics import maximum, metric_table, relative_h1, relative_l2, rmse
from resolvent.pde import Axis, Grid
from torch import Tensor

TAU = 2 * math.pi
LINE = Grid.box(64)
SQUARE = Grid.box(64, dim=2)
BY_NAME = list(metric_table().items())


def case(name: str) -> tuple[Grid, Tensor, Tensor]:
    """Grid, truth and error, each ``batch=1, channel=1, *space``."""
    grid = SQUARE if name in "CDE" else LINE
    x, *rest = grid.mesh()
    y = rest[0] if rest else x
    error = {
        "A": torch.full_like(x, 0.1),
        "B": 0.1 * torch.sin(TAU * 5 * x),
        "C": 0.1 * torch.cos(TAU * 3 * x) * torch.cos(TAU * 4 * y),
        "D": torch.full_like(x, 0.1),
        "E": 0.1 * torch.sin(TAU * (3 * x - 4 * y)),
    }[name]
    return grid, torch.sin(TAU * x)[None, None], error[None, None]


# relative L2, RMSE, maximum: the table of analytic vectors. Relative H1: with w = 2 pi, a mode of amplitude a and
# wave number k in cycles has |e|² + |grad e|² = a² m (1 + k² w²), m = 1/2 a sine, 1/4 a product of two, 1 a constant
TABLE = {
    "A": (0.14142136, 0.1, 0.1, 0.1 * math.sqrt(2 / (1 + TAU**2))),
    "B": (0.1, 0.07071068, 0.1, 0.1 * math.sqrt((1 + 25 * TAU**2) / (1 + TAU**2))),
    "C": (0.07071068, 0.05, 0.1, 0.1 * math.sqrt(0.5 * (1 + 25 * TAU**2) / (1 + TAU**2))),
    "D": (0.14142136, 0.1, 0.1, 0.1 * math.sqrt(2 / (1 + TAU**2))),
    "E": (0.1, 0.07071068, 0.1, 0.1 * math.sqrt((1 + 25 * TAU**2) / (1 + TAU**2))),
}


@pytest.mark.parametrize("name", TABLE)
def test_analytic_vectors(name: str) -> None:
    grid, truth, error = case(name)
    got = [float(m(truth + error, truth, grid)) for m in (relative_l2, rmse, maximum, relative_h1)]
    assert got == pytest.approx(TABLE[name], rel=1e-7)  # the table is given to eight digits
    if name in "BCE":
        # the error waves have extrema at nodes: the maximum is the amplitude exactly
        assert got[2] == pytest.approx(0.1, rel=1e-13)


def test_float32_fields_are_measured_in_double() -> None:
    """1e4 + 1 squared and summed over 4096 nodes would lose the error of 1e-3 in single precision."""
    truth = torch.full((1, 1, 64, 64), 1e4)
    prediction = truth + 2**-7  # exact in float32 at 1e4
    assert float(rmse(prediction, truth, SQUARE)) == pytest.approx(2**-7, rel=1e-12)


@pytest.mark.parametrize(("name", "metric"), BY_NAME, ids=[n for n, _ in BY_NAME])
def test_a_prediction_against_itself_scores_zero(name: str, metric) -> None:
    for grid in (LINE, SQUARE, Grid.box((9, 8), boundary="dirichlet")):
        for lead in ((3, 2), (3, 4, 2)):
            u = torch.randn(*lead, *grid.shape, generator=torch.Generator().manual_seed(1))
            torch.testing.assert_close(metric(u, u, grid), torch.zeros(3, dtype=torch.float64), rtol=0, atol=0)


@pytest.mark.parametrize(("name", "metric"), BY_NAME, ids=[n for n, _ in BY_NAME])
def test_each_sample_is_measured_by_itself(name: str, metric) -> None:
    """A batch gives what its samples give one at a time, so streaming changes nothing."""
    generator = torch.Generator().manual_seed(2)
    u, v = (torch.randn(5, 3, 2, 8, 6, generator=generator) for _ in range(2))
    grid = Grid.box((8, 6))
    alone = torch.cat([metric(v[i : i + 1], u[i : i + 1], grid) for i in range(5)])
    torch.testing.assert_close(metric(v, u, grid), alone, rtol=1e-13, atol=0)


def test_pooling_is_over_channels_and_frames() -> None:
    """Channels [u, 2u] with error 0.1 on both: sqrt(2 * 0.01 / (0.5 + 2)), not the sum or mean of two ratios."""
    _, u, _ = case("A")
    truth = torch.cat([u, 2 * u], dim=1)
    expected = math.sqrt(2 * 0.01 / 2.5)
    assert float(relative_l2(truth + 0.1, truth, LINE)) == pytest.approx(expected, rel=1e-13)
    frames = torch.stack([u, 2 * u], dim=1)
    assert float(relative_l2(frames + 0.1, frames, LINE)) == pytest.approx(expected, rel=1e-13)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize(("name", "metric"), BY_NAME, ids=[n for n, _ in BY_NAME])
def test_a_diverged_prediction_scores_inf_and_spoils_no_other(name: str, metric, bad: float) -> None:
    u = torch.ones(3, 1, 64)
    v = u * 1.5
    v[1, 0, 5] = bad
    got = metric(v, u, LINE)
    assert got[1] == math.inf
    assert torch.isfinite(got[[0, 2]]).all()


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize(("name", "metric"), BY_NAME, ids=[n for n, _ in BY_NAME])
def test_a_truth_that_is_not_finite_scores_nan(name: str, metric, bad: float) -> None:
    u = torch.ones(2, 1, 64)
    u[0, 0, 0] = bad
    got = metric(torch.ones(2, 1, 64), u, LINE)
    assert math.isnan(got[0])
    assert got[1] == 0


def test_zero_truth() -> None:
    """Relative to nothing: the zero prediction is exact, every other infinitely wrong."""
    zero = torch.zeros(2, 1, 64)
    v = torch.stack([torch.zeros(1, 64), torch.full((1, 64), 1e-9)])
    for metric in (relative_l2, relative_h1):
        assert metric(v, zero, LINE).tolist() == [0.0, math.inf]


@pytest.mark.parametrize("placement", ["ends", "centres"])
def test_h1_on_walls_converges_at_second_order_to_the_integral(placement) -> None:
    r"""u = x³ - x, e = x²/10 on [0, 2]: int e² + e'² over int u² + u'², by hand."""
    above = 0.01 * (2**5 / 5 + 4 * 2**3 / 3)
    below = (2**7 / 7 - 2 * 2**5 / 5 + 2**3 / 3) + (9 * 2**5 / 5 - 6 * 2**3 / 3 + 2)
    exact = math.sqrt(above / below)

    def gap(n: int) -> float:
        grid = Grid((Axis("x", n, 0.0, 2.0, ("dirichlet", "dirichlet"), placement),))
        x = grid.mesh()[0][None, None]
        return abs(float(relative_h1(x**3 - x + x**2 / 10, x**3 - x, grid)) - exact)

    order = math.log2(gap(512) / gap(1024))
    assert abs(order - 2) < 0.15  # the one-sided ends leave a third-order part, still a tenth of the whole here


@pytest.mark.parametrize("placement", ["ends", "centres"])
def test_h1_differences_are_exact_on_parabolas_up_to_the_walls(placement) -> None:
    """u = x, e = x²: slopes 1 and 2 x at every node, one-sided ones included, under the grid's own quadrature."""
    grid = Grid((Axis("x", 7, 0.0, 2.0, ("dirichlet", "dirichlet"), placement),))
    x, weights = grid.mesh()[0], grid.weights()
    expected = math.sqrt(((x**4 + 4 * x**2) * weights).sum() / ((x**2 + 1) * weights).sum())
    assert float(relative_h1((x + x**2)[None, None], x[None, None], grid)) == pytest.approx(expected, rel=1e-12)


def test_h1_derivative_is_in_the_units_of_the_grid() -> None:
    """The same nodal values on an interval ten times as long have a tenth of the slope."""
    for boundary in ("periodic", "dirichlet"):
        values = []
        for length in (1.0, 10.0):
            grid = Grid.box(256, upper=length, boundary=boundary)
            s = grid.mesh()[0] / length
            u, e = torch.cos(TAU * s)[None, None], 0.1 * torch.cos(2 * TAU * s)[None, None]
            values.append(float(relative_h1(u + e, u, grid)))
        w = [TAU, TAU / 10]
        expected = [0.1 * math.sqrt((1 + 4 * k**2) / (1 + k**2)) for k in w]
        # differences of order 2: (k h)²/6 of each derivative, below 5e-4 with 256 nodes
        assert values == pytest.approx(expected, rel=1e-3 if boundary == "dirichlet" else 1e-12)


def test_h1_ignores_the_nyquist_mode_in_the_derivative() -> None:
    """(-1)^i has no slope at the nodes: its H1 error is its L2 error."""
    u = torch.ones(1, 1, 64)
    e = torch.tensor([0.1, -0.1]).repeat(32)[None, None]
    assert float(relative_h1(u + e, u, LINE)) == pytest.approx(0.1, rel=1e-6)  # float32 input


def test_the_table_holds_every_public_metric_and_nothing_else() -> None:
    assert list(metric_table()) == ["relative_l2", "relative_h1", "rmse", "maximum"]


def test_shapes_that_do_not_belong_are_refused() -> None:
    with pytest.raises(ValueError, match=r"own shape; got \(2, 1, 64\) and \(1, 1, 64\)"):
        doubles(torch.ones(2, 1, 64), torch.ones(1, 1, 64), LINE)
    with pytest.raises(ValueError, match=r"got \(1, 64\)"):
        relative_l2(torch.ones(1, 64), torch.ones(1, 64), LINE)
    with pytest.raises(ValueError, match="64"):
        relative_l2(torch.ones(1, 1, 32), torch.ones(1, 1, 32), LINE)
