"""Other people's files, built here by hand from their documented layouts: values, axes, domain, known faults.

No file of this page is made by our writers: h5py, scipy, numpy and torch write what the publishers say they write.
"""

from __future__ import annotations

import json
import pickle
import warnings
from pathlib import Path

import h5py
import numpy as np
import pytest
import resolvent
import scipy.io
import torch
import xarray
from resolvent.data import UnknownFormat, read
from resolvent.data.formats import Assumption, FormatWarning, KnownFault

RNG = np.random.default_rng(7)
PUBLISHED = Path(resolvent.__file__).parent.parent / "shared" / "data"


def noise(*shape):
    return RNG.normal(size=shape).astype(np.float32)


def centres(n, lower=0.0, upper=1.0):
    return (lower + (np.arange(n) + 0.5) * (upper - lower) / n).astype(np.float32)


def hdf5(path, arrays, attributes=None):
    with h5py.File(path, "w") as file:
        for name, values in arrays.items():
            file[name] = values
        file.attrs.update(attributes or {})
    return path


def told(path):
    """The dataset, and what the reader had to say."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        data = read(path)
    kinds = {KnownFault: "", Assumption: ""}
    for warning in caught:
        assert issubclass(warning.category, FormatWarning), warning
        kinds[warning.category] += str(warning.message) + " "
    return data, kinds[KnownFault], kinds[Assumption]


def same(got, expected):
    np.testing.assert_array_equal(np.asarray(got), expected)


# ------------------------------------------------------------------------------------------------ PDEBench


def scalar(**more):
    return {"tensor": noise(5, 3, 8), "x-coordinate": centres(8, -1, 1), "t-coordinate": np.arange(4) * 0.05, **more}


def test_pdebench_a_is_a_scalar_evolution_on_its_stored_domain(tmp_path):
    arrays = scalar()
    data, faults, _ = told(hdf5(tmp_path / "1D_Burgers_Sols_Nu0.01.hdf5", arrays, {"Nu": 0.01}))
    assert (data.problem, data.parameters, data.source["layout"]) == ("burgers", {"Nu": 0.01}, "A")
    assert "issue 51" in faults
    assert "t-coordinate has 4 entries for 3 frames" in faults
    (axis,) = data.grid.axes
    assert (axis.boundary, axis.placement) == (("periodic", "periodic"), "left")
    assert axis.length == pytest.approx(2.0)
    np.testing.assert_allclose(axis.coordinates(), arrays["x-coordinate"], atol=1e-7)  # float32 of the file
    assert (data.signature.frames, data.signature.spacing) == (2, 0.05)
    same(data.trajectories([4, 0, 4])[:, :, 0], arrays["tensor"][[4, 0, 4]])


@pytest.mark.parametrize(
    ("attributes", "problem", "fault"),
    [({"beta": 0.4}, "advection", "issues 46 and 51"), ({"Nu": 0.5, "rho": 1.0}, "fisher_kpp", "issue 94")],
)
def test_pdebench_a_tells_its_equations_apart_by_their_parameters(tmp_path, attributes, problem, fault):
    data, faults, _ = told(hdf5(tmp_path / "a.hdf5", scalar(), attributes))
    assert (data.problem, data.parameters) == (problem, attributes)
    assert fault in faults


def test_pdebench_b_has_a_dataset_a_field(tmp_path):
    names = ("density", "pressure", "Vx", "Vy")
    arrays = {name: noise(3, 2, 4, 5) for name in names}
    coordinates = {"x-coordinate": centres(4), "y-coordinate": centres(5), "t-coordinate": [0.0, 0.1, 0.2]}
    path = hdf5(tmp_path / "2D_CFD_Rand_M0.1_Eta0.01_Zeta0.01_periodic_128_Train.hdf5", {**arrays, **coordinates})
    data, _, _ = told(path)
    assert tuple(c.name for c in data.signature.outputs) == names
    assert data.grid.periodic
    same(data.trajectories([2])[0], np.stack([arrays[name][2] for name in names], axis=1))
    open_ends = path.rename(path.with_name("1D_CFD_Shock_Eta1.e-8_trans_Train.hdf5"))
    data, _, _ = told(open_ends)
    assert {axis.boundary for axis in data.grid.axes} == {("outflow", "outflow")}
    assert [(a.lower, a.upper, a.placement) for a in data.grid.axes] == [(0.0, 1.0, "centres")] * 2
    data, _, assumed = told(open_ends.rename(tmp_path / "cfd.hdf5"))
    assert "neither 'periodic' nor 'trans'" in assumed


def test_pdebench_c_is_a_static_map_from_coefficient_to_solution(tmp_path):
    arrays = {"nu": noise(4, 6, 6), "tensor": noise(4, 1, 6, 6)}
    coordinates = {"x-coordinate": centres(6), "y-coordinate": centres(6), "t-coordinate": [0.0]}
    data, faults, _ = told(hdf5(tmp_path / "2D_DarcyFlow_beta1.0_Train.hdf5", {**arrays, **coordinates}, {"beta": 1.0}))
    assert (data.problem, data.source["layout"], data.signature.evolves) == ("darcy", "C", False)
    assert "issues 29 and 48" in faults
    assert data.grid.axes[0].placement == "centres"
    assert (data.grid.axes[0].lower, data.grid.axes[0].upper) == (0.0, 1.0)
    inputs, outputs = data.read([3, 1])
    same(inputs[:, 0], arrays["nu"][[3, 1]])
    same(outputs, arrays["tensor"][[3, 1]])


SEEDS = [
    ("2D_diff-react_NA_NA.h5", (3, 4, 6, 2), (-1, 1), "fitzhugh_nagumo", ("neumann", "neumann")),
    ("2D_rdb_NA_NA.h5", (3, 4, 6, 1), (-2.5, 2.5), "shallow_water", ("outflow", "outflow")),
    ("1D_diff-sorp_NA_NA.h5", (3, 6, 1), (0, 1), "diffusion_sorption", ("dirichlet", "outflow")),
]


@pytest.mark.parametrize(("name", "shape", "box", "problem", "ends"), SEEDS, ids=[row[3] for row in SEEDS])
def test_pdebench_d_has_a_group_a_seed(tmp_path, name, shape, box, problem, ends):
    values = {f"{seed:04d}": noise(*shape) for seed in (0, 1, 12)}
    with h5py.File(tmp_path / name, "w") as file:
        for seed, trajectory in values.items():
            file[f"{seed}/data"] = trajectory
            for letter, size in zip("xy", shape[1:-1], strict=False):
                file[f"{seed}/grid/{letter}"] = centres(size, *box)
            file[f"{seed}/grid/t"] = np.linspace(0, 5, shape[0])
            file[seed].attrs["config"] = "sim:\n  Du: 1.E-3\n  name: x\n  k: 0.005\n"
    data, _, _ = told(tmp_path / name)
    assert (data.problem, data.source["layout"], len(data)) == (problem, "D", 3)
    assert data.parameters == {"Du": 1e-3, "k": 5e-3}
    assert {axis.boundary for axis in data.grid.axes} == {ends}
    assert {(axis.lower, axis.upper, axis.placement) for axis in data.grid.axes} == {(*map(float, box), "centres")}
    assert data.signature.spacing == 2.5
    same(data.trajectories([2, 0]), np.stack([np.moveaxis(values[key], -1, 1) for key in ("0012", "0000")]))


def test_pdebench_e_is_not_periodic_and_carries_its_force(tmp_path):
    arrays = {"velocity": noise(2, 3, 4, 5, 2), "particles": noise(2, 3, 4, 5, 1), "force": noise(2, 4, 5, 2)}
    data, faults, _ = told(hdf5(tmp_path / "ns_incom.h5", {**arrays, "t": np.tile([0.0, 0.5, 1.0], (2, 1))}))
    assert "not periodic" in faults
    assert [c.name for c in data.signature.outputs] == ["Vx", "Vy", "particles", "force_x", "force_y"]
    assert {axis.boundary for axis in data.grid.axes} == {("dirichlet", "dirichlet")}
    got = data.trajectories([1])[0]
    same(got[:, :2], np.moveaxis(arrays["velocity"][1], -1, 1))
    same(got[:, 2], arrays["particles"][1, ..., 0])
    same(got[2, 3:], np.moveaxis(arrays["force"][1], -1, 0))
    hdf5(tmp_path / "uneven.h5", {**arrays, "t": np.array([[0, 1, 2], [0, 2, 4.0]])})
    with pytest.raises(ValueError, match="different times"), warnings.catch_warnings(action="ignore"):
        read(tmp_path / "uneven.h5")


# ------------------------------------------------------------------------------------------------ The Well


def well(path, **changes):
    """Two scalars (one constant in time and along y), a vector, a tensor; x periodic, y between walls."""
    n, t, x, y = 2, 3, 4, 5
    words = h5py.string_dtype()
    fields = {
        "t0_fields": {"mask": (noise(x), (0, 0, (1, 0))), "density": (noise(n, t, x, y), (1, 1, (1, 1)))},
        "t1_fields": {"velocity": (noise(n, t, x, y, 2), (1, 1, (1, 1)))},
        "t2_fields": {"D": (noise(n, t, x, y, 2, 2), (1, 1, (1, 1)))},
    } | changes
    with h5py.File(path, "w") as file:
        file.attrs.update({"dataset_name": "active", "grid_type": "cartesian", "n_trajectories": n, "alpha": -1.0})
        file.attrs["simulation_parameters"] = np.array(["alpha"], dtype=words)
        file.create_group("dimensions").attrs["spatial_dims"] = np.array(["x", "y"], dtype=words)
        file["dimensions/time"] = np.add.outer([0.0, 5.0], np.arange(3) * 0.25)
        file["dimensions/x"], file["dimensions/y"] = np.arange(4) * 2.5, np.linspace(-1, 1, 5)
        for name, group in fields.items():
            made = file.create_group(name)
            made.attrs["field_names"] = np.array(list(group), dtype=words)
            for field, (values, (samples, times, dims)) in group.items():
                made[field] = values
                made[field].attrs.update({"sample_varying": bool(samples), "time_varying": bool(times)})
                made[field].attrs["dim_varying"] = np.array(dims, dtype=bool)
        file.create_group("scalars").attrs["field_names"] = np.array(["alpha", "dt"], dtype=words)
        file["scalars/alpha"], file["scalars/dt"] = -1.0, np.array([0.1, 0.2])
        for name, dim, kind, where in (("sides", "x", "PERIODIC", (0, -1)), ("walls", "y", "WALL", (0, -1))):
            made = file.create_group(f"boundary_conditions/{name}")
            made.attrs.update({"bc_type": kind, "sample_varying": False, "time_varying": False})
            made.attrs["associated_dims"] = np.array([dim], dtype=words)
            mask = np.zeros(4 if dim == "x" else 5, dtype=bool)
            mask[list(where)] = True
            made["mask"] = mask
    return fields


def test_a_file_of_the_well_is_read_by_its_attributes(tmp_path):
    fields = well(tmp_path / "a.hdf5")
    data, _, assumed = told(tmp_path / "a.hdf5")
    names = ["mask", "density", "velocity_x", "velocity_y", "D_xx", "D_xy", "D_yx", "D_yy"]
    assert [c.name for c in data.signature.outputs] == names
    assert (data.problem, data.parameters, data.signature.spacing) == ("active", {"alpha": -1.0}, 0.25)
    assert "mask are constant in time" in assumed
    assert "scalars dt vary" in assumed
    x, y = data.grid.axes
    assert (x.boundary, x.lower, x.upper) == (("periodic", "periodic"), 0.0, 10.0)
    assert (y.boundary, y.lower, y.upper, y.placement) == (("dirichlet", "dirichlet"), -1.0, 1.0, "ends")
    got = data.trajectories([1])[0]
    same(got[:, 0], np.broadcast_to(fields["t0_fields"]["mask"][0][:, None], (3, 4, 5)))
    same(got[:, 1], fields["t0_fields"]["density"][0][1])
    same(got[:, 2:4], np.moveaxis(fields["t1_fields"]["velocity"][0][1], -1, 1))
    same(got[:, 5], fields["t2_fields"]["D"][0][1, ..., 0, 1])


def test_a_folder_of_the_well_is_one_dataset(tmp_path):
    parts = [well(tmp_path / name)["t0_fields"]["density"][0] for name in ("a.hdf5", "b.hdf5")]
    data, _, _ = told(tmp_path)
    assert len(data) == 4
    same(data.trajectories([3, 0, 2])[:, :, 1], np.concatenate(parts)[[3, 0, 2]])


def test_attributes_of_the_well_that_contradict_the_shape_are_refused(tmp_path):
    """The specification's own example marks a field as sample-varying and shows it without a sample axis."""
    well(tmp_path / "a.hdf5", t0_fields={"density": (noise(3, 4, 5), (1, 1, (1, 1)))})
    with pytest.raises(ValueError, match=r"density has shape \(3, 4, 5\).*promise \(2, 3, 4, 5\)"):
        read(tmp_path / "a.hdf5")


