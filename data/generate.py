"""Ask the trusted solver: draw inputs, solve, store. In parallel, resumable, in constant memory.

What is drawn depends on the seed and the sample's number alone: block b of 16 samples comes from a generator seeded by
(seed, b). What is solved together (a solver may choose its steps for a whole batch) is a group of neighbours whose
size follows from the bytes of a sample alone, on one thread. So the values depend neither on how many workers there
were, nor where, nor on how many groups make a task and a shard. The inputs do not depend on how many samples were
asked for; solutions in the last, incomplete group do, within the solver's tolerance.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import json
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..pde import Grid, Problem, Signature, Solver, SolverError
from ..pde._varied import OneByOne
from ._code import code_digest
from ._files import cache_root, canonical_json, locked, write_part
from ._netcdf import stored_variables, versions
from ._workers import Crew, Workers
from .dataset import Dataset, as_arrays, check_finite, shapes_of
from .store import MANIFEST, Book, Posed, Shard, check_shard, dataset_of, load_book, shard_bytes

Progress = Callable[[int, int, str], None]  # samples done, samples in all, what is going on
Task = tuple[str, int, int]  # a shard: name, first sample, number of samples

BLOCK = 16  # samples drawn together
GROUP_BYTES = 8 << 20  # solved together: 16 trajectories of 64² and 21 frames, few enough to share 160 among workers
GROUP_SAMPLES = 256
SHARD_BYTES = 32 << 20
SHARDS = 512  # from which on shards hold several groups: a million samples of 16² are 489 files, not 3907
WORTH_HELP = 8.0  # [s] of work from which on helpers, which take 2 to 3 s to start, are called
GENERATOR_VERSION = 1  # of this file; raised whenever the same question would get other values


def generate(
    problem: Problem,
    *,
    resolution: int | Sequence[int],
    count: int,
    seed: int = 0,
    cache: Path | str | None = None,
    workers: int | None = None,
    cluster: str | None = None,
    device: str = "cpu",
    progress: Progress | None = None,
    accuracy: Mapping[str, Any] | None = None,
) -> Dataset:
    """``count`` samples of a problem with its reference solution, from the cache where they are there already.

    cache      folder of datasets; default: ``RESOLVENT_CACHE`` or the platform's user cache
    workers    processes that solve, this one included; default: one a core, where the work is worth the start-up
    cluster    address of a dask scheduler (``tcp://host:8786``) whose workers solve instead; this process only stores
    device     where references solve that follow their inputs: ``cpu``, ``cuda``, …; another round-off, another key
    progress   called as ``progress(done, total, message)`` in this thread
    accuracy   options of ``problem.reference``

    A generation that was killed goes on where it stopped; two at once share the work of one: the second waits.
    Raises :class:`SolverError` naming the sample that failed, :class:`DamagedData` naming a shard that is not what
    was written, :class:`DiskFull`; whatever was complete before is kept.
    """
    report = progress or _silent
    posed = pose(problem, resolution=resolution, count=count, seed=seed, accuracy=accuracy, device=device)
    folder = cache_root(cache) / posed.folder_name
    book = _standing(folder, posed)
    if not book.complete:
        with locked(folder / ".lock", lambda: report(0, posed.count, "waiting for another process with the same data")):
            book = _standing(folder, posed)
            _complete(book, problem, report, workers, cluster)
    report(posed.count, posed.count, f"{posed.folder_name} is complete")
    return dataset_of(book)


def pose(
    problem: Problem,
    *,
    resolution: int | Sequence[int],
    count: int,
    seed: int = 0,
    accuracy: Mapping[str, Any] | None = None,
    device: str = "cpu",
) -> Posed:
    """What :func:`generate` would make, with its key; nothing is solved."""
    if count < 1:
        raise ValueError(f"A dataset has at least 1 sample, got count {count}.")
    if seed < 0:
        raise ValueError(f"The seed is at least 0, got {seed}.")
    grid, signature = problem.grid(resolution), problem.signature
    stored_variables(signature, grid)  # refuses names that a file cannot hold, before any work
    content = {
        "problem": problem.name,
        "parameters": problem.parameters(),
        "grid": grid.to_dict(),
        "count": count,
        "seed": seed,
        "accuracy": dict(accuracy or {}),
        "generator": f"{GENERATOR_VERSION}-{code_digest(*problem.kinds)}",
        **({} if _device(device).type == "cpu" else {"device": _device(device).type}),
    }
    content = _as_json(content)
    solver = _described(problem.reference(**dict(accuracy or {})))
    group = group_size(signature, grid)
    return Posed(content, signature, grid, _shard_size(group, count, signature, grid), solver, versions())


def _device(name: str) -> torch.device:
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ValueError(f"Unknown device {name!r}; use cpu, cuda or cuda:1.") from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ValueError("No CUDA device is available here; generate on the cpu.")
    return device


def _standing(folder: Path, posed: Posed) -> Book:
    """What is there already, checked; an empty book where nothing is."""
    if not (folder / MANIFEST).exists():
        return Book(folder, posed)
    book = load_book(folder)
    there = {name: shard for name, shard in book.shards.items() if (folder / name).exists()}
    for name, shard in there.items():
        check_shard(folder / name, shard)
    standing = Book(folder, book.posed, there)
    if standing.complete:
        return standing
    return Book(folder, replace(posed, shard_size=book.posed.shard_size), there)  # versions are those that write now


def _complete(book: Book, problem: Problem, report: Progress, workers: int | None, cluster: str | None) -> None:
    """Make the shards that are missing. The folder's lock is held."""
    for part in book.folder.glob("*.part"):  # of a run that was killed
        part.unlink(missing_ok=True)
    missing = [shard for shard in book.posed.shards() if shard[0] not in book.shards]
    if missing:
        book.save()
        try:
            with one_thread():
                report(book.done, book.posed.count, book.posed.folder_name)
                _make_all(book, _crew(book, problem, missing, workers, cluster), report)
        except BaseException:
            with contextlib.suppress(OSError):  # a full disk must not hide the reason; the journal stands
                book.save()
            raise
    book.save()


def _crew(book: Book, problem: Problem, missing: list[Task], workers: int | None, cluster: str | None) -> Crew[Task]:
    """Who makes the missing shards."""
    if cluster is not None:
        from ._cluster import Cluster

        def store(name: str, content: bytes, shard: Shard) -> None:
            book.publish(name, write_part(book.folder / name, content), shard)

        return Cluster(cluster, functools.partial(make, book.posed, problem), store, missing)
    helpers = _worth(problem, book.posed, missing, workers) - 1
    return Workers(helpers, functools.partial(_make_part, book.folder, book.posed, problem), book.publish, missing)


def _make_all(book: Book, crew: Crew[Task], report: Progress) -> None:
    with crew:
        for task in crew.own_share():
            book.publish(*crew.make(task))
            report(book.done, book.posed.count, book.posed.folder_name)
        while crew.busy(seconds=0.2):
            report(book.done, book.posed.count, book.posed.folder_name)


def make(posed: Posed, problem: Problem, task: Task) -> tuple[str, bytes, Shard]:
    """Draw and solve one shard, group by group; runs in any process, on any machine."""
    name, first, count = task
    group = group_size(posed.signature, posed.grid)
    started = time.process_time()
    parts = [_group(posed, problem, at, min(group, first + count - at)) for at in range(first, first + count, group)]
    arrays = tuple(torch.cat(pieces) for pieces in zip(*parts, strict=True))
    return name, *shard_bytes(posed, first, arrays, time.process_time() - started)


def _make_part(folder: Path, posed: Posed, problem: Problem, task: Task) -> tuple[str, Path, Shard]:
    """One shard, written beside its final name, so that only its hash travels between processes."""
    name, content, shard = make(posed, problem, task)
    return name, write_part(folder / name, content), shard


def _group(posed: Posed, problem: Problem, first: int, count: int) -> tuple[Tensor, ...]:
    """Samples that are solved together, as float32 on the CPU: what :meth:`Source.arrays` returns."""
    device = posed.content.get("device", "cpu")
    inputs = draw(problem, posed.grid, int(posed.content["seed"]), first, count).to(device)
    outputs = _solve(problem, posed, inputs, first)
    return tuple(array.to("cpu", torch.float32) for array in as_arrays(posed.signature, inputs, outputs))


def draw(problem: Problem, grid: Grid, seed: int, first: int, count: int) -> Tensor:
    """Inputs ``first … first + count`` of the endless sequence that belongs to a seed (float64)."""
    blocks = []
    for block in range(first // BLOCK, math.ceil((first + count) / BLOCK)):
        state = int(np.random.SeedSequence([seed, block]).generate_state(1, np.uint64)[0] >> np.uint64(1))
        drawn = problem.sample(BLOCK, grid, generator=torch.Generator().manual_seed(state))
        expected = (BLOCK, len(problem.signature.inputs), *grid.shape)
        if tuple(drawn.shape) != expected:
            raise ValueError(f"{problem.name}.sample returned shape {tuple(drawn.shape)}, expected {expected}.")
        blocks.append(drawn)
    skip = first % BLOCK
    inputs = torch.cat(blocks)[skip : skip + count]
    check_finite(inputs, f"inputs drawn by {problem.name}", first)
    return inputs


def _solve(problem: Problem, posed: Posed, inputs: Tensor, first: int) -> Tensor:
    solver = problem.reference(**posed.content["accuracy"])
    try:
        outputs = solver(inputs, posed.grid)
    except SolverError as error:
        raise SolverError(_located(solver, posed, inputs, first, error)) from error
    frames = (posed.signature.frames,) if posed.signature.evolves else ()
    expected = (len(inputs), *frames, len(posed.signature.outputs), *posed.grid.shape)
    if tuple(outputs.shape) != expected:
        raise ValueError(f"{problem.name}'s reference returned shape {tuple(outputs.shape)}, expected {expected}.")
    try:
        check_finite(outputs, f"the solution of {problem.name}", first)
    except ValueError as error:
        raise SolverError(str(error)) from error
    return outputs


def _located(solver: Solver, posed: Posed, inputs: Tensor, first: int, error: SolverError) -> str:
    """Which sample failed: the solver numbers its batch, so the samples are tried one by one."""
    problem = posed.content["problem"]
    for i in range(len(inputs)):
        try:
            solver(inputs[i : i + 1], posed.grid)
        except SolverError as single:
            return f"Sample {first + i} of {problem} (seed {posed.content['seed']}) failed: {single}"
    return f"A sample among {first} to {first + len(inputs) - 1} of {problem} failed: {error}"


def _worth(problem: Problem, posed: Posed, missing: Sequence[tuple[str, int, int]], workers: int | None) -> int:
    """How many processes to use, judged by solving one sample."""
    if workers is None:
        import joblib

        workers = joblib.cpu_count()
    if workers < 1:
        raise ValueError(f"At least 1 worker is needed, got {workers}.")
    workers = min(workers, len(missing))
    left = sum(count for _, _, count in missing)
    if workers == 1 or left < 8:  # too few for a trial solve to be worth its time
        return workers
    if posed.content.get("device", "cpu") != "cpu":
        return 1  # processes would only queue for the one device
    single = _trial(problem, posed, missing[0][1])
    if single < 1.0:
        single = min(single, _trial(problem, posed, missing[0][1]))  # once more, without set-up
    return workers if single * left > WORTH_HELP else 1


def _trial(problem: Problem, posed: Posed, first: int) -> float:
    """Seconds to solve one sample; 0 where it fails, as the shard itself will say so."""
    inputs = draw(problem, posed.grid, int(posed.content["seed"]), first, 1)
    started = time.perf_counter()
    with contextlib.suppress(SolverError):
        problem.reference(**posed.content["accuracy"])(inputs, posed.grid)
        return time.perf_counter() - started
    return 0.0


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Torch on one thread inside: round-off depends on how a reduction is split, and processes share the cores."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def group_size(signature: Signature, grid: Grid) -> int:
    """How many samples are solved together: a power of two, from the bytes of a sample alone."""
    fitting = max(1, GROUP_BYTES // _sample_bytes(signature, grid))
    return min(GROUP_SAMPLES, 1 << (fitting.bit_length() - 1))


def _shard_size(group: int, count: int, signature: Signature, grid: Grid) -> int:
    """Whole groups, a power of two of them: more where a large set of small samples would fill a folder with files."""
    wanted = max(1, -(-count // (group * SHARDS)))
    fitting = max(1, SHARD_BYTES // (group * _sample_bytes(signature, grid)))
    return group * (1 << (min(wanted, fitting).bit_length() - 1))


def _sample_bytes(signature: Signature, grid: Grid) -> int:
    return 4 * sum(map(math.prod, shapes_of(signature, grid.shape)))


def _described(solver: Solver) -> dict[str, Any]:
    """Name, first line of the documentation (it states the order) and the options of a solver."""
    if isinstance(solver, OneByOne):
        return _described(solver.typical)
    options = {name: getattr(solver, name, None) for name in inspect.signature(type(solver)).parameters}
    plain = {name: value for name, value in options.items() if isinstance(value, bool | int | float | str)}
    summary = (inspect.getdoc(type(solver)) or "").partition("\n")[0]
    return {"name": f"{type(solver).__module__}.{type(solver).__qualname__}", "summary": summary, "options": plain}


def _as_json(content: Mapping[str, Any]) -> dict[str, Any]:
    """As it will be read back: tuples become lists."""
    try:
        return json.loads(canonical_json(content))
    except (TypeError, ValueError) as error:
        raise ValueError(f"Parameters and accuracy need plain JSON values: {error}.") from error


def _silent(done: int, total: int, message: str) -> None:
    """No progress is asked for."""
