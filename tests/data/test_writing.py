"""Written and read back bit for bit, and laid out as the other side expects it."""

import json
import tracemalloc
import warnings

import h5py
import numpy as np
import pytest
import scipy.io
import torch
import xarray
from resolvent.data import Dataset, generate, read
from resolvent.data.formats import Assumption, formats, write, writers
from resolvent.data.formats._foreign import ABOUT
from resolvent.pde import Axis, Channel, Grid, Signature

WALLED = Axis("y", 5, -1.0, 2.0, ("dirichlet", "outflow"), "centres", "m")


def random(*shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)))


def evolution(dim, names, axes=None, count=5):
    grid = Grid(axes) if axes else Grid.box(6, dim=dim, upper=2.0)
    state = tuple(Channel(name, "m/s", f"the {name}") for name in names)
    return Dataset.from_tensors(
        random(count, len(names), *grid.shape),
        random(count, 3, len(names), *grid.shape),
        grid=grid,
        signature=Signature(state, state, frames=3, spacing=0.25, time_unit="s"),
        problem="flow",
        parameters={"nu": 0.1, "law": "wavy"},
    )


def static(dim, inputs, outputs):
    grid = Grid.box(7, dim=dim, boundary="dirichlet")
    sides = [tuple(Channel(f"{name}{i}") for i in range(count)) for name, count in (("a", inputs), ("b", outputs))]
    given, solved = (random(5, len(side), *grid.shape) for side in sides)
    return Dataset.from_tensors(given, solved, grid=grid, signature=Signature(*sides), problem="map")


ALL = ("netcdf", "zarr")
CASES = {
    "1-D scalar": (evolution(1, ["u"]), (*ALL, "apebench", "fno_mat", "neuralop", "pdebench", "the_well")),
    "1-D system": (evolution(1, ["u", "v"]), (*ALL, "apebench", "pdebench", "the_well")),
    "2-D scalar": (evolution(2, ["w"]), (*ALL, "apebench", "fno_mat", "pdebench", "the_well")),
    "2-D vector": (evolution(2, ["p", "v_x", "v_y"]), (*ALL, "apebench", "pdebench", "the_well")),
    "2-D gas": (evolution(2, ["density", "pressure", "Vx", "Vy"]), (*ALL, "apebench", "pdebench", "the_well")),
    "2-D walls": (evolution(2, ["u", "v"], (Axis("x", 4), WALLED)), (*ALL, "pdebench", "the_well")),
    "3-D scalar": (evolution(3, ["u"]), (*ALL, "apebench", "pdebench", "the_well")),
    "1-D map": (static(1, 1, 1), (*ALL, "fno_mat", "neuralop")),
    "2-D map": (static(2, 1, 1), (*ALL, "fno_mat", "neuralop", "pdebench")),
    "2-D fields": (static(2, 2, 3), (*ALL, "neuralop")),
    "3-D map": (static(3, 1, 1), (*ALL, "neuralop")),
}
PAIRS = [pytest.param(CASES[case][0], name, id=f"{case}-{name}") for case in CASES for name in CASES[case][1]]
REFUSED = [
    pytest.param(CASES[case][0], name, id=f"{case}-{name}")
    for case in CASES
    for name in sorted({"apebench", "fno_mat", "neuralop", "pdebench", "the_well"} - set(CASES[case][1]))
]


