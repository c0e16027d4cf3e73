"""Generating data: samples a second of every problem, beside the published algorithms and beside exponax.

Goals, one thread, double precision:

1. every problem of ``resolvent list`` is generated at its quick set-up; the table says how fast;
2. faster than the algorithm its published data were made with, where that is known;
3. not slower than exponax at equal accuracy, on the problems that both have.

*Throughput*: CPU time of drawing and solving, with frames, as ``resolvent generate`` does it on one worker. *Published*
algorithms are written here afresh: Navier-Stokes is that of ``navier_stokes_generation.py``; Burgers is Chebfun's spin,
ETDRK4 with step 1e-4 on 8192 nodes (here with real transforms, which halve its work), from states that 1024 nodes
carry; Darcy is the five-point scheme with arithmetic faces on 421² nodes and a sparse direct solve (SuperLU,
symmetrically ordered and without pivoting; the original is MATLAB's backslash), ours the same equations. Their time is
measured on slices of steps taken in turn with ours and extrapolated linearly to all of them.

*exponax*, in the environment named by ``--exponax PYTHON`` (its strongest use: ``_exponax_worker.py``): same equation,
states, nodes and final time. The truth is our solver at tolerance 1e-9 on as many nodes as it
needs; for Navier-Stokes on the nodes given, from states smooth enough that it does not matter which modes the edge of
the 2/3 rule keeps. For both sides the cheapest setting is searched that has every sample within the target: of
exponax order, nodes and number of steps, of ours tolerance and nodes, or a number of equal steps. Both stay compiled
and warm (ours keeps the coefficients of its steps) and are timed in turn; the least of the rounds counts.

    python benchmarks/generate.py [--check] [--json] [--exponax PYTHON] [--rounds 3] [--seconds 0.5] [--quick]
                                  [--only burgers …]
"""

from __future__ import annotations

import argparse
import datetime
import json
import math
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse
import scipy.sparse.linalg
import torch
from navier_stokes_generation import (
    BATCH,
    HORIZON,
    PUBLISHED_STEP,
    SIZE,
    SLICE,
    VISCOSITIES,
    Published,
    cpu_seconds,
    errors,
    starts,
)
from resolvent.evaluation import registry
from resolvent.evaluation._machine import machine, versions
from resolvent.pde import Problem, Solver
from resolvent.pde._etdrk import exponential_step
from resolvent.pde._periodic import PeriodicEvolution
from resolvent.pde._refined import RefinedEvolution
from resolvent.pde._solver import SolverError
from resolvent.pde._spectral import fourier_resample, modes_of
from resolvent.pde.advection import Advection
from resolvent.pde.advection_diffusion import AdvectionDiffusion
from resolvent.pde.allen_cahn import AllenCahn
from resolvent.pde.burgers import Burgers
from resolvent.pde.darcy import Darcy
from resolvent.pde.fisher_kpp import FisherKPP
from resolvent.pde.gray_scott import GrayScott
from resolvent.pde.heat import Heat
from resolvent.pde.kdv import KortewegDeVries
from resolvent.pde.kuramoto_sivashinsky import KuramotoSivashinsky
from resolvent.pde.navier_stokes import NavierStokes
from resolvent.pde.swift_hohenberg import SwiftHohenberg
from resolvent.pde.wave import Wave
from torch import Tensor

SEED = 7193
GROUP = 256  # samples solved together, as in data/generate.py
SPIN_NODES, SPIN_STEP, SPIN_SLICE = 8192, 1e-4, 200
DARCY_NODES, DARCY_TOLERANCE = 421, 1e-7
TRUTH = 1e-9  # tolerance; what it leaves is a thousandth of the smaller target at most
TARGETS = (1e-4, 1e-6)
TOLERANCES = tuple(10 ** (-k / 2) for k in range(17))  # 1 … 1e-8
MOST_STEPS = 2**12
BISECTIONS = 3  # of a fixed number of steps between failing and enough, on either side


def draw(problem: Problem, nodes: int, count: int) -> tuple[Tensor, Any]:
    grid = problem.grid(nodes)
    return problem.sample(count, grid, generator=torch.Generator().manual_seed(SEED)), grid


# ---------------------------------------------------------------------- throughput


