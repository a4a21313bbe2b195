"""Callbacks: pictures and files of a search, interruption without loss, averaged SGD."""

from lightning_nas.callbacks.architecture_logger import ArchitectureLogger
from lightning_nas.callbacks.averaging import NonMonotoneAveraging
from lightning_nas.callbacks.interruption import Interruption

__all__ = ["ArchitectureLogger", "Interruption", "NonMonotoneAveraging"]
