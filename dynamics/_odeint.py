r"""``odeint``: :math:`\dot y = f(t, y)` for a batch of initial states, adaptive, differentiable, counted.

>>> import torch
>>> from resolvent.dynamics import odeint
>>> solution = odeint(lambda t, y: -y, torch.ones(3, 1, dtype=torch.float64), [0.0, 1.0], rtol=1e-9, atol=1e-9)
>>> round(float(solution.states[0, -1, 0]), 7), int(solution.counts.evaluations[0])
(0.3678794, 56)
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from typing import Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor, nn

from . import _adjoint
from ._batch_wide import BatchWide
from ._control import Settings
from ._field import Field, RightHandSide
from ._per_sample import Event, PerSample
from ._solution import Solution
from ._tableaus import tableau_named

Control = Literal["batch", "sample"]
Gradient = Literal["discrete", "backsolve", "interpolated"]


def odeint(
    function: RightHandSide,
    state: Float[Tensor, "batch *state"],
    times: Sequence[float] | Tensor,
    *,
    method: str = "tsit5",
    rtol: float = 1e-6,
    atol: float = 1e-8,
    control: Control = "batch",
    gradient: Gradient = "discrete",
    first_step: float | None = None,
    step: float | None = None,
    max_steps: int = 100_000,
    event: Event | None = None,
    given: Sequence[Tensor] | None = None,
    trace: bool = False,
    parameters: Sequence[Tensor] | None = None,
    checkpoint: int = 16,
) -> Solution:
    """Integrate from the first of ``times`` through all others.

    function     f(t, y) with y ``batch *state``; t has no dimensions (control="batch") or is ``batch 1 ... 1``
    times        strictly increasing or decreasing, the first is that of ``state``; ``batch time`` with control="sample"
    method       tsit5, dopri5 (smooth), bosh3, heun_euler (loose tolerances), rodas4 (stiff)
    rtol, atol   tolerances of the local error, relative and in units of the state
    control      one step size for the batch, or one for each sample
    gradient     discrete: of the numbers computed, through every stage, step sizes being numbers;
                 backsolve: the adjoint equation with the state integrated backwards, memory independent of steps;
                 interpolated: the adjoint equation along the stored solution, recomputed between checkpoints
    first_step   guess of the first step [time]; chosen from the slope where None
    step         fixed step [time]: no error control
    max_steps    attempts before giving up
    event        g(t, y) -> one number per sample: a sample stops where it changes sign (control="sample")
    given        what goes with each sample, ``batch ...``: f(t, y, *given) and g(t, y, *given). It says that the
                 right-hand side serves any number of samples: with control="sample" those that have arrived leave
                 the batch (not with trace). () where there is nothing to pass; None: f always sees the whole batch
    trace        keep each accepted step: time, size, error, stiffness, state; with the gradient of error and stiffness
                 where it runs through the solver (discrete)
    parameters   backsolve, interpolated: what else the gradient is wanted for; those of an nn.Module where None
    checkpoint   interpolated: accepted steps between stored states
    """
    _check_words(control, gradient)
    settings = Settings(
        tableau=tableau_named(method),
        rtol=rtol,
        atol=atol,
        first_step=first_step,
        step=step,
        max_steps=max_steps,
        trace=trace,
    )
    _check_numbers(settings, state)
    _check_given(given, state)
    clock, sign = _clock(times, state, control)
    if event is not None and (control != "sample" or gradient != "discrete"):
        raise ValueError('An event stops each sample at its own time: use control="sample" and gradient="discrete".')
    if gradient != "discrete" and torch.is_grad_enabled():
        asked = _parameters(function, parameters)
        if state.requires_grad or any(p.requires_grad for p in asked):
            right = (lambda t, y: function(t, y, *given)) if given else function
            solved = _adjoint.solve(right, state, clock, sign, settings, asked, gradient, control, checkpoint)
            return Solution(sign * clock, *solved)
    return _direct(function, state, clock, sign, settings, control, event, given)


def _direct(
    function: RightHandSide,
    state: Tensor,
    clock: Tensor,
    sign: float,
    settings: Settings,
    control: Control,
    event: Event | None,
    given: Sequence[Tensor] | None,
) -> Solution:
    field = Field(function, state, sign, tuple(given or ()))
    flat = field.flat(state)
    if control == "batch":
        whole = BatchWide(field, flat, clock.tolist(), settings)
        states = torch.stack(whole.run(), dim=1).view(len(state), -1, *state.shape[1:])
        return Solution(sign * clock, states, whole.counts(), whole.trace())
    each = PerSample(field, flat, clock.expand(len(state), -1), settings, event, leave=given is not None)
    states = each.run().view(len(state), -1, *state.shape[1:])
    happened = (sign * each.event_time, each.event_state()) if event is not None else (None, None)
    return Solution(sign * clock, states, each.counts(), each.trace(), *happened)


def _check_words(control: str, gradient: str) -> None:
    for name, word, known in (("control", control, Control), ("gradient", gradient, Gradient)):
        if word not in get_args(known):
            raise ValueError(f"{name} is one of {get_args(known)}, got {word!r}.")


def _check_numbers(settings: Settings, state: Tensor) -> None:
    if not state.is_floating_point() or state.ndim < 2 or not state.numel():
        raise ValueError(
            f"The state is real, of shape batch *state and not empty; got {state.dtype} of shape {tuple(state.shape)}. "
            "A single system has batch 1; a complex one has real and imaginary parts as two unknowns."
        )
    bad = (~torch.isfinite(state.detach())).flatten(1).any(dim=1).nonzero().flatten().tolist()
    if bad:
        raise ValueError(f"Non-finite initial state in sample(s) {bad[:8]}.")
    for name in ("rtol", "atol", "first_step", "step", "max_steps"):
        value = getattr(settings, name)
        if value is not None and not (0 < value < math.inf or (name == "rtol" and value == 0)):
            raise ValueError(f"{name} must be positive and finite, got {value}.")
    least = 10 * torch.finfo(state.dtype).eps
    if settings.rtol < least and settings.step is None:
        warnings.warn(
            f"rtol {settings.rtol:g} is at the rounding level of {state.dtype}: steps follow rounding errors. Use at "
            f"least {least:.1g}, or double precision.",
            stacklevel=3,
        )


def _check_given(given: Sequence[Tensor] | None, state: Tensor) -> None:
    for values in given or ():
        if values.ndim < 1 or len(values) != len(state):
            raise ValueError(
                f"What is given has one row per sample: got shape {tuple(values.shape)} beside {len(state)} samples. "
                "What is common to all belongs into the right-hand side."
            )


def _clock(times: Sequence[float] | Tensor, state: Tensor, control: str) -> tuple[Tensor, float]:
    """Times that increase, in float64, and the sign that makes them so."""
    clock = torch.as_tensor(times, dtype=torch.float64, device=state.device)
    if clock.requires_grad:
        raise ValueError("Times are numbers here: no gradient is formed for them. Detach them.")
    if clock.ndim == 2 and (control != "sample" or len(clock) != len(state)):
        raise ValueError(
            f'Times of shape {tuple(clock.shape)} are one row per sample: use control="sample" with {len(state)} rows.'
        )
    if clock.ndim not in (1, 2) or clock.shape[-1] < 2 or not bool(torch.isfinite(clock).all()):
        raise ValueError(f"Times are at least two finite numbers, the first that of the state; got {times}.")
    sign = 1.0 if float(clock.flatten()[1]) > float(clock.flatten()[0]) else -1.0
    steps = sign * clock.diff(dim=-1)
    if not bool((steps > 0).all()):
        place = [int(i) for i in (steps <= 0).nonzero()[0]]
        raise ValueError(
            "Times must strictly increase or strictly decrease (for every sample alike); they turn or stand still "
            f"after position {place}. Sort them, and drop duplicates."
        )
    return sign * clock, sign


def _parameters(function: RightHandSide, parameters: Sequence[Tensor] | None) -> tuple[Tensor, ...]:
    if parameters is not None:
        return tuple(parameters)
    if isinstance(function, nn.Module):
        return tuple(p for p in function.parameters() if p.requires_grad)
    raise ValueError(
        "An adjoint must know what the gradient is wanted for: pass parameters=(...) (empty for the initial state "
        "alone), or a torch.nn.Module as the right-hand side."
    )
