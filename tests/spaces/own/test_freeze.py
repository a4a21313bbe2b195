"""A frozen network is the path of the search's network, and nothing but the user's module."""

import copy
import io
import pickle
from random import Random

import pytest
import torch
from torch import nn

from lightning_nas import InputChoice, LayerChoice, OwnSpace, ValueChoice, freeze
from lightning_nas.errors import SettingError
from tests.helpers.own_networks import OWN

every_network = pytest.mark.parametrize("name", OWN)


def supernet(name):
    """A network of the search whose running averages are those of some training."""
    torch.manual_seed(0)
    case = OWN[name]
    network = case.space().network(case.inputs)
    with torch.no_grad():
        for key, value in network.state_dict().items():
            if value.is_floating_point():
                value.add_(torch.rand_like(value) if key.endswith("running_var") else 0.1 * torch.randn_like(value))
    return network


def passed(call, module, batch):
    """Outputs and gradients, by the parameters' names."""
    torch.manual_seed(3)  # dropout falls the same way
    module.zero_grad(set_to_none=True)
    output = call(batch)
    (output * torch.linspace(-1, 1, output.numel()).view_as(output)).sum().backward()
    return output.detach(), {key: parameter.grad for key, parameter in module.named_parameters()}


def assert_path(name, network, architecture):
    """The frozen network is the path: outputs, gradients, and running averages afterwards, bit for bit."""
    case, space = OWN[name], network.space
    before = {key: value.clone() for key, value in network.state_dict().items()}
    for train in (True, False):
        network.load_state_dict(before)
        network.train(train)
        frozen = freeze(network, architecture)
        assert frozen.training is train
        output, gradients = passed(frozen, frozen, case.batch())
        gates = space.gates(architecture)
        path, of_path = passed(lambda x, gates=gates: network(x, gates), network, case.batch())
        assert torch.equal(output, path)
        assert output.isfinite().all()
        after = freeze(network, architecture).state_dict()
        assert all(torch.equal(value, after[key]) for key, value in frozen.state_dict().items())
        # a network of the same weights in which each has its gradient, of which the child's are taken
        with torch.no_grad():
            for key, parameter in network.named_parameters():
                parameter.copy_(torch.zeros_like(parameter) if of_path[key] is None else of_path[key])
        expected = dict(freeze(network, architecture).named_parameters())
        for key, gradient in gradients.items():
            assert torch.equal(torch.zeros_like(expected[key]) if gradient is None else gradient, expected[key]), key
    network.load_state_dict(before)


@every_network
def test_frozen_is_the_path(name):
    network = supernet(name)
    for seed in range(20):
        assert_path(name, network, network.space.random(Random(seed)))


@pytest.mark.slow
@every_network
def test_frozen_is_the_path_for_200_architectures(name):
    network = supernet(name)
    for seed in range(200):
        assert_path(name, network, network.space.random(Random(seed)))


@every_network
def test_frozen_is_the_network_written_by_hand(name):
    case, network = OWN[name], supernet(name)
    frozen = freeze(network.eval(), case.chosen)
    by_hand = case.by_hand().eval()
    ours, theirs = frozen.state_dict(), by_hand.state_dict()
    assert list(ours) == list(theirs)
    assert {key: value.shape for key, value in ours.items()} == {key: value.shape for key, value in theirs.items()}
    by_hand.load_state_dict(ours)
    for train in (True, False):
        output, gradients = passed(frozen.train(train), frozen, case.batch())
        expected, expected_gradients = passed(by_hand.train(train), by_hand, case.batch())
        assert torch.equal(output, expected)
        assert all(torch.equal(gradients[key], gradient) for key, gradient in expected_gradients.items())


@every_network
def test_nothing_of_the_package_is_in_it(name):
    network = supernet(name)
    for seed in range(5):
        frozen = freeze(network, network.space.random(Random(seed)))
        assert type(frozen) is OWN[name].network
        assert not [m for m in frozen.modules() if type(m).__module__.startswith("lightning_nas")]
        written = io.BytesIO()
        torch.save(frozen, written)
        assert b"lightning_nas" not in written.getvalue().replace(b"tests.helpers", b"")
        hooks = [hook for module in frozen.modules() for hook in module._forward_pre_hooks.values()]
        assert hooks == []


