"""Observations into a posterior beside a run: checked before training, found after it, drawn, scored, recorded.

A run folder keeps ``model_error.safetensors``, how far the model's answers are from the reference's on held-out
samples, and one folder a set of observations: ``inversion-<key>/posterior.nc`` and its pictures.
"""

from __future__ import annotations

import dataclasses
import datetime
import hashlib
import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as tensors_from_bytes
from safetensors.torch import save as tensors_to_bytes

from ..data import Dataset, write_atomically
from ..data.observations import Observations, Truth, check_clear
from ..operators._discrepancy import Discrepancy, measured
from ..operators._inference import Inversion, invert
from ..operators._latent import WithLatent
from ..operators._posterior import Posterior
from ..pde import Grid, Signature, Solver
from ..pde._weak_form import in_the_clear
from . import figures, registry
from ._reporter import Reporter
from ._request import Request, Task
from ._saved import load_model
from .calibration import coverage, likely, relative_error, wrong_cells
from .posterior_figures import posterior_figure, predictive_figure
from .record import Inverted, Run, write_run
from .report import write_report

ERROR_FILE = "model_error.safetensors"
LEVEL = 0.9  # of the intervals whose coverage is recorded


def latent_of(solver: Solver) -> WithLatent:
    """The solver as a generative model, or a refusal."""
    if not isinstance(solver, WithLatent):
        raise ValueError(
            "Observations are inverted by models with a latent, which generate inputs and solution together; "
            f"{type(solver).__name__} has none. Use --model dgno."
        )
    return solver


@dataclass(frozen=True)
class Asked:
    """Which observations to invert, and how."""

    path: Path
    observations: Observations
    how: Inversion
    command: str

    @classmethod
    def of(cls, request: Request, task: Task, command: str) -> Asked:
        """Read and checked against the problem; options out of words."""
        assert request.observations is not None
        known = [field.name for field in dataclasses.fields(Inversion)]
        for name in request.inversion:
            if name not in known:
                raise registry.UnknownName(f"Unknown option --invert.{name}. {registry.nearest(name, known)}")
        observations = Observations.load(request.observations)
        places = observations.places(task.problem.signature, task.grid)
        check_clear(places, in_the_clear(task.problem, places))
        how = Inversion(**{"seed": request.seed, **request.inversion})
        return cls(request.observations, observations, how, command)

    @property
    def key(self) -> str:
        content = [self.observations.fingerprint, dataclasses.asdict(self.how)]
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:10]


def keep_discrepancy(folder: Path, solver: Solver, held_out: Dataset) -> None:
    """Measure and keep the model's own error, where it is a generative model and samples are left to measure on."""
    if not isinstance(solver, WithLatent) or (folder / ERROR_FILE).exists():
        return
    found = measured(solver, held_out)
    if found is not None:
        write_atomically(folder / ERROR_FILE, tensors_to_bytes(found.state()))


def load_discrepancy(folder: Path, signature: Signature, grid: Grid) -> Discrepancy | None:
    """What :func:`keep_discrepancy` has kept; None where it kept nothing."""
    path = folder / ERROR_FILE
    if not path.exists():
        return None
    try:
        return Discrepancy.from_state(tensors_from_bytes(path.read_bytes()), grid, signature)
    except SafetensorError as error:
        raise ValueError(f"{path} is damaged ({error}). Delete it, and the run is judged and inverted anew.") from error


def invert_run(run: Run, folder: Path, asked: Asked, device: torch.device, reporter: Reporter) -> Run:
    """The run with this inversion among its own; what was found before for the same question is kept."""
    name = f"inversion-{asked.key}"
    if any(one.folder == name for one in run.inversions) and (folder / name / "posterior.nc").exists():
        reporter.say(f"Reusing {folder / name} (delete it to invert again).")
        return run
    blueprint, solver = load_model(folder, device)
    signature, grid = Signature.from_dict(blueprint.signature), Grid.from_dict(blueprint.grid)
    discrepancy = load_discrepancy(folder, signature, grid)
    reporter.stage(f"inverting {len(asked.observations)} observations", 1.0)
    posterior = invert(
        latent_of(solver),
        asked.observations,
        signature,
        grid,
        how=asked.how,
        discrepancy=discrepancy,
        progress=lambda part, word: reporter.advance(part, word),
    )
    shutil.rmtree(folder / name, ignore_errors=True)
    (folder / name).mkdir(parents=True)
    posterior.save(folder / name / "posterior.nc")
    _draw(posterior, asked.observations.truth, folder / name / "figures", run)
    found = _record(asked, posterior, name, 0 if discrepancy is None else discrepancy.columns)
    others = tuple(one for one in run.inversions if one.folder != name)
    run = run.model_copy(update={"inversions": (*others, found)})
    write_run(run, folder / "run.json")
    write_report(run, folder)
    return run


def _draw(posterior: Posterior, truth: Truth | None, pictures: Path, run: Run) -> None:
    for name in posterior.names:
        title = f"{run.model} on {run.problem}: {name} given {len(posterior.values)} observations of {posterior.field}"
        figures.save(posterior_figure(posterior, name, truth=truth, title=title), pictures / f"posterior-{name}.png")
    figures.save(predictive_figure(posterior, title="What the sensors said"), pictures / "sensors.png")


def _record(asked: Asked, posterior: Posterior, folder: str, columns: int) -> Inverted:
    return Inverted(
        observations=str(asked.path),
        fingerprint=asked.observations.fingerprint,
        field=asked.observations.field,
        sensors=len(asked.observations),
        noise=asked.observations.noise,
        folder=folder,
        how=dataclasses.asdict(asked.how),
        diagnosis=_plain(dataclasses.asdict(posterior.diagnosis)),
        noise_found=float(posterior.noise.mean()),
        error_samples=columns,
        scores=scores(posterior, asked.observations.truth),
        command=asked.command,
        date=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    )


def _plain(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}


def scores(posterior: Posterior, truth: Truth | None, *, seed: int = 0) -> dict[str, float]:
    """Against the truth on the posterior's grid: errors of the means, coverage, and phases guessed wrongly."""
    if truth is None or truth.grid.shape != posterior.grid.shape:
        return {}
    generator = torch.Generator().manual_seed(seed)
    made = {}
    for name, known in truth.fields().items():
        samples = posterior.samples(name)
        made[f"{name} relative_l2"] = relative_error(posterior.mean(name), known)
        spread = posterior.std(name) > 0
        if bool(spread.any()):  # where boundary conditions fix a value there is nothing to cover
            inside = samples[:, spread], known.to(samples)[spread]
            made[f"{name} coverage {LEVEL:g}"] = coverage(*inside, level=LEVEL, generator=generator)
    if posterior.phases is not None:
        name = posterior.signature.inputs[0].name
        known, samples = truth.fields()[name], posterior.samples(name)
        made[f"{name} wrong cells"] = wrong_cells(samples, known.to(samples))
        made[f"{name} relative_l2 of the likeliest phase"] = relative_error(likely(samples), known)
    return made
