"""Archives: what is written is read, in few bits; bounds hold at any value; damage and bad input are refused."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from resolvent.data import DamagedData
from resolvent.fields import _compress as compress_module
from resolvent.fields import _residual as residual
from resolvent.fields import fkan, neurbf, pref, rff, series, siren, winner, wire
from resolvent.fields._archive import Archive, archived, load_field, opened, residual_of, restored, save_field
from resolvent.fields._coding import CODECS, DamagedCode, packed, squeezed, unpacked, unsqueezed
from resolvent.fields._compress import Request, compressed
from resolvent.fields._field import points_of
from resolvent.fields._fit import Plan
from resolvent.fields._quantise import Rounded, encoded, kind_of, rounded, rounding, step_of
from resolvent.fields._stream import Stream, boxes
from resolvent.pde import Axis, Channel, Condition, Grid
from resolvent.training import Callback, DamagedCheckpoint, Interrupted

WALLS = Grid((Axis("t", 9, 0.0, 0.5, ("outflow", "outflow"), "ends", "s"), Axis("x", 16, -1.0, 1.0, unit="m")))
SPEED = Channel("u", "m s-1", "speed")


def smooth(grid: Grid, dtype: Any = np.float32) -> np.ndarray:
    """Periodic in x, not in t."""
    t, x = grid.mesh()
    return (
        (2 + torch.sin(math.pi * x - 3 * t) * torch.exp(-t) + 0.3 * torch.cos(3 * math.pi * x))[None]
        .numpy()
        .astype(dtype)
    )


def noisy(grid: Grid, dtype: Any = np.float32) -> np.ndarray:
    draw = np.random.default_rng(0).standard_normal((1, *grid.shape))
    return (smooth(grid, np.float64) + 0.5 * draw).astype(dtype)


# ---------------------------------------------------------------------- bytes


def test_every_codec_and_integer_comes_back() -> None:
    data = bytes(range(256)) * 3 + bytes(2000)
    for code, decode in CODECS.values():
        for part in (b"", b"\x07", data):
            assert decode(code(part)) == part
    assert unsqueezed(squeezed(data)) == data
    rng = np.random.default_rng(1)
    edges = np.array([0, -1, 1, 126, 127, 128, -127, -128, 2**40, -(2**40), 2**62, -(2**62)])
    for numbers in (np.empty(0, np.int64), edges, rng.integers(-300, 300, 5000), rng.integers(-2, 3, 20_000)):
        np.testing.assert_array_equal(unpacked(packed(numbers)), numbers)


def test_small_integers_cost_about_their_entropy() -> None:
    """Rounded normal numbers of deviation 0.5: 1.24 bits each; and a table of frequencies for every 8192."""
    numbers = np.rint(0.5 * np.random.default_rng(2).standard_normal(60_000)).astype(np.int64)
    _, counts = np.unique(numbers, return_counts=True)
    share = counts / counts.sum()
    entropy = -float((share * np.log2(share)).sum())
    assert 8 * len(packed(numbers)) / len(numbers) < 1.03 * entropy


def test_damaged_codes_are_refused() -> None:
    good = packed(np.arange(-200, 200))
    for bad in (b"", good[:5], good[:-3], good[:16] + b"\x09" + good[17:]):
        with pytest.raises(DamagedCode):
            unpacked(bad)


# ---------------------------------------------------------------------- weights in few bits


def test_rounding_has_the_error_of_its_step_and_a_straight_gradient() -> None:
    values = torch.randn(4000, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    step = step_of(values, 8)
    error = values - rounded(values, step, 127)
    inside = values.abs() < 127 * step
    assert float(error[inside].abs().max()) <= step / 2 + 1e-12
    assert float(error[inside].std()) == pytest.approx(step / math.sqrt(12), rel=0.03)  # 1 / sqrt(2 n) is 0.6 %
    # narrower than the largest weight: rare clipping costs less than a coarser step
    assert step < float(values.abs().max()) / 127 or step == pytest.approx(float(values.abs().max()) / 127, rel=1e-6)
    kept = values.clone().requires_grad_(True)
    Rounded("q", step, 8)(kept).sum().backward()
    torch.testing.assert_close(kept.grad, torch.ones_like(values))


FIELDS: dict[str, Any] = {
    "siren": lambda d: siren.field(d, width=12, layers=3),
    "winner": lambda d: winner.field(d, bandwidth=(4.0, 5.0), width=12, layers=3),
    "rff": lambda d: rff.field(d, width=12, features=9),
    "wire": lambda d: wire.field(d, width=12, omega=5.0, decay=2.0),
    "fkan": lambda d: fkan.field(d, widths=(12, 12), harmonics=4),
    "pref": lambda d: pref.field(d, width=12, features=3, modes=2, reduced=3),
    "neurbf": lambda d: neurbf.field(d, width=12, centres=20, features=5, cells=3),
}


@pytest.mark.parametrize("bits", [32, 16, 8])
@pytest.mark.parametrize("name", FIELDS)
def test_a_field_comes_back_with_its_promises(name: str, bits: int) -> None:
    """32 bits: single precision of the weights; the first layer keeps it at any bits; whole waves stay whole."""
    field = FIELDS[name](WALLS)
    archive = restored(Archive(field, (SPEED,), bits))
    assert archive.channels == (SPEED,)
    assert archive.grid == WALLS
    double = FIELDS[name](WALLS)
    double.load_state_dict(field.state_dict())
    points = points_of(WALLS)
    with torch.no_grad():
        before, after = double.double()(points), archive.field(points)
        turned = archive.field(points + torch.tensor([0.0, 2.0], dtype=torch.float64))
    tolerance = {32: 1e-5, 16: 2e-2, 8: 0.5}[bits] * float(before.abs().max())  # phases of some tens of radians
    torch.testing.assert_close(after, before, rtol=0, atol=tolerance)
    torch.testing.assert_close(turned, after, rtol=0, atol=1e-11)
    for key, values in field.network.state_dict().items():
        if key.startswith(field.network.precise):
            torch.testing.assert_close(archive.field.network.state_dict()[key].float(), values, rtol=1e-6, atol=1e-6)
            assert kind_of(field, key, values, bits) == "f4"


def test_conditions_forms_and_channels_come_back() -> None:
    x = WALLS.axes[1].coordinates()
    start = Condition(0, "lower", torch.sin(math.pi * x)[None])
    made = siren.field(WALLS, width=8, layers=2, conditions=[start])
    found = restored(Archive(made, (SPEED,), 16)).field
    there = torch.stack([torch.zeros(5), torch.linspace(-1, 1, 5)], dim=1).double()
    torch.testing.assert_close(found(there)[:, 0], torch.sin(math.pi * there[:, 1]), rtol=0, atol=1e-12)
    box = Grid((Axis("x", 8, 0.0, 1.0), Axis("t", 3, 0.0, 0.5, ("outflow", "outflow"), "ends")))
    begins = [Condition(1, "lower", torch.sin(2 * math.pi * box.axes[0].coordinates())[None])]
    moving = siren.field(box, width=8, layers=2, conditions=begins, sees_lift=True, speed=1.5, diffusivity=0.1)
    kept = restored(Archive(moving, (SPEED,), 16)).field
    assert (kept.sees_lift, kept.speed, kept.diffusivity) == (True, 1.5, 0.1)
    flow = siren.field(Grid.box((8, 8), dim=2), 2, form="solenoidal", width=8, layers=2, scale=(0.3,))
    found = restored(Archive(flow, (Channel("u"), Channel("v")), 16)).field
    first = found.jet(torch.rand(6, 2, dtype=torch.float64), gradient=True).first
    assert float((first[0, :, 0] + first[1, :, 1]).abs().max()) < 1e-11 * float(first.abs().max())


def test_the_fit_with_rounded_weights_leaves_what_the_archive_stores() -> None:
    field = siren.field(WALLS, width=12, layers=3)
    with rounding(field, 8):
        inside = field.jet(points_of(WALLS).float()).value.detach()
    torch.testing.assert_close(field.jet(points_of(WALLS).float()).value.detach(), inside, rtol=0, atol=0)
    found = restored(Archive(field, (SPEED,), 8)).field
    torch.testing.assert_close(found(points_of(WALLS)).float(), inside, rtol=0, atol=1e-5)  # single precision of sines


# ---------------------------------------------------------------------- bounds


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("bound", [1.0, 1e-2, 1e-5, 3e-7, 1e-9, 1e-14, 0.0])
def test_any_bound_holds_at_every_node(bound: float, dtype: Any) -> None:
    """Values of several sizes, a field that knows nothing of them; blocks of three planes."""
    values = noisy(WALLS, dtype)
    values[0, 3] *= 1e6
    values[0, 4] *= 1e-6
    archive = restored(Archive(siren.field(WALLS, width=8, layers=2), (SPEED,), 8))
    kept = residual_of(archive, values, bound, nodes=3 * 16)
    found = opened(archived(dataclasses.replace(archive, residual=kept)))
    got = found.values()
    assert got.dtype == values.dtype
    assert float(np.abs(got.astype(np.float64) - values.astype(np.float64)).max()) <= bound
    some = found.values([np.array([7, 2]), np.array([0, 15, 3])])
    np.testing.assert_array_equal(some, got[:, [7, 2]][:, :, [0, 15, 3]])


def test_the_bound_survives_another_machines_arithmetic() -> None:
    """The field evaluated with other rounding, up to the margin: the bound still holds."""
    values, rng = noisy(WALLS), np.random.default_rng(3)
    predicted = values + 0.1 * rng.standard_normal(values.shape)
    bound, margin = 1e-3, 1e-6
    block = residual.encoded(values, predicted, bound, margin)
    for sign in (-1, 1):
        got = residual.decoded(block, predicted + sign * margin, bound, margin, values.dtype)
        assert float(np.abs(got.astype(np.float64) - values).max()) <= bound
    careless = residual.encoded(values, predicted, bound, 0.0)
    got = residual.decoded(careless, predicted + 100 * margin, bound, 0.0, values.dtype)
    assert float(np.abs(got.astype(np.float64) - values).max()) > bound


def test_smooth_residuals_are_coded_as_differences() -> None:
    """Steps of a smooth residual: Lorenzo's differences are small, the steps themselves are not."""
    x = np.linspace(0, 1, 4000)[None]
    smooth_part = (1000 * np.sin(3 * x)).astype(np.float64)
    block = residual.encoded(smooth_part, 0 * smooth_part, 0.5, 0.0)
    noise = 1000 * np.random.default_rng(0).standard_normal(x.shape)
    assert block[0] == residual.LORENZO
    assert residual.encoded(noise, 0 * noise, 0.5, 0.0)[0] == residual.PLAIN
    assert len(block) < 0.2 * len(residual.encoded(noise, 0 * noise, 0.5, 0.0))


