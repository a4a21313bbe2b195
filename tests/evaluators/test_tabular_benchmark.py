"""Tables of results: both forms, what figures become, and one line for whatever is wrong with a file."""

import gzip
import math
import os
import statistics
from pathlib import Path
from time import perf_counter

import pytest

from lightning_nas.errors import SettingError
from lightning_nas.evaluators import Evaluation, Evaluator, TabularBenchmark
from lightning_nas.objectives import Objective
from lightning_nas.spaces import Choice, DARTSCell, NASBench201, Space
from lightning_nas.strategies import Proposal

DIGITS = """\
id,arch,valid,test,seconds
7,01,81.5,80.5,2.5
8,12,91.5,nan,1

9,00,nan,10,0
"""
NAMES = """\
test,right,left,valid
80.5,b,x,81.5
90.5,"c,d",y,91.5
10,a,x,1e1
"""


@pytest.fixture
def space():
    return Space([Choice("left", ("x", "y"), "0"), Choice("right", ("a", "b", "c,d"), "1")])


@pytest.fixture
def write(tmp_path):
    def write(content, name="table.csv"):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return str(path)

    return write


def opened(space, *arguments, **settings):
    table = TabularBenchmark(*arguments, **settings)
    table.open(space)
    return table


def test_an_architecture_in_digits(space, write):
    table = opened(space, write(DIGITS), "valid", ["test"], cost="seconds", cost_factor=12, digits="arch")
    assert table(Proposal((0, 1)), 3) == Evaluation({"valid": 81.5, "test": 80.5}, 30.0)
    second = table(Proposal((1, 2)))
    assert (second.metrics["valid"], second.cost) == (91.5, 12.0)
    assert math.isnan(second.metrics["test"])
    assert math.isnan(table(Proposal((0, 0))).metrics["valid"])  # diverged
    with pytest.raises(LookupError, match=r"table.csv has no line of the architecture \(1, 1\)"):
        table(Proposal((1, 1)))


def test_a_column_for_each_choice(space, write):
    table = opened(space, write(NAMES), guide="valid", report=["valid", "test"])
    assert table(Proposal((0, 1))) == Evaluation({"valid": 81.5, "test": 80.5}, 0.0)
    assert table(Proposal((1, 2))).metrics["test"] == 90.5
    assert table(Proposal((0, 0))).metrics["valid"] == 10


def test_a_lower_guide_can_be_better(space, write):
    table = opened(space, write(NAMES), "valid", mode="min")
    assert table(Proposal((0, 1))) == Evaluation({"valid": 81.5}, 0.0)
    assert table.objective == Objective("valid", "min")


def test_digits_can_have_an_order_of_their_own(write):
    space = Space([Choice("left", ("x", "y"), "0"), Choice("right", ("x", "y", "z"), "1")])
    path = write("arch,valid\n01,1\n22,2\n11,3\n")
    with pytest.raises(SettingError):  # 2 is nothing of left, until it is said what digits mean
        opened(space, path, "valid", digits="arch")
    table = opened(space, path, "valid", digits="arch", choices=["right", "left"], options=["z", "y", "x"])
    assert {a: table(Proposal(a)).metrics["valid"] for a in ((1, 2), (0, 0), (1, 1))} == {
        (1, 2): 1,
        (0, 0): 2,
        (1, 1): 3,
    }


def test_a_packed_file_is_the_same(space, write):
    packed = write(gzip.compress(DIGITS.encode()), "table.csv.gz")
    table = opened(space, packed, "valid", digits="arch")
    assert table(Proposal((0, 1))).metrics["valid"] == 81.5


def test_it_is_read_once_for_a_space(space, write):
    path = write(DIGITS)
    table = opened(space, path, "valid", digits="arch")
    Path(path).unlink()
    table.open(space, seed=1)
    assert table(Proposal((0, 1))).metrics["valid"] == 81.5
    with pytest.raises(SettingError, match="cannot be read"):
        table.open(NASBench201())


def test_the_spec_rebuilds_it(space, write):
    table = TabularBenchmark(
        write(DIGITS), "valid", ["test"], digits="arch", choices=["right", "left"], options=["a", "b"]
    )
    again = Evaluator.build(table.spec)
    assert again.spec == table.spec
    assert isinstance(again, TabularBenchmark)


SEVERAL = """\
arch,early,late,test,seconds
01,60,81.5,80.5,2.5
12,70,91.5,nan,1
"""
RUNGS = {12: {"accuracy": "early"}, 200: {"accuracy": "late"}}


