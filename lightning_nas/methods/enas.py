"""ENAS: Efficient Neural Architecture Search via Parameter Sharing (Pham, Guan, Zoph, Le, Dean, ICML 2018).

An epoch has two phases. First a pass over the weights part: every step trains the shared weights on paths that the
controller draws. Then steps of the controller by REINFORCE, or by another update: an architecture's reward is its score
on a batch of the architecture part under the shared weights.

Differs from the released code:
1. The gradient is clipped; there, the clipped one is thrown away. The auxiliary head is trained; there, it is not.
   Drop-path acts in macro networks; there, it is accepted and ignored.
2. The baseline is subtracted before it moves, and entropies are of the whole distribution.
3. All architectures of a controller's step are scored on the same batch, and the baseline moves once for all of them.
4. The controller starts uniform over architectures (:class:`~lightning_nas.controllers.Controller`).
5. Rewards are always by the batch's statistics of BatchNorm; there, those of macro networks are by running averages.
6. Candidates are scored with BatchNorm recalibrated for each; ``bn: batch`` normalises by the batch.
7. Weight decay is torch's, half of what the same number does there, and spares the weights that a step does not use.
"""

from collections.abc import Sequence
from functools import partial
from itertools import count
from typing import Any

import torch
from torch import Tensor

from lightning_nas.controllers import Baseline, Controller, ControllerUpdate, LSTMController, Reinforce
from lightning_nas.data import AnyData, DataModule, Schedule
from lightning_nas.errors import SettingError
from lightning_nas.methods.sampling import SamplingMethod
from lightning_nas.objectives import Objective
from lightning_nas.operations.normalization import batch_statistics, evaluating
from lightning_nas.seeding import derive_seed
from lightning_nas.spaces.base import Architecture, Space
from lightning_nas.supernets.limits import Limits
from lightning_nas.supernets.scoring import Scorer, Statistics
from lightning_nas.tasks import Task
from lightning_nas.training.lr_schedules import CosineRestarts
from lightning_nas.training.optimizers import SGD, Adam, Optimizer


