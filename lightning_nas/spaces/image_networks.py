"""What networks of images share: their inputs, drop-path by depth, stems and the auxiliary head."""

from collections.abc import Mapping

from torch import Tensor, nn

from lightning_nas.errors import SettingError
from lightning_nas.operations import Pointwise
from lightning_nas.operations.layout import LaidOut
from lightning_nas.operations.normalization import BatchNorm
from lightning_nas.spaces.base import DropPath, Network, Space
from lightning_nas.spaces.cells import Drops, States


class ImageNetwork(LaidOut, Network):
    """What a network of images knows of them, and how far each of its parts is dropped.

    Args:
        space: whose choices are built.
        inputs: ``channels``, ``image_size`` (pixels) and ``num_classes`` of the data.

    Raises:
        SettingError: if one of the inputs is missing.
    """

    def __init__(self, space: Space, inputs: dict[str, int]) -> None:
        super().__init__()
        for field in ("channels", "image_size", "num_classes"):
            if field not in inputs:
                raise SettingError(f"inputs.{field}: missing; a network of images needs it")
        self.space = space
        self.inputs = dict(inputs)

    def drops(self, drop_path: DropPath, depth: float, skip_dropout: float = 0.0) -> Drops:
        """What is dropped at a relative depth; nothing unless the network is in training."""
        if not self.training:
            return Drops()
        return Drops(drop_path(depth) if callable(drop_path) else drop_path, skip_dropout)

    def example(self, batch_size: int = 1) -> Tensor:
        """Images of zeros, ``(batch_size, channels, H, W)``, of the size that the network was built for."""
        size = self.inputs["image_size"]
        return next(self.parameters()).new_zeros(batch_size, self.inputs["channels"], size, size)


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
    """

    def __init__(
        self, widths: Mapping[str, int], size: int, num_classes: int, pool_stride: int = 3, bias: bool = True
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
        self.classifier = nn.Linear(768, num_classes, bias=bias)

    def forward(self, states: States) -> Tensor:
        reduced = self.reduce(self.pool(states.x), states.names)
        return self.classifier(self.features(reduced).mean((2, 3)))
