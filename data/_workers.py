"""Helpers: processes that take tasks from the same list as the caller, who works too.

Helpers need about 2 s to start (an interpreter and torch); the caller's own work covers them. They are loky
processes: no ``if __name__ == "__main__"`` is asked of a user's script, and problems defined in a notebook travel.
"""

from __future__ import annotations

import collections
import concurrent.futures
import os
import signal
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from types import TracebackType
from typing import Any, Generic, TypeVar

Task = TypeVar("Task")

_ONE_THREAD = {f"{name}_NUM_THREADS": "1" for name in ("OMP", "MKL", "OPENBLAS")}  # for scipy in the helpers


class Crew(ABC, Generic[Task]):
    """Who shares a list of tasks with the caller: used as a context, within which :meth:`own_share` comes first.

    Leaving the context by an exception ends the others' work.
    """

    make: Callable[[Task], Any]

    @abstractmethod
    def __enter__(self) -> Crew[Task]: ...

    @abstractmethod
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    @abstractmethod
    def own_share(self) -> Iterator[Task]:
        """Tasks for the caller, until none is left; raises as soon as a helper failed."""

    @abstractmethod
    def busy(self, seconds: float) -> bool:
        """Wait at most ``seconds`` for the others; False when they have finished. Raises what one of them raised."""


class Workers(Crew[Task]):
    """``make(task)`` for every task, in ``helpers`` other processes; ``done(*result)`` is called here, in a thread.

    Within the ``with`` block the caller loops over :meth:`own_share`, then waits with :meth:`busy`, which raises what
    a helper raised. Leaving the block by an exception ends the helpers at once.
    """

    def __init__(
        self, helpers: int, make: Callable[[Task], Any], done: Callable[..., None], tasks: Sequence[Task]
    ) -> None:
        self._pending = collections.deque(tasks)
        self.make = make
        self._done = done
        self._helpers = helpers
        self._feeding: set[concurrent.futures.Future[None]] = set()

    def __enter__(self) -> Workers[Task]:
        if self._helpers > 0:
            from joblib.externals.loky import ProcessPoolExecutor

            self._processes = ProcessPoolExecutor(self._helpers, initializer=_settle, env=_ONE_THREAD)
            self._threads = concurrent.futures.ThreadPoolExecutor(self._helpers)
            self._feeding = {self._threads.submit(self._feed) for _ in range(self._helpers)}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pending.clear()
        if self._helpers > 0:
            self._processes.shutdown(wait=True, kill_workers=True)
            self._threads.shutdown(wait=True)

    def own_share(self) -> Iterator[Task]:
        while True:
            self._raise_failures()
            try:
                yield self._pending.popleft()
            except IndexError:
                return

    def busy(self, seconds: float) -> bool:
        running = concurrent.futures.wait(self._feeding, timeout=seconds).not_done
        self._raise_failures()
        return bool(running)

    def _raise_failures(self) -> None:
        for feeding in self._feeding:
            if feeding.done():
                feeding.result()

    def _feed(self) -> None:
        while True:
            try:
                task = self._pending.popleft()
            except IndexError:
                return
            self._done(*self._processes.submit(self.make, task).result())


def _settle() -> None:
    """A helper's first act: one thread, Ctrl-C left to the caller, who ends it, and no life after the caller's."""
    import torch

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(1)
    threading.Thread(target=_follow, args=(os.getppid(),), daemon=True).start()


def _follow(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(1.0)
    os._exit(1)
