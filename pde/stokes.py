r"""Stokes flow past a cylinder in a channel: :math:`-\mu\Delta u + \nabla p = 0`, div u = 0; inflow -> u, v, p.

inflow   velocity along x at x = 0, a(y)  [m/s]   given; a field constant along x, so that it lives on the grid too
u, v     velocity                         [m/s]   sought
p        pressure                         [Pa]    sought

The channel is [0, length] x [0, 1] m² without the disc around ``centre``; no slip on walls and cylinder, and
:math:`\mu\,\partial_x u = p\,n` (pressure zero in the mean) at the outflow. All outputs are *zero inside the
cylinder*. Geometry, viscosity and the form of the inflow are those of Zang & Koutsourelakis 2025,

.. math:: a(y) = 2\sin(\pi y)\,(1 + \sin(\beta_1 y) + \cos(\beta_2 y)),

the law of the betas is in their data files only: uniform on [0, ``wiggle``] is our choice.

The flow is linear in the inflow: the response to each of the finite elements' inflow values is computed once a grid and
kept; after that a sample is one matrix product.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from jaxtyping import Bool, Float
from numpy.typing import NDArray
from scipy.interpolate import CubicSpline
from torch import Generator, Tensor

from ._channel_functions import Channel as ChannelFunctions
from ._finite_elements import TaylorHood
from ._grid import Axis, Grid
from ._problem import Channel, Problem, Setup, Signature
from ._solver import Solver, check_fields
from ._weak_form import Balance, Call, Candidate, Carried, Functions, WithWeakForm, root_mean_squares

if TYPE_CHECKING:
    from skfem import MeshTri2

Array = NDArray[np.float64]
HEIGHT = 1.0  # of the channel [m]
FRAME = 2.0  # half width of the square around the cylinder that is meshed in rings [radii]
CLOSE = 1e-6  # points of the mesh closer than this are one [m]
SLOPE = 12.0  # pressure gradient of a parabolic flow, in viscosity times mean velocity over height squared
ENTERING = 24  # sines of the inflow
LADDER = (2, 4, 8)  # elements along a side of that square


@dataclass(frozen=True, kw_only=True)
class Stokes(Problem, WithWeakForm):
    """Slow viscous flow past an obstacle, driven by what comes in."""

    viscosity: float = 0.01  # [Pa s]
    length: float = 2.0  # of the channel, in its height [m]
    centre_x: float = 0.5  # of the cylinder [m]
    centre_y: float = 0.6  # of the cylinder [m]
    radius: float = 0.1  # of the cylinder [m]; 0: none
    wiggle: float = 2 * math.pi  # largest beta [1/m]

    setups: ClassVar[Mapping[str, Setup]] = {
        "quick": Setup(resolution=33, train=400, validation=40, test=100),
        "paper": Setup(resolution=65, train=1000, validation=100, test=200),
    }
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {"dgno_stokes": {}, "empty_channel": {"radius": 0.0}}

    def __post_init__(self) -> None:
        for name in ("viscosity", "length", "wiggle"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be positive, got {getattr(self, name)}.")
        if self.radius < 0:
            raise ValueError(f"radius must be at least 0 (no cylinder), got {self.radius}.")
        room = min(self.centre_x, self.length - self.centre_x, self.centre_y, HEIGHT - self.centre_y)
        if self.radius and not FRAME * self.radius < room:
            raise ValueError(
                f"radius must be less than {room / FRAME:.3g}: the cylinder around ({self.centre_x}, {self.centre_y}) "
                f"needs {FRAME:g} radii to every side within the channel; got {self.radius}."
            )

    @property
    def signature(self) -> Signature:
        velocities = (Channel("u", "m s-1", "velocity u"), Channel("v", "m s-1", "velocity v"))
        return Signature((Channel("inflow", "m s-1", "inflow a"),), (*velocities, Channel("p", "Pa", "pressure p")))

    def grid(self, resolution: int | Sequence[int]) -> Grid:
        """Nodes along x and y; one number is that across the channel, with as many a metre along it."""
        if isinstance(resolution, int):
            resolution = (round(self.length / HEIGHT * (resolution - 1)) + 1, resolution)
        along = Axis("x", resolution[0], 0.0, self.length, ("dirichlet", "outflow"), "ends", "m")
        return Grid((along, Axis("y", resolution[1], 0.0, HEIGHT, ("dirichlet", "dirichlet"), "ends", "m")))

    def sample(self, count: int, grid: Grid, *, generator: Generator) -> Float[Tensor, "batch 1 x y"]:
        y = grid.coordinates()[1]
        first, second = self.wiggle * torch.rand(2, count, 1, dtype=torch.float64, generator=generator)
        profile = 2 * torch.sin(math.pi * y / HEIGHT) * (1 + torch.sin(first * y) + torch.cos(second * y))
        profile[:, [0, -1]] = 0.0  # sin(pi) is 1e-16
        return profile[:, None, None].expand(count, 1, *grid.shape).contiguous()

    def reference(self, **accuracy: Any) -> Response:
        """Taylor-Hood finite elements; see :class:`Response` for ``elements``."""
        return Response(self, **accuracy)

    def ladder(self, grid: Grid) -> Mapping[str, Solver]:
        """The same elements on coarser meshes, cheap to dear; what comes after the first sample costs the same."""
        return {f"Taylor-Hood {n}": Response(self, elements=n) for n in LADDER}

    def balances(self, candidate: Candidate) -> Mapping[str, Balance]:
        """Momentum along x and y, viscous stress less pressure; and mass, which a stream function has built in."""
        p, unit = candidate.outputs["p"], torch.eye(2, dtype=candidate.points.dtype, device=candidate.points.device)
        fluxes = {
            f"momentum_{axis}": self.viscosity * candidate.gradients[name] - p[..., None] * unit[number]
            for number, (axis, name) in enumerate((("x", "u"), ("y", "v")))
        }
        balances = {name: Balance(flux, torch.zeros_like(p)) for name, flux in fluxes.items()}
        growth = candidate.gradients["u"][..., 0] + candidate.gradients["v"][..., 1]
        return {**balances, "mass": Balance(torch.zeros_like(candidate.gradients["u"]), growth)}

    def balance_scales(self, inputs: Tensor, grid: Grid) -> Mapping[str, Tensor]:
        speed = root_mean_squares(inputs).clamp_min(1e-12)
        force = SLOPE * self.viscosity * speed / HEIGHT**2
        return {"momentum_x": force, "momentum_y": force, "mass": speed / HEIGHT}

    def output_scales(self, inputs: Tensor, grid: Grid) -> Mapping[str, float]:
        speed = float(root_mean_squares(inputs).mean())
        stress = SLOPE * self.viscosity * speed * self.length / HEIGHT**2
        return {"stream": speed * HEIGHT, "u": speed, "v": speed, "p": stress}

    @property
    def potentials(self) -> tuple[str, ...]:
        """U = psi_y, v = -psi_x: no flow is lost or made."""
        return ("stream", "p")

    def from_potentials(
        self, values: Mapping[str, Tensor], gradients: Mapping[str, Tensor], curvatures: Mapping[str, Tensor]
    ) -> tuple[Mapping[str, Tensor], Mapping[str, Tensor]]:
        slope, bend = gradients["stream"], curvatures["stream"]
        outputs = {"u": slope[..., 1], "v": -slope[..., 0], "p": values["p"]}
        return outputs, {"u": bend[..., 1, :], "v": -bend[..., 0, :], "p": gradients["p"]}

    def functions(self, waves: int) -> Mapping[str, Functions]:
        """Streams that come in and go around the cylinder, and what vanishes on it, walls and inlet with its slopes;
        the pressure is free. What leaves is left to the weak form, whose natural condition it is. The inflow vanishes
        at the walls.
        """
        where, across, rings = self._channel, max(2, 3 * waves // 4), max(2, waves // 2)

        def stream(points: Tensor) -> Tensor:
            inner = where.waves(points, waves, across) * where.held(points) ** 2
            around = where.rings(points, rings, rings, power=2)
            return torch.cat([where.core(points), inner, around], dim=1)

        def pressure(points: Tensor) -> Tensor:
            coarse = max(2, rings // 2)
            around = where.rings(points, coarse, coarse, power=0)
            return torch.cat([where.waves(points, across, rings), around], dim=1)

        inflow = Functions(lambda points: _sines(points[:, 1]), 0)
        return {"stream": Functions(stream, 2, self._inflow()), "p": Functions(pressure, 0), "inflow": inflow}

    def _inflow(self) -> Carried:
        """Its sine series, by Gauss' rule across the inlet."""
        where = self._channel
        nodes, weights = (torch.from_numpy(part) / 2 for part in np.polynomial.legendre.leggauss(2 * ENTERING))
        sensors = torch.stack([torch.zeros_like(nodes), nodes + 0.5], dim=1)
        return Carried(lambda points: where.streams(points, ENTERING), sensors, 2 * weights * _sines(sensors[:, 1]).t())

    def tests(self, waves: int) -> Call:
        where, more, rings = self._channel, round(1.4 * waves), waves // 2 + 1

        def forces(points: Tensor) -> Tensor:
            inner = where.waves(points, more, max(2, 2 * more // 3)) * where.held(points)
            return torch.cat([inner, where.rings(points, rings, rings, power=1)], dim=1)

        return forces

    def quadrature(self) -> tuple[Float[Tensor, "point 2"], Float[Tensor, " point"]]:
        """Of degree 4 in the triangles of the reference's mesh, 6 elements along a side."""
        from skfem import Basis, ElementTriP2

        basis = Basis(channel(self, 6), ElementTriP2(), intorder=4)
        points = torch.from_numpy(np.array(basis.global_coordinates()).reshape(2, -1).T.copy())
        return points, torch.from_numpy(basis.dx.reshape(-1).copy())

    @property
    def _channel(self) -> ChannelFunctions:
        return ChannelFunctions(self.length, (self.centre_x, self.centre_y), self.radius)

    def clear(self, centres: Tensor, radii: Tensor) -> Bool[Tensor, " ball"]:
        middle = centres.new_tensor([self.centre_x, self.centre_y])
        return (centres - middle).norm(dim=1) >= (self.radius + radii) * (1 - 1e-6)

    def boundary_points(self, count: int, grid: Grid, *, generator: Generator) -> Float[Tensor, "point 2"]:
        """Inlet, outlet, lower wall, upper wall and cylinder in turn."""
        share, kind = torch.rand(count, generator=generator, dtype=torch.float64), torch.arange(count) % 5
        angle = 2 * math.pi * share
        zero = torch.zeros_like(share)
        places = [
            (zero, HEIGHT * share),
            (zero + self.length, HEIGHT * share),
            (self.length * share, zero),
            (self.length * share, zero + HEIGHT),
            (self.centre_x + self.radius * angle.cos(), self.centre_y + self.radius * angle.sin()),
        ]
        points = torch.stack([torch.stack(place, dim=1) for place in places])[kind, torch.arange(count)]
        return points if self.radius else points[kind < 4]

    def conditions(self, candidate: Candidate) -> Mapping[str, Tensor]:
        """What comes in, no slip, and no stress at the outflow."""
        x, out, slope = candidate.points[:, 0], candidate.outputs, candidate.gradients
        inlet, outlet = (x == 0).to(x), (x == self.length).to(x)
        inflow = candidate.inputs["inflow"]
        speed = (inflow * inlet).square().sum(dim=1, keepdim=True) / inlet.sum().clamp_min(1)
        speed = speed.sqrt().clamp_min(1e-6)
        stress = SLOPE * self.viscosity * speed * self.length / HEIGHT**2
        return {
            "u": (out["u"] - inlet * inflow) * (1 - outlet) / speed,
            "v": out["v"] * (1 - outlet) / speed,
            "outflow_x": (self.viscosity * slope["u"][..., 0] - out["p"]) * outlet / stress,
            "outflow_y": self.viscosity * slope["v"][..., 0] * outlet / stress,
        }

    def fluid(self, grid: Grid) -> Bool[Tensor, "x y"]:
        """Nodes outside the cylinder, its surface included."""
        x, y = grid.mesh()
        return (x - self.centre_x) ** 2 + (y - self.centre_y) ** 2 >= (self.radius * (1 - 1e-12)) ** 2


class Response(Solver):
    """P2/P1 finite elements on a mesh that follows the cylinder with curved edges, observed at the grid's nodes.

    elements   along a side of the square around the cylinder (of four radii); elsewhere of about that size

    Order 3 for velocities and 2 for the pressure (observed). Measured on 65 x 33 nodes against ``elements=32``,
    relative L2 of u, v, p: 2.4e-3, 1.3e-2, 9.6e-3 at 4; 1.0e-4, 5.0e-4, 1.0e-3 at 12; 3.8e-5, 2.4e-4, 5.7e-4 at 16. The
    first call on a grid takes 0.6 s at 12. The inflow between the grid's nodes is their cubic spline; it vanishes at
    the walls, else it is refused.
    """

    def __init__(self, problem: Stokes, *, elements: int = 12) -> None:
        if elements < 2 or elements % 2:
            raise ValueError(f"elements must be even and at least 2, got {elements}.")
        self.problem = problem
        self.elements = elements

    @torch.no_grad()
    def __call__(self, inputs: Tensor, grid: Grid, times: Sequence[float] | None = None) -> Tensor:
        profile = _profile(inputs, grid)
        response = _response(self.problem, self.elements, grid)
        return torch.einsum("by,ycij->bcij", profile.to("cpu", torch.float64), response).to(inputs)


def _sines(y: Float[Tensor, " point"]) -> Float[Tensor, "point sine"]:
    return torch.sin(math.pi * y[:, None] * torch.arange(1, ENTERING + 1, device=y.device))


def _profile(inputs: Tensor, grid: Grid) -> Float[Tensor, "batch y"]:
    """The inflow as a function of y, from the field that carries it along x."""
    check_fields(inputs, grid, 1)
    profile, size = inputs[:, 0, 0], inputs.abs().flatten(1).amax(1)
    along = (inputs[:, 0] - profile[:, None]).abs().flatten(1).amax(1) > 1e-5 * size
    slips = profile[:, [0, -1]].abs().amax(1) > 1e-5 * size  # float32 data have round-off of 1e-7
    for wrong, what in ((along, "vary along x"), (slips, "slip at the walls")):
        if bool(wrong.any()):
            bad = wrong.nonzero().flatten().tolist()
            raise ValueError(f"The inflow is a function of y that vanishes at the walls; sample(s) {bad[:8]} {what}.")
    return profile


@functools.lru_cache(maxsize=8)
def _response(problem: Stokes, elements: int, grid: Grid) -> Float[Tensor, "y 3 nodes_x nodes_y"]:
    """u, v and p on the grid for each unit value of the inflow at a node across the channel."""
    flow = taylor_hood(problem, elements)
    inlet = flow.velocity.get_dofs("inlet").all(["u^1"])
    y = grid.coordinates()[1].numpy()
    held = np.zeros((flow.velocity.N + flow.pressure.N, len(y)))
    held[inlet] = CubicSpline(y, np.eye(len(y)))(flow.velocity.doflocs[1, inlet])
    wall = (flow.velocity.doflocs[1, inlet] <= 0) | (flow.velocity.doflocs[1, inlet] >= HEIGHT)
    held[inlet[wall]] = 0.0
    solution = flow.solve(held)
    fluid = problem.fluid(grid).flatten().numpy()
    fields = np.zeros((len(y), 3, grid.size))
    probes = flow.probes(grid.mesh().flatten(1).numpy()[:, fluid])
    for channel, probe in enumerate(probes):
        fields[:, channel, fluid] = (probe @ solution).T
    return torch.from_numpy(fields).reshape(len(y), 3, *grid.shape)


@functools.lru_cache(maxsize=8)
def taylor_hood(problem: Stokes, elements: int) -> TaylorHood:
    """The factorised flow; unknowns are held at inlet, walls and cylinder."""
    held = ("inlet", "walls", "cylinder") if problem.radius else ("inlet", "walls")
    return TaylorHood(channel(problem, elements), problem.viscosity, held)


def channel(problem: Stokes, elements: int) -> MeshTri2:
    """Triangles of second order: a tensor grid around a square of rings, whose innermost edges lie on the circle."""
    import skfem

    half = FRAME * (problem.radius or 0.05)
    x, y = (
        _lines(low, centre, half, high, elements)
        for low, centre, high in ((0.0, problem.centre_x, problem.length), (0.0, problem.centre_y, HEIGHT))
    )
    mesh = skfem.MeshQuad.init_tensor(x, y)
    points, quads = mesh.p, mesh.t
    if problem.radius:
        outside = np.abs(points[:, quads].mean(1) - [[problem.centre_x], [problem.centre_y]]).max(0) > half
        points, quads = _merged((points, quads[:, outside]), _rings(problem, half, elements))
    mesh = skfem.MeshTri2.from_mesh(skfem.MeshQuad(points, quads).to_meshtri())
    return _named(_curved(mesh, problem), problem)


def _merged(*parts: tuple[Array, NDArray[np.integer]]) -> tuple[Array, NDArray[np.integer]]:
    """One set of points for several sets of elements: those within ``CLOSE`` are one, those of no element go."""
    points = np.concatenate([p for p, _ in parts], axis=1)
    offsets = np.cumsum([0, *(p.shape[1] for p, _ in parts)])
    quads = np.concatenate([t + k for (_, t), k in zip(parts, offsets, strict=False)], axis=1)
    used, quads = np.unique(quads, return_inverse=True)
    _, first, same = np.unique((points[:, used] / CLOSE).round(), axis=1, return_index=True, return_inverse=True)
    return np.ascontiguousarray(points[:, used[first]]), same.ravel()[quads.reshape(4, -1)]


def _lines(low: float, centre: float, half: float, high: float, elements: int) -> Array:
    """Grid lines: ``elements`` across the square, and of about that width on either side."""
    width = 2 * half / elements
    parts = [(low, centre - half), (centre - half, centre + half), (centre + half, high)]
    return np.unique(
        np.concatenate([np.linspace(a, b, max(1, round((b - a) / width)) + 1) for a, b in parts]).round(14)
    )


def _rings(problem: Stokes, half: float, elements: int) -> tuple[Array, NDArray[np.integer]]:
    """Quadrilaterals between the circle and the square: rays from the square's nodes, equally spaced along each."""
    side = np.linspace(-half, half, elements + 1)[:-1]
    edge = np.full(elements, half)
    square = np.concatenate([[side, -edge], [edge, side], [-side, edge], [-edge, -side]], axis=1)
    angles = np.pi / 2 * (np.arange(4 * elements) / elements) - 3 * np.pi / 4
    circle = problem.radius * np.stack([np.cos(angles), np.sin(angles)])
    layers = max(2, elements // 2)
    depth = np.linspace(0.0, 1.0, layers + 1)[:, None, None]
    points = ((1 - depth) * circle + depth * square).transpose(1, 0, 2).reshape(2, -1)
    points += np.array([[problem.centre_x], [problem.centre_y]])
    ring, ray = np.meshgrid(np.arange(layers), np.arange(4 * elements), indexing="ij")
    follow = (ray + 1) % (4 * elements)
    quads = [ring * 4 * elements + ray, (ring + 1) * 4 * elements + ray,
             (ring + 1) * 4 * elements + follow, ring * 4 * elements + follow]  # fmt: skip
    return points, np.stack([q.ravel() for q in quads])


def _curved(mesh: MeshTri2, problem: Stokes) -> MeshTri2:
    """Nodes of the circle, and middles of edges between two of them, are moved onto it."""
    centre = np.array([[problem.centre_x], [problem.centre_y]])
    if not problem.radius:
        return mesh
    on_circle = np.abs(np.linalg.norm(mesh.doflocs - centre, axis=0) - problem.radius) < CLOSE
    chords = np.flatnonzero(on_circle[mesh.facets].all(0) & (mesh.f2t[1] == -1))
    moved = np.concatenate([np.flatnonzero(on_circle), mesh.dofs.get_facet_dofs(chords).flatten()])
    places = mesh.doflocs.copy()
    rays = places[:, moved] - centre
    places[:, moved] = centre + problem.radius * rays / np.linalg.norm(rays, axis=0)
    return type(mesh)(places, mesh.t)


def _named(mesh: MeshTri2, problem: Stokes) -> MeshTri2:
    def near(value: Array, target: float) -> NDArray[np.bool_]:
        return np.abs(value - target) < CLOSE

    return mesh.with_boundaries(
        {
            "inlet": lambda x: near(x[0], 0.0),
            "outlet": lambda x: near(x[0], problem.length),
            "walls": lambda x: near(x[1], 0.0) | near(x[1], HEIGHT),
            "cylinder": lambda x: np.hypot(x[0] - problem.centre_x, x[1] - problem.centre_y) < 1.01 * problem.radius,
        }
    )


build = Stokes
