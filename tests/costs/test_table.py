"""The table of costs against counts by hand, profiles of whole networks, and a sum over choices."""

from random import Random

import pytest
import torch

from lightning_nas.costs import CostTable, profile
from lightning_nas.costs.profile import count_parameters
from lightning_nas.errors import SettingError
from lightning_nas.spaces import DARTSCell, DARTSRecurrentCell, ENASMicro, NASBench201

INPUTS = {"channels": 3, "image_size": 8, "num_classes": 10}


def table_of(space, **settings):
    network = space.network(INPUTS, **settings)
    return CostTable.of(network), network


def place(table, space, name):
    """The costs by option at the first place of a choice."""
    k = [choice.name for choice in space.choices].index(name)
    row = table.choice.tolist().index(k)
    return dict(zip(space.choices[k].options, table.costs[row].tolist(), strict=True))


def test_costs_of_the_cells_of_darts_by_hand():
    """The formulas of SNAS's released code."""
    space = DARTSCell(nodes=1)
    table, _ = table_of(space, channels=4, cells=3)
    normal = place(table, space, "normal/1->2")
    pixels, c = 8 * 8, 4
    assert normal["none"] == [0, 0, 0]
    assert normal["skip_connect"] == [0, 0, 2 * c * pixels]
    assert normal["max_pool_3x3"] == normal["avg_pool_3x3"] == [0, 9 * c * pixels, 2 * c * pixels]
    for k in (3, 5):
        size = c * k * k + c * c
        assert normal[f"dil_conv_{k}x{k}"] == [size, size * pixels, 4 * c * pixels + size]
        assert normal[f"sep_conv_{k}x{k}"] == [2 * size, 2 * size * pixels, 8 * c * pixels + 2 * size]
    reduced, pixels, c = place(table, space, "reduce/0->2"), 4 * 4, 8
    size = c * 9 + c * c
    assert reduced["sep_conv_3x3"] == [2 * size, 2 * size * pixels, 11 * c * pixels + 2 * size]
    assert reduced["max_pool_3x3"] == [0, 9 * c * pixels, 5 * c * pixels]
    assert reduced["skip_connect"][:2] == [c * c, c * c * pixels]


def test_every_place_is_there_and_shares_make_a_mean_cell():
    space = DARTSCell(nodes=2)
    table, _ = table_of(space, channels=2, cells=8)
    names = [choice.name for choice in space.choices]
    per_choice = {name: int((table.choice == k).sum()) for k, name in enumerate(names)}
    assert per_choice == {name: 6 if name.startswith("normal") else 2 for name in names}
    torch.testing.assert_close(table.share.sum(), torch.tensor(float(len(names))))


@pytest.mark.parametrize(
    ("space", "settings"),
    [(DARTSCell(nodes=2), {"channels": 2, "cells": 3}), (NASBench201(), {"channels": 2, "cells": 1})],
    ids=["darts", "nas-bench-201"],
)
def test_differences_between_architectures_are_those_of_whole_networks(space, settings):
    """Parameters and multiply-adds, pools aside, as building and profiling each child gives them."""
    table, _ = table_of(space, **settings)
    rng = Random(0)
    found, expected = [], []
    while len(found) < 4:
        architecture = space.random(rng)
        names = [name for name, option in space.to_names(architecture).items() if option == "none"]
        if isinstance(space, NASBench201) and names:  # after a node without input nothing runs
            continue
        one_hot = torch.stack(list(space.one_hot(architecture).values()))
        pools = torch.tensor([["pool" in option for option in choice.options] for choice in space.choices])
        costs = table.under(one_hot * ~pools)[:, :2].sum(0)
        child = space.restrict(architecture).network(INPUTS, **settings)
        costs_of_child = profile(child, child.example())
        found.append(costs.tolist())
        expected.append([float(count_parameters(child)), float(costs_of_child.multiply_adds)])
    found, expected = torch.tensor(found, dtype=torch.float64), torch.tensor(expected, dtype=torch.float64)
    assert (found > 0).all()
    assert len(found.unique(dim=0)) == 4
    torch.testing.assert_close(found - found[0], expected - expected[0], rtol=0, atol=0.5)


def test_costs_under_weights_are_sums_with_a_gradient():
    space = DARTSCell(nodes=1).restrict({"normal/0->2": ["skip_connect", "sep_conv_3x3"]})
    table, network = table_of(space, channels=2, cells=3)
    weights = torch.rand(len(space.choices), 8, requires_grad=True)
    costs = table.under(weights)
    assert costs.shape == (len(table.choice), 3)
    (gradient,) = torch.autograd.grad(costs[:, 0].sum(), weights)
    for k, _ in enumerate(space.choices):
        torch.testing.assert_close(gradient[k], table.costs[table.choice == k][..., 0].sum(0))
    assert not table.costs[table.choice == 0][:, 2:].any()  # the choice has two options
    assert network.training


def test_real_networks_are_left_as_they_are():
    network = DARTSCell(nodes=1).network(INPUTS, channels=2, cells=3)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    CostTable.of(network)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert not any(module._forward_pre_hooks for module in network.modules())


@pytest.mark.parametrize(
    ("space", "inputs"), [(ENASMicro(nodes=1), INPUTS), (DARTSRecurrentCell(nodes=2), {"vocabulary": 11})]
)
def test_spaces_without_an_operation_for_each_option_are_refused(space, inputs):
    with pytest.raises(SettingError, match=rf"^space: costs of {type(space).__name__} are no sum over choices"):
        CostTable.of(space.network(inputs))
