"""Which layers of a network share their channels, read off its graph as ``torch.fx`` traces it.

Layers whose outputs are added up have the same channels, and normalisations, depthwise convolutions and readers follow
them. What is done with channels elsewhere is not known here, so that they stay as they are, with the reason.
"""

import functools
import operator
from operator import index
from typing import Any

import torch
import torch.nn.functional as F
from torch import fx, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torchvision.ops import stochastic_depth

from lightning_nas.errors import SettingError
from lightning_nas.spaces.own.choices import InputChoice, LayerChoice, RepeatChoice


class Channels:
    """Channels that several layers share.

    Args:
        width: how many channels there are; None where nobody asks.
        fixed: why there cannot be fewer; None: there can.

    Attributes:
        producers: the paths of the convolutions and linear layers that put them out.
        depthwise: the paths of the depthwise convolutions that they pass.
        norms: the paths of the BatchNorms that they pass, with how many features each channel has there.
        readers: the paths of the convolutions and linear layers that read them, with how many inputs each channel is.
    """

    def __init__(self, width: int | None = None, fixed: str | None = None) -> None:
        self.width, self.fixed = width, fixed
        self.producers: dict[str, None] = {}
        self.depthwise: dict[str, None] = {}
        self.norms: dict[str, int] = {}
        self.readers: dict[str, int] = {}
        self._merged: Channels | None = None

    @property
    def whole(self) -> "Channels":
        """All that they were found to be a part of."""
        return self if self._merged is None else self._merged.whole

    @property
    def members(self) -> dict[str, Any]:
        """All layers that have them, by their paths."""
        return {**self.producers, **self.depthwise, **self.norms, **self.readers}

    def fix(self, reason: str) -> None:
        """Says why there cannot be fewer; the first reason is kept."""
        whole = self.whole
        whole.fixed = whole.fixed or reason

    def merge(self, other: "Channels", where: str) -> None:
        """Makes both the same channels."""
        one, two = self.whole, other.whole
        if one is two:
            return
        if one.width != two.width:  # one of them is broadcast, or nothing is known of it
            reason = one.fixed or two.fixed or f"{where} combines {one.width} channels and {two.width}"
            one.fix(reason)
            two.fix(reason)
            return
        one.fixed = one.fixed or two.fixed
        for name in ("producers", "depthwise", "norms", "readers"):
            getattr(one, name).update(getattr(two, name))
        two._merged = one


def channels_of(net: nn.Module) -> list[Channels]:
    """The channels of a network, each with all layers that share them.

    Args:
        net: a network whose ``forward`` takes a batch of images or features. Choices in it count with all options.

    Raises:
        SettingError: if it cannot be traced.
    """
    tracer = _Tracer()
    try:
        graph = tracer.trace(net)
    except Exception as error:  # whatever the user's forward raises where it is given no numbers
        raise SettingError(
            f"network: torch.fx cannot trace {type(net).__name__} ({error}); put a ValueChoice into the sizes of its "
            "layers yourself"
        ) from error
    return _Reading(net, graph).found()


