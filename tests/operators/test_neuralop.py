"""Any model of neuraloperator by name: the same answers as theirs, options checked, saved as tensors."""

from __future__ import annotations

import copy

import pytest
import torch
from resolvent.data import Dataset
from resolvent.operators import neuralop
from resolvent.operators._words import options_in
from resolvent.operators.neuralop import architectures, build, constructor_options, parsed_options
from resolvent.pde.burgers import Burgers
from resolvent.pde.darcy import Darcy
from resolvent.pde.gray_scott import GrayScott
from resolvent.pde.navier_stokes import NavierStokes
from resolvent.training import Budget, Recipe
from torch import Tensor
from torch.nn import functional as F

theirs = pytest.importorskip("neuralop.models")

PROBLEM = NavierStokes(frames=2)
GRID = PROBLEM.grid(16)
SMALL = {"modes": 6, "width": 8, "layers": 2}


def fields(n: int = 16) -> Tensor:
    return PROBLEM.sample(2, PROBLEM.grid(n), generator=torch.Generator().manual_seed(0)).float()


@pytest.mark.parametrize("name", ["FNO", "TFNO", "UNO", "CODANO", "fno"])
def test_every_model_of_fields_fits_answers_and_is_saved_as_tensors(name):
    outputs = PROBLEM.reference()(fields().double(), GRID)
    data = Dataset.from_tensors(
        fields(), outputs.float(), grid=GRID, signature=PROBLEM.signature, problem="navier_stokes"
    )
    solvers = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        solvers.append(build(PROBLEM, GRID, architecture=name, **SMALL, recipe=Recipe(epochs=1, batch=2)))
    solvers[0].fit(data, budget=Budget(epochs=1))
    assert all(isinstance(value, Tensor) for value in solvers[0].state().values())
    with torch.no_grad():
        answer = solvers[0](fields(), GRID)
        assert answer.shape == outputs.shape
        solvers[1].restore(solvers[0].state())
        assert torch.equal(solvers[1](fields(), GRID), answer)


def test_the_network_is_theirs_built_with_the_same_arguments():
    """Same seed, same weights, same answers between our normalisers, which do nothing before fitting."""
    torch.manual_seed(3)
    ours = build(PROBLEM, GRID, architecture="FNO", **SMALL, options="norm=group_norm, rank=0.5, factorization=tucker")
    torch.manual_seed(3)
    expected = theirs.FNO(
        n_modes=(6, 6), in_channels=1, out_channels=1, hidden_channels=8, n_layers=2,
        norm="group_norm", rank=0.5, factorization="tucker",
    )  # fmt: skip
    assert torch.equal(ours.network(fields()), expected(fields()))
    assert ours.parameter_count == sum(p.numel() for p in expected.parameters())


@pytest.mark.parametrize("name", ["FNO", "TFNO", "UNO"])
def test_accelerated_models_answer_alike(name):
    answers = []
    for accelerate in (False, True):
        torch.manual_seed(4)
        solver = build(PROBLEM, GRID, architecture=name, accelerate=accelerate, **SMALL)
        answers.append(solver(fields(), GRID).detach())
        swapped = any(type(m).__name__.startswith("Fast") for m in solver.network.modules())
        assert swapped == accelerate
    torch.testing.assert_close(*answers, rtol=1e-4, atol=1e-5)


def test_options_are_read_as_the_constructor_has_them():
    found = parsed_options(
        "norm=instance_norm, n_modes=(4, 6), non_linearity=relu, separable=True, rank=1e-1", theirs.FNO
    )
    expected = {"norm": "instance_norm", "n_modes": (4, 6), "non_linearity": F.relu, "separable": True, "rank": 0.1}
    assert found == expected
    assert parsed_options("", theirs.FNO) == {}
    assert set(constructor_options(theirs.TFNO)) == set(constructor_options(theirs.FNO))


def test_options_are_apart_by_blanks_or_commas():
    expected = {"width": 24, "modes": (4, 6), "radii": "0.1 0.2", "basis": "sine", "feed": True, "rate": -1e-3}
    for apart in (" ", ", ", "  ,"):
        words = apart.join(["width=24", "modes=(4, 6)", "radii='0.1 0.2'", "basis = sine", "feed=true", "rate=-1e-3"])
        assert options_in(words) == expected


