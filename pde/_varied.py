r"""Scalar parameters drawn per sample: any problem, for a family of its equations instead of one.

``--pde.vary "viscosity=1e-3:1e-2"`` draws a viscosity for each sample; ``viscosity=1e-3:1e-2,tau=3:7`` varies two.
A solver is told them in channels that are constant over space (``Channel.uniform``), one a parameter, after the
problem's own inputs: of an evolution they are *given*, constant in time too. So every operator that takes several
channels is conditioned on them, and generalises over the family.

Law: the parameters are independent; then the inputs are drawn from the base problem *with these parameters*, so a
parameter of the law of the inputs (Darcy's contrast, a correlation length) varies like one of the equation. Where
both ends are positive and the upper is at least ten times the lower, the logarithm is uniform, else the value;
``viscosity=1e-3:1e-2:linear`` or ``:log`` says it. Values are rounded to float32, in which samples are stored: what
a data set says of a sample is what its solution was computed with.

What is not varied: whole numbers and words, and what changes the grid or the channels (a length, a frame spacing),
since one data set has one grid and one clock.
"""

from __future__ import annotations

import difflib
import functools
import inspect
import math
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Literal, get_args

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from ._grid import Grid
from ._problem import Channel, Problem, Setup, Signature, WithExact
from ._solver import Solver, SolverError
from ._symmetry import Symmetry, WithSymmetries, symmetries_of

Law = Literal["linear", "log"]

DECADE = 10 * (1 - 1e-9)  # from this ratio of positive ends on, the logarithm is drawn
UNIFORM = 1e-6  # relative: a channel that varies by more over space is not one number

Make = Callable[[Problem], Solver]


@dataclass(frozen=True)
class Range:
    """One parameter and the law it is drawn from, uniform from ``lower`` to ``upper`` or with its logarithm so."""

    name: str
    lower: float
    upper: float
    law: Law

    def __post_init__(self) -> None:
        if not (math.isfinite(self.lower) and math.isfinite(self.upper) and self.lower < self.upper):
            raise ValueError(
                f"pde.vary: {self.name} needs lower < upper, both finite, got {self.lower:g}:{self.upper:g}."
            )
        if self.law == "log" and self.lower <= 0:
            raise ValueError(
                f"pde.vary: {self.name} has no logarithm at {self.lower:g}; use a positive end or :linear."
            )

    def __str__(self) -> str:
        return f"{self.lower!r}:{self.upper!r}:{self.law}"

    @classmethod
    def parse(cls, text: str) -> Range:
        """``name=lower:upper[:linear|log]``."""
        name, equals, rest = text.partition("=")
        ends = rest.split(":")
        try:
            lower, upper = (float(end) for end in ends[:2])
            law = ends[2].strip() if len(ends) == 3 else "log" if 0 < DECADE * lower <= upper else "linear"
            if not equals or len(ends) > 3:
                raise ValueError
        except ValueError:
            raise ValueError(
                f"pde.vary takes name=lower:upper, or name=lower:upper:log (or :linear), several with commas; "
                f"got {text!r}."
            ) from None
        if law not in get_args(Law):
            raise ValueError(f"pde.vary: the law of {name.strip()} is linear or log, got {law!r}.")
        return cls(name.strip(), lower, upper, law)  # type: ignore[arg-type]

    def draw(self, count: int, generator: Generator) -> Float[Tensor, " batch"]:
        """Independent values, float64 that float32 holds exactly."""
        share = torch.rand(count, generator=generator, dtype=torch.float64)
        if self.law == "log":
            values = self.lower * (self.upper / self.lower) ** share
        else:
            values = self.lower + (self.upper - self.lower) * share
        return values.float().double()


