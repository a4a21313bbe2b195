"""Architectures that a policy draws on an accelerator."""

import copy
from collections import Counter

import pytest
import torch
from scipy.stats import chisquare

from lightning_nas.controllers import FactorizedController, LSTMController, TransformerController
from lightning_nas.spaces import DARTSCell, ENASMacro, ENASMicro, ENASRecurrentCell

pytestmark = pytest.mark.gpu

CONTROLLERS = {
    "lstm": LSTMController(hidden=16, layers=2),
    "transformer": TransformerController(width=16, layers=2, heads=2),
    "factorized": FactorizedController(),
}
THREE = ["skip_connect", "sep_conv_3x3", "max_pool_3x3"]
SPACES = {
    "edges": DARTSCell(nodes=2, operations=["none", *THREE]),
    "inputs": ENASMicro(nodes=2, operations=THREE),
    "skips": ENASMacro(layers=4, operations=["conv_3x3", "max_pool_3x3"]),
    "recurrent": ENASRecurrentCell(nodes=4),
}
SMALL = {
    "edges": DARTSCell(kinds=["normal"], nodes=2, operations=["none", "skip_connect", "sep_conv_3x3"]),
    "skips": ENASMacro(layers=3, operations=["conv_3x3", "max_pool_3x3"]),
    "recurrent": ENASRecurrentCell(nodes=2),
}


def of(named):
    return pytest.mark.parametrize("space", named.values(), ids=named)


controllers = pytest.mark.parametrize("controller", CONTROLLERS.values(), ids=CONTROLLERS)


@of(SPACES)
@controllers
def test_draws_are_a_function_of_the_seed_and_as_probable_as_the_cpu_says(controller, space, device):
    policy = controller.policy(space)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():  # as after some training
        for parameter in policy.parameters():
            parameter += 0.3 * torch.randn(parameter.shape, generator=generator)
    there = copy.deepcopy(policy).to(device)
    first, again, other = (there.sample(64, torch.Generator(device).manual_seed(seed)) for seed in (3, 3, 4))
    assert first.architectures.device.type == device.type
    assert first.tuples() == again.tuples() != other.tuples()
    assert all(space.legal(architecture) for architecture in first.tuples())
    assert len(set(first.tuples())) > 1

    here = policy.evaluate(first.architectures.cpu())
    for of_device in (first, there.evaluate(first.architectures)):
        torch.testing.assert_close(of_device.log_prob.cpu(), here.log_prob, rtol=0, atol=1e-5)
        torch.testing.assert_close(of_device.entropies.cpu(), here.entropies, rtol=0, atol=1e-5)
        torch.testing.assert_close(of_device.skip_kl.cpu(), here.skip_kl, rtol=0, atol=1e-5)


@of(SMALL)
@controllers
def test_an_untrained_policy_draws_all_architectures_equally_often(controller, space, device):
    sample = controller.policy(space).to(device).sample(20_000, torch.Generator(device).manual_seed(0))
    counts = Counter(sample.tuples())
    assert counts.keys() <= set(space)
    assert chisquare([counts[architecture] for architecture in space]).pvalue > 1e-4
