"""``solve``: data, training, judgement, pictures, record — each reused where it already stands.

A model folder is named by the content of everything its training depends on, so the same request finds the same
folder: data come from the cache, weights from ``model.safetensors``, judgements of rivals from their own folders.
"""

from __future__ import annotations

import dataclasses
import datetime
import json
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ..data import Dataset, Splits, generate, read, split
from ..pde import Solver
from ..training import Interrupted
from . import registry
from ._drawing import draw
from ._fitting import Fitted, fitted, has_model
from ._given import Given
from ._instances import doubled, instances
from ._inverting import Asked, invert_run, keep_discrepancy, latent_of
from ._reporter import Reporter
from ._request import Plan, Request, Task, instances_of, plan_of, task_of, task_of_data, with_rivals
from .cost import break_even, cost_accuracy, speedup_at_equal_accuracy
from .judge import Judgement, judge
from .record import Classical, Judged, Provenance, Rival, Run, machine, read_run, seconds_of, versions, write_run

COST_SAMPLES = 8  # of the test split, on which the classical ladder is judged
COST_SECONDS = 30.0  # limit of that; rungs beyond it are listed as not measured


@dataclass(frozen=True)
class Outcome:
    """A run record and the folder that holds everything it speaks of."""

    run: Run
    folder: Path


def solve(request: Request, reporter: Reporter | None = None) -> Outcome:
    """Answer a request; see :class:`Request` for what can be asked."""
    reporter = reporter or Reporter()
    device = device_named(request.device)
    for name in (request.model, *request.rivals):  # refuse unknown names before hours of work
        registry.find_model(name)
    samples = _data(request, reporter)
    task = samples.task
    request = with_rivals(request, task)
    plan = plan_of(request, task, request.model)
    folder = request.runs / f"{task.problem.name}-{_last(request.model)}-{plan.key(samples.splits)}"
    done = _finished(folder, request, task, device)
    if done is not None:
        reporter.say(f"Reusing {folder} (delete it to train again).")
        return Outcome(_inverted(done, folder, request, samples, device, reporter), folder)
    inverted = read_run(folder).inversions if (folder / "run.json").exists() and has_model(folder) else ()
    own = fitted(plan, samples.splits, folder, device, reporter)
    keep_discrepancy(folder, own.solver, samples.splits.validation)
    others = {name: _rival(request, samples, name, device, reporter) for name in request.rivals}
    verdicts = _judged(own.solver, samples, request.model, device, reporter)
    classical = _classical(samples, verdicts[0], own, device, reporter)
    run = _record(request, samples, plan, own, verdicts, others, classical, device)
    run = run.model_copy(update={"inversions": inverted})  # by the same weights
    reporter.stage("drawing", 1)
    draw(run, folder, task, verdicts)
    write_run(run, folder / "run.json")
    return Outcome(_inverted(run, folder, request, samples, device, reporter), folder)


def _inverted(
    run: Run, folder: Path, request: Request, samples: _Samples, device: torch.device, reporter: Reporter
) -> Run:
    """The same run with the posterior that was asked for, from its folder where it is there already."""
    if request.observations is None:
        return run
    asked = Asked.of(request, samples.task, command_of(request))
    return invert_run(run, folder, asked, device, reporter)


def device_named(name: str) -> torch.device:
    """``auto`` is the GPU where there is one."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ValueError(f"Unknown device {name!r}; use auto, cpu or cuda.") from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ValueError("No CUDA device is available here; use --device cpu.")
    return device


@dataclass(frozen=True)
class _Samples:
    """What a task is about, split, and the seconds that making it has cost."""

    task: Task
    dataset: Dataset
    splits: Splits
    seconds: float = 0.0

    def test_for(self, model: str) -> Dataset:
        """A model that solves instances by itself is asked in double precision: its errors can be below float32's."""
        stored, task = self.splits.test, self.task
        if task.alone or isinstance(task.problem, Given) or not instances_of(registry.find_model(model)):
            return stored
        return doubled(stored, task.problem, task.setup.seed)


