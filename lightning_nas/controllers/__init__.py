"""Policies over architectures, and how rewards train them."""

from lightning_nas.controllers.base import Controller, Policy, Sample
from lightning_nas.controllers.factorized import FactorizedController
from lightning_nas.controllers.lstm import LSTMController
from lightning_nas.controllers.transformer import TransformerController
from lightning_nas.controllers.updates import PPO, Baseline, ControllerUpdate, Reinforce

__all__ = [
    "PPO",
    "Baseline",
    "Controller",
    "ControllerUpdate",
    "FactorizedController",
    "LSTMController",
    "Policy",
    "Reinforce",
    "Sample",
    "TransformerController",
]
