"""Sensors see what is there, with the noise that is stated; files come back the same; what makes no sense is refused."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import xarray
from resolvent.data import Dataset
from resolvent.data._points import at_points
from resolvent.data._sensors import observe
from resolvent.data.observations import Observations
from resolvent.pde import Axis, Channel, Grid, Signature

GRID = Grid.box((9, 7), upper=(2.0, 1.0), boundary="dirichlet", unit="m")
STATIC = Signature((Channel("a", "W"),), (Channel("u", "K"), Channel("v", "m s-1")))


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def static():
    x, y = GRID.mesh()
    u, v = 1 + x + 2 * y, x * y
    fields = torch.stack([u, v])[None].float()
    return Dataset.from_tensors(u[None, None].float(), fields, grid=GRID, signature=STATIC)


@pytest.fixture
def evolving():
    """u = t + x on a periodic-free line, frames half a second apart."""
    state = (Channel("u", "K"),)
    grid, signature = Grid.box(11, boundary="neumann"), Signature(state, state, 4, 0.5, "s")
    x = grid.mesh()[0].float()
    frames = torch.stack([x + t for t in signature.times])[None, :, None]
    return Dataset.from_tensors(x[None, None], frames, grid=grid, signature=signature)


@pytest.mark.parametrize(
    "grid",
    [
        Grid.box((5, 4), upper=(2.0, 3.0), boundary="dirichlet"),
        Grid.box((5, 4), boundary="neumann", placement="centres"),
        Grid((Axis("x", 6, -1.0, 1.0, ("dirichlet", "neumann"), "ends"),)),
    ],
    ids=["ends", "centres", "line"],
)
def test_multilinear_functions_are_interpolated_exactly(grid):
    """A product of linear functions is its own multilinear interpolant, beyond the last centres too."""
    points = torch.rand(50, grid.dim, generator=generator(), dtype=torch.float64)
    low = torch.tensor([axis.lower for axis in grid.axes], dtype=torch.float64)
    points = low + points * torch.tensor(grid.lengths, dtype=torch.float64)
    values = (2 - 3 * grid.mesh()).prod(dim=0)
    torch.testing.assert_close(at_points(values, grid, points), (2 - 3 * points).prod(dim=1), rtol=0, atol=1e-12)


def test_interpolation_closes_a_periodic_axis_and_is_of_second_order():
    """sin on 32 and 64 nodes, points in the last cell among them: a quarter of the error."""
    points = torch.cat([torch.linspace(0, 1, 101), torch.tensor([0.999])]).double()[:, None]
    errors = []
    for nodes in (32, 64):
        grid = Grid.box(nodes)
        found = at_points(torch.sin(2 * math.pi * grid.mesh()[0]), grid, points)
        errors.append(float((found - torch.sin(2 * math.pi * points[:, 0])).abs().max()))
    assert errors[0] < (2 * math.pi / 32) ** 2 / 8 * 1.01  # h²/8 max |u''|
    assert 3.8 < errors[0] / errors[1] < 4.2


def test_sensors_stand_on_distinct_nodes_and_see_them(static):
    seen = observe(static, 0, sensors=40, snr=200.0, generator=generator())
    assert len({tuple(point) for point in seen.points.tolist()}) == 40
    torch.testing.assert_close(seen.values, 1 + seen.points[:, 0] + 2 * seen.points[:, 1], rtol=0, atol=1e-6)
    assert seen.field == "u"
    assert seen.units["u"] == "K"
    assert seen.units["x"] == "m"


def test_the_noise_has_the_stated_strength(static):
    """10 dB is a tenth of the mean square; 63 errors of a standard normal law have a variance within 4 deviations."""
    seen = observe(static, 0, sensors=63, snr=10.0, generator=generator())
    truth = 1 + seen.points[:, 0] + 2 * seen.points[:, 1]
    x, y = GRID.mesh()
    expected = float((1 + x + 2 * y).square().mean()) / 10
    assert seen.noise == pytest.approx(math.sqrt(expected), rel=1e-6)
    ratio = float((seen.values - truth).square().mean()) / expected
    assert abs(ratio - 1) < 4 * math.sqrt(2 / 63)


def test_a_lattice_is_even(static):
    """3 by 2 boxes of a rectangle twice as long as wide hold their nearest node each."""
    seen = observe(static, 0, sensors=6, layout="grid", generator=generator())
    assert len(seen) in (6, 8)
    assert len(seen.points[:, 0].unique()) * len(seen.points[:, 1].unique()) == len(seen)
    assert 0 < float(seen.points[:, 0].min()) < float(seen.points[:, 0].max()) < 2


def test_given_points_are_interpolated(static):
    at = torch.tensor([[0.3, 0.4], [1.9, 0.05]], dtype=torch.float64)
    seen = observe(static, 0, at=at, snr=200.0, field="v", generator=generator())
    torch.testing.assert_close(seen.values, at.prod(dim=1), rtol=0, atol=1e-6)


def test_an_evolution_is_observed_in_time(evolving):
    """u = x + t, the initial state among the frames; given points lie between frames too."""
    seen = observe(evolving, 0, sensors=55, snr=200.0, generator=generator())  # every node of every frame
    torch.testing.assert_close(seen.values, seen.points[:, 0] + seen.times, rtol=0, atol=1e-5)
    assert seen.times.min() == 0
    assert seen.times.max() == 2
    at = torch.tensor([[0.31, 0.7], [0.62, 2.0]], dtype=torch.float64)
    given = observe(evolving, 0, at=at, snr=200.0, generator=generator())
    torch.testing.assert_close(given.values, at.sum(dim=1), rtol=0, atol=1e-5)
    places = given.places(evolving.signature, evolving.grid)
    torch.testing.assert_close(places, at, rtol=0, atol=0)


@pytest.mark.parametrize("known", [True, False])
def test_files_come_back_the_same(tmp_path, static, evolving, known):
    for data in (static, evolving):
        seen = observe(data, 0, sensors=5, known=known, generator=generator())
        seen.save(tmp_path / "obs.nc")
        back = Observations.load(tmp_path / "obs.nc")
        for name in ("points", "values", "times"):
            if getattr(seen, name) is not None:
                torch.testing.assert_close(getattr(back, name), getattr(seen, name), rtol=0, atol=0)
        assert (back.field, back.noise, back.axes) == (seen.field, seen.noise, seen.axes)
        assert back.fingerprint == seen.fingerprint
        assert back.source == seen.source
        assert (back.noise is None) == (not known)
        for name, values in seen.truth.fields().items():
            torch.testing.assert_close(back.truth.fields()[name], values, rtol=0, atol=0)
        assert back.truth.grid == data.grid
        torch.testing.assert_close(back.truth.inputs, data.read([0])[0][0], rtol=0, atol=0)
        torch.testing.assert_close(back.truth.outputs, data.read([0])[1][0], rtol=0, atol=0)


def test_the_fingerprint_is_that_of_the_question(static):
    """What is inferred does not depend on the truth, so neither does the fingerprint."""
    seen = observe(static, 0, sensors=5, generator=generator())
    alone = Observations("u", seen.points, seen.values, seen.noise)
    assert alone.fingerprint == seen.fingerprint
    assert Observations("v", seen.points, seen.values, seen.noise).fingerprint != seen.fingerprint
    assert Observations("u", seen.points, seen.values).fingerprint != seen.fingerprint


def test_a_plain_file_of_a_user_is_read(tmp_path):
    held = xarray.Dataset({"u": ("point", [1.0, 2.0]), "y": ("point", [0.1, 0.2]), "x": ("point", [0.3, 0.4])})
    held.to_netcdf(tmp_path / "mine.nc", engine="h5netcdf")
    seen = Observations.load(tmp_path / "mine.nc")
    assert seen.axes == ("x", "y")
    assert seen.noise is None
    assert seen.points.tolist() == [[0.3, 0.1], [0.4, 0.2]]


def changed(**changes):
    values = {"field": "u", "points": torch.tensor([[0.5, 0.5]]), "values": torch.tensor([1.0]), "noise": 0.1}
    return Observations(**{**values, **changes})


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"noise": 0.0}, "positive standard deviation"),
        ({"noise": -1.0}, "positive standard deviation"),
        ({"noise": math.inf}, "positive standard deviation"),
        ({"values": torch.tensor([math.nan])}, "Non-finite values"),
        ({"points": torch.tensor([[0.5, math.inf]])}, "Non-finite positions"),
        ({"points": torch.zeros(0, 2), "values": torch.zeros(0)}, "at least 1 point"),
        ({"axes": ("x",)}, "one name each"),
        ({"times": torch.zeros(3)}, "one value"),
    ],
)
def test_nonsense_is_refused(changes, said, unchecked):
    with pytest.raises(ValueError, match=said):
        changed(**changes)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"field": "w"}, "Unknown field 'w'.*known: u, v, a"),
        ({"points": torch.tensor([[2.1, 0.5]])}, r"outside the domain: x is in \[0, 2\], point 0 has x = 2.1"),
        ({"points": torch.tensor([[1.0]]), "axes": ("x",)}, "need the coordinates"),
        ({"times": torch.tensor([1.0])}, "does not depend on time"),
    ],
)
def test_what_a_problem_cannot_have_is_refused(changes, said):
    with pytest.raises(ValueError, match=said):
        changed(**changes).places(STATIC, GRID)


def test_times_of_an_evolution_are_asked_for(evolving):
    alone = Observations("u", torch.tensor([[0.5]]), torch.tensor([1.0]), 0.1)
    with pytest.raises(ValueError, match="need a time each"):
        alone.places(evolving.signature, evolving.grid)
    late = Observations("u", torch.tensor([[0.5]]), torch.tensor([1.0]), 0.1, torch.tensor([2.5]))
    with pytest.raises(ValueError, match="time is in"):
        late.places(evolving.signature, evolving.grid)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"sensors": 0}, "Between 1 and 63 sensors"),
        ({"sensors": 64}, "Between 1 and 63 sensors"),
        ({"snr": math.inf}, "finite number of decibels"),
        ({"field": "w"}, "no field 'w'"),
        ({"at": torch.tensor([[3.0, 0.0]])}, "outside the domain"),
        ({"at": torch.tensor([[3.0]])}, "given by 2 numbers"),
    ],
)
def test_observing_nonsense_is_refused(static, options, said, unchecked):
    with pytest.raises(ValueError, match=said):
        observe(static, 0, generator=generator(), **options)


def test_a_field_of_zeros_has_no_signal():
    zero = torch.zeros(1, 1, 9, 7)
    data = Dataset.from_tensors(zero, torch.zeros(1, 2, 9, 7), grid=GRID, signature=STATIC)
    with pytest.raises(ValueError, match="no signal"):
        observe(data, 0, sensors=3, generator=generator())


def test_files_that_hold_no_observations_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="no file"):
        Observations.load(tmp_path / "none.nc")
    xarray.Dataset({"u": ("x", np.zeros(3))}).to_netcdf(tmp_path / "field.nc", engine="h5netcdf")
    with pytest.raises(ValueError, match="does not hold observations: expected one field"):
        Observations.load(tmp_path / "field.nc")
    (tmp_path / "words.nc").write_text("words")
    with pytest.raises(ValueError, match="does not hold observations"):
        Observations.load(tmp_path / "words.nc")
    bad = xarray.Dataset({"u": ("point", [1.0]), "x": ("point", [0.1]), "noise": -0.5})
    bad.to_netcdf(tmp_path / "bad.nc", engine="h5netcdf")
    with pytest.raises(ValueError, match="positive standard deviation"):
        Observations.load(tmp_path / "bad.nc")
