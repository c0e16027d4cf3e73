"""Names: folders are read without importing, strangers' modules are found, wrong names are answered with near ones."""

from __future__ import annotations

import dataclasses
import importlib
import subprocess
import sys
from pathlib import Path
from typing import Any, Literal

import pytest
from resolvent.evaluation import registry
from resolvent.evaluation.registry import UnknownName, find_model, find_problem, models, nearest, options_of, problems

ROOT = Path(registry.__file__).parent.parent


def public(folder: str) -> list[str]:
    return sorted(path.stem for path in (ROOT / folder).glob("[!_]*.py"))


def test_names_are_the_public_files_in_order() -> None:
    assert problems()[: len(public("pde"))] == public("pde")
    assert "navier_stokes" in problems()
    ours = list(dict.fromkeys(name for folder in ("operators", "gp", "dynamics", "fields") for name in public(folder)))
    assert models()[: len(ours)] == ours


def test_listing_imports_no_model_and_no_problem() -> None:
    """In a fresh interpreter: after a listing, no listed module is loaded."""
    code = (
        "import sys; from resolvent.evaluation.registry import entries\n"
        "found = [e for kind in ('problem', 'model') for e in entries(kind)]\n"
        "before = {m for m in sys.modules if m.startswith(('resolvent.operators.', 'resolvent.gp.'))}\n"
        "assert found and not any(m.rpartition('.')[2][0] != '_' for m in before), before"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_first_folder_wins_and_a_broken_file_is_still_listed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for folder, source in (("operators", '"""Ours."""'), ("gp", '"""Theirs."""'), ("fields", "def (")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / ("broken.py" if folder == "fields" else "same.py")).write_text(source)
    monkeypatch.setattr(registry, "_ROOT", tmp_path)
    listed = {entry.name: entry for entry in registry.entries("model") if entry.origin in ("operators", "gp", "fields")}
    assert listed["same"].origin == "operators"
    assert listed["same"].summary == "Ours."
    assert listed["broken"].summary == "(this file does not parse)"


def test_the_grids_of_an_operator_are_read_from_its_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Read, not imported: a declaration with or without a type; none means one grid; only operators have grids."""
    sources = {
        "operators/second": "CONVERGENCE: float = 2.0",
        "operators/all": 'import missing\nCONVERGENCE = "spectral"',
        "operators/own": "CONVERGENCE = None",
        "operators/silent": "def build(): CONVERGENCE = 3.0",
        "gp/direct": "CONVERGENCE = 2.0",
    }
    for name, source in sources.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).with_suffix(".py").write_text(source)
    monkeypatch.setattr(registry, "_ROOT", tmp_path)
    found = {entry.name: entry.grids for entry in registry.entries("model") if entry.origin in ("operators", "gp")}
    assert found == {
        "second": "any grid, order 2",
        "all": "any grid, spectral",
        "own": "one grid",
        "silent": "one grid",
        "direct": "",
    }


def test_summaries_are_first_docstring_lines() -> None:
    entry = next(entry for entry in registry.entries("problem") if entry.name == "navier_stokes")
    assert entry.origin == "pde"
    assert entry.summary.startswith("Incompressible Navier-Stokes on the torus")


def test_a_name_finds_its_file() -> None:
    module = find_problem("navier_stokes")
    assert module.__name__ == "resolvent.pde.navier_stokes"
    assert module.build().name == "navier_stokes"


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("navier_stoks", "Did you mean 'navier_stokes'"),
        ("qqqq", "Known: "),
        ("_grid", "Unknown problem '_grid'"),
        ("../evil", "Unknown problem '../evil'"),
        ("no_such_package.navier_stokes", "no module 'no_such_package' can be imported. Did you mean 'navier_stokes'"),
        ("json.decoder", "has no 'build'"),
        ("", "Unknown problem ''"),
    ],
)
def test_an_unknown_name_is_answered_in_one_line(name: str, said: str) -> None:
    with pytest.raises(UnknownName) as caught:
        find_problem(name)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
    assert isinstance(caught.value, ValueError)


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An importable package ``strangers`` that the test fills."""
    folder = tmp_path / "strangers"
    folder.mkdir()
    (folder / "__init__.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    yield folder
    for name in [name for name in sys.modules if name.partition(".")[0] == "strangers"]:
        del sys.modules[name]


def test_a_dotted_path_is_imported(package: Path) -> None:
    (package / "model.py").write_text("def build(problem, grid, *, width: int = 3): ...")
    module = find_model("strangers.model")
    assert [option.name for option in options_of(module.build)] == ["width"]


def test_a_dotted_path_that_does_not_exist_is_unknown(package: Path) -> None:
    with pytest.raises(UnknownName, match=r"no module 'strangers\.modl' can be imported"):
        find_model("strangers.modl")


@pytest.mark.parametrize(
    ("source", "error", "said"),
    [
        ("import a_module_that_is_missing", ModuleNotFoundError, "a_module_that_is_missing"),
        ("1 / 0", ZeroDivisionError, "division by zero"),
        ("def build(:", SyntaxError, "invalid syntax"),
    ],
)
def test_the_error_inside_a_strangers_module_comes_through(
    package: Path, source: str, error: type[Exception], said: str
) -> None:
    (package / "broken.py").write_text(source)
    with pytest.raises(error, match=said):
        find_model("strangers.broken")


def test_an_installed_entry_point_is_listed_and_found(package: Path) -> None:
    (package / "model.py").write_text("def build(problem, grid): ...")
    info = package.parent / "strangers-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: strangers\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[resolvent.models]\ntheirs = strangers.model\n")
    importlib.invalidate_caches()
    assert "theirs" in models()
    assert next(e for e in registry.entries("model") if e.name == "theirs").origin == "strangers"
    assert find_model("theirs").__name__ == "strangers.model"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Base:
    """A base.

    rate   decay per second,
           at least 0
    """

    rate: float = 0.5  # a comment that the docstring outranks
    sizes: tuple[int, ...] = dataclasses.field(default_factory=lambda: (1, 2))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Posed(Base):
    """Posed."""

    depth: int  # layers
    kind: Literal["a", "b"] = "a"
    silent: bool = False


def build(
    problem: Any,
    grid: Any,
    *,
    width: int = 32,  # channels
    kind: Literal["v", "w"] | None = None,
    needed: float,
    recipe: Any = None,
    _hidden: int = 0,
    **rest: Any,
) -> None:
    """A function.

    kind   of cycle
    other  not an option
    """


def test_options_of_a_dataclass_with_a_base() -> None:
    got = {option.name: option for option in options_of(Posed)}
    assert list(got) == ["rate", "sizes", "depth", "kind", "silent"]
    assert got["rate"].default == 0.5
    assert got["sizes"].default == (1, 2)
    assert got["sizes"].type == tuple[int, ...]
    assert got["kind"].type == Literal["a", "b"]
    assert [name for name, option in got.items() if option.required] == ["depth"]
    assert got["depth"].help == "layers"
    assert got["silent"].help == ""


def test_a_docstring_line_outranks_a_comment() -> None:
    assert options_of(Base)[0].help == "decay per second, at least 0"


def test_options_of_a_function() -> None:
    got = {option.name: option for option in options_of(build)}
    assert list(got) == ["width", "kind", "needed"]
    assert (got["width"].type, got["width"].default, got["width"].help) == (int, 32, "channels")
    assert got["kind"].help == "of cycle"
    assert got["kind"].type == Literal["v", "w"] | None
    assert got["needed"].required


def test_options_without_source_or_with_unknown_annotations() -> None:
    """Made at run time, annotated with a name that only type checkers know: the default tells the type."""
    space: dict[str, Any] = {"__name__": "nowhere"}
    exec("from __future__ import annotations\ndef build(problem, *, size: Missing = 4, word: str = 'x'): ...", space)
    got = options_of(space["build"])
    assert [(o.name, o.type, o.default, o.help) for o in got] == [("size", int, 4, ""), ("word", str, "x", "")]


def test_options_of_the_real_thing() -> None:
    got = {option.name: option for option in options_of(find_problem("navier_stokes").build)}
    assert got["viscosity"].type is float
    assert got["viscosity"].default == 1e-3
    assert got["viscosity"].help
    assert got["forcing"].type == Literal["fno", "kolmogorov", "none"]
    assert "setups" not in got


def test_nearest() -> None:
    assert nearest("wdith", ["width", "depth"]) == "Did you mean 'width' or 'depth'?"  # the nearest first
    assert nearest("zzz", ["width", "depth"]) == "Known: width, depth."
    assert nearest("zzz", []) == "Known: none."