class _Tracer(fx.Tracer):
    """A tracer for which all options of a choice run and are added up, as they have the same channels."""

    def call_module(self, m: nn.Module, forward: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if isinstance(m, LayerChoice):
            return functools.reduce(operator.add, [candidate(*args, **kwargs) for candidate in m])
        if isinstance(m, RepeatChoice):
            ends = [args[0]]
            for block in m.children():
                ends.append(block(ends[-1]))
            return functools.reduce(operator.add, [ends[depth] for depth in m.depths])
        if isinstance(m, InputChoice):
            combine = operator.add if m.reduction in ("sum", "mean") else _combined
            return functools.reduce(lambda a, b: self.create_proxy("call_function", combine, (a, b), {}), args[0])
        return super().call_module(m, forward, args, kwargs)


def _combined(one: Any, other: Any) -> Any:
    """What no rule knows."""


State = tuple[Channels, int]
"""The channels of a tensor ``(N, C, …)``, and how many dimensions come after them."""

_UNARY_MODULES = (
    *(nn.ReLU, nn.ReLU6, nn.GELU, nn.SiLU, nn.ELU, nn.CELU, nn.SELU, nn.LeakyReLU, nn.Mish, nn.Softplus),
    *(nn.Hardswish, nn.Hardsigmoid, nn.Hardtanh, nn.Sigmoid, nn.Tanh, nn.Identity),
    *(nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.MaxPool1d, nn.MaxPool2d, nn.AvgPool1d, nn.AvgPool2d),
    *(nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool1d, nn.AdaptiveMaxPool2d, nn.Upsample),
)
_UNARY = (
    *(F.relu, torch.relu, F.relu6, F.gelu, F.silu, F.elu, F.leaky_relu, F.mish, F.hardswish, F.hardsigmoid),
    *(torch.sigmoid, F.sigmoid, torch.tanh, F.dropout, F.max_pool2d, F.avg_pool2d, F.interpolate, stochastic_depth),
    *(F.adaptive_avg_pool2d, F.adaptive_max_pool2d, operator.neg),
    *("relu", "relu_", "sigmoid", "tanh", "contiguous"),
)
_BINARY = (
    *(operator.add, operator.iadd, operator.sub, operator.isub, operator.mul, operator.imul),
    *(torch.add, torch.sub, torch.mul, "add", "add_", "sub", "sub_", "mul", "mul_"),
)
_NUMBERS = ("size", "dim", getattr)


class _Reading:
    """What the nodes of a traced graph say of channels, from first to last."""

    def __init__(self, net: nn.Module, graph: fx.Graph) -> None:
        self.net = net
        self.put_out: dict[str, Channels] = {}
        self.read: dict[str, Channels] = {}
        self.states: dict[fx.Node, State | None] = {}
        for node in graph.nodes:
            self.states[node] = self._of_node(node)

    def found(self) -> list[Channels]:
        found = list({id(channels.whole): channels.whole for channels in self.put_out.values()}.values())
        order = {path: number for number, (path, _) in enumerate(self.net.named_modules())}
        for channels in found:
            channels.producers = dict.fromkeys(sorted(channels.producers, key=order.__getitem__))
        return sorted(found, key=lambda channels: order[next(iter(channels.producers))])

    def _of_node(self, node: fx.Node) -> State | None:
        """The state of what a node puts out; None where that is a number."""
        given = [state for state in map(self.states.get, node.all_input_nodes) if state is not None]
        if node.op == "placeholder":
            return Channels(fixed="they are the network's input"), 2
        if node.op == "output":
            self._fix(given, "they are the network's output")
            return None
        if node.op == "call_module" and len(given) == 1:
            return self._of_module(str(node.target), self.net.get_submodule(str(node.target)), given[0])
        if node.op in ("call_function", "call_method"):
            if node.target in _NUMBERS or (not given and node.all_input_nodes):
                return None
            if (node.target in _UNARY and len(given) == 1) or (node.target in _BINARY and given):
                return self._of_sum(node, given)
            after = self._reshaped(node, given[0]) if given else None
            if after is not None:
                return after
        what = str(node.target) if node.op != "call_function" else getattr(node.target, "__name__", str(node.target))
        return self._unknown(given, f"{what} may do anything with them")

    def _of_module(self, path: str, layer: nn.Module, state: State) -> State:
        channels, dims = state
        if isinstance(layer, (nn.Conv1d, nn.Conv2d)) and dims:
            return self._of_convolution(path, layer, channels)
        if isinstance(layer, nn.Linear) and not dims:
            whole = self._entered(path, channels)
            whole.readers[path] = index(layer.in_features) // (whole.width or index(layer.in_features))
            return self._new(path, layer.out_features), 0
        if isinstance(layer, _BatchNorm):
            whole = self._entered(path, channels)
            whole.norms[path] = index(layer.num_features) // (whole.width or index(layer.num_features))
            return state
        if isinstance(layer, _UNARY_MODULES):
            return state
        if isinstance(layer, nn.Flatten) and (layer.start_dim, layer.end_dim) == (1, -1):
            return channels, 0
        return self._unknown([state], f"{path}, a {type(layer).__name__}, may do anything with them")

    def _of_convolution(self, path: str, layer: nn.Conv1d | nn.Conv2d, channels: Channels) -> State:
        dims, groups = len(layer.kernel_size), index(layer.groups)
        if groups == 1:
            self._entered(path, channels).readers[path] = 1
            return self._new(path, layer.out_channels), dims
        if groups == index(layer.in_channels) == index(layer.out_channels):
            self._entered(path, channels).depthwise[path] = None
            return channels, dims
        return self._unknown([(channels, dims)], f"{path} reads them in {groups} groups", dims)

    def _of_sum(self, node: fx.Node, given: list[State]) -> State:
        """Of sums and products of tensors, and of what treats channels alike."""
        first, dims = given[0]
        for other, others_dims in given[1:]:
            if others_dims != dims:
                return self._unknown(given, f"{node.name} combines tensors of different dimensions")
            first.merge(other, node.name)
        return first, dims

    def _reshaped(self, node: fx.Node, state: State) -> State | None:
        channels, dims = state
        arguments = [*node.args[1:], *node.kwargs.values()]
        if node.target in (torch.flatten, "flatten") and arguments == [1]:
            return channels, 0
        if node.target in ("view", "reshape") and len(arguments) == 2 and arguments[1] == -1:
            return channels, 0
        if node.target in (torch.mean, "mean") and dims:
            over, *others = arguments
            over = sorted(d % (dims + 2) for d in over) if isinstance(over, (list, tuple)) else over
            if over == list(range(2, dims + 2)):
                return channels, dims if others == [True] else 0
        return None

    def _new(self, path: str, width: Any) -> Channels:
        """What a layer puts out, which is the same wherever it is called."""
        if path not in self.put_out:
            self.put_out[path] = Channels(index(width))
            self.put_out[path].producers[path] = None
        return self.put_out[path].whole

    def _entered(self, path: str, channels: Channels) -> Channels:
        """What a layer reads, which is the same wherever it is called."""
        self.read.setdefault(path, channels).merge(channels, path)
        return channels.whole

    def _unknown(self, given: list[State], reason: str, dims: int = 2) -> State:
        self._fix(given, reason)
        return Channels(fixed=reason), dims

    @staticmethod
    def _fix(given: list[State], reason: str) -> None:
        for channels, _ in given:
            channels.fix(reason)
