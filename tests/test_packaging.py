"""The package is what the folders are: nothing missing from the wheel, nothing heavy on import, layers kept."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parent.parent
NOT_PACKAGES = {"tests", "docs", "benchmarks", "build", "dist", "runs"}


def configuration() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


def test_the_listed_packages_are_the_folders_on_disk() -> None:
    found = {"resolvent"}
    for init in ROOT.rglob("__init__.py"):
        parts = init.parent.relative_to(ROOT).parts
        if parts and not parts[0].startswith(".") and parts[0] not in NOT_PACKAGES:
            found.add(".".join(("resolvent", *parts)))
    assert found == set(configuration()["tool"]["setuptools"]["packages"])


def test_every_dependency_is_pinned_in_the_constraints() -> None:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = {line.partition("==")[0].lower().replace("_", "-") for line in lines if "==" in line}
    project = configuration()["project"]
    named = sum(project["optional-dependencies"].values(), project["dependencies"])
    wanted = {text.split(">=")[0].split("[")[0].strip().lower().replace("_", "-") for text in named} - {"resolvent"}
    assert wanted <= pins
    assert "torchvision" not in pins


def test_importing_the_package_imports_nothing_heavy() -> None:
    heavy = ("torch", "numpy", "scipy", "xarray", "matplotlib")
    code = f"import resolvent, sys; print([m for m in {heavy} if m in sys.modules])"
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd="/")
    assert output.stdout.strip() == "[]"


def test_neuraloperator_is_not_imported_by_the_models() -> None:
    """It takes seconds to import, and only its users need it."""
    code = (
        "import sys, resolvent.evaluation\nfrom resolvent.evaluation import registry\n"
        "[registry.find_model(m) for m in registry.models()]\nprint('neuralop' in sys.modules)"
    )
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd="/")
    assert output.stdout.strip() == "False"


def test_shape_annotations_are_checked_here() -> None:
    """What ``conftest`` promises: a wrong shape in a short test is found by the annotation, before the door check."""
    from jaxtyping import TypeCheckError
    from resolvent.evaluation.metrics import relative_l2
    from resolvent.pde import Grid

    with pytest.raises(TypeCheckError):
        relative_l2(torch.zeros(2, 1, 8, 8), torch.zeros(3, 1, 8, 8), Grid.box((8, 8), dim=2, boundary="dirichlet"))
