"""``resolvent doctor``: what is installed, what it runs on, where data go, and whether that works."""

from __future__ import annotations

import os
import platform
import shutil
import sys
from pathlib import Path

import torch

from ..data import cache_root
from ..evaluation.record import versions
from ._threads import available_cores


def doctor() -> int:
    """Print versions, device, threads and cache; exit status 1 if something needed is missing."""
    lines = [f"{name:<16} {version or 'not installed'}" for name, version in versions().items()]
    cuda = torch.cuda.get_device_name(0) if torch.cuda.is_available() else "none (CPU is used)"
    lines += [
        f"{'python':<16} {platform.python_version()} on {platform.system()} {platform.machine()}",
        f"{'GPU':<16} {cuda}",
        f"{'threads':<16} {available_cores()} cores, OMP_NUM_THREADS={os.environ.get('OMP_NUM_THREADS', 'unset')}",
    ]
    folder = cache_root(None)
    problem = _cache_problem(folder)
    free = shutil.disk_usage(_existing(folder)).free / 2**30
    lines.append(f"{'cache':<16} {folder} ({free:.1f} GiB free){'' if problem is None else ': ' + problem}")
    lines.append("All is well." if problem is None else "Set RESOLVENT_CACHE to a folder that can be written.")
    sys.stdout.write("\n".join(lines) + "\n")
    return 0 if problem is None else 1


def _cache_problem(folder: Path) -> str | None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / f".probe-{os.getpid()}"
        probe.write_bytes(b"x")
        probe.unlink()
    except OSError as error:
        return error.strerror or str(error)
    return None


def _existing(folder: Path) -> Path:
    while not folder.exists():
        folder = folder.parent
    return folder
