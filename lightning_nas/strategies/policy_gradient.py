"""REINFORCE (Williams 1992) over a policy: NAS-RL (Zoph and Le, ICLR 2017), and the baseline of NAS-Bench-201."""

import math
from collections.abc import Sequence
from typing import Any, Self

import torch

from lightning_nas.controllers import Controller, FactorizedController, Reinforce
from lightning_nas.errors import SettingError
from lightning_nas.seeding import derive_seed
from lightning_nas.spaces.base import Architecture, Space
from lightning_nas.strategies.base import Strategy, Trial
from lightning_nas.training.optimizers import Adam, Optimizer


class PolicyGradient(Strategy):
    """Draws architectures from a policy, and makes those more probable that score above a moving average.

    The loss is ``-mean(log p · (R − b)) − entropy_weight · entropy``. b is the moving average of the scores R before
    the trial's own, with the correction for its start that Adam's averages have.

    A trial that failed, or exceeds a limit, counts as the worst score of those that did not; until there is one,
    nothing is learnt from it.

    Differs from the released script of NAS-Bench-201 (1) and from NAS-RL (2):
    1. The baseline is subtracted before it moves, so that a score is not part of its own baseline.
    2. log p is that of the policy when the trial is told, not of the earlier one that drew it; with trials told one
       after the other these are the same.

    Args:
        controller: the policy's settings; None: :class:`~lightning_nas.controllers.FactorizedController`.
        optimizer: what trains the policy; None: Adam with the controller's usual rate, .1 for a
            :class:`~lightning_nas.controllers.FactorizedController` (NAS-Bench-201's script .5, at which policies
            settle too early), .01 for others. Its schedule has to be null: trials have no epochs.
        batch_size: trials told between two steps, whose gradients are averaged.
        baseline_decay: the decay of the moving average for each trial (NAS-Bench-201's script .9).
        entropy_weight: the weight of the policy's entropy, in units of the score per nat.

    Attributes:
        policy: as it is now.
    """

    def __init__(
        self,
        controller: Controller | None = None,
        optimizer: Optimizer | None = None,
        batch_size: int = 1,
        baseline_decay: float = 0.9,
        entropy_weight: float = 0.0,
    ) -> None:
        if batch_size < 1:
            raise SettingError(f"batch_size: at least 1, got {batch_size}")
        if not 0 <= baseline_decay < 1:
            raise SettingError(f"baseline_decay: from 0 to below 1, got {baseline_decay}")
        if not entropy_weight >= 0:
            raise SettingError(f"entropy_weight: 0 or more, got {entropy_weight}")
        self.controller = Controller.build(controller or FactorizedController(), "controller")
        self.optimizer = Optimizer.build(optimizer or Adam(self.controller.usual_lr), "optimizer")
        if self.optimizer.schedule is not None:
            raise SettingError("optimizer.schedule: null, since a search of trials has no epochs")
        self.batch_size = batch_size
        self.baseline_decay, self.entropy_weight = baseline_decay, entropy_weight

    def begin(self, space: Space, seed: int = 0) -> Self:
        super().begin(space, seed)
        self.policy = self.controller.policy(space, seed)
        self.reinforce = Reinforce(self.baseline_decay, self.entropy_weight, baseline=None, differentiate_entropy=True)
        self._stepper = self.optimizer.make(self.policy.parameters())
        self._batch: list[tuple[Architecture, float]] = []
        self._worst = math.inf
        return self

    @torch.no_grad()
    def propose(self, number: int) -> Architecture:
        generator = torch.Generator().manual_seed(derive_seed(self.seed, type(self).__name__, number))
        return self.policy.sample(1, generator).tuples()[0]

    def tell(self, trials: Sequence[Trial]) -> None:
        super().tell(trials)
        for trial in trials:
            if trial.feasible:
                self._worst = min(self._worst, trial.score)
            if self._worst < math.inf:
                self._batch.append((trial.architecture, trial.score if trial.feasible else self._worst))
            if len(self._batch) == self.batch_size:
                self._step()
                self._batch = []

    def snapshot(self) -> dict[str, Any]:
        return {
            "policy": self.policy.state_dict(),
            "optimizer": self._stepper.state_dict(),
            "reinforce": self.reinforce.state_dict(),
            "batch": [(list(architecture), score) for architecture, score in self._batch],
            "worst": self._worst,
        }

    def restore(self, snapshot: dict[str, Any]) -> None:
        self.policy.load_state_dict(snapshot["policy"])
        self._stepper.load_state_dict(snapshot["optimizer"])
        self.reinforce.load_state_dict(snapshot["reinforce"])
        self._batch = [(tuple(architecture), score) for architecture, score in snapshot["batch"]]
        self._worst = snapshot["worst"]

    def _step(self) -> None:
        architectures, scores = zip(*self._batch, strict=True)
        loss, _ = self.reinforce.update(self.policy.evaluate(torch.tensor(architectures)), torch.tensor(scores))
        self._stepper.zero_grad()
        loss.backward()
        if self.optimizer.clip is not None:
            torch.nn.utils.clip_grad_norm_(self.policy.parameters(), self.optimizer.clip)
        self._stepper.step()
