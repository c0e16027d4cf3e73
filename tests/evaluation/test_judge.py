"""Judging solvers whose errors are known, among them some that fail in every way we know."""

from __future__ import annotations

import dataclasses
import math
import warnings
from collections.abc import Sequence

import pytest
import torch
from resolvent.data import Dataset
from resolvent.evaluation.judge import judge
from resolvent.evaluation.metrics import metric_table
from resolvent.gp._health import HealthWarning
from resolvent.pde import Grid, Solver, SolverError
from torch import Tensor

from .conftest import FRAMES, Decay


class Square(Solver):
    """The static map a -> factor a²."""

    def __init__(self, factor: float = 1.0) -> None:
        self.factor = factor

    def __call__(self, inputs: Tensor, grid: Grid, times: Sequence[float] | None = None) -> Tensor:
        assert times is None
        return self.factor * inputs.square()


class Fragile(Decay):
    """Blows up for amplitudes above a limit: raises for the whole batch, as solvers do."""

    def __call__(self, inputs: Tensor, grid: Grid, times: Sequence[float] | None = None) -> Tensor:
        if float(inputs.abs().max()) > 8.5:
            raise SolverError("The solution blew up.\n  Use a finer grid.")
        return super().__call__(inputs, grid, times)


class Broken(Solver):
    """Fails at the first call, and counts how often it was asked."""

    asked = 0

    def __call__(self, inputs: Tensor, grid: Grid, times: Sequence[float] | None = None) -> Tensor:
        self.asked += 1
        raise KeyError("weights")


# float32 data: one rounding of each value, so errors agree to about 1e-7 / 0.1
NEAR = {"rel": 1e-5}


def test_a_static_map_wrong_by_a_tenth(squares: Dataset) -> None:
    verdict = judge(Square(1.1), squares, batch=4)
    assert verdict.status == "ok"
    assert verdict.message == ""
    assert verdict.metrics["relative_l2"].tolist() == pytest.approx([0.1] * 10, **NEAR)
    assert list(verdict.metrics) == list(metric_table())
    assert verdict.by_frame is None
    assert verdict.times == ()
    assert verdict.mean("relative_l2") == pytest.approx(0.1, **NEAR)
    assert verdict.seconds > 0
    assert verdict.clock == "cpu"


def test_the_exact_map_scores_zero(squares: Dataset) -> None:
    verdict = judge(Square(), squares)
    assert all(values.tolist() == [0.0] * 10 for values in verdict.metrics.values())


@pytest.mark.parametrize(("start", "horizon", "frames"), [(0, 0, FRAMES), (2, 3, 3), (3, 0, FRAMES - 3)])
def test_an_evolution_is_asked_for_the_frames_after_its_start(
    decays: Dataset, start: int, horizon: int, frames: int
) -> None:
    """The decay is autonomous: exact from any start, and its clock starts at 0 there."""
    solver = Decay()
    verdict = judge(solver, decays, start=start, horizon=horizon, batch=4)
    assert verdict.times == pytest.approx([0.25 * (i + 1) for i in range(frames)])
    assert solver.calls[0] == (4, verdict.times)
    assert verdict.mean("relative_l2") < 1e-6  # float32
    assert verdict.by_frame is not None
    assert verdict.by_frame.shape == (10, frames)


def test_curves_and_shells_are_per_sample(decays: Dataset) -> None:
    verdict = judge(Decay(1.1), decays, batch=3)
    assert verdict.by_frame is not None
    torch.testing.assert_close(verdict.by_frame, torch.full((10, FRAMES), 0.1, dtype=torch.float64), rtol=1e-5, atol=0)
    assert verdict.error_energy.shape == (10, len(verdict.shells))
    # all the energy of sin(2 pi x) is in shell 1; the error has a hundredth of it
    assert verdict.truth_energy[:, 1].tolist() == pytest.approx(verdict.truth_energy.sum(1).tolist(), rel=1e-9)
    assert (verdict.error_energy / verdict.truth_energy)[:, 1].tolist() == pytest.approx([0.01] * 10, **NEAR)
    assert (verdict.prediction_energy / verdict.truth_energy)[:, 1].tolist() == pytest.approx([1.21] * 10, **NEAR)


