"""Keep freed memory in the process: what a training step on a CPU gives back, it wants again at once."""

from __future__ import annotations

import ctypes
import platform

# parameters of glibc's mallopt
_TRIM_THRESHOLD, _MMAP_MAX = -1, -4
_NEVER = 2**31 - 1


def reuse_memory() -> bool:
    """Tell the C library not to hand freed blocks back to the system; True where it understood (Linux with glibc).

    Torch has no allocator of its own on a CPU. glibc maps every block beyond 32 MiB afresh and unmaps it when it is
    freed, so that a network with fields of that size pays a page fault for every 4 KiB of every intermediate result:
    a training step of an FNO (width 64, 128² nodes, batch 8, one core) took 2.14 s, 647,000 page faults, and 1.21 s
    without them. The price: the process stays as large as it once was. It concerns the whole process and lasts.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    return mallopt is not None and bool(mallopt(_MMAP_MAX, 0)) and bool(mallopt(_TRIM_THRESHOLD, _NEVER))
