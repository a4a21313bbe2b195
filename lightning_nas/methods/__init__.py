"""Search methods, one file each."""

from lightning_nas.methods.base import Method, OneShotMethod, SamplingMethod
from lightning_nas.methods.darts import DARTS
from lightning_nas.methods.differentiable import DifferentiableMethod
from lightning_nas.methods.enas import ENAS
from lightning_nas.methods.loading import load_search
from lightning_nas.methods.random_search_ws import RandomSearchWS

__all__ = [
    "DARTS",
    "ENAS",
    "DifferentiableMethod",
    "Method",
    "OneShotMethod",
    "RandomSearchWS",
    "SamplingMethod",
    "load_search",
]