def throughput(name: str, *, rounds: int, seconds: float) -> dict[str, Any]:
    """The least CPU time a sample over the rounds, of as many samples as take some seconds."""
    problem = registry.find_problem(name).build()
    nodes = problem.setups["quick"].resolution

    def make(count: int) -> None:
        inputs, grid = draw(problem, nodes, count)
        problem.reference()(inputs, grid)

    make(1)
    once = cpu_seconds(lambda: make(1))
    count = max(1, min(GROUP, int(seconds / max(once, 1e-9))))
    per_sample = min(cpu_seconds(lambda: make(count)) / count for _ in range(rounds))
    shape = "x".join(str(n) for n in problem.grid(nodes).shape)
    frames = problem.signature.frames
    return {"problem": name, "nodes": shape, "frames": frames, "count": count, "samples_per_s": 1 / per_sample}


# ---------------------------------------------------------------------- published algorithms


def in_turn(ours: Callable[[], object], theirs: Callable[[], object], rounds: int) -> tuple[float, float]:
    """The least CPU seconds of either, taken in turn; the first round warms up."""
    pairs = [(cpu_seconds(ours), cpu_seconds(theirs)) for _ in range(rounds + 1)][1:]
    return min(pair[0] for pair in pairs), min(pair[1] for pair in pairs)


def published_navier_stokes(viscosity: float, rounds: int) -> dict[str, Any]:
    problem = NavierStokes(viscosity=viscosity, frames=HORIZON)
    grid = problem.grid(SIZE)
    w = starts(problem, grid, BATCH)
    theirs = Published(SIZE, viscosity, PUBLISHED_STEP)
    ours_s, slice_s = in_turn(lambda: problem.reference()(w, grid), lambda: theirs.advance(w[:, 0], SLICE), rounds)
    theirs_s = slice_s * HORIZON / PUBLISHED_STEP / SLICE
    return row(f"navier_stokes, viscosity {viscosity:g}, {SIZE}²", ours_s / BATCH, theirs_s / BATCH)


def published_burgers(rounds: int, count: int = 16) -> dict[str, Any]:
    """From 1024 nodes' states to t = 1, the paper's set-up; errors against tolerance 1e-9 (spin's: of a full run)."""
    problem = Burgers()
    u, grid = draw(problem, problem.setups["paper"].resolution, count)
    fine = fourier_resample(u, (SPIN_NODES,))
    modes = modes_of(grid.at(SPIN_NODES), fine)
    step = exponential_step("etdrk4", problem.symbol(modes), SPIN_STEP)
    half_derivative = -0.5 * modes.ik[0]  # spin does not dealias

    def nonlinear(spectrum: Tensor) -> Tensor:
        return modes.forward(modes.inverse(spectrum).square_()) * half_derivative

    def advance(states: Tensor, steps: int) -> Tensor:
        spectrum = modes.forward(states)
        for _ in range(steps):
            spectrum = step(spectrum, nonlinear)
        return modes.inverse(spectrum)

    steps = round(1 / SPIN_STEP)
    ours_s, slice_s = in_turn(lambda: problem.reference()(u, grid), lambda: advance(fine, SPIN_SLICE), rounds)
    truth = problem.reference(tolerance=TRUTH)(u, grid)[:, 0]
    stride = SPIN_NODES // grid.size
    return {
        **row("burgers, 1024 nodes, t = 1", ours_s / count, slice_s * steps / SPIN_SLICE / count),
        "our_error": max(errors(problem.reference()(u, grid)[:, 0], truth)),
        "published_error": max(errors(advance(fine[:1], steps)[..., ::stride], truth[:1])),
    }


def published_darcy(rounds: int) -> dict[str, Any]:
    problem = Darcy(faces="arithmetic")
    a, grid = draw(problem, DARCY_NODES, 1)
    ours_s, theirs_s = in_turn(lambda: problem.reference()(a, grid), lambda: five_points(a[0, 0].numpy()), rounds)
    direct = torch.from_numpy(five_points(a[0, 0].numpy()))
    difference = errors(problem.reference()(a, grid)[:, 0], direct[None])[0]
    if difference > DARCY_TOLERANCE:
        raise RuntimeError(f"The two Darcy solutions should be equal to {DARCY_TOLERANCE:g}; they differ {difference}.")
    return {**row(f"darcy, {DARCY_NODES}²", ours_s, theirs_s), "difference": difference}