def test_a_table_of_several_fidelities_has_the_columns_of_each(space, write):
    settings = {"cost": "seconds", "cost_factor": 2, "digits": "arch", "fidelities": RUNGS}
    table = opened(space, write(SEVERAL), "accuracy", ["test"], **settings)
    assert table.fidelities == [12, 200]
    assert table(Proposal((0, 1), 12)) == Evaluation({"accuracy": 60.0, "test": 80.5}, 60.0)
    assert table(Proposal((0, 1), 200)) == Evaluation({"accuracy": 81.5, "test": 80.5}, 1000.0)
    assert table(Proposal((0, 1))) == table(Proposal((0, 1), 200))
    continued = table(Proposal((0, 1), 200, continues=3, reached=12, first=3))
    assert continued.metrics == {"accuracy": 81.5, "test": 80.5}
    assert continued.cost == pytest.approx(1000.0 - 60.0)
    again = Evaluator.build(table.spec)
    assert again.spec == table.spec
    assert again.fidelities == [12, 200]


@pytest.mark.parametrize(
    ("fidelities", "message"),
    [
        ({}, "fidelities: columns by numbers of epochs from 1, got []"),
        ({0: {"accuracy": "early"}}, "fidelities: columns by numbers of epochs from 1, got [0]"),
        ({1: {"accuracy": "early"}, 2: {}}, "fidelities: for each the columns of the same metrics"),
        ({1: {"speed": "early"}}, "fidelities: for each the columns of the same metrics, which are the guide or rep"),
    ],
)
def test_wrong_fidelities_are_named(fidelities, message):
    with pytest.raises(SettingError) as caught:
        TabularBenchmark("table.csv", "accuracy", fidelities=fidelities)
    assert str(caught.value).startswith(message)


def test_a_column_of_a_fidelity_that_is_not_there_is_named(space, write):
    with pytest.raises(SettingError, match="line 1: one column 'lat' expected; there are arch, early, late"):
        opened(space, write(SEVERAL), "accuracy", digits="arch", fidelities={200: {"accuracy": "lat"}})


# -- what is wrong ---------------------------------------------------------------------------------------------------

WRONG = {
    "no header": ("", "line 1: one column 'arch' expected; there are "),
    "no such column": ("arch,test\n", "line 1: one column 'valid' expected; there are arch, test"),
    "a column twice": ("arch,valid,valid\n", "line 1: one column 'valid' expected; it occurs more than once"),
    "a cell too few": ("arch,valid\n01,1\n00\n", "line 3: 2 columns expected, got 1"),
    "a cell too many": ("arch,valid\n01,1,2\n", "line 2: 2 columns expected, got 3"),
    "a digit too few": ("arch,valid\n1,1\n", "line 2, column arch: 2 digits expected, got '1'"),
    "a digit too many": ("arch,valid\n010,1\n", "line 2, column arch: 2 digits expected, got '010'"),
    "a digit too high": ("arch,valid\n01,1\n04,1\n", "line 3, column arch: 0 or 1 or 2 expected, got '4'"),
    "no digit": ("arch,valid\nx1,1\n", "line 2, column arch: 0 or 1 expected, got 'x'"),
    "an architecture twice": ("arch,valid\n01,1\n00,1\n01,1\n", "line 4: the same architecture as in line 2"),
    "no number": ("arch,valid\n01,high\n", "line 2, column valid: a number expected, got 'high'"),
    "nothing": ("arch,valid\n01,\n", "line 2, column valid: a number expected, got ''"),
    "infinity": ("arch,valid\n01,inf\n", "line 2, column valid: a number expected, got 'inf'"),
    "no text": (b"arch,valid\n\xff\xfe,1\n", "cannot be read as a table ("),
}


@pytest.mark.parametrize(("content", "message"), WRONG.values(), ids=WRONG)
def test_a_wrong_file_is_refused_by_file_line_and_column(content, message, space, write):
    path = write(content)
    with pytest.raises(SettingError) as caught:
        opened(space, path, "valid", digits="arch")
    assert str(caught.value).startswith(path)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("seconds", ["-1", "nan", "inf", "long"])
def test_a_cost_is_no_less_than_nothing(seconds, space, write):
    path = write(f"arch,valid,seconds\n00,1,0\n01,1,{seconds}\n")
    with pytest.raises(SettingError, match=rf"line 3, column seconds: .* expected, got '{seconds}'"):
        opened(space, path, "valid", digits="arch", cost="seconds")


