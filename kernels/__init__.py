"""Fast primitives, each with a slow plain twin: one file an operation, with shared cases and a dispatch."""

from ._factors import CP, TT, Planes, Tucker
from ._memory import reuse_memory
from .accelerate import accelerate
from .fourier_block import fourier_block
from .pointwise import channel_mix, channel_mlp
from .sine_layer import jet_of_points, sine_layer
from .spectral_conv import spectral_conv

__all__ = [
    "CP",
    "TT",
    "Planes",
    "Tucker",
    "accelerate",
    "channel_mix",
    "channel_mlp",
    "fourier_block",
    "jet_of_points",
    "reuse_memory",
    "sine_layer",
    "spectral_conv",
]
