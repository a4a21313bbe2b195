"""The maps of several stages of a network, for detection and segmentation."""

import copy
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from functools import partial

from torch import Tensor, nn

from lightning_nas.errors import SettingError
from lightning_nas.spaces.base import DropPath
from lightning_nas.spaces.image_networks import ImageNetwork, Map


class Features(nn.Module):
    """The layers of a network of images without its head; ``forward`` returns the last map of each stage.

    A stage ends before the resolution falls, and with the last layer. The weights are the network's own: whatever
    trains or loads one, changes both. Layers after the last stage that is asked for do not run.

    What it returns is what ``FeaturePyramidNetwork`` and the segmentation heads of torchvision read.

    Args:
        network: a network of images with one architecture.
        stages: numbers of the network's stages, whose maps are called ``"0"``, ``"1"``, … in this order; or by their
            own names, as in ``{"out": -1}``; negative numbers count from the end. None: all.

    Attributes:
        feature_info: the channels and the stride of each map that ``forward`` returns, by its name.

    Raises:
        SettingError: if the network is none of images, has more than one architecture, or has no such stage.
    """

    def __init__(self, network: nn.Module, stages: Sequence[int] | Mapping[str, int] | None = None) -> None:
        super().__init__()
        if not isinstance(network, ImageNetwork):
            raise SettingError(f"network: a network of images, got {type(network).__name__}")
        if network.space.size > 1:
            raise SettingError("network: one of a single architecture; build that of space.restrict(architecture)")
        info = network.feature_info
        if not isinstance(stages, Mapping):
            stages = {str(k): stage for k, stage in enumerate(range(len(info)) if stages is None else stages)}
        for stage in stages.values():
            if not -len(info) <= stage < len(info):
                raise SettingError(f"stages: the network has the stages 0 to {len(info) - 1}, got {stage}")
        if not stages:
            raise SettingError("stages: at least one")
        self.feature_info: dict[str, Map] = {name: info[stage] for name, stage in stages.items()}
        self.body = copy.copy(network)  # of which the head's modules are no part, so that nothing is left untrained
        self.body._modules = {n: m for n, m in network._modules.items() if n not in network.head_names}

    def forward(self, x: Tensor, drop_path: DropPath = 0.0) -> OrderedDict[str, Tensor]:
        """The maps ``(N, channels, ⌈H / stride⌉, ⌈W / stride⌉)`` of images by their names.

        Args:
            x: a batch of images, ``(N, C, H, W)``, of any size.
            drop_path: probability to drop an operation's output for a sample, in training.
        """
        wanted = {layer.name for layer in self.feature_info.values()}
        found: dict[str, Tensor] = {}
        body = self.body
        for name, states in body.layers_of(x, body.space.resolve(None), partial(body.drops, drop_path)):
            if name in wanted:
                found[name] = states.x
                if len(found) == len(wanted):
                    break
        return OrderedDict((name, found[layer.name]) for name, layer in self.feature_info.items())
