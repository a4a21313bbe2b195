"""Which architecture to try next."""

from lightning_nas.strategies.aging_evolution import AgingEvolution
from lightning_nas.strategies.base import Proposal, Strategy, Trial
from lightning_nas.strategies.policy_gradient import PolicyGradient
from lightning_nas.strategies.random_search import RandomSearch

__all__ = ["AgingEvolution", "PolicyGradient", "Proposal", "RandomSearch", "Strategy", "Trial"]
