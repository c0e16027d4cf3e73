"""What the compiler makes of the Triton kernels, without a GPU: registers, spills, shared memory, tensor-core products.

:func:`recorded` runs a call on meta tensors and notes every launch instead of running it; :func:`resources` compiles
one launch ahead of time for a compute capability, with the types, constants and block sizes of that launch.
"""

from __future__ import annotations

import contextlib
import re
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
import triton
from torch import Tensor

from . import _triton_launch as run

SHARED = {80: 163 * 1024, 90: 227 * 1024}  # bytes a program may have, by compute capability (A100, H100)
_TYPES = {torch.float32: "*fp32", torch.float64: "*fp64", torch.bfloat16: "*bf16"}


@dataclass(frozen=True)
class Launch:
    """One kernel with everything that decides what is compiled; ``signature`` and ``constants`` as item tuples."""

    kernel: Any
    signature: tuple[tuple[str, str], ...]
    constants: tuple[tuple[str, Any], ...]
    aligned: tuple[int, ...]
    options: tuple[tuple[str, int], ...]

    @property
    def name(self) -> str:
        return self.kernel.__name__


@dataclass(frozen=True)
class Resources:
    """Registers a thread, bytes a thread that went to the stack (spills), bytes of shared memory a program."""

    registers: int
    stack: int
    shared: int
    ptx: str


def recorded(call: Callable[[], object]) -> list[Launch]:
    """The launches of ``call`` (at the default block sizes), each different one once."""
    found: dict[Launch, None] = {}
    with _recording(lambda one: found.setdefault(one)):
        call()
    return list(found)


@contextlib.contextmanager
def _recording(note: Callable[[Launch], object]) -> Iterator[None]:
    original = run.launch

    def launch(kernel: Any, grid: Any, how: run.How, *args: Any, **constants: Any) -> None:
        note(_described(kernel, args, constants, run.CONFIGS[kernel.__name__][0]))

    run.launch = launch
    try:
        yield
    finally:
        run.launch = original


def _described(kernel: Any, args: tuple[Any, ...], constants: dict[str, Any], config: run.Config) -> Launch:
    """As Triton would specialise this call: aligned pointers, integers that are 1 or multiples of 16."""
    values = dict(zip(kernel.arg_names, args, strict=False))
    options = {name: value for name, value in config.items() if name.startswith("num_")}
    fixed = {**constants, **{name: value for name, value in config.items() if name not in options}}
    signature, aligned = {}, []
    for position, name in enumerate(kernel.arg_names):
        value = values.get(name)
        if name in fixed or (not isinstance(value, Tensor) and value == 1):
            signature[name] = "constexpr"
            fixed.setdefault(name, value)
            continue
        signature[name] = _TYPES[value.dtype] if isinstance(value, Tensor) else "i32"
        if isinstance(value, Tensor) or int(value or 0) % 16 == 0:
            aligned.append(position)
    items = tuple(signature.items()), tuple(fixed.items())
    return Launch(kernel, *items, tuple(aligned), tuple(options.items()))


def resources(launch: Launch, capability: int) -> Resources:
    """Compile for ``capability`` (80, 90) and read what the assembler allotted."""
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    source = ASTSource(
        fn=launch.kernel,
        signature=dict(launch.signature),
        constexprs=dict(launch.constants),
        attrs={(position,): [["tt.divisibility", 16]] for position in launch.aligned},
    )
    compiled = triton.compile(source, target=GPUTarget("cuda", capability, 32), options=dict(launch.options))
    usage = _usage(compiled.asm["cubin"])
    return Resources(usage["REG"], usage["STACK"] + usage["LOCAL"], compiled.metadata.shared, compiled.asm["ptx"])


def _usage(binary: bytes) -> dict[str, int]:
    tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    with TemporaryDirectory() as folder:
        path = Path(folder) / "kernel.cubin"
        path.write_bytes(binary)
        told = subprocess.run([tool, "-res-usage", path], capture_output=True, text=True, check=True).stdout
    return {name: int(count) for name, count in re.findall(r"\b(REG|STACK|LOCAL):(\d+)", told)}
