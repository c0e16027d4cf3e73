r"""DGNO: a deep generative neural operator, trained on the equation alone, and invertible.

.. math:: a \mid \beta,\qquad u = E\,G_u(\,\cdot\,;\beta),\qquad \sigma = G_\sigma(\,\cdot\,;\beta),\qquad
          0 = \hat R_j \sim N\big(R_j(a, u, \sigma), \lambda^{-1}\big),\quad j = 1, \dots, N

beta     code of the input, drawn from a prior or read off an input by the encoder: tanh of a network (published), or a
         normal law with mean and deviation of its own (``posterior variational``)
G        MultiONets of the code: of the input (logits where it has phases), the solution and its fluxes
R_j      weak residuals on small balls, fresh in every step (``pde._balls``): *virtual observables*, all zero
E        builds boundary conditions in

No label is read unless ``--train.labels`` says how many. Balls are shared by the samples of a batch, and a MultiONet is
a product of branch and trunk: trunks and their derivatives are computed once a batch.

form     ``energy``: the integral that the solution makes smallest, which is every weak residual at once in the dual
         norm; where there is one (darcy, poisson). ``dual``: that norm itself, on a box or of declared functions; for
         evolutions (burgers), declared functions (stokes) and what walls feed (helmholtz). ``primal``: the flux
         F(a, u) on balls. ``mixed``: fluxes are decoded on their own and held to their law pointwise, sigma = F, so
         that no input is differentiated and the flux across an interface may be smooth where the gradient is not.
         ``flux phases`` decodes one for each phase, and the medium picks: along an interface the flux jumps, which one
         smooth function cannot follow
trunk    ``waves``: the eigenfunctions of the Laplacian in place of a MultiONet's trunk, for inputs and outputs

Zang and Koutsourelakis 2025 (arXiv 2502.06250), with these differences: the quadrature has no bias (theirs answers
1.25 % too large on two phases, 0.17 % on smooth media), balls have several radii, labels are optional, encoders may be
variational and priors learned. ``rule grid``, ``nodes 7``, ``radii 1e-4``, ``power 0``, ``flux one`` are theirs (less
the bias).

Discretisation: the input is read at the nodes of the training grid, other grids are interpolated to them; answers are
functions of position, the same on every grid.
"""

from __future__ import annotations

import inspect
import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ..pde import Grid, Problem, symmetries_of
from ..pde._balls import Rule
from ..pde._weak_form import WithWeakForm, minimises
from ..training import Preset, Recipe
from ..training._physics import Form as PhysicsForm
from ..training._physics import Physics, energy_cells
from ._branches import Activation, Convolutional, Dense, Flat
from ._declared import Carrier, Declared
from ._generative import Components, Decoders, Generative, Medium
from ._generative_solver import GenerativeSolver, Weights
from ._prior import Law, Prior
from ._trunk import Positions
from ._waves import Decoder, Products, wave_decoder
from .multionet import MultiONet, numbers_of

CONVERGENCE = 4.0  # of the splines that bring an input from another grid to the sensors; outputs are exact anywhere
START = 0.02  # initial factors of the products: answers begin near zero, and every layer has a gradient

GAIN = 10.0  # of logits: sharp interfaces need large ones (wrong cells after 12 s of training: 6.4 %, 10.4 % without)

Form = Literal["auto", "energy", "dual", "mixed", "primal"]
Encoder = Literal["components", "fc", "cnn"]
Trunk = Literal["auto", "multionet", "waves"]
Flux = Literal["auto", "one", "phases"]
Posterior = Literal["deterministic", "variational"]

_TRAIN = {"batch": 25, "learning_rate": 1e-3, "weight_decay": 0.0}
_MUON = {"optimizer": "muon", "learning_rate": 4e-3, "weight_decay": 0.0}


def _paper_darcy(problem: Problem) -> Preset:
    """Two phases, or smooth media. Not published settings: the medium's decoder has the sizes of the others (5 x 256 of
    two phases), and no residual counts for more because it is large (the sums of the 1000 largest of smooth media).
    """
    balls = {"rule": "grid", "balls": 100, "radii": "0.0001", "power": 0.0}
    codes = {"bounded": True, "prior": "box", "trunk": "multionet", "width": 100}
    train = {"schedule": "step", "step_factor": 0.5, "learning_rate": 5e-4, "weight_decay": 1e-4}
    if not getattr(problem, "phases", ()):
        net = {"encoder": "cnn", "hidden": "128 128", "layers": 6, "form": "primal", "nodes": 9, "inputs_weight": 0.25}
        train |= {"optimizer": "adamw", "epochs": 2000, "batch": 50, "step_every": 400.0, "normalise": "pointwise"}
        return Preset(model={**codes, **balls, **net}, train=train)
    net = {"encoder": "fc", "hidden": "512 256", "layers": 5, "form": "mixed", "flux": "one", "nodes": 7}
    train |= {"optimizer": "adam", "epochs": 1000, "batch": 25, "step_every": 200.0, "normalise": "pointwise"}
    return Preset(model={**codes, **balls, **net}, train=train)


