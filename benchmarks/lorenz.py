"""Lorenz-63 learned from data: does the learned attractor have the statistics of the true one?

Goal (at least one model, mean over seeds): distance of occupation histograms and of power spectra between generated and
true trajectories at most the 95th percentile of those between true trajectories of the same length.

    python benchmarks/lorenz.py [--check] [--quick] [--only MODEL ...] [--seeds 0 1 2] [--length 20000]

Data: 64 trajectories of 10 time units on the attractor, every 0.01 (AL-RNN) or 0.02 (neural ODE); 8 validation
trajectories select the weights by their free forecasts over a window; 8 test trajectories of ``--length`` steps of 0.01
judge, from their first states. One thread. Rows are cached in ``benchmarks/results/lorenz.json`` (``--quick``: a
temporary folder) as they come; delete the file to start afresh. The largest Lyapunov exponent is that of the learned
map: from two orbits drawn together again and again, or from the exact Jacobians of an AL-RNN; the true one is 0.906.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parent))
from resolvent.data import Dataset
from resolvent.dynamics import al_rnn, neural_ode
from resolvent.dynamics._symbolic import code_of, lyapunov_exponents
from resolvent.evaluation.attractor import agreement, largest_exponent
from resolvent.pde import Grid, Solver
from resolvent.pde._solver import OneFrame
from resolvent.pde.lorenz import Lorenz
from resolvent.training import Budget, Recipe
from torch import Tensor

from dynamics import made, published

RESULTS = Path(__file__).parent / "results" / "lorenz.json"
STEP, TRUTHS, POINT = 0.01, 8, Grid(())


@dataclasses.dataclass(frozen=True)
class Model:
    """How one row is made: the sampling of its data, its options, its training and the limit in seconds."""

    build: Any
    spacing: float
    frames: int
    options: Mapping[str, Any]
    recipe: Recipe
    seconds: float


_SMOOTH = {"objective": "mean_square", "weight_decay": 0.0, "validate_every": 1}
# 100,000 updates on windows of 200 frames, the rate falling exponentially from 1e-3 to 1e-5, noise 0.05 (dossier D.5)
_PUBLISHED = Recipe(
    epochs=31,
    batch=16,
    learning_rate=1e-3,
    schedule="step",
    step_every=0.05,
    step_factor=0.7943,
    unroll=200,
    noise=0.05,
    **_SMOOTH,
)
MODELS: dict[str, Model] = {
    "neural_ode": Model(
        neural_ode.build,
        0.02,
        500,
        {"width": 64, "layers": 2, "rtol": 1e-3, "atol": 1e-4, "control": "batch"},
        Recipe(epochs=160, batch=1024, learning_rate=1e-2, unroll=1, **_SMOOTH),
        420.0,
    ),
    "al_rnn, 2 rectified": Model(
        al_rnn.build, STEP, 1000, {"hidden": 17, "rectified": 2, "interval": 16}, _PUBLISHED, 7200.0
    ),
    "al_rnn, 10 rectified": Model(
        al_rnn.build, STEP, 1000, {"hidden": 27, "rectified": 10, "interval": 16}, _PUBLISHED, 7200.0
    ),
}


def samples(model: Model, count: int, seed: int) -> Dataset:
    problem = Lorenz(spacing=model.spacing, frames=model.frames)
    inputs = problem.sample(count, POINT, generator=torch.Generator().manual_seed(seed))
    outputs = problem.reference(tolerance=1e-9)(inputs, POINT)
    return Dataset.from_tensors(
        inputs.float(), outputs.float(), grid=POINT, signature=problem.signature, problem="lorenz"
    )


def truths(length: int, count: int = TRUTHS) -> tuple[Tensor, Tensor]:
    """First states and trajectories that follow; never seen in training."""
    problem = Lorenz(spacing=STEP, frames=length)
    inputs = problem.sample(count, POINT, generator=torch.Generator().manual_seed(9001))
    state, frames, half = inputs, [], STEP / 2
    for _ in range(length):
        for _ in range(2):  # order 4 with steps of 0.005: 1e-8 a step, far below what statistics see
            state = problem._step(state, half)
        frames.append(state)
    return inputs, torch.stack(frames, dim=1)


def exponent_of(solver: Solver, states: Tensor, spacing: float) -> Tensor:
    """Of a learned one-frame map, from two orbits drawn together every tenth frame."""
    frame = OneFrame(solver, spacing)
    return largest_exponent(frame, states, POINT, spacing=spacing, steps=300, skip=20, distance=1e-3, every=10)


def run(name: str, model: Model, seed: int, length: int, known: tuple[Tensor, Tensor]) -> dict[str, Any]:
    train, held = samples(model, 64, seed=1), samples(model, 8, seed=2)
    problem = Lorenz(spacing=model.spacing, frames=model.frames)
    torch.manual_seed(seed)
    recipe = dataclasses.replace(model.recipe, seed=seed)
    solver = model.build(problem, POINT, **model.options, recipe=recipe)
    started = time.process_time()
    history = solver.fit(train, validation=held, budget=Budget(seconds=model.seconds))
    fitted = time.process_time() - started
    if name == "neural_ode":  # answers need a tighter tolerance than gradients
        solver.options = {**solver.options, "rtol": 1e-6, "atol": 1e-7}
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # that the trajectories are longer than those of training is the point
        times = [STEP * (i + 1) for i in range(length)]
        started = time.process_time()
        found = solver(known[0], POINT, times)
        predicted = time.process_time() - started
        told = {each.name: {"mean": each.mean, "truth": each.usual, "within": each.within}
                for each in agreement(found, known[1])}  # fmt: skip
        if name == "neural_ode":
            exponent = float(exponent_of(solver, known[0], model.spacing).mean())
        else:  # the map has hidden units: its Jacobians are known exactly
            orbit = solver.latent(known[0][:1].float(), None, length)[0]
            code = code_of(solver.recurrence, orbit)
            exponent = float(lyapunov_exponents(solver.recurrence, orbit[-5000:], count=1)[0]) / STEP
            told["code"] = {"visited": len(code.visited), "regions": code.regions, "shares": code.shares[:8]}
    return {
        **told,
        "exponent": exponent,
        "seconds": {"fit": fitted, "predict": predicted},
        "steps": history.rows[-1]["step"],
        "train": history.rows[-1]["train"],
        "validation": min(row["validation"] for row in history.rows if "validation" in row),
        "parameters": solver.parameter_count,
        "length": length,
    }


def quick() -> dict[str, Model]:
    return {
        name: dataclasses.replace(
            m, frames=60, recipe=dataclasses.replace(m.recipe, epochs=1, unroll=min(m.recipe.unroll, 20)), seconds=5.0
        )
        for name, m in MODELS.items()
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="exit 1 if the goal falls short")
    parser.add_argument("--quick", action="store_true", help="seconds of training: that it runs, no figures")
    parser.add_argument("--only", nargs="*", default=list(MODELS), help="models")
    parser.add_argument("--seeds", nargs="*", type=int, default=[0, 1, 2])
    parser.add_argument("--length", type=int, default=20_000, help="steps of 0.01 that are compared")
    given = parser.parse_args()
    torch.set_num_threads(1)
    length = 1000 if given.quick else given.length
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "lorenz.json" if given.quick else RESULTS
        kept: dict[str, dict[str, Any]] = json.loads(path.read_text()) if path.exists() else {}
        known: tuple[Tensor, Tensor] | None = None
        for seed in given.seeds[: 1 if given.quick else None]:
            for name in given.only:
                key = f"{name}: seed {seed}: length {length}"
                if key in kept:
                    continue
                known = known or truths(length)
                model = (quick() if given.quick else MODELS)[name]
                kept[key] = {**run(name, model, seed, length, known), "made": made()}
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(json.dumps(kept, indent=1) + "\n")
                print(f"{key}: {kept[key]['state space']['mean']:.3f}", file=sys.stderr, flush=True)
    print(told(kept))
    if not given.quick:
        published()
    return 1 if given.check and not any(met(each) for each in grouped(kept).values()) else 0


def grouped(kept: Mapping[str, Mapping[str, Any]]) -> dict[str, list[Mapping[str, Any]]]:
    """By model and length."""
    rows: dict[str, list[Mapping[str, Any]]] = {}
    for key, found in kept.items():
        rows.setdefault(f"{key.split(': ')[0]}, {found['length']} steps", []).append(found)
    return rows


def met(each: Sequence[Mapping[str, Any]]) -> bool:
    """Whether the mean over seeds is within the spread of true trajectories, in both distances."""
    return all(
        statistics.mean(found[kind]["mean"] for found in each) <= each[0][kind]["truth"][1]
        for kind in ("state space", "spectrum")
    )


def told(kept: Mapping[str, Mapping[str, Any]]) -> str:
    """The table, and whether the goal is met."""
    lines = [
        "# The Lorenz attractor from data",
        "",
        "`python benchmarks/lorenz.py --check`: 8 generated trajectories against 8 true ones; mean ± standard "
        "deviation over seeds, beside the distances between true trajectories of that length. True exponent: 0.906.",
        "",
        "| model | seeds | updates | state space [nat] | true: mean / 95 % | spectrum | true: mean / 95 % | exponent "
        "| fit [s] |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    rows = grouped(kept)
    for name, each in rows.items():
        cells = [name, str(len(each)), ", ".join(str(found["steps"]) for found in each)]
        for kind in ("state space", "spectrum"):
            values = [found[kind]["mean"] for found in each]
            usual = each[0][kind]["truth"]
            spread = f" ± {statistics.stdev(values):.3f}" if len(values) > 1 else ""
            cells += [f"{statistics.mean(values):.3f}{spread}", f"{usual[0]:.3f} / {usual[1]:.3f}"]
        cells += [", ".join(f"{found['exponent']:.3f}" for found in each),
                  f"{statistics.mean(f['seconds']['fit'] for f in each):.0f}"]  # fmt: skip
        lines.append(f"| {' | '.join(cells)} |")
    short = [name for name, each in rows.items() if not met(each)]
    said = f"Outside the spread of true trajectories: {'; '.join(short)}." if short else "All are within the spread."
    lines += ["", said, ""]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
