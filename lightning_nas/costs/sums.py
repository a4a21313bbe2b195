"""A cost of architectures as a sum over their parts, found from the costs of a few and verified on others."""

import dataclasses
import itertools
import math
from collections.abc import Callable, Sequence
from random import Random
from typing import Any, Literal, Self

import numpy as np

from lightning_nas.spaces.base import Architecture, Space
from lightning_nas.spaces.tables import Cost, Tables

ArchitectureCost = Callable[[Architecture], float]
"""What an architecture costs."""

MOST_TOGETHER = 64
"""The choices of a node that have more combinations stay apart: about as many architectures are looked at."""

VERIFIED = 24
"""The number of random architectures on which a sum is verified."""

PAIRS = 8
"""The number of pairs of random architectures that show first whether there can be a sum."""


@dataclasses.dataclass(frozen=True)
class Parts:
    """A space taken apart: into its choices, or into its nodes, whose choices are taken together.

    Attributes:
        space: the space that is taken apart.
        options: for each part its options, each an option of every choice that belongs to the part.
        tables: the rule over the parts, with their options by number.
    """

    space: Space
    options: list[list[tuple[int, ...]]]
    tables: Tables

    @classmethod
    def of(cls, space: Space, by: Literal["choice", "node"]) -> Self:
        """Takes a space apart.

        Args:
            space: the space that is taken apart.
            by: what is a part: every ``choice``, or the choices of a ``node`` together where combinations are few.
        """
        rule, possible = space.tables, space.tables.possible
        nodes = [list(g) for _, g in itertools.groupby(range(len(possible)), lambda k: space.choices[k].node)]
        groups: list[list[int]] = []
        for node in nodes:
            together = by == "node" and math.prod(len(possible[k]) for k in node) <= MOST_TOGETHER
            groups += [node] if together else [[k] for k in node]
        options = [list(itertools.product(*(possible[k] for k in group))) for group in groups]

        def step(state: Any, part: int, option: int) -> int | None:
            for k, taken in zip(groups[part], options[part][option], strict=True):
                state = None if state is None else rule.next[k][state][taken]
            return state

        return cls(space, options, Tables.compile(0, [len(each) for each in options], step))

    def split(self, architecture: Architecture) -> tuple[int, ...]:
        """The numbers of the options that an architecture takes, one for each part."""
        rest, path = architecture, []
        for options in self.options:
            own, rest = rest[: len(options[0])], rest[len(options[0]) :]
            path.append(options.index(own))
        return tuple(path)

    def join(self, path: Sequence[int]) -> Architecture:
        """The architecture that takes the options with these numbers, one of each part."""
        taken = (options[number] for options, number in zip(self.options, path, strict=True))
        return tuple(itertools.chain.from_iterable(taken))

    def cost(self, cost: Cost) -> Cost:
        """The same total of the options of choices, by parts."""
        starts = list(itertools.accumulate((len(options[0]) for options in self.options), initial=0))
        return lambda part, option: sum(cost(starts[part] + k, o) for k, o in enumerate(self.options[part][option]))

    def nearest(self, architecture: Architecture, part: int, option: int) -> Architecture:
        """The legal architecture that has an option of a part and changes as few other parts as can be."""
        path = self.split(architecture)

        def cost(k: int, o: int) -> float:
            if k == part:
                return 0.0 if o == option else math.inf
            return float(o != path[k])

        return self.join(self.tables.cheapest(cost))

    def neighbours(self, architecture: Architecture) -> list[Architecture]:
        """For every possible option that an architecture has not the nearest legal one that has it."""
        path, possible = self.split(architecture), self.tables.possible
        return [self.nearest(architecture, k, o) for k, options in enumerate(possible) for o in options if o != path[k]]


