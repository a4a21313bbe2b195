"""Chains of layers for images: what is common to spaces that choose an operation for every layer."""

import dataclasses
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import partial

from torch import Tensor, nn

from lightning_nas.errors import SettingError
from lightning_nas.operations.layout import laid_out
from lightning_nas.spaces.base import Architecture, Choice, Resolved, Space
from lightning_nas.spaces.cells import Drops, States
from lightning_nas.spaces.graphs import Graph
from lightning_nas.spaces.image_networks import ImageNetwork, Map


@dataclasses.dataclass(frozen=True)
class Place:
    """Where a layer stands.

    Attributes:
        name: the name of the layer's choice.
        stage: the number of its stage, from 0.
        channels_in: the number of channels that the layer reads.
        channels_out: the number of channels that the layer puts out.
        stride: the stride of the layer.
        first: whether it is the first of its stage.
    """

    name: str
    stage: int
    channels_in: int
    channels_out: int
    stride: int
    first: bool

    @property
    def keeps_shape(self) -> bool:
        """Whether what it puts out has the shape of what it reads."""
        return self.channels_in == self.channels_out and self.stride == 1


def places(channels_in: int, widths: Sequence[int], blocks: Sequence[int], strides: Sequence[int]) -> tuple[Place, ...]:
    """The places of all layers, stage by stage. The first layer of a stage changes width and resolution.

    Args:
        channels_in: the number of channels that the first stage reads.
        widths: the number of channels of each stage.
        blocks: the number of layers in each stage.
        strides: the stride of each stage's first layer.

    Raises:
        SettingError: if the lists differ in length or have a number that is out of range.
    """
    if not len(widths) == len(blocks) == len(strides) > 0:
        raise SettingError(
            f"widths, blocks, strides: one number for each stage, got {len(widths)}, {len(blocks)} and {len(strides)}"
        )
    for field, numbers in (("widths", (channels_in, *widths)), ("blocks", blocks)):
        if min(numbers) < 1:
            raise SettingError(f"{field}: each 1 or more, got {list(numbers)}")
    if not set(strides) <= {1, 2}:
        raise SettingError(f"strides: each 1 or 2, got {list(strides)}")
    found: list[Place] = []
    for stage, (width, number, stride) in enumerate(zip(widths, blocks, strides, strict=True)):
        for k in range(number):
            name, read = f"block_{len(found) + 1}", found[-1].channels_out if found else channels_in
            found.append(Place(name, stage, read, width, 1 if k else stride, first=k == 0))
    return tuple(found)


def check_ends(stem_stride: int, last: int) -> None:
    if stem_stride not in (1, 2):
        raise SettingError(f"stem_stride: 1 or 2, got {stem_stride}")
    if last < 1:
        raise SettingError(f"last: 1 or more channels, got {last}")


def check_options(operations: Sequence[str], known: Collection[str]) -> None:
    if not operations or not set(operations) <= set(known):
        raise SettingError(f"operations: some of {', '.join(known)}; got {list(operations)}")


