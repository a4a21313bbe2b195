"""Samples of a categorical distribution that have a gradient (Jang et al. 2017; Maddison et al. 2017).

With G independent and of the standard Gumbel distribution, ``argmax(logits + G)`` is a sample of ``softmax(logits)``.
Its relaxation is ``softmax((logits + G) / λ)``, whose largest entry is that sample at every temperature λ.
"""

import torch
from torch import Tensor
from torch.distributions.relaxed_categorical import ExpRelaxedCategorical

from lightning_nas.errors import SettingError
from lightning_nas.relaxations.base import Relaxation


class _Annealed(Relaxation):
    """What both share: the relaxed sample, and its temperature."""

    anneals = True
    adjustable = frozenset({"start", "end"})

    def __init__(self, start: float, end: float) -> None:
        for name, value in {"start": start, "end": end}.items():
            if not value > 0:
                raise SettingError(f"{name}: above 0, got {value}")
        self.start, self.end = start, end

    def temperature(self, progress: float) -> float:
        """λ where so much of the search is done."""
        return self.start + (self.end - self.start) * progress

    def log_sample(self, logits: Tensor, present: Tensor, generator: torch.Generator, progress: float) -> Tensor:
        """The logarithm of ``softmax((logits + G) / λ)``, one G for every option; see :meth:`Relaxation.weights`."""
        exponential = torch.empty_like(logits).exponential_(generator=generator)
        gumbel = -exponential.clamp_min(torch.finfo(logits.dtype).tiny).log()  # a CPU may draw zero
        relaxed = (logits + gumbel) / self.temperature(progress)
        return relaxed.masked_fill(~present, -torch.inf).log_softmax(1)


class GumbelSoftmax(_Annealed):
    """Samples of the concrete distribution: every option runs, one of them more and more (SNAS).

    Args:
        start: the temperature in the first epoch, from which it changes linearly (SNAS 1).
        end: the temperature in the last epoch (SNAS .03).
    """

    def __init__(self, start: float = 1.0, end: float = 0.03) -> None:
        super().__init__(start, end)

    def weights(self, logits: Tensor, present: Tensor, generator: torch.Generator, progress: float) -> Tensor:
        return self.log_sample(logits, present, generator, progress).exp()

    def log_density(self, logits: Tensor, present: Tensor, log_weights: Tensor, progress: float) -> Tensor:
        """The log-density of a sample, ``(n_choices,)``, of the logarithms of its weights.

        Args:
            logits: what is learnt, ``(n_choices, most options)``.
            present: which entries are options, booleans shaped like ``logits``.
            log_weights: the logarithms of the weights, as :meth:`log_sample` draws them.
            progress: how much of the search is done, which decides the temperature.
        """
        temperature = torch.tensor(self.temperature(progress), device=logits.device)
        rows = zip(logits, log_weights, present.sum(1).tolist(), strict=True)
        densities = [
            ExpRelaxedCategorical(temperature, logits=row[:n], validate_args=False).log_prob(drawn[:n])
            for row, drawn, n in rows
        ]
        return torch.stack(densities)


class StraightThroughGumbel(_Annealed):
    """Only the drawn option runs, and its weight has the gradient of the relaxed sample (GDAS).

    Args:
        start: the temperature in the first epoch, from which it changes linearly (GDAS 10).
        end: the temperature in the last epoch (GDAS .1).
    """

    def __init__(self, start: float = 10.0, end: float = 0.1) -> None:
        super().__init__(start, end)

    def weights(self, logits: Tensor, present: Tensor, generator: torch.Generator, progress: float) -> Tensor:
        soft = self.log_sample(logits, present, generator, progress).exp()
        one_hot = torch.zeros_like(soft).scatter_(1, soft.argmax(1, keepdim=True), 1.0)
        return one_hot + (soft - soft.detach())  # in this order the values are 0 and 1 exactly
