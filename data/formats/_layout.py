"""Layouts as tables: which arrays a file must hold, and what each of their axes means.

An axis is a letter: ``n`` sample, ``t`` time, ``c`` channel, ``x y z`` space, ``1`` an axis of length one, ``T`` a
time axis that may have one entry too many. ``ntx|ntxy`` offers alternatives. Equal letters must have equal sizes
(``c`` excepted), so a table both finds a format and says why a file is none.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

Shape = tuple[int, ...]
Shapes = Callable[[str], Shape | None]  # of an array by name; None where there is none


@dataclass(frozen=True)
class Layout:
    """Arrays by name with their axes; ``optional`` ones are checked where they are there."""

    name: str
    arrays: Mapping[str, str]
    optional: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Fit:
    """How a file fills a layout: the axes of each array it has, and the size behind each letter."""

    layout: Layout
    axes: Mapping[str, str]
    sizes: Mapping[str, int]

    @property
    def space(self) -> str:
        return "".join(letter for letter in "xyz" if letter in self.sizes)

    @property
    def shape(self) -> Shape:
        return tuple(self.sizes[letter] for letter in self.space)


def fit(layout: Layout, shapes: Shapes) -> Fit | str:
    """The fit, or in words what does not."""
    wanted = {**layout.arrays, **{name: axes for name, axes in layout.optional.items() if shapes(name) is not None}}
    missing = [name for name in layout.arrays if shapes(name) is None]
    if missing:
        return "no " + ", ".join(f"{name!r}" for name in missing)
    found = {name: shapes(name) or () for name in wanted}
    choices = []
    for name, axes in wanted.items():
        fitting = [a for a in axes.split("|") if _possible(a, found[name])]
        if not fitting:
            return f"{name!r} has shape {found[name]}, expected ({_said(axes)})"
        choices.append(fitting)
    reason = ""
    for chosen in itertools.product(*choices):
        sizes = _sizes(dict(zip(wanted, chosen, strict=True)), found)
        if isinstance(sizes, dict):
            return Fit(layout, dict(zip(wanted, chosen, strict=True)), sizes)
        reason = reason or sizes
    return reason


def first_fit(layouts: tuple[Layout, ...], shapes: Shapes) -> Fit | None:
    tried = (fit(layout, shapes) for layout in layouts)
    return next((found for found in tried if isinstance(found, Fit)), None)


def misfits(layouts: tuple[Layout, ...], shapes: Shapes) -> str:
    """What does not fit, layout by layout."""
    tried = ((layout.name, fit(layout, shapes)) for layout in layouts)
    return "; ".join(f"{name}: {reason}" for name, reason in tried if isinstance(reason, str))


def _possible(axes: str, shape: Shape) -> bool:
    return len(axes) == len(shape) and all(size == 1 for a, size in zip(axes, shape, strict=True) if a == "1")


def _said(axes: str) -> str:
    return " or ".join(", ".join(a.replace("T", "t")) for a in axes.split("|"))


def _sizes(axes: Mapping[str, str], shapes: Mapping[str, Shape]) -> dict[str, int] | str:
    sizes: dict[str, int] = {}
    owner: dict[str, str] = {}
    later = []
    for name, letters in axes.items():
        for letter, size in zip(letters, shapes[name], strict=True):
            if letter == "T":
                later.append((name, size))
            elif letter not in "1c" and sizes.setdefault(letter, size) != size:
                return f"axis {letter} has {sizes[letter]} entries in {owner[letter]!r} and {size} in {name!r}"
            owner.setdefault(letter, name)
    for name, size in later:
        if size - sizes.get("t", size) not in (0, 1):
            return f"axis t has {sizes['t']} entries in the fields and {size} in {name!r}"
    return sizes
