"""Differential equations with learned right-hand sides: integrators, and what makes learned dynamics cheap to solve.

Names resolve on first use: listing models must not wait for torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ._brownian import Brownian
    from ._koopman import koopman
    from ._layered import LayeredField, layered
    from ._learner import Work
    from ._odeint import odeint
    from ._order_reduction import Reducer, reduced
    from ._reduced_ode import Reduction, reduce
    from ._reduction_error import abscissa, error_indicator
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
    from ._symbolic import code_of, cycles, lyapunov_exponents
    from ._thinning import pruned, truncated
    from .latent_ode import Series

_HOMES = {
    "Brownian": "_brownian",
    "Counts": "_solution",
    "ERNODE": "_regularisers",
    "ERNODE_PAPER": "_regularisers",
    "Global": "_regularisers",
    "GlobalNoise": "_regularisers",
    "LayeredField": "_layered",
    "Local": "_regularisers",
    "LocalNoise": "_regularisers",
    "Reducer": "_order_reduction",
    "Reduction": "_reduced_ode",
    "SRNODE": "_regularisers",
    "SRNODE_PAPER": "_regularisers",
    "Series": "latent_ode",
    "Solution": "_solution",
    "Trace": "_solution",
    "Weight": "_regularisers",
    "Work": "_learner",
    "abscissa": "_reduction_error",
    "code_of": "_symbolic",
    "cycles": "_symbolic",
    "error_indicator": "_reduction_error",
    "koopman": "_koopman",
    "layered": "_layered",
    "lyapunov_exponents": "_symbolic",
    "odeint": "_odeint",
    "pruned": "_thinning",
    "reduce": "_reduced_ode",
    "reduced": "_order_reduction",
    "sdeint": "_sdeint",
    "truncated": "_thinning",
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
    "LayeredField",
    "Local",
    "LocalNoise",
    "Reducer",
    "Reduction",
    "Series",
    "Solution",
    "Trace",
    "Weight",
    "Work",
    "abscissa",
    "code_of",
    "cycles",
    "error_indicator",
    "koopman",
    "layered",
    "lyapunov_exponents",
    "odeint",
    "pruned",
    "reduce",
    "reduced",
    "sdeint",
    "truncated",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f".{_HOMES[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted(__all__)
