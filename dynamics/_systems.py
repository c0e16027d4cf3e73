r"""Plain systems for tests and benchmarks: right-hand sides f(t, y) on ``batch unknown``.

spiral           y' = A y^3 (component by component), A = [[-0.1, 2], [-2, -0.1]], from (2, 0)
lotka_volterra   x' = 1.5 x - x y,  y' = -3 y + x y, from (1, 1)
lorenz           sigma 10, rho 28, beta 8/3
van_der_pol      x'' = mu (1 - x^2) x' - x
robertson        three reactions with rates 0.04, 1e4, 3e7; from (1, 0, 0)
kepler           a planet on an ellipse of eccentricity e and period 2 pi, from its nearest point
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

Right = Callable[[Tensor, Tensor], Tensor]
State = Float[Tensor, "batch unknown"]


def spiral(_: Tensor, y: State) -> State:
    cubes = y**3
    return cubes @ cubes.new_tensor([[-0.1, -2.0], [2.0, -0.1]])


def lotka_volterra(_: Tensor, y: State) -> State:
    prey, hunters = y.unbind(dim=1)
    meet = prey * hunters
    return torch.stack([1.5 * prey - meet, meet - 3 * hunters], dim=1)


def van_der_pol(mu: float) -> Right:
    def right(_: Tensor, y: State) -> State:
        place, rate = y.unbind(dim=1)
        return torch.stack([rate, mu * (1 - place**2) * rate - place], dim=1)

    return right


def robertson(_: Tensor, y: State) -> State:
    a, b, c = y.unbind(dim=1)
    slow, fast, made = 0.04 * a, 1e4 * b * c, 3e7 * b**2
    return torch.stack([fast - slow, slow - fast - made, made], dim=1)


def kepler(_: Tensor, y: State) -> State:
    place, rate = y.chunk(2, dim=1)
    return torch.cat([rate, -place / place.square().sum(dim=1, keepdim=True) ** 1.5], dim=1)


def kepler_start(eccentricity: float) -> Float[Tensor, "1 4"]:
    e = eccentricity
    return torch.tensor([[1 - e, 0.0, 0.0, ((1 + e) / (1 - e)) ** 0.5]], dtype=torch.float64)
