"""Differential equations with learned right-hand sides: integrators, and what makes learned dynamics cheap to solve.

Names resolve on first use: listing models must not wait for torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ._brownian import Brownian
    from ._learner import Work
    from ._odeint import odeint
    from ._regularisers import (
        ERNODE,
        ERNODE_PAPER,
        SRNODE,
        SRNODE_PAPER,
        Global,
        GlobalNoise,
        Local,
        LocalNoise,
        Weight,
    )
    from ._sdeint import sdeint
    from ._solution import Counts, Solution, Trace
    from .latent_ode import Series

_HOMES = {
    "Brownian": "_brownian",
    "Counts": "_solution",
    "ERNODE": "_regularisers",
    "ERNODE_PAPER": "_regularisers",
    "Global": "_regularisers",
    "GlobalNoise": "_regularisers",
    "Local": "_regularisers",
    "LocalNoise": "_regularisers",
    "SRNODE": "_regularisers",
    "SRNODE_PAPER": "_regularisers",
    "Series": "latent_ode",
    "Solution": "_solution",
    "Trace": "_solution",
    "Weight": "_regularisers",
    "Work": "_learner",
    "odeint": "_odeint",
    "sdeint": "_sdeint",
}

__all__ = [
    "ERNODE",
    "ERNODE_PAPER",
    "SRNODE",
    "SRNODE_PAPER",
    "Brownian",
    "Counts",
    "Global",
    "GlobalNoise",
    "Local",
    "LocalNoise",
    "Series",
    "Solution",
    "Trace",
    "Weight",
    "Work",
    "odeint",
    "sdeint",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f".{_HOMES[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted(__all__)
