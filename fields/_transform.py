r"""Gridded values into a series: the transform, the step that fills a rate or serves a bound, held-out nodes."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, cast

import numpy as np
import torch
from torch import Generator, Tensor

from ..pde import Channel, Grid
from ._archive import Archive, residual_of, restored
from ._builder import Fields
from ._fit import Plan
from ._jet import Jet
from ._quantise import order_of
from ._residual import margin_of
from .series import Series, coefficients, internal

SHARES = (0.3, 0.5, 0.8, 1.3)  # error of a series in units of the bound, of which the smallest file is taken
REPORT = 80  # bytes of what will be measured
FINEST, COARSEST = -40.0, 16.0  # exponents of the step, in units of the standardised values
TRIES = 12  # files made until one has the rate
USUAL = 0.02  # relative error at which the treatment of the ends is chosen
STEPS = 40  # of conjugate gradients, for held-out nodes


def transformed(values: np.ndarray, grid: Grid, channels: Sequence[Channel], request: Any) -> Archive:
    """Each channel is centred and scaled first, so that all have the same relative error."""
    flat = values.reshape(len(values), -1).astype(np.float64)
    mean, deviation = flat.mean(axis=1), flat.std(axis=1)
    deviation[deviation == 0] = 1.0
    shape = (-1, *[1] * grid.dim)
    standard = torch.from_numpy((values - mean.reshape(shape)) / deviation.reshape(shape))
    largest = np.abs(values).max()
    made = SeriesMaker(standard, grid, tuple(channels), mean, deviation, request)
    if request.rate or request.bound is None:
        archive = made.of_rate(request.rate or 1.0)
    elif request.bound <= max(4 * margin_of(float(largest)), float(np.spacing(largest))):
        archive = made.of_step(1e-3)  # values will be stored as they are
    else:
        archive = made.smallest(values, request.bound)
    held = made.heldout(archive, request.plan)
    return replace(archive, report={**archive.report, **({} if held is None else {"heldout": held})})


class SeriesMaker:
    """Series of one set of standardised values, of several steps."""

    def __init__(
        self, standard: Tensor, grid: Grid, channels: tuple[Channel, ...], mean: np.ndarray, deviation: np.ndarray,
        request: Any,
    ) -> None:  # fmt: skip
        self.standard, self.grid, self.channels, self.request = standard, grid, channels, request
        self.mean, self.deviation = mean, deviation
        self.ends = self._chosen_ends()
        self.all = coefficients(standard, grid, self.ends)
        self.order = order_of(self.all.shape[1:], grid.shape)

    def _chosen_ends(self) -> tuple[int, ...]:
        """Odd derivatives taken over at the ends of each axis: as many as make the coefficients cheapest."""
        if "ends" in self.request.options:
            given = self.request.options["ends"]
            each = [given] * self.grid.dim if isinstance(given, int) else list(given)
            return tuple(0 if a.periodic else e for a, e in zip(self.grid.axes, each, strict=True))
        chosen = [0] * self.grid.dim
        for j, axis in enumerate(self.grid.axes):
            if axis.periodic:
                continue
            tried = [e for e in (0, 1, 2) if axis.size > 2 * e + 1]
            costs = []
            for e in tried:
                chosen[j] = e
                found = coefficients(self.standard, self.grid, chosen)
                found = found * (math.sqrt(self.grid.size / 12) / USUAL)
                costs.append(bits_of(found, order_of(found.shape[1:], self.grid.shape)))
            chosen[j] = tried[int(np.argmin(costs))]
        return tuple(chosen)

    def of_step(self, step: float) -> Archive:
        """The series of coefficients rounded to this step, without those that are all zero beyond."""
        step = float(np.float32(step))
        whole = (self.all / step).round()
        modes = self._modes(whole != 0)
        kept = whole[self._places(modes)] * step
        options: dict[str, Any] = {"modes": list(modes), "ends": list(self.ends)}
        field = Fields(Series)(
            self.grid,
            len(self.channels),
            mean=torch.from_numpy(self.mean),
            scale=torch.from_numpy(self.deviation),
            dtype=torch.float64,
            **options,
        )
        with torch.no_grad():
            cast(Series, field.network).weight.copy_(kept.flatten(1))
        report = {"step": step, "functions": int((kept != 0).sum())}
        return Archive(field, self.channels, self.request.bits, {"weight": step}, report)

    def of_rate(self, rate: float) -> Archive:
        """As many bits a value as this, the header included."""
        allowed = max(rate * len(self.channels) * self.grid.size - 8 * REPORT, 0.0)
        exponent, move = self._exponent(allowed), 0.25
        best, fits, over = None, None, None
        for _ in range(TRIES):
            made = restored(self.of_step(2**exponent))
            left = allowed - 8 * made.size
            if left >= 0:
                best, fits = made, exponent
                if left <= 0.02 * allowed:
                    break
            else:
                over = exponent
            if fits is not None and over is not None:
                exponent = 0.5 * (fits + over)
            elif exponent == (COARSEST if fits is None else FINEST):  # nothing left to lose; or to gain but round-off
                break
            else:
                exponent = min(max(FINEST, exponent + (move if fits is None else -move)), COARSEST)
                move *= 2
        return best or made

    def _exponent(self, bits: float) -> float:
        """Of the finest step, a power of 2, whose coefficients need about so many bits."""
        low, high = FINEST, 4.0
        for _ in range(20):
            middle = 0.5 * (low + high)
            low, high = (low, middle) if bits_of(self.all / 2**middle, self.order) <= bits else (middle, high)
        return high

    def smallest(self, values: np.ndarray, bound: float) -> Archive:
        """With the residual that keeps a bound: of several steps, the one of the smallest file."""
        best: Archive | None = None
        size = math.inf
        for share in SHARES:
            error = share * bound / float(self.deviation.max())
            made = restored(self.of_step(self._step_for(error)))
            kept = residual_of(made, values, bound)
            total = made.size + sum(len(block) for block in kept.blocks)
            if total < size:
                best, size = replace(made, residual=kept), total
        assert best is not None
        return best

    def heldout(self, archive: Archive, plan: Plan) -> float | None:
        """Relative error at held-out nodes of the series of the same functions that fits the others best, in the sense
        of least squares (conjugate gradients; of several that fit equally well the smallest).
        """
        if not plan.holdout:
            return None
        hidden = torch.rand(self.grid.shape, generator=Generator().manual_seed(plan.seed)) < plan.holdout
        series = cast(Series, archive.field.network)
        used = (series.weight != 0).unflatten(1, series.shape)
        axes = [Jet(internal(axis)[None, :, None]) for axis in self.grid.axes]
        bases = [series._along(j, x).value for j, x in enumerate(axes)]
        known = self.standard.masked_fill(hidden, 0.0)

        def normal(c: Tensor) -> Tensor:
            return used * _along_axes(_along_axes(c, bases).masked_fill(hidden, 0.0), [b.t() for b in bases])

        found = conjugate_gradients(normal, used * _along_axes(known, [b.t() for b in bases]), STEPS)
        wrong = (_along_axes(found, bases) - self.standard)[:, hidden]
        return float(wrong.square().mean().sqrt())

    # ---- sizes

    def _step_for(self, error: float) -> float:
        """The step whose root mean square error is this (the functions have root mean square 1)."""
        low, high = -40.0, 6.0
        for _ in range(40):
            middle = 0.5 * (low + high)
            step = 2**middle
            wrong = float((self.all - (self.all / step).round() * step).square().sum() / len(self.channels))
            low, high = (middle, high) if math.sqrt(wrong) <= error else (low, middle)
        return 2**low

    def _modes(self, used: Tensor) -> tuple[int, ...]:
        """Functions an axis, up to the last that is used; the powers at the end come besides."""
        counts = []
        for j, n in enumerate(self.grid.shape):
            along = used.movedim(1 + j, 0).flatten(1).any(dim=1)[:n].nonzero()
            counts.append(int(along[-1]) + 1 if len(along) else 1)
        return tuple(counts)

    def _places(self, modes: Sequence[int]) -> tuple[Any, ...]:
        """Where the kept functions stand among all."""
        chosen = [
            np.concatenate([np.arange(m), n + np.arange(2 * e)])
            for m, n, e in zip(modes, self.grid.shape, self.ends, strict=True)
        ]
        return np.ix_(np.arange(len(self.channels)), *chosen)


def _along_axes(values: Tensor, matrices: Sequence[Tensor]) -> Tensor:
    for j, matrix in enumerate(matrices):
        values = torch.movedim(torch.tensordot(values, matrix, dims=([1 + j], [1])), -1, 1 + j)
    return values


def conjugate_gradients(matrix: Callable[[Tensor], Tensor], right: Tensor, steps: int, least: float = 1e-9) -> Tensor:
    """Of a symmetric, positive semidefinite map, from zero: the smallest solution."""
    solution, residual = torch.zeros_like(right), right.clone()
    direction, size = residual.clone(), float(right.square().sum())
    start = size
    for _ in range(steps):
        if size <= least**2 * start:
            break
        moved = matrix(direction)
        length = size / float((direction * moved).sum())
        solution, residual = solution + length * direction, residual - length * moved
        size, before = float(residual.square().sum()), size
        direction = residual + (size / before) * direction
    return solution


def bits_of(numbers: Tensor, order: np.ndarray, block: int = 4096) -> float:
    """About what the coder needs for rounded coefficients: the entropy of blocks of them in the order of writing."""
    whole = numbers.flatten(1).round().clamp(-255, 255).to(torch.int64).numpy()[:, order].reshape(-1) + 255
    beyond = float(torch.log2((numbers.abs() / 255).clamp_min(1.0)).sum())
    count = -(-len(whole) // block)
    places = np.arange(len(whole)) // block * 511 + whole
    seen = np.bincount(places, minlength=count * 511).reshape(count, 511)
    total = seen.sum(axis=1, keepdims=True)
    return beyond - float((seen * np.log2(np.maximum(seen, 1) / total)).sum())
