"""DARTS's two steps in turn (Liu, Simonyan, Yang, ICLR 2019, algorithm 1), the alphas' first."""

import copy
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

Loss = Callable[[nn.Module, Any], Tensor]
"""From a model and a batch to the loss."""


class Bilevel:
    """Updates the alphas on a validation batch and the weights on a training batch.

    Args:
        model: with ``weights()``, a list of parameters, and ``alphas``, a dictionary of them.
        loss: of a model on a batch.
        second_order: whether the alphas' gradient goes through a step of the weights.
        unrolled_clip: largest norm of the gradients in that step (released code of recurrent cells).
        others: of SGD on the weights and of Adam on the alphas; by default those for convolutional cells.
    """

    def __init__(
        self,
        model: nn.Module,
        loss: Loss,
        second_order: bool,
        lr: float = 0.025,
        momentum: float = 0.9,
        weight_decay: float = 3e-4,
        clip: float = 5.0,
        unrolled_clip: float | None = None,
        alphas_lr: float = 3e-4,
        alphas_betas: tuple[float, float] = (0.5, 0.999),
        alphas_weight_decay: float = 1e-3,
    ) -> None:
        self.model, self.loss, self.second_order = model, loss, second_order
        self.lr, self.momentum, self.weight_decay = lr, momentum, weight_decay
        self.clip, self.unrolled_clip = clip, unrolled_clip
        self.weights, self.alphas = list(model.weights()), list(model.alphas.values())
        self.optimizer = torch.optim.SGD(self.weights, lr, momentum=momentum, weight_decay=weight_decay)
        self.alphas_optimizer = torch.optim.Adam(self.alphas, alphas_lr, alphas_betas, weight_decay=alphas_weight_decay)

    def step(self, training: Any, validation: Any) -> tuple[Tensor, Tensor]:
        """Loss of the alphas' step and of the weights' step."""
        self.alphas_optimizer.zero_grad()
        architecture_loss = self.unrolled(training, validation) if self.second_order else self.direct(validation)
        self.alphas_optimizer.step()

        self.optimizer.zero_grad()
        loss = self.loss(self.model, training)
        loss.backward()
        nn.utils.clip_grad_norm_(self.weights, self.clip)
        self.optimizer.step()
        return architecture_loss, loss.detach()

    def direct(self, validation: Any) -> Tensor:
        loss = self.loss(self.model, validation)
        loss.backward()
        return loss.detach()

    def unrolled(self, training: Any, validation: Any) -> Tensor:
        unrolled, shortened = self.one_step_ahead(training)
        loss = self.loss(unrolled, validation)
        loss.backward()
        self.shorten([weight.grad for weight in unrolled.weights()])
        vector = [weight.grad for weight in unrolled.weights()]
        implicit = self.hessian_vector_product(vector, training)
        for alpha, ahead, product in zip(self.alphas, unrolled.alphas.values(), implicit, strict=True):
            alpha.grad = ahead.grad - self.lr * shortened * product
        return loss.detach()

    def one_step_ahead(self, training: Any) -> tuple[nn.Module, float]:
        """A copy of the model after one step of SGD, and the factor by which its gradient was clipped."""
        loss = self.loss(self.model, training)
        gradients = torch.autograd.grad(loss, self.weights)
        shortened = self.shorten(gradients)
        unrolled = copy.deepcopy(self.model)
        with torch.no_grad():
            for weight, ahead, gradient in zip(self.weights, unrolled.weights(), gradients, strict=True):
                step = gradient + self.weight_decay * weight
                if "momentum_buffer" in self.optimizer.state[weight]:
                    step = step + self.momentum * self.optimizer.state[weight]["momentum_buffer"]
                ahead.copy_(weight - self.lr * step)
        unrolled.zero_grad()
        return unrolled, shortened

    def shorten(self, gradients: Sequence[Tensor]) -> float:
        """Clips gradients in place to ``unrolled_clip``; the factor."""
        if self.unrolled_clip is None:
            return 1.0
        norm = torch.cat([gradient.reshape(-1) for gradient in gradients]).norm()
        factor = min(1.0, float(self.unrolled_clip / (norm + 1e-6)))
        for gradient in gradients:
            gradient.mul_(factor)
        return factor

    def hessian_vector_product(self, vector: list[Tensor], training: Any, radius: float = 0.01) -> list[Tensor]:
        """The mixed second derivative times ``vector``, by a finite difference."""
        epsilon = radius / torch.cat([part.reshape(-1) for part in vector]).norm()
        plus = self.alphas_gradient_at(vector, epsilon, training)
        minus = self.alphas_gradient_at(vector, -epsilon, training)
        return [(a - b) / (2 * epsilon) for a, b in zip(plus, minus, strict=True)]

    def alphas_gradient_at(self, vector: list[Tensor], distance: Tensor, training: Any) -> tuple[Tensor, ...]:
        """The alphas' gradient of the training loss, the weights moved along ``vector`` meanwhile."""
        before = [weight.detach().clone() for weight in self.weights]
        with torch.no_grad():
            for weight, part in zip(self.weights, vector, strict=True):
                weight.add_(distance * part)
        gradients = torch.autograd.grad(self.loss(self.model, training), self.alphas)
        with torch.no_grad():
            for weight, value in zip(self.weights, before, strict=True):
                weight.copy_(value)
        return gradients
