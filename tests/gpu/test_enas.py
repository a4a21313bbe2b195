"""What ENAS does to its controller on an accelerator leaves the shared weights as they are, to the last bit."""

import lightning.pytorch as pl
import pytest
import torch

from lightning_nas.operations.normalization import batch_norms
from lightning_nas.testing.method import assert_same, differing, snapshot
from tests.helpers.methods import CASES, digits

pytestmark = pytest.mark.gpu
NAMES = pytest.mark.parametrize("name", ["enas-darts", "enas-micro", "enas-macro"])


def random_state(device):
    return torch.cuda.get_rng_state(device) if device.type == "cuda" else torch.get_rng_state()


@pytest.mark.usefixtures("deterministic")
@NAMES
def test_rewards_leave_no_trace(name, device):
    search = CASES[name].made(drop_path=0.9).to(device).train()
    for norm in batch_norms(search.network):
        norm.running_mean.fill_(100.0)  # nobody reads them
    before, modes, random = snapshot(search), [module.training for module in search.modules()], random_state(device)
    batch = [part.to(device) for part in digits().stream("architecture", 0).get(0)]
    architectures = [search.draw("some", number) for number in range(4)]
    rewards = search.rewards(architectures, batch)
    assert rewards.shape == (4,)
    assert rewards.device.type == device.type
    assert not rewards.requires_grad
    assert torch.equal(search.rewards(architectures, batch), rewards)
    assert_same(snapshot(search), before)
    assert [module.training for module in search.modules()] == modes
    assert torch.equal(random_state(device), random)


class Watch(pl.Callback):
    """Records, for each step, whose it is and what of the network and of the controller it changed."""

    def __init__(self):
        self.steps = []

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self.before = snapshot(pl_module.network), snapshot(pl_module.policy)

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        now = snapshot(pl_module.network), snapshot(pl_module.policy)
        changed = [differing(old, new) for old, new in zip(self.before, now, strict=True)]
        self.steps.append((*batch, next(pl_module.network.parameters()).device.type, *changed))


@NAMES
def test_a_step_of_either_side_leaves_the_other(name, device, trainer):
    watch = Watch()
    trainer(max_epochs=1, callbacks=[watch], limit_val_batches=0).fit(CASES[name].made(), digits())
    assert [stream for stream, *_ in watch.steps] == ["weights"] * 5 + ["architecture"] * 2
    for stream, where, of_network, of_policy in watch.steps:
        assert where == device.type
        assert bool(of_network) == (stream == "weights")
        assert bool(of_policy) == (stream == "architecture")
