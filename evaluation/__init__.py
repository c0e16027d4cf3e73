"""Solvers into numbers, numbers into a verdict: metrics, cost, figures, records, reports, leaderboards.

Names resolve on first use: listing problems and models must not wait for torch and matplotlib.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from . import leaderboard, metrics, registry
    from ._reporter import Reporter
    from ._request import Request
    from ._saved import DamagedModel
    from .judge import Judgement
    from .pipeline import Outcome, solve
    from .record import DamagedRun, Run, read_run
    from .registry import UnknownName
    from .surrogate import Surrogate, load

_HOMES = {
    "DamagedModel": "_saved",
    "DamagedRun": "record",
    "Judgement": "judge",
    "Outcome": "pipeline",
    "Reporter": "_reporter",
    "Request": "_request",
    "Run": "record",
    "Surrogate": "surrogate",
    "UnknownName": "registry",
    "load": "surrogate",
    "read_run": "record",
    "solve": "pipeline",
}

__all__ = [
    "DamagedModel",
    "DamagedRun",
    "Judgement",
    "Outcome",
    "Reporter",
    "Request",
    "Run",
    "Surrogate",
    "UnknownName",
    "leaderboard",
    "load",
    "metrics",
    "read_run",
    "registry",
    "solve",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(f".{_HOMES[name]}", __name__), name)
    if name in ("leaderboard", "metrics", "registry"):
        return importlib.import_module(f".{name}", __name__)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
