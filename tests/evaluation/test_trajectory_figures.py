"""Pictures of trajectories show the numbers they are given, and refuse those that do not fit."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from resolvent.evaluation import trajectory_figures as figures
from resolvent.pde import Channel

CHANNELS = (Channel("prey"), Channel("predators", "kg"))


def test_trajectories_are_drawn_as_given_and_extrapolation_is_shaded() -> None:
    times, truth = [0.1, 0.2, 0.3], torch.rand(3, 2)
    figure = figures.trajectories_figure(times, truth + 1, truth, CHANNELS, trained=0.2, time_unit="s", title="T")
    panels = figure.axes
    assert len(panels) == 2
    for i, panel in enumerate(panels):
        known, shown = (np.asarray(line.get_ydata()) for line in panel.lines)
        np.testing.assert_allclose(known, truth[:, i])
        np.testing.assert_allclose(shown, truth[:, i] + 1)
        assert len(panel.patches) == 1
    assert "[kg]" in panels[1].get_ylabel()
    assert "[s]" in panels[1].get_xlabel()
    with pytest.raises(ValueError, match=r"\(3, 2\)"):
        figures.trajectories_figure(times, truth[:2], truth[:2], CHANNELS)


def test_a_phase_portrait_pairs_the_first_channels() -> None:
    truth = torch.rand(4, 6, 3)
    figure = figures.phase_figure(truth, truth, (*CHANNELS, Channel("z")))
    assert len(figure.axes) == 2
    line = figure.axes[1].lines[0]
    np.testing.assert_allclose(line.get_xdata(), truth[0, :, 0])
    np.testing.assert_allclose(line.get_ydata(), truth[0, :, 2])
    with pytest.raises(ValueError, match="two channels"):
        figures.phase_figure(truth[..., :1], truth[..., :1], CHANNELS[:1])


def test_steps_are_drawn_with_what_the_solver_saw() -> None:
    time, step = np.arange(5.0), np.full(5, -0.5)
    assert len(figures.steps_figure(time, step, np.ones(5)).axes) == 2
    figure = figures.steps_figure(time, step, np.ones(5), np.full(5, 3.0), time_unit="s")
    np.testing.assert_allclose(figure.axes[0].lines[0].get_ydata(), 0.5)  # backwards steps have a size too
    np.testing.assert_allclose(figure.axes[2].lines[0].get_ydata(), 3.0)
    with pytest.raises(ValueError, match="One value a step"):
        figures.steps_figure(time, step[:3], np.ones(5))


def test_work_and_extrapolation() -> None:
    figure = figures.work_figure({"none": ([90, 92], [0.99, 0.98]), "ernode": ([30], [0.99])})
    assert [len(line.get_xdata()) for line in figure.axes[0].lines] == [2, 1]
    with pytest.raises(ValueError, match="do not pair"):
        figures.work_figure({"none": ([90, 92], [0.99])})
    errors = np.array([[1.0, 2.0, np.inf], [3.0, 4.0, 5.0], [2.0, 3.0, 4.0]])
    figure = figures.extrapolation_figure([0.0, 1.0, 2.0], {"m": errors}, trained=1.0)
    np.testing.assert_allclose(figure.axes[0].lines[0].get_ydata(), [2.0, 3.0, 5.0])  # the lost one is the worst
    with pytest.raises(ValueError, match="expected errors"):
        figures.extrapolation_figure([0.0, 1.0], {"m": errors}, trained=1.0)
