"""What networks of cells are made of: candidate operations on states, and the shell around a stack of cells."""

import dataclasses
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, ClassVar, Literal, get_args

import torch
from torch import Tensor, nn

from lightning_nas.errors import SettingError
from lightning_nas.operations import OPERATIONS, FactorizedReduce, Operation, Pointwise, ReLUConvBN, drop_path
from lightning_nas.spaces.base import Choice, DropPath, Gates, Network, Resolved, Space

Form = Literal["search", "final"]
"""``search``: BatchNorm without scale and shift, pools normalised. ``final``: the network to train and report."""

Stem = Literal["cifar", "imagenet"]

Kind = Literal["normal", "reduce"]


def check_form(form: str) -> None:
    if form not in get_args(Form):
        raise SettingError(f"form: {' or '.join(get_args(Form))}, got {form!r}")


def check_operations(operations: Sequence[str]) -> None:
    for operation in operations:
        if operation not in OPERATIONS:
            raise SettingError(f"space.operations: no operation {operation!r}; there are {', '.join(OPERATIONS)}")


# -- inside a cell -----------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class States:
    """States side by side: ``x`` is ``(N, channels of all, H, W)``, ``names`` says whose channels follow each other."""

    x: Tensor
    names: tuple[str, ...]


Seen = dict[tuple[int, str], Any]
"""The views computed so far in one forward pass of a cell, by source and name."""