@pytest.mark.parametrize("batch", [1, 3, 10, 64])
def test_the_batch_size_changes_nothing(decays: Dataset, batch: int) -> None:
    got, whole = judge(Decay(1.1), decays, batch=batch), judge(Decay(1.1), decays)
    for name, values in whole.metrics.items():
        torch.testing.assert_close(got.metrics[name], values, rtol=1e-12, atol=0)
    assert got.batch == min(batch, 10)


def test_batches_are_read_one_at_a_time(decays: Dataset) -> None:
    """Streaming: no read asks for more than a batch, whatever the number of samples."""
    asked: list[int] = []
    inner = decays.samples

    class Watched(type(inner)):
        def __init__(self) -> None:
            self.__dict__.update(inner.__dict__)

        def arrays(self, indices):
            asked.append(len(indices))
            return super().arrays(indices)

    judge(Decay(), dataclasses.replace(decays, samples=Watched()), batch=4)
    assert asked == [4, 4, 2]


def test_one_blown_up_sample_costs_no_other(decays: Dataset) -> None:
    """Amplitudes 9 and 10 fail; the batch of 7, 8 and 9 is asked again sample by sample."""
    verdict = judge(Fragile(1.1), decays, batch=3)
    assert verdict.status == "stopped"
    assert verdict.message == "No finite answer for 2 of 10 samples: The solution blew up. Use a finer grid."
    values = verdict.metrics["relative_l2"]
    assert values[:8].tolist() == pytest.approx([0.1] * 8, **NEAR)
    assert values[8:].tolist() == [math.inf, math.inf]
    assert verdict.mean("relative_l2") == math.inf
    assert verdict.seconds > 0


def test_stopping_and_diverging_are_told_apart(decays: Dataset) -> None:
    """Samples 8 and 9 are refused with a reason; where another sample is lost without one, that is a divergence."""

    class Both(Fragile):
        def __call__(self, inputs, grid, times=None):
            answer = super().__call__(inputs, grid, times)
            answer[inputs.amax(dim=(1, 2)) < 1.5] = math.nan
            return answer

    assert judge(Fragile(), decays, batch=1).status == "stopped"
    assert judge(Both(), decays, batch=1).status == "diverged"


def test_what_a_solver_finds_about_its_answers_is_kept(decays: Dataset) -> None:
    """Sample 9 is refused: it has no health; the warnings of the others bear their numbers."""

    @dataclasses.dataclass(frozen=True)
    class Found:
        misfit: float

    class Careful(Fragile):
        health: tuple[Found, ...] = ()

        def __call__(self, inputs, grid, times=None):
            self.health = ()
            answer = super().__call__(inputs, grid, times)
            self.health = (Found(float(inputs.max())),)
            if float(inputs.max()) > 7.5:
                warnings.warn("A steep one.", HealthWarning, stacklevel=2)
            return answer

    with warnings.catch_warnings():
        warnings.simplefilter("error", HealthWarning)  # none escapes
        verdict = judge(Careful(), decays.subset([0, 7, 9]), batch=1)
    assert verdict.notes == ("Test sample 1: A steep one.",)
    assert [dict(one) for one in verdict.health] == [{"misfit": 1.0}, {"misfit": 8.0}, {}]
    assert verdict.status == "stopped"


def test_other_warnings_go_where_they_always_go(decays: Dataset) -> None:
    class Old(Decay):
        def __call__(self, inputs, grid, times=None):
            warnings.warn("This will change.", FutureWarning, stacklevel=2)
            return super().__call__(inputs, grid, times)

    with pytest.warns(FutureWarning, match="This will change"):
        assert judge(Old(), decays, batch=10).notes == ()


def test_a_solver_is_timed_on_a_sample_that_it_answers(decays: Dataset) -> None:
    """The first sample is refused; warm calls are those of the second."""
    solver = Fragile()
    verdict = judge(solver, decays.subset([9, 0, 1]), batch=1)
    assert verdict.seconds > 0
    assert verdict.batch == 1


def test_values_that_are_not_finite_are_a_divergence(decays: Dataset) -> None:
    verdict = judge(Decay(math.inf), decays)
    assert verdict.status == "diverged"
    assert "10 of 10" in verdict.message
    assert verdict.metrics["maximum"].tolist() == [math.inf] * 10
    assert math.isnan(verdict.seconds)


