"""Policies over architectures, and how rewards train them."""

from lightning_nas.controllers.base import Controller, Policy, Sample
from lightning_nas.controllers.factorized import FactorizedController
from lightning_nas.controllers.lstm import LSTMController
from lightning_nas.controllers.transformer import TransformerController
from lightning_nas.controllers.updates.reinforce import Reinforce

__all__ = [
    "Controller",
    "FactorizedController",
    "LSTMController",
    "Policy",
    "Reinforce",
    "Sample",
    "TransformerController",
]
