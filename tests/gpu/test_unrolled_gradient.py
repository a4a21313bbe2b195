"""The second-order gradient of DARTS on an accelerator is that of the CPU, in float64."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.func import functional_call

from lightning_nas.methods.darts import unrolled_gradient
from lightning_nas.spaces import DARTSCell

pytestmark = pytest.mark.gpu

INPUTS = {"channels": 3, "image_size": 8, "num_classes": 10}
SMOOTH = ("none", "avg_pool_3x3", "skip_connect", "sep_conv_3x3", "dil_conv_5x5")
KINKED = ("none", "max_pool_3x3", "skip_connect", "sep_conv_5x5", "dil_conv_3x3")


def gradient(device, operations, smooth, **settings):
    """Loss and gradient; all numbers are drawn on the CPU. Smooth: without ReLU, so that nothing has a kink."""
    torch.manual_seed(0)
    space = DARTSCell(nodes=3, operations=operations)
    network = space.network(INPUTS, channels=4, cells=3).double()
    if smooth:
        for module in list(network.modules()):
            for name, child in module.named_children():
                if isinstance(child, nn.ReLU):
                    setattr(module, name, nn.Softplus())
    alphas = 0.5 * torch.randn(len(space.choices), len(operations), dtype=torch.float64)
    velocity = {name: 0.01 * torch.randn_like(weight) for name, weight in network.named_parameters()}
    batches = [(torch.randn(6, 3, 8, 8, dtype=torch.float64), torch.randint(0, 10, (6,))) for _ in range(2)]

    network, alphas = network.to(device), alphas.to(device).requires_grad_()
    velocity = {name: value.to(device) for name, value in velocity.items()}

    def loss_on(batch):
        images, labels = (part.to(device) for part in batch)

        def loss(weights):
            gates = {choice.name: row for choice, row in zip(space.choices, alphas.softmax(1), strict=True)}
            return F.cross_entropy(functional_call(network, dict(weights), (images, gates)), labels)

        return loss

    weights = dict(network.named_parameters())
    train, valid = map(loss_on, batches)
    found = unrolled_gradient(train, valid, weights, alphas, lr=0.025, weight_decay=3e-4, velocity=velocity, **settings)
    assert {value.device.type for value in found} == {torch.device(device).type}
    return [value.cpu() for value in found]


@pytest.mark.parametrize("clip", [None, 0.25])
@pytest.mark.parametrize("exact", [False, True], ids=["finite-difference", "exact"])
@pytest.mark.parametrize(("operations", "smooth"), [(SMOOTH, True), (KINKED, False)], ids=["smooth", "kinked"])
def test_it_is_that_of_the_cpu(operations, smooth, exact, clip, device):
    loss, there = gradient(device, operations, smooth, exact=exact, clip=clip)
    expected_loss, here = gradient("cpu", operations, smooth, exact=exact, clip=clip)
    assert loss.item() == pytest.approx(expected_loss.item(), rel=1e-9)
    assert here.norm() > 0
    assert (there - here).norm() / here.norm() < 1e-9
