"""Anytime curves: how good the best so far was, against what had been spent, over many runs."""

import dataclasses
import os
import statistics
from bisect import bisect_right
from collections.abc import Mapping, Sequence

from lightning_nas.pictures.draw import COLOURS, FORMATS, STYLE, accepted, save

Steps = Sequence[tuple[float, float]]
"""One run: what had been spent when the best so far changed, in ascending order, and its value from then on."""

EARLY = 0.05
"""The share of a curve, at its start, that can lie below the frame of the picture."""


@dataclasses.dataclass(frozen=True)
class Curve:
    """Quartiles over runs, from where each run has a value. They hold what is lopsided, as values of first trials are.

    Attributes:
        x: what had been spent, in ascending order.
        low: the first quartile of the values at each x.
        median: the median of the values at each x.
        high: the third quartile of the values at each x.
    """

    x: list[float]
    low: list[float]
    median: list[float]
    high: list[float]

    @classmethod
    def of(cls, runs: Sequence[Steps], at: Sequence[float]) -> "Curve":
        """The curve of two runs or more, at given places, ascending; at the last each run has a value."""
        start = max(steps[0][0] for steps in runs)
        x = [place for place in at if place >= start]
        rows = [statistics.quantiles([_value(steps, place) for steps in runs], method="inclusive") for place in x]
        low, median, high = (list(column) for column in zip(*rows, strict=True))
        return cls(x, low, median, high)


def _value(steps: Steps, place: float) -> float:
    return steps[bisect_right(steps, place, key=lambda step: step[0]) - 1][1]


def draw_curves(curves: Mapping[str, Curve], path: str | os.PathLike[str], xlabel: str, ylabel: str) -> None:
    """Draws medians, and bands from the first quartile to the third.

    Args:
        curves: the curves by their names.
        path: the file to write, ``.svg``, ``.png`` or ``.pdf``.
        xlabel: what was spent, with its unit.
        ylabel: what the value is.

    Raises:
        ValueError: for another suffix.
    """
    path = accepted(path, FORMATS)
    import matplotlib.style
    from matplotlib.figure import Figure

    with matplotlib.style.context(STYLE):
        figure = Figure(figsize=(5.5, 3.6), layout="constrained")
        ax = figure.subplots()
        for k, (name, curve) in enumerate(curves.items()):
            colour = COLOURS[k % len(COLOURS)]
            ax.step(curve.x, curve.median, where="post", color=colour, linewidth=1.5, label=name)
            ax.fill_between(curve.x, curve.low, curve.high, step="post", color=colour, alpha=0.15, linewidth=0)
        late = [y for c in curves.values() for x, y in zip(c.x, c.low, strict=True) if x >= EARLY * c.x[-1]]
        ax.set(xlabel=xlabel, ylabel=ylabel)
        ax.set_ylim(bottom=min(late))
        ax.spines[["top", "right"]].set_visible(False)
        figure.legend(*ax.get_legend_handles_labels(), loc="outside upper center", frameon=False, ncols=3)
        save(figure, path)
