"""Evolutions with channels that do not change in time: in memory, in shards, in files, as xarray."""

from __future__ import annotations

import pytest
import torch
from resolvent.data import Dataset, generate, open_dataset, read, write
from resolvent.data.fields import from_xarray
from resolvent.data.generate import pose
from resolvent.pde import Channel, Grid, Signature
from resolvent.pde._varied import varied
from resolvent.pde.heat import Heat

FAMILY = varied(Heat(frames=3, spacing=0.1), "diffusivity=0.001:0.05")


def made(count: int = 5) -> Dataset:
    u, force = Channel("u", "m"), Channel("force", "N")
    generator = torch.Generator().manual_seed(0)
    inputs, outputs = torch.randn(count, 2, 6, generator=generator), torch.randn(count, 3, 1, 6, generator=generator)
    signature = Signature((u, force), (u,), 3, 0.5, "s")
    return Dataset.from_tensors(inputs, outputs, grid=Grid.box(6), signature=signature)


def same(one: Dataset, other: Dataset) -> None:
    for a, b in zip(one.read(range(len(one))), other.read(range(len(other))), strict=True):
        assert torch.equal(a, b)


def test_inputs_are_the_first_state_and_what_is_given():
    data = made()
    inputs, outputs = data.read([3, 1])
    states, given = data.samples.arrays(torch.tensor([3, 1]).numpy())
    assert torch.equal(inputs, torch.cat([states[:, 0], given], dim=1))
    assert torch.equal(outputs, states[:, 1:])
    assert torch.equal(data.trajectories([3, 1]), states)
    whole = data.trajectories([3, 1], given=True)
    assert torch.equal(whole[:, :, :1], states)
    assert all(torch.equal(whole[:, frame, 1:], given) for frame in range(4))
    same(data.subset([4, 2]).in_memory(), data.subset([4, 2]))


@pytest.mark.parametrize("suffix", ["nc", "zarr"])
def test_files_hold_what_is_given_once(tmp_path, suffix):
    data = made()
    path = write(data, tmp_path / f"held.{suffix}")
    again = read(path)
    assert again.signature == data.signature
    same(again, data)


def test_a_strangers_file_marks_it_by_its_role(tmp_path):
    import xarray

    held = made().to_xarray()
    assert held["u"].dims == ("sample", "time", "x")
    assert held["force"].dims == ("sample", "x")
    held.attrs = {}
    held.to_netcdf(tmp_path / "stranger.nc", engine="h5netcdf")
    again = read(tmp_path / "stranger.nc")
    assert [c.name for c in again.signature.given] == ["force"]
    same(again, made())
    unmarked = xarray.load_dataset(tmp_path / "stranger.nc")
    del unmarked["force"].attrs["role"]
    unmarked.to_netcdf(tmp_path / "unmarked.nc", engine="h5netcdf")
    with pytest.raises(ValueError, match="expected real variables"):
        read(tmp_path / "unmarked.nc")


def test_formats_without_a_place_for_it_refuse(tmp_path):
    for name in ("pdebench", "the_well", "apebench", "neuralop", "fno_mat"):
        with pytest.raises(ValueError, match=r"no place for what is constant in time \(force\)"):
            write(made(), tmp_path / "out", format=name)
    assert not list(tmp_path.iterdir())


def test_a_family_is_generated_stored_and_solved_as_stored(tmp_path):
    data = generate(FAMILY, resolution=16, count=20, seed=1, cache=tmp_path, workers=1)
    inputs, outputs = data.read(range(20))
    assert inputs.shape == (20, 2, 16)
    assert outputs.shape == (20, 3, 1, 16)
    # float32 fields, but the parameters are exactly those that were drawn
    again = FAMILY.reference()(inputs.double(), data.grid)
    torch.testing.assert_close(again.float(), outputs, rtol=0, atol=1e-6)
    folder = next(tmp_path.iterdir())
    assert folder.name.startswith("heat-")
    same(open_dataset(folder), data)
    assert data.source["solver"]["name"].endswith("BetweenWalls")  # who solved, not who handed out


def test_another_range_is_another_key_and_so_is_another_base():
    def key(problem):
        return pose(problem, resolution=16, count=4).key

    others = [varied(Heat(frames=3, spacing=0.1), f"diffusivity=0.001:0.05{law}") for law in ("1", ":linear")]
    plain = Heat(frames=3, spacing=0.1)
    assert len({key(problem) for problem in (FAMILY, plain, *others)}) == 4
    assert key(FAMILY) == key(varied(Heat(frames=3, spacing=0.1), "diffusivity=0.001:0.05:log"))


def test_a_number_stands_for_a_uniform_field():
    import numpy as np
    import xarray

    grid = FAMILY.grid(8)
    inputs = FAMILY.sample(2, grid, generator=torch.Generator().manual_seed(0)).float()
    state = xarray.DataArray(inputs[:, 0].numpy(), dims=("sample", "x"), coords={"x": grid.coordinates()[0].numpy()})
    each = xarray.Dataset({"temperature": state, "diffusivity": ("sample", inputs[:, 1, 0].numpy())})
    assert torch.equal(from_xarray(each, FAMILY.signature.inputs, grid)[0], inputs)
    one = xarray.Dataset({"temperature": state, "diffusivity": ((), np.float32(0.02))})
    values = from_xarray(one, FAMILY.signature.inputs, grid)[0]
    assert torch.equal(values[:, 1], torch.full((2, 8), 0.02))
    assert torch.equal(values[:, 0], inputs[:, 0])