PRESETS: Mapping[tuple[str, str], Preset | Callable[[Problem], Preset]] = {
    ("quick", "*"): Preset(train={**_TRAIN, "epochs": 100}, seconds=300.0),
    ("quick", "darcy"): Preset(train={**_MUON, "batch": 50, "epochs": 100, "augment": True}, seconds=300.0),
    ("quick", "stokes"): Preset(
        model={"code": 32, "hidden": "128", "inputs_weight": 10.0},
        train={"optimizer": "adamw", "learning_rate": 2e-3, "weight_decay": 0.0, "batch": 50, "epochs": 60},
        seconds=300.0,
    ),
    ("quick", "helmholtz"): Preset(
        model={"waves": 32, "code": 64, "hidden": "128"}, train={**_MUON, "batch": 50, "epochs": 200}, seconds=300.0
    ),
    ("quick", "burgers"): Preset(model={"waves": 32}, train={**_MUON, "batch": 32, "epochs": 100}, seconds=300.0),
    ("paper", "darcy"): _paper_darcy,
    ("paper", "burgers"): Preset(
        model={
            **{"width": 100, "layers": 6, "hidden": "256 128 64", "encoder": "fc", "bounded": True},
            **{"rule": "grid", "nodes": 10, "balls": 100, "radii": "0.0001", "power": 0.0, "prior": "box"},
            **{"inputs_weight": 10.0, "trunk": "multionet", "form": "primal"},
        },
        train={
            **{"epochs": 10_000, "batch": 50, "learning_rate": 1e-3, "optimizer": "adam", "weight_decay": 0.0},
            **{"schedule": "step", "step_every": 2000.0, "step_factor": 1 / 3},
        },
    ),
}