@dataclass(frozen=True, kw_only=True)
class Varied(Problem, WithSymmetries):
    """A problem some of whose scalar parameters are drawn per sample; its other abilities are asked of ``base``."""

    base: Problem
    ranges: tuple[Range, ...]

    def __post_init__(self) -> None:
        if not self.ranges:
            raise ValueError("pde.vary names no parameter: say name=lower:upper.")
        names = [one.name for one in self.ranges]
        if len(set(names)) < len(names):
            raise ValueError(f"pde.vary names a parameter twice: {', '.join(names)}.")
        for one in self.ranges:
            _check(self.base, one)

    def __getattr__(self, name: str) -> Any:
        """Whatever a model's preset asks of its problem beyond the interface is the base's."""
        if name.startswith("_") or name == "base":
            raise AttributeError(name)
        return getattr(self.base, name)

    @property
    def setups(self) -> Mapping[str, Setup]:  # type: ignore[override]
        return self.base.setups

    @property
    def name(self) -> str:
        return self.base.name

    @property
    def kinds(self) -> tuple[type, ...]:
        return (type(self), *self.base.kinds)

    @property
    def signature(self) -> Signature:
        own = self.base.signature
        told = tuple(channel_of(self.base, one.name) for one in self.ranges)
        return replace(own, inputs=(*own.inputs, *told))

    def parameters(self) -> dict[str, Any]:
        """As of the base, with the range and the law of what varies: ``0.01:0.1:log``."""
        return {**self.base.parameters(), **{one.name: str(one) for one in self.ranges}}

    def grid(self, resolution: int | Sequence[int]) -> Grid:
        return self.base.grid(resolution)

    def sample(self, count: int, grid: Grid, *, generator: Generator) -> Tensor:
        values = torch.stack([one.draw(count, generator) for one in self.ranges], dim=1)
        drawn = [self.member(row).sample(1, grid, generator=generator) for row in values.tolist()]
        return self.told(torch.cat(drawn), values)

    def told(
        self, inputs: Float[Tensor, "batch base *space"], values: Float[Tensor, "batch parameter"]
    ) -> Float[Tensor, "batch channel *space"]:
        """The base problem's inputs with the parameters behind them."""
        uniform = values.to(inputs).reshape(*values.shape, *[1] * (inputs.ndim - 2))
        return torch.cat([inputs, uniform.expand(*values.shape, *inputs.shape[2:])], dim=1)

    def member(self, values: Sequence[float]) -> Problem:
        """The problem with these values of the parameters that vary."""
        return replace(self.base, **{one.name: value for one, value in zip(self.ranges, values, strict=True)})

    def reference(self, **accuracy: Any) -> OneByOne:
        """The base's reference solver, with each sample's own parameters."""
        return OneByOne(self, functools.partial(_reference, accuracy=accuracy))

    def ladder(self, grid: Grid) -> Mapping[str, Solver]:
        ends = [self.member([getattr(one, end) for one in self.ranges]).ladder(grid) for end in ("lower", "upper")]
        return {
            name: OneByOne(self, functools.partial(_rung, grid=grid, name=name)) for name in ends[0] if name in ends[1]
        }

    def symmetries(self, grid: Grid) -> tuple[Symmetry, ...]:
        """The base's: a number is the same after any of them."""
        own = len(self.base.signature.inputs)
        return tuple(
            replace(one, input_signs=(*(one.input_signs or (1.0,) * own), *(1.0,) * len(self.ranges)))
            for one in symmetries_of(self.base, grid)
        )


class VariedExact(Varied, WithExact):
    """With a closed form, where the base has one."""

    def exact(self, inputs: Tensor, grid: Grid, times: Sequence[float] | None = None) -> Tensor:
        return OneByOne(self, _closed_form)(inputs, grid, times)


class OneByOne(Solver):
    """Solves each sample with the solver that ``make`` builds for its own parameters; equal ones together."""

    def __init__(self, problem: Varied, make: Make) -> None:
        self.problem, self.make = problem, make

    @property
    def typical(self) -> Solver:
        """A solver that this one uses, for the record of who solved."""
        return self.make(self.problem.member([one.lower for one in self.problem.ranges]))

    def __call__(
        self,
        inputs: Float[Tensor, "batch channel *space"],
        grid: Grid,
        times: Sequence[float] | None = None,
    ) -> Float[Tensor, "batch *rest"]:
        own, rows = self._split(inputs, grid)
        outputs: Tensor | None = None
        for values in dict.fromkeys(rows):
            mine = torch.tensor([i for i, row in enumerate(rows) if row == values], device=inputs.device)
            answer = self._solved(values, own[mine], grid, times)
            outputs = answer.new_empty(len(inputs), *answer.shape[1:]) if outputs is None else outputs
            outputs[mine] = answer
        if outputs is None:
            raise ValueError("Expected at least 1 sample, got an empty batch.")
        return outputs

    def _solved(self, values: Sequence[float], fields: Tensor, grid: Grid, times: Sequence[float] | None) -> Tensor:
        try:
            return self.make(self.problem.member(values))(fields, grid, times)
        except (SolverError, ValueError) as error:
            told = ", ".join(f"{one.name} {value:g}" for one, value in zip(self.problem.ranges, values, strict=True))
            kind = SolverError if isinstance(error, SolverError) else ValueError
            raise kind(f"With {told}: {error}") from error

    def _split(self, inputs: Tensor, grid: Grid) -> tuple[Tensor, list[tuple[float, ...]]]:
        """The base problem's inputs, and the parameters of each sample."""
        signature, count = self.problem.signature, len(self.problem.ranges)
        expected = ("batch", len(signature.inputs), *grid.shape)
        if inputs.ndim != 2 + grid.dim or tuple(inputs.shape[1:]) != expected[1:]:
            raise ValueError(f"Expected inputs of shape {expected}, got {tuple(inputs.shape)}.")
        told = inputs[:, -count:].reshape(len(inputs), count, -1).double()
        values = told[..., 0]
        uneven = (told - values[..., None]).abs().amax(dim=2) > UNIFORM * values.abs()
        if bool(uneven.any()):
            sample, channel = uneven.nonzero()[0].tolist()
            name = signature.inputs[len(signature.inputs) - count + channel].name
            raise ValueError(f"Parameter {name!r} is one number a sample; that of sample {sample} varies over space.")
        return inputs[:, :-count], [tuple(row) for row in values.tolist()]