# ---------------------------------------------------------------------- series


def test_a_series_is_the_interpolant_of_its_values_and_derivatives_converge_to_the_walls() -> None:
    """exp(2x) between walls: Laplacian by odd derivatives taken over (e = 2) to 1e-4, by cosines alone to nothing."""
    grid = Grid.box(32, dim=1, boundary="dirichlet")
    points = torch.linspace(0, 1, 101, dtype=torch.float64)[:, None]
    exact = torch.exp(2 * points)[:, 0]
    errors = {}
    for ends in (0, 2):
        found = series.coefficients(torch.exp(2 * grid.mesh()), grid, [ends])
        field = series.field(grid, modes=32, ends=ends, dtype=torch.float64)
        with torch.no_grad():
            field.network.weight.copy_(found)
            torch.testing.assert_close(field(points_of(grid))[:, 0], torch.exp(2 * grid.mesh()[0]), rtol=0, atol=1e-9)
            _, _, laplacian = field.value_gradient_laplacian(points)
        errors[ends] = float((laplacian[:, 0] - 4 * exact).abs().max() / 4)
    assert errors[2] < 1e-4
    assert errors[0] > 1.0


def test_a_band_limited_field_is_stored_exactly_where_it_lies() -> None:
    """Two waves: two functions, error of the step; the field is theirs between the nodes, with derivatives."""
    grid = Grid.box((64, 64), dim=2)
    x, y = grid.mesh()
    values = (torch.sin(4 * math.pi * x) * torch.cos(2 * math.pi * y) + 3)[None].numpy()
    archive = compressed(values, grid, (SPEED,), series.field, Request(rate=2.0))
    assert archive.report["functions"] == 1
    points = torch.rand(50, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    value, gradient, _ = archive.field.value_gradient_laplacian(points)
    a, b = points.unbind(1)
    torch.testing.assert_close(
        value[:, 0], torch.sin(4 * math.pi * a) * torch.cos(2 * math.pi * b) + 3, rtol=0, atol=1e-3
    )
    slope = 4 * math.pi * torch.cos(4 * math.pi * a) * torch.cos(2 * math.pi * b)
    torch.testing.assert_close(gradient[:, 0, 0], slope, rtol=0, atol=2e-2)
    assert archive.report["heldout"] < 1e-2


def test_a_rate_is_kept_and_more_bits_are_better() -> None:
    grid = Grid.box((96, 96), dim=2)
    k = np.sqrt(sum(np.meshgrid(*[(np.fft.fftfreq(96) * 96) ** 2] * 2, indexing="ij")))
    spectrum = np.where(k > 0, np.maximum(k, 1) ** -2.0, 0)
    noise = np.random.default_rng(0).standard_normal((96, 96))
    values = np.fft.ifft2(np.fft.fft2(noise) * spectrum).real[None].astype(np.float32)
    found = [compressed(values, grid, (SPEED,), series.field, Request(rate=rate)) for rate in (2.0, 3.0)]
    for archive, rate in zip(found, (2.0, 3.0), strict=True):
        size = 8 * len(archived(archive)) / values.size
        assert 0.9 * rate < size <= rate * 1.01  # measured numbers are added to the header at the end
    # a bit is a factor 2 in the coefficients that are kept, 6.02 dB
    assert found[1].report["psnr"] > found[0].report["psnr"] + 4
    assert found[1].report["heldout"] < 1.0


# ---------------------------------------------------------------------- trained fields


SHORT = Plan(steps=12, batch=64, learning_rate=2e-3, report_every=4)


class StopAt(Callback):
    """Asks to stop after so many steps."""

    def __init__(self, steps: int) -> None:
        self.left = steps

    def stop(self) -> bool:
        self.left -= 1
        return self.left == 0


@pytest.mark.parametrize("memory", [1 << 20, 300])
@pytest.mark.parametrize("stops", [[1], [6], [14, 3]])
def test_stopped_and_continued_gives_the_bytes_of_the_uninterrupted(
    stops: list[int], memory: int, tmp_path: Path
) -> None:
    """In the trial of bandwidths, the fit, the fit with rounded weights; from memory, and streamed."""
    values = smooth(WALLS)
    request = Request(plan=SHORT, rate=12.0, kappas=(0.4, 1.0), memory=memory, bound=1e-2)
    whole = compressed(values, WALLS, (SPEED,), siren.field, request)
    for stop in stops:
        with pytest.raises(Interrupted):
            compressed(values, WALLS, (SPEED,), siren.field, request, work=tmp_path / "work", callbacks=[StopAt(stop)])
    again = compressed(values, WALLS, (SPEED,), siren.field, request, work=tmp_path / "work")
    timeless = [
        dataclasses.replace(a, report={k: v for k, v in a.report.items() if k != "seconds"}) for a in (whole, again)
    ]
    assert archived(timeless[0]) == archived(timeless[1])
    with pytest.raises(DamagedCheckpoint, match="another request"):
        compressed(values, WALLS, (SPEED,), siren.field, Request(plan=SHORT), work=tmp_path / "work")


def test_the_size_follows_from_the_rate_and_a_small_one_is_refused() -> None:
    values = smooth(WALLS)
    sizes = []
    for rate in (10.0, 20.0):
        archive = compressed(values, WALLS, (SPEED,), siren.field, Request(plan=SHORT, rate=rate, kappas=(0.4,)))
        sizes.append(len(encoded(archive.field, 8)[0]))
        assert 0.6 * rate < 8 * sizes[-1] / values.size <= rate + 8 * 32 / values.size  # heads of the coded integers
    with pytest.raises(ValueError, match="raise the rate"):
        compressed(values, WALLS, (SPEED,), siren.field, Request(plan=SHORT, rate=0.01))


def test_streamed_values_are_those_of_the_array() -> None:
    values = smooth(WALLS)
    stream = Stream(values, WALLS, nodes=48, seed=3)
    assert stream.mean == pytest.approx(values.mean(), rel=1e-6)
    assert stream.deviation == pytest.approx(values.std(), rel=1e-5)
    seen = stream.draw(0, 200, torch.Generator().manual_seed(0))
    nodes = {
        tuple(p): v for p, v in zip(points_of(WALLS).float().tolist(), values[0].reshape(-1).tolist(), strict=True)
    }
    for part in (seen, stream.held):
        assert all(nodes[tuple(p)] == v for p, v in zip(part.points.tolist(), part.values[:, 0].tolist(), strict=True))
    held = {tuple(p) for p in stream.held.points.tolist()}
    assert 0 < len(held) < 40  # of 144 nodes a tenth
    for step in range(0, 1000, 100):
        drawn = stream.draw(step, 100, torch.Generator().manual_seed(step))
        assert not held & {tuple(p) for p in drawn.points.tolist()}
    again = Stream(values, WALLS, nodes=48, seed=3).draw(900, 100, torch.Generator().manual_seed(900))
    assert torch.equal(again.points, drawn.points)
    assert sum(math.prod(s.stop - s.start for s in box) for box in boxes((9, 16), 20)) == 144
    with pytest.raises(ValueError, match="batch"):
        stream.draw(0, 0, torch.Generator())


def test_waves_of_a_stream_are_those_of_the_field() -> None:
    """sin 2 pi x on the torus: pi per internal unit; differences of 64 nodes see 0.04 % less."""
    grid = Grid.box((64, 64), dim=2)
    values = torch.sin(2 * math.pi * grid.mesh()[0])[None].numpy()
    waves = Stream(values, grid).waves
    assert waves[0] == pytest.approx(math.pi, rel=0.02)  # the step across the period is not among them
    assert waves[1] == 0


# ---------------------------------------------------------------------- bad input


def test_what_is_not_finite_is_refused_with_its_place(tmp_path: Path) -> None:
    values = smooth(WALLS)
    values[0, 2, 3] = np.nan
    for memory in (1 << 20, 300):
        with pytest.raises(ValueError, match=r"1 values are not finite \(first at t=0.125, x=-0.625\)"):
            compressed(values, WALLS, (SPEED,), siren.field, Request(plan=SHORT, memory=memory))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda data: data[:20], "does not begin with its mark"),
        (lambda data: b"\x88" + data[1:], "does not begin with its mark"),
        (lambda data: data[:-1], "its checksum is not"),
        (lambda data: data[:60] + bytes([data[60] ^ 1]) + data[61:], "its checksum is not"),
        (lambda data: data[:8] + b"\x02\x00" + data[10:], "version 2"),
        (lambda data: b"", "does not begin"),
    ],
)
def test_a_damaged_archive_is_refused(change: Any, reason: str, tmp_path: Path) -> None:
    path = tmp_path / "u.rfield"
    save_field(path, Archive(siren.field(WALLS, width=8, layers=2), (SPEED,), 8))
    load_field(path)
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(DamagedData, match=reason):
        load_field(path)


