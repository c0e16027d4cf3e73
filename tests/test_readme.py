"""What the README shows works: its Python runs, its commands and options exist, its links lead somewhere."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import torch
from resolvent.cli._solve import option_groups

README = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


def test_the_reference_solver_example_runs() -> None:
    """The five lines a user copies: the answer has the asked times and decays as viscosity demands."""
    (code,) = (block for block in blocks("python") if "reference()" in block)
    names: dict = {}
    exec(code, names)
    u = names["u"]
    assert u.shape == (1, 3, 1, 512)
    energy = u.square().mean(dim=(0, 2, 3))
    assert bool((energy[1:] < energy[:-1]).all())
    assert float(energy[0]) < 0.5  # the mean square of the initial sine
    assert u.dtype == torch.float64


@pytest.mark.parametrize(
    "line", [x for block in blocks("sh") for x in block.splitlines() if x.startswith("solve --pde")]
)
def test_every_solve_line_names_what_exists(line: str) -> None:
    words = shlex.split(line, comments=True)[1:]
    groups = {group.prefix: {option.name for option in group.options} for group in option_groups(words)}
    for word in words:
        match = re.fullmatch(r"--(\w+)\.([\w-]+)", word)
        if match:
            assert match[2].replace("-", "_") in groups[match[1]]


def test_links_lead_to_files() -> None:
    for target in re.findall(r"\]\(([^)#:]+)\)", README):
        assert (Path(__file__).parent.parent / target).exists(), target
