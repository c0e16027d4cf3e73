"""Solvers into numbers, numbers into a verdict: metrics, cost, figures, records, reports, leaderboards."""

from . import leaderboard, metrics, registry
from ._reporter import Reporter
from ._request import Request
from ._saved import DamagedModel
from .judge import Judgement, judge
from .pipeline import Outcome, solve
from .record import DamagedRun, Run, read_run
from .registry import UnknownName
from .surrogate import Surrogate, load

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
    "judge",
    "leaderboard",
    "load",
    "metrics",
    "read_run",
    "registry",
    "solve",
]
