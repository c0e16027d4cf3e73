r"""Gridded values into an archive: a field of so many bits a value, judged at nodes it has not seen.

A trained field gets as many weights as its bits allow, the bandwidth that predicts held-out nodes best, a fit, and a
shorter one with rounded weights. A series gets the step that fills its bits; its error at nodes held out is that of a
series of as many functions through the other nodes. With a bound, what is left at the nodes is stored beside it.
Everything follows from the request: what was stopped goes on from its working folder to the same bytes.
"""

from __future__ import annotations

import dataclasses
import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Generator

from ..data import write_atomically
from ..pde import Channel, Grid
from ..training import Callback, DamagedCheckpoint
from . import _quantise
from ._archive import Archive, residual_of, restored
from ._builder import Fields, limited, options_of, size_of
from ._field import Field, Form
from ._fit import KAPPAS, Memory, Plan, Pool, Samples, bandwidth_for, fit, heldout_error
from ._spectrum import bandwidths
from ._stream import BOXES, Lazy, Stream, boxes, check_finite
from ._transform import transformed
from .series import Series

FINISH, GENTLE = 0.25, 0.2  # of the steps and of the learning rate: the fit with rounded weights
WIDEST = 2048  # units a layer that are tried


@dataclass(frozen=True, kw_only=True)
class Request:
    """What is asked of an archive.

    rate      bits a value of the field; 0: of a series with a bound, what makes the file smallest; else 1
    bits      of a weight: 4 to 8, 16 or 32
    bound     greatest error at a node [unit of the values], None: no bound; 0: exact
    kappas    bandwidths that are tried, in units of the values' waves
    options   of the network; ``width`` in place of the one that follows from the rate
    memory    bytes of values that may be held; more are read as they are needed
    """

    plan: Plan = dataclasses.field(default_factory=lambda: Plan(steps=2000, batch=16_384))
    rate: float = 0.0
    bits: int = 8
    bound: float | None = None
    kappas: tuple[float, ...] = KAPPAS
    form: Form = "plain"
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    memory: int = 1 << 31

    def __post_init__(self) -> None:
        if self.bits not in (*range(4, 9), 16, 32):
            raise ValueError(f"bits of a weight are 4 to 8, 16 or 32, got {self.bits}.")
        if self.rate < 0 or not math.isfinite(self.rate):
            raise ValueError(f"rate is a number of bits a value, 0 (as it comes) or more, got {self.rate}.")
        if self.bound is not None and not (self.bound >= 0 and math.isfinite(self.bound)):
            raise ValueError(f"bound is a number, 0 (exact) or more, got {self.bound}.")
        if not self.kappas or min(self.kappas) <= 0:
            raise ValueError(f"kappas are positive bandwidths, at least one, got {self.kappas}.")


def compressed(
    values: np.ndarray | Lazy,
    grid: Grid,
    channels: Sequence[Channel],
    fields: Fields,
    request: Request = Request(),
    *,
    work: Path | None = None,
    callbacks: Sequence[Callback] = (),
    stage: Callable[[str, float], None] = lambda title, total: None,
) -> Archive:
    """An archive of ``channel *space`` values.

    fields    what kind: the ``field`` of a file of this room
    work      a folder for checkpoints; removed by the caller when the archive is safe
    stage     told of each stage with its length in steps
    """
    begun = time.monotonic()
    if tuple(values.shape) != (len(channels), *grid.shape):
        raise ValueError(f"Expected values of shape {(len(channels), *grid.shape)}, got {tuple(values.shape)}.")
    large = 4 * math.prod(values.shape) > request.memory
    if not large:
        values = np.asarray(values[(slice(None),) * (1 + grid.dim)])
        check_finite(values, grid, tuple(slice(0, n) for n in grid.shape))
    if work is not None:
        _claim(work, values, request, fields)
    if issubclass(fields.network, Series):
        if request.form != "plain" or set(request.options) - {"ends"}:
            raise ValueError(
                f"A stored series is plain, with as many functions as its rate allows; got form {request.form} and "
                f"options {dict(request.options)}. Leave these out, or train a field (siren)."
            )
        if large:
            raise ValueError(
                f"A series is made of all {math.prod(values.shape)} values at once, more than the {request.memory} "
                "bytes that are allowed: raise the memory limit, or train a field (siren)."
            )
        stage("transform", 1)
        archive = transformed(np.asarray(values), grid, channels, request)
    else:
        archive = _trained(values, grid, channels, fields, request, large, work, callbacks, stage)
    if request.bound is not None and archive.residual is None:
        stage("residual", 1)
        archive = replace(archive, residual=residual_of(archive, values, request.bound))
    report = {**archive.report, **errors_at_nodes(archive, values), "seconds": round(time.monotonic() - begun, 1)}
    return replace(archive, report=report)


def _claim(work: Path, values: Any, request: Request, fields: Fields) -> None:
    """The working folder belongs to one request; another's checkpoints are refused."""
    told = json.dumps([fields.network.__name__, fields.fixed, str(request), list(values.shape)])
    note = work / "request.json"
    if note.exists() and note.read_text(encoding="utf-8") != told:
        raise DamagedCheckpoint(f"{work} belongs to another request. Delete it to start afresh.")
    work.mkdir(parents=True, exist_ok=True)
    write_atomically(note, told.encode())


# ---------------------------------------------------------------------- fields that are trained


