"""The Triton spectral convolution on a GPU: parity with the plain form, and time against the memory limit.

Goals, at N = 128, 256, 512 nodes an axis, width 64, 16, 32, 64 modes, batch 16, float32 (tf32x3):
forward within 1.5 times and forward + backward within 2 times of the fully fused layer's bytes over the copy bandwidth
measured in the same run; at least 4 times faster than neuraloperator's layer; peak extra memory not above its.

The fused layer's bytes (float32, batch B, channels C, n nodes, m kept modes; see resolvent.kernels._spectral_triton):
forward 8 B C n + 8 C C m + 32 B C m: field in, field out, weight, and both spectra written and read once. Backward
8 B C n + 16 C C m + 40 B C m: gradient in and out, weight read and its gradient written, and the spectra once more (the
gradient's spectrum is read twice). Rows at smaller sizes check values and gradients against float64 (1e-6 ieee, 2e-6
tf32x3, 1e-2 bf16) and the epilogue (skip product, bias, GELU).

Without a GPU the times are "not measured". What can be known without one is printed: the bytes of the kernels as they
are launched against the fused layer's, and registers, spills and shared memory as compiled for sm_80 and sm_90.

    python benchmarks/spectral_conv_gpu.py [--check] [--json] [--batch 16]
"""

from __future__ import annotations

import argparse
import datetime
import json
import math
import statistics
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from resolvent.evaluation._machine import machine, versions
from resolvent.kernels._spectral_triton import _plain, bytes_moved, layer_on_meta, spectral_conv_triton
from torch import Tensor

GOALS = {"forward": 1.5, "both": 2.0, "speedup": 4.0, "memory": 1.0}
BOUNDS = {"ieee": 1e-6, "tf32x3": 2e-6, "bf16": 1e-2}
WIDTH, SEED = 64, 7193
SETTINGS = [(size, modes) for size in (128, 256, 512) for modes in (16, 32, 64)]
PARITY = [((257,), (17,)), ((64, 64), (16, 9)), ((61, 85), (12, 7)), ((256, 256), (64, 33)), ((24, 20, 16), (6, 5, 4))]


