"""Names into modules: what can be said after ``--pde`` and ``--model``, and which options each takes.

A name is a public file (``pde/darcy.py`` is ``darcy``), a dotted path of a module that can be imported
(``my_package.my_model``), or an entry point of an installed distribution in the group ``resolvent.problems`` or
``resolvent.models``. Whatever is found has a ``build``. Listing reads folders and imports nothing.
"""

from __future__ import annotations

import ast
import difflib
import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType
from typing import Any

from ..pde import Problem
from ..pde._varied import varied
from ._options import Option, options_of

__all__ = [
    "Entry",
    "Option",
    "UnknownName",
    "entries",
    "find_model",
    "find_problem",
    "grids_in_words",
    "models",
    "nearest",
    "options_of",
    "options_of_problem",
    "posed",
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
    """One line of a listing: the name, the folder (or distribution) it comes from, what it is, the grids it serves."""

    name: str
    origin: str
    summary: str
    grids: str = ""  # of an operator, in words: what its file declares as CONVERGENCE


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
                found.setdefault(path.stem, _entry(path))
    for point in _installed(kind):
        found.setdefault(point.name, Entry(point.name, point.dist.name if point.dist else "entry point", ""))
    return list(found.values())


def find_problem(name: str) -> ModuleType:
    """The module of a problem; its ``build`` takes the physical parameters. Raises :class:`UnknownName`."""
    return _find("problem", name)


def find_model(name: str) -> ModuleType:
    """The module of a model; its ``build`` takes the problem and the grid. Raises :class:`UnknownName`."""
    return _find("model", name)


def options_of_problem(build: Any) -> tuple[Option, ...]:
    """What ``--pde.NAME`` accepts: the physical parameters, a published set of them, and which are drawn per sample."""
    presets = ", ".join(getattr(build, "presets", {}))
    return (
        *options_of(build),
        Option("preset", str, "", f"published parameters: {presets}"),
        Option("vary", str, "", "parameters drawn per sample: name=lower:upper[:log or :linear], several with commas"),
    )


def posed(build: Any, options: Mapping[str, Any]) -> Problem:
    """The problem with these parameters; ``vary`` among them makes it a family (see ``pde/_varied.py``)."""
    fixed = dict(options)
    ranges = str(fixed.pop("vary", "") or "")
    problem: Problem = build(**fixed)
    return varied(problem, ranges) if ranges else problem


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


def grids_in_words(convergence: object) -> str:
    """What ``CONVERGENCE`` promises: order under refinement of the grid with the input function fixed.

    None        (default) tied to the grid of its training; other resolutions are refused
    a number    the order of convergence, at least
    "spectral"  faster than any order, for band-limited inputs
    "exact"     the answer at a node does not depend on the others
    """
    if convergence is None:
        return "one grid"
    return f"any grid, {convergence if isinstance(convergence, str) else f'order {convergence:g}'}"


def _entry(path: Path) -> Entry:
    folder = path.parent.name
    try:
        tree = ast.parse(path.read_text(encoding="utf-8"))
    except (SyntaxError, UnicodeDecodeError):
        return Entry(path.stem, folder, "(this file does not parse)")
    summary = (ast.get_docstring(tree) or "").partition("\n")[0].strip()
    grids = grids_in_words(_declared(tree, "CONVERGENCE")) if folder == "operators" else ""
    return Entry(path.stem, folder, summary, grids)


def _declared(tree: ast.Module, name: str) -> object:
    """The literal that a module assigns to a name at its top level; None where there is none."""
    for node in tree.body:
        if isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None:
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            if any(isinstance(target, ast.Name) and target.id == name for target in targets):
                return ast.literal_eval(node.value)
    return None
