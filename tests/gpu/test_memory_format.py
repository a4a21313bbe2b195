"""A final network whose states are channels-last computes what a contiguous one does."""

import copy
from unittest.mock import patch

import pytest
import torch
import torch.nn.functional as F

from lightning_nas.spaces.architecture_file import load_architecture

pytestmark = pytest.mark.gpu


def final_network():
    """Of DARTS, second order: separable and dilated convolutions, max-pooling and skips."""
    torch.manual_seed(0)
    found = load_architecture("darts_v2")
    inputs = {"channels": 3, "image_size": 16, "num_classes": 10}
    return found.space.restrict(found.architecture).network(inputs, channels=8, cells=3, form="final")


def results(network, layout, images, labels):
    """Logits, and all gradients as one vector, where a device has this layout."""
    with patch("lightning_nas.operations.layout.layout_of", return_value=layout):
        network = copy.deepcopy(network).to(images.device)
        given = []
        network.stem.register_forward_hook(lambda module, inputs, out: given.append(inputs[0]))
        logits = network(images)
        assert given[0].is_contiguous(memory_format=layout)  # what follows depends on the kernels
        gradients = torch.autograd.grad(F.cross_entropy(logits, labels), list(network.parameters()))
    return logits.detach(), torch.cat([gradient.flatten() for gradient in gradients])


@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-4)], ids=["float64", "float32"]
)
def test_outputs_and_gradients_do_not_depend_on_the_layout(dtype, tolerance, training, device):
    network = final_network().to(dtype).train(training)
    images, labels = torch.randn(16, 3, 16, 16, dtype=dtype), torch.randint(10, (16,))
    expected = results(network, torch.contiguous_format, images, labels)  # on the CPU
    network, images, labels = network.to(device), images.to(device), labels.to(device)
    for layout in (torch.channels_last, torch.contiguous_format):
        for found, wanted in zip(results(network, layout, images, labels), expected, strict=True):
            assert found.device.type == device.type
            assert (found.cpu() - wanted).norm() / wanted.norm() < tolerance
