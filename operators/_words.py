"""Options of another model in one text: ``width=24 modes=12``, or ``norm=group_norm, rank=0.1, n_modes=(12, 8)``."""

from __future__ import annotations

import ast
import re
from collections.abc import Sequence
from difflib import get_close_matches
from typing import Any

_APART = re.compile(r"[,\s]+(?=[A-Za-z_]\w*\s*=(?!=))")  # before the next name


def options_in(text: str) -> dict[str, Any]:
    """Names and values, apart by blanks or commas.

    Values are written as in Python; a bare word is a string, but ``true`` and ``false`` are not.
    """
    try:
        call = ast.parse(f"f({_APART.sub(', ', text.strip())})", mode="eval").body
        assert isinstance(call, ast.Call)
        found = {word.arg: _value(word.value) for word in call.keywords if word.arg}
        if call.args or len(found) != len(call.keywords):
            raise ValueError("each is a name, =, and a value")
    except (SyntaxError, ValueError, AssertionError) as error:
        raise ValueError(
            f"Options are written like 'width=24, norm=group_norm, n_modes=(12, 8)'; got {text!r} ({error})."
        ) from error
    return found


def _value(node: ast.expr) -> Any:
    if isinstance(node, ast.Name):
        return {"true": True, "false": False}.get(node.id, node.id)
    return ast.literal_eval(node)


def near(name: str, known: Sequence[str]) -> str:
    """A hint, or nothing."""
    found = get_close_matches(name, known, n=3, cutoff=0.5)
    return f" Did you mean {' or '.join(map(repr, found))}?" if found else ""