def fused_bytes(batch: int, size: int, modes: int) -> tuple[int, int, int]:
    """Forward and backward of the fused layer, and forward of the kernels as launched."""
    kept, nodes = modes * (modes // 2 + 1), size * size
    moved = bytes_moved(batch, WIDTH, WIDTH, (size, size), (modes, modes // 2 + 1))
    backward = 8 * batch * WIDTH * nodes + 16 * WIDTH * WIDTH * kept + 40 * batch * WIDTH * kept
    return moved["fused"], backward, moved["here"]


def byte_rows(batch: int) -> list[dict[str, Any]]:
    rows = []
    for size, modes in SETTINGS:
        forward, backward, here = fused_bytes(batch, size, modes)
        skip = bytes_moved(batch, WIDTH, WIDTH, (size, size), (modes, modes // 2 + 1), skip=True)
        rows.append(
            {
                "size": size,
                "modes": modes,
                "fused_MB": forward / 1e6,
                "kernels_MB": here / 1e6,
                "kernels_over_fused": here / forward,
                "with_skip_over_fused": skip["here"] / skip["fused"],
                "fused_backward_MB": backward / 1e6,
            }
        )
    return rows


def compiled_rows(batch: int) -> list[dict[str, Any]]:
    """What the compiler allots to each kernel of both passes, at the default block sizes."""
    from resolvent.kernels._triton_report import SHARED, recorded, resources

    rows: dict[tuple[Any, ...], dict[str, Any]] = {}
    for precision, dtype in (("tf32x3", torch.float32), ("bf16", torch.bfloat16)):
        for modes, skip in ((16, False), (32, True), (64, False)):
            call = _on_meta(batch, modes, precision, dtype, skip)
            for launch in recorded(call):
                for capability in SHARED:
                    found = resources(launch, capability)
                    one = {"kernel": launch.name, "modes": modes, "precision": precision, "sm": capability}
                    one |= {"registers": found.registers, "spilled": found.stack, "shared": found.shared}
                    key = (launch.name, modes, precision, capability)
                    if key not in rows or rows[key]["registers"] < found.registers:
                        rows[key] = one
    return list(rows.values())


def _on_meta(batch: int, modes: int, precision: str, dtype: torch.dtype, skip: bool) -> Callable[[], None]:
    kept = (modes, modes // 2 + 1)
    return lambda: layer_on_meta(batch, WIDTH, (256, 256), kept, precision=precision, dtype=dtype, skip=skip)


def milliseconds(action: Callable[[], object], repeats: int = 25) -> float:
    """Median over repeats, after warming up (and tuning), a large buffer written in between to empty the cache."""
    flush = torch.empty(256 << 20, dtype=torch.int8, device="cuda")
    for _ in range(3):
        action()
    times = []
    for _ in range(repeats):
        flush.zero_()
        started, ended = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        started.record()
        action()
        ended.record()
        ended.synchronize()
        times.append(started.elapsed_time(ended))
    return statistics.median(times)


def copy_bandwidth() -> float:
    """Bytes a second, read and written, of a copy of 1 GiB."""
    source = torch.empty(1 << 28, device="cuda")
    target = torch.empty_like(source)
    return 2 * source.numel() * 4 / (1e-3 * milliseconds(lambda: target.copy_(source)))


def extra_memory(action: Callable[[], object]) -> int:
    """Bytes at the peak of ``action`` above those before it."""
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    action()
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated() - before


def timed_row(size: int, modes: int, batch: int, bandwidth: float) -> dict[str, Any]:
    from neuralop.layers.spectral_convolution import SpectralConv

    theirs = SpectralConv(WIDTH, WIDTH, (modes, modes), factorization=None, implementation="reconstructed").cuda()
    kept = (modes, modes // 2 + 1)
    weight = torch.randn(WIDTH, WIDTH, *kept, dtype=torch.complex64, device="cuda").div_(WIDTH).requires_grad_()
    bias = torch.zeros(WIDTH, device="cuda", requires_grad=True)
    inputs = torch.randn(batch, WIDTH, size, size, device="cuda", requires_grad=True)
    cotangent = torch.randn_like(inputs)

    def ours(u: Tensor) -> Tensor:
        return spectral_conv_triton(u, weight, bias, (size, size))

    forward, backward, here = fused_bytes(batch, size, modes)
    row: dict[str, Any] = {"size": size, "modes": modes, "kernels_over_fused_bytes": here / forward}
    for name, form, parameters in (("ours", ours, [weight, bias]), ("theirs", theirs, list(theirs.parameters()))):
        both = _both(form, inputs, parameters, cotangent)
        with torch.no_grad():
            row[f"{name}_forward_ms"] = milliseconds(lambda f=form: f(inputs))
        row[f"{name}_both_ms"] = milliseconds(both)
        row[f"{name}_extra_MB"] = extra_memory(both) / 1e6
    row["forward"] = row["ours_forward_ms"] / (1e3 * forward / bandwidth)
    row["both"] = row["ours_both_ms"] / (1e3 * (forward + backward) / bandwidth)
    row["speedup"] = min(row[f"theirs_{part}_ms"] / row[f"ours_{part}_ms"] for part in ("forward", "both"))
    row["memory"] = row["ours_extra_MB"] / row["theirs_extra_MB"]
    return row


def _both(form: Callable[[Tensor], Tensor], inputs: Tensor, parameters: list[Tensor], cotangent: Tensor) -> Any:
    return lambda: torch.autograd.grad(form(inputs), [inputs, *parameters], cotangent)


def parity_rows() -> list[dict[str, Any]]:
    """Relative L2 error of values and gradients against float64, plain and with the epilogue."""
    rows = []
    for space, kept in PARITY:
        for precision in BOUNDS:
            for epilogue in (False, True):
                error = _error(space, kept, precision, epilogue)
                name = {"nodes": list(space), "modes": list(kept), "precision": precision, "epilogue": epilogue}
                rows.append({**name, "error": error, "bound": BOUNDS[precision]})
    return rows


def _error(space: tuple[int, ...], kept: tuple[int, ...], precision: str, epilogue: bool) -> float:
    generator = torch.Generator("cuda").manual_seed(SEED)

    def draw(*shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
        return torch.randn(shape, dtype=dtype, device="cuda", generator=generator)

    given = [draw(4, 24, *space), draw(24, 40, *kept, dtype=torch.complex128) / 5, draw(40)]
    given += [draw(40, 24) / 5] if epilogue else []
    activation = "gelu" if epilogue else None
    cotangent = draw(4, 40, *space)
    results = []
    for single in (False, True):
        kinds = (torch.float32, torch.complex64) if single else (torch.float64, torch.complex128)
        u, w, b, *mixing = (x.to(kinds[x.is_complex()]).requires_grad_() for x in given)
        mix = mixing[0] if mixing else None
        if single:
            out = spectral_conv_triton(u, w, b, space, skip_weight=mix, activation=activation, precision=precision)
        else:
            out = _plain(u, w, b, space, None, mix, activation)
        results.append((out, *torch.autograd.grad(out, [u, w, b, *mixing], cotangent.to(out.dtype))))
    return max(float((a.detach() - b.detach()).norm() / b.detach().norm()) for b, a in zip(*results, strict=True))


def device() -> dict[str, Any]:
    """Name, driver, memory of the GPU, and what runs on it."""
    asked = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    driver = subprocess.run(asked, capture_output=True, text=True, check=False).stdout.split("\n")[0]
    found = torch.cuda.get_device_properties(0)
    return {
        "device": found.name,
        "driver": driver,
        "cuda": torch.version.cuda,
        "processors": found.multi_processor_count,
        "memory_GB": found.total_memory / 1e9,
    }


def shortfalls(told: dict[str, Any]) -> list[str]:
    """Every goal that is missed, in words."""
    found = [f"error {row['error']:.1e} > {row['bound']:.0e} at {row}" for row in told["parity"] if not _fits(row)]
    for row in told["rows"]:
        for name, goal in GOALS.items():
            if (row[name] < goal) if name == "speedup" else (row[name] > goal):
                found.append(f"{name} {row[name]:.2f}, goal {goal}, at {row['size']}² with {row['modes']} modes")
    return found + [f"{row['kernel']} spills at {row}" for row in told["compiled"] if row["spilled"]]


def _fits(row: dict[str, Any]) -> bool:
    return math.isfinite(row["error"]) and row["error"] <= row["bound"]


def table(rows: list[dict[str, Any]]) -> str:
    def cell(value: Any) -> str:
        return f"{value:.3g}" if isinstance(value, float) else str(value)

    lines = ["| " + " | ".join(rows[0]) + " |", "|" + "---|" * len(rows[0])]
    return "\n".join(lines + ["| " + " | ".join(map(cell, row.values())) + " |" for row in rows])


def text(told: dict[str, Any]) -> str:
    heads = {
        "rows": "Time against the memory limit and neuraloperator's layer",
        "parity": "Relative L2 error, the worst of values and gradients",
        "bytes": "Bytes of one forward call",
        "compiled": "As compiled, default block sizes (registers a thread; spilled, shared in bytes)",
    }
    return "\n\n".join(
        f"{head}\n\n{table(told[key]) if told[key] else 'not measured: no GPU'}" for key, head in heads.items()
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="exit 1 naming the first goal that falls short")
    parser.add_argument("--json", action="store_true", help="write benchmarks/results/spectral_conv_gpu.json and .md")
    parser.add_argument("--batch", type=int, default=16)
    given = parser.parse_args()
    gpu = torch.cuda.is_available()
    import triton

    told: dict[str, Any] = {
        "benchmark": "spectral_conv_gpu",
        "date": datetime.date.today().isoformat(),
        "machine": machine(),
        "gpu": device() if gpu else "not measured",
        "versions": {**versions(), "triton": triton.__version__},
        "seed": SEED,
        "batch": given.batch,
        "bytes": byte_rows(given.batch),
        "compiled": compiled_rows(given.batch),
        "parity": parity_rows() if gpu else [],
        "rows": [],
    }
    if gpu:
        told["copy_GB_per_s"] = copy_bandwidth() / 1e9
        told["rows"] = [timed_row(*setting, given.batch, 1e9 * told["copy_GB_per_s"]) for setting in SETTINGS]
    print(text(told))
    if given.json:
        _write(told)
    missed = shortfalls(told)
    if given.check and missed:
        print(f"Goal missed: {missed[0]}", file=sys.stderr)
        return 1
    return 0


def _write(told: dict[str, Any]) -> None:
    folder = Path(__file__).parent / "results"
    name = told["benchmark"]
    (folder / f"{name}.json").write_text(json.dumps(told, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    gpu = told["gpu"] if isinstance(told["gpu"], str) else ", ".join(f"{k} {v}" for k, v in told["gpu"].items())
    used = ", ".join(f"{k} {v}" for k, v in told["versions"].items() if k in ("torch", "triton", "neuraloperator"))
    head = f"GPU: {gpu}. {told['machine']}; {used}; batch {told['batch']}, width {WIDTH}; {told['date']}."
    (folder / f"{name}.md").write_text(f"# {name}\n\n{head}\n\n{text(told)}\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
