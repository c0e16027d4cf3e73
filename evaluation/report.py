"""``report.html``: one run on one page that needs no network, a pure function of its record and its pictures."""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from ..data import write_atomically
from ._numbers import number, plus_minus
from ._words import headline, limits, question
from .record import Inverted, Run, Score, Seconds

# by the first word of a picture's name, in the order in which they stand on the page
_CAPTIONS = {
    "fields": "Truth, prediction and error on one of the test samples. Truth and prediction share one colour scale.",
    "trajectories": "The unknowns of one test sample over time.",
    "phase": "Phase portrait of a few test samples.",
    "rollout": "Relative L2 error of each frame: median over test samples, band from the first to the third quartile.",
    "spectra": "Energy by wavenumber shell, mean over test samples.",
    "stages": "Energy by wavenumber shell of the outputs and of what each stage left of them, on validation samples.",
    "cost": "Error against time per sample. The line joins the classical settings that no cheaper one beats.",
    "training": "Loss during training; validation samples are never trained on.",
    "posterior": "What the observations leave possible; white dots are sensors. Truth and mean share one scale.",
    "sensors": "What each sensor said, and what the posterior expects of it, noise included.",
}
_STYLE = """
:root { color-scheme: light dark; --ink: #1b1b1b; --paper: #fff; --soft: #666; --line: #ddd; --shade: #f5f5f5; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e8e8e8; --paper: #17181a; --soft: #a5a5a5; --line: #3a3b3e; --shade: #222326; }
}
body { margin: 0 auto; max-width: 66rem; padding: 1.5rem; color: var(--ink); background: var(--paper);
  font: 16px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.6rem; margin: 0 0 .2rem; } h2 { font-size: 1.15rem; margin: 2rem 0 .6rem; }
.soft { color: var(--soft); } .lead { font-size: 1.1rem; }
.tiles { display: flex; flex-wrap: wrap; gap: .8rem; margin: 1rem 0; }
.tile { background: var(--shade); border: 1px solid var(--line); border-radius: 6px; padding: .6rem 1rem; }
.tile b { display: block; font-size: 1.35rem; }
.wide { overflow-x: auto; } table { border-collapse: collapse; font-size: .92rem; }
th, td { border-bottom: 1px solid var(--line); padding: .3rem .8rem .3rem 0; text-align: right; vertical-align: top; }
th:first-child, td:first-child { text-align: left; } tr.own td { font-weight: 600; }
figure { margin: 0 0 1.4rem; } figure img { max-width: 100%; background: #fff; border-radius: 6px; }
figcaption { color: var(--soft); font-size: .9rem; }
pre { background: var(--shade); border: 1px solid var(--line); border-radius: 6px; padding: .7rem 1rem;
  white-space: pre-wrap; overflow-wrap: anywhere; }
.warning { border-left: 4px solid #d55e00; padding-left: .8rem; }
"""
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"


def report(run: Run, figures: Path) -> str:
    """The page. ``figures``: a folder of PNG files, which are embedded; it may be empty or absent."""
    title = f"{run.model} on {run.problem}"
    body = [
        f"<h1>{escape(title)}</h1>",
        f'<p class="soft">{escape(" · ".join(part for part in (question(run), run.device, run.date) if part))}</p>',
        f'<p class="warning">Status: {escape(run.status)}. {escape(run.message)}</p>' if run.status != "ok" else "",
        f'<p class="lead">{escape(" ".join(headline(run)))}</p>',
        _tiles(run),
        _section("Compared on the same test samples", _solvers(run)),
        _section("Other starts", _starts(run)) if len(run.starts) > 1 else "",
        _section("Pictures", "".join(_pictures(figures))),
        *(_section(f"Inverted: {Path(one.observations).name}", _inversion(one, figures)) for one in run.inversions),
        _section("Classical solver, cheap to dear", _ladder(run)) if run.classical else "",
        _section("How to repeat it", _how(run)),
        _section("What the solver found about its answers", _health(run)),
        _section("Limits: what was not measured", _list(limits(run))),
        _section("Options", _options(run)),
        _section("Made with", _facts(run)),
    ]
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{escape(_POLICY)}">'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head>\n<body>\n"
        + "\n".join(part for part in body if part)
        + "\n</body></html>\n"
    )


