import os

import pytest
import torch

from lightning_nas.testing.method import quiet_trainer

os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS reads it at its start; else its sums vary


@pytest.fixture(autouse=True)
def no_tf32():
    """Products of float32 in float32: TF32 keeps ten bits of a number."""
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    before = matmul.allow_tf32, cudnn.allow_tf32
    matmul.allow_tf32 = cudnn.allow_tf32 = False
    yield
    matmul.allow_tf32, cudnn.allow_tf32 = before


@pytest.fixture
def deterministic():
    """Kernels whose results are the same in every run; an operation without one raises."""
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(before[0], warn_only=before[1])


@pytest.fixture
def trainer(device):
    """Makes a quiet trainer on the device."""

    def make(**settings):
        return quiet_trainer(**({"accelerator": device.type, "devices": 1} | settings))

    return make
