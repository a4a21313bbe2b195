"""What a network costs: parameters, FLOPs, activations and latency."""

import contextlib
import dataclasses
import math
import statistics
import time
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from lightning_nas.operations.normalization import evaluating

_WARM_UP = 10


@dataclasses.dataclass(frozen=True)
class Profile:
    """The costs of one network.

    Attributes:
        n_params: parameters without the auxiliary head, as the field reports them.
        n_params_auxiliary: parameters of the auxiliary head, which is used in training only.
        flops: the FLOPs of one example's forward pass; a multiply-add is 2 FLOPs.
        activations: elements that convolutions and linear layers put out for one example.
        latency: median milliseconds of one batch's forward pass; None: not measured.
        latency_batch_size: examples in that batch; None: not measured.
        device: where the example was.
    """

    n_params: int
    n_params_auxiliary: int
    flops: int
    activations: int
    latency: float | None
    latency_batch_size: int | None
    device: str

    @property
    def multiply_adds(self) -> int:
        """What papers often call FLOPs: half of :attr:`flops`."""
        return self.flops // 2

    def describe(self) -> str:
        """The costs for people, one a line."""
        rows = [("parameters", f"{self.n_params:,}", "")]
        if self.n_params_auxiliary:
            rows.append(("auxiliary head", f"{self.n_params_auxiliary:,}", "parameters more, in training only"))
        rows += [
            ("FLOPs", f"{self.flops:,}", "per example"),
            ("multiply-adds", f"{self.multiply_adds:,}", "per example"),
            ("activations", f"{self.activations:,}", "per example"),
        ]
        if self.latency is not None:
            unit = f"ms per batch of {self.latency_batch_size}, {self.device}"
            rows.append(("latency", f"{self.latency:,.3f}", unit))
        width = max(len(value) for _, value, _ in rows)
        return "\n".join(f"{name:14}  {value:>{width}}  {unit}".rstrip() for name, value, unit in rows)


def profile(network: nn.Module, example: Tensor, latency_runs: int = 0) -> Profile:
    """Measures a network in evaluation mode, without gradients. It is left as it was.

    FLOPs and activations are those of matrix products and convolutions; all else counts zero. FLOPs of attention and of
    recurrent layers are those of the products in their kernels, which put out no activations of their own.

    Args:
        network: called as ``network(example)``. Its head, if any, is the submodule ``auxiliary``.
        example: a batch ``(N, ...)`` on the network's device. On the meta device nothing is computed.
        latency_runs: timed forward passes, after 10 that warm up; 0: latency is not measured.

    Raises:
        ValueError: if ``latency_runs`` is negative, or positive on the meta device, or the batch is empty.
    """
    if latency_runs < 0:
        raise ValueError(f"latency_runs: 0 or more, got {latency_runs}")
    if latency_runs and example.device.type == "meta":
        raise ValueError("latency_runs: nothing runs on the meta device, so there is no latency to measure")
    if not len(example):
        raise ValueError("example: the batch is empty")
    auxiliary = dict(network.named_children()).get("auxiliary")
    n_params_auxiliary = _count(auxiliary) if auxiliary is not None else 0
    aten = torch.ops.aten
    layers = (aten.convolution, aten.addmm, aten.mm)
    flops = FlopCounterMode(display=False, custom_mapping=_IN_KERNELS)
    # The same counter with another formula. Hooks on modules would miss the functional layers of elastic networks.
    activations = FlopCounterMode(display=False, custom_mapping=dict.fromkeys(layers, _elements))
    with evaluating(network), torch.no_grad():
        with flops, activations, _without_fused_transformers():
            network(example)
        latency = _latency(network, example, latency_runs) if latency_runs else None
    counts = activations.get_flop_counts().get("Global", {})
    return Profile(
        n_params=count_parameters(network),
        n_params_auxiliary=n_params_auxiliary,
        flops=flops.get_total_flops() // len(example),
        activations=sum(counts.get(layer, 0) for layer in layers) // len(example),
        latency=latency,
        latency_batch_size=len(example) if latency_runs else None,
        device=str(example.device),
    )


def count_parameters(network: nn.Module) -> int:
    """The number of parameters without those of an auxiliary head, as the field reports it."""
    return sum(p.numel() for name, p in network.named_parameters() if not name.startswith("auxiliary."))


def _count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def _elements(*shapes: Any, out_shape: tuple[int, ...], **options: Any) -> int:
    return math.prod(out_shape)


def _of_attention(query: Any, key: Any, value: Any, *_: Any, **options: Any) -> int:
    """Of queries, keys and values ``(N, heads, T, width)``: each query by each key, and the sum of values."""
    return 2 * math.prod(query[:2]) * query[2] * key[2] * (query[3] + value[3])


def _of_lstm(x: Any, of_words: Any, of_states: Any, *_: Any, **options: Any) -> int:
    """Of a layer that reads ``(T, N, width)``: every word and every state by its matrix."""
    return 2 * math.prod(x[:-1]) * (math.prod(of_words) + math.prod(of_states))


def _of_cudnn(x: Any, weights: Any, *_: Any, **options: Any) -> int:
    """Of all layers and directions at once; biases are vectors."""
    return 2 * math.prod(x[:-1]) * sum(math.prod(shape) for shape in weights if len(shape) == 2)


_IN_KERNELS = {
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _of_attention,
    torch.ops.aten.mkldnn_rnn_layer: _of_lstm,
    torch.ops.aten._cudnn_rnn: _of_cudnn,
}
"""Kernels that PyTorch's counter passes over (PyTorch 2.14); on the meta device they are plain products."""


@contextlib.contextmanager
def _without_fused_transformers() -> Iterator[None]:
    """Inside, transformers run their layers one by one, and not in a kernel that PyTorch's counter passes over."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


def _latency(network: nn.Module, example: Tensor, runs: int) -> float:
    times = []
    for _ in range(_WARM_UP + runs):
        _synchronize(example.device)
        start = time.perf_counter()
        network(example)
        _synchronize(example.device)
        times.append(1000 * (time.perf_counter() - start))
    return statistics.median(times[_WARM_UP:])


def _synchronize(device: torch.device) -> None:
    if device.type != "cpu":
        torch.accelerator.synchronize(device)
