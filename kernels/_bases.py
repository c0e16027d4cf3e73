r"""One axis of a spectral transform: its waves, as real matrices and as fast Fourier transforms of an extension.

A function of x in [0, 1] is :math:`\sum_k \hat u_k\,\varphi_k(x)`. The basis says which waves and which nodes:

=============  ===================  ====================  ==========================  ==================
word           nodes x_j            waves                 at the walls                transform
=============  ===================  ====================  ==========================  ==================
fourier        j / N                exp(2 pi i k x)       periodic                    real FFT
sine           j / (N - 1)          sin(pi k x), k >= 1   zero (Dirichlet)            sine transform I
sine-centres   (j + 1/2) / N        sin(pi k x), k >= 1   zero                        sine transform II
cosine         (j + 1/2) / N        cos(pi k x), k >= 0   zero slope (Neumann)        cosine transform II
cosine-ends    j / (N - 1)          cos(pi k x), k >= 0   zero slope                  cosine transform I
=============  ===================  ====================  ==========================  ==================

Matrices are (rows, nodes). A real axis has one row a wave. A Fourier axis has two rows a wavenumber k = 0 .. h - 1,
cosine and minus sine: the real and the imaginary part of exp(-2 pi i k x). On a *halved* axis h is the number of kept
modes; on a *centred* one (modes -m//2 .. m - m//2 - 1) h = m // 2 + 1, and k and -k share their rows.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor

Basis = Literal["fourier", "sine", "sine-centres", "cosine", "cosine-ends"]
BASES: tuple[str, ...] = get_args(Basis)


@dataclass(frozen=True)
class Axis:
    """Kept waves of one axis."""

    basis: str
    modes: int
    halved: bool = False

    @property
    def fourier(self) -> bool:
        return self.basis == "fourier"

    @property
    def first(self) -> int:
        """Wavenumber of the first kept wave of a real axis."""
        return 1 if self.basis.startswith("sine") else 0

    @property
    def height(self) -> int:
        """Wavenumbers that have rows of their own."""
        return self.modes if self.halved or not self.fourier else self.modes // 2 + 1

    @property
    def rows(self) -> int:
        return 2 * self.height if self.fourier else self.modes

    def available(self, size: int) -> int:
        """Waves that ``size`` nodes resolve."""
        if self.basis == "sine":
            return size - 2
        return size // 2 + 1 if self.halved else size


def axes_of(basis: Sequence[str], modes: Sequence[int]) -> tuple[Axis, ...]:
    """The last Fourier axis is the halved one."""
    fourier = [i for i, word in enumerate(basis) if word == "fourier"]
    return tuple(
        Axis(word, count, [i] == fourier[-1:]) for i, (word, count) in enumerate(zip(basis, modes, strict=True))
    )


def _kept(make: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Remember the last 256 results, but never a traced stand-in of a compiler or of ``torch.export``."""
    known: dict[tuple[object, ...], Tensor] = {}

    @functools.wraps(make)
    def remembered(*key: object) -> Tensor:
        if torch.compiler.is_compiling():
            return make(*key)
        if key not in known:
            with torch.inference_mode(False):  # or it could not serve autograd later
                made = make(*key)
            if type(made) is not Tensor:
                return made
            if len(known) >= 256:
                known.pop(next(iter(known)), None)
            known[key] = made
        return known[key]

    return remembered


@_kept
def analysis(axis: Axis, size: int, dtype: torch.dtype, device: torch.device) -> Float[Tensor, "rows size"]:
    """Node values to coefficients."""
    waves = _waves(axis, size, size)
    if axis.fourier:
        return (waves / size).to(device, dtype)
    intervals = size if axis.basis in ("cosine", "sine-centres") else size - 1
    k = torch.arange(axis.first, axis.first + axis.modes)
    share = torch.full((axis.modes,), 2.0 / intervals, dtype=torch.float64)
    share[(k == 0) | (k == intervals)] /= 2  # waves of square mean 1, not 1/2
    waves = share[:, None] * waves
    if axis.basis == "cosine-ends":
        waves[:, [0, -1]] /= 2  # the trapezoidal rule
    return waves.to(device, dtype)


@_kept
def synthesis(
    axis: Axis, size: int, new_size: int, dtype: torch.dtype, device: torch.device
) -> Float[Tensor, "rows new_size"]:
    """Coefficients, known from ``size`` nodes, to values at ``new_size`` nodes; waves beyond the new grid are left out.

    On the halved axis a column stands for k and -k. On a centred axis the second row is plus sine.
    """
    waves = _waves(axis, size, new_size)
    if not axis.fourier:
        return waves.to(device, dtype)
    pair = waves.view(axis.height, 2, new_size)
    if axis.halved:
        pair = shares(axis, size, new_size)[:, :, None] * pair
    else:
        pair = pair * torch.tensor([1.0, -1.0], dtype=torch.float64)[:, None]
    return pair.reshape(-1, new_size).to(device, dtype)


