"""PyTorch's layers as slices of larger ones: what runs follows from the sizes in their attributes.

The attributes (``out_channels``, ``num_features``, …) may be any objects that stand for a whole number, which can be
another one in every forward pass. Weights are those of the largest sizes, and what runs is their leading part, of a
kernel the middle. ``nn.MultiheadAttention`` keeps queries, keys and values in one matrix, of which the leading part of
each runs.
"""

from collections.abc import Callable
from operator import index
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd

from lightning_nas.errors import SettingError

Parts = dict[str, Any]
"""What runs of the weights and buffers of a layer by their names, as views; None where there is none."""


def of_linear(layer: nn.Linear) -> Parts:
    """The weights of ``in_features`` to ``out_features``."""
    out = layer.out_features
    return {"weight": _leading(layer.weight, out, layer.in_features), "bias": _leading(layer.bias, out)}


def of_convolution(layer: _ConvNd) -> Parts:
    """The weights of ``in_channels`` to ``out_channels`` in ``groups``, and the middle of ``kernel_size``."""
    out, read = layer.out_channels, index(layer.in_channels) // index(layer.groups)
    weight = _leading(layer.weight, out, read)
    for dim, size in enumerate(map(index, layer.kernel_size), start=2):
        if size != weight.shape[dim]:
            weight = weight.narrow(dim, (weight.shape[dim] - size) // 2, size)
    return {"weight": weight, "bias": _leading(layer.bias, out)}


def of_batch_norm(layer: _BatchNorm) -> Parts:
    """The scales, shifts and running averages of ``num_features``."""
    names = ("weight", "bias", "running_mean", "running_var")
    parts = {name: _leading(getattr(layer, name), layer.num_features) for name in names}
    return parts | {"num_batches_tracked": layer.num_batches_tracked}


def of_layer_norm(layer: nn.LayerNorm) -> Parts:
    """The scales and shifts of ``normalized_shape``."""
    return {name: _leading(getattr(layer, name), *layer.normalized_shape) for name in ("weight", "bias")}


def of_embedding(layer: nn.Embedding) -> Parts:
    """The leading numbers of each of the first words."""
    return {"weight": _leading(layer.weight, layer.num_embeddings, layer.embedding_dim)}


def of_attention(layer: nn.MultiheadAttention) -> Parts:
    """The weights of ``embed_dim``; the number of heads changes none."""
    e, project = layer.embed_dim, layer.out_proj
    weight, bias = layer.in_proj_weight, layer.in_proj_bias
    if weight is None or layer.bias_k is not None:
        raise SettingError("MultiheadAttention: of kdim, vdim or add_bias_kv there are no slices; leave them out")
    if index(e) != weight.shape[1]:
        weight = weight.unflatten(0, (3, -1))[:, : index(e), : index(e)].flatten(0, 1)
        bias = None if bias is None else bias.unflatten(0, (3, -1))[:, : index(e)].flatten()
    own = {"in_proj_weight": weight, "in_proj_bias": bias}
    return own | {"out_proj.weight": _leading(project.weight, e, e), "out_proj.bias": _leading(project.bias, e)}


class SlicedLinear(nn.Linear):
    """``nn.Linear`` of which the part runs that its sizes say."""

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, **of_linear(self))


class _SlicedConvolution(_ConvNd):
    def forward(self, x: Tensor) -> Tensor:
        if self.padding_mode != "zeros":
            raise SettingError(f"padding_mode: zeros where sizes are chosen, got {self.padding_mode!r}")
        convolve = F.conv1d if len(self.kernel_size) == 1 else F.conv2d
        padding = self.padding if isinstance(self.padding, str) else tuple(map(index, self.padding))
        stride, dilation = tuple(map(index, self.stride)), tuple(map(index, self.dilation))
        weight, bias = of_convolution(self).values()
        return convolve(x, weight, bias, stride, padding, dilation, index(self.groups))


class SlicedConv1d(_SlicedConvolution, nn.Conv1d):
    """``nn.Conv1d`` of which the part runs that its sizes say."""


class SlicedConv2d(_SlicedConvolution, nn.Conv2d):
    """``nn.Conv2d`` of which the part runs that its sizes say."""


class _SlicedBatchNorm(_BatchNorm):
    def forward(self, x: Tensor) -> Tensor:
        self._check_input_dim(x)
        parts = of_batch_norm(self)
        factor = 0.0 if self.momentum is None else self.momentum
        if self.training and self.track_running_stats and self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)
            factor = 1.0 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        mean, variance = parts["running_mean"], parts["running_var"]
        by_batch = self.training or (mean is None and variance is None)
        if self.training and not self.track_running_stats:
            mean = variance = None
        return F.batch_norm(x, mean, variance, parts["weight"], parts["bias"], by_batch, factor, self.eps)


class SlicedBatchNorm1d(_SlicedBatchNorm, nn.BatchNorm1d):
    """``nn.BatchNorm1d`` of which the part runs that its sizes say."""


class SlicedBatchNorm2d(_SlicedBatchNorm, nn.BatchNorm2d):
    """``nn.BatchNorm2d`` of which the part runs that its sizes say."""


class SlicedLayerNorm(nn.LayerNorm):
    """``nn.LayerNorm`` of which the part runs that its sizes say."""

    def forward(self, x: Tensor) -> Tensor:
        return F.layer_norm(x, tuple(map(index, self.normalized_shape)), **of_layer_norm(self), eps=self.eps)


