"""What is found before a network of a user's own is trained."""

import copy
import pickle

import pytest
import torch
from torch import nn

from lightning_nas import LayerChoice, Space, ValueChoice
from lightning_nas.errors import SettingError

INPUTS = {"channels": 1, "image_size": 8, "num_classes": 10}


class Blocks(nn.Module):
    """Blocks by a depth; ``forward`` runs all of them, or as many as are chosen."""

    def __init__(self, follows, num_classes=10):
        super().__init__()
        self.follows, self.depth = follows, ValueChoice([1, 4], "depth")
        self.blocks = nn.ModuleList(nn.Conv2d(1, 1, 3, padding=1) for _ in range(self.depth))
        self.classify = nn.Linear(64, num_classes)

    def forward(self, x):
        for block in self.blocks[: self.depth] if self.follows else self.blocks:
            x = x + block(x).relu() / self.depth
        return self.classify(x.flatten(1))


def test_blocks_that_run_beyond_the_chosen_depth_are_refused():
    with pytest.raises(SettingError, match=r"blocks\.1 of Blocks runs where depth is 1, .*\[: self\.depth\]"):
        Space.of(Blocks, follows=False).network(INPUTS).try_out()
    network = Space.of(Blocks, follows=True).network(INPUTS)
    assert network.try_out().shape == (2, 10)
    assert not any(module._forward_pre_hooks for module in network.modules())


class Lazy(nn.Module):
    def __init__(self):
        super().__init__()
        width = ValueChoice([2, 4], "width")
        self.read = LayerChoice([nn.Conv2d(1, width, 1), nn.Conv2d(1, width, 3, padding=1)])
        self.classify = nn.LazyLinear(10)

    def forward(self, x):
        return self.classify(self.read(x).mean((1, 2)))


def test_layers_that_take_their_size_from_the_first_batch_may_stand_beside():
    network = Space.of(Lazy).network(INPUTS)
    assert network(torch.randn(2, 1, 8, 8), {"width": 0, "read": 1}).shape == (2, 10)


def test_a_space_is_copied_and_pickled():
    space = Space.of(Lazy)
    for other in (copy.deepcopy(space), pickle.loads(pickle.dumps(space))):
        assert other.choices == space.choices
        assert other.spec == space.spec