def build(
    problem: Problem,
    grid: Grid,
    *,
    trunk: Trunk = "auto",
    waves: int = 0,
    width: int = 100,
    layers: int = 0,
    last: int = 0,
    code: int = 128,
    encoder: Encoder = "components",
    hidden: str = "512 256",
    channels: str = "64 64 64",
    trunk_activation: Activation = "tanh_sin",
    branch_activation: Activation = "tanh_sin",
    harmonics: int = 4,
    bounded: bool = False,
    posterior: Posterior = "deterministic",
    prior: Law = "gaussian",
    form: Form = "auto",
    flux: Flux = "auto",
    balls: int = 50,
    radii: str = "0.02 0.05 0.1",
    rule: Rule = "gauss",
    nodes: int = 4,
    edges: int = 100,
    power: float = 1.0,
    inputs_weight: float = 1.0,
    equation_weight: float = 1.0,
    labels_weight: float = 1.0,
    divergence_weight: float = 1.0,
    recipe: Recipe = Recipe(),  # noqa: B008 - frozen
) -> GenerativeSolver:
    """A DGNO for this problem and grid; its answer is served on any grid.

    trunk               multionet (published); waves: eigenfunctions of the Laplacian, or functions that the problem
                        declares (stokes); auto: waves
    waves               an axis of space (waves); 0: 16 in two dimensions, 48 in one, 8 in three, or as often that as
                        waves that travel need (helmholtz)
    width               W, neurons of every layer of a MultiONet's branches and trunks; half of those before waves
    layers              L, layers of both, 0: 5; or before the factors of waves, 0: 2
    last                MultiONets' layers in the mean, counted from the last; 0: all but the first
    code                entries of the code, and of the latent
    encoder             fc (published); cnn: convolutions 3 wide with stride 2; components: the principal components of
                        the training inputs, and fc layers beside them
    hidden              widths of the encoder's linear layers before the code, like '512 256'
    channels            of the encoder's convolutions (cnn), like '64 64 64'
    trunk_activation    MultiONets: relu, tanh, gelu, silu, tanh_sin, silu_sin, silu_id, sinc; fluxes need a smooth one
    branch_activation   the same choice; of the branches (the encoder has silu)
    harmonics           periodic axes: trunks see cos and sin of 2 pi h x up to this h
    bounded             tanh on the code (published)
    posterior           deterministic encoder (published), or variational: reparameterised, with its divergence
    prior               of the code: box (published), gaussian (of the encoded training inputs), or a normalising flow
    form                mixed, primal, energy, dual, or auto: energy where the problem minimises one, dual for
                        evolutions, for waves that the problem declares and where walls feed (helmholtz), else primal;
                        the published one is mixed for media of phases and primal otherwise
    flux                mixed form: one for all phases, or one for each of the phases; auto: phases where there are some
    balls               test functions a step (primal and mixed form only; so radii, rule, nodes and power)
    radii               of their balls, in parts of the domain's width, like '0.02 0.1'; taken in turn
    rule                quadrature of a ball: gauss, or grid (published)
    nodes               of the rule: radii (gauss), or points an axis of the cube (grid)
    edges               points a step for conditions that are not built in
    power               weight of a ball: radius to this power; 0: all alike (published)
    inputs_weight       of the reconstruction of the input
    equation_weight     of the virtual observables
    labels_weight       of labelled outputs (--train.labels)
    divergence_weight   of the variational encoder's divergence from the prior

    An option that would do nothing beside the others is refused.
    """
    if not isinstance(problem, WithWeakForm):
        raise ValueError(
            f"dgno learns from a weak form, and {problem.name} declares none. Problems that do: burgers, darcy, "
            "helmholtz, poisson, stokes."
        )
    medium, evolves = Medium(problem.phases), problem.signature.evolves
    known = problem.functions(waves or 16)
    if trunk == "auto":
        trunk = "multionet" if problem.potentials and not known else "waves"
    if form == "auto":
        every = evolves or (trunk == "waves" and (bool(known) or bool(problem.fed([1] * grid.dim))))
        form = "energy" if minimises(problem) else "dual" if every else "primal"
    _check(problem, medium, posterior=posterior, prior=prior, form=form, flux=flux, bounded=bounded)
    nets, on_balls = trunk == "multionet" or form == "mixed", form in ("mixed", "primal")
    _refuse_idle(
        (nets, "MultiONets (trunk multionet, form mixed)", {"last": last}),
        (nets and any(axis.periodic for axis in grid.axes), "MultiONets on periodic axes", {"harmonics": harmonics}),
        (nets, "MultiONets (trunk multionet, form mixed)", {"trunk_activation": trunk_activation}),
        (nets, "MultiONets (trunk multionet, form mixed)", {"branch_activation": branch_activation}),
        (trunk == "waves" or form == "dual", "trunk waves and form dual", {"waves": waves}),
        (on_balls, "the balls of form primal or mixed", {"balls": balls, "radii": radii, "rule": rule}),
        (on_balls, "the balls of form primal or mixed", {"nodes": nodes, "power": power}),
        (encoder == "cnn", "encoder cnn", {"channels": channels}),
        (posterior == "variational", "posterior variational", {"divergence_weight": divergence_weight}),
        (recipe.labels > 0, "labelled outputs (--train.labels)", {"labels_weight": labels_weight}),
    )
    if min(width, code) < 1 or min(layers, waves) < 0:
        raise ValueError(
            f"dgno needs width and code of at least 1, layers and waves of at least 0; got {width}, {code}, {layers} "
            f"and {waves}."
        )
    options = {"radii": _fractions(radii), "rule": rule, "nodes": nodes, "edges": edges, "power": power}
    number = waves or _waves(problem, grid)
    if trunk == "waves" and not _short_enough(problem, grid, number):
        raise ValueError(
            f"{number} waves an axis are longer than those that travel in {problem.name}: leave --model.waves out, or "
            f"use {_waves(problem, grid)}."
        )
    # squares of slopes are waves up to twice as short, which centres of cells integrate exactly
    resolved = trunk == "waves" and not medium.phases and number < min(energy_cells(problem.weak_domain(grid)))
    asked: PhysicsForm = "balls" if form in ("mixed", "primal") else form  # type: ignore[assignment]
    physics = Physics(problem, grid, balls=balls, form=asked, waves=number, fixed=resolved, **options)  # type: ignore[arg-type]
    _refuse_idle((physics.conditioned, "conditions that are not built in", {"edges": edges}))
    where = Positions(physics.domain, harmonics)
    shared: dict[str, Any] = {
        **{"branch": [width] * (layers or 5), "trunk": [width] * (layers or 5), "last": last, "positions": where},
        **{"branch_activation": branch_activation, "trunk_activation": trunk_activation},
    }

    before = [2 * width] * (layers or 2)

    def multionet() -> Decoder:
        made = MultiONet(where.count, code, **shared)
        nn.init.constant_(made.weight, START)
        return Products(made)

    def decoders(count: int, *, smooth: bool = True, **waved: Any) -> Decoders:
        if trunk == "multionet" or not smooth:
            return Decoders([multionet() for _ in range(count)])
        waved = {"walls": False, "waves": number, "hidden": before, **waved}
        return Decoders([wave_decoder(physics.domain, code, **waved) for _ in range(count)])

    def fields(names: Sequence[str], *, each: int = 1, **waved: Any) -> Decoders:
        """Of functions that the problem declares for them, where there are some."""
        if trunk == "waves" and names and all(name in known for name in names):
            rule = problem.quadrature()
            return Decoders([Declared(known[name], *rule, code, before, stay=physics.stay) for name in names])
        return decoders(each * len(names), **waved)

    taken, made = ([channel.name for channel in part] for part in (problem.signature.inputs, problem.signature.outputs))
    c_in, variational = len(taken), posterior == "variational"
    mixed, every = form == "mixed", flux == "phases" or (flux == "auto" and bool(medium.phases))
    fluxes = len(physics.scales(torch.ones(1, c_in, *grid.shape))) * grid.dim * (len(medium.phases) if every else 1)
    walls = bool(problem.envelope(torch.zeros(1, len(physics.domain.axes))))
    network = Generative(
        _reader(encoder, c_in, grid, numbers_of("hidden", hidden), numbers_of("channels", channels), code, variational),
        inputs=fields([] if evolves else taken, each=medium.logits, gain=GAIN if medium.phases else 1.0),
        outputs=fields(problem.potentials or made, walls=walls, stiffness=problem.stiffness),
        fluxes=decoders(fluxes if mixed else 0, smooth=False),
        bounded=bounded,
        variational=variational,
    )
    return GenerativeSolver(
        problem,
        network,
        Prior(code, prior),
        physics,
        recipe,
        weights=Weights(
            inputs=inputs_weight, equation=equation_weight, labels=labels_weight, divergence=divergence_weight
        ),
        envelope=problem.envelope if trunk == "multionet" else _free,
        carriers={
            name: Carrier(functions.carried, physics.stay)
            for name, functions in (known if trunk == "waves" else {}).items()
            if functions.carried is not None
        },
        flux="none" if not mixed else "phases" if every else "one",
        symmetries=symmetries_of(problem, grid),
    )


