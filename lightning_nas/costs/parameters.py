"""The parameters of many architectures."""

from typing import Any

import torch

from lightning_nas.costs.profile import count_parameters
from lightning_nas.spaces.base import Architecture, Space


class Parameters:
    """Counts for every architecture what :func:`~lightning_nas.costs.profile.profile` counts for its final network.

    The network of each is built once, on the meta device, which takes some ten milliseconds. Where many are asked for,
    :class:`~lightning_nas.costs.sums.CostSum` may need the networks of a few.

    Args:
        space: whose architectures are counted.
        inputs: what the network must know of the data.
        settings: settings of the space's network by name, such as ``channels`` and ``cells``.
    """

    def __init__(self, space: Space, inputs: dict[str, int], **settings: Any) -> None:
        self.space, self.inputs, self.settings = space, inputs, settings
        self._known: dict[Architecture, int] = {}

    def __call__(self, architecture: Architecture) -> int:
        """The number of parameters without those of an auxiliary head."""
        if architecture not in self._known:
            with torch.device("meta"):
                child = self.space.restrict(architecture).network(self.inputs, form="final", **self.settings)
            self._known[architecture] = count_parameters(child)
        return self._known[architecture]
