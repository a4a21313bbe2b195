"""Architectures under limits of what their networks cost: which keep them, and which of these is the best."""

import dataclasses
import functools
import math
from collections.abc import Callable, Sequence
from random import Random
from typing import Any

from lightning_nas.costs.flops import Flops
from lightning_nas.costs.parameters import Parameters
from lightning_nas.costs.sums import CostSum, sums_of
from lightning_nas.errors import SettingError, within
from lightning_nas.objectives import Objective
from lightning_nas.seeding import derive_seed
from lightning_nas.spaces.base import Architecture, Space
from lightning_nas.spaces.tables import Cost
from lightning_nas.spaces.within import Draws, cheapest_within

COUNTED: dict[str, tuple[type[Parameters | Flops], int]] = {
    "n_params": (Parameters, 1),
    "flops": (Flops, 1),
    "multiply_adds": (Flops, 2),
}
"""What can be limited, figures of an architecture's final network: what counts it, and how often."""

FEW = 100
"""How often an architecture is drawn by the prior alone where it could be drawn by what it costs too."""

PATIENCE = 1000
"""How often an architecture is drawn after these until limits are given up as ones that none keeps."""

LOOKED_AT = 50
"""The number of architectures that may keep the limits, by sums that are not exact, and do not, until sums are limited
to less."""


def parse_limit(limit: str | Objective) -> Objective:
    """A limit of a figure in ``COUNTED``.

    Args:
        limit: a text such as ``n_params <= 2e6``, or the objective that it says.

    Raises:
        SettingError: if it is no such limit.
    """
    parsed = Objective.parse(limit) if isinstance(limit, str) else limit
    if parsed.metric not in COUNTED or parsed.mode != "min" or parsed.wanted:
        forms = ", ".join(f"'{metric} <= NUMBER'" for metric in COUNTED)
        raise SettingError(f"{forms}; got {str(limit)!r}")
    return parsed


@dataclasses.dataclass(frozen=True)
class Limit:
    """The most that a count of an architecture may be.

    Attributes:
        objective: the limit as it was said.
        count: counts what is limited.
        most: the largest count that keeps the limit.
    """

    objective: Objective
    count: Parameters | Flops
    most: int

    def value(self, count: float) -> float:
        """The figure that the objective limits, for a count."""
        return count / COUNTED[self.objective.metric][1]


