"""What networks of images share: their inputs, drop-path by depth, stems and the auxiliary head."""

import itertools
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_nas.errors import SettingError
from lightning_nas.operations import Pointwise
from lightning_nas.operations.layout import LaidOut
from lightning_nas.operations.normalization import BatchNorm
from lightning_nas.spaces.base import DropPath, Gates, Network, Resolved, Space
from lightning_nas.spaces.cells import Drops, States


class Map(NamedTuple):
    """What a layer of a network puts out: ``(N, channels, ⌈H / stride⌉, ⌈W / stride⌉)`` of images ``(N, C, H, W)``.

    Attributes:
        name: the name of the layer's module in the network.
        channels: the number of channels that the map has.
        stride: how many pixels of the image's side are one of the map's.
    """

    name: str
    channels: int
    stride: int


class ImageNetwork(LaidOut, Network):
    """What networks of images share: from what their layers put out to features, class logits, or logits per pixel.

    A subclass builds its layers, notes in :attr:`maps` what each of them puts out, ends with :meth:`build_classifier`,
    and has :meth:`layers_of`.

    Args:
        space: whose choices are built.
        inputs: ``channels``, ``image_size`` (pixels) and ``num_classes`` of the data. With 0 classes there is no
            classifier, and outputs are the pooled features. With ``dense`` 1 outputs are logits for every pixel.

    Attributes:
        num_features: the number of channels of the last map, which the classifier reads.
        classifier: what makes logits of the features; any module that reads ``(N, num_features)`` may take its place.
        maps: what the layers put out, in the order of :meth:`layers_of`.

    Raises:
        SettingError: if one of the inputs is missing or out of range.
    """

    head_names: ClassVar[tuple[str, ...]] = ("auxiliary", "dropout", "classifier")
    """The modules that only read what the layers have put out."""

    auxiliary: nn.Module | None
    classifier: nn.Module

    def __init__(self, space: Space, inputs: dict[str, int]) -> None:
        super().__init__()
        for field in ("channels", "image_size", "num_classes"):
            if field not in inputs:
                raise SettingError(f"inputs.{field}: missing; a network of images needs it")
        _check_classes(inputs["num_classes"], "inputs.num_classes")
        if inputs.get("dense", 0) not in (0, 1):
            raise SettingError(f"inputs.dense: 1 for logits of every pixel, else 0, got {inputs['dense']!r}")
        self.space = space
        self.inputs = dict(inputs)
        self.maps: list[Map] = []
        self.auxiliary = None
        self.auxiliary_reads = ""

    def layers_of(self, x: Tensor, resolved: Resolved, drops: Callable[[float], Drops]) -> Iterator[tuple[str, States]]:
        """Runs the layers one by one.

        Args:
            x: a batch of images, ``(N, channels, H, W)``.
            resolved: what runs of each choice.
            drops: says what is dropped at a relative depth.

        Yields:
            what each layer puts out, with the name of its module.
        """
        raise NotImplementedError

    def last_map(self, states: States) -> States:
        """What the classifier reads before it is pooled, made of what the last layer puts out."""
        return states

    def build_classifier(
        self, widths: Mapping[str, int], new: Callable[[int], nn.Module], dropout: float = 0.0
    ) -> None:
        """Builds what ends the network.

        Args:
            widths: channels of each state that can be in the last map, by name.
            new: makes a classifier for a number of classes.
            dropout: probability to drop a feature before the classifier.
        """
        self.widths, self.num_features, self._new_classifier = dict(widths), sum(widths.values()), new
        self.dropout = nn.Dropout(dropout)
        self.classifier = new(self.inputs["num_classes"]) if self.inputs["num_classes"] else nn.Identity()
        self.lay_out()

    # -- forward -----------------------------------------------------------------------------------------------------

    def forward(
        self, x: Tensor, gates: Gates | None = None, drop_path: DropPath = 0.0
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Class logits ``(N, num_classes)`` of images ``(N, channels, H, W)``, for dense inputs ``(N, num_classes, H,
        W)``; in training with an auxiliary head also the head's.

        Args:
            x: a batch of images, ``(N, C, H, W)``, of any size.
            gates: how each choice is taken; None where the space has one architecture.
            drop_path: probability to drop an operation's output for a sample, in training.
        """
        return self.run(x, gates, partial(self.drops, drop_path))

    def run(self, x: Tensor, gates: Gates | None, drops: Callable[[float], Drops]) -> Tensor | tuple[Tensor, Tensor]:
        """:meth:`forward`, where ``drops`` says what is dropped at a relative depth."""
        outputs: list[Tensor] = []
        auxiliary = self.auxiliary if self.training and self.inputs["num_classes"] else None
        for name, states in self.layers_of(x, self.space.resolve(gates), drops):
            if auxiliary is not None and name == self.auxiliary_reads:
                outputs.append(auxiliary(states))
        outputs.insert(0, self._head(self.last_map(states)))
        if self.dense:
            outputs = [F.interpolate(o, x.shape[2:], mode="bilinear", align_corners=False) for o in outputs]
        return outputs[0] if len(outputs) == 1 else (outputs[0], outputs[1])

    def forward_features(self, x: Tensor, gates: Gates | None = None, drop_path: DropPath = 0.0) -> Tensor:
        """The last map, ``(N, num_features, ⌈H / stride⌉, ⌈W / stride⌉)``, of images ``(N, channels, H, W)``.

        Args:
            x: a batch of images, ``(N, C, H, W)``, of any size.
            gates: how each choice is taken; None where the space has one architecture. States that an architecture
                does not have in its last map are zeros.
            drop_path: probability to drop an operation's output for a sample, in training.
        """
        layers = self.layers_of(x, self.space.resolve(gates), partial(self.drops, drop_path))
        ((_, states),) = deque(layers, maxlen=1)
        last = self.last_map(states)
        if len(last.names) == len(self.widths):
            return last.x
        there = dict(zip(last.names, last.x.split([self.widths[name] for name in last.names], 1), strict=True))
        n, _, height, width = last.x.shape
        absent = {name: last.x.new_zeros(n, channels, height, width) for name, channels in self.widths.items()}
        return torch.cat(list((absent | there).values()), 1)

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Class logits ``(N, num_classes)`` of the last map; for dense inputs one for each of its pixels, ``(N,
        num_classes, ⌈H / stride⌉, ⌈W / stride⌉)``, which :meth:`forward` brings to the size of the images.

        Args:
            x: the last map, as :meth:`forward_features` returns it.
            pre_logits: whether what the classifier reads is returned instead, ``(N, num_features)``; for dense inputs
                the map.
        """
        return self._head(States(x, tuple(self.widths)), pre_logits)

    def _head(self, states: States, pre_logits: bool = False) -> Tensor:
        x = self.dropout(states.x if self.dense else states.x.mean((2, 3), keepdim=True))
        if pre_logits:
            return x if self.dense else x.flatten(1)
        return classified(self.classifier, x, self.dense, states.names)

    # -- for other uses ----------------------------------------------------------------------------------------------

    @property
    def dense(self) -> bool:
        """Whether outputs are logits for every pixel of the images."""
        return bool(self.inputs.get("dense"))

    @property
    def feature_info(self) -> list[Map]:
        """The last map of each stage: the one before the resolution falls, and what the last layer puts out."""
        falls = [a for a, b in itertools.pairwise(self.maps) if b.stride > a.stride]
        return [*falls, self.maps[-1]]

    def reset_classifier(self, num_classes: int) -> None:
        """Puts a new classifier, with new weights, in the place of the old one, and in the auxiliary head too.

        Args:
            num_classes: the number of outputs; with 0 there is no classifier, and outputs are the pooled features
                ``(N, num_features)``, for dense inputs the last map at the size of the images.

        Raises:
            SettingError: if it is negative.
        """
        _check_classes(num_classes, "num_classes")
        self.inputs["num_classes"] = num_classes
        like = next(self.parameters())
        self.classifier = self._new_classifier(num_classes) if num_classes else nn.Identity()
        self.classifier.to(like.device, like.dtype)
        self.lay_out()
        if isinstance(self.auxiliary, AuxiliaryHead):
            self.auxiliary.reset_classifier(num_classes)

    def drops(self, drop_path: DropPath, depth: float, skip_dropout: float = 0.0) -> Drops:
        """What is dropped at a relative depth; nothing unless the network is in training."""
        if not self.training:
            return Drops()
        return Drops(drop_path(depth) if callable(drop_path) else drop_path, skip_dropout)

    def example(self, batch_size: int = 1) -> Tensor:
        """Images of zeros, ``(batch_size, channels, H, W)``, of the size that the network was built for."""
        size = self.inputs["image_size"]
        return next(self.parameters()).new_zeros(batch_size, self.inputs["channels"], size, size)


def classified(classifier: nn.Module, x: Tensor, dense: bool, names: Sequence[str] | None = None) -> Tensor:
    """Logits of a map for every pixel where ``dense``, else of a pooled map.

    Args:
        classifier: the network's own, or whatever has taken its place: a linear layer is applied to each pixel, and any
            other module reads the map, or the features ``(N, C)`` that are pooled.
        x: the map ``(N, C, H, W)``, or ``(N, C, 1, 1)`` of features that are pooled.
        dense: whether the logits are those of every pixel.
        names: the states that lie side by side in the map; None: all.

    Returns:
        ``(N, num_classes, H, W)`` or ``(N, num_classes)``.
    """
    if isinstance(classifier, Pointwise):
        logits = classifier(x, names)
        return logits if dense else logits.flatten(1)
    if not dense:
        return classifier(x.flatten(1))
    if isinstance(classifier, nn.Linear):
        return classifier(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
    return classifier(x)


def _check_classes(num_classes: int, field: str) -> None:
    if num_classes < 0:
        raise SettingError(f"{field}: 1 or more, or 0 for features without a classifier, got {num_classes}")


def cifar_stem(channels_in: int, channels: int) -> nn.Sequential:
    """The stem of networks for small images: a 3×3 convolution and BatchNorm at full resolution."""
    return nn.Sequential(nn.Conv2d(channels_in, channels, 3, padding=1, bias=False), BatchNorm(channels))


class ImageNetStem(nn.Module):
    """Three 3×3 convolutions of stride 2; the last two results, at a quarter and an eighth, are the cells' inputs."""

    def __init__(self, channels_in: int, channels: int) -> None:
        super().__init__()
        self.first = nn.Sequential(
            nn.Conv2d(channels_in, channels // 2, 3, stride=2, padding=1, bias=False),
            BatchNorm(channels // 2),
            nn.ReLU(),
            nn.Conv2d(channels // 2, channels, 3, stride=2, padding=1, bias=False),
            BatchNorm(channels),
        )
        self.second = nn.Sequential(
            nn.ReLU(),
            nn.Conv2d(channels, channels, 3, stride=2, padding=1, bias=False),
            BatchNorm(channels),
        )

    def forward(self, x: Tensor) -> list[Tensor]:
        first = self.first(x)
        return [first, self.second(first)]


class AuxiliaryHead(nn.Module):
    """ReLU, 5×5 average pool, 1×1 to 128, 2×2 to 768, linear.

    Differs from the released code: maps larger than its 8×8 (ImageNet: 7×7) are averaged at the end, and the ImageNet
    head keeps its second BatchNorm.

    Args:
        widths: channels of each state that can be in what it reads, by name.
        size: the side in pixels of the feature maps that it reads.
        num_classes: the number of classes of the data.
        pool_stride: the stride of the average pool; 3 for CIFAR, 2 for ImageNet.
        bias: whether the linear layer has one.
        dense: whether it classifies every pixel of its last map rather than their mean.
    """

    def __init__(
        self,
        widths: Mapping[str, int],
        size: int,
        num_classes: int,
        pool_stride: int = 3,
        bias: bool = True,
        dense: bool = False,
    ) -> None:
        super().__init__()
        least = 5 + pool_stride  # the pool has to leave 2×2
        if size < least:
            raise SettingError(
                f"network.auxiliary: the auxiliary head reads feature maps of at least {least}×{least}, here "
                f"they are {size}×{size}; set it to false or take larger images"
            )
        self.pool = nn.Sequential(nn.ReLU(), nn.AvgPool2d(5, pool_stride))
        self.reduce = Pointwise(widths, 128)
        self.features = nn.Sequential(
            BatchNorm(128),
            nn.ReLU(),
            nn.Conv2d(128, 768, 2, bias=False),
            BatchNorm(768),
            nn.ReLU(),
        )
        self.dense, self._new_classifier = dense, partial(nn.Linear, 768, bias=bias)
        self.reset_classifier(num_classes)

    def reset_classifier(self, num_classes: int) -> None:
        """Puts a new linear layer in the place of the old one; none for 0 classes."""
        like = next(self.parameters())
        self.classifier = self._new_classifier(num_classes) if num_classes else nn.Identity()
        self.classifier.to(like.device, like.dtype)

    def forward(self, states: States) -> Tensor:
        reduced = self.features(self.reduce(self.pool(states.x), states.names))
        return classified(self.classifier, reduced if self.dense else reduced.mean((2, 3), keepdim=True), self.dense)