class Candidates(nn.Module):
    """The operations of a cell. ReLU, pooling and the pools' BatchNorm are the same tensor for all operations that read
    a state, so they are computed once, and only if an operation that runs reads them.

    Args:
        channels: of every state.
        strided: the states that are read with stride 2.
        affine: whether BatchNorms learn scale and shift.
    """

    operations: ClassVar[Mapping[str, Operation | None]] = OPERATIONS

    def __init__(self, channels: int, strided: Collection[int], affine: bool) -> None:
        super().__init__()
        self.channels, self.strided, self.affine = channels, strided, affine
        self.views = nn.ModuleDict()
        self.bodies = nn.ModuleDict()

    def add(self, place: str, source: int, option: str) -> None:
        """Builds an operation that reads ``source``; ``place`` is a name for where its result goes."""
        operation, stride = self.operations[option], self._stride(source)
        if operation is None:
            return
        view = operation.view(stride)
        if f"{source}/{view.name}" not in self.views:
            self.views[f"{source}/{view.name}"] = view.build(self.channels, stride, self.affine)
        body = operation.body(self.channels, stride, self.affine)
        if body is not None:
            self.bodies[f"{place}/{option}"] = body

    def forward(
        self,
        place: str,
        source: int,
        option: str,
        state: Tensor | None,
        seen: Seen,
        probability: float,
        weight: Tensor | None,
    ) -> Tensor | None:
        """One operation's result times its weight; None where the operation is ``none`` or its state is nothing."""
        operation = self.operations[option]
        if operation is None or state is None:
            return None
        view = operation.view(self._stride(source)).name
        if (source, view) not in seen:
            seen[source, view] = self.views[f"{source}/{view}"](state)
        body = f"{place}/{option}"
        out = seen[source, view]
        if body in self.bodies:
            out = self.bodies[body](out, weight=weight)
        elif weight is not None:
            out = weight * out
        return out if view == "state" else drop_path(out, probability)  # the identity is never dropped

    def nothing(self, state: Tensor) -> Tensor:
        """The zeros of a node that nothing flows into; ``state`` is one that nodes read."""
        n, _, height, width = state.shape
        stride = 2 if self.strided else 1
        return state.new_zeros(n, self.channels, -(-height // stride), -(-width // stride))

    def _stride(self, source: int) -> int:
        return 2 if source in self.strided else 1


def plus(total: Tensor | None, term: Tensor | None, weight: Tensor | None = None) -> Tensor | None:
    """``total + weight · term`` where what is not there counts as zero, and a weight as one."""
    if term is None:
        return total
    term = term if weight is None else weight * term
    return term if total is None else total + term


class Node:
    """A sum of terms, which lives for one forward pass."""

    def __init__(self) -> None:
        self._sum: Tensor | None = None
        self._terms = 0

    def add(self, term: Tensor | None) -> None:
        """Adds a term; None counts as zero."""
        if term is None:
            return
        if self._sum is None:
            self._sum = term
        elif self._terms == 1:
            self._sum = self._sum + term  # the first term may be a view, that others read
        else:
            self._sum += term
        self._terms += 1

    def finish(self) -> Tensor | None:
        """The sum, to be read from now on; None where there was no term.

        Its gradient will be dense. A slice of a concatenation's makes the backward pass of BatchNorm several times
        slower.
        """
        if self._sum is not None and self._sum.requires_grad:
            self._sum.register_hook(lambda gradient: gradient.contiguous(memory_format=torch.channels_last))
        return self._sum


class Edges(nn.Module):
    """An operation on every edge between states; a node is the sum of its edges.

    Args:
        choices: one for each edge, with its one source and its node.
        n_inputs: states that are given; the nodes' follow.
    """

    def __init__(
        self, choices: Sequence[Choice], n_inputs: int, channels: int, strided: Collection[int], affine: bool
    ) -> None:
        super().__init__()
        self.candidates = Candidates(channels, strided, affine)
        self.n_nodes = max(choice.state for choice in choices) - n_inputs + 1
        self.leaving: list[list[tuple[str, int]]] = [[] for _ in range(n_inputs + self.n_nodes)]  # (choice, node)
        for choice in choices:
            (source,) = choice.sources
            self.leaving[source].append((choice.name, choice.state))
            for option in choice.options:
                self.candidates.add(choice.name, source, option)

    def forward(self, inputs: Sequence[Tensor], gates: Resolved, probability: float) -> list[Tensor]:
        """The nodes' states."""
        states: list[Tensor | None] = [*inputs]
        nodes = [Node() for _ in range(self.n_nodes)]
        seen: Seen = {}
        # source by source: once all edges that leave a state are done, nobody holds its views any more
        for source, leaving in enumerate(self.leaving):
            if source >= len(inputs):
                states.append(nodes[source - len(inputs)].finish())
            for name, node in leaving:
                for option, weight in gates[name]:
                    term = self.candidates(name, source, option, states[source], seen, probability, weight)
                    nodes[node - len(inputs)].add(term)
            for key in [key for key in seen if key[0] == source]:
                del seen[key]
        return [self.candidates.nothing(inputs[0]) if s is None else s for s in states[len(inputs) :]]


# -- the shell ---------------------------------------------------------------------------------------------------------


class Cell(nn.Module):
    """What the shell expects of a cell.

    A cell reads the outputs of the two cells before it; a reduction cell halves the resolution.

    Attributes:
        widths: channels of each state that can be in its output, by name.
    """

    widths: dict[str, int]

    def forward(self, s0: States, s1: States, gates: Resolved, probability: float) -> States:
        raise NotImplementedError


@dataclasses.dataclass(frozen=True)
class Place:
    """Where a cell stands.

    Attributes:
        kind: ``normal`` or ``reduce``.
        before_last, last: widths of the outputs of the two cells before.
        channels: its own.
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


class CellNetwork(Network):
    """Stem, cells, global average pool, linear (Liu et al. 2019, released code; Zoph et al. 2018 for the idea).

    Reduction cells stand at a third and at two thirds of the depth and double the channels.

    Args:
        space: whose choices are built. With one kind of cell, ``normal``, there are no reductions.
        inputs: ``channels``, ``image_size`` (pixels) and ``num_classes`` of the data.
        build_cell: makes the cell for a place.
        channels: width C of the first cells.
        cells: their number L.
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
        super().__init__()
        if channels < 2 or channels % 2:
            raise SettingError(f"network.channels: an even number, since it is divided by two; got {channels}")
        if stem not in get_args(Stem):
            raise SettingError(f"network.stem: {' or '.join(get_args(Stem))}, got {stem!r}")
        if cells < 1:
            raise SettingError(f"network.cells: at least 1, got {cells}")
        check_image_inputs(inputs)
        self.space = space
        self.inputs = dict(inputs)
        reductions = {cells // 3, 2 * cells // 3} if "reduce" in kinds else set()
        self.auxiliary_after = 2 * cells // 3
        self.stem: nn.Module
        if stem == "cifar":
            width = 3 * channels
            self.stem = nn.Sequential(
                nn.Conv2d(inputs["channels"], width, 3, padding=1, bias=False), nn.BatchNorm2d(width)
            )
        else:
            width = channels
            self.stem = ImageNetStem(inputs["channels"], channels)
        before_last = last = {"stem": width}
        after_reduction = stem == "imagenet"
        resolution = -(-inputs["image_size"] // (8 if stem == "imagenet" else 1))  # every halving rounds up
        self.cells = nn.ModuleList()
        own, size_at_auxiliary, widths_at_auxiliary = channels, 0, last
        for k in range(cells):
            reduce = k in reductions
            own, resolution = (2 * own, (resolution + 1) // 2) if reduce else (own, resolution)
            cell = build_cell(Place("reduce" if reduce else "normal", before_last, last, own, after_reduction))
            self.cells.append(cell)
            before_last, last, after_reduction = last, cell.widths, reduce
            if k == self.auxiliary_after:
                size_at_auxiliary, widths_at_auxiliary = resolution, last
        self.auxiliary: nn.Module | None = None
        if auxiliary:
            pool_stride = 3 if stem == "cifar" else 2
            self.auxiliary = AuxiliaryHead(widths_at_auxiliary, size_at_auxiliary, inputs["num_classes"], pool_stride)
        self.classifier = Pointwise(last, inputs["num_classes"], bias=True)
        self.to(memory_format=torch.channels_last)  # depthwise convolutions are much faster so

    def forward(
        self, x: Tensor, gates: Gates | None = None, drop_path: DropPath = 0.0
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Class logits ``(N, num_classes)`` of images ``(N, channels, H, W)``.

        Args:
            x: images.
            gates: how each choice is taken; None where the space has one architecture.
            drop_path: probability to drop an operation's output for a sample, in training.

        Returns:
            logits; in training with an auxiliary head also the head's logits.
        """
        resolved = self.space.resolve(gates)
        x = x.contiguous(memory_format=torch.channels_last)
        outputs = self.stem(x) if isinstance(self.stem, ImageNetStem) else [self.stem(x)] * 2
        s0, s1 = (States(output, ("stem",)) for output in outputs)
        auxiliary = None
        for k, cell in enumerate(self.cells):
            s0, s1 = s1, cell(s0, s1, resolved, drop_probability(self, drop_path, (k + 1) / len(self.cells)))
            if k == self.auxiliary_after and self.auxiliary is not None and self.training:
                auxiliary = self.auxiliary(s1)
        logits = self.classifier(s1.x.mean((2, 3), keepdim=True), s1.names).flatten(1)
        return logits if auxiliary is None else (logits, auxiliary)

    def example(self, batch_size: int = 1) -> Tensor:
        return example_images(self, batch_size)


class CellSpace(Space):
    """Cells of numbered nodes, stacked to a network. States 0 and 1 of a cell are the outputs of the two before it.

    A subclass says what there is to choose at a node and builds a cell.
    """

    def __init__(self, kinds: Sequence[Kind], nodes: int, operations: Sequence[str]) -> None:
        if tuple(kinds) not in {("normal", "reduce"), ("normal",)}:
            raise SettingError(f"space.kinds: [normal, reduce] or [normal], got {list(kinds)}")
        if not 1 <= nodes <= 16:
            raise SettingError(f"space.nodes: between 1 and 16, got {nodes}")
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
            cells: number of cells.
            form: ``search``: BatchNorm without scale and shift; ``final``: the network to train and report.
            stem: ``cifar`` keeps the images' resolution, ``imagenet`` divides it by 8.
            auxiliary: a second classifier at two thirds of the depth, in training.
        """
        check_form(form)

        def build_cell(place: Place) -> Cell:
            choices = [choice for choice in self.choices if choice.cell == place.kind]
            return self.cell(choices, place, affine=form == "final")

        return CellNetwork(self, inputs, build_cell, channels, cells, stem, auxiliary, self.kinds)


def drop_probability(network: nn.Module, drop_path: DropPath, depth: float) -> float:
    """The probability of drop-path at a relative depth; zero unless the network is in training."""
    if not network.training:
        return 0.0
    return drop_path(depth) if callable(drop_path) else drop_path


def check_image_inputs(inputs: Mapping[str, int]) -> None:
    for field in ("channels", "image_size", "num_classes"):
        if field not in inputs:
            raise SettingError(f"inputs.{field}: missing; a network of images needs it")


def example_images(network: Network, batch_size: int) -> Tensor:
    """Images of zeros, ``(batch_size, channels, H, W)``, of the size that the network was built for."""
    size = network.inputs["image_size"]
    return next(network.parameters()).new_zeros(batch_size, network.inputs["channels"], size, size)


class ImageNetStem(nn.Module):
    """Three 3×3 convolutions of stride 2; the last two results, at a quarter and an eighth, are the cells' inputs."""

    def __init__(self, channels_in: int, channels: int) -> None:
        super().__init__()
        self.first = nn.Sequential(
            nn.Conv2d(channels_in, channels // 2, 3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(channels // 2),
            nn.ReLU(),
            nn.Conv2d(channels // 2, channels, 3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(channels),
        )
        self.second = nn.Sequential(
            nn.ReLU(),
            nn.Conv2d(channels, channels, 3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(channels),
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
        size: of the feature maps that it reads, in pixels.
        num_classes: of the data.
        pool_stride: of the average pool; 3 for CIFAR, 2 for ImageNet.
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
            nn.BatchNorm2d(128),
            nn.ReLU(),
            nn.Conv2d(128, 768, 2, bias=False),
            nn.BatchNorm2d(768),
            nn.ReLU(),
        )
        self.classifier = nn.Linear(768, num_classes, bias=bias)

    def forward(self, states: States) -> Tensor:
        reduced = self.reduce(self.pool(states.x), states.names)
        return self.classifier(self.features(reduced).mean((2, 3)))
