"""Convolutions whose fast implementation has a fault of its own."""

import os
import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F

from lightning_nas.operations.convolutions import Pointwise


@pytest.mark.parametrize("channels", [2, 8])
def test_a_strided_pointwise_convolution_is_that_of_torch(channels: int) -> None:
    torch.manual_seed(0)
    pointwise = Pointwise({"state": channels}, 3, stride=2)
    x = torch.randn(2, channels, 7, 6).to(memory_format=torch.channels_last)
    expected = F.conv2d(x, pointwise.parts["state"], stride=2)
    torch.testing.assert_close(pointwise(x), expected, rtol=1e-6, atol=1e-6)


@pytest.mark.slow
def test_cells_of_two_channels_train_on_processors_with_avx2() -> None:
    script = """
import torch
from lightning_nas.spaces import DARTSCell
space = DARTSCell()
network = space.network({"channels": 3, "image_size": 32, "num_classes": 10}, channels=2, cells=3)
gates = {c.name: torch.full((len(c.options),), 1 / len(c.options)) for c in space.choices}
for _ in range(3):
    loss = network(torch.randn(16, 3, 32, 32), gates).square().mean()
    torch.autograd.grad(loss, list(network.parameters()))
"""
    environment = os.environ | {"ONEDNN_MAX_CPU_ISA": "AVX2"}
    ended = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr[-500:]
