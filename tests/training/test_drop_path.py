"""The schedules of drop-path."""

import pytest

from lightning_nas.training.drop_path import drop_path_at


def test_scheduled_drop_path_grows_with_the_training_and_with_the_depth():
    for done in (0.0, 0.25, 1.0):
        drop_path = drop_path_at(0.4, "scheduled", 8 * done, 8)
        for cell in range(1, 9):
            assert drop_path(cell / 8) == pytest.approx(0.4 * done * cell / 8)
    assert drop_path_at(0.4, "scheduled", 8, 8)(1.0) == 0.4
    assert drop_path_at(0.0, "scheduled", 7, 10)(0.3) == 0


@pytest.mark.parametrize(("epoch", "expected"), [(0.0, 0.0), (0.9, 0.0), (1.0, 0.1), (3.5, 0.3)])
def test_linear_drop_path_grows_with_whole_epochs(epoch, expected):
    assert drop_path_at(0.4, "linear", epoch, 4) == pytest.approx(expected)
