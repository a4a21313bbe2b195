import os

import pytest
import torch

# Nothing here needs an account or a network.
os.environ["WANDB_MODE"] = "disabled"
os.environ.pop("WANDB_API_KEY", None)


@pytest.fixture(autouse=True)
def one_thread():
    """Small computations, often several tests at once: threads would only wait for each other."""
    torch.set_num_threads(1)
