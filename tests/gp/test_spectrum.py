"""What is read from nodal data: where the band ends, what is empty, when nodes are too few."""

from __future__ import annotations

import math

import torch
from resolvent.gp._spectrum import CROWDED, amplitudes, band_of, enough_nodes, prior_of, widened
from resolvent.pde import Axis


def axis_of(n: int, upper: float = 1.0, periodic: bool = False) -> Axis:
    if periodic:
        return Axis("x", n, 0.0, upper)
    return Axis("x", n, 0.0, upper, ("dirichlet", "dirichlet"), "ends")


def wave(axis: Axis, cycles: float, size: float = 1.0) -> torch.Tensor:
    return size * torch.sin(2 * math.pi * cycles * axis.coordinates() + 0.3)[None]


def test_the_highest_wave_is_found_even_a_million_times_smaller_than_the_largest() -> None:
    axis = axis_of(400, upper=2.0)
    band = band_of([wave(axis, 7.3) + wave(axis, 31.7, 1e-6)], 0, axis)
    assert abs(band.peak - 31.7) < 6 / axis.length
    assert band.top > 31.7 + 1 / axis.length
    assert band.floor < 1e-11


def test_empty_bands_are_pruned_and_low_frequencies_kept() -> None:
    """Two lines among 60: what is between them goes, what a second integral needs stays."""
    axis = axis_of(400)
    band = band_of([wave(axis, 60.0)], 0, axis)
    lines = prior_of(band, axis).frequencies
    assert bool((lines < 6).sum() >= 14)
    assert not bool(((lines > 8) & (lines < 45)).any())
    assert bool(((lines > 58) & (lines < 62)).any())
    assert len(prior_of(widened(band), axis).frequencies) > 2 * len(lines)
    assert float(prior_of(widened(band, full=True), axis).frequencies.max()) > 0.59 * band.nyquist


def test_a_wave_close_to_the_limit_shows_at_the_edge() -> None:
    axis = axis_of(100)
    assert band_of([wave(axis, 45.0)], 0, axis).edge > 0.5
    assert band_of([wave(axis, CROWDED * 49.5 - 12)], 0, axis).edge < 1e-3


def test_noise_raises_the_floor_and_does_not_count_as_a_wave() -> None:
    """Noise of 1e-7, as of single precision, on a wave of 5 cycles: the band ends with the wave."""
    axis = axis_of(300)
    noise = 1e-7 * torch.randn(300, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    band = band_of([wave(axis, 5.0) + noise], 0, axis)
    assert 1e-9 < band.floor < 1e-6
    assert band.peak < 12


def test_small_data_count_like_large_ones() -> None:
    """Each field is measured by its own largest amplitude, and a field of zeros not at all."""
    axis = axis_of(300)
    loud, quiet = 1e6 * wave(axis, 5.0), 1e-6 * wave(axis, 40.0)
    assert band_of([loud, quiet, torch.zeros_like(loud)], 0, axis).peak > 35
    assert band_of([torch.zeros_like(loud)], 0, axis).top > 0


def test_periodic_axes_take_the_modes_of_the_box() -> None:
    axis = axis_of(64, upper=2.0, periodic=True)
    band = band_of([wave(axis, 3.5)], 0, axis)
    lines = prior_of(band, axis).frequencies
    torch.testing.assert_close(lines, torch.arange(len(lines), dtype=torch.float64) / 2.0)
    assert float(lines.max()) >= 3.5
    spectrum = amplitudes(wave(axis, 3.5), axis)
    assert int(spectrum.argmax()) == 7
    assert float(spectrum.sort().values[-2]) < 1e-12 * float(spectrum.max())


def test_nodes_follow_the_band() -> None:
    axis = axis_of(400)
    band = band_of([wave(axis, 50.0)], 0, axis)
    assert 4.4 * 50 < enough_nodes(band, axis, 4.4) < 4.4 * 50 + 100
