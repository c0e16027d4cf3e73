"""Files of samples, ours and other people's: :func:`read` looks at what a path holds; :func:`write` writes by name.

A format is one public module of this folder with ``matches(path) -> bool`` (looks, raises nothing) and
``read(path) -> Dataset``; the first line of its documentation says what it expects. It may have
``misfit(path) -> str`` (what keeps a file from being one) and ``write(dataset, path, report)`` with ``SUFFIXES``.
Adding the file adds the format.
"""

from __future__ import annotations

import functools
import importlib
import os
import pkgutil
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

from .._files import sync_folder
from ..dataset import Dataset
from ._hdf5 import is_hdf5, peeked
from ._warnings import Assumption, FormatWarning, KnownFault

__all__ = ["Assumption", "FormatWarning", "KnownFault", "UnknownFormat", "formats", "read", "write", "writers"]

_GENERAL = ("netcdf", "zarr")  # asked last: files of narrower formats are netCDF and zarr too


class UnknownFormat(ValueError):
    """No reader knows this file; the message says what it holds, what is read, and what did not fit."""


def read(path: Path | str) -> Dataset:
    """The samples at ``path``: a folder of our store, or a file or folder in any known format.

    Raises ``FileNotFoundError``, :class:`UnknownFormat` naming what was found, what is read and what did not fit, and
    ``ValueError`` for a file of a known format whose values contradict it. Warns with :class:`KnownFault` and
    :class:`Assumption`.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"There is no file or folder {path}.")
    for module in formats().values():
        if module.matches(path):
            return module.read(path)
    known = "\n".join(f"  {name}: {_summary(module)} {_misfit(module, path)}" for name, module in formats().items())
    raise UnknownFormat(f"{path} is in no format known here. It holds {contents(path)}. What is read:\n{known}")


def write(
    dataset: Dataset,
    path: Path | str,
    *,
    format: str | None = None,
    overwrite: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Write a dataset in somebody's format, block by block, whole or not at all.

    format     a name of :func:`writers`; default: the one whose suffix ``path`` has
    progress   called as ``progress(written, total)``; what it raises stops the writing and leaves nothing behind

    Raises ``FileExistsError`` unless ``overwrite``, and ``ValueError`` where the format cannot hold the dataset.
    """
    path = Path(path)
    name = _chosen(path, format)
    if dataset.signature.given and name not in _GENERAL:
        told = ", ".join(channel.name for channel in dataset.signature.given)
        raise ValueError(f"{name} has no place for what is constant in time ({told}). Choose netcdf or zarr.")
    module = writers()[name]
    if path.exists() and not overwrite:
        raise FileExistsError(f"{path} exists; overwrite it explicitly (--force) or choose another name.")
    path.parent.mkdir(parents=True, exist_ok=True)

    def report(done: int) -> None:
        if progress is not None:
            progress(done, len(dataset))

    with tempfile.TemporaryDirectory(prefix=f".{path.name}.", suffix=".part", dir=path.parent) as folder:
        module.write(dataset, Path(folder) / path.name, report)
        for made in sorted(Path(folder).iterdir()):
            _replace(made, path.with_name(made.name))
    sync_folder(path.parent)
    return path


def _replace(made: Path, target: Path) -> None:
    if target.is_dir():
        shutil.rmtree(target)
    os.replace(made, target)


def _chosen(path: Path, format: str | None) -> str:
    known = writers()
    if format is None:
        fitting = [name for name, module in known.items() if path.suffix in module.SUFFIXES]
        if len(fitting) == 1:
            return fitting[0]
        told = f"could be {' or '.join(fitting)}" if fitting else "says no format"
        raise ValueError(f"The suffix {path.suffix!r} of {path.name} {told}; name one: {', '.join(known)}.")
    if format not in known:
        told = "is read, not written" if format in formats() else "is not known"
        raise ValueError(f"Format {format!r} {told}; written are {', '.join(known)}.")
    return format


@functools.cache
def formats() -> dict[str, ModuleType]:
    """The modules of this folder, by name, in the order in which they are asked."""
    names = sorted(m.name for m in pkgutil.iter_modules(__path__) if not m.name.startswith("_"))
    names.sort(key=lambda name: name in _GENERAL)
    return {name: importlib.import_module(f"{__name__}.{name}") for name in names}


def writers() -> dict[str, ModuleType]:
    """The formats that can be written, by name."""
    return {name: module for name, module in formats().items() if hasattr(module, "write")}


def _summary(module: ModuleType) -> str:
    return (module.__doc__ or "").partition("\n")[0]


def _misfit(module: ModuleType, path: Path) -> str:
    return f"[{module.misfit(path)}]" if hasattr(module, "misfit") else ""


def contents(path: Path) -> str:
    """Keys and shapes of an HDF5 file, names in a folder, else the first bytes: for error messages."""
    if path.is_dir():
        names = sorted(entry.name for entry in path.iterdir())
        return "a folder with " + (", ".join(names[:12]) + (" …" if len(names) > 12 else "") or "nothing")
    if is_hdf5(path):
        with peeked(path) as file:
            if file is None:
                return "an HDF5 file that cannot be opened: it is cut or damaged"
            found: list[str] = []

            def note(name: str, node: object) -> bool | None:
                found.append(name + _shape(node))
                return True if len(found) > 20 else None  # anything but None ends the walk

            file.visititems(note)
        return "HDF5 with " + (", ".join(found[:20]) + (" …" if len(found) > 20 else "") or "nothing")
    with open(path, "rb") as stream:
        head = stream.read(16)
    return f"{path.stat().st_size} bytes beginning with {head!r}"


def _shape(node: object) -> str:
    shape = getattr(node, "shape", None)
    return "/" if shape is None else f" {tuple(shape)}"
