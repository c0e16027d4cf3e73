"""Foreign netCDF is read where it says enough, and refused with what was expected and what came."""

import json

import h5py
import numpy as np
import pytest
import torch
import xarray
from resolvent.data import UnknownFormat, generate, read
from resolvent.data.formats import formats
from resolvent.pde import Axis

RNG = np.random.default_rng(0)
X = np.arange(5) / 5
Y = np.linspace(-1, 1, 3)


def axis(values, name, **attributes):
    return (name, values, {"units": "m", **attributes})


PERIODIC_X = axis(X, "x", boundary="periodic periodic", placement="left")
WALLED_Y = axis(Y, "y", boundary="dirichlet neumann", placement="ends")


def evolution(**changes):
    u = RNG.normal(size=(4, 3, 5, 3))
    held = {
        "data_vars": {"u": (("sample", "time", "x", "y"), u, {"units": "K", "long_name": "temperature"})},
        "coords": {"x": PERIODIC_X, "y": WALLED_Y, "time": ("time", [2.0, 2.5, 3.0], {"units": "h"})},
        "attrs": {"problem": "heated", "parameters": json.dumps({"nu": 0.1})},
    }
    return xarray.Dataset(**{**held, **changes})


def static():
    dims = ("sample", "x", "y")
    a, u = RNG.normal(size=(2, 4, 5, 3))
    variables = {"u": (dims, u, {"role": "output"}), "a": (dims, a, {"role": "input"})}
    return xarray.Dataset(variables, {"x": PERIODIC_X, "y": WALLED_Y})


def saved(held, path, **options):
    held.to_netcdf(path, engine="h5netcdf", **options)
    return path


def test_an_evolution_of_another_tool(tmp_path):
    held = evolution()
    data = read(saved(held, tmp_path / "foreign.nc"))
    assert (data.problem, data.parameters) == ("heated", {"nu": 0.1})
    assert data.grid.axes[0] == Axis("x", 5, 0.0, 1.0, ("periodic", "periodic"), "left", "m")
    assert data.grid.axes[1] == Axis("y", 3, -1.0, 1.0, ("dirichlet", "neumann"), "ends", "m")
    assert (data.signature.frames, data.signature.spacing, data.signature.time_unit) == (2, 0.5, "h")
    assert str(data.signature.outputs[0]) == "temperature [K]"
    inputs, outputs = data.read([3, 1])
    np.testing.assert_array_equal(inputs[:, 0].numpy(), held["u"].values[[3, 1], 0].astype(np.float32))
    np.testing.assert_array_equal(outputs[:, :, 0].numpy(), held["u"].values[[3, 1], 1:].astype(np.float32))


def test_a_static_map_knows_its_sides_by_their_role(tmp_path):
    held = static()
    data = read(saved(held, tmp_path / "foreign.nc"))
    assert [c.name for c in data.signature.inputs] == ["a"]
    assert [c.name for c in data.signature.outputs] == ["u"]
    np.testing.assert_array_equal(data.read([2])[0][0, 0].numpy(), held["a"].values[2].astype(np.float32))


def test_the_order_of_dimensions_does_not_matter(tmp_path):
    held = evolution()
    turned = read(saved(held.transpose("x", "y", "time", "sample"), tmp_path / "turned.nc"))
    straight = read(saved(held, tmp_path / "straight.nc"))
    by_name = {axis.name: axis for axis in straight.grid.axes}
    assert [by_name[axis.name] for axis in turned.grid.axes] == list(turned.grid.axes)
    assert torch.equal(turned.read([1])[1], straight.read([1])[1])


def test_netcdf3_is_netcdf(tmp_path):
    held = evolution()
    held.to_netcdf(tmp_path / "classic.data", engine="scipy")
    held = xarray.load_dataset(tmp_path / "classic.data", engine="scipy", decode_times=False)
    assert torch.equal(
        read(tmp_path / "classic.data").trajectories([0])[0, :, 0], torch.from_numpy(held["u"].values[0]).float()
    )


def test_one_of_our_shards_is_a_file_of_its_own(tmp_path, evolving, small_shards):
    data = generate(evolving(), resolution=6, count=6, cache=tmp_path, workers=1)
    (path,) = tmp_path.glob("*/shard-00001.nc")
    shard = read(path)
    assert (shard.grid, shard.signature, shard.problem) == (data.grid, data.signature, data.problem)
    assert torch.equal(shard.trajectories([0, 1]), data.trajectories([4, 5]))
    held = shard.in_memory()
    moved = path.rename(path.with_name("renamed.h5"))
    assert torch.equal(read(moved).trajectories([1]), held.trajectories([1]))


