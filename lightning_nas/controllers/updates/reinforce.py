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
        decay: the decay of the baseline for each update (ENAS .99).
        entropy_weight: the entropies of an architecture's steps, summed, count in its reward with this weight
            (released ENAS: 1e-3 for recurrent cells, 1e-4 else; paper 1e-4 and .1).
        baseline: the value from which b starts. ENAS starts at 0, so that at first all architectures drawn become more
            probable, the better ones more; a guess of the usual reward saves these updates. None: b moves with every
            single reward and has the correction for its start that Adam's averages have; the first reward is its own
            baseline (the script of NAS-Bench-201).
        differentiate_entropy: whether the entropy is a term of the loss with a gradient of its own, instead of a
            constant that is added to the reward (ENAS).
    """

    baseline: Tensor
    weight: Tensor

    def __init__(
        self,
        decay: float = 0.99,
        entropy_weight: float = 0.0,
        baseline: float | None = 0.0,
        differentiate_entropy: bool = False,
    ) -> None:
        super().__init__()
        if not 0 <= decay < 1:
            raise SettingError(f"decay: between 0 and 1, got {decay}")
        self.decay = decay
        self.entropy_weight = entropy_weight
        self.differentiate_entropy = differentiate_entropy
        self.in_turn = baseline is None
        kind = torch.float64 if self.in_turn else torch.float32
        self.register_buffer("baseline", torch.tensor(baseline or 0.0, dtype=kind))
        if self.in_turn:
            self.register_buffer("weight", torch.tensor(0.0, dtype=kind))  # of all rewards in the average

    def update(
        self, sample: Sample, rewards: Tensor, reduce: Callable[[Tensor], Tensor] | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss ``-mean(log p · (R' − b))``, ``R' = R + entropy_weight · entropy``; then ``b ← b + (1 − decay)
        (mean R' − b)``. Where the entropy is differentiated, R' is R and the entropy's mean is subtracted.

        Args:
            sample: the architectures that the policy drew, with its graph.
            rewards: R of each architecture, ``(n,)``, a constant.
            reduce: the mean of a number over ranks, as in ``trainer.strategy.reduce``, which keeps b equal on all of
                them; None: there is one.

        Returns:
            the loss, and figures to log: the means of ``reward``, without the entropy, and of ``entropy`` (nats, all
            steps of an architecture); ``baseline``, as it was subtracted.
        """
        entropy = sample.entropies.sum(1)
        figures = {"reward": rewards.mean(), "entropy": entropy.detach().mean(), "baseline": self._average()}
        if not self.differentiate_entropy:
            rewards = rewards + self.entropy_weight * entropy.detach()
        loss = -(sample.log_prob * self._advantages(rewards, reduce)).mean()
        if self.differentiate_entropy:
            loss = loss - self.entropy_weight * entropy.mean()
        return loss, figures

    def _average(self) -> Tensor:
        return self.baseline / self.weight if self.in_turn and self.weight else self.baseline.clone()

    def _advantages(self, rewards: Tensor, reduce: Callable[[Tensor], Tensor] | None) -> Tensor:
        """The rewards less the baseline, which moves after it was subtracted."""
        if not self.in_turn:
            mean = rewards.mean() if reduce is None else reduce(rewards.mean())
            advantages = rewards - self.baseline
            self.baseline += (1 - self.decay) * (mean - self.baseline)
            return advantages
        advantages = torch.empty_like(rewards)
        for k, reward in enumerate(rewards.double()):
            advantages[k] = reward - (self.baseline / self.weight if self.weight else reward)
            self.baseline.mul_(self.decay).add_((1 - self.decay) * reward)
            self.weight.mul_(self.decay).add_(1 - self.decay)
        return advantages
