"""``resolvent generate``: a data set of a problem into the cache, here or on a cluster."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter

from ..data import cache_root, generate
from ..data.generate import pose
from ..evaluation import registry
from ..evaluation._request import problem_options
from ..training import Interrupted
from ._options import OptionGroup, command_with
from ._progress import ConsoleReporter


def generate_with(
    pde: Annotated[str, Parameter(help="Problem: a name of `resolvent list`, or a dotted path.")],
    *,
    resolution: Annotated[
        tuple[int, ...],
        Parameter(
            help="Nodes: one number, or one an axis [default: the preset's].",
            negative="",
            show_default=False,
            consume_multiple=True,
        ),
    ] = (),
    count: Annotated[int | None, Parameter(help="Samples [default: the preset's].")] = None,
    seed: Annotated[int, Parameter(help="Seed.")] = 0,
    preset: Annotated[Literal["quick", "paper"], Parameter(help="Whose sizes are the defaults.")] = "quick",
    workers: Annotated[int | None, Parameter(help="Processes [default: as many as the work is worth].")] = None,
    cluster: Annotated[
        str | None, Parameter(help="Address of a dask scheduler (tcp://host:8786) whose workers solve instead.")
    ] = None,
    device: Annotated[str, Parameter(help="cpu, cuda, cuda:1: where references solve that can.")] = "cpu",
    cache: Annotated[Path | None, Parameter(help="Folder of generated data (else RESOLVENT_CACHE).")] = None,
    dotted: Annotated[Mapping[str, Mapping[str, Any]], Parameter(show=False)] = {},
) -> int:
    """Generate a data set into the cache (or find it there) and print its folder.

    The values follow from the problem, the resolution and the seed, whatever the workers and wherever they run. A
    generation that was stopped or killed goes on with the same command.
    """
    module = registry.find_problem(pde)
    problem = registry.posed(module.build, problem_options(module.build, dotted.get("pde", {})))
    if preset not in problem.setups:
        raise ValueError(f"Problem {pde!r} has no preset {preset!r}, only {', '.join(problem.setups)}.")
    setup = problem.setups[preset]
    nodes: int | Sequence[int] = resolution[0] if len(resolution) == 1 else resolution or setup.resolution
    total = setup.train + setup.validation + setup.test if count is None else count
    with ConsoleReporter() as reporter:
        reporter.stage(f"generating {total} samples of {problem.name}", total)

        def progress(done: int, of: int, message: str) -> None:
            reporter.advance(done, message if "waiting" in message else f"{done} of {of} samples")
            if reporter.stopping():
                raise Interrupted(f"Generation stopped at {done} of {of} samples; complete shards are kept.")

        asked = {"resolution": nodes, "count": total, "seed": seed, "device": device}
        generate(problem, **asked, cache=cache, workers=workers, cluster=cluster, progress=progress)  # type: ignore[arg-type]
    sys.stdout.write(f"{cache_root(cache) / pose(problem, **asked).folder_name}\n")  # type: ignore[arg-type]
    return 0


def command(argv: Sequence[str]) -> Any:
    """The command for this command line: its dotted options are those of the named problem."""
    name = _named(argv)
    groups = []
    if name is not None:
        build = registry.find_problem(name).build
        groups = [OptionGroup("pde", f"Options of problem {name}", registry.options_of_problem(build), {})]
    by_keyword = command_with(generate_with, groups)

    def generating(*words: str, **values: Any) -> Any:
        return by_keyword(**dict(zip(("pde",), words, strict=False)), **values)

    generating.__signature__ = by_keyword.__signature__  # type: ignore[attr-defined]
    generating.__doc__ = by_keyword.__doc__
    return generating


def _named(argv: Sequence[str]) -> str | None:
    """The problem on the command line: the first word, or the value of ``--pde``."""
    for i, word in enumerate(argv):
        if word == "--pde" and i + 1 < len(argv):
            return argv[i + 1]
        if word.startswith("--pde="):
            return word.partition("=")[2]
    return argv[0] if argv and not argv[0].startswith("-") else None
