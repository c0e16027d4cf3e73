r"""``.rfield``: a field in a file, and with it the values at its nodes within a bound where one was asked for.

========  ======  ==============================================================================================
offset    bytes   content
========  ======  ==============================================================================================
0         8       89 52 46 49 45 4C 44 0A (a byte beyond ASCII, RFIELD, a line feed)
8         2       version, 1; numbers are little-endian throughout
10        4       H, bytes of the header
14        16      BLAKE2b-128 of all that follows
30        H       the header: JSON (UTF-8), deflated without a container
30 + H    …       sections, as long as the header's ``sections`` say: weights, conditions, blocks of the residual
========  ======  ==============================================================================================

The header has what makes the network again (name of a file of this room, options), the axes with units, the channels,
mean and scale, what the field promises, the bits and steps of the weights, and what was measured when it was written.
Weights: :mod:`._quantise`; integers: :mod:`._coding`; residual: :mod:`._residual`. Nothing in the file is executed: a
network is named, never described by code.
"""

from __future__ import annotations

import functools
import hashlib
import json
import math
import struct
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..data import DamagedData, write_atomically
from ..pde import Channel, Condition, Grid
from . import _residual
from ._builder import assembled, fields_named
from ._coding import DamagedCode, shuffled, squeezed, unshuffled, unsqueezed
from ._field import Field
from ._quantise import decode, encoded

MAGIC, VERSION = b"\x89RFIELD\n", 1
SUFFIX = ".rfield"
MOVES = ("diffusivity", "speed")  # of a beginning in g
_HEAD = struct.Struct("<8sHI16s")


class NotAnArchive(DamagedData):
    """A file that does not begin as an archive does."""


@dataclass(frozen=True)
class Residual:
    """Blocks along the first axis with what they are relative to; values are of this type (numpy's word)."""

    bound: float
    margin: float
    dtype: str
    nodes: int
    blocks: tuple[bytes, ...]


@dataclass(frozen=True)
class Archive:
    """A field as it comes out of its file (double precision), and what is known about it.

    field      in physical units, anywhere in its domain
    channels   names, units, labels
    bits       of the weights
    steps      of those that are integers, by name; of a series the one that decided its error
    report     what was measured when it was written: errors, seconds, versions
    residual   None: values at the nodes are the field's
    size       bytes of the file; 0: none yet
    """

    field: Field
    channels: tuple[Channel, ...]
    bits: int = 16
    steps: Mapping[str, float] = field(default_factory=dict)
    report: Mapping[str, Any] = field(default_factory=dict)
    residual: Residual | None = None
    size: int = 0

    @property
    def grid(self) -> Grid:
        """The nodes of the values that were stored."""
        return self.field.domain

    @property
    def bits_per_value(self) -> float:
        """Of the file, all told."""
        return 8 * self.size / (self.grid.size * len(self.channels))

    def predicted(self, places: Sequence[np.ndarray]) -> np.ndarray:
        """The field, ``channel *space``, at the nodes of these numbers along each axis."""
        return at_nodes(self.field, places)

    def values(self, places: Sequence[np.ndarray] | None = None) -> np.ndarray:
        """At nodes, ``channel *space``: within the bound where there is one. ``places``: numbers along each axis."""
        chosen = [np.arange(n) for n in self.grid.shape] if places is None else [np.asarray(p) for p in places]
        if self.residual is None:
            return self.predicted(chosen)
        kept = self.residual
        shape = (len(self.channels), *(len(p) for p in chosen))
        values = np.empty(shape, dtype=np.dtype(kept.dtype))
        everywhere = [np.arange(n) for n in self.grid.shape[1:]]
        for block, slab in zip(kept.blocks, _residual.slabs(self.grid.shape, kept.nodes), strict=True):
            wanted = np.flatnonzero((chosen[0] >= slab.start) & (chosen[0] < slab.stop))
            if not len(wanted):
                continue
            predicted = self.predicted([np.arange(slab.start, slab.stop), *everywhere])
            whole = _residual.decoded(block, predicted, kept.bound, kept.margin, values.dtype)
            inside = np.ix_(np.arange(len(whole)), chosen[0][wanted] - slab.start, *chosen[1:])
            values[:, wanted] = whole[inside]
        return values


