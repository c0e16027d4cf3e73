"""Learned dynamics that are cheap to solve: regularisers, the integrator beside torchdiffeq, irregular series.

Goals (means over three seeds):

annuli      evaluations at most 0.40 of the unregularised model's for ERNODE and for the corrected local form, accuracy
            within 0.5 points; the released local form at weight 100 destroys training (accuracy below 0.9), the
            corrected one at the same weight does not
digits      scikit-learn's digits: at most 0.60 within 1 point of accuracy; prediction at least 1.5 times faster,
            training time at most 1.2 times
path        one path of the spiral at 30 times (the published set-up without noise): at most 0.60 at equal error
spiral      the spiral by ``neural_ode`` from all over the plane: at most 0.60 at equal error by the best weight (a flow
            through every state is the equation itself, whose evaluations are in the first row)
sde         the stochastic spiral: fewer steps at equal loss
integrator  not slower than torchdiffeq on its examples, at least 1.5 times faster where steps per sample help
latent      irregular series: the latent ODE, refined or not, below linear interpolation and a GRU of as many parameters
            and more time, between the observations and beyond them

Equal: the mean over seeds is at most 1.1 times that of the unregularised model, or within its standard deviation.
The page also has the tables of ``order_reduction.py`` and ``lorenz.py``.

    python benchmarks/dynamics.py [--only TASK ...] [--seeds 0 1 2] [--seconds N] [--quick] [--check]

One thread; processor seconds. A row is written to ``benchmarks/results/dynamics.json`` when it is done and not repeated
(``--seconds``: no row is begun after so many); delete the file to start afresh. ``--quick`` writes elsewhere.
"""

from __future__ import annotations

import argparse
import datetime
import json
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parent))
import _dynamics_series as series
import _dynamics_tasks as tasks

RESULTS = Path(__file__).parent / "results" / "dynamics.json"
TASKS: dict[str, tuple[str, ...]] = {
    "annuli": ("none", "ERNODE", "local", "local, weight 100", "local, released", "SRNODE"),
    "digits": ("none", "ERNODE", "local"),
    "path": (
        "the equation itself",
        "the equation as an integral",
        "a path for few steps",
        "none",
        "ERNODE",
        "ERNODE, twice the steps",
        "local",
    ),
    "spiral": (
        "the equation itself",
        "none",
        *(f"{word} {weight}" for word in ("ERNODE", "local") for weight in ("0.1", "1", "10")),
    ),
    "sde": ("the equation itself", "none", "ERNODE", "ERNODE, constant 1", "local"),
    "integrator": (
        "its spiral demo",
        "its network",
        "128 oscillators, mu 1 to 10",
        "512 oscillators, mu 0.1 to 30",
        "512 intervals of length 0.1 to 30, one network",
    ),
    "latent": ("linear interpolation", "GRU", "latent ODE", "latent ODE, refined"),
}
SHOWN = {
    "annuli": ("accuracy", "accuracy_tight", "evaluations", "predict", "train"),
    "digits": ("accuracy", "accuracy_tight", "evaluations", "predict", "train"),
    "path": ("error", "evaluations", "train"),
    "spiral": ("error", "evaluations", "predict", "train"),
    "sde": ("loss", "steps", "train"),
    "integrator": ("ours", "staying", "torchdiffeq", "error_ours", "error_torchdiffeq"),
    "latent": ("error", "beyond", "train", "predict"),
}
SAID = {
    "annuli": "Tolerance 1e-5, 2000 test points in one batch; `accuracy_tight` is solved to 1e-10.",
    "digits": "347 test images in one batch, tolerance 1e-5.",
    "path": "From (2, 0) at 30 times on [0, 1], tolerance 1e-5; the error is that between the times of training. First "
    "rows: the true field; its slope as a function of time alone; and a slope in time that is trained for few steps at "
    "an error like that of the models, which says what there is to gain.",
    "spiral": "32 test trajectories of 50 frames in one batch, tolerance 1e-5; the number is the weight. The true "
    "field takes as many evaluations as the one learned without a regulariser: nothing can be saved at equal error.",
    "sde": "Moments of 100 paths at 30 times, tolerance 3e-3; steps are those of fresh paths to the end.",
    "integrator": "Processor seconds, least of some runs, `dopri5` at equal tolerance. `staying`: ours where samples "
    "that have arrived stay in the batch. Errors are root mean squares in deviations: one step for all is chosen by "
    "the mean over the batch, which a hard member among many hardly moves.",
    "latent": "Van der Pol's oscillator, 11 of 51 times observed with noise 0.05 (a fortieth of the deviation), 200 "
    "series to learn from: errors in deviations at all 51 times, and at 25 `beyond` the last observation. `predict`: "
    "seconds for 100 series. `refined`: the same training, then 60 updates of each series' start.",
}


