"""The shell around a stack of cells: what it expects of a cell, and the spaces whose networks are such stacks."""

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Literal, get_args

from torch import Tensor, nn

from lightning_nas.errors import SettingError
from lightning_nas.operations import FactorizedReduce, Pointwise, ReLUConvBN
from lightning_nas.operations.layout import laid_out
from lightning_nas.spaces.base import Choice, DropPath, Gates, Resolved, Space
from lightning_nas.spaces.cells import Drops, Form, States, check_form, check_operations
from lightning_nas.spaces.image_networks import AuxiliaryHead, ImageNetStem, ImageNetwork, Map, cifar_stem

Stem = Literal["cifar", "imagenet"]

Kind = Literal["normal", "reduce"]


class Cell(nn.Module):
    """What the shell expects of a cell.

    A cell reads the outputs of the two cells before it; a reduction cell halves the resolution.

    Attributes:
        widths: channels of each state that can be in its output, by name.
    """

    widths: dict[str, int]

    def forward(self, s0: States, s1: States, gates: Resolved, drops: Drops) -> States:
        raise NotImplementedError


@dataclasses.dataclass(frozen=True)
class Place:
    """Where a cell stands.

    Attributes:
        kind: the kind of the cell, ``normal`` or ``reduce``.
        before_last, last: widths of the outputs of the two cells before.
        channels: the number of channels of the cell.
        after_reduction: whether the cell before was a reduction.
    """

    kind: str
    before_last: Mapping[str, int]
    last: Mapping[str, int]
    channels: int
    after_reduction: bool


class Preprocess(nn.Module):
    """Brings the two inputs of a cell to the cell's width, and the first to its resolution where the cell before was a
    reduction."""

    def __init__(self, place: Place, affine: bool) -> None:
        super().__init__()
        first = FactorizedReduce if place.after_reduction else ReLUConvBN
        self.before_last = first(place.before_last, place.channels, affine)
        self.last = ReLUConvBN(place.last, place.channels, affine)

    def forward(self, s0: States, s1: States) -> list[Tensor]:
        return [self.before_last(s0.x, s0.names), self.last(s1.x, s1.names)]


