"""NSGA-II (Deb, Pratap, Agarwal, Meyarivan, IEEE Transactions on Evolutionary Computation 2002)."""

from collections.abc import Sequence
from random import Random
from typing import Self

from lightning_nas.errors import SettingError
from lightning_nas.spaces.base import Architecture, Space
from lightning_nas.strategies.base import Strategy, Trial
from lightning_nas.strategies.fronts import constrained_ranks, crowding_distances

TRIES = 50
"""How many children, and then how many random architectures, are made in search of one that was not tried before."""


class NSGA2(Strategy):
    """Searches for the whole front of several objectives: what no other architecture dominates.

    The first generation is random. From then on a generation is as many children as the population has members. Each
    parent wins a tournament of two: the better front wins, and within a front the one whose neighbours are farther
    away. Of population and children together the best fronts survive, and of the front that fits only in part those
    that are farthest apart. An architecture that keeps all limits stands before any that does not; of two that do not,
    the one that violates them less; a trial that failed stands last.

    Architectures that were tried before the search, and results that were known, are part of the first generation.

    Differs from the paper:

    1. A child takes each choice from either parent with equal probability, and mutation gives a choice another of its
       options. The paper crosses real numbers, and bit strings at a point. Where a space has a rule, the nearest legal
       architecture is taken.
    2. Two parents make one child, not two.
    3. An architecture is not tried twice, unless ``distinct`` is false.

    Args:
        population: N, the members of the population, and the children of a generation (paper 100).
        crossover: the probability that a child mixes two parents; else it begins as the first of them (paper .9).
        mutation: the probability of each choice to take another option. None: the paper's, 1 by the number of choices
            that have an alternative.
        distinct: whether an architecture that was tried is not proposed again, as far as some tries find another.
        asynchronous: whether a trial that ends joins the population at once, so that no worker waits for the end of a
            generation.

    Attributes:
        population: the members, the best first.
    """

    population: list[Trial]

    def __init__(
        self,
        population: int = 100,
        crossover: float = 0.9,
        mutation: float | None = None,
        distinct: bool = True,
        asynchronous: bool = False,
    ) -> None:
        if population < 2:
            raise SettingError(f"population: at least 2, got {population}")
        if not 0 <= crossover <= 1:
            raise SettingError(f"crossover: from 0 to 1, got {crossover}")
        if mutation is not None and not 0 <= mutation <= 1:
            raise SettingError(f"mutation: from 0 to 1, or null, got {mutation}")
        self.population_size, self.crossover, self.mutation = population, crossover, mutation
        self.distinct, self.asynchronous = distinct, asynchronous
        self.waits = not asynchronous

    def begin(self, space: Space, seed: int = 0) -> Self:
        """Starts a search in a space, with an empty population.

        Raises:
            SettingError: if no choice of the space has an alternative.
        """
        super().begin(space, seed)
        self._changeable = [k for k, options in enumerate(space.tables.possible) if len(options) > 1]
        if not self._changeable:
            raise SettingError("space: has one architecture, so there is nothing to choose from")
        self._mutation = 1 / len(self._changeable) if self.mutation is None else self.mutation
        self.population = []
        self._ranking: list[tuple[int, float]] = []  # of the members, less is better
        self._joining: list[Trial] = []  # told, and not weighed against the population yet
        self._tried: set[Architecture] = set()
        self._n_to_propose: int | None = None  # in this generation; None before the first proposal
        self._awaited: set[int] = set()  # proposed in this generation, not told yet
        return self

    def propose(self, number: int) -> Architecture | None:
        if self.waits and self._has_to_wait(number):
            return None
        rng = self.random(number)
        architecture = self._new(rng)
        self._tried.add(architecture)
        return architecture

    def tell(self, trials: Sequence[Trial]) -> None:
        super().tell(trials)
        self._joining.extend(trials)
        self._tried.update(trial.architecture for trial in trials)
        self._awaited.difference_update(trial.number for trial in trials)
        if self.asynchronous or (self._n_to_propose == 0 and not self._awaited):
            self._select()

    def _has_to_wait(self, number: int) -> bool:
        """Whether the rest of the generation has to end before another trial; if not, takes a place in it."""
        if self._n_to_propose is None:  # what others asked for takes places of the first generation
            self._awaited = set(range(number)) - {trial.number for trial in self._joining}
            self._n_to_propose = max(0, self.population_size - len(self._joining) - len(self._awaited))
        if self._n_to_propose == 0 and not self._awaited:
            self._select()
        if self._n_to_propose == 0:
            return True
        self._n_to_propose -= 1
        self._awaited.add(number)
        return False

    def _select(self) -> None:
        """The best of population and children become the population, and the next generation begins."""
        latest = {trial.number: trial for trial in (*self.population, *self._joining)}  # a trial may be tried again
        own = {trial.fidelity for trial in latest.values() if trial.number >= 0}
        candidates = [trial for trial in latest.values() if not own or trial.fidelity in own]  # others do not compare
        ranks = constrained_ranks(candidates)
        distances = crowding_distances(candidates, ranks)
        order = sorted(range(len(candidates)), key=lambda k: (ranks[k], -distances[k]))[: self.population_size]
        self.population = [candidates[k] for k in order]
        self._ranking = [(ranks[k], -distances[k]) for k in order]
        self._joining = []
        self._n_to_propose = self.population_size

    def _new(self, rng: Random) -> Architecture:
        """A child of the population, or a random architecture where there are too few members or no child is new."""
        breeds = len(self.population) == self.population_size
        makers = (self._child, self.space.random) if breeds else (self.space.random,)
        if self.distinct and len(self._tried) < self.space.size:
            for make in makers:
                for _ in range(TRIES):
                    if (architecture := make(rng)) not in self._tried:
                        return architecture
        return makers[0](rng)

    def _child(self, rng: Random) -> Architecture:
        child = self._parent(rng)
        if rng.random() < self.crossover:
            child = self.space.crossover(child, self._parent(rng), rng)
        for k in self._changeable:
            if rng.random() < self._mutation:
                child = self.space.mutate(child, rng, k)
        return child

    def _parent(self, rng: Random) -> Architecture:
        """The better of two members."""
        n = len(self.population)
        winner = min(rng.randrange(n), rng.randrange(n), key=self._ranking.__getitem__)
        return self.population[winner].architecture