# ------------------------------------------------------------------------------------------------ FNO .mat


def mat73(path, arrays):
    """As MATLAB does: a header of 512 bytes, and every array with its axes reversed."""
    with h5py.File(path, "w", userblock_size=512) as file:
        for name, values in arrays.items():
            file.create_dataset(name, data=np.asarray(values).T).attrs["MATLAB_class"] = np.bytes_("double")
    with open(path, "r+b") as stream:
        stream.write(b"MATLAB 7.3 MAT-file".ljust(124) + b"\x00\x02IM")
    return path


def mat5(path, arrays):
    scipy.io.savemat(path, arrays)
    return path


BOTH = pytest.mark.parametrize("write", [mat5, mat73])


@BOTH
def test_the_axes_of_fno_flow_files_are_where_they_belong(tmp_path, write):
    """All sizes differ, so that no exchange of axes goes unseen."""
    arrays = {"a": noise(5, 4, 6), "u": noise(5, 4, 6, 3), "t": np.array([[1.0, 2.0, 3.0]])}
    data, _, assumed = told(write(tmp_path / "ns_V1e-3_N5000_T50.mat", arrays))
    assert data.problem == "navier_stokes"
    assert data.grid.shape == (4, 6)
    assert data.grid.periodic
    assert (data.signature.frames, data.signature.spacing) == (3, 1.0)
    inputs, outputs = data.read([4, 2, 4])
    same(inputs[:, 0], arrays["a"][[4, 2, 4]])
    same(outputs[:, :, 0], np.moveaxis(arrays["u"], -1, 1)[[4, 2, 4]])
    assert "unit period" in assumed


