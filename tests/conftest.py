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


def pytest_collection_modifyitems(items):
    if not torch.cuda.is_available() and "LIGHTNING_NAS_TEST_DEVICE" not in os.environ:
        for item in items:
            if item.get_closest_marker("gpu"):
                item.add_marker(pytest.mark.skip(reason="needs an accelerator"))


@pytest.fixture
def device():
    """The accelerator; another device where ``LIGHTNING_NAS_TEST_DEVICE`` names one, to try the tests themselves."""
    return torch.device(os.environ.get("LIGHTNING_NAS_TEST_DEVICE", "cuda"))
