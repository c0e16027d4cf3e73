"""Generation on a dask cluster: the values of a local one, whoever computed them, and clear words where it fails."""

import functools
import importlib
import os
import signal
import sys

import pytest
import torch
from resolvent.data import generate
from resolvent.pde import SolverError
from resolvent.pde.navier_stokes import NavierStokes

distributed = pytest.importorskip("distributed")
generating = importlib.import_module("resolvent.data.generate")
clusters = importlib.import_module("resolvent.data._cluster")


@pytest.fixture(scope="module")
def cluster():
    """Two workers in this process: threads, no ports to speak of."""
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, processes=False, dashboard_address=None, protocol="inproc"
    ) as started:
        yield started.scheduler_address


def shards_of(cache):
    return {path.name: path.read_bytes() for path in cache.glob("*/shard-*.nc")}


def test_the_values_are_those_of_a_local_generation(tmp_path, small_shards, cluster):
    """Byte for byte, solvers that choose their steps included; samples arrive in any order and each once."""
    seen = []
    problem = NavierStokes(frames=2)
    told = functools.partial(generate, problem, resolution=16, count=22, seed=3)
    local = told(cache=tmp_path / "local", workers=1)
    remote = told(cache=tmp_path / "remote", cluster=cluster, progress=lambda done, *_: seen.append(done))
    assert shards_of(tmp_path / "local") == shards_of(tmp_path / "remote")
    assert remote.fingerprint == local.fingerprint
    assert seen == sorted(seen)
    assert (seen[0], seen[-1]) == (0, 22)


def test_a_cluster_goes_on_where_another_stopped(tmp_path, static, small_shards, cluster, calls):
    generate(static(), resolution=4, count=10, cache=tmp_path, cluster=cluster)
    (folder,) = tmp_path.iterdir()
    (folder / "shard-00001.nc").unlink()
    calls.clear()
    generate(static(), resolution=4, count=10, cache=tmp_path, cluster=cluster)
    assert calls == [4]


def test_little_is_under_way_at_any_time(tmp_path, static, small_shards, cluster, monkeypatch):
    """Two threads, two tasks ahead each: of 40 shards never more than 4 are in memory."""
    most = []
    busy = clusters.Cluster.busy

    def watched(self, seconds):
        going = busy(self, seconds)
        most.append(len(self._running))
        return going

    monkeypatch.setattr(clusters.Cluster, "busy", watched)
    generate(static(), resolution=4, count=160, cache=tmp_path, cluster=cluster)
    assert 0 < max(most) <= 4


def test_a_failure_on_the_cluster_names_the_sample_and_keeps_the_rest(tmp_path, static, small_shards, failing, cluster):
    bad = generating.draw(static(), static().grid(4), 0, 9, 1)

    def blow_up(inputs):
        if bool((inputs == bad).flatten(1).all(1).any()):
            raise SolverError("The solution blew up.")

    failing(blow_up)
    with pytest.raises(SolverError, match=r"[Ss]ample 9 .*blew up"):
        generate(static(), resolution=4, count=14, cache=tmp_path, cluster=cluster)
    failing(lambda inputs: None)
    assert len(generate(static(), resolution=4, count=14, cache=tmp_path, cluster=cluster)) == 14


def test_no_scheduler_no_worker_no_package(tmp_path, static, monkeypatch):
    monkeypatch.setattr(clusters, "_CONNECT", 0.3)
    monkeypatch.setattr(clusters, "_WAIT", 0.3)
    ask = functools.partial(generate, static(), resolution=4, count=2, cache=tmp_path)
    with pytest.raises(OSError, match=r"No dask scheduler answers at 'tcp://127\.0\.0\.1:9'"):
        ask(cluster="tcp://127.0.0.1:9")
    with pytest.raises(OSError, match="No dask scheduler answers at 'nowhere'"):
        ask(cluster="nowhere")
    with (
        distributed.LocalCluster(n_workers=0, processes=False, dashboard_address=None, protocol="inproc") as idle,
        pytest.raises(OSError, match="has no worker; start some with: dask worker"),
    ):
        ask(cluster=idle.scheduler_address)
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(OSError, match=r"pip install 'resolvent\[cluster\]'"):
        ask(cluster="tcp://127.0.0.1:9")


def test_threads_of_the_caller_are_given_back(tmp_path, static, cluster):
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        generate(static(), resolution=4, count=2, cache=tmp_path, cluster=cluster)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


@pytest.mark.slow
def test_worker_processes_say_the_same(tmp_path):
    """Two processes of their own, which import the package anew; one is killed, and its shard is made by the other."""
    problem = NavierStokes(frames=2)
    local = generate(problem, resolution=16, count=1200, cache=tmp_path / "local", workers=1)
    killed = []

    def kill(done, *rest):
        if done and not killed:
            killed.append(next(iter(processes.workers.values())).pid)
            os.kill(killed[0], signal.SIGKILL)

    with distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as processes:
        address = processes.scheduler_address
        remote = generate(problem, resolution=16, count=1200, cache=tmp_path / "remote", cluster=address, progress=kill)
    assert killed
    assert remote.fingerprint == local.fingerprint