def write_report(run: Run, folder: Path) -> Path:
    """Write ``report.html`` of a run folder, with the pictures in its ``figures``."""
    path = folder / "report.html"
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(path, report(run, folder / "figures").encode())
    return path


def _section(title: str, content: str) -> str:
    return f"<h2>{escape(title)}</h2>\n{content}" if content else ""


def _tiles(run: Run) -> str:
    shown = [(number(run.metrics["relative_l2"].mean), "relative L2 error")] if "relative_l2" in run.metrics else []
    shown.append((number(run.seconds.predict), "seconds per sample"))
    if run.classical:
        shown.append((_times(run.classical.equal_accuracy), "speed-up at equal accuracy"))
        shown.append((_times(run.classical.raw), "speed-up against the reference"))
    shown.append((f"{run.parameters:,}", "learned parameters"))
    tiles = (f'<div class="tile"><b>{escape(value)}</b>{escape(label)}</div>' for value, label in shown)
    return f'<div class="tiles">{"".join(tiles)}</div>'


def _solvers(run: Run) -> str:
    head = ("solver", *_METRICS.values(), "s per sample", "parameters", "training [s]", "speed-up at equal accuracy")
    rows = [("own", _solver_cells(run, run.model, run.metrics, run.seconds, run.parameters, run.status))]
    for name, rival in run.compare.items():
        rows.append(("", _solver_cells(run, name, rival.metrics, rival.seconds, rival.parameters, rival.status)))
    if run.classical:
        rows += [("", _classical_cells(run, name)) for name in dict.fromkeys((run.classical.rung, "reference")) if name]
    return _table(head, rows)


_METRICS = {"relative_l2": "relative L2", "relative_h1": "relative H1", "rmse": "RMSE", "maximum": "maximum"}


def _solver_cells(
    run: Run, name: str, metrics: Mapping[str, Score], seconds: Seconds, parameters: int, status: str
) -> list[str]:
    scores = [metrics.get(key) for key in _METRICS]
    cells = [plus_minus(score.mean, score.standard_error) if score else "not measured" for score in scores]
    error = scores[0].mean if scores[0] else math.nan
    gain = _times(run.classical.speedup(error, seconds.predict).equal_accuracy) if run.classical else "not measured"
    shown = name if status == "ok" else f"{name} ({status})"
    return [shown, *cells, number(seconds.predict), f"{parameters:,}", number(seconds.fit), gain]


def _classical_cells(run: Run, name: str) -> list[str]:
    assert run.classical is not None
    rungs = {rung.name: rung for rung in run.classical.rungs} | {"reference": run.classical.reference}
    rung = rungs[name]
    made = " (made the data)" if run.setup.get("train", 1) else ""
    label = f"classical: {name}" + (made if name == "reference" else " (as accurate)")
    return [label, number(rung.error), "", "", "", number(rung.seconds), "0", "0", ""]


def _starts(run: Run) -> str:
    head = ("from frame", "frames", *_METRICS.values(), "status")
    rows = []
    for start in run.starts:
        scores = (start.metrics.get(key) for key in _METRICS)
        cells = [plus_minus(score.mean, score.standard_error) if score else "" for score in scores]
        rows.append(("", [str(start.start), str(len(start.times)), *cells, start.status]))
    return _table(head, rows)


def _ladder(run: Run) -> str:
    assert run.classical is not None
    rungs = (*run.classical.rungs, run.classical.reference)
    rows = [("", [rung.name, number(rung.error), number(rung.seconds), rung.status]) for rung in rungs]
    note = f'<p class="soft">{escape(run.classical.note)}</p>' if run.classical.note else ""
    return note + _table(("setting", "relative L2", "s per sample", "status"), rows)