class LayerChain(Space):
    """A choice of an operation for every layer, ``block_1``, ``block_2``, …; all combinations are legal.

    Args:
        places: where the layers stand.
        choices: those of each layer after the other. A layer's operation, named as its place, comes first.

    Attributes:
        stem_stride: the stride of what the images go through before the layers.
    """

    stem_stride: int

    def __init__(self, places: Sequence[Place], choices: Sequence[Choice]) -> None:
        self.places = tuple(places)
        super().__init__(choices)

    def describe(self, architecture: Architecture) -> str:
        """The layers' operations, with a stroke between stages; after a colon what else is chosen."""
        stages: dict[int, list[str]] = {}
        for place, words in zip(self.places, self._words(architecture), strict=True):
            stages.setdefault(place.stage, []).append(":".join(words))
        return " | ".join(" ".join(stage) for stage in stages.values())

    def from_genotype(self, text: str) -> Architecture:
        """The inverse of :meth:`describe`; strokes may be left out, and operations be written as the paper does.

        Raises:
            SettingError: where the text is not a network of this space.
        """
        layers = text.replace("|", " ").split()
        if len(layers) != len(self.places):
            raise SettingError(f"expected {len(self.places)} operations, one for each block; got {len(layers)}")
        names: dict[str, str] = {}
        for number, layer in enumerate(layers, start=1):
            choices = [choice.name for choice in self.choices if choice.node == str(number)]
            operation, *others = layer.split(":")
            if len(others) != len(choices) - 1:
                raise SettingError(f"block {number}: expected {len(choices)} words with colons, got {layer[:80]!r}")
            names |= dict(zip(choices, [self.operation(operation), *others], strict=True))
        return self.from_names(names)

    def operation(self, word: str) -> str:
        """The name of the operation that a paper's notation calls by this word."""
        return word

    def graph(self, architecture: Architecture) -> dict[str, Graph]:
        label = ["stem", *(str(number) for number in range(1, len(self.places) + 1)), "output"]
        operations = [" ".join(words) for words in self._words(architecture)]
        return {"network": Graph.of(zip(label, label[1:], [*operations, ""], strict=False))}

    def _words(self, architecture: Architecture) -> list[list[str]]:
        """For each layer the options that are chosen."""
        words: dict[str, list[str]] = {}
        for choice, option in zip(self.choices, self.to_names(architecture).values(), strict=True):
            words.setdefault(choice.node, []).append(option)
        return list(words.values())


class ChainNetwork(ImageNetwork):
    """Stem, layers, a convolution on top, global average pool, dropout, linear.

    Args:
        space: whose choices are built.
        inputs: ``channels``, ``image_size`` and ``num_classes`` of the data.
        stem: builds what the images go through first, from the number of their channels.
        layers: the layers by the names of their choices; each is called with a state, what runs of all choices, and
            the probability of drop-path.
        top: what the last layer's result goes through.
        width: the number of channels of the top.
        dropout: probability to drop a feature before the classifier.
        bias: whether the classifier has one.
    """

    head_names = ("top", *ImageNetwork.head_names)

    def __init__(
        self,
        space: LayerChain,
        inputs: dict[str, int],
        stem: Callable[[int], nn.Module],
        layers: Mapping[str, nn.Module],
        top: nn.Module,
        width: int,
        dropout: float,
        bias: bool,
    ) -> None:
        super().__init__(space, inputs)
        if not 0 <= dropout < 1:
            raise SettingError(f"network.dropout: at least 0 and below 1, got {dropout}")
        self.stem = stem(inputs["channels"])
        self.layers = nn.ModuleDict(layers)
        stride = space.stem_stride
        self.maps.append(Map("stem", space.places[0].channels_in, stride))
        for place in space.places:
            stride *= place.stride
            self.maps.append(Map(f"layers.{place.name}", place.channels_out, stride))
        self.top = top
        self.build_classifier({"top": width}, partial(nn.Linear, width, bias=bias), dropout)

    def layers_of(self, x: Tensor, resolved: Resolved, drops: Callable[[float], Drops]) -> Iterator[tuple[str, States]]:
        x = self.stem(laid_out(x))
        yield "stem", States(x, ("layer",))
        for number, (name, layer) in enumerate(self.layers.items(), start=1):
            x = layer(x, resolved, drops(number / len(self.layers)).path)
            yield f"layers.{name}", States(x, ("layer",))

    def last_map(self, states: States) -> States:
        return States(self.top(states.x), ("top",))


def zeros(x: Tensor, place: Place) -> Tensor:
    """What a layer puts out when none of its operations runs; ``x`` is what it reads."""
    n, _, height, width = x.shape
    return x.new_zeros(n, place.channels_out, -(-height // place.stride), -(-width // place.stride))