def _data(request: Request, reporter: Reporter) -> _Samples:
    """Given, generated, or only posed where no model learns from data."""
    if request.data is not None:
        dataset = read(request.data)
        task = task_of_data(request, dataset)
        _refuse(request, task)
        return _Samples(task, dataset, _split(dataset, task))
    task = task_of(request)
    if task.alone:
        if request.observations is not None:
            _refuse(request, task)
        splits = instances(task.problem, task.grid, seed=task.setup.seed, count=task.setup.test)
        return _Samples(task, splits.test, splits)
    _refuse(request, task)
    dataset, seconds = _generated(task, request.cache, reporter)
    return _Samples(task, dataset, _split(dataset, task), seconds)


def _refuse(request: Request, task: Task) -> None:
    """What cannot be built or inverted is refused before any work, not after it."""
    solver = plan_of(request, task, request.model).blueprint.make_solver()
    if request.observations is not None:
        latent_of(solver)
        Asked.of(request, task, "")


def _split(dataset: Dataset, task: Task) -> Splits:
    setup = task.setup
    return split(dataset, train=setup.train, validation=setup.validation, test=setup.test, seed=setup.seed)


def _generated(task: Task, cache: Path | None, reporter: Reporter) -> tuple[Dataset, float]:
    problem, setup = task.problem, task.setup
    count = setup.train + setup.validation + setup.test
    reporter.stage(f"generating {count} samples of {problem.name}", count)

    def progress(done: int, total: int, message: str) -> None:
        reporter.advance(done, f"{done} of {total} samples")
        if reporter.stopping():
            raise Interrupted(f"Generation stopped at {done} of {total} samples; complete shards are kept.")

    dataset = generate(
        problem, resolution=setup.resolution, count=count, seed=setup.seed, cache=cache, progress=progress
    )
    return dataset, float(dataset.source.get("seconds", 0.0))


def _rival(request: Request, samples: _Samples, name: str, device: torch.device, reporter: Reporter) -> Rival:
    """Another model on the same task: trained in a folder of its own, so that it is there the next time."""
    plan = plan_of(request, samples.task, name, own=False)
    folder = request.runs / f"{samples.task.problem.name}-{_last(name)}-{plan.key(samples.splits)}"
    try:
        other = fitted(plan, samples.splits, folder, device, reporter)
    except ValueError as error:  # a model that cannot serve this problem stays in the table, saying why
        return Rival(metrics={}, status="failed", message=str(error))
    verdicts = _judged(other.solver, samples, name, device, reporter, keep=0)
    starts = tuple(Judged.of(verdict) for verdict in verdicts)
    return Rival(
        metrics=starts[0].metrics,
        seconds=seconds_of(verdicts[0], fit=other.seconds),
        parameters=other.parameters,
        options=_options(plan),
        starts=starts,
        status=other.status if other.status != "ok" else starts[0].status,
        message=other.message or starts[0].message,
    )


def _judged(
    solver: Solver, samples: _Samples, model: str, device: torch.device, reporter: Reporter, *, keep: int = 3
) -> list[Judgement]:
    """One judgement per start; the first is the headline. A model without training gets one instance at a time."""
    task, test = samples.task, samples.test_for(model)
    batch = 1 if instances_of(registry.find_model(model)) else 16
    reporter.stage(f"judging {model}", len(task.starts) * len(test))
    verdicts: list[Judgement] = []
    for start in task.starts:
        before = len(verdicts) * len(test)

        def progress(done: int, total: int, before: int = before) -> None:
            reporter.advance(before + done)

        verdicts.append(
            judge(
                solver,
                test,
                start=start,
                horizon=task.horizon(start),
                batch=batch,
                device=device,
                keep=keep,
                progress=progress,
            )
        )
    return verdicts


def _classical(
    samples: _Samples, verdict: Judgement, own: Fitted, device: torch.device, reporter: Reporter
) -> Classical | None:
    """The reference solver's own cost-accuracy curve, and the speed-up at equal accuracy."""
    task = samples.task
    if isinstance(task.problem, Given) or not task.problem.ladder(task.grid):
        return None
    reporter.stage("measuring the classical solver", 1)

    def progress(done: int, total: int) -> None:
        reporter.advance(done / total)

    start = verdict.start
    curve = cost_accuracy(
        task.problem,
        samples.splits.test,
        samples=COST_SAMPLES,
        start=start,
        horizon=task.horizon(start),
        limit=COST_SECONDS,
        device=device,
        progress=progress,
    )
    speedup = speedup_at_equal_accuracy(curve, verdict.mean("relative_l2"), verdict.seconds)
    paid = break_even(samples.seconds, own.seconds, speedup.classical_seconds, verdict.seconds)
    return Classical.of(curve, speedup, paid)


