"""From observations to a posterior as a user asks for it: trained or reused, inverted, scored, drawn, recorded."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path

import pytest
import torch
from resolvent.cli.main import main, solve_command
from resolvent.data import generate
from resolvent.data._sensors import observe
from resolvent.data.observations import Observations
from resolvent.evaluation import Request, load, read_run, solve
from resolvent.evaluation._inverting import scores
from resolvent.evaluation.calibration import coverage, likely, ranks, relative_error, wrong_cells
from resolvent.operators._inference import Inversion
from resolvent.operators._posterior import Posterior
from resolvent.pde._weak_form import in_the_clear
from resolvent.pde.darcy import Darcy
from resolvent.pde.stokes import Stokes

SETUP = {"resolution": 9, "train": 12, "validation": 8, "test": 2}
MODEL = {"width": 12, "layers": 3, "code": 6, "hidden": "16"}
TRAIN = {"epochs": 1, "batch": 6}
QUICK = {"samples": 40, "chains": 2, "warmup": 20, "draws": 20, "starts": 2, "steps": 10}


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


# ---------------------------------------------------------------------- calibration


def test_ranks_of_the_same_law_are_uniform() -> None:
    """4000 truths among 99 samples of their own law: a tenth in each tenth, within 4 deviations."""
    draws = torch.randn(100, 4000, generator=generator())
    found = ranks(draws[1:], draws[0], generator=generator())
    counts = torch.histc(found, bins=10, min=0, max=1)
    assert float((counts - 400).abs().max()) < 4 * math.sqrt(4000 * 0.1 * 0.9)
    assert coverage(draws[1:], draws[0], level=0.9, generator=generator()) == pytest.approx(0.9, abs=0.02)


def test_coverage_tells_too_narrow_from_too_wide() -> None:
    """Of a standard normal truth, samples half as wide cover P(|z| < 0.822) of 90 %, twice as wide P(|z| < 3.29)."""
    truth = torch.randn(4000, generator=generator())
    samples = torch.randn(400, 4000, generator=torch.Generator().manual_seed(1))
    for factor in (0.5, 2.0):
        expected = math.erf(1.645 * factor / math.sqrt(2))
        found = coverage(factor * samples, truth, level=0.9, generator=generator())
        assert found == pytest.approx(expected, abs=0.03)  # 4 deviations of 4000 truths, and of the samples' quantiles


def test_phases_are_covered_as_often_as_a_level_says() -> None:
    """Two values, the second with probability p at each node: intervals of values alone would hold nearly all."""
    chance = torch.rand(4000, generator=generator())
    samples = (torch.rand(200, 4000, generator=torch.Generator().manual_seed(1)) < chance).double()
    truth = (torch.rand(4000, generator=torch.Generator().manual_seed(2)) < chance).double()
    assert coverage(samples, truth, level=0.9, generator=generator()) == pytest.approx(0.9, abs=0.02)
    overconfident = (samples.mean(dim=0) > 0.5).double().expand(200, -1)
    assert coverage(overconfident, truth, level=0.9, generator=generator()) < 0.8


def test_wrong_cells_are_counted() -> None:
    truth = torch.tensor([[5.0, 10.0], [10.0, 5.0]])
    samples = truth.repeat(5, 1, 1)
    samples[:2] = 15 - samples[:2]  # a minority that is wrong everywhere changes no bet
    assert wrong_cells(samples, truth) == 0.0
    torch.testing.assert_close(likely(samples), truth)
    samples[:, 0, 0] = 10.0
    assert wrong_cells(samples, truth) == 0.25
    assert relative_error(truth, truth) == 0.0
    assert relative_error(2 * truth, truth) == pytest.approx(1.0)
    uniform = torch.full((2, 2), 5.0)
    assert wrong_cells(uniform.repeat(3, 1, 1), uniform) == 0.0


def test_a_level_is_between_zero_and_one() -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        coverage(torch.zeros(2, 3), torch.zeros(3), level=90, generator=generator())


# ---------------------------------------------------------------------- a run


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with observations in it; runs and data come to lie beside them."""
    folder = tmp_path_factory.mktemp("inversion")
    data = generate(Darcy(low=5.0, contrast=2.0, source=10.0), resolution=9, count=1, seed=1, cache=folder / "cache")
    observe(data, 0, sensors=20, generator=generator()).save(folder / "obs.nc")
    observe(data, 0, sensors=10, known=False, generator=generator()).save(folder / "few.nc")
    return folder


