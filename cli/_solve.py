"""``solve``: words into a request, a run record back. No mathematics here."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter

from ..evaluation import Request, Run, load, registry, solve
from ..evaluation._request import instances_of, preset_of, trained_by_loop, without_training
from ..evaluation.record import Inverted
from ..kernels import reuse_memory
from ..operators._inference import Inversion
from ..pde import Problem, Setup
from ..training import Budget, Recipe
from ._options import OptionGroup, command_with, documented
from ._progress import ConsoleReporter
from ._threads import use_threads


def solve_with(
    *,
    pde: Annotated[str | None, Parameter(help="Problem: a name of `resolvent list`, or a dotted path.")] = None,
    model: Annotated[str | None, Parameter(help="Model: a name of `resolvent list`, or a dotted path.")] = None,
    preset: Annotated[
        Literal["quick", "paper"], Parameter(help="quick: two CPU cores, minutes. paper: the published set-up.")
    ] = "quick",
    seed: Annotated[int, Parameter(help="Seed of weights and order (of the data: --setup.seed).")] = 0,
    device: Annotated[str, Parameter(help="auto, cpu, cuda, cuda:1, …")] = "auto",
    data: Annotated[Path | None, Parameter(help="Your own data (file or folder) instead of a problem.")] = None,
    observations: Annotated[
        Path | None,
        Parameter(help="What sensors said (netCDF): also infer what lies behind it (model dgno)."),
    ] = None,
    run: Annotated[Path | None, Parameter(help="A finished run: apply its surrogate (with --input, --output).")] = None,
    input: Annotated[Path | None, Parameter(help="netCDF file with the surrogate's input fields.")] = None,
    output: Annotated[Path | None, Parameter(help="netCDF file to write the surrogate's answer to.")] = None,
    budget: Annotated[str | None, Parameter(help="Limit of the training: 90s, 5m, 2h or 20epochs.")] = None,
    compare: Annotated[
        bool, Parameter(help="Also train and judge fno, unet, linear and persistence (static maps: mean).", negative="")
    ] = False,
    rivals: Annotated[
        tuple[str, ...], Parameter(help="Compare with these models instead.", consume_multiple=True, negative="")
    ] = (),
    runs: Annotated[Path, Parameter(help="Folder of run folders.")] = Path("runs"),
    cache: Annotated[Path | None, Parameter(help="Folder of generated data (else RESOLVENT_CACHE).")] = None,
    threads: Annotated[int | None, Parameter(help="CPU threads [default: all cores but one].")] = None,
    json: Annotated[bool, Parameter(help="Print the run record as JSON on standard output.", negative="")] = False,
    dotted: dict[str, dict[str, Any]],
) -> int:
    """Generate (or reuse) data, train (or reuse) a model, judge it on held-out data, draw and record it."""
    use_threads(threads)
    reuse_memory()
    if run is not None:
        if observations is None and dotted.get("invert"):
            raise ValueError("--invert.* belongs to observations: add --observations FILE.")
        if observations is not None and input is not None:
            raise ValueError("A run answers --input or inverts --observations: leave one of them out.")
        if observations is not None:
            return _invert(run, observations, output, device, dotted.get("invert", {}))
        return _apply(run, input, output, device)
    if dotted.get("invert") and observations is None:
        raise ValueError("--invert.* belongs to observations: add --observations FILE.")
    if input is not None or output is not None:
        raise ValueError("--input and --output belong to a finished run: add --run runs/….")
    if model is None or (pde is None and data is None):
        raise ValueError(
            "Say what to solve: --pde NAME --model NAME (see `resolvent list`), or --data FILE --model NAME."
        )
    request = Request(
        model=model,
        pde=pde or "",
        data=data,
        preset=preset,
        seed=seed,
        device=device,
        budget=parse_budget(budget),
        problem=dotted.get("pde", {}),
        options=dotted.get("model", {}),
        train=dotted.get("train", {}),
        setup=dotted.get("setup", {}),
        observations=observations,
        inversion=dotted.get("invert", {}),
        compare=compare,
        rivals=rivals,
        runs=runs,
        cache=cache,
    )
    with ConsoleReporter() as reporter:
        outcome = solve(request, reporter)
    if json:
        sys.stdout.write(outcome.run.to_json() + "\n")
    else:
        sys.stdout.write(summary(outcome.run, outcome.folder) + "\n")
    return told(outcome.run)


def command(argv: Sequence[str]) -> Any:
    """The ``solve`` command for this command line: its dotted options are those of the named problem and model."""
    return command_with(solve_with, option_groups(argv))


def option_groups(argv: Sequence[str]) -> list[OptionGroup]:
    pde, model, preset = (_value(argv, flag) for flag in ("--pde", "--model", "--preset"))
    groups = []
    problem: Problem | None = None
    if pde:
        build = registry.find_problem(pde).build
        offered = registry.options_of(build)
        groups.append(OptionGroup("pde", f"Options of problem {pde}", registry.options_of_problem(build), {}))
        if not any(option.required for option in offered):
            problem = build()
    if model:
        module = registry.find_model(model)
        chosen = preset_of(module, preset or "quick", problem)[0] if problem is not None else None
        options = tuple(registry.options_of(module.build))
        groups.append(OptionGroup("model", f"Options of model {model}", options, chosen.model if chosen else {}))
        if trained_by_loop(module):
            train = chosen.train if chosen else {}
            groups.append(OptionGroup("train", "Training", documented(Recipe), train))
    groups.append(OptionGroup("invert", "Inversion of --observations", documented(Inversion), {}))
    setup = problem.setups.get(preset or "quick") if problem is not None else None
    if setup and model and "--compare" not in argv and instances_of(registry.find_model(model)):
        setup = without_training(setup, preset or "quick", [registry.find_model(model)])
    groups.append(OptionGroup("setup", "Set-up: sizes of the data", documented(Setup), vars(setup) if setup else {}))
    return groups


def parse_budget(text: str | None) -> Budget:
    """``90s``, ``5m``, ``2h`` or ``20epochs``."""
    if text is None:
        return Budget()
    for unit, factor in (("epochs", 0.0), ("s", 1.0), ("m", 60.0), ("h", 3600.0)):
        number = text.removesuffix(unit)
        if number != text and number.replace(".", "", 1).isdigit():
            if factor:
                return Budget(seconds=float(number) * factor)
            if number.isdigit():
                return Budget(epochs=int(number))
    raise ValueError(f"--budget is a time or a number of epochs, like 90s, 5m, 2h or 20epochs; got {text!r}.")


def summary(run: Run, folder: Path) -> str:
    """What a person wants to read at the end."""
    lines = [f"{run.model} on {run.problem}, {posed(run)}:"]
    for place, judged in enumerate(run.starts):
        what = f"{len(judged.times)} frames from frame {judged.start}" if judged.times else "outputs"
        scores = {run.model: judged.metrics} | {
            name: rival.starts[place].metrics if rival.starts else {} for name, rival in run.compare.items()
        }
        told = [f"{name} {m['relative_l2'].mean:.4g}" if m else f"{name} failed" for name, m in scores.items()]
        lines.append(f"  {what}: " + ", ".join(told))
    if run.classical is not None and run.classical.note:
        gain = run.classical.equal_accuracy
        ratio = "" if math.isinf(gain) else f"{gain:.3g} times classical. "
        lines.append(f"  Speed at equal accuracy: {ratio}{run.classical.note}")
    lines += [line for one in run.inversions for line in inverted(one)]
    lines += [f"Note: {note}" for note in run.notes]
    lines.append(f"Report: {folder / 'report.html'}   record: {folder / 'run.json'}")
    return "\n".join(lines)


def inverted(found: Inverted) -> list[str]:
    """What an inversion has found."""
    told = found.diagnosis
    mixed = f", R-hat {told['rhat']:.3g}, {told['ess']:.0f} effective samples" if told.get("rhat") else ""
    lines = [
        f"  {found.observations}: {found.sensors} observations of {found.field}, {told['information']:.3g} nats, "
        f"{told['method']}{mixed}"
    ]
    lines += [f"    {name}: {value:.4g}" for name, value in found.scores.items()]
    return lines + [f"    Note: {note}" for note in told["notes"]]


def posed(run: Run) -> str:
    """What was measured: a learned model on held-out samples, any other on instances, each solved by itself."""
    count = run.setup["test"]
    if run.setup["train"]:
        return f"{count} held-out samples, mean relative L2 error"
    return "1 instance, relative L2 error" if count == 1 else f"{count} instances, mean relative L2 error"


def told(run: Run) -> int:
    """The exit status: 1, with the reason, where not a single sample has an answer."""
    score = run.metrics.get("relative_l2")
    if score is not None and any(map(math.isfinite, score.samples)):
        return 0
    sys.stderr.write(f"{run.model} has no answer: {' '.join(run.message.split())}\n")
    return 1


def _apply(run: Path, source: Path | None, target: Path | None, device: str) -> int:
    if source is None or target is None:
        raise ValueError("A finished run is applied to a file: --run RUNS/… --input a.nc --output u.nc.")
    load(run, device).apply(source, target)
    sys.stdout.write(f"Wrote {target}\n")
    return 0


def _invert(run: Path, source: Path, target: Path | None, device: str, chosen: dict[str, Any]) -> int:
    """A finished run's surrogate, inverted into a file."""
    if target is None:
        raise ValueError("Say where the posterior goes: --run RUNS/… --observations obs.nc --output posterior.nc.")
    posterior = load(run, device).invert(source, how=Inversion(**chosen))
    posterior.save(target)
    told = posterior.diagnosis
    notes = [f"Note: {note}" for note in told.notes]
    sys.stdout.write("\n".join([f"{told.information:.3g} nats, {told.method}", *notes, f"Wrote {target}"]) + "\n")
    return 0


def _value(argv: Sequence[str], flag: str) -> str | None:
    for i, word in enumerate(argv):
        if word == flag and i + 1 < len(argv):
            return argv[i + 1]
        if word.startswith(f"{flag}="):
            return word.partition("=")[2]
    return None
