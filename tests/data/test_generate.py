"""Values, their independence of workers and counts, resumption, failures."""

import errno
import importlib
import json
import os
import subprocess
import sys
import threading
from typing import ClassVar

import numpy as np
import pytest
import torch
from resolvent.data import DamagedData, DiskFull, generate, open_dataset
from resolvent.pde import SolverError
from resolvent.pde.navier_stokes import NavierStokes

generating = importlib.import_module("resolvent.data.generate")
files = importlib.import_module("resolvent.data._files")


def folder_of(cache):
    (folder,) = (entry for entry in cache.iterdir() if entry.is_dir())
    return folder


def shards_of(cache):
    return {path.name: path.read_bytes() for path in folder_of(cache).glob("shard-*.nc")}


def test_a_static_map_is_what_its_solver_says(tmp_path, static, small_shards):
    data = generate(static(), resolution=(5, 3), count=10, seed=1, cache=tmp_path)
    inputs, outputs = data.read(range(10))
    assert inputs.shape == (10, 1, 5, 3)
    assert outputs.shape == (10, 2, 5, 3)
    assert inputs.dtype == outputs.dtype == torch.float32
    drawn = generating.draw(static(), data.grid, 1, 0, 10)
    torch.testing.assert_close(inputs, drawn.float(), rtol=0, atol=0)  # storing rounds once and nothing else
    torch.testing.assert_close(outputs, torch.cat([3 * drawn, -drawn], 1).float(), rtol=0, atol=0)
    some = [9, 0, 9, 6]
    torch.testing.assert_close(data.read(some)[0], drawn[some].float(), rtol=0, atol=0)


def test_an_evolution_has_its_initial_state_as_input(tmp_path, evolving, small_shards):
    data = generate(evolving(), resolution=6, count=6, cache=tmp_path)
    inputs, outputs = data.read([5, 0])
    assert outputs.shape == (2, 3, 2, 6)
    fade = torch.exp(-0.5 * torch.arange(4.0))
    whole = data.trajectories([5, 0])
    torch.testing.assert_close(whole[:, 0], inputs, rtol=0, atol=0)
    torch.testing.assert_close(whole[:, 1:], outputs, rtol=0, atol=0)
    # float32 round-off of a product
    torch.testing.assert_close(whole[:, :, 0], inputs[:, None, 0] * fade[:, None], rtol=3e-7, atol=1e-9)
    torch.testing.assert_close(whole[:, :, 1], inputs[:, None, 1].expand(-1, 4, -1), rtol=0, atol=0)


def test_inputs_depend_on_seed_and_number_alone(tmp_path, static, monkeypatch):
    many = generate(static(), resolution=4, count=40, seed=3, cache=tmp_path).read(range(40))[0]
    monkeypatch.setattr(generating, "GROUP_SAMPLES", 2)
    few = generate(static(), resolution=4, count=21, seed=3, cache=tmp_path).read(range(21))[0]
    other = generate(static(), resolution=4, count=21, seed=4, cache=tmp_path).read(range(21))[0]
    assert torch.equal(many[:21], few)
    assert not torch.equal(few, other)
    assert len(torch.unique(many.flatten(1), dim=0)) == 40  # no block repeats another


def test_the_number_of_workers_changes_nothing(tmp_path, small_shards, monkeypatch):
    """Byte for byte; the second process makes at least the task that it is handed at the start."""
    problem = NavierStokes(frames=2)
    here = []
    monkeypatch.setattr(generating, "WORTH_HELP", 0.0)
    generate(problem, resolution=16, count=14, cache=tmp_path / "one", workers=1)
    monkeypatch.setattr(generating, "Workers", Spying)
    monkeypatch.setattr(Spying, "own", here)
    seen = []
    generate(
        problem, resolution=16, count=14, cache=tmp_path / "two", workers=2, progress=lambda *told: seen.append(told)
    )
    assert shards_of(tmp_path / "one") == shards_of(tmp_path / "two")
    assert 0 < len(here) < 4
    assert [done for done, _, _ in seen] == sorted(done for done, _, _ in seen)
    assert seen[0][:2] == (0, 14)
    assert seen[-1][:2] == (14, 14)


