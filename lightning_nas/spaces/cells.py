"""What a cell is made of: candidate operations on states, and the nodes that sum them up."""

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from typing import Any, ClassVar, Literal, NamedTuple, get_args

import torch.nn.functional as F
from torch import Tensor, nn

from lightning_nas.errors import SettingError
from lightning_nas.operations import OPERATIONS, Operation, drop_path
from lightning_nas.spaces.base import Choice, Resolved
from lightning_nas.spaces.sums import Node

Form = Literal["search", "final"]
"""``search``: BatchNorm without scale and shift, pools normalised. ``final``: the network to train and report."""


def check_form(form: str) -> None:
    if form not in get_args(Form):
        raise SettingError(f"form: {' or '.join(get_args(Form))}, got {form!r}")


def check_operations(operations: Sequence[str]) -> None:
    for operation in operations:
        if operation not in OPERATIONS:
            raise SettingError(
                f"operations: no operation {operation!r}; there are {', '.join(OPERATIONS)}; one of your own is "
                "there once the module is imported (--import) that calls register_operation"
            )


@dataclasses.dataclass(frozen=True)
class States:
    """States side by side: ``x`` is ``(N, channels of all, H, W)``, ``names`` says whose channels follow each other."""

    x: Tensor
    names: tuple[str, ...]


class Drops(NamedTuple):
    """What is dropped at random in a forward pass.

    Attributes:
        path: the probability that an operation's output is dropped for a sample, the identity's excepted.
        skip: the probability that a value which an identity passes on is dropped.
    """

    path: float = 0.0
    skip: float = 0.0


Seen = dict[tuple[int, str], Any]
"""The views computed so far in one forward pass of a cell, by source and name."""


class Candidates(nn.Module):
    """The operations of a cell. ReLU, pooling and the pools' BatchNorm are the same tensor for all operations that read
    a state, so they are computed once, and only if an operation that runs reads them.

    Args:
        channels: the number of channels of every state.
        strided: the states that are read with stride 2.
        affine: whether BatchNorms learn scale and shift.
        operations: the operations by name; None: those of the class.
    """

    operations: ClassVar[Mapping[str, Operation | None]] = OPERATIONS

    def __init__(
        self,
        channels: int,
        strided: Collection[int],
        affine: bool,
        operations: Mapping[str, Operation | None] | None = None,
    ) -> None:
        super().__init__()
        self.table = operations or self.operations
        self.channels, self.strided, self.affine = channels, strided, affine
        self.reads: dict[tuple[str, int], str] = {}  # the name of the view, by operation and stride
        self.views = nn.ModuleDict()
        self.bodies = nn.ModuleDict()

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "table"}  # functions have no pickle

    def add(self, place: str, source: int, option: str) -> None:
        """Builds an operation that reads ``source``; ``place`` is a name for where its result goes."""
        operation, stride = self.table[option], self.stride(source)
        if operation is None:
            return
        view = operation.view(stride)
        self.reads[option, stride] = view.name
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
        drops: Drops,
        weight: Tensor | None,
    ) -> Tensor | None:
        """One operation's result times its weight; None where the operation is ``none`` or its state is nothing."""
        view = self.reads.get((option, self.stride(source)))
        if view is None or state is None:
            return None
        if (source, view) not in seen:
            seen[source, view] = self.views[f"{source}/{view}"](state)
        body = f"{place}/{option}"
        out = seen[source, view]
        if body in self.bodies:
            out = self.bodies[body](out, weight=weight)
        elif weight is not None:
            out = weight * out
        if view == "state":  # the identity
            return F.dropout(out, drops.skip) if drops.skip else out
        return drop_path(out, drops.path)

    def nothing(self, state: Tensor) -> Tensor:
        """The zeros of a node that nothing flows into; ``state`` is one that nodes read."""
        n, _, height, width = state.shape
        stride = 2 if self.strided else 1
        return state.new_zeros(n, self.channels, -(-height // stride), -(-width // stride))

    def stride(self, source: int) -> int:
        """The stride with which a state is read."""
        return 2 if source in self.strided else 1


class Edges(nn.Module):
    """An operation on every edge between states; a node is the sum of its edges.

    Args:
        choices: one for each edge, with its one source and its node.
        n_inputs: states that are given; the nodes' follow.
    """

    def __init__(
        self,
        choices: Sequence[Choice],
        n_inputs: int,
        channels: int,
        strided: Collection[int],
        affine: bool,
        operations: Mapping[str, Operation | None] = OPERATIONS,
    ) -> None:
        super().__init__()
        self.candidates = Candidates(channels, strided, affine, operations)
        self.n_nodes = max(choice.output for choice in choices) - n_inputs + 1
        self.leaving: list[list[tuple[str, int]]] = [[] for _ in range(n_inputs + self.n_nodes)]  # (choice, node)
        for choice in choices:
            (source,) = choice.sources
            self.leaving[source].append((choice.name, choice.output))
            for option in choice.options:
                self.candidates.add(choice.name, source, option)

    def forward(self, inputs: Sequence[Tensor], gates: Resolved, drops: Drops) -> list[Tensor]:
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
                    term = self.candidates(name, source, option, states[source], seen, drops, weight)
                    nodes[node - len(inputs)].add(term)
            for key in [key for key in seen if key[0] == source]:
                del seen[key]
        return [self.candidates.nothing(inputs[0]) if s is None else s for s in states[len(inputs) :]]
