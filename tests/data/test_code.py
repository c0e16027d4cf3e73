"""The hash of the code: changes with what a solver computes, not with how it is written down."""

import importlib
import sys

import pytest
from resolvent.data._code import code_digest
from resolvent.pde.navier_stokes import NavierStokes

HELPER = "def half(x):\n    return x / 2\n"
MODEL = '"""Doc."""\nfrom resolvent.pde import Grid\n\nclass Model:\n    def go(self):\n        from ._helper import half\n        return half(3)\n'


@pytest.fixture
def digest_of(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "stranger").mkdir()

    def compute(model=MODEL, helper=HELPER, other="x = 1\n"):
        for name, text in {"__init__": "", "model": model, "_helper": helper, "other": other}.items():
            (tmp_path / "stranger" / f"{name}.py").write_text(text)
        for name in [name for name in sys.modules if name.startswith("stranger")]:
            del sys.modules[name]
        importlib.invalidate_caches()
        sys.dont_write_bytecode, before = True, sys.dont_write_bytecode
        try:
            return code_digest.__wrapped__(importlib.import_module("stranger.model").Model)
        finally:
            sys.dont_write_bytecode = before

    return compute


def test_words_do_not_count(digest_of):
    assert digest_of() == digest_of(model=MODEL.replace("Doc", "Other words") + "# a remark\n")


def test_code_counts_also_where_it_is_imported_from(digest_of):
    assert digest_of() != digest_of(model=MODEL.replace("3", "4"))
    assert digest_of() != digest_of(helper=HELPER.replace("2", "3"))
    assert digest_of() == digest_of(other="x = 2\n")  # nobody imports it


def test_a_problem_of_ours_has_one():
    assert len(code_digest(NavierStokes)) == 8
