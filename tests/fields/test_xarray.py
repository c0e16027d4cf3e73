"""Archives through xarray: lazy, like the stored values at nodes, and the field with exact derivatives anywhere."""

from __future__ import annotations

import math
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray
from resolvent.fields import series, siren
from resolvent.fields._archive import Archive, load_field, save_field
from resolvent.fields._compress import Request, compressed
from resolvent.fields._xarray import FieldBackend
from resolvent.pde import Axis, Channel, Grid

GRID = Grid((Axis("time", 7, 0.0, 1.0, ("outflow", "outflow"), "ends", "s"), Axis("x", 24, 0.0, 2.0, unit="m")))
U, V = Channel("u", "m s-1", "speed"), Channel("v")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """u = (1 + t²) sin(pi x) and v = 2 u, a series with a bound."""
    t, x = GRID.mesh()
    u = (1 + t * t) * torch.sin(math.pi * x)
    values = torch.stack([u, 2 * u]).numpy().astype(np.float32)
    save_field(tmp_path / "u.rfield", compressed(values, GRID, (U, V), series.field, Request(bound=1e-5)))
    return tmp_path / "u.rfield"


def opened(path: Path, **more: object) -> xarray.Dataset:
    return xarray.open_dataset(path, engine=FieldBackend, **more)  # type: ignore[arg-type]


def test_a_dataset_is_lazy_and_equal_to_the_archive_in_any_part(path: Path) -> None:
    dataset, archive = opened(path), load_field(path)
    assert not dataset.u.variable._in_memory
    assert dataset.sizes == {"time": 7, "x": 24}
    assert dataset.u.attrs == {"units": "m s-1", "long_name": "speed"}
    assert dataset.attrs["error_bound"] == 1e-5
    whole = archive.values()
    part = dataset.u.isel(time=[5, 1], x=slice(2, 20, 3))
    np.testing.assert_array_equal(part.values, whole[0][[5, 1]][:, 2:20:3])
    assert float(dataset.v.isel(time=-1, x=3)) == whole[1, -1, 3]
    np.testing.assert_array_equal(dataset.u.values, whole[0])
    np.testing.assert_allclose(dataset.x, GRID.axes[1].coordinates())
    assert list(opened(path, drop_variables="v").data_vars) == ["u"]
    np.testing.assert_array_equal(opened(path, chunks={"x": 7}).u.compute().values, whole[0])
    assert pickle.loads(pickle.dumps(dataset)).u.isel(x=1, time=1).item() == whole[0, 1, 1]


def test_the_field_knows_values_and_derivatives_between_the_nodes(path: Path) -> None:
    field = opened(path).field
    t, x = 0.37, np.array([0.31, 1.234])
    wave, slope = np.sin(math.pi * x), math.pi * np.cos(math.pi * x)
    near = {"rtol": 0, "atol": 2e-4}  # the bound, and its growth by derivatives
    np.testing.assert_allclose(field.sel(time=t, x=x).u, (1 + t * t) * wave, **near)
    np.testing.assert_allclose(field.d("x").sel(time=t, x=x).v, 2 * (1 + t * t) * slope, **near)
    np.testing.assert_allclose(field.d("time").sel(time=t, x=x).u, 2 * t * wave, rtol=0, atol=2e-3)
    np.testing.assert_allclose(field.d("x", "time").sel(time=t, x=x).u, 2 * t * slope, rtol=0, atol=1e-2)
    np.testing.assert_allclose(
        field.d("x").d("x").d("x").sel(time=t, x=x).u, -(math.pi**2) * (1 + t * t) * slope, rtol=0, atol=2e-2
    )
    bend = -(math.pi**2) * (1 + t * t) * wave
    np.testing.assert_allclose(field.laplacian().sel(time=t, x=x).u, bend, rtol=0, atol=5e-3)  # not along time
    both = field.laplacian("time", "x").sel(time=t, x=x).u
    np.testing.assert_allclose(both, bend + 2 * wave, rtol=0, atol=5e-2)
    assert field.d("x").sel(time=t, x=x).u.attrs["units"] == "m s-1 m-1"
    assert field.d("x").sel(time=t, x=x).v.attrs["units"] == "m-1"


def test_positions_are_an_outer_product_or_points_and_left_out_axes_are_their_nodes(path: Path) -> None:
    field = opened(path).field
    product = field.sel(time=[0.1, 0.9], x=[0.2, 0.4, 0.6])
    assert product.u.dims == ("time", "x")
    assert product.u.shape == (2, 3)
    along = {name: xarray.DataArray([0.1, 0.5], dims="station") for name in ("time", "x")}
    points = field.sel(**along)
    assert points.u.dims == ("station",)
    np.testing.assert_allclose(points.u[0], field.sel(time=0.1, x=0.1).u, rtol=1e-12)
    assert field.sel(time=0.5).u.sizes == {"x": 24}
    assert set(opened(path)[["u"]].field.sel(time=0.5).data_vars) == {"u"}


def test_positions_outside_are_refused_unless_asked_for(path: Path) -> None:
    field = opened(path).field
    with pytest.raises(ValueError, match=r"outside time in \[0, 1\]"):
        field.sel(time=1.5, x=0.0)
    assert np.isfinite(field.sel(time=1.5, x=0.0, extrapolate=True).u)
    np.testing.assert_allclose(field.sel(time=0.5, x=2.3).u, field.sel(time=0.5, x=0.3).u, rtol=1e-9)  # periodic
    with pytest.raises(ValueError, match="Axes of this field are time, x; got y"):
        field.sel(y=1.0)
    with pytest.raises(ValueError, match="Derivatives are by time, x; got z"):
        field.d("z")
    with pytest.raises(ValueError, match="does not come from"):
        xarray.Dataset({"a": ("x", [1.0])}).field.sel(x=0)


def test_archives_are_recognised_by_name_or_mark(path: Path, tmp_path: Path) -> None:
    backend = FieldBackend()
    other = tmp_path / "archive.bin"
    other.write_bytes(path.read_bytes())
    assert backend.guess_can_open(path)
    assert backend.guess_can_open(str(other))
    other.write_bytes(b"CDF\x01")
    assert not backend.guess_can_open(other)
    assert not backend.guess_can_open(tmp_path / "absent.nc")
    assert not backend.guess_can_open(3)


def test_a_trained_field_is_opened_in_four_dimensions(tmp_path: Path) -> None:
    grid = Grid(tuple(Axis(name, n) for name, n in zip("txyz", (3, 4, 5, 6), strict=True)))
    field = siren.field(grid, 2, width=8, layers=2)
    save_field(tmp_path / "u.rfield", Archive(field, (U, V), 16))
    dataset = opened(tmp_path / "u.rfield")
    assert dataset.u.isel(t=1, y=[0, 2]).shape == (4, 2, 6)
    assert dataset.field.laplacian().terms == (("x", "x"), ("y", "y"), ("z", "z"))