def request(home: Path, model: str = "dgno", observations: str = "obs.nc", **changes: object) -> Request:
    known = {
        "pde": "darcy",
        "problem": {"preset": "dgno_two_phase"},
        "setup": SETUP,
        "options": MODEL,
        "train": TRAIN,
        "inversion": QUICK,
        "runs": home / "runs",
        "cache": home / "cache",
        "device": "cpu",
    }
    return Request(model=model, observations=home / observations, **{**known, **changes})  # type: ignore[arg-type]


def test_a_run_is_trained_once_and_inverted_for_each_file(home: Path) -> None:
    outcome = solve(request(home))
    (found,) = outcome.run.inversions
    folder = outcome.folder / found.folder
    assert found.sensors == 20
    assert found.field == "pressure"
    assert found.error_samples == 8  # the validation split, for the model's own error
    assert found.diagnosis["rhat"] > 0
    assert {"coefficient relative_l2", "coefficient wrong cells", "pressure coverage 0.9"} <= set(found.scores)
    pictures = {path.name for path in (folder / "figures").iterdir()}
    assert pictures == {"posterior-coefficient.png", "posterior-pressure.png", "sensors.png"}
    page = (outcome.folder / "report.html").read_text()
    assert "Inverted: obs.nc" in page
    assert "20 observations of pressure carry" in page
    assert page.count("data:image/png") >= 3 + len(list((outcome.folder / "figures").iterdir()))

    weights = (outcome.folder / "model.safetensors").stat().st_mtime_ns
    posterior = (folder / "posterior.nc").stat().st_mtime_ns
    again = solve(request(home))
    assert again.run.to_json() == outcome.run.to_json()  # as text: what was not measured is not a number
    both = solve(request(home, observations="few.nc"))
    assert [one.sensors for one in both.run.inversions] == [20, 10]
    assert both.run.inversions[1].noise is None
    assert both.run.inversions[1].noise_found > 0
    assert (outcome.folder / "model.safetensors").stat().st_mtime_ns == weights
    assert (folder / "posterior.nc").stat().st_mtime_ns == posterior
    assert read_run(outcome.folder).to_json() == both.run.to_json()


def test_a_surrogate_inverts_as_the_run_does(home: Path) -> None:
    """Bit for bit: same weights, same error of the model, same seed; and without the truth."""
    outcome = solve(request(home))
    kept = Posterior.load(outcome.folder / outcome.run.inversions[0].folder / "posterior.nc")
    surrogate = load(outcome.folder)
    assert surrogate.discrepancy is not None
    found = surrogate.invert(home / "obs.nc", how=Inversion(**QUICK))
    torch.testing.assert_close(found.latents, kept.latents, rtol=0, atol=0)
    torch.testing.assert_close(found.outputs, kept.outputs, rtol=0, atol=0)
    seen = Observations.load(home / "obs.nc")
    blind = Observations(seen.field, seen.points, seen.values, seen.noise)
    torch.testing.assert_close(surrogate.invert(blind, how=Inversion(**QUICK)).inputs, kept.inputs, rtol=0, atol=0)
    assert scores(found, blind.truth) == {}
    assert scores(found, seen.truth) == outcome.run.inversions[0].scores


def test_a_posterior_is_wanted_on_another_grid(home: Path) -> None:
    """Of twice as many cells: at the nodes of both it is the same, decoder, its measured error and all."""
    surrogate, how = load(solve(request(home)).folder), Inversion(**QUICK)
    fine, plain = (surrogate.invert(home / "obs.nc", how=how, resolution=n) for n in (17, None))
    assert fine.outputs.shape == (40, 1, 17, 17)
    torch.testing.assert_close(fine.latents, plain.latents, rtol=0, atol=0)
    apart = fine.mean("pressure")[::2, ::2] - plain.mean("pressure")  # errors are drawn anew: 5 deviations of two means
    assert bool((apart.abs() <= 5 * plain.std("pressure") * math.sqrt(2 / 40) + 1e-6).all())
    expected = fine.expected[0, ::2, ::2], plain.expected[0]
    torch.testing.assert_close(*expected, rtol=1e-5, atol=1e-5)


