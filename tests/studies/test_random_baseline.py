"""The study against random: its arithmetic, that an interrupted one continues, and that a folder is for one study."""

import csv
import json
from pathlib import Path

import pytest
import yaml
from scipy.stats import ttest_rel

from lightning_nas.cli.main import main
from lightning_nas.errors import SettingError
from lightning_nas.spaces.architecture_file import load_architecture
from lightning_nas.studies import random_baseline as study
from lightning_nas.studies.random_baseline import RANDOM, SHARED, Comparison, compare_with_random

DIGITS = {"channels": 1, "image_size": 8, "num_classes": 10}
SEARCH = {
    "model": {
        "class_path": "DARTS",
        "init_args": {
            "order": "first",
            "space": {"class_path": "DARTSCell", "init_args": {"nodes": 2}},
            "task": "ImageClassification",
            "network": {"channels": 2, "cells": 2},
        },
    },
    "data": {"class_path": "Digits", "init_args": {"batch_size": 256}},
    "trainer": {"max_epochs": 1, "accelerator": "cpu"},
    "architecture_logger": {"n_random": 1},
}
RETRAIN = {
    "model": {
        "class_path": "Retrain",
        "init_args": {
            "architecture": "darts_v2",
            "task": "ImageClassification",
            "network": {"channels": 2, "cells": 2},
        },
    },
    "data": {"class_path": "Digits", "init_args": {"batch_size": 256}},
    "trainer": {"max_epochs": 1, "accelerator": "cpu"},
}


@pytest.fixture
def configs(tmp_path):
    other = SEARCH | {"trainer": {"max_epochs": 2, "accelerator": "cpu"}}
    paths = tmp_path / "search.yaml", tmp_path / "other.yaml", tmp_path / "retrain.yaml"
    for path, content in zip(paths, (SEARCH, other, RETRAIN), strict=True):
        path.write_text(yaml.safe_dump(content))
    return [str(path) for path in paths]


def test_table_is_the_arithmetic_of_the_pairs(tmp_path):
    found, drawn = [0.9, 0.8, 0.7], [0.85, 0.8, 0.5]
    text = Comparison({"darts": found, "random": drawn}, tmp_path).describe()
    assert "0.8000 ± 0.1000" in text
    assert "0.7167 ± 0.1893" in text
    assert "0.0833 ± 0.1041" in text
    assert f"p = {ttest_rel(found, drawn).pvalue:.3f}" in text


@pytest.mark.slow
def test_interrupted_study_goes_on_and_gives_the_same(configs, tmp_path, monkeypatch):
    search, other, retraining = configs
    whole = compare_with_random(search, [other], retraining, 1, tmp_path / "whole", main)
    assert list(whole.scores) == ["search", SHARED, "other", RANDOM]
    rows = list(csv.DictReader((tmp_path / "whole" / "study.csv").open()))
    place = tmp_path / "whole" / "seed-0"
    files = {origin: load_architecture(place / f"{origin}.json") for origin in whole.scores}
    assert files["search"].method == "DARTS"
    assert files["search"].seed == files["other"].seed == 0
    assert files[SHARED].architecture == load_architecture(place / "darts-1" / "random.json").architecture
    assert [row["origin"] for row in rows] == list(files)
    for row in rows:
        found = files[row["origin"]]
        child = found.space.restrict(found.architecture).network(DIGITS, form="final", channels=2, cells=2)
        assert float(row["n_params"]) == sum(parameter.numel() for parameter in child.parameters())

    folder, retrain, calls = tmp_path / "stopped", study._Runs.retrain, []

    def stop_in_the_third(self, *arguments):
        calls.append(arguments)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return retrain(self, *arguments)

    monkeypatch.setattr(study._Runs, "retrain", stop_in_the_third)
    with pytest.raises(KeyboardInterrupt):
        compare_with_random(search, [other], retraining, 1, folder, main)
    with open(folder / "study.csv") as file:
        assert [(row["seed"], row["origin"]) for row in csv.DictReader(file)] == [("0", "search"), ("0", SHARED)]

    resumed = compare_with_random(search, [other], retraining, 1, folder, main)
    assert len(calls) == 5  # two of four rows were there, the third was begun again
    assert resumed.scores == whole.scores


# -- a folder is for one study, with a command that trains nothing ---------------------------------------------------