def test_an_archive_names_a_network_of_this_room_and_nothing_else() -> None:
    field = siren.field(WALLS, width=8, layers=2)
    for name in ("os", "_field", "../siren", "resolvent.fields.siren"):
        field.recipe = (name, {})
        with pytest.raises(ValueError, match="Unknown kind of field"):
            archived(Archive(field, (SPEED,), 8))
    field.recipe = None
    with pytest.raises(ValueError, match="cannot be named"):
        archived(Archive(field, (SPEED,), 8))


@pytest.mark.parametrize("options", [{"bits": 3}, {"rate": -1.0}, {"bound": -1.0}, {"bound": math.nan}, {"kappas": ()}])
def test_bad_requests_are_refused(options: Any) -> None:
    with pytest.raises(ValueError, match=next(iter(options))):
        Request(**options)


@pytest.mark.parametrize("asked", [{"form": "positive"}, {"options": {"modes": 4}}])
def test_a_stored_series_takes_no_form_and_no_modes(asked: Any) -> None:
    with pytest.raises(ValueError, match="is plain"):
        compressed(smooth(WALLS), WALLS, (SPEED,), series.field, Request(**asked))


def test_series_of_what_is_larger_than_memory_is_refused() -> None:
    with pytest.raises(ValueError, match="raise the memory limit"):
        compressed(smooth(WALLS), WALLS, (SPEED,), series.field, Request(memory=100))
    assert compress_module.FINISH < 1
