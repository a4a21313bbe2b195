"""Pictures: an architecture's cells, architecture weights, scores, and hidden states of policies.

Pictures are drawn without pyplot, so there is no global state and no window, and a file is never left half-written.
"""

import io
import itertools
import math
import os
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightning_nas.files import write_whole
from lightning_nas.pictures.layout import FONT, Edges, Layout, roles, text_width
from lightning_nas.spaces.base import Architecture, Choice, Space

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FORMATS = (".svg", ".png", ".pdf")
_TITLE = 11.0  # points, as all lengths of a drawn graph
_MARGIN = 12.0
_PAGE = 760.0
STYLE: list[str | Path | dict[str, Any]] = [
    "default",
    {
        "font.size": FONT,
        "text.parse_math": False,  # a $ in a name is just that
        "svg.fonttype": "none",  # text stays text: to search, to edit
        "svg.hashsalt": "lightning_nas",  # the same picture has the same bytes
        "pdf.fonttype": 42,  # publishers refuse the default, Type 3
        "figure.constrained_layout.w_pad": 0.1,
        "figure.constrained_layout.h_pad": 0.1,
    },
]
_TEXT = "#333333"
_FILL = {"input": "#cfe8cf", "node": "#d5e5f5", "output": "#f7e8bd"}
_OUTLINE = {"input": "#6a9f6a", "node": "#6c93b8", "output": "#bb9c45"}
COLOURS = ("#4c72b0", "#dd8452", "#55a868", "#c44e52", "#8172b3", "#937860", "#da8bc3", "#b5a24f", "#64b5cd")
_UNLABELLED = "#8a8f98"


# -- architectures ---------------------------------------------------------------------------------------------------


def draw_architecture(
    space: Space, architecture: Architecture, path: str | os.PathLike[str], caption: str = ""
) -> None:
    """Draws the cells of an architecture, inputs at the left and the output at the right.

    An operation has the same colour in all pictures of a space.

    Args:
        space: its :meth:`~lightning_nas.spaces.base.Space.graph` says what there is to draw.
        architecture: one of the space.
        path: the file to write, ``.svg``, ``.png``, ``.pdf`` or ``.dot`` (Graphviz text). The same architecture gives
            the same bytes.
        caption: text below the picture.

    Raises:
        ValueError: for another suffix, or if this is not an architecture of the space.
    """
    path = accepted(path, (*FORMATS, ".dot"))
    graphs = {name: graph.edges for name, graph in space.graph(architecture).items()}
    if path.suffix.lower() == ".dot":
        write_whole(path, _dot(graphs, caption).encode())
        return
    import matplotlib.style

    options = list(dict.fromkeys(option for choice in space.choices for option in choice.options))
    with matplotlib.style.context(STYLE):
        save(_figure(graphs, caption, options), path)


def _dot(graphs: Mapping[str, Edges], caption: str) -> str:
    def quote(text: str) -> str:
        return '"' + text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'

    lines = ["digraph {", "  rankdir=LR;", f"  label={quote(caption)};", '  node [shape=box, style="rounded,filled"];']
    for k, (cell, edges) in enumerate(graphs.items()):
        lines += [f'  subgraph "cluster_{k}" {{', f"    label={quote(cell)};"]
        for state, role in roles(edges).items():
            lines.append(f'    {quote(f"{cell}/{state}")} [label={quote(state)}, fillcolor="{_FILL[role]}"];')
        for source, target, label in edges:
            ends = f"{quote(f'{cell}/{source}')} -> {quote(f'{cell}/{target}')}"
            lines.append(f"    {ends} [label={quote(label)}];")
        lines.append("  }")
    return "\n".join([*lines, "}", ""])


