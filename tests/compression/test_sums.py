"""Replacements, sums over them, and the best sum under limits, beside brute force over whole spaces."""

from random import Random

import pytest
import torch
from torch import nn

from lightning_nas import (
    DARTSCell,
    InputChoice,
    LayerChoice,
    NASBench201,
    RepeatChoice,
    SettingError,
    Space,
    ValueChoice,
)
from lightning_nas.compression.replacements import Replacements
from lightning_nas.compression.sums import Limit, Sum, best_sum
from lightning_nas.compression.widths import choose_widths
from lightning_nas.costs.profile import count_parameters
from tests.compression.test_widths import Residual

INPUTS = {"channels": 1, "image_size": 8, "num_classes": 10}


def bottleneck(channels, inner):
    return Residual(nn.Sequential(nn.Conv2d(channels, inner, 3, padding=1), nn.ReLU(), nn.Conv2d(inner, channels, 1)))


class Nested(nn.Module):
    """Choices inside of choices, a set of inputs, a label in two places, widths in blocks that may be left out."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(1, 8, 3, padding=1)
        self.blocks = RepeatChoice([bottleneck(8, 6), bottleneck(8, 4)], depth=[0, 1, 2])
        inner = nn.Sequential(nn.Conv2d(8, 8, 1), LayerChoice([nn.ReLU(), nn.GELU(), nn.Conv2d(8, 8, 1)], label="act"))
        deep = nn.Sequential(nn.Tanh(), LayerChoice([nn.ReLU(), nn.GELU(), nn.Conv2d(8, 8, 1)], label="act"))
        self.layer = LayerChoice({"none": nn.Identity(), "one": inner, "other": deep}, label="layer")
        self.sets = LayerChoice({"conv": nn.Conv2d(8, 8, 1), "sum": Inputs()}, label="sets")
        self.read = nn.Conv2d(8, 10, 1)

    def forward(self, x):
        return self.read(self.sets(self.layer(self.blocks(self.stem(x)))))


class Inputs(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.choose = nn.Conv2d(8, 8, 1), InputChoice(3, n_chosen=None, label="inputs")

    def forward(self, x):
        return self.choose([x, self.first(x), -x])


@pytest.fixture(scope="module")
def replacements():
    torch.manual_seed(0)
    net = Nested()
    choose_widths(net, [0.5], ["blocks.0.inner.0", "blocks.1.inner.0", "stem"])
    return Replacements(Space.of(net))


@pytest.fixture(scope="module")
def parameters(replacements):
    space = replacements.space
    return {a: float(count_parameters(space.restrict(a).network(INPUTS))) for a in space}


def test_the_reference_is_the_trained_network(replacements):
    names = replacements.space.to_names(replacements.reference)
    assert (names["blocks"], names["layer"], names["sets"], names["stem"]) == ("2", "none", "conv", "8")
    assert names["blocks/1/inner/0"] == "4"
    other = Replacements(replacements.space, names | {"layer": "other", "act": "1"})
    assert replacements.space.to_names(other.reference) == names | {"layer": "other", "act": "1"}


def test_each_option_is_replaced_alone_with_what_it_is_inside_of(replacements):
    space, reference = replacements.space, replacements.space.to_names(replacements.reference)
    different = {}
    for change in replacements.alone():
        ((k, option),) = change
        architecture = replacements.at(change)
        assert architecture[k] == option
        names = space.to_names(architecture)
        run = {n: o for n, o in names.items() if o != reference[n] and space.matters(n, names)}
        different[space.choices[k].name, space.choices[k].options[option]] = run
    assert different["act", "1"] == {"act": "1", "layer": "one"}
    assert different["inputs/1", "on"] == {"inputs/1": "on", "sets": "sum"}
    assert different["blocks/1/inner/0", "2"] == {"blocks/1/inner/0": "2"}
    assert different["blocks", "0"] == {"blocks": "0"}
    assert len(different) == sum(len(choice.options) - 1 for choice in space.choices)


def test_parameters_are_their_sum_with_pairs(replacements, parameters):
    both = [*replacements.alone(), *replacements.pairs()]
    cost = Sum.of(replacements, parameters.__getitem__, both)
    assert len(parameters) > 500
    wrong = [a for a, n in parameters.items() if cost(replacements.changes(a)) != n]
    assert not wrong
    alone = Sum.of(replacements, parameters.__getitem__, replacements.alone())  # what pairs are for
    assert any(abs(alone(replacements.changes(a)) - n) > 0.05 * n for a, n in parameters.items())


@pytest.mark.parametrize("seed", range(4))
def test_the_best_sum_is_that_of_brute_force(replacements, parameters, seed):
    cost = Sum.of(replacements, parameters.__getitem__, [*replacements.alone(), *replacements.pairs()])
    rng = Random(seed)
    value = Sum(1.0, {change: rng.gauss(0, 1) for change in replacements.alone()})
    sums = {a: value(replacements.changes(a)) for a in parameters}
    for limit in (min(parameters.values()), *(rng.uniform(250, 1200) for _ in range(4))):
        best = best_sum(replacements, value, [Limit(cost, high=limit)])
        legal = [a for a, n in parameters.items() if n <= limit]
        assert best in legal
        assert sums[best] == pytest.approx(min(map(sums.__getitem__, legal)), abs=1e-9)
        others = [a for a in legal if a != best]
        if others:
            second = best_sum(replacements, value, [Limit(cost, high=limit)], [best])
            assert second in others
            assert sums[second] == pytest.approx(min(map(sums.__getitem__, others)), abs=1e-9)
        both = [Limit(cost, high=limit), Limit(value, low=0.5)]
        within = [s for a, s in sums.items() if a in legal and s >= 0.5]
        found = best_sum(replacements, value, both)
        assert (found is None) == (not within)
        assert found is None or sums[found] == pytest.approx(min(within), abs=1e-6)
    assert best_sum(replacements, value, [Limit(cost, high=min(parameters.values()) - 1)]) is None


def test_a_space_of_the_package_whose_choices_are_free():
    replacements = Replacements(NASBench201())
    assert len(list(replacements.alone())) == 6 * 4
    wanted = (0, 1, 2, 3, 4, 2)
    terms = {frozenset([(k, o)]): (o - wanted[k]) ** 2 - wanted[k] ** 2 for k in range(6) for o in range(1, 5)}
    value = Sum(0.0, terms)
    assert best_sum(replacements, value) == wanted


def test_what_is_refused():
    with pytest.raises(SettingError, match="space: DARTSCell has a rule under which options depend on each other"):
        Replacements(DARTSCell())
    net = nn.Sequential(nn.Linear(4, 8))
    net[0].out_features = ValueChoice([4, 8], "width")
    with pytest.raises(SettingError, match="no option '5'"):
        Replacements(Space.of(net), {"width": "5"})