def five_points(a: np.ndarray, source: float = 1.0) -> np.ndarray:
    """-div(a grad u) = source on the unit square, arithmetic means at the faces, u = 0 around; solved directly."""
    n = len(a)
    number = np.arange((n - 2) ** 2).reshape(n - 2, n - 2)
    x_faces = 0.5 * (a[1:, 1:-1] + a[:-1, 1:-1])
    y_faces = 0.5 * (a[1:-1, 1:] + a[1:-1, :-1])
    diagonal = x_faces[1:] + x_faces[:-1] + y_faces[:, 1:] + y_faces[:, :-1]
    links = [(number[1:], number[:-1], x_faces[1:-1]), (number[:, 1:], number[:, :-1], y_faces[:, 1:-1])]
    rows = [number.ravel()] + [part.ravel() for one, other, _ in links for part in (one, other)]
    columns = [number.ravel()] + [part.ravel() for one, other, _ in links for part in (other, one)]
    values = [diagonal.ravel()] + [-face.ravel() for _, _, face in links for _ in range(2)]
    entries = (np.concatenate(values), (np.concatenate(rows), np.concatenate(columns)))
    matrix = scipy.sparse.csc_matrix(entries, shape=(number.size,) * 2) * (n - 1) ** 2
    how = {"permc_spec": "MMD_AT_PLUS_A", "diag_pivot_thresh": 0.0, "options": {"SymmetricMode": True}}
    inside = scipy.sparse.linalg.splu(matrix, **how).solve(np.full(number.size, source))
    return np.pad(inside.reshape(number.shape), 1)


def row(what: str, ours: float, theirs: float) -> dict[str, Any]:
    return {"what": what, "ours_s": ours, "published_s": theirs, "ratio": theirs / ours}


# ---------------------------------------------------------------------- exponax


@dataclass(frozen=True)
class Shared:
    """A problem that exponax has too: its stepper and the options that make the equations the same."""

    problem: Any
    stepper: str
    options: dict[str, Any]
    nodes: int
    time: float
    count: int  # samples, all at once
    first: int = 4  # steps from which the search for theirs starts
    orders: Sequence[int] = (2, 3, 4)
    label: str = ""
    same_nodes: bool = False  # the truth is that of the semi-discrete equations on the nodes given

    @property
    def name(self) -> str:
        return self.label or self.problem.name

    @property
    def linear(self) -> bool:
        return self.problem.linear


def _linear(problem: Any, stepper: str, options: dict[str, Any]) -> Shared:
    """Exact on either side, so a single step of theirs is enough."""
    return Shared(problem, stepper, options, 64, 1.0, GROUP, first=1, orders=(0,))


SHARED = (
    _linear(Advection(), "Advection", {"velocity": 1.0}),
    _linear(AdvectionDiffusion(), "AdvectionDiffusion", {"velocity": 1.0, "diffusivity": 0.01}),
    _linear(Heat(), "Diffusion", {"diffusivity": Heat().diffusivity}),
    _linear(Wave(), "Wave", {"speed_of_sound": 1.0}),
    Shared(Burgers(), "Burgers", {"diffusivity": 0.1, "conservative": True}, 128, 1.0, GROUP),
    Shared(
        KortewegDeVries(),
        "KortewegDeVries",
        {
            **{"convection_scale": 1.0, "dispersivity": 0.022**2, "hyper_diffusivity": 0.0},
            **{"conservative": True},
        },
        *(256, 1.0, 128, 32),
    ),
    Shared(KuramotoSivashinsky(), "KuramotoSivashinskyConservative", {}, 128, 10.0, GROUP, 16),
    Shared(FisherKPP(), "reaction.FisherKPP", {"diffusivity": 1e-3, "reactivity": 1.0}, 64, 5.0, GROUP),
    Shared(AllenCahn(), "reaction.AllenCahn", {"diffusivity": 1e-3}, 128, 5.0, GROUP),
    Shared(
        SwiftHohenberg(),
        "reaction.SwiftHohenberg",
        {"reactivity": 0.7, "critical_number": 1.0, "polynomial_coefficients": [0.0, 0.0, 1.0, -1.0]},
        *(64, 5.0, GROUP),
    ),
    Shared(
        GrayScott(diffusivity_a=2e-4, diffusivity_b=1e-4),  # fronts that some 128² nodes resolve to the truth's digits
        "reaction.GrayScott",
        {"diffusivity_1": 2e-4, "diffusivity_2": 1e-4, "feed_rate": 0.029, "kill_rate": 0.057},
        *(64, 100.0, 8, 16),
    ),
    Shared(
        NavierStokes(forcing="none", alpha=6.0),
        "NavierStokesVorticity",
        {"diffusivity": 1e-3, "vorticity_convection_scale": -1.0},  # its stream function has the other sign
        *(64, 10.0, 8, 16),
        label="navier_stokes, free",
        same_nodes=True,
    ),
    Shared(
        NavierStokes(forcing="kolmogorov", viscosity=0.05, alpha=6.0, tau=3.0),
        "KolmogorovFlowVorticity",
        {"diffusivity": 0.05, "drag": 0.0, "injection_mode": 4, "convection_scale": -1.0},
        *(64, 5.0, 8, 16),
        label="navier_stokes, Kolmogorov flow",
        same_nodes=True,
    ),
)


