"""Stokes flow: closed forms without and with the cylinder, conserved mass, observed orders."""

import itertools
import logging
import math

import numpy as np
import pytest
import skfem
import torch
from resolvent.pde._finite_elements import TaylorHood
from resolvent.pde.stokes import HEIGHT, Stokes, channel, taylor_hood


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def orders(errors):
    return [math.log2(a / b) for a, b in itertools.pairwise(errors)]


def test_poiseuille_flow_is_exact_without_a_cylinder():
    """u = 4 y (1 - y), p = 8 mu (length - x): both lie in the spaces of the elements."""
    problem = Stokes(radius=0.0, viscosity=0.3)
    grid = problem.grid(9)
    x, y = grid.mesh()
    inflow = (4 * y * (1 - y))[None, None]
    got = problem.reference(elements=4)(inflow, grid)[0]
    exact = torch.stack([inflow[0, 0], torch.zeros_like(x), 8 * 0.3 * (2 - x)])
    torch.testing.assert_close(got, exact, rtol=0, atol=1e-11)  # direct solve, condition number of about 1e4


@pytest.mark.parametrize("radius", [0.05, 0.1, 0.19])
def test_curved_mesh_fills_the_channel_around_the_disc(radius):
    """Arcs of second order: the area is off by O(h⁴), where chords leave O(h²)."""
    problem = Stokes(radius=radius)
    errors = []
    for elements in (2, 4, 8):
        basis = skfem.Basis(channel(problem, elements), skfem.ElementTriP2(), intorder=4)
        area = skfem.Functional(lambda w: 1.0 + 0 * w.x[0]).assemble(basis)
        errors.append(abs(area - (2 * HEIGHT - math.pi * radius**2)))
    assert min(orders(errors)) > 3.9


def test_every_edge_of_the_boundary_has_a_name():
    mesh = channel(Stokes(length=2.3456789, centre_x=0.61234567, centre_y=0.43), 6)
    assert sum(len(part) for part in mesh.boundaries.values()) == len(mesh.boundary_facets())
    assert len(mesh.boundaries["cylinder"]) == 24


def test_what_flows_in_flows_out():
    """The discrete divergence vanishes against every pressure, the constant among them: net flux to round-off."""
    flow = taylor_hood(Stokes(), 6)
    held = np.zeros(flow.velocity.N + flow.pressure.N)
    inlet = flow.velocity.get_dofs("inlet").all(["u^1"])
    y = flow.velocity.doflocs[1, inlet]
    held[inlet] = np.sin(math.pi * y) * (1 + np.sin(3 * y))
    solution = flow.solve(held)
    flux = {}
    for part in ("inlet", "outlet", "walls", "cylinder"):
        edge = skfem.FacetBasis(flow.mesh, flow.velocity.elem, facets=flow.mesh.boundaries[part], intorder=4)
        through = skfem.Functional(lambda w: w["flow"][0] * w.n[0] + w["flow"][1] * w.n[1])
        flux[part] = through.assemble(edge, flow=edge.interpolate(solution[: flow.velocity.N]))
    assert flux["inlet"] < -1
    assert abs(flux["inlet"] + flux["outlet"]) < 1e-12
    assert abs(flux["walls"]) + abs(flux["cylinder"]) < 1e-14
    constraint = flow.matrix[flow.velocity.N :] @ solution
    assert float(np.abs(constraint).max()) < 1e-13


def test_taylor_hood_is_of_order_three_for_velocities_and_two_for_the_pressure():
    """u = (s_x c_y, -c_x s_y) pi-waves, p = c_x c_y, all velocities given: p up to a constant."""
    mu, pi = 0.7, math.pi

    def velocity(x, y):
        return np.stack([np.sin(pi * x) * np.cos(pi * y), -np.cos(pi * x) * np.sin(pi * y)])

    def pressure(x, y):
        return np.cos(pi * x) * np.cos(pi * y)

    def force(x, y):
        slope = np.stack([-pi * np.sin(pi * x) * np.cos(pi * y), -pi * np.cos(pi * x) * np.sin(pi * y)])
        return 2 * mu * pi**2 * velocity(x, y) + slope

    errors = []
    for n in (4, 8, 16):
        mesh = skfem.MeshTri.init_tensor(*[np.linspace(0, 1, n + 1)] * 2).with_boundaries({"all": lambda x: x[0] > -1})
        flow = TaylorHood(mesh, mu, ("all",))
        held = np.zeros(flow.velocity.N + flow.pressure.N)
        places = flow.velocity.doflocs
        for i, name in enumerate(("u^1", "u^2")):
            dofs = flow.velocity.get_dofs("all").all([name])
            held[dofs] = velocity(*places[:, dofs])[i]
        solution = flow.solve(held, flow.load(force))
        v = flow.velocity.interpolate(solution[: flow.velocity.N])
        p = flow.pressure.interpolate(solution[flow.velocity.N :])
        x, w = flow.velocity.global_coordinates(), flow.velocity.dx
        miss = np.asarray(p) - pressure(*x)
        miss -= (miss * w).sum() / w.sum()
        errors.append([np.sqrt((((np.asarray(v) - velocity(*x)) ** 2).sum(0) * w).sum()), np.sqrt((miss**2 * w).sum())])
    velocities, pressures = zip(*errors, strict=True)
    assert min(orders(velocities)) > 2.8
    assert min(orders(pressures)) > 1.9