@every_network
def test_it_is_copied_written_and_exported(name):
    case, network = OWN[name], supernet(name)
    frozen = freeze(network.eval(), case.chosen)
    batch = case.batch()
    expected = frozen(batch)
    written = io.BytesIO()
    torch.save(frozen, written)
    written.seek(0)
    read = torch.load(written, weights_only=False)  # written above
    for again in (copy.deepcopy(frozen), pickle.loads(pickle.dumps(frozen)), read):
        assert torch.equal(again(batch), expected)
    exported = torch.export.export(frozen, (batch,), strict=False).module()
    torch.testing.assert_close(exported(batch), expected, rtol=1e-5, atol=1e-6)


def test_with_the_fused_kernel_of_evaluation_it_is_the_path_but_for_rounding():
    network = supernet("transformer").eval()
    case, space = OWN["transformer"], network.space
    differs = 0.0
    for seed in range(10):
        architecture = space.random(Random(seed))
        with torch.no_grad():
            fused, path = freeze(network, architecture)(case.batch()), network(case.batch(), space.gates(architecture))
        torch.testing.assert_close(fused, path, rtol=1e-4, atol=1e-5)
        differs = max(differs, (fused - path).abs().max().item())
    assert differs < 1e-5


class Encoder(nn.Module):
    def __init__(self):
        super().__init__()
        layer = nn.TransformerEncoderLayer(
            8, ValueChoice([2, 4], "heads"), ValueChoice([4, 8], "hidden"), batch_first=True
        )
        self.embed, self.encoder = nn.Embedding(11, 8), nn.TransformerEncoder(layer, 2)
        self.encoder.layers[1].linear2 = LayerChoice([nn.Linear(8, 8), nn.Linear(8, 8)], label="last")

    def forward(self, x, lengths):
        padding = torch.arange(x.shape[1]) >= lengths[:, None]
        return self.encoder(self.embed(x), src_key_padding_mask=padding).masked_fill(padding[..., None], 0)


def test_padding_runs_as_in_the_network_of_the_search():
    """Where an encoder would hand on tensors that only PyTorch's fused kernel can read."""
    torch.manual_seed(0)
    space = OwnSpace(Encoder)
    network = space.network({}).eval()
    x, lengths = torch.randint(11, (3, 6)), torch.tensor([6, 2, 4])
    for architecture in space:
        if space.to_names(architecture) in (
            {"heads": "2", "hidden": "8", "last": "0"},
            {"heads": "4", "hidden": "8", "last": "1"},
        ):
            frozen = freeze(network, architecture)
            assert frozen.encoder.use_nested_tensor
            with torch.no_grad():
                path = network(x, space.gates(architecture), lengths=lengths)
                torch.testing.assert_close(frozen(x, lengths), path, rtol=1e-4, atol=1e-5)
            assert torch.equal(frozen(x, lengths), network(x, space.gates(architecture), lengths=lengths))


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        width = ValueChoice([2, 4], "width")
        self.embed, self.classify = nn.Embedding(11, width), nn.Linear(width, 11, bias=False)
        self.classify.weight = self.embed.weight

    def forward(self, x):
        return self.classify(self.embed(x))


@pytest.mark.parametrize("built", [False, True], ids=["class", "network"])
def test_layers_that_share_a_weight_share_it_when_frozen(built):
    space = OwnSpace(Tied() if built else Tied)
    network = space.network({})
    for architecture in space:
        frozen = freeze(network, architecture)
        assert frozen.classify.weight is frozen.embed.weight
        assert frozen.embed.weight.shape == (11, space.choices[0].values[architecture[0]])
        x = torch.arange(11)
        assert torch.equal(frozen(x), network(x, space.gates(architecture)))


