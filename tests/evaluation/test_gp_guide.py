"""What docs/gp.md shows works: its Python runs, its commands name problems that gp accepts."""

from __future__ import annotations

import math
import re
import shlex
from pathlib import Path

import pytest
import torch
from resolvent.evaluation import registry
from resolvent.evaluation._request import problem_options
from resolvent.gp.gp import build

GUIDE = (Path(__file__).parents[2] / "docs" / "gp.md").read_text(encoding="utf-8")
COMMANDS = re.findall(r"solve --pde [^\n`]*--model gp", GUIDE)


def test_the_python_example_runs() -> None:
    """The derivative at the lower wall, by the closed form: sum over modes of n pi times the coefficient."""
    (code,) = re.findall(r"```python\n(.*?)```", GUIDE, flags=re.DOTALL)
    names: dict = {}
    exec(code, names)
    problem, grid, u = names["problem"], names["grid"], names["potential"]
    torch.testing.assert_close(u, problem.exact(names["source"], grid), rtol=0, atol=1e-9)
    n = torch.arange(1, 64, dtype=torch.float64)
    sines = torch.sin(math.pi * n[:, None] * grid.coordinates()[0])
    coefficients = 2 / 64 * sines @ problem.exact(names["source"], grid)[0, 0]
    torch.testing.assert_close(names["slope"][0, 0], (math.pi * n * coefficients).sum(), rtol=0, atol=1e-8)


@pytest.mark.parametrize("line", sorted(set(COMMANDS)))
def test_every_command_names_a_problem_that_gp_accepts(line: str) -> None:
    words = shlex.split(line)
    given = {word[6:].replace("-", "_"): words[i + 1] for i, word in enumerate(words) if word.startswith("--pde.")}
    make = registry.find_problem(words[2]).build
    problem = make(**problem_options(make, given))
    grid = problem.grid(9)
    build(problem, grid)
    assert problem.equation(problem.sample(1, grid, generator=torch.Generator()), grid).terms


def test_every_preset_of_the_table_exists() -> None:
    assert len(COMMANDS) >= 7
    for problem, named in (
        ("high_frequency_poisson", ("p1", "p5", "p2d1", "p2d3")),
        ("high_frequency_allen_cahn", ("ac1", "ac2", "ac2d")),
    ):
        assert set(named) <= set(registry.find_problem(problem).build.presets)
