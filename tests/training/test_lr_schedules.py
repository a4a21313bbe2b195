"""Learning rates by the epoch."""

import math

import pytest

from lightning_nas.errors import SettingError
from lightning_nas.training.lr_schedules import Cosine, CosineRestarts, Exponential, Linear


def rates(schedule, n_epochs, lr=1.0):
    return [lr * schedule.factor(epoch, n_epochs, schedule.minimum / lr) for epoch in range(n_epochs)]


def test_a_cosine_ends_at_its_minimum_after_a_linear_warm_up():
    expected = [0.1, 0.2, *(0.1 + 0.2 * (1 + math.cos(math.pi * epoch / 4)) / 2 for epoch in range(4))]
    assert rates(Cosine(0.1, warmup_epochs=2), 6, lr=0.3) == pytest.approx(expected)
    assert Cosine(0.1).factor(6, 6, 0.25) == pytest.approx(0.25)


def test_restarts_come_after_10_30_70_and_150_epochs():
    found = rates(CosineRestarts(0.01), 160)
    assert [epoch for epoch, rate in enumerate(found) if rate == 1] == [0, 10, 30, 70, 150]
    assert found[20] == pytest.approx(0.505)  # the middle of the second period
    begin, period = 0, 3
    for epoch, rate in enumerate(rates(CosineRestarts(0.01, first_period=3), 100)):
        if epoch == begin + period:
            begin, period = epoch, 2 * period
        assert rate == pytest.approx(0.01 + 0.99 * (1 + math.cos(math.pi * (epoch - begin) / period)) / 2)


def test_an_exponential_is_constant_at_first():
    assert rates(Exponential(0.5, constant_epochs=2), 5, lr=20) == [20, 20, 20, 10, 5]
    assert rates(Exponential(), 3) == [1, 1, 1]


def test_a_line_ends_at_its_minimum():
    assert rates(Linear(), 4, lr=0.5) == [0.5, 0.375, 0.25, 0.125]
    assert rates(Linear(0.1), 4, lr=0.5) == pytest.approx([0.5, 0.4, 0.3, 0.2])


@pytest.mark.parametrize(
    ("make", "field"),
    [
        (lambda: Cosine(-0.1), "minimum"),
        (lambda: Cosine(math.nan), "minimum"),
        (lambda: Cosine(warmup_epochs=-1), "warmup_epochs"),
        (lambda: Linear(-0.1), "minimum"),
        (lambda: CosineRestarts(first_period=0), "first_period"),
        (lambda: Exponential(0.0), "decay"),
        (lambda: Exponential(1.1), "decay"),
        (lambda: Exponential(constant_epochs=-1), "constant_epochs"),
    ],
)
def test_wrong_settings_are_named(make, field):
    with pytest.raises(SettingError, match=f"{field}"):
        make()