class Worker:
    """The other environment, one JSON line to ask and one to answer."""

    def __init__(self, python: str) -> None:
        command = [python, str(Path(__file__).with_name("_exponax_worker.py"))]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.versions = self._answer()

    def ask(self, **request: Any) -> dict[str, Any]:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError("The exponax worker ended; see its message above. Does that environment have exponax?")
        return json.loads(line)

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait(timeout=30)


@dataclass
class Ours:
    """The cheapest of our settings that reaches the target."""

    solver: Solver | None = None
    cpu_s: float = math.inf
    said: dict[str, Any] = field(default_factory=dict)


def solvers(shared: Shared, tolerance: float) -> dict[str, Solver]:
    """On the nodes given, and on as many as the solution needs."""
    return {
        "given": PeriodicEvolution(shared.problem, tolerance=tolerance),
        "auto": RefinedEvolution(shared.problem, tolerance=tolerance),
    }


def truth_of(shared: Shared, u: Tensor, grid: Any) -> Tensor:
    solver = shared.problem.reference()
    if shared.same_nodes:
        solver = PeriodicEvolution(shared.problem, tolerance=TRUTH)
    elif not shared.linear:
        solver = RefinedEvolution(shared.problem, tolerance=TRUTH)
    return solver(u, grid, (shared.time,))[:, 0]


def find_ours(shared: Shared, u: Tensor, grid: Any, truth: Tensor, target: float) -> Ours:
    """Of chosen steps, for each choice of nodes the loosest tolerance that is good enough, and of fixed steps the
    fewest: the cheapest.
    """
    if shared.linear:
        return Ours(shared.problem.reference(), said={"setting": "exact", "error": 0.0})

    def error_of(solver: Solver) -> float:
        try:
            return max(errors(solver(u, grid, (shared.time,))[:, 0], truth))
        except SolverError:  # steps too long for stability
            return math.inf

    found = [_fewest_steps(shared, target, error_of)]
    for nodes in ("given",) if shared.same_nodes else ("given", "auto"):
        tried = ((tol, solvers(shared, tol)[nodes]) for tol in TOLERANCES)
        judged = ((tol, solver, error_of(solver)) for tol, solver in tried)
        enough = next(((tol, solver, error) for tol, solver, error in judged if error <= target), None)
        if enough is not None:
            tol, solver, error = enough
            found.append(Ours(solver, said={"setting": f"{nodes} nodes, tolerance {tol:.0e}", "error": error}))
    for one in found:
        if one.solver is not None:
            one.cpu_s = min(repeated(lambda s=one.solver: s(u, grid, (shared.time,))) for _ in range(2))
    return min(found, key=lambda one: one.cpu_s)


