"""Strict numerics, checked shapes, one thread: what every test takes for granted."""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import sys
import types

from beartype import BeartypeConf, beartype
from jaxtyping import install_import_hook

# Shape annotations are checked in tests and cost users nothing. An int is a float here, as for type checkers; the hook
# takes its checker by name, so it gets a module of its own.
_CHECKER = types.ModuleType("resolvent_typechecker")
_CHECKER.check = beartype(conf=BeartypeConf(is_pep484_tower=True))  # type: ignore[attr-defined]
sys.modules[_CHECKER.__name__] = _CHECKER
_HOOK = install_import_hook("resolvent", "resolvent_typechecker.check")

import pytest
import torch


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test reads or writes the user's cache."""
    monkeypatch.setenv("RESOLVENT_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))


@pytest.fixture
def unchecked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shape annotations are off, as for users: the door checks must say it themselves."""
    import jaxtyping

    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
