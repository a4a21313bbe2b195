import itertools
import math
import re
import sys
from pathlib import Path
from random import Random
from xml.etree import ElementTree

import matplotlib
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lightning_nas.errors import SettingError
from lightning_nas.pictures import draw, layout
from lightning_nas.pictures.draw import draw_architecture, draw_hidden_states, draw_scores, draw_weights
from lightning_nas.spaces import DARTSCell
from lightning_nas.spaces.base import Choice, Space
from lightning_nas.spaces.graphs import Graph

DARTS_V1 = {
    "normal": "sep_conv_3x3(1) sep_conv_3x3(0) | skip_connect(0) sep_conv_3x3(1) | skip_connect(0) sep_conv_3x3(1) | "
    "sep_conv_3x3(0) skip_connect(2)",
    "reduce": "max_pool_3x3(0) max_pool_3x3(1) | skip_connect(2) max_pool_3x3(0) | max_pool_3x3(0) skip_connect(2) | "
    "skip_connect(2) avg_pool_3x3(0)",
}
PARALLEL = {"cell": [("a", "b", "left"), ("a", "b", "right"), ("a", "b", ""), ("b", "c", "down"), ("a", "c", "far")]}
MAGIC = {".svg": b"<?xml", ".png": b"\x89PNG\r\n", ".pdf": b"%PDF-", ".dot": b"digraph {"}


class Drawn(Space):
    """A space with one architecture that is drawn as given."""

    def __init__(self, graphs):
        self.given = graphs
        super().__init__([Choice("operation", ("left",), "0")])

    def graph(self, architecture):
        return {name: Graph.of(edges) for name, edges in self.given.items()}


@pytest.fixture(scope="module")
def space():
    return DARTSCell()


@pytest.fixture(scope="module")
def architecture(space):
    return space.from_genotype(**DARTS_V1)


def texts(path):
    """The texts of an SVG file."""
    return [element.text for element in ElementTree.parse(path).iter("{http://www.w3.org/2000/svg}text")]


# -- files -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".svg", ".png", ".pdf", ".dot", ".PNG"])
def test_the_suffix_says_the_format(space, architecture, tmp_path, suffix):
    path = tmp_path / f"cell{suffix}"
    draw_architecture(space, architecture, path, caption="A caption")
    assert path.read_bytes().startswith(MAGIC[suffix.lower()])
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("suffix", [".svg", ".pdf"])
def test_the_same_architecture_gives_the_same_bytes_whatever_the_users_style(space, architecture, tmp_path, suffix):
    first, second, other = (tmp_path / f"{name}{suffix}" for name in ("first", "second", "other"))
    draw_architecture(space, architecture, first)
    with matplotlib.rc_context({"font.size": 30, "font.family": "monospace", "svg.fonttype": "path"}):
        draw_architecture(space, architecture, str(second))
        assert matplotlib.rcParams["font.size"] == 30
    draw_architecture(space, space.random(Random(0)), other)
    assert first.read_bytes() == second.read_bytes() != other.read_bytes()


@pytest.mark.parametrize("name", ["cell.jpg", "cell", "cell.svg.gz"])
def test_another_suffix_is_refused(space, architecture, tmp_path, name):
    with pytest.raises(ValueError, match=r"\.svg, \.png, \.pdf, \.dot"):
        draw_architecture(space, architecture, tmp_path / name)
    with pytest.raises(ValueError, match=r"\.svg, \.png, \.pdf$"):
        draw_weights(space.choices, [[0.0] * 8] * 28, tmp_path / "weights.dot")
    with pytest.raises(ValueError, match=r"\.svg, \.png, \.pdf$"):
        draw_scores({"random": [1.0]}, tmp_path / "scores.dot", "accuracy")
    with pytest.raises(ValueError, match=r"\.svg, \.png, \.pdf$"):
        draw_hidden_states({"policy": [[[1.0]]]}, tmp_path / "hidden.dot")
    assert not list(tmp_path.iterdir())


