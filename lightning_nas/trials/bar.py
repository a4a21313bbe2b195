"""What a search of many trials shows while it runs, without a trainer."""

from typing import Protocol

from lightning_nas.strategies.base import Trial


class Shown(Protocol):
    """What is shown of a search."""

    n_trials: int | None
    budget: float | None
    ended: list[Trial]
    n_failed: int
    n_reused: int

    @property
    def cost(self) -> float:
        """The seconds of all that were told."""

    @property
    def best(self) -> Trial | None:
        """The best trial told."""

    @property
    def n_ended(self) -> int:
        """How many trials have ended."""


class TrialBar:
    """A bar of trials done, or of seconds where the budget alone ends the search, from where the search stands.

    Args:
        loop: the search that is shown.
    """

    def __init__(self, loop: Shown) -> None:
        from tqdm import tqdm

        self.loop = loop
        if loop.n_trials is not None:
            self.bar = tqdm(desc="Trials", total=loop.n_trials, initial=loop.n_ended, unit="trial", dynamic_ncols=True)
        else:
            form = "{desc}: {percentage:3.0f}%|{bar}| {n:.0f}/{total:.0f} s [{elapsed}<{remaining}{postfix}]"
            self.bar = tqdm(desc="Trials", total=loop.budget, initial=loop.cost, bar_format=form, dynamic_ncols=True)
        self.bar.set_postfix_str(self.state())

    def update(self, trial: Trial, is_new: bool) -> None:
        """A trial has ended; one that was tried again is not new."""
        self.bar.set_postfix_str(self.state(), refresh=False)
        self.bar.update(trial.cost if self.loop.n_trials is None else int(is_new))

    def state(self) -> str:
        """The search in some words."""
        scores = [trial.score for trial in (self.loop.best, *self.loop.ended) if trial is not None and trial.done]
        parts = [] if self.loop.n_trials is not None else [f"{self.loop.n_ended} done"]
        parts += [f"best {max(scores):.4g}" if scores else "none succeeded yet", f"{self.loop.n_failed} failed"]
        parts += [f"{self.loop.n_reused} reused"] if self.loop.n_reused else []
        return ", ".join(parts)

    def close(self) -> None:
        """Leaves the bar as it is."""
        self.bar.close()