def _figure(graphs: Mapping[str, Edges], caption: str, options: Sequence[str]) -> "Figure":
    """All cells in rows as wide as a page, unless a cell alone is wider."""
    from matplotlib.figure import Figure

    places: list[tuple[float, float, str, Layout]] = []
    x = y = row = width = 0.0
    for name, edges in graphs.items():
        layout = Layout(edges)
        room = max(layout.width, text_width(name, _TITLE) * 1.2)
        if x and x + room > _PAGE:
            x, y, row = 0.0, y + row + 24.0, 0.0
        places.append((x, y, name, layout))
        width, row = max(width, x + room), max(row, layout.height + 22.0)
        x += room + 44.0
    height = y + row
    lines = [line for text in caption.splitlines() for line in textwrap.wrap(text, max(40, int(width / 5)))]
    width = max([width, *(text_width(line) for line in lines)]) + 2 * _MARGIN
    below = len(lines) * 13.0 + 12.0 if lines else 0.0
    figure = Figure(figsize=(width / 72, (height + below + 2 * _MARGIN) / 72))
    axes = figure.add_axes(
        (0.0, 0.0, 1.0, 1.0), xlim=(-_MARGIN, width - _MARGIN), ylim=(height + below + _MARGIN, -_MARGIN)
    )
    axes.set_axis_off()
    for x, y, name, layout in places:
        axes.text(x, y, name, size=_TITLE, weight="bold", color=_TEXT, va="top")
        _draw_layout(axes, layout, x, y + 22.0, options)
    if lines:
        centre = width / 2 - _MARGIN
        axes.text(centre, height + 12.0, "\n".join(lines), ha="center", va="top", linespacing=1.3, color=_TEXT)
    return figure


def _draw_layout(axes: "Axes", layout: Layout, x: float, y: float, options: Sequence[str]) -> None:
    from matplotlib.patches import FancyArrowPatch, FancyBboxPatch
    from matplotlib.path import Path as Curve

    for route in layout.routes:
        label = next((link.target.text for link in route if link.target.role == "label"), "")
        colour = COLOURS[options.index(label) % len(COLOURS)] if label in options else _UNLABELLED
        points: list[tuple[float, float]] = []
        for link in route:  # from column to column a curve, across a column a straight line
            left, right = x + layout.ends[link.source.column][1], x + layout.ends[link.target.column][0]
            start, end = y + link.source.y + link.start, y + link.target.y + link.end
            points += [(left, start), ((left + right) / 2, start), ((left + right) / 2, end), (right, end)]
        codes = [Curve.LINETO, Curve.CURVE4, Curve.CURVE4, Curve.CURVE4] * len(route)
        curve = Curve(points, [Curve.MOVETO, *codes[1:]])
        axes.add_patch(
            FancyArrowPatch(path=curve, arrowstyle="-|>", mutation_scale=8, linewidth=1.2, color=colour, zorder=1)
        )
    for column, (left, right) in zip(layout.columns, layout.ends, strict=True):
        for item in column:
            if item.role in _FILL:
                shape = FancyBboxPatch(
                    (x + left, y + item.y - item.height / 2), right - left, item.height,
                    boxstyle="round,pad=0,rounding_size=6", facecolor=_FILL[item.role], edgecolor=_OUTLINE[item.role],
                )  # fmt: skip
                axes.add_patch(shape)
            background = {"facecolor": "white", "edgecolor": "none", "pad": 1.0} if item.role == "label" else None
            centre = x + (left + right) / 2
            axes.text(centre, y + item.y, item.text, ha="center", va="center", color=_TEXT, bbox=background)


# -- weights, scores, hidden states ----------------------------------------------------------------------------------


def draw_weights(
    choices: Sequence[Choice], weights: Sequence[Sequence[float]], path: str | os.PathLike[str], caption: str = ""
) -> None:
    """Draws architecture weights as a heat map: a row for each choice, a column for each option.

    Choices whose names have a prefix (``normal/0->2``) are drawn in a panel for each prefix. Colours go from the least
    weight to the largest, and from 0 to 1 if all lie between.

    Args:
        choices: the choices of a space.
        weights: for each choice a weight for each option.
        path: the file to write, ``.svg``, ``.png`` or ``.pdf``.
        caption: text below the picture.

    Raises:
        ValueError: for another suffix, and where the weights do not fit the choices.
    """
    path = accepted(path, FORMATS)
    if [len(row) for row in weights] != [len(choice.options) for choice in choices]:
        raise ValueError("weights: there has to be one for each option of each choice")
    panels: dict[str, list[tuple[str, dict[str, float]]]] = {}
    for choice, values in zip(choices, weights, strict=True):
        *prefix, name = choice.name.split("/", 1)
        row = dict(zip(choice.options, map(float, values), strict=True))
        panels.setdefault("".join(prefix), []).append((name, row))
    import matplotlib.style
    from matplotlib.figure import Figure

    finite = [value for rows in panels.values() for _, row in rows for value in row.values() if math.isfinite(value)]
    low, high = min(finite, default=0.0), max(finite, default=1.0)
    if low >= 0 and high <= 1:
        low, high = 0.0, 1.0  # the same scale at every epoch
    columns = {panel: list(dict.fromkeys(o for _, row in rows for o in row)) for panel, rows in panels.items()}
    width = 0.48 * sum(map(len, columns.values())) + 1.2 * len(panels) + 1.0
    height = 0.3 * max(map(len, panels.values())) + 1.5
    with matplotlib.style.context(STYLE):
        figure = Figure(figsize=(width, height), layout="constrained")
        axes = figure.subplots(1, len(panels), squeeze=False, width_ratios=[len(c) for c in columns.values()])[0]
        for panel, ax in zip(panels, axes, strict=True):
            rows = panels[panel]
            cells = [[row.get(option, math.nan) for option in columns[panel]] for _, row in rows]
            image = ax.imshow(cells, cmap="Blues", vmin=low, vmax=high, aspect="auto")
            ax.set_title(panel, weight="bold", color=_TEXT)
            ax.set_xticks(range(len(columns[panel])), columns[panel], rotation=40, ha="right", rotation_mode="anchor")
            ax.set_yticks(range(len(rows)), [name for name, _ in rows])
            ax.tick_params(length=0)
            ax.spines[:].set_visible(False)
            for y, (_, row) in enumerate(rows):  # what a choice does not have stays blank
                for option, value in row.items():
                    text = f"{value:.2f}" if high - low >= 0.1 else f"{value:.1g}"
                    colour = "white" if value - low > 0.6 * (high - low) else _TEXT  # to be read on the cell's blue
                    ax.text(columns[panel].index(option), y, text, size=7.5, ha="center", va="center", color=colour)
        figure.colorbar(image, ax=axes, fraction=0.04, pad=0.02).outline.set_visible(False)
        if caption:
            figure.supxlabel(caption, size="medium", color=_TEXT, wrap=True)
        save(figure, path)