@BOTH
def test_fno_darcy_and_burgers_files(tmp_path, write):
    extra = {"Kcoeff": noise(4, 5, 7)}
    arrays = {"coeff": noise(4, 5, 7), "sol": noise(4, 5, 7), **extra}
    data, _, _ = told(write(tmp_path / "piececonst_r421.mat", arrays))
    assert {(axis.lower, axis.upper, axis.placement) for axis in data.grid.axes} == {(0.0, 1.0, "ends")}
    same(data.read([3])[1][0, 0], arrays["sol"][3])
    arrays = {"a": noise(4, 9), "u": noise(4, 9)}
    data, _, _ = told(write(tmp_path / "burgers_data_R10.mat", arrays))
    assert (data.problem, data.signature.evolves, data.grid.periodic) == ("burgers", False, True)
    same(data.read([1])[0][0, 0], arrays["a"][1])


@pytest.mark.skipif(not PUBLISHED.is_dir(), reason="the published data are not here")
def test_the_published_shock_is_one_trajectory_between_walls():
    data, _, _ = told(PUBLISHED / "burgers_shock.mat")
    held = scipy.io.loadmat(PUBLISHED / "burgers_shock.mat")
    (axis,) = data.grid.axes
    assert (axis.size, axis.lower, axis.upper, axis.placement) == (256, -1.0, 1.0, "ends")
    np.testing.assert_allclose(axis.coordinates(), held["x"][:, 0], atol=1e-12)
    assert (data.signature.frames, data.signature.spacing) == (99, 0.01)
    same(data.trajectories([0])[0, :, 0], held["usol"].T.astype(np.float32))
    assert data.source["dtype"] == "float64"


