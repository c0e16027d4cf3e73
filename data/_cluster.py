"""A dask cluster that makes shards for the caller, who only stores them: workers need no folder in common with it.

Each worker computes on one thread per task, as local processes do, so the values are those of a local generation
wherever the processor and the packages are the same. The task of a worker that dies is given to another.
"""

from __future__ import annotations

import collections
import concurrent.futures
import socket
from collections.abc import Callable, Iterator, Sequence
from types import TracebackType
from typing import Any

from ._workers import Crew, Task

_CONNECT = 10.0  # [s] in which a scheduler answers
_WAIT = 30.0  # [s] in which a first worker joins
_AHEAD = 2  # tasks a thread that are under way, so that memory stays bounded on either side


class ClusterError(OSError):
    """The cluster cannot be reached, has no workers, or lost too many; the message says which."""


class Cluster(Crew[Task]):
    """``make(task)`` on the workers of a scheduler; ``done(*result)`` is called here, in the caller's thread."""

    def __init__(
        self, address: str, make: Callable[[Task], Any], done: Callable[..., None], tasks: Sequence[Task]
    ) -> None:
        self.address = address
        self.make = make
        self._done = done
        self._pending = collections.deque(tasks)
        self._running: set[Any] = set()

    def __enter__(self) -> Cluster[Task]:
        distributed = _library()
        try:
            _knock(self.address)
            self._client = distributed.Client(self.address, timeout=_CONNECT, set_as_default=False)
        except (OSError, TimeoutError, ValueError) as error:
            raise ClusterError(f"No dask scheduler answers at {self.address!r}: {error or 'timeout'}.") from error
        try:
            self._client.wait_for_workers(1, timeout=_WAIT)
        except TimeoutError as error:
            self._client.close()
            told = f"start some with: dask worker {self.address}"
            raise ClusterError(f"The scheduler at {self.address!r} has no worker; {told}.") from error
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pending.clear()
        if self._running:
            self._client.cancel(list(self._running))
        self._client.close()

    def own_share(self) -> Iterator[Task]:
        """Nothing: the caller stores."""
        return iter(())

    def busy(self, seconds: float) -> bool:
        distributed = _library()
        threads = sum(self._client.nthreads().values())
        while self._pending and len(self._running) < _AHEAD * max(1, threads):
            task = self._pending.popleft()
            self._running.add(self._client.submit(_on_one_thread, self.make, task, pure=False))
        if not self._running:
            return False
        try:
            with self._client.as_current():
                ended = distributed.wait(self._running, timeout=seconds, return_when="FIRST_COMPLETED").done
        except TimeoutError:
            return True
        for future in ended:
            self._running.discard(future)
            try:
                result = future.result()
            except (distributed.KilledWorker, concurrent.futures.CancelledError) as error:
                raise ClusterError(f"The cluster at {self.address!r} lost too many workers: {error}") from error
            self._done(*result)
        return bool(self._running or self._pending)


def _knock(address: str) -> None:
    """Raise ``OSError`` where nobody listens.

    A dask client that cannot connect is left half made, and closes itself whenever it is collected: where that happened
    while another one was starting, both waited for one lock for ever.
    """
    scheme, _, place = address.rpartition("://")
    host, _, port = place.rpartition(":")
    if scheme not in ("", "tcp", "tls"):
        return
    if not port.isdigit():
        raise OSError("an address is like tcp://host:8786")
    socket.create_connection((host.strip("[]"), int(port)), timeout=_CONNECT).close()


def _on_one_thread(make: Callable[[Task], Any], task: Task) -> Any:
    import torch

    torch.set_num_threads(1)  # round-off depends on how a reduction is split
    return make(task)


def _library() -> Any:
    try:
        import distributed
    except ImportError as error:
        raise ClusterError(
            "Generation on a cluster needs dask.distributed: pip install 'resolvent[cluster]'."
        ) from error
    return distributed
