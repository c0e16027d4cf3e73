"""A function of position as a network: positions in physical units in, values and exact derivatives out.

Names resolve on first use: listing models must not wait for torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ._adjust import Adjustment
    from ._field import Field
    from ._fit import Plan, Samples, fit, gridded, represent
    from ._solve import FieldSolver, MisfitWarning

_HOMES = {
    "Adjustment": "_adjust",
    "Field": "_field",
    "FieldSolver": "_solve",
    "MisfitWarning": "_solve",
    "Plan": "_fit",
    "Samples": "_fit",
    "fit": "_fit",
    "gridded": "_fit",
    "represent": "_fit",
}

__all__ = [
    "Adjustment",
    "Field",
    "FieldSolver",
    "MisfitWarning",
    "Plan",
    "Samples",
    "fit",
    "gridded",
    "represent",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f".{_HOMES[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted(__all__)
