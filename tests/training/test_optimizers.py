"""Optimisers as settings: which parameters decay."""

import pytest
import torch
from torch import nn

from lightning_nas.training import SGD


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.Flatten(), nn.Linear(3, 4))


def stepped(settings, steps=3):
    """The parameters after some steps with constant gradients."""
    model = network()
    optimizer = settings.make(model.parameters())
    for _ in range(steps):
        for parameter in model.parameters():
            parameter.grad = torch.ones_like(parameter)
        optimizer.step()
    return dict(model.named_parameters())


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_weight_decay_spares_vectors(momentum):
    decayed = stepped(SGD(0.1, momentum, weight_decay=0.5))
    plain = stepped(SGD(0.1, momentum))
    mixed = stepped(SGD(0.1, momentum, weight_decay=0.5, decay_vectors=False))
    for name, value in mixed.items():
        same, other = (decayed, plain) if value.ndim > 1 else (plain, decayed)
        assert torch.equal(value, same[name])
        assert not torch.equal(value, other[name])


def test_settings_of_a_continued_run_keep_sparing_vectors():
    before, now = (SGD(0.1, weight_decay=decay, decay_vectors=False) for decay in (0.5, 0.25))
    optimizer = before.make(network().parameters())
    scheduler = before.make_scheduler(optimizer, lambda: 3)
    now.take_effect(optimizer, scheduler)
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.25, 0.0]
