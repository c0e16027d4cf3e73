"""Launching the Triton kernels: block sizes, grids, and the order of transforms for one to three axes.

Block sizes are tuned by time at the first call for each shape and type, by Triton's own tuner, which keeps what it
found in Triton's cache folder (``TRITON_CACHE_DIR``). ``deterministic`` takes the first configuration of each list
instead: as no kernel uses atomic operations, results are then the same bits in every process on the same kind of
device, whatever was fastest that day.
"""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import triton
from torch import Tensor

from . import _triton_mixing as mixing
from . import _triton_transforms as transforms
from ._triton_tables import Tables, blocks_of, first_even, fits_on_chip, halves

ROWS = 32  # rows of one program of a fused transform are a multiple of this
WIDEST = 64  # columns of the widest tile of a table
Config = dict[str, int]

# First the default, which must not spill registers (tests/kernels/test_triton_compile.py), then what the tuner may try.
CONFIGS: dict[str, list[Config]] = {
    "analysis_planes": [
        {"BR": 16, "BN": 16, "num_warps": 8, "num_stages": 2},
        {"BR": 16, "BN": 16, "num_warps": 4, "num_stages": 3},
        {"BR": 16, "BN": 32, "num_warps": 4, "num_stages": 3},
        {"BR": 16, "BN": 32, "num_warps": 8, "num_stages": 3},
        {"BR": 32, "BN": 16, "num_warps": 4, "num_stages": 2},
        {"BR": 32, "BN": 16, "num_warps": 8, "num_stages": 4},
        {"BR": 32, "BN": 32, "num_warps": 4, "num_stages": 3},
        {"BR": 32, "BN": 32, "num_warps": 8, "num_stages": 3},
    ],
    "synthesis_planes": [
        {"BR": 16, "BN": 32, "num_warps": 8, "num_stages": 1},
        {"BR": 16, "BN": 64, "num_warps": 8, "num_stages": 1},
        {"BR": 16, "BN": 64, "num_warps": 4, "num_stages": 1},
        {"BR": 32, "BN": 32, "num_warps": 8, "num_stages": 1},
        {"BR": 32, "BN": 64, "num_warps": 4, "num_stages": 1},
        {"BR": 32, "BN": 64, "num_warps": 8, "num_stages": 2},
    ],
    "analysis_rows": [
        {"BR": 64, "BC": 32, "BN": 32, "num_warps": 4, "num_stages": 2},
        {"BR": 64, "BC": 64, "BN": 32, "num_warps": 4, "num_stages": 2},
        {"BR": 128, "BC": 32, "BN": 32, "num_warps": 8, "num_stages": 3},
        {"BR": 128, "BC": 64, "BN": 32, "num_warps": 8, "num_stages": 2},
    ],
    "turn": [
        {"BR": 32, "BC": 32, "BN": 32, "num_warps": 4, "num_stages": 2},
        {"BR": 64, "BC": 32, "BN": 32, "num_warps": 4, "num_stages": 2},
        {"BR": 64, "BC": 64, "BN": 32, "num_warps": 4, "num_stages": 2},
        {"BR": 64, "BC": 64, "BN": 64, "num_warps": 8, "num_stages": 2},
    ],
    "synthesis_rows": [
        {"BR": 64, "BK": 16, "BN": 64, "num_warps": 4, "num_stages": 2},
        {"BR": 64, "BK": 32, "BN": 64, "num_warps": 4, "num_stages": 2},
        {"BR": 64, "BK": 16, "BN": 128, "num_warps": 8, "num_stages": 3},
        {"BR": 64, "BK": 32, "BN": 128, "num_warps": 8, "num_stages": 2},
    ],
    "mix_modes": [
        {"BP": 8, "BQ": 8, "BM": 32, "num_warps": 4, "num_stages": 2},
        {"BP": 16, "BQ": 8, "BM": 32, "num_warps": 4, "num_stages": 2},
        {"BP": 4, "BQ": 16, "BM": 32, "num_warps": 4, "num_stages": 2},
        {"BP": 16, "BQ": 4, "BM": 64, "num_warps": 4, "num_stages": 2},
        {"BP": 16, "BQ": 16, "BM": 32, "num_warps": 8, "num_stages": 2},
    ],
    "skip_gradient": [
        {"BO": 64, "BI": 64, "BN": 16, "num_warps": 8, "num_stages": 2},
        {"BO": 64, "BI": 64, "BN": 32, "num_warps": 8, "num_stages": 2},
        {"BO": 64, "BI": 64, "BN": 32, "num_warps": 4, "num_stages": 2},
        {"BO": 64, "BI": 64, "BN": 64, "num_warps": 8, "num_stages": 2},
        {"BO": 32, "BI": 64, "BN": 64, "num_warps": 4, "num_stages": 2},
    ],
}
CONFIGS["turn_forward"] = CONFIGS["turn_back"] = CONFIGS.pop("turn")
_KEYS = {
    "analysis_planes": ["n1", "n2", "m1", "m2", "rows_each", "planes"],
    "synthesis_planes": ["n1", "n2", "m1", "m2", "rows_each"],
    "analysis_rows": ["rows", "n", "m"],
    "turn_forward": ["n", "m", "rest"],
    "turn_back": ["n", "m", "rest"],
    "synthesis_rows": ["channels", "lead", "n", "m", "skips"],
    "mix_modes": ["p_count", "q_count", "s_count", "modes"],
    "skip_gradient": ["channels", "skips", "nodes", "each"],
}


