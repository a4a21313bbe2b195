"""The trials that a search was told, and what follows from them."""

import dataclasses
from collections.abc import Iterator, Sequence

from lightning_nas.errors import SettingError
from lightning_nas.evaluators.base import Evaluator
from lightning_nas.spaces.base import Architecture
from lightning_nas.strategies.base import Proposal, Strategy, Trial
from lightning_nas.trials.settings import check_fidelity


class Told:
    """The trials that a search was told, each with its last result.

    Attributes:
        history: the trials in the order told.
        best: the best of them, the first of equals; None before one is done.
        cost: the seconds that all of them took, those that were tried again among them.
        n: how many results were told, second ones too.
    """

    def __init__(self) -> None:
        self.history: list[Trial] = []
        self.best: Trial | None = None
        self.cost = 0.0
        self.n = 0
        self._places: dict[int, int] = {}  # in the history, by number
        self._results: dict[tuple[Architecture, int | None], Trial] = {}  # the first that was done

    def __contains__(self, number: int) -> bool:
        return number in self._places

    def __getitem__(self, number: int) -> Trial:
        return self.history[self._places[number]]

    def add(self, trials: Sequence[Trial]) -> None:
        """Takes trials, some of which may have been told before."""
        self.n += len(trials)
        self.cost += sum([trial.cost for trial in trials])
        for trial in trials:
            place = self._places.setdefault(trial.number, len(self.history))
            self.history[place : place + 1] = [trial]
            if trial.status == "done":
                self._results.setdefault((trial.architecture, trial.fidelity), trial)
            if trial.better_than(self.best):
                self.best = trial

    def same(self, number: int, proposal: Proposal) -> Trial | None:
        """The trial of a proposal whose result is known from an equal one, at no cost; None: there is none."""
        known = self._results.get((proposal.architecture, proposal.fidelity))
        if known is None:
            return None
        return dataclasses.replace(known, number=number, cost=0.0, same_as=known.number, continues=proposal.continues)

    def completed(self, proposal: Proposal, evaluator: Evaluator, strategy: Strategy) -> Proposal:
        """A proposal with all that the evaluator needs to know of it.

        Args:
            proposal: what a strategy asks for.
            evaluator: the evaluator that it is for.
            strategy: the strategy that asks for it.

        Raises:
            SettingError: if the evaluator does not have its fidelity, or it continues what cannot be continued.
        """
        architecture, fidelity, continues, *_ = proposal
        if evaluator.fidelities is None and fidelity is None and continues is None:
            return proposal
        asked_by = type(strategy).__name__
        fidelity = check_fidelity(fidelity, evaluator, asked_by)
        if continues is None:
            return Proposal(architecture, fidelity)
        place = self._places.get(continues)
        before = None if place is None else self.history[place]
        fits = before is not None and before.done and before.architecture == architecture
        if before is None or not fits or (before.fidelity or fidelity) >= fidelity:
            raise SettingError(f"strategy: {asked_by} continues trial {continues}, which cannot be continued so")
        *_, first = self._chain(before)
        return Proposal(architecture, fidelity, continues, before.fidelity or 0, first.number)

    def _chain(self, trial: Trial) -> Iterator[Trial]:
        """A trial and those that it builds on, back to the one that was begun anew."""
        yield trial
        before = trial.continues if trial.same_as is None else trial.same_as
        if before is not None:
            yield from self._chain(self[before])
