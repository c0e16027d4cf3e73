"""DGNO and its rivals without a single label: the equation alone, the same inputs, the same time.

    python benchmarks/dgno.py [--seconds 600] [--only CASE ...] [--models MODEL ...] [--seeds 0] [--threads 1] [--check]

Goals, mean relative L2 of u over 200 unseen samples, label-free, 29² nodes (``--check`` names the first that falls
short of the rows that exist):

1. two phases: at most 0.020     (published: 0.0207 to 0.0241; PINO 0.0434, PI-MultiONet 0.141, PI-DeepONet 0.165)
2. smooth: at most 0.0033        (published: 0.0033 to 0.0077; PI-MultiONet 0.0069, PI-DeepONet 0.0116, PINO 0.0326)
3. Burgers, space and time: at most 0.0087                      (published: 0.0087 to 0.0093; PI-MultiONet 0.0076)
4. Stokes u, v, p: at most 0.0317, 0.0328, 0.0493

Laws. The published coefficients are in data files only. Ours: two phases 10 and 5 by the sign of a Gaussian field
N(0, 3² (-Delta + 9)^-2) (a constant guess of 7.5 scores 0.316 in a whatever the field, as published); smooth:
a = exp(g) of the same field; f = 10. 10,000 inputs of each for all models (published: 1000 smooth ones): without labels
they cost nothing. Burgers: nu = 0.1 / pi on [-1, 1] between walls, 128 nodes and 100 frames, 10,000 odd random fields
of deviation 0.13 and largest values of 0.21 (the released notebook shows one published input: odd, 0.25 at most).
Stokes: cylinder, 57 x 29 nodes. Truth: finite volumes on an eight times finer grid, or the problem's reference.

The training data hold zeros in place of solutions: there is nothing that could be learned from. Rivals minimise the
same energy, of the functions that they answer (fno: cubic splines between its nodes). Rows are kept in
``results/dgno.json``; what is there of this machine is not run again. Options were chosen on other samples than the
200; of the rivals optimizer, batch and rate were searched, their sizes are usual ones (rows named _256: layers of 256).
Seconds are of the clock, one row on its core: within them, machines take different numbers of steps. Rows of AMD EPYC
had PyTorch's own Muon, which rounds to bfloat16.
"""

from __future__ import annotations

import functools
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import _rows
import torch
from resolvent.data import Dataset
from resolvent.evaluation._machine import machine, versions
from resolvent.evaluation.registry import find_model
from resolvent.pde import Grid, Problem, symmetries_of
from resolvent.pde.burgers import Burgers
from resolvent.pde.darcy import Darcy, FiniteVolumes
from resolvent.pde.stokes import Stokes
from resolvent.training import Budget, Callback, LearnedSolver, NetworkSolver, Progress, Recipe
from torch import Tensor

TEST, REFINE = 200, 8


@dataclass(frozen=True)
class Case:
    """A problem, its sizes, what is published for it and what is asked of us."""

    problem: Problem
    nodes: int
    train: int
    goal: tuple[float, ...]
    published: Mapping[str, str]


