"""Boosting and symmetries: what is left over by stages that commute with a symmetry commutes with it too."""

from __future__ import annotations

import pytest
import torch
from resolvent.operators._boosting import ResidualProblem, residual_signature
from resolvent.operators.specboost import build
from resolvent.pde import symmetries_of
from resolvent.pde.darcy import Darcy
from resolvent.pde.navier_stokes import NavierStokes
from resolvent.training import Recipe

SMALL = "modes=6 width=8 layers=2"


def test_symmetrised_stages_answer_symmetrically() -> None:
    problem = Darcy()
    grid = problem.grid(17)
    recipe = Recipe(epochs=2, augment=True, symmetrise=True)
    model = build(problem, grid, base_options=SMALL, recipe=recipe)
    for parameter in model.stages[1].network.parameters():  # type: ignore[attr-defined]
        torch.nn.init.normal_(parameter, std=0.1)  # a residual stage starts at zero, which is symmetric
    inputs = problem.sample(2, grid, generator=torch.Generator().manual_seed(0)).float()
    answer = model(inputs, grid)
    group = symmetries_of(problem, grid)
    assert len(group) == 8
    for symmetry in group:
        # eight sums of float32 answers in another order
        torch.testing.assert_close(
            model(symmetry.inputs(inputs, grid), grid), symmetry.outputs(answer, grid), rtol=1e-5, atol=1e-5
        )


@pytest.mark.parametrize("symmetrise", [True, False])
def test_later_stages_are_augmented_only_where_their_residuals_are_symmetric(symmetrise: bool) -> None:
    problem = Darcy()
    recipe = Recipe(epochs=2, augment=True, symmetrise=symmetrise)
    model = build(problem, problem.grid(17), base_options=SMALL, recipe=recipe)
    assert [stage.recipe.augment for stage in model.stages] == [True, symmetrise]  # type: ignore[attr-defined]


@pytest.mark.parametrize("feed", [True, False])
def test_answers_that_are_fed_transform_as_outputs(feed: bool) -> None:
    problem = NavierStokes(forcing="none")
    grid = problem.grid(16)
    posed = ResidualProblem(origin=problem, fields=residual_signature(problem.signature, feed=feed))
    field = torch.randn(1, 1, *grid.shape, generator=torch.Generator().manual_seed(1))
    both = torch.cat([field, field], dim=1) if feed else field
    originals = symmetries_of(problem, grid)
    assert any(-1.0 in symmetry.output_signs for symmetry in originals)
    for own, wide in zip(originals, symmetries_of(posed, grid), strict=True):
        expected = [own.inputs(field, grid), own.outputs(field, grid)][: 1 + feed]
        assert torch.equal(wide.inputs(both, grid), torch.cat(expected, dim=1))
        assert torch.equal(wide.outputs(field, grid), own.outputs(field, grid))
