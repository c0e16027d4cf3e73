"""HDF5 files as arrays by name."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ._layout import Layout, Shape, Shapes, fit, misfits

if TYPE_CHECKING:
    import h5py

_SIGNATURE = b"\x89HDF\r\n\x1a\n"


def is_hdf5(path: Path) -> bool:
    """Whether a file has the signature of HDF5, at its beginning or after a header (MATLAB's takes 512 bytes)."""
    if not path.is_file():
        return False
    with open(path, "rb") as stream:
        for offset in (0, 512, 1024, 2048):
            stream.seek(offset)
            if stream.read(8) == _SIGNATURE:
                return True
    return False


def open_hdf5(path: Path) -> h5py.File:
    """Read only. Raises ``ValueError`` where the file is cut or damaged."""
    import h5py

    try:
        return h5py.File(path, "r")
    except OSError as error:
        raise ValueError(
            f"{path} cannot be opened as HDF5 ({error}). Cut or corrupt downloads are common: compare its size and "
            "checksum with the publisher's."
        ) from error


@contextlib.contextmanager
def peeked(path: Path) -> Iterator[h5py.File | None]:
    """An HDF5 file for a look, or None where it is none; raises nothing."""
    try:
        file = open_hdf5(path) if is_hdf5(path) else None
    except ValueError:
        file = None
    try:
        yield file
    finally:
        if file is not None:
            file.close()


def shapes_of(file: h5py.File | h5py.Group) -> Shapes:
    """Shapes of the numeric arrays of a file, by name."""

    def shape(name: str) -> Shape | None:
        held = file.get(name)
        # booleans are enumerations in HDF5, and numpy's here
        return tuple(held.shape) if hasattr(held, "dtype") and held.dtype.kind in "fiub" else None

    return shape


def hdf5_fits(path: Path, layouts: tuple[Layout, ...]) -> bool:
    with peeked(path) as file:
        return file is not None and any(not isinstance(fit(one, shapes_of(file)), str) for one in layouts)


def hdf5_misfits(path: Path, layouts: tuple[Layout, ...]) -> str:
    with peeked(path) as file:
        return "not an HDF5 file" if file is None else misfits(layouts, shapes_of(file))


def text_of(value: Any) -> str:
    """An attribute as a string."""
    if isinstance(value, bytes | np.bytes_):
        return value.decode("utf-8", "replace")
    return str(value)


def numbers_of(attributes: Any) -> dict[str, float]:
    """Scalar numbers among the attributes."""
    found = {}
    for name, value in attributes.items():
        if np.ndim(value) == 0 or np.size(value) == 1:
            with contextlib.suppress(TypeError, ValueError):
                found[str(name)] = float(np.asarray(value).reshape(()))
    return found
