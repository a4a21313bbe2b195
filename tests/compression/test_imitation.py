"""Candidates that learn to do what a trained layer does."""

import copy

import pytest
import torch
from torch import nn

from lightning_nas import SGD, BlockLibrary, Digits, ImageClassification, LayerChoice, SettingError, imitate
from tests.compression.test_library import trained


@pytest.fixture(scope="module")
def imitated():
    """A trained network whose second block has two candidates of new weights, before and after."""
    net = trained()
    torch.manual_seed(1)
    cheap = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8), nn.Conv2d(8, 8, 1))
    net[3][1] = LayerChoice({"trained": net[3][1], "cheap": cheap, "linear": nn.Conv2d(8, 8, 1)}, label="block")
    before = copy.deepcopy(net)
    errors = imitate(net, ImageClassification(), Digits(), steps=120, progress=False)
    return before, net, errors


def test_candidates_come_near_and_nothing_else_changes(imitated):
    before, net, errors = imitated
    assert set(errors) == {"block/cheap", "block/linear"}
    assert errors["block/cheap"] < 0.2
    assert errors["block/cheap"] < errors["block/linear"] < 0.8
    old, new = before.state_dict(), net.state_dict()
    changed = {name for name, tensor in new.items() if not torch.equal(tensor, old[name])}
    assert changed == {name for name in new if name.startswith(("3.1.cheap.", "3.1.linear."))}
    assert not net[3][1]._forward_hooks


def test_they_replace_the_layer_better(imitated):
    scores = []
    for net in imitated[:2]:
        library = BlockLibrary(net, ImageClassification(), Digits(), progress=False)
        scores.append([library.sum("loss").terms[frozenset([(0, option)])] for option in (1, 2)])
    assert all(after < 0.5 * before for before, after in zip(*scores, strict=True))


def test_the_gradient_of_a_step_is_that_of_the_error(imitated):
    before, _, _ = imitated
    net = copy.deepcopy(before)
    rate = 0.1
    imitate(net, ImageClassification(), Digits(), steps=1, optimizer=SGD(rate), progress=False)
    images, _ = Digits().stream("weights", 0).get(0)
    front = before[:3].eval()
    with torch.no_grad():
        given = before[3][0](front(images))
        goal = before[3][1]["trained"].eval()(given)
    linear = before[3][1]["linear"]
    error = (linear(given) - goal).square().sum() / goal.square().sum()
    (gradient,) = torch.autograd.grad(error, [linear.weight])
    torch.testing.assert_close(net[3][1]["linear"].weight, linear.weight - rate * gradient)


def test_a_network_without_candidates_is_refused():
    net = nn.Sequential(nn.Flatten(), LayerChoice([nn.ReLU(), nn.GELU()], label="act"), nn.Linear(64, 10))
    with pytest.raises(SettingError, match="no candidate with weights beside a trained layer"):
        imitate(net, ImageClassification(), Digits(), progress=False)
