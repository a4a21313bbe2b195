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


@pytest.fixture
def explode():
    """A callback that makes the second epoch of a training diverge."""
    from lightning.pytorch import Callback

    class Explode(Callback):
        def on_train_epoch_start(self, trainer, pl_module):
            if trainer.current_epoch == 1:
                trainer.optimizers[0].param_groups[0]["lr"] = 1e30

    return Explode()
