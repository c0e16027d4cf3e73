"""What lies on disk: readable by others as it is, checked, refused where damaged."""

import copy
import importlib
import json
import pickle
import tracemalloc
import warnings
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest
import resolvent.data
import torch
import xarray
from resolvent.data import DamagedData, cache_root, generate, open_dataset, read, write_atomically
from resolvent.pde import Grid, Signature
from resolvent.pde.navier_stokes import NavierStokes

store = importlib.import_module("resolvent.data.store")


@pytest.fixture
def stored(tmp_path, static, small_shards):
    data = generate(static(), resolution=(5, 3), count=10, seed=1, cache=tmp_path)
    (folder,) = tmp_path.iterdir()
    return data, folder


def flip(path, position=-3):
    content = bytearray(path.read_bytes())
    content[position] ^= 1
    path.write_bytes(bytes(content))


def test_xarray_opens_a_shard_of_an_evolution_as_it_is(tmp_path, evolving, small_shards):
    data = generate(evolving(), resolution=6, count=6, seed=2, cache=tmp_path)
    (path,) = tmp_path.glob("*/shard-00001.nc")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        shard = xarray.open_dataset(path)
    assert dict(shard.sizes) == {"sample": 2, "time": 4, "x": 6}
    assert shard["time"].values.tolist() == [0.0, 0.5, 1.0, 1.5]  # numbers, neither dates nor durations
    assert shard["time"].attrs == {"units": "s", "long_name": "time", "axis": "T"}
    assert shard["sample"].values.tolist() == [4, 5]
    np.testing.assert_array_equal(shard["x"].values, data.grid.axes[0].coordinates().numpy())
    assert shard["x"].attrs["axis"] == "X"
    assert shard["x"].attrs["boundary"] == "periodic periodic"
    assert shard["u"].attrs["units"] == "1/s"
    assert shard["u"].dtype == np.float32
    np.testing.assert_array_equal(shard["v"].values, data.trajectories([4, 5])[:, :, 1].numpy())


def test_the_attributes_say_where_it_came_from(stored, static):
    data, folder = stored
    attributes = xarray.open_dataset(folder / "shard-00002.nc").attrs
    assert attributes["Conventions"].startswith("CF-")
    assert json.loads(attributes["parameters"]) == {"factor": 3.0}
    assert Grid.from_dict(json.loads(attributes["grid"])) == data.grid
    assert Signature.from_dict(json.loads(attributes["signature"])) == static().signature
    assert (attributes["seed"], attributes["shard"], attributes["first_sample"]) == (1, 2, 8)
    assert json.loads(attributes["solver"])["summary"] == "Exact: u = factor a, flux = -a."
    assert json.loads(attributes["versions"])["torch"] == torch.__version__


def test_every_name_in_a_file_is_in_the_written_format(stored):
    _, folder = stored
    text = (Path(resolvent.data.__file__).parent / "format.md").read_text()
    shard = xarray.open_dataset(folder / "shard-00000.nc")
    manifest = json.loads((folder / "manifest.json").read_text())
    names = [*shard.attrs, *shard["x"].attrs, *shard["u"].attrs, *manifest, *manifest["content"]]
    assert [name for name in names if f"`{name}`" not in text] == []
    assert all(name in text for name in manifest["shards"]["shard-00000.nc"])


def test_the_reference_states_its_options(tmp_path):
    data = generate(NavierStokes(frames=1), resolution=8, count=1, cache=tmp_path, accuracy={"tolerance": 1e-4})
    solver = data.source["solver"]
    assert solver["name"].endswith("PeriodicEvolution")
    assert "ourth-order" in solver["summary"]
    assert solver["options"]["tolerance"] == 1e-4
    assert data.source["seconds"] > 0


def test_a_stored_set_opens_by_its_folder(stored):
    data, folder = stored
    for again in (open_dataset(folder), read(folder)):
        assert again.fingerprint == data.fingerprint
        assert again.grid == data.grid
        assert again.signature == data.signature
        torch.testing.assert_close(again.read([9, 0, 9])[1], data.read([9, 0, 9])[1], rtol=0, atol=0)


