"""Every command of docs/reproduce.md is understood, and its network builds on the grid that it names."""

from __future__ import annotations

import importlib
import re
import shlex
from pathlib import Path

import pytest
from resolvent.cli.main import solve_command
from resolvent.evaluation._request import Request, plan_of, task_of

GUIDE = (Path(__file__).parents[2] / "docs" / "reproduce.md").read_text(encoding="utf-8")
COMMANDS = re.findall(r"\| `solve (--pde [^`]+)` \|", GUIDE)
solving = importlib.import_module("resolvent.cli._solve")


class Understood(BaseException):
    """Raised in place of the work."""


@pytest.mark.parametrize("words", COMMANDS)
def test_a_command_of_the_guide_builds(words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Request] = []

    def take(request: Request, reporter: object) -> None:
        asked.append(request)
        raise Understood

    monkeypatch.setattr(solving, "solve", take)
    with pytest.raises(Understood):
        solve_command(shlex.split(words))
    (request,) = asked
    task = task_of(request)
    plan = plan_of(request, task, request.model)
    assert not plan.notes, "the paper preset of this model is for other problems"
    assert plan.blueprint.make_solver().grid.shape == task.grid.shape


def test_the_guide_has_commands() -> None:
    assert len(COMMANDS) >= 10
