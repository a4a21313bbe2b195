"""Which architecture to try next."""

from lightning_nas.strategies.aging_evolution import AgingEvolution
from lightning_nas.strategies.asha import ASHA
from lightning_nas.strategies.base import Proposal, Strategy, Trial
from lightning_nas.strategies.nsga2 import NSGA2
from lightning_nas.strategies.policy_gradient import PolicyGradient
from lightning_nas.strategies.random_search import RandomSearch
from lightning_nas.strategies.successive_halving import Hyperband, SuccessiveHalving

__all__ = [
    "ASHA",
    "NSGA2",
    "AgingEvolution",
    "Hyperband",
    "PolicyGradient",
    "Proposal",
    "RandomSearch",
    "Strategy",
    "SuccessiveHalving",
    "Trial",
]
