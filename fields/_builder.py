r"""From a network class to what a field's file ends in, so that a new field is one small file:

.. code-block:: python

    class Gauss(Layered): ...                           # dim, channels, *, its options, periodic, generator, dtype

    field = fields_of(Gauss)                            # one on the box of a grid
    matched = field.matched                             # one that starts with the waves of given values
    build = solver_of(Gauss, width=48, layers=2)        # a solver of declared equations, with these defaults

Options, their types and their explanations are those of the class: its constructor's keywords (and those of its
``matched``, which says what bandwidth means for it), and the lines ``name   explanation`` of its docstring.
"""

from __future__ import annotations

import importlib
import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Generator, Tensor

from ..pde import Grid, Problem
from ..training import Preset
from ._field import Field, Form, composed
from ._march import MarchingSolver
from ._network import Network
from ._satisfy import Finish
from ._solve import QUICK, FieldSolver
from ._spectrum import bandwidths, nyquist

PRESETS: Mapping[tuple[str, str], Preset] = QUICK
_GIVEN = frozenset({"self", "cls", "dim", "channels", "periodic", "generator", "dtype"})  # by the builder
# one network has an option ``waves``, as the waves are called that ``matched`` is given
_NO_OPTIONS = (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.POSITIONAL_ONLY)
_COMMON = {"kappa": 1.0, "iterations": 60, "points": 0, "seed": 0, "windows": 10, "finish": "levenberg"}
_SAID = """
    kappa        waves of the first layer in units of those of the source and the boundary data
    iterations   of Levenberg-Marquardt at most (L-BFGS: 30 steps each; 0: the last layer alone, which is linear); of an
                 evolution, in each window
    points       collocation points at a time; 0: two a weight, eight of the last layer where that is all
    seed         of weights and points
    windows      of time, of an evolution: each has a field of its own that begins where the one before ended
    finish       levenberg: least squares in all weights at once; lbfgs: for more weights than a matrix of them allows
"""


def options_of(network: type[Network]) -> dict[str, inspect.Parameter]:
    """What a network may be told, by name."""
    found: dict[str, inspect.Parameter] = {}
    for function in (network.__init__, network.matched):
        for name, parameter in inspect.signature(function, eval_str=True).parameters.items():
            if name not in _GIVEN and parameter.kind not in _NO_OPTIONS:
                found.setdefault(name, parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY))
    return found


def assembled(
    network: type[Network],
    domain: Grid,
    channels: int,
    options: Mapping[str, Any],
    *,
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
    change: Callable[[Any, Generator], None] | None = None,
    **promises: Any,
) -> Field:
    """A field around a network of this class; it remembers its ``recipe``, from which an archive makes it again.

    change     what else is done to the network before it is used
    promises   those of :func:`~._field.composed`
    """
    generator = Generator().manual_seed(seed)
    periodic = [axis.periodic for axis in domain.axes] + [False] * bool(promises.get("sees_lift"))

    def made(outputs: int) -> Network:
        constructor: Callable[..., Network] = network
        one = constructor(len(periodic), outputs, periodic=periodic, generator=generator, dtype=dtype, **options)
        if change is not None:
            change(one, generator)
        return one

    field = composed(domain, made, channels, generator=generator, **promises)
    plain = {name: value for name, value in options.items() if not isinstance(value, Tensor)}
    field.recipe = (home_of(network), plain)
    return field


def home_of(network: type[Network]) -> str:
    """The name of the file of a network of ours, the module's full name of another's."""
    package, _, name = network.__module__.rpartition(".")
    return name if package == __name__.rpartition(".")[0] else network.__module__


class Fields:
    """``field(domain, channels, *, seed, dtype, **options)``: options of the network, promises of the field."""

    def __init__(self, network: type[Network], **fixed: Any) -> None:
        self.network, self.fixed = network, fixed
        self.__doc__ = f"{network.__doc__}\n\nOptions: {', '.join(options_of(network))}; those of `composed`."

    def __call__(
        self, domain: Grid, channels: int = 1, *, seed: int = 0, dtype: torch.dtype = torch.float32, **options: Any
    ) -> Field:
        own = {name: options.pop(name) for name in options_of(self.network) if name in options}
        return assembled(self.network, domain, channels, {**self.fixed, **own}, seed=seed, dtype=dtype, **options)

    def matched(
        self, values: Tensor, domain: Grid, *, kappa: float = 0.4, form: Form = "plain", seed: int = 0,
        dtype: torch.dtype = torch.float32, **options: Any,
    ) -> Field:  # fmt: skip
        """A field that starts with kappa times the waves of ``channel *space`` values, their mean and their size."""
        if "values" in options_of(self.network):
            options["values"] = values
        waves, (mean, scale) = waves_of(values, domain, kappa), size_of(values, domain, form)
        return self.starting(domain, waves, mean, scale, form=form, seed=seed, dtype=dtype, **options)

    def starting(
        self, domain: Grid, waves: Sequence[float], mean: Tensor, scale: Tensor, *, form: Form = "plain",
        seed: int = 0, dtype: torch.dtype = torch.float32, **options: Any,
    ) -> Field:  # fmt: skip
        """The same where waves, one an axis [rad per internal unit], means and sizes are known."""
        told = self.network.matched(waves, **{**self.fixed, **options})
        channels = domain.dim if form == "solenoidal" else len(mean)
        return self(domain, channels, seed=seed, dtype=dtype, form=form, mean=mean, scale=scale, **told)


