"""SynFlow (Tanaka, Kunin, Yamins, Ganguli, NeurIPS 2020) as a score of architectures (Abdelfattah, Mehrotra, Dudziak,
Lane, ICLR 2021)."""

import copy
import math
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from lightning_nas.measures.base import Measure
from lightning_nas.spaces.base import Network

if TYPE_CHECKING:
    from lightning_nas.data import DataModule


class SynFlow(Measure):
    """How much the weights of a network carry from its input to its output, whatever the data.

    All weights are replaced by their absolute values, BatchNorm is left out and the input is ones. With R the sum of
    the outputs, the figure is ``log Σ |w · ∂R/∂w|`` over the weights of convolutions and linear layers, in float64.
    """

    name = "synflow"

    def __call__(self, network: Network, data: "DataModule | None", seed: int) -> float:
        example = torch.ones_like(network.example())
        flow = copy.deepcopy(network).double().eval()
        with torch.no_grad():
            for parameter in flow.parameters():
                parameter.abs_()
        for module in flow.modules():
            if isinstance(module, _BatchNorm):
                module.forward = _as_it_is  # type: ignore[method-assign,assignment]  # of the copy alone
        weights = [parameter for parameter in flow.parameters() if parameter.dim() > 1]
        total = flow(example.to(weights[0].device, torch.float64)).sum()
        gradients = torch.autograd.grad(total, weights, allow_unused=True)
        products = [(w * g).abs().sum() for w, g in zip(weights, gradients, strict=True) if g is not None]
        value = torch.stack(products).sum().detach().log().item()
        return value if math.isfinite(value) else math.nan


def _as_it_is(x: Tensor, weight: Any = None) -> Tensor:
    return x if weight is None else weight * x
