"""Time series without space: files with sample and time, one long series in stretches, what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import xarray
from resolvent.data import read
from resolvent.data.formats._warnings import Assumption


def written(path: Path, values: np.ndarray, times: np.ndarray, dims: tuple[str, ...]) -> Path:
    variables = {"a": (dims, values), "b": (dims, -values)}
    xarray.Dataset(variables, {"time": ("time", times, {"units": "s"})}).to_netcdf(path, engine="h5netcdf")
    return path


def test_several_series_are_samples_on_a_point(tmp_path: Path) -> None:
    values = np.random.default_rng(0).random((5, 4))
    data = read(written(tmp_path / "series.nc", values, np.arange(4) * 0.5, ("sample", "time")))
    assert (len(data), data.grid.axes, data.signature.frames, data.signature.spacing) == (5, (), 3, 0.5)
    assert [c.name for c in data.signature.outputs] == ["a", "b"]
    states = data.trajectories([3, 1])
    torch.testing.assert_close(states[..., 0].double(), torch.from_numpy(values[[3, 1]]), rtol=1e-6, atol=0)
    torch.testing.assert_close(states[..., 1], -states[..., 0])
    inputs, outputs = data.read([0])
    assert inputs.shape == (1, 2)
    assert outputs.shape == (1, 3, 2)


def test_one_long_series_is_cut_into_stretches_that_share_their_ends(tmp_path: Path) -> None:
    values = np.arange(64.0)
    with pytest.warns(Assumption, match="cut into 20 stretches of 3 steps"):
        data = read(written(tmp_path / "long.nc", values, np.arange(64) * 0.1, ("time",)))
    assert (len(data), data.signature.frames) == (20, 3)
    assert data.signature.spacing == pytest.approx(0.1)
    states = data.trajectories(range(20))[..., 0]
    torch.testing.assert_close(states, 3 * torch.arange(20.0)[:, None] + torch.arange(4.0))


def test_series_that_are_too_short_or_not_in_order_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="5 times do not make the 3"):
        read(written(tmp_path / "short.nc", np.arange(5.0), np.arange(5.0), ("time",)))
    for name, times in (("back", [0.0, 1.0, 0.5, 2.0]), ("twice", [0.0, 1.0, 1.0, 2.0]), ("uneven", [0, 1, 2.5, 3])):
        with pytest.raises(ValueError, match="evenly spaced and increasing"):
            read(written(tmp_path / f"{name}.nc", np.zeros((2, 4)), np.asarray(times, float), ("sample", "time")))
