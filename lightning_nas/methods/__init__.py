"""Search methods, one file each."""

from lightning_nas.methods.base import Method
from lightning_nas.methods.darts import DARTS

__all__ = ["DARTS", "Method"]
