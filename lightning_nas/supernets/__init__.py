"""Networks that hold many architectures: what ranks these under shared weights."""

from lightning_nas.supernets.scoring import Scorer, Statistics

__all__ = ["Scorer", "Statistics"]