def _fewest_steps(shared: Shared, target: float, error_of: Callable[[Solver], float]) -> Ours:
    """Equal steps on the nodes given, searched as the worker searches theirs."""

    def at(steps: int) -> tuple[Solver, float]:
        solver = PeriodicEvolution(shared.problem, step=shared.time / steps)
        return solver, error_of(solver)

    steps, last = shared.first, math.inf
    solver, error = at(steps)
    while error > target:
        if steps >= MOST_STEPS or 0.7 * last < error < 1e-2:  # no longer falling: the nodes
            return Ours()
        last, steps = error, 2 * steps
        solver, error = at(steps)
    fails, best = steps // 2, (steps, solver, error)
    for _ in range(BISECTIONS):
        middle = round(math.sqrt(fails * best[0]))
        if middle in (fails, best[0]):
            break
        solver, error = at(middle)
        if error <= target:
            best = (middle, solver, error)
        else:
            fails = middle
    return Ours(best[1], said={"setting": f"given nodes, {best[0]} steps", "error": best[2]})


def beside_exponax(
    shared: Shared, worker: Worker, rounds: int, folder: Path, targets: Sequence[float] = TARGETS
) -> list[dict[str, Any]]:
    u, grid = draw(shared.problem, shared.nodes, shared.count)
    if shared.same_nodes:
        modes = modes_of(grid, u)
        u = modes.inverse(modes.kept * modes.forward(u))
    truth = truth_of(shared, u, grid)
    rows = []
    for target in targets[:1] if shared.linear else targets:
        rows.append(_at_equal_accuracy(shared, worker, u, grid, truth, target, rounds, folder))
        print(_exponax_line(rows[-1]), file=sys.stderr, flush=True)  # the search takes minutes a row
    return rows


def _at_equal_accuracy(
    shared: Shared, worker: Worker, u: Tensor, grid: Any, truth: Tensor, target: float, rounds: int, folder: Path
) -> dict[str, Any]:
    np.save(folder / "states.npy", u.numpy())
    np.save(folder / "truth.npy", truth.numpy())
    theirs = worker.ask(
        **{"do": "find", "stepper": shared.stepper, "options": shared.options, "dim": grid.dim},
        **{"length": grid.lengths[0], "nodes": shared.nodes, "time": shared.time, "orders": list(shared.orders)},
        **{"first": shared.first, "target": target, "factors": [1] if shared.same_nodes else [1, 2, 4]},
        **{"states": str(folder / "states.npy"), "truth": str(folder / "truth.npy")},
    )
    ours = find_ours(shared, u, grid, truth, target)
    told = {"problem": shared.name, "nodes": shared.nodes, "count": shared.count, "target": target}
    told |= {"ours": ours.said, "theirs": theirs, "ratio": math.nan}
    if ours.solver is None or not theirs["found"]:
        return told
    solver, per_ours, per_theirs = ours.solver, [], []
    for _ in range(rounds):
        per_ours.append(repeated(lambda: solver(u, grid, (shared.time,))))
        per_theirs.append(worker.ask(do="time")["cpu_s"])
    told |= {"ours_s": min(per_ours) / shared.count, "theirs_s": min(per_theirs) / shared.count}
    return {**told, "ratio": min(per_theirs) / min(per_ours)}


def repeated(action: Callable[[], object], at_least: float = 0.05) -> float:
    """CPU seconds of one call, of as many in a row as take a while."""
    count = 1
    while True:
        spent = cpu_seconds(lambda n=count: [action() for _ in range(n)])
        if spent >= at_least:
            return spent / count
        count *= 2


# ---------------------------------------------------------------------- report


def table(found: dict[str, list[dict[str, Any]]]) -> str:
    lines = ["| problem | nodes | frames | samples/s |", "|---|---|---|---|"]
    lines += [
        f"| {r['problem']} | {r['nodes']} | {r['frames'] or '-'} | {r['samples_per_s']:.3g} |"
        for r in found["throughput"]
    ]
    lines += ["", "| problem | ours [s] | published algorithm [s] | ratio |", "|---|---|---|---|"]
    lines += [
        f"| {r['what']} | {r['ours_s']:.3g} | {r['published_s']:.3g} | {r['ratio']:.3g} |" for r in found["published"]
    ]
    if found["exponax"]:
        lines += ["", "| problem | error | ours [ms] | our setting | exponax [ms] | its setting | ratio |"]
        lines += ["|---|---|---|---|---|---|---|", *(_exponax_line(r) for r in found["exponax"])]
    return "\n".join(lines)


