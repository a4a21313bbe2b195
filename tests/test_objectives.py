"""What a search wants, in words and in numbers."""

import math

import pytest

from lightning_nas.errors import SettingError
from lightning_nas.objectives import Objective

WORDS = {
    "max val/accuracy": Objective("val/accuracy"),
    "min n_params": Objective("n_params", "min"),
    "min flops <= 3e+08": Objective("flops", "min", 3e8),
    "max val/accuracy >= 0.5": Objective("val/accuracy", "max", 0.5),
    "flops <= 3e+08": Objective("flops", "min", 3e8, wanted=False),
    "val/accuracy >= 0.5": Objective("val/accuracy", "max", 0.5, wanted=False),
    "min minus <= 1": Objective("minus", "min", 1.0),
    "n_params <= 1234567.0": Objective("n_params", "min", 1234567, wanted=False),
    "balance >= -0.25": Objective("balance", "max", -0.25, wanted=False),
}


@pytest.mark.parametrize(("text", "objective"), WORDS.items(), ids=WORDS)
def test_words_are_read_and_printed(text, objective):
    assert Objective.parse(text) == objective
    assert str(objective) == text


def test_words_can_be_written_otherwise():
    assert Objective.parse("  min   flops<=3e8 ") == Objective("flops", "min", 3e8)
    assert Objective.parse("flops <=300000000") == Objective("flops", "min", 3e8, wanted=False)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("val/accuracy", "'val/accuracy' is no objective; write 'max METRIC', 'min METRIC <= LIMIT', or a limit alone"),
        ("up accuracy", "'up accuracy' is no objective; write 'max METRIC'"),
        ("max", "'max' is no objective"),
        ("", "'' is no objective"),
        (3, "3 is no objective"),
        ("max a < 3", "'max a < 3' is no objective"),
        ("max a >= high", "'max a >= high' has a limit that is no number; write 'max METRIC'"),
        ("a <= nan", "limit: a finite number, or null, got nan"),
        ("a <= inf", "limit: a finite number, or null, got inf"),
        (
            "max a <= 3",
            "'max a <= 3' has a limit against its direction; write 'max a >= 3', or leave max out for the limit alone",
        ),
        (
            "min a >= 3",
            "'min a >= 3' has a limit against its direction; write 'min a <= 3', or leave min out for the limit alone",
        ),
    ],
)
def test_what_is_none_is_refused_with_the_remedy(text, message):
    with pytest.raises(SettingError) as caught:
        Objective.parse(text)
    assert str(caught.value).startswith(message)


def test_an_objective_without_direction_needs_a_limit():
    with pytest.raises(SettingError, match="limit: a number, since nothing but the limit of flops counts"):
        Objective("flops", wanted=False)
    with pytest.raises(SettingError, match="mode: max or min, got 'up'"):
        Objective("flops", "up")


@pytest.mark.parametrize(
    ("text", "value", "violation"),
    [
        ("flops <= 200", 200, 0.0),
        ("flops <= 200", 100, 0.0),
        ("flops <= 200", 250, 0.25),
        ("accuracy >= 0.5", 0.5, 0.0),
        ("accuracy >= 0.5", 0.9, 0.0),
        ("accuracy >= 0.5", 0.375, 0.25),
        ("max accuracy >= -4", -5, 0.25),
        ("balance >= 0", -3, 3.0),
        ("balance <= 0", 3, 3.0),
        ("max accuracy", -1e9, 0.0),
        ("flops <= 200", math.nan, math.inf),
    ],
)
def test_a_violation_is_the_distance_as_a_share_of_the_limit(text, value, violation):
    assert Objective.parse(text).violation(value) == violation


def test_more_of_a_score_is_better():
    assert Objective("loss", "min").score(2.0) == -2.0
    assert Objective("accuracy").score(2.0) == 2.0
