"""Which architecture to try next."""

from lightning_nas.strategies.base import Strategy, Trial

__all__ = ["Strategy", "Trial"]
