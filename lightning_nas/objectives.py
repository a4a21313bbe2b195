"""What a search wants: figures by their names, whether more of each is better, and limits that must hold."""

import dataclasses
import math
import re
from typing import Literal, Self, get_args

from lightning_nas.errors import SettingError

Mode = Literal["max", "min"]

_SIGNS: dict[Mode, str] = {"max": ">=", "min": "<="}
_FORM = re.compile(r"\s*(?:(?P<mode>max|min)\s+)?(?P<metric>[^\s<>=]+)\s*(?:(?P<sign><=|>=)\s*(?P<limit>\S+))?\s*")
_REMEDY = "write 'max METRIC', 'min METRIC <= LIMIT', or a limit alone, 'METRIC <= LIMIT'"


@dataclasses.dataclass(frozen=True)
class Objective:
    """A metric, its direction, and a limit that must hold. The only place that turns a metric into a score, of which
    more is better.

    It has one form in words, which :meth:`parse` reads and ``str`` prints: ``max val/accuracy``, ``min flops <= 3e8``,
    and where only the limit counts ``flops <= 3e8``.

    Attributes:
        metric: the name of the metric.
        mode: ``max`` if a higher value is better, ``min`` if a lower one is.
        limit: the value that must be reached (``max``) or kept (``min``); None: any will do.
        wanted: whether more is better beyond the limit; else nothing but the limit counts.
    """

    metric: str
    mode: Mode = "max"
    limit: float | None = None
    wanted: bool = True

    def __post_init__(self) -> None:
        if self.mode not in get_args(Mode):
            raise SettingError(f"mode: {' or '.join(get_args(Mode))}, got {self.mode!r}")
        if self.limit is not None and not math.isfinite(self.limit):
            raise SettingError(f"limit: a finite number, or null, got {self.limit}")
        if self.limit is None and not self.wanted:
            raise SettingError(f"limit: a number, since nothing but the limit of {self.metric} counts")

    @classmethod
    def parse(cls, text: str) -> Self:
        """The objective that a text says.

        Raises:
            SettingError: if it has neither direction nor limit, or a limit against its direction.
        """
        found = _FORM.fullmatch(text) if isinstance(text, str) else None
        if found is None or not (found["mode"] or found["sign"]):
            raise SettingError(f"{text!r} is no objective; {_REMEDY}")
        try:
            limit = None if found["limit"] is None else float(found["limit"])
        except ValueError:
            raise SettingError(f"{text!r} has a limit that is no number; {_REMEDY}") from None
        by_sign: Mode = "max" if found["sign"] == ">=" else "min"
        mode: Mode = by_sign if found["mode"] is None else "max" if found["mode"] == "max" else "min"
        if limit is not None and mode != by_sign:
            raise SettingError(
                f"{text!r} has a limit against its direction; write '{mode} {found['metric']} {_SIGNS[mode]} "
                f"{found['limit']}', or leave {mode} out for the limit alone"
            )
        return cls(found["metric"], mode, limit, wanted=found["mode"] is not None)

    def __str__(self) -> str:
        text = f"{self.mode} {self.metric}" if self.wanted else self.metric
        return text if self.limit is None else f"{text} {_SIGNS[self.mode]} {_shortest(self.limit)}"

    def score(self, value: float) -> float:
        """The value, negated where lower values are better."""
        return value if self.mode == "max" else -value

    def violation(self, value: float) -> float:
        """How far a value is from the limit, as a share of it: 0 where it holds, infinite where the value is no number.

        Where the limit is 0 the distance itself is returned.
        """
        if self.limit is None:
            return 0.0
        if math.isnan(value):
            return math.inf
        return max(0.0, self.score(self.limit) - self.score(value)) / (abs(self.limit) or 1.0)


def _shortest(number: float) -> str:
    return f"{number:g}" if float(f"{number:g}") == number else repr(float(number))
