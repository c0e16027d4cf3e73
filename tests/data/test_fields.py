"""Fields go out with coordinates and come back the same; what does not fit is refused with reasons."""

import numpy as np
import pytest
import torch
import xarray
from resolvent.data import load_fields, save_fields
from resolvent.data.fields import from_xarray, to_xarray
from resolvent.pde import Channel, Grid

A, B = Channel("a", "m", "height"), Channel("b", "K")
GRID = Grid.box((6, 4), upper=(1.0, 2.0), unit="m")
VALUES = torch.randn(3, 2, 6, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.fixture
def path(tmp_path):
    save_fields(tmp_path / "a.nc", VALUES, [A, B], GRID, attributes={"model": "none"})
    return tmp_path / "a.nc"


def changed(path, change):
    held = change(xarray.load_dataset(path))
    held.to_netcdf(path.with_name("changed.nc"), engine="h5netcdf")
    return path.with_name("changed.nc")


def test_round_trip(path):
    values, grid = load_fields(path, [B, A], GRID.at(3), dtype=torch.float64)
    assert grid == GRID
    torch.testing.assert_close(values, VALUES[:, [1, 0]], rtol=0, atol=0)
    assert load_fields(path, [A], GRID)[0].dtype == torch.float32


def test_what_is_written_has_coordinates_and_units(path):
    held = xarray.open_dataset(path)
    assert held["a"].dims == ("sample", "x", "y")
    assert held["a"].attrs == {"units": "m", "long_name": "height"}
    assert held.attrs["model"] == "none"
    np.testing.assert_array_equal(held["y"].values, GRID.axes[1].coordinates().numpy())


def test_frames_carry_their_times(tmp_path):
    frames = torch.stack([VALUES, 2 * VALUES], dim=1)
    save_fields(tmp_path / "u.nc", frames, [A, B], GRID, times=(0.5, 1.0), time_unit="seconds")
    held = xarray.open_dataset(tmp_path / "u.nc")
    assert held["time"].values.tolist() == [0.5, 1.0]
    np.testing.assert_array_equal(held["b"].sel(time=1.0).values, 2 * VALUES[:, 1].numpy())
    in_memory = to_xarray(frames, [A, B], GRID, times=(0.5, 1.0), time_unit="seconds")
    xarray.testing.assert_identical(in_memory, held.drop_attrs(deep=False))


def test_one_instance_needs_no_sample_dimension_and_order_is_free(path):
    single = changed(path, lambda held: held.isel(sample=1, drop=True).transpose("y", "x"))
    values, _ = load_fields(single, [A, B], GRID, dtype=torch.float64)
    torch.testing.assert_close(values, VALUES[1:2], rtol=0, atol=0)


def test_coordinates_in_single_precision_are_good_enough(path):
    rounded = changed(path, lambda held: held.assign_coords(x=held["x"].astype("f4"), y=held["y"].astype("f4")))
    assert load_fields(rounded, [A, B], GRID)[1] == GRID


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda h: h.rename(a="height"), r"expected variables \['a', 'b'\].*got .*height \{'sample': 3"),
        (lambda h: h.rename(x="lon"), r"expected real 'a' with dims \(sample, x, y\)"),
        (lambda h: h.expand_dims(time=[0.0]), r"Choose one frame: \.isel\(time=0\)"),
        (lambda h: h.drop_vars("x"), r"'x' needs its coordinates, 6 even steps from 0 to 0\.833333"),
        (lambda h: h.assign_coords(x=np.linspace(0, 1, 6)), r"'x' must be 6 even steps from 0 to 0\.8333.*to 1\."),
        (lambda h: h.assign_coords(x=h["x"] ** 2), r"'x' must be 6 even steps"),
        (lambda h: h.where(h["sample"] != 2), r"non-finite values at sample\(s\) \[2\]"),
    ],
    ids=["names", "dims", "time", "no coordinates", "other ends", "uneven", "nan"],
)
def test_what_does_not_fit_is_refused_with_reasons(path, change, message):
    with pytest.raises(ValueError, match=message) as caught:
        load_fields(changed(path, change), [A, B], GRID)
    assert "changed.nc" in str(caught.value)


def test_from_xarray_takes_what_to_xarray_gives():
    values, grid = from_xarray(to_xarray(VALUES, [A, B], GRID), [A, B], GRID.at(9), dtype=torch.float64)
    assert grid == GRID
    torch.testing.assert_close(values, VALUES, rtol=0, atol=0)


def test_files_that_are_none(tmp_path):
    with pytest.raises(FileNotFoundError):
        load_fields(tmp_path / "absent.nc", [A], GRID)
    (tmp_path / "text.nc").write_text("no")
    with pytest.raises(ValueError, match=r"text\.nc cannot be opened"):
        load_fields(tmp_path / "text.nc", [A], GRID)


def test_a_wrong_shape_is_not_written(tmp_path):
    with pytest.raises(ValueError, match=r"Expected fields of shape \(3, 2, 5, 5\), got \(3, 2, 6, 4\)"):
        save_fields(tmp_path / "u.nc", VALUES, [A, B], GRID.at(5))
    assert list(tmp_path.iterdir()) == []
