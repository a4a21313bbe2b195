"""Policy gradients over a policy: NAS-RL (Zoph and Le, ICLR 2017), the baseline of NAS-Bench-201, and NASNet's PPO."""

import math
from collections.abc import Sequence
from typing import Any, Self

import torch

from lightning_nas.controllers import Baseline, Controller, ControllerUpdate, FactorizedController, Reinforce
from lightning_nas.errors import SettingError
from lightning_nas.seeding import derive_seed
from lightning_nas.spaces.base import Architecture, Space
from lightning_nas.strategies.base import Strategy, Trial
from lightning_nas.training.optimizers import Adam, Optimizer


class PolicyGradient(Strategy):
    """Draws architectures from a policy, and makes those more probable that score above a moving average.

    A score R is a reward, and b the moving average of the scores before. With REINFORCE the loss is
    ``-mean(log p · (R − b)) − entropy_weight · entropy``. :class:`~lightning_nas.controllers.PPO` takes several steps
    on a batch of trials and compares p with that of the policy which drew a trial; one that was not asked for counts as
    if it were drawn when it is learnt from.

    A trial that failed, or exceeds a limit, counts as the worst score of those that did not; until there is one,
    nothing is learnt from it.

    Differs from the released script of NAS-Bench-201 (1) and from NAS-RL (2):
    1. The baseline is subtracted before it moves, so that a score is not part of its own baseline.
    2. REINFORCE's log p is that of the policy when the trial is told, not of the earlier one that drew it; with trials
       told one after the other these are the same.

    Args:
        controller: the policy's settings; None: :class:`~lightning_nas.controllers.FactorizedController`.
        optimizer: what trains the policy; None: Adam with the controller's usual rate, .1 for a
            :class:`~lightning_nas.controllers.FactorizedController` (NAS-Bench-201's script .5, at which policies
            settle too early), .01 for others. Its schedule has to be null: trials have no epochs.
        batch_size: trials told between two updates, whose gradients are averaged; None: 1 for REINFORCE, 20 for PPO
            (NASNet).
        update: how the policy learns from the scores of a batch; None: REINFORCE with a baseline that decays by .9 for
            each trial (NAS-Bench-201's script) and an entropy that has a gradient of its own, with weight 0.

    Attributes:
        policy: as it is now.
    """

    def __init__(
        self,
        controller: Controller | None = None,
        optimizer: Optimizer | None = None,
        batch_size: int | None = None,
        update: ControllerUpdate | None = None,
    ) -> None:
        if batch_size is not None and batch_size < 1:
            raise SettingError(f"batch_size: at least 1, or null, got {batch_size}")
        self.controller = Controller.build(controller or FactorizedController(), "controller")
        self.optimizer = Optimizer.build(optimizer or Adam(self.controller.usual_lr), "optimizer")
        if self.optimizer.schedule is not None:
            raise SettingError("optimizer.schedule: null, since a search of trials has no epochs")
        scripted = Reinforce(decay=0.9, differentiate_entropy=True)
        self.update = ControllerUpdate.build(update or scripted, "update")
        self.batch_size = batch_size or self.update.usual_batch_size

    def begin(self, space: Space, seed: int = 0) -> Self:
        super().begin(space, seed)
        self.policy = self.controller.policy(space, seed)
        self.baseline = Baseline(self.update.baseline).double()
        self._stepper = self.optimizer.make(self.policy.parameters())
        self._batch: list[tuple[Architecture, float, float]] = []
        self._log_probs: dict[int, float] = {}  # of trials not told yet, by number, under the policy that drew each
        self._worst = math.inf
        return self

    @torch.no_grad()
    def propose(self, number: int) -> Architecture:
        generator = torch.Generator().manual_seed(derive_seed(self.seed, type(self).__name__, number))
        sample = self.policy.sample(1, generator)
        self._log_probs[number] = sample.log_prob.item()
        return sample.tuples()[0]

    def tell(self, trials: Sequence[Trial]) -> None:
        super().tell(trials)
        for trial in trials:
            log_prob = self._log_probs.pop(trial.number, math.nan)
            if trial.feasible:
                self._worst = min(self._worst, trial.score)
            if self._worst < math.inf:
                score = trial.score if trial.feasible else self._worst
                self._batch.append((trial.architecture, score, log_prob))
            if len(self._batch) == self.batch_size:
                self._step()
                self._batch = []

    def snapshot(self) -> dict[str, Any]:
        return {
            "policy": self.policy.state_dict(),
            "optimizer": self._stepper.state_dict(),
            "baseline": self.baseline.state_dict(),
            "batch": [(list(architecture), score, log_prob) for architecture, score, log_prob in self._batch],
            "log_probs": dict(self._log_probs),
            "worst": self._worst,
        }

    def restore(self, snapshot: dict[str, Any]) -> None:
        self.policy.load_state_dict(snapshot["policy"])
        self._stepper.load_state_dict(snapshot["optimizer"])
        self.baseline.load_state_dict(snapshot["baseline"])
        self._batch = [(tuple(architecture), score, log_prob) for architecture, score, log_prob in snapshot["batch"]]
        self._log_probs = dict(snapshot["log_probs"])
        self._worst = snapshot["worst"]

    def _step(self) -> None:
        architectures, scores, log_probs = zip(*self._batch, strict=True)
        said, drawn = self.policy.evaluate(torch.tensor(architectures)), torch.tensor(log_probs)
        drawn = drawn.where(~drawn.isnan(), said.log_prob.detach())
        for loss, _ in self.update.losses(self.policy, said, torch.tensor(scores), self.baseline, drawn=drawn):
            self._stepper.zero_grad()
            loss.backward()
            if self.optimizer.clip is not None:
                torch.nn.utils.clip_grad_norm_(self.policy.parameters(), self.optimizer.clip)
            self._stepper.step()