@torch.no_grad()
def at_nodes(field: Field, places: Sequence[np.ndarray]) -> np.ndarray:
    """A field, ``channel *space``, at the nodes of its domain of these numbers along each axis."""
    axes = [axis.coordinates()[torch.as_tensor(p)] for axis, p in zip(field.domain.axes, places, strict=True)]
    return field.outer(axes).cpu().numpy()


# ---------------------------------------------------------------------- to bytes and back


def archived(archive: Archive) -> bytes:
    """The file. What is read back is the field with rounded weights: :func:`restored` says what that is."""
    weights, steps = encoded(archive.field, archive.bits, next(iter(archive.steps.values()), None))
    conditions = archive.field.conditions
    faces = [squeezed(shuffled(c.values.detach().cpu().double().numpy())) for c in conditions]
    blocks = () if archive.residual is None else archive.residual.blocks
    sections = [weights, *faces, *blocks]
    header = zlib.compress(_canonical(_header(archive, steps, sections)), 9, -15)
    payload = header + b"".join(sections)
    return _HEAD.pack(MAGIC, VERSION, len(header), _digest(payload)) + payload


def _header(archive: Archive, steps: Mapping[str, float], sections: Sequence[bytes]) -> dict[str, Any]:
    made = archive.field
    if made.recipe is None:
        raise ValueError("This field was not made by a file of fields/: its network cannot be named in an archive.")
    name, options = made.recipe
    fields_named(name)  # refused here rather than by the reader
    kept = archive.residual
    told = {
        "network": name,
        "options": {key: value for key, value in options.items() if value is not None},
        "domain": made.domain.to_dict(),
        "channels": [[c.name, c.unit, c.label] for c in archive.channels],
        "mean": made.mean.double().tolist(),
        "scale": made.scale.double().tolist(),
        "form": made.form,
        "conditions": [[c.axis, c.end, c.order, list(c.values.shape)] for c in made.conditions],
        "bits": archive.bits,
        "steps": list(steps.values()),
        "report": _short(archive.report),
        "sections": [len(section) for section in sections],
    }
    if made.sees_lift:
        told["sees_lift"] = True
    told |= {name: value for name in MOVES if (value := getattr(made, name))}
    if kept is not None:
        told["residual"] = {"bound": kept.bound, "margin": kept.margin, "dtype": kept.dtype, "nodes": kept.nodes}
    return told


def _short(told: Any) -> Any:
    """Measured numbers in five digits."""
    if isinstance(told, Mapping):
        return {key: _short(value) for key, value in told.items()}
    return float(f"{told:.5g}") if isinstance(told, float) else told


def opened(data: bytes, name: str = "the archive") -> Archive:
    """From the bytes of a file. Raises :class:`DamagedData` for bytes that are not what was written."""
    if len(data) < _HEAD.size or data[: len(MAGIC)] != MAGIC:
        raise NotAnArchive(f"{name} is no {SUFFIX} archive: it does not begin with its mark.")
    _, version, length, digest = _HEAD.unpack_from(data)
    if version != VERSION:
        raise DamagedData(
            f"{name} is version {version} of the format; this program reads {VERSION}. Upgrade resolvent."
        )
    payload = data[_HEAD.size :]
    if _digest(payload) != digest:
        raise DamagedData(f"{name} is damaged: its checksum is not that of its content. Fetch or make it again.")
    try:
        told = json.loads(zlib.decompress(payload[:length], -15))
        return _made(told, payload[length:], len(data))
    except (zlib.error, KeyError, TypeError, ValueError, IndexError, RuntimeError) as error:
        raise DamagedData(f"{name} cannot be decoded ({error}), though its checksum is right.") from error


