"""What observations leave possible: samples of inputs and solution, what they agree on, and how far to trust them."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from ..data import write_atomically
from ..data._files import canonical_json
from ..data._netcdf import (
    CONVENTIONS,
    Stored,
    Variable,
    netcdf_bytes,
    space_coordinates,
    stored_variables,
    time_coordinate,
    units_of,
    versions,
)
from ..pde import Grid, Signature

if TYPE_CHECKING:
    import xarray


@dataclass(frozen=True, kw_only=True)
class Diagnosis:
    """How a posterior was found, and whether to believe it. None: not applicable to the method."""

    method: str
    informed: bool  # False: the observations say nothing, and the samples are those of the prior
    information: float  # KL(posterior | prior) [nats]
    information_from: str  # "prior samples" or "gaussian"
    misfit: float  # mean square of observed minus predicted over its expected variance: about 1 where all is well
    rhat: float | None = None  # largest, over latents and log density
    ess: float | None = None  # smallest
    acceptance: float | None = None
    divergent: int | None = None  # transitions
    evidence: float | None = None  # log p(values), by the Gaussian that was fitted
    seconds: float = 0.0
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Posterior:
    """Samples of one unknown state given its observations.

    inputs, outputs  drawn fields: an input with the error its decoder states (one phase at each node of a medium of
                     several), an output with the model's own error where that was measured
    expected         means of the inputs, ``channel *space``, over what each latent makes likely: less noisy than the
                     mean of ``inputs``
    phases           probability of each phase at each node, for a medium of several
    latents          what the fields were drawn from
    noise            standard deviation of the observations' errors, one a sample
    places           where the sensors stand (of an evolution with the time last), and ``values``, what they said
    predicted        the observed field there, one a sample, the model's own error included, noise not
    """

    signature: Signature
    grid: Grid
    field: str
    places: Float[Tensor, "point dim"]
    values: Float[Tensor, " point"]
    inputs: Float[Tensor, "sample channel *space"]
    outputs: Float[Tensor, "sample *rest"]
    expected: Float[Tensor, "channel *space"]
    phases: Float[Tensor, "phase *space"] | None
    latents: Float[Tensor, "sample latent"]
    noise: Float[Tensor, " sample"]
    predicted: Float[Tensor, "sample point"]
    diagnosis: Diagnosis

    def __len__(self) -> int:
        return len(self.latents)

    def samples(self, name: str) -> Float[Tensor, "sample *rest"]:
        """Of one channel by its name in files, ``sample [time] *space``; an evolution's state begins at time 0."""
        return self._stored(name).of(self._arrays())

    def mean(self, name: str) -> Float[Tensor, "*rest"]:
        stored = self._stored(name)
        if stored.role in ("input", "given"):
            first = 0 if stored.role == "input" else len(self.signature.outputs)
            return self.expected[first + stored.position]
        return self.samples(name).mean(dim=0)

    def std(self, name: str) -> Float[Tensor, "*rest"]:
        return self.samples(name).std(dim=0)

    def interval(self, name: str, level: float = 0.9) -> tuple[Tensor, Tensor]:
        """The ends of central credible intervals, pointwise."""
        if not 0 < level < 1:
            raise ValueError(f"A credible level lies between 0 and 1, got {level}.")
        ends = torch.tensor([0.5 - level / 2, 0.5 + level / 2], dtype=self.inputs.dtype)
        low, high = torch.quantile(self.samples(name), ends, dim=0)
        return low, high

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(stored.name for stored in stored_variables(self.signature, self.grid))

    def _stored(self, name: str) -> Stored:
        for stored in stored_variables(self.signature, self.grid):
            if stored.name == name:
                return stored
        raise ValueError(f"This posterior has the fields {', '.join(self.names)}, not {name!r}.")

    def _arrays(self) -> tuple[Tensor, ...]:
        from ..data.dataset import as_arrays

        return as_arrays(self.signature, self.inputs, self.outputs)

    # ------------------------------------------------------------------ files

    def to_xarray(self) -> xarray.Dataset:
        """Mean, deviation and samples of every field, phase probabilities, sensors; with coordinates and units."""
        import xarray

        made = {name: xarray.Variable(v.dims, v.values, dict(v.attributes)) for name, v in self._variables().items()}
        coordinates = {name: made.pop(name) for name in list(made) if (name,) == made[name].dims}
        return xarray.Dataset(made, coordinates, self._attributes())

    def save(self, path: Path | str) -> None:
        """Write a netCDF-4 file, atomically."""
        write_atomically(path, netcdf_bytes(self._variables(), self._attributes()))

    @classmethod
    def load(cls, path: Path | str) -> Posterior:
        """Read back. Raises ``FileNotFoundError``, and ``ValueError`` for a file that holds no posterior."""
        import xarray

        if not Path(path).exists():
            raise FileNotFoundError(f"There is no file {path}.")
        try:
            with xarray.open_dataset(path, decode_times=False) as held:
                return _from_xarray(held.load())
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{path} does not hold a posterior of this program: {error}") from error

    def _attributes(self) -> dict[str, Any]:
        return {
            "Conventions": CONVENTIONS,
            "title": f"Posterior given {len(self.values)} observations of {self.field}",
            "source": f"resolvent {versions()['resolvent']}",
            "field": self.field,
            "signature": canonical_json(self.signature.to_dict()),
            "grid": canonical_json(self.grid.to_dict()),
            "diagnosis": json.dumps(dataclasses.asdict(self.diagnosis)),
        }

    def _variables(self) -> dict[str, Variable]:
        axes = tuple(axis.name for axis in self.grid.axes)
        made = {"sample": _counted("sample", len(self)), **space_coordinates(self.grid)}
        if self.signature.evolves:
            made["time"] = time_coordinate((0.0, *self.signature.times), self.signature.time_unit)
        for stored in stored_variables(self.signature, self.grid):
            dims = stored.dims(self.signature, self.grid)
            label = stored.channel.label or stored.channel.name
            for end, d, values, what in (
                ("", dims, self.samples(stored.name), "posterior samples"),
                ("_mean", dims[1:], self.mean(stored.name), "posterior mean"),
                ("_std", dims[1:], self.std(stored.name), "posterior standard deviation"),
            ):
                about = {"units": units_of(stored.channel.unit), "long_name": f"{label}, {what}"}
                made[stored.name + end] = Variable(d, _array(values), about)
        if self.phases is not None:
            made["phase_probability"] = Variable(("phase", *axes), _array(self.phases), {"units": "1"})
        made["latent"] = Variable(("sample", "entry"), _array(self.latents), {"units": "1"})
        made["noise"] = Variable(("sample",), _array(self.noise), {"long_name": "standard deviation of the errors"})
        made["places"] = Variable(("point", "coordinate"), _array(self.places), {"long_name": "where sensors stand"})
        made["observed"] = Variable(("point",), _array(self.values), {"long_name": f"observed {self.field}"})
        made["predicted"] = Variable(
            ("sample", "point"), _array(self.predicted), {"long_name": "what sensors would see"}
        )
        return made


