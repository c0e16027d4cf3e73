"""Which code a value came from: a hash of the source that a class stands on, for cache keys.

Followed are the imports within the class's own package and within this one, also those inside functions. Comments,
documentation strings and layout do not count. So a changed solver never answers from an old cache, and a change
elsewhere leaves the cache valid.
"""

from __future__ import annotations

import ast
import functools
import importlib.util
import inspect
import sys
import textwrap
from pathlib import Path

from ._files import digest

_OWN = __package__.partition(".")[0]


@functools.cache
def code_digest(*kinds: type) -> str:
    """Of the code that classes stand on: eight hexadecimal digits."""
    bases = [base for kind in kinds for base in kind.__mro__]
    names = {base.__module__ for base in bases if base.__module__ != "builtins"}
    loose = [_loose(base) for base in bases if base.__module__ == "__main__"]
    return digest("\n".join([*_followed(frozenset(names)), *loose]))[:8]


def source_digest(module: str) -> str:
    """Of the code that a module stands on: eight hexadecimal digits."""
    return digest("\n".join(_followed(frozenset({module}))))[:8]


def _followed(names: frozenset[str]) -> list[str]:
    """The bare code of modules and of all they import, in a fixed order."""
    packages = {_OWN, *(name.partition(".")[0] for name in names if name != "__main__")}
    seen: dict[str, str] = {}
    waiting = [name for name in sorted(names) if name.partition(".")[0] in packages]
    while waiting:
        name = waiting.pop()
        path = _file_of(name)
        if name in seen or path is None or name.partition(".")[0] in sys.stdlib_module_names:
            continue
        package = name if path.name == "__init__.py" else name.rpartition(".")[0]
        seen[name], imports = _parsed(path.read_text(encoding="utf-8"), package)
        waiting += [found for found in imports if found.partition(".")[0] in packages]
    return [seen[name] for name in sorted(seen)]


@functools.cache
def _parsed(text: str, package: str) -> tuple[str, tuple[str, ...]]:
    """The bare code of a module and what it imports; a file that was edited is another text, and is parsed anew."""
    tree = ast.parse(text)
    return _bare(tree), tuple(_imports(tree, package))


def _file_of(name: str) -> Path | None:
    """The Python file of a module, if there is one."""
    if name in sys.modules:
        origin = getattr(sys.modules[name], "__file__", None)
    else:
        try:
            spec = importlib.util.find_spec(name)
        except (ImportError, ValueError):  # a name imported from a module is no module
            return None
        origin = spec.origin if spec else None
    return Path(origin) if origin and origin.endswith(".py") else None


def _imports(tree: ast.AST, package: str) -> list[str]:
    found: list[str] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = "." * node.level + (node.module or "")
            base = importlib.util.resolve_name(base, package) if node.level else base
            found += [base, *(f"{base}.{alias.name}" for alias in node.names)]
    return found


def _bare(tree: ast.AST) -> str:
    """The code without its documentation strings."""
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list):
            node.body = [part for part in body if not _is_text(part)]  # type: ignore[attr-defined]
    return ast.dump(tree)


def _is_text(node: ast.AST) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def _loose(kind: type) -> str:
    """A class typed into a notebook or script; a bare interpreter keeps no source, and there the name has to do."""
    try:
        return _bare(ast.parse(textwrap.dedent(inspect.getsource(kind))))
    except (OSError, TypeError, SyntaxError):
        return kind.__qualname__
