"""Compression: bits a value against error, of our fields, zfp and SZ3, on flows and on fields of a known spectrum.

Goals, at a peak signal-to-noise ratio of 45 dB (interpolated between rows): fewer bits than zfp on every data set, and
fewer than SZ3 on k^-3; and every bound that was asked for is kept.

    python benchmarks/compression.py [--check] [--quick] [--only DATA ...] [--methods NAME ...] [--seeds 0 1 2]

All data are float32; bits are those of the file on disk, header and all; PSNR = 20 log10(max - min) - 10 log10(mean
square error) at the nodes. One thread. Each row is written to ``benchmarks/results/compression.json`` when it is done
and not repeated, the tables to ``compression.md`` beside it (``--quick``: small data, a temporary folder). zfp and SZ3
come from ``pip install zfpy pysz``; where one is absent its rows are left out, and the table says so.

kolmogorov    vorticity of a Kolmogorov flow at Re 500, 256 x 256: 30 s from a random start on 128², 2 s more on 256²
trajectory    the 1.6 s that follow, 32 frames read off at 128 x 128: time is an axis without a period
k3            64³ random phases, spectrum E(k) ~ k^-3
k53           512², E(k) ~ k^-5/3

Rows: ``series`` and trained fields at given rates; ``zfp`` of given tolerances and rates, ``sz3`` of given bounds;
``series+bound`` and ``siren+bound`` with a residual, at the same absolute bounds as the others. Trained fields have
8-bit weights, four layers, and a width that follows from the rate; 1500 steps of 8192 points, rate 2e-3, bandwidth by
held-out nodes, then 375 with rounded weights; one seed by default, and fewer rates where there are more values. These
are minutes of one thread; longer fits err less. Nothing is tuned on what the table shows.
"""

from __future__ import annotations

import functools
import math
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import _rows
import numpy as np
import torch
from resolvent.data import cache_root
from resolvent.evaluation._machine import machine, versions
from resolvent.fields._archive import load_field, save_field
from resolvent.fields._builder import fields_named
from resolvent.fields._compress import Request, compressed
from resolvent.fields._fit import Plan
from resolvent.pde import Axis, Channel, Grid, fourier_resample
from resolvent.pde.navier_stokes import NavierStokes

TARGET = 45.0  # dB
RATES = (0.25, 0.5, 1.0, 2.0, 4.0)
TRAINED_RATES = {"kolmogorov": (0.5, 1.0, 2.0)}  # four times as many values elsewhere, and so two rates
BOUNDS = (3e-2, 1e-2, 3e-3, 1e-3)  # of the range
ZFP_TOLERANCES, ZFP_RATES = (3e-1, 1e-1, 3e-2, 1e-2), (1.0, 2.0, 3.0, 4.0, 5.0)
TRAINED = ("siren", "winner", "finer", "fkan", "pref", "neurbf")
METHODS = ("series", "series+bound", "zfp", "sz3", *TRAINED, "siren+bound")
Values = tuple[np.ndarray, Grid]


# ---------------------------------------------------------------------- data


def flow(quick: bool) -> tuple[np.ndarray, np.ndarray]:
    """A snapshot and a trajectory of Kolmogorov flow; computed once (about a minute), then read from the cache."""
    n = 32 if quick else 128
    file = cache_root() / f"benchmark-compression-{n}.npz"
    if not file.exists():
        problem = NavierStokes(viscosity=1 / 500, forcing="kolmogorov", frames=1, spacing=2.0 if quick else 30.0)
        coarse, fine = problem.grid(n), problem.grid(2 * n)
        state = problem.sample(1, coarse, generator=torch.Generator().manual_seed(0))
        state = problem.reference()(state, coarse)[:, -1]
        state = fourier_resample(state, fine.shape)
        later = NavierStokes(viscosity=1 / 500, forcing="kolmogorov", frames=1, spacing=2.0)
        state = later.reference()(state, fine)[:, -1]
        steps = NavierStokes(viscosity=1 / 500, forcing="kolmogorov", frames=31, spacing=0.05)
        frames = torch.cat([state[:, None], steps.reference()(state, fine)], dim=1)[0, :, 0]
        file.parent.mkdir(parents=True, exist_ok=True)
        part = file.with_suffix(".part.npz")
        np.savez(
            part, snapshot=state[0, 0].float(), frames=fourier_resample(frames[:, None], coarse.shape)[:, 0].float()
        )
        part.replace(file)
    held = np.load(file)
    return held["snapshot"], held["frames"]


def kolmogorov(quick: bool) -> Values:
    values = flow(quick)[0]
    return values[None], NavierStokes(forcing="kolmogorov").grid(len(values))


def trajectory(quick: bool) -> Values:
    values = flow(quick)[1]
    time_axis = Axis("time", len(values), 0.0, 0.05 * (len(values) - 1), ("outflow", "outflow"), "ends", "s")
    return values[None], Grid((time_axis, *NavierStokes(forcing="kolmogorov").grid(values.shape[1]).axes))


