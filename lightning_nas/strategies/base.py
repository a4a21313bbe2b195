"""``Strategy`` and ``Trial``: which architecture to try next, from what became of those before."""

import dataclasses
import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from random import Random
from typing import Literal, Self

from lightning_nas.seeding import derive_seed
from lightning_nas.spaces.base import Architecture, Space
from lightning_nas.specs import Configurable

Status = Literal["done", "diverged", "out of memory", "failed"]


@dataclasses.dataclass(frozen=True)
class Trial:
    """An architecture that was evaluated.

    Attributes:
        number: the number of the trial, from 0, in the order in which the strategy was asked.
        architecture: the architecture that was evaluated.
        score: what decides between architectures, higher is better; -inf unless the trial is done.
        metrics: further figures by name, each name saying how it was measured.
        cost: seconds that the trial took, or would have taken.
        status: ``done``, or what went wrong.
        reason: why it is not done.
        same_as: the number of an equal trial whose result this one has; None: it was evaluated itself.
    """

    number: int
    architecture: Architecture
    score: float
    metrics: dict[str, float] = dataclasses.field(default_factory=dict)
    cost: float = 0.0
    status: Status = "done"
    reason: str = ""
    same_as: int | None = None

    @property
    def done(self) -> bool:
        return self.status == "done" and math.isfinite(self.score)


class Strategy(Configurable, ABC):
    """Decides which architectures are tried. A subclass takes its settings in ``__init__``.

    What :meth:`ask` returns is a function of the seed, the number of the trial and the trials told so far, so that a
    search is resumed by telling the trials that it has on file. It needs neither networks nor Lightning::

        strategy = AgingEvolution(population=10, sample=3).begin(space, seed=0)
        for number in range(100):
            (architecture,) = strategy.ask()
            strategy.tell([Trial(number, architecture, score(architecture))])
        print(space.describe(strategy.best.architecture))

    Attributes:
        best: the trial of the highest score told so far, the first of equals; None before one is done.
    """

    space: Space
    seed: int
    best: Trial | None

    def begin(self, space: Space, seed: int = 0) -> Self:
        """Starts a search in a space, again if there was one before. Returns itself."""
        self.space, self.seed = space, seed
        self.n_asked = 0
        self.best = None
        return self

    def ask(self, n: int = 1) -> list[Architecture]:
        """The architectures to try next; trials told in between make for better ones."""
        first, self.n_asked = self.n_asked, self.n_asked + n
        return list(map(self.propose, range(first, self.n_asked)))

    @abstractmethod
    def propose(self, number: int) -> Architecture:
        """The architecture of the trial of this number."""
        raise NotImplementedError

    def tell(self, trials: Sequence[Trial]) -> None:
        """What became of trials, in the order in which they ended. A strategy that learns overrides it."""
        highest = -math.inf if self.best is None else self.best.score
        for trial in trials:
            if trial.score > highest:
                self.best, highest = trial, trial.score

    def random(self, number: int) -> Random:
        """The randomness of one trial, a function of the seed and its number."""
        return Random(derive_seed(self.seed, type(self).__name__, number))