def test_an_unknown_option_is_named(space, write):
    path = write(NAMES.replace("10,a,x,1e1", "10,a,z,1"))
    with pytest.raises(SettingError, match=r"table.csv, line 4, column left: x or y expected, got 'z'"):
        opened(space, path, "valid")


def test_a_missing_column_of_a_choice_is_named(space, write):
    with pytest.raises(SettingError, match="line 1: one column 'left' expected; there are right, valid"):
        opened(space, write("right,valid\na,1\n"), "valid")


def test_an_architecture_against_the_rule_is_refused(write):
    space = DARTSCell(kinds=("normal",), nodes=1, operations=("none", "skip_connect"))
    header = ",".join(choice.name for choice in space.choices)
    path = write(f"{header},valid\nskip_connect,skip_connect,1\nskip_connect,none,1\n")
    with pytest.raises(SettingError, match="line 3: no legal architecture of DARTSCell"):
        opened(space, path, "valid")


@pytest.mark.parametrize(
    ("name", "content"),
    [("none.csv", None), ("table.csv.gz", b"arch,valid\n"), ("table.csv.gz", gzip.compress(b"arch,valid" * 99)[:-9])],
    ids=["no file", "not packed", "cut off"],
)
def test_a_file_that_cannot_be_read_is_named(name, content, space, write, tmp_path):
    path = str(tmp_path / name) if content is None else write(content, name)
    with pytest.raises(SettingError) as caught:
        opened(space, path, "valid", digits="arch")
    assert str(caught.value).startswith(f"{path}: cannot be read as a table (")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"mode": "up"}, "mode: max or min, got 'up'"),
        ({"cost_factor": 0.0}, "cost_factor: above 0, got 0.0"),
        ({"digits": None, "options": ["a"]}, "options: says what digits mean, so digits"),
        ({"digits": None, "choices": ["left"]}, "choices: says what digits mean, so digits"),
        ({"choices": ["left"]}, "choices: each of left, right once, got left"),
        ({"options": ["x", "q"]}, "options: no choice of the space has the option 'q'"),
    ],
)
def test_wrong_settings_are_named(settings, message, space, write):
    with pytest.raises(SettingError) as caught:
        opened(space, write(DIGITS), "valid", **({"digits": "arch"} | settings))
    assert str(caught.value).startswith(message)


def test_more_options_than_digits_are_refused(write):
    space = Space([Choice("k", tuple("abcdefghijk"), "0")])
    with pytest.raises(SettingError, match=r"digits: k has 11 options; ten have a digit"):
        opened(space, write("arch,valid\n0,1\n"), "valid", digits="arch")


# -- NAS-Bench-201 ---------------------------------------------------------------------------------------------------


def test_nas_bench_201_is_read_fast_and_has_its_published_figures():
    path = Path(os.environ.get("LIGHTNING_NAS_DATA", "none")) / "nasbench201.csv.gz"
    if not path.is_file():
        pytest.skip("LIGHTNING_NAS_DATA names no folder with nasbench201.csv.gz")
    space = NASBench201()
    report = ["c10v_val_200", "c10_test_200", "params"]
    start = perf_counter()
    table = opened(space, str(path), "c10v_val_12", report, cost="c10v_train_s_per_epoch", digits="arch")
    assert perf_counter() - start < 5  # it takes a tenth of a second
    metrics = {architecture: table(Proposal(architecture)).metrics for architecture in space}
    assert len(metrics) == 15_625
    best = max(metrics, key=lambda architecture: metrics[architecture]["c10v_val_200"])
    nor_conv_3x3, skip_connect, nor_conv_1x1 = 3, 1, 2
    assert best == (nor_conv_3x3, nor_conv_3x3, nor_conv_3x3, skip_connect, nor_conv_3x3, nor_conv_1x1)
    assert metrics[best]["c10_test_200"] == pytest.approx(94.373, abs=1e-3)
    assert statistics.fmean(m["c10_test_200"] for m in metrics.values()) == pytest.approx(87.06, abs=0.005)
    for architecture in ((3,) * 6, (1,) * 6):
        network = space.restrict(architecture).network(
            {"channels": 3, "image_size": 32, "num_classes": 10}, channels=16, cells=5, form="final"
        )
        assert metrics[architecture]["params"] == sum(parameter.numel() for parameter in network.parameters())
