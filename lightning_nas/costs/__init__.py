"""What a network costs, without data."""

from lightning_nas.costs.flops import Flops
from lightning_nas.costs.profile import Profile, profile
from lightning_nas.costs.table import CostTable

__all__ = ["CostTable", "Flops", "Profile", "profile"]
