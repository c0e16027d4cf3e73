"""Fast primitives, each with a slow plain twin: one file an operation, with shared cases and a dispatch."""

from .spectral_conv import spectral_conv

__all__ = ["spectral_conv"]
