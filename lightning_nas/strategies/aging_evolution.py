"""Regularised evolution (Real, Aggarwal, Huang, Le, AAAI 2019), the search that found AmoebaNet."""

from collections import deque
from collections.abc import Sequence
from operator import attrgetter
from random import Random
from typing import Self

from lightning_nas.errors import SettingError
from lightning_nas.seeding import derive_seed
from lightning_nas.spaces.base import Architecture, Space
from lightning_nas.strategies.base import Strategy, Trial

IDENTITY = 0.05
"""The paper's probability that a child is its parent again."""

BLOCK = 256
"""Trials whose random numbers are made together: to seed a generator takes longer than all the rest of a trial."""

_score, _rank = attrgetter("score"), attrgetter("rank")


class AgingEvolution(Strategy):
    """A tournament picks a parent, its mutated child is tried, and the oldest of the population dies, however good.

    Architectures are random until enough trials have ended to fill the population. From then on the parent of a
    trial is the best of ``sample`` members, drawn with replacement. A trial joins when it is told, so members stand in
    the order in which trials ended. One that failed joins as well, and wins only where all that were drawn have failed.
    What the search finds is the best of all trials, not of the last population. Where an objective has a limit, a
    member that keeps it wins over one that does not.

    A space whose choices are inputs and operations, as AmoebaNet's cells, has the paper's mutations: the child is its
    parent again (*identity*), or one input reads another state (*hidden state*), or there is another operation in one
    place (*op*), the last two equally often. In every other space one choice, each equally likely, takes another
    option. Places and new options are drawn uniformly. Where a space has a rule, other choices change as far as it
    forces them to.

    Args:
        population: P, members (paper 100; NAS-Bench-201's script 10).
        sample: S, members of a tournament (paper 25; NAS-Bench-201's script 3).
        identity: the probability that a child is its parent again. None: the paper's .05 where there are its mutations,
            else 0.

    Attributes:
        population: the members, the oldest first.
    """

    population: deque[Trial]

    def __init__(self, population: int = 100, sample: int = 25, identity: float | None = None) -> None:
        for name, value in (("population", population), ("sample", sample)):
            if value < 1:
                raise SettingError(f"{name}: at least 1, got {value}")
        if identity is not None and not 0 <= identity <= 1:
            raise SettingError(f"identity: from 0 to 1, or null, got {identity}")
        self.population_size, self.sample_size, self.identity = population, sample, identity

    def begin(self, space: Space, seed: int = 0) -> Self:
        """Starts a search in a space, with an empty population.

        Raises:
            SettingError: if no choice of the space has an alternative.
        """
        super().begin(space, seed)
        self.population = deque(maxlen=self.population_size)
        self._key = _score  # until a limit is exceeded, since to weigh limits takes longer
        changeable = [k for k, options in enumerate(space.tables.possible) if len(options) > 1]
        if not changeable:
            raise SettingError("space: has one architecture, so there is nothing to mutate")
        kinds = {choice.kind for choice in space.choices}
        of_cells = kinds == {"input", "operation"}
        groups = [[k for k in changeable if space.choices[k].kind == kind] for kind in sorted(kinds)]
        groups = [group for group in groups if group] if of_cells else [changeable]
        identity = self.identity if self.identity is not None else IDENTITY if of_cells else 0.0
        self._mutations: dict[int | None, float] = {None: identity}
        self._mutations |= {k: (1 - identity) / len(groups) / len(group) for group in groups for k in group}
        self._n_others = [len(choice.options) - 1 for choice in space.choices]
        self._block = -1
        return self

    def propose(self, number: int) -> Architecture:
        if len(self.population) < self.population_size:
            return self.space.random(self.random(number))
        members, changed, option = self._draws(number)
        parent = max(map(self.population.__getitem__, members), key=self._key).architecture
        if changed is None:
            return parent
        if self.space.has_rule:
            return self.space.mutate(parent, self.random(number), changed)
        other = int(option * self._n_others[changed])
        if other >= parent[changed]:
            other += 1
        return parent[:changed] + (other,) + parent[changed + 1 :]  # noqa: RUF005  # unpacking takes longer

    def tell(self, trials: Sequence[Trial]) -> None:
        super().tell(trials)
        self.population.extend(trials)
        if any(trial.violation for trial in trials):
            self._key = _rank

    def _draws(self, number: int) -> tuple[list[int], int | None, float]:
        """What is random in a trial, a function of the seed and its number: the members of the tournament, the choice
        that changes (None: it stays as it is), and which of its other options it takes, from 0 to below 1."""
        block, row = divmod(number, BLOCK)
        if block != self._block:
            rng = Random(derive_seed(self.seed, type(self).__name__, "block", block))
            members = rng.choices(range(self.population_size), k=BLOCK * self.sample_size)
            changed = rng.choices(list(self._mutations), list(self._mutations.values()), k=BLOCK)
            ends = range(self.sample_size, len(members) + 1, self.sample_size)
            self._rows = [
                (members[end - self.sample_size : end], choice, rng.random())
                for end, choice in zip(ends, changed, strict=True)
            ]
            self._block = block
        return self._rows[row]
