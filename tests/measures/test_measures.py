"""Figures of untrained networks, on networks so small that they can be computed by hand."""

import copy
import math

import pytest
import torch
from torch import nn

from lightning_nas import (
    NASWOT,
    DARTSCell,
    Digits,
    Latency,
    NASBench201,
    Objective,
    Proposal,
    SettingError,
    SynFlow,
    ZeroCost,
)
from lightning_nas.catalogue import KINDS
from lightning_nas.measures import Measure
from lightning_nas.operations.normalization import BatchNorm
from lightning_nas.specs import concrete

MEASURES = {"naswot": NASWOT(8), "synflow": SynFlow()}
TIMED = Latency(runs=3)


class Small(nn.Module):
    """A convolution, BatchNorm, ReLU and a linear layer."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.convolution, self.norm = nn.Conv2d(1, 2, 1, bias=False), BatchNorm(2)
        self.linear = nn.Linear(2, 3, bias=False)

    def forward(self, x):
        return self.linear(self.norm(self.convolution(x)).relu().mean((2, 3)))

    def example(self, batch_size=1):
        return torch.zeros(batch_size, 1, 2, 2)


def final(architecture):
    space = NASBench201()
    torch.manual_seed(0)
    inputs = {"channels": 1, "image_size": 8, "num_classes": 10}
    return space.restrict(architecture).network(inputs, channels=4, cells=1, form="final")


def test_synflow_is_the_flow_through_the_absolute_weights():
    network = Small()
    first, second = network.convolution.weight.flatten().abs(), network.linear.weight.abs()
    through = (second @ first).sum().item()  # R; each of the two layers carries all of it
    assert SynFlow()(network, None, 0) == pytest.approx(math.log(2 * through), rel=1e-6)


def test_naswot_is_the_determinant_of_how_codes_agree():
    network, data = Small(), Digits(batch_size=4)
    images = data.stream("weights", 3).get(0)[0]
    with torch.no_grad():
        codes = copy.deepcopy(network).norm(network.convolution(images)).flatten(1) > 0
    agree = (codes[:, None] == codes[None]).sum(2).double()
    assert NASWOT(4)(network, data, 3) == pytest.approx(torch.logdet(agree).item(), rel=1e-9)


@pytest.mark.parametrize("name", MEASURES)
def test_the_network_is_left_as_it_was(name):
    network = final((3, 3, 3, 1, 3, 2)).train()
    before = copy.deepcopy(network.state_dict())
    first = MEASURES[name](network, Digits(batch_size=8), 0)
    assert math.isfinite(first)
    assert network.training
    assert all(torch.equal(value, network.state_dict()[key]) for key, value in before.items())
    assert all(parameter.grad is None for parameter in network.parameters())
    assert MEASURES[name](network, Digits(batch_size=8), 0) == first


def test_more_images_than_a_batch_has_are_taken_from_several():
    network, data = final((3, 3, 3, 1, 3, 2)), Digits(batch_size=4)
    assert NASWOT(6)(network, data, 0) != NASWOT(4)(network, data, 0)


def test_the_evaluator_says_what_it_measured():
    evaluator = ZeroCost(SynFlow(), {"channels": 4, "cells": 1})
    evaluator.open(NASBench201(), Digits(), seed=1)
    result = evaluator(Proposal((3, 3, 3, 3, 3, 3)), 0)
    assert evaluator.objective == Objective("synflow")
    assert set(result.metrics) == set(evaluator.metric_names(None))
    network = final((3, 3, 3, 3, 3, 3))
    assert result.metrics["n_params"] == sum(parameter.numel() for parameter in network.parameters())
    assert result.metrics["flops"] > 0
    assert evaluator(Proposal((3, 3, 3, 3, 3, 3)), 0).metrics == result.metrics
    assert math.isnan(evaluator(Proposal((0, 0, 0, 0, 0, 0)), 1).metrics["synflow"])  # through this one nothing flows


def test_a_latency_is_a_time_in_milliseconds_that_grows_with_the_work():
    network = final((3, 3, 3, 3, 3, 3)).train()
    before = copy.deepcopy(network.state_dict())
    one, many = Latency(1, runs=5)(network, None, 0), Latency(512, runs=5)(network, None, 0)
    assert 0 < one < many < 10_000
    assert network.training
    assert all(torch.equal(value, network.state_dict()[key]) for key, value in before.items())
    assert (Latency.mode, Latency.wants_machine_alone) == ("min", True)
    for settings in ({"batch_size": 0}, {"runs": 0}):
        with pytest.raises(SettingError, match=f"{next(iter(settings))}: at least 1, got 0"):
            Latency(**settings)


def test_further_measures_are_reported():
    evaluator = ZeroCost(SynFlow(), {"channels": 4, "cells": 1}, report=[TIMED])
    evaluator.open(NASBench201(), None)
    figures = evaluator(Proposal((3, 3, 3, 3, 3, 3)), 0).metrics
    assert list(figures) == evaluator.metric_names(None) == ["synflow", "latency", "n_params", "flops"]
    assert evaluator.wants_machine_alone
    assert ZeroCost(TIMED).objective == Objective("latency", "min")


def test_no_data_are_needed_where_none_is_looked_at():
    evaluator = ZeroCost(SynFlow(), {"channels": 4, "cells": 2})
    evaluator.open(DARTSCell(nodes=2), None)
    assert math.isfinite(evaluator(Proposal(DARTSCell(nodes=2).tables.unrank(0)), 0).metrics["synflow"])
    with pytest.raises(SettingError, match="evaluator: NASWOT looks at images"):
        ZeroCost(NASWOT()).open(DARTSCell(), None)


def test_every_measure_is_tested():
    assert KINDS
    ours = {cls for cls in concrete(Measure) if cls.__module__.startswith("lightning_nas.")}
    assert ours == {type(measure) for measure in (*MEASURES.values(), TIMED)}
