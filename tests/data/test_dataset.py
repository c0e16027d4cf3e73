"""The container: order, laziness, promotion, views."""

import math
import warnings

import numpy as np
import pytest
import torch
import xarray
from resolvent.data import Dataset, generate
from resolvent.data.dataset import Source
from resolvent.pde import Channel, Grid, Signature

GRID = Grid.box((4, 3), boundary="dirichlet")
A, U = Channel("a", "m"), Channel("u", "K")
STATIC = Signature((A,), (U,))


def numbered(count=7):
    """Sample i is i everywhere, its solution -i."""
    inputs = torch.arange(float(count)).reshape(-1, 1, 1, 1).expand(-1, 1, 4, 3)
    return Dataset.from_tensors(inputs, -inputs, grid=GRID, signature=STATIC)


@pytest.fixture
def stored(tmp_path, evolving, small_shards):
    return generate(evolving(), resolution=6, count=10, cache=tmp_path, workers=1)


class Untouchable(Source):
    """Fails when read."""

    def __len__(self):
        return 10**9

    def arrays(self, indices):
        raise AssertionError("was read")

    @property
    def fingerprint(self):
        return "0"


def test_reading_keeps_the_order_asked_for():
    inputs, outputs = numbered().read([5, 0, 5, -1])
    assert inputs[:, 0, 0, 0].tolist() == [5, 0, 5, 6]
    assert outputs[:, 0, 0, 0].tolist() == [-5, 0, -5, -6]
    assert numbered().read(slice(1, 6, 2))[0][:, 0, 0, 0].tolist() == [1, 3, 5]
    assert numbered().read(torch.tensor([2]))[0][:, 0, 0, 0].tolist() == [2]


def test_what_is_read_is_new():
    data = numbered()
    data.read([0])[0].fill_(99)
    assert data.read([0])[0].max() == 0


def test_beyond_the_end_is_refused():
    with pytest.raises(IndexError, match="Sample 7 asked of a dataset of 7"):
        numbered().read([0, 7])
    with pytest.raises(IndexError, match="Sample -8"):
        numbered().read([-8])


def test_subsets_of_subsets_refer_to_the_first():
    part = numbered().subset([6, 4, 2]).subset([2, 0])
    assert len(part) == 2
    assert part.numbers.tolist() == [2, 6]
    assert part.read([0, 1])[0][:, 0, 0, 0].tolist() == [2, 6]


def test_a_subset_reads_nothing():
    whole = Dataset("p", {}, STATIC, GRID, {}, Untouchable())
    part = whole.subset(range(0, 10**6, 1000))
    assert len(part) == 1000
    assert part.nbytes == 1000 * 2 * 12 * 4
    assert whole.in_memory(limit_bytes=1e9) is whole  # 96 GB


def test_batches_cover_each_sample_once_and_follow_the_generator():
    data = numbered(10)
    plain = list(data.batches(4))
    assert [len(indices) for indices, _, _ in plain] == [4, 4, 2]
    assert torch.cat([indices for indices, _, _ in plain]).tolist() == list(range(10))

    def shuffled(seed):
        return list(data.batches(4, torch.Generator().manual_seed(seed)))

    indices, inputs, outputs = (torch.cat(parts) for parts in zip(*shuffled(0), strict=True))
    assert sorted(indices.tolist()) == list(range(10))
    assert indices.tolist() != list(range(10))
    assert torch.equal(inputs[:, 0, 0, 0], indices.float())
    assert torch.equal(outputs, -inputs)
    assert torch.equal(shuffled(0)[0][0], shuffled(0)[0][0])
    assert not torch.equal(shuffled(0)[0][0], shuffled(1)[0][0])
    with pytest.raises(ValueError, match="at least 1"):
        next(data.batches(0))


def test_promotion_keeps_values_numbers_and_fingerprint(stored):
    part = stored.subset([8, 1, 8, 3])
    held = part.in_memory(limit_bytes=part.nbytes)
    assert held is not part
    assert part.in_memory(limit_bytes=part.nbytes - 1) is part
    assert held.in_memory() is held
    assert held.fingerprint == part.fingerprint
    assert held.numbers.tolist() == [8, 1, 8, 3]
    for i in range(4):
        assert torch.equal(held.trajectories([i]), part.trajectories([i]))
    assert torch.equal(held.subset([2, 1]).read([0])[1], stored.read([8])[1])