def test_a_full_disk_leaves_the_old_file_and_no_half_written_one(space, architecture, tmp_path, monkeypatch):
    path = tmp_path / "cell.svg"
    path.write_text("old")
    write = Path.write_bytes

    def fail(self, content):
        write(self, content[: len(content) // 2])
        raise OSError("no space left on device")

    monkeypatch.setattr(Path, "write_bytes", fail)
    with pytest.raises(SettingError, match="no space left"):
        draw_architecture(space, architecture, path)
    assert [(file.name, file.read_text()) for file in tmp_path.iterdir()] == [("cell.svg", "old")]


def test_a_failure_while_drawing_leaves_nothing(space, architecture, tmp_path, monkeypatch):
    def fail(self, file, **options):
        file.write(b"<?xml")
        raise RuntimeError("in the middle")

    monkeypatch.setattr(Figure, "savefig", fail)
    with pytest.raises(RuntimeError, match="in the middle"):
        draw_architecture(space, architecture, tmp_path / "cell.svg")
    assert not list(tmp_path.iterdir())


def test_heavy_imports_wait_for_the_drawing_and_pyplot_is_never_imported(tmp_path, monkeypatch):
    values = [*vars(draw).values(), *vars(layout).values()]
    origins = {getattr(value, "__module__", None) or getattr(value, "__name__", "") for value in values}
    assert not {str(origin).split(".")[0] for origin in origins} & {"matplotlib", "networkx", "numpy"}
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)  # an import raises
    draw_architecture(Drawn(PARALLEL), (0,), tmp_path / "cell.png")
    draw_weights((Choice("a", ("conv", "skip"), "a"),), [[0.2, 0.8]], tmp_path / "weights.png")
    draw_scores({"random": [1.0, 2.0]}, tmp_path / "scores.png", "accuracy")
    draw_hidden_states({"policy": [[[1.0], [2.0]]]}, tmp_path / "hidden.png")


# -- architectures ---------------------------------------------------------------------------------------------------


def test_every_state_operation_title_and_the_caption_are_in_the_svg(space, architecture, tmp_path):
    draw_architecture(space, architecture, tmp_path / "cell.svg", caption="The first order")
    expected = ["The first order"]
    for cell, graph in space.graph(architecture).items():
        expected += [cell, *graph.nodes, *(edge.operation for edge in graph.edges if edge.operation)]
    assert len(expected) == 1 + 2 * (1 + 7 + 8)
    assert sorted(texts(tmp_path / "cell.svg")) == sorted(expected)


def test_dot_says_the_same_graph(space, architecture, tmp_path):
    draw_architecture(space, architecture, tmp_path / "cell.dot", caption="The first order")
    dot = (tmp_path / "cell.dot").read_text()
    found = re.findall(r'"(\w+)/(.+)" -> "\1/(.+)" \[label="(.*)"\];', dot)
    assert found == [(cell, *edge) for cell, graph in space.graph(architecture).items() for edge in graph.edges]
    assert '  label="The first order";' in dot
    assert re.findall(r'label="(.*)", fillcolor="#cfe8cf"', dot) == ["cell k-2", "cell k-1"] * 2
    assert re.findall(r'label="(.*)", fillcolor="#f7e8bd"', dot) == ["output"] * 2


def test_names_are_escaped(tmp_path):
    state, operation = 'a "b" \\', "x_1$ < $y & z\\"
    space = Drawn({"cell": [(state, "output", operation)]})
    for suffix in MAGIC:
        draw_architecture(space, (0,), tmp_path / f"cell{suffix}")
    assert sorted(texts(tmp_path / "cell.svg")) == sorted(["cell", state, operation, "output"])
    edge = '"cell/a \\"b\\" \\\\" -> "cell/output" [label="x_1$ < $y & z\\\\"];'
    assert edge in (tmp_path / "cell.dot").read_text()


@pytest.mark.parametrize("graphs", [{}, {"cell": []}])
def test_a_cell_without_edges_is_drawn(graphs, tmp_path):
    for suffix in MAGIC:
        draw_architecture(Drawn(graphs), (0,), tmp_path / f"cell{suffix}")
    assert texts(tmp_path / "cell.svg") == list(graphs)


def test_no_text_overlaps_another_or_is_cut_off(space):
    for seed in range(3):
        graphs = {name: graph.edges for name, graph in space.graph(space.random(Random(seed))).items()} | PARALLEL
        figure = draw._figure(graphs, "A long caption. " * 30, ())
        boxes = [text.get_window_extent() for text in figure.axes[0].texts if text.get_text()]
        assert len(boxes) > 35
        assert not any(one.overlaps(other) for one, other in itertools.combinations(boxes, 2))
        assert all(figure.bbox.x0 <= b.x0 and b.x1 <= figure.bbox.x1 for b in boxes)
        assert all(figure.bbox.y0 <= b.y0 and b.y1 <= figure.bbox.y1 for b in boxes)


# -- weights, scores, hidden states ----------------------------------------------------------------------------------


def test_weights_have_a_row_for_each_choice_and_blank_cells(tmp_path):
    choices = (
        Choice("normal/a", ("conv", "skip"), "a"),
        Choice("normal/b", ("skip", "pool $3$"), "b"),
        Choice("reduce/a", ("conv", "pool"), "a"),
        Choice("head", ("wide",), "h"),
    )
    weights = [[0.11, 0.89], [0.32, 0.68], [0.27, 0.73], [0.04]]
    draw_weights(choices, weights, tmp_path / "weights.svg", caption="Epoch 3")
    found = texts(tmp_path / "weights.svg")
    assert sorted(text for text in found if re.fullmatch(r"0\.\d\d", text)) == sorted(
        f"{value:.2f}" for row in weights for value in row
    )
    names = ["normal", "conv", "skip", "pool $3$", "a", "b", "reduce", "conv", "pool", "a", "head", "wide", "Epoch 3"]
    assert sorted(text for text in found if re.search("[a-zE]", text)) == sorted(names)


def test_weights_that_are_tiny_or_not_numbers_are_shown(tmp_path):
    choices = (Choice("a", ("conv", "skip", "pool"), "a"),)
    draw_weights(choices, [[-0.002, 0.0011, float("nan")]], tmp_path / "weights.svg")
    assert {"-0.002", "0.001", "nan"} <= set(texts(tmp_path / "weights.svg"))
    draw_weights(choices, [[float("nan")] * 3], tmp_path / "weights.png")


@pytest.mark.parametrize("weights", [[], [[0.5, 0.5]], [[0.5, 0.5], [1.0]]])
def test_weights_have_to_fit_the_choices(weights, tmp_path):
    choices = (Choice("a", ("conv", "skip"), "a"), Choice("b", ("conv", "skip"), "b"))
    with pytest.raises(ValueError, match="one for each option of each choice"):
        draw_weights(choices, weights, tmp_path / "weights.svg")
    assert not list(tmp_path.iterdir())


def test_scores_name_their_groups_and_what_is_highlighted(tmp_path):
    groups = {"random": [93.0, 94.5, 94.0], "found": [95.5, 95.0]}
    draw_scores(groups, tmp_path / "scores.svg", "test accuracy (%)", highlight={"DARTS_V1": 97.03})
    found = texts(tmp_path / "scores.svg")
    assert {"random (n = 3)", "found (n = 2)", "DARTS_V1: 97.03", "test accuracy (%)"} <= set(found)
    assert max(float(text) for text in found if re.fullmatch(r"9\d(\.\d)?", text)) >= 97  # the axis reaches the line
    draw_scores({"constant": [0.5, 0.5]}, tmp_path / "constant.png", "accuracy")


@pytest.mark.parametrize(
    ("groups", "highlight"),
    [({"random": []}, {}), ({"random": [1.0, float("nan")]}, {}), ({"other": [1.0]}, {"random": float("inf")})],
)
def test_scores_have_to_be_finite(groups, highlight, tmp_path):
    with pytest.raises(ValueError, match="random: needs at least one score"):
        draw_scores(groups, tmp_path / "scores.svg", "accuracy", highlight)
    assert not list(tmp_path.iterdir())


def test_hidden_states_are_drawn_step_by_step_on_a_scale_of_each_policy(tmp_path, monkeypatch):
    shown = []
    imshow = Axes.imshow
    monkeypatch.setattr(Axes, "imshow", lambda self, values, **how: shown.append(values) or imshow(self, values, **how))
    trained = [[[0.5, -0.25], [0.0, 0.5]], [[0.25, 0.5], [-0.5, 0.0]], [[0.5, 0.5], [0.5, 0.5]]]
    states = {"trained": trained, "untrained": [[[0.0, 0.0]] * 30] * 3}
    draw_hidden_states(states, tmp_path / "hidden.svg", caption="ENAS, seed 0")
    assert shown[0].tolist() == [[0.5, -0.25, 0.0, 0.5], [0.25, 0.5, -0.5, 0.0], [0.5, 0.5, 0.5, 0.5]]
    assert shown[1].shape == (3, 60)
    found = texts(tmp_path / "hidden.svg")
    assert {"trained", "untrained", "step, 2 units each", "ENAS, seed 0"} <= set(found)
    assert found.count("architecture") == 2
    assert {"-0.5", "0.5", "-1", "1"} <= set(found)  # the ends of both scales; of zeros it is 1
    numbered = [int(text) for text in found if re.fullmatch(r"\d+", text)]
    assert 28 in numbered
    assert 30 not in numbered  # every third of many steps


@pytest.mark.parametrize("values", [[], [[1.0]], [[[]]], [[[math.nan]]], [[[math.inf]]]])
def test_hidden_states_have_to_be_finite_numbers_of_three_dimensions(values, tmp_path):
    with pytest.raises(ValueError, match="untrained: needs finite numbers"):
        draw_hidden_states({"trained": [[[1.0]]], "untrained": values}, tmp_path / "hidden.svg")
    assert not list(tmp_path.iterdir())