# ------------------------------------------------------------------------------------------------ neuraloperator


def test_a_boolean_coefficient_says_what_it_does_not_say(tmp_path):
    """Zero on all sides: nodes on the walls."""
    x, y = torch.rand(6, 5, 5) > 0.5, torch.rand(6, 5, 5)
    y[:, [0, -1]] = y[:, :, [0, -1]] = 0
    torch.save({"x": x, "y": y}, tmp_path / "darcy_train_5.pt")
    data, faults, _ = told(tmp_path / "darcy_train_5.pt")
    assert "stored as a boolean" in faults
    assert {(axis.upper, axis.placement) for axis in data.grid.axes} == {(1.0, "ends")}
    inputs, outputs = data.read([5, 0])
    same(inputs[:, 0], x[[5, 0]].float())
    same(outputs[:, 0], y[[5, 0]])


@pytest.mark.skipif(not PUBLISHED.is_dir(), reason="the published data are not here")
@pytest.mark.parametrize(("name", "size"), [("darcy_test_16.pt", 16), ("darcy_test_32.pt", 32)])
def test_the_published_darcy_files_do_not_reach_their_upper_walls(name, size):
    """The 16² file is the 32² one at every second node, so both begin at 0 and end one step before 1."""
    held = torch.load(PUBLISHED / name, weights_only=True)
    data, faults, _ = told(PUBLISHED / name)
    assert "strided out of a finer one" in faults
    assert [(axis.size, axis.lower, axis.upper) for axis in data.grid.axes] == [(size, 0.0, 1 - 1 / size)] * 2
    same(data.read(range(50))[1][:, 0], held["y"])
    fine = torch.load(PUBLISHED / "darcy_test_32.pt", weights_only=True)["y"]
    assert torch.equal(fine[:, :: 32 // size, :: 32 // size], held["y"])


@pytest.mark.parametrize("begins", [True, False], ids=["with u(0)", "without u(0)"])
def test_neuraloperator_burgers_begins_with_its_input(tmp_path, begins):
    whole = noise(4, 4, 6)
    with h5py.File(tmp_path / "burgers.h5", "w") as file:
        file["x"], file["y"] = whole[:, 0], whole if begins else whole[:, 1:]
    data, _, assumed = told(tmp_path / "burgers.h5")
    assert "one frame counts as one unit" in assumed
    same(data.trajectories([3, 1])[:, :, 0], whole[[3, 1]])


def test_code_in_a_pt_file_is_not_run(tmp_path):
    class Trap:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "sprung",))

    torch.save({"x": Trap()}, tmp_path / "bad.pt")
    with pytest.raises(UnknownFormat):
        read(tmp_path / "bad.pt")
    assert not (tmp_path / "sprung").exists()


