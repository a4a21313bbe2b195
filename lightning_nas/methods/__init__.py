"""Search methods, one file each."""

from lightning_nas.methods.base import Method, OneShotMethod
from lightning_nas.methods.darts import DARTS
from lightning_nas.methods.enas import ENAS
from lightning_nas.methods.random_search_ws import RandomSearchWS
from lightning_nas.methods.trial_search import TrialSearch

__all__ = ["DARTS", "ENAS", "Method", "OneShotMethod", "RandomSearchWS", "TrialSearch"]
