"""Where a run was made: versions read from the installation, processor and accelerator by model. No names, no paths."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from pathlib import Path

import torch

_PACKAGES = ("resolvent", "torch", "numpy", "scipy", "neuraloperator", "pyamg", "scikit-fem", "triton", "xarray")


def versions() -> dict[str, str]:
    """Versions of this package, of Python, and of those libraries that numbers depend on, where installed."""
    found = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def machine(device: torch.device | str = "cpu") -> str:
    """Processor model and number of cores, and the accelerator where one is used."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    text = f"{_processor()}, {usable} cores"
    if torch.device(device).type == "cuda" and torch.cuda.is_available():
        text += f", {torch.cuda.get_device_name(device)}"
    return f"{text}, {platform.system()} {platform.machine()}"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, "") or platform.processor() or "unknown processor"
