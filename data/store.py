"""The store: a folder of netCDF-4 shards and a manifest with the SHA-256 of each. ``format.md`` says it precisely.

Only the process that holds the folder's lock publishes shards. Each is written whole under another name, flushed and
renamed, so whatever bears the name ``shard-NNNNN.nc`` is complete, and what is in the manifest is known by its hash.
"""

from __future__ import annotations

import contextlib
import json
import os
import threading
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..pde import Grid, Signature
from ._files import DamagedData, canonical_json, digest, file_digest, write_atomically
from ._netcdf import (
    CONVENTIONS,
    Variable,
    describe,
    netcdf_bytes,
    sample_coordinate,
    space_coordinates,
    stored_variables,
    time_coordinate,
)
from .dataset import Dataset, Source, shapes_of

FORMAT = "resolvent dataset"
FORMAT_VERSION = 1
MANIFEST = "manifest.json"
JOURNAL = "journal.jsonl"  # a line a shard while a folder is filled: entering one costs the same however many there are


def key_of(content: Mapping[str, Any]) -> str:
    """The cache key: the first 16 hexadecimal digits of the SHA-256 of the canonical JSON of the content."""
    return digest(canonical_json(content))[:16]


def shard_name(number: int) -> str:
    return f"shard-{number:05d}.nc"


@dataclass(frozen=True)
class Shard:
    """One entry of the manifest."""

    first: int  # number of the first sample
    count: int
    bytes: int
    sha256: str
    seconds: float  # of CPU time spent on the solutions


