"""Strong-stability-preserving Runge-Kutta methods: every stage is a convex combination of forward Euler steps.

Whatever forward Euler keeps up to some step length (positivity, say), such a method keeps up to ``bound`` times it.
Coefficients: Shu and Osher 1988 (Heun's method); Spiteri and Ruuth, SIAM J. Numer. Anal. 40, 2002 (five stages).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class SspMethod:
    """Strong-stability-preserving Runge-Kutta: stage i is a sum of ``mix`` stages and ``rates`` of stages."""

    mix: tuple[Mapping[int, float], ...]
    rates: tuple[Mapping[int, float], ...]
    bound: float  # times the forward Euler step, up to which the method is a convex combination of such steps
    order: int


SSP22 = SspMethod(({0: 1.0}, {0: 0.5, 1: 0.5}), ({0: 1.0}, {1: 0.5}), bound=1.0, order=2)
SSP54 = SspMethod(
    mix=(
        {0: 1.0},
        {0: 0.444370493651235, 1: 0.555629506348765},
        {0: 0.620101851488403, 2: 0.379898148511597},
        {0: 0.178079954393132, 3: 0.821920045606868},
        {2: 0.517231671970585, 3: 0.096059710526147, 4: 0.386708617503268},
    ),
    rates=(
        {0: 0.391752226571890},
        {1: 0.368410593050371},
        {2: 0.251891774271694},
        {3: 0.544974750228521},
        {3: 0.063692468666290, 4: 0.226007483236906},
    ),
    bound=1.508,
    order=4,
)