def test_without_a_boundary_the_reader_says_what_it_takes(tmp_path):
    held = evolution(coords={"x": axis(X, "x"), "y": WALLED_Y, "time": ("time", [0.0, 1.0, 2.0])})
    with pytest.warns(UserWarning, match="coordinate 'x' has no attribute 'boundary'.*outflow"):
        data = read(saved(held, tmp_path / "bare.nc"))
    assert data.grid.axes[0] == Axis("x", 5, 0.0, 0.8, ("outflow", "outflow"), "ends", "m")


def test_cell_centres_reach_half_a_cell_beyond_the_nodes(tmp_path):
    centred = axis(np.arange(4) + 0.5, "x", boundary="neumann neumann", placement="centres")
    held = xarray.Dataset({"u": (("sample", "time", "x"), np.zeros((1, 2, 4)))}, {"x": centred, "time": [0.0, 1.0]})
    assert read(saved(held, tmp_path / "c.nc")).grid.axes[0] == Axis(
        "x", 4, 0.0, 4.0, ("neumann", "neumann"), "centres", "m"
    )


def uneven():
    return evolution(coords={"x": axis(X**2, "x"), "y": WALLED_Y, "time": ("time", [0.0, 1.0, 2.0])})


def no_roles():
    held = static()
    held["a"].attrs.clear()
    return held


def mixed():
    held = evolution()
    return held.assign(a=held["u"].isel(time=0))


@pytest.mark.parametrize(
    ("held", "message"),
    [
        pytest.param(evolution().rename(sample="n"), r"dimensions sample.*the file has u \{'n': 4", id="dims"),
        pytest.param(evolution().isel(x=0, y=0, time=0), r"dimensions sample", id="no space, no time"),
        pytest.param(evolution().drop_vars("x"), "'x' needs a coordinate", id="no coordinate"),
        pytest.param(uneven(), "'x' must be evenly spaced", id="uneven"),
        pytest.param(no_roles(), "role = 'input' or 'output'", id="roles"),
        pytest.param(mixed(), "all have the dimensions", id="mixed"),
        pytest.param(evolution().isel(time=[0]), "at least 2 frames", id="one frame"),
        pytest.param(evolution(attrs={"parameters": "nu=1"}), "must be a JSON object, it is 'nu=1'", id="parameters"),
        pytest.param(xarray.Dataset(), "the file has no variables", id="empty"),
    ],
)
@pytest.mark.filterwarnings("ignore:.*no attribute 'boundary'")
def test_what_does_not_fit_is_refused_with_reasons(tmp_path, held, message):
    path = saved(held, tmp_path / "bad.nc")
    with pytest.raises(ValueError, match=message) as caught:
        read(path)
    assert "bad.nc" in str(caught.value)


def test_nan_is_found_when_it_is_read(tmp_path):
    held = evolution()
    held["u"].values[2, 1, 0, 0] = np.nan
    data = read(saved(held, tmp_path / "nan.nc"))
    data.read([0, 1])
    with pytest.raises(ValueError, match=r"nan.nc: non-finite values in u at sample\(s\) \[2\]"):
        data.read([1, 2])


def test_files_of_no_known_kind_are_described(tmp_path):
    with h5py.File(tmp_path / "other.hdf5", "w") as file:
        file["deep/tensor"] = np.zeros((7, 3))
    with pytest.raises(UnknownFormat, match=r"deep/tensor \(7, 3\)[\s\S]*netcdf: A netCDF file with dimensions"):
        read(tmp_path / "other.hdf5")
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(UnknownFormat, match="5 bytes beginning with b'hello'"):
        read(tmp_path / "notes.txt")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "case.json").touch()
    with pytest.raises(UnknownFormat, match=r"a folder with case\.json"):
        read(tmp_path / "folder")
    with pytest.raises(FileNotFoundError, match="There is no file"):
        read(tmp_path / "absent.nc")
    (tmp_path / "cut.nc").write_bytes(b"\x89HDF\r\n\x1a\n half")
    with pytest.raises(ValueError, match=r"cut\.nc cannot be opened"):
        read(tmp_path / "cut.nc")


def test_every_format_says_what_it_is():
    assert {"folder", "netcdf"} <= set(formats())
    for module in formats().values():
        assert module.__doc__
        assert callable(module.matches)
        assert callable(module.read)