def _record(
    request: Request,
    samples: _Samples,
    plan: Plan,
    own: Fitted,
    verdicts: list[Judgement],
    others: Mapping[str, Rival],
    classical: Classical | None,
    device: torch.device,
) -> Run:
    task, dataset, splits = samples.task, samples.dataset, samples.splits
    needed = 0.0 if instances_of(registry.find_model(request.model)) else samples.seconds
    starts = tuple(Judged.of(verdict) for verdict in verdicts)
    return Run(
        problem=task.problem.name,
        problem_parameters=task.problem.parameters(),
        model=request.model,
        options=_options(plan),
        preset=request.preset,
        seed=request.seed,
        metrics=starts[0].metrics,
        starts=starts,
        seconds=seconds_of(verdicts[0], generate=needed, fit=own.seconds),
        parameters=own.parameters,
        device=str(device),
        threads=torch.get_num_threads(),
        clock=verdicts[0].clock,
        machine=machine(device),
        versions=versions(),
        setup=dataclasses.asdict(task.setup),
        grid=task.grid.to_dict(),
        signature=task.problem.signature.to_dict(),
        data=Provenance(
            fingerprint=dataset.fingerprint,
            test=splits.test.fingerprint,
            split=splits.to_dict()["sha256"],
            source=json.loads(json.dumps(dataset.source, default=str)),
        ),
        history=tuple(own.history),
        compare=dict(others),
        classical=classical,
        command=command_of(dataclasses.replace(request, observations=None, inversion={})),
        notes=(*plan.notes, *dict.fromkeys(note for start in starts for note in start.notes)),
        status=own.status if own.status != "ok" else starts[0].status,
        message=own.message or starts[0].message,
        date=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    )


def command_of(request: Request) -> str:
    """The command line that makes this request."""
    words = ["solve"]
    words += ["--pde", request.pde] if request.pde else ["--data", str(request.data)]
    words += ["--model", request.model]
    words += ["--observations", str(request.observations)] if request.observations is not None else []
    words += ["--preset", request.preset] if request.preset != "quick" else []
    words += ["--seed", str(request.seed)] if request.seed else []
    groups = {"pde": request.problem, "model": request.options, "train": request.train, "setup": request.setup}
    groups |= {"invert": request.inversion}
    for prefix, chosen in groups.items():
        for name, value in chosen.items():
            words += _flag(f"--{prefix}.{name}", value)
    if request.budget.seconds:
        words += ["--budget", f"{request.budget.seconds:g}s"]
    elif request.budget.epochs:
        words += ["--budget", f"{request.budget.epochs}epochs"]
    if request.rivals:
        words += ["--compare"] if request.compare else ["--rivals", *request.rivals]
    return shlex.join(words)


def _flag(name: str, value: Any) -> list[str]:
    if isinstance(value, bool):
        prefix, _, rest = name.partition(".")
        return [name if value else f"{prefix}.no-{rest.replace('_', '-')}"]
    values = value if isinstance(value, tuple | list) else (value,)
    return [word for item in values for word in (name, str(item))]


def _options(plan: Plan) -> dict[str, Any]:
    """Everything that was chosen, defaults included."""
    build = registry.find_model(plan.blueprint.model).build
    defaults = {option.name: option.default for option in registry.options_of(build) if not option.required}
    values = {"model": {**defaults, **plan.blueprint.model_options}}
    if plan.blueprint.recipe is not None:
        values["train"] = dict(plan.blueprint.recipe)
        values["budget"] = dataclasses.asdict(plan.budget)
    return values


def _finished(folder: Path, request: Request, task: Task, device: torch.device) -> Run | None:
    """The record of this very request, where it is complete; the same weights may have been judged otherwise."""
    if not (folder / "run.json").exists():
        return None
    run = read_run(folder)
    judged = (run.setup, run.device) == (json.loads(json.dumps(dataclasses.asdict(task.setup))), str(device))
    complete = (folder / "report.html").exists() and set(request.rivals) <= set(run.compare)
    return run if judged and complete else None


def _last(name: str) -> str:
    return name.rpartition(".")[2]
