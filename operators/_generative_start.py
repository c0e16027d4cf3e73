"""Around the training of a generative model: what is measured on the inputs before it, and on their codes after it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from ..pde._weak_form import WithWeakForm
from ..training._windows import Windows
from ._branched import SNAPSHOTS
from ._declared import Declared
from ._generative import Components
from ._waves import Waves

if TYPE_CHECKING:
    from ._generative_solver import GenerativeSolver

ESTIMATED = 256  # training inputs from which sizes of outputs are estimated


@torch.no_grad()
def measure(solver: GenerativeSolver, windows: Windows) -> None:
    """Statistics of the inputs, and from them alone the sizes of the outputs."""
    assert isinstance(solver.problem, WithWeakForm)
    solver.module["inputs"].fit(inputs for _, inputs, _ in windows.batches(256))  # type: ignore[operator]
    first = next(iter(windows.batches(ESTIMATED)))[1].double()
    axes = (0, *range(2, first.ndim))
    centre = first.mean(dim=axes)
    for number, decoder in enumerate(solver.network.inputs.each):  # a constant may violate what functions satisfy
        if isinstance(decoder, Declared):
            centre[number] = 0.0
    solver.module.centre_size.copy_(centre)  # type: ignore[operator]
    solver.module.spread_size.copy_(first.std(dim=axes).clamp_min(1e-8))  # type: ignore[operator]
    scales = solver.problem.output_scales(first, solver.grid)
    solver.module.outputs_size.copy_(torch.tensor([scales[name] for name in solver.decoded.names]))  # type: ignore[operator]
    if isinstance(solver.network.encoder, Components):
        several = next(iter(windows.batches(SNAPSHOTS)))[1]
        solver.network.encoder.start(solver.module["inputs"](several.to(solver.device)))
        start(solver, several.to(solver.device))


@torch.no_grad()
def start(solver: GenerativeSolver, inputs: Float[Tensor, "sample channel *space"]) -> None:
    """Decoders of the inputs begin as their regression on the codes; of an evolution, the answer stays as it began.

    Phases begin at logits of 2 to either side, probabilities of 88 %.
    """
    codes = solver.network.bound(solver._encoded(inputs)[0])
    flat, points = inputs.flatten(2), solver.nodes
    if solver.signature.evolves:
        points = torch.nn.functional.pad(points, (0, 1))
        values = flat / solver.module.outputs_size[:, None]  # type: ignore[index]
    elif solver.medium.phases:
        index = solver.medium.indices(flat[:, 0])
        chosen = torch.stack([2.0 * (index == number) for number in range(len(solver.medium.phases))], dim=1)
        values = 2 * chosen[:, 1:] - 2 if solver.medium.logits == 1 else chosen
    else:
        values = (flat - solver.module.centre_size[:, None]) / solver.module.spread_size[:, None]  # type: ignore[index]
    for decoder, part in zip(
        (solver.network.outputs if solver.signature.evolves else solver.network.inputs).each,
        values.unbind(dim=1),
        strict=True,
    ):
        if isinstance(decoder, Waves | Declared):
            decoder.start(codes, points, part)


@torch.no_grad()
def settle(solver: GenerativeSolver, windows: Windows) -> None:
    """The prior of the codes, and how far decoded inputs are from the given ones."""
    codes, errors = [], []
    for _, inputs, _ in windows.batches(256):
        code = solver._encoded(inputs.to(solver.device))[0]
        codes.append(code)
        found = solver.decoded.inputs(solver.network.bound(code), solver.nodes)
        errors.append((found - inputs.to(solver.device).flatten(2)).square().mean(dim=2))
    solver.module.error_size.copy_(torch.cat(errors).mean(dim=0).sqrt())  # type: ignore[operator]
    if solver.prior.law == "gaussian" and not solver.network.variational:
        solver.prior.fit(torch.cat(codes))
