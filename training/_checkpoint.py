"""Atomic checkpoints: a killed run finds either the old or the new one, never half of one. No pickle is loaded."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch

FORMAT = "resolvent-checkpoint-2"


class DamagedCheckpoint(ValueError):
    """A checkpoint that cannot be read, or that belongs to other options."""


def save_checkpoint(path: Path, values: dict[str, Any]) -> None:
    """Write tensors, numbers, words, lists and dicts; renamed into place when complete and on disk."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        with part.open("wb") as file:
            torch.save({"format": FORMAT, **values}, file)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def load_checkpoint(path: Path) -> dict[str, Any]:
    try:
        values = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds for a damaged file
        raise DamagedCheckpoint(f"The checkpoint {path} is damaged ({error}). Delete it to train afresh.") from error
    if not isinstance(values, dict) or values.get("format") != FORMAT:
        raise DamagedCheckpoint(f"{path} is not a checkpoint of this program. Delete it to train afresh.")
    return values
