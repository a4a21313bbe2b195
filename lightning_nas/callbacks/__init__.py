"""Callbacks: pictures and files of a search, and interruption without loss."""

from lightning_nas.callbacks.architecture_logger import ArchitectureLogger
from lightning_nas.callbacks.interruption import Interruption

__all__ = ["ArchitectureLogger", "Interruption"]
