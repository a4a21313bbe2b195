"""How many networks there are, and which."""

import itertools
import math
from random import Random

import pytest
import torch
from scipy.stats import chisquare
from torch import nn

from lightning_nas import InputChoice, LayerChoice, OwnSpace, RepeatChoice, ValueChoice, freeze
from lightning_nas.errors import SettingError
from lightning_nas.spaces import Space
from tests.helpers.own_networks import OWN

every_network = pytest.mark.parametrize("name", OWN)


@every_network
def test_sizes_are_those_counted_by_hand(name):
    space = OWN[name].space()
    assert space.size == OWN[name].size
    if space.size < 1000:
        assert len(set(space)) == space.size


@pytest.mark.parametrize("name", ["example", "nested", "shared", "repeated", "widths", "transformer"])
def test_every_network_is_one_architecture(name):
    """Of all combinations of options, legal or not, as many different functions run as there are architectures."""
    torch.manual_seed(0)
    case, space = OWN[name], OWN[name].space()
    network, batch = space.network(case.inputs).eval(), case.batch(2)
    every = itertools.product(*(range(len(choice.options)) for choice in space.choices))
    outputs = {a: tuple(network(batch, space.gates(a)).flatten().tolist()) for a in every}
    assert len(set(outputs.values())) == space.size
    assert len({outputs[a] for a in space}) == space.size


@pytest.mark.parametrize(("candidates", "chosen"), [(2, 1), (4, 2), (5, 2), (6, 3), (3, 3), (1, 1)])
def test_sets_of_a_number_of_inputs(candidates, chosen):
    space = OwnSpace(nn.Sequential(InputChoice(candidates, chosen)))
    assert space.size == math.comb(candidates, chosen)
    sets = [tuple(map(int, option.split("+"))) for option in space.choices[0].options]
    assert sets == list(itertools.combinations(range(candidates), chosen))


@pytest.mark.parametrize("candidates", [1, 2, 3, 6])
def test_sets_of_any_number_of_inputs_have_at_least_one(candidates):
    space = OwnSpace(nn.Sequential(InputChoice(candidates, None)))
    assert space.size == 2**candidates - 1
    network = space.network({})
    inputs = [torch.tensor(10.0**k) for k in range(candidates)]
    sums = [network(inputs, space.gates(architecture)).item() for architecture in space]
    assert sorted(sums) == sorted(int(f"{k:b}") for k in range(1, 2**candidates))


def best(space, scores):
    """All architectures in which every choice that matters has the highest score, found one by one."""
    found = []
    for architecture in space:
        names = space.to_names(architecture)
        sets = {}
        for choice, row, option in zip(space.choices, scores, architecture, strict=True):
            if not space.matters(choice.name, names):
                continue
            if choice.group:
                sets.setdefault(choice.group, []).append((row, option))
            elif row[option] < max(row):
                break
        else:
            totals = {
                group: [sum(row[o] for (row, _), o in zip(rows, taken, strict=True)) for taken in subsets(len(rows))]
                for group, rows in sets.items()
            }
            if all(sum(row[o] for row, o in rows) == max(totals[group]) for group, rows in sets.items()):
                found.append(architecture)
    return found


def subsets(n):
    return [taken for taken in itertools.product((0, 1), repeat=n) if any(taken)]


class Sets(nn.Module):
    def __init__(self):
        super().__init__()
        self.any = InputChoice(3, None)
        self.layer = LayerChoice([nn.Identity(), InputChoice(2, None, label="inner")])


@pytest.mark.parametrize("network", [OWN["nested"].network, OWN["shared"].network, OWN["recurrent"].network, Sets])
def test_what_is_derived_has_the_best_option_wherever_it_matters(network):
    space, rng = OwnSpace(network), Random(0)
    for _ in range(60):
        scores = [[rng.gauss(-1, 1) for _ in choice.options] for choice in space.choices]
        assert [space.derive(scores)] == best(space, scores)


