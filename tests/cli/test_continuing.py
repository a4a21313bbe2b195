"""Continuing on the command line: what the checkpoint brings, what flags change, and what is refused by name."""

import csv
import math
import shlex
from types import SimpleNamespace

import pytest
import torch
import yaml

from lightning_nas.cli.main import main
from lightning_nas.runs.folder import RunFolder

QUIET = ["--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false"]
NETWORK = ["--model.network.channels=2", "--model.network.cells=2"]
SEARCH = ["--config", "darts/quickstart.yaml", "--model.space.nodes=2", *NETWORK, "--data.batch_size=256"]
SEARCH += ["--architecture_logger.n_random=0"]
RETRAIN = ["--config", "darts/quickstart_retrain.yaml", *NETWORK, "--data.batch_size=256"]


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def run(*argv):
    return main([*map(str, argv), *QUIET])


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """The folders of a search of two epochs, of one that ran through to four, and of a retraining of two epochs."""
    root = tmp_path_factory.mktemp("done")
    at = f"--trainer.default_root_dir={root}"
    settings = ["--trainer.precision=bf16-mixed", "--trainer.check_val_every_n_epoch=1", at]
    settings += ["--trainer.callbacks=LearningRateMonitor", "--trainer.callbacks.logging_interval=epoch"]
    for epochs in (2, 4):
        assert run("fit", *SEARCH, *settings, f"--trainer.max_epochs={epochs}") == 0
    architecture = f"--model.architecture={root / 'darts-1' / 'architecture.json'}"
    assert run("fit", *RETRAIN, architecture, "--trainer.max_epochs=2", at) == 0
    names = {"search": "darts-1", "whole": "darts-2", "retraining": "retrain-1"}
    return SimpleNamespace(**{name: RunFolder(root / folder) for name, folder in names.items()})


def content(folder):
    return torch.load(folder.checkpoint, weights_only=True)


def column(folder, name, by="epoch"):
    """A figure by its epoch, or by its step, from ``metrics.csv``."""
    with open(folder.metrics, newline="") as file:
        return {int(row[by]): float(row[name]) for row in csv.DictReader(file) if row.get(name)}


def new(name):
    return RunFolder(f"runs/{name}")


def one_line(capsys):
    """The error, which is all that is on stderr."""
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1, lines
    assert lines[0].startswith("error: ")
    return lines[0].removeprefix("error: ")


def cosine(epoch, epochs, lr=0.025, minimum=0.001):
    return minimum + (lr - minimum) * (1 + math.cos(math.pi * epoch / epochs)) / 2


# -- what the checkpoint brings ----------------------------------------------------------------------------------------


def test_the_trainers_settings_of_the_first_run_hold(done):
    assert run("fit", f"--ckpt_path={done.search.checkpoint}") == 0
    before, now = (
        yaml.safe_load((folder.path / "config.yaml").read_text())["trainer"] for folder in (done.search, new("darts-1"))
    )
    assert (now["max_epochs"], now["precision"], now["check_val_every_n_epoch"]) == (2, "bf16-mixed", 1)
    assert now["callbacks"] == before["callbacks"]
    assert now["callbacks"][0]["init_args"]["logging_interval"] == "epoch"


def test_more_epochs_have_the_rates_of_the_longer_schedule(done):
    assert run("fit", f"--ckpt_path={done.search.checkpoint}", "--trainer.max_epochs=4") == 0
    rates, through = (list(column(folder, "lr-SGD", by="step").values()) for folder in (new("darts-1"), done.whole))
    assert rates == through[2:]
    assert rates == pytest.approx([cosine(2, 4), cosine(3, 4)])
    assert content(new("darts-1"))["epoch"] == 3


@pytest.mark.parametrize("file", [[], ["--config", "darts/quickstart.yaml"]])
def test_a_default_that_the_first_run_had_holds_against_a_file(file, done):
    """``check_val_every_n_epoch`` was 1, and the file says 2."""
    assert run("fit", *file, f"--ckpt_path={done.search.checkpoint}", "--trainer.max_epochs=4") == 0
    assert column(new("darts-1"), "val/supernet_loss").keys() == {2, 3}


def test_flags_win(done):
    flags = ["--trainer.max_epochs=4", "--trainer.precision=32-true", "--trainer.check_val_every_n_epoch=2"]
    assert run("fit", f"--ckpt_path={done.search.checkpoint}", *flags) == 0
    folder = new("darts-1")
    kept = content(folder)["lightning_nas"]["settings"]["trainer"]
    assert kept["max_epochs"] == 4
    assert kept.get("precision") in (None, "32-true")
    assert column(folder, "val/supernet_loss").keys() == {3}


@pytest.mark.parametrize(
    ("setting", "value", "group"),
    [("lr", 0.5, "initial_lr"), ("momentum", 0.5, "momentum"), ("weight_decay", 0.1, "weight_decay")],
)
def test_the_optimizer_of_the_new_checkpoint_has_what_changed(setting, value, group, done):
    more = [f"--model.optimizer.{setting}={value}", "--trainer.max_epochs=3"]
    assert run("fit", f"--ckpt_path={done.search.checkpoint}", *more) == 0
    weights = content(new("darts-1"))["optimizer_states"][0]["param_groups"][0]
    expected = {"initial_lr": 0.025, "momentum": 0.9, "weight_decay": 3e-4} | {group: value}
    assert {name: weights[name] for name in expected} == expected
    assert content(new("darts-1"))["hyper_parameters"]["optimizer"]["init_args"][setting] == value


