"""Every Triton kernel compiled ahead of time for the A100 and the H100, without a GPU: no spills, shared memory enough."""

from __future__ import annotations

import dataclasses
import functools
import os
import re
import sys

import pytest
import torch

pytest.importorskip("triton")
pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="Triton's assembler is for Linux"),
    pytest.mark.skipif(os.environ.get("TRITON_INTERPRET") == "1", reason="the interpreter compiles nothing"),
]

from resolvent.kernels import _triton_launch, _triton_mixing, _triton_transforms
from resolvent.kernels._spectral_triton import layer_on_meta
from resolvent.kernels._triton_report import SHARED, Launch, recorded, resources

CAPABILITIES = list(SHARED)
# precision, dtype, nodes, kept modes, skip product and activation
FAST = [
    ("tf32x3", torch.float32, (128, 128), (32, 17), True),
    ("bf16", torch.bfloat16, (256, 256), (64, 33), True),
]
SLOW = [
    ("tf32x3", torch.float32, (256, 256), (64, 33), False),
    ("tf32x3", torch.float32, (64, 64, 64), (16, 16, 9), False),
    ("tf32x3", torch.float32, (512, 512), (32, 17), False),
    ("tf32x3", torch.float32, (128, 128), (16, 9), True),
    ("tf32x3", torch.float32, (128, 128), (128, 65), False),
    ("tf32x3", torch.float32, (85, 61), (12, 7), True),
    ("tf32x3", torch.float32, (1024,), (16,), True),
    ("bf16", torch.bfloat16, (128, 128), (16, 9), False),
    ("bf16", torch.float32, (256, 256), (32, 17), True),
    ("bf16", torch.bfloat16, (64, 64, 64), (16, 16, 9), True),
]
PLAIN = [("ieee", torch.float32, (64, 64), (16, 9), True), ("ieee", torch.float64, (64, 64), (16, 9), True)]


def named(settings, *marks):
    return [pytest.param(one, id=f"{one[0]} {str(one[1])[6:]} {one[2]} {one[3]}", marks=marks) for one in settings]


@pytest.fixture(autouse=True)
def _own_folder(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path_factory.getbasetemp() / "triton"))


@functools.cache
def launches(precision, dtype, space, modes, skip) -> tuple[Launch, ...]:
    """Forward and backward of a layer of 64 channels, batch 16."""
    return tuple(recorded(lambda: layer_on_meta(16, 64, space, modes, precision=precision, dtype=dtype, skip=skip)))


@pytest.mark.parametrize("capability", CAPABILITIES)
@pytest.mark.parametrize("setting", named(FAST) + named(SLOW, pytest.mark.slow))
def test_no_kernel_spills_or_exceeds_shared_memory(setting, capability):
    for launch in launches(*setting):
        found = resources(launch, capability)
        assert found.stack == 0, f"{launch.name} spills: {found.stack} bytes of stack at {found.registers} registers"
        assert found.shared <= SHARED[capability], launch.name


@pytest.mark.slow
@pytest.mark.parametrize("capability", CAPABILITIES)
@pytest.mark.parametrize("setting", named(PLAIN))
def test_plain_arithmetic_compiles(setting, capability):
    """For checks, not for speed: without tensor cores the products spill, but they fit."""
    for launch in launches(*setting):
        assert resources(launch, capability).shared <= SHARED[capability], launch.name


def test_the_settings_reach_every_kernel():
    kernels = {
        name
        for module in (_triton_transforms, _triton_mixing)
        for name in _triton_launch.CONFIGS
        if hasattr(module, name)
    }
    assert kernels == set(_triton_launch.CONFIGS)
    reached = {launch.name for setting in FAST + SLOW for launch in launches(*setting)}
    assert reached == kernels


def test_one_channel_one_mode_compiles():
    """Integers that are 1 become constants."""
    found = recorded(lambda: layer_on_meta(1, 1, (8, 8), (1, 1), precision="tf32x3", dtype=torch.float32, skip=True))
    for launch in found:
        assert resources(launch, 90).registers > 0


def products(launch: Launch, precision: str) -> list[str]:
    constants = tuple((name, precision if name == "PRECISION" else value) for name, value in launch.constants)
    ptx = resources(dataclasses.replace(launch, constants=constants), 80).ptx
    return re.findall(r"^\s*mma\.sync\.aligned\.\S*tf32\.\S+", ptx, flags=re.MULTILINE)


def test_tf32x3_takes_three_products_for_one():
    launch = next(one for one in launches(*FAST[0]) if one.name == "synthesis_rows")
    once = products(launch, "tf32")
    assert once
    assert len(products(launch, "tf32x3")) == 3 * len(once)


@pytest.mark.parametrize("name", sorted(_triton_launch.CONFIGS))
def test_what_is_tuned_and_for_what_are_arguments_of_the_kernel(name):
    """Triton would ignore a misspelt key, and tune once for all shapes."""
    module = _triton_mixing if hasattr(_triton_mixing, name) else _triton_transforms
    tuned = _triton_launch._tuned(getattr(module, name))
    assert set(tuned.keys) <= set(tuned.arg_names)
    assert all(set(config.kwargs) <= set(tuned.arg_names) for config in tuned.configs)
    assert len(tuned.configs) == len(_triton_launch.CONFIGS[name])


def test_recording_leaves_the_launcher_as_it_was():
    before = _triton_launch.launch
    with pytest.raises(ZeroDivisionError):
        recorded(lambda: 1 / 0)
    assert _triton_launch.launch is before
