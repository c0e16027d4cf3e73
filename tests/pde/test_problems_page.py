"""docs/problems.md tells of every problem and every preset, and of none that is not there; its recipe runs."""

import fnmatch
import re
from pathlib import Path

import pytest
import resolvent
import torch
from resolvent.evaluation import registry

ROOT = Path(resolvent.__file__).resolve().parent
PAGE = (ROOT / "docs" / "problems.md").read_text(encoding="utf-8")
PROBLEMS = registry.problems()


def rows(section):
    """The cells of the tables under the headings that begin so."""
    text = PAGE.split(f"\n## {section}")[1].split("\n## ")[0]
    lines = [line for line in text.splitlines() if line.startswith("| `")]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]


def quoted(cell):
    return re.findall(r"`([^`]+)`", cell)


POSED = {row[0].strip("`"): row for section in ("Evolutions", "Maps") for row in rows(section)}


def named(problem):
    """Names and patterns of presets in the rows of a problem."""
    return [name for row in rows("Published") if problem in quoted(row[0]) for name in quoted(row[1])]


def test_every_problem_has_its_row():
    assert sorted(POSED) == sorted(PROBLEMS)


@pytest.mark.parametrize("name", PROBLEMS)
def test_a_row_says_what_goes_in_and_out_and_where(name):
    problem = registry.find_problem(name).build()
    signature, row = problem.signature, POSED[name]
    channels = [c.name for c in signature.inputs] + [c.name for c in signature.outputs]
    assert [c for c in channels if c not in re.split(r", | → ", row[4])] == []
    assert (name in {r[0].strip("`") for r in rows("Evolutions")}) == signature.evolves
    if signature.evolves:
        axes = problem.grid(problem.setups["quick"].resolution).axes
        assert axes[0].boundary[0] in row[3] if axes else row[2] == "none"


@pytest.mark.parametrize("name", PROBLEMS)
def test_every_preset_is_named_and_nothing_else(name):
    patterns = [pattern.replace("…", "*") for pattern in named(name)]
    presets = list(registry.find_problem(name).build.presets)
    assert [p for p in presets if not any(fnmatch.fnmatchcase(p, pattern) for pattern in patterns)] == []
    assert [pattern for pattern in patterns if not fnmatch.filter(presets, pattern)] == []


def test_the_recipe_reproduces_the_published_shock(monkeypatch):
    folder = ROOT.parent / "shared" / "data"
    if not (folder / "burgers_shock.mat").exists():
        pytest.skip(f"{folder} has no burgers_shock.mat")
    (code,) = (block for block in re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL) if "loadmat" in block)
    assert len(code.splitlines()) == 5
    monkeypatch.chdir(folder)
    names: dict = {}
    exec("import scipy.io, torch\nfrom resolvent.pde.burgers import Burgers\n" + code, names)
    assert float(names["error"]) < 1e-7


def test_the_first_example_runs():
    code = re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)[0]
    u0 = torch.cos(torch.pi * torch.arange(256, dtype=torch.float64) / 128)[None, None]
    names = {"u0": u0, "times": [0.1, 0.25]}
    exec(code, names)
    assert names["u"].shape == (1, 2, 1, 256)
