"""A policy without memory: a softmax for each choice, as NAS-Bench-201 has it (Dong and Yang, ICLR 2020)."""

import torch
from torch import nn

from lightning_nas.controllers.base import Controller, Decide, Policy, Sample
from lightning_nas.seeding import derive_seed
from lightning_nas.spaces.base import Space

DEVIATION = 1e-3
"""Of the logits at the start (released code)."""


class FactorizedController(Controller):
    """Policies that decide each choice by a softmax of its own, whatever was chosen before.

    A logit is ``x + log(n)``: x is learnt and starts at 1e-3 times a normal number, n is the number of legal
    architectures that continue with the option. So choices are independent but for the space's rule.

    Args:
        skip_target: the share of skips that a regulariser pulls towards.
    """

    usual_lr = 0.1

    def __init__(self, skip_target: float = 0.4) -> None:
        super().__init__(temperature=None, tanh_constant=None, skip_target=skip_target)

    def policy(self, space: Space, seed: int = 0) -> "FactorizedPolicy":
        generator = torch.Generator().manual_seed(derive_seed(seed, "controller"))
        return FactorizedPolicy(space, self, generator)


class FactorizedPolicy(Policy):
    """A distribution over the architectures of a space in which choices depend on each other by the rule alone.

    It says what every policy says (:class:`~lightning_nas.controllers.Sample`); its hidden states are the logits, so
    they are the same for all architectures.

    Args:
        space: whose architectures; the logits fit no other space.
        controller: the settings by which the policy is made.
        generator: draws the logits at the start.

    Attributes:
        start: the logits x of all options, choice after choice, ``(n_options of all choices,)``.
    """

    def __init__(self, space: Space, controller: FactorizedController, generator: torch.Generator) -> None:
        nn.Module.__init__(self)  # a policy's own is for one that has a sequence model
        self.choices, self.controller = space.choices, controller
        self.step_of = {k: k for k in range(len(space.choices))}
        self.n_options = [len(choice.options) for choice in space.choices]
        self.start = nn.Parameter(DEVIATION * torch.randn(sum(self.n_options), generator=generator))
        self._compile(space)

    def _walk(self, n: int, decide: Decide) -> Sample:
        row = torch.zeros(n, dtype=torch.long, device=self.start.device)  # of the tables, for each sample
        logits, taken = [], []
        for k, x in enumerate(self.start.split(self.n_options)):
            logits.append(x + self.prior[row, : len(x)])
            taken.append(decide(k, logits[-1]))
            row = self.next[row, taken[-1]]
        missing = self.start.new_zeros(1)  # where a choice has fewer options than another
        hidden = torch.cat([self.start, missing])[self.columns].expand(n, -1, -1)
        return self._sample(torch.stack(taken, 1), logits, hidden)
