r"""Weights in few bits: what a tensor is rounded to, rounding while fitting, and the bytes of it.

===========  ============================================================================================
``f4``       single precision: what sets phases (the first layer), single numbers
``f2``       half precision; with 8 bits and fewer: biases
``q``        integers :math:`|q| \le 2^{b-1}-1` times a step, one step a tensor; entropy-coded
``steps``    integers of any size times a step: coefficients of a series, in order of falling variance
===========  ============================================================================================

Rounding to b bits changes a field by much more than its fit has left: ``finished`` fits on with rounded weights in the
forward pass and the gradient as if they were not (straight through), then leaves the rounded ones in place.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from ._coding import DamagedCode, packed, unpacked
from ._field import Field
from ._network import Waves
from .rff import RandomWaves

Kind = Literal["f4", "f2", "q", "steps"]
Bits = Literal[4, 5, 6, 7, 8, 16, 32]
CLIPS = (1.0, 0.9, 0.8, 0.7, 0.6, 0.5)  # shares of the largest weight that the range may end at


def kind_of(field: Field, name: str, values: Tensor, bits: int) -> Kind:
    """How a tensor of the network is stored."""
    network = field.network
    if name.startswith(network.precise) or values.numel() == 1 or bits == 32:
        return "f4"
    if name in network.in_steps:
        return "steps"
    return "f2" if bits == 16 or values.ndim < 2 else "q"


def real(values: Tensor) -> Tensor:
    """Complex numbers as pairs."""
    return torch.view_as_real(values) if values.is_complex() else values


def step_of(values: Tensor, bits: int) -> float:
    """The step with the least mean square error of the rounding, of those that end the range at or below the largest
    weight; representable in single precision.
    """
    flat, levels = real(values.detach()).double().flatten(), 2 ** (bits - 1) - 1
    largest = float(flat.abs().max())
    if not largest:
        return 1.0
    tried = [float(np.float32(share * largest / levels)) for share in CLIPS]
    return min(tried, key=lambda step: float((flat - rounded(flat, step, levels)).square().sum()))


def rounded(values: Tensor, step: float, levels: float = math.inf) -> Tensor:
    """The nearest of the multiples of a step, up to ``levels`` of them on either side."""
    return (values / step).round().clamp(-levels, levels) * step


class Rounded(nn.Module):
    """A parametrisation: rounded values, with the gradient of the values."""

    def __init__(self, kind: Kind, step: float, bits: int) -> None:
        super().__init__()
        self.kind, self.step, self.levels = kind, step, 2 ** (bits - 1) - 1

    def forward(self, values: Tensor) -> Tensor:
        flat = real(values)
        near = flat.half().to(flat) if self.kind == "f2" else rounded(flat, self.step, self.levels)
        kept = flat + (near - flat).detach()
        return torch.view_as_complex(kept) if values.is_complex() else kept


@contextmanager
def rounding(field: Field, bits: int) -> Iterator[None]:
    """Within it, the weights that the archive will round are rounded in every pass; after it they are rounded."""
    held = []
    for name, values in list(field.network.named_parameters()):
        kind = kind_of(field, name, values, bits)
        if kind in ("f2", "q"):
            owner, _, own = name.rpartition(".")
            module = field.network.get_submodule(owner)
            step = step_of(values, bits) if kind == "q" else 1.0
            parametrize.register_parametrization(module, own, Rounded(kind, step, bits), unsafe=True)
            held.append((module, own))
    try:
        yield
    finally:
        for module, own in held:
            parametrize.remove_parametrizations(module, own, leave_parametrized=True)


def order_of(shape: Sequence[int], modes: Sequence[int]) -> np.ndarray:
    """The order in which coefficients of a series are written: by wave number, which is by falling variance.

    shape   functions an axis, of which ``modes`` are waves and what follows them are powers
    """
    index = np.unravel_index(np.arange(math.prod(shape)), tuple(shape))
    waves = [np.where(i < n, i, i - n) / n for i, n in zip(index, modes, strict=True)]
    return np.argsort(sum(k**2 for k in waves), kind="stable")


def encoded(field: Field, bits: int, step: float | None = None) -> tuple[bytes, dict[str, float]]:
    """The bytes of all weights, and the steps of those that are integers.

    step   of coefficients of a series, which is what decides their error
    """
    parts: list[bytes] = []
    steps: dict[str, float] = {}
    floats: dict[str, list[np.ndarray]] = {"f4": [], "f2": []}
    numbers: list[np.ndarray] = []
    for name, values in field.network.state_dict().items():
        kind, flat = kind_of(field, name, values, bits), real(values.detach()).cpu()
        if kind in ("f4", "f2"):
            floats[kind].append(flat.double().numpy().reshape(-1).astype("<" + kind))
            continue
        steps[name] = step_of(values, bits) if kind == "q" else float(np.float32(step or _finest(flat)))
        whole = (flat.double() / steps[name]).round()
        if kind == "q":
            whole = whole.clamp(-(2 ** (bits - 1) - 1), 2 ** (bits - 1) - 1)
        codes = whole.numpy().astype(np.int64)
        numbers.append((codes[:, _order(field)] if kind == "steps" else codes).reshape(-1))
    parts += [np.concatenate(floats[kind] or [np.empty(0, "<" + kind)]).tobytes() for kind in ("f4", "f2")]
    return b"".join(parts) + packed(np.concatenate(numbers or [np.empty(0, np.int64)])), steps


def _order(field: Field) -> np.ndarray:
    return order_of(field.network.shape, field.network.modes)  # type: ignore[arg-type] # a series


def _finest(values: Tensor) -> float:
    """The step of a series whose step nobody chose: 2^-20 of its largest coefficient."""
    return max(float(values.abs().max()), 1e-30) * 2.0**-20


def decode(field: Field, data: bytes, bits: int, given: Sequence[float]) -> dict[str, float]:
    """Into the network of a field, in place; the steps by name. Raises :class:`DamagedCode`."""
    state = field.network.state_dict()
    kinds = {name: kind_of(field, name, values, bits) for name, values in state.items()}
    steps = dict(zip((name for name in state if kinds[name] in ("q", "steps")), given, strict=True))
    place = 0
    found: dict[str, np.ndarray] = {}
    for kind, width in (("f4", 4), ("f2", 2)):
        for name in (name for name in state if kinds[name] == kind):
            size = width * real(state[name]).numel()
            if len(data) < place + size:
                raise DamagedCode(f"the weights end within {name}")
            found[name] = np.frombuffer(data, "<" + kind, size // width, place)
            place += size
    numbers, begun = unpacked(data[place:]), 0
    for name in (name for name in state if kinds[name] in ("q", "steps")):
        size = real(state[name]).numel()
        codes, begun = numbers[begun : begun + size], begun + size
        if len(codes) < size:
            raise DamagedCode(f"the weights end within {name}")
        if kinds[name] == "steps":
            sorted_codes = codes.reshape(len(state[name]), -1)
            codes = np.empty_like(sorted_codes)
            codes[:, _order(field)] = sorted_codes
        found[name] = codes * steps[name]
    with torch.no_grad():
        for name, values in state.items():
            flat = real(values)
            flat.copy_(torch.from_numpy(found[name].reshape(tuple(flat.shape)).astype(np.float64)))
    for module in field.network.modules():
        if isinstance(module, Waves | RandomWaves):  # whole waves, whole in the precision of this field
            module.round_()
    return steps
