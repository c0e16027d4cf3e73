"""Time series in benchmarks/dynamics.py: the spiral by ``neural_ode``, irregular series by ``latent_ode``."""

from __future__ import annotations

import time
from typing import Any

import torch
from resolvent.data import Dataset
from resolvent.dynamics import latent_ode, neural_ode
from resolvent.dynamics.latent_ode import Series
from resolvent.evaluation.metrics import relative_l2
from resolvent.pde.spiral import Spiral
from resolvent.pde.van_der_pol import VanDerPol
from resolvent.training import Budget, Recipe
from torch import Generator, Tensor, nn

# not searched for
SPIRAL_WEIGHTS = {"none": 0.0, "ERNODE": 10.0, "local": 10.0}
SPIRAL_WORDS = {"none": "none", "ERNODE": "ernode", "local": "local"}


def spiral_row(variant: str, seed: int, *, epochs: int) -> dict[str, Any]:
    """128 trajectories train, 16 select, 32 judge; windows of ten frames, tolerance 1e-5, one step for the batch."""
    problem = Spiral()
    grid = problem.grid(2)
    inputs = problem.sample(176, grid, generator=Generator().manual_seed(0))
    outputs = problem.reference()(inputs, grid)
    made = {"grid": grid, "signature": problem.signature, "problem": "spiral"}
    whole = Dataset.from_tensors(inputs.float(), outputs.float(), **made)
    torch.manual_seed(seed)
    solver = neural_ode.build(
        problem,
        grid,
        regulariser=SPIRAL_WORDS[variant],
        weight=SPIRAL_WEIGHTS[variant] or 1.0,
        rtol=1e-5,
        atol=1e-5,
        control="batch",
        recipe=Recipe(batch=64, unroll=10, learning_rate=5e-3, weight_decay=0.0, seed=seed),
    )
    started = time.process_time()
    solver.fit(whole.subset(range(128)), validation=whole.subset(range(128, 144)), budget=Budget(epochs=epochs))
    trained = time.process_time() - started
    state, truth = whole.read(range(144, 176))
    seconds = []
    with torch.no_grad():
        for _ in range(5):
            started = time.process_time()
            answer = solver(state, grid)
            seconds.append(time.process_time() - started)
    spent = sum(work.evaluations for work in solver.health) / len(solver.health)
    error = float(relative_l2(answer, truth, grid).mean())
    return {"error": error, "evaluations": spent, "predict": min(seconds), "train": trained}


def irregular(count: int, seed: int) -> tuple[list[float], Tensor, Tensor, Tensor]:
    """Van der Pol's oscillator at 51 times up to 10: times, truth, noisy values, and the 11 that each series shows."""
    problem = VanDerPol(frames=50, spacing=0.2)
    grid, generator = problem.grid(2), Generator().manual_seed(seed)
    start = problem.sample(count, grid, generator=generator)
    truth = torch.cat([start[:, None], problem.reference()(start, grid)], dim=1).float()
    values = truth + 0.05 * torch.randn(truth.shape, generator=generator)
    rank = torch.rand(truth.shape[:2], generator=generator)
    rank[:, 0] = -1.0  # the first is always seen
    shown = rank.argsort(dim=1).argsort(dim=1) < 11
    return [0.0, *problem.signature.times], truth, values, shown[..., None].expand_as(truth)


class Recurrent(nn.Module):
    """A GRU in both directions on values, mask and times; a linear head at every time."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.cells = nn.GRU(5, width, batch_first=True, bidirectional=True)
        self.head = nn.Linear(2 * width, 2)

    def forward(self, times: Tensor, values: Tensor, mask: Tensor) -> Tensor:
        clock = times.expand(len(values), -1)[..., None]
        return self.head(self.cells(torch.cat([values * mask, mask, clock], dim=2))[0])


def latent_row(variant: str, seed: int, *, epochs: int) -> dict[str, Any]:
    """200 series train, 30 select, 100 judge: root mean square error at all 51 times, in deviations of the truth."""
    times, *train = irregular(200, 1)
    _, *held = irregular(30, 2)
    _, truth, values, shown = irregular(100, 3)
    torch.manual_seed(seed)
    started = time.process_time()
    if variant == "linear interpolation":
        found = _straight(times, values, shown)
    elif variant == "GRU":
        found = _recurrent(times, train, held, (values, shown), seed, epochs)
    else:
        found = _latent(times, train, held, (values, shown), seed, epochs)
    seconds = time.process_time() - started
    scale = truth.flatten(0, 1).std(dim=0)
    return {"error": float(((found - truth) / scale).square().mean().sqrt()), "train": seconds}


def _straight(times: list[float], values: Tensor, shown: Tensor) -> Tensor:
    import numpy as np

    rows = [
        [np.interp(times, np.asarray(times)[mask[:, c].numpy()], one[mask[:, c], c].numpy()) for c in range(2)]
        for one, mask in zip(values, shown, strict=True)
    ]
    return torch.tensor(np.asarray(rows)).transpose(1, 2).float()


def _recurrent(times: list[float], train: Any, held: Any, asked: Any, seed: int, epochs: int) -> Tensor:
    """Trained like the latent ODE: a random part is shown, all that was observed is compared; best on ``held``."""
    model, clock = Recurrent(64), torch.tensor(times) / times[-1]
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    generator, best = Generator().manual_seed(seed), (float("inf"), model.state_dict())
    scale = train[1].flatten(0, 1).std(dim=0)
    for _ in range(epochs):
        for chosen in torch.randperm(len(train[1]), generator=generator).split(50):
            values, mask = train[1][chosen] / scale, train[2][chosen].float()
            share = 0.5 + 0.5 * torch.rand(len(values), 1, generator=generator)
            part = (torch.rand(values.shape[:2], generator=generator) < share)[..., None]
            loss = ((model(clock, values, mask * part) - values).square() * mask).sum() / mask.sum()
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
        with torch.no_grad():
            mask = held[2].float()
            found = model(clock, held[1] / scale, mask)
            error = float(((found - held[1] / scale).square() * mask).sum() / mask.sum())
        if error < best[0]:
            best = (error, {name: value.clone() for name, value in model.state_dict().items()})
    model.load_state_dict(best[1])
    with torch.no_grad():
        return model(clock, asked[0] / scale, asked[1].float()) * scale


def _latent(times: list[float], train: Any, held: Any, asked: Any, seed: int, epochs: int) -> Tensor:
    problem = VanDerPol(frames=50, spacing=0.2)
    recipe = Recipe(batch=50, learning_rate=5e-3, weight_decay=0.0, seed=seed, validate_every=10)
    solver = latent_ode.build(problem, problem.grid(2), latent=4, width=64, recipe=recipe)
    solver.fit_series(
        Series(times, train[1], train[2]), budget=Budget(epochs=epochs), validation=Series(times, held[1], held[2])
    )
    return solver.follow(Series(times, *asked), times)