def _trained(
    values: Any, grid: Grid, channels: Sequence[Channel], fields: Fields, request: Request, large: bool,
    work: Path | None, callbacks: Sequence[Callback], stage: Callable[[str, float], None],
) -> Archive:  # fmt: skip
    plan, pool = request.plan, pool_of(values, grid, request, large)
    options = dict(request.options)
    start = _starting(values, grid, pool, fields, request)
    grows = fields.network.grows
    if grows not in options:
        options[grows] = size_for(lambda size: start(1.0, {**options, grows: size}), request, pool, grid)
    if len(request.kappas) > 1:
        stage("bandwidth", 1)
    kappa, tried = bandwidth_for(
        pool, lambda k: start(k, options), plan, kappas=request.kappas, callbacks=callbacks, work=work
    )
    field = start(kappa, options)
    stage("fit", plan.steps)
    fit(field, pool, plan, callbacks=callbacks, checkpoint=work and work / "fit.pt")
    if request.bits < 32:
        gentle = replace(plan, steps=max(1, round(FINISH * plan.steps)), learning_rate=GENTLE * plan.learning_rate)
        stage("fit with rounded weights", gentle.steps)
        with _quantise.rounding(field, request.bits):
            fit(field, pool, gentle, callbacks=callbacks, checkpoint=work and work / "finish.pt")
    report = {"steps": plan.steps, "kappa": kappa, "tried": {str(k): e for k, e in tried.items()}, "seed": plan.seed}
    archive = restored(Archive(field, tuple(channels), request.bits, report=report))
    if not len(pool.held):
        return archive
    held = Samples(points=pool.held.points.double(), values=pool.held.values.double())
    return replace(archive, report={**report, "heldout": heldout_error(archive.field, held)})


def pool_of(values: Any, grid: Grid, request: Request, large: bool) -> Pool:
    """The nodes to fit, from memory or from disk."""
    plan = request.plan
    if large:
        nodes = request.memory // (16 * (grid.dim + values.shape[0]))  # points and values, and copies of them
        return Stream(values, grid, holdout=plan.holdout, seed=plan.seed, nodes=max(BOXES, nodes))
    points = torch.stack(torch.meshgrid(*grid.coordinates(dtype=torch.float32), indexing="ij")).flatten(1).t()
    known = torch.from_numpy(np.ascontiguousarray(values, dtype=np.float32)).flatten(1).t()
    samples = Samples(points=points.contiguous(), values=known.contiguous())
    return Memory(samples, plan.holdout, Generator().manual_seed(plan.seed))


def _starting(
    values: Any, grid: Grid, pool: Pool, fields: Fields, request: Request
) -> Callable[[float, Mapping[str, Any]], Field]:
    """(kappa, options) -> a field that starts with that bandwidth."""
    promises: dict[str, Any] = {"seed": request.plan.seed, "form": request.form}
    if isinstance(pool, Stream):
        if request.form != "plain":
            raise ValueError(f"A {request.form} field needs all values at once: raise the memory limit.")
        waves, mean, scale = pool.waves, pool.mean, pool.deviation
    else:
        known = torch.from_numpy(np.asarray(values, dtype=np.float32))
        waves, (mean, scale) = bandwidths(known, grid), size_of(known, grid, request.form)
        if "values" in options_of(fields.network):
            promises["values"] = known
    return lambda kappa, options: fields.starting(
        grid, limited([kappa * k for k in waves], grid), mean, scale, **{**promises, **options}
    )


def size_for(make: Callable[[int], Field], request: Request, pool: Pool, grid: Grid) -> int:
    """The largest network whose weights fit the rate."""
    allowed = (request.rate or 1.0) * grid.size * pool.held.values.shape[1]

    def bits(width: int) -> float:
        field = make(width)
        each = {"f4": 32.0, "f2": 16.0, "q": float(request.bits), "steps": 32.0}
        state = field.network.state_dict()
        return sum(
            _quantise.real(v).numel() * each[_quantise.kind_of(field, n, v, request.bits)] for n, v in state.items()
        )

    if bits(2) > allowed:
        raise ValueError(
            f"{request.rate or 1.0:g} bits a value are {allowed / 8:.0f} bytes, less than the smallest network of this "
            "kind needs: raise the rate, or use a series."
        )
    low = 2
    while 2 * low <= WIDEST and bits(2 * low) <= allowed:
        low *= 2
    high = 2 * low
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if bits(middle) <= allowed else (low, middle)
    return low


def errors_at_nodes(archive: Archive, values: Any) -> dict[str, float]:
    """Of what a reader will find at the nodes: peak signal-to-noise ratio, relative L2 error, greatest error."""
    squares, spread, worst = 0.0, 0.0, 0.0
    low, high = math.inf, -math.inf
    mean = float(archive.field.mean.mean())
    shape = archive.grid.shape
    for box in boxes((shape[0],), max(1, (1 << 22) // math.prod(shape[1:]))):
        known = np.asarray(values[(slice(None), *box)]).astype(np.float64)
        got = archive.values([np.arange(box[0].start, box[0].stop), *(np.arange(n) for n in shape[1:])])
        error = got.astype(np.float64) - known
        squares, worst = squares + float((error**2).sum()), max(worst, float(np.abs(error).max()))
        spread += float(((known - mean) ** 2).sum())
        low, high = min(low, float(known.min())), max(high, float(known.max()))
    mse = squares / (len(archive.channels) * archive.grid.size)
    psnr = 20 * math.log10(max(high - low, 1e-300)) - 10 * math.log10(mse) if mse else math.inf
    return {"psnr": min(psnr, 999.0), "relative_l2": math.sqrt(squares / max(spread, 1e-300)), "greatest": worst}