class ENAS(SamplingMethod):
    """A controller that draws paths, and shared weights, trained in turn.

    Example::

        import lightning.pytorch as pl
        from lightning_nas import Digits, ENAS, ImageClassification, NASBench201

        data, search = Digits(), ENAS(NASBench201(), ImageClassification(), {"channels": 4, "cells": 1})
        pl.Trainer(max_epochs=6).fit(search, data)
        architecture, scores = search.choose(data)
        print(search.space.describe(architecture))

    Args:
        space: the space that is searched.
        task: what a batch costs and how it is scored and rewarded.
        network: settings of the space's network by name, such as ``channels``.
        inputs: what the network must know of the data; None: asked of the data module.
        seed: the seed of everything random in the search.
        bn: how BatchNorm normalises where candidates are scored in the end: ``recalibrate`` on training images, or
            ``batch``. Rewards during the search are always by the batch.
        controller: the policy's settings; None: :class:`~lightning_nas.controllers.LSTMController` with its defaults.
        models_per_step: M, paths whose gradients a step of the weights averages.
        controller_steps: S, steps of the controller in an epoch (released code: micro 30, macro 50).
        samples_per_step: architectures that a step of the controller draws (released code: micro 10, macro 20).
        update: how the controller learns from the rewards of a step; None: REINFORCE with a baseline that decays by .99
            for each architecture and starts at 0, and entropy with weight 1e-4 in the reward (released code).
        skip_weight: the weight of the divergence of skips from the controller's ``skip_target`` (macro .8).
        controller_optimizer: what trains the controller; None: Adam with rate .0035, betas 0 and .999, eps 1e-3
            (released code, micro; macro .001). With rate 0 it stays untrained.
        optimizer: what trains the weights; None: SGD with Nesterov's momentum .9 and weight decay 1e-4, clipped at 5,
            its rate by cosines from .05 to .0005 that start again after 10, 30, 70, … epochs (released code).
        drop_path: the probability to drop a path in the last cell at the end of the search; it grows from zero with the
            steps and the cell's depth.
        n_candidates: architectures drawn in the end, each scored on the same batch; the best is returned.
    """

    adjustable = SamplingMethod.adjustable | {
        "models_per_step",
        "samples_per_step",
        "skip_weight",
        "drop_path",
        "n_candidates",
    }
    remedy = "lower the lr of optimizer or controller_optimizer, or set the optimizer's clip"

    def __init__(
        self,
        space: Space,
        task: Task,
        network: dict[str, Any] | None = None,
        inputs: dict[str, int] | None = None,
        seed: int = 0,
        bn: Statistics = "recalibrate",
        controller: Controller | None = None,
        models_per_step: int = 1,
        controller_steps: int = 30,
        samples_per_step: int = 10,
        update: ControllerUpdate | None = None,
        skip_weight: float = 0.0,
        controller_optimizer: Optimizer | None = None,
        optimizer: Optimizer | None = None,
        drop_path: float = 0.0,
        n_candidates: int = 10,
    ) -> None:
        super().__init__(space, task, network, inputs, seed, bn)
        at_least_one = {
            "models_per_step": models_per_step,
            "controller_steps": controller_steps,
            "samples_per_step": samples_per_step,
            "n_candidates": n_candidates,
        }
        for name, number in at_least_one.items():
            if number < 1:
                raise SettingError(f"{name}: at least 1, got {number}")
        if not 0 <= drop_path < 1:
            raise SettingError(f"drop_path: from 0 to below 1, got {drop_path}")
        self.policy = Controller.build(controller or LSTMController(), "controller").policy(self.space, seed)
        if skip_weight and not self.policy.skips:
            raise SettingError(f"skip_weight: {type(self.space).__name__} has no skips, got {skip_weight}")
        released = Reinforce(entropy_weight=1e-4, baseline=0.0)
        self.update = ControllerUpdate.build(update or released, "update")
        self.record("update", self.update)
        self.baseline = Baseline(self.update.baseline)
        self.models_per_step, self.controller_steps = models_per_step, controller_steps
        self.samples_per_step, self.skip_weight = samples_per_step, skip_weight
        self.controller_optimizer = self.recorded(
            "controller_optimizer", controller_optimizer or Adam(0.0035, betas=(0.0, 0.999), eps=1e-3)
        )
        restarts = CosineRestarts(0.0005)
        self.optimizer = self.recorded(
            "optimizer",
            optimizer or SGD(0.05, momentum=0.9, nesterov=True, weight_decay=1e-4, schedule=restarts, clip=5.0),
        )
        self.drop_path = drop_path
        self.n_candidates = n_candidates

    def schedule(self, data: DataModule) -> Schedule:
        """A whole pass over the weights part, then ``controller_steps`` batches of the architecture part.

        Where the trainer's ``limit_train_batches`` cuts an epoch short, both phases are as much shorter; either has a
        step unless there is just one.
        """
        streams = {part: self.stream(data, part) for part in ("weights", "architecture")}
        length = len(streams["weights"]) + self.controller_steps
        limit: int | float = self.trainer.limit_train_batches
        total = min(length, limit) if isinstance(limit, int) else int(length * limit)
        self.n_weights_steps = max(1, min(round(len(streams["weights"]) * total / length), total - 1))
        n_controller_steps = max(1, total - self.n_weights_steps)

        def plan(epoch: int, step: int) -> dict[str, int]:
            if step < self.n_weights_steps:
                return {"weights": epoch * self.n_weights_steps + step}
            return {"architecture": epoch * n_controller_steps + step - self.n_weights_steps}

        return Schedule(streams, length, self.position, plan, data.num_workers)

    @property
    def figures(self) -> list[str]:
        of_controller = ["loss", "reward", "entropy", "baseline", *(["skip_kl"] if self.skip_weight else [])]
        return [*super().figures, "phase", *(f"controller/{name}" for name in of_controller)]

    # -- the two phases ----------------------------------------------------------------------------------------------

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        weights_optimizer, controller_optimizer = self.optimizers()  # type: ignore[attr-defined]
        (stream,) = batch
        self.log("phase", 1.0 if stream == "weights" else 2.0, prog_bar=True)
        if batch_idx in (0, self.n_weights_steps):
            self.carries.pop(stream, None)  # hidden states of weights and architectures that are gone
        if "weights" in batch:
            with torch.no_grad():
                drawn = self.policy.sample(self.models_per_step, self._generator("weights", batch_idx)).tuples()
            gates = [self.space.gates(architecture) for architecture in drawn]
            self.step_weights(
                weights_optimizer,
                batch["weights"],
                *gates,
                network=self.dropping_paths(batch_idx / self.n_weights_steps),
            )
        else:
            self._step_controller(controller_optimizer, batch["architecture"], batch_idx)
            self.log_train_metrics()

    def _step_controller(self, optimizer: Any, batch: Any, batch_idx: int) -> None:
        sample = self.policy.sample(self.samples_per_step, self._generator("controller", batch_idx))
        rewards = self.rewards(sample.tuples(), batch)
        self.log("controller/reward", rewards.mean(), prog_bar=True)
        self.log("controller/baseline", self.baseline.value)
        parameters = list(self.policy.parameters())
        losses = self.update.losses(self.policy, sample, rewards, self.baseline, self.trainer.strategy.reduce)
        for number, (loss, said) in enumerate(losses, start=1):
            if self.skip_weight:
                loss = loss + self.skip_weight * said.skip_kl.mean()
            gradients = torch.autograd.grad(loss, parameters, allow_unused=True)
            counted = number == self.update.passes  # the trainer counts batches
            self.apply_gradients(optimizer, parameters, gradients, self.controller_optimizer.clip, counted)
        self.log("controller/loss", loss)  # figures of the last pass
        self.log("controller/entropy", said.entropies.sum(1).mean())
        if self.skip_weight:
            self.log("controller/skip_kl", said.skip_kl.mean())

    @torch.no_grad()
    def rewards(self, architectures: Sequence[Architecture], batch: Any) -> Tensor:
        """The task's rewards of architectures on one batch, ``(n,)``, BatchNorm by the batch; the network stays as it
        is. All continue from the same hidden state, and the next batch from that of the first."""
        forwards = [partial(self.network, gates=self.space.gates(architecture)) for architecture in architectures]
        # evaluating: no dropout, no drop-path, no auxiliary head
        with evaluating(self.network), batch_statistics(self.network):
            given = self.carries.get("architecture")
            reward = partial(self.task.reward, batch=batch, carry=given, **self.task_modules)
            rewards, carries = zip(*map(reward, forwards), strict=True)
        self.carries["architecture"] = carries[0]
        return torch.stack(rewards)

    def _generator(self, purpose: str, *numbers: int) -> torch.Generator:
        """Every rank draws architectures of its own."""
        seed = derive_seed(self.seed, "architecture", purpose, self.current_epoch, *numbers, self.global_rank)
        return torch.Generator(self.device).manual_seed(seed)

    # -- what the search says ----------------------------------------------------------------------------------------

    @torch.no_grad()
    def draw(self, *purpose: int | str) -> Architecture:
        generator = torch.Generator(self.device).manual_seed(derive_seed(self.seed, "architecture", *purpose))
        return self.policy.sample(1, generator).tuples()[0]

    def best(self) -> Architecture:
        """The architecture that takes the controller's most probable option at every step."""
        return self.policy.best()

    def choose(
        self,
        data: AnyData,
        *,
        candidates: Sequence[Architecture] | None = None,
        limits: Sequence[str | Objective] | Limits = (),
    ) -> tuple[Architecture, dict[Architecture, float]]:
        """The best of ``n_candidates`` architectures of the controller, or of those given, on one batch.

        Under limits the controller draws until so many keep them.
        """
        if candidates is None:
            draws, limits = map(partial(self.draw, "candidate"), count()), Limits.of(self, limits)
            candidates = [limits.draw(partial(next, draws)) for _ in range(self.n_candidates)]
        ranked = Scorer.of(self, data, n_batches=1).rank(candidates, "Candidates")
        return next(iter(ranked)), ranked

    def configure_optimizers(self) -> Any:
        return self.optimized((self.optimizer, self.trained), (self.controller_optimizer, self.policy.parameters()))
