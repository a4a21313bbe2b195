"""BatchNorm whose result is weighted, and which statistics it uses.

In a supernet the running averages belong to no single architecture.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from lightning_nas.errors import SettingError


class BatchNorm(nn.BatchNorm2d):
    """``nn.BatchNorm2d`` that can multiply its result by a number in the same pass, forward and backward."""

    def forward(self, x: Tensor, weight: Tensor | None = None) -> Tensor:
        """Normalises ``(N, C, H, W)``; ``weight`` is a scalar, None: one.

        Where ``x`` has fewer channels than there are features, as in an elastic layer, the first features are used.

        Raises:
            SettingError: if it should normalise by a batch that has one value for each channel.
        """
        if self.training and x.shape[0] * x.shape[2] * x.shape[3] == 1:
            raise SettingError(
                "batch_size: BatchNorm cannot normalise a single image whose feature map is 1×1 by itself; take a size "
                "of 2 or more that leaves no image over alone, or larger images"
            )
        n_features = x.shape[1]
        if weight is None and n_features == self.num_features:
            return super().forward(x)
        scale, shift = _leading(self.weight, n_features), _leading(self.bias, n_features)
        mean, variance = _leading(self.running_mean, n_features), _leading(self.running_var, n_features)
        if weight is not None:
            # copies: a weight that is only expanded has a wrong gradient on a CPU (torch 2.15)
            scale = weight.repeat(n_features) if scale is None else weight * scale
            shift = None if shift is None else weight * shift
        momentum = self.momentum
        if self.training and self.track_running_stats:
            self.num_batches_tracked.add_(1)  # type: ignore[union-attr]
            if momentum is None:  # the cumulative mean
                momentum = 1 / float(self.num_batches_tracked)  # type: ignore[arg-type]
        elif self.training:
            mean = variance = None
        by_batch = self.training or mean is None
        return F.batch_norm(x, mean, variance, scale, shift, by_batch, momentum or 0.0, self.eps)


def _leading(values: Tensor | None, n: int) -> Tensor | None:
    return values if values is None or len(values) == n else values[:n]


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
            for norm, (momentum, _) in zip(norms, saved, strict=True):  # for copies that are made inside
                norm.momentum = momentum
            yield
    finally:
        for norm, (momentum, buffers) in zip(norms, saved, strict=True):
            norm.momentum = momentum
            for name, buffer in norm.named_buffers():
                buffer.copy_(buffers[name])
