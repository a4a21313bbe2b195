"""A rule compiled: how many legal architectures continue from every state of every choice.

States are numbered per choice, by forward reach; the start is state 0 of choice 0. Options are numbers too.
"""

import dataclasses
import functools
from collections.abc import Callable, Hashable, Iterator, Sequence
from random import Random

Cost = Callable[[int, int], float]
"""``cost(choice, option)``."""


@dataclasses.dataclass(frozen=True)
class Tables:
    """``next[k][state][option]`` and ``counts[k][state][option]`` for choice k.

    Attributes:
        next: the number of the state that follows, None where the option is illegal.
        counts: how many legal architectures continue with the option, exactly; their logarithm is a mask and a prior.
    """

    next: list[list[list[int | None]]]
    counts: list[list[list[int]]]

    @classmethod
    def compile(
        cls, start: Hashable, n_options: Sequence[int], step: Callable[[Hashable, int, int], Hashable | None]
    ) -> "Tables":
        """Compiles a rule.

        Args:
            start: the rule state before the first choice.
            n_options: the number of options of each choice.
            step: ``(state, choice, option)`` to the next state, or None where that is illegal.
        """
        states: list[Hashable] = [start]
        following: list[list[list[int | None]]] = []
        for k, n in enumerate(n_options):
            reached: dict[Hashable, int] = {}
            rows: list[list[int | None]] = []
            for state in states:
                after = [step(state, k, option) for option in range(n)]
                rows.append([None if s is None else reached.setdefault(s, len(reached)) for s in after])
            following.append(rows)
            states = list(reached)
        counts: list[list[list[int]]] = []
        completions = [1] * len(states)
        for rows in reversed(following):
            counts.append([[0 if after is None else completions[after] for after in row] for row in rows])
            completions = [sum(row) for row in counts[-1]]
        return cls(following, counts[::-1])

    def __len__(self) -> int:
        """The number of choices."""
        return len(self.next)

    @property
    def size(self) -> int:
        """The number of legal architectures."""
        return sum(self.counts[0][0]) if self.counts else 1

    def after(self, k: int, state: int, option: int) -> int:
        """The state that follows a legal option."""
        following = self.next[k][state][option]
        assert following is not None  # counts are positive only where a state follows
        return following

    def walk(self, options: Sequence[int]) -> Iterator[list[int]]:
        """The counts over the options at each choice along a path; it ends where the path becomes illegal."""
        state: int | None = 0
        for rows, counts, option in zip(self.next, self.counts, options, strict=False):
            if state is None:
                return
            yield counts[state]
            state = rows[state][option]

    def unrank(self, rank: int) -> tuple[int, ...]:
        """The legal path of this rank in lexicographic order."""
        path, state = [], 0
        for k in range(len(self)):
            counts, option = self.counts[k][state], 0
            while rank >= counts[option]:
                rank -= counts[option]
                option += 1
            path.append(option)
            state = self.after(k, state, option)
        return tuple(path)

    @functools.cached_property
    def possible(self) -> list[list[int]]:
        """For each choice the options that occur in some legal path."""
        reached, possible = {0}, []
        for k, counts in enumerate(self.counts):
            live = [(state, option) for state in reached for option, count in enumerate(counts[state]) if count]
            possible.append(sorted({option for _, option in live}))
            reached = {self.after(k, state, option) for state, option in live}
        return possible

    def cheapest(self, cost: Cost, rng: Random | None = None) -> tuple[int, ...]:
        """The legal path of the smallest total cost, by a backward pass.

        Ties: uniformly among the cheapest with ``rng``, else the first in the options' order.
        """
        last = {self.after(len(self) - 1, s, o) for s, o in self.live(len(self) - 1)} if len(self) else {0}
        best = [dict.fromkeys(last, (0.0, 1))]  # by state (cost of the rest, in how many ways)
        for k in range(len(self) - 1, -1, -1):
            row = {}
            for state in range(len(self.counts[k])):
                totals = self._totals(cost, k, state, best[-1])
                low = min((total for total, _, _ in totals), default=float("inf"))
                row[state] = (low, sum(ways for total, ways, _ in totals if total == low))
            best.append(row)
        best.reverse()
        path, state = [], 0
        for k in range(len(self)):
            low = best[k][state][0]
            ties = [(ways, option) for total, ways, option in self._totals(cost, k, state, best[k + 1]) if total == low]
            option = ties[0][1]
            if rng is not None:
                option = rng.choices([option for _, option in ties], [ways for ways, _ in ties])[0]
            path.append(option)
            state = self.after(k, state, option)
        return tuple(path)

    def live(self, k: int) -> Iterator[tuple[int, int]]:
        """The states of a choice with the options that some legal path continues with."""
        return ((s, o) for s, counts in enumerate(self.counts[k]) for o, count in enumerate(counts) if count)

    def _totals(
        self, cost: Cost, k: int, state: int, rest: dict[int, tuple[float, int]]
    ) -> list[tuple[float, int, int]]:
        totals = []
        for option, count in enumerate(self.counts[k][state]):
            if count:
                after, ways = rest[self.after(k, state, option)]
                totals.append((cost(k, option) + after, ways, option))
        return totals
