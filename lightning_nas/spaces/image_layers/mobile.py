"""The space of ProxylessNAS (Cai, Zhu, Han 2019): a chain of MBConv layers."""

from collections.abc import Sequence

from torch import Tensor, nn

from lightning_nas.errors import SettingError
from lightning_nas.operations import drop_path
from lightning_nas.operations.mobile import ConvReLU6, MBConv
from lightning_nas.spaces.base import Choice, Resolved
from lightning_nas.spaces.cells import Form, check_form
from lightning_nas.spaces.image_layers.chain import (
    ChainNetwork,
    LayerChain,
    Place,
    check_ends,
    check_options,
    places,
    zeros,
)
from lightning_nas.spaces.sums import add_weighted

OPERATIONS = {
    f"mbconv{expansion}_{kernel}x{kernel}": (kernel, expansion) for kernel in (3, 5, 7) for expansion in (3, 6)
}
"""The six MBConv layers with their kernels and expansions, in the order of the released code."""


class ProxylessMobile(LayerChain):
    """An MBConv layer for each of 21 blocks: a kernel of 3, 5 or 7, and a middle 3 or 6 times as wide as the input.

    A block that keeps the shape has a shortcut around it, and may be ``zero`` too: then the shortcut alone is left. All
    widths are the space's, since they say which blocks keep the shape.

    Args:
        first: widths of the 3×3 convolution that reads the images, and of the fixed 3×3 MBConv of expansion 1 after it.
        widths: the number of channels of each stage.
        blocks: the number of blocks in each stage.
        strides: the stride of each stage's first block.
        stem_stride: the stride of the convolution that reads the images. With 1 here, and in early stages, the network
            suits small images.
        last: the width of the 1×1 convolution before the classifier.
        operations: the MBConv layers to choose from.
    """

    usual_inputs = {"channels": 3, "image_size": 224, "num_classes": 1000}  # noqa: RUF012

    def __init__(
        self,
        first: Sequence[int] = (32, 16),
        widths: Sequence[int] = (24, 40, 80, 96, 192, 320),
        blocks: Sequence[int] = (4, 4, 4, 4, 4, 1),
        strides: Sequence[int] = (2, 2, 2, 1, 2, 1),
        stem_stride: int = 2,
        last: int = 1280,
        operations: Sequence[str] = tuple(OPERATIONS),
    ) -> None:
        if len(first) != 2 or min(first) < 1:
            raise SettingError(f"first: two widths, each 1 or more, got {list(first)}")
        check_ends(stem_stride, last)
        check_options(operations, OPERATIONS)
        self.first, self.stem_stride, self.last = tuple(first), stem_stride, last
        found = places(first[1], widths, blocks, strides)
        super().__init__(
            found,
            [
                Choice(place.name, (*operations, *(["zero"] if place.keeps_shape else [])), str(number))
                for number, place in enumerate(found, start=1)
            ],
        )

    def operation(self, word: str) -> str:
        """``kernel/expansion`` and ``z``, as in the released configurations, besides the names themselves."""
        kernel, _, expansion = word.partition("/")
        return "zero" if word == "z" else f"mbconv{expansion}_{kernel}x{kernel}" if expansion else word

    def network(  # type: ignore[override]  # each space names the settings of its own network
        self, inputs: dict[str, int], form: Form = "search", dropout: float = 0.0
    ) -> ChainNetwork:
        """A convolution, a fixed MBConv, the chosen layers, a 1×1 convolution, all with ReLU6, and a linear layer.

        Search and final form are the same: BatchNorms learn scale and shift in both. A block's shortcut is outside of
        its choice: under weights a block is ``x + Σ w o(x)``. Drop-path drops what is beside a shortcut.

        Differs from the released code: weights begin as PyTorch's layers have them.

        Args:
            inputs: ``channels``, ``image_size`` and ``num_classes`` of the data.
            form: the form of the network, ``search`` or ``final``.
            dropout: probability to drop a feature before the classifier. ProxylessNAS: 0 in the search, 0.1 to 0.3 in
                the final networks.
        """
        check_form(form)
        wide, narrow = self.first

        def stem(channels: int) -> nn.Module:
            return nn.Sequential(ConvReLU6(channels, wide, 3, self.stem_stride), MBConv(wide, narrow, 3, 1, stride=1))

        layers = {p.name: MobileLayer(p, c) for p, c in zip(self.places, self.choices, strict=True)}
        top = ConvReLU6(self.places[-1].channels_out, self.last, 1)
        return ChainNetwork(self, inputs, stem, layers, top, self.last, dropout, bias=True)


class MobileLayer(nn.Module):
    """The MBConv layers of a choice, and the shortcut around them where the block keeps the shape.

    Args:
        place: where the layer stands.
        choice: whose options are built.
    """

    def __init__(self, place: Place, choice: Choice) -> None:
        super().__init__()
        self.place = place
        self.operations = nn.ModuleDict(
            {
                option: MBConv(place.channels_in, place.channels_out, *OPERATIONS[option], place.stride)
                for option in choice.options
                if option != "zero"
            }
        )

    def forward(self, x: Tensor, gates: Resolved, probability: float) -> Tensor:
        total = x if self.place.keeps_shape else None
        for option, weight in gates[self.place.name]:
            if option == "zero":
                continue
            term = self.operations[option](x, weight)
            total = add_weighted(total, drop_path(term, probability) if self.place.keeps_shape else term)
        return zeros(x, self.place) if total is None else total
