"""Gaussian-process solvers of single instances, their error bars, inverse problems, and regression between functions.

Names resolve on first use: listing models must not wait for torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ._health import Health, HealthWarning
    from ._inverse import Estimate, Measurements, infer
    from ._posterior import Noise, RandomField
    from .gp import GaussianProcess
    from .gp_operator import GPOperator

_HOMES = {
    "Estimate": "_inverse",
    "GPOperator": "gp_operator",
    "GaussianProcess": "gp",
    "Health": "_health",
    "HealthWarning": "_health",
    "Measurements": "_inverse",
    "Noise": "_posterior",
    "RandomField": "_posterior",
    "infer": "_inverse",
}

__all__ = [
    "Estimate",
    "GPOperator",
    "GaussianProcess",
    "Health",
    "HealthWarning",
    "Measurements",
    "Noise",
    "RandomField",
    "infer",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f".{_HOMES[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted(__all__)
