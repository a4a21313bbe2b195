"""Architectures under limits of what their networks cost: which keep them, and which of these is the best."""

from collections.abc import Callable, Sequence
from typing import Any, Self

from lightning_nas.objectives import Objective
from lightning_nas.spaces.base import Architecture, Space
from lightning_nas.spaces.tables import Cost

METRICS = ("n_params", "flops", "multiply_adds")
"""What can be limited, figures of an architecture's own network in final form."""

PATIENCE = 10_000
"""How often an architecture is drawn until the limits are given up as ones that none keeps."""


class Limits:
    """What the final network of an architecture may cost, with the settings of the search.

    Args:
        limits: such as ``["n_params <= 2e6"]``, each of ``n_params`` (without an auxiliary head), ``flops`` of one
            example or ``multiply_adds``, its half; none: every architecture keeps them.
        space: whose architectures are meant.
        inputs: what the network must know of the data.
        seed: the seed of the architectures that are looked at.
        settings: settings of the space's network by name, such as ``channels`` and ``cells``.

    Raises:
        SettingError: if a limit is of something else.
    """

    def __init__(
        self,
        limits: Sequence[str | Objective],
        space: Space,
        inputs: dict[str, int],
        seed: int = 0,
        **settings: Any,
    ) -> None:
        raise NotImplementedError

    @classmethod
    def of(cls, method: Any, limits: "Sequence[str | Objective] | Limits") -> "Limits":
        """The limits for what a search in one network finds, which has its network."""
        raise NotImplementedError

    def __bool__(self) -> bool:
        """Whether there is any limit."""
        raise NotImplementedError

    def keeps(self, architecture: Architecture) -> bool:
        """Whether an architecture keeps all limits."""
        raise NotImplementedError

    def draw(self, draw: Callable[[], Architecture]) -> Architecture:
        """The first of architectures, drawn one after the other, that keeps the limits.

        Raises:
            SettingError: if none of ``PATIENCE`` does.
        """
        raise NotImplementedError

    def cheapest(self, cost: Cost) -> Architecture:
        """The legal architecture of the smallest total cost that keeps the limits, as ``space.tables.cheapest`` is
        without. Where what is limited is a sum over choices or nodes, it is exact.

        Raises:
            SettingError: if no architecture keeps them, with the smallest that there is.
        """
        raise NotImplementedError
