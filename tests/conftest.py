"""Strict numerics, checked shapes, one thread: what every test takes for granted."""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import functools
import sys
import types
from collections.abc import Callable, Iterator

import jaxtyping
from beartype import BeartypeConf, beartype

# Shape annotations are checked in tests and cost users nothing. An int is a float here, as for type checkers; the hook
# takes its checker by name, so it gets a module of its own. A check costs a tenth of a millisecond: a loop of a test
# that makes more than CHECKED calls has shown its shapes and runs on without.
CHECKED = 5000
_calls = 0


def _check(function: types.FunctionType) -> Callable[..., object]:
    checked: Callable[..., object] | None = None

    @functools.wraps(function)
    def counted(*args: object, **options: object) -> object:
        nonlocal checked
        global _calls
        if checked is None:  # made when it is needed: all at once, they took a quarter of the time of the collection
            checked = beartype(conf=BeartypeConf(is_pep484_tower=True))(function)
        _calls += 1
        if _calls > CHECKED:
            jaxtyping.config.jaxtyping_disable = True
        return checked(*args, **options)

    return counted


_CHECKER = types.ModuleType("resolvent_typechecker")
_CHECKER.check = _check  # type: ignore[attr-defined]
sys.modules[_CHECKER.__name__] = _CHECKER
_HOOK = jaxtyping.install_import_hook("resolvent", "resolvent_typechecker.check")
_DISABLED = jaxtyping.config.jaxtyping_disable

import pytest
import torch


@pytest.fixture(autouse=True)
def _counted_checks() -> Iterator[None]:
    global _calls
    _calls = 0
    yield
    jaxtyping.config.jaxtyping_disable = _DISABLED


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
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