@pytest.mark.parametrize("damage", ["flip", "truncate"])
def test_a_damaged_shard_is_named_and_refused(stored, static, damage):
    data, folder = stored
    path = folder / "shard-00001.nc"
    if damage == "flip":
        flip(path)
    else:
        path.write_bytes(path.read_bytes()[:-7])
    with pytest.raises(DamagedData, match=r"shard-00001.nc is damaged.*Delete this file"):
        open_dataset(folder)
    with pytest.raises(DamagedData, match=r"shard-00001.nc"):
        generate(static(), resolution=(5, 3), count=10, seed=1, cache=folder.parent)
    data.read([0, 1])  # the other shards still serve
    with pytest.raises(DamagedData, match=r"shard-00001.nc"):  # it was sound when the set was opened
        data.read([5])


def test_the_remedy_works(stored, static, calls):
    data, folder = stored
    before = (folder / "shard-00001.nc").read_bytes()
    flip(folder / "shard-00001.nc")
    (folder / "shard-00001.nc").unlink()
    with pytest.raises(DamagedData, match="is missing"):
        open_dataset(folder)
    calls.clear()
    again = generate(static(), resolution=(5, 3), count=10, seed=1, cache=folder.parent)
    assert calls == [4]
    assert (folder / "shard-00001.nc").read_bytes() == before
    assert again.fingerprint == data.fingerprint


@pytest.mark.parametrize("text", ["", "{}", '{"format": "other", "format_version": 1}', "[1"])
def test_a_manifest_that_is_not_ours_is_refused(stored, text):
    _, folder = stored
    (folder / "manifest.json").write_text(text)
    with pytest.raises(DamagedData, match=r"manifest\.json is not a manifest"):
        open_dataset(folder)


def test_a_manifest_with_other_content_than_its_key_is_refused(stored):
    _, folder = stored
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["content"]["seed"] = 99
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(DamagedData, match="has key"):
        open_dataset(folder)


def test_a_file_that_the_manifest_does_not_know_is_not_read(tmp_path, static, small_shards, calls):
    """A whole shard of other values under the right name, but not entered: made anew."""
    data = generate(static(), resolution=4, count=6, cache=tmp_path)
    (folder,) = tmp_path.iterdir()
    manifest = json.loads((folder / "manifest.json").read_text())
    del manifest["shards"]["shard-00001.nc"]
    manifest["complete"] = False
    (folder / "manifest.json").write_text(json.dumps(manifest))
    (folder / "shard-00001.nc").write_bytes((folder / "shard-00000.nc").read_bytes())
    (folder / "shard-00001.nc.abc.part").write_bytes(b"half")
    calls.clear()
    assert generate(static(), resolution=4, count=6, cache=tmp_path).fingerprint == data.fingerprint
    assert calls == [2]
    assert list(folder.glob("*.part")) == []


def test_reading_streams(tmp_path, evolving):
    """128 samples of 32 kB, read in batches of 4: never more than a fraction of the 4 MB at once."""
    data = generate(evolving(), resolution=1024, count=128, cache=tmp_path, workers=1)
    assert data.nbytes == 128 * 4 * 2 * 1024 * 4
    data.read([0])  # the hashes and offsets are known
    tracemalloc.start()
    try:
        seen = [indices for indices, _, _ in data.batches(4, torch.Generator().manual_seed(0))]
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert sorted(torch.cat(seen).tolist()) == list(range(128))
    assert peak < 6 * 4 * 32768  # two batches, a sample's buffer, small change


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_other_processes_may_read(stored, method):
    data, _ = stored
    data.read([0])
    with ProcessPoolExecutor(1, mp_context=get_context(method)) as processes:
        inputs, outputs = processes.submit(data.read, [7, 1]).result()
    assert torch.equal(inputs, data.read([7, 1])[0])
    assert torch.equal(outputs, data.read([7, 1])[1])


def test_copies_read_the_same(stored):
    data, _ = stored
    for twin in (copy.deepcopy(data), pickle.loads(pickle.dumps(data))):
        assert torch.equal(twin.read(range(10))[1], data.read(range(10))[1])


def test_the_cache_folder_is_chosen_by_argument_then_environment(tmp_path, monkeypatch):
    monkeypatch.setenv("RESOLVENT_CACHE", str(tmp_path / "told"))
    assert cache_root(tmp_path) == tmp_path
    assert cache_root() == tmp_path / "told"
    monkeypatch.delenv("RESOLVENT_CACHE")
    assert "resolvent" in str(cache_root())


def test_an_atomic_write_that_fails_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "kept.json"
    write_atomically(path, b"old")

    def broken(descriptor):
        raise OSError(5, "input/output error")

    monkeypatch.setattr(importlib.import_module("resolvent.data._files").os, "fsync", broken)
    with pytest.raises(OSError, match="input/output"):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["kept.json"]
