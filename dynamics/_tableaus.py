r"""Integration methods as tables: embedded explicit Runge-Kutta pairs and a Rosenbrock pair for stiff systems.

With scaled stages :math:`K_i` (units of the state) all of them are

    y_1  = y_0 + \sum_i b_i K_i            propagated, of order ``order``
    e    = \sum_i \tilde b_i K_i           difference to the embedded solution, of order ``embedded``
    y(t_0 + \theta h) = y_0 + \sum_i b_i(\theta) K_i,   b_i(\theta) = \sum_p D_{ip} \theta^{p+1}    dense output

Explicit pairs: :math:`K_i = h f(t_0 + c_i h,\; y_0 + \sum_{j<i} a_{ij} K_j)`, the last stage at :math:`y_1` (it is the
first of the next step: s - 1 evaluations a step). Rosenbrock, with :math:`W = I/(\gamma h) - J`:

    W K_i = f(t_0 + c_i h,\; y_0 + \sum_{j<i} a_{ij} K_j) + \sum_{j<i} C_{ij} K_j / h + d_i h f_t

==========  =====  ========  ===================================================================  ===================
name        order  stages    source                                                               stability
==========  =====  ========  ===================================================================  ===================
heun_euler  2(1)   2 + FSAL  Heun's method with Euler's inside                                    real axis to -2
bosh3       3(2)   3 + FSAL  Bogacki and Shampine, Appl. Math. Lett. 2 (1989)                     real axis to -2.51
dopri5      5(4)   6 + FSAL  Dormand and Prince 1980; dense output of Hairer, Norsett, Wanner     real axis to -3.31
tsit5       5(4)   6 + FSAL  Tsitouras, Comput. Math. Appl. 62 (2011), its free interpolant       real axis to -3.51
rodas4      4(3)   6         Hairer and Wanner, Solving ODEs II, section IV.7: stiffly accurate   L-stable
==========  =====  ========  ===================================================================  ===================

Tsitouras' paper prints the last error weight of his pair with the wrong sign; it is -1/66 (then they sum to zero).
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

Row = tuple[float, ...]


@dataclass(frozen=True)
class Tableau:
    """One pair. ``stiffness`` names two stages at equal times, whose quotient estimates the largest eigenvalue."""

    name: str
    order: int
    embedded: int
    nodes: Row
    stages: tuple[Row, ...]  # row i has i entries
    weights: Row
    error: Row
    dense: tuple[Row, ...]  # row i: coefficients of theta, theta^2, ...
    real_axis: float = float("inf")  # the stability interval is [-real_axis, 0]
    stiffness: tuple[int, int] | None = None

    @property
    def size(self) -> int:
        return len(self.nodes)


@dataclass(frozen=True)
class Rosenbrock(Tableau):
    """A linearly implicit pair: besides, gamma, the matrix C and the weights d of the time derivative."""

    gamma: float = 0.0
    coupling: tuple[Row, ...] = ()
    time: Row = ()


def _product(*factors: Sequence[float]) -> Row:
    """Coefficients (ascending) of a product of polynomials."""
    total = [1.0]
    for factor in factors:
        longer = [0.0] * (len(total) + len(factor) - 1)
        for i, a in enumerate(total):
            for j, b in enumerate(factor):
                longer[i + j] += a * b
        total = longer
    return tuple(total)


def _hermite(weights: Row, quartic: Row = ()) -> tuple[Row, ...]:
    r"""The cubic through both ends with both slopes, plus :math:`\theta^2 (1 - \theta)^2 \sum_i q_i K_i`."""
    rows = []
    for i, b in enumerate(weights):
        q = quartic[i] if quartic else 0.0
        row = [0.0, 3 * b + q, -2 * b - 2 * q, q]
        if i == 0:
            row = [row[0] + 1, row[1] - 2, row[2] + 1, row[3]]
        if i == len(weights) - 1:
            row = [row[0], row[1] - 1, row[2] + 1, row[3]]
        rows.append(tuple(row))
    return tuple(rows)


_HEUN = (0.5, 0.5, 0.0)
HEUN_EULER = Tableau(
    "heun_euler",
    order=2,
    embedded=1,
    nodes=(0.0, 1.0, 1.0),
    stages=((), (1.0,), (0.5, 0.5)),
    weights=_HEUN,
    error=(-0.5, 0.5, 0.0),
    dense=_hermite(_HEUN),
    real_axis=2.0,
    stiffness=(1, 2),
)

_BOSH = (2 / 9, 1 / 3, 4 / 9, 0.0)
BOSH3 = Tableau(
    "bosh3",
    order=3,
    embedded=2,
    nodes=(0.0, 1 / 2, 3 / 4, 1.0),
    stages=((), (1 / 2,), (0.0, 3 / 4), _BOSH[:3]),
    weights=_BOSH,
    error=(2 / 9 - 7 / 24, 1 / 3 - 1 / 4, 4 / 9 - 1 / 3, -1 / 8),
    dense=_hermite(_BOSH),
    real_axis=2.5127,
)

_DOPRI = (35 / 384, 0.0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84, 0.0)
DOPRI5 = Tableau(
    "dopri5",
    order=5,
    embedded=4,
    nodes=(0.0, 1 / 5, 3 / 10, 4 / 5, 8 / 9, 1.0, 1.0),
    stages=(
        (),
        (1 / 5,),
        (3 / 40, 9 / 40),
        (44 / 45, -56 / 15, 32 / 9),
        (19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729),
        (9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656),
        _DOPRI[:6],
    ),
    weights=_DOPRI,
    error=(71 / 57600, 0.0, -71 / 16695, 71 / 1920, -17253 / 339200, 22 / 525, -1 / 40),
    dense=_hermite(
        _DOPRI,
        (
            -12715105075 / 11282082432,
            0.0,
            87487479700 / 32700410799,
            -10690763975 / 1880347072,
            701980252875 / 199316789632,
            -1453857185 / 822651844,
            69997945 / 29380423,
        ),
    ),
    real_axis=3.3066,
    stiffness=(5, 6),
)

_TSIT = (
    0.09646076681806523,
    0.01,
    0.4798896504144996,
    1.379008574103742,
    -3.290069515436081,
    2.324710524099774,
    0.0,
)
TSIT5 = Tableau(
    "tsit5",
    order=5,
    embedded=4,
    nodes=(0.0, 0.161, 0.327, 0.9, 0.9800255409045097, 1.0, 1.0),
    stages=(
        (),
        (0.161,),
        (-0.008480655492356989, 0.335480655492357),
        (2.8971530571054935, -6.359448489975075, 4.3622954328695815),
        (5.325864828439257, -11.748883564062828, 7.4955393428898365, -0.09249506636175525),
        (5.86145544294642, -12.92096931784711, 8.159367898576159, -0.071584973281401, -0.02826905039406838),
        _TSIT[:6],
    ),
    weights=_TSIT,
    error=(
        0.00178001105222577714,
        0.0008164344596567469,
        -0.007880878010261995,
        0.1447110071732629,
        -0.5823571654525552,
        0.45808210592918697,
        -1 / 66,
    ),
    dense=(
        _product(
            (-1.0530884977290216,),
            (-1.3299890189751412, 1.0),
            (0.7139816917074209, -1.4364028541716351, 1.0),
        ),
        _product((0.1017,), (0.0, 1.0), (1.2949852507374631, -2.1966568338249754, 1.0)),
        _product((2.490627285651252793,), (0.0, 1.0), (1.57803468208092486, -2.38535645472061657, 1.0)),
        _product((-16.54810288924490272,), (0.0, 1.0), (-1.21712927295533244, 1.0), (-0.61620406037800089, 1.0)),
        _product((47.37952196281928122,), (0.0, 1.0), (-1.203071208372362603, 1.0), (-0.658047292653547382, 1.0)),
        _product((-34.87065786149660974,), (0.0, 1.0), (-1.2, 1.0), (-2 / 3, 1.0)),
        _product((2.5,), (0.0, 1.0), (-1.0, 1.0), (-0.6, 1.0)),
    ),
    real_axis=3.5068,
    stiffness=(5, 6),
)


def _rosenbrock_dense(weights: Row, first: Row, second: Row) -> tuple[Row, ...]:
    r""":math:`\theta m + \theta (1 - \theta) H_2 + \theta^2 (1 - \theta) H_3`, as Hairer and Wanner's code has it."""
    rows = zip(weights, first, second, strict=True)
    return tuple((m + p, q - p, -q, 0.0) for m, p, q in rows)


