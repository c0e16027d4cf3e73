r"""What trajectories say about their dynamics: verified Koopman spectra, statistics of attractors, symbolic codes.

Each function takes trajectories ``batch time unknown`` and returns plain JSON values and figures. Fields are first
reduced to their leading POD coefficients (:func:`paths_of`); what is said is then about those.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from jaxtyping import Float
from matplotlib.figure import Figure
from torch import Tensor

from ..data import Dataset
from ..dynamics._dictionaries import Dictionary, Fourier, Polynomials, RadialBasis
from ..dynamics._koopman import Koopman, delayed, koopman, pairs_of
from ..dynamics._order_reduction import Basis, decomposed
from ..dynamics._symbolic import code_of, cycles, fixed_points, lyapunov_exponents
from ..dynamics.al_rnn import AlmostLinearRNN
from ..pde import Solver
from .attractor import agreement
from .dynamics_figures import attractor_figure, eigenfunctions_figure, spectrum_figure, symbols_figure

Features = Literal["polynomials", "radial", "fourier", "linear"]
Told = tuple[dict[str, Any], dict[str, Figure]]
SNAPSHOTS = 2000  # fields behind a basis
LISTED = 20  # eigenpairs in the record
FAR = 2.0  # nats between true trajectories, from which on occupation says little


@dataclass(frozen=True)
class Paths:
    """Trajectories in few unknowns.

    basis   of fields, with their mean; None where the unknowns are the channels themselves
    """

    values: Float[Tensor, "batch time unknown"]
    names: tuple[str, ...]
    spacing: float
    time_unit: str = "1"
    basis: Basis | None = None

    def of(self, trajectories: Float[Tensor, "batch time channel *space"]) -> Float[Tensor, "batch time unknown"]:
        """Other trajectories in the same unknowns."""
        flat = trajectories.double().flatten(2)
        return flat if self.basis is None else (flat - self.basis.mean) @ self.basis.vectors


def paths_of(data: Dataset, *, components: int = 6) -> Paths:
    """The trajectories of an evolution; fields as at most ``components`` POD coefficients."""
    if not data.signature.evolves:
        raise ValueError(f"{data.problem} is a static map: only an evolution has dynamics to analyse.")
    if components < 1:
        raise ValueError(f"components is at least 1, got {components}.")
    values = data.trajectories(range(len(data))).double()
    signature, basis = data.signature, None
    names = tuple(channel.name for channel in signature.outputs)
    flat = values.flatten(2)
    if data.grid.dim:
        rows = flat.flatten(0, 1)
        whole = decomposed(rows[:: -(-len(rows) // SNAPSHOTS)])
        kept = min(components, int((whole.values > 1e-10 * whole.values[0]).sum()) or 1)
        basis = whole.leading(modes=kept)
        flat = (flat - basis.mean) @ basis.vectors
        names = tuple(f"mode {i + 1}" for i in range(kept))
    return Paths(flat, names, signature.spacing, signature.time_unit, basis)


def dictionary_of(kind: Features, size: int, states: Float[Tensor, "sample unknown"], *, seed: int = 0) -> Dictionary:
    """A dictionary fitted to states.

    polynomials   Legendre, total degree ``size``
    radial        bumps about ``size`` centres found by k-means
    fourier       angles of period 2 pi: waves up to ``size`` a variable
    linear        the unknowns and the constant: dynamic mode decomposition
    """
    if kind not in get_args(Features):
        raise ValueError(f"The dictionary is one of {get_args(Features)}, got {kind!r}.")
    if size < 1:
        raise ValueError(f"The size of a dictionary is at least 1, got {size}.")
    if kind == "radial":
        return RadialBasis.around(states, size, seed=seed)
    if kind == "fourier":
        return Fourier(size, [2 * math.pi] * states.shape[1])
    return Polynomials.around(states, 1 if kind == "linear" else size)


def halves(values: Float[Tensor, "batch time unknown"]) -> tuple[Tensor, Tensor]:
    """Trajectories that determine and trajectories that check; a single one is cut in the middle of its time."""
    if len(values) > 1:
        return values[::2], values[1::2]
    middle = values.shape[1] // 2
    return values[:, :middle], values[:, middle:]


def analyse_koopman(
    paths: Paths,
    *,
    features: Features = "polynomials",
    size: int = 4,
    delays: int = 1,
    tolerance: float = 0.05,
    seed: int = 0,
) -> Told:
    """Eigenpairs with residuals on both halves of the data, and their pictures.

    delays      states are seen with so many - 1 predecessors
    tolerance   residual up to which an eigenpair is called verified
    """
    values = delayed(paths.values, delays) if delays > 1 else paths.values
    fitting, checking = (pairs_of(half) for half in halves(values))
    dictionary = dictionary_of(features, size, fitting[0], seed=seed)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = koopman(*fitting, dictionary, step=paths.spacing, held_out=checking)
    names = [*paths.names, *(f"{name}, before" for name in paths.names)]
    told = {
        "features": int(found.vectors.shape[0]),
        "snapshots": len(fitting[0]),
        "held_out_snapshots": len(checking[0]),
        "tolerance": tolerance,
        "verified": int(found.verified(tolerance).sum()),
        "eigenvalues": _listed(found, tolerance),
        "notes": [str(warning.message) for warning in caught],
    }
    return told, {
        "spectrum": spectrum_figure(found, tolerance=tolerance),
        "eigenfunctions": eigenfunctions_figure(found, checking[0], names, tolerance=tolerance),
    }


def _listed(found: Koopman, tolerance: float) -> list[dict[str, Any]]:
    good, order = found.verified(tolerance), found.errors.argsort()[:LISTED].tolist()
    held = found.held_out if found.held_out is not None else found.residuals
    return [
        {
            "eigenvalue": [float(found.eigenvalues[i].real), float(found.eigenvalues[i].imag)],
            "growth_rate": float(found.rates[i].real),
            "angular_frequency": float(found.rates[i].imag),
            "residual": float(found.residuals[i]),
            "residual_held_out": float(held[i]),
            "verified": bool(good[i]),
        }
        for i in order
    ]


def analyse_attractor(paths: Paths, generated: Float[Tensor, "path time unknown"]) -> Told:
    """Distances of generated trajectories to true ones beside those of true ones to each other, and pictures."""
    length = min(paths.values.shape[1], generated.shape[1])
    truth, shown = paths.values[:, -length:, :3], generated[:, -length:, :3]
    if len(truth) < 2:
        raise ValueError("The spread of the truth needs at least two true trajectories.")
    found = agreement(shown, truth)
    told: dict[str, Any] = {
        each.name: {
            "distance": each.mean,
            "truth_mean": each.usual[0],
            "truth_95_percent": each.usual[1],
            "within": each.within,
        }
        for each in found
    }
    told |= {"trajectories": [len(shown), len(truth)], "times": length, "unknowns": list(paths.names[:3])}
    if found[0].usual[0] > FAR:
        told["note"] = "The histograms of true trajectories hardly overlap: compare longer ones."
    figure = attractor_figure(truth[0], shown[0], paths.names, spacing=paths.spacing, time_unit=paths.time_unit)
    return told, {"attractor": figure}


def rolled(solver: Solver, data: Dataset) -> Float[Tensor, "batch time channel *space"]:
    """A solver's trajectories from the first states of the data, at the data's times; the start comes first."""
    inputs, outputs = data.read(range(len(data)))
    with torch.no_grad():
        found = solver(inputs, data.grid, data.signature.times)
    return torch.cat([inputs[:, None, : outputs.shape[2]], found.to(inputs)], dim=1)


def analyse_symbols(
    solver: Solver, data: Dataset, *, steps: int = 5000, skip: int = 500, exponents: int = 3, longest: int = 0
) -> Told:
    """The symbolic code of a fitted ``al_rnn`` along an orbit from the first state of the data.

    steps       of the orbit, after ``skip`` that lead onto its attractor
    exponents   Lyapunov exponents, at most as many as units
    longest     look for cycles of up to so many frames; 0: fixed points only
    """
    if not isinstance(solver, AlmostLinearRNN):
        raise ValueError(f"Symbols are those of an al_rnn; this run holds a {type(solver).__name__}.")
    inputs = data.read([0])[0]
    with torch.no_grad():
        fields, beside = solver.split(inputs.float())
        given = solver.condition(beside)
        whole = solver.latent(fields, given, skip + steps)[0, skip:]
    if not bool(torch.isfinite(whole).all()):
        raise ValueError("The orbit leaves the numbers: this model is unstable, and has no code.")
    recurrence = solver.recurrence
    push = recurrence.push(given, 1)[0].detach()
    code = code_of(recurrence, whole)
    spacing = data.signature.spacing
    rates = lyapunov_exponents(recurrence, whole, count=min(exponents, recurrence.units)) / spacing
    points = fixed_points(recurrence, code.visited[:64], push)
    told: dict[str, Any] = {
        "regions": code.regions,
        "visited": list(code.visited),
        "shares": list(code.shares),
        "entropy_rate_bits_per_frame": code.entropy_rate(min(8, steps - 1)),
        "topological_entropy_bits_per_frame": code.topological_entropy(min(8, steps - 1)),
        "lyapunov_exponents_per_time": rates.tolist(),
        "fixed_points": [
            {
                "symbol": point.word[0],
                "real": point.real,
                "observed": point.states[0, : recurrence.observed].tolist(),
                "largest_multiplier": float(point.multipliers.abs().max()),
            }
            for point in points
        ],
    }
    if longest:
        told["cycles"] = [
            {"frames": len(cycle.word), "largest_multiplier": float(cycle.multipliers.abs().max())}
            for cycle in cycles(recurrence, whole, shortest=2, longest=longest, push=push)
        ]
    names = _observed_names(solver, data)
    seen = whole[:, : recurrence.observed]
    return told, {"symbols": symbols_figure(seen, code, names)}


def _observed_names(solver: AlmostLinearRNN, data: Dataset) -> list[str]:
    if data.grid.dim:
        return [f"mode {i + 1}" for i in range(solver.recurrence.observed)]
    return [f"{channel.name} [deviations]" for channel in data.signature.outputs]


def summary(told: Mapping[str, Any]) -> str:
    """A record in lines, lists cut short."""
    lines = []
    for name, value in told.items():
        shown = value
        if isinstance(value, list) and value and isinstance(value[0], dict):
            rows = [", ".join(f"{k} {_short(v)}" for k, v in row.items()) for row in value[:12]]
            lines.append(f"{name}:")
            lines += [f"  {row}" for row in rows]
            continue
        if isinstance(value, dict):
            shown = ", ".join(f"{k} {_short(v)}" for k, v in value.items())
        lines.append(f"{name:<36} {_short(shown)}")
    return "\n".join(lines)


def _short(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list):
        return "[" + ", ".join(_short(v) for v in value[:8]) + (", …]" if len(value) > 8 else "]")
    return str(value)