def test_a_broken_solver_is_asked_once_and_recorded(decays: Dataset) -> None:
    solver = Broken()
    verdict = judge(solver, decays, batch=2)
    assert verdict.status == "failed"
    assert verdict.message == "No finite answer for 10 of 10 samples: KeyError: 'weights'"
    assert verdict.metrics["relative_l2"].tolist() == [math.inf] * 10
    assert solver.asked == 1


def test_a_wrong_shape_is_a_failure_that_names_both(decays: Dataset) -> None:
    class Transposed(Decay):
        def __call__(self, inputs, grid, times=None):
            return super().__call__(inputs, grid, times).transpose(1, 2)

    verdict = judge(Transposed(), decays, batch=10)
    assert verdict.status == "failed"
    assert f"(10, 1, {FRAMES}, 16), expected (10, {FRAMES}, 1, 16)" in verdict.message


def test_ctrl_c_is_not_swallowed(decays: Dataset) -> None:
    class Interrupted(Solver):
        def __call__(self, inputs, grid, times=None):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        judge(Interrupted(), decays)


def test_examples_are_the_first_samples_whole(decays: Dataset) -> None:
    verdict = judge(Decay(1.1), decays, start=1, horizon=2, batch=2, keep=3)
    assert [example.index for example in verdict.examples] == [0, 1, 2]
    last = verdict.examples[2]
    torch.testing.assert_close(last.inputs, decays.trajectories([2])[0, 1])
    torch.testing.assert_close(last.truth, decays.trajectories([2])[0, 2:4])
    torch.testing.assert_close(last.prediction, 1.1 * last.truth)


def test_progress_counts_samples(decays: Dataset) -> None:
    seen: list[tuple[int, int]] = []
    judge(Decay(), decays, batch=4, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(4, 10), (8, 10), (10, 10)]


def test_metrics_by_name_or_as_functions(decays: Dataset) -> None:
    assert list(judge(Decay(), decays, metrics=["rmse"]).metrics) == ["rmse"]
    own = {"signed": lambda p, u, grid: (p - u).flatten(1).mean(1)}
    assert list(judge(Decay(), decays, metrics=own).metrics) == ["signed"]
    with pytest.raises(ValueError, match=r"Unknown metric 'rsme'\. Known: relative_l2"):
        judge(Decay(), decays, metrics=["rsme"])


@pytest.mark.parametrize(("start", "horizon"), [(0, FRAMES + 1), (FRAMES, 0), (-1, 1), (4, 3)])
def test_frames_that_are_not_stored_are_refused(decays: Dataset, start: int, horizon: int) -> None:
    with pytest.raises(ValueError, match="does not fit"):
        judge(Decay(), decays, start=start, horizon=horizon)


def test_an_empty_test_set_is_refused(decays: Dataset) -> None:
    with pytest.raises(ValueError, match="empty"):
        judge(Decay(), decays.subset([]))


def test_the_better_of_alone_and_in_batches_counts(decays: Dataset) -> None:
    verdict = judge(Decay(), decays)
    timed = [dataclasses.replace(verdict, seconds_one=a, seconds_batched=b) for a, b in ((2.0, 1.0), (1.0, 2.0))]
    assert [one.seconds for one in timed] == [1.0, 1.0]
    assert dataclasses.replace(verdict, seconds_one=math.nan, seconds_batched=3.0).seconds == 3.0


def test_seconds_are_those_of_the_solver() -> None:
    """A solver that burns 5 ms of processor time a sample is billed 5 ms a sample, alone and in batches."""
    import time

    from resolvent.pde import Channel, Signature

    class Slow(Square):
        def __call__(self, inputs, grid, times=None):
            end = time.process_time() + 5e-3 * len(inputs)
            while time.process_time() < end:
                pass
            return super().__call__(inputs, grid, times)

    a = torch.ones(6, 1, 8)
    data = Dataset.from_tensors(a, a, grid=Grid.box(8), signature=Signature((Channel("a"),), (Channel("u"),)))
    verdict = judge(Slow(), data, batch=3)
    # the call itself adds microseconds; a busy machine may add a time slice to a median, hence a factor
    assert 5e-3 <= verdict.seconds_one < 1e-2
    assert 5e-3 <= verdict.seconds_batched < 1e-2