def fields_of(network: type[Network], **fixed: Any) -> Fields:
    """The fields around a network class."""
    return Fields(network, **fixed)


def fields_named(name: str) -> Fields:
    """Those of a file of this room. Raises ``ValueError`` naming all: nothing else is imported at a word."""
    room = Path(__file__).parent
    if not name.isidentifier() or name.startswith("_") or not (room / f"{name}.py").is_file():
        known = ", ".join(sorted(path.stem for path in room.glob("*.py") if not path.name.startswith("_")))
        raise ValueError(f"Unknown kind of field {name!r}; known: {known}.")
    module = importlib.import_module(f".{name}", __package__)
    return module.matched.__self__


def waves_of(values: Tensor, domain: Grid, kappa: float) -> tuple[float, ...]:
    """Kappa k_rms of each axis, at most half the Nyquist limit, at least half a wave across the domain over pi."""
    return limited([kappa * k for k in bandwidths(values, domain)], domain)


def limited(waves: Sequence[float], domain: Grid) -> tuple[float, ...]:
    """What a first layer may start with: at most half the Nyquist limit of the nodes, at least 1/2."""
    return tuple(max(min(k, nyquist(a) / 2), 0.5) for k, a in zip(waves, domain.axes, strict=True))


def size_of(values: Tensor, domain: Grid, form: Form = "plain") -> tuple[Tensor, Tensor]:
    """Mean and deviation of each channel, as the form needs them."""
    flat = values.detach().double().flatten(1)
    if form == "positive":
        if not bool((flat > 0).all()):
            raise ValueError(f"Positive fields need positive values, the least is {float(flat.min()):g}.")
        flat = flat.log()
    mean, scale = flat.mean(dim=1), flat.std(dim=1, correction=0)
    scale = torch.where(scale > 0, scale, torch.ones_like(scale))
    if form == "solenoidal":  # of the potential: no mean, one size, that of one wave across the domain
        return mean.new_zeros(1), (scale.square().mean().sqrt() * min(domain.lengths) / (2 * math.pi))[None]
    return mean, scale


def solver_of(network: type[Network], *, module: str = "", fixed: Mapping[str, Any] = {}, **defaults: Any) -> Any:
    """``build(problem, grid, *, …)`` of a field's file.

    module     name of the file's module, where it is not the network's
    fixed      options that are not for the user to choose
    defaults   options that are, with their defaults; those of ``_COMMON`` are always
    """
    offered = {**defaults, **{name: value for name, value in _COMMON.items() if name not in defaults}}

    def build(problem: Problem, grid: Grid, **options: Any) -> FieldSolver | MarchingSolver:
        unknown = sorted(set(options) - set(offered))
        if unknown:
            raise TypeError(f"{network.__name__} has no option {', '.join(unknown)}; known: {', '.join(offered)}.")
        own = {**offered, **options}
        kappa, iterations, points, seed, windows, finish = (own.pop(name) for name in _COMMON)

        def make(domain: Grid, waves: Sequence[float], **promises: Any) -> Field:
            told = network.matched([kappa * k for k in waves], **fixed, **own)
            return assembled(network, domain, 1, told, seed=seed, **promises)

        how: dict[str, Any] = {"iterations": iterations, "points": points, "seed": seed, "finish": finish}
        if problem.signature.evolves:
            return MarchingSolver(problem, grid, make, windows=windows, **how)
        return FieldSolver(problem, grid, make, **how)

    return _signed(build, network, module or network.__module__, offered)


def _signed(build: Any, network: type[Network], module: str, offered: Mapping[str, Any]) -> Any:
    """The signature, types and explanations that ``--help`` and the registry read."""
    known = options_of(network)
    kinds: dict[str, Any] = {name: type(value) for name, value in offered.items()} | {"finish": Finish}
    kinds |= {name: known[name].annotation for name in offered if name in known}
    passed = [inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD) for name in ("problem", "grid")]
    keywords = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=value, annotation=kinds[name])
        for name, value in offered.items()
    ]
    # a type checker that wraps functions (tests) leaves the function that is read below it
    for function in {id(f): f for f in (build, inspect.unwrap(build))}.values():
        function.__signature__ = inspect.Signature([*passed, *keywords])
        function.__annotations__ = dict(kinds)
        function.__module__, function.__qualname__ = module, "build"
        function.__doc__ = (
            f"{network.__name__} in double precision solves the declared equation, one instance at a time, from no "
            f"data.\n\n{inspect.cleandoc(network.__doc__ or '')}\n\n{inspect.cleandoc(network.matched.__doc__ or '')}"
            f"\n\n{inspect.cleandoc(_SAID)}\n"
        )
    return build
