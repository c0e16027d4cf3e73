"""MG-TFNO against the dense FNO at 128²: error of the whole field, spectral weights, memory of a training step.

Navier-Stokes at viscosity 1e-4 on 128² nodes, a quarter of a second on, learned from 256 pairs of states (16
trajectories), our data. Every network has the same width and layers, sees the same batches for as many epochs, and is
judged with its last weights on trajectories it has not seen. The learning rate was chosen for the dense network (of
2e-3 and 6e-3, in short trainings at 64²). The interval and the number of pairs were chosen after trainings at 64² with
states a whole second apart, where MG-TFNO had 1.2 to 1.7 times the dense error: the flow then moves further than the
margin of a patch.

Goal: an MG-TFNO with at least 7 times less peak activation memory or 100 times fewer spectral weights than the dense
FNO, at no more than 1.1 times its error.

error     mean over test pairs of |prediction - truth| / |truth|, norms over the nodes
weights   numbers of all spectral convolutions (complex ones once), without biases
held      most bytes held at once by tensors made in a training step (forward and backward at the batch of training,
          gradients of the weights included), counted at every operation
resident  growth of the process's peak resident memory from such a step at batch 1 to one at the batch of training, in
          a process of its own: with what the C library keeps between allocations, hence more than is held

MG-TFNOs train with all patches at once, which is faster and has the same gradients to rounding (tests/operators);
their memory is that of patches in turn. "fno, blocks recomputed" is the fair classical rival in memory: the dense
network, each of its blocks computed twice; its error is the dense network's.

    python benchmarks/mgtfno.py [--check] [--json] [--quick] [--seeds 0]

Some 20 minutes on one free core; finished rows and half-trained networks are kept in the cache folder, so that the
same command goes on where it was stopped.
"""

from __future__ import annotations

import argparse
import datetime
import hashlib
import json
import os
import resource
import statistics
import subprocess
import sys
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from resolvent.data import Dataset
from resolvent.evaluation._machine import machine, versions
from resolvent.kernels import reuse_memory
from resolvent.operators import fno, mgtfno, tfno
from resolvent.pde.navier_stokes import NavierStokes
from resolvent.training import NetworkSolver, Recipe
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.checkpoint import checkpoint

MEMORY, WEIGHTS, ERROR = 7.0, 100.0, 1.1  # the goal


@dataclass(frozen=True)
class Scale:
    nodes: int = 128
    frames: int = 16
    spacing: float = 0.25  # time between frames [s]
    train: int = 16  # trajectories
    test: int = 8
    epochs: int = 12
    batch: int = 8
    width: int = 24
    modes: int = 64


FULL = Scale()
QUICK = replace(FULL, nodes=64, frames=4, train=4, test=2, epochs=1, width=8, modes=16)

BUILD: Mapping[str, Any] = {"fno": fno.build, "tfno": tfno.build, "mgtfno": mgtfno.build}


def rivals(scale: Scale) -> dict[str, tuple[str, dict[str, Any]]]:
    """Name in the table -> model and options. A window is 5/8 of the side (L = 1), 11/32 (L = 2): fewer modes do."""
    half, quarter = scale.modes // 2, scale.modes // 4
    return {
        "fno": ("fno", {"modes": scale.modes}),
        "fno, blocks recomputed": ("fno", {"modes": scale.modes}),
        "tfno": ("tfno", {"modes": scale.modes, "rank": 0.01}),
        "mgtfno, L = 1": ("mgtfno", {"levels": 1, "margin": 1 / 16, "modes": half, "rank": 0.035}),
        "mgtfno, L = 2": ("mgtfno", {"levels": 2, "margin": 3 / 64, "modes": quarter, "rank": 0.42}),
    }


def made(name: str, scale: Scale, seed: int, *, at_once: int) -> NetworkSolver:
    problem = posed(scale)
    model, options = rivals(scale)[name]
    if model == "mgtfno":
        options = {**options, "at_once": at_once}
    recipe = Recipe(epochs=scale.epochs, batch=scale.batch, learning_rate=6e-3, seed=seed)
    torch.manual_seed(seed)
    return BUILD[model](problem, problem.grid(scale.nodes), width=scale.width, recipe=recipe, **options)


def posed(scale: Scale) -> NavierStokes:
    return NavierStokes(viscosity=1e-4, frames=scale.frames, spacing=scale.spacing)


def data_of(scale: Scale, folder: Path) -> tuple[Dataset, Dataset]:
    """Trajectories from the initial distribution, computed once."""
    problem = posed(scale)
    grid = problem.grid(scale.nodes)
    path = folder / "data.pt"
    if not path.exists():
        states = problem.sample(scale.train + scale.test, grid, generator=torch.Generator().manual_seed(7193))
        reference = problem.reference()
        frames = torch.cat([reference(part, grid) for part in states.split(4)])
        part = path.with_suffix(".part")
        torch.save([states.float(), frames.float()], part)
        part.replace(path)
    states, frames = torch.load(path, weights_only=True)
    both = (slice(0, scale.train), slice(scale.train, None))
    train, test = (
        Dataset.from_tensors(states[s], frames[s], grid=grid, signature=problem.signature, problem=problem.name)
        for s in both
    )
    return train, test


