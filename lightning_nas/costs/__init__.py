"""What a network costs, without data."""

from lightning_nas.costs.profile import Profile, profile

__all__ = ["Profile", "profile"]
