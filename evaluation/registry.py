"""Names into modules: what can be said after ``--pde`` and ``--model``, and which options each takes.

A name is a public file (``pde/darcy.py`` is ``darcy``), a dotted path of a module that can be imported
(``my_package.my_model``), or an entry point of an installed distribution in the group ``resolvent.problems`` or
``resolvent.models``. Whatever is found has a ``build``. Listing reads folders and imports nothing.
"""

from __future__ import annotations

import ast
import difflib
import importlib
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType
from typing import Any

from ._options import Option, options_of

__all__ = [
    "Entry",
    "Option",
    "UnknownName",
    "entries",
    "find_model",
    "find_problem",
    "models",
    "nearest",
    "options_of",
    "problems",
]

_ROOT = Path(__file__).parent.parent
_PACKAGE = __name__.rsplit(".", 2)[0]
# folders in the order in which a name is looked up
_FOLDERS = {"problem": ("pde",), "model": ("operators", "gp", "dynamics", "fields")}


class UnknownName(ValueError):
    """No problem, model or option of this name; the message names the nearest."""


@dataclass(frozen=True)
class Entry:
    """One line of a listing: the name, the folder (or distribution) it comes from, what it is."""

    name: str
    origin: str
    summary: str


def problems() -> list[str]:
    """Names of all problems, ours and those of installed packages."""
    return [entry.name for entry in entries("problem")]


def models() -> list[str]:
    """Names of all models, ours and those of installed packages, in the order in which a name is looked up."""
    return [entry.name for entry in entries("model")]


def entries(kind: str) -> list[Entry]:
    """The listing of a kind (``problem`` or ``model``), read from the files without importing them."""
    found: dict[str, Entry] = {}
    for folder in _FOLDERS[kind]:
        for path in sorted((_ROOT / folder).glob("*.py")):
            if not path.name.startswith("_"):
                found.setdefault(path.stem, Entry(path.stem, folder, _first_line(path)))
    for point in _installed(kind):
        found.setdefault(point.name, Entry(point.name, point.dist.name if point.dist else "entry point", ""))
    return list(found.values())


def find_problem(name: str) -> ModuleType:
    """The module of a problem; its ``build`` takes the physical parameters. Raises :class:`UnknownName`."""
    return _find("problem", name)


def find_model(name: str) -> ModuleType:
    """The module of a model; its ``build`` takes the problem and the grid. Raises :class:`UnknownName`."""
    return _find("model", name)


def nearest(name: str, known: list[str]) -> str:
    """`` Did you mean …?`` or, where nothing is near, the whole list."""
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    if near:
        return "Did you mean " + " or ".join(repr(n) for n in near) + "?"
    return f"Known: {', '.join(known) or 'none'}."


def _find(kind: str, name: str) -> ModuleType:
    module = _module(kind, name)
    if not hasattr(module, "build"):
        raise UnknownName(f"The module of {kind} {name!r} ({module.__name__}) has no 'build', so it names no {kind}.")
    return module


def _module(kind: str, name: str) -> ModuleType:
    for folder in _FOLDERS[kind]:
        if name.isidentifier() and not name.startswith("_") and (_ROOT / folder / f"{name}.py").is_file():
            return importlib.import_module(f"{_PACKAGE}.{folder}.{name}")
    for point in _installed(kind):
        if point.name == name:
            return importlib.import_module(point.module)
    if all(part.isidentifier() for part in name.split(".")) and "." in name:
        return _dotted(kind, name)
    raise UnknownName(f"Unknown {kind} {name!r}. {nearest(name, [entry.name for entry in entries(kind)])}")


def _dotted(kind: str, name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        # only the named path itself being absent means "unknown"; a missing import inside it is the user's real error
        if error.name is None or not (name == error.name or name.startswith(f"{error.name}.")):
            raise
        known = [entry.name for entry in entries(kind)]
        raise UnknownName(
            f"Unknown {kind} {name!r}: no module {error.name!r} can be imported. "
            f"{nearest(name.rpartition('.')[2], known)}"
        ) from error


def _installed(kind: str) -> list[Any]:
    """Entry points; of the standard library or of its backport, where some package has brought that."""
    return sorted(entry_points(group=f"resolvent.{kind}s"), key=lambda point: point.name)


def _first_line(path: Path) -> str:
    try:
        text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    except (SyntaxError, UnicodeDecodeError):
        return "(this file does not parse)"
    return text.partition("\n")[0].strip()
