"""Proximal policy optimisation (Schulman et al. 2017), by which NASNet trains its controller (Zoph, Vasudevan, Shlens
and Le, CVPR 2018)."""

import torch
from torch import Tensor

from lightning_nas.controllers.updates.base import ControllerUpdate
from lightning_nas.errors import SettingError


class PPO(ControllerUpdate):
    """PPO: several steps on the same architectures, none of which becomes much more or less probable by them.

    The loss is ``-mean(min(r · A, clip(r, 1 − clip, 1 + clip) · A)) − entropy_weight · entropy`` with ``A = R − b`` and
    ``r = p / p_drawn``, p_drawn of the policy that drew the architecture. Beyond the clip, on the side that A favours,
    an architecture has no gradient. The first pass on fresh architectures, r = 1, has the gradient of REINFORCE.

    NASNet trains an LSTM of 100 units so, by Adam with rate 3.5e-4, in batches of 20 architectures.

    Differs from PPO as published: 1. r is that of a whole architecture, which has one reward, and not of each choice.
    2. No critic: b is a moving average. The number of passes and the clip are not in NASNet's paper.

    Args:
        decay: the decay of b, the moving average of rewards, for each architecture (NASNet .95).
        entropy_weight: the weight of the entropy, summed over an architecture's choices, in units of the reward per nat
            (NASNet 1e-5).
        baseline: the value from which b starts; None: it has the correction for its start that Adam's averages have,
            and the first rewards are compared with their own mean.
        differentiate_entropy: whether the entropy is a term of the loss with a gradient of its own, instead of a
            constant that is added to the reward.
        clip: how far from 1 the ratio r of an architecture may lead (PPO's paper .2).
        passes: how many steps are taken on the same architectures.
    """

    adjustable = ControllerUpdate.adjustable | {"clip", "passes"}
    usual_batch_size = 20

    def __init__(
        self,
        decay: float = 0.95,
        entropy_weight: float = 1e-5,
        baseline: float | None = None,
        differentiate_entropy: bool = True,
        clip: float = 0.2,
        passes: int = 5,
    ) -> None:
        super().__init__(decay, entropy_weight, baseline, differentiate_entropy)
        if not 0 < clip < 1:
            raise SettingError(f"clip: between 0 and 1, got {clip}")
        if passes < 1:
            raise SettingError(f"passes: at least 1, got {passes}")
        self.clip, self.passes = clip, passes

    def gain(self, log_prob: Tensor, drawn: Tensor, advantages: Tensor) -> Tensor:
        ratio = (log_prob - drawn).exp()
        clipped = ratio.clamp(1 - self.clip, 1 + self.clip)
        return torch.minimum(ratio * advantages, clipped * advantages)
