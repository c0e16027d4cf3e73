"""Freed memory stays: page faults are counted in a process of its own."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

COUNT = """
import resource, sys, torch
from resolvent.kernels import reuse_memory
if sys.argv[1] == "reuse":
    assert reuse_memory()
faults = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(16):  # until the heap is as large as the program's habits want it
    torch.ones(2**24).sum()
before = faults()
for _ in range(4):
    torch.ones(2**24).sum()
print(faults() - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the C library is not glibc")
def test_a_second_block_of_the_same_size_costs_no_page_faults() -> None:
    counted = {}
    for how in ("default", "reuse"):
        command = [sys.executable, "-c", COUNT, how]
        counted[how] = int(subprocess.run(command, capture_output=True, text=True, check=True, cwd="/").stdout)
    # 4 blocks of 64 MiB in pages of 4 KiB, or of 2 MiB where the system gives huge ones
    assert counted["default"] >= 4 * 32
    assert counted["reuse"] < 16
