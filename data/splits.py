"""Training, validation and test: disjoint, fixed by a seed, recorded.

Samples are ranked by the SHA-256 of ``seed:number``, which no library's random stream can change. The test set is the
head of the ranking, validation follows, training is the tail read backwards: so a smaller training set is part of
the larger one, and asking for another size of one leaves the others as they are (validation shifts with the test
size only).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ._files import canonical_json, digest
from .dataset import Dataset


@dataclass(frozen=True, eq=False)
class Splits:
    """Three disjoint parts of a dataset, with the sample numbers that make them."""

    train: Dataset
    validation: Dataset
    test: Dataset
    seed: int
    indices: Mapping[str, tuple[int, ...]]  # "train", "validation", "test": positions in the dataset that was split

    def to_dict(self) -> dict[str, Any]:
        """For a run record: the positions and their SHA-256."""
        indices = {name: list(chosen) for name, chosen in self.indices.items()}
        return {"seed": self.seed, **indices, "sha256": digest(canonical_json([self.seed, indices]))}


def split(dataset: Dataset, *, train: int, validation: int = 0, test: int = 0, seed: int = 0) -> Splits:
    """Divide a dataset. Raises ``ValueError`` where it has too few samples; samples left over are in no part."""
    wanted = {"train": train, "validation": validation, "test": test}
    if min(wanted.values()) < 0 or train < 1:
        raise ValueError(f"A split needs train >= 1 and no negative count, got {wanted}.")
    total = len(dataset)
    if sum(wanted.values()) > total:
        raise ValueError(f"The dataset has {total} samples; {wanted} asks for {sum(wanted.values())}.")
    ranked = sorted(range(total), key=lambda number: digest(f"{seed}:{number}"))
    indices = {
        "train": tuple(ranked[total - train :][::-1]),
        "validation": tuple(ranked[test : test + validation]),
        "test": tuple(ranked[:test]),
    }
    parts = {name: dataset.subset(np.array(chosen, dtype=np.int64)) for name, chosen in indices.items()}
    return Splits(**parts, seed=seed, indices=indices)