class Command:
    """Leaves what runs leave. What is tested says how much the configurations ask for; stops before a command."""

    def __init__(self, stop_before=None):
        self.commands, self.stop_before = [], stop_before

    def __call__(self, argv):
        if len(self.commands) == self.stop_before:
            raise KeyboardInterrupt
        arguments = dict(a.removeprefix("--").split("=", 1) for a in argv if "=" in a)
        config = yaml.safe_load(Path(argv[argv.index("--config") + 1]).read_text())
        self.commands.append((argv[0], config["model"]["class_path"]))
        run = Path(arguments["trainer.default_root_dir"]) / f"run-{len(list(Path().rglob('run-*')))}"
        run.mkdir(parents=True)
        record = load_architecture("darts_v1").to_dict()
        for name in ("architecture.json", "random.json"):
            (run / name).write_text(json.dumps(record))
        (run / "metrics.csv").write_text(f"test/accuracy,n_params,flops\n{config['trainer']['max_epochs']},7,8\n")
        return 0


def edited(path, **settings):
    path = Path(path)
    path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text()) | settings))


def written(folder):
    return {path: path.read_bytes() for path in sorted(Path(folder).rglob("*")) if path.is_file()}


def values(folder):
    with open(Path(folder) / "study.csv", newline="") as file:
        return [(row["seed"], row["origin"], float(row["test_score"])) for row in csv.DictReader(file)]


@pytest.fixture
def study_of(configs, tmp_path, monkeypatch):
    """Runs a study of the configurations, and counts the commands."""
    monkeypatch.chdir(tmp_path)
    search, other, retraining = configs

    def run(folder=None, seeds=2, others=(other,), command=None):
        command = command or Command()
        found = compare_with_random(search, others, retraining, seeds, folder, command)
        return found, command.commands

    return run


def test_the_settings_are_in_the_folder_before_the_first_run(study_of):
    with pytest.raises(KeyboardInterrupt):
        study_of(command=Command(stop_before=0))
    (folder,) = Path("runs").iterdir()
    assert folder.name.startswith("study-random-search-")
    noted = yaml.safe_load((folder / "settings.yaml").read_text())
    assert list(noted) == ["study", "search", "others", "retrain", "version"]
    assert noted["search"] == {"name": "search", "config": SEARCH}
    assert noted["others"]["other"]["trainer"] == {"max_epochs": 2, "accelerator": "cpu"}
    assert noted["retrain"] == RETRAIN


def test_the_same_study_finds_its_folder_and_more_seeds_continue_it(study_of, configs):
    found, commands = study_of()
    assert len(commands) == 2 * (2 + 4 * 2)  # two searches; a retraining and a test of four architectures
    again, commands = study_of()
    assert (again, commands) == (found, [])
    Path(configs[0]).write_text("# a remark\n" + json.dumps(SEARCH))  # says the same
    more, commands = study_of(seeds=3)
    assert len(commands) == 2 + 4 * 2
    assert more.folder == found.folder
    assert len(values(more.folder)) == 12
    assert list(Path("runs").iterdir()) == [found.folder]


def test_an_interrupted_study_keeps_what_is_finished(study_of):
    whole, commands = study_of(Path("whole"))
    for number in (1, 2, 4, 9):
        folder = Path(f"stopped-{number}")
        with pytest.raises(KeyboardInterrupt):
            study_of(folder, command=Command(stop_before=number))
        begun = Command()
        assert study_of(folder, command=begun)[0].scores == whole.scores
        assert len(begun.commands) - (len(commands) - number) in (0, 1)  # at most one fit was lost with its test
        assert values(folder) == values("whole")


@pytest.mark.parametrize("cut", [1, 2, 5, 9, 14], ids=lambda cut: f"{cut} characters")
def test_a_half_written_row_is_made_again(cut, study_of):
    whole, _ = study_of()
    table = whole.folder / "study.csv"
    before = table.read_bytes()
    table.write_bytes(before[:-cut])
    again, commands = study_of()
    assert [command for command, _ in commands] == ["fit", "test"]
    assert again == whole
    assert table.read_bytes() == before


