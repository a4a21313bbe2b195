"""What several objectives cost each other: all that was tried, and what nothing else dominates."""

import os
from collections.abc import Sequence

from lightning_nas.pictures.draw import COLOURS, FORMATS, STYLE, accepted, save


def draw_front(
    tried: Sequence[Sequence[float]],
    front: Sequence[Sequence[float]],
    names: Sequence[str],
    path: str | os.PathLike[str],
    caption: str = "",
) -> None:
    """Draws the first of several figures against each other one, a panel for each.

    Args:
        tried: for each that was tried its figures.
        front: those of them that nothing dominates.
        names: the names of the figures, two or more.
        path: the file to write, ``.svg``, ``.png`` or ``.pdf``.
        caption: text above the picture.

    Raises:
        ValueError: for another suffix.
    """
    path = accepted(path, FORMATS)
    import matplotlib.style
    from matplotlib.figure import Figure

    others = range(1, len(names))
    with matplotlib.style.context(STYLE):
        figure = Figure(figsize=(1.2 + 3.6 * len(others), 3.6), layout="constrained")
        for ax, k in zip(figure.subplots(1, len(others), squeeze=False)[0], others, strict=True):
            ax.plot(*_columns(tried, k), ".", color=COLOURS[0], markersize=4, alpha=0.5, label="trials")
            form = "o-" if len(names) == 2 else "o"  # of more than two a line would join what are no neighbours
            ax.plot(*_columns(sorted(front, key=lambda row: row[k]), k), form, color=COLOURS[1], label="front")
            ax.set(xlabel=names[k], ylabel=names[0])
            ax.spines[["top", "right"]].set_visible(False)
        ax.legend(frameon=False)
        figure.suptitle(caption, fontsize="medium")
        save(figure, path)


def draw_growth(places: Sequence[float], volumes: Sequence[float], path: str | os.PathLike[str], xlabel: str) -> None:
    """Draws a hypervolume against what had been spent.

    Args:
        places: what had been spent, rising.
        volumes: the hypervolume from there on.
        path: the file to write, ``.svg``, ``.png`` or ``.pdf``.
        xlabel: what was spent, with its unit.
    """
    path = accepted(path, FORMATS)
    import matplotlib.style
    from matplotlib.figure import Figure

    with matplotlib.style.context(STYLE):
        figure = Figure(figsize=(5.5, 3.2), layout="constrained")
        ax = figure.subplots()
        ax.step(places, volumes, where="post", color=COLOURS[1], linewidth=1.5)
        ax.set(xlabel=xlabel, ylabel="hypervolume")
        ax.spines[["top", "right"]].set_visible(False)
        save(figure, path)


def _columns(rows: Sequence[Sequence[float]], k: int) -> tuple[list[float], list[float]]:
    return [row[k] for row in rows], [row[0] for row in rows]
