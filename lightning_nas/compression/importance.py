"""Channels of a trained network in the order of their importance, so that its leading slices are the best ones.

Importance is the L1 norm of a channel's filters (Li et al. 2017, "Pruning filters for efficient ConvNets"), or the
size of its BatchNorm's scale (Liu et al. 2017, "Network slimming", without its penalty in training). Where several
layers put out the same channels, as along a residual stream, it is the sum over all of them.
"""

import copy
import dataclasses
from collections.abc import Iterator, Mapping
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from lightning_nas.compression.replacements import Replacements
from lightning_nas.errors import SettingError
from lightning_nas.operations.normalization import evaluating
from lightning_nas.spaces.own.choices import OwnChoice
from lightning_nas.spaces.own.space import OwnSpace
from lightning_nas.spaces.own.values import Value, settled, values_in

Importance = Literal["filters", "scales"]

_NORM: dict[str, tuple[str, ...]] = dict.fromkeys(("weight", "bias", "running_mean", "running_var"), ("num_features",))
_CONV = {"weight": ("out_channels", "in_channels"), "bias": ("out_channels",)}
_SIZES: dict[type[nn.Module], dict[str, tuple[str, ...]]] = {
    nn.Linear: {"weight": ("out_features", "in_features"), "bias": ("out_features",)},
    nn.Conv1d: _CONV,
    nn.Conv2d: _CONV,
    nn.BatchNorm1d: _NORM,
    nn.BatchNorm2d: _NORM,
    nn.LayerNorm: {"weight": ("normalized_shape",), "bias": ("normalized_shape",)},
    nn.Embedding: {"weight": ("", "embedding_dim")},
}
"""The attributes whose sizes the dimensions of each layer's weights and buffers have; empty: not of channels."""
_TOLERANCE = 1e-8


def order_by_importance(
    net: nn.Module, example: Tensor | None = None, importance: Importance = "filters"
) -> dict[str, list[float]]:
    """Orders the channels that value choices narrow, the most important first; the network computes what it did.

    For each label that is a number of channels, all layers with that label are permuted together: the outputs of
    convolutions and linear layers, BatchNorms, and the inputs of those that read them, flattened maps too. That the
    outputs are the same is checked, in double precision, with each option of each choice.

    Args:
        net: a trained network with value choices in the sizes of its layers; its weights are changed.
        example: a batch that it takes; None: its ``example_input_array``.
        importance: ``filters``: the sum of a channel's absolute weights; ``scales``: its BatchNorm's absolute scale,
            where it has one.

    Returns:
        for each label the importance of its channels, from most to least.

    Raises:
        SettingError: naming the label that is used in a way in which channels cannot be followed; then the network is
            as it was.
    """
    if importance not in get_args(Importance):
        raise SettingError(f"importance: {' or '.join(get_args(Importance))}, got {importance!r}")
    example = getattr(net, "example_input_array", None) if example is None else example
    if not isinstance(example, Tensor):
        raise SettingError("example: a batch that the network takes, since it has no example_input_array")
    ordered = copy.deepcopy(net)
    widths = {label: _width(places, label) for label, places in _labels(ordered).items()}
    expected = _outputs(ordered, widths, example)
    found = {label: _order(places, widths[label], importance) for label, places in _labels(ordered).items()}
    if not _same(_outputs(ordered, widths, example), expected):
        for label in widths:
            alone = copy.deepcopy(net)
            _order(_labels(alone)[label], widths[label], importance)
            if not _same(_outputs(alone, widths, example), expected):
                raise SettingError(f"{label}: what the network puts out changes with the order of its channels")
    net.load_state_dict(ordered.state_dict())
    return found


