"""What the guides show exists: every command line parses, every option that is named is some model's or the recipe's."""

from __future__ import annotations

import itertools
import re
import shlex
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from cyclopts import App, CycloptsError
from resolvent.cli import _analyse, _data, _generate, _represent, _solve, main
from resolvent.cli._options import documented
from resolvent.evaluation import registry
from resolvent.operators._inference import Inversion
from resolvent.pde import Setup
from resolvent.training import Recipe

ROOT = Path(__file__).parent.parent
TEXTS = {path.name: path.read_text(encoding="utf-8") for path in [ROOT / "README.md", *ROOT.glob("docs/*.md")]}
WORD = r"(?:solve --|resolvent [a-z])"
FRAMES = re.compile(rf"^\s*({WORD}[^`\n]*)$|`({WORD}[^`]*)`", flags=re.MULTILINE)
SPOKEN_OF = re.compile(r"\b(NAME|PROBLEM)\b|\||resolvent (generate|represent)$")  # lines that stand for many


def commands() -> list[str]:
    found = []
    for text in TEXTS.values():
        for match in FRAMES.finditer(re.sub(r"\\\n\s*", " ", text)):
            line = re.split(r"\s{3,}|\s+#", match[1] or match[2])[0]
            if not SPOKEN_OF.search(line):
                found.append(re.sub(r"\$\([^)]*\)", "DATA", line))
    return list(dict.fromkeys(found))


def app_of(words: Sequence[str]) -> tuple[App, Sequence[str]]:
    """The parser that the command line would meet, and what it is given."""
    if words[0] == "solve":
        return _made(_solve.command(words[1:])), words[1:]
    rest = words[2:]
    match words[1]:
        case "generate":
            return _made(_generate.command(rest)), rest
        case "represent":
            return _made(_represent.command(rest)), rest
        case "data":
            return _data.app(), rest
        case "analyse":
            return _analyse.app(), rest
    return main._app(), words[1:]


def _made(command: Callable[..., object]) -> App:
    app = App()
    app.default(command)
    return app


def parse(line: str) -> None:
    app, words = app_of(shlex.split(line))
    app.parse_args(words, exit_on_error=False, print_error=False)


@pytest.mark.parametrize("line", commands())
def test_every_command_of_the_guides_parses(line: str) -> None:
    parse(line)


@pytest.mark.parametrize(
    "line", ["solve --pde darcy --model fno --model.widht 8", "resolvent represent u.nc --bund 1e-3", "resolvent lst"]
)
def test_a_word_that_does_not_exist_is_noticed(line: str) -> None:
    with pytest.raises(CycloptsError):
        parse(line)


def test_enough_is_looked_at() -> None:
    assert len(commands()) > 50
    assert sum(line.startswith("resolvent") for line in commands()) > 10


def test_every_option_that_is_named_exists() -> None:
    models = (registry.find_model(name) for name in registry.models())
    problems = (registry.find_problem(name).build for name in registry.problems())
    known = {
        "model": {option.name for model in models for option in registry.options_of(model.build)},
        "pde": {option.name for build in problems for option in registry.options_of_problem(build)},
        "train": {option.name for option in documented(Recipe)},
        "setup": {option.name for option in documented(Setup)},
        "invert": {option.name for option in documented(Inversion)},
    }
    named = set(itertools.chain.from_iterable(re.findall(r"--(\w+)\.([\w-]+)", text) for text in TEXTS.values()))
    wrong = {f"--{group}.{name}" for group, name in named if name.replace("-", "_") not in known.get(group, ())}
    assert not wrong