def _exponax_line(r: dict[str, Any]) -> str:
    mine = r["ours"].get("setting", "none")
    exact = mine == "exact"
    theirs = r["theirs"]
    its = f"order {theirs['order']}, {theirs['nodes']} nodes, {theirs['steps']} steps" if theirs["found"] else "none"
    times = (1e3 * r.get(side, math.nan) for side in ("ours_s", "theirs_s"))
    ours_ms, theirs_ms = (f"{value:.3g}" for value in times)
    error = "exact" if exact else f"{r['target']:.0e}"
    return f"| {r['problem']} | {error} | {ours_ms} | {mine} | {theirs_ms} | {its} | {r['ratio']:.2f} |"


def missed(found: dict[str, list[dict[str, Any]]]) -> str:
    """The first goal that falls short, in words; empty if none."""
    for r in found["published"]:
        if not r["ratio"] > 1:
            return f"{r['what']} is {r['ratio']:.2g} times as fast as the published algorithm"
    for r in found["exponax"]:
        if not r["ratio"] >= 1:
            return f"{r['problem']} at error {r['target']:g} is {r['ratio']:.2f} times as fast as exponax"
    return ""


def measure(given: argparse.Namespace) -> tuple[dict[str, list[dict[str, Any]]], dict[str, str]]:
    wanted = given.only or registry.problems()
    found: dict[str, list[dict[str, Any]]] = {"published": [], "exponax": [], "throughput": []}
    found["throughput"] = [throughput(name, rounds=given.rounds, seconds=given.seconds) for name in wanted]
    if "navier_stokes" in wanted:
        found["published"] += [published_navier_stokes(nu, given.rounds) for nu in VISCOSITIES]
    if "burgers" in wanted:
        found["published"].append(published_burgers(given.rounds))
    if "darcy" in wanted:
        found["published"].append(published_darcy(given.rounds))
    if not given.exponax:
        return found, {}
    worker = Worker(given.exponax)
    with tempfile.TemporaryDirectory() as folder:
        for shared in SHARED:
            if shared.problem.name in wanted:
                targets = TARGETS[:1] if given.quick else TARGETS
                found["exponax"] += beside_exponax(shared, worker, given.rounds, Path(folder), targets)
    worker.close()
    return found, worker.versions


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="exit 1 naming the first goal that falls short")
    parser.add_argument("--json", action="store_true", help="write benchmarks/results/generate.json and .md")
    parser.add_argument("--exponax", metavar="PYTHON", help="interpreter of an environment that has exponax")
    parser.add_argument("--rounds", type=int, default=3, help="rounds of timing")
    parser.add_argument("--seconds", type=float, default=0.5, help="CPU time of a round of throughput, about")
    parser.add_argument("--only", nargs="+", metavar="PROBLEM", help="these problems (default: all)")
    parser.add_argument("--quick", action="store_true", help="the larger error only, two rounds")
    given = parser.parse_args()
    given.rounds = min(given.rounds, 2) if given.quick else given.rounds
    torch.set_num_threads(1)
    started = time.perf_counter()
    found, theirs = measure(given)
    text = table(found)
    print(text)
    if given.json:
        _write(found, text, theirs, time.perf_counter() - started)
    short = missed(found)
    if short:
        print(f"Goal missed: {short}.", file=sys.stderr)
    return 1 if given.check and short else 0


def _write(found: dict[str, list[dict[str, Any]]], text: str, theirs: dict[str, str], seconds: float) -> None:
    folder = Path(__file__).parent / "results"
    told = {
        "benchmark": "generate",
        "date": datetime.date.today().isoformat(),
        "machine": machine(),
        "versions": {**versions(), **theirs},
        "seed": SEED,
        "wall_s": seconds,
        **found,
    }
    (folder / "generate.json").write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")
    other = "".join(f"; {name} {version}" for name, version in theirs.items())
    head = (
        f"{told['machine']}; torch {torch.__version__}{other}; seed {SEED}; {told['date']}. CPU time of one thread, "
        "float64, the least of rounds taken in turn. First table: drawing and solving at each problem's quick set-up. "
        "Second: a sample, both sides; the published algorithms are extrapolated from slices of their steps. Third: "
        "milliseconds a sample at the final time, each side with the cheapest setting found that has every sample "
        "within the error; ratio is exponax / ours.\n\n"
    )
    (folder / "generate.md").write_text("# Generating data\n\n" + head + text + "\n", encoding="utf-8")


if __name__ == "__main__":
    raise SystemExit(main())