@torch.no_grad()
def errors_of(solver: NetworkSolver, test: Dataset) -> list[float]:
    """One frame on, from every frame of every test trajectory."""
    first, later = test.read(range(len(test)))
    states = torch.cat([first[:, None], later], dim=1)
    before, after = states[:, :-1].flatten(0, 1), states[:, 1:].flatten(0, 1)
    found: list[float] = []
    for inputs, truth in zip(before.split(8), after.split(8), strict=True):
        answer = solver(inputs, test.grid, (test.signature.spacing,))[:, 0]
        found += ((answer - truth).flatten(1).norm(dim=1) / truth.flatten(1).norm(dim=1)).tolist()
    return found


# ---------------------------------------------------------------------- memory


class Held(TorchDispatchMode):
    """The most bytes that tensors made under it held at one time."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.most = 0
        self.known: set[int] = set()

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        for x in tree_leaves(result):
            if isinstance(x, Tensor) and x.untyped_storage()._cdata not in self.known:
                storage = x.untyped_storage()
                key, size = storage._cdata, storage.nbytes()
                self.known.add(key)
                self.now += size
                self.most = max(self.most, self.now)
                weakref.finalize(storage, self._free, key, size)
        return result

    def _free(self, key: int, size: int) -> None:
        self.known.discard(key)
        self.now -= size


class Recomputed(nn.Module):
    """A Fourier block whose activations are computed again in the backward pass."""

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        self.block = block

    def forward(self, *inputs: Any) -> Tensor:
        return checkpoint(self.block, *inputs, use_reentrant=False)


def training_step(name: str, scale: Scale) -> Callable[[], None]:
    network = made(name, scale, 0, at_once=1).network
    if name.endswith("recomputed"):
        network.blocks = nn.ModuleList(Recomputed(block) for block in network.blocks)
    values, truth = torch.randn(2, scale.batch, 1, scale.nodes, scale.nodes)

    def step() -> None:
        for parameter in network.parameters():
            parameter.grad = None
        (network(values) - truth).square().mean().backward()

    return step


def memory_of(name: str, scale: Scale) -> dict[str, int]:
    """In this process: what more samples add to the peak of the first, then what a step holds."""
    training_step(name, replace(scale, batch=1))()
    step = training_step(name, scale)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    step()
    resident = 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
    with Held() as held:
        step()
    return {"held": held.most, "resident": resident}


# ---------------------------------------------------------------------- rows


def row_of(name: str, scale: Scale, seed: int, folder: Path) -> dict[str, Any]:
    solver = made(name, scale, seed, at_once=0)
    numbers = {"weights": spectral_weights(solver.network), "parameters": solver.parameter_count}
    if name.endswith("recomputed"):
        return numbers
    train, test = data_of(scale, folder)
    started = time.process_time()
    history = solver.fit(train, checkpoint=folder / f"{name.replace(' ', '')}-{seed}.ckpt")
    seconds = time.process_time() - started
    found = errors_of(solver, test)
    return {
        **numbers,
        **{"error": statistics.mean(found), "standard_error": statistics.stdev(found) / len(found) ** 0.5},
        **{"train": history.rows[-1]["train"], "cpu_seconds": seconds, "errors": found},
    }


def spectral_weights(network: nn.Module) -> int:
    named = network.named_parameters()
    return sum(p.numel() for name, p in named if ".convolution." in name and not name.endswith(".bias"))


def apart(name: str, scale: Scale, quick: bool) -> dict[str, int]:
    command = [sys.executable, __file__, "--memory", name, *(["--quick"] if quick else [])]
    told = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    return json.loads(told.splitlines()[-1])


def table_of(rows: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Every row with its ratios to the dense network: how many times less memory, fewer weights, more error."""
    dense = rows["fno"]
    found = []
    for name, row in rows.items():
        error = row.get("error", dense["error"] if name.endswith("recomputed") else None)
        ratios = {"held_ratio": dense["held"] / row["held"], "weights_ratio": dense["weights"] / row["weights"]}
        ratios["resident_ratio"] = dense["resident"] / max(1, row["resident"])
        found.append({"name": name, **row, "error": error, "error_ratio": error / dense["error"], **ratios})
    return found


def line(row: Mapping[str, Any]) -> str:
    spread = f" ± {row['standard_error']:.4f}" if "standard_error" in row else ""
    cells = [
        row["name"],
        f"{row['error']:.4f}{spread}",
        f"{row['error_ratio']:.2f}",
        f"{row['weights']:,}",
        f"{row['weights_ratio']:.1f}",
        f"{row['held'] / 2**20:.1f}",
        f"{row['held_ratio']:.1f}",
        f"{row['resident'] / 2**20:.0f}",
        f"{row.get('cpu_seconds', 0):.0f}",
    ]
    return "| " + " | ".join(cells) + " |"


