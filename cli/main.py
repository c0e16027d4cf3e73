"""The commands. Exit status: 0 done, 1 failed with a one-line reason, 2 wrong arguments, 130 stopped by the user."""

from __future__ import annotations

import shlex
import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import App, CycloptsError, Parameter

DONE, FAILED, WRONG, STOPPED = 0, 1, 2, 130


def main(argv: Sequence[str] | None = None) -> None:
    """``resolvent …``."""
    argv = sys.argv[1:] if argv is None else list(argv)
    if argv and argv[0] == "solve":
        sys.exit(_guarded(lambda: _solve(argv[1:], "resolvent solve")))
    if argv and argv[0] == "generate":
        sys.exit(_guarded(lambda: _generate(argv[1:])))
    if argv and argv[0] == "represent":
        sys.exit(_guarded(lambda: _represent(argv[1:])))
    if argv and argv[0] == "data":
        sys.exit(_guarded(lambda: _data(argv[1:])))
    if argv and argv[0] == "analyse":
        sys.exit(_guarded(lambda: _analyse(argv[1:])))
    sys.exit(_guarded(lambda: _run(_app(), argv)))


def solve_command(argv: Sequence[str] | None = None) -> None:
    """``solve …``, the command the suite is known by."""
    argv = sys.argv[1:] if argv is None else list(argv)
    sys.exit(_guarded(lambda: _solve(argv, "solve")))


def _solve(argv: Sequence[str], name: str) -> int:
    from ._solve import command

    app = App(name=name, help="Solve a PDE with a learned or direct solver, and say honestly how good the answer is.")
    app.default(command(argv))
    return _run(app, argv)


def _app() -> App:
    app = App(name="resolvent", help="Operator learning for partial differential equations.")
    app.command(_list, name="list")
    app.command(_doctor, name="doctor")
    app.command(_leaderboard, name="leaderboard")
    app.command(lambda: None, name="generate", help="Generate a data set into the cache and print its folder.")
    app.command(lambda: None, name="represent", help="Store gridded values as a field, small and continuous.")
    app.command(lambda: None, name="data", help="Look into files of samples (info), convert between formats (convert).")
    app.command(lambda: None, name="analyse", help="Koopman spectra, attractors, symbolic codes of trajectories.")
    app.command(lambda: None, name="solve", help="Train, judge and record a solver (same as the command `solve`).")
    return app


def _list() -> int:
    """Problems and models that can be named, with one line each."""
    from ..evaluation import registry

    for kind in ("problem", "model"):
        entries = registry.entries(kind)
        width = max((len(entry.name) for entry in entries), default=0)
        sys.stdout.write(f"{kind}s\n")
        for entry in entries:
            grids = f" ({entry.grids})" if entry.grids else ""
            sys.stdout.write(f"  {entry.name:<{width}}  {entry.origin:<9}  {_readable(entry.summary)}{grids}\n")
    return DONE


# docstrings speak LaTeX where pages are made of them; a terminal does not
_SIGNS = {
    **{r"\Delta ": "Δ", r"\nabla\cdot": "∇·", r"\nabla ": "∇", r"\mu": "μ", r"\omega": "ω"},
    **{r"\sin ": "sin ", r"\,": " "},
}


def _readable(summary: str) -> str:
    for sign, plain in {":math:`": "", "`": "", **_SIGNS}.items():
        summary = summary.replace(sign, plain)
    return summary


def _doctor() -> int:
    """Versions, device, threads and cache of this installation."""
    from ._doctor import doctor

    return doctor()


def _leaderboard(
    runs: Annotated[list[Path], Parameter(help="Run folders or run.json files.", consume_multiple=True)],
    *,
    metric: Annotated[str, Parameter(help="Metric to rank by.")] = "relative_l2",
    rivals: Annotated[bool, Parameter(help="Also list the solvers that runs were compared with.", negative="")] = False,
    format: Annotated[Literal["markdown", "csv"], Parameter(help="Output format.")] = "markdown",
) -> int:
    """A table from run records, best first; a pure function of them."""
    from ..evaluation import leaderboard, read_run

    records = [read_run(path) for path in runs]
    rows = leaderboard.leaderboard(records, metric=metric, rivals=rivals)
    sys.stdout.write(leaderboard.to_csv(rows) if format == "csv" else leaderboard.to_markdown(rows))
    return DONE


def _generate(argv: Sequence[str]) -> int:
    from ._generate import command

    app = App(name="resolvent generate", help="Trusted samples of a problem, here or on a cluster.")
    app.default(command(argv))
    return _run(app, argv)


def _represent(argv: Sequence[str]) -> int:
    from ._represent import command

    app = App(name="resolvent represent", help="Gridded values as a field: small, continuous, differentiable.")
    app.default(command(argv))
    return _run(app, argv)


def _data(argv: Sequence[str]) -> int:
    from ._data import app

    return _run(app(), argv)


def _analyse(argv: Sequence[str]) -> int:
    from ._analyse import app

    return _run(app(), argv)


def _run(app: App, argv: Sequence[str]) -> int:
    try:
        result = app(argv, exit_on_error=False, print_error=False, result_action="return_value")
    except CycloptsError as error:
        return _complain(str(error), WRONG)
    return result if isinstance(result, int) else DONE


def _guarded(work: Callable[[], int]) -> int:
    """Every known failure in one line; a bug keeps its traceback."""
    sys.path.append("")  # so that --model my_module finds a module of the working directory
    usual, warnings.formatwarning = warnings.formatwarning, _one_line
    try:
        return work()
    except KeyboardInterrupt as error:
        return _stopped(error)
    except Exception as error:
        return _told(error)
    finally:
        warnings.formatwarning = usual


def _one_line(
    message: Warning | str, category: type[Warning], filename: str, lineno: int, line: str | None = None
) -> str:
    """What a reader has to say about a file is for its user; any other warning keeps its place in the code."""
    from ..data.formats import FormatWarning

    if issubclass(category, FormatWarning):
        return f"Note: {message}\n"
    return f"{filename}:{lineno}: {category.__name__}: {message}\n"


def _told(error: Exception) -> int:
    # imported here, so that `resolvent list` does not wait for what only failures need
    from ..data import DamagedData, UnknownFormat
    from ..evaluation import DamagedModel, DamagedRun, UnknownName
    from ..pde import SolverError
    from ..training import DamagedCheckpoint, Diverged, Interrupted

    if isinstance(error, Interrupted):
        return _stopped(error)
    if isinstance(error, OSError) and error.strerror:
        return _complain(f"{error.strerror}{': ' + str(error.filename) if error.filename else ''}", FAILED)
    damaged = (DamagedModel, DamagedRun, DamagedCheckpoint, DamagedData)
    if isinstance(error, (*damaged, UnknownFormat, Diverged, SolverError, OSError)):
        return _complain(str(error), FAILED)
    if isinstance(error, UnknownName | ValueError):
        return _complain(str(error), WRONG)
    raise error


def _stopped(error: BaseException) -> int:
    again = shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]])
    return _complain(f"{error or 'Stopped.'} Resume with: {again}", STOPPED)


def _complain(text: str, status: int) -> int:
    sys.stderr.write(" ".join(text.split()) + "\n")
    return status