def test_the_equation_is_asked_of_what_is_decoded(home: Path) -> None:
    """Its residual at the mode is smaller where it counts, here for far more than the readings."""
    surrogate = load(solve(request(home)).folder)
    assert surrogate.discrepancy is not None
    assert surrogate.discrepancy.residual > 0
    few = {"method": "map", "samples": 2, "starts": 2, "steps": 60}
    modes = [surrogate.invert(home / "obs.nc", how=Inversion(**few, equation=n)).latents[:1] for n in (0, 1000)]
    plain, tied = (float(surrogate.solver.residual(mode.float())) for mode in modes)
    assert tied < 0.7 * plain


def test_judging_anew_keeps_what_was_inverted(home: Path) -> None:
    before = solve(request(home)).run.inversions
    compared = solve(dataclasses.replace(request(home), observations=None, inversion={}, rivals=("mean",)))
    assert "mean" in compared.run.compare
    assert compared.run.inversions == before
    assert "Inverted: obs.nc" in (compared.folder / "report.html").read_text()


def test_what_cannot_be_inverted_is_refused_before_training(home: Path) -> None:
    bad = Observations("pressure", torch.tensor([[0.5, 1.5]]), torch.tensor([0.1]), 0.01)
    bad.save(home / "outside.nc")
    runs = home / "none"
    with pytest.raises(ValueError, match="outside the domain: y is in"):
        solve(request(home, observations="outside.nc", runs=runs))
    with pytest.raises(ValueError, match=r"models with a latent.*Use --model dgno"):
        solve(request(home, model="mean", options={}, train={}, runs=runs))
    with pytest.raises(ValueError, match=r"--invert\.chain\b.*chains"):
        solve(request(home, inversion={"chain": 3}, runs=runs))
    with pytest.raises(FileNotFoundError, match="no file"):
        solve(request(home, observations="absent.nc", runs=runs))
    assert not runs.exists()


# ---------------------------------------------------------------------- commands


def words(options: dict[str, object], prefix: str) -> list[str]:
    return [word for name, value in options.items() for word in (f"--{prefix}.{name}", str(value))]


