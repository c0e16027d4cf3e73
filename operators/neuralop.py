r"""Any model of neuraloperator that takes a field on a grid, by name, trained, judged and saved as ours are.

    solve --pde darcy --model neuralop --model.architecture UNO --model.options "norm=instance_norm, rank=0.1"

architecture  FNO, TFNO, UNO, CODANO; with torch-harmonics installed SFNO and LocalNO; whatever else ``neuralop.models``
              has that takes ``batch channel *space``. Models of point clouds (GINO, FNOGNO) and of pairs (UQNO) are
              refused.
width, modes, layers  are translated (table ``_WORDS``); every other argument of the constructor is an option.

What neuraloperator 2.0 computes is left as it is, its faults included: on an odd number of nodes of a leading axis its
spectrum is shifted twice in the same direction, and a layer that refines the grid (UNO) pads the spectrum behind the
negative modes. So resolution may change for FNO and TFNO, between sizes that are even, or odd, alike; UNO and CODANO
serve the grid they were trained on (their answers do not converge as the grid is refined). Its position is i / n along
each axis. Weights are kept as a state dict; no module is pickled.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import io
from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from ..kernels import accelerate as accelerated
from ..pde import Grid, Problem
from ..training import NetworkSolver, Preset, Recipe, coarse_grid
from ._words import near, options_in

# architectures that mean the same operator on every grid that holds their modes
CONVERGENCE = 1.0  # of the default architecture; those outside _ANY_RESOLUTION are tied to their grid

_ANY_RESOLUTION = frozenset({"fno", "tfno"})
_OTHER_INPUTS = {
    "gino": "it maps functions on point clouds",
    "fnogno": "it maps fields to functions on point clouds",
    "uqno": "it wraps a trained model and a second one for the error",
}
_NEEDS_HARMONICS = ("sfno", "localno")


class Adapted(nn.Module):
    """A model of neuraloperator as a network of the one loop.

    parity   of the nodes of the leading axes: its spectrum of an odd axis is shifted, so both kinds are two operators
    """

    def __init__(self, model: nn.Module, parity: tuple[int, ...]) -> None:
        super().__init__()
        self.model, self.parity = model, parity
        self.register_state_dict_post_hook(_only_tensors)

    def forward(self, values: Float[Tensor, "batch c_in *space"]) -> Float[Tensor, "batch c_out *space"]:
        if tuple(n % 2 for n in values.shape[2:-1]) != self.parity:
            wanted = ["odd" if odd else "even" for odd in self.parity]
            raise ValueError(
                f"neuraloperator shifts the spectrum of axes with an odd number of nodes, so this model, trained on "
                f"{wanted} leading axes, means another operator on a grid of {tuple(values.shape[2:])}: use {wanted}."
            )
        return self.model(values)


def _only_tensors(module: nn.Module, state: dict[str, Any], prefix: str, metadata: Any) -> None:
    """Each of their models adds the arguments of its constructor to every state dict; ours are in ``model.json``."""
    state.pop("_metadata", None)


# ---------------------------------------------------------------------- names


def architectures() -> dict[str, type[nn.Module]]:
    """Models by lower-case name that take a field on a grid, as installed."""
    return {name: model for name, model in _installed().items() if name not in _OTHER_INPUTS}


@functools.cache
def _installed() -> dict[str, type[nn.Module]]:
    """Imported when first asked for: it takes seconds."""
    try:
        import neuralop.models
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"The model neuralop needs neuraloperator (pip install neuraloperator): no module {error.name!r}."
        ) from error
    classes = {name: found for name, found in vars(neuralop.models).items() if inspect.isclass(found)}
    return {name.lower(): found for name, found in classes.items() if issubclass(found, nn.Module)}


def _architecture(name: str) -> type[nn.Module]:
    known = architectures()
    if name.lower() in known:
        return known[name.lower()]
    shown = ", ".join(sorted(model.__name__ for model in known.values()))
    if name.lower() in _OTHER_INPUTS:
        reason = f"{name} takes no field on a grid: {_OTHER_INPUTS[name.lower()]}."
    elif name.lower() in _NEEDS_HARMONICS:
        reason = f"{name} needs torch-harmonics (pip install torch-harmonics), which is not installed."
    else:
        reason = f"neuraloperator has no model {name!r}.{near(name.lower(), list(known))}"
    raise ValueError(f"{reason} Known: {shown}.")


# ---------------------------------------------------------------------- arguments


def _fourier_words(width: int, modes: int, layers: int, dim: int) -> dict[str, Any]:
    return {"n_modes": (modes,) * dim, "hidden_channels": width, "n_layers": layers}


def _uno_words(width: int, modes: int, layers: int, dim: int) -> dict[str, Any]:
    """Half as many nodes in the middle layers; a gated skip cannot change the number of channels, a linear one can."""
    scalings = [1.0] * layers
    if layers > 1:
        first = (layers - 1) // 4
        scalings[first], scalings[-1 - first] = 0.5, 2.0
    return {
        **{"hidden_channels": width, "lifting_channels": 2 * width, "projection_channels": 2 * width},
        **{"n_layers": layers, "uno_out_channels": [width] * layers, "uno_n_modes": [[modes] * dim] * layers},
        **{"uno_scalings": [[scaling] * dim for scaling in scalings], "channel_mlp_skip": "linear"},
    }


def _codano_words(width: int, modes: int, layers: int, dim: int) -> dict[str, Any]:
    """Width is that of each variable; one head a layer, at the resolution of the grid."""
    return {
        **{"hidden_variable_codimension": width, "n_layers": layers, "n_modes": [[modes] * dim] * layers},
        **{"n_heads": [1] * layers, "attention_scaling_factors": [1] * layers},
        **{"per_layer_scaling_factors": [[1] * dim] * layers},
    }


# what width, modes and layers are called; models that are not here are asked by the Fourier words they know
_WORDS: Mapping[str, Callable[[int, int, int, int], dict[str, Any]]] = {"uno": _uno_words, "codano": _codano_words}


def constructor_options(model: type) -> dict[str, inspect.Parameter]:
    """The named arguments of a constructor; a partial class (TFNO) has those of what it specialises."""
    for owner in model.__mro__:
        own: Any = vars(owner).get("__init__")
        if own is None:
            continue
        parameters = list(inspect.signature(own).parameters.values())[1:]
        named = [p for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
        if named:
            return {p.name: p for p in named}
    return {}


def parsed_options(text: str, model: type) -> dict[str, Any]:
    """``norm=group_norm, rank=0.1`` as arguments of a constructor, each checked against its signature.

    A bare word is a string, or a function of torch.nn.functional where the argument is one (``non_linearity=relu``).
    """
    known = constructor_options(model)
    return {name: _checked(name, value, known, model) for name, value in options_in(text).items()}


def _checked(name: str, value: Any, known: Mapping[str, inspect.Parameter], model: type) -> Any:
    if name in ("in_channels", "out_channels", "n_dim"):
        raise ValueError(f"{name} comes from the problem; leave it out of --model.options.")
    if name not in known:
        names = sorted(set(known) - {"in_channels", "out_channels"})
        raise ValueError(
            f"{model.__name__} of neuraloperator has no argument {name!r}.{near(name, names)} It has: "
            f"{', '.join(names)}."
        )
    default = known[name].default
    if inspect.isclass(default) and default is not inspect.Parameter.empty:
        raise ValueError(f"{name} is a class ({default.__name__}), which cannot be given in words.")
    if callable(default) and not inspect.isclass(default):
        if not isinstance(value, str) or not callable(getattr(F, value, None)):
            raise ValueError(f"{name} is a function of torch.nn.functional like gelu or relu; got {value!r}.")
        return getattr(F, value)
    return value


def _constructed(model: type[nn.Module], arguments: dict[str, Any]) -> nn.Module:
    with contextlib.redirect_stdout(io.StringIO()):  # UNO prints as it is built
        try:
            return model(**arguments)
        except (AssertionError, IndexError, KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{model.__name__} of neuraloperator refuses {arguments}: {error}") from error


def _channels(model: type[nn.Module], inputs: int, outputs: int) -> dict[str, int]:
    known = constructor_options(model)
    if "in_channels" in known:
        return {"in_channels": inputs, "out_channels": outputs}
    if outputs % inputs:
        raise ValueError(
            f"{model.__name__} answers with a whole number of channels for each input; this problem maps {inputs} to "
            f"{outputs}."
        )
    return {"output_variable_codimension": outputs // inputs}


@torch.no_grad()
def _check_answer(model: nn.Module, name: str, inputs: int, outputs: int, space: tuple[int, ...]) -> None:
    """One answer on the grid it is for: what does not fit must not fail after an hour of generating data."""
    try:
        shape = tuple(model.eval()(torch.zeros(1, inputs, *space)).shape)
    except (AssertionError, IndexError, RuntimeError, TypeError, ValueError) as error:
        raise ValueError(
            f"{name} of neuraloperator cannot work on a grid of {space} with these options: {error}"
        ) from error
    finally:
        model.train()
    if shape != (1, outputs, *space):
        raise ValueError(
            f"{name} of neuraloperator answers on a grid of {space} with shape {shape}, not {(1, outputs, *space)}: "
            "its options change the resolution, or its layers do not return to such a size (UNO: use even ones)."
        )


# ---------------------------------------------------------------------- the model

_H1 = {"objective": "relative_h1_difference", "clip": 0.0}
PRESETS: Mapping[tuple[str, str], Preset] = {
    ("quick", "*"): Preset(model={"modes": 12, "width": 24}, train={"epochs": 40, "batch": 8}, seconds=200.0),
    # the library's configurations, but for a rate halved every 60 or 100 epochs (here a cosine)
    ("paper", "darcy"): Preset(
        model={"modes": 16, "width": 24}, train={**_H1, "epochs": 300, "batch": 8, "learning_rate": 5e-3}
    ),
    ("paper", "forced_navier_stokes"): Preset(
        model={"modes": 64, "width": 64}, train={**_H1, "epochs": 600, "batch": 8, "learning_rate": 3e-4}
    ),
}


def build(
    problem: Problem,
    grid: Grid,
    *,
    architecture: str = "FNO",
    modes: int = 16,
    width: int = 32,
    layers: int = 4,
    options: str = "",
    accelerate: bool = False,
    recipe: Recipe = Recipe(),  # noqa: B008 - frozen
) -> NetworkSolver:
    """A model of neuraloperator for this problem and grid.

    architecture   FNO, TFNO, UNO, CODANO (not in one dimension), and with torch-harmonics SFNO, LocalNO
    modes          Fourier modes kept an axis, in total
    width          hidden channels (CODANO: of each variable)
    layers         its layers
    options        further arguments of its constructor, like "norm=group_norm, rank=0.1"
    accelerate     run its spectral and pointwise layers by our kernels: the same weights and answers, faster
    """
    model = _architecture(architecture)
    signature, working = problem.signature, coarse_grid(grid, recipe.coarsen)
    if modes > min(working.shape):  # it would silently keep fewer, and more on a finer grid
        raise ValueError(
            f"neuralop keeps {modes} modes an axis, more than the {min(working.shape)} nodes of the grid "
            f"{working.shape} it works on. The smallest grid that works has {modes * recipe.coarsen} nodes an axis; or "
            f"use --model.modes {min(working.shape)}."
        )
    inputs, outputs = len(signature.inputs), len(signature.outputs)
    words = _WORDS.get(model.__name__.lower(), _fourier_words)(width, modes, layers, grid.dim)
    known = constructor_options(model)
    if "default_in_shape" in known:  # LocalNO's stencils are made for one grid
        words["default_in_shape"] = working.shape
    arguments = {**words, **_channels(model, inputs, outputs), **parsed_options(options, model)}
    network = _constructed(model, arguments)
    _check_answer(network, model.__name__, inputs, outputs, working.shape)
    if accelerate:
        accelerated(network, reuse=False)
    parity = tuple(n % 2 for n in working.shape[:-1])
    same = architecture.lower() in _ANY_RESOLUTION
    return NetworkSolver(Adapted(network, parity), signature, grid, recipe, any_resolution=same)
