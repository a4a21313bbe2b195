"""The FLOPs of many architectures, without a network of its own for each."""

import itertools
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from lightning_nas.operations.normalization import evaluating
from lightning_nas.spaces.base import Architecture, Space
from lightning_nas.spaces.image_layers.chain import LayerChain


class Flops:
    """Counts for every architecture what :func:`~lightning_nas.costs.profile.profile` counts for its final network.

    They are counted in the network that holds all architectures, on the meta device, where nothing is computed. In a
    chain of layers FLOPs are a sum over the layers: each option is counted once, in the beginning, and from then on an
    architecture takes microseconds. In another space each architecture takes a pass, once.

    Args:
        space: whose architectures are counted.
        inputs: what the network must know of the data.
        settings: settings of the space's network by name, such as ``channels`` and ``cells``.
    """

    def __init__(self, space: Space, inputs: dict[str, int], **settings: Any) -> None:
        self.space = space
        with torch.device("meta"):
            self.network = space.network(inputs, form="final", **settings)
        self._known: dict[Architecture, int] = {}
        self._layers: list[tuple[slice, dict[Architecture, int]]] = []
        if isinstance(space, LayerChain):
            self._count_layers(space)

    def __call__(self, architecture: Architecture) -> int:
        """The FLOPs of one example; a multiply-add is 2."""
        if self._layers:
            return self._rest + sum(flops[architecture[choices]] for choices, flops in self._layers)
        if architecture not in self._known:
            self._known[architecture] = self._count(architecture)[0]
        return self._known[architecture]

    def _count_layers(self, space: LayerChain) -> None:
        nodes = [choice.node for choice in space.choices]
        each: list[list[Architecture]] = []
        for node, group in itertools.groupby(space.choices, lambda choice: choice.node):
            first = nodes.index(node)
            options = list(itertools.product(*(range(len(choice.options)) for choice in group)))
            each.append(options)
            self._layers.append((slice(first, first + len(options[0])), {}))
        for number in range(max(map(len, each))):  # one option of every layer at a time
            taken = [options[min(number, len(options) - 1)] for options in each]
            total, by_module = self._count(tuple(itertools.chain(*taken)))
            for place, option, (_, flops) in zip(space.places, taken, self._layers, strict=True):
                flops[option] = by_module.get(f"layers.{place.name}", 0)
            self._rest = total - sum(flops[option] for option, (_, flops) in zip(taken, self._layers, strict=True))

    def _count(self, architecture: Architecture) -> tuple[int, dict[str, int]]:
        """The FLOPs of an architecture, and those of every module of the network by its name."""
        counter = FlopCounterMode(display=False)
        with counter, torch.no_grad(), evaluating(self.network):
            self.network(self.network.example(), self.space.gates(architecture))
        counts = {name.partition(".")[2]: sum(row.values()) for name, row in counter.get_flop_counts().items()}
        return counter.get_total_flops(), counts