def said(entry: object, argv: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    assert callable(entry)
    with pytest.raises(SystemExit) as stop:
        entry(argv)
    captured = capsys.readouterr()
    return int(stop.value.code or 0), captured.out, captured.err


def test_commands_observe_solve_and_invert(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As in the guide: observations are made, a run is found and inverted, and once more from its folder."""
    monkeypatch.chdir(home)
    cache = ["--cache", str(home / "cache")]
    made = ["generate", "darcy", "--pde.preset", "dgno_two_phase", "--resolution", "9", "--observe", "20", *cache]
    status, out, err = said(main, [*made, "--snr", "20", "--output", "mine.nc"], capsys)
    assert status == 0, err
    assert out.splitlines()[1] == "mine.nc: 20 observations of pressure"
    seen = Observations.load(home / "mine.nc")
    assert seen.source["seed"] == 1  # not that of training data
    assert seen.source["snr"] == 20

    asked = ["--pde", "darcy", "--pde.preset", "dgno_two_phase", "--model", "dgno", "--device", "cpu", *cache]
    asked += words(SETUP, "setup") + words(MODEL, "model") + words(TRAIN, "train") + words(QUICK, "invert")
    status, out, err = said(solve_command, [*asked, "--observations", "mine.nc", "--runs", "runs", "--json"], capsys)
    assert status == 0, err
    found = json.loads(out)["inversions"][-1]
    assert found["observations"] == "mine.nc"
    assert "--observations mine.nc" in found["command"]
    assert "--observations" not in json.loads(out)["command"]

    run = next((home / "runs").iterdir())
    status, out, err = said(
        solve_command,
        ["--run", str(run), "--observations", "mine.nc", "--output", "posterior.nc", *words(QUICK, "invert")],
        capsys,
    )
    assert status == 0, err
    assert "Wrote posterior.nc" in out
    assert len(Posterior.load(home / "posterior.nc")) == QUICK["samples"]


@pytest.mark.parametrize(
    ("argv", "told"),
    [
        (["--observe", "0"], "Between 1 and 81 sensors"),
        (["--observe", "5", "--snr", "inf"], "finite number of decibels"),
        (["--observe", "5", "--field", "velocity"], "no field 'velocity'"),
        (["--observe", "5", "--sample", "3", "--count", "2"], "Sample 3 is not among the 2"),
        (["--at", "words.txt"], "does not hold positions"),
        (["--snr", "10"], "--snr belongs to sensors: add --observe 100"),
        (["--output", "mine.nc"], "--output belongs to sensors"),
        (["--hide-noise"], "--hide-noise belongs to sensors"),
        (["--at", "words.txt", "--observe", "5"], "--observe belongs to sensors that are not given by --at"),
        (["--at", "words.txt", "--layout", "grid"], "--layout belongs to sensors that are not"),
    ],
)
def test_bad_sensors_are_one_clear_line(
    home: Path,
    argv: list[str],
    told: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(home)
    (home / "words.txt").write_text("here there")
    made = ["generate", "darcy", "--pde.preset", "dgno_two_phase", "--resolution", "9", "--cache", str(home / "cache")]
    status, _, err = said(main, [*made, *argv], capsys)
    assert status == 2
    assert told in err
    assert "Traceback" not in err


def test_no_sensor_stands_in_an_obstacle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """All nodes of a channel that can be observed, and none inside its cylinder; a given place there is refused."""
    monkeypatch.chdir(tmp_path)
    problem = Stokes()
    grid = problem.grid(9)
    free = int(in_the_clear(problem, grid.mesh().flatten(1).T).sum())
    assert 0 < free < grid.size
    made = ["generate", "stokes", "--resolution", "9", "--cache", "cache"]
    status, _, err = said(main, [*made, "--observe", str(free)], capsys)
    assert status == 0, err
    seen = Observations.load(tmp_path / "obs.nc")
    assert bool(in_the_clear(problem, seen.points).all())
    assert len(seen) == free
    status, _, err = said(main, [*made, "--observe", str(free + 1)], capsys)
    assert f"Between 1 and {free} sensors" in err
    (tmp_path / "inside.txt").write_text("0.1 0.1\n0.5 0.6\n")
    status, _, err = said(main, [*made, "--at", "inside.txt"], capsys)
    assert "inside its obstacle: point 1 is (0.5, 0.6)" in err
    Observations("u", torch.tensor([[0.5, 0.6]]), torch.tensor([0.1]), 0.01).save("bad.nc")
    with pytest.raises(ValueError, match="inside its obstacle"):
        solve(Request(pde="stokes", model="dgno", observations=Path("bad.nc"), setup={"resolution": 9}, device="cpu"))
    assert not Path("runs").exists()  # nothing was trained before


def test_a_run_answers_or_inverts(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = ["--run", str(solve(request(home)).folder), "--output", "out.nc"]
    status, _, err = said(solve_command, [*run, "--input", "a.nc", "--invert.method", "map"], capsys)
    assert (status, "add --observations FILE" in err) == (2, True)
    status, _, err = said(solve_command, [*run, "--input", "a.nc", "--observations", "obs.nc"], capsys)
    assert (status, "leave one of them out" in err) == (2, True)


def test_invert_options_need_observations(capsys: pytest.CaptureFixture[str]) -> None:
    status, _, err = said(solve_command, ["--pde", "darcy", "--model", "dgno", "--invert.method", "map"], capsys)
    assert status == 2
    assert "add --observations FILE" in err


def test_the_guides_example_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    guide = Path(__file__).parents[2] / "docs" / "inverse.md"
    blocks = guide.read_text(encoding="utf-8").split("```python\n")[1:]
    assert blocks
    monkeypatch.chdir(tmp_path)
    for block in blocks:
        exec(block.partition("```")[0], {})
