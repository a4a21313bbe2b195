"""The layout of drawn graphs: distances, routes, layers, few crossings and few bends."""

import itertools
from random import Random

import pytest

from lightning_nas.pictures.layout import _SPACING, Layout, _apart
from lightning_nas.spaces import DARTSCell

PARALLEL = [("a", "b", "left"), ("a", "b", "right"), ("a", "b", ""), ("b", "c", "down"), ("a", "c", "far")]


@pytest.fixture(scope="module")
def space():
    return DARTSCell()


def some_graphs(space):
    drawn = [space.graph(space.random(Random(seed))) for seed in range(4)]
    return [*(graph.edges for graphs in drawn for graph in graphs.values()), PARALLEL]


def test_in_a_column_everything_keeps_its_distance(space):
    for edges in some_graphs(space):
        layout = Layout(edges)
        for column in layout.columns:
            for upper, lower in itertools.pairwise(column):
                assert lower.y - upper.y >= (lower.height + upper.height) / 2 + _SPACING - 1e-9
            assert min(item.y - item.height / 2 for item in column) >= 0
            assert max(item.y + item.height / 2 for item in column) <= layout.height
        for (_, end), (start, _) in itertools.pairwise(layout.ends):
            assert start - end >= 18 - 1e-9


def test_edges_run_from_state_to_state_and_through_their_label(space):
    for edges in some_graphs(space):
        layout = Layout(edges)
        for (source, target, label), route in zip(edges, layout.routes, strict=True):
            assert (route[0].source.text, route[-1].target.text) == (source, target)
            assert [link.target.text for link in route[:-1] if link.target.text] == [label] * bool(label)
            for link in route:
                assert link.target.column == link.source.column + 1
            for link, following in itertools.pairwise(route):
                assert link.target is following.source


def test_parallel_edges_run_apart():
    routes = Layout(PARALLEL).routes[:3]
    assert len({(link.source.y + link.start, link.target.y + link.end) for route in routes for link in route}) == 6
    assert len({route[-1].end for route in routes}) == 3
    heights = sorted(route[0].target.y for route in routes)
    assert heights[1] - heights[0] >= 16
    assert heights[2] - heights[1] >= 16


def test_layers_are_longest_paths():
    layout = Layout([("a", "d", ""), ("a", "b", "x"), ("b", "c", "y"), ("c", "d", "z"), ("e", "d", "")])
    states = {item.text: k for k, column in enumerate(layout.columns) for item in column if item.role != "label"}
    assert [states[state] for state in "abcde"] == [0, 2, 4, 6, 0]  # labels stand between


def test_labels_of_long_edges_share_the_gaps():
    layout = Layout([("a", "b", "x"), ("b", "c", "y"), ("a", "c", "left"), ("a", "c", "right")])
    labels = [{item.text for item in column if item.role == "label"} for column in layout.columns]
    assert labels == [set(), {"x", "left"}, set(), {"y", "right"}, set()]


def test_a_chain_is_straight_and_a_planar_graph_has_no_crossing():
    chain = Layout([(str(k), str(k + 1), "conv") for k in range(6)])
    assert all(link.drop == 0 for route in chain.routes for link in route)
    leaves = Random(0).sample(range(12), 12)
    stars = Layout([(f"star {leaf // 4}", f"leaf {leaf}", "") for leaf in leaves])
    assert stars._crossings() == 0


def test_crossings_agree_with_counting_all_pairs(space):
    rng = Random(0)
    for edges in some_graphs(space):
        layout = Layout(edges)
        fewest = layout._crossings()
        for column in layout.columns:
            rng.shuffle(column)
        place = {item: k for column in layout.columns for k, item in enumerate(column)}
        links = [link for route in layout.routes for link in route]
        crossings = sum(
            a.source.column == b.source.column
            and (place[a.source] - place[b.source]) * (place[a.target] - place[b.target]) < 0
            for a, b in itertools.combinations(links, 2)
        )
        assert layout._crossings() == crossings >= fewest


def test_apart_is_the_nearest():
    rng = Random(0)
    for _ in range(20):
        wanted = [rng.uniform(-40, 40) for _ in range(5)]
        weights = [rng.uniform(0.1, 5) for _ in range(5)]
        heights = [rng.choice([4.0, 12.0, 28.0]) for _ in range(5)]
        least = [(upper + lower) / 2 + _SPACING for upper, lower in itertools.pairwise(heights)]

        def apart(positions, least=least):
            return all(b - a >= gap - 1e-9 for (a, b), gap in zip(itertools.pairwise(positions), least, strict=True))

        def cost(positions, wanted=wanted, weights=weights):
            return sum(w * (y - x) ** 2 for w, y, x in zip(weights, positions, wanted, strict=True))

        found = _apart(wanted, weights, heights)
        assert apart(found)
        others = [[y + rng.gauss(0, 10 ** rng.uniform(-3, 1)) * rng.choice([0, 1]) for y in found] for _ in range(500)]
        feasible = [other for other in others if apart(other)]
        assert feasible
        assert min(map(cost, feasible)) >= cost(found)
