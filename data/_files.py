"""Bytes on disk that can be trusted: written whole or not at all, hashed once, locked while being made."""

from __future__ import annotations

import contextlib
import errno
import functools
import hashlib
import json
import os
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Generic, TypeVar

import filelock

Handle = TypeVar("Handle")

_BLOCK = 1 << 22  # bytes read at a time while hashing


class DamagedData(RuntimeError):
    """A file is not what was written: the message names it and says how to get it back."""


class DiskFull(OSError):
    """No space left; what was complete before is kept and the same command resumes."""


def cache_root(cache: Path | str | None = None) -> Path:
    """``cache`` where given, else ``RESOLVENT_CACHE``, else the platform's user cache folder."""
    if cache is not None:
        return Path(cache)
    if chosen := os.environ.get("RESOLVENT_CACHE"):
        return Path(chosen)
    import pooch

    return Path(pooch.os_cache("resolvent"))


def write_part(path: Path, content: bytes) -> Path:
    """Write ``content`` under a unique name beside ``path``, flushed to the disk, and return that name.

    Raises :class:`DiskFull` after removing the partial file.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.{uuid.uuid4().hex[:8]}.part")
    try:
        with open(part, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
    except BaseException as error:
        part.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            told = (
                f"no space left to write {len(content)} bytes. What was complete before is kept; "
                "free some space and run the same again"
            )
            raise DiskFull(error.errno, told, str(path)) from error
        raise
    return part


def write_atomically(path: Path | str, content: bytes) -> None:
    """Replace ``path`` by ``content`` in one step: a reader or a crash sees the old file or the new, never half.

    Raises :class:`DiskFull`; the old file then stands.
    """
    path = Path(path)
    os.replace(write_part(path, content), path)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make a rename durable, where the platform lets a folder be synced."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def canonical_json(value: Any) -> str:
    """One text per value: sorted keys, no spaces, no NaN."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def digest(content: bytes | str) -> str:
    """SHA-256, hexadecimal."""
    return hashlib.sha256(content.encode() if isinstance(content, str) else content).hexdigest()


def file_digest(path: Path) -> str:
    """SHA-256 of a file; hashed again only when its size or time of change differ from the last look."""
    status = path.stat()
    return _file_digest(str(path), status.st_size, status.st_mtime_ns, status.st_ino)


def path_digest(path: Path) -> str:
    """SHA-256 of a file, or of the names and the contents of a folder's files."""
    if path.is_file():
        return file_digest(path)
    files = sorted(entry for entry in path.rglob("*") if entry.is_file())
    return digest(canonical_json([[str(entry.relative_to(path)), file_digest(entry)] for entry in files]))


@functools.lru_cache(maxsize=65536)
def _file_digest(path: str, size: int, changed: int, inode: int) -> str:
    total = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(_BLOCK):
            total.update(block)
    return total.hexdigest()


class PerProcess(Generic[Handle]):
    """A file handle, opened in each process on first use: HDF5 handles must not go through a fork or a pickle."""

    def __init__(self, opening: Callable[[], Handle]) -> None:
        self._opening = opening
        self._process = -1

    def get(self) -> Handle:
        if self._process != os.getpid():
            self._handle = self._opening()
            self._process = os.getpid()
        return self._handle

    def __getstate__(self) -> dict[str, Any]:
        return {"_opening": self._opening, "_process": -1}


@contextlib.contextmanager
def locked(path: Path, waiting: Callable[[], None]) -> Iterator[None]:
    """Hold the lock file ``path``; the system frees it when its holder dies. ``waiting()`` is called twice a second."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = filelock.FileLock(path)
    while True:
        try:
            lock.acquire(timeout=0.5)
            break
        except filelock.Timeout:
            waiting()
    try:
        yield
    finally:
        lock.release()
