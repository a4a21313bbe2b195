"""How rewards train a controller."""

from lightning_nas.controllers.updates.base import Baseline, ControllerUpdate
from lightning_nas.controllers.updates.ppo import PPO
from lightning_nas.controllers.updates.reinforce import Reinforce

__all__ = ["PPO", "Baseline", "ControllerUpdate", "Reinforce"]
