"""Cells of the NASNet family: sizes, loose ends by hand, soft loose ends, and a slow plain cell."""

from math import prod
from random import Random

import pytest
import torch
import torch.nn.functional as F

from lightning_nas.errors import SettingError
from lightning_nas.spaces import NASNetCell
from lightning_nas.spaces.architecture_file import load_architecture
from lightning_nas.spaces.cells import Drops, States
from lightning_nas.spaces.image_cells.nasnet import PairCell, loose_weights
from lightning_nas.spaces.image_cells.shell import Place

CIFAR = {"channels": 3, "image_size": 32, "num_classes": 10}
SMALL = {"channels": 3, "image_size": 8, "num_classes": 5}
OPERATIONS = ("skip_connect", "nor_conv_1x1", "avg_pool_3x3")


def test_size():
    space = NASNetCell(["normal"])
    assert space.size == prod((8 * sources) ** 2 for sources in range(2, 7))  # 5.57e14, AmoebaNet's
    assert space.size == pytest.approx(5.57e14, rel=1e-3)
    assert NASNetCell().size == space.size**2


@pytest.mark.parametrize(
    ("name", "normal", "reduce"),
    [("nasnet_a_darts", (2, 3, 4, 5, 6), (4, 5, 6)), ("amoebanet_a_darts", (4, 5, 6), (3, 4, 6))],
)
def test_loose_ends_of_published_cells(name, normal, reduce):
    found = load_architecture(name)
    ends = [found.space.loose_ends(found.architecture, kind) for kind in ("normal", "reduce")]
    assert [tuple(k for k in e if k >= 2) for e in ends] == [normal, reduce]
    graphs = found.space.graph(found.architecture)
    assert [source for source, target, _ in graphs["reduce"].edges if target == "output"] == list(map(str, reduce))
    assert len(graphs["normal"].edges) == 10 + len(normal)
    network = found.space.restrict(found.architecture).network(SMALL, channels=2, cells=3, form="final")
    expected = [dict.fromkeys(map(str, normal), 2), *(dict.fromkeys(map(str, reduce), width) for width in (4, 8))]
    assert [cell.widths for cell in network.cells] == expected


IMAGENET = {"channels": 3, "image_size": 224, "num_classes": 1000}
COUNTS = {
    "nasnet_a_darts": (3_830_950, 4_288_944, 333_946, 102_722, 5_564_320),
    "amoebanet_a_darts": (3_145_078, 3_603_072, 326_330, 95_458, 4_627_360),
}
SETTINGS = [
    (CIFAR, {"channels": 36, "cells": 20}),
    (CIFAR, {"channels": 36, "cells": 20, "auxiliary": True}),
    (CIFAR, {"channels": 16, "cells": 8}),
    (CIFAR, {"channels": 8, "cells": 8}),
    (IMAGENET, {"channels": 48, "cells": 14, "stem": "imagenet"}),
]


@pytest.mark.parametrize("name", COUNTS)
def test_parameters_of_published_cells(name):
    found = load_architecture(name)
    child = found.space.restrict(found.architecture)
    with torch.device("meta"):
        networks = [child.network(inputs, form="final", **settings) for inputs, settings in SETTINGS]
    assert tuple(sum(p.numel() for p in network.parameters()) for network in networks) == COUNTS[name]


def test_the_notation_reads_what_it_writes():
    space = NASNetCell(nodes=3)
    rng = Random(0)
    for architecture in (space.random(rng) for _ in range(20)):
        cells = dict(line.split(": ", 1) for line in space.describe(architecture).splitlines())
        assert space.from_genotype(**cells) == architecture
    for wrong in ("sep_conv_3x3(0)", "sep_conv_3x3(0) sep_conv_3x3(2)", "sep(0) sep_conv_3x3(1)", ""):
        with pytest.raises(ValueError, match="choices"):
            NASNetCell(["normal"], 1).from_genotype(normal=wrong)


@pytest.mark.parametrize("arguments", [{"nodes": 0}, {"kinds": ["reduce"]}, {"operations": ["conv"]}])
def test_wrong_arguments_are_named(arguments):
    with pytest.raises(SettingError, match=f"{next(iter(arguments))}"):
        NASNetCell(**arguments)


def soft_gates(space, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return {
        c.name: torch.randn(len(c.options), dtype=torch.float64, generator=generator).softmax(0) for c in space.choices
    }


def test_soft_loose_ends_are_the_expectation_of_hard_ones():
    """Choices drawn independently by their weights leave a state unread with probability Π (1 − w)."""
    space = NASNetCell(["normal"], 2, OPERATIONS)
    gates = soft_gates(space)
    inputs = [c for c in space.choices if c.kind == "input"]
    found = loose_weights(space.resolve(gates), [c.name for c in inputs], (2, 3))
    expected = dict.fromkeys((2, 3), 0.0)
    for architecture in space.restrict({c.name: OPERATIONS[0] for c in space.choices if c.kind == "operation"}):
        drawn = zip(space.choices, architecture, strict=True)
        probability = prod(float(gates[c.name][o]) for c, o in drawn if c.kind == "input")
        for state in set(space.loose_ends(architecture, "normal")) & {2, 3}:
            expected[state] += probability
    assert found[3] is None  # nothing comes after the last node
    assert expected[3] == pytest.approx(1)
    assert float(found[2]) == pytest.approx(expected[2], abs=1e-12)


@pytest.mark.parametrize("kind", ["normal", "reduce"])
def test_a_cell_under_weights_is_the_plain_sum(kind):
    space = NASNetCell(nodes=2, operations=OPERATIONS)
    choices = [c for c in space.choices if c.cell == kind]
    place = Place(kind, {"x": 2}, {"x": 2}, 2, after_reduction=False)
    cell, gates = PairCell(choices, 2, place, affine=True).double(), soft_gates(space)
    s0, s1 = torch.randn(2, 3, 2, 6, 6, dtype=torch.float64)
    out = cell(*(States(s, ("x",)) for s in (s0, s1)), space.resolve(gates), Drops())

    def plain(node, slot, source, operation, x):
        stride = 2 if kind == "reduce" and source < 2 else 1
        body = f"{kind}/{node}/{slot}/{source}/{operation}"
        if operation == "avg_pool_3x3":
            return F.avg_pool2d(x, 3, stride, 1, count_include_pad=False)
        if operation == "skip_connect" and stride == 1:
            return x
        return cell.candidates.bodies[body](F.relu(x))

    states = cell.preprocess(States(s0, ("x",)), States(s1, ("x",)))
    for node in (2, 3):
        total = 0.0
        for slot in (1, 2):
            for source in range(node):
                for o, operation in enumerate(OPERATIONS):
                    weight = gates[f"{kind}/{node}/input_{slot}"][source] * gates[f"{kind}/{node}/operation_{slot}"][o]
                    total = total + weight * plain(node, slot, source, operation, states[source])
        states.append(total)
    unread = (1 - gates[f"{kind}/3/input_1"][2]) * (1 - gates[f"{kind}/3/input_2"][2])
    assert out.names == ("2", "3")
    torch.testing.assert_close(out.x, torch.cat([unread * states[2], states[3]], 1), rtol=0, atol=1e-12)