# ------------------------------------------------------------------------------------------------ APEBench and others


def test_apebench_arrays_are_already_in_order(tmp_path):
    values = noise(3, 4, 2, 5, 5)
    np.save(tmp_path / "2d_burgers_train.npy", values)
    data, _, assumed = told(tmp_path / "2d_burgers_train.npy")
    assert "unit box" in assumed
    assert data.grid.periodic
    (tmp_path / "2d_burgers.json").write_text(json.dumps({"name": "burgers", "domain_extent": 3.0, "dt": 0.1}))
    data, _, assumed = told(tmp_path / "2d_burgers_train.npy")
    assert assumed == ""
    assert (data.problem, data.grid.lengths, data.signature.spacing) == ("burgers", (3.0, 3.0), 0.1)
    same(data.trajectories([2, 0]), values[[2, 0]])


def test_pdearena_keeps_its_split_in_a_group(tmp_path):
    arrays = {name: noise(3, 4, 5, 6).astype(np.float64) for name in ("u", "vx", "vy")}
    extra = {"t": np.tile(np.arange(4) * 1.5, (3, 1)), "x": np.tile(centres(5, 0, 32), (3, 1)), "buo_y": np.ones(3)}
    path = hdf5(tmp_path / "ns_train.h5", {f"train/{name}": v for name, v in {**arrays, **extra}.items()})
    data, faults, assumed = told(path)
    assert "issue 23" in faults
    assert "no 'train/y'" in assumed
    assert (data.grid.axes[0].upper, data.signature.spacing) == (32.0, 1.5)
    same(data.trajectories([2])[0], np.stack([arrays[n][2] for n in arrays], axis=1).astype(np.float32))


