"""``Strategy``, ``Proposal`` and ``Trial``: which architecture to try next, from what became of those before."""

import dataclasses
import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from random import Random
from typing import Any, Literal, NamedTuple, Self

from lightning_nas.errors import SettingError
from lightning_nas.objectives import Objective
from lightning_nas.seeding import derive_seed
from lightning_nas.spaces.base import Architecture, Space
from lightning_nas.specs import Configurable

Status = Literal["done", "diverged", "out of memory", "failed"]


class Proposal(NamedTuple):
    """An architecture to try.

    Attributes:
        architecture: the architecture to evaluate.
        fidelity: how thoroughly, in the evaluator's unit, such as epochs; None: as thoroughly as it can.
        continues: the number of the trial that is taken further, of the same architecture and a lower fidelity; None:
            it is begun anew.
        reached: the fidelity of that trial, which the search fills in; 0: there is none.
        first: the number of the trial that began it, which the search fills in; None: it is begun anew.
    """

    architecture: Architecture
    fidelity: int | None = None
    continues: int | None = None
    reached: int = 0
    first: int | None = None


@dataclasses.dataclass(frozen=True)
class Trial:
    """An architecture that was evaluated.

    Attributes:
        number: the number of the trial, from 0, in the order in which the strategy was asked; below 0 if another
            search made it, whose results were known before.
        architecture: the architecture that was evaluated.
        values: what was wanted, a value for each objective but mere limits, oriented so that more is better; empty
            unless the trial is done.
        metrics: all figures by name, each name saying how it was measured.
        cost: seconds that the trial took, or would have taken.
        status: ``done``, or what went wrong.
        reason: why it is not done.
        same_as: the number of an equal trial whose result this one has; None: it was evaluated itself.
        fidelity: how thorough the evaluation was, in the evaluator's unit; None: all have the same fidelity.
        continues: the number of the trial that this one took further; None: it was begun anew.
        violation: how far limits are exceeded, summed over the objectives; 0: all hold.
    """

    number: int
    architecture: Architecture
    values: tuple[float, ...] = ()
    metrics: dict[str, float] = dataclasses.field(default_factory=dict)
    cost: float = 0.0
    status: Status = "done"
    reason: str = ""
    same_as: int | None = None
    fidelity: int | None = None
    continues: int | None = None
    violation: float = 0.0

    @property
    def done(self) -> bool:
        """Whether it came to a result."""
        return self.status == "done"

    @property
    def feasible(self) -> bool:
        """Whether it came to a result that keeps all limits."""
        return self.status == "done" and not self.violation

    @property
    def score(self) -> float:
        """The first of the values; -inf unless the trial is done."""
        return self.values[0] if self.status == "done" else -math.inf

    def better_than(self, other: "Trial | None") -> bool:
        """Whether it is done, and of a higher :attr:`rank` than another, if there is one."""
        if self.status != "done" or other is None:
            return self.status == "done"
        if self.violation == other.violation and self.fidelity == other.fidelity:  # most often, and quickly seen
            return self.values[0] > other.values[0]
        return self.rank > other.rank

    @property
    def rank(self) -> tuple[float, float, float]:
        """What a better trial has more of: first the limits that hold, then the fidelity, then the score. Scores of
        different fidelities do not compare."""
        fidelity = math.inf if self.fidelity is None else self.fidelity
        return -self.violation, fidelity, self.score

    def judged(self, objectives: Sequence[Objective]) -> "Trial":
        """The trial with its values and its violation, which follow from its metrics.

        One of which a wanted metric is not finite has diverged.

        Raises:
            SettingError: if it is done and has no such metric.
        """
        if self.status != "done":
            return self
        values, violation = [], 0.0
        for objective in objectives:
            value = self.metrics.get(objective.metric)
            if value is None:
                has = ", ".join(self.metrics) or "no metrics"
                raise SettingError(f"objectives: no metric is called {objective.metric!r}; an evaluation has {has}")
            if objective.wanted and not math.isfinite(value):
                return dataclasses.replace(self, values=(), status="diverged", reason=f"{objective.metric} is {value}")
            if objective.wanted:
                values.append(objective.score(value))
            if objective.limit is not None:
                violation += objective.violation(value)
        judged = object.__new__(Trial)  # ``dataclasses.replace`` takes longer than all the rest of a search on a table
        judged.__dict__.update(self.__dict__, values=tuple(values), violation=violation)
        return judged


class Strategy(Configurable, ABC):
    """Decides which architectures are tried. A subclass takes its settings in ``__init__``.

    What :meth:`ask` returns is a function of the seed, the number of the trial and the trials told so far, so that a
    search is resumed by telling the trials that it has on file. It needs neither networks nor Lightning::

        strategy = AgingEvolution(population=10, sample=3).begin(space, seed=0)
        for number in range(100):
            (proposal,) = strategy.ask()
            strategy.tell([Trial(number, proposal.architecture, (score(proposal.architecture),))])
        print(space.describe(strategy.best.architecture))

    It may be told trials that it did not ask for: architectures that the user wants tried first, whose numbers come
    before its own, and results of another search, whose numbers are below 0 and which nothing can continue.

    Attributes:
        best: the best trial told so far, the first of equals; None before one is done. One that keeps all limits is
            better than one that does not, then one of a higher fidelity, then one of a higher score.
        n_asked: the number of the next trial.
        fidelities: the fidelities of its proposals, rising, as its settings say; empty: it leaves them to the
            evaluator. A search is refused whose evaluator does not have them.
        waits: whether there may be fewer proposals than are asked for while trials are running, so that a round of a
            deterministic search may be short.
    """

    space: Space
    seed: int
    best: Trial | None
    fidelities: Sequence[int] = ()
    waits: bool = False

    def begin(self, space: Space, seed: int = 0) -> Self:
        """Starts a search in a space, again if there was one before. Returns itself."""
        self.space, self.seed = space, seed
        self.n_asked = 0
        self.best = None
        return self

    def ask(self, n: int = 1) -> list[Proposal]:
        """What to try next; trials told in between make for better proposals.

        There are fewer than ``n`` where it waits for trials that are running. Where none is running and there is no
        proposal, the search has ended.
        """
        proposals: list[Proposal] = []
        while len(proposals) < n and (proposed := self.propose(self.n_asked)) is not None:
            proposals.append(proposed if isinstance(proposed, Proposal) else Proposal(proposed))
            self.n_asked += 1
        return proposals

    @abstractmethod
    def propose(self, number: int) -> Architecture | Proposal | None:
        """What the trial of this number tries; None: nothing before another trial is told. Asked again without one, it
        says None again."""
        raise NotImplementedError

    def tell(self, trials: Sequence[Trial]) -> None:
        """What became of trials, in the order in which they ended. A strategy that learns overrides it."""
        for trial in trials:
            if trial.better_than(self.best):
                self.best = trial

    def snapshot(self) -> dict[str, Any] | None:
        """What it has learnt, plain values and tensors, from which :meth:`restore` goes on; None: it is so cheap to ask
        and tell again that there is none."""
        return None

    def restore(self, snapshot: dict[str, Any]) -> None:
        """Takes what it had learnt, after :meth:`begin`. ``n_asked`` and ``best`` are no part of it."""
        raise NotImplementedError

    def random(self, number: int) -> Random:
        """The randomness of one trial, a function of the seed and its number."""
        return Random(derive_seed(self.seed, type(self).__name__, number))
