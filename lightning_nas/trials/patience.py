"""When a search of many trials is given up: it comes to nothing, or to no end."""

from collections.abc import Sequence

from lightning_nas.errors import SettingError
from lightning_nas.strategies.base import Trial

MOST_FREE = 1000
"""Trials in a row that may cost nothing where the budget alone ends the search."""


class Patience:
    """Counts the trials of one session that lead nowhere. Those on file do not count: their reason may be mended.

    Args:
        max_failures: trials in a row that may fail; below 1 as a share of ``n_trials``.
        n_trials: after how many the search ends; None: by its budget, and never where trials cost nothing.
    """

    def __init__(self, max_failures: float, n_trials: int | None) -> None:
        self.max_failures = max_failures if max_failures >= 1 or not n_trials else max_failures * n_trials
        self.counted = n_trials is not None
        self.n_failed = self.n_free = 0

    def watch(self, told: Sequence[Trial]) -> None:
        """Takes note of trials that were told.

        Raises:
            SettingError: if one is one too many that failed, or cost nothing.
        """
        for trial in told:
            self.n_failed = 0 if trial.done else self.n_failed + 1
            self.n_free = 0 if trial.cost or self.counted else self.n_free + 1
            if self.n_failed > self.max_failures:
                raise SettingError(
                    f"max_failures: {self.n_failed} trials in a row failed, the last: {trial.status}, {trial.reason}"
                )
            if self.n_free > MOST_FREE:
                raise SettingError(
                    f"budget: the last {self.n_free} trials cost nothing, so it would never be spent; set n_trials too"
                )
