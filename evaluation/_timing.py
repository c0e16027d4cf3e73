"""One clock for everything that is compared.

On a CPU it counts the processor time of this process over all its threads, so that other work on the machine does not
count; with an accelerator it counts elapsed time, synchronised before and after. Transfers are inside.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import TypeVar

import torch

Result = TypeVar("Result")


def clock_name(device: torch.device | str) -> str:
    """What :func:`seconds_of` counts on this device: ``cpu`` (processor time) or ``wall`` (elapsed time)."""
    return "cpu" if torch.device(device).type == "cpu" else "wall"


def seconds_of(call: Callable[[], Result], device: torch.device | str) -> tuple[Result, float]:
    """The result of a call and the seconds it took."""
    now = time.process_time if clock_name(device) == "cpu" else time.perf_counter
    _synchronise(device)
    start = now()
    result = call()
    _synchronise(device)
    return result, now() - start


def median_seconds(
    call: Callable[[], object], device: torch.device | str, *, repeats: int = 5, limit: float = 2.0
) -> float:
    """Median over ``repeats`` warm calls; fewer, but at least one, where they take over ``limit`` seconds in all."""
    taken = [seconds_of(call, device)[1]]
    while len(taken) < repeats and sum(taken) < limit:
        taken.append(seconds_of(call, device)[1])
    return statistics.median(taken)


def _synchronise(device: torch.device | str) -> None:
    kind = torch.device(device).type
    if kind == "cuda":
        torch.cuda.synchronize(device)
    elif kind == "mps":
        torch.mps.synchronize()
