"""Search methods, one file each."""

from lightning_nas.methods.base import Method, OneShotMethod, SamplingMethod
from lightning_nas.methods.darts import DARTS
from lightning_nas.methods.differentiable import DifferentiableMethod
from lightning_nas.methods.enas import ENAS
from lightning_nas.methods.gdas import GDAS
from lightning_nas.methods.loading import load_search
from lightning_nas.methods.p_darts import PDARTS
from lightning_nas.methods.random_search_ws import RandomSearchWS
from lightning_nas.methods.snas import SNAS
from lightning_nas.methods.spos import SPOS

__all__ = [
    "DARTS",
    "ENAS",
    "GDAS",
    "PDARTS",
    "SNAS",
    "SPOS",
    "DifferentiableMethod",
    "Method",
    "OneShotMethod",
    "RandomSearchWS",
    "SamplingMethod",
    "load_search",
]
