"""How rewards train a controller."""

from lightning_nas.controllers.updates.reinforce import Reinforce

__all__ = ["Reinforce"]
