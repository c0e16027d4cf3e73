"""A training step (forward, backward, AdamW) of neuraloperator's models on the CPU: theirs, theirs accelerated, ours.

Goals, batch 8, 16 modes, width 64, one thread, with the C library's memory as it comes:

1. our FNO against neuraloperator's, equal weights: at least 1.8 times faster on 64² and 128² nodes;
2. ``accelerate(model)`` on FNO, TFNO (Tucker, rank 0.1) and UNO: at least 1.5 times faster on 128²;
3. accelerated TFNO: at least 2.5 times faster on 128²;
4. nowhere slower, on one thread and two, and with memory kept (``reuse_memory``, what ``solve`` does) on both sides.

All take one step each in turn, in alternating order, so that what else the machine does hits all. Outputs are compared
before anything is timed. The ratio is the median over rounds of their time divided by ours. Every row is a process of
its own, because how memory is kept concerns a whole process; the rows "by default" set their step with memory as it
comes against ours with memory kept, which is what a user gets from ``accelerate(model)`` and from ``solve``. No goal
is judged on them.

    python benchmarks/fno_training_step.py [--check] [--json] [--rounds 7] [--threads 1 2] [--quick]
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import datetime
import io
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from resolvent.evaluation._machine import machine, versions
from resolvent.kernels import accelerate, reuse_memory
from resolvent.operators._neuralop_weights import from_neuralop
from torch import Tensor, nn

BATCH, MODES, WIDTH, SEED = 8, 16, 64, 7193
MODELS = ("fno", "tfno", "uno")
DEFAULTS = "by default"


def goal(row: dict[str, Any], side: str) -> float:
    if row["memory"] == DEFAULTS:
        return 0.0
    if row["threads"] != 1 or row["memory"] != "as it comes":
        return 1.0
    if side == "ours":
        return 1.8
    if row["nodes"] != 128:
        return 1.0
    return 2.5 if row["model"] == "tfno" else 1.5


def made(model: str) -> nn.Module:
    import neuralop.models

    common = {"in_channels": 1, "out_channels": 1, "hidden_channels": WIDTH}
    with contextlib.redirect_stdout(io.StringIO()):  # UNO prints as it is built
        if model == "fno":
            return neuralop.models.FNO(n_modes=(MODES, MODES), **common)
        if model == "tfno":
            return neuralop.models.TFNO(n_modes=(MODES, MODES), rank=0.1, **common)
        layers = {"n_layers": 5, "uno_out_channels": [WIDTH] * 5, "uno_n_modes": [[MODES, MODES]] * 5}
        scalings = [[1, 1], [0.5, 0.5], [1, 1], [2, 2], [1, 1]]
        return neuralop.models.UNO(uno_scalings=scalings, channel_mlp_skip="linear", **layers, **common)


def training_step(network: nn.Module, inputs: Tensor, targets: Tensor) -> Callable[[], None]:
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3, weight_decay=1e-5)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        (network(inputs) - targets).square().mean().backward()
        optimizer.step()

    return step


def in_turn(actions: Sequence[Callable[[], object]], rounds: int) -> list[list[float]]:
    """Seconds of each action in each round; the order alternates, the first round is not counted."""
    seconds: list[list[float]] = [[] for _ in actions]
    for turn in range(rounds + 1):
        for i in range(len(actions)) if turn % 2 else reversed(range(len(actions))):
            started = time.perf_counter()
            actions[i]()
            if turn:
                seconds[i].append(time.perf_counter() - started)
    return seconds


def measured(model: str, nodes: int, threads: int, keep: bool, rounds: int) -> dict[str, Any]:
    torch.set_num_threads(threads)
    if keep:
        reuse_memory()
    torch.manual_seed(SEED)
    theirs = made(model)
    sides = {"accelerated": accelerate(copy.deepcopy(theirs), reuse=False)}
    if model == "fno":
        sides["ours"] = from_neuralop(theirs)
    inputs, targets = torch.randn(2, BATCH, 1, nodes, nodes)
    for network in sides.values():
        torch.testing.assert_close(network(inputs), theirs(inputs), rtol=0, atol=1e-4)
    every = [training_step(network, inputs, targets) for network in (theirs, *sides.values())]
    first, *others = in_turn(every, rounds)
    row: dict[str, Any] = {"model": model, "nodes": nodes, "threads": threads}
    row |= {"memory": "kept" if keep else "as it comes", "theirs_ms": 1e3 * statistics.median(first)}
    for name, own in zip(sides, others, strict=True):
        ratios = sorted(a / b for a, b in zip(first, own, strict=True))
        row[name] = {
            "ms": 1e3 * statistics.median(own),
            "ratio": statistics.median(ratios),
            "least": ratios[0],
            "most": ratios[-1],
        }
    return row


def apart(setting: tuple[str, int, int, bool], rounds: int) -> dict[str, Any]:
    """One row in a process of its own."""
    command = [sys.executable, __file__, "--row", json.dumps(setting), "--rounds", str(rounds)]
    told = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    return json.loads(told.splitlines()[-1])


def by_default(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Theirs with memory as it comes over ours with memory kept: medians of two processes of the same run."""
    found = []
    for row in rows:
        same = [other for other in rows if all(other[key] == row[key] for key in ("model", "nodes", "threads"))]
        kept = next((other for other in same if other["memory"] == "kept"), None)
        if row["memory"] != "as it comes" or kept is None:
            continue
        made = {**{key: row[key] for key in ("model", "nodes", "threads", "theirs_ms")}, "memory": DEFAULTS}
        for side in ("accelerated", "ours"):
            if side in kept:
                ratio = row["theirs_ms"] / kept[side]["ms"]
                made[side] = {"ms": kept[side]["ms"], "ratio": ratio, "least": ratio, "most": ratio}
        found.append(made)
    return found