_RODAS_LAST = (1.221224509226641, 6.019134481288629, 12.53708332932087, -0.6878860361058950)
_RODAS = (*_RODAS_LAST, 1.0, 1.0)
RODAS4 = Rosenbrock(
    "rodas4",
    order=4,
    embedded=3,
    nodes=(0.0, 0.386, 0.21, 0.63, 1.0, 1.0),
    stages=(
        (),
        (1.544,),
        (0.9466785280815826, 0.2557011698983284),
        (3.314825187068521, 2.896124015972201, 0.9986419139977817),
        _RODAS_LAST,
        (*_RODAS_LAST, 1.0),
    ),
    weights=_RODAS,
    error=(0.0, 0.0, 0.0, 0.0, 0.0, 1.0),
    dense=_rosenbrock_dense(
        _RODAS,
        (10.12623508344586, -7.487995877610167, -34.80091861555747, -7.992771707568823, 1.025137723295662, 0.0),
        (-0.6762803392801253, 6.087714651680015, 16.43084320892478, 24.76722511418386, -6.594389125716872, 0.0),
    ),
    gamma=0.25,
    coupling=(
        (),
        (-5.6688,),
        (-2.430093356833875, -0.2063599157091915),
        (-0.1073529058151375, -9.594562251023355, -20.47028614809616),
        (7.496443313967647, -10.24680431464352, -33.99990352819905, 11.70890893206160),
        (8.083246795921522, -7.981132988064893, -31.52159432874371, 16.31930543123136, -6.058818238834054),
    ),
    time=(0.25, -0.1043, 0.1035, -0.0362, 0.0, 0.0),
)

TABLEAUS: Mapping[str, Tableau] = {t.name: t for t in (HEUN_EULER, BOSH3, DOPRI5, TSIT5, RODAS4)}


def tableau_named(name: str) -> Tableau:
    if name not in TABLEAUS:
        raise ValueError(f"Unknown method {name!r}: there are {', '.join(TABLEAUS)}.")
    return TABLEAUS[name]


@functools.cache
def rows_of(table: tuple[Row, ...], dtype: torch.dtype, device: torch.device) -> tuple[Tensor, ...]:
    """A table's rows as tensors, made once: building them step by step would cost as much as a small network."""
    return tuple(torch.tensor(row, dtype=dtype, device=device) for row in table)


@functools.cache
def dense_of(tableau: Tableau, dtype: torch.dtype, device: torch.device) -> Float[Tensor, "power stage"]:
    return torch.tensor(tableau.dense, dtype=dtype, device=device).T.contiguous()