@dataclasses.dataclass(frozen=True)
class CostSum:
    """A cost of architectures as a constant and a number for every option of every part.

    Attributes:
        parts: how architectures are taken apart.
        constant: what every architecture costs.
        terms: for each part what each of its options costs more.
        error: by how much the sum was wrong at most, for the architectures that were looked at. 0: it is what
            architectures cost; else it is the nearest sum in the mean square.
    """

    parts: Parts
    constant: float
    terms: list[list[float]]
    error: float

    @property
    def exact(self) -> bool:
        """Whether the sum is what architectures cost."""
        return not self.error

    @classmethod
    def of(cls, parts: Parts, cost: ArchitectureCost, rng: Random) -> Self:
        """Finds the sum that a cost is, or the nearest where it is none.

        About as many architectures are looked at as there are options: one with every option, all else as in one and
        the same, and random ones, until what these say foretells the costs of others.

        Args:
            parts: how architectures are taken apart.
            cost: what an architecture costs, a whole number.
            rng: draws the architectures that are looked at.
        """
        base = parts.space.random(rng)
        seen = [base, *parts.neighbours(base)]
        new = _some(parts.space, rng)
        while True:  # each time the rank grows, or the costs contradict each other
            seen += new
            costs = np.array([cost(architecture) for architecture in seen])
            solution, *_ = np.linalg.lstsq(np.stack([_row(parts, each) for each in seen]), costs, rcond=None)
            ends = itertools.accumulate(map(len, parts.options), initial=1)
            terms = [solution[start:end].tolist() for start, end in itertools.pairwise(ends)]
            found = cls(parts, float(solution[0]), terms, 0.0)
            new = _some(parts.space, rng)
            error = max(abs(found(each) - value) for each, value in zip(seen, costs, strict=True))
            if error:
                return dataclasses.replace(found, error=error)
            if all(found(each) == cost(each) for each in new):
                return found

    def __call__(self, architecture: Architecture) -> float:
        """What an architecture costs by the sum, a whole number."""
        path = self.parts.split(architecture)
        return round(self.constant + sum(terms[option] for terms, option in zip(self.terms, path, strict=True)))


def sums_of(space: Space, costs: Sequence[ArchitectureCost], rng: Random) -> list[CostSum]:
    """The sums over choices, or else over nodes, that some costs are; where they are neither, the nearest over choices.

    Args:
        space: whose architectures cost something.
        costs: what an architecture costs in several ways, each a whole number.
        rng: draws the architectures that are looked at.

    Returns:
        a sum for each of the costs, all over the same parts.
    """
    by_choice = Parts.of(space, "choice")
    for parts in (by_choice, Parts.of(space, "node")):
        if all(_may_add_up(parts, cost, rng) for cost in costs):
            sums = [CostSum.of(parts, cost, rng) for cost in costs]
            if all(found.exact for found in sums):
                return sums
    return [CostSum.of(by_choice, cost, rng) for cost in costs]


def _row(parts: Parts, architecture: Architecture) -> np.ndarray:
    """A one for the constant and one for every option that is taken."""
    taken = [np.eye(len(options))[o] for options, o in zip(parts.options, parts.split(architecture), strict=True)]
    return np.concatenate([[1.0], *taken])


def _some(space: Space, rng: Random) -> list[Architecture]:
    """Random architectures, some of which are short where architectures have a depth."""
    return [space.random(rng, by) for _ in range(VERIFIED // 2) for by in ("architecture", "choice")]


def _may_add_up(parts: Parts, cost: ArchitectureCost, rng: Random) -> bool:
    """Whether mixes of two architectures cost as much as these do, where the rule allows both mixes."""
    for _ in range(PAIRS):
        pairs = list(zip(*(parts.split(a) for a in _some(parts.space, rng)[:2]), strict=True))
        mixed = [rng.sample(pair, 2) for pair in pairs]
        four = [parts.join(path) for path in (*zip(*pairs, strict=True), *zip(*mixed, strict=True))]
        if all(map(parts.space.legal, four)):
            one, other, mix, rest = map(cost, four)
            if one + other != mix + rest:
                return False
    return True
