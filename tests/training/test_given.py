"""Networks of evolutions with given channels: the state evolves, what is given stays, and it is worth knowing."""

from __future__ import annotations

import math

import pytest
import torch
from resolvent.data import Dataset
from resolvent.pde import Signature
from resolvent.pde._varied import varied
from resolvent.pde.heat import Heat
from resolvent.training import Budget, NetworkSolver, Recipe
from resolvent.training._normalizer import Normalizer
from resolvent.training._windows import Windows
from torch import nn

FAMILY = varied(Heat(frames=4, spacing=0.1), "diffusivity=0.002:0.05")


def samples(count: int, size: int = 16, seed: int = 0) -> Dataset:
    grid = FAMILY.grid(size)
    inputs = FAMILY.sample(count, grid, generator=torch.Generator().manual_seed(seed))
    return Dataset.from_tensors(inputs, FAMILY.reference()(inputs, grid), grid=grid, signature=FAMILY.signature)


class HeatStep(nn.Module):
    """The exact change of a periodic heat equation over one frame, with the diffusivity it is told."""

    def __init__(self, spacing: float) -> None:
        super().__init__()
        self.spacing = spacing
        self.seen: list[torch.Tensor] = []

    def forward(self, values):
        self.seen.append(values[:, 1:].clone())
        wave = 2 * math.pi * torch.arange(values.shape[-1] // 2 + 1)
        decay = torch.expm1(-values[:, 1:, :1] * wave**2 * self.spacing)
        return torch.fft.irfft(torch.fft.rfft(values[:, :1]) * decay, n=values.shape[-1])


@pytest.mark.parametrize("increment", [True, False])
def test_the_rollout_of_an_exact_step_is_exact(increment):
    data = samples(6)
    step = HeatStep(0.1)
    network = step if increment else Whole(step)
    recipe = Recipe(normalise="none", increment=increment)
    solver = NetworkSolver(network, data.signature, data.grid, recipe, any_resolution=True)
    inputs, outputs = data.read(range(6))
    scale = float(outputs.abs().max())
    torch.testing.assert_close(solver(inputs, data.grid), outputs, rtol=0, atol=1e-5 * scale)  # float32, four steps
    assert all(torch.equal(seen, inputs[:, 1:]) for seen in step.seen)
    finer = samples(3, 32)
    inputs, outputs = finer.read(range(3))
    scale = float(outputs.abs().max())
    torch.testing.assert_close(solver(inputs, finer.grid), outputs, rtol=0, atol=1e-5 * scale)


class Whole(nn.Module):
    def __init__(self, step):
        super().__init__()
        self.step = step

    def forward(self, values):
        return values[:, :1] + self.step(values)


@pytest.mark.parametrize("unroll", [1, 3])
def test_the_loss_of_an_exact_step_is_zero_and_noise_spares_what_is_given(unroll):
    data = samples(5)
    step = HeatStep(0.1)
    recipe = Recipe(normalise="none", unroll=unroll)
    solver = NetworkSolver(step, data.signature, data.grid, recipe)
    windows = Windows(data, solver._prepare, unroll=unroll)
    _, inputs, targets = next(windows.batches(64))
    assert inputs.shape[1:] == (2, 16)
    assert targets.shape[1:] == (unroll, 1, 16)
    loss = solver._loss(inputs, targets, torch.Generator())
    assert float(loss.max()) < 1e-4  # float32, relative to a state that has decayed by up to exp(-8)
    noisy = NetworkSolver(step, data.signature, data.grid, Recipe(normalise="none", unroll=unroll, noise=0.1))
    step.seen.clear()
    assert float(noisy._loss(inputs, targets, torch.Generator().manual_seed(0)).min()) > 1e-3
    assert all(torch.equal(seen, inputs[:, 1:]) for seen in step.seen)


def test_windows_pair_each_frame_with_its_own_samples_parameter():
    data = samples(4)
    windows = Windows(data, lambda fields: fields, limit=2 * data.nbytes // len(data))  # in blocks of two
    rates = data.read(range(4))[0][:, 1, 0]
    whole = data.trajectories(range(4))
    for numbers, inputs, targets in windows.batches(3, torch.Generator().manual_seed(0)):
        assert torch.equal(inputs[:, 1], rates[numbers][:, None].expand(-1, 16))
        for number, state, target in zip(numbers, inputs[:, 0], targets[:, 0, 0], strict=True):
            frame = int((whole[number, :, 0] - state).abs().sum(-1).argmin())
            assert torch.equal(whole[number, frame + 1, 0], target)
    fields = torch.cat(list(windows.inputs()))
    assert fields.shape == (4 * 5, 2, 16)
    assert torch.equal(fields[:, 1, 0], rates.repeat_interleave(5))


def test_a_tiny_range_is_scaled_and_a_constant_is_only_shifted():
    told = torch.linspace(1e-10, 1e-9, 7)[:, None, None].expand(7, 1, 8)
    same = torch.full((7, 1, 8), 1e-10)
    fields = torch.cat([told, same], dim=1)
    normalizer = Normalizer(2, (8,), "channel", uniform=(0, 1))
    normalizer.fit([fields])
    scaled = normalizer(fields)
    assert float(scaled[:, 0].std()) == pytest.approx(1.0, rel=0.1)
    assert torch.isfinite(scaled).all()
    assert float(scaled[:, 1].abs().max()) < 1e-6


def test_knowing_the_diffusivity_is_worth_more_than_guessing_it():
    """The same network, data and epochs; without the channel the best answer is an average over the family."""
    train, test = samples(48), samples(16, seed=1)
    errors = {}
    for told in (True, False):
        signature = train.signature if told else Signature(train.signature.outputs, train.signature.outputs, 4, 0.1)
        parts = [seen(data, signature) for data in (train, test)]
        torch.manual_seed(0)
        network = Depthwise(len(signature.inputs), 16)
        solver = NetworkSolver(network, signature, train.grid, Recipe(batch=16, learning_rate=0.02, seed=0))
        solver.fit(parts[0], budget=Budget(epochs=60))
        inputs, outputs = parts[1].read(range(16))
        with torch.no_grad():
            answer = solver(inputs, test.grid)
        error = (answer - outputs).flatten(1).norm(dim=1) / outputs.flatten(1).norm(dim=1)
        errors[told] = float(error.mean())
    assert errors[True] < 0.25 * errors[False], errors


def seen(data: Dataset, signature: Signature) -> Dataset:
    inputs, outputs = data.read(range(len(data)))
    return Dataset.from_tensors(inputs[:, : len(signature.inputs)], outputs, grid=data.grid, signature=signature)


class Depthwise(nn.Module):
    """Each mode times a factor that a small network reads off the mean of the given channel: holds the exact answer."""

    def __init__(self, channels: int, size: int) -> None:
        super().__init__()
        self.size = size
        self.factor = nn.Sequential(nn.Linear(max(1, channels - 1), 32), nn.GELU(), nn.Linear(32, size // 2 + 1))

    def forward(self, values):
        told = values[:, 1:].mean(dim=-1) if values.shape[1] > 1 else torch.zeros_like(values[:, 0, :1])
        spectrum = torch.fft.rfft(values[:, :1]) * self.factor(told)[:, None]
        return torch.fft.irfft(spectrum, n=self.size)