def test_what_is_derived_of_a_part():
    space = OwnSpace(Sets).restrict({"any/0": "off", "layer": "1", "inner/1": "on"})
    scores = [[5.0], [0.0, -3.0], [0.0, -2.0], [0.0], [0.0, -1.0], [-9.0]]
    names = space.to_names(space.derive(scores))
    assert names == {"any/0": "off", "any/1": "off", "any/2": "on", "layer": "1", "inner/0": "off", "inner/1": "on"}


@pytest.mark.parametrize("name", ["nested", "shared", "recurrent"])
def test_architectures_are_drawn_uniformly(name):
    space, rng = OWN[name].space(), Random(0)
    drawn = [space.random(rng) for _ in range(100 * space.size)]
    assert chisquare([drawn.count(architecture) for architecture in space]).pvalue > 0.01


@every_network
def test_mutants_and_children_are_legal(name):
    space, rng = OWN[name].space(), Random(0)
    for _ in range(50):
        one, other = space.random(rng), space.random(rng)
        mutant, child = space.mutate(one, rng), space.crossover(one, other, rng)
        assert space.legal(mutant)
        assert mutant != one
        assert space.legal(child)
        assert all(option in pair for option, *pair in zip(child, one, other, strict=True))


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("example", {"conv1": "1"}),
        ("nested", {"block": ["deep", "same"], "block/deep/2/pair/0": ["1", "2"], "last/0": "1"}),
        ("shared", {"width": ["2", "6"], "layer": "wide", "inner": ["3"]}),
        ("inputs", {"two": ["0+1", "2+3"], "any/0": "on", "mixed/0": "off", "list": "0+3"}),
        ("repeated", {"first": ["0", "1"], "depth": ["1", "2"]}),
        ("widths", {"width": ["4", "5"], "kernel": ["1", "3"], "extra": "2"}),
        ("transformer", {"width": "4", "depth": ["1", "2"], "more": ["0", "2"], "heads": ["1", "2"]}),
        ("recurrent", {"first": "gru", "which/0": "off"}),
    ],
)
def test_a_part_of_a_space_has_a_network_of_its_own(name, options):
    torch.manual_seed(0)
    case, space = OWN[name], OWN[name].space()
    part = space.restrict(options)
    assert part.size == sum(
        all(names[key] in ([wanted] if isinstance(wanted, str) else wanted) or not space.matters(key, names)
            for key, wanted in options.items())
        for names in map(space.to_names, space)
    )  # fmt: skip
    whole, network = space.network(case.inputs), part.network(case.inputs)
    assert network.state_dict().keys() <= whole.state_dict().keys()
    assert sum(p.numel() for p in network.parameters()) <= sum(p.numel() for p in whole.parameters())
    for seed in range(10):
        architecture = part.random(Random(seed))
        frozen = freeze(network, architecture)
        torch.manual_seed(1)
        path = network(case.batch(), part.gates(architecture))
        torch.manual_seed(1)
        assert torch.equal(frozen(case.batch()), path)
        names = part.to_names(architecture)
        names = {
            choice.name: names[choice.name] if space.matters(choice.name, names) else choice.options[0]
            for choice in space.choices
        }
        other = freeze(whole, names)
        assert repr(other) == repr(frozen)
        shapes, others = ({k: v.shape for k, v in module.state_dict().items()} for module in (frozen, other))
        assert shapes == others


def test_a_part_whose_rule_leaves_one_architecture_runs_without_gates():
    part = OwnSpace(Sets).restrict({"any/0": "off", "any/1": "off", "layer": "0"})
    assert part.size == 1
    network = part.network({})
    assert network.net.any is not None
    with network.active(None):
        assert network.net.any([torch.ones(1), torch.ones(1), torch.tensor([7.0])]) == 7


