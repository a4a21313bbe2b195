"""A user's network that is searched where it stands, without a copy."""

import gc
import weakref

import pytest
import torch
from torch import nn

from lightning_nas import LayerChoice, SettingError, Space, ValueChoice, freeze
from lightning_nas.operations.sliced import SLICED


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.TransformerEncoderLayer(8, 2, ValueChoice([4, 8], "feed_forward"), 0.0, batch_first=True)
        self.head = LayerChoice([nn.Linear(8, 2), nn.Sequential(nn.ReLU(), nn.Linear(8, 2))])

    def forward(self, x):
        return self.head(self.layer(x)[:, 0])


def states(net):
    return [(type(part), len(part._forward_pre_hooks), part.training) for part in net.modules()]


@pytest.mark.parametrize("raises", [False, True])
def test_it_is_as_it_was_afterwards(raises):
    net = Net().eval()
    before, weights = states(net), dict(net.named_parameters())
    space = Space.of(net)
    with pytest.raises(ZeroDivisionError) if raises else torch.no_grad(), space.in_place() as network:
        assert network.net is net
        assert type(net.layer.linear1) is SLICED[nn.Linear]
        1 / (not raises)
    assert states(net) == before
    assert all(net.get_parameter(name) is weight for name, weight in weights.items())


def test_it_runs_and_is_frozen_as_a_copy_is():
    net, x = Net().eval(), torch.randn(3, 5, 8)
    space = Space.of(net)
    copied = space.network(dict(space.usual_inputs)).eval()
    with space.in_place() as network, torch.no_grad():
        for architecture in space:
            gates = space.gates(architecture)
            assert torch.equal(network(x, gates), copied(x, gates))
            one, other = freeze(network, architecture), freeze(copied, architecture)
            assert repr(one) == repr(other)
            assert all(map(torch.equal, one.state_dict().values(), other.state_dict().values()))
            assert not [part for part in one.modules() if type(part).__module__.startswith("lightning_nas")]


def test_names_are_those_of_the_space_that_is_used():
    whole = nn.Sequential(nn.Sequential(LayerChoice([nn.ReLU(), nn.Tanh()])))
    inner, outer = Space.of(whole[0]), Space.of(whole)
    for space, name in ((inner, "0"), (outer, "0/0"), (inner, "0")):
        with space.in_place() as network:
            assert whole[0][0].name == space.choices[0].name == name
            assert torch.equal(network(torch.ones(2), {name: 1}), torch.ones(2).tanh())


def test_a_class_cannot_be_searched_in_place():
    with pytest.raises(SettingError, match="network: a network"), Space.of(Net).in_place():
        pass


def test_a_space_does_not_keep_a_network_for_ever():
    net = Net()
    space, known = Space.of(net), weakref.ref(net)
    spec = space.spec
    assert Space.build(spec, "space").template is net
    del net, space
    gc.collect()
    assert known() is None
    with pytest.raises(SettingError, match="hand it over again"):
        Space.build(spec, "space")