def test_settings_in_which_the_checkpoint_wins_over_a_file_are_said_in_one_line(done, capsys):
    assert run("fit", "--config", "darts/quickstart.yaml", f"--ckpt_path={done.search.checkpoint}") == 0
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("from the checkpoint")]
    assert line.startswith("from the checkpoint, which wins over files and not over flags: ")
    for said in (
        "model.network.channels 2 (not 4)",
        "trainer.max_epochs 2 (not 6)",
        "trainer.check_val_every_n_epoch 1 (not 2)",
    ):
        assert said in line
    assert "lr" not in line  # the same in both
    assert "DARTS" not in line


def test_the_next_command_is_the_last_line_names_the_first_runs_configuration_and_runs(done, capsys):
    assert run("fit", f"--ckpt_path={done.search.checkpoint}", "--trainer.max_epochs=3") == 0
    *_, last = capsys.readouterr().out.splitlines()
    python, dash, package, *command = shlex.split(last)
    assert (python, dash, package) == ("python", "-m", "lightning_nas")
    assert command[:3] == ["fit", "--config", "darts/quickstart_retrain.yaml"]
    assert str(new("darts-1").architecture) in command
    assert run(*command, *NETWORK, "--trainer.max_epochs=1", "--trainer.limit_train_batches=1") == 0
    assert new("retrain-1").checkpoint.exists()


@pytest.mark.parametrize(("kind", "name"), [("search", "darts-1"), ("retraining", "retrain-1")])
def test_a_run_that_is_complete_says_so_and_writes_what_it_found(kind, name, done, capsys):
    before = getattr(done, kind)
    assert run("fit", f"--ckpt_path={before.checkpoint}") == 0
    said = capsys.readouterr()
    assert "trainer.max_epochs" in said.err + said.out
    *_, last = said.out.splitlines()
    assert shlex.split(last)[3] == {"search": "fit", "retraining": "test"}[kind]
    assert new(name).architecture.read_bytes() == before.architecture.read_bytes()


# -- what is refused ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--model.network.channels=4"], "model.network.channels: 2 in the checkpoint, 4 now"),
        (["--model.network.auxiliary=true"], "model.network.auxiliary: not set in the checkpoint, True now"),
        (['--model.network={"channels": 2}'], "model.network.cells: 2 in the checkpoint, not set now"),
        (["--model.space.nodes=3"], "model.space.nodes: 2 in the checkpoint, 3 now"),
        (["--model.space=ENASMicro"], "model.space: DARTSCell in the checkpoint, ENASMicro now"),
        (["--model=RandomSearchWS"], "model: DARTS in the checkpoint, RandomSearchWS now"),
        (["--model.task=LanguageModeling"], "model.task: ImageClassification in the checkpoint, LanguageModeling now"),
        (["--model.optimizer=Adam"], "model.optimizer: SGD in the checkpoint, Adam now"),
        (["--model.seed=1"], "model.seed: 0 in the checkpoint, 1 now"),
        (["--data=PyDocs"], "data: Digits in the checkpoint, PyDocs now"),
        (["--data.batch_size=128"], "data.batch_size: 256 in the checkpoint, 128 now"),
        (["--data.architecture_share=0.25"], "data.architecture_share: 0.5 in the checkpoint, 0.25 now"),
        (["--data.split_seed=1"], "data.split_seed: 0 in the checkpoint, 1 now"),
    ],
)
def test_what_cannot_change_is_refused_by_name_and_nothing_is_written(flags, message, done, capsys, tmp_path):
    assert run("fit", f"--ckpt_path={done.search.checkpoint}", *flags) == 2
    assert one_line(capsys).startswith(message)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("config", "kind", "was", "now"),
    [
        ("darts/quickstart_retrain.yaml", "search", "DARTS", "Retrain"),
        ("enas/quickstart.yaml", "search", "DARTS", "ENAS"),
        ("darts/quickstart.yaml", "retraining", "Retrain", "DARTS"),
    ],
)
def test_a_configuration_of_another_method_is_refused(config, kind, was, now, done, capsys, tmp_path):
    checkpoint = getattr(done, kind).checkpoint
    assert run("fit", "--config", config, f"--ckpt_path={checkpoint}") == 2
    line = one_line(capsys)
    assert line.startswith(f"ckpt_path: {checkpoint} is of {was}, and the configuration of {now}")
    retraining_of_a_search = (kind, now) == ("search", "Retrain")
    assert (f"--model.architecture {done.search.architecture}" in line) == retraining_of_a_search
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("flag", ["--data=PyDocs", "--model.task=LanguageModeling"])
def test_text_for_networks_of_images_is_refused(flag, capsys, tmp_path):
    assert run("fit", "--config", "darts/quickstart.yaml", flag) == 2
    line = one_line(capsys)
    assert "text" in line
    assert "images" in line
    assert not list(tmp_path.iterdir())
