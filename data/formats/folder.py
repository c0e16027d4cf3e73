"""A folder of netCDF shards with a ``manifest.json``, as ``generate`` writes it (data/format.md)."""

from __future__ import annotations

from pathlib import Path

from ..dataset import Dataset
from ..store import MANIFEST, open_dataset


def matches(path: Path) -> bool:
    return (path / MANIFEST).is_file()


def read(path: Path) -> Dataset:
    """See :func:`open_dataset`, which checks every shard."""
    return open_dataset(path)


def misfit(path: Path) -> str:
    return f"no {MANIFEST}"
