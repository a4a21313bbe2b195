"""Both sides of the benchmark of a user's own network compute the same."""

import pytest
import torch

from benchmarks.own_network import pairs, step


@pytest.mark.parametrize("what", ["all candidates under weights", "a path", "a path, beside the frozen network"])
def test_both_sides_take_the_same_steps(what):
    (theirs, by_hand), (ours, forward) = pairs(layers=4, channels=2, side=4, batch=3)[what]
    for _ in range(3):
        step(theirs, by_hand)
        step(ours, forward)
    names = {name.removeprefix("net."): value for name, value in ours.state_dict().items()}
    with torch.no_grad():
        torch.testing.assert_close(forward(), by_hand(), rtol=1e-5, atol=1e-6)
    if names.keys() == theirs.state_dict().keys():
        for name, value in theirs.state_dict().items():
            torch.testing.assert_close(names[name], value, rtol=1e-5, atol=1e-6)
