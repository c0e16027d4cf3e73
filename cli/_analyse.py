"""``resolvent analyse``: what trajectories say about their dynamics. Words in, records and pictures out."""

from __future__ import annotations

import json as text
import sys
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import App, Parameter

from ..data import Dataset, read
from ..evaluation import load
from ..evaluation.analysis import Told, analyse_attractor, analyse_koopman, analyse_symbols, paths_of, rolled, summary
from ..evaluation.figures import save
from ._threads import use_threads

Source = Annotated[Path, Parameter(help="Trajectories: a file or folder of samples of an evolution.")]
Folder = Annotated[Path | None, Parameter(help="Folder for the record and the figures [default: none is written].")]
Json = Annotated[bool, Parameter(help="Print JSON.", negative="")]
Components = Annotated[int, Parameter(help="Fields: POD coefficients that are analysed, at most.")]


def app() -> App:
    """The commands below ``resolvent analyse``."""
    made = App(name="analyse", help="Koopman spectra, attractors and symbolic codes of trajectories and of models.")
    made.command(koopman)
    made.command(attractor)
    made.command(symbols)
    return made


def koopman(
    source: Source,
    *,
    features: Annotated[
        Literal["polynomials", "radial", "fourier", "linear"],
        Parameter(help="Dictionary: Legendre polynomials, bumps, waves of angles with period 2 pi, or the unknowns."),
    ] = "polynomials",
    size: Annotated[int, Parameter(help="Of the dictionary: degree, number of bumps, or highest wavenumber.")] = 4,
    delays: Annotated[int, Parameter(help="Frames that make a state; more than 1 where not everything is seen.")] = 1,
    components: Components = 6,
    tolerance: Annotated[float, Parameter(help="Residual up to which an eigenpair counts as verified.")] = 0.05,
    seed: Annotated[int, Parameter(help="Of the centres of bumps.")] = 0,
    output: Folder = None,
    json: Json = False,
) -> int:
    """Koopman eigenvalues with verified residuals (residual dynamic mode decomposition).

    Half of the trajectories determine the eigenpairs, the other half checks them. Fewer than two snapshots a feature
    are refused, because residuals would then be small whatever the dynamics.
    """
    use_threads(None)
    paths = paths_of(read(source), components=components)
    return _tell(
        analyse_koopman(paths, features=features, size=size, delays=delays, tolerance=tolerance, seed=seed),
        output,
        json,
    )


def attractor(
    source: Source,
    *,
    run: Annotated[Path | None, Parameter(help="A finished run, rolled out from the source's first states.")] = None,
    against: Annotated[Path | None, Parameter(help="Generated trajectories in a file, instead of a run.")] = None,
    components: Components = 3,
    output: Folder = None,
    json: Json = False,
) -> int:
    """Whether generated trajectories have the statistics of true ones: occupation of state space, power spectra.

    Distances are given beside those of true trajectories to each other; the first three unknowns are compared.
    """
    use_threads(None)
    if (run is None) == (against is None):
        raise ValueError("Say what is compared with the source: --run RUNS/…, or --against FILE.")
    data = read(source)
    paths = paths_of(data, components=components)
    if run is not None:
        generated = rolled(load(run).solver, data)
    else:
        other = _evolution(Path(str(against)))
        generated = other.trajectories(range(len(other)))
    return _tell(analyse_attractor(paths, paths.of(generated)), output, json)


def symbols(
    run: Annotated[Path, Parameter(help="A finished run of al_rnn.")],
    source: Source,
    *,
    steps: Annotated[int, Parameter(help="Frames of the orbit.")] = 5000,
    skip: Annotated[int, Parameter(help="Frames before them, that lead onto the attractor.")] = 500,
    exponents: Annotated[int, Parameter(help="Lyapunov exponents.")] = 3,
    cycles: Annotated[int, Parameter(help="Look for periodic orbits of up to so many frames; 0: none.")] = 0,
    output: Folder = None,
    json: Json = False,
) -> int:
    """The symbolic code of an almost-linear recurrent network: regions, transitions, entropies, fixed points, cycles.

    The orbit starts at the first state of the source.
    """
    use_threads(None)
    options = {"steps": steps, "skip": skip, "exponents": exponents, "longest": cycles}
    return _tell(analyse_symbols(load(run).solver, _evolution(source), **options), output, json)


def _evolution(path: Path) -> Dataset:
    data = read(path)
    if not data.signature.evolves:
        raise ValueError(f"{path} holds a static map; trajectories are needed.")
    return data


def _tell(told: Told, output: Path | None, json: bool) -> int:
    record, figures = told
    if output is not None:
        output.mkdir(parents=True, exist_ok=True)
        (output / "analysis.json").write_text(text.dumps(record, indent=1) + "\n", encoding="utf-8")
        for name, figure in figures.items():
            save(figure, output / f"{name}.png")
    sys.stdout.write((text.dumps(record, indent=1) if json else summary(record)) + "\n")
    return 0
