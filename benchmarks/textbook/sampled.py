"""The steps of SNAS (Xie et al. 2019, without its cost) and of GDAS (Dong and Yang 2019) on a search network.

Either is given the Gumbel noise of the step, for each kind of cell.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.textbook.darts_cnn import MixedOperation, SearchNetwork

Noise = dict[str, Tensor]
Batch = tuple[Tensor, Tensor]


class Sampled:
    """What both share: two optimisers, and the relaxed sample."""

    def __init__(self, model: SearchNetwork, temperature: float, optimizer: torch.optim.Optimizer) -> None:
        self.model, self.temperature, self.optimizer = model, temperature, optimizer
        self.alphas = list(model.alphas.values())
        self.alphas_optimizer = torch.optim.Adam(self.alphas, 3e-4, (0.5, 0.999), weight_decay=1e-3)

    def relaxed(self, noise: Noise) -> dict[str, Tensor]:
        return {
            kind: F.softmax((alphas + noise[kind]) / self.temperature, dim=-1)
            for kind, alphas in self.model.alphas.items()
        }

    def loss(self, batch: Batch, weights: dict[str, Tensor]) -> Tensor:
        images, labels = batch
        return F.cross_entropy(self.model(images, weights=weights), labels)


class SNAS(Sampled):
    """Weights and alphas go downhill on the same loss."""

    def step(self, training: Batch, noise: Noise) -> Tensor:
        self.optimizer.zero_grad()
        self.alphas_optimizer.zero_grad()
        loss = self.loss(training, self.relaxed(noise))
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.weights(), 5.0)
        nn.utils.clip_grad_norm_(self.alphas, 10.0)
        self.optimizer.step()
        self.alphas_optimizer.step()
        return loss.detach()


class GDAS(Sampled):
    """First the weights on a training batch, then the alphas on a validation batch; the drawn operation runs alone."""

    def __init__(self, model: SearchNetwork, temperature: float, optimizer: torch.optim.Optimizer) -> None:
        super().__init__(model, temperature, optimizer)
        for module in model.modules():
            if isinstance(module, MixedOperation):
                module.only_strongest = True

    def straight_through(self, noise: Noise) -> dict[str, Tensor]:
        weights = {}
        for kind, soft in self.relaxed(noise).items():
            one_hot = torch.zeros_like(soft).scatter_(-1, soft.argmax(-1, keepdim=True), 1.0)
            weights[kind] = one_hot - soft.detach() + soft
        return weights

    def step(self, training: Batch, validation: Batch, noise: Noise, other_noise: Noise) -> tuple[Tensor, Tensor]:
        """Loss of the weights' step and of the alphas' step."""
        self.optimizer.zero_grad()
        loss = self.loss(training, self.straight_through(noise))
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.weights(), 5.0)
        self.optimizer.step()

        self.alphas_optimizer.zero_grad()
        architecture_loss = self.loss(validation, self.straight_through(other_noise))
        architecture_loss.backward()
        self.alphas_optimizer.step()
        return loss.detach(), architecture_loss.detach()