def _array(values: Tensor) -> np.ndarray:
    return values.detach().cpu().numpy()


def _counted(name: str, count: int) -> Variable:
    return Variable((name,), np.arange(count, dtype=np.int64), {"units": "1"})


def _from_xarray(held: xarray.Dataset) -> Posterior:
    signature = Signature.from_dict(json.loads(held.attrs["signature"]))
    grid = Grid.from_dict(json.loads(held.attrs["grid"]))
    told: Mapping[str, Any] = json.loads(held.attrs["diagnosis"])
    parts: dict[str, list[Tensor]] = {"state": [], "given": [], "input": [], "output": []}
    means: dict[str, list[Tensor]] = {"state": [], "given": [], "input": [], "output": []}
    for stored in stored_variables(signature, grid):
        parts[stored.role].append(torch.from_numpy(held[stored.name].values))
        means[stored.role].append(torch.from_numpy(held[f"{stored.name}_mean"].values))
    if signature.evolves:
        states = torch.stack(parts["state"], dim=2)
        inputs = torch.cat([states[:, 0], *(part[:, None] for part in parts["given"])], dim=1)
        outputs = states[:, 1:]
        expected = torch.stack([*(mean[0] for mean in means["state"]), *means["given"]])
    else:
        inputs, outputs = torch.stack(parts["input"], dim=1), torch.stack(parts["output"], dim=1)
        expected = torch.stack(means["input"])
    get = {name: torch.from_numpy(held[name].values) for name in ("places", "observed", "latent", "noise", "predicted")}
    phases = torch.from_numpy(held["phase_probability"].values) if "phase_probability" in held else None
    return Posterior(
        signature,
        grid,
        str(held.attrs["field"]),
        get["places"],
        get["observed"],
        inputs,
        outputs,
        expected,
        phases,
        get["latent"],
        get["noise"],
        get["predicted"],
        Diagnosis(**{**told, "notes": tuple(told["notes"])}),
    )