def test_drag_of_a_cylinder_between_walls_is_faxens():
    """A cylinder moved along the middle of a closed channel, k = radius / half height (Faxén 1946, to k⁸).

    Force 4 pi mu U / (-ln k - 0.9157 + 1.7244 k² - 1.7302 k⁴ + 2.4056 k⁶ - 4.5913 k⁸) a metre. Ends 1.4 m away disturb
    it by exp(-2 * 4.2 * 1.4) = 1e-5; the coefficients are rounded to four decimals, 5e-5 of the sum.
    """
    problem = Stokes(centre_x=1.5, length=3.0, centre_y=0.5, viscosity=1.0)
    k = problem.radius / (HEIGHT / 2)
    series = -math.log(k) - 0.9157 + 1.7244 * k**2 - 1.7302 * k**4 + 2.4056 * k**6 - 4.5913 * k**8
    drags = []
    for elements in (6, 12):
        flow = taylor_hood(problem, elements)
        held = np.zeros(flow.velocity.N + flow.pressure.N)
        held[flow.velocity.get_dofs("cylinder").all(["u^1"])] = 1.0
        force = flow.force(flow.solve(held), "cylinder")
        assert abs(force[1]) < 1e-3 * abs(force[0])  # no lift, but for the triangles' diagonals
        drags.append(float(-force[0]))
    assert abs(drags[-1] / (4 * math.pi / series) - 1) < 3e-4
    assert abs(drags[0] / (4 * math.pi / series) - 1) < 3e-3


def test_response_converges_and_the_ladder_climbs():
    problem = Stokes()
    grid = problem.grid(17)
    a = problem.sample(3, grid, generator=seeded())
    truth = problem.reference(elements=20)(a, grid)
    errors = [float((solver(a, grid) - truth).norm() / truth.norm()) for solver in problem.ladder(grid).values()]
    assert errors == sorted(errors, reverse=True)
    assert errors[0] < 0.05
    assert errors[-1] < 1e-3
    assert min(orders(errors)) > 2.0


def test_the_flow_is_linear_in_the_inflow_and_inverse_in_nothing():
    """Velocities do not depend on the viscosity, the pressure is proportional to it."""
    problem, grid = Stokes(), Stokes().grid((21, 11))
    a, b = problem.sample(2, grid, generator=seeded()).split(1)
    solver = problem.reference(elements=4)
    both = solver(2.0 * a - b, grid)
    torch.testing.assert_close(both, 2.0 * solver(a, grid) - solver(b, grid), rtol=0, atol=1e-12)
    thick = Stokes(viscosity=0.05).reference(elements=4)(a, grid)
    thin = solver(a, grid) * torch.tensor([1.0, 1.0, 5.0], dtype=torch.float64)[:, None, None]
    torch.testing.assert_close(thick, thin, rtol=0, atol=1e-10)


def test_outputs_meet_the_boundary_data_and_vanish_in_the_cylinder():
    problem = Stokes()
    grid = problem.grid(21)
    a = problem.sample(2, grid, generator=seeded())
    out = problem.reference(elements=6)(a, grid)
    fluid = problem.fluid(grid)
    assert 5 < int((~fluid).sum()) < 25  # pi 0.1² of 1/20² each: 12.6
    assert float(out[:, :, ~fluid].abs().max()) == 0.0
    assert float(out[:, :2, :, [0, -1]].abs().max()) < 1e-12
    torch.testing.assert_close(out[:, 0, 0], a[:, 0, 0], rtol=0, atol=2e-2)  # quadratic between six nodes
    x, y = grid.mesh()
    surface = fluid & (((x - 0.5) ** 2 + (y - 0.6) ** 2).sqrt() < 0.1 + 1e-9)
    assert int(surface.sum()) >= 4
    assert float(out[:, :2, surface].abs().max()) < 1e-6


def test_inflow_has_the_published_form():
    problem = Stokes(wiggle=1e-9)
    grid = problem.grid(33)
    a = problem.sample(2, grid, generator=seeded())
    torch.testing.assert_close(a, (4 * torch.sin(math.pi * grid.mesh()[1])).expand_as(a), rtol=0, atol=1e-7)
    assert float(a[..., [0, -1]].abs().max()) == 0.0
    free = Stokes().sample(100, grid, generator=seeded())
    assert float(free[:, 0, 0, 16].std()) > 0.3


def test_float32_and_user_inflows_are_served_and_nothing_is_logged(caplog):
    problem = Stokes(length=2.5)
    grid = problem.grid((11, 9))
    a = problem.sample(1, grid, generator=seeded())
    with caplog.at_level(logging.WARNING):
        single = problem.reference(elements=8)(a.float(), grid)
    assert single.dtype == torch.float32
    assert not caplog.records
    torch.testing.assert_close(single, problem.reference(elements=8)(a, grid).float(), rtol=1e-4, atol=1e-5)


def test_bad_input_is_refused():
    problem, grid = Stokes(), Stokes().grid(9)
    solver = problem.reference(elements=2)
    good = problem.sample(2, grid, generator=seeded())
    with pytest.raises(ValueError, match=r"\[1\] vary along x"):
        solver(torch.cat([good[:1], good[1:] * torch.rand(17, 1, dtype=torch.float64)]), grid)
    with pytest.raises(ValueError, match=r"\[0, 1\] slip"):
        solver(good + 1.0, grid)
    with pytest.raises(ValueError, match="shape"):
        solver(good[..., 1:], grid)


@pytest.mark.parametrize(
    "options", [{"viscosity": 0.0}, {"radius": -0.1}, {"radius": 0.2}, {"length": 0.0}, {"wiggle": -1.0}], ids=str
)
def test_impossible_parameters_are_refused(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        Stokes(**options)
    with pytest.raises(ValueError, match="elements"):
        Stokes().reference(elements=3)