@pytest.mark.parametrize("shards", [4, 2, 1])
def test_the_size_of_tasks_and_shards_changes_nothing(tmp_path, small_shards, monkeypatch, shards):
    """Groups of 4 are solved together, whether a shard holds one, two or four of them; steps are chosen per group."""
    problem = NavierStokes(frames=2)
    whole = generate(problem, resolution=16, count=14, cache=tmp_path / "one", workers=1)
    monkeypatch.setattr(generating, "SHARDS", shards)
    other = generate(problem, resolution=16, count=14, cache=tmp_path / "other", workers=1)
    assert len(shards_of(tmp_path / "other")) == shards
    assert torch.equal(other.trajectories(range(14)), whole.trajectories(range(14)))


def test_a_million_samples_do_not_fill_a_folder_with_files(evolving):
    """16² and two fields: 489 files of 4 MiB; 32 MiB is the most that a file may take."""
    from resolvent.pde.darcy import Darcy

    posed = generating.pose(Darcy(), resolution=16, count=1_000_000)
    assert (posed.shard_size, sum(1 for _ in posed.shards())) == (2048, 489)
    assert generating.group_size(posed.signature, posed.grid) == 256
    assert generating.pose(Darcy(), resolution=16, count=50_000).shard_size == 256
    assert generating.pose(NavierStokes(), resolution=64, count=1_000_000).shard_size == 64


def test_entering_a_shard_costs_the_same_however_many_there_are(tmp_path, static, monkeypatch):
    """The manifest is not rewritten while shards are made, so a million samples cost no square of anything."""
    written = []
    monkeypatch.setattr(generating, "GROUP_SAMPLES", 1)
    whole = generating.Book.save
    monkeypatch.setattr(generating.Book, "save", lambda book: (whole(book), written.append(len(book.shards))))
    for count in (8, 16):
        written.clear()
        generate(static(), resolution=4, count=count, cache=tmp_path / str(count), workers=1)
        assert written == [0, count]  # at the beginning and at the end
    assert {path.name for path in folder_of(tmp_path / "16").iterdir()} - set(shards_of(tmp_path / "16")) == {
        "manifest.json",
        ".lock",
    }


def test_a_journal_cut_short_costs_its_last_shard(tmp_path, static, small_shards, calls):
    generate(static(), resolution=4, count=14, cache=tmp_path, workers=1)
    folder = folder_of(tmp_path)
    manifest = json.loads((folder / "manifest.json").read_text())
    lines = [json.dumps([name, shard]) for name, shard in sorted(manifest["shards"].items())[:3]]
    (folder / "manifest.json").write_text(json.dumps({**manifest, "complete": False, "shards": {}}))
    (folder / "journal.jsonl").write_text("\n".join(lines)[:-9])
    calls.clear()
    generate(static(), resolution=4, count=14, cache=tmp_path, workers=1)
    assert calls == [4, 2]  # the third, whose line is cut, and the fourth, which has none


def test_a_device_that_is_not_there_is_refused(tmp_path, static):
    with pytest.raises(ValueError, match="Unknown device 'gpu'"):
        generate(static(), resolution=4, count=2, cache=tmp_path, device="gpu")
    if not torch.cuda.is_available():
        with pytest.raises(ValueError, match="No CUDA device"):
            generate(static(), resolution=4, count=2, cache=tmp_path, device="cuda")


def test_another_device_is_another_question_and_is_used(tmp_path, static, monkeypatch):
    """``meta`` stands for a GPU: fields arrive there, and their values never come back."""
    assert (
        generating.pose(static(), resolution=4, count=2, device="cpu").key
        == generating.pose(static(), resolution=4, count=2).key
    )
    posed = generating.pose(static(), resolution=4, count=2, device="meta")
    assert posed.key != generating.pose(static(), resolution=4, count=2).key
    seen = []
    monkeypatch.setattr(
        generating, "_solve", lambda problem, posed, inputs, first: seen.append(inputs.device.type) or inputs.cpu() * 0
    )
    with pytest.raises(NotImplementedError):
        generating.make(posed, static(), ("shard-00000.nc", 0, 2))
    assert seen == ["meta"]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_says_the_same_to_round_off(tmp_path):
    problem = NavierStokes(frames=2)
    here, there = (
        generate(problem, resolution=32, count=4, cache=tmp_path, device=device).trajectories(range(4))
        for device in ("cpu", "cuda")
    )
    torch.testing.assert_close(there, here, rtol=1e-5, atol=1e-6)  # float32 storage of float64 solutions