HEAD = (
    "| network | error | times the dense | spectral weights | times fewer | held [MiB] | times less | resident [MiB] | "
    "training [CPU s] |\n|---|---|---|---|---|---|---|---|---|"
)


def shortfalls(table: Sequence[Mapping[str, Any]]) -> list[str]:
    told = []
    for row in table:
        if not row["name"].startswith("mgtfno"):
            continue
        saves = row["held_ratio"] >= MEMORY or row["weights_ratio"] >= WEIGHTS
        if saves and row["error_ratio"] <= ERROR:
            return []
        told.append(
            f"{row['name']}: {row['held_ratio']:.1f} times less memory, {row['weights_ratio']:.0f} times fewer "
            f"weights, {row['error_ratio']:.2f} times the error"
        )
    return [f"no MG-TFNO reaches {MEMORY:g} or {WEIGHTS:g} times at {ERROR} times the error: {'; '.join(told)}"]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="exit 1 naming what falls short")
    parser.add_argument("--json", action="store_true", help="write benchmarks/results/mgtfno.json and .md")
    parser.add_argument("--quick", action="store_true", help="32², one epoch: whether it runs, not whether it is true")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], help="errors are means over them")
    parser.add_argument("--memory", help=argparse.SUPPRESS)
    given = parser.parse_args()
    torch.set_num_threads(1)
    scale = QUICK if given.quick else FULL
    if given.memory:
        print(json.dumps(memory_of(given.memory, scale)))
        return 0
    reuse_memory()
    load = os.getloadavg()[0]
    table = table_of(measured(scale, given.seeds, given.quick))
    print(HEAD)
    for row in table:
        print(line(row))
    missed = shortfalls(table)
    if given.json:
        write(table, missed, scale, given.seeds, load)
    for text in missed:
        print(f"Goal missed: {text}", file=sys.stderr)
    return 1 if given.check and missed else 0


def measured(scale: Scale, seeds: Sequence[int], quick: bool) -> dict[str, dict[str, Any]]:
    """Rows by name; what was finished earlier is read back."""
    rows = {}
    for name in rivals(scale):
        told = [finished(scale, f"{name}-{seed}", lambda f, n=name, s=seed: row_of(n, scale, s, f)) for seed in seeds]
        row = dict(told[0])
        if "error" in row and len(told) > 1:
            each = [one["error"] for one in told]
            row |= {"error": statistics.mean(each), "standard_error": statistics.stdev(each) / len(each) ** 0.5}
            row["error_of_seeds"] = each
        rows[name] = row | finished(scale, f"{name}-memory", lambda f, n=name: apart(n, scale, quick))
        print(
            f"{name}: {json.dumps({k: v for k, v in rows[name].items() if k != 'errors'})}", file=sys.stderr, flush=True
        )
    return rows


def finished(scale: Scale, key: str, compute: Callable[[Path], dict[str, Any]]) -> dict[str, Any]:
    settings = json.dumps([asdict(scale), rivals(scale), torch.__version__], sort_keys=True)
    cache = Path(os.environ.get("RESOLVENT_CACHE", Path.home() / ".cache" / "resolvent"))
    folder = cache / "benchmarks" / f"mgtfno-{hashlib.sha256(settings.encode()).hexdigest()[:12]}"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{key.replace(' ', '')}.json"
    if not path.exists():
        found = compute(folder)
        part = path.with_suffix(".part")
        part.write_text(json.dumps(found))
        part.replace(path)
    return json.loads(path.read_text())


def write(
    table: Sequence[Mapping[str, Any]], missed: Sequence[str], scale: Scale, seeds: Sequence[int], load: float
) -> None:
    folder = Path(__file__).parent / "results"
    told = {
        **{"benchmark": "mgtfno", "date": datetime.date.today().isoformat(), "machine": machine(), "load": load},
        **{"versions": versions(), "seeds": list(seeds), "scale": asdict(scale), "options": rivals(scale)},
        **{"rows": list(table), "missed": list(missed)},
    }
    (folder / "mgtfno.json").write_text(json.dumps(told, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    text = (
        f"# MG-TFNO against the dense FNO at {scale.nodes}²\n\n{machine()}, load {load:.1f} at the start; torch "
        f"{torch.__version__}; seeds {list(seeds)}; {told['date']}. Navier-Stokes at viscosity 1e-4, "
        f"{scale.spacing:g} s on; {scale.train} trajectories of {scale.frames} frames to train, {scale.test} to test; "
        f"{scale.epochs} epochs, "
        f"batch {scale.batch}, width {scale.width}, one thread. Error: mean (± standard error over "
        f"{'seeds' if len(seeds) > 1 else 'test pairs; the spread over seeds was not measured'}).\n\n{HEAD}\n"
    )
    text += "\n".join(map(line, table)) + "\n\nGoals missed: " + ("; ".join(missed) if missed else "none") + ".\n"
    (folder / "mgtfno.md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
