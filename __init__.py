"""Resolvent: operator learning for partial differential equations.

A lazy front door: names resolve on first use, and importing the package imports nothing heavy.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .evaluation import load, solve

_FOLDERS = ("kernels", "pde", "data", "training", "fields", "operators", "gp", "dynamics", "evaluation", "cli")
_NAMES = {"load": ".evaluation", "solve": ".evaluation"}

__all__ = ["load", "solve"]


def __getattr__(name: str) -> Any:
    if name in _FOLDERS:
        return importlib.import_module(f"{__name__}.{name}")
    if name in _NAMES:
        return getattr(importlib.import_module(_NAMES[name], __name__), name)
    if name == "__version__":
        return importlib.import_module("importlib.metadata").version("resolvent")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*__all__, *_FOLDERS, "__version__"})