@pytest.mark.parametrize(("data", "name"), PAIRS)
def test_what_is_written_comes_back(tmp_path, data, name, monkeypatch):
    """In blocks of two, two and one."""
    monkeypatch.setattr("resolvent.data.formats._foreign.BLOCK_BYTES", 2 * data.nbytes // len(data))
    path = write(data, tmp_path / f"file{writers()[name].SUFFIXES[0]}", format=name)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # the file says everything
        again = read(path)
    assert again.source["kind"] == name
    assert (again.problem, again.parameters) == (data.problem, data.parameters)
    assert (again.signature, again.grid) == (data.signature, data.grid)
    for got, expected in zip(
        again.samples.arrays(np.array([4, 0, 2, 4])), data.samples.arrays(np.array([4, 0, 2, 4])), strict=True
    ):
        assert torch.equal(got, expected)


@pytest.mark.parametrize(("data", "name"), REFUSED)
def test_what_a_format_cannot_hold_is_refused_with_a_choice(tmp_path, data, name):
    with pytest.raises(ValueError, match=r"Choose .*netcdf"):
        write(data, tmp_path / "file", format=name)
    assert list(tmp_path.iterdir()) == []


def test_every_writer_is_tried_and_has_a_suffix():
    assert set(writers()) == {name for _, names in CASES.values() for name in names}
    assert set(formats()) - set(writers()) == {"folder", "pdearena", "poseidon", "dpot", "jax_cfd"}
    assert all(module.SUFFIXES for module in writers().values())


# ------------------------------------------------------------------------------------------------ as others see it


def test_neuraloperator_finds_x_and_y_as_it_stores_them(tmp_path):
    data = CASES["2-D map"][0]
    binary = Dataset.from_tensors(
        (data.read([0, 1])[0] > 0).float(), data.read([0, 1])[1], grid=data.grid, signature=data.signature
    )
    held = torch.load(write(binary, tmp_path / "darcy.pt"), weights_only=True)
    assert (held["x"].dtype, held["x"].shape) == (torch.bool, (2, 7, 7))
    assert torch.equal(held["y"], data.read([0, 1])[1][:, 0])


def test_matlab_files_show_their_axes_in_order_once_reversed(tmp_path):
    data = CASES["2-D scalar"][0]
    path = write(data, tmp_path / "flow.mat")
    assert path.read_bytes()[:10] == b"MATLAB 7.3"
    assert path.read_bytes()[124:128] == b"\x00\x02IM"
    with pytest.raises(NotImplementedError, match="HDF reader"):
        scipy.io.loadmat(path)  # as for any v7.3 file: their reader then turns to h5py
    with h5py.File(path) as file:
        u = np.transpose(file["u"][()])
        assert file["u"].attrs["MATLAB_class"] == b"single"
        assert np.transpose(file["t"][()]).ravel().tolist() == [0.25, 0.5, 0.75]
    np.testing.assert_array_equal(np.moveaxis(u, -1, 1), data.read(range(5))[1][:, :, 0])


def test_the_well_finds_every_group_and_attribute(tmp_path):
    data = CASES["2-D vector"][0]
    with h5py.File(write(data, tmp_path / "w.hdf5", format="the_well")) as file:
        assert [file[f"t{k}_fields"].attrs["field_names"].tolist() for k in range(3)] == [["p"], ["v"], []]
        assert file["t1_fields/v"].shape == (5, 4, 6, 6, 2)
        assert file["t1_fields/v"].attrs["dim_varying"].tolist() == [True, True]
        assert file.attrs["simulation_parameters"].tolist() == ["nu"]
        kinds = {group.attrs["bc_type"] for group in file["boundary_conditions"].values()}
        assert kinds == {"periodic"}


def test_pdebench_names_its_fields(tmp_path):
    data = CASES["2-D gas"][0]
    with h5py.File(write(data, tmp_path / "g.hdf5", format="pdebench")) as file:
        assert {"density", "pressure", "Vx", "Vy", "x-coordinate", "y-coordinate", "t-coordinate"} == set(file)
        assert file["Vy"].shape == (5, 4, 6, 6)
        np.testing.assert_array_equal(file["Vy"][2], data.trajectories([2])[0, :, 3])


def test_xarray_opens_a_zarr_group_and_a_netcdf_file(tmp_path):
    data = CASES["2-D walls"][0]
    files = write(data, tmp_path / "a.nc"), write(data, tmp_path / "a.zarr")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        opened = xarray.open_dataset(files[0]), xarray.open_zarr(files[1], chunks=None)
    for held in opened:
        assert dict(held.sizes) == {"sample": 5, "time": 4, "x": 4, "y": 5}
        np.testing.assert_array_equal(held["v"], data.trajectories(range(5))[:, :, 1])
        assert held["y"].attrs["boundary"] == "dirichlet outflow"


def test_zeros_are_no_missing_values_in_zarr(tmp_path):
    """Version 2 fills with 0 unless told otherwise, and xarray takes the filling for missing values."""
    zarr = pytest.importorskip("zarr")
    group = zarr.create_group(tmp_path / "other.zarr", zarr_format=2)
    for name, dims, values in (
        ("u", ["sample", "time", "x"], np.zeros((2, 3, 4), np.float32)),
        ("x", ["x"], np.arange(4.0)),
        ("time", ["time"], np.arange(3.0)),
    ):
        group.create_array(name, data=values).attrs["_ARRAY_DIMENSIONS"] = dims
    with pytest.warns(Assumption, match="no attribute 'boundary'"):
        data = read(tmp_path / "other.zarr")
    assert torch.equal(data.trajectories([1]), torch.zeros(1, 3, 1, 4))


def test_apebench_has_its_json_beside_it(tmp_path):
    data = CASES["2-D scalar"][0]
    path = write(data, tmp_path / "scrape.npy")
    np.testing.assert_array_equal(np.load(path), data.trajectories(range(5)))
    told = json.loads((tmp_path / "scrape.json").read_text())
    assert (told["domain_extent"], told["dt"], told["num_points"]) == (2.0, 0.25, 6)


def test_our_words_are_believed_only_where_they_fit(tmp_path):
    """Somebody cut the arrays and left the attribute."""
    path = write(CASES["1-D scalar"][0], tmp_path / "a.hdf5", format="pdebench")
    with h5py.File(path, "r+") as file:
        cut = file["tensor"][:, :2]
        del file["tensor"]
        file["tensor"] = cut
        times = file["t-coordinate"][:2]
        del file["t-coordinate"]
        file["t-coordinate"] = times
        assert ABOUT in file.attrs
    data = read(path)
    assert (data.signature.frames, data.problem) == (1, "a")


# ------------------------------------------------------------------------------------------------ the act of writing


def test_an_existing_file_is_overwritten_only_on_request(tmp_path):
    data, path = CASES["1-D map"][0], tmp_path / "a.nc"
    path.write_text("precious")
    with pytest.raises(FileExistsError, match="--force"):
        write(data, path)
    assert path.read_text() == "precious"
    write(data, path, overwrite=True)
    write(data, tmp_path / "a.zarr")
    write(data, tmp_path / "a.zarr", overwrite=True)
    assert torch.equal(read(tmp_path / "a.zarr").read([1])[0], data.read([1])[0])


def test_a_format_is_chosen_by_suffix_or_name(tmp_path):
    data = CASES["2-D map"][0]
    with pytest.raises(ValueError, match=r"\.hdf5.* could be pdebench or the_well; name one"):
        write(data, tmp_path / "a.hdf5")
    with pytest.raises(ValueError, match=r"says no format; name one: apebench"):
        write(data, tmp_path / "a.dat")
    with pytest.raises(ValueError, match="'poseidon' is read, not written"):
        write(data, tmp_path / "a.h5", format="poseidon")
    with pytest.raises(ValueError, match="'matlab' is not known"):
        write(data, tmp_path / "a.h5", format="matlab")


def test_a_writing_that_is_stopped_leaves_nothing(tmp_path):
    def stop(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write(CASES["1-D map"][0], tmp_path / "a.nc", progress=stop)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["netcdf", "zarr", "pdebench", "the_well", "apebench", "fno_mat"])
def test_conversion_streams(tmp_path, evolving, name, monkeypatch):
    """32 MiB pass through blocks of 1 MiB."""
    monkeypatch.setattr("resolvent.data.formats._foreign.BLOCK_BYTES", 1 << 20)
    grid = Grid.box(1024)
    state = (Channel("u"),)
    data = Dataset.from_tensors(
        random(2048, 1, 1024), random(2048, 3, 1, 1024), grid=grid, signature=Signature(state, state, 3, 1.0)
    )
    assert data.nbytes == 32 << 20
    seen = []
    write(data, tmp_path / "warm.x", format=name)
    tracemalloc.start()
    try:
        write(data, tmp_path / "a.x", format=name, progress=lambda done, total: seen.append(done))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 8 << 20  # a few blocks, on their way through numpy and the library
    assert seen[:3] == [0, 64, 128]
    assert seen[-1] == 2048


def test_generated_data_go_out_to_others(tmp_path):
    from resolvent.pde.burgers import Burgers

    data = generate(Burgers(frames=2), resolution=32, count=3, cache=tmp_path / "cache", workers=1)
    path = write(data, tmp_path / "b.hdf5", format="pdebench")
    again = read(path)
    assert torch.equal(again.read(range(3))[1], data.read(range(3))[1])
    assert again.parameters == data.parameters
    assert again.grid == data.grid
