"""How the weights of a choice's options come from learnt logits."""

from lightning_nas.relaxations.base import Relaxation
from lightning_nas.relaxations.gumbel import GumbelSoftmax, StraightThroughGumbel
from lightning_nas.relaxations.softmax import Softmax

__all__ = ["GumbelSoftmax", "Relaxation", "Softmax", "StraightThroughGumbel"]
