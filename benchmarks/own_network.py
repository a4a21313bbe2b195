"""What the choices in a network of a user's own cost: microseconds of a lookup, and a step of a network of twenty
choices beside the same mathematics written by hand, with gates as arguments.

``python -m benchmarks.own_network``; both sides in turns in one process, from the same weights.
"""

import operator
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.measure import Stopwatch
from lightning_nas import InputChoice, LayerChoice, OwnSpace, ValueChoice, freeze
from lightning_nas.spaces.own.network import OwnNetwork

LAYERS, CHANNELS, SIDE, BATCH_SIZE, ROUNDS = 20, 16, 16, 32, 8


def candidates(channels: int) -> list[nn.Module]:
    return [
        nn.Sequential(nn.Conv2d(channels, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels), nn.ReLU()),
        nn.Sequential(nn.Conv2d(channels, channels, 1, bias=False), nn.BatchNorm2d(channels), nn.ReLU()),
        nn.Identity(),
    ]


class Chosen(nn.Module):
    """As its user writes it."""

    def __init__(self, layers: int = LAYERS, channels: int = CHANNELS) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, channels, 1)
        self.layers = nn.Sequential(*(LayerChoice(candidates(channels)) for _ in range(layers)))
        self.classify = nn.Linear(channels, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.classify(self.layers(self.stem(x)).mean((2, 3)))


class ByHand(nn.Module):
    """The same, with the weights of each layer's candidates, or the number of one, as an argument."""

    def __init__(self, layers: int = LAYERS, channels: int = CHANNELS) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, channels, 1)
        self.layers = nn.ModuleList(nn.ModuleList(candidates(channels)) for _ in range(layers))
        self.classify = nn.Linear(channels, 10)

    def forward(self, x: Tensor, gates: list[Any]) -> Tensor:
        x = self.stem(x)
        for operations, gate in zip(self.layers, gates, strict=True):
            if isinstance(gate, int):
                x = operations[gate](x)
            else:
                terms = [weight * operation(x) for weight, operation in zip(gate, operations, strict=True)]
                x = terms[0] + terms[1] + terms[2]
        return self.classify(x.mean((2, 3)))


Forward = Callable[[], Tensor]


def pairs(
    layers: int = LAYERS, channels: int = CHANNELS, side: int = SIDE, batch: int = BATCH_SIZE
) -> dict[str, tuple[tuple[nn.Module, Forward], tuple[nn.Module, Forward]]]:
    """By what is measured: the network by hand and ours, each with its forward pass."""
    torch.manual_seed(0)
    space = OwnSpace(Chosen, {"layers": layers, "channels": channels})
    ours, by_hand = space.network({}), ByHand(layers, channels)
    by_hand.load_state_dict({key.removeprefix("net."): value for key, value in ours.state_dict().items()})
    x = torch.randn(batch, 3, side, side)
    alphas = torch.randn(layers, 3, requires_grad=True)
    path = [number % 3 for number in range(layers)]
    hard = space.gates(tuple(path))
    frozen = freeze(ours, tuple(path))

    def mixed_ours() -> Tensor:
        return ours(x, dict(zip(hard, F.softmax(alphas, 1).unbind(), strict=True)))

    def mixed_by_hand() -> Tensor:
        return by_hand(x, list(F.softmax(alphas, 1).unbind()))

    return {
        "all candidates under weights": ((by_hand, mixed_by_hand), (ours, mixed_ours)),
        "a path": ((by_hand, lambda: by_hand(x, path)), (ours, lambda: ours(x, hard))),
        "a path, beside the frozen network": ((frozen, lambda: frozen(x)), (ours, lambda: ours(x, hard))),
    }


def step(module: nn.Module, forward: Forward) -> None:
    """Forward, backward, and the weights moved."""
    module.zero_grad()
    forward().square().mean().backward()
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.grad is not None:
                parameter.sub_(parameter.grad, alpha=1e-3)


class Small(nn.Module):
    """One of each, with nothing to compute."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = LayerChoice([nn.Identity(), nn.Identity()])
        self.inputs = InputChoice(2)
        self.width = ValueChoice([8, 16], "width")
        self.wider = self.width * 4


def microseconds(call: Callable[[], Any], number: int = 2_000, rounds: int = 15) -> float:
    """The median processor time of one call, over rounds of many."""
    times = []
    for _ in range(rounds):
        begun = time.process_time()
        for _ in range(number):
            call()
        times.append((time.process_time() - begun) / number * 1e6)
    return statistics.median(times)


def lookups() -> dict[str, tuple[float, float]]:
    """Microseconds of each lookup, and of what would stand there without a choice."""
    space = OwnSpace(Small)
    network: OwnNetwork = space.network({})
    net, x, identity, inputs = network.net, torch.zeros(1), nn.Identity(), [torch.zeros(1)] * 2
    twenty = OwnSpace(Chosen).network({})
    gates = twenty.space.gates(twenty.space.tables.unrank(0))

    def begin() -> None:
        with twenty.active(gates):
            pass

    with network.active(space.gates((0, 0, 0))):
        return {
            "`LayerChoice`, beside its candidate": (
                microseconds(lambda: identity(x)),
                microseconds(lambda: net.layer(x)),
            ),
            "`InputChoice`, beside an index": (
                microseconds(lambda: inputs[0]),
                microseconds(lambda: net.inputs(inputs)),
            ),
            "a value": (microseconds(lambda: operator.index(8)), microseconds(lambda: operator.index(net.width))),
            "`width * 4`": (microseconds(lambda: operator.index(32)), microseconds(lambda: operator.index(net.wider))),
            "the start of a forward pass, 20 choices": (0.0, microseconds(begin)),
        }


def main() -> None:
    torch.set_num_threads(1)
    print("| lookup | without µs | with µs |\n|---|---|---|")
    for what, (without, cost) in lookups().items():
        print(f"| {what} | {without:.2f} | {cost:.2f} |", flush=True)
    print("\n| step | by hand ms | ours ms | ours / by hand | least, most | processor time |\n" + "|---" * 6 + "|")
    for what, (theirs, ours) in pairs().items():
        watch = Stopwatch(torch.device("cpu"))
        for _ in range(ROUNDS + 1):
            with watch("textbook"):
                step(*theirs)
            with watch("ours"):
                step(*ours)
        a, b = 1e3 * watch.seconds("textbook"), 1e3 * watch.seconds("ours")
        ratios = [b / a for a, b in zip(watch.wall["textbook"][1:], watch.wall["ours"][1:], strict=True)]
        middle = statistics.median(ratios)
        spread = f"{min(ratios):.2f}, {max(ratios):.2f} | {1 / watch.ratio(cpu=True):.3f}"
        print(f"| {what} | {a:.1f} | {b:.1f} | {middle:.3f} | {spread} |", flush=True)


if __name__ == "__main__":
    main()
