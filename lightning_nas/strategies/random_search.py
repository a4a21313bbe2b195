"""Random search: the baseline that every strategy has to beat (Li and Talwalkar, UAI 2019)."""

from typing import Literal, get_args

from lightning_nas.errors import SettingError
from lightning_nas.spaces.base import Architecture
from lightning_nas.strategies.base import Strategy

By = Literal["architecture", "choice"]


class RandomSearch(Strategy):
    """Independent random architectures; one can come twice.

    Args:
        by: ``architecture``: all legal architectures are equally likely; ``choice``: all allowed options of each choice
            are, one after the other; None: whichever the space has as its prior.
    """

    def __init__(self, by: By | None = None) -> None:
        if by not in (None, *get_args(By)):
            raise SettingError(f"by: {' or '.join(get_args(By))}, got {by!r}")
        self.by: By | None = by

    def propose(self, number: int) -> Architecture:
        return self.space.random(self.random(number), self.by)