def test_pdearena_kuramoto_sivashinsky(tmp_path):
    values = noise(3, 4, 8)
    hdf5(tmp_path / "ks.h5", {"valid/pde_4-8": values, "valid/dt": np.full(3, 0.2), "valid/dx": np.full(3, 0.5)})
    data, _, _ = told(tmp_path / "ks.h5")
    assert (data.problem, data.grid.lengths, data.signature.spacing) == ("kuramoto_sivashinsky", (4.0,), 0.2)
    same(data.trajectories([1])[0, :, 0], values[1])


def test_poseidon_and_dpot(tmp_path):
    values = noise(2, 3, 4, 5, 6)
    data, _, assumed = told(hdf5(tmp_path / "NS-Sines.nc", {"velocity": values}))
    assert "unit torus" in assumed
    same(data.trajectories([1])[0], values[1])
    (tmp_path / "train").mkdir()
    samples = noise(11, 4, 5, 3, 2)
    samples[..., 1] = 1
    for i, sample in enumerate(samples):
        hdf5(tmp_path / "train" / f"data_{i}.hdf5", {"data": sample})
    data, faults, _ = told(tmp_path / "train")
    assert "channel1 hold nothing but ones" in faults
    same(data.trajectories([10, 2]), samples[[10, 2]].transpose(0, 3, 4, 1, 2))


def test_jax_cfd_says_that_velocities_lie_on_faces(tmp_path):
    u, v = noise(2, 3, 4, 4), noise(2, 3, 4, 4)
    dims = ("sample", "time", "x", "y")
    held = xarray.Dataset(
        {"u": (dims, u, {"offset": [1.0, 0.5]}), "v": (dims, v, {"offset": [0.5, 1.0]})},
        {"time": np.arange(3) * 0.5, "x": centres(4, 0, 2), "y": centres(4, 0, 2)},
        {"domain_size": 2.0, "ndim": 2},
    )
    held.to_netcdf(tmp_path / "flow.nc", engine="h5netcdf")
    data, faults, _ = told(tmp_path / "flow.nc")
    assert "lie on faces" in faults
    assert (data.source["kind"], data.grid.lengths) == ("jax_cfd", (2.0, 2.0))
    same(data.trajectories([1])[0], np.stack([u[1], v[1]], axis=1))


