"""Where trials are run."""

from lightning_nas.executors.base import Executor
from lightning_nas.executors.processes import Processes
from lightning_nas.executors.ray import Ray
from lightning_nas.executors.serial import Serial

__all__ = ["Executor", "Processes", "Ray", "Serial"]
