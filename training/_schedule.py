"""The learning rate as a function of training progress in [0, 1], so that epoch and time budgets share it."""

from __future__ import annotations

import math

from ._recipe import Recipe

START, END = 0.04, 1e-3  # of the peak


def learning_rate(recipe: Recipe, progress: float) -> float:
    progress = min(max(progress, 0.0), 1.0)
    if recipe.schedule == "constant":
        return recipe.learning_rate
    if recipe.rise and progress < recipe.rise:
        share = progress / recipe.rise
        low = START if recipe.schedule == "cosine" else 0.5  # one_cycle starts at half the peak (MgNO: div_factor 2)
        climb = share if recipe.schedule == "cosine" else _cosine(share)
        return recipe.learning_rate * (low + (1 - low) * climb)
    share = (progress - recipe.rise) / (1 - recipe.rise)
    low = END if recipe.schedule == "cosine" else 0.005  # one_cycle ends at start / 100 (MgNO: final_div_factor 100)
    return recipe.learning_rate * (1 - (1 - low) * _cosine(share))


def _cosine(share: float) -> float:
    return 0.5 * (1 - math.cos(math.pi * share))
