"""exponax at its strongest, for ``generate.py``: runs in an interpreter that has exponax, answers JSON lines with JSON.

Strongest means: float64, one thread, compiled once and warm, all samples in one ``vmap``, the loop over steps compiled
too, and states kept in Fourier space between the steps (``step_fourier``). Building the stepper and compiling are not
counted. Needs nothing of this repository.

find   the cheapest setting (order 2, 3 or 4; one, two or four times the nodes; number of steps) whose largest relative
       L2 error over the samples, at the given nodes and time, reaches the target; it stays compiled
time   CPU seconds of one run of the setting found
"""

# ruff: noqa: E402
from __future__ import annotations

import os

# before jax starts: one thread
os.environ["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_name] = "1"
os.environ["JAX_PLATFORMS"] = "cpu"
if hasattr(os, "sched_setaffinity"):
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})

import json
import math
import sys
import time
from collections.abc import Callable
from typing import Any

import equinox as eqx
import exponax
import jax
import jax.numpy as jnp
import numpy as np

jax.config.update("jax_enable_x64", True)

MOST_STEPS = 2**15
SEARCH_SECONDS = 40.0  # of CPU time for one number of nodes and one order
SMALL = 1e-2  # an error from which on it falls at the method's order
BISECTIONS = 3  # of the number of steps between failing and enough: to within 9 %
Run = Callable[[], Any]


def stepper_of(case: dict[str, Any], nodes: int, dt: float, order: int) -> Any:
    place: Any = exponax.stepper
    for part in case["stepper"].split("."):
        place = getattr(place, part)
    options = {name: _tuple(value) for name, value in case["options"].items()}
    if case["orders"] != [0]:
        options["order"] = order
    return place(case["dim"], case["length"], nodes, dt, **options)


def _tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def compiled(case: dict[str, Any], states: np.ndarray, nodes: int, steps: int, order: int) -> Run:
    """A call that takes the states from time 0 to the time of the case."""
    stepper = stepper_of(case, nodes, case["time"] / steps, order)
    dim, factor = case["dim"], nodes // states.shape[-1]
    axes = tuple(range(-dim, 0))
    coarse = (slice(None),) * 1 + (slice(None, None, factor),) * dim

    def advance(u: Any) -> Any:
        spectrum = jnp.fft.rfftn(u, axes=axes)
        spectrum = jax.lax.fori_loop(0, steps, lambda _, s: stepper.step_fourier(s), spectrum)
        return jnp.fft.irfftn(spectrum, s=(nodes,) * dim, axes=axes)[coarse]

    start = jnp.asarray(finer(states, factor, dim))
    run = jax.jit(jax.vmap(advance)).lower(start).compile()
    return lambda: run(start).block_until_ready()


def finer(states: np.ndarray, factor: int, dim: int) -> np.ndarray:
    """The trigonometric interpolant on so many times the nodes; half of the Nyquist mode goes to either side."""
    for axis in range(-dim, 0) if factor > 1 else ():
        size = states.shape[axis]
        spectrum = np.moveaxis(np.fft.rfft(states, axis=axis), axis, -1)
        if size % 2 == 0:
            spectrum[..., -1] *= 0.5
        states = np.moveaxis(np.fft.irfft(spectrum, n=factor * size, axis=-1) * factor, -1, axis)
    return states


def error_of(run: Run, truth: np.ndarray) -> float:
    difference = (np.asarray(run()) - truth).reshape(len(truth), -1)
    error = np.linalg.norm(difference, axis=1) / np.linalg.norm(truth.reshape(len(truth), -1), axis=1)
    return float(error.max()) if np.isfinite(error).all() else math.inf


def cpu_seconds(run: Run, at_least: float = 0.05) -> float:
    """CPU seconds of one call, of as many in a row as take a while."""
    count = 1
    while True:
        started = time.process_time()
        for _ in range(count):
            run()
        spent = time.process_time() - started
        if spent >= at_least:
            return spent / count
        count *= 2


def fewest_steps(case: dict[str, Any], nodes: int, order: int) -> tuple[int, float, Run] | None:
    """The least number of steps that reaches the target; None where more steps do not help."""
    states, truth = np.load(case["states"]), np.load(case["truth"])

    at = search(case, states, truth, nodes, order)

    steps, last, started = case["first"], math.inf, time.process_time()
    error = at(steps)
    while error > case["target"]:
        if time.process_time() - started > SEARCH_SECONDS:  # such a setting is far from the fastest
            return None
        # small, and no longer falling: what is left is due to the nodes
        if steps >= MOST_STEPS or 0.7 * last < error < SMALL:
            return None
        last, steps = error, 2 * steps
        error = at(steps)
    fails, enough, reached = steps // 2, steps, error
    for _ in range(BISECTIONS if case["orders"] != [0] else 0):
        middle = round(math.sqrt(fails * enough)) if fails else enough
        if middle in (fails, enough):
            break
        error = at(middle)
        if error <= case["target"]:
            enough, reached = middle, error
        else:
            fails = middle
    return enough, reached, compiled(case, states, nodes, enough, order)


def search(
    case: dict[str, Any], states: np.ndarray, truth: np.ndarray, nodes: int, order: int
) -> Callable[[int], float]:
    """The error as a function of the number of steps, compiled once for all of them; only the winner is compiled anew,
    with its coefficients as constants.
    """
    dim, factor = case["dim"], nodes // states.shape[-1]
    axes = tuple(range(-dim, 0))
    coarse = (slice(None),) + (slice(None, None, factor),) * dim
    _, static = eqx.partition(stepper_of(case, nodes, case["time"] / case["first"], order), eqx.is_array)

    def advance(arrays: Any, u: Any, steps: Any) -> Any:
        stepper = eqx.combine(arrays, static)
        spectrum = jnp.fft.rfftn(u, axes=axes)
        spectrum = jax.lax.fori_loop(0, steps, lambda _, s: stepper.step_fourier(s), spectrum)
        return jnp.fft.irfftn(spectrum, s=(nodes,) * dim, axes=axes)[coarse]

    start = jnp.asarray(finer(states, factor, dim))
    run = jax.jit(jax.vmap(advance, in_axes=(None, 0, None)))

    def at(steps: int) -> float:
        arrays, _ = eqx.partition(stepper_of(case, nodes, case["time"] / steps, order), eqx.is_array)
        return error_of(lambda: run(arrays, start, steps), truth)

    return at


def find(case: dict[str, Any]) -> tuple[dict[str, Any], Run | None]:
    best: tuple[dict[str, Any], Run | None] = ({"found": False}, None)
    for factor in case["factors"]:
        nodes = factor * case["nodes"]
        for order in case["orders"]:
            result = fewest_steps(case, nodes, order)
            if result is None:
                continue
            steps, error, run = result
            seconds = min(cpu_seconds(run) for _ in range(3))
            if not best[0]["found"] or seconds < best[0]["cpu_s"]:
                said = {"order": order, "nodes": nodes, "steps": steps, "error": error, "cpu_s": seconds}
                best = ({"found": True, **said}, run)
        if best[0]["found"]:
            break
    return best


def main() -> None:
    run: Run | None = None
    print(json.dumps({"exponax": exponax.__version__, "jax": jax.__version__}), flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        if request["do"] == "find":
            answer, run = find(request)
        else:
            answer = {"cpu_s": cpu_seconds(run)} if run is not None else {"cpu_s": math.nan}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