class InTwenty(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList(
            LayerChoice([nn.Identity(), LayerChoice([nn.ReLU(), nn.Tanh()], label="activation")]) for _ in range(20)
        )


def test_a_label_inside_of_many_candidates_is_counted_soon():
    space = OwnSpace(InTwenty)
    assert space.size == 2 * (2**20 - 1) + 1
    assert max(map(len, space.tables.next)) == 2  # whether it matters, not which of the twenty is taken


class Depth(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = RepeatChoice(lambda k: nn.Linear(2, 2), [1, 2], label="depth")
        self.depth = ValueChoice([1, 2], "depth")
        self.second = nn.ModuleList(nn.Linear(2, 2) for _ in range(self.depth))

    def forward(self, x):
        x = self.first(x)
        for layer in self.second[: self.depth]:
            x = layer(x)
        return x


def test_a_depth_and_a_number_may_be_one_decision():
    space = OwnSpace(Depth)
    assert space.size == 2
    assert not space.choices[0].relaxable
    network, x = space.network({}), torch.randn(3, 2)
    for architecture in space:
        frozen = freeze(network, architecture)
        assert (len(frozen.first), len(frozen.second)) == (architecture[0] + 1,) * 2
        assert torch.equal(frozen(x), network(x, space.gates(architecture)))


class Dropped(nn.Module):
    def __init__(self):
        super().__init__()
        self.drop = nn.Dropout(ValueChoice([0.25, 0.5], "rate"))
        self.rnn = nn.LSTM(2, ValueChoice([1_000_001, 1_000_002], "hidden") - 1_000_000)

    def forward(self, x):
        return self.rnn(self.drop(x))[0]


def test_numbers_of_any_layer_are_chosen_in_trials():
    space = OwnSpace(Dropped)
    assert [choice.options for choice in space.choices] == [("0.25", "0.5"), ("1000001", "1000002")]
    assert Space.build(space.spec).choices == space.choices
    for architecture in space:
        net = space.restrict(architecture).network({}).net
        assert (net.drop.p, net.rnn.hidden_size) == (0.25 * (architecture[0] + 1), architecture[1] + 1)
    with pytest.raises(SettingError, match=r"p of drop, a Dropout, cannot be chosen.*TrialSearch"):
        space.network({})


def pair(label, inner):
    return LayerChoice([nn.ReLU(), inner], label)


def wrong(*made):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            for k, make in enumerate(made):
                setattr(self, "abc"[k], make())

    return Net


@pytest.mark.parametrize(
    ("network", "match"),
    [
        (lambda: wrong(lambda: nn.Linear(2, 2)), "no choice in Net"),
        (
            lambda: wrong(
                lambda: LayerChoice([nn.ReLU(), nn.Tanh()], "x"), lambda: LayerChoice({"relu": nn.ReLU()}, "x")
            ),
            "x: one decision has the same options everywhere, got 0, 1 and relu",
        ),
        (lambda: wrong(lambda: ValueChoice([1, 2], "x"), lambda: ValueChoice([1, 3], "x")), "x: one decision"),
        (
            lambda: wrong(
                lambda: LayerChoice([nn.ReLU(), nn.Tanh()]), lambda: LayerChoice([nn.ELU(), nn.GELU()], "a")
            ),
            "a: a choice has this label, and another without one stands there",
        ),
        (
            lambda: wrong(lambda: LayerChoice([pair("x", pair("y", nn.ELU())), pair("y", pair("x", nn.ELU()))])),
            "x: a choice cannot be inside of itself",
        ),
        (lambda: wrong(lambda: LayerChoice([nn.ReLU(), None])), r"candidates: '1': a module, got None"),
        (lambda: wrong(lambda: LayerChoice({"plain": nn.ReLU()})), r"candidates: 'plain' cannot be a name"),
        (lambda: wrong(lambda: LayerChoice([])), "candidates: at least one"),
        (lambda: wrong(lambda: InputChoice(2, 3)), "n_chosen: from 1 to n_candidates"),
        (lambda: wrong(lambda: InputChoice(3, None, "concat")), "n_chosen: a number with reduction concat"),
        (lambda: wrong(lambda: RepeatChoice([nn.ReLU()], [2])), "depth: at most the number of blocks, 1, got 2"),
        (lambda: wrong(lambda: ValueChoice([1, 1], "x")), "x: numbers to choose from, all different"),
        (lambda: wrong(lambda: ValueChoice([1], "x.y")), "label: a name without a dot"),
    ],
)  # fmt: skip
def test_what_is_no_space(network, match):
    with pytest.raises(SettingError, match=match):
        OwnSpace(network())
