"""Widths to choose in a network that is there, put into all layers that share them."""

from collections.abc import Iterator, Sequence

from torch import nn

from lightning_nas.compression.channels import Channels, channels_of
from lightning_nas.errors import SettingError
from lightning_nas.spaces.own.values import ValueChoice, values_in


def choose_widths(net: nn.Module, shares: Sequence[float], layers: Sequence[str] | None = None) -> dict[str, list[str]]:
    """Puts a ``ValueChoice`` into the sizes of layers: how many of its channels each keeps.

    Layers whose outputs are added up keep the same channels; BatchNorms, depthwise convolutions and the layers that
    read them follow. ``torch.fx`` finds them, so the network's ``forward`` has to be one that it can trace.
    A found network keeps the leading channels, which :func:`order_by_importance` makes the most important ones.

    Args:
        net: the network, such as a trained one; the attributes of its layers are changed, its weights are not.
        shares: the shares of the channels to choose from, above 0 and at most 1. All channels are a choice anyway.
        layers: the paths of convolutions and linear layers that put out what is narrowed, as in ``layer1.0.conv1``;
            None: all that can be.

    Returns:
        the label of each choice, the path of the first layer with ``/`` for dots, with the paths of all layers that
        it sets a size of.

    Raises:
        SettingError: if the network cannot be traced, or the channels of a layer cannot be fewer.

    Example::

        from torch import nn
        from lightning_nas import choose_widths

        net = nn.Sequential(nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 10, 3))
        print(choose_widths(net, [0.25, 0.5]))
    """
    if not shares or not all(0 < share <= 1 for share in shares):
        raise SettingError(f"shares: above 0 and at most 1, got {list(shares)}")
    everything = channels_of(net)
    if layers is None:
        wanted = [c for c in everything if c.fixed is None and not _chosen(net, c)]
    else:
        wanted = list({id(c): c for c in (_with(everything, path) for path in layers)}.values())
    for channels in wanted:
        reason = channels.fixed or ("they are chosen already" if _chosen(net, channels) else None)
        if reason:
            path = next((path for path in layers or () if path in channels.producers), "a layer")
            raise SettingError(f"layers: the channels of {path} cannot be fewer: {reason}")
    return {_narrowed(net, channels, shares): sorted(channels.members) for channels in wanted}


def _with(everything: Sequence[Channels], path: str) -> Channels:
    for channels in everything:
        if path in channels.producers or path in channels.depthwise:
            return channels
    known = ", ".join(path for channels in everything for path in channels.producers)
    raise SettingError(f"layers: paths of convolutions and linear layers, which are {known}; got {path!r}")


def _sizes(net: nn.Module, channels: Channels) -> Iterator[tuple[nn.Module, str, int]]:
    """The layers of the channels, with the attribute that says how many, and how many that says for each."""
    for paths, side in ((dict.fromkeys(channels.producers, 1), "out"), (channels.readers, "in")):
        for path, factor in paths.items():
            layer = net.get_submodule(path)
            yield layer, f"{side}_{'features' if isinstance(layer, nn.Linear) else 'channels'}", factor
    for path, factor in channels.norms.items():
        yield net.get_submodule(path), "num_features", factor
    for path in channels.depthwise:
        for attribute in ("in_channels", "out_channels", "groups"):
            yield net.get_submodule(path), attribute, 1


def _chosen(net: nn.Module, channels: Channels) -> bool:
    return any(values_in(getattr(layer, attribute)) for layer, attribute, _ in _sizes(net, channels))


def _narrowed(net: nn.Module, channels: Channels, shares: Sequence[float]) -> str:
    """Puts the choice into all layers of the channels, and returns its label."""
    label = next(iter(channels.producers)).replace(".", "/")
    assert channels.width is not None  # producers know it
    numbers = {max(1, round(share * channels.width)) for share in shares} | {channels.width}
    value = ValueChoice(sorted(numbers), label)
    for layer, attribute, factor in _sizes(net, channels):
        setattr(layer, attribute, value if factor == 1 else value * factor)
    return label
