"""The one place where gradients of a search are averaged over ranks, clipped and turned into a step."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from lightning.pytorch import Trainer
from torch import Tensor


def apply_gradients(
    trainer: Trainer,
    step: Callable[[], Any],
    parameters: Sequence[Tensor],
    gradients: Sequence[Tensor | None],
    clip: float | None = None,
) -> None:
    """Averages gradients over ranks, clips them together and takes a step.

    A parameter whose gradient is None on every rank is left alone, weight decay and momentum included.

    Args:
        trainer: the trainer, which knows the other ranks.
        step: takes the step of the optimiser of the parameters.
        parameters: what is trained, all on one device.
        gradients: a gradient of this rank for each parameter; None: it has none.
        clip: the largest norm of all gradients together; None: they are not clipped.
    """
    for parameter, gradient in zip(parameters, _averaged(trainer, parameters, gradients), strict=True):
        parameter.grad = gradient
    if clip is not None:
        torch.nn.utils.clip_grad_norm_(parameters, clip)
    step()
    for parameter in parameters:
        parameter.grad = None


def _averaged(
    trainer: Trainer, parameters: Sequence[Tensor], gradients: Sequence[Tensor | None]
) -> Sequence[Tensor | None]:
    if trainer.world_size == 1:
        return gradients
    reduce, device = trainer.strategy.reduce, parameters[0].device
    used = reduce(torch.tensor([g is not None for g in gradients], device=device).float(), reduce_op="sum")
    dense = [torch.zeros_like(p) if g is None else g for p, g in zip(parameters, gradients, strict=True)]
    flat = reduce(torch.cat([gradient.reshape(-1) for gradient in dense]), reduce_op="mean")
    parts = flat.split([gradient.numel() for gradient in dense])
    return [
        part.view_as(gradient) if n else None for part, gradient, n in zip(parts, dense, used.tolist(), strict=True)
    ]