@dataclass(frozen=True)
class How:
    """precision of products (``tf32x3``, ``ieee``, ``bf16``), sums in ``dtype``; fixed or tuned block sizes."""

    precision: str
    dtype: torch.dtype
    deterministic: bool

    @property
    def dots(self) -> str:
        return "bf16 interpreted" if self.precision == "bf16" and interpreted() else self.precision


@dataclass(frozen=True)
class Epilogue:
    """What is added to a synthesis before it is stored: bias, skip product, activation ("" for none)."""

    bias: Tensor | None = None
    skip: Tensor | None = None
    skip_weight: Tensor | None = None
    activation: str = ""
    keep: bool = False  # also return the argument of the activation


def interpreted() -> bool:
    """Whether the kernels were made for Triton's interpreter (``TRITON_INTERPRET=1``), which runs on the CPU."""
    return not isinstance(mixing.mix_modes, triton.runtime.JITFunction)


@functools.cache
def _tuned(kernel: Any) -> Any:
    configs = [
        triton.Config({k: v for k, v in one.items() if not k.startswith("num_")}, one["num_warps"], one["num_stages"])
        for one in CONFIGS[kernel.__name__]
    ]
    known = inspect.signature(triton.autotune).parameters  # Triton 3.2 keeps nothing on disk
    stored = {"cache_results": True} if "cache_results" in known else {}
    return triton.autotune(configs, key=_KEYS[kernel.__name__], **stored)(kernel)


def launch(kernel: Any, grid: Callable[[Any], tuple[int, ...]], how: How, *args: Any, **constants: Any) -> None:
    """Run ``kernel`` over ``grid(block sizes)``; an empty grid is no work."""
    default = CONFIGS[kernel.__name__][0]
    if 0 in grid(default):
        return
    with torch.cuda.device_of(args[0]):  # Triton launches on the current device
        if how.deterministic or interpreted():
            kernel[grid(default)](*args, **constants, **default)
        else:
            _tuned(kernel)[grid](*args, **constants)


