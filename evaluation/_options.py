"""The options of a ``build``, read from its signature: what ``--pde.NAME`` and ``--model.NAME`` accept."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import io
import re
import sys
import textwrap
import tokenize
from collections.abc import Callable, Iterable
from typing import Any

# what the pipeline passes itself
_PASSED = frozenset({"problem", "grid", "recipe", "self"})


@dataclasses.dataclass(frozen=True)
class Option:
    """One keyword of a ``build``: ``default`` is ``dataclasses.MISSING`` where a value must be given."""

    name: str
    type: Any
    default: Any
    help: str

    @property
    def required(self) -> bool:
        return self.default is dataclasses.MISSING


def options_of(build: Callable[..., Any]) -> list[Option]:
    """The options of a function or a dataclass, in order, without ``problem``, ``grid`` and ``recipe``.

    Help is the docstring's line of the form ``name   explanation`` (two spaces or more; continuation lines are
    indented further) in ``build`` or in its module; without one, the trailing comment beside the parameter, where
    units stand in this project. Where neither can be read, help is empty.
    """
    found = _dataclass_defaults(build) if dataclasses.is_dataclass(build) else _function_defaults(build)
    hints = _hints(build)
    helps = _helps(build, found)
    return [Option(name, hints.get(name, _guess(value)), value, helps.get(name, "")) for name, value in found.items()]


def _dataclass_defaults(build: Any) -> dict[str, Any]:
    return {
        field.name: field.default_factory() if field.default_factory is not dataclasses.MISSING else field.default
        for field in dataclasses.fields(build)
        if field.init and _offered(field.name)
    }


def _function_defaults(build: Callable[..., Any]) -> dict[str, Any]:
    named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return {
        name: dataclasses.MISSING if parameter.default is inspect.Parameter.empty else parameter.default
        for name, parameter in inspect.signature(build).parameters.items()
        if parameter.kind in named and _offered(name)
    }


def _offered(name: str) -> bool:
    return name not in _PASSED and not name.startswith("_")


def _guess(default: Any) -> Any:
    return Any if default is None or default is dataclasses.MISSING else type(default)


def _hints(build: Any) -> dict[str, Any]:
    """Annotations as types; one that cannot be evaluated (imported for type checkers only) is left out."""
    hints: dict[str, Any] = {}
    for owner in _owners(build):
        names = vars(sys.modules.get(owner.__module__, object))
        for name, hint in inspect.get_annotations(owner).items():
            try:
                hints[name] = eval(hint, dict(names)) if isinstance(hint, str) else hint
            except (NameError, AttributeError, SyntaxError, TypeError):
                continue
    return hints


def _owners(build: Any) -> list[Any]:
    """The definitions that contribute parameters, the most general first."""
    if not inspect.isclass(build):
        return [inspect.unwrap(build)]
    if not dataclasses.is_dataclass(build):
        return [build.__init__]
    return [cls for cls in reversed(build.__mro__) if cls is not object]


def _helps(build: Any, names: Iterable[str]) -> dict[str, str]:
    helps: dict[str, str] = {}
    for owner in _owners(build):
        helps |= _comments(owner)
    module = sys.modules.get(build.__module__)
    for text in (getattr(module, "__doc__", None), build.__doc__):
        helps |= _documented(text or "", names)
    return helps


def _documented(text: str, names: Iterable[str]) -> dict[str, str]:
    wanted, helps, current, depth = set(names), {}, "", 0
    for line in inspect.cleandoc(text).splitlines():
        match = re.match(r"( *)(\w+) {2,}(\S.*)", line)
        indent = len(line) - len(line.lstrip())
        if match and match[2] in wanted:
            current, depth = match[2], indent
            helps[current] = match[3].strip()
        elif current and line.strip() and indent > depth:
            helps[current] += " " + line.strip()
        else:
            current = ""
    return helps


def _comments(owner: Any) -> dict[str, str]:
    """Trailing comments beside the annotated fields or parameters of one definition; {} where source is not at hand."""
    try:
        source = textwrap.dedent(inspect.getsource(owner))
        tree = ast.parse(source).body[0]
        tokens = tokenize.generate_tokens(io.StringIO(source).readline)
        comments = {
            token.start[0]: token.string.lstrip("# ").strip() for token in tokens if token.type == tokenize.COMMENT
        }
    except (OSError, TypeError, SyntaxError, IndexError, tokenize.TokenError):
        return {}
    lines = _parameter_lines(tree)
    alone = [line for line in lines.values() if list(lines.values()).count(line) == 1]
    return {name: comments[line] for name, line in lines.items() if line in comments and line in alone}


def _parameter_lines(tree: ast.stmt) -> dict[str, int]:
    if isinstance(tree, ast.ClassDef):
        fields = [node for node in tree.body if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)]
        return {node.target.id: node.end_lineno or node.lineno for node in fields if isinstance(node.target, ast.Name)}
    if isinstance(tree, ast.FunctionDef):
        return {arg.arg: arg.lineno for arg in (*tree.args.args, *tree.args.kwonlyargs)}
    return {}