def draw_scores(
    groups: Mapping[str, Sequence[float]],
    path: str | os.PathLike[str],
    xlabel: str,
    highlight: Mapping[str, float] | None = None,
) -> None:
    """Draws how scores are distributed: a histogram for each group, and a stroke for each score below it.

    Args:
        groups: scores by the name of their group, e.g. of random architectures.
        path: the file to write, ``.svg``, ``.png`` or ``.pdf``.
        xlabel: what a score is, with its unit.
        highlight: single scores by name, e.g. of the architecture found, drawn as vertical lines.

    Raises:
        ValueError: for another suffix, if a group has no scores, or a score is not finite.
    """
    path = accepted(path, FORMATS)
    highlight = highlight or {}
    for name, scores in [*groups.items(), *((name, [score]) for name, score in highlight.items())]:
        if not len(scores) or not all(math.isfinite(score) for score in scores):
            raise ValueError(f"{name}: needs at least one score, and finite ones")
    import matplotlib.style
    import numpy
    from matplotlib.figure import Figure

    bins = numpy.histogram_bin_edges([score for group in groups.values() for score in group], bins="rice")
    with matplotlib.style.context(STYLE):
        figure = Figure(figsize=(5.5, 3.2), layout="constrained")
        ax, strip = figure.subplots(2, 1, sharex=True, height_ratios=[6.0, 0.6 + 0.4 * len(groups)])
        for k, (name, group) in enumerate(groups.items()):
            colour = COLOURS[k % len(COLOURS)]
            label = f"{name} (n = {len(group)})"
            ax.hist(group, bins, histtype="stepfilled", color=colour, edgecolor=colour, alpha=0.45, label=label)
            strip.plot(group, [-k] * len(group), "|", color=colour, markersize=7, alpha=0.7)
        for k, (name, score) in enumerate(highlight.items(), len(groups)):
            colour = COLOURS[k % len(COLOURS)]
            for axes in (ax, strip):
                axes.axvline(score, color=colour, linewidth=1.5, label=f"{name}: {score:.4g}")
        ax.set_ylabel("count")
        ax.yaxis.get_major_locator().set_params(integer=True)
        ax.tick_params(axis="x", bottom=False)
        strip.set(xlabel=xlabel, yticks=[], ylim=(0.6 - len(groups), 0.6))
        ax.spines[["top", "right", "bottom"]].set_visible(False)
        strip.spines[["top", "right", "left"]].set_visible(False)
        figure.legend(*ax.get_legend_handles_labels(), loc="outside upper center", frameon=False, ncols=2)
        save(figure, path)


