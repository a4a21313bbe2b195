"""DARTS: Differentiable Architecture Search (Liu, Simonyan, Yang, ICLR 2019).

Every choice is a softmax over its options with weights ``alphas``. A step first moves the alphas downhill on a batch of
the architecture part, then the network's weights on a batch of the weights part.

Differs from the released code:
1. An architecture step leaves BatchNorm's running averages alone.
2. Pools and their BatchNorm are computed once per state (the same numbers).
3. The last, smaller batch of a pass is left out.
4. The losses of an architecture step have the task's regularisers too; there, those of recurrent cells have not.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from lightning_nas.errors import SettingError
from lightning_nas.methods.differentiable import DifferentiableMethod, Weights
from lightning_nas.operations.normalization import batch_statistics
from lightning_nas.relaxations import Relaxation, Softmax
from lightning_nas.relaxations.logits import gradient_of
from lightning_nas.spaces.base import Space
from lightning_nas.supernets.scoring import Statistics
from lightning_nas.tasks import Task
from lightning_nas.training.lr_schedules import Cosine
from lightning_nas.training.optimizers import SGD, Adam, Optimizer

Loss = Callable[[Weights], Tensor]
Order = Literal["first", "finite_difference", "exact"]


class DARTS(DifferentiableMethod):
    """Softmax-weighted operations, alphas and weights trained in turn.

    Example::

        import lightning.pytorch as pl
        from lightning_nas import DARTS, DARTSCell, Digits, ImageClassification

        data, search = Digits(), DARTS(DARTSCell(), ImageClassification(), {"channels": 4, "cells": 3}, order="first")
        pl.Trainer(max_epochs=6).fit(search, data)
        print(search.space.describe(search.best()))

    Args:
        space: the search space; any whose network takes weights as gates.
        task: what a batch costs and how it is scored.
        network: settings of the space's network by name, such as ``channels`` and ``cells``.
        inputs: what the network must know of the data; None: asked of the data module.
        seed: the seed of everything random in the search.
        bn: how BatchNorm normalises where random architectures are scored under the shared weights in the end.
        order: the order of the architecture gradient. ``first``: at the weights as they are. Both others differentiate
            through one step of the weights, ``finite_difference`` by the paper's approximation, ``exact`` by automatic
            differentiation (several times slower).
        warmup_epochs: at the start, in which only weights are trained (paper: 0).
        optimizer: what trains the weights; None: SGD from .025 by a cosine to .001, momentum .9, weight decay 3e-4,
            clipped at 5 (released code).
        unrolled_clip: the largest norm of both gradients within the step that second order differentiates through
            (released code: recurrent cells .25, image cells None).
        alphas_optimizer: what trains the alphas; None: Adam with rate 3e-4, betas .5 and .999, weight decay 1e-3
            (released code).
        relaxation: how the weights of a choice's options come from its alphas; None:
            :class:`~lightning_nas.relaxations.Softmax` (paper).
    """

    adjustable = DifferentiableMethod.adjustable | {"order", "warmup_epochs", "unrolled_clip"}

    def __init__(
        self,
        space: Space,
        task: Task,
        network: dict[str, Any] | None = None,
        inputs: dict[str, int] | None = None,
        seed: int = 0,
        bn: Statistics = "recalibrate",
        order: Order = "finite_difference",
        warmup_epochs: int = 0,
        optimizer: Optimizer | None = None,
        unrolled_clip: float | None = None,
        alphas_optimizer: Optimizer | None = None,
        relaxation: Relaxation | None = None,
    ) -> None:
        super().__init__(
            space,
            task,
            network,
            inputs,
            seed,
            bn,
            relaxation or Softmax(),
            optimizer or SGD(0.025, momentum=0.9, weight_decay=3e-4, schedule=Cosine(0.001), clip=5.0),
            alphas_optimizer or Adam(3e-4, betas=(0.5, 0.999), weight_decay=1e-3),
        )
        if order not in get_args(Order):
            raise SettingError(f"order: {', '.join(get_args(Order)[:-1])} or {get_args(Order)[-1]}, got {order!r}")
        if order == "exact" and self.network_settings.get("compile"):
            raise SettingError(
                "network.compile: compiled code cannot be differentiated twice, as order: exact does; set "
                "it to false, or the order to finite_difference"
            )
        plain = isinstance(self.optimizer, SGD) and not self.optimizer.nesterov and self.optimizer.decay_vectors
        if order != "first" and not plain:
            raise SettingError(
                "optimizer: second order differentiates through a step of SGD without nesterov, with decay_vectors; or "
                "set order to first"
            )
        self.order = order
        self.warmup_epochs = warmup_epochs
        self.unrolled_clip = unrolled_clip

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        if self.epoch >= self.warmup_epochs:
            self.step_alphas(batch, batch_idx)
        super().training_step(batch, batch_idx)

    def architecture_gradient(self, batch: dict[str, Any], batch_idx: int) -> tuple[Tensor, Tensor]:
        """Loss on the architecture batch and its gradient with respect to the alphas; no state of the network moves."""
        if self.order == "first":
            return super().architecture_gradient(batch, batch_idx)
        weights = dict(self.network.named_parameters())
        optimizer = self.optimizers()[0]  # type: ignore[index]
        (settings,) = optimizer.param_groups
        with batch_statistics(self.network):
            return unrolled_gradient(
                partial(self.loss_at, batch=batch, stream="weights", batch_idx=batch_idx),
                partial(self.loss_at, batch=batch, stream="architecture", batch_idx=batch_idx),
                weights,
                self.alphas,
                lr=settings["lr"],
                weight_decay=settings["weight_decay"],
                velocity={
                    name: settings["momentum"] * optimizer.state[weight]["momentum_buffer"]
                    for name, weight in weights.items()
                    if optimizer.state.get(weight, {}).get("momentum_buffer") is not None
                },
                exact=self.order == "exact",
                clip=self.unrolled_clip,
            )


def unrolled_gradient(
    train_loss: Loss,
    valid_loss: Loss,
    weights: Weights,
    alphas: Tensor,
    lr: float,
    weight_decay: float,
    velocity: Weights,
    exact: bool,
    clip: float | None = None,
) -> tuple[Tensor, Tensor]:
    """The gradient of ``L_val(w′(α), α)`` with respect to α, ``w′ = w − ξ (µ v + ∇_w L_train(w, α) + λ w)``
    (paper, equations 6 to 8; momentum and weight decay as in the released code).

    Both losses depend on α through their closure. With ``g = ∇_{w′} L_val(w′, α)`` the gradient is
    ``∇_α L_val(w′, α) − ξ ∇²_{α,w} L_train(w, α) g``. The second term is either exact, or the central difference
    ``[∇_α L_train(w + ε g) − ∇_α L_train(w − ε g)] / 2ε`` with ``ε = 0.01 / ‖g‖`` (where the paper's text has α in the
    norm, its code has w′).

    Args:
        train_loss, valid_loss: the loss at given weights.
        weights: the network's weights w by their names.
        alphas: the architecture parameters α.
        lr: the learning rate ξ of the inner step.
        weight_decay: the weight decay λ of the inner step.
        velocity: µ v by name; where a name is missing it is zero.
        exact: by automatic differentiation instead of finite differences.
        clip: the largest norm of ``∇_w L_train``, before the weight decay, and of g; None: not clipped. The factor κ by
            which the former is shortened is taken as a constant, and multiplies the implicit term (released code of
            recurrent cells).

    Returns:
        ``L_val(w′, α)`` and the gradient, shaped like ``alphas``.
    """
    names, values = list(weights), list(weights.values())
    loss = train_loss(weights)
    gradients = torch.autograd.grad(loss, values, create_graph=exact, allow_unused=True)
    used = [name for name, gradient in zip(names, gradients, strict=True) if gradient is not None]
    gradients = tuple(gradient for gradient in gradients if gradient is not None)

    shortened = shortening(gradients, clip)
    unrolled = {name: weight.detach() for name, weight in weights.items()}
    with torch.no_grad():
        for name, gradient in zip(used, gradients, strict=True):
            step = shortened * gradient + weight_decay * weights[name]
            unrolled[name] = weights[name] - lr * (step + velocity[name] if name in velocity else step)
    for name in used:
        unrolled[name].requires_grad_()
    value = valid_loss(unrolled)
    direct, *direction = torch.autograd.grad(value, [alphas, *(unrolled[n] for n in used)], materialize_grads=True)
    factor = shortening(direction, clip)
    direction = [factor * gradient for gradient in direction]

    if exact:
        (implicit,) = torch.autograd.grad(gradients, alphas, grad_outputs=direction, materialize_grads=True)
    else:
        implicit = finite_difference(train_loss, weights, alphas, dict(zip(used, direction, strict=True)))
    return value.detach(), direct - lr * shortened * implicit


def shortening(gradients: Sequence[Tensor], clip: float | None) -> Tensor | float:
    """The factor, at most 1, by which gradients are multiplied so that their norm is at most ``clip``."""
    if clip is None:
        return 1.0
    norm = torch.linalg.vector_norm(torch.stack([torch.linalg.vector_norm(g.detach()) for g in gradients]))
    return (clip / (norm + 1e-6)).clamp(max=1.0)


def finite_difference(loss: Loss, weights: Weights, alphas: Tensor, direction: Weights, scale: float = 0.01) -> Tensor:
    """``∇²_{α,w} L · direction`` by a central difference of half-width ``ε = scale / ‖direction‖``."""
    epsilon = scale / torch.linalg.vector_norm(torch.stack([torch.linalg.vector_norm(g) for g in direction.values()]))
    gradients = []
    for sign in (1, -1):
        with torch.no_grad():
            moved = {n: w + sign * epsilon * direction[n] if n in direction else w for n, w in weights.items()}
        gradients.append(gradient_of(loss(moved), alphas))
    return (gradients[0] - gradients[1]) / (2 * epsilon)