def spectrum(n: int, dim: int, slope: float) -> Values:
    """Random phases with E(k) ~ k^-slope up to n / 2, unit variance."""
    noise = np.random.default_rng(0).standard_normal((n,) * dim)
    k = np.sqrt(sum(np.meshgrid(*[(np.fft.fftfreq(n) * n) ** 2] * dim, indexing="ij")))
    size = np.where((k > 0) & (k <= n / 2), np.maximum(k, 1) ** (-(slope + dim - 1) / 2), 0.0)
    values = np.fft.ifftn(np.fft.fftn(noise) * size).real
    return (values / values.std()).astype(np.float32)[None], Grid.box((n,) * dim, dim=dim)


DATA: dict[str, Callable[[bool], Values]] = {
    "kolmogorov": kolmogorov,
    "trajectory": trajectory,
    "k3": lambda quick: spectrum(16 if quick else 64, 3, 3.0),
    "k53": lambda quick: spectrum(64 if quick else 512, 2, 5 / 3),
}


# ---------------------------------------------------------------------- rows


def settings(method: str, data: str) -> tuple[str, ...]:
    """What a method is run with, as words."""
    if method == "series":
        return tuple(f"rate {rate:g}" for rate in RATES)
    if method in TRAINED:
        return tuple(f"rate {rate:g}" for rate in TRAINED_RATES.get(data, (0.5, 1.0)))
    if method == "zfp":
        return (*(f"bound {b:g}" for b in ZFP_TOLERANCES), *(f"rate {r:g}" for r in ZFP_RATES))
    if method == "siren+bound":
        return ("bound 0.01",)
    return tuple(f"bound {bound:g}" for bound in BOUNDS)


def measured(method: str, setting: str, values: np.ndarray, grid: Grid, seed: int, quick: bool) -> dict[str, Any]:
    """One row; raises ``ImportError`` where the peer is absent."""
    kind, _, number = setting.partition(" ")
    asked = float(number)
    bound = asked * float(np.ptp(values)) if kind == "bound" else None
    begun = time.perf_counter()
    if method in ("zfp", "sz3"):
        size, got, seconds = (_zfp if method == "zfp" else _sz3)(values[0], asked, bound)
        more: dict[str, Any] = {"decode": seconds}
    else:
        size, got, more = _ours(method.partition("+")[0], asked, bound, values, grid, seed, quick)
    error = got.astype(np.float64) - values[0]
    row = {"bits": 8 * size / values.size, "greatest": float(np.abs(error).max()), "bound": bound, **more}
    mse = float((error**2).mean())
    row["psnr"] = float(20 * np.log10(np.ptp(values)) - 10 * math.log10(mse))
    return {**row, "seconds": time.perf_counter() - begun, "machine": machine(), "torch": versions().get("torch")}


def _ours(
    name: str, asked: float, bound: float | None, values: np.ndarray, grid: Grid, seed: int, quick: bool
) -> tuple[int, np.ndarray, dict[str, Any]]:
    rate = asked if bound is None else (0.0 if name == "series" else 1.0)
    plan = Plan(steps=20 if quick else 1500, batch=8192, learning_rate=2e-3, seed=seed)
    options = {} if name in ("series", "pref", "neurbf") else {"layers": 4}
    request = Request(plan=plan, rate=rate, bound=bound, options=options)
    archive = compressed(values, grid, (Channel("u"),), fields_named(name), request)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "u.rfield"
        save_field(path, archive)
        size, begun = path.stat().st_size, time.perf_counter()
        got = load_field(path).values()[0]
    report = archive.report
    told = {key: report[key] for key in ("heldout", "kappa") if key in report}
    return size, got, {"decode": time.perf_counter() - begun, **told}


def _zfp(values: np.ndarray, asked: float, bound: float | None) -> tuple[int, np.ndarray, float]:
    import zfpy

    data = zfpy.compress_numpy(values, **({"rate": asked} if bound is None else {"tolerance": bound}))
    begun = time.perf_counter()
    return len(data), zfpy.decompress_numpy(data), time.perf_counter() - begun


def _sz3(values: np.ndarray, asked: float, bound: float | None) -> tuple[int, np.ndarray, float]:
    from pysz import sz, szConfig, szErrorBoundMode

    how = szConfig()
    how.errorBoundMode, how.absErrorBound = szErrorBoundMode.ABS, float(bound or 0.0)
    data, _ = sz.compress(values, how)
    begun = time.perf_counter()
    got, _ = sz.decompress(data, np.float32, values.shape)
    return len(data), got, time.perf_counter() - begun


# ---------------------------------------------------------------------- tables and goals


