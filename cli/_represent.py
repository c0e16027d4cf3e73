"""``resolvent represent``: gridded values of a file as a field in an archive."""

from __future__ import annotations

import json as text
import math
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any, Literal

from cyclopts import Parameter

from ..evaluation import registry
from ..evaluation.registry import Option
from ..fields import Plan
from ..fields._archive import SUFFIX, Archive, save_field
from ..fields._builder import Fields, options_of
from ..fields._compress import Request, compressed
from ..fields._gridded import open_values
from ..fields.series import Series
from ..training import Callback, Progress
from ._options import OptionGroup, command_with
from ._progress import ConsoleReporter

MEBIBYTE = 1 << 20
# made by the command itself
_OURS = frozenset({"bandwidth", "values", "sigma", "widths", "harmonics", "gaussian"})


def represent_with(
    source: Annotated[Path, Parameter(help="netCDF file (or what xarray opens) with values on an even grid.")],
    *,
    field: Annotated[str, Parameter(help="Kind of field: series, siren, winner, … (`docs/fields.md`).")] = "series",
    output: Annotated[Path | None, Parameter(help=f"Archive [default: the source's name with {SUFFIX}].")] = None,
    variable: Annotated[tuple[str, ...], Parameter(help="Variables [all].", negative="", consume_multiple=True)] = (),
    at: Annotated[
        tuple[str, ...],
        Parameter(help="Numbers of dimensions that shall be no axes: sample=3.", negative="", consume_multiple=True),
    ] = (),
    periodic: Annotated[
        tuple[str, ...], Parameter(help="Axes that are periodic.", negative="", consume_multiple=True)
    ] = (),
    rate: Annotated[float, Parameter(help="Bits a value of the field; 0: 1, or with a bound what is smallest.")] = 0.0,
    bits: Annotated[int, Parameter(help="Of a weight of a trained field: 4 to 8, 16 or 32.")] = 8,
    bound: Annotated[float | None, Parameter(help="Greatest error at a node [unit of the values]; 0: exact.")] = None,
    form: Annotated[Literal["plain", "positive", "solenoidal"], Parameter(help="What holds exactly.")] = "plain",
    steps: Annotated[int, Parameter(help="Of the fit of a trained field.")] = 2000,
    learning_rate: Annotated[float, Parameter(help="At its start.")] = 1e-3,
    batch: Annotated[int, Parameter(help="Points a step.")] = 16_384,
    holdout: Annotated[float, Parameter(help="Share of the nodes that is kept out of the fit and judged on.")] = 0.1,
    kappa: Annotated[
        tuple[float, ...],
        Parameter(help="Bandwidths to try, in units of the values' waves.", negative="", consume_multiple=True),
    ] = (0.2, 0.4, 1.0),
    memory: Annotated[int, Parameter(help="MiB of values to hold; more are read as they are needed.")] = 2048,
    seed: Annotated[int, Parameter(help="Seed.")] = 0,
    force: Annotated[bool, Parameter(help="Overwrite the output.", negative="")] = False,
    json: Annotated[bool, Parameter(help="Print JSON.", negative="")] = False,
    dotted: Annotated[Mapping[str, Mapping[str, Any]], Parameter(show=False)] = {},
) -> int:
    """Store gridded values as a field: small, and with values and derivatives anywhere in its domain.

    Reports the error at nodes that were held out, that at all nodes, and bits per value of the whole file. With a
    bound, what the field leaves over is stored beside it. A fit that was stopped goes on with the same command. Read
    it with xarray.open_dataset.
    """
    target = output or source.with_suffix(SUFFIX)
    if target.exists() and not force:
        raise ValueError(f"{target} exists: name another --output, or --force.")
    fields = fields_named(field)
    values, grid, channels = open_values(source, variables=variable, at=_numbers(at), periodic=periodic)
    plan = Plan(steps=steps, learning_rate=learning_rate, batch=batch, holdout=holdout, seed=seed)
    request = Request(
        plan=plan, rate=rate, bits=bits, bound=bound, kappas=kappa, form=form, options=dotted.get("field", {}),
        memory=memory * MEBIBYTE,
    )  # fmt: skip
    work = target.with_name(target.name + ".work")
    with ConsoleReporter() as reporter:
        reporter.stage("reading", 1)
        watch = _Watch(reporter)
        made = compressed(values, grid, channels, fields, request, work=work, callbacks=[watch], stage=reporter.stage)
        saved = save_field(target, made)
    shutil.rmtree(work, ignore_errors=True)
    told = summary(saved, target, values.dtype.itemsize)
    sys.stdout.write(text.dumps(told, indent=1) + "\n" if json else _page(told))
    return 0


