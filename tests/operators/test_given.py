"""Every operator carries what an evolution is given through its rollout: two frames at once are one frame twice."""

from __future__ import annotations

import inspect
import warnings

import pytest
import torch
from resolvent.data import Dataset
from resolvent.evaluation import registry
from resolvent.pde._varied import varied
from resolvent.pde.heat import Heat
from resolvent.training import Budget, Recipe

FAMILY = varied(Heat(dim=2, frames=3, spacing=0.1), "diffusivity=0.001:0.05")
OPTIONS = {
    "fno": {"width": 8, "modes": 6, "layers": 2, "norm": "adaptive"},
    "tfno": {"width": 8, "modes": 6, "layers": 2},
    "unet": {"width": 8},
    "mgno": {"width": 8},
    "deeponet": {},
    "multionet": {},
    "vit": {},
    "lsm": {},
    "specboost": {"base_options": "width=8 modes=6 layers=2", "feed": True},
    "gp_operator": {"components": 6, "steps": 2},
    "linear": {"components": 6},
}


@pytest.fixture(scope="module")
def data() -> Dataset:
    grid = FAMILY.grid(16)
    inputs = FAMILY.sample(6, grid, generator=torch.Generator().manual_seed(0))
    return Dataset.from_tensors(inputs, FAMILY.reference()(inputs, grid), grid=grid, signature=FAMILY.signature)


@pytest.mark.parametrize("name", OPTIONS)
def test_two_frames_are_one_frame_twice(name, data):
    module = registry.find_model(name)
    told = {"recipe": Recipe(batch=6)} if "recipe" in inspect.signature(module.build).parameters else {}
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of so little data
        solver = module.build(FAMILY, data.grid, **OPTIONS[name], **told)
        solver.fit(data, validation=data, budget=Budget(epochs=2))
        inputs, outputs = data.read(range(3))
        with torch.no_grad():
            whole = solver(inputs, data.grid)
            first = solver(inputs, data.grid, [0.1])[:, 0]
            again = solver(torch.cat([first, inputs[:, 1:]], dim=1), data.grid, [0.1, 0.2])
            other = solver(torch.cat([inputs[:, :1], 3 * inputs[:, 1:]], dim=1), data.grid)
    assert whole.shape == outputs.shape
    scale = float(whole.abs().max())
    torch.testing.assert_close(torch.cat([first[:, None], again], dim=1), whole, rtol=0, atol=1e-4 * scale)  # float32
    assert not torch.allclose(other, whole, rtol=0, atol=1e-7 * scale)  # it listens to the diffusivity
