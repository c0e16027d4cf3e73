"""Fast primitives, each with a slow plain twin: one file an operation, with shared cases and a dispatch."""

from .pointwise import channel_mix, channel_mlp
from .spectral_conv import spectral_conv

__all__ = ["channel_mix", "channel_mlp", "spectral_conv"]