class SlicedEmbedding(nn.Embedding):
    """``nn.Embedding`` of which the part runs that its sizes say."""

    def forward(self, x: Tensor) -> Tensor:
        settings = (self.padding_idx, self.max_norm, self.norm_type, self.scale_grad_by_freq, self.sparse)
        return F.embedding(x, of_embedding(self)["weight"], *settings)


class SlicedMultiheadAttention(nn.MultiheadAttention):
    """``nn.MultiheadAttention`` of which the part runs that its sizes say."""

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        batched = query.dim() == 3
        swapped = self.batch_first and batched
        if swapped:  # what is one tensor stays one: PyTorch multiplies it once
            moved = {id(x): x.transpose(0, 1) for x in (query, key, value)}
            query, key, value = (moved[id(x)] for x in (query, key, value))
        parts = of_attention(self)
        out, weights = F.multi_head_attention_forward(
            query,
            key,
            value,
            index(self.embed_dim),
            index(self.num_heads),
            parts["in_proj_weight"],
            parts["in_proj_bias"],
            None,
            None,
            self.add_zero_attn,
            self.dropout,
            parts["out_proj.weight"],
            parts["out_proj.bias"],
            training=self.training,
            key_padding_mask=key_padding_mask,
            need_weights=need_weights,
            attn_mask=attn_mask,
            average_attn_weights=average_attn_weights,
            is_causal=is_causal,
        )
        return (out.transpose(0, 1) if swapped else out), weights


PARTS: dict[type[nn.Module], Callable[[Any], Parts]] = {
    nn.Linear: of_linear,
    nn.Conv1d: of_convolution,
    nn.Conv2d: of_convolution,
    nn.BatchNorm1d: of_batch_norm,
    nn.BatchNorm2d: of_batch_norm,
    nn.LayerNorm: of_layer_norm,
    nn.Embedding: of_embedding,
    nn.MultiheadAttention: of_attention,
}
"""What runs of each layer, as a function of the sizes in its attributes."""

SLICED: dict[type[nn.Module], type[nn.Module]] = {
    nn.Linear: SlicedLinear,
    nn.Conv1d: SlicedConv1d,
    nn.Conv2d: SlicedConv2d,
    nn.BatchNorm1d: SlicedBatchNorm1d,
    nn.BatchNorm2d: SlicedBatchNorm2d,
    nn.LayerNorm: SlicedLayerNorm,
    nn.Embedding: SlicedEmbedding,
    nn.MultiheadAttention: SlicedMultiheadAttention,
}
"""The class that runs a layer's slices, whose instances become it: they keep weights, names and hooks."""


def parts_of(layer: nn.Module) -> Parts | None:
    """What runs of a layer's weights and buffers; None of other modules than those in ``PARTS``."""
    of = next((PARTS[cls] for cls in (type(layer), *type(layer).__bases__) if cls in PARTS), None)
    return None if of is None or (type(layer) not in PARTS and type(layer) not in SLICED.values()) else of(layer)


def cut(layer: nn.Module, done: dict[tuple[Tensor, Any], Tensor]) -> None:
    """Gives a layer of plain sizes weights and buffers of its own, where those that it has are larger.

    Args:
        layer: any module; those that have no parts are left as they are.
        done: what was cut of the network already, by what it was cut of and its shape: layers that share a weight
            share what is cut of it.
    """
    for name, part in (parts_of(layer) or {}).items():
        owner, _, last = name.rpartition(".")
        module = layer.get_submodule(owner)
        own = getattr(module, last)
        if part is not None and part.shape != own.shape:
            new = part.detach().clone()
            new = nn.Parameter(new, own.requires_grad) if isinstance(own, nn.Parameter) else new
            setattr(module, last, done.setdefault((own, new.shape), new))


FUSED = (nn.TransformerEncoderLayer, nn.TransformerEncoder)
"""PyTorch's modules that read the weights of the layers inside as they are, in a fused kernel for evaluation."""


class Unfused:
    """A hook that does nothing, since to hooks the fused kernels give way.

    Args:
        module: one of ``FUSED``, with layers inside that are not PyTorch's. It is changed until :meth:`undo`.
    """

    def __init__(self, module: nn.Module) -> None:
        self.nested = getattr(module, "use_nested_tensor", False)
        if self.nested:  # tensors that only the fused kernel can read
            module.use_nested_tensor = False  # type: ignore[assignment]
        module.register_forward_pre_hook(self)

    def __call__(self, module: nn.Module, given: Any) -> None:
        pass

    @staticmethod
    def undo(module: nn.Module) -> None:
        """Leaves a module as it was.

        Args:
            module: any module, with such a hook or without.
        """
        for number, hook in list(module._forward_pre_hooks.items()):
            if isinstance(hook, Unfused):
                del module._forward_pre_hooks[number]
                if hook.nested:
                    module.use_nested_tensor = True  # type: ignore[assignment]


def _leading(tensor: Tensor | None, *sizes: Any) -> Any:
    """The leading part, as large as ``sizes`` say; the tensor itself where that is all of it."""
    if tensor is None:
        return None
    for dim, size in enumerate(map(index, sizes)):
        if size > tensor.shape[dim]:
            raise SettingError(f"a layer has {tensor.shape[dim]} of the {size} that should run of it")
        if size < tensor.shape[dim]:
            tensor = tensor.narrow(dim, 0, size)
    return tensor
