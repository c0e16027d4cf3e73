"""The one training loop, and what it is told: objectives, normalisers, schedules, budgets, checkpoints."""

from ._callback import Callback, Progress
from ._checkpoint import DamagedCheckpoint
from ._learned import LearnedSolver, ModuleSolver
from ._loop import Diverged, History, Interrupted
from ._network import NetworkSolver, coarse_grid
from ._normalizer import Normalizer
from ._objectives import mean_square, objective_named, relative_h1, relative_h1_difference, relative_l2
from ._recipe import Budget, Preset, Recipe, native_bfloat16

__all__ = [
    "Budget",
    "Callback",
    "DamagedCheckpoint",
    "Diverged",
    "History",
    "Interrupted",
    "LearnedSolver",
    "ModuleSolver",
    "NetworkSolver",
    "Normalizer",
    "Preset",
    "Progress",
    "Recipe",
    "coarse_grid",
    "mean_square",
    "native_bfloat16",
    "objective_named",
    "relative_h1",
    "relative_h1_difference",
    "relative_l2",
]