class Twice(nn.Module):
    def __init__(self):
        super().__init__()
        width = ValueChoice([2, 4], "width")
        self.choice = LayerChoice([nn.Linear(3, 3), nn.Tanh()])
        self.same = self.choice
        self.listed = [self.choice, (self.same, 1)]
        self.which = InputChoice(2)
        self.linear = self.again = nn.Linear(3, width)
        self.read = nn.Linear(width, 1)

    def forward(self, x):
        x = self.which([self.same(self.choice(x)), self.listed[0](x)])
        return self.read(self.linear(x) + self.again(x))


@pytest.mark.parametrize("built", [False, True], ids=["class", "network"])
def test_a_module_that_stands_in_several_places_stays_one(built):
    space = OwnSpace(Twice() if built else Twice)
    assert [choice.name for choice in space.choices] == ["choice", "which", "width"]
    network = space.network({})
    x = torch.randn(5, 3)
    for architecture in space:
        frozen = freeze(network, architecture)
        assert frozen.same is frozen.choice is frozen.listed[0] is frozen.listed[1][0]
        assert frozen.linear is frozen.again
        assert torch.equal(frozen(x), network(x, space.gates(architecture)))
        assert not [m for m in frozen.modules() if type(m).__module__.startswith("lightning_nas")]


class Mixed(nn.Module):
    def __init__(self):
        super().__init__()
        self.a = LayerChoice([nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3)), nn.Identity()])
        self.which = InputChoice(2, label="which")
        self.b = nn.Linear(3, 2)
        self.register_buffer("seen", torch.zeros(()), persistent=False)

    def forward(self, x):
        self.seen += 1
        return self.b(self.which([self.a(x), x]).to(self.b.weight.dtype))


@pytest.mark.parametrize("built", [False, True], ids=["class", "network"])
def test_modes_precisions_and_what_is_not_trained_are_the_networks(built):
    space = OwnSpace(Mixed() if built else Mixed)
    network = space.network({})
    network.net.b.double()
    network.net.a[0][1].eval()
    network.net.a[0][0].weight.requires_grad_(False)
    network(torch.randn(4, 3), space.gates((0, 0)))
    for weights in (True, False):
        frozen = freeze(network, (0, 0), weights=weights)
        assert {path: m.training for path, m in frozen.named_modules()} == {
            "": True, "a": True, "a.0": True, "a.1": False, "which": True, "b": True
        }  # fmt: skip
        assert (frozen.a[0].weight.dtype, frozen.b.weight.dtype) == (torch.float32, torch.float64)
        assert [key for key, parameter in frozen.named_parameters() if not parameter.requires_grad] == ["a.0.weight"]
        assert frozen.seen == 1
        assert torch.equal(frozen.a[0].weight, network.net.a[0][0].weight) is (weights or built)


def test_a_network_of_ones_own_is_frozen_by_names_and_stays_as_it_is():
    torch.manual_seed(0)
    net = Twice()
    net.linear.eval()
    before = copy.deepcopy(net.state_dict())
    frozen = freeze(net, {"choice": "1", "which": "0", "width": "2"})
    assert isinstance(frozen.choice, nn.Tanh)
    assert not frozen.linear.training
    assert torch.equal(frozen.linear.weight, net.linear.weight[:2])
    assert isinstance(net.choice, LayerChoice)
    assert net.linear.out_features == 4
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())


@pytest.mark.parametrize(
    ("network", "settings", "match"),
    [
        (lambda: nn.Linear(2, 2), {}, "no choice in Linear"),
        (Twice, {"weights": False}, "weights: a network of your own"),
        (Twice, {"architecture": {"choice": "7"}}, "choices.choice: no option '7'"),
        (lambda: OwnSpace(Twice).network({}), {"architecture": {"choice": "0"}}, "choices.which: missing"),
    ],
)
def test_what_cannot_be_frozen(network, settings, match):
    with pytest.raises(SettingError, match=match):
        freeze(network(), **settings)
