"""Where the boxes, labels and edges of a drawn graph go. All lengths are points, 1/72 inch."""

import dataclasses
import itertools
import math
from bisect import bisect_right, insort
from collections.abc import Sequence
from random import Random

Edges = Sequence[tuple[str, str, str]]
"""A graph's edges: from, to, label."""

FONT = 9.0
STATE_ROLES = ("input", "node", "output")

_SPACING = 8.0


def roles(edges: Edges) -> dict[str, str]:
    """For each state, in order of appearance, whether it is an ``input``, a ``node`` or an ``output``."""
    sources, targets = {source for source, _, _ in edges}, {target for _, target, _ in edges}
    states = dict.fromkeys(state for edge in edges for state in edge[:2])
    return {s: "input" if s not in targets else "output" if s not in sources else "node" for s in states}


def text_width(text: str, size: float = FONT) -> float:
    """The width of one line of text."""
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import text_to_path

    return text_to_path.get_text_width_height_descent(text, FontProperties(size=size), ismath=False)[0]


@dataclasses.dataclass(eq=False)
class Item:
    """What takes room in a column: the box of a state, the label of an edge, or (no text) an edge that passes.

    ``role`` is one of ``STATE_ROLES``, ``label`` or ``bend``; ``y`` is the centre, downwards.
    """

    text: str
    role: str
    height: float
    column: int
    y: float = 0.0
    left: list["Link"] = dataclasses.field(default_factory=list)
    right: list["Link"] = dataclasses.field(default_factory=list)


@dataclasses.dataclass(eq=False)
class Link:
    """A piece of an edge, from one column to the next; ``start`` and ``end`` are its ends' distances below the items'
    centres."""

    source: Item
    target: Item
    start: float = 0.0
    end: float = 0.0

    @property
    def drop(self) -> float:
        """How much lower it ends than it starts."""
        return self.target.y + self.end - self.source.y - self.start

    @property
    def stiffness(self) -> float:
        """The weight of the squared drop. Divided by the drop, it makes the sum that of absolute drops, whose minimum
        has few bends; long edges weigh more."""
        return (4.0 if "bend" in (self.source.role, self.target.role) else 1.0) / max(1.0, abs(self.drop))


