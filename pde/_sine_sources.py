r"""The declared form of :math:`-\Delta u - s u = f`, u = 0 on the faces of a box, for sources that are sine series.

Sources of these problems vanish on the faces and hold no wave beyond the grid's last sine: they are known between the
nodes, and so the equation can be posed on any nodes. A source with values on the faces is known at its nodes only.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from ._elliptic import interior
from ._equation import Equation, Term, dirichlet
from ._grid import Grid
from ._solver import check_fields
from ._trigonometric import sine_resample

ZERO = 100  # roundings: sin(n pi) of doubles is not zero


def shifted_laplace(inputs: Float[Tensor, "batch 1 *space"], grid: Grid, *, shift: float = 0.0) -> Equation:
    """The equation of these sources; ``shift`` is s."""
    check_fields(inputs, grid, 1)
    terms = [Term(tuple(2 * (i == j) for i in range(grid.dim)), -1.0) for j in range(grid.dim)]
    if shift:
        terms.append(Term((0,) * grid.dim, -shift))
    return Equation(tuple(terms), inputs[:, 0], dirichlet(torch.zeros_like(inputs[:, 0])))


def sine_posed(inputs: Float[Tensor, "batch 1 *space"], grid: Grid, target: Grid) -> Tensor | None:
    """The sine series of the sources at the nodes of ``target``; None where one of them has values on the faces."""
    faces = torch.ones(grid.shape, dtype=torch.bool, device=inputs.device)
    interior(faces, grid.dim).fill_(False)
    largest = inputs.flatten(1).abs().amax(dim=1)
    if bool((inputs[..., faces].flatten(1).abs().amax(dim=1) > ZERO * torch.finfo(inputs.dtype).eps * largest).any()):
        return None
    return sine_resample(inputs.cpu(), target.shape).to(inputs)
