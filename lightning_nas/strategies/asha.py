"""ASHA, asynchronous successive halving (Li, Jamieson, Rostamizadeh, Gonina, Ben-tzur, Hardt, Recht, Talwalkar, MLSys
2020)."""

import heapq
from bisect import bisect_left, insort
from collections.abc import Sequence
from typing import Self

from lightning_nas.spaces.base import Space
from lightning_nas.strategies.base import Proposal, Strategy, Trial
from lightning_nas.strategies.successive_halving import fidelities_of_rungs, standing


class ASHA(Strategy):
    """Successive halving that never waits: a trial continues as soon as it is among the best 1/η of its rung so far.

    Whenever a trial is asked for, rungs are looked at from the last but one down. The best trial of a rung that has not
    been continued is, with the fidelity of the next rung, if it is among the best ⌊n/η⌋ of the n that have ended there.
    Where no rung has such a trial, a random architecture begins in the lowest. So early promotions can turn out wrong,
    and more than ⌊n/η⌋ of a rung continue over time, but no worker ever waits. Trials that failed count among the n,
    rank last, and never continue.

    Differs from the paper: 1. Fidelities are whole numbers, counted down from the last rung as Hyperband's are. 2. All
    trials begin in the lowest rung; where the paper says s > 0, set a higher ``min_fidelity``. Differs from code that
    stops trials while they run, as syne-tune's default does: a trial is paused at each rung, and what is stopped there
    can be continued later.

    Args:
        min_fidelity: r, the least fidelity that the lowest rung may have; None: 1.
        max_fidelity: R, the fidelity of the last rung; None: 81. Each rung below has a fidelity η times lower, rounded
            down.
        reduction: η, the factor between the rungs (paper 4).
        rungs: the fidelities of the rungs, rising, where they are no powers; None: they follow from the others.
    """

    def __init__(
        self,
        min_fidelity: int | None = None,
        max_fidelity: int | None = None,
        reduction: int = 3,
        rungs: Sequence[int] | None = None,
    ) -> None:
        self.fidelities = fidelities_of_rungs(min_fidelity, max_fidelity, reduction, rungs)
        self.reduction = reduction

    def begin(self, space: Space, seed: int = 0) -> Self:
        super().begin(space, seed)
        self._rungs = [Rung() for _ in self.fidelities]
        self._rung_of: dict[int, int] = {}  # by the number of a trial
        return self

    def propose(self, number: int) -> Proposal:
        for k in reversed(range(len(self._rungs) - 1)):
            trial = self._rungs[k].promote(self.reduction)
            if trial is not None:
                self._rung_of[number] = k + 1
                return Proposal(trial.architecture, self.fidelities[k + 1], trial.number)
        self._rung_of[number] = 0
        return Proposal(self.space.random(self.random(number)), self.fidelities[0])

    def tell(self, trials: Sequence[Trial]) -> None:
        super().tell(trials)
        for trial in trials:
            if trial.number in self._rung_of:
                self._rungs[self._rung_of[trial.number]].add(trial)


class Rung:
    """The trials that have ended with one fidelity."""

    def __init__(self) -> None:
        self._standings: list[tuple[bool, float, float, int]] = []  # of all, the best first
        self._waiting: list[tuple[bool, float, float, int]] = []  # a heap of those that can be continued
        self._trials: dict[int, Trial] = {}

    def add(self, trial: Trial) -> None:
        """Takes a trial, or another result of one that had failed."""
        before = self._trials.get(trial.number)
        if before is not None:
            if before.done:
                return
            self._standings.remove(standing(before))
        self._trials[trial.number] = trial
        insort(self._standings, standing(trial))
        if trial.done:
            heapq.heappush(self._waiting, standing(trial))

    def promote(self, reduction: int) -> Trial | None:
        """Takes out the best trial that was not continued; None: it is not among the best of all."""
        if not self._waiting:
            return None
        best = self._waiting[0]
        if bisect_left(self._standings, best) >= len(self._standings) // reduction:
            return None
        return self._trials[heapq.heappop(self._waiting)[-1]]
