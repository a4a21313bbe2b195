"""A line of the table: the same thing done by two implementations."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from benchmarks.measure import SIDES, Side, Stopwatch


@dataclasses.dataclass(frozen=True)
class Sizes:
    """What the table is measured at: by default the settings of the papers, with batches of 64.

    Attributes:
        device: ``cpu`` or ``cuda``.
        channels, cells, nodes, operations: of the cell networks of DARTS and random search; channels and cells of
            retraining too.
        layers, enas_channels: of ENAS's micro network.
        batch, image_size: of images.
        hidden, enas_hidden: width of the recurrent cells of DARTS and ENAS, and of their embeddings.
        text_batch, window, vocabulary: of text.
        samples: architectures that a controller draws at once.
        trials: of evolution.
    """

    device: str = "cpu"
    channels: int = 16
    cells: int = 8
    nodes: int = 4
    operations: int = 8
    layers: int = 6
    enas_channels: int = 20
    batch: int = 64
    image_size: int = 32
    hidden: int = 300
    enas_hidden: int = 720
    text_batch: int = 64
    window: int = 35
    vocabulary: int = 10_000
    samples: int = 100
    trials: int = 10_000


class Row:
    """One line of the table.

    Attributes:
        name: on the command line.
        title: in the table.
        small: sizes at which the gradients of both sides are compared.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    small: ClassVar[dict[str, int]] = {}

    def __init__(self, sizes: Sizes) -> None:
        self.sizes = sizes
        self.device = torch.device(sizes.device)

    def reduced(self) -> Self:
        """The same at the sizes at which gradients are compared."""
        return type(self)(dataclasses.replace(self.sizes, **self.small))

    def time(self, rounds: int, sides: Sequence[Side] = SIDES) -> Stopwatch:
        """Takes so many steps of each side, in turns, after a first one."""
        raise NotImplementedError

    def memory(self, side: Side) -> float | None:
        """MiB that two steps of one side take at most over what is there before: gradients, the optimisers' states,
        what backward needs; not the weights. None where nobody asks."""
        return None

    def gradients(self, dtype: torch.dtype) -> dict[Side, dict[str, Tensor]]:
        """Gradients and losses of one step of each side from the same weights, by the textbook's names; empty where
        there is nothing to differentiate."""
        return {}


class CallRow(Row):
    """A line whose sides are plain functions."""

    def calls(self) -> dict[Side, Callable[[], Any]]:
        raise NotImplementedError

    def time(self, rounds: int, sides: Sequence[Side] = SIDES) -> Stopwatch:
        calls, stopwatch = self.calls(), Stopwatch(self.device)
        for _ in range(rounds + 1):
            for side in sides:
                with stopwatch(side):
                    calls[side]()
        return stopwatch