def _health(run: Run) -> str:
    """One row an instance, of whatever the solver keeps: a value, or one a direction."""
    found = run.starts[0].health if run.starts else ()
    names = list(dict.fromkeys(name for one in found for name in one))
    rows = [("", [str(i), *(_found(one.get(name)) for name in names)]) for i, one in enumerate(found)]
    return _table(("instance", *names), rows) if names else ""


def _found(value: Any) -> str:
    if isinstance(value, list | tuple):
        return " \N{MULTIPLICATION SIGN} ".join(_found(one) for one in value)
    return number(value) if isinstance(value, float) else "no answer" if value is None else str(value)


def _pictures(folder: Path) -> Iterable[str]:
    paths = folder.glob("*.png") if folder.is_dir() else ()
    for path in sorted(paths, key=lambda path: (_place(path.stem), path.name)):
        data = base64.b64encode(path.read_bytes()).decode()
        caption = escape([*_CAPTIONS.values(), path.stem][_place(path.stem)])
        yield f'<figure><img alt="" src="data:image/png;base64,{data}"><figcaption>{caption}</figcaption></figure>'


def _place(name: str) -> int:
    """Where among the known pictures one of this name stands; after them all if it is not known."""
    return next((i for i, word in enumerate(_CAPTIONS) if name.startswith(word)), len(_CAPTIONS))


def _inversion(found: Inverted, figures: Path) -> str:
    """What one set of observations has said: in a sentence, numbers and pictures."""
    told, noise = found.diagnosis, "inferred" if found.noise is None else "stated"
    lead = (
        f"{found.sensors} observations of {found.field} carry {number(told['information'])} nats about what is behind "
        f"them. Noise {noise}: {number(found.noise_found)}."
    )
    facts: dict[str, Any] = {
        "method": told["method"],
        "R-hat, effective samples": ", ".join(number(told[name]) for name in ("rhat", "ess") if told.get(name)),
        "mean squared misfit, in expected variances": number(told["misfit"]),
        "held-out samples behind the model's own error": found.error_samples or "none: its answers were trusted",
        **{name: number(value) for name, value in found.scores.items()},
        "seconds": number(told["seconds"]),
        "file": f"{found.folder}/posterior.nc",
    }
    rows = [("", [name, str(value)]) for name, value in facts.items() if value]
    pictures = "".join(_pictures(figures.parent / found.folder / "figures"))
    return f"<p>{escape(lead)}</p>{_list(told['notes']) if told['notes'] else ''}{_table(('', ''), rows)}{pictures}"


def _how(run: Run) -> str:
    return f"<pre>{escape(run.command)}</pre>" if run.command else '<p class="soft">The command is not on record.</p>'


def _options(run: Run) -> str:
    values = {"problem": run.problem_parameters, **run.options, "setup": run.setup}
    return f"<pre>{escape(json.dumps(values, indent=1, default=str, ensure_ascii=False))}</pre>"


def _facts(run: Run) -> str:
    facts: dict[str, Any] = {
        "machine": run.machine,
        "device, threads": f"{run.device}, {run.threads}",
        "seed, preset": f"{run.seed}, {run.preset}",
        "data": run.data.fingerprint,
        "split": run.data.split,
        "test samples": run.data.test,
        "truth": run.starts[0].truth if run.starts else "",
        **run.versions,
    }
    return _table(("", ""), [("", [name, str(value)]) for name, value in facts.items() if value])


def _list(lines: Sequence[str]) -> str:
    return f"<ul>{''.join(f'<li>{escape(line)}</li>' for line in lines)}</ul>"


def _table(head: Sequence[str], rows: Sequence[tuple[str, Sequence[str]]]) -> str:
    top = "".join(f"<th>{escape(cell)}</th>" for cell in head)
    body = "".join(
        f'<tr class="{kind}">{"".join(f"<td>{escape(cell)}</td>" for cell in cells)}</tr>' for kind, cells in rows
    )
    return f'<div class="wide"><table><tr>{top}</tr>{body}</table></div>'


def _times(speedup: float) -> str:
    if math.isinf(speedup):
        return "no rung as accurate"
    return number(speedup) if math.isnan(speedup) else f"{number(speedup)} \N{MULTIPLICATION SIGN}"