def test_options_given_in_words_win_over_width_modes_and_layers():
    solver = build(PROBLEM, GRID, architecture="UNO", **SMALL, options="lifting_channels=5")
    assert solver.network.model.lifting.fcs[0].out_channels == 5


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"architecture": "FMO"}, "Did you mean 'fno'.*Known: CODANO, FNO, TFNO, UNO"),
        ({"architecture": "GINO"}, "point clouds.*Known"),
        ({"architecture": "UQNO"}, "wraps a trained model"),
        ({"options": "nrm=group_norm"}, "no argument 'nrm'. Did you mean 'norm'"),
        ({"options": "group_norm"}, "written like"),
        ({"options": "norm="}, "written like"),
        ({"options": "**{'a': 1}"}, "written like"),
        ({"options": "norm=__import__('os')"}, "written like"),
        ({"options": "conv_module=x"}, "cannot be given in words"),
        ({"options": "non_linearity=gellu"}, "torch.nn.functional"),
        ({"options": "in_channels=3"}, "comes from the problem"),
        ({"options": "norm=nonsense"}, "refuses"),
        ({"options": "resolution_scaling_factor=2"}, "change the resolution"),
        ({"modes": 20}, "--model.modes 16"),
    ],
)
def test_what_is_unknown_or_unfit_is_refused_with_what_is_known(options, message):
    with pytest.raises(ValueError, match=message):
        build(PROBLEM, GRID, **{**SMALL, **options})


@pytest.mark.skipif("sfno" in architectures(), reason="torch-harmonics is installed")
def test_spherical_models_name_the_package_they_need():
    with pytest.raises(ValueError, match="torch-harmonics"):
        build(PROBLEM, GRID, architecture="SFNO")


def test_a_missing_library_says_what_to_install(monkeypatch):
    def absent():
        raise ModuleNotFoundError("neuraloperator", name="neuralop")

    monkeypatch.setattr(neuralop, "_installed", absent)
    with pytest.raises(ModuleNotFoundError):
        build(PROBLEM, GRID)


def test_resolution_changes_where_the_architecture_means_the_same_operator():
    """Without the position, whose saw-tooth is of first order: a smooth field at 32 and 64 nodes."""
    options = "positional_embedding=None"
    solver = build(PROBLEM, PROBLEM.grid(32), architecture="FNO", **SMALL, options=options)
    x, y = PROBLEM.grid(64).mesh()
    fine = torch.sin(2 * torch.pi * (x + 2 * y))[None, None].float()
    with torch.no_grad():
        difference = solver.network(fine)[..., ::2, ::2] - solver.network(fine[..., ::2, ::2])
    assert float(difference.abs().max()) < 1e-5
    for name in ("UNO", "CODANO"):
        fixed = build(PROBLEM, GRID, architecture=name, **SMALL)
        with pytest.raises(ValueError, match="trained on a grid of shape"):
            fixed(fields(32), PROBLEM.grid(32))


def test_an_even_grid_is_not_answered_by_a_model_of_odd_ones():
    """Theirs shifts the spectrum of an odd axis by a mode, so the two are different operators."""
    problem = Darcy()
    solver = build(problem, problem.grid(17), **SMALL)
    inputs = torch.ones(1, 1, 20, 20)
    with pytest.raises(ValueError, match=r"trained on \['odd'\]"):
        solver(inputs, problem.grid(20))
    assert solver(torch.ones(1, 1, 21, 21), problem.grid(21)).shape == (1, 1, 21, 21)


def test_several_channels_go_through_and_what_an_architecture_cannot_do_is_refused():
    """CODANO treats channels as variables, in two and three dimensions, and answers a whole number for each."""
    problem = GrayScott(frames=1)
    for name in ("FNO", "CODANO"):
        solver = build(problem, problem.grid(16), architecture=name, **SMALL)
        assert solver.network(torch.randn(1, 2, 16, 16)).shape == (1, 2, 16, 16)
    line = Burgers(frames=1)
    with pytest.raises(ValueError, match=r"CODANO .* cannot work on a grid of \(16,\)"):
        build(line, line.grid(16), architecture="CODANO", **SMALL)


def test_a_copy_is_a_model_of_its_own():
    solver = build(PROBLEM, GRID, **SMALL)
    twin = copy.deepcopy(solver)
    with torch.no_grad():
        next(twin.network.parameters()).add_(1.0)
        assert not torch.equal(twin(fields(), GRID), solver(fields(), GRID))
