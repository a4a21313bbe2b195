"""Callbacks: pictures and files of a search, interruption without loss, averaged SGD, searches in a user's module."""

from lightning_nas.callbacks.architecture_logger import ArchitectureLogger
from lightning_nas.callbacks.averaging import NonMonotoneAveraging
from lightning_nas.callbacks.interruption import Interruption
from lightning_nas.callbacks.path_search import PathSearch
from lightning_nas.callbacks.relaxed_search import RelaxedSearch

__all__ = ["ArchitectureLogger", "Interruption", "NonMonotoneAveraging", "PathSearch", "RelaxedSearch"]
