"""Networks that hold many architectures: what ranks these under shared weights, and what looks for the best."""

from lightning_nas.supernets.evolution import Evolution
from lightning_nas.supernets.limits import Limits
from lightning_nas.supernets.scoring import Scorer, Statistics

__all__ = ["Evolution", "Limits", "Scorer", "Statistics"]
