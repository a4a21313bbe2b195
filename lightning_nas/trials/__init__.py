"""A search of many trials: a strategy asks, an executor evaluates, and every trial that has ended is on file."""

from typing import TYPE_CHECKING

from lightning_nas.lazy import lazy_names
from lightning_nas.trials.log import read_trials
from lightning_nas.trials.loop import TrialLoop

if TYPE_CHECKING:
    from lightning_nas.trials.method import TrialSearch

__all__ = ["TrialLoop", "TrialSearch", "read_trials"]

__getattr__ = lazy_names(__name__, {"TrialSearch": "method"})  # the one that needs Lightning
