r"""Functions of many small matrices at once: what a linear part that couples its channels asks of time stepping.

.. math:: \varphi_0(A) = e^A,\qquad \varphi_{j}(A) = \sum_{m\ge0} \frac{A^m}{(m+j)!}

All come from one exponential of a block matrix (Saad, SIAM J. Numer. Anal. 29, 1992; Al-Mohy & Higham, SIAM J. Sci.
Comput. 33, 2011): the first block row of exp([[A, I, 0, …], [0, 0, I, …], …]) is phi_0, phi_1, …. So matrices that have
no basis of eigenvectors need no care (a wave of wavenumber 0 moves on as u + v t).

The exponential halves A until it is small and squares back, which costs digits by the norm of A. Balancing first, by a
diagonal similarity that makes rows and columns equally large (Osborne, J. ACM 7, 1960), brings the norm near the
largest eigenvalue: of [[0, 1], [-c² k², 0]] from c² k² to c k.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

SWEEPS = 3  # of balancing; one settles two channels


def phi_functions(matrices: Float[Tensor, "*batch n n"], count: int) -> tuple[Tensor, ...]:
    """phi_0 (the exponential) to phi_count."""
    flat, place = matrices.flatten(0, -3).unique(dim=0, return_inverse=True)  # on a torus many modes share one |k|²
    balanced, scale = balance(flat)
    values = _first_block_row(balanced, count) * scale[:, :, None] / scale.repeat(1, count + 1)[:, None]
    return tuple(block[place].reshape(matrices.shape) for block in values.split(matrices.shape[-1], dim=-1))


def _first_block_row(matrices: Tensor, count: int) -> Tensor:
    n = matrices.shape[-1]
    blocks = matrices.new_zeros(len(matrices), n * (count + 1), n * (count + 1))
    blocks[:, :n, :n] = matrices
    blocks.diagonal(offset=n, dim1=-2, dim2=-1).fill_(1.0)
    return torch.linalg.matrix_exp(blocks)[:, :n]


def balance(matrices: Float[Tensor, "batch n n"]) -> tuple[Tensor, Float[Tensor, "batch n"]]:
    """B and d with A = D B D^{-1}, D = diag(d), where each row of B is about as large as its column."""
    matrices, n = matrices.clone(), matrices.shape[-1]
    scale = torch.ones(matrices.shape[:-1], dtype=matrices.real.dtype, device=matrices.device)
    for i in (i for _ in range(SWEEPS) for i in range(n)):
        others = [j for j in range(n) if j != i]
        row = torch.linalg.vector_norm(matrices[:, i, others], dim=1)
        column = torch.linalg.vector_norm(matrices[:, others, i], dim=1)
        factor = torch.where((row > 0) & (column > 0), (row / column).sqrt(), 1.0)
        matrices[:, :, i] *= factor[:, None]
        matrices[:, i, :] /= factor[:, None]
        scale[:, i] *= factor
    return matrices, scale