@dataclass(frozen=True)
class Posed:
    """What a folder holds, known before its first sample is: the head of the manifest.

    content   problem, parameters, grid, count, seed, accuracy, generator: what the key is the hash of
    """

    content: Mapping[str, Any]
    signature: Signature
    grid: Grid
    shard_size: int
    solver: Mapping[str, Any]
    versions: Mapping[str, str]

    @property
    def key(self) -> str:
        return key_of(self.content)

    @property
    def folder_name(self) -> str:
        return f"{self.content['problem']}-{self.key}"

    @property
    def count(self) -> int:
        return int(self.content["count"])

    def shards(self) -> Iterator[tuple[str, int, int]]:
        """Name, first sample and number of samples of each shard."""
        for number, first in enumerate(range(0, self.count, self.shard_size)):
            yield shard_name(number), first, min(self.shard_size, self.count - first)

    def to_dict(self) -> dict[str, Any]:
        return {
            "format": FORMAT,
            "format_version": FORMAT_VERSION,
            "key": self.key,
            "content": dict(self.content),
            "signature": self.signature.to_dict(),
            "shard_size": self.shard_size,
            "dtype": "float32",
            "solver": dict(self.solver),
            "versions": dict(self.versions),
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Posed:
        return cls(
            content=values["content"],
            signature=Signature.from_dict(values["signature"]),
            grid=Grid.from_dict(values["content"]["grid"]),
            shard_size=int(values["shard_size"]),
            solver=values["solver"],
            versions=values["versions"],
        )


class Book:
    """The manifest while a folder is filled: written at the beginning and at the end, with a journal in between."""

    def __init__(self, folder: Path, posed: Posed, shards: Mapping[str, Shard] | None = None) -> None:
        self.folder = folder
        self.posed = posed
        self.shards = dict(shards or {})
        self.done = sum(shard.count for shard in self.shards.values())  # samples published
        self._guard = threading.Lock()

    @property
    def complete(self) -> bool:
        return all(name in self.shards for name, _, _ in self.posed.shards())

    def publish(self, name: str, part: Path, shard: Shard) -> None:
        """Give a written part its name and enter it. Called by the holder of the lock only."""
        with self._guard:
            os.replace(part, self.folder / name)
            with open(self.folder / JOURNAL, "a", encoding="utf-8") as journal:
                journal.write(canonical_json([name, asdict(shard)]) + "\n")
            self.shards[name] = shard
            self.done += shard.count

    def save(self) -> None:
        """The manifest with every shard so far; the journal has then said all it had to say."""
        with self._guard:
            shards = {name: asdict(shard) for name, shard in sorted(self.shards.items())}
            values = {**self.posed.to_dict(), "complete": self.complete, "shards": shards}
            write_atomically(self.folder / MANIFEST, json.dumps(values, indent=1, allow_nan=False).encode())
            (self.folder / JOURNAL).unlink(missing_ok=True)


def _journal(folder: Path) -> dict[str, Shard]:
    """Shards entered since the manifest was written; the last line may have been cut short by a kill."""
    entered = {}
    with contextlib.suppress(FileNotFoundError), open(folder / JOURNAL, encoding="utf-8") as lines:
        for line in lines:
            try:
                name, shard = json.loads(line)
                entered[str(name)] = Shard(**shard)
            except (ValueError, TypeError):
                break
    return entered


def load_book(folder: Path) -> Book:
    """Read a manifest and, of an unfinished folder, its journal.

    Raises ``FileNotFoundError`` without a manifest and :class:`DamagedData` for one that is not ours.
    """
    path = folder / MANIFEST
    text = path.read_text(encoding="utf-8")
    try:
        values = json.loads(text)
        if (values["format"], values["format_version"]) != (FORMAT, FORMAT_VERSION):
            raise ValueError(f"it is {values['format']!r} version {values['format_version']}")
        posed = Posed.from_dict(values)
        if posed.key != values["key"]:
            raise ValueError(f"its content has key {posed.key}, it says {values['key']}")
        shards = {name: Shard(**shard) for name, shard in values["shards"].items()}
        return Book(folder, posed, shards | _journal(folder))
    except (ValueError, KeyError, TypeError) as error:
        raise DamagedData(
            f"{path} is not a manifest of {FORMAT!r} version {FORMAT_VERSION}: {error}. "
            "Delete the folder to have it generated again."
        ) from error


def shard_bytes(posed: Posed, first: int, arrays: tuple[Tensor, ...], seconds: float) -> tuple[bytes, Shard]:
    """Samples ``first …`` as the content of a shard; ``arrays`` is what :meth:`Source.arrays` returns."""
    content = netcdf_bytes(_variables(posed, first, arrays), _attributes(posed, first))
    return content, Shard(first, len(arrays[0]), len(content), digest(content), round(seconds, 3))


def _variables(posed: Posed, first: int, arrays: tuple[Tensor, ...]) -> dict[str, Variable]:
    signature = posed.signature
    variables = {"sample": sample_coordinate(np.arange(first, first + len(arrays[0])))}
    if signature.evolves:
        variables["time"] = time_coordinate((0.0, *signature.times), signature.time_unit)
    variables |= space_coordinates(posed.grid)
    for stored in stored_variables(signature, posed.grid):
        values = stored.of(arrays).to(torch.float32).numpy()
        variables[stored.name] = Variable(stored.dims(signature, posed.grid), values, describe(stored))
    return variables


def _attributes(posed: Posed, first: int) -> dict[str, Any]:
    content = posed.content
    return {
        "Conventions": CONVENTIONS,
        "title": f"Samples of {content['problem']}",
        "source": f"resolvent {posed.versions['resolvent']}, {posed.solver['name']}",
        "problem": content["problem"],
        "parameters": canonical_json(content["parameters"]),
        "grid": canonical_json(content["grid"]),
        "signature": canonical_json(posed.signature.to_dict()),
        "seed": content["seed"],
        "first_sample": first,
        "shard": first // posed.shard_size,
        "count_in_dataset": content["count"],
        "key": posed.key,
        "solver": canonical_json(posed.solver),
        "versions": canonical_json(posed.versions),
        "dtype": "float32",
        "format_version": FORMAT_VERSION,
    }


def check_shard(path: Path, shard: Shard) -> None:
    """Raises :class:`DamagedData` unless the file is, byte for byte, what was written."""
    remedy = "Delete this file and generate the same data again: only this shard is then made anew."
    if not path.exists():
        raise DamagedData(f"{path} is missing. Generate the same data again: only this shard is then made anew.")
    if path.stat().st_size != shard.bytes:
        raise DamagedData(f"{path} is damaged: {path.stat().st_size} bytes instead of {shard.bytes}. {remedy}")
    if file_digest(path) != shard.sha256:
        raise DamagedData(f"{path} is damaged: its SHA-256 is not the one in {MANIFEST}. {remedy}")


class Shards(Source):
    """Samples in the shards of a folder. Holds no open file, so that it may be forked, pickled and shared by threads.

    Every shard is checked against its hash before its first use in a process, and again if it changes on disk. The
    variables are contiguous in the file, so a sample is one seek and one read at an offset that HDF5 tells once.
    """

    def __init__(self, book: Book) -> None:
        self.folder = book.folder
        self.posed = book.posed
        self.shards = dict(book.shards)
        self._stored = stored_variables(book.posed.signature, book.posed.grid)
        self._offsets: dict[str, tuple[int, ...]] = {}

    def __len__(self) -> int:
        return self.posed.count

    @property
    def fingerprint(self) -> str:
        return digest(
            canonical_json([self.posed.key, [self.shards[name].sha256 for name, _, _ in self.posed.shards()]])
        )

    def arrays(self, indices: np.ndarray) -> tuple[Tensor, ...]:
        shapes = shapes_of(self.posed.signature, self.posed.grid.shape)
        arrays = tuple(np.empty((len(indices), *shape), np.float32) for shape in shapes)
        owner = indices // self.posed.shard_size
        for number in np.unique(owner):
            places = np.flatnonzero(owner == number)
            self._fill(arrays, places, int(number), indices[places] % self.posed.shard_size)
        return tuple(torch.from_numpy(array) for array in arrays)

    def _fill(self, arrays: tuple[np.ndarray, ...], places: np.ndarray, number: int, rows: np.ndarray) -> None:
        name = shard_name(number)
        path = self.folder / name
        check_shard(path, self.shards[name])
        offsets = self._where(name)
        with open(path, "rb") as file:
            for stored, offset in zip(self._stored, offsets, strict=True):
                channel = stored.of(arrays)
                size = int(np.prod(channel.shape[1:]))
                for place, row in zip(places, rows, strict=True):
                    file.seek(offset + 4 * size * int(row))
                    channel[place] = np.fromfile(file, "<f4", size).reshape(channel.shape[1:])

    def _where(self, name: str) -> tuple[int, ...]:
        """Byte offsets of the variables in a shard."""
        if name not in self._offsets:
            import h5py

            with h5py.File(self.folder / name, "r") as file:
                self._offsets[name] = tuple(file[stored.name].id.get_offset() for stored in self._stored)
        return self._offsets[name]


def open_dataset(folder: Path | str) -> Dataset:
    """A finished dataset of the store, every shard checked against its SHA-256 (1.8 GB/s; once a process).

    Raises ``FileNotFoundError`` where there is no manifest, :class:`DamagedData` naming the file that is missing,
    truncated or altered, or a dataset whose generation did not end.
    """
    book = load_book(Path(folder))
    if not book.complete:
        missing = sum(name not in book.shards for name, _, _ in book.posed.shards())
        raise DamagedData(
            f"{folder} is unfinished: {missing} shards are missing. Generate the same data again to go on."
        )
    for name, _, _ in book.posed.shards():
        check_shard(book.folder / name, book.shards[name])
    return dataset_of(book)


def dataset_of(book: Book) -> Dataset:
    """The dataset of a complete manifest."""
    posed, content = book.posed, book.posed.content
    source = {
        "kind": "generated",
        "key": posed.key,
        "seed": content["seed"],
        "count": content["count"],
        "accuracy": content["accuracy"],
        "generator": content["generator"],
        "solver": dict(posed.solver),
        "versions": dict(posed.versions),
        "seconds": round(sum(shard.seconds for shard in book.shards.values()), 3),
        "shards": {name: shard.sha256 for name, shard in sorted(book.shards.items())},
    }
    return Dataset(content["problem"], content["parameters"], posed.signature, posed.grid, source, Shards(book))
