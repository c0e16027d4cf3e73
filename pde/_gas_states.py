"""Initial states of gases: random ones and the classical tests; channels density, pressure, velocities."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from ._grid import Grid

# density, pressure, velocity to the left and to the right of a jump at this share of the length
TUBES: Mapping[str, tuple[tuple[float, float, float], tuple[float, float, float], float]] = {
    "sod": ((1.0, 1.0, 0.0), (0.125, 0.1, 0.0), 0.5),
    "lax": ((0.445, 3.528, 0.698), (0.5, 0.571, 0.0), 0.5),
    "double_rarefaction": ((1.0, 0.4, -2.0), (1.0, 0.4, 2.0), 0.5),
    "shu_osher": ((27 / 7, 31 / 3, 4 * math.sqrt(35) / 9), (1.0, 1.0, 0.0), 0.1),
}
# density, pressure, u, v in the quadrants (x, y) low-low, low-high, high-low, high-high, meeting at 0.8
FOUR_SHOCKS = (
    (77 / 558, 9 / 310, 4 / math.sqrt(11), 4 / math.sqrt(11)),
    (33 / 62, 0.3, 4 / math.sqrt(11), 0.0),
    (33 / 62, 0.3, 0.0, 4 / math.sqrt(11)),
    (1.5, 1.5, 0.0, 0.0),
)
PLANAR = ("turbulent", "quadrants", "four_shocks", "vortex")  # laws that need two dimensions
WAVES, HIGHEST = 4, 4  # plane waves of a random field, and the largest wave number of each direction
VORTEX_STRENGTH = 5.0


def initial_state(
    law: str, count: int, grid: Grid, *, gamma: float, mach: float, amplitude: float, generator: Generator
) -> Float[Tensor, "batch channel *space"]:
    """``count`` states of the law (float64); see ``euler`` for what they are."""
    if law in TUBES:
        return _tube(law, grid).expand(count, *(-1,) * (1 + grid.dim)).clone()
    if law == "four_shocks":
        corner = torch.full((count, 2), 0.8, dtype=torch.float64)
        return _pieces(torch.tensor(FOUR_SHOCKS, dtype=torch.float64).expand(count, -1, -1), corner, grid)
    if law == "vortex":
        return _vortex(grid, gamma).expand(count, -1, -1, -1).clone()
    speed = mach * math.sqrt(gamma)  # the sound speed of rho = p = 1 is sqrt(gamma)
    if law in ("shock", "quadrants"):
        directions = grid.dim if law == "quadrants" else 1
        states = _random_states(count, 2**directions, grid.dim, speed, generator)
        jump = 0.25 + 0.5 * _uniform(count, directions, generator=generator)
        return _pieces(states, jump, grid)
    if law == "turbulent":
        velocity = speed * _solenoidal(count, grid, generator)
        return torch.cat([torch.ones_like(velocity), velocity], dim=1)
    waves = _plane_waves(count, 2 + grid.dim, grid, generator)
    return torch.cat([1 + amplitude * waves[:, :2], speed * waves[:, 2:]], dim=1)


def _tube(law: str, grid: Grid) -> Tensor:
    left, right, jump = TUBES[law]
    x = (grid.mesh()[0] - grid.axes[0].lower) / grid.lengths[0]
    state = torch.zeros(2 + grid.dim, *grid.shape, dtype=torch.float64)
    for k in range(3):
        state[k] = torch.where(x < jump, left[k], right[k])
    if law == "shu_osher":  # on [-5, 5]: a Mach 3 shock runs into rho = 1 + 0.2 sin 5 x
        state[0] = torch.where(x < jump, left[0], 1 + 0.2 * torch.sin(5 * 10 * (x - 0.5)))
    return state[None]


def _pieces(states: Tensor, jump: Tensor, grid: Grid) -> Tensor:
    """Constant states (batch, piece, channel) on both sides of a jump along each of the first axes."""
    number = torch.zeros(len(states), *grid.shape, dtype=torch.int64)
    for j in range(jump.shape[1]):
        shares = (grid.mesh()[j] - grid.axes[j].lower) / grid.lengths[j]
        beyond = shares >= jump[:, j].reshape(-1, *(1,) * grid.dim)
        number = 2 * number + beyond
    chosen = states.gather(1, number.flatten(1)[..., None].expand(-1, -1, states.shape[2]))
    return chosen.movedim(2, 1).reshape(len(states), -1, *grid.shape).contiguous()


def _random_states(count: int, pieces: int, dim: int, speed: float, generator: Generator) -> Tensor:
    thermal = 10 ** (_uniform(count, pieces, 2, generator=generator) - 1)
    velocity = speed * (2 * _uniform(count, pieces, dim, generator=generator) - 1)
    return torch.cat([thermal, velocity], dim=2)


def _plane_waves(count: int, channels: int, grid: Grid, generator: Generator) -> Tensor:
    """Sums of periodic plane waves with random amplitudes, wave numbers and phases, at most 1 in absolute value."""
    shape = (count, channels, WAVES)
    strength = _uniform(*shape, generator=generator)
    numbers = torch.randint(1, HIGHEST + 1, (*shape, grid.dim), generator=generator)
    signs = 2 * torch.randint(0, 2, (*shape, grid.dim), generator=generator) - 1
    phase = 2 * math.pi * _uniform(*shape, generator=generator)
    angle = phase.reshape(*shape, *(1,) * grid.dim)
    for j, length in enumerate(grid.lengths):
        wave = (2 * math.pi / length) * (numbers * signs)[..., j]
        angle = angle + wave.reshape(*shape, *(1,) * grid.dim) * grid.mesh()[j]
    weights = strength / strength.sum(dim=2, keepdim=True)
    return (weights.reshape(*shape, *(1,) * grid.dim) * torch.sin(angle)).sum(dim=2)


def _solenoidal(count: int, grid: Grid, generator: Generator) -> Tensor:
    """Divergence-free velocities of wave numbers 1 to 4 with amplitudes ~ 1/|k|; the mean square of |v| is 1."""
    x, y = grid.mesh()
    (width, height), shape = grid.lengths, (count, 1, 1)
    velocity = torch.zeros(count, 2, *grid.shape, dtype=torch.float64)
    for n, m in itertools.product(range(-HIGHEST, HIGHEST + 1), repeat=2):
        if (n, m) <= (0, 0) or n * n + m * m > HIGHEST**2:  # one of k and -k
            continue
        kx, ky = 2 * math.pi * n / width, 2 * math.pi * m / height
        strength = torch.randn(shape, dtype=torch.float64, generator=generator) / (kx * kx + ky * ky)
        phase = 2 * math.pi * torch.rand(shape, dtype=torch.float64, generator=generator)
        slope = strength * torch.cos(kx * x + ky * y + phase)  # of the stream function strength sin(...)
        velocity[:, 0] += ky * slope
        velocity[:, 1] -= kx * slope
    mean_square = velocity.square().sum(dim=1).mean(dim=(1, 2))
    return velocity / torch.sqrt(mean_square)[:, None, None, None]


def _vortex(grid: Grid, gamma: float) -> Tensor:
    x, y = (grid.mesh()[j] - axis.lower - 0.5 * axis.length for j, axis in enumerate(grid.axes))
    envelope = torch.exp(0.5 * (1 - x * x - y * y)) * VORTEX_STRENGTH / (2 * math.pi)
    temperature = 1 - (gamma - 1) / (2 * gamma) * envelope.square()
    density = temperature ** (1 / (gamma - 1))
    return torch.stack([density, density * temperature, 1 - y * envelope, 1 + x * envelope])[None]


def _uniform(*shape: int, generator: Generator) -> Tensor:
    return torch.rand(*shape, dtype=torch.float64, generator=generator)
