"""The logits of all choices of a space in one matrix, ``(n_choices, most options)``."""

from collections.abc import Sequence

import torch
from torch import Tensor

from lightning_nas.spaces.base import Choice, Gates


def drawn_logits(choices: Sequence[Choice], mean: float, deviation: float, seed: int) -> Tensor:
    """The logits that a search begins with, from a normal distribution.

    Args:
        choices: the choices of the space in their order.
        mean: the mean of the distribution.
        deviation: the standard deviation of the distribution.
        seed: the seed of the generator that draws.
    """
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randn(len(choices), _most_options(choices), generator=generator)
    return mean + deviation * drawn


def present_options(choices: Sequence[Choice]) -> Tensor:
    """Which entries of the matrix are options, since choices have different numbers of them."""
    widest = _most_options(choices)
    return torch.tensor([[option < len(choice.options) for option in range(widest)] for choice in choices])


def by_choice(choices: Sequence[Choice], weights: Tensor) -> Gates:
    """The rows of a matrix of weights as gates.

    Args:
        choices: the choices of the space in their order.
        weights: a weight for every entry, ``(n_choices, most options)``.
    """
    return {choice.name: row[: len(choice.options)] for choice, row in zip(choices, weights, strict=True)}


def gradient_of(loss: Tensor, alphas: Tensor) -> Tensor:
    """The gradient with respect to the alphas; zero where a loss does not depend on them, since nothing that they
    weigh has run."""
    if not loss.requires_grad:
        return torch.zeros_like(alphas)
    (gradient,) = torch.autograd.grad(loss, alphas, materialize_grads=True)
    return gradient


def _most_options(choices: Sequence[Choice]) -> int:
    return max(len(choice.options) for choice in choices)
