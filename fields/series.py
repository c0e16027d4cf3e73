r"""Series: a truncated sum of waves, whose coefficients come from a transform and not from training.

.. math:: u(x) = \sum_m c_m \prod_j \phi_{j,m_j}(x_j)

Periodic axes (period 2 internally): 1, :math:`\sqrt2\cos\pi m x, \sqrt2\sin\pi m x`. Other axes:
:math:`\sqrt2\cos\tfrac{\pi m}{2}(x+1)`, which are orthogonal on their nodes (cosine transforms I and II), and with
``ends = e`` also x … x^(2e): they take over the odd derivatives at the two ends, up to order 2e - 1, which a sum of
cosines has not, so that coefficients of smooth fields fall as m^-(2+2e) and derivatives converge up to the ends
(Lanczos 1938, Eckhoff 1995). All functions have root mean square 1: what coefficients lose is what values lose.

For values of a given spectrum, equal steps for all coefficients followed by entropy coding are the optimal coding of a
Gaussian field at small errors (reverse water-filling); ``benchmarks/compression.py`` sets it beside zfp and SZ3. It has
no way to put its resolution where a front is.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Generator, Tensor, nn

from ..pde import Axis, Grid
from ._activations import cosine_of, sine
from ._builder import QUICK, fields_of, solver_of
from ._jet import Jet, joined
from ._network import Network, check_sizes

INSTANCES, PRESETS = 1, QUICK  # it learns from no data
SLOPES = 7  # degree of the polynomials that find the derivatives at the ends


class Series(Network):
    """Positions -> channels.

    modes   functions an axis, one number or one each, in the order 1, cos 1, sin 1, cos 2, … (without those of ends)
    ends    on axes that are not periodic: how many odd derivatives at the ends powers of x take over; one, or one each
    """

    precise = ()
    in_steps = ("weight",)

    def __init__(
        self,
        dim: int,
        channels: int,
        *,
        modes: int | Sequence[int] = 12,
        ends: int | Sequence[int] = 2,
        periodic: Sequence[bool] | None = None,
        generator: Generator | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__()
        self.periodic = tuple(periodic or (False,) * dim)
        self.modes = (modes,) * dim if isinstance(modes, int) else tuple(modes)
        free = (ends,) * dim if isinstance(ends, int) else tuple(ends)
        self.ends = tuple(0 if circle else e for e, circle in zip(free, self.periodic, strict=True))
        check_sizes(channels=channels, modes=min(self.modes))
        self.shape = tuple(m + 2 * e for m, e in zip(self.modes, self.ends, strict=True))
        self.weight = nn.Parameter(torch.zeros(channels, math.prod(self.shape), dtype=dtype))
        self.bias = nn.Parameter(torch.zeros(channels, dtype=dtype))

    @classmethod
    def matched(cls, waves: Sequence[float], /, *, modes: int = 0, **options: Any) -> dict[str, Any]:
        """Three times as many functions as the waves have, at least 12.

        modes   functions an axis; 0: by the waves
        """
        return {"modes": modes or [max(12, math.ceil(6 * k / math.pi)) for k in waves], **options}

    def forward(self, points: Jet) -> Jet:
        jet = points.select(slice(0, 1)) * 0.0 + 1.0
        for j in range(len(self.modes)):
            jet = _products(jet, self._along(j, points.select(slice(j, j + 1))))
        return jet.linear(self.weight, self.bias)

    def outer(self, axes: Sequence[Tensor]) -> Float[Tensor, "channel *space"]:
        """Values on the product of positions along each axis: one matrix product an axis."""
        values = self.weight.unflatten(1, self.shape)
        for j, x in enumerate(axes):
            basis = self._along(j, Jet(x.to(values)[None, :, None])).value
            values = torch.movedim(torch.tensordot(values, basis, dims=([1 + j], [1])), -1, 1 + j)
        return values + self.bias.view(-1, *[1] * len(axes))

    def _along(self, j: int, x: Jet) -> Jet:
        """The functions of one axis."""
        periodic, count = self.periodic[j], self.modes[j]
        unit = math.pi if periodic else math.pi / 2
        last = count // 2 if periodic else count - 1
        tones = unit * torch.arange(last + 1, dtype=x.orders.dtype, device=x.orders.device)
        angles = (x + 1.0) * tones
        waves = angles.through(cosine_of)
        if periodic:
            pairs = torch.stack([waves.orders, angles.through(sine(1.0)).orders], dim=-1).flatten(-2)
            # sin 0 is no function
            waves = Jet(torch.cat([pairs[..., :1], pairs[..., 2:]], dim=-1)[..., :count], x.dim, x.second)
        size = torch.full((waves.orders.shape[-1],), math.sqrt(2.0), dtype=x.orders.dtype, device=x.orders.device)
        size[0] = 1.0
        waves = waves * size
        powers = [x]
        for _ in range(2 * self.ends[j] - 1):
            powers.append(powers[-1] * x)
        sized = [power * math.sqrt(2 * p + 1) for p, power in enumerate(powers, start=1)]
        return joined([waves, *sized]) if self.ends[j] else waves


def _products(a: Jet, b: Jet) -> Jet:
    """All products of channels, those of b fastest."""
    count_a, count_b = a.orders.shape[-1], b.orders.shape[-1]
    left = Jet(a.orders.repeat_interleave(count_b, dim=-1), a.dim, a.second)
    return left * Jet(b.orders.repeat(1, 1, count_a), b.dim, b.second)


def coefficients(
    values: Float[Tensor, "channel *space"], grid: Grid, ends: Sequence[int]
) -> Float[Tensor, "channel *mode"]:
    """Of the series with all functions, which has these values at the nodes (double precision)."""
    found = values.detach().double()
    for j, axis in enumerate(grid.axes):
        matrix = analysis(axis, ends[j])
        found = torch.movedim(torch.tensordot(found, matrix, dims=([1 + j], [1])), -1, 1 + j)
    return found


def analysis(axis: Axis, ends: int) -> Float[Tensor, "mode node"]:
    """From the nodes of an axis to the coefficients of its functions."""
    n, x = axis.size, internal(axis)
    plain = Series(1, 1, modes=n, ends=0, periodic=(axis.periodic,), dtype=torch.float64)
    basis = plain._along(0, Jet(x[None, :, None])).value  # node mode
    inverse = (basis * (axis.weights() / axis.length)[:, None]).t()
    # the fastest wave has twice the square on nodes at the ends, and on an even number of periodic ones
    inverse = inverse / (inverse * basis.t()).sum(dim=1, keepdim=True)
    if axis.periodic or not ends:
        return inverse
    powers, found = _powers(axis, ends)
    rest = torch.eye(n, dtype=torch.float64) - powers @ found
    size = torch.tensor([math.sqrt(2 * p + 1) for p in range(1, 2 * ends + 1)], dtype=torch.float64)
    return torch.cat([inverse @ rest, found / size[:, None]])


def _powers(axis: Axis, ends: int) -> tuple[Float[Tensor, "node power"], Float[Tensor, "power node"]]:
    """Powers x … x^(2e) at the nodes, and their factors from the values: with the same odd derivatives at both ends."""
    x, orders = internal(axis), [2 * k + 1 for k in range(ends)]
    if axis.size <= max(orders):
        raise ValueError(f"ends={ends} needs more than {max(orders)} nodes on {axis.name}, got {axis.size}.")
    wanted, known = [], []
    for end in (-1.0, 1.0):
        differences = _differences(axis, end)
        for order in orders:
            wanted.append(differences[order])
            known.append([math.perm(p, order) * end ** max(p - order, 0) for p in range(1, 2 * ends + 1)])
    factors = torch.linalg.solve(torch.tensor(known, dtype=torch.float64), torch.stack(wanted))
    return torch.stack([x**p for p in range(1, 2 * ends + 1)], dim=1), factors


def internal(axis: Axis) -> Float[Tensor, " node"]:
    """The nodes of an axis from -1 to 1."""
    return 2 * (axis.coordinates() - axis.lower) / axis.length - 1


def _differences(axis: Axis, end: float) -> Float[Tensor, "order node"]:
    """Derivatives at an end by internal position, from the values: of the polynomial through the nodes next to it."""
    degree = min(SLOPES, axis.size - 1)
    chosen = slice(0, degree + 1) if end < 0 else slice(axis.size - degree - 1, None)
    scale = 2 / axis.size  # powers of numbers about 1
    powers = torch.stack([((internal(axis)[chosen] - end) / scale) ** p for p in range(degree + 1)], dim=1)
    matrix = torch.zeros(degree + 1, axis.size, dtype=torch.float64)
    factorials = torch.tensor([math.factorial(p) / scale**p for p in range(degree + 1)], dtype=torch.float64)
    matrix[:, chosen] = torch.linalg.inv(powers) * factorials[:, None]
    return matrix


field = fields_of(Series)
matched = field.matched
build = solver_of(Series, modes=12)
