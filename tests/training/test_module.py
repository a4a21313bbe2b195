"""What a search and a retraining share."""

import pytest

from lightning_nas.training.module import scheduled_drop_path


def test_scheduled_drop_path_grows_with_the_training_and_with_the_depth():
    for done in (0.0, 0.25, 1.0):
        drop_path = scheduled_drop_path(0.4, done)
        for cell in range(1, 9):
            assert drop_path(cell / 8) == pytest.approx(0.4 * done * cell / 8)
    assert scheduled_drop_path(0.4, 1.0)(1.0) == 0.4
    assert scheduled_drop_path(0.0, 0.7)(0.3) == 0