def _made(told: Mapping[str, Any], payload: bytes, size: int) -> Archive:
    ends = np.cumsum([0, *told["sections"]]).tolist()
    if ends[-1] != len(payload):
        raise DamagedCode(f"sections of {ends[-1]} bytes, {len(payload)} are there")
    parts = [payload[a:b] for a, b in zip(ends, ends[1:], strict=False)]
    conditions = [
        Condition(axis, end, torch.from_numpy(unshuffled(unsqueezed(part), np.dtype("<f8")).reshape(shape)), order)
        for (axis, end, order, shape), part in zip(told["conditions"], parts[1:], strict=False)
    ]
    channels = tuple(Channel(*channel) for channel in told["channels"])
    field = assembled(
        fields_named(told["network"]).network, Grid.from_dict(told["domain"]), len(channels), told["options"],
        dtype=torch.float64, mean=told["mean"], scale=told["scale"], form=told["form"], conditions=conditions,
        sees_lift=bool(told.get("sees_lift", False)), diffusivity=float(told.get("diffusivity", 0.0)),
        speed=float(told.get("speed", 0.0)),
    )  # fmt: skip
    steps = decode(field, parts[0], int(told["bits"]), told["steps"])
    residual = None
    if "residual" in told:
        residual = Residual(**told["residual"], blocks=tuple(parts[1 + len(conditions) :]))
    return Archive(field.eval().requires_grad_(False), channels, told["bits"], steps, told["report"], residual, size)


def restored(archive: Archive) -> Archive:
    """As it will be read: rounded weights, double precision."""
    return opened(archived(replace(archive, residual=None)))


def save_field(path: Path | str, archive: Archive) -> Archive:
    """Write, atomically; what a reader will find. Raises :class:`DiskFull`."""
    data = archived(archive)
    found = opened(data)
    write_atomically(Path(path), data)
    return found


def load_field(path: Path | str) -> Archive:
    """Read an archive. Raises ``FileNotFoundError``, and :class:`DamagedData` for a file that is not what was written.

    An archive that was read before and has not changed on disk is not read again.
    """
    path = Path(path)
    status = path.stat()
    return _loaded(str(path), status.st_size, status.st_mtime_ns, status.st_ino)


@functools.lru_cache(maxsize=8)
def _loaded(path: str, size: int, changed: int, inode: int) -> Archive:
    return opened(Path(path).read_bytes(), path)


def residual_of(archive: Archive, values: np.ndarray | Any, bound: float, *, nodes: int = _residual.NODES) -> Residual:
    """What keeps ``channel *space`` values within an absolute bound; read slab by slab, so they may lie on disk."""
    if not bound >= 0 or math.isinf(bound):
        raise ValueError(f"An error bound is a number, 0 (exact) or more, got {bound}.")
    everywhere = [np.arange(n) for n in archive.grid.shape]
    slabs = list(_residual.slabs(archive.grid.shape, nodes))
    first = np.asarray(values[:, slabs[0]])
    largest = max(
        float(np.abs(first).max()), float(archive.field.mean.abs().max() + 4 * archive.field.scale.abs().max())
    )
    margin = _residual.margin_of(largest, _spread(archive))
    blocks = []
    for slab in slabs:
        known = np.ascontiguousarray(values[:, slab])
        predicted = archive.predicted([np.arange(slab.start, slab.stop), *everywhere[1:]])
        block = _residual.encoded(known, predicted, bound, margin)
        got = _residual.decoded(block, predicted, bound, margin, known.dtype)
        worst = float(np.abs(got.astype(np.float64) - known).max())
        if worst > bound:
            raise AssertionError(f"A block misses its bound {bound:g} by {worst - bound:g}: nothing was written.")
        blocks.append(block)
    return Residual(bound, margin, first.dtype.newbyteorder("<").str, nodes, tuple(blocks))


def _spread(archive: Archive) -> float:
    """How far two ways to sum the field are apart: all nodes of a line at once, and one by one."""
    line = [np.arange(min(n, 64)) if j == 0 else np.array([n // 2]) for j, n in enumerate(archive.grid.shape)]
    together = archive.predicted(line)
    single = [archive.predicted([np.array([i]), *line[1:]]) for i in line[0]]
    return float(np.abs(together - np.concatenate(single, axis=1)).max())


def _digest(data: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=16).digest()


def _canonical(told: Mapping[str, Any]) -> bytes:
    return json.dumps(told, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()
