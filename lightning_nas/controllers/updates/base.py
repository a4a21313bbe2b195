"""``ControllerUpdate``: how a policy learns from rewards; and the baseline that is subtracted from them."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from typing import ClassVar

import torch
from torch import Tensor, nn

from lightning_nas.controllers.base import Policy, Sample
from lightning_nas.errors import SettingError
from lightning_nas.specs import Configurable


class Baseline(nn.Module):
    """A moving average b of rewards, in the ``state_dict`` of whoever registers it.

    Args:
        start: the value from which b starts; None: it has the correction for its start that Adam's averages have, and
            the first rewards are compared with their own mean.
    """

    average: Tensor
    weight: Tensor

    def __init__(self, start: float | None = None) -> None:
        super().__init__()
        self.register_buffer("average", torch.tensor(0.0 if start is None else start))
        self.register_buffer("weight", torch.tensor(0.0 if start is None else 1.0))  # of all that is in the average

    @property
    def value(self) -> Tensor:
        """b as it is now; 0 before there is a reward."""
        return self.average / self.weight if self.weight else self.average.clone()

    def advantages(self, rewards: Tensor, decay: float, reduce: Callable[[Tensor], Tensor] | None = None) -> Tensor:
        """The rewards less b, which moves only then: one that has a sample's own reward in it biases the gradient.

        Args:
            rewards: R of each architecture, ``(n,)``.
            decay: the decay of b for each reward: b moves once, as far as n rewards that are all as their mean would
                move it.
            reduce: the mean of a number over ranks, as in ``trainer.strategy.reduce``, which keeps b equal on all of
                them; None: there is one.
        """
        given = rewards.to(self.average.dtype)
        mean = given.mean() if reduce is None else reduce(given.mean())
        advantages = given - (self.value if self.weight else mean)
        moves = 1 - decay ** len(rewards)
        self.average += moves * (mean - self.average)
        self.weight += moves * (1 - self.weight)
        return advantages.to(rewards.dtype)


class ControllerUpdate(Configurable, ABC):
    """How a policy learns from the rewards of architectures that were drawn from it, in one step or in several.

    A subclass says what is gained by a log-probability (:meth:`gain`); advantages ``A = R − b`` and the entropy are the
    same for all. The state, b, is a :class:`Baseline` of whoever uses the update.

    Args:
        decay: the decay of b for each architecture.
        entropy_weight: the weight of the entropy, summed over an architecture's choices, in units of the reward per
            nat.
        baseline: the value from which b starts; None: it has the correction for its start that Adam's averages have.
        differentiate_entropy: whether the entropy is a term of the loss with a gradient of its own, instead of a
            constant that is added to the reward.
    """

    adjustable = frozenset({"decay", "entropy_weight"})

    passes: int = 1
    """How many steps are taken on the same architectures."""

    usual_batch_size: ClassVar[int] = 1
    """How many trials are told between two updates, if nothing is said."""

    def __init__(
        self, decay: float, entropy_weight: float, baseline: float | None, differentiate_entropy: bool
    ) -> None:
        if not 0 <= decay < 1:
            raise SettingError(f"decay: from 0 to below 1, got {decay}")
        if not entropy_weight >= 0:
            raise SettingError(f"entropy_weight: 0 or more, got {entropy_weight}")
        self.decay, self.entropy_weight = decay, entropy_weight
        self.baseline, self.differentiate_entropy = baseline, differentiate_entropy

    def losses(
        self,
        policy: Policy,
        sample: Sample,
        rewards: Tensor,
        baseline: Baseline,
        reduce: Callable[[Tensor], Tensor] | None = None,
        drawn: Tensor | None = None,
    ) -> Iterator[tuple[Tensor, Sample]]:
        """The loss of every pass; whoever loops takes a step of the policy before the next::

            for loss, said in update.losses(policy, sample, rewards, baseline):
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()

        The baseline moves once, in the first pass.

        Args:
            policy: the policy that learns.
            sample: architectures with the policy's graph, which the first pass takes as they are.
            rewards: R of each architecture, ``(n,)``, a constant.
            baseline: the moving average of the rewards before.
            reduce: the mean of a number over ranks, as in ``trainer.strategy.reduce``; None: there is one.
            drawn: the log-probability of each architecture under the policy that drew it, ``(n,)``; None: ``sample``
                was drawn from the policy as it is.

        Yields:
            the loss ``-mean(gain) − entropy_weight · entropy``, the latter where it is differentiated; and what the
            policy of this pass says about the architectures.
        """
        drawn = sample.log_prob.detach() if drawn is None else drawn
        if not self.differentiate_entropy:
            rewards = rewards + self.entropy_weight * sample.entropies.sum(1).detach()
        advantages = baseline.advantages(rewards, self.decay, reduce)
        for number in range(self.passes):
            said = policy.evaluate(sample.architectures) if number else sample
            loss = -self.gain(said.log_prob, drawn, advantages).mean()
            if self.differentiate_entropy:
                loss = loss - self.entropy_weight * said.entropies.sum(1).mean()
            yield loss, said

    @abstractmethod
    def gain(self, log_prob: Tensor, drawn: Tensor, advantages: Tensor) -> Tensor:
        """What is maximised, for each architecture, ``(n,)``.

        Args:
            log_prob: the log-probabilities under the policy that learns, ``(n,)``, with its graph.
            drawn: those under the policy that drew the architectures, ``(n,)``, constants.
            advantages: the rewards less the baseline, ``(n,)``.
        """
        raise NotImplementedError