def _reader(
    encoder: Encoder,
    c_in: int,
    grid: Grid,
    hidden: list[int],
    channels: list[int],
    code: int,
    variational: bool,
) -> nn.Module:
    sizes = [*hidden, code * (2 if variational else 1)]
    if encoder == "cnn":
        return Convolutional(c_in, grid.shape, channels, sizes, "silu", wide=3)
    if encoder == "components":
        return Components(c_in * grid.size, code, hidden, sizes[-1])
    return Flat(Dense([c_in * grid.size, *sizes], "silu"))


def _free(points: Tensor) -> Mapping[str, Tensor]:
    """Waves that vanish on the walls need no factor."""
    return {}


def _fractions(words: str) -> list[float]:
    try:
        return [float(word) for word in words.split()]
    except ValueError:
        raise ValueError(f"radii is a list of numbers like '0.02 0.1', got {words!r}.") from None


def _waves(problem: WithWeakForm, grid: Grid) -> int:
    """The usual number, or as often that as the equation needs."""
    usual = {1: 48, 2: 16}.get(grid.dim, 8)
    return next(number for number in itertools.count(usual, usual) if _short_enough(problem, grid, number))


def _short_enough(problem: WithWeakForm, grid: Grid, number: int) -> bool:
    """The shortest wave is stiffer than the longest: resonances lie between."""
    shortest = (math.pi * number / max(axis.length for axis in grid.axes)) ** 2
    last, first = problem.stiffness(torch.tensor([shortest, 0.0], dtype=torch.float64)).tolist()
    return bool(last > first)


def _refuse_idle(*parts: tuple[bool, str, Mapping[str, Any]]) -> None:
    """Options that would do nothing beside the others: whether these are used, what they are of, their values."""
    for used, of, given in parts:
        for name, value in given.items():
            if not used and value != inspect.signature(build).parameters[name].default:
                raise ValueError(f"{name} is an option of {of} and would do nothing here: leave --model.{name} out.")


def _check(
    problem: Problem, medium: Medium, *, posterior: Posterior, prior: Law, form: Form, flux: Flux, bounded: bool
) -> None:
    if problem.signature.given:
        given = [channel.name for channel in problem.signature.given]
        raise ValueError(f"dgno decodes inputs and outputs; {problem.name} is given {given} beside its state.")
    if flux == "phases" and not medium.phases:
        raise ValueError("flux phases needs an input of phases, like darcy's two_phase law; use --model.flux one.")
    if form != "mixed" and flux != "auto":
        raise ValueError(f"In the {form} form no flux is decoded: leave --model.flux out, or use --model.form mixed.")
    if prior == "box" and not bounded:
        raise ValueError("The box is the range of tanh: use --model.bounded true, or another prior.")
    if prior == "box" and posterior == "variational":
        raise ValueError("A variational encoder is trained towards gaussian or flow, not towards the box.")