def test_the_fingerprint_follows_the_values():
    """One value, the order, a unit, a parameter: each is another dataset."""
    inputs, outputs = torch.zeros(3, 1, 4, 3), torch.ones(3, 1, 4, 3)
    inputs[1] = 1.0
    changed = outputs.clone()
    changed[2, 0, 3, 2] = 2.0

    def print_of(outputs=outputs, signature=STATIC, **more):
        return Dataset.from_tensors(inputs, outputs, grid=GRID, signature=signature, **more).fingerprint

    prints = [print_of(), print_of(changed), print_of(parameters={"nu": 1.0})]
    prints.append(print_of(signature=Signature((A,), (Channel("u", "m"),))))
    prints.append(Dataset.from_tensors(inputs, outputs, grid=GRID, signature=STATIC).subset([1, 0, 2]).fingerprint)
    assert len(set(prints)) == 5
    assert print_of() == print_of(outputs.clone())


@pytest.mark.usefixtures("unchecked")
def test_wrong_shapes_and_nan_are_refused_with_their_place():
    inputs, outputs = torch.zeros(3, 1, 4, 3), torch.ones(3, 1, 4, 3)
    with pytest.raises(ValueError, match=r"inputs of shape \('batch', 1, 4, 3\), got \(3, 2, 4, 3\)"):
        Dataset.from_tensors(torch.zeros(3, 2, 4, 3), outputs, grid=GRID, signature=STATIC)
    with pytest.raises(ValueError, match=r"outputs of shape"):
        Dataset.from_tensors(inputs, outputs[:2], grid=GRID, signature=STATIC)
    outputs[2, 0, 1, 1] = math.nan
    with pytest.raises(ValueError, match=r"Non-finite values in outputs at sample\(s\) \[2\]"):
        Dataset.from_tensors(inputs, outputs, grid=GRID, signature=STATIC)


def test_trajectories_belong_to_evolutions():
    with pytest.raises(ValueError, match="static map"):
        numbered().trajectories([0])


def test_the_view_has_coordinates_and_units(stored):
    view = stored.subset([7, 2, 9]).to_xarray()
    assert view["u"].dims == ("sample", "time", "x")
    assert view["sample"].values.tolist() == [7, 2, 9]
    assert view["time"].values.tolist() == [0.0, 0.5, 1.0, 1.5]
    assert view["v"].attrs["units"] == "m"
    expected = stored.trajectories([7, 2, 9]).numpy()
    np.testing.assert_array_equal(view["u"].values, expected[:, :, 0])
    np.testing.assert_array_equal(view["v"].sel(sample=2, time=1.0).values, expected[1, 2, 1])
    np.testing.assert_array_equal(view["u"].isel(sample=[2, 0], time=slice(1, None), x=3), expected[[2, 0], 1:, 0, 3])
    np.testing.assert_array_equal(view["u"].isel(x=xarray.DataArray([0, 5])), expected[:, :, 0, [0, 5]])


def test_the_view_reads_only_what_is_asked(stored, monkeypatch):
    asked = []
    original = type(stored.samples).arrays

    def spying(self, indices):
        asked.extend(indices.tolist())
        return original(self, indices)

    monkeypatch.setattr(type(stored.samples), "arrays", spying)
    view = stored.to_xarray()
    part = view["u"].isel(sample=slice(3, 5), time=-1)
    assert asked == []
    part.load()
    assert asked == [3, 4]


def test_a_view_of_a_static_map_saves_and_opens(tmp_path, static):
    data = generate(static(), resolution=(4, 3), count=3, cache=tmp_path / "cache", workers=1)
    data.to_xarray().to_netcdf(tmp_path / "out.nc", engine="h5netcdf")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        again = xarray.open_dataset(tmp_path / "out.nc")
    np.testing.assert_array_equal(again["a"].values, data.read(range(3))[0][:, 0].numpy())
    np.testing.assert_array_equal(again["flux"].values, data.read(range(3))[1][:, 1].numpy())
    assert again["y"].attrs["axis"] == "Y"


def test_an_input_that_shares_its_name_gets_another_in_files():
    same = Signature((U,), (U,))
    view = Dataset.from_tensors(torch.zeros(1, 1, 4, 3), torch.ones(1, 1, 4, 3), grid=GRID, signature=same).to_xarray()
    assert view["u_input"].values.max() == 0
    assert view["u"].values.min() == 1
    clash = Signature((Channel("x"),), (U,))
    with pytest.raises(ValueError, match="differ from each other"):
        Dataset.from_tensors(torch.zeros(1, 1, 4, 3), torch.ones(1, 1, 4, 3), grid=GRID, signature=clash).to_xarray()
