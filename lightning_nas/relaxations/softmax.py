"""The softmax, as in DARTS (Liu, Simonyan, Yang, ICLR 2019): every option runs in every step."""

import torch
from torch import Tensor

from lightning_nas.relaxations.base import Relaxation


class Softmax(Relaxation):
    """Softmax of the logits, without noise (DARTS)."""

    def weights(self, logits: Tensor, present: Tensor, generator: torch.Generator, progress: float) -> Tensor:
        return self.expected(logits, present)
