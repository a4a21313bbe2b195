"""The space of SPOS, single path one-shot (Guo et al. 2020): a chain of shuffle blocks."""

from collections.abc import Sequence

from torch import Tensor, nn

from lightning_nas.errors import SettingError
from lightning_nas.operations.normalization import BatchNorm
from lightning_nas.operations.shuffle import ShuffleBlock
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

OPERATIONS = {"shuffle_3x3": 3, "shuffle_5x5": 5, "shuffle_7x7": 7, "shuffle_x": 3}
"""The four blocks with their kernels, in the order in which the released code numbers them. ``shuffle_x`` is the one
whose main branch is Xception's."""


class ShuffleBlocks(LayerChain):
    """One of four shuffle blocks for each of 20 layers, and if there are several ``scales``, the width of its middle.

    Besides ``block_1``, ``block_2``, … there are the choices ``scale_1``, ``scale_2``, … then. Their options share
    weights: a narrower middle has the first channels of the widest one. So they cannot be mixed by weights.

    Args:
        first: the width of the 3×3 convolution that reads the images.
        widths: the number of channels of each stage, even, and larger than what the stage reads.
        blocks: the number of blocks in each stage.
        strides: the stride of each stage's first block.
        stem_stride: the stride of the convolution that reads the images. With 1 here, and in early stages, the network
            suits small images.
        last: the width of the 1×1 convolution before the classifier.
        operations: the blocks to choose from.
        scales: widths of a block's middle, relative to half of what the block puts out. The released code searches
            among 0.2, 0.4, … 1.6, the paper up to 2.
    """

    usual_inputs = {"channels": 3, "image_size": 224, "num_classes": 1000}  # noqa: RUF012

    def __init__(
        self,
        first: int = 16,
        widths: Sequence[int] = (64, 160, 320, 640),
        blocks: Sequence[int] = (4, 4, 8, 4),
        strides: Sequence[int] = (2, 2, 2, 2),
        stem_stride: int = 2,
        last: int = 1024,
        operations: Sequence[str] = tuple(OPERATIONS),
        scales: Sequence[float] = (1.0,),
    ) -> None:
        check_ends(stem_stride, last)
        check_options(operations, OPERATIONS)
        found = places(first, widths, blocks, strides)
        for place in found:
            if place.channels_out % 2 or (place.first and place.channels_out <= place.channels_in):
                raise SettingError(f"widths: even, and each larger than the one before, got {[first, *widths]}")
        if not scales or len(set(scales)) < len(scales) or not all(0 < scale <= 100 for scale in scales):
            raise SettingError(f"scales: at least one, all different and from above 0 to 100, got {list(scales)}")
        if _middle(min(widths), min(scales)) < 1:
            raise SettingError(f"scales: the smallest, {min(scales)}, leaves no channel in a block {min(widths)} wide")
        self.first, self.stem_stride, self.last, self.scales = first, stem_stride, last, tuple(scales)
        super().__init__(found, [choice for place in found for choice in self._choices(place, operations)])

    def _choices(self, place: Place, operations: Sequence[str]) -> list[Choice]:
        node = place.name.removeprefix("block_")
        block = Choice(place.name, tuple(operations), node)
        if len(self.scales) == 1:
            return [block]
        percent = tuple(f"{100 * scale:g}%" for scale in self.scales)
        return [block, Choice(f"scale_{node}", percent, node, "value", values=self.scales, relaxable=False)]

    def operation(self, word: str) -> str:
        """The numbers of the released code, besides the names themselves."""
        return list(OPERATIONS)[int(word)] if word in ("0", "1", "2", "3") else word

    def network(  # type: ignore[override]  # each space names the settings of its own network
        self, inputs: dict[str, int], form: Form = "search", dropout: float = 0.1
    ) -> ChainNetwork:
        """A convolution, the chosen blocks, a 1×1 convolution, and a linear layer without bias.

        Drop-path, which SPOS does not use, drops the main branch of blocks that keep the shape.

        Differs from the released code: weights begin as PyTorch's layers have them.

        Args:
            inputs: ``channels``, ``image_size`` and ``num_classes`` of the data.
            form: the form of the network, ``search`` or ``final``; the BatchNorms learn scale and shift in the latter.
            dropout: probability to drop a feature before the classifier.
        """
        check_form(form)
        affine = form == "final"
        choices = {choice.name: choice for choice in self.choices}
        layers = {}
        for place in self.places:
            scales = choices.get(place.name.replace("block", "scale"))
            layers[place.name] = ShuffleLayer(place, choices[place.name], scales, self.scales[0], affine)

        def stem(channels: int) -> nn.Module:
            return _convolution(channels, self.first, 3, self.stem_stride, affine)

        top = _convolution(self.places[-1].channels_out, self.last, 1, 1, affine)
        return ChainNetwork(self, inputs, stem, layers, top, self.last, dropout, bias=False)


class ShuffleLayer(nn.Module):
    """The blocks of a choice.

    Args:
        place: where the layer stands.
        choice: whose options are built.
        scales: the choice of the middle's width; None: there is none.
        scale: the relative width of the middle where there is no choice of it.
        affine: whether the BatchNorms learn scale and shift.
    """

    def __init__(self, place: Place, choice: Choice, scales: Choice | None, scale: float, affine: bool) -> None:
        super().__init__()
        self.place, self.scale = place, scales.name if scales else None
        options = dict(zip(scales.options, scales.values, strict=True)) if scales else {"": scale}
        self.middles = {option: _middle(place.channels_out, value) for option, value in options.items()}
        middle = max(self.middles.values())
        width_in, width_out, stride, first = place.channels_in, place.channels_out, place.stride, place.first
        self.operations = nn.ModuleDict(
            {
                option: ShuffleBlock(
                    width_in, width_out, middle, OPERATIONS[option], stride, first, affine, option == "shuffle_x"
                )
                for option in choice.options
            }
        )

    def forward(self, x: Tensor, gates: Resolved, probability: float) -> Tensor:
        ((scale, _),) = gates[self.scale] if self.scale else [("", None)]
        total = None
        for option, weight in gates[self.place.name]:
            term = self.operations[option](x, self.middles[scale], probability)
            total = add_weighted(total, term, weight)
        return zeros(x, self.place) if total is None else total


def _middle(channels_out: int, scale: float) -> int:
    return int(channels_out // 2 * scale + 1e-6)  # 1.4 times 160 may be a little less than 224


def _convolution(channels_in: int, channels_out: int, kernel: int, stride: int, affine: bool) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels_in, channels_out, kernel, stride, kernel // 2, bias=False),
        BatchNorm(channels_out, affine=affine),
        nn.ReLU(inplace=True),
    )
