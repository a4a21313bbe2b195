"""Estimates of how good an architecture is."""

from lightning_nas.evaluators.shared_weights import Scorer

__all__ = ["Scorer"]
