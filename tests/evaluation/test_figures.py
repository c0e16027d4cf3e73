"""Pictures: what they show is read back from the artists; that they look well was judged by eye."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from resolvent.evaluation import figures
from resolvent.evaluation._panels import bracketed
from resolvent.evaluation.figures import close_up
from resolvent.pde import Axis, Channel, Grid, Signature

pytestmark = pytest.mark.filterwarnings("error")  # a warning of matplotlib is a flaw in the picture

CHANNEL = (Channel("w", "1/s", "vorticity w"),)
EVOLVES = Signature(CHANNEL, CHANNEL, 10, 0.5, "s")
STATIC = Signature((Channel("a", "m^2", "permeability a"),), (Channel("p", "Pa", "pressure p"),))
WALL = ("dirichlet", "dirichlet")
GRIDS = [
    Grid.box(12, unit="m"),
    Grid.box((12, 10), unit="m"),
    Grid((Axis("x", 9, 0.0, 8.0, WALL, "ends"), Axis("y", 5))),
    Grid.box((6, 5, 4)),
]


def texts(figure: Figure) -> list[str]:
    found = [
        t.get_text() for axes in figure.axes for t in (axes.title, axes.xaxis.label, axes.yaxis.label, *axes.texts)
    ]
    for legend in [*figure.legends, *(axes.get_legend() for axes in figure.axes)]:
        found += [t.get_text() for t in legend.get_texts()] if legend else []
    return [text for text in found if text]


def fields(grid: Grid, *lead: int) -> torch.Tensor:
    return torch.randn(*lead, *grid.shape, generator=torch.Generator().manual_seed(6))


@pytest.mark.parametrize("grid", GRIDS, ids=["1-D", "2-D", "walls", "3-D"])
def test_every_dimension_is_drawn_and_saved(grid: Grid, tmp_path: Path) -> None:
    u, a = fields(grid, 10, 1), fields(grid, 1)
    moving = figures.fields_figure(u[0], 1.1 * u, u, grid, EVOLVES, times=EVOLVES.times, title="moving")
    still = figures.fields_figure(a, 1.1 * a, a, grid, STATIC)
    for figure, said in ((moving, "vorticity w [1/s]"), (still, "pressure p [Pa]")):
        assert said in texts(figure)
        path = tmp_path / "deep" / "figure.png"
        figures.save(figure, path)
        assert path.read_bytes().startswith(b"\x89PNG")
    assert {"t = 0.5 s", "t = 2 s", "t = 3.5 s", "t = 5 s"} <= set(texts(moving))


def test_truth_and_prediction_share_the_scale_of_the_truth() -> None:
    """A prediction ten times too large saturates: it does not stretch the scale."""
    grid = GRIDS[1]
    u = fields(grid, 10, 1)
    figure = figures.fields_figure(u[0], 10 * u, u, grid, EVOLVES, times=EVOLVES.times)
    images = [axes.images[0] for axes in figure.axes if axes.images]
    assert len(images) == 12
    shown = u[[0, 3, 6, 9], 0].abs().max().item()
    for image in images[:8]:
        assert image.get_clim() == pytest.approx((-shown, shown))
        assert image.get_cmap().name == "RdBu_r"
    for image in images[8:]:  # the error: symmetric, its own scale
        assert image.get_clim() == pytest.approx((-9 * shown, 9 * shown), rel=1e-6)


def test_the_first_axis_is_horizontal_and_pixels_lie_at_their_nodes() -> None:
    """u = x on nodes at both ends, 8 m wide: rows of the image are equal, and the outer pixels are centred on the ends."""
    grid = GRIDS[2]
    x = grid.mesh()[0][None].float()
    figure = figures.fields_figure(x, x, x, grid, STATIC)
    image = figure.axes[0].images[0]
    np.testing.assert_array_equal(image.get_array()[0], image.get_array()[1])
    np.testing.assert_allclose(np.diff(image.get_array()[0]), 1.0)
    assert image.get_extent() == [-0.5, 8.5, 0.0, 1.0]
    assert image.origin == "lower"
    assert image.get_cmap().name == "viridis"  # one sign: sequential


def test_a_diverged_prediction_is_drawn_grey() -> None:
    grid = GRIDS[1]
    u = fields(grid, 10, 1)
    v = u.clone()
    v[5:] = math.nan
    figure = figures.fields_figure(u[0], v, u, grid, EVOLVES, times=EVOLVES.times)
    images = [axes.images[0] for axes in figure.axes if axes.images]
    assert [bool(np.ma.getmaskarray(image.get_array()).all()) for image in images[4:8]] == [False, False, True, True]
    figures.fields_figure(u[0], torch.full_like(u, math.nan), u, grid, EVOLVES, times=EVOLVES.times)
    line = fields(GRIDS[0], 10, 1)
    figures.fields_figure(line[0], torch.full_like(line, math.inf), line, GRIDS[0], EVOLVES, times=EVOLVES.times)


def test_fields_that_do_not_fit_are_refused() -> None:
    u = fields(GRIDS[1], 10, 1)
    with pytest.raises(ValueError, match=r"Expected fields of shape \(3, 1, 12, 10\), got \(10, 1, 12, 10\)"):
        figures.fields_figure(u[0], u, u, GRIDS[1], EVOLVES, times=(1.0, 2.0, 3.0))


def test_a_close_up_shows_few_waves_around_the_largest_error() -> None:
    """100 waves on 400 nodes, an error at node 300: a window of 8 waves, 32 cells, around it."""
    grid = Grid.box(400, upper=2.0, dim=1, boundary="dirichlet", unit="m")
    x = grid.coordinates()[0]
    truth = torch.sin(100 * math.pi * x)[None]
    prediction = truth.clone()
    prediction[0, 300] += 1e-6
    found = close_up(prediction, truth, grid)
    assert found is not None
    part, (window,) = found
    assert window.start <= 300 < window.stop
    assert abs((window.stop - window.start) - 33) <= 2  # the weighted mean of wavenumbers is 100 within a few percent
    torch.testing.assert_close(part.coordinates()[0], x[window], rtol=0, atol=1e-12)
    assert part.axes[0].unit == "m"
    assert close_up(prediction, torch.sin(2 * math.pi * x)[None], grid) is None


@pytest.mark.parametrize("dim", [2, 3])
def test_a_close_up_in_every_direction(dim: int) -> None:
    """Lost values and errors in a corner leave the window whole and inside."""
    grid = Grid.box((120, 100, 4)[:dim], dim=dim)
    truth = torch.sin(2 * math.pi * 50 * grid.mesh()[0])[None]
    prediction = truth.clone()
    prediction[(0,) * (dim + 1)] = math.nan
    prediction[(0, *(-1,) * dim)] += 1
    found = close_up(prediction, truth, grid)
    assert found is not None
    part, windows = found
    assert truth[0][windows].shape == part.shape
    assert all(window.stop == size for window, size in zip(windows, grid.shape, strict=True))


def test_spectra_show_all_but_the_mean() -> None:
    k = np.arange(20)
    energy = 1.0 / (1 + k) ** 4
    figure = figures.spectra_figure(k, energy, energy * 0.9, energy * 0.01, cutoff=14.0)
    axes = figure.axes[0]
    assert (axes.get_xscale(), axes.get_yscale()) == ("log", "log")
    for line, expected in zip(axes.lines, (energy, energy * 0.9, energy * 0.01), strict=True):
        np.testing.assert_array_equal(line.get_xdata(), k[1:])
        np.testing.assert_allclose(line.get_ydata(), expected[1:])
    assert {"truth", "prediction", "error", "corners of the spectrum"} <= set(texts(figure))


def test_spectra_of_a_diverged_prediction_say_so(tmp_path: Path) -> None:
    k = np.arange(5)
    lost = np.full(5, np.inf)
    figure = figures.spectra_figure(k, np.ones(5), lost, lost)
    assert {"prediction (not finite)", "error (not finite)"} <= set(texts(figure))
    figures.save(figure, tmp_path / "a.png")
    figures.save(figures.spectra_figure(k, np.zeros(5), np.zeros(5), np.zeros(5)), tmp_path / "b.png")


def test_rollout_draws_median_and_quartiles() -> None:
    """Samples 1, 2, 3, 4, 100: median 3, quartiles 2 and 4, whatever the last does."""
    values = np.array([1.0, 2.0, 3.0, 4.0, 100.0])[:, None] * np.ones(6)
    lost = values.copy()
    lost[4, 3:] = np.nan
    figure = figures.rollout_figure([0.5 * i for i in range(1, 7)], {"mgno": values, "fno": lost}, time_unit="s")
    axes = figure.axes[0]
    for line in axes.lines:
        np.testing.assert_allclose(line.get_ydata(), 3.0)
    for band in axes.collections:
        heights = band.get_paths()[0].vertices[:, 1]
        assert {round(float(h), 9) for h in heights} == {2.0, 4.0}
    assert {"mgno", "fno\n(1 of 5 diverged)", "time after the start  [s]"} <= set(texts(figure))
    assert len({line.get_color() for line in axes.lines}) == len({line.get_marker() for line in axes.lines}) == 2


def test_a_rollout_of_which_most_samples_are_lost_ends_there() -> None:
    values = np.ones((5, 4))
    values[:3, 2:] = np.inf
    line = figures.rollout_figure([1.0, 2.0, 3.0, 4.0], {"m": values}).axes[0].lines[0]
    np.testing.assert_array_equal(np.isfinite(line.get_ydata()), [True, True, False, False])


def test_training_draws_what_was_measured(tmp_path: Path) -> None:
    rows = [
        {"epoch": i, "train": 1 / i, "learning_rate": 1e-3, **({"validation": 2 / i} if i % 2 else {})}
        for i in range(1, 8)
    ]
    figure = figures.training_figure(rows)
    train, validation = figure.axes[0].lines
    np.testing.assert_allclose(train.get_ydata(), [1 / i for i in range(1, 8)])
    np.testing.assert_array_equal(validation.get_xdata(), [1, 3, 5, 7])
    figures.save(figures.training_figure(rows[1:2]), tmp_path / "one.png")
    with pytest.raises(ValueError, match="history is empty"):
        figures.training_figure([])


LADDER = [("a", 1e-1, 1.0), ("worse", 2e-1, 2.0), ("b", 1e-3, 16.0), ("lost", math.nan, 1.0), ("exact", 0.0, 99.0)]


def test_cost_joins_the_frontier_and_names_the_models(tmp_path: Path) -> None:
    models = {"mgno": (1e-2, 0.5), "fno": (1.1e-2, 0.5), "blown": (math.inf, 0.5)}
    figure = figures.cost_figure(LADDER, models)
    best, rest, *points = figure.axes[0].lines
    assert list(best.get_xdata()) == [1.0, 16.0]
    assert list(rest.get_xdata()) == [2.0]
    assert [(*p.get_xdata(), *p.get_ydata()) for p in points] == [(0.5, 1e-2), (0.5, 1.1e-2)]
    assert {"mgno", "fno", "a", "b"} <= set(texts(figure))
    assert "blown" not in texts(figure)
    figures.save(figure, tmp_path / "cost.png")


def test_labels_of_neighbours_do_not_overlap() -> None:
    models = {f"model {i}": (1e-2 * (1 + i / 50), 0.5) for i in range(5)}
    figure = figures.cost_figure(LADDER, models)
    boxes = [text.get_window_extent() for text in figure.axes[0].texts]
    assert len(boxes) == 7
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[i + 1 :])


def test_cost_without_a_ladder_or_without_models(tmp_path: Path) -> None:
    figures.save(figures.cost_figure([], {"mgno": (1e-2, 0.5)}), tmp_path / "a.png")
    figures.save(figures.cost_figure(LADDER, {}), tmp_path / "b.png")


def test_nothing_to_show_is_still_a_picture(tmp_path: Path) -> None:
    """Exact or lost everywhere: a logarithmic axis has no place for it, and nothing fails."""
    for value in (0.0, math.inf):
        one = figures.rollout_figure([1.0, 2.0], {"m": np.full((3, 2), value)})
        two = figures.cost_figure([], {"m": (value, 0.5)})
        three = figures.training_figure([{"epoch": 1, "train": value, "learning_rate": 0.0}])
        for figure in (one, two, three):
            figures.save(figure, tmp_path / "a.png")


def test_units() -> None:
    assert [bracketed(unit) for unit in ("1", "m", "m^2/s", "s^-10")] == ["", "[m]", "[m²/s]", "[s⁻¹⁰]"]


def test_nothing_global_is_touched() -> None:
    """No pyplot, so no figure manager and no window system, in a fresh interpreter."""
    code = (
        "import sys, matplotlib\n"
        "before = repr(matplotlib.rcParams.copy())\n"  # reading the backend out of rcParams would itself import pyplot
        "from resolvent.evaluation import figures\n"
        "figures.training_figure([{'epoch': 1, 'train': 1.0, 'learning_rate': 1e-3}]).draw_without_rendering()\n"
        "assert 'matplotlib.pyplot' not in sys.modules and repr(matplotlib.rcParams.copy()) == before"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
