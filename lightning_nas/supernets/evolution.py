"""The evolution that finds an architecture under shared weights (Guo et al. 2020, section 3.4, as released)."""

import dataclasses
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from random import Random

from lightning_nas.seeding import derive_seed
from lightning_nas.spaces.base import Architecture, Space

TRIES_PER_CHILD = 10
"""How often parents try for one child that is new and legal, on average over the children of a kind."""

PATIENCE = 1000
"""After so many random architectures in a row that are not new, a space counts as exhausted."""


@dataclasses.dataclass(frozen=True)
class Evolution:
    """Rounds of candidates, none of them twice: the first is random, later ones descend from the best of all before.

    Children that parents could not make in time are replaced by random candidates.

    Attributes:
        space: the space that is searched.
        seed: the seed of all rounds.
        random: draws a random candidate that is legal.
        legal: whether a child may be a candidate.
        population: the number of candidates in a round.
        parents: the number of the best candidates of all rounds that have children.
        mutants: children in a round that are like a parent, but with some choices drawn again.
        crossovers: children in a round that take each choice from one of two parents.
        mutation: the probability with which a choice of a mutant is drawn again, from all of its options.
    """

    space: Space
    seed: int
    random: Callable[[Random], Architecture]
    legal: Callable[[Architecture], bool] = lambda architecture: True
    population: int = 50
    parents: int = 10
    mutants: int = 25
    crossovers: int = 25
    mutation: float = 0.1

    def round(self, number: int, ranked: Sequence[Architecture]) -> list[Architecture]:
        """The candidates of a round, a function of the seed and the arguments.

        Args:
            number: the number of the round, from 0.
            ranked: all candidates of the rounds before, the best first.

        Returns:
            ``population`` candidates; fewer where no more can be found, and none where all have been seen.
        """
        rng = Random(derive_seed(self.seed, "evolution", number))
        parents, new, seen = ranked[: self.parents], dict[Architecture, None](), set(ranked)

        def add(n: int, propose: Callable[[], Architecture], tries: int) -> None:
            goal = len(new) + n
            while len(new) < goal and tries > 0:
                candidate = propose()
                tries -= 1
                if candidate not in seen and self.legal(candidate):
                    seen.add(candidate)
                    new[candidate] = None

        if parents:
            add(self.mutants, lambda: self.mutant(rng.choice(parents), rng), TRIES_PER_CHILD * self.mutants)
            add(self.crossovers, lambda: self.crossover(parents, rng), TRIES_PER_CHILD * self.crossovers)
        while len(new) < self.population and len(seen) < self.space.size:
            before = len(new)
            add(1, lambda: self.random(rng), PATIENCE)
            if len(new) == before:
                break
        return list(new)

    def run(
        self,
        rounds: int,
        score: Callable[[Architecture], float],
        best_first: Callable[[Mapping[Architecture, float]], dict[Architecture, float]],
        progress: bool = True,
    ) -> dict[Architecture, float]:
        """Runs rounds one after the other. Ctrl-C ends them with what has been found.

        Args:
            rounds: the number of rounds, the first random one included.
            score: what a candidate is worth.
            best_first: puts candidates with their scores into the order in which they are parents.
            progress: whether a bar is drawn.

        Returns:
            all candidates with their scores, the best first.
        """
        from tqdm import tqdm

        scores: dict[Architecture, float] = {}
        shown = {"desc": "Evolution under shared weights", "unit": "candidate", "disable": not progress}
        with tqdm(total=min(rounds * self.population, self.space.size), **shown) as bar:
            try:
                for number in range(rounds):
                    for candidate in self.round(number, list(scores)):
                        scores[candidate] = score(candidate)
                        bar.update()
                    scores = best_first(scores)
                    bar.set_postfix(round=number + 1, best=next(iter(scores.values()), math.nan))
            except KeyboardInterrupt:
                if not scores:
                    raise
                print(f"\nStopped: the best of {len(scores):,} candidates is taken.", file=sys.stderr, flush=True)
        return best_first(scores)

    def mutant(self, parent: Architecture, rng: Random) -> Architecture:
        """A parent with some choices drawn again; where the rule forbids it, the nearest legal architecture."""
        wanted = tuple(
            rng.choice(options) if rng.random() < self.mutation else option
            for option, options in zip(parent, self.space.tables.possible, strict=True)
        )
        if self.space.legal(wanted):
            return wanted
        return self.space.tables.cheapest(lambda k, option: float(option != wanted[k]), rng)

    def crossover(self, parents: Sequence[Architecture], rng: Random) -> Architecture:
        """A mix of two parents, which may be one and the same."""
        return self.space.crossover(rng.choice(parents), rng.choice(parents), rng)