def draw_trials(scores: Sequence[float], path: str | os.PathLike[str], caption: str = "") -> None:
    """Draws the scores of trials, one after the other, and the best so far.

    Args:
        scores: higher is better; those that are not finite are of failed trials, marked below.
        path: the file to write, ``.svg``, ``.png`` or ``.pdf``.
        caption: text above the picture.
    """
    path = accepted(path, FORMATS)
    import matplotlib.style
    from matplotlib.figure import Figure

    done = [(number, score) for number, score in enumerate(scores, start=1) if math.isfinite(score)]
    failed = [number for number, score in enumerate(scores, start=1) if not math.isfinite(score)]
    best = list(itertools.accumulate((score for _, score in done), max))
    with matplotlib.style.context(STYLE):
        figure = Figure(figsize=(5.5, 3.2), layout="constrained")
        ax = figure.subplots()
        ax.plot(*zip(*done, strict=True), ".", color=COLOURS[0], markersize=4, alpha=0.6, label="trials")
        ax.step([number for number, _ in done], best, where="post", color=COLOURS[1], label="best so far")
        if failed:
            below = [min(score for _, score in done)] * len(failed)
            ax.plot(failed, below, "x", color=_TEXT, markersize=5, label="failed")
        ax.set(xlabel="trials", ylabel="score")
        ax.set_title(caption, color=_TEXT)
        ax.spines[["top", "right"]].set_visible(False)
        ax.legend(frameon=False, loc="lower right")
        save(figure, path)


def draw_hidden_states(
    states: Mapping[str, Sequence[Sequence[Sequence[float]]]], path: str | os.PathLike[str], caption: str = ""
) -> None:
    """Draws hidden states of policies as heat maps side by side: a row for each architecture, a column for each unit at
    each step, the steps one after the other. Where rows are equal, so are the hidden states of different architectures.

    Training makes hidden states larger, so each map has colours of its own. They are symmetric around 0, and one value
    in a hundred lies beyond their ends.

    Args:
        states: by the policy's name, ``(n, steps, width)``.
        path: the file to write, ``.svg``, ``.png`` or ``.pdf``.
        caption: text below the picture.

    Raises:
        ValueError: for another suffix, where states have another shape, or one is not finite.
    """
    path = accepted(path, FORMATS)
    import matplotlib.style
    import numpy
    from matplotlib.figure import Figure

    maps = {name: numpy.asarray(values, dtype=float) for name, values in states.items()}
    for name, values in maps.items():
        if values.ndim != 3 or not values.size or not numpy.isfinite(values).all():
            raise ValueError(f"{name}: needs finite numbers for each architecture, step and unit")
    with matplotlib.style.context(STYLE):
        figure = Figure(figsize=(4.2 * len(maps) + 0.4, 3.8), layout="constrained")
        for (name, values), ax in zip(maps.items(), figure.subplots(1, len(maps), squeeze=False)[0], strict=True):
            n, steps, width = values.shape
            end = numpy.quantile(abs(values), 0.99) or 1.0
            rows, place = values.reshape(n, -1), (0, steps, n, 0)
            image = ax.imshow(rows, cmap="RdBu_r", vmin=-end, vmax=end, aspect="auto", extent=place)
            shown = range(0, steps, -(-steps // 12))  # the numbers of the steps for which there is room
            ax.set_xticks([step + 0.5 for step in shown], [str(step + 1) for step in shown])
            ax.set_yticks([0.5, n - 0.5], ["1", str(n)])
            ax.vlines(range(1, steps), 0, n, color=_TEXT, linewidth=0.4, alpha=0.5)
            ax.set_title(name, weight="bold", color=_TEXT)
            ax.set(xlabel=f"step, {width} units each", ylabel="architecture")
            ax.tick_params(length=0)
            ax.spines[:].set_visible(False)
            bar = figure.colorbar(
                image, ax=ax, location="bottom", aspect=40, extend="both", ticks=(-end, 0, end), format="%.2g"
            )
            bar.outline.set_visible(False)
        if caption:
            figure.supxlabel(caption, size="medium", color=_TEXT, wrap=True)
        save(figure, path)


# -- files -----------------------------------------------------------------------------------------------------------


def accepted(path: str | os.PathLike[str], formats: Sequence[str]) -> Path:
    path = Path(path)
    if path.suffix.lower() not in formats:
        raise ValueError(f"{path.name}: the suffix has to be one of {', '.join(formats)}")
    return path


def save(figure: "Figure", path: Path) -> None:
    suffix = path.suffix.lower()[1:]
    # A date would make two files of the same picture differ.
    metadata: dict[str, Any] = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}.get(suffix, {})
    content = io.BytesIO()
    figure.savefig(content, format=suffix, dpi=200, metadata=metadata)
    write_whole(path, content.getvalue())
