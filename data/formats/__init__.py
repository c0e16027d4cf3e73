"""Files of samples, ours and other people's: :func:`read` looks at what a path holds and reads it.

A format is one public module of this folder with ``matches(path) -> bool`` (looks, raises nothing) and
``read(path) -> Dataset``; the first line of its documentation says what it expects. Adding the file adds the format.
"""

from __future__ import annotations

import functools
import importlib
import pkgutil
from pathlib import Path
from types import ModuleType

from ..dataset import Dataset


class UnknownFormat(ValueError):
    """No reader knows this file; the message says what it holds and what is read."""


def read(path: Path | str) -> Dataset:
    """The samples at ``path``: a folder of our store, or a file in any known format.

    Raises ``FileNotFoundError``, :class:`UnknownFormat` naming what was found and what is read, and ``ValueError``
    for a file of a known format whose names or shapes do not fit.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"There is no file or folder {path}.")
    for module in formats().values():
        if module.matches(path):
            return module.read(path)
    known = "\n".join(f"  {name}: {(module.__doc__ or '').partition(chr(10))[0]}" for name, module in formats().items())
    raise UnknownFormat(f"{path} is in no format known here. It holds {contents(path)}. What is read:\n{known}")


@functools.cache
def formats() -> dict[str, ModuleType]:
    """The modules of this folder, by name, in alphabetical order."""
    names = sorted(m.name for m in pkgutil.iter_modules(__path__) if not m.name.startswith("_"))
    return {name: importlib.import_module(f"{__name__}.{name}") for name in names}


def contents(path: Path) -> str:
    """Keys and shapes of an HDF5 file, names in a folder, else the first bytes: for error messages."""
    if path.is_dir():
        names = sorted(entry.name for entry in path.iterdir())
        return "a folder with " + (", ".join(names[:12]) + (" …" if len(names) > 12 else "") or "nothing")
    if is_hdf5(path):
        import h5py

        found: list[str] = []
        try:
            with h5py.File(path, "r") as file:
                file.visititems(lambda name, node: found.append(name + _shape(node)))
        except OSError as error:
            return f"an HDF5 file that cannot be opened ({error})"
        return "HDF5 with " + (", ".join(found[:20]) + (" …" if len(found) > 20 else "") or "nothing")
    with open(path, "rb") as stream:
        head = stream.read(16)
    return f"{path.stat().st_size} bytes beginning with {head!r}"


def is_hdf5(path: Path) -> bool:
    """Whether a file begins with the signature of HDF5."""
    if not path.is_file():
        return False
    with open(path, "rb") as stream:
        return stream.read(8) == b"\x89HDF\r\n\x1a\n"


def _shape(node: object) -> str:
    shape = getattr(node, "shape", None)
    return "/" if shape is None else f" {tuple(shape)}"