def over(count: int, block: int) -> int:
    return -(-count // block)


def processors(device: torch.device) -> int:
    return torch.cuda.get_device_properties(device).multi_processor_count if device.type == "cuda" else 1


def _rows_each(planes: int, rows: int, device: torch.device) -> int:
    """Rows of a plane for one program: all of them, unless that leaves processors without work."""
    pieces = min(over(rows, ROWS), over(2 * processors(device), max(planes, 1)))
    return over(over(rows, pieces), ROWS) * ROWS


def analyse(values: Tensor, tables: Tables, how: How) -> Tensor:
    """``batch channel *space`` to ``batch channel *modes 2``."""
    lead, done = values.shape[:2], len(tables.space) - 1
    if done and fits_on_chip(tables):
        done -= 1
        spectrum = _analyse_planes(values, tables, how)
    else:
        spectrum = _analyse_rows(values, tables, how)
    for axis in reversed(range(done)):
        spectrum = _turn(transforms.turn_forward, spectrum, math.prod(lead), axis, tables, how)
    return spectrum.view(*lead, *tables.modes, 2)


def _analyse_planes(values: Tensor, tables: Tables, how: How) -> Tensor:
    (n1, n2), (m1, m2), blocks = tables.space[-2:], tables.modes[-2:], blocks_of(tables)
    planes = math.prod(values.shape[:-2])
    rows = n1 // blocks["P1"]
    each = _rows_each(planes, rows, values.device)
    pieces = over(rows, each)
    spectrum = values.new_empty(pieces, planes, m1, m2, 2, dtype=how.dtype)
    last, turn = _both(tables, how, values.device)
    first = first_even(m1) if blocks["P1"] == 2 else 0
    launch(
        transforms.analysis_planes, lambda meta: (planes, pieces), how, values, spectrum, last, turn,
        n1, n2, m1, m2, each, first, last[0].numel(), turn[0].numel(), planes,
        **blocks, PRECISION=how.dots,
    )  # fmt: skip
    return spectrum.sum(dim=0) if pieces > 1 else spectrum[0]


def _both(tables: Tables, how: How, device: torch.device) -> tuple[Tensor, Tensor]:
    last = tables.last(halves(tables.space[-1]), 16, how.dtype, device)
    return last, tables.turn(len(tables.space) - 2, halves(tables.space[-2]), 16, how.dtype, device)


def _analyse_rows(values: Tensor, tables: Tables, how: How) -> Tensor:
    rows, n, m = math.prod(values.shape[:-1]), tables.space[-1], tables.modes[-1]
    spectrum = values.new_empty(rows, m, 2, dtype=how.dtype)
    last = tables.last(1, WIDEST, how.dtype, values.device)
    launch(
        transforms.analysis_rows, lambda meta: (over(2 * m, meta["BC"]) * over(rows, meta["BR"]),), how,
        values, spectrum, last, rows, n, m, last.shape[-1], PRECISION=how.dots,
    )  # fmt: skip
    return spectrum


def _turn(kernel: Any, values: Tensor, groups: int, axis: int, tables: Tables, how: How) -> Tensor:
    """One leading axis, there or back; the axes before it are nodes, those behind it modes."""
    groups *= math.prod(tables.space[:axis])
    n, m, rest = tables.space[axis], tables.modes[axis], math.prod(tables.modes[axis + 1 :])
    forward = kernel is transforms.turn_forward
    result = values.new_empty(groups, m if forward else n, rest, 2)
    turn = tables.turn(axis, 1, WIDEST, how.dtype, values.device)
    rows, name = (2 * m, "BR") if forward else (n, "BN")
    launch(
        kernel, lambda meta: (over(rows, meta[name]) * over(2 * rest, meta["BC"]) * groups,), how,
        values, result, turn, n, m, rest, turn.shape[-1], PRECISION=how.dots,
    )  # fmt: skip
    return result


def synthesise(
    spectrum: Tensor, tables: Tables, how: How, dtype: torch.dtype, extra: Epilogue = Epilogue()
) -> tuple[Tensor, Tensor]:
    """``batch channel *modes 2`` to ``batch channel *space``, and what the activation was applied to (or nothing)."""
    lead = spectrum.shape[:2]
    result = spectrum.new_empty(*lead, *tables.space, dtype=dtype)
    before = torch.empty_like(result) if extra.keep else result.new_empty(0)
    fused = len(tables.space) > 1 and extra.skip_weight is None and fits_on_chip(tables)
    for axis in range(len(tables.space) - (2 if fused else 1)):
        spectrum = _turn(transforms.turn_back, spectrum, math.prod(lead), axis, tables, how)
    form = _synthesise_planes if fused else _synthesise_rows
    form(spectrum, result, before, tables, how, extra)
    return result, before


def _constants(extra: Epilogue, how: How) -> dict[str, Any]:
    return {
        "BIAS": extra.bias is not None,
        "ACTIVATION": extra.activation,
        "KEEP": extra.keep,
        "PRECISION": how.dots,
    }


def _synthesise_planes(
    spectrum: Tensor, result: Tensor, before: Tensor, tables: Tables, how: How, extra: Epilogue
) -> None:
    (n1, n2), (m1, m2), blocks = tables.space[-2:], tables.modes[-2:], blocks_of(tables)
    planes = math.prod(result.shape[:-2])
    rows = n1 // blocks["P1"]
    each = _rows_each(planes, rows, result.device)
    last, turn = _both(tables, how, result.device)
    bias = spectrum if extra.bias is None else extra.bias.repeat_interleave(math.prod(tables.space[:-2]))
    launch(
        transforms.synthesis_planes, lambda meta: (planes, over(rows, each)), how,
        spectrum, result, before, bias, last, turn, n1, n2, m1, m2, each,
        first_even(m1) if blocks["P1"] == 2 else 0, last[0].numel(), turn[0].numel(), len(bias),
        **blocks, **_constants(extra, how),
    )  # fmt: skip


def _synthesise_rows(
    spectrum: Tensor, result: Tensor, before: Tensor, tables: Tables, how: How, extra: Epilogue
) -> None:
    batch, channels, n, m = *result.shape[:2], tables.space[-1], tables.modes[-1]
    lead = math.prod(tables.space[:-1])
    last = tables.last(1, WIDEST, how.dtype, result.device)
    weight = spectrum if extra.skip_weight is None else extra.skip_weight
    launch(
        transforms.synthesis_rows,
        lambda meta: (over(channels, meta["BR"]) * over(n, meta["BN"]) * batch * lead,), how,
        spectrum, result, before, spectrum if extra.bias is None else extra.bias, last,
        result if extra.skip is None else extra.skip, weight, channels, lead, n, m, last.shape[-1],
        0 if extra.skip is None else extra.skip.shape[1], weight.stride(0), weight.stride(1),
        SKIP=extra.skip_weight is not None, **_constants(extra, how),
    )  # fmt: skip


def mix(left: Tensor, right: Tensor, spec: str, shape: Sequence[int], how: How) -> Tensor:
    """Complex products mode by mode; ``spec`` is ``values``, ``inputs`` (gradient) or ``weight`` (gradient)."""
    modes = math.prod(shape[2:-1])
    result = left.new_empty(shape)
    left, right = left.flatten(2), right.flatten(2)
    # (p, s) of the left, (s, q) of the right operand: the axis that is summed over and the one that stays
    (lp, ls), (rs, rq) = {
        "values": ((0, 1), (0, 1)),
        "inputs": ((0, 1), (1, 0)),
        "weight": ((1, 0), (0, 1)),
    }[spec]  # fmt: skip
    launch(
        mixing.mix_modes,
        lambda meta: (over(shape[0], meta["BP"]) * over(shape[1], meta["BQ"]) * over(modes, meta["BM"]),), how,
        left, right, result, shape[0], shape[1], left.shape[ls], modes,
        left.stride(lp), left.stride(ls), right.stride(rs), right.stride(rq), result.stride(0), result.stride(1),
        CONJUGATE_LEFT=spec == "weight", CONJUGATE_RIGHT=spec == "inputs",
    )  # fmt: skip
    return result


def skip_gradient(gradient: Tensor, before: Tensor, skip: Tensor, activation: str, how: How) -> tuple[Tensor, Tensor]:
    """Gradient of the skip weight, and the gradient behind the activation (the given one where there is none)."""
    batch, channels, nodes, skips = *gradient.shape[:2], math.prod(gradient.shape[2:]), skip.shape[1]
    chunks = min(over(nodes, 512), over(4 * processors(gradient.device), max(batch, 1)))
    each = over(over(nodes, chunks), 64) * 64
    chunks = over(nodes, each)
    through = torch.empty_like(gradient) if activation else gradient
    partial = gradient.new_empty(batch * chunks, channels, skips, dtype=how.dtype)
    launch(
        mixing.skip_gradient,
        lambda meta: (batch * chunks, over(channels, meta["BO"]), over(skips, meta["BI"])), how,
        gradient, before, through, skip, partial, channels, skips, nodes, each, chunks,
        ACTIVATION=activation, PRECISION=how.dots,
    )  # fmt: skip
    return partial.sum(dim=0), through