class Layout:
    """A layered drawing of a graph (Sugiyama, Tagawa, Toda 1981).

    States stand in columns by the longest path from the inputs, labels in columns between them. An edge that passes a
    column takes a place there like everything else, so that no edge ever touches a box or another's label, and
    parallel edges run apart.

    Attributes:
        columns: their items, from above.
        routes: for each edge its links, from the source to the target.
        ends: the left and right end of each column.
        width, height: width and height of the whole drawing.
    """

    columns: list[list[Item]]
    routes: list[list[Link]]
    ends: list[tuple[float, float]]
    width: float
    height: float

    def __init__(self, edges: Edges) -> None:
        states = self._fill_columns(edges)
        self._order(states)
        self._place_vertically()
        self._place_horizontally()

    # -- what stands in which column ---------------------------------------------------------------------------------

    def _fill_columns(self, edges: Edges) -> list[Item]:
        """Fills the columns and links what is in them; the order in a column is still that of the edges.

        Returns:
            the states, in order of appearance.
        """
        import networkx

        graph = networkx.MultiDiGraph((source, target) for source, target, _ in edges)
        layers = list(networkx.topological_generations(graph))
        column = {state: 2 * k for k, layer in enumerate(layers) for state in layer}
        self.columns = [[] for _ in range(2 * len(layers))]
        states = {}
        for state, role in roles(edges).items():
            height = max(28.0, 12.0 + 8.0 * max(graph.in_degree(state), graph.out_degree(state)))
            states[state] = self._add(state, role, height, column[state])
        labels: dict[int, Item] = {}
        # Short edges have no choice where their label goes; long ones take the emptiest gap.
        for k in sorted(range(len(edges)), key=lambda k: column[edges[k][1]] - column[edges[k][0]]):
            source, target, label = edges[k]
            if label:
                gaps = range(column[source] + 1, column[target], 2)
                labels[k] = self._add(label, "label", 12.0, min(gaps, key=lambda gap: len(self.columns[gap])))
        taken = [k for k, items in enumerate(self.columns) if items]  # a gap without any label is not a column
        self.routes = []
        for k, (source, target, _) in enumerate(edges):
            stops = [states[source]]
            for passed in taken:
                if column[source] < passed < column[target]:
                    own = k in labels and labels[k].column == passed
                    stops.append(labels[k] if own else self._add("", "bend", 4.0, passed))
            stops.append(states[target])
            self.routes.append([Link(left, right) for left, right in itertools.pairwise(stops)])
        for link in itertools.chain(*self.routes):
            link.source.right.append(link)
            link.target.left.append(link)
        self.columns = [self.columns[k] for k in taken]
        for k, items in enumerate(self.columns):
            for item in items:
                item.column = k
        return list(states.values())

    def _add(self, text: str, role: str, height: float, column: int) -> Item:
        item = Item(text, role, height, column)
        self.columns[column].append(item)
        return item

    # -- the order in each column ------------------------------------------------------------------------------------

    def _order(self, states: Sequence[Item]) -> None:
        """Few crossings: items move to the mean place of their neighbours, from several starts; the best order wins.

        Turned upside down it is as good. Then the one stays in which more states of a column stand in order.
        """
        best, fewest = [list(column) for column in self.columns], self._crossings()
        rng = Random(0)
        for start in range(24):
            if start:
                for column in self.columns:
                    rng.shuffle(column)
            for sweep in range(6):
                self._sort_by_neighbours(forward=sweep % 2 == 0)
                crossings = self._crossings()
                if crossings < fewest:
                    best, fewest = [list(column) for column in self.columns], crossings
        rank = {state: k for k, state in enumerate(states)}
        ranks = [[rank[item] for item in column if item in rank] for column in best]
        pairs = [pair for column in ranks for pair in itertools.combinations(column, 2)]
        turned = sum(upper > lower for upper, lower in pairs) > len(pairs) / 2
        self.columns = [column[::-1] for column in best] if turned else best

    def _sort_by_neighbours(self, forward: bool) -> None:
        """Sorts every column but the first by the mean place of its neighbours in the column before; backward: every
        column but the last, by those in the column after."""
        for before, column in itertools.pairwise(self.columns if forward else self.columns[::-1]):
            place = {item: k for k, item in enumerate(before)}
            means = {}
            for k, item in enumerate(column):
                near = [link.source for link in item.left] if forward else [link.target for link in item.right]
                means[item] = sum(place[other] for other in near) / len(near) if near else k
            column.sort(key=means.__getitem__)

    def _crossings(self) -> int:
        crossings = 0
        for left, right in itertools.pairwise(self.columns):
            place = {item: k for k, item in enumerate(right)}
            seen: list[int] = []
            for item in left:
                ends = sorted(place[link.target] for link in item.right)
                crossings += sum(len(seen) - bisect_right(seen, end) for end in ends)
                for end in ends:
                    insort(seen, end)
        return crossings

    # -- places ------------------------------------------------------------------------------------------------------

    def _place_vertically(self) -> None:
        """Straight edges: every item moves to the mean height to which its neighbours pull it, over and over."""
        place = {item: k for column in self.columns for k, item in enumerate(column)}
        for item in place:
            item.left.sort(key=lambda link: place[link.source])
            item.right.sort(key=lambda link: place[link.target])
            for k, link in enumerate(item.right):
                link.start = 8.0 * (k - (len(item.right) - 1) / 2)
            for k, link in enumerate(item.left):
                link.end = 8.0 * (k - (len(item.left) - 1) / 2)
        for sweep in range(102):
            for column in self.columns if sweep % 2 == 0 else self.columns[::-1]:
                wanted, weights = [], []
                for item in column:
                    pulls = [(item.y - link.drop, link.stiffness) for link in item.left]
                    pulls += [(item.y + link.drop, link.stiffness) for link in item.right]
                    weights.append(sum(weight for _, weight in pulls))
                    wanted.append(sum(y * weight for y, weight in pulls) / weights[-1])
                for item, y in zip(column, _apart(wanted, weights, [item.height for item in column]), strict=True):
                    # At last what is nearly straight becomes straight. Rounding keeps the distances, since all heights
                    # are 4, 12, 20, ...
                    item.y = y if sweep < 100 else 4.0 * math.floor(y / 4 + 0.5)
        top = min((item.y - item.height / 2 for item in place), default=0.0)
        for item in place:
            item.y -= top
        self.height = max((item.y + item.height / 2 for item in place), default=0.0)

    def _place_horizontally(self) -> None:
        """The steeper the edges between two columns, the wider their gap."""
        self.ends = []
        self.width = 0.0
        for k, column in enumerate(self.columns):
            if k:
                steepest = max(abs(link.drop) for item in column for link in item.left)
                self.width += min(60.0, max(18.0, 0.5 * steepest))
            room = max(text_width(item.text) for item in column)
            room += 16.0 * any(item.role in STATE_ROLES for item in column)
            self.ends.append((self.width, self.width + room))
            self.width += room


def _apart(wanted: Sequence[float], weights: Sequence[float], heights: Sequence[float]) -> list[float]:
    """The nearest positions, in weighted least squares, at which the items keep their order and do not overlap.

    Less what stands above an item this is a regression under ``y[0] <= y[1] <= ...``; pooling neighbours that are in
    the wrong order solves it.
    """
    above = [0.0]
    for upper, lower in itertools.pairwise(heights):
        above.append(above[-1] + (upper + lower) / 2 + _SPACING)
    pools: list[tuple[float, float, int]] = []  # mean, weight, members
    for y, weight, offset in zip(wanted, weights, above, strict=True):
        pool = (y - offset, weight, 1)
        while pools and pools[-1][0] > pool[0]:
            mean, more, members = pools.pop()
            total = more + pool[1]
            pool = ((mean * more + pool[0] * pool[1]) / total, total, members + pool[2])
        pools.append(pool)
    means = [mean for mean, _, members in pools for _ in range(members)]
    return [mean + offset for mean, offset in zip(means, above, strict=True)]