class CellNetwork(ImageNetwork):
    """Stem, cells, global average pool, linear (Liu et al. 2019, released code; Zoph et al. 2018 for the idea).

    Reduction cells stand at a third and at two thirds of the depth and double the channels.

    Args:
        space: whose choices are built. With one kind of cell, ``normal``, there are no reductions.
        inputs: ``channels``, ``image_size`` (pixels) and ``num_classes`` of the data.
        build_cell: makes the cell for a place.
        channels: width C of the first cells.
        cells: the number L of cells.
        stem: ``cifar`` keeps the resolution, ``imagenet`` divides it by 8.
        auxiliary: a second classifier after the cell at two thirds of the depth, used in training only.

    Raises:
        ValueError: if a setting does not fit another one or the data; it names the field.
    """

    def __init__(
        self,
        space: Space,
        inputs: dict[str, int],
        build_cell: Callable[[Place], Cell],
        channels: int,
        cells: int,
        stem: Stem,
        auxiliary: bool,
        kinds: tuple[str, ...],
    ) -> None:
        super().__init__(space, inputs)
        if channels < 2 or channels % 2:
            raise SettingError(f"network.channels: an even number, since it is divided by two; got {channels}")
        if stem not in get_args(Stem):
            raise SettingError(f"network.stem: {' or '.join(get_args(Stem))}, got {stem!r}")
        if cells < 1:
            raise SettingError(f"network.cells: at least 1, got {cells}")
        reductions = {cells // 3, 2 * cells // 3} if "reduce" in kinds else set()
        auxiliary_after = 2 * cells // 3
        self.stem: nn.Module
        if stem == "cifar":
            self.stem = cifar_stem(inputs["channels"], 3 * channels)
            self.maps.append(Map("stem", 3 * channels, 1))
        else:
            self.stem = ImageNetStem(inputs["channels"], channels)
            self.maps += [Map("stem.first", channels, 4), Map("stem.second", channels, 8)]
        _, width, stride = self.maps[-1]
        before_last = last = {"stem": width}
        after_reduction = stem == "imagenet"
        self.cells = nn.ModuleList()
        own, size, read = channels, 0, last
        for k in range(cells):
            reduce = k in reductions
            own, stride = (2 * own, 2 * stride) if reduce else (own, stride)
            cell = build_cell(Place("reduce" if reduce else "normal", before_last, last, own, after_reduction))
            self.cells.append(cell)
            before_last, last, after_reduction = last, cell.widths, reduce
            self.maps.append(Map(f"cells.{k}", sum(last.values()), stride))
            if k == auxiliary_after:
                size, read = -(-inputs["image_size"] // stride), last  # every halving rounds up
        if auxiliary:
            self.auxiliary_reads, pool_stride = f"cells.{auxiliary_after}", 3 if stem == "cifar" else 2
            self.auxiliary = AuxiliaryHead(read, size, inputs["num_classes"], pool_stride, dense=self.dense)
        self.build_classifier(last, partial(Pointwise, last, bias=True))

    def forward(
        self, x: Tensor, gates: Gates | None = None, drop_path: DropPath = 0.0, skip_dropout: float = 0.0
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Class logits, as :meth:`ImageNetwork.forward` has them.

        Args:
            x: a batch of images, ``(N, C, H, W)``, of any size.
            gates: how each choice is taken; None where the space has one architecture.
            drop_path: probability to drop an operation's output for a sample, in training.
            skip_dropout: probability to drop a value that an identity passes on, in training (Chen et al. 2019).
        """
        return self.run(x, gates, partial(self.drops, drop_path, skip_dropout=skip_dropout))

    def layers_of(self, x: Tensor, resolved: Resolved, drops: Callable[[float], Drops]) -> Iterator[tuple[str, States]]:
        x = laid_out(x)
        if isinstance(self.stem, ImageNetStem):
            s0, s1 = (States(output, ("stem",)) for output in self.stem(x))
            yield "stem.first", s0
            yield "stem.second", s1
        else:
            s0 = s1 = States(self.stem(x), ("stem",))
            yield "stem", s1
        for k, cell in enumerate(self.cells):
            s0, s1 = s1, cell(s0, s1, resolved, drops((k + 1) / len(self.cells)))
            yield f"cells.{k}", s1


class CellSpace(Space):
    """Cells of numbered nodes, stacked to a network. States 0 and 1 of a cell are the outputs of the two before it.

    A subclass says what there is to choose at a node and builds a cell.
    """

    def __init__(self, kinds: Sequence[Kind], nodes: int, operations: Sequence[str]) -> None:
        if tuple(kinds) not in {("normal", "reduce"), ("normal",)}:
            raise SettingError(f"kinds: [normal, reduce] or [normal], got {list(kinds)}")
        if not 1 <= nodes <= 16:
            raise SettingError(f"nodes: between 1 and 16, got {nodes}")
        check_operations(operations)
        self.kinds = tuple(kinds)
        self.nodes = nodes
        super().__init__(
            choice
            for kind in kinds
            for node in range(2, nodes + 2)
            for choice in self.node_choices(kind, node, operations)
        )

    def node_choices(self, kind: Kind, node: int, operations: Sequence[str]) -> Iterable[Choice]:
        """The choices of a node, in the order in which they are made."""
        raise NotImplementedError

    def cell(self, choices: Sequence[Choice], place: Place, affine: bool) -> Cell:
        """A cell with these of the space's choices."""
        raise NotImplementedError

    def network(  # type: ignore[override]  # each space names the settings of its own network
        self,
        inputs: dict[str, int],
        channels: int = 16,
        cells: int = 8,
        form: Form = "search",
        stem: Stem = "cifar",
        auxiliary: bool = False,
    ) -> CellNetwork:
        """A stack of cells; see :class:`CellNetwork`.

        Args:
            inputs: ``channels``, ``image_size`` and ``num_classes`` of the data.
            channels: width of the first cells, an even number.
            cells: the number of cells in the network.
            form: ``search``: BatchNorm without scale and shift; ``final``: the network to train and report.
            stem: ``cifar`` keeps the images' resolution, ``imagenet`` divides it by 8.
            auxiliary: a second classifier at two thirds of the depth, in training.
        """
        return self.stack(inputs, channels, cells, form, stem, auxiliary)

    def stack(
        self,
        inputs: dict[str, int],
        channels: int,
        cells: int,
        form: Form,
        stem: Stem,
        auxiliary: bool,
        **of_cells: Any,
    ) -> CellNetwork:
        """The network; ``of_cells`` are settings that :meth:`cell` takes beyond those here."""
        check_form(form)

        def build_cell(place: Place) -> Cell:
            choices = [choice for choice in self.choices if choice.cell == place.kind]
            return self.cell(choices, place, form == "final", **of_cells)

        return CellNetwork(self, inputs, build_cell, channels, cells, stem, auxiliary, self.kinds)