CASES = {
    "two_phase": Case(
        Darcy(**Darcy.presets["dgno_two_phase"]), 29, 10_000, (0.020,),
        {"dgno": "0.0207-0.0241", "fno": "0.0434", "multionet": "0.1408", "deeponet": "0.1651"},
    ),
    "smooth": Case(
        Darcy(**Darcy.presets["dgno_smooth"]), 29, 10_000, (0.0033,),
        {"dgno": "0.0033-0.0077", "fno": "0.0326", "multionet": "0.0069", "deeponet": "0.0116"},
    ),
    "burgers": Case(
        Burgers(**Burgers.presets["dgno"]), 128, 10_000, (0.0087,),
        {"dgno": "0.0087-0.0093", "multionet": "0.0076", "deeponet": "0.0127"},
    ),
    "stokes": Case(
        Stokes(), 29, 1000, (0.0317, 0.0328, 0.0493),
        {"dgno": ".0317/.0328/.0493", "multionet": ".0069/.0630/.0630"},
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Entry:
    """A row: the model, its options, its recipe."""

    model: str
    options: Mapping[str, Any] = field(default_factory=dict)
    train: Mapping[str, Any] = field(default_factory=dict)


_SQUARE = {"augment": True}
# what the cases of dgno have of their own: options, and recipe
_OWN: Mapping[str, tuple[Mapping[str, Any], Mapping[str, Any]]] = {
    # 120 s on other samples: 0.0106; code 256: 0.0090, and inputs_weight 0.05: 0.0086; wider or more waves: 0.0105
    "two_phase": ({"code": 256, "inputs_weight": 0.05}, {}),
    "smooth": ({"inputs_weight": 0.05}, {}),  # 0.0034 without
    "burgers": ({"waves": 32}, {}),
    "stokes": (
        {"code": 32, "hidden": "128", "inputs_weight": 10.0},
        {"optimizer": "adamw", "learning_rate": 2e-3, "batch": 50},
    ),
}
# each by the best of four settings of optimizer, batch and rate, 30 s on other samples of smooth media (relative L2,
# best and worst: multionet 0.022, 0.045; deeponet 0.068, 0.086; fno 0.039, 0.063)
_RIVAL = {"equation": 1.0, "labels": 0, "optimizer": "muon", "batch": 100, "learning_rate": 2e-3, "weight_decay": 0.0}
ENTRIES = {
    "dgno": Entry("dgno", {}, {"optimizer": "muon", "batch": 200, "learning_rate": 4e-3, "weight_decay": 0.0}),
    "deeponet": Entry(
        "deeponet",
        {"walls": "zero", "branch": "fc", "activation": "tanh"},
        {**_RIVAL, "batch": 200, "learning_rate": 4e-3},
    ),
    "multionet": Entry(
        "multionet", {"walls": "zero", "encoder": "fc", "factors": "one", "trunk_activation": "tanh_sin"}, _RIVAL
    ),
    "fno": Entry("fno", {"width": 32, "modes": 8}, {**_RIVAL, "optimizer": "adamw", "batch": 6, "learning_rate": 1e-3}),
}
# whether the branched networks are held back by their usual size
WIDE = {
    f"{model}_256": Entry(model, {**ENTRIES[model].options, "width": 256}, ENTRIES[model].train)
    for model in ("deeponet", "multionet")
}
ENTRIES |= WIDE
ROWS = [
    *(("two_phase", model) for model in ENTRIES),
    *(("smooth", model) for model in ENTRIES if model not in WIDE),
    ("burgers", "dgno"),
    ("stokes", "dgno"),
]


def data(case: Case) -> tuple[Grid, Dataset, Tensor, Tensor]:
    """Training inputs without solutions, test inputs, and the truth."""
    problem, grid = case.problem, case.problem.grid(case.nodes)
    inputs = problem.sample(case.train, grid, generator=torch.Generator().manual_seed(0)).float()
    frames = (problem.signature.frames,) if problem.signature.evolves else ()
    nothing = torch.zeros(len(inputs), *frames, len(problem.signature.outputs), *grid.shape)
    blank = Dataset.from_tensors(inputs, nothing, grid=grid, signature=problem.signature, problem=problem.name)
    unseen = problem.sample(TEST, grid, generator=torch.Generator().manual_seed(1_000_001))
    judge = FiniteVolumes(problem, refine=REFINE) if isinstance(problem, Darcy) else problem.reference()
    return grid, blank, unseen, judge(unseen, grid)


def errors(answer: Tensor, truth: Tensor, channels: int, *, evolves: bool) -> Tensor:
    """Relative L2 of every channel, a row a sample; of an evolution over space and time."""
    axis = 2 if evolves else 1
    found = []
    for channel in range(channels):
        mine, theirs = (values.select(axis, channel).flatten(1).double() for values in (answer, truth))
        found.append((mine - theirs).norm(dim=1) / theirs.norm(dim=1))
    return torch.stack(found, dim=1)


class Watch(Callback):
    """A line now and then."""

    def __init__(self) -> None:
        self.told = time.monotonic()

    def batch(self, progress: Progress) -> None:
        if time.monotonic() - self.told > 60:
            self.told = time.monotonic()
            print(f"    epoch {progress.epoch}, {progress.seconds:.0f} s, loss {progress.loss:.4g}", flush=True)


def _own(name: str, model: str) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    return _OWN.get(name, ({}, {})) if model == "dgno" else ({}, {})


def trained(name: str, model: str, grid: Grid, blank: Dataset, seconds: float, seed: int) -> tuple[Any, Any]:
    case, entry = CASES[name], ENTRIES[model]
    own, recipe_of_its_own = _own(name, model)
    train = {**entry.train, **recipe_of_its_own, **(_SQUARE if isinstance(case.problem, Darcy) else {})}
    recipe = Recipe(epochs=1_000_000, seed=seed, validate_every=1_000_000, **train)  # the seconds end it
    torch.manual_seed(seed)
    options = {**entry.options, **own}
    solver: LearnedSolver = find_model(entry.model).build(case.problem, grid, recipe=recipe, **options)
    if isinstance(solver, NetworkSolver):
        solver.problem, solver.symmetries = case.problem, symmetries_of(case.problem, solver.working)
    return solver, solver.fit(blank, budget=Budget(seconds=seconds), callbacks=[Watch()])


def run(name: str, model: str, seconds: float, seed: int) -> _rows.Row:
    case = CASES[name]
    grid, blank, unseen, truth = data(case)
    used = time.process_time()
    solver, history = trained(name, model, grid, blank, seconds, seed)
    used = time.process_time() - used
    with torch.no_grad():
        answer = torch.cat([solver(part.float(), grid) for part in unseen.split(20)])
    signature = case.problem.signature
    samples = errors(answer, truth, len(signature.outputs), evolves=signature.evolves)
    row = {
        **{"case": name, "model": model, "own": dict(_own(name, model)[0]), "seconds": seconds, "seed": seed},
        **{"threads": torch.get_num_threads(), "parameters": solver.parameter_count},
        **{"epochs": len(history.rows), "steps": history.rows[-1]["step"], "processor_seconds": used},
        **{"errors": samples.mean(dim=0).tolist(), "deviation": float(samples.std(dim=0).max())},
        **{"machine": machine(), "versions": versions()},
    }
    if hasattr(solver, "medium") and not case.problem.signature.evolves:
        row["input"] = input_error(solver, unseen.float(), grid)
    return row


@torch.no_grad()
def input_error(solver: Any, unseen: Tensor, grid: Grid) -> dict[str, float]:
    """How well the code keeps the input: relative L2, and the share of wrong cells."""
    found = solver.fields(solver.encode(unseen, grid), solver.nodes)[solver.signature.inputs[0].name]
    given = unseen[:, 0].flatten(1)
    error = float(((found - given).norm(dim=1) / given.norm(dim=1)).mean())
    if not solver.medium.phases:
        return {"error": error}
    return {
        "error": error,
        "wrong": float((solver.medium.indices(found) != solver.medium.indices(given)).float().mean()),
    }


def told(row: Mapping[str, Any]) -> str:
    return " / ".join(f"{error:.4f}" for error in row["errors"])


def page(rows: Mapping[str, _rows.Row]) -> str:
    heads = ["case", "model", "options of its own", "seconds (processor)", "seed", "machine", "parameters", "steps"]
    heads += ["error", "deviation over samples", "input", "published"]
    lines = ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
    made = list(dict.fromkeys(_made(row) for row in rows.values()))
    order = sorted(
        rows.values(),
        key=lambda r: (
            *(list(CASES).index(r["case"]), r["seconds"], made.index(_made(r))),
            *(list(ENTRIES).index(r["model"]), r["seed"]),
        ),
    )
    for row in order:
        kept = row.get("input", {})
        cells = [row["case"], row["model"], ", ".join(f"{name} {value}" for name, value in row["own"].items())]
        cells += [f"{row['seconds']:g} ({row['processor_seconds']:.0f})", row["seed"], made.index(_made(row)) + 1]
        cells += [f"{row['parameters']:,}", row["steps"], told(row), f"{row['deviation']:.4f}"]
        cells += [f"{kept['error']:.4f}" + (f", {kept['wrong']:.1%} wrong" if "wrong" in kept else "") if kept else ""]
        cells += [CASES[row["case"]].published.get(row["model"], "")]
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    machines = [f"- Machine {number}: {text}." for number, text in enumerate(made, start=1)]
    short = [f"Falls short: {line}." for line in goals(rows)] or ["All goals are met."]
    head = ["# DGNO without labels", "", "`python benchmarks/dgno.py`; relative L2 over 200 unseen samples."]
    tail = (__doc__ or "").partition("Laws. ")[2]
    return "\n".join([*head, "", *lines, "", *machines, "", *short, "", tail])


def _made(row: Mapping[str, Any]) -> str:
    """The machine and the threads of a row, and what it ran with."""
    named = ", ".join(f"{name} {version}" for name, version in row["versions"].items())
    return f"{row['machine']}, threads: {row['threads']}; {named}"


def goals(rows: Mapping[str, _rows.Row]) -> list[str]:
    """What the best row of each case falls short of."""
    found = []
    for name, case in CASES.items():
        mine = [row["errors"] for row in rows.values() if (row["case"], row["model"]) == (name, "dgno")]
        best = min(mine, key=max, default=None)
        if best is None:
            found.append(f"{name}: not run")
        elif any(error > goal for error, goal in zip(best, case.goal, strict=True)):
            found.append(f"{name}: {best}, at most {case.goal}")
    return found


def main() -> int:
    words = _rows.parser(__doc__, "20 seconds a row: whether it runs at all", [0], only=CASES, models=ENTRIES)
    words.add_argument("--seconds", type=float, nargs="+", default=[600.0])
    words.add_argument("--threads", type=int, default=1)
    options = words.parse_args()
    torch.set_num_threads(options.threads)
    rows = _rows.Rows(_rows.place("dgno", options), page)
    for seconds in [20.0] if options.quick else options.seconds:
        for seed in options.seeds:
            for name, model in ROWS:
                if name in options.only and model in options.models:
                    measure = functools.partial(run, name, model, seconds, seed)
                    rows.once(f"{name}/{model}/{seconds:g} s/{seed}/{machine()}", measure, told)
    return _rows.verdict(goals(rows.kept), options)


if __name__ == "__main__":
    sys.exit(main())
