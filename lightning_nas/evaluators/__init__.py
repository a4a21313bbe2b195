"""Estimates of how good an architecture is."""

from lightning_nas.evaluators.shared_weights import SharedWeights

__all__ = ["SharedWeights"]
