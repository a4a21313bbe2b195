"""Figures of an untrained network that may tell how well it would train."""

from lightning_nas.measures.base import Measure
from lightning_nas.measures.latency import Latency
from lightning_nas.measures.naswot import NASWOT
from lightning_nas.measures.synflow import SynFlow

__all__ = ["NASWOT", "Latency", "Measure", "SynFlow"]