class _ClosedForm(Solver):
    """The closed form of one member, as a solver."""

    def __init__(self, problem: WithExact) -> None:
        self.problem = problem

    def __call__(self, inputs: Tensor, grid: Grid, times: Sequence[float] | None = None) -> Tensor:
        return self.problem.exact(inputs, grid, times)


def varied(base: Problem, text: str) -> Varied:
    """A problem with ranges as on the command line: ``viscosity=1e-3:1e-2,tau=3:7:linear``.

    Raises ``ValueError`` for what is no scalar parameter, with the nearest names, and for values the problem refuses.
    """
    ranges = tuple(Range.parse(part) for part in text.split(",") if part.strip())
    kind = VariedExact if isinstance(base, WithExact) else Varied
    return kind(base=base, ranges=ranges)


def scalars(problem: Problem) -> list[str]:
    """The parameters that are real numbers, by type or by value."""
    real = [f.name for f in fields(problem) if f.type in (float, "float")]
    return real + [
        f.name for f in fields(problem) if f.name not in real and isinstance(getattr(problem, f.name), float)
    ]


def channel_of(problem: Problem, name: str) -> Channel:
    """What tells a solver a parameter; its unit is the one beside the parameter's definition, 1 where there is none."""
    for owner in type(problem).__mro__:
        if name in vars(owner).get("__annotations__", {}):
            found = re.search(rf"^ *{name} *:[^#\n]*#[^\n]*\[([^\]\n]+)\]", _source(owner), flags=re.MULTILINE)
            unit = found[1] if found else "1"
            return Channel(name, unit, name.replace("_", " "), uniform=True)
    return Channel(name, label=name.replace("_", " "), uniform=True)


@functools.cache
def _source(owner: type) -> str:
    try:
        return inspect.getsource(sys.modules[owner.__module__])
    except (OSError, TypeError, KeyError):
        return ""


def _reference(problem: Problem, accuracy: Mapping[str, Any]) -> Solver:
    return problem.reference(**accuracy)


def _rung(problem: Problem, grid: Grid, name: str) -> Solver:
    rungs = problem.ladder(grid)
    if name not in rungs:
        raise ValueError(f"the classical solver {name!r} does not exist for these parameters.")
    return rungs[name]


def _closed_form(problem: Problem) -> Solver:
    assert isinstance(problem, WithExact)
    return _ClosedForm(problem)


def _check(base: Problem, one: Range) -> None:
    """Refuse what is no scalar parameter, values that the problem refuses, and what changes grid or channels."""
    known = scalars(base)
    if one.name not in known:
        near = difflib.get_close_matches(one.name, known, n=3, cutoff=0.5)
        said = (
            f"Did you mean {' or '.join(map(repr, near))}?"
            if near
            else f"Real parameters: {', '.join(known) or 'none'}."
        )
        what = "is not a real number" if one.name in base.parameters() else "is no parameter"
        raise ValueError(f"pde.vary: {one.name!r} {what} of {base.name}. {said}")
    for value in (one.lower, 0.5 * (one.lower + one.upper), one.upper):
        try:
            member = replace(base, **{one.name: value})
        except ValueError as error:
            raise ValueError(f"pde.vary: {base.name} refuses {one.name} {value:g}: {error}") from error
        _check_frame(base, member, one.name)


def _check_frame(base: Problem, member: Problem, name: str) -> None:
    nodes = next(iter(base.setups.values())).resolution
    if member.signature != base.signature or member.grid(nodes) != base.grid(nodes):
        raise ValueError(
            f"pde.vary: {name} changes the grid or the channels of {base.name}, and a data set has one of each."
        )
