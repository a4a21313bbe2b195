"""REINFORCE (Williams 1992) with a moving average as baseline, as NAS-RL and ENAS train their controllers."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from lightning_nas.controllers.base import Sample
from lightning_nas.errors import SettingError


class Reinforce(nn.Module):
    """Turns rewards into a loss whose gradient, in expectation, is that of minus the expected reward.

    The baseline b, a moving average of rewards, is kept in the ``state_dict``. It is subtracted *before* it moves: a
    baseline that has a sample's own reward in it biases the gradient.

    Args:
        decay: of the baseline (ENAS .99).
        entropy_weight: the entropies of an architecture's steps, summed, are added to its reward with this weight, as
            a constant (released ENAS: 1e-3 for recurrent cells, 1e-4 else; paper 1e-4 and .1).
        baseline: where b starts. ENAS starts at 0, so that at first all architectures drawn become more probable, the
            better ones more; a guess of the usual reward saves these updates.
    """

    baseline: Tensor

    def __init__(self, decay: float = 0.99, entropy_weight: float = 0.0, baseline: float = 0.0) -> None:
        super().__init__()
        if not 0 <= decay < 1:
            raise SettingError(f"decay: between 0 and 1, got {decay}")
        self.decay = decay
        self.entropy_weight = entropy_weight
        self.register_buffer("baseline", torch.tensor(baseline))

    def update(
        self, sample: Sample, rewards: Tensor, reduce: Callable[[Tensor], Tensor] | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss ``-mean(log p · (R' − b))``, ``R' = R + entropy_weight · entropy``; then ``b ← b + (1 − decay)
        (mean R' − b)``.

        Args:
            sample: of the policy, with its graph.
            rewards: R of each architecture, ``(n,)``, a constant.
            reduce: the mean of a number over ranks, as in ``trainer.strategy.reduce``, which keeps b equal on all of
                them; None: there is one.

        Returns:
            the loss, and figures to log: the means of ``reward``, without the entropy, and of ``entropy`` (nats, all
            steps of an architecture); ``baseline``, as it was subtracted.
        """
        entropy = sample.entropies.detach().sum(1)
        figures = {"reward": rewards.mean(), "entropy": entropy.mean(), "baseline": self.baseline.clone()}
        rewards = rewards + self.entropy_weight * entropy
        loss = -(sample.log_prob * (rewards - self.baseline)).mean()
        mean = rewards.mean() if reduce is None else reduce(rewards.mean())
        self.baseline += (1 - self.decay) * (mean - self.baseline)
        return loss, figures
