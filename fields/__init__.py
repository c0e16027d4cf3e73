"""A function of position as a network: positions in physical units in, values and exact derivatives out.

Names resolve on first use: listing models must not wait for torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ._adjust import Adjustment
    from ._archive import Archive, load_field, save_field
    from ._builder import fields_of, solver_of
    from ._compress import Request, compressed
    from ._field import Field, derivative
    from ._fit import Plan, Samples, fit, gridded, represent
    from ._march import MarchingSolver
    from ._network import Network
    from ._satisfy import Law, satisfy
    from ._solve import FieldSolver, MisfitWarning
    from ._xarray import FieldBackend

_HOMES = {
    "Adjustment": "_adjust",
    "Archive": "_archive",
    "Field": "_field",
    "FieldBackend": "_xarray",
    "FieldSolver": "_solve",
    "Law": "_satisfy",
    "MarchingSolver": "_march",
    "MisfitWarning": "_solve",
    "Network": "_network",
    "Plan": "_fit",
    "Request": "_compress",
    "Samples": "_fit",
    "compressed": "_compress",
    "derivative": "_field",
    "fields_of": "_builder",
    "fit": "_fit",
    "gridded": "_fit",
    "load_field": "_archive",
    "represent": "_fit",
    "satisfy": "_satisfy",
    "save_field": "_archive",
    "solver_of": "_builder",
}

__all__ = [
    "Adjustment",
    "Archive",
    "Field",
    "FieldBackend",
    "FieldSolver",
    "Law",
    "MarchingSolver",
    "MisfitWarning",
    "Network",
    "Plan",
    "Request",
    "Samples",
    "compressed",
    "derivative",
    "fields_of",
    "fit",
    "gridded",
    "load_field",
    "represent",
    "satisfy",
    "save_field",
    "solver_of",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f".{_HOMES[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted(__all__)