# ------------------------------------------------------------------------------------------------ what does not fit


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        pytest.param(
            scalar(tensor=noise(5, 8)), r"A: 'tensor' has shape \(5, 8\), expected \(n, t, x or n, t, x, y", id="rank"
        ),
        pytest.param(
            scalar(tensor=noise(5, 3, 9)), "axis x has 9 entries in 'tensor' and 8 in 'x-coordinate'", id="size"
        ),
        pytest.param({"tensor": noise(2, 3, 4)}, "A: no 'x-coordinate', 't-coordinate'", id="coordinates"),
        pytest.param({"0000/data": noise(3, 4, 1)}, "D: no 'grid/x', 'grid/t' in a group '0000'", id="seeds"),
    ],
)
def test_a_near_miss_is_explained(tmp_path, arrays, message):
    with pytest.raises(UnknownFormat, match=message):
        read(hdf5(tmp_path / "near.hdf5", arrays))


def test_nodes_lie_where_the_coordinates_say_not_where_the_format_does(tmp_path):
    """Each format has its habit; a file with the other one is believed, and the habit is mentioned."""
    arrays = {"nu": noise(4, 6, 6), "tensor": noise(4, 1, 6, 6)}
    ends = np.linspace(0, 1, 6, dtype=np.float32)
    data, _, assumed = told(hdf5(tmp_path / "d.hdf5", {**arrays, "x-coordinate": ends, "y-coordinate": centres(6)}))
    assert [(a.placement, a.lower, a.upper) for a in data.grid.axes] == [("ends", 0.0, 1.0), ("centres", 0.0, 1.0)]
    assert "x-coordinate: this format has nodes at centres, but these lie at ends" in assumed
    well(tmp_path / "w.hdf5")
    with h5py.File(tmp_path / "w.hdf5", "r+") as file:
        file["dimensions/y"][...] = centres(5, -1, 1)
    y = told(tmp_path / "w.hdf5")[0].grid.axes[1]
    assert (y.placement, y.lower, y.upper) == ("centres", -1.0, 1.0)


def test_uneven_coordinates_are_refused(tmp_path):
    path = hdf5(tmp_path / "a.hdf5", scalar(**{"x-coordinate": centres(8) ** 2}), {"Nu": 1.0})
    with pytest.raises(ValueError, match="x-coordinate must be evenly spaced"):
        read(path)


def test_nan_is_found_when_it_is_read(tmp_path):
    arrays = scalar()
    arrays["tensor"][3, 1, 0] = np.nan
    data, _, _ = told(hdf5(tmp_path / "nan.hdf5", arrays))
    data.read([0, 1])
    with pytest.raises(ValueError, match=r"nan.hdf5: non-finite values at sample\(s\) \[3\]"):
        data.read([1, 3])


def test_large_files_are_read_by_slices(tmp_path):
    """A sparse file that claims 8 TB: two samples of it take two samples of memory."""
    with h5py.File(tmp_path / "huge.hdf5", "w") as file:
        tensor = file.create_dataset("tensor", (10_000_000, 201, 1024), "<f4", chunks=(1, 201, 1024))
        tensor[9_999_999] = 1.5
        file["x-coordinate"], file["t-coordinate"] = centres(1024), np.arange(202) * 0.01
        file.attrs["beta"] = 0.1
    data, _, _ = told(tmp_path / "huge.hdf5")
    assert data.nbytes > 8e12
    got = data.trajectories([9_999_999, 5])
    assert (float(got[0].min()), float(got[1].max())) == (1.5, 0.0)


def test_other_processes_may_read(tmp_path):
    from concurrent.futures import ProcessPoolExecutor
    from multiprocessing import get_context

    arrays = scalar()
    data, _, _ = told(hdf5(tmp_path / "a.hdf5", arrays))
    data.read([0])
    with ProcessPoolExecutor(1, mp_context=get_context("fork")) as processes:  # spawned ones: tests/data/test_store.py
        same(processes.submit(data.trajectories, [4]).result()[0, :, 0], arrays["tensor"][4])
    same(pickle.loads(pickle.dumps(data)).trajectories([4])[0, :, 0], arrays["tensor"][4])
