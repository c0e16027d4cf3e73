"""Our spectral convolution against neuraloperator's SpectralConv on the CPU: forward + backward, equal weights.

Goals, batch 8, 32 channels, 2-D, one and two threads, kept modes an axis as neuraloperator counts them (the last axis
halved); ratio = their time over ours, least times of calls in turn in one process:

1. 256² nodes: at least 5 with up to 32 modes, 3.5 with 64;
2. 128² nodes: at least 2.7;
3. 64² nodes: at least 2;
4. nowhere slower: at least 1 on the whole grid, 32² .. 512² nodes, 4 .. N/2 modes, and for factorised weights
   (Tucker, CP, TT of rank 0.1, their ``factorized`` implementation).

Results are compared before anything is timed. Freed memory is given back to the system by default, as torch does it;
--reuse-memory keeps it for both sides, as `solve` does. ``--table`` times our forms against each other instead, over
dimensions, sizes, modes and precisions: what the dispatch of kernels/spectral_conv.py (``FFT_FROM``) is built on.

    python benchmarks/spectral_conv.py [--threads 1 2] [--check] [--json FILE] [--quick] [--table] [--reuse-memory]
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from resolvent.evaluation._machine import machine, versions
from resolvent.kernels import reuse_memory, spectral_conv
from resolvent.kernels.spectral_conv import (
    CP,
    TT,
    Tucker,
    spectral_conv_by_fft,
    spectral_conv_mixed,
    spectral_conv_products,
    spectral_conv_reference,
)
from torch import Tensor

BATCH, CHANNELS, SEED = 8, 32, 7193
GRID = [(n, m) for n in (32, 64, 128, 256, 512) for m in (4, 8, 12, 16, 24, 32, 64, 128, 256) if m <= n // 2]
QUICK = [(64, 16), (64, 32), (128, 16), (128, 64), (256, 16), (256, 32), (256, 64)]
FACTORISED = [(kind, n, m) for kind in ("tucker", "cp", "tt") for n, m in ((64, 16), (128, 16), (128, 32))]
RANK = 0.1
# dimensions, nodes an axis, kept modes an axis
TABLE = [
    *((1, n, m) for n in (64, 256, 1024, 4096) for m in (8, 16, 32, 64, 128, 256) if m <= n // 2),
    *((2, n, m) for n in (32, 64, 128, 256, 512) for m in (8, 12, 16, 24, 32, 64, 128) if m <= n // 2),
    *((3, n, m) for n in (16, 32, 64) for m in (4, 8, 16, 32) if m <= n // 2),
]


def goal(nodes: int, modes: int, kind: str) -> float:
    """The least ratio asked for."""
    if kind != "dense":
        return 1.0
    return {256: 5.0 if modes <= 32 else 3.5 if modes <= 64 else 1.0, 128: 2.7, 64: 2.0}.get(nodes, 1.0)


def least_times(actions: Sequence[Callable[[], object]], seconds: float) -> list[float]:
    """Least seconds of each, called in turn in alternating order, at least 3 and at most 40 rounds."""
    best = [float("inf")] * len(actions)
    began = time.perf_counter()
    for turn in range(41):
        for i in range(len(actions)) if turn % 2 else reversed(range(len(actions))):
            started = time.perf_counter()
            actions[i]()
            if turn:  # the first round warms up
                best[i] = min(best[i], time.perf_counter() - started)
        if turn >= 3 and time.perf_counter() - began > seconds:
            break
    return best


def with_gradients(function: Callable[[], Tensor], leaves: Sequence[Tensor], cotangent: Tensor) -> Callable[[], object]:
    return lambda: torch.autograd.grad(function(), leaves, cotangent)


def compare(nodes: int, modes: int, kind: str, threads: int, seconds: float) -> dict[str, Any]:
    from neuralop.layers.spectral_convolution import SpectralConv

    torch.set_num_threads(threads)
    torch.manual_seed(SEED)
    options = {} if kind == "dense" else {"factorization": kind, "rank": RANK, "implementation": "factorized"}
    layer = SpectralConv(CHANNELS, CHANNELS, (modes, modes), **options)
    inputs = torch.randn(BATCH, CHANNELS, nodes, nodes, requires_grad=True)
    cotangent = torch.randn(BATCH, CHANNELS, nodes, nodes)
    bias = layer.bias.detach().flatten().requires_grad_()
    stored = tuple(layer.weight.parameters())

    def ours() -> Tensor:
        return spectral_conv(inputs, weight_of(layer, kind), bias)

    assert (ours() - layer(inputs)).norm() <= 1e-5 * ours().norm()
    times = least_times(
        [
            with_gradients(ours, (inputs, bias, *stored), cotangent),
            with_gradients(lambda: layer(inputs), (inputs, layer.bias, *stored), cotangent),
        ],
        seconds,
    )
    name = {"weight": kind, "grid": f"{nodes}²", "modes": modes, "threads": threads}
    mine, theirs = (1e3 * t for t in times)
    return {**name, "ours_ms": mine, "theirs_ms": theirs, "ratio": theirs / mine, "goal": goal(nodes, modes, kind)}


def weight_of(layer: Any, kind: str) -> Tensor | CP | Tucker | TT:
    weight = layer.weight
    if kind == "dense":
        return weight.to_tensor()
    factors = tuple(weight.factors)
    return {"cp": lambda: CP(weight.weights, factors), "tucker": lambda: Tucker(weight.core, factors)}.get(
        kind, lambda: TT(factors)
    )()


def compare_forms(dim: int, nodes: int, modes: int, dtype: torch.dtype, threads: int, seconds: float) -> dict[str, Any]:
    torch.set_num_threads(threads)
    torch.manual_seed(SEED)
    space, kept = (nodes,) * dim, (*(modes,) * (dim - 1), modes // 2 + 1)
    inputs = torch.randn(4, 16, *space, dtype=dtype, requires_grad=True)
    weight = torch.randn(16, 16, *kept, dtype=dtype.to_complex(), requires_grad=True)
    cotangent = torch.randn(4, 16, *space, dtype=dtype)
    forms = (spectral_conv_products, spectral_conv_mixed, spectral_conv_by_fft, spectral_conv_reference)
    actions = [with_gradients(lambda f=f: f(inputs, weight, None, space), (inputs, weight), cotangent) for f in forms]
    times = [1e3 * t for t in least_times(actions, seconds)]
    name = {
        "grid": f"{nodes}^{dim}",
        "modes": modes,
        "precision": str(dtype).removeprefix("torch."),
        "threads": threads,
    }
    told = dict(zip(("products_ms", "mixed_ms", "by_fft_ms", "reference_ms"), times, strict=True))
    return {**name, **told, "ratio": times[0] / times[2]}


def table(rows: Sequence[dict[str, Any]]) -> str:
    lines = ["| " + " | ".join(rows[0]).replace("_ms", " [ms]") + " |", "|" + "---|" * len(rows[0])]
    lines += [
        "| " + " | ".join(f"{x:.2f}" if isinstance(x, float) else str(x) for x in row.values()) + " |" for row in rows
    ]
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--check", action="store_true", help="exit 1 naming the first goal that falls short")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows with machine, versions and seed")
    parser.add_argument("--quick", action="store_true", help="the settings with a goal of their own, few rounds")
    parser.add_argument("--table", action="store_true", help="our forms against each other instead")
    parser.add_argument("--reuse-memory", action="store_true", help="keep freed memory in the process, on both sides")
    given = parser.parse_args()
    warnings.filterwarnings("ignore", category=UserWarning)
    load = os.getloadavg()[0]  # what else the machine did when this began
    if given.reuse_memory:
        reuse_memory()
    rows: list[dict[str, Any]] = []
    for row in _rows(given, seconds=0.5 if given.quick else 2.0):
        rows.append(row)
        lines = table([row]).splitlines()  # as they come: a run cut short keeps what it measured
        print("\n".join(lines if len(rows) == 1 else lines[2:]), flush=True)
    if given.json:
        told = {
            "benchmark": "spectral_conv",
            "date": datetime.date.today().isoformat(),
            "machine": machine(),
            "load": load,
            "reuse_memory": given.reuse_memory,
            "versions": versions(),
            "seed": SEED,
            "rows": rows,
        }
        given.json.write_text(json.dumps(told, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    short = [row for row in rows if row["ratio"] < row.get("goal", 0.0)]
    if given.check and short:
        print(f"Goal missed: ratio {short[0]['ratio']:.2f} < {short[0]['goal']} at {short[0]}", file=sys.stderr)
        return 1
    return 0


def _rows(given: argparse.Namespace, seconds: float) -> Iterator[dict[str, Any]]:
    for threads in given.threads:
        if given.table:
            precisions = (torch.float32,) if given.quick else (torch.float32, torch.float64)
            yield from (compare_forms(*one, dtype, threads, seconds) for dtype in precisions for one in TABLE)
            continue
        yield from (compare(n, m, "dense", threads, seconds) for n, m in (QUICK if given.quick else GRID))
        if not given.quick:
            yield from (compare(n, m, kind, threads, seconds) for kind, n, m in FACTORISED)


if __name__ == "__main__":
    sys.exit(main())
