"""PyTorch's layers as slices of larger ones: what runs follows from the sizes in their attributes.

The attributes (``out_channels``, ``num_features``, …) may be any objects that stand for a whole number, which can be
another one in every forward pass. Weights are those of the largest sizes, and what runs is their leading part, of a
kernel the middle. ``nn.MultiheadAttention`` keeps queries, keys and values in one matrix, of which the leading part of
each runs; so do recurrent layers their gates. Of stacked layers the first run.
"""

from collections.abc import Callable
from operator import index
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd
from torch.utils._pytree import tree_map

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


def of_recurrent(layer: nn.RNNBase) -> Parts:
    """The weights of ``input_size`` to ``hidden_size`` in every gate, of the first ``num_layers``."""
    if layer.proj_size:
        raise SettingError("proj_size: 0 where sizes are chosen; let an nn.Linear follow the layer")
    recurrent: Tensor = layer.weight_hh_l0  # type: ignore[assignment]  # a parameter
    hidden, largest, parts = index(layer.hidden_size), recurrent.shape[1], Parts()
    for name in layer._flat_weights_names:  # weight_ih_l0, weight_hh_l0, bias_ih_l0, …, weight_ih_l0_reverse, …
        kind, of, number = name.removesuffix("_reverse").split("_")
        weight: Tensor = getattr(layer, name)
        part = weight.unflatten(0, (-1, largest))[:, :hidden]
        if kind == "weight" and of == "ih" and number == "l0":
            part = part[..., : index(layer.input_size)]
        elif kind == "weight":  # a further layer reads both directions, side by side
            part = part.unflatten(-1, (-1, largest))[..., :hidden].flatten(-2)
        if int(number[1:]) < index(layer.num_layers):
            parts[name] = weight if part.numel() == weight.numel() else part.flatten(0, 1)
    return parts


def of_stack(layer: nn.Module) -> Parts:
    """Nothing: of a stack whole layers run, which have weights of their own."""
    return {}


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
        if swapped:  # what is the same stays so, for which there is one product
            turned = {id(x): x.transpose(0, 1) for x in (query, key, value)}
            query, key, value = (turned[id(x)] for x in (query, key, value))
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


class _SlicedRecurrent(nn.RNNBase):
    def forward(self, x: Any, hx: Any = None) -> Any:
        """As PyTorch's layer; a state of other sizes, which another architecture left, is cut or filled with zeros."""
        plain: nn.RNNBase = object.__new__(
            type(self).__bases__[-1]
        )  # a layer of plain sizes, whose weights are what runs
        sizes = {name: index(getattr(self, name)) for name in ("input_size", "hidden_size", "num_layers")}
        weights = {
            "_flat_weights": list(of_recurrent(self).values()),
            "_flat_weights_names": [],
            "_flat_weight_refs": [],
        }
        vars(plain).update(vars(self) | sizes | weights)
        if hx is not None:
            n_states = sizes["num_layers"] * (1 + self.bidirectional)
            hx = tree_map(lambda state: _fitted(state, n_states, sizes["hidden_size"]), hx)
        return plain.forward(x, hx)


def _fitted(state: Tensor, n_states: int, hidden: int) -> Tensor:
    further, wider = n_states - state.shape[0], hidden - state.shape[-1]
    if not further and not wider:
        return state
    return F.pad(state, (0, wider, *(0, 0) * (state.dim() - 2), 0, further))


class SlicedRNN(_SlicedRecurrent, nn.RNN):
    """``nn.RNN`` of which the part runs that its sizes say."""


class SlicedGRU(_SlicedRecurrent, nn.GRU):
    """``nn.GRU`` of which the part runs that its sizes say."""


class SlicedLSTM(_SlicedRecurrent, nn.LSTM):
    """``nn.LSTM`` of which the part runs that its sizes say."""


class _SlicedStack(nn.Module):
    num_layers: Any

    @property
    def layers(self) -> nn.ModuleList:
        """The first ``num_layers``, which are all that PyTorch's ``forward`` sees."""
        every: Any = self._modules["layers"]
        return every[: index(self.num_layers)]


class SlicedTransformerEncoder(_SlicedStack, nn.TransformerEncoder):
    """``nn.TransformerEncoder`` of which as many layers run as it says."""


class SlicedTransformerDecoder(_SlicedStack, nn.TransformerDecoder):
    """``nn.TransformerDecoder`` of which as many layers run as it says."""


PARTS: dict[type[nn.Module], Callable[[Any], Parts]] = {
    nn.Linear: of_linear,
    nn.Conv1d: of_convolution,
    nn.Conv2d: of_convolution,
    nn.BatchNorm1d: of_batch_norm,
    nn.BatchNorm2d: of_batch_norm,
    nn.LayerNorm: of_layer_norm,
    nn.Embedding: of_embedding,
    nn.MultiheadAttention: of_attention,
    nn.RNN: of_recurrent,
    nn.GRU: of_recurrent,
    nn.LSTM: of_recurrent,
    nn.TransformerEncoder: of_stack,
    nn.TransformerDecoder: of_stack,
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
    nn.RNN: SlicedRNN,
    nn.GRU: SlicedGRU,
    nn.LSTM: SlicedLSTM,
    nn.TransformerEncoder: SlicedTransformerEncoder,
    nn.TransformerDecoder: SlicedTransformerDecoder,
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