def shares(axis: Axis, size: int, new_size: int) -> Float[Tensor, "modes 2"]:
    """How often a column of the halved axis counts: the mean and the Nyquist mode are their own mirror images, real."""
    k = torch.arange(axis.modes)[:, None]
    own = (k == 0) | (2 * k == size)
    return torch.where(own, torch.tensor([1.0, 0.0]), 2.0).double() * (2 * k <= new_size)


def _waves(axis: Axis, size: int, new_size: int) -> Float[Tensor, "rows new_size"]:
    """The waves at ``new_size`` nodes, float64; angles are reduced as integers first: exact to round-off for any k."""
    k = torch.arange(axis.first, axis.first + axis.height)
    node = torch.arange(new_size)
    if axis.fourier:
        angles = 2 * math.pi * (torch.outer(k, node) % new_size).double() / new_size
        resolved = (2 * k <= new_size)[:, None].double()
        # the Nyquist mode of ``size`` nodes has lost its phase: shared evenly by +n/2 and -n/2, it is a cosine
        phase = resolved * (2 * k != size)[:, None]
        return torch.stack([resolved * angles.cos(), -phase * angles.sin()], dim=1).flatten(0, 1)
    at_ends = axis.basis in ("sine", "cosine-ends")
    turn = 2 * (new_size - 1) if at_ends else 4 * new_size  # of the integer angles below
    angles = 2 * math.pi * (torch.outer(k, node if at_ends else 2 * node + 1) % max(turn, 1)).double() / max(turn, 1)
    waves = angles.sin() if axis.first else angles.cos()
    if axis.basis == "sine":
        waves[:, [0, -1]] = 0.0
    return waves * (k < axis.first + axis.available(new_size))[:, None]


def real_forward(values: Tensor, dim: int, axis: Axis) -> Tensor:
    """The coefficients along ``dim`` by the real FFT of the odd or even extension."""
    values, size = values.movedim(dim, -1), values.shape[dim]
    mirrored = values.flip(-1)
    if axis.basis == "sine":
        inner, zero = values[..., 1:-1], torch.zeros_like(values[..., :1])
        spectrum = -torch.fft.rfft(torch.cat([zero, inner, zero, -inner.flip(-1)], dim=-1)).imag / (size - 1)
    elif axis.basis == "cosine-ends":
        spectrum = torch.fft.rfft(torch.cat([values, mirrored[..., 1:-1]], dim=-1)).real / (size - 1)
    else:
        odd = axis.basis == "sine-centres"
        turned = torch.fft.rfft(torch.cat([values, -mirrored if odd else mirrored], dim=-1)) * _half_turn(values, -1)
        spectrum = (-turned.imag if odd else turned.real) / size
    wall = {"cosine-ends": size - 1, "sine-centres": size}.get(axis.basis, 0)
    k = torch.arange(spectrum.shape[-1], device=values.device)
    spectrum = torch.where((k == 0) | (k == wall), 0.5 * spectrum, spectrum)
    return spectrum[..., axis.first : axis.first + axis.modes].movedim(-1, dim)


def real_inverse(coefficients: Tensor, dim: int, axis: Axis, new_size: int) -> Tensor:
    """Values at ``new_size`` nodes from coefficients along ``dim``, by the inverse real FFT of the extension."""
    kept = coefficients.movedim(dim, -1)[..., : axis.available(new_size)]
    at_ends = axis.basis in ("sine", "cosine-ends")
    length = 2 * (new_size - 1) if at_ends else 2 * new_size
    spectrum = torch.nn.functional.pad(kept, (axis.first, length // 2 + 1 - axis.first - kept.shape[-1]))
    k = torch.arange(length // 2 + 1, device=kept.device)
    spectrum = torch.where((k == 0) | (k == length // 2), spectrum, 0.5 * spectrum)
    waves = (-1j if axis.first else 1.0) * spectrum.to(spectrum.dtype.to_complex())
    if not at_ends:
        waves = waves * _half_turn(spectrum[..., :new_size], +1)
    waves = torch.complex(waves.real, torch.where((k == 0) | (k == length // 2), 0.0, waves.imag))
    return torch.fft.irfft(waves, n=length, norm="forward")[..., :new_size].movedim(-1, dim)


def _half_turn(values: Tensor, sign: int) -> Tensor:
    """exp(sign i pi k / 2N): the shift from the nodes of the FFT to the centres of the cells."""
    k = torch.arange(values.shape[-1] + 1, device=values.device, dtype=values.dtype)
    return torch.polar(torch.ones_like(k), sign * math.pi / (2 * values.shape[-1]) * k)
