"""Ours and the textbook's are the same mathematics: losses and every gradient in float64.

The textbook modules in ``benchmarks/textbook`` are written from the papers, one module for each operation, and share no
code with the package: they are its slow reference.
"""

import functools
from dataclasses import replace

import pytest
import torch

from benchmarks.__main__ import ROWS
from benchmarks.agreement import SAME, Agreement, error
from tests.helpers.small_sizes import SMALL

COMPARED = sorted(set(ROWS) - {"yardstick", "evolution"})


@functools.cache
def gradients(name):
    return ROWS[name](SMALL).gradients(torch.float64)


COMPILED = [pytest.param(name, marks=pytest.mark.slow) for name in COMPARED if name.endswith("compiled")]
"""Rows that call a C++ compiler."""


@pytest.mark.parametrize("name", [*(name for name in COMPARED if not name.endswith("compiled")), *COMPILED])
def test_losses_and_all_gradients_are_those_of_the_textbook(name):
    textbook, ours = gradients(name)["textbook"], gradients(name)["ours"]
    assert textbook.keys() <= ours.keys()
    assert all(value.isfinite().all() for value in textbook.values())
    whole = sum(float(value.square().sum()) for value in textbook.values()) ** 0.5
    for tensor, value in textbook.items():
        assert error(ours[tensor], value, floor=1e-6 * whole) < SAME, tensor


@pytest.mark.parametrize("name", ["darts-cnn-first", "darts-rnn-second", "random-search-ws", "retrain"])
def test_what_is_compared_is_not_zero(name):
    textbook = gradients(name)["textbook"]
    trained = ROWS[name](SMALL).pair().textbook
    used = {tensor for tensor, parameter in trained.named_parameters() if tensor in textbook}
    if name != "random-search-ws":  # which trains a path alone
        assert used == {tensor for tensor, _ in trained.named_parameters()}
    assert len(used) > 10
    assert all(textbook[tensor].abs().max() > 0 for tensor in used)


def test_both_orders_of_darts_differ():
    first, second = (gradients(f"darts-cnn-{order}") for order in ("first", "second"))
    for side in ("textbook", "ours"):
        assert error(second[side]["alphas.normal"], first[side]["alphas.normal"]) > 1e-4


def test_a_difference_is_found(monkeypatch):
    from lightning_nas.tasks import ImageClassification

    row = ROWS["darts-cnn-first"](SMALL)
    loss = ImageClassification.loss

    def wrong(self, *args, **kwargs):
        value, carry = loss(self, *args, **kwargs)
        return value * (1 + 1e-6), carry

    monkeypatch.setattr(ImageClassification, "loss", wrong)
    with pytest.raises(AssertionError, match=r"DARTS-CNN, first order: .* differs by 1\.0e-06 in float64"):
        Agreement.of(row)


def test_agreement_is_described():
    agreement = Agreement.of(ROWS["enas-sampling"](SMALL))
    assert agreement.exact[0] < 1e-12
    assert agreement.errors.keys() == {"weights", "log_probs"}
    assert all(0 < each[side] < 1e-5 for each in agreement.errors.values() for side in ("textbook", "ours"))
    assert agreement.describe().startswith("float64: ")
    assert Agreement.of(ROWS["evolution"](SMALL)) is None


def test_smaller_sizes_for_gradients():
    row = ROWS["retrain"](replace(SMALL, batch=64))
    assert row.reduced().sizes == replace(SMALL, batch=8)
    assert type(row.reduced()) is type(row)
