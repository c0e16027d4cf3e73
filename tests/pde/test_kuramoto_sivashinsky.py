"""Growth rates, the two forms of the equation, its mean and its statistics."""

import math

import pytest
import torch
from resolvent.pde._spectral import modes_of
from resolvent.pde.kuramoto_sivashinsky import KuramotoSivashinsky


def relative(got, expected):
    return float((got - expected).norm() / expected.norm())


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("form", ["conservative", "combustion"])
@pytest.mark.parametrize("mode", [1, 3, 5])
def test_a_small_wave_grows_or_decays_at_the_known_rate(form, mode):
    """exp((psi k² - zeta k⁴) t); products of a wave of 1e-9 are smaller by 1e-9."""
    problem = KuramotoSivashinsky(form=form, antidiffusion=1.3, hyperdiffusion=0.7, length=22.0)
    grid = problem.grid(32)
    k = 2 * math.pi * mode / 22.0
    wave = 1e-9 * torch.cos(k * grid.coordinates()[0])[None, None]
    got = problem.reference()(wave, grid, (3.0,))[:, 0]
    assert problem.growth_rate(k) == pytest.approx(1.3 * k**2 - 0.7 * k**4)
    assert relative(got, math.exp(3.0 * problem.growth_rate(k)) * wave) < 1e-7


def test_in_two_dimensions_the_rate_depends_on_the_wave_vector_length():
    problem = KuramotoSivashinsky(form="combustion", dim=2, length=22.0)
    grid = problem.grid(24)
    x, y = grid.mesh()
    k = 2 * math.pi / 22.0
    wave = 1e-9 * torch.cos(k * (2 * x - 3 * y))[None, None]
    got = problem.reference()(wave, grid, (2.0,))[:, 0]
    assert relative(got, math.exp(2.0 * problem.growth_rate(math.sqrt(13) * k)) * wave) < 1e-7


def test_the_slope_of_the_one_form_is_the_other():
    """v = u_x of the height u obeys the conservative form."""
    flame = KuramotoSivashinsky(form="combustion", length=22.0)
    slope = KuramotoSivashinsky(length=22.0)
    grid = flame.grid(128)
    k = 2 * math.pi / 22.0
    x = grid.coordinates()[0]
    u = (torch.cos(k * x) + 0.3 * torch.sin(3 * k * x))[None, None]
    v = (-k * torch.sin(k * x) + 0.9 * k * torch.cos(3 * k * x))[None, None]
    heights = flame.reference(tolerance=1e-9)(u, grid, (5.0,))
    modes = modes_of(grid, heights)
    got = modes.inverse(modes.ik[0] * modes.forward(heights))
    assert relative(got, slope.reference(tolerance=1e-9)(v, grid, (5.0,))) < 1e-6


def test_the_mean_is_conserved_or_drifts_or_is_taken_out():
    problem = KuramotoSivashinsky(length=22.0)
    grid = problem.grid(64)
    u = problem.sample(2, grid, generator=seeded()) + 0.2
    assert float((problem.reference()(u, grid, (5.0,)).mean(dim=-1) - 0.2).abs().max()) < 1e-13
    still, moving = (KuramotoSivashinsky(form="combustion", length=22.0, drift=drift) for drift in (False, True))
    a, b = (each.reference(tolerance=1e-9)(u, grid, (2.0,)) for each in (still, moving))
    assert float((a.mean(dim=-1) - 0.2).abs().max()) < 1e-13
    assert bool((b.mean(dim=-1) < 0.2 - 1e-3).all())  # -b/2 mean(|grad u|²) is never positive
    torch.testing.assert_close(b - b.mean(dim=-1, keepdim=True), a - 0.2, rtol=0, atol=1e-7)


def test_a_short_interval_is_quiet_and_a_long_one_is_not():
    """All waves decay for L < 2 pi. In the chaotic state u² has a mean of order one."""
    quiet = KuramotoSivashinsky(length=6.0)
    grid = quiet.grid(32)
    u = quiet.sample(2, grid, generator=seeded())
    assert float(quiet.reference()(u, grid, (200.0,)).abs().max()) < 1e-3
    chaotic = KuramotoSivashinsky(length=64.0, warmup=60.0)
    grid = chaotic.grid(64)
    states = chaotic.sample(4, grid, generator=seeded())
    assert 1.0 < float(states.square().mean()) < 2.5


def test_warm_up_is_the_same_evolution():
    cold, warm = (KuramotoSivashinsky(length=22.0, warmup=time) for time in (0.0, 3.0))
    grid = cold.grid(64)
    u = cold.sample(2, grid, generator=seeded())
    assert torch.equal(warm.sample(2, grid, generator=seeded()), cold.reference()(u, grid, (3.0,))[:, 0])


def test_apebench_coefficients_have_their_difficulties():
    """gamma_j = alpha_j N^j 2^(j-1), delta_2 = beta_2 N², delta_1 = beta_1 N."""
    flame = KuramotoSivashinsky(**KuramotoSivashinsky.presets["apebench"])
    slope = KuramotoSivashinsky(**KuramotoSivashinsky.presets["apebench_conservative"])
    for problem, delta, second, fourth in ((flame, 6.0, 1.2, 15.0), (slope, 1.0, 2.0, 18.0)):
        power = 2 if problem is flame else 1
        assert problem.nonlinearity * 160**power == pytest.approx(delta)
        assert problem.antidiffusion * 160**2 * 2 == pytest.approx(second)
        assert problem.hyperdiffusion * 160**4 * 8 == pytest.approx(fourth)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"form": "integral"}, "form is 'conservative' or 'combustion'"),
        ({"dim": 2}, "dim is 1"),
        ({"form": "combustion", "dim": 3}, "dim is 1"),
        ({"hyperdiffusion": 0.0}, "hyperdiffusion must be positive"),
        ({"antidiffusion": -1.0}, "antidiffusion must be at least 0"),
        ({"nonlinearity": math.nan}, "nonlinearity must be finite"),
        ({"warmup": -1.0}, "warmup must be at least 0"),
        ({"length": 0.0}, "length must be positive"),
        ({"form": "combustion", "dim": 2, "initial": "sinusoids"}, "one dimension"),
    ],
)
def test_parameters_out_of_range_are_refused(values, message, unchecked):
    with pytest.raises(ValueError, match=message):
        KuramotoSivashinsky(**values)
