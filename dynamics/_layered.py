r"""Right-hand sides whose structure can be seen: affine maps and componentwise functions in turn.

.. math:: \dot u = A_p\,\sigma_{p-1}\big(\cdots \sigma_1(A_1 u + b_1) \cdots\big) + b_p + B u + b + Z\,w(t)

A_l   affine maps of any kind: dense, convolutional, spectral; each is used through its action only
s_l   functions of each entry by itself, the same for all entries
B     a bypass around the layers, affine (diffusion, a skip connection); Z w(t) an input signal

This is what order reduction (``_order_reduction.py``) acts on. ``layered`` finds the structure in a ``Sequential`` by
asking each module for values: nothing has to be declared, and what is neither affine nor componentwise (a
normalisation over channels, a softmax, attention) is refused by name.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

PROBES = 4  # random states that a module is asked about
EXACT = 1e-9  # in double precision; a function that is affine to nine digits on random states is taken as affine

Module = TypeVar("Module", bound=nn.Module)


@dataclass(frozen=True)
class Drive:
    """An input signal: ``matrix`` maps its values to the state's rate.

    signal   w(t), ``signal`` or ``batch signal``; t as the integrator gives it
    """

    matrix: Float[Tensor, "unknown signal"]
    signal: Callable[[Tensor], Tensor]

    def __call__(self, time: Tensor) -> Float[Tensor, "*batch unknown"]:
        return self.signal(time) @ self.matrix.T


class LayeredField(nn.Module):
    """du/dt of a state ``batch *state``: ``maps`` (p, affine) with ``functions`` (p - 1, componentwise) between.

    The rate has the state's shape; hidden layers may have any.
    """

    def __init__(
        self,
        maps: Sequence[nn.Module],
        functions: Sequence[nn.Module],
        *,
        bypass: nn.Module | None = None,
        drive: Drive | None = None,
    ) -> None:
        super().__init__()
        if len(maps) != len(functions) + 1:
            raise ValueError(
                f"Layers begin and end with an affine map: {len(functions)} functions need {len(functions) + 1} maps, "
                f"got {len(maps)}."
            )
        self.maps, self.functions = nn.ModuleList(maps), nn.ModuleList(functions)
        self.bypass, self.drive = bypass, drive

    def forward(
        self, time: Tensor, state: Float[Tensor, "batch *state"], given: None = None
    ) -> Float[Tensor, "batch *state"]:
        """``given`` stands there for the flows of neural ODEs, which pass what is given to them: here nothing."""
        rate = self.maps[-1](self.hidden(state)[-1])
        if self.bypass is not None:
            rate = rate + self.bypass(state)
        return rate if self.drive is None else rate + self.drive(time).unflatten(-1, state.shape[1:])

    def hidden(self, state: Float[Tensor, "batch *state"]) -> list[Tensor]:
        """The state and what each function has made of it: the inputs of the maps."""
        values = [state]
        for affine, function in zip(self.maps[:-1], self.functions, strict=True):
            values.append(function(affine(values[-1])))
        return values


def layered(
    modules: nn.Module | Iterable[nn.Module],
    sample: Float[Tensor, "batch *state"],
    *,
    bypass: nn.Module | None = None,
    drive: Drive | None = None,
) -> LayeredField:
    """The structure of a ``Sequential`` (or a list of modules), found at states of the ``sample``'s shape and size.

    Neighbouring affine modules (padding, convolution, reshaping) become one map; functions in a row become one.
    """
    listed = list(modules) if not isinstance(modules, nn.Module) or isinstance(modules, nn.Sequential) else [modules]
    runs: list[tuple[bool, list[nn.Module]]] = []
    probe = _probe(sample)
    for module in listed:
        exact = in_double(module)
        affine = is_affine(exact, probe)
        if not affine:
            check_componentwise(exact, probe)
        if runs and runs[-1][0] == affine:
            runs[-1][1].append(module)
        else:
            runs.append((affine, [module]))
        probe = _probe(exact(probe))
    return _assembled(runs, sample, bypass, drive)


def _assembled(
    runs: Sequence[tuple[bool, list[nn.Module]]], sample: Tensor, bypass: nn.Module | None, drive: Drive | None
) -> LayeredField:
    parts = [(affine, found[0] if len(found) == 1 else nn.Sequential(*found)) for affine, found in runs]
    if not parts or not parts[0][0]:
        parts.insert(0, (True, nn.Identity()))
    if not parts[-1][0]:
        parts.append((True, nn.Identity()))
    maps, functions = ([part for affine, part in parts if affine is kind] for kind in (True, False))
    field = LayeredField(maps, functions, bypass=bypass, drive=drive)
    check_field(field, sample)
    return field


@torch.no_grad()
def check_field(field: LayeredField, sample: Float[Tensor, "batch *state"]) -> None:
    """Refuse what is not affine or not componentwise, naming the module, and rates of another shape than the state."""
    exact, probe = in_double(field), _probe(sample)
    if exact.bypass is not None and not is_affine(exact.bypass, probe):
        raise ValueError(f"The bypass must be affine; {type(exact.bypass).__name__} is not.")
    for i, affine in enumerate(exact.maps):
        if not is_affine(affine, probe):
            raise ValueError(f"Map {i} of the layers must be affine; {type(affine).__name__} is not.")
        probe = _probe(affine(probe))
        if i < len(exact.functions):
            check_componentwise(exact.functions[i], probe)
            probe = _probe(exact.functions[i](probe))
    if probe.shape[1:] != sample.shape[1:]:
        raise ValueError(f"The layers map a state {tuple(sample.shape[1:])} to a rate {tuple(probe.shape[1:])}.")


@torch.no_grad()
def is_affine(module: nn.Module, probe: Float[Tensor, "batch *values"]) -> bool:
    """Whether a combination with weights 0.3 and 0.7 is mapped to that combination."""
    other = probe.flip(0)
    mixed = 0.3 * module(probe) + 0.7 * module(other)
    return bool((module(0.3 * probe + 0.7 * other) - mixed).abs().max() <= EXACT * mixed.abs().max().clamp_min(1e-300))


@torch.no_grad()
def check_componentwise(module: nn.Module, probe: Float[Tensor, "batch *values"]) -> None:
    """Each entry by itself, and every entry alike: rows may then be left out and reordered."""
    name = type(module).__name__
    advice = "Order reduction needs affine maps and functions of each entry by itself, the same for all entries"
    values = module(probe)
    if values.shape != probe.shape:
        raise ValueError(f"{advice}; {name} is not affine and changes shape {tuple(probe.shape)}.")
    chosen = torch.rand(probe.shape, generator=torch.Generator().manual_seed(1)) < 0.5
    other = probe.flip(0)
    mixed = torch.where(chosen, values, module(other))
    if not torch.allclose(module(torch.where(chosen, probe, other)), mixed, rtol=EXACT, atol=EXACT):
        raise ValueError(f"{advice}; in {name} one entry changes what becomes of others (a normalisation?).")
    flat = probe.flatten(1)
    try:
        turned = module(flat.flip(1)).flip(1)
    except (RuntimeError, ValueError) as error:
        raise ValueError(f"{advice}; {name} does not take a plain vector of entries: {error}") from error
    if not torch.allclose(turned, values.flatten(1), rtol=EXACT, atol=EXACT):
        raise ValueError(f"{advice}; {name} treats entries differently by their place.")


def in_double(module: Module) -> Module:
    """A copy in double precision that answers (no dropout, fixed statistics)."""
    return copy.deepcopy(module).double().eval()


def _probe(values: Tensor) -> Tensor:
    """Random values of the same size as these, of both signs: a ReLU would pass as affine on positive ones."""
    scale = values.detach().double().square().mean().sqrt().clamp_min(1e-6)
    noise = torch.randn(PROBES, *values.shape[1:], generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return noise * scale
