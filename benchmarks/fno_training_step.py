"""A training step of our FNO against neuraloperator's, at equal settings and equal weights, on the CPU.

Goal: our step (forward, backward, AdamW) is not slower on any grid (64², 128²), width (32, 64), threads (1, 2), with
16 modes, 4 blocks, batch 8: the median over pairs of their time divided by ours is at least 1.

Both networks take one step each in turn, in alternating order, so that what else the machine does hits both. Outputs
are compared before anything is timed. ``--kernels`` times the two forms of the spectral convolution instead, over
sizes and modes: where the products stop being faster is what its dispatch is built on.

    python benchmarks/fno_training_step.py [--check] [--json] [--kernels] [--repeats 9]
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from resolvent.evaluation._machine import machine, versions
from resolvent.kernels.spectral_conv import cases, spectral_conv_products, spectral_conv_reference
from resolvent.operators._neuralop_weights import from_neuralop
from torch import Tensor, nn

GOAL = 1.0
BATCH, MODES, SEED = 8, 16, 7193
SETTINGS = [(size, width, threads) for threads in (1, 2) for size in (64, 128) for width in (32, 64)]
# (space, modes in total), width 16, batch 4: few to all modes, one to three dimensions
KERNEL_SETTINGS = [
    *(((size,), (modes,)) for size in (64, 256, 1024, 4096) for modes in (16, 64, 256, 1024) if modes <= size),
    *(((size, size), (modes, modes)) for size in (32, 64, 128, 256) for modes in (8, 16, 32, 64, 128) if modes <= size),
    *(((size,) * 3, (modes,) * 3) for size in (16, 32, 64) for modes in (4, 8, 16, 32) if modes <= size),
]


def paired(actions: Sequence[Callable[[], object]], repeats: int) -> list[list[float]]:
    """Seconds of each action in each round; the order alternates, the first round is not counted."""
    seconds: list[list[float]] = [[] for _ in actions]
    for turn in range(repeats + 1):
        for i in range(len(actions)) if turn % 2 else reversed(range(len(actions))):
            started = time.perf_counter()
            actions[i]()
            if turn:
                seconds[i].append(time.perf_counter() - started)
    return seconds


def row(name: dict[str, Any], ours: list[float], theirs: list[float]) -> dict[str, Any]:
    ratios = sorted(b / a for a, b in zip(ours, theirs, strict=True))
    return {
        **name,
        "ours_ms": 1e3 * statistics.median(ours),
        "theirs_ms": 1e3 * statistics.median(theirs),
        "ratio": statistics.median(ratios),
        "ratio_least": ratios[0],
        "ratio_most": ratios[-1],
    }


def training_step(network: nn.Module, inputs: Tensor, targets: Tensor) -> Callable[[], None]:
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3, weight_decay=1e-5)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        (network(inputs) - targets).square().mean().backward()
        optimizer.step()

    return step


def compare_steps(size: int, width: int, threads: int, repeats: int) -> dict[str, Any]:
    from neuralop.models import FNO as Theirs

    torch.set_num_threads(threads)
    torch.manual_seed(SEED)
    theirs = Theirs(n_modes=(MODES, MODES), in_channels=1, out_channels=1, hidden_channels=width)
    ours = from_neuralop(theirs)
    inputs, targets = torch.randn(2, BATCH, 1, size, size)
    torch.testing.assert_close(ours(inputs), theirs(inputs), rtol=0, atol=1e-4)
    seconds = paired([training_step(network, inputs, targets) for network in (ours, theirs)], repeats)
    return row({"grid": f"{size}²", "width": width, "threads": threads}, *seconds)


def compare_kernels(repeats: int) -> list[dict[str, Any]]:
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(SEED)
    wanted = [(c.name, c.inputs, c.weight, c.bias, c.output_shape) for c in cases(torch.float32)]
    for space, modes in KERNEL_SETTINGS:
        shape = (16, 16, *modes[:-1], modes[-1] // 2 + 1)
        weight = torch.randn(shape, dtype=torch.complex64, generator=generator)
        inputs = torch.randn(4, 16, *space, generator=generator)
        wanted.append((f"{len(space)}d {space[0]} modes {modes[0]}", inputs, weight, None, space))
    return [_compare_forms(*one, repeats=repeats) for one in wanted]


def _compare_forms(
    name: str, inputs: Tensor, weight: Tensor, bias: Tensor | None, shape: tuple[int, ...], *, repeats: int
) -> dict[str, Any]:
    inputs, weight = inputs.requires_grad_(), weight.requires_grad_()

    def action(form: Callable[..., Tensor]) -> Callable[[], object]:
        return lambda: torch.autograd.grad(form(inputs, weight, bias, shape).square().sum(), (inputs, weight))

    return row({"case": name}, *paired([action(spectral_conv_products), action(spectral_conv_reference)], repeats))


def table(rows: Sequence[dict[str, Any]], ours: str, theirs: str) -> str:
    names = [key for key in rows[0] if not key.startswith(("ours", "theirs", "ratio"))]
    lines = [
        "| " + " | ".join([*names, f"{ours} [ms]", f"{theirs} [ms]", "ratio", "least - most"]) + " |",
        "|" + "---|" * (len(names) + 4),
    ]
    for one in rows:
        cells = [str(one[key]) for key in names] + [f"{one['ours_ms']:.2f}", f"{one['theirs_ms']:.2f}"]
        cells += [f"{one['ratio']:.2f}", f"{one['ratio_least']:.2f} - {one['ratio_most']:.2f}"]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="exit 1 naming the first goal that falls short")
    parser.add_argument("--json", action="store_true", help="write benchmarks/results/NAME.json and .md")
    parser.add_argument("--kernels", action="store_true", help="the two forms of the spectral convolution instead")
    parser.add_argument("--repeats", type=int, default=9, help="pairs timed for each row")
    given = parser.parse_args()
    load = os.getloadavg()[0]  # what else the machine did when this began
    if given.kernels:
        name, heads = "spectral_conv", ("products", "torch.fft")
        rows = compare_kernels(given.repeats)
    else:
        name, heads = "fno_training_step", ("ours", "neuraloperator")
        rows = [compare_steps(*setting, given.repeats) for setting in SETTINGS]
    text = table(rows, *heads)
    print(text)
    if given.json:
        _write(name, rows, text, load)
    short = [one for one in rows if one["ratio"] < GOAL]
    if given.check and not given.kernels and short:
        print(f"Goal missed: ratio {short[0]['ratio']:.2f} < {GOAL} at {short[0]}", file=sys.stderr)
        return 1
    return 0


def _write(name: str, rows: Sequence[dict[str, Any]], text: str, load: float) -> None:
    folder = Path(__file__).parent / "results"
    told = {
        "benchmark": name,
        "date": datetime.date.today().isoformat(),
        "machine": machine(),
        "load": load,
        "versions": versions(),
        "seed": SEED,
        "rows": list(rows),
    }
    (folder / f"{name}.json").write_text(json.dumps(told, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    used = ", ".join(f"{key} {value}" for key, value in told["versions"].items() if key in ("torch", "neuraloperator"))
    head = f"{told['machine']}, load {load:.1f} at the start; {used}; seed {SEED}; {told['date']}."
    head += " Ratios are medians over pairs timed in turn."
    (folder / f"{name}.md").write_text(f"# {name}\n\n{head}\n\n{text}\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