class Limits:
    """What the final networks of architectures may cost, with the settings of a search.

    Args:
        limits: texts such as ``n_params <= 2e6``, or such objectives: of ``n_params`` (without an auxiliary head), of
            the ``flops`` of one example, or of ``multiply_adds``, half of these. Without any, all architectures keep
            them.
        space: whose architectures are meant.
        inputs: what the network must know of the data.
        settings: settings of the space's network by name, such as ``channels`` and ``cells``.
        seed: the seed of the architectures from which it is learnt how costs add up.
        field: what the limits are called in an error.
        progress: whether a bar is drawn meanwhile.

    Raises:
        SettingError: if a limit is of something else, or is no limit.
    """

    def __init__(
        self,
        limits: Sequence[str | Objective],
        space: Space,
        inputs: dict[str, int],
        settings: dict[str, Any],
        seed: int = 0,
        field: str = "limits",
        progress: bool = False,
    ) -> None:
        self.space, self.seed, self.field, self.progress = space, seed, field, progress
        counts: dict[Any, Parameters | Flops] = {}
        self.limits: list[Limit] = []
        for limit in limits:
            with within(field):
                objective = parse_limit(limit)
            assert objective.limit is not None  # as of any objective that is not wanted
            counter, times = COUNTED[objective.metric]
            if counter not in counts:
                counts[counter] = counter(space, inputs, **settings)
            self.limits.append(Limit(objective, counts[counter], math.floor(times * objective.limit)))

    def __bool__(self) -> bool:
        """Whether there is a limit."""
        return bool(self.limits)

    @property
    def objectives(self) -> list[Objective]:
        """The limits as they were said."""
        return [limit.objective for limit in self.limits]

    def __str__(self) -> str:
        return " and ".join(map(str, self.objectives))

    @classmethod
    def of(cls, method: Any, limits: "Sequence[str | Objective] | Limits" = ()) -> "Limits":
        """The limits of what a method's search may find: those that its settings say, and further ones.

        Args:
            method: a search in one network.
            limits: the further limits, or what this has made of them before.
        """
        if isinstance(limits, Limits):
            return limits
        both = [*method.limits, *limits]
        if not both:
            return cls([], method.space, {}, {})
        method.check_built()
        field = "limits" if limits else "limit"
        inputs, settings = method.network.inputs, method.network_settings
        return cls(both, method.space, inputs, settings, method.seed, field, method.draws_bars)

    @functools.cached_property
    def sums(self) -> list[CostSum]:
        """The sums that the counts are, or that are near to them, all over the same parts of architectures."""
        from tqdm import tqdm

        with tqdm(desc=f"Counting for {self}", unit="architecture", leave=False, disable=not self.progress) as bar:

            def counting(count: Callable[[Architecture], float], architecture: Architecture) -> float:
                bar.update()
                return count(architecture)

            counts = [functools.partial(counting, limit.count) for limit in self.limits]
            return sums_of(self.space, counts, Random(derive_seed(self.seed, "sums")))

    @property
    def exact(self) -> bool:
        """Whether all counts are sums over choices or over nodes."""
        return all(found.exact for found in self.sums)

    @functools.cached_property
    def counts(self) -> list[Callable[[Architecture], float]]:
        """What counts for each limit: its sum, which takes microseconds, where that is exact."""
        return [found if found.exact else limit.count for limit, found in zip(self.limits, self.sums, strict=True)]

    def keeps(self, architecture: Architecture) -> bool:
        """Whether an architecture keeps all limits."""
        return not self or not any(self._excess(architecture))

    def _excess(self, architecture: Architecture) -> list[float]:
        """By how much more than allowed each count is."""
        return [max(0, c(architecture) - limit.most) for limit, c in zip(self.limits, self.counts, strict=True)]

    # -- random ones -------------------------------------------------------------------------------------------------

    def random(self, rng: Random) -> Architecture:
        """An architecture drawn by the space's prior that keeps the limits.

        Where counts are sums and architectures are equally likely, one is found however few there are.

        Raises:
            SettingError: if none is found, with the smallest that there is.
        """
        uniform = self.space.prior == "architecture" or not self.space.has_rule
        by_sums = self and self.exact and uniform
        return self.draw(lambda: self.space.random(rng), (lambda: self._drawn_by_sums(rng)) if by_sums else None)

    def draw(
        self, draw: Callable[[], Architecture], then: Callable[[], Architecture | None] | None = None
    ) -> Architecture:
        """The first of architectures, drawn one after the other, that keeps the limits.

        Args:
            draw: draws the next architecture.
            then: draws in its place, or tries to, where none of the first ``FEW`` keeps them; None: it goes on.

        Raises:
            SettingError: if none of ``PATIENCE`` does, with the smallest that there is.
        """
        found = self._first(draw, FEW)
        if found is None:
            self._some_keeps  # noqa: B018  # or it is said now that none does
            found = self._first(then or draw, PATIENCE)
        if found is None:
            raise self._refusal(f"none of {PATIENCE:,} drawn architectures")
        return found

    def _first(self, draw: Callable[[], Architecture | None], tries: int) -> Architecture | None:
        drawn = (draw() for _ in range(tries))
        return next((each for each in drawn if each is not None and self.keeps(each)), None)

    @functools.cached_property
    def _some_keeps(self) -> Architecture:
        return self.cheapest(lambda k, option: 0.0)

    @functools.cached_property
    def _draws(self) -> Draws:
        terms = [[0.0] * len(options) for options in self.sums[0].parts.options]
        most = 0.0
        for limit, found in zip(self.limits, self.sums, strict=True):  # what keeps all limits keeps their sum
            spread = sum(max(row) - min(row) for row in found.terms) or 1.0
            terms = [
                [a + b / spread for a, b in zip(*rows, strict=True)] for rows in zip(terms, found.terms, strict=True)
            ]
            most += (limit.most - found.constant) / spread
        return Draws(self.sums[0].parts.tables, terms, most)

    def _drawn_by_sums(self, rng: Random) -> Architecture | None:
        path, kept = self._draws(rng)
        return self.sums[0].parts.join(path) if kept else None

    # -- the best ----------------------------------------------------------------------------------------------------

    def cheapest(self, cost: Cost) -> Architecture:
        """The legal architecture of the smallest total cost that keeps the limits; ``space.tables.cheapest`` where that
        one keeps them.

        It is exact where all counts are sums over choices or nodes (:attr:`exact`). Elsewhere the sums that are nearest
        lead to one, and from there it is gone to a better one with one other option, as long as there is any.

        Args:
            cost: what an option of a choice costs, a finite number.

        Raises:
            SettingError: if none is found, with the smallest that there is.
        """
        first = self.space.tables.cheapest(cost)
        if self.keeps(first):
            return first
        found = self._by_sums(cost)
        if found is None:
            raise self._refusal("no architecture")
        if self.exact:
            return found

        def total(architecture: Architecture) -> float:
            return sum(cost(k, option) for k, option in enumerate(architecture))

        return self._descended(found, total, lambda new, old: total(new) < total(old) and self.keeps(new))

    def _by_sums(self, cost: Cost) -> Architecture | None:
        parts, terms = self.sums[0].parts, [found.terms for found in self.sums]
        by_parts = parts.cost(cost)
        most = [limit.most - found.constant + found.error for limit, found in zip(self.limits, self.sums, strict=True)]
        too_large: list[tuple[int, ...]] = []
        while True:
            path = cheapest_within(parts.tables, by_parts, terms, [each + 0.25 for each in most], too_large)
            if path is None:  # or sums say so that are not exact
                return next(filter(self.keeps, map(self.smallest, range(len(self.limits)))), None)
            architecture = parts.join(path)
            excess = self._excess(architecture)
            if not any(excess):
                return architecture
            too_large.append(path)
            if not self.exact and len(too_large) > LOOKED_AT:
                most = [
                    min(before, found(architecture) - found.constant) - more if more else before
                    for before, found, more in zip(most, self.sums, excess, strict=True)
                ]

    def _descended(
        self,
        found: Architecture,
        order: Callable[[Architecture], float],
        better: Callable[[Architecture, Architecture], bool],
    ) -> Architecture:
        """Where one comes by going from an architecture to a better one with another option of one part, of which the
        first in an order is taken."""
        while True:
            near = sorted(dict.fromkeys(self.sums[0].parts.neighbours(found)), key=order)
            following = next((each for each in near if better(each, found)), None)
            if following is None:
                return found
            found = following

    def smallest(self, number: int) -> Architecture:
        """The smallest architecture: the one with the smallest count for a limit. Where counts are no sums over choices
        or nodes, it is one that cannot be made smaller by one option.

        Args:
            number: the number of the limit, from 0.
        """
        found, count = self.sums[number], self.counts[number]
        first = found.parts.join(found.parts.tables.cheapest(lambda k, option: found.terms[k][option]))
        return first if found.exact else self._descended(first, found, lambda new, old: count(new) < count(old))

    def _refusal(self, which: str) -> SettingError:
        said = []
        for number, (limit, count) in enumerate(zip(self.limits, self.counts, strict=True)):
            value = limit.value(count(self.smallest(number)))
            said.append(
                f"the smallest {'there is' if self.exact else 'seen'} has {limit.objective.metric} {value:,.0f}"
            )
        name = type(self.space).__name__
        return SettingError(
            f"{self.field}: {which} of {name} keeps {self}; {', '.join(said)}; raise the limit, or search with a "
            "smaller network"
        )