EDITS = {
    "the search": (
        0,
        {"trainer": {"max_epochs": 3, "accelerator": "cpu"}},
        "search.config.trainer.max_epochs is 1 there and 3 here",
    ),
    "another": (
        1,
        {"trainer": {"max_epochs": 3, "accelerator": "cpu"}},
        "others.other.trainer.max_epochs is 2 there and 3 here",
    ),
    "the retraining": (2, {"trainer": {"max_epochs": 3}}, "retrain.trainer.max_epochs is 1 there and 3 here"),
}


@pytest.mark.parametrize(("which", "settings", "said"), EDITS.values(), ids=EDITS)
def test_an_edited_configuration_is_another_study(which, settings, said, study_of, configs):
    first, _ = study_of()
    before = written(first.folder)
    edited(configs[which], **settings)
    with pytest.raises(SettingError) as caught:
        study_of(first.folder)
    assert str(caught.value) == (f"--folder: {first.folder} holds another study: {said}; choose another --folder")
    second, commands = study_of()
    assert second.folder != first.folder
    assert len(commands) == 20
    assert second.scores["search"] == ([3.0, 3.0] if which == 2 else [1.0, 1.0])  # as much as the retraining asks for
    assert written(first.folder) == before


def test_other_searches_are_another_study(study_of, configs):
    first, _ = study_of(others=())
    with pytest.raises(SettingError, match=r"others.other is not set there and {.*… here; choose"):
        study_of(first.folder)
    assert study_of()[0].folder != first.folder


def test_a_name_is_a_setting_since_rows_have_it(study_of, configs, tmp_path):
    search, other, retraining = configs
    first, _ = study_of()
    renamed = Path(search).rename(tmp_path / "renamed.yaml")
    with pytest.raises(SettingError, match=r"search.name is 'search' there and 'renamed' here"):
        compare_with_random(str(renamed), [other], retraining, 2, first.folder, Command())


def test_a_configuration_edited_meanwhile_ends_the_study(study_of, configs):
    class Edit(Command):
        def __call__(self, argv):
            if len(self.commands) == 10:
                edited(configs[2], trainer={"max_epochs": 9})
            return super().__call__(argv)

    command = Edit()
    with pytest.raises(SettingError, match=r"retrain.trainer.max_epochs is 1 there and 9 here"):
        study_of(Path("study"), command=command)
    assert len(command.commands) == 11
    assert {score for _, _, score in values("study")} == {1.0}


@pytest.mark.parametrize("kept", ["study.csv", "seed-0"])
def test_rows_of_an_unknown_study_are_not_shown(kept, study_of, tmp_path):
    (tmp_path / "runs" / "study").mkdir(parents=True)
    (tmp_path / "runs" / "study" / kept).write_text("seed,origin,test_score,n_params,flops\n0,search,0.9,1,1\n")
    before = written("runs")
    with pytest.raises(SettingError) as caught:
        study_of(Path("runs/study"))
    assert str(caught.value) == (
        f"--folder: runs/study holds {kept} and no settings.yaml that says of which study; choose another --folder"
    )
    assert written("runs") == before


@pytest.mark.parametrize("name", [RANDOM, SHARED])
def test_a_search_is_not_called_as_another_row(name, configs, tmp_path):
    config = Path(configs[1]).rename(tmp_path / f"{name}.yaml")
    with pytest.raises(SettingError, match=f"--others: no configuration called '{name}'"):
        compare_with_random(configs[0], [str(config)], configs[2], 2, tmp_path / "study", Command())
    assert not (tmp_path / "study").exists()


def test_the_command_refuses_in_one_line(study_of, configs, capsys):
    first, _ = study_of()
    capsys.readouterr()
    edited(configs[2], trainer={"max_epochs": 3})
    search, other, retraining = configs
    flags = [f"--search={search}", f"--others=[{other}]", f"--retrain={retraining}", f"--folder={first.folder}"]
    assert main(["study", "random", *flags]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith("retrain.trainer.max_epochs is 1 there and 3 here; choose another --folder")


def test_a_run_that_is_refused_is_named_with_its_log(study_of):
    with pytest.raises(SettingError, match=r"^fit --config .*search.yaml --model.seed=0 failed; see study/log.txt$"):
        study_of(Path("study"), command=lambda argv: 2)


def test_two_searches_of_one_name_are_refused(configs, tmp_path):
    search, _, retraining = configs
    with pytest.raises(SettingError, match="--others"):
        compare_with_random(search, [search], retraining, 2, tmp_path / "study", main)
    assert not (tmp_path / "study").exists()
