"""Irregularly sampled series: what was observed when, in what order a recurrence meets it, how fast it changes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Generator, Tensor

from ..training._windows import Windows


@dataclass(frozen=True)
class Series:
    """Some series on the union of their times; what was not observed may hold anything finite.

    times    strictly increasing
    values   physical units
    mask     what was observed; None: everything
    """

    times: Sequence[float]
    values: Float[Tensor, "batch time channel"]
    mask: Bool[Tensor, "batch time channel"] | None = None

    def __post_init__(self) -> None:
        clock = list(self.times)
        if len(clock) != self.values.shape[1]:
            raise ValueError(f"{len(clock)} times and {self.values.shape[1]} values a series do not fit together.")
        if any(b <= a for a, b in zip(clock, clock[1:], strict=False)):
            place = next(i for i, (a, b) in enumerate(zip(clock, clock[1:], strict=False)) if b <= a)
            raise ValueError(
                f"Times of a series strictly increase; after position {place} comes {clock[place + 1]:g} behind "
                f"{clock[place]:g}. Sort them, and drop duplicates."
            )
        if not bool(torch.isfinite(self.values).all()):
            raise ValueError("Values of a series are finite: put 0 where the mask says that nothing was observed.")

    @property
    def seen(self) -> Bool[Tensor, "batch time channel"]:
        return torch.ones_like(self.values, dtype=torch.bool) if self.mask is None else self.mask


def backwards(here: Bool[Tensor, "batch time"]) -> tuple[Int[Tensor, "batch most"], Int[Tensor, " batch"]]:
    """Where each series was observed, last first, what is left over filled with anything; and how often it was.

    A recurrence then takes as many steps as the richest series has observations, not one for each time of the union.
    """
    number = here.sum(dim=1)
    order = (~here.flip(1)).to(torch.uint8).argsort(dim=1, stable=True)
    return here.shape[1] - 1 - order[:, : max(1, int(number.max()))], number


def pace(
    times: Sequence[float], values: Float[Tensor, "batch time channel"], seen: Bool[Tensor, "batch time channel"]
) -> float:
    """How fast series change, in deviations [1/time]: root of squared differences over squared gaps between successive
    observations, which noise on close ones does not blow up.
    """
    clock = torch.tensor(times, dtype=torch.float64)
    sums = torch.zeros(2, dtype=torch.float64)
    for channel in range(values.shape[2]):
        sample, place = seen[..., channel].nonzero(as_tuple=True)
        same = sample[1:] == sample[:-1]
        known = values[sample, place, channel].double()
        sums += torch.stack([each.diff()[same].square().sum().cpu() for each in (known, clock[place.cpu()])])
    if not float(sums[1]):
        raise ValueError("No series has a channel that is observed twice: there is nothing to learn rates from.")
    return float((sums[0] / sums[1]).sqrt())


class Rows(Windows):
    """Series in shuffled batches, as the loop wants its windows: values as inputs, masks as targets."""

    def __init__(self, values: Tensor, mask: Tensor) -> None:
        self.values, self.mask = values, mask

    def __len__(self) -> int:
        return len(self.values)

    def batches_per_epoch(self, batch: int) -> int:
        return -(-len(self) // batch)

    def batches(
        self, batch: int, generator: Generator | None = None, skip: int = 0
    ) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        for chosen in torch.randperm(len(self), generator=generator).split(batch)[skip:]:
            yield chosen, self.values[chosen], self.mask[chosen]