@dataclasses.dataclass(frozen=True)
class _Place:
    """A size of a layer that a label decides.

    Attributes:
        path: the path of the layer in the network.
        layer: the layer itself, whose size it is.
        attribute: the name of the attribute that holds the size.
        value: what the attribute holds.
    """

    path: str
    layer: nn.Module
    attribute: str
    value: Value

    @property
    def dims(self) -> Iterator[tuple[Tensor, int]]:
        """The weights and buffers that have the size, with the dimension that has it."""
        for name, sizes in _sizes(self.layer).items():
            tensor = getattr(self.layer, name)
            if self.attribute in sizes and tensor is not None:
                dim = sizes.index(self.attribute)
                depthwise = self.attribute == "in_channels" and values_in(self.layer.groups)
                if not depthwise:
                    yield tensor, dim

    @property
    def puts_out(self) -> bool:
        """Whether it is what the layer computes from others."""
        puts_out = self.attribute in ("out_channels", "out_features", "embedding_dim")
        return puts_out and not values_in(getattr(self.layer, "groups", 1))

    def factor(self, label: str) -> int:
        """How many of it there are for each channel."""
        alone = set(self.value.options) == {label}
        ratios = {self.value.under({label: n}) / n for n in self.value.options[label]} if alone else set()
        if len(ratios) != 1 or not (ratio := ratios.pop()).is_integer():
            raise SettingError(f"{label}: {self.attribute} of {self.path} is no whole multiple of it alone")
        return int(ratio)

    def permute(self, order: Tensor) -> None:
        """Puts its channels into another order."""
        for tensor, dim in self.dims:
            factor = tensor.shape[dim] // len(order)
            within = torch.arange(factor, device=order.device)
            index = (order[:, None] * factor + within).flatten().to(tensor.device)
            with torch.no_grad():
                tensor.copy_(tensor.index_select(dim, index))


def _sizes(layer: nn.Module) -> Mapping[str, tuple[str, ...]]:
    return _SIZES.get(type(layer), {})


def _labels(net: nn.Module) -> dict[str, list[_Place]]:
    """The places of every label that is a number of channels."""
    places: dict[str, list[_Place]] = {}
    others: dict[str, str] = {}
    for path, layer in net.named_modules():
        known = {size for sizes in _sizes(layer).values() for size in sizes if size}
        for attribute, held in vars(layer).items():
            for value in values_in(held):
                for label in value.options:
                    if attribute in known:
                        places.setdefault(label, []).append(_Place(path, layer, attribute, value))
                    elif attribute != "groups":
                        others[label] = f"{attribute} of {path or type(net).__name__}"
    for label in places:
        if label in others:
            raise SettingError(f"{label}: channels are ordered in layers, and it is {others[label]} too")
    return places


def _width(places: list[_Place], label: str) -> int:
    """How many channels of a label there are in the network's weights."""
    widths = set()
    for place in places:
        grouped = getattr(place.layer, "groups", 1)
        if not values_in(grouped) and grouped > 1:
            raise SettingError(f"{label}: {place.path} reads its channels in {grouped} groups, which keep their order")
        factor = place.factor(label)
        widths |= {tensor.shape[dim] / factor for tensor, dim in place.dims}
    if len(widths) > 1 or not all(width.is_integer() for width in widths):
        raise SettingError(f"{label}: its layers have weights for {', '.join(map('{:g}'.format, sorted(widths)))}")
    return int(widths.pop())


def _order(places: list[_Place], width: int, importance: Importance) -> list[float]:
    """Orders the channels of a label, and returns their importance."""
    norms = [place for place in places if place.attribute == "num_features" and place.layer.weight is not None]
    judged = norms if norms and importance == "scales" else [place for place in places if place.puts_out]
    each = torch.zeros(width, dtype=torch.float64)
    for place in judged:
        weight, dim = next(place.dims)
        each += weight.detach().double().cpu().abs().movedim(dim, 0).reshape(width, -1).sum(1)
    order = each.argsort(descending=True, stable=True)
    for place in places:
        place.permute(order)
    return each[order].tolist()


def _outputs(net: nn.Module, widths: Mapping[str, int], example: Tensor) -> list[Tensor]:
    """What the network of whole widths puts out, with every option of its other choices."""
    plain = copy.deepcopy(net).double()
    for module in plain.modules():
        for attribute, held in list(vars(module).items()):
            values = values_in(held)
            if values and all(label in widths for value in values for label in value.options):
                module.__dict__[attribute] = settled(held, widths)
    example = example.double() if example.is_floating_point() else example
    with evaluating(plain), torch.no_grad():
        if not any(isinstance(m, OwnChoice) or any(map(values_in, vars(m).values())) for m in plain.modules()):
            return [plain(example)]
        space = OwnSpace(plain)
        network = space.network(dict(space.usual_inputs))
        return [network(example, space.gates(each)) for each in Replacements(space).architectures()]


def _same(one: list[Tensor], other: list[Tensor]) -> bool:
    pairs = zip(one, other, strict=True)
    return all(torch.allclose(a, b, rtol=_TOLERANCE, atol=_TOLERANCE * float(b.abs().max())) for a, b in pairs)