def fields_named(name: str) -> Fields:
    """The kind of field of a name. Raises :class:`UnknownName`."""
    module: ModuleType = registry.find_model(name)
    fields = getattr(getattr(module, "matched", None), "__self__", None)
    if not isinstance(fields, Fields):
        kinds = [entry.name for entry in registry.entries("model") if entry.origin == "fields"]
        raise registry.UnknownName(f"{name!r} is a model but no field. {registry.nearest(name, kinds)}")
    return fields


def summary(archive: Archive, target: Path, itemsize: int) -> dict[str, Any]:
    """What is known of an archive, as plain JSON values."""
    values = archive.grid.size * len(archive.channels)
    return {
        "file": str(target),
        "channels": [str(channel) for channel in archive.channels],
        "nodes": list(archive.grid.shape),
        "bytes": archive.size,
        "bits_per_value": round(archive.bits_per_value, 4),
        "ratio": round(itemsize * values / archive.size, 2),
        "bound": None if archive.residual is None else archive.residual.bound,
        "network": archive.field.recipe,
        **{name: value for name, value in archive.report.items() if value != math.inf},
    }


def command(argv: Sequence[str]) -> Any:
    """The command for this command line: its dotted options are those of the named kind of field."""
    named = [b for a, b in zip(argv, [*argv[1:], ""], strict=True) if a == "--field"]
    named += [word.partition("=")[2] for word in argv if word.startswith("--field=")]
    fields = fields_named(named[0] if named else "series")
    known = registry.options_of(fields.network)
    helps = {option.name: option.help for option in known}
    # a stored series has as many functions as its rate allows
    ours = _OURS | {"modes"} if fields.network is Series else _OURS
    options = tuple(
        Option(name, parameter.annotation, parameter.default, helps.get(name, ""))
        for name, parameter in options_of(fields.network).items()
        if name not in ours and name not in fields.fixed
    )
    by_keyword = command_with(
        represent_with, [OptionGroup("field", f"Options of {fields.network.__name__}", options, {})]
    )

    def representing(*words: Any, **values: Any) -> Any:
        return by_keyword(**dict(zip(("source",), words, strict=False)), **values)

    representing.__signature__ = by_keyword.__signature__  # type: ignore[attr-defined]
    representing.__doc__ = by_keyword.__doc__
    return representing


class _Watch(Callback):
    """Steps of a fit to the bar; Ctrl-C to the fit."""

    def __init__(self, reporter: ConsoleReporter) -> None:
        self.reporter, self.error = reporter, ""

    def batch(self, progress: Progress) -> None:
        self.reporter.advance(progress.step, f"loss {progress.loss:.2e}{self.error}")

    def epoch(self, record: dict[str, Any]) -> None:
        if record["validation"] is not None:
            self.error = f", held out {record['validation']:.2e}"

    def stop(self) -> bool:
        return self.reporter.stopping()


def _numbers(words: Sequence[str]) -> dict[str, int]:
    found = {}
    for word in words:
        name, _, number = word.partition("=")
        if not number.lstrip("-").isdigit():
            raise ValueError(f"--at takes NAME=NUMBER, such as sample=0; got {word!r}.")
        found[name] = int(number)
    return found


def _page(told: Mapping[str, Any]) -> str:
    shown = {
        "archive": f"{told['file']}, {told['bytes']} bytes",
        "values": f"{', '.join(told['channels'])} at {' x '.join(map(str, told['nodes']))} nodes",
        "bits a value": f"{told['bits_per_value']} ({told['ratio']} times smaller)",
        "held out": f"relative L2 error {told['heldout']:.3g} at nodes it has not seen" if "heldout" in told else None,
        "at nodes": f"relative L2 error {told['relative_l2']:.3g}, greatest {told['greatest']:.3g}, "
        f"PSNR {told['psnr']:.1f} dB",
        "bound": None if told["bound"] is None else f"{told['bound']:g}, kept at every node",
    }
    return "".join(f"{name:<13} {value}\n" for name, value in shown.items() if value is not None)
