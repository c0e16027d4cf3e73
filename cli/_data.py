"""``resolvent data``: what a file of samples holds, and the same samples as another tool's file."""

from __future__ import annotations

import json as text
import sys
import warnings
from pathlib import Path
from typing import Annotated, Any

from cyclopts import App, Parameter

from ..data import Dataset, read
from ..data.formats import FormatWarning, write, writers
from ..pde import Axis
from ..training import Interrupted
from ._progress import ConsoleReporter


def app() -> App:
    """The commands below ``resolvent data``."""
    made = App(name="data", help="Look into files of samples, and convert between formats.")
    made.command(info)
    made.command(convert)
    return made


def info(
    file: Annotated[Path, Parameter(help="A file or folder of samples, in any format that is read.")],
    *,
    json: Annotated[bool, Parameter(help="Print JSON.", negative="")] = False,
    checksum: Annotated[bool, Parameter(help="Hash the whole file (about 1 GB/s).")] = True,
) -> int:
    """Format, problem, shapes, grid, channels, times, parameters, known faults and checksum of a file."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", FormatWarning)
        dataset = read(file)
    told = described(dataset, file, checksum=checksum)
    kinds = [warning for warning in caught if issubclass(warning.category, FormatWarning)]
    told["warnings"] = [{"kind": w.category.__name__, "text": str(w.message)} for w in kinds]
    sys.stdout.write(text.dumps(told, indent=1) + "\n" if json else _page(told))
    return 0


def convert(
    source: Annotated[Path, Parameter(help="File or folder to read.")],
    target: Annotated[Path, Parameter(help="File to write.")],
    *,
    format: Annotated[str | None, Parameter(help="Format of the target [default: by its suffix].")] = None,
    force: Annotated[bool, Parameter(help="Overwrite the target.", negative="")] = False,
) -> int:
    """Write the samples of one file in another format, block by block; values are kept bit for bit in float32.

    Formats: netcdf (.nc), zarr (.zarr), apebench (.npy), fno_mat (.mat), neuralop (.pt), and by name only, as both
    are .hdf5: pdebench, the_well. A format that cannot hold the samples says why.
    """
    if source.resolve() == target.resolve():
        raise ValueError(f"{source} cannot be converted onto itself; name another file.")
    dataset = read(source)
    with ConsoleReporter() as reporter:
        reporter.stage(f"writing {target}", len(dataset))
        if dataset.source.get("dtype", "float32") not in ("float32", "float16", "bool", ">f4", "int16", "uint8"):
            reporter.say(f"{source} holds {dataset.source['dtype']}; {target} will hold float32.")

        def progress(done: int, total: int) -> None:
            reporter.advance(done, f"{done} of {total} samples")
            if reporter.stopping():
                raise Interrupted(f"Conversion stopped at {done} of {total} samples; nothing was written.")

        write(dataset, target, format=format, overwrite=force, progress=progress)
    sys.stdout.write(f"{target}\n")
    return 0


def described(dataset: Dataset, file: Path, *, checksum: bool = True) -> dict[str, Any]:
    """What is known about a dataset, as plain JSON values."""
    signature, grid = dataset.signature, dataset.grid
    source = {name: value for name, value in dataset.source.items() if name != "shards"}
    inputs, outputs = (tuple(array.shape[1:]) for array in dataset.read([0]))
    return {
        "file": str(file),
        "format": source.pop("kind", "unknown"),
        "problem": dataset.problem,
        "samples": len(dataset),
        "kind": "evolution" if signature.evolves else "static map",
        "inputs": {"shape": list(inputs), "channels": [str(channel) for channel in signature.inputs]},
        "outputs": {"shape": list(outputs), "channels": [str(channel) for channel in signature.outputs]},
        "frames": signature.frames,
        "spacing": signature.spacing,
        "time_unit": signature.time_unit,
        "grid": grid.to_dict()["axes"],
        "parameters": dict(dataset.parameters),
        "bytes": dataset.nbytes,
        "source": source,
        "sha256": dataset.samples.fingerprint if checksum else None,
        "written_as": list(writers()),
    }


def _page(told: dict[str, Any]) -> str:
    source = dict(told["source"])
    layout, dtype = source.pop("layout", ""), source.pop("dtype", "float32")
    times = f"frames 0 … {told['frames']}, every {told['spacing']:.6g} [{told['time_unit']}]"
    lines = [
        ("file", told["file"]),
        ("format", f"{told['format']}{f', layout {layout}' if layout else ''}"),
        ("problem", told["problem"]),
        ("samples", f"{told['samples']} ({told['kind']}), {told['bytes'] / 2**20:.1f} MiB in float32"),
        ("stored as", dtype if dtype == "float32" else f"{dtype}, read as float32"),
        ("inputs", f"{', '.join(told['inputs']['channels'])}  {tuple(told['inputs']['shape'])}"),
        ("outputs", f"{', '.join(told['outputs']['channels'])}  {tuple(told['outputs']['shape'])}"),
        *([("times", times)] if told["frames"] else []),
        *(("grid", _axis(axis)) for axis in told["grid"]),
        *(("parameter", f"{name} = {value}") for name, value in told["parameters"].items()),
        *((name, str(value)) for name, value in source.items() if name in ("seed", "solver", "versions", "config")),
        *([("sha256", told["sha256"])] if told["sha256"] else []),
        *(("fault" if w["kind"] == "KnownFault" else "assumed", w["text"]) for w in told["warnings"]),
    ]
    return "".join(f"{name:<10} {value}\n" for name, value in lines)


def _axis(values: dict[str, Any]) -> str:
    axis = Axis(**{**values, "boundary": tuple(values["boundary"])})
    ends = axis.boundary[0] if axis.boundary[0] == axis.boundary[1] else " / ".join(axis.boundary)
    extent = f"[{axis.lower:.6g}, {axis.upper:.6g}] [{axis.unit}]"
    return f"{axis.name}: {axis.size} nodes ({axis.placement}) on {extent}, {ends}"
