"""Successive halving (Jamieson and Talwalkar, AISTATS 2016) and Hyperband (Li, Jamieson, DeSalvo, Rostamizadeh,
Talwalkar, JMLR 2018): many short trials, of which the best continue."""

from collections.abc import Sequence
from typing import Self

from lightning_nas.errors import SettingError
from lightning_nas.spaces.base import Space
from lightning_nas.strategies.base import Proposal, Strategy, Trial

Bracket = list[tuple[int, int]]
"""The rungs of one run of successive halving: how many architectures, and with which fidelity, from the lowest on."""


def fidelities_of_rungs(
    min_fidelity: int | None, max_fidelity: int | None, reduction: int, rungs: Sequence[int] | None
) -> list[int]:
    """The fidelities at which trials are compared, rising.

    Args:
        min_fidelity: the least that the lowest rung may have; None: 1.
        max_fidelity: the fidelity of the last rung; None: 81. Each rung below has that of the one above, divided by the
            reduction and rounded down.
        reduction: the factor between the fidelities of two rungs.
        rungs: the fidelities themselves; None: they follow from the others.

    Raises:
        SettingError: naming the setting that is wrong.
    """
    if reduction < 2:
        raise SettingError(f"reduction: at least 2, got {reduction}")
    if rungs is not None:
        if min_fidelity is not None or max_fidelity is not None:
            raise SettingError("rungs: leave out min_fidelity and max_fidelity where the rungs are given")
        if not rungs or rungs[0] < 1 or sorted(set(rungs)) != list(rungs):
            raise SettingError(f"rungs: fidelities of at least 1, rising, got {list(rungs)}")
        return list(rungs)
    least = 1 if min_fidelity is None else min_fidelity
    most = 81 if max_fidelity is None else max_fidelity
    if most < 1:
        raise SettingError(f"max_fidelity: at least 1, got {most}")
    if not 1 <= least <= most:
        raise SettingError(f"min_fidelity: from 1 to max_fidelity, {most}, got {least}")
    found = [most]
    while most // reduction ** len(found) >= least:
        found.append(most // reduction ** len(found))
    return found[::-1]


def standing(trial: Trial) -> tuple[bool, float, float, int]:
    """What the better of two trials of one fidelity has less of: one that is done stands before one that is not, then
    the one that violates limits less, then that of the higher score, then the earlier."""
    return not trial.done, trial.violation, -trial.score, trial.number


class Brackets(Strategy):
    """Runs brackets one after the other, each a successive halving: random architectures are tried with the lowest
    fidelity, and when all of a rung have ended, the best continue with the next.

    Attributes:
        brackets: what is run in this order, set by a subclass together with ``fidelities``.
        repeats: how often all brackets are run; None: again and again, as long as the search lasts.
    """

    waits = True
    brackets: Sequence[Bracket]
    repeats: int | None

    def begin(self, space: Space, seed: int = 0) -> Self:
        super().begin(space, seed)
        self._n_begun = 0  # brackets
        self._begin_bracket()
        return self

    def propose(self, number: int) -> Proposal | None:
        n, fidelity = self._bracket[self._rung] if self._bracket else (0, 0)
        place = len(self._asked)
        if place == n:
            return None
        self._asked.add(number)
        if self._rung == 0:
            return Proposal(self.space.random(self.random(number)), fidelity)
        continued = self._promoted[place]
        return Proposal(continued.architecture, fidelity, continued.number)

    def tell(self, trials: Sequence[Trial]) -> None:
        super().tell(trials)
        for trial in trials:
            if trial.number in self._asked:
                self._told[trial.number] = trial
        if self._bracket and len(self._told) == self._bracket[self._rung][0]:
            self._end_rung()

    def _begin_bracket(self) -> None:
        """Begins the next bracket; with none left the strategy has nothing more to propose."""
        turn, place = divmod(self._n_begun, len(self.brackets))
        self._bracket = list(self.brackets[place]) if self.repeats is None or turn < self.repeats else []
        self._n_begun += 1
        self._begin_rung(0, [])

    def _begin_rung(self, rung: int, promoted: list[Trial]) -> None:
        self._rung, self._promoted = rung, promoted
        self._asked: set[int] = set()  # the numbers of the rung's trials
        self._told: dict[int, Trial] = {}  # those that have ended

    def _end_rung(self) -> None:
        """The best continue, as many as the next rung has places, or as came to a result."""
        rung = self._rung + 1
        n, fidelity = self._bracket[rung] if rung < len(self._bracket) else (0, 0)
        promoted = sorted((trial for trial in self._told.values() if trial.done), key=standing)[:n]
        if promoted:
            self._bracket[rung] = len(promoted), fidelity
            self._begin_rung(rung, promoted)
        else:
            self._begin_bracket()


class SuccessiveHalving(Brackets):
    """Tries many random architectures briefly, and continues the best of them, fewer with each rung.

    When all of a rung have ended, the best n/η continue with the next. Trials that failed rank last, and none of them
    continues.

    Differs from the paper: the fidelity grows by η from rung to rung, and n/η are kept, as Hyperband has it; in the
    paper half of them are kept, and each rung adds the same share of the budget.

    Args:
        architectures: n, the number of architectures in the lowest rung. None: as few as leave one in the last.
        min_fidelity: the least fidelity that the lowest rung may have; None: 1.
        max_fidelity: R, the fidelity of the last rung; None: 81. Each rung below has a fidelity η times lower, rounded
            down.
        reduction: η, the factor between the rungs.
        rungs: the fidelities of the rungs, rising, where they are no powers; None: they follow from the others.
        repeats: how often it is run, each time with other architectures; None: as long as the search lasts.
    """

    def __init__(
        self,
        architectures: int | None = None,
        min_fidelity: int | None = None,
        max_fidelity: int | None = None,
        reduction: int = 3,
        rungs: Sequence[int] | None = None,
        repeats: int | None = 1,
    ) -> None:
        self.fidelities = fidelities_of_rungs(min_fidelity, max_fidelity, reduction, rungs)
        least = reduction ** (len(self.fidelities) - 1)
        if architectures is not None and architectures < least:
            raise SettingError(
                f"architectures: {least} or more, so that one reaches the last rung, got {architectures}"
            )
        self.brackets = [bracket(architectures or least, self.fidelities, reduction)]
        self.repeats = checked_repeats(repeats)


class Hyperband(Brackets):
    """Successive halving with many architectures and a low first fidelity, with fewer and a higher, and so on to none
    that is halved: a hedge against low fidelities that mislead.

    Bracket s, from s_max = ⌊log_η R⌋ down to 0, tries n = ⌈(s_max + 1) η^s / (s + 1)⌉ random architectures with the
    fidelity R η^(-s), and keeps ⌊n/η⌋ at each of its s further rungs. Trials that failed rank last, and none of them
    continues.

    Differs from the paper: a fidelity is a whole number, rounded down, and the last bracket is followed by the first
    again.

    Args:
        min_fidelity: the unit of fidelity, below which no bracket begins; None: 1.
        max_fidelity: R, the fidelity of the last rung of each bracket; None: 81.
        reduction: η, the factor between the rungs (paper 3 or 4).
        rungs: the fidelities of the rungs, rising, where they are no powers; None: they follow from the others.
        repeats: how often all brackets are run; None: as long as the search lasts.
    """

    def __init__(
        self,
        min_fidelity: int | None = None,
        max_fidelity: int | None = None,
        reduction: int = 3,
        rungs: Sequence[int] | None = None,
        repeats: int | None = None,
    ) -> None:
        self.fidelities = fidelities_of_rungs(min_fidelity, max_fidelity, reduction, rungs)
        n_brackets = len(self.fidelities)
        self.brackets = [
            bracket(-(-n_brackets * reduction**s // (s + 1)), self.fidelities[-s - 1 :], reduction)
            for s in reversed(range(n_brackets))
        ]
        self.repeats = checked_repeats(repeats)


def bracket(n_architectures: int, fidelities: Sequence[int], reduction: int) -> Bracket:
    """The rungs of a successive halving that begins with this number of architectures."""
    return [(n_architectures // reduction**k, fidelity) for k, fidelity in enumerate(fidelities)]


def checked_repeats(repeats: int | None) -> int | None:
    """The setting, if it is one.

    Raises:
        SettingError: if it is below 1.
    """
    if repeats is not None and repeats < 1:
        raise SettingError(f"repeats: at least 1, or null, got {repeats}")
    return repeats