class Spying(generating.Workers):
    """Notes which tasks the calling process took."""

    own: ClassVar[list] = []

    def own_share(self):
        for task in super().own_share():
            self.own.append(task)
            yield task


def test_small_work_starts_no_process(tmp_path, static, small_shards, monkeypatch):
    asked = []
    monkeypatch.setattr(generating, "Workers", lambda helpers, *rest: asked.append(helpers) or RealWorkers(0, *rest))
    generate(static(), resolution=4, count=40, cache=tmp_path, workers=2)
    assert asked == [0]


RealWorkers = generating.Workers


def test_threads_of_torch_are_given_back(tmp_path, static):
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        generate(static(), resolution=4, count=2, cache=tmp_path)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_the_same_question_is_answered_without_solving(tmp_path, static, calls):
    first = generate(static(), resolution=4, count=3, cache=tmp_path)
    calls.clear()
    again = generate(static(), resolution=4, count=3, cache=tmp_path)
    assert calls == []
    assert again.fingerprint == first.fingerprint
    assert torch.equal(again.read([2])[1], first.read([2])[1])
    assert again.source == first.source


def test_every_part_of_the_question_is_in_the_key(static, evolving):
    pose = generating.pose
    base = {"resolution": 4, "count": 3, "seed": 0, "accuracy": None}
    keys = {pose(static(), **base).key, pose(static(factor=2.0), **base).key, pose(evolving(), **base).key}
    for change in ({"resolution": 5}, {"count": 4}, {"seed": 1}, {"accuracy": {"failing": "no"}}):
        keys.add(pose(static(), **{**base, **change}).key)
    assert len(keys) == 7
    assert pose(static(), **base).key == pose(static(), **base).key


def test_a_failure_names_the_sample_and_keeps_the_rest(tmp_path, static, small_shards, failing, calls):
    bad = generating.draw(static(), static().grid(4), 0, 9, 1)

    def blow_up(inputs):
        if bool((inputs == bad).flatten(1).all(1).any()):
            raise SolverError("The solution blew up.")

    failing(blow_up)
    with pytest.raises(SolverError, match=r"[Ss]ample 9 .*blew up"):
        generate(static(), resolution=4, count=14, cache=tmp_path / "broken", workers=1)
    assert sorted(shards_of(tmp_path / "broken")) == ["shard-00000.nc", "shard-00001.nc"]
    failing(lambda inputs: None)
    calls.clear()
    data = generate(static(), resolution=4, count=14, cache=tmp_path / "broken", workers=1)
    assert calls == [4, 2]  # the two shards that were missing
    whole = generate(static(), resolution=4, count=14, cache=tmp_path / "unbroken", workers=1)
    assert shards_of(tmp_path / "unbroken") == shards_of(tmp_path / "broken")
    assert data.fingerprint == whole.fingerprint


def test_a_solution_that_is_not_finite_names_the_sample(tmp_path, static, small_shards, monkeypatch):
    solver = type(static().reference())
    monkeypatch.setattr(
        solver, "__call__", lambda self, inputs, grid: torch.full((len(inputs), 2, *grid.shape), float("nan"))
    )
    with pytest.raises(SolverError, match=r"solution of conftest at sample\(s\) \[0, 1, 2, 3\]"):
        generate(static(), resolution=4, count=8, cache=tmp_path, workers=1)


def test_a_solver_of_another_shape_is_refused(tmp_path, static, monkeypatch):
    monkeypatch.setattr(type(static().reference()), "__call__", lambda self, inputs, grid: inputs)
    with pytest.raises(ValueError, match=r"returned shape \(2, 1, 4, 4\), expected \(2, 2, 4, 4\)"):
        generate(static(), resolution=4, count=2, cache=tmp_path)


