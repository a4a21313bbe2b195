"""A cost of architectures as a sum over their parts, found from the costs of a few and verified on others."""

import dataclasses
import functools
import itertools
import math
from collections.abc import Callable, Sequence
from random import Random
from typing import Literal, Self

import numpy as np

from lightning_nas.spaces.base import Architecture, Space
from lightning_nas.spaces.tables import Tables

ArchitectureCost = Callable[[Architecture], float]
"""What an architecture costs, a whole number."""

MOST_OPTIONS = 1000
"""So many options all parts together may have: about as many architectures are looked at."""

VERIFIED = 24
"""The number of random architectures on which a sum is verified."""


@dataclasses.dataclass(frozen=True)
class Parts:
    """An architecture taken apart: into its choices, or into its nodes, whose choices are taken together.

    Attributes:
        space: whose architectures are taken apart.
        options: for each part its options, each a tuple of options of the choices that belong to the part.
        tables: the rule over the parts, their options by number.
    """

    space: Space
    options: list[list[tuple[int, ...]]]
    tables: Tables

    @classmethod
    def of(cls, space: Space, by: Literal["choice", "node"] = "choice") -> Self:
        """Takes a space apart.

        Args:
            space: the space of the architectures.
            by: what is a part, every ``choice`` or all choices of a ``node``.
        """
        indices = range(len(space.choices))
        groups = [[k] for k in indices]
        if by == "node":
            groups = [list(group) for _, group in itertools.groupby(indices, lambda k: space.choices[k].node)]
        possible = space.tables.possible
        options = [list(itertools.product(*(possible[k] for k in group))) for group in groups]

        def step(state: int, part: int, option: int) -> int | None:  # type: ignore[misc]
            after: int | None = state
            for k, taken in zip(groups[part], options[part][option], strict=True):
                if after is None or not space.tables.counts[k][after][taken]:
                    return None
                after = space.tables.next[k][after][taken]
            return after

        return cls(space, options, Tables.compile(0, [len(each) for each in options], step))  # type: ignore[arg-type]

    @staticmethod
    def number(space: Space, by: Literal["choice", "node"]) -> int:
        """How many options all parts have together."""
        raise NotImplementedError

    def split(self, architecture: Architecture) -> tuple[int, ...]:
        """The numbers of the options that an architecture takes, one for each part."""
        raise NotImplementedError

    def join(self, path: Sequence[int]) -> Architecture:
        """The architecture that takes these options, by their numbers."""
        raise NotImplementedError


@dataclasses.dataclass(frozen=True)
class CostSum:
    """A constant and a number for every option of every part.

    Attributes:
        parts: how architectures are taken apart.
        constant: what every architecture costs.
        terms: for each part what each of its options costs more.
        exact: whether the sum is what architectures cost; else it is the nearest in the mean square.
    """

    parts: Parts
    constant: float
    terms: list[list[float]]
    exact: bool

    @classmethod
    def of(cls, parts: Parts, cost: ArchitectureCost, rng: Random) -> Self:
        """Looks at one architecture for each option and at random ones until those say the terms, or that there are none.

        Args:
            parts: how architectures are taken apart.
            cost: what an architecture costs.
            rng: draws the architectures that are looked at.
        """
        raise NotImplementedError

    def __call__(self, architecture: Architecture) -> float:
        """What an architecture costs by the sum."""
        raise NotImplementedError
