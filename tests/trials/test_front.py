"""What a search of several objectives leaves: its front in files that a retraining takes, and in words."""

import csv
import math

import lightning.pytorch as pl
import pytest

from lightning_nas.data import NoData
from lightning_nas.errors import SettingError
from lightning_nas.evaluators import TabularBenchmark
from lightning_nas.objectives import Objective
from lightning_nas.runs.folder import RunFolder
from lightning_nas.spaces import NASBench201
from lightning_nas.spaces.architecture_file import ArchitectureRecord, load_architecture
from lightning_nas.strategies import RandomSearch, Trial
from lightning_nas.strategies.fronts import growth
from lightning_nas.trials import TrialSearch
from lightning_nas.trials.front import Front

SPACE = NASBench201(["skip_connect", "nor_conv_3x3"])
OBJECTIVES = ["max accuracy", "min size"]


def accuracy(k):
    return (k % 32).bit_count() + (k < 32) / 10 + k % 32 / 10_000


BEST = [max(accuracy(k) for k in range(32) if k.bit_count() == size - 1) for size in range(6, 0, -1)]
"""Of each size, the largest first. Convolutions are elsewhere than on the first edge."""


@pytest.fixture
def table(tmp_path):
    """The more convolutions, the larger and the better, but for the first edge, whose convolution only is large."""
    rows = [f"{k:06b},{accuracy(k)},{1 + k.bit_count()},1" for k in range(64)]
    (tmp_path / "table.csv").write_text("\n".join(["arch,accuracy,size,seconds", *rows]) + "\n")
    return TabularBenchmark(str(tmp_path / "table.csv"), "accuracy", ["size"], cost="seconds", digits="arch")


def fit(folder, module):
    quiet = {"accelerator": "cpu", "enable_progress_bar": False, "enable_model_summary": False, "logger": False}
    trainer = pl.Trainer(max_epochs=1, default_root_dir=folder, enable_checkpointing=False, **quiet)
    trainer.fit(module, NoData())
    return module.conclude(None, RunFolder(folder), 0)


def rows_of(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def test_the_front_is_left_in_files_and_words(table, tmp_path):
    module = TrialSearch(SPACE, RandomSearch(), table, n_trials=600, objectives=OBJECTIVES, reference=[0.0, 8.0])
    outcome = fit(tmp_path / "run", module)
    folder = tmp_path / "run" / "front"
    assert sorted(path.name for path in folder.iterdir()) == [f"{k}.json" for k in range(6)]
    for place, row in enumerate(rows_of(tmp_path / "run" / "front.csv")):
        record = load_architecture(folder / f"{place}.json")
        assert row["file"] == f"front/{place}.json"
        assert record.space.to_names(record.architecture) == {c.name: row[c.name] for c in SPACE.choices}
        assert record.metrics == {"trial_accuracy": BEST[place], "trial_size": 6.0 - place}
        assert (float(row["accuracy"]), float(row["size"])) == (BEST[place], 6.0 - place)
    growing = rows_of(tmp_path / "run" / "hypervolume.csv")
    volumes = [float(row["hypervolume"]) for row in growing]
    assert [int(row["trials"]) for row in growing] == list(range(1, 601))
    assert volumes == sorted(volumes)
    steps = [high - low for high, low in zip(BEST, [*BEST[1:], 0.0], strict=True)]
    exact = sum(step * (8 - size) for step, size in zip(steps, range(6, 0, -1), strict=True))
    assert volumes[-1] == outcome.figures["hypervolume"] == pytest.approx(exact)
    assert outcome.figures["front"] == 6
    for name in ("front.svg", "hypervolume.svg"):
        assert (tmp_path / "run" / name).stat().st_size > 0
    said = outcome.describe()
    assert f"front        6 architectures, none of which is better in all: {folder}" in said
    assert "front/5.json  trial " in said
    assert "accuracy 0.1, size 1" in said
    assert "give its file as --model.architecture instead" in said
    assert load_architecture(tmp_path / "run" / "architecture.json").metrics["trial_accuracy"] == BEST[0]


def test_where_one_thing_is_wanted_there_is_no_front(table, tmp_path):
    outcome = fit(tmp_path / "run", TrialSearch(SPACE, RandomSearch(), table, n_trials=50, objectives=["size <= 3"]))
    assert outcome.front is None
    assert outcome.best.metrics["size"] == 3
    assert not (tmp_path / "run" / "front").exists()


def test_where_no_trial_keeps_the_limits_that_is_said(table, tmp_path):
    module = TrialSearch(SPACE, RandomSearch(), table, n_trials=9, objectives=[*OBJECTIVES, "size <= 0.5"])
    outcome = fit(tmp_path / "run", module)
    assert outcome.front is None
    assert f"exceeds the limits by {outcome.best.violation:.3g}; no trial keeps them: accuracy" in outcome.describe()


@pytest.mark.parametrize("reference", [[1.0], [1.0, math.nan], []])
def test_a_reference_that_does_not_fit_is_refused_before_anything_is_written(table, tmp_path, reference):
    module = TrialSearch(SPACE, RandomSearch(), table, n_trials=9, objectives=OBJECTIVES, reference=reference)
    with pytest.raises(SettingError, match="reference: a number for each of max accuracy, min size, got "):
        fit(tmp_path / "run", module)
    assert not (tmp_path / "run").exists()


def test_a_checkpoint_holds_what_is_tried_first_and_not_its_path(table, tmp_path):
    ArchitectureRecord(SPACE, (1, 0, 1, 0, 1, 1)).save(tmp_path / "a.json")
    module = TrialSearch(SPACE, RandomSearch(), table, n_trials=3, try_first=[str(tmp_path / "a.json")])
    (tmp_path / "a.json").unlink()
    again = TrialSearch(**dict(module.hparams))
    fit(tmp_path / "run", again)
    assert again.trials.history[0].architecture == (1, 0, 1, 0, 1, 1)


def test_without_a_reference_the_worst_values_are_it():
    values = [(1.0, -5.0), (3.0, -9.0), (2.0, -6.0)]
    trials = [Trial(number, (number,), each) for number, each in enumerate(values)]
    found = Front.of(trials, [Objective("a"), Objective("b", "min")], None)
    assert found.reference == [1.0, -9.0]
    assert [trial.number for trial in found.trials] == [1, 2, 0]
    assert found.volumes() == growth(trials, [1.0, -9.0]) == [0.0, 0.0, 3.0]