def line(row: dict[str, Any]) -> str:
    cells = [row["model"], f"{row['nodes']}²", str(row["threads"]), row["memory"], f"{row['theirs_ms']:.0f}"]
    for side in ("accelerated", "ours"):
        one = row.get(side)
        spread = f" ({one['least']:.2f} - {one['most']:.2f})" if one and row["memory"] != DEFAULTS else ""
        told = f"{one['ratio']:.2f}{spread}" if one else ""
        cells += [f"{one['ms']:.0f}" if one else "", told]
    return "| " + " | ".join(cells) + " |"


HEAD = (
    "| model | grid | threads | freed memory | theirs [ms] | accelerated [ms] | ratio | our FNO [ms] | ratio |\n"
    "|---|---|---|---|---|---|---|---|---|"
)


def shortfalls(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Goals missed, in words."""
    found = []
    for row in rows:
        for side in ("accelerated", "ours"):
            if side in row and row[side]["ratio"] < goal(row, side):
                where = f"{row['model']} {row['nodes']}², {row['threads']} thread(s), memory {row['memory']}"
                found.append(f"{side} {row[side]['ratio']:.2f} < {goal(row, side)} on {where}")
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="exit 1 naming the first goal that falls short")
    parser.add_argument("--json", action="store_true", help="write benchmarks/results/fno_training_step.json and .md")
    parser.add_argument("--rounds", type=int, default=7, help="rounds timed for each row")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--quick", action="store_true", help="one thread, memory as it comes")
    parser.add_argument("--row", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.row:
        print(json.dumps(measured(*json.loads(given.row), given.rounds)))
        return 0
    load = os.getloadavg()[0]  # what else the machine did when this began
    threads = [1] if given.quick else given.threads
    settings = [
        (m, n, t, keep) for t in threads for keep in ((False,) if given.quick else (False, True)) for n in (64, 128)
        for m in MODELS
    ]  # fmt: skip
    print(HEAD)
    rows = []
    for setting in settings:
        rows.append(apart(setting, given.rounds))
        print(line(rows[-1]), flush=True)
    for row in by_default(rows):
        rows.append(row)
        print(line(row), flush=True)
    missed = shortfalls(rows)
    if given.json:
        _write(rows, missed, load)
    for text in missed:
        print(f"Goal missed: {text}", file=sys.stderr)
    return 1 if given.check and missed else 0


def _write(rows: Sequence[dict[str, Any]], missed: Sequence[str], load: float) -> None:
    folder = Path(__file__).parent / "results"
    told = {
        **{"benchmark": "fno_training_step", "date": datetime.date.today().isoformat(), "machine": machine()},
        **{"load": load, "versions": versions(), "seed": SEED, "rows": list(rows), "missed": list(missed)},
    }
    (folder / "fno_training_step.json").write_text(json.dumps(told, indent=2, ensure_ascii=False) + "\n")
    used = ", ".join(f"{key} {value}" for key, value in told["versions"].items() if key in ("torch", "neuraloperator"))
    head = f"{told['machine']}, load {load:.1f} at the start; {used}; seed {SEED}; {told['date']}. Batch {BATCH}, "
    head += f"{MODES} modes, width {WIDTH}. Ratios are medians (least - most) over rounds timed in turn.\n\n"
    goals = "\n\nGoals missed: " + ("; ".join(missed) if missed else "none") + ".\n"
    text = f"# A training step of neuraloperator's models\n\n{head}{HEAD}\n" + "\n".join(map(line, rows)) + goals
    (folder / "fno_training_step.md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
