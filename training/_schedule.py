"""The learning rate as a function of training progress in [0, 1], so that epoch and time budgets share it."""

from __future__ import annotations

import math

from ._recipe import Recipe

START, END = 0.04, 1e-3  # of the peak
ROUNDING = 1e-9  # 0.6 / 0.2 is 2.9999999999999996


def learning_rate(recipe: Recipe, progress: float, epochs: int | None = None) -> float:
    """``epochs`` as planned, where a budget has another number of them than the recipe."""
    progress = min(max(progress, 0.0), 1.0)
    if recipe.schedule == "constant":
        return recipe.learning_rate
    if recipe.schedule == "step":
        share = recipe.step_every if recipe.step_every < 1 else recipe.step_every / (epochs or recipe.epochs)
        return recipe.learning_rate * recipe.step_factor ** math.floor(progress / share + ROUNDING)
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