def row(task: str, variant: str, seed: int, quick: bool) -> dict[str, Any]:
    if task == "annuli":
        return tasks.annuli_row(variant, seed, steps=4 if quick else 300)
    if task == "digits":
        return tasks.digits_row(variant, seed, steps=4 if quick else 400)
    if task == "sde":
        return tasks.sde_row(variant, seed, steps=2 if quick else 250)
    if task == "integrator":
        return tasks.integrator_row(variant, seed, repeats=1 if quick else 3)
    if task == "path":
        return tasks.path_row(variant, seed, steps=2 if quick else 500)
    if task == "spiral":
        return series.spiral_row(variant, seed, epochs=1 if quick else 20)
    return series.latent_row(variant, seed, seconds=1.0 if quick else 120.0, epochs=1 if quick else 1200)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=list(TASKS), default=list(TASKS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--seconds", type=float, default=float("inf"))
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--figures", type=Path, help="folder for evaluations against accuracy, steps and stiffness")
    given = parser.parse_args()
    torch.set_num_threads(1)
    path = Path(tempfile.mkdtemp()) / "dynamics.json" if given.quick else RESULTS
    kept: dict[str, dict[str, Any]] = json.loads(path.read_text()) if path.exists() else {}
    begun = time.monotonic()
    for task in given.only:
        for seed in given.seeds:
            for variant in TASKS[task]:
                key = f"{task}: {variant}: {seed}"
                if key in kept or time.monotonic() - begun > given.seconds:
                    continue
                kept[key] = {**row(task, variant, seed, given.quick), "made": made()}
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(json.dumps(kept, indent=1) + "\n")
                print(key, {k: v for k, v in kept[key].items() if k in SHOWN[task]}, file=sys.stderr, flush=True)
    print(told(kept))
    if not given.quick:
        published()
    if given.figures is not None:
        drawn(kept, given.figures)
    missed = misses(kept)
    for line in missed:
        print(f"Goal missed: {line}.", file=sys.stderr)
    return 1 if given.check and missed else 0


def made() -> dict[str, str]:
    """By what, when."""
    names = ("torch", "torchdiffeq", "scikit-learn", "resolvent")
    return {**{name: version(name) for name in names}, "machine": f"{platform.processor() or platform.machine()}, "
            f"{platform.system()}, one thread", "date": datetime.date.today().isoformat()}  # fmt: skip


def values(kept: Mapping[str, Mapping[str, Any]], task: str, variant: str, name: str) -> list[float]:
    start = f"{task}: {variant}: "
    return [float(found[name]) for key, found in kept.items() if key.startswith(start) and name in found]


def told(kept: Mapping[str, Mapping[str, Any]]) -> str:
    """The tables: mean ± spread (standard deviation over seeds)."""
    lines = [
        "# Learned dynamics",
        "",
        "Mean ± standard deviation over seeds. `python benchmarks/dynamics.py --check`.",
        "",
    ]
    for task, variants in TASKS.items():
        rows = [variant for variant in variants if any(key.startswith(f"{task}: {variant}: ") for key in kept)]
        if not rows:
            continue
        lines += [
            f"## {task}",
            "",
            SAID[task],
            "",
            f"| | {' | '.join(SHOWN[task])} | seeds |",
            "|---" * (len(SHOWN[task]) + 2) + "|",
        ]
        for variant in rows:
            found = [values(kept, task, variant, name) for name in SHOWN[task]]
            cells = [_cell(each) for each in found]
            lines.append(f"| {variant} | {' | '.join(cells)} | {len(found[0])} |")
        lines.append("")
    if kept:
        lines += [f"Made with {json.dumps(list(kept.values())[-1]['made'])}; seconds are of the processor.", ""]
    missed = misses(kept)
    lines += ["Goals missed: " + "; ".join(missed) + "." if missed else "No goal is missed by the rows above.", ""]
    return "\n".join(lines)


def published() -> None:
    """``dynamics.md``: the tables of this benchmark and of its two neighbours, from the rows that are there."""
    import lorenz
    import order_reduction

    parts = [told(json.loads(RESULTS.read_text()))] if RESULTS.exists() else []
    for neighbour in (order_reduction, lorenz):
        if neighbour.RESULTS.exists():
            parts.append(neighbour.told(json.loads(neighbour.RESULTS.read_text())))
    RESULTS.with_suffix(".md").write_text("\n".join(parts))


def drawn(kept: Mapping[str, Mapping[str, Any]], folder: Path) -> None:
    """What the rows say as a picture, and the steps of one stiff oscillation."""
    from resolvent.dynamics import odeint
    from resolvent.dynamics._systems import van_der_pol
    from resolvent.evaluation.figures import save
    from resolvent.evaluation.trajectory_figures import steps_figure, work_figure

    names = [v for v in TASKS["annuli"] if v != "local, released" and values(kept, "annuli", v, "accuracy")]
    pairs = {v: (values(kept, "annuli", v, "evaluations"), values(kept, "annuli", v, "accuracy")) for v in names}
    if pairs:
        save(work_figure(pairs, title="Annuli: one point a seed"), folder / "dynamics-work.png")
    start = torch.tensor([[2.0, 0.0]], dtype=torch.float64)
    trace = odeint(van_der_pol(10.0), start, [0.0, 40.0], rtol=1e-6, atol=1e-6, trace=True).trace
    assert trace is not None
    assert trace.stiffness is not None
    columns = [part[:, 0].numpy() for part in (trace.time, trace.step, trace.error, trace.stiffness)]
    save(steps_figure(*columns, title="Van der Pol, mu = 10, tsit5 at 1e-6"), folder / "dynamics-steps.png")


def _cell(found: list[float]) -> str:
    spread = f" ± {statistics.stdev(found):.2g}" if len(found) > 1 else ""
    return f"{statistics.mean(found):.4g}{spread}" if found else ""


def misses(kept: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Goals that the rows at hand do not reach; rows that are not there say nothing."""
    found: list[str] = []

    def mean(task: str, variant: str, name: str) -> float:
        each = values(kept, task, variant, name)
        return statistics.mean(each) if each else float("nan")

    def claim(text: str, number: float, bound: float) -> None:
        if number > bound:  # false for what was not measured
            found.append(f"{text} is {number:.3g}, not at most {bound:.3g}")

    for task, share, points in (("annuli", 0.40, 0.005), ("digits", 0.60, 0.01)):
        for variant in ("ERNODE", "local"):
            base, own = (
                {n: mean(task, v, n) for n in ("accuracy", "evaluations", "predict", "train")}
                for v in ("none", variant)
            )
            claim(f"{task}, {variant}: evaluations", own["evaluations"] / base["evaluations"], share)
            claim(f"{task}, {variant}: loss of accuracy", base["accuracy"] - own["accuracy"], points)
            claim(f"{task}, {variant}: seconds of a prediction", own["predict"] / base["predict"], 1 / 1.5)
            claim(f"{task}, {variant}: training time", own["train"] / base["train"], 1.2)
    claim("annuli: accuracy of the released form", mean("annuli", "local, released", "accuracy"), 0.9)
    claim(
        "annuli: error of the corrected form at its weight", 1 - mean("annuli", "local, weight 100", "accuracy"), 0.05
    )
    for variant in ("ERNODE", "local"):
        for task, cost, loss, share in (("path", "evaluations", "error", 0.60), ("sde", "steps", "loss", 0.999)):
            claim(f"{task}, {variant}: {cost}", mean(task, variant, cost) / mean(task, "none", cost), share)
            plain = values(kept, task, "none", loss)
            spread = statistics.stdev(plain) / statistics.mean(plain) if len(plain) > 1 else 0.0
            claim(
                f"{task}, {variant}: {loss}", mean(task, variant, loss) / mean(task, "none", loss), 1 + max(0.1, spread)
            )
    for word in ("ERNODE", "local"):
        shares = [1.0]  # none at all
        for variant in (name for name in TASKS["spiral"] if name.startswith(word)):
            if mean("spiral", variant, "error") <= 1.1 * mean("spiral", "none", "error"):
                shares.append(mean("spiral", variant, "evaluations") / mean("spiral", "none", "evaluations"))
        claim(f"spiral, {word}: evaluations at equal error, by the best weight,", min(shares), 0.60)
    for i, case in enumerate(TASKS["integrator"]):
        ours, theirs = (mean("integrator", case, name) for name in ("ours", "torchdiffeq"))
        claim(f"integrator, {case}: seconds over torchdiffeq's", ours / theirs, 1.0 if i < 2 else 1 / 1.5)
    for variant in ("latent ODE", "latent ODE, refined"):
        for rival in ("linear interpolation", "GRU"):
            for name in ("error", "beyond"):
                own, other = mean("latent", variant, name), mean("latent", rival, name)
                claim(f"{variant}: {name} over that of {rival}", own / other, 0.999)
    return found


if __name__ == "__main__":
    sys.exit(main())