KILLED = """
import importlib, os, pathlib, signal, sys
from resolvent.data import generate
from resolvent.pde.navier_stokes import NavierStokes
files = importlib.import_module("resolvent.data._files")
importlib.import_module("resolvent.data.generate").GROUP_SAMPLES = 4
sync, parts = os.fsync, []
def fsync(descriptor):
    if os.readlink(f"/proc/self/fd/{descriptor}").find("shard-00002") >= 0:
        os.kill(os.getpid(), signal.SIGKILL)
    sync(descriptor)
files.os.fsync = fsync
generate(NavierStokes(frames=2), resolution=16, count=14, cache=pathlib.Path(sys.argv[1]), workers=1)
"""


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="finds the open file through /proc")
def test_a_killed_generation_goes_on_where_it_stopped(tmp_path, small_shards):
    """SIGKILL while the third shard is written: its part lies there, is not picked up, and goes."""
    ended = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)], check=False)
    assert ended.returncode == -9
    folder = folder_of(tmp_path)
    kept = {name: (folder / name).stat().st_ino for name in ("shard-00000.nc", "shard-00001.nc")}
    assert sorted(path.name for path in folder.glob("shard-*.nc")) == sorted(kept)
    assert len(list(folder.glob("shard-00002.nc.*.part"))) == 1
    with pytest.raises(DamagedData, match="unfinished"):
        open_dataset(folder)
    problem = NavierStokes(frames=2)
    generate(problem, resolution=16, count=14, cache=tmp_path, workers=1)
    # every shard that was finished is kept: a kill costs the one in the making
    assert {name: (folder / name).stat().st_ino for name in kept} == kept
    assert not (folder / "journal.jsonl").exists()
    assert list(folder.glob("*.part")) == []
    generate(problem, resolution=16, count=14, cache=tmp_path / "unbroken", workers=1)
    assert shards_of(tmp_path / "unbroken") == {path.name: path.read_bytes() for path in folder.glob("shard-*.nc")}


def test_a_full_disk_is_said_and_survived(tmp_path, static, small_shards, monkeypatch):
    sync, synced = os.fsync, []

    def fsync(descriptor):
        synced.append(descriptor)
        if len(synced) > 4:  # shard, manifest and its folder; the next shard; then no more
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        sync(descriptor)

    monkeypatch.setattr(files.os, "fsync", fsync)
    with pytest.raises(DiskFull, match=r"no space left .* run the same again"):
        generate(static(), resolution=4, count=14, cache=tmp_path, workers=1)
    folder = folder_of(tmp_path)
    assert list(folder.glob("*.part")) == []
    kept = {path.name: path.stat().st_ino for path in folder.glob("shard-*.nc")}
    assert sorted(kept) == ["shard-00000.nc", "shard-00001.nc"]
    monkeypatch.undo()
    monkeypatch.setattr(generating, "GROUP_SAMPLES", 4)
    data = generate(static(), resolution=4, count=14, cache=tmp_path, workers=1)
    assert len(data.source["shards"]) == 4
    assert (folder / "shard-00000.nc").stat().st_ino == kept["shard-00000.nc"]
    open_dataset(folder)


def test_two_at_once_make_it_once(tmp_path, static, small_shards, failing, calls):
    gate = threading.Event()
    failing(lambda inputs: gate.wait(5))
    waiting = []

    def told(done, total, message):
        if "waiting" in message:
            waiting.append(message)
            gate.set()

    results = []
    threads = [
        threading.Thread(
            target=lambda: results.append(
                generate(static(), resolution=4, count=10, cache=tmp_path, workers=1, progress=told)
            )
        )
        for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert waiting
    assert calls == [4, 4, 2]
    assert results[0].fingerprint == results[1].fingerprint


@pytest.mark.parametrize(
    ("wrong", "message"),
    [({"count": 0}, "at least 1 sample"), ({"seed": -1}, "seed"), ({"workers": 0}, "1 worker")],
)
def test_wrong_numbers_are_refused(tmp_path, static, wrong, message):
    with pytest.raises(ValueError, match=message):
        generate(static(), **{"resolution": 4, "count": 2, "cache": tmp_path, **wrong})


def test_shards_are_powers_of_two_within_their_limits(evolving, static):
    for problem, resolution, expected in [
        (NavierStokes(), 64, 16),  # 344 kB a sample
        (NavierStokes(frames=50), 64, 8),
        (static(), 61, 128),  # 45 kB
        (evolving(), 8, 256),
        (NavierStokes(), 1024, 1),  # 88 MB
    ]:
        assert generating.pose(problem, resolution=resolution, count=1).shard_size == expected


def test_what_is_drawn_is_normal(static):
    """Blocks are independent draws: mean and variance of 6400 normals within four standard errors."""
    drawn = generating.draw(static(), static().grid(4), 0, 0, 400).numpy()
    assert abs(drawn.mean()) < 4 / np.sqrt(drawn.size)
    assert abs(drawn.var() - 1) < 4 * np.sqrt(2 / drawn.size)
