"""Which statistics BatchNorm uses. In a supernet the running averages belong to no single architecture."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm


def batch_norms(network: nn.Module) -> list[_BatchNorm]:
    """The BatchNorms of a network that keep running averages."""
    return [m for m in network.modules() if isinstance(m, _BatchNorm) and m.running_mean is not None]


@contextmanager
def batch_statistics(network: nn.Module) -> Iterator[None]:
    """Inside, BatchNorm normalises by the batch, in evaluation mode too, and leaves its buffers as they are."""
    norms = [(norm, norm.training) for norm in batch_norms(network) if norm.track_running_stats]
    for norm, _ in norms:
        norm.track_running_stats, norm.training = False, True
    try:
        yield
    finally:
        for norm, training in norms:
            norm.track_running_stats, norm.training = True, training


@contextmanager
def evaluating(network: nn.Module) -> Iterator[None]:
    """Inside, the network is in evaluation mode; afterwards every module is in the mode that it was in."""
    modes = {module: module.training for module in network.modules()}
    network.eval()
    try:
        yield
    finally:
        for module, training in modes.items():
            module.training = training


@contextmanager
def recalibrated(network: nn.Module, forward: Callable[[Any], Any], batches: Iterable[Any]) -> Iterator[None]:
    """Inside, the running averages are the plain means over ``batches`` under ``forward``; afterwards what they
    were. The network is in evaluation mode inside. ``forward`` runs the architecture in question on one batch.
    """
    norms = batch_norms(network)
    saved = [(norm.momentum, {name: buffer.clone() for name, buffer in norm.named_buffers()}) for norm in norms]
    try:
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None  # the cumulative mean
        with evaluating(network):
            network.train()
            with torch.no_grad():
                for batch in batches:
                    forward(batch)
            network.eval()
            yield
    finally:
        for norm, (momentum, buffers) in zip(norms, saved, strict=True):
            norm.momentum = momentum
            for name, buffer in norm.named_buffers():
                buffer.copy_(buffers[name])
