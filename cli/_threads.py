"""How many CPU threads to use: one core less than this process may run on, unless told otherwise.

A thread that waits for a core holds up all others: with one other busy process on two cores, an MgNO training step on
two threads was measured 7 times (61² nodes) to 14 times (16² nodes) slower than on one. So one core is left free.
"""

from __future__ import annotations

import os

import torch


def available_cores() -> int:
    """Cores this process may use (affinity mask, container limits included where the system reports them)."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def use_threads(count: int | None) -> None:
    if count is not None and count < 1:
        raise ValueError(f"--threads must be at least 1, got {count}.")
    fixed = os.environ.get("OMP_NUM_THREADS")
    torch.set_num_threads(
        count or (int(fixed) if fixed and fixed.isdigit() and int(fixed) else max(1, available_cores() - 1))
    )