def rows_of(runs: Mapping[str, Any], data: str, method: str) -> dict[str, dict[str, float]]:
    """Setting -> means over seeds, with the spread of the PSNR."""
    found: dict[str, dict[str, float]] = {}
    for setting in settings(method, data):
        rows = [row for key, row in runs.items() if key.rpartition("/")[0] == f"{data}/{method}/{setting}"]
        if rows:
            keys = [key for key, value in rows[0].items() if isinstance(value, int | float)]
            found[setting] = {key: statistics.mean(row[key] for row in rows) for key in keys}
            found[setting]["seeds"] = len(rows)
            found[setting]["spread"] = max(r["psnr"] for r in rows) - min(r["psnr"] for r in rows)
    return found


def bits_at(runs: Mapping[str, Any], data: str, method: str, target: float = TARGET) -> float | None:
    """Bits a value at a PSNR, linear between the rows about it (their lower hull); None where no rows are about it."""
    rows = sorted((row["psnr"], row["bits"]) for row in rows_of(runs, data, method).values())
    below = [row for row in rows if row[0] <= target]
    above = [row for row in rows if row[0] >= target]
    if not below or not above:
        return None
    (p0, b0), (p1, b1) = max(below), min(above)
    return b0 if p1 == p0 else b0 + (b1 - b0) * (target - p0) / (p1 - p0)


def goals(runs: Mapping[str, Any], only: Sequence[str]) -> list[str]:
    """Those that fall short."""
    short = []
    for data in only:
        ours = bits_at(runs, data, "series")
        for rival in ("zfp", *(("sz3",) if data == "k3" else ())):
            theirs = bits_at(runs, data, rival)
            if ours is None or theirs is None:
                short.append(f"{data}: no rows about {TARGET:g} dB of {'series' if ours is None else rival}")
            elif not ours < theirs:
                short.append(f"{data}: {ours:.2f} bits a value, {rival} {theirs:.2f}")
    for key, row in runs.items():
        if "+bound" in key and row["greatest"] > row["bound"]:
            short.append(f"{key}: error {row['greatest']:.3g} above its bound {row['bound']:.3g}")
    return short


def shown(runs: Mapping[str, Any], data: str) -> str:
    lines = [
        "| method | setting | bits a value | PSNR [dB] (spread, seeds) | held out | seconds | decode |",
        "|---" * 7 + "|",
    ]
    for method in METHODS:
        for setting, row in rows_of(runs, data, method).items():
            held = f"{row['heldout']:.3g}" if "heldout" in row else ""
            spread = f"{row['psnr']:.1f} ({row['spread']:.1f}, {row['seeds']:.0f})"
            cells = [
                method,
                setting,
                f"{row['bits']:.3f}",
                spread,
                held,
                f"{row['seconds']:.1f}",
                f"{row['decode']:.2f}",
            ]
            lines.append("| " + " | ".join(cells) + " |")
    found = {method: bits_at(runs, data, method) for method in METHODS}
    told = ", ".join(f"{method} {bits:.2f}" for method, bits in found.items() if bits is not None)
    return "\n".join([*lines, "", f"Bits a value at {TARGET:g} dB: {told or 'no method has rows about it'}."])


def page(runs: Mapping[str, Any]) -> str:
    first = next(iter(runs.values()))
    tables = "\n\n".join(f"## {data}\n\n{shown(runs, data)}" for data in DATA)
    short = "\n".join(f"Falls short: {line}." for line in goals(runs, list(DATA)))
    absent = [m for m in TRAINED if not any(f"/{m}/" in key for key in runs)]
    tail = f"\nNo rows of {', '.join(absent)}.\n" if absent else ""
    head = f"# Bits and errors\n\n`python benchmarks/compression.py`; {first['machine']}, torch {first['torch']}"
    return f"{head}, one thread.\n\n{tables}\n\n{short or 'No goal is missed by the methods in the tables.'}\n{tail}"


def main() -> int:
    quick = "small data, a few steps: whether it runs at all"
    options = _rows.parser(__doc__, quick, [0], only=DATA, methods=METHODS).parse_args()
    torch.set_num_threads(1)
    rows = _rows.Rows(_rows.place("compression", options), page)
    for data in options.only:
        values, grid = DATA[data](options.quick)
        for method, setting in [(m, s) for m in options.methods for s in settings(m, data)]:
            for seed in options.seeds if method.partition("+")[0] in TRAINED else [0]:
                key = f"{data}/{method}/{setting}/{seed}"
                measure = functools.partial(measured, method, setting, values, grid, seed, options.quick)
                try:
                    rows.once(key, measure, told)
                except (ImportError, ValueError) as error:  # a peer that is absent, a rate below the smallest network
                    print(f"{key} is left out: {error}", flush=True)
        print(f"\n{data}\n\n{shown(rows.kept, data)}")
    return _rows.verdict(goals(rows.kept, options.only), options)


def told(row: Mapping[str, Any]) -> str:
    return f"{row['bits']:.3f} bits, {row['psnr']:.1f} dB, {row['seconds']:.1f} s"


if __name__ == "__main__":
    sys.exit(main())
