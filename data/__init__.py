"""Samples of input and output functions: generated once, stored safely, read lazily."""

from ._code import source_digest
from ._files import DamagedData, DiskFull, cache_root, file_digest, write_atomically
from .dataset import Dataset, Source
from .fields import load_fields, save_fields
from .formats import Assumption, FormatWarning, KnownFault, UnknownFormat, read, write
from .generate import generate
from .observations import Observations
from .splits import Splits, split
from .store import open_dataset

__all__ = [
    "Assumption",
    "DamagedData",
    "Dataset",
    "DiskFull",
    "FormatWarning",
    "KnownFault",
    "Observations",
    "Source",
    "Splits",
    "UnknownFormat",
    "cache_root",
    "file_digest",
    "generate",
    "load_fields",
    "open_dataset",
    "read",
    "save_fields",
    "source_digest",
    "split",
    "write",
    "write_atomically",
]
