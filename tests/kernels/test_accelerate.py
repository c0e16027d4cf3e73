"""neuraloperator's models with our layers: the same outputs, gradients and parameters, and its own tests pass."""

from __future__ import annotations

import copy
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from resolvent.kernels.accelerate import accelerate
from torch import Tensor, nn

neuralop = pytest.importorskip("neuralop.models")

SMALL = {"in_channels": 2, "out_channels": 1, "hidden_channels": 8}
UNO = {"n_layers": 5, "uno_out_channels": [8, 8, 8, 8, 8], "uno_n_modes": [[8, 8], [6, 6], [4, 4], [6, 6], [8, 8]]}
MODELS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "fno": (lambda: neuralop.FNO(n_modes=(8, 6), **SMALL), (16, 20)),
    "fno 1d": (lambda: neuralop.FNO(n_modes=(8,), **SMALL), (16,)),
    "fno 3d": (lambda: neuralop.FNO(n_modes=(4, 4, 4), **SMALL), (8, 6, 9)),
    "fno odd leading size": (lambda: neuralop.FNO(n_modes=(8, 8), **SMALL), (15, 16)),
    "fno fewer modes in use": (lambda: fewer_modes(neuralop.FNO(n_modes=(8, 8), **SMALL)), (16, 16)),
    "fno separable": (lambda: neuralop.FNO(n_modes=(8, 8), separable=True, factorization="dense", **SMALL), (16, 16)),
    "fno norm, stabiliser": (
        lambda: neuralop.FNO(n_modes=(8, 8), norm="group_norm", stabilizer="tanh", **SMALL),
        (16, 16),
    ),
    "fno preactivation": (lambda: neuralop.FNO(n_modes=(8, 8), preactivation=True, **SMALL), (16, 16)),
    "fno identity skips": (
        lambda: neuralop.FNO(n_modes=(8, 8), fno_skip="identity", channel_mlp_skip="linear", **SMALL),
        (16, 16),
    ),
    "fno without channel mlp": (lambda: neuralop.FNO(n_modes=(8, 8), use_channel_mlp=False, **SMALL), (16, 16)),
    "fno other resolution": (
        lambda: neuralop.FNO(n_modes=(8, 8), resolution_scaling_factor=[2, 1, 1, 0.5], **SMALL),
        (16, 16),
    ),
    "tfno tucker": (lambda: neuralop.TFNO(n_modes=(8, 8), rank=0.5, **SMALL), (16, 16)),
    "tfno cp": (lambda: factorised("cp"), (16, 16)),
    "tfno tt": (lambda: factorised("tt"), (16, 16)),
    "uno": (
        lambda: neuralop.UNO(
            2,
            1,
            hidden_channels=8,
            channel_mlp_skip="linear",
            uno_scalings=[[1, 1], [0.5, 0.5], [1, 1], [2, 2], [1, 1]],
            **UNO,
        ),
        (32, 32),
    ),
}


def fewer_modes(model: nn.Module) -> nn.Module:
    model.n_modes = (6, 4)
    return model


def factorised(kind: str) -> nn.Module:
    return neuralop.TFNO(n_modes=(8, 8), rank=0.5, factorization=kind, implementation="factorized", **SMALL)


def answer(model: nn.Module, inputs: Tensor) -> tuple[Tensor, Tensor]:
    """Outputs, and all gradients in one vector."""
    outputs = model(inputs)
    found = torch.autograd.grad(outputs.square().sum(), list(model.parameters()), allow_unused=True)
    gradients = [torch.view_as_real(g).flatten() if g.is_complex() else g.flatten() for g in found if g is not None]
    return outputs.detach(), torch.cat(gradients)


@pytest.mark.parametrize("name", MODELS)
def test_outputs_and_gradients_are_the_same(name: str) -> None:
    make, space = MODELS[name]
    torch.manual_seed(0)
    theirs = make()
    ours = accelerate(copy.deepcopy(theirs), reuse=False)
    inputs = torch.randn(2, 2, *space)
    for got, expected in zip(answer(ours, inputs), answer(theirs, inputs), strict=True):
        assert got.shape == expected.shape
        assert (got - expected).norm() < 1e-5 * expected.norm()  # the goal; single precision gives about 2e-7
    assert list(ours.state_dict()) == list(theirs.state_dict())
    theirs.load_state_dict(ours.state_dict())


def test_something_was_swapped_and_twice_is_once() -> None:
    model = accelerate(neuralop.FNO(n_modes=(8, 8), **SMALL), reuse=False)
    names = {type(module).__name__ for module in model.modules()}
    assert {"FastSpectralConv", "FastChannelMLP", "FastLinearSkip", "FastFNOBlocks"} <= names
    assert {"SpectralConv", "ChannelMLP", "Flattened1dConv"}.isdisjoint(names)
    again = {type(module).__name__ for module in accelerate(model, reuse=False).modules()}
    assert again == names


def test_our_code_is_what_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    model = accelerate(neuralop.FNO(n_modes=(8, 8), **SMALL), reuse=False)

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a full FFT was taken")

    monkeypatch.setattr(torch.fft, "rfftn", refuse)
    model(torch.randn(1, 2, 16, 16))


def test_a_model_without_such_layers_is_refused() -> None:
    with pytest.raises(ValueError, match=r"no layer of neuraloperator.*Linear"):
        accelerate(nn.Linear(2, 2))


PLUGIN = """
import neuralop.models as models
from resolvent.kernels.accelerate import accelerate

def pytest_configure(config):
    for name in ("FNO", "UNO"):
        kind = getattr(models, name)
        kind.__init__ = faster(kind.__init__)

def faster(init):
    def construct(self, *args, **kwargs):
        init(self, *args, **kwargs)
        accelerate(self, reuse=False)
    return construct
"""


@pytest.mark.slow
@pytest.mark.parametrize("name", ["test_fno", "test_uno"])
def test_neuraloperators_own_tests_pass_with_our_layers(name: str, tmp_path: Path) -> None:
    (tmp_path / "faster_layers.py").write_text(PLUGIN)
    folder = Path(neuralop.__file__).parent / "tests"
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "faster_layers",
        "-p",
        "no:cacheprovider",
        str(folder / f"{name}.py"),
    ]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env=environment(tmp_path))
    assert done.returncode == 0, done.stdout[-3000:]


def environment(folder: Path) -> dict[str, str]:
    import os

    return {**os.environ, "PYTHONPATH": str(folder), "OMP_NUM_THREADS": "1"}
