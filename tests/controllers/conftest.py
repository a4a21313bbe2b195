"""Small spaces of every kind of choice, and the controllers that are tested on all of them."""

from collections.abc import Iterator

import pytest
import torch

from lightning_nas.controllers import LSTMController, TransformerController
from lightning_nas.spaces import Choice, DARTSCell, Space


class Cells(Space):
    """As ENAS micro: two cells, per node two inputs and two operations."""

    def __init__(self, nodes: int = 2) -> None:
        def choices() -> Iterator[Choice]:
            for kind in ("normal", "reduce"):
                for node in range(2, nodes + 2):
                    name, sources = f"{kind}/{node}", tuple(range(node))
                    for slot in (1, 2):
                        options = tuple(map(str, sources))
                        yield Choice(f"{name}/input{slot}", options, name, "input", sources=sources)
                    for slot in (1, 2):
                        yield Choice(f"{name}/operation{slot}", ("conv", "pool"), name)

        super().__init__(choices())


class Layers(Space):
    """As ENAS macro: per layer an operation and a bit for every state but its predecessor; state 0 is the stem."""

    def __init__(self, layers: int = 4) -> None:
        def choices() -> Iterator[Choice]:
            for layer in range(1, layers + 1):
                yield Choice(f"{layer}/operation", ("conv", "pool"), str(layer))
                for source in range(layer - 1):
                    name = f"{layer}/skip{source}"
                    yield Choice(name, ("off", "on"), str(layer), "skip", f"skips{layer}", (source,))

        super().__init__(choices())


class FewSkips(Layers):
    """A rule inside of groups: a layer that can have two or more skips has exactly two."""

    start = 0

    def step(self, on: int, choice: Choice, option: str) -> int | None:
        on = on + (option == "on") if choice.kind == "skip" else 0
        if choice.last_of_node and choice.sources >= (1,):
            return 0 if on == 2 else None
        return on


class Recurrent(Space):
    """As the recurrent cell of ENAS: per node a predecessor and an activation."""

    def __init__(self, nodes: int = 4, activations: tuple[str, ...] = ("tanh", "relu", "identity")) -> None:
        def choices() -> Iterator[Choice]:
            for node in range(nodes):
                if node:
                    sources = tuple(range(node))
                    options = tuple(map(str, sources))
                    yield Choice(f"{node}/predecessor", options, str(node), "input", sources=sources)
                yield Choice(f"{node}/activation", activations, str(node))

        super().__init__(choices())


class Labels(Space):
    """A user's own: nodes without numbers, so nothing to point at, and a group of values with a rule."""

    start = 0

    def __init__(self) -> None:
        super().__init__(
            [
                Choice("block", ("a", "b", "c"), "block"),
                Choice("join", ("left", "right"), "join", "input", sources=(0, 1)),
                Choice("kernel", ("1", "3", "5"), "size", "value", "size"),
                Choice("width", ("1", "3", "5"), "size", "value", "size"),
                Choice("again", ("a", "b", "c"), "again"),
            ]
        )

    def step(self, kernel: int, choice: Choice, option: str) -> int | None:
        if choice.name == "kernel":
            return int(option)
        return (0 if int(option) <= kernel else None) if choice.name == "width" else kernel


SPACES = {
    "cells": Cells().restrict(
        {f"normal/{node}/operation{slot}": "conv" for node, slot in [(2, 2), (3, 1), (3, 2)]}
        | {f"reduce/{node}/operation{slot}": "pool" for node, slot in [(2, 1), (2, 2), (3, 2)]}
        | {"reduce/2/input2": "0", "reduce/3/input2": ["0", "2"]}
    ),
    "layers": Layers(),
    "few-skips": FewSkips(),
    "recurrent": Recurrent(),
    "darts": DARTSCell(nodes=2, operations=("none", "skip_connect", "sep_conv_3x3")),
    "labels": Labels(),
}

SIZES = {
    "cells": (2 * 2 * 2 * 3 * 3) * (2 * 3 * 2 * 2),
    "layers": 2**4 * 2**6,
    "few-skips": 2**4 * 2 * 1 * 3,
    "recurrent": 3**4 * 6,
    "darts": (4 * 12) ** 2,
    "labels": 3 * 2 * (1 + 2 + 3) * 3,
}

CONTROLLERS = {
    "lstm": lambda **settings: LSTMController(hidden=8, layers=2, **settings),
    "transformer": lambda **settings: TransformerController(width=8, layers=2, heads=2, **settings),
}


@pytest.fixture(params=SPACES)
def space(request):
    assert SPACES[request.param].size == SIZES[request.param]
    return SPACES[request.param]


@pytest.fixture(params=CONTROLLERS)
def controller(request):
    """Makes a small controller with the settings given."""
    return CONTROLLERS[request.param]


@pytest.fixture
def spaces():
    """Spaces by name, and classes of them."""
    return SPACES | {"Recurrent": Recurrent, "Cells": Cells}


@pytest.fixture
def trained():
    """Gives a policy weights as if it had been trained: far from even, in double precision."""

    def give(policy, scale=0.7, seed=0):
        generator = torch.Generator().manual_seed(seed)
        for parameter in policy.double().parameters():
            parameter.data.normal_(0, scale, generator=generator)
        return policy

    return give


@pytest.fixture
def everything():
    """All architectures of a space, ``(size, n_choices)``."""
    return lambda space: torch.tensor(list(space))
