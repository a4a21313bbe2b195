"""What a search wants: a figure by its name, and whether more of it is better."""

import dataclasses
from typing import Literal, get_args

from lightning_nas.errors import SettingError

Mode = Literal["max", "min"]


@dataclasses.dataclass(frozen=True)
class Objective:
    """A metric and its direction. The only place that turns a metric into a score, of which more is better.

    Attributes:
        metric: the name of the metric.
        mode: ``max`` if a higher value is better, ``min`` if a lower one is.
    """

    metric: str
    mode: Mode = "max"

    def __post_init__(self) -> None:
        if self.mode not in get_args(Mode):
            raise SettingError(f"mode: {' or '.join(get_args(Mode))}, got {self.mode!r}")

    def score(self, value: float) -> float:
        """The value, negated where lower values are better."""
        return value if self.mode == "max" else -value
