"""FLOPs of many architectures: those of each one's own network, and the published counts."""

from random import Random

import pytest
import torch

from lightning_nas.costs import Flops, profile
from lightning_nas.spaces import DARTSCell, ENASMicro, NASBench201, ProxylessMobile, ShuffleBlocks

CASES = {
    "shuffle": (ShuffleBlocks(4, (8, 12), (2, 2), (1, 2), 1, 8), {}),
    "shuffle-scales": (ShuffleBlocks(4, (8, 12), (1, 2), (1, 2), 1, 8, scales=(0.5, 1.0)), {"dropout": 0.0}),
    "shuffle-restricted": (
        ShuffleBlocks(4, (8, 12), (2, 2), (1, 2), 1, 8).restrict({"block_2": ["shuffle_x", "shuffle_5x5"]}),
        {},
    ),
    "mobile": (ProxylessMobile((4, 4), (4, 6), (2, 2), (1, 2), 1, 8), {}),
    "darts": (DARTSCell(nodes=2), {"channels": 2, "cells": 3}),
    "enas-micro": (ENASMicro(nodes=1), {"channels": 2, "layers": 1}),
    "nas-bench-201": (NASBench201(), {"channels": 2, "cells": 1}),
}


@pytest.mark.parametrize("name", CASES)
def test_what_a_profile_of_the_own_network_counts(name):
    space, settings = CASES[name]
    inputs = {"channels": 3, "image_size": 8, "num_classes": 4}
    flops = Flops(space, inputs, **settings)
    found = set()
    for number in range(5):
        architecture = space.random(Random(number))
        with torch.device("meta"):
            own = space.restrict(architecture).network(inputs, form="final", **settings)
        assert flops(architecture) == profile(own, own.example()).flops
        found.add(flops(architecture))
    assert len(found) > 1


@pytest.fixture(scope="module")
def published():
    return Flops(ShuffleBlocks(), dict(ShuffleBlocks.usual_inputs))


@pytest.mark.parametrize(
    ("blocks", "multiply_adds"),
    [
        ("0 " * 20, 295_842_496),
        ("1 " * 20, 313_654_976),
        ("2 " * 20, 340_373_696),
        ("3 " * 20, 358_825_920),
        ("2 1 0 1 2 0 2 0 2 0 2 3 0 0 0 0 3 2 3 3", 322_918_720),
        ("0 0 3 1 1 1 0 0 2 0 2 1 1 0 2 0 2 1 3 2", 318_729_024),
    ],
)
def test_multiply_adds_of_the_released_networks_of_spos(published, blocks, multiply_adds):
    assert published(tuple(map(int, blocks.split()))) == 2 * multiply_adds


def test_a_chain_is_counted_once(published, monkeypatch):
    monkeypatch.setattr(Flops, "_count", None)
    assert published((0,) * 20) < published((3,) * 20)
