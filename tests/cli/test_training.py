"""The command line as a user types it, interruptions included."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml

from lightning_nas.cli.main import main
from lightning_nas.files import config_folder

QUIET = ["--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false"]
TINY = ["--model.space.nodes=2", "--model.network.channels=2", "--model.network.cells=2", "--data.batch_size=128"]
CONFIGS = sorted(
    str(path.relative_to(config_folder()))
    for path in config_folder().rglob("*.yaml")
    if path.stem not in ("study", "fidelities") and path.parent.name != "own"  # those have no architecture to train
)


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def run(*argv):
    return main([*argv, *QUIET])


@pytest.fixture(scope="module")
def searched(tmp_path_factory):
    """A finished search, a retraining of its architecture, and the folder with both."""
    folder = tmp_path_factory.mktemp("runs")
    root = f"--trainer.default_root_dir={folder}"
    small = [*TINY, "--trainer.max_epochs=2", "--architecture_logger.n_random=2"]
    assert run("fit", "--config", "darts/quickstart.yaml", *small, root) == 0
    architecture = folder / "darts-1" / "architecture.json"
    retrain = ["--model.network.channels=2", "--trainer.max_epochs=1", f"--model.architecture={architecture}"]
    assert run("fit", "--config", "darts/quickstart_retrain.yaml", *retrain, root) == 0
    return folder


def test_what_a_search_leaves(searched):
    folder = searched / "darts-1"
    for name in ("architecture.json", "architecture.svg", "weights.svg", "random.svg", "random.csv", "config.yaml"):
        assert (folder / name).stat().st_size > 0
    assert len((folder / "architectures.csv").read_text().splitlines()) == 1 + 2
    assert len((folder / "random.csv").read_text().splitlines()) == 1 + 1 + 2
    assert "val/supernet_accuracy" in (folder / "metrics.csv").read_text().splitlines()[0]


def test_derive_gives_the_same_architecture(searched, tmp_path):
    checkpoint = searched / "darts-1" / "checkpoints" / "last.ckpt"
    assert run("derive", f"--ckpt_path={checkpoint}", "--n_random=2", f"--folder={tmp_path / 'out'}") == 0
    derived = (tmp_path / "out" / "architecture.json").read_bytes()
    assert derived == (searched / "darts-1" / "architecture.json").read_bytes()


def test_test_needs_the_checkpoint_alone(searched, tmp_path, capsys):
    assert run("test", f"--ckpt_path={searched / 'retrain-1' / 'checkpoints' / 'last.ckpt'}") == 0
    header, row = (tmp_path / "runs" / "retrain-1" / "metrics.csv").read_text().splitlines()
    figures = dict(zip(header.split(","), row.split(","), strict=True))
    assert 0 < float(figures["test/accuracy"]) < 1
    content = torch.load(searched / "retrain-1" / "checkpoints" / "last.ckpt", weights_only=True)
    buffers = ("running_mean", "running_var", "num_batches_tracked")
    network = {k: v for k, v in content["state_dict"].items() if k.startswith("network.") and not k.endswith(buffers)}
    assert float(figures["n_params"]) == sum(weight.numel() for weight in network.values())


def test_flags_win_over_the_checkpoint_and_it_over_the_configuration(searched, tmp_path):
    checkpoint = searched / "darts-1" / "checkpoints" / "last.ckpt"
    more = ["--model.optimizer.lr=0.5", "--trainer.max_epochs=3", "--architecture_logger.n_random=0"]
    # the configuration says 4 channels, the checkpoint 2
    assert run("fit", "--config", "darts/quickstart.yaml", f"--ckpt_path={checkpoint}", *more) == 0
    content = torch.load(tmp_path / "runs" / "darts-1" / "checkpoints" / "last.ckpt", weights_only=True)
    assert content["hyper_parameters"]["optimizer"]["init_args"]["lr"] == 0.5
    assert content["hyper_parameters"]["network"] == {"channels": 2, "cells": 2}


def small(settings):
    """What makes the network and the data of a configuration small."""
    if "evaluator" in settings:
        network = [f"--model.evaluator.init_args.network.{name}=4" for name in ("channels", "cells")]
        if "measure" in settings["evaluator"]["init_args"]:
            return [*network, "--model.n_trials=3"]
        few = ["trainer.accelerator=cpu", "trainer.limit_train_batches=2", "trainer.limit_val_batches=2"]
        if not any(
            name in str(settings["strategy"]) for name in ("ASHA", "Hyperband")
        ):  # which say the epochs themselves
            few.append("epochs=1")
        few = [f"--model.evaluator.init_args.{setting}" for setting in few]
        return [*network, *few, "--data=Digits", "--data.image_size=32"]
    network = settings["network"]
    if "hidden" in network:
        return ["--model.network.hidden=4", "--data=PyDocs", "--data.max_vocabulary=20"]
    least = {"channels": 4, "cells": 3, "layers": 1}
    flags = [f"--model.network.{name}={least[name]}" for name in network if name in least]
    flags += ["--data=Digits", "--data.batch_size=16"]
    if settings.get("bins"):  # those of larger images
        flags.append("--model.bins=null")
    return [*flags, "--data.image_size=32"] if network.get("auxiliary") else flags


@pytest.mark.parametrize("config", CONFIGS)
def test_every_configuration_runs(config):
    settings = yaml.safe_load((config_folder() / config).read_text())["model"]["init_args"]
    # two batches: one of each phase where there are two
    flags = [*small(settings), "--trainer.fast_dev_run=2"]
    if "evaluator" not in settings:  # trials have their own
        flags.append("--trainer.accelerator=cpu")
    assert run("fit", "--config", config, *flags) == 0


@pytest.mark.parametrize(
    ("flags", "field", "accepted"),
    [
        (["--model.space=DARTSCel"], "model.space", "DARTSCell"),
        (["--model=DART"], "model", "DARTS"),
        (["--data=Digit"], "data", "Digits"),
        (["--model.optimizer.lr=abc"], "model.optimizer.lr", "float"),
        (["--model.optimizer.lr=-1"], "model.optimizer.lr", "0 or more"),
        (["--model.optimizer=SGDD"], "model.optimizer", "SGD"),
        (["--model.optimiser=1"], "optimiser", "optimizer"),
        (["--model.optimizer.rate=1"], "rate", "momentum"),
        (["--model.order=third"], "model.order", "finite_difference"),
        (["--model.space.nodes=99"], "model.space.nodes", "between 1 and 16"),
        (["--model.network.channels=x"], "model.network.channels", "int"),
        (["--model.network.channels=5"], "model.network.channels", "even"),
        (["--model.network.chans=5"], "model.network.chans", "channels"),
        (["--model.network.auxiliary=true"], "model.network.auxiliary", "8×8"),
        (["--data.batch_size=100000"], "data.batch_size", "719"),
        (["--data.image_size=4"], "data.image_size", "at least 8"),
        (["--trainer.max_epochs=q"], "trainer.max_epochs", "int"),
        (["--trainer.gradient_clip_val=3"], "trainer.gradient_clip_val", "model.optimizer.clip"),
        (["--nods=3"], "--nods", ""),
        (["--config=none.yaml"], "--config", "darts/quickstart.yaml"),
        (["--ckpt_path=none.ckpt"], "ckpt_path", "no file"),
    ],
)
def test_a_wrong_setting_gets_one_line(flags, field, accepted, capsys, tmp_path):
    status = run("fit", "--config", "darts/quickstart.yaml", "--trainer.fast_dev_run=true", *flags)
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert status == 2
    assert field in line
    assert accepted in line
    assert not list(tmp_path.iterdir())  # nothing half-written


@pytest.mark.parametrize("callback", ["EMAWeightAveraging", "LearningRateMonitor"])
def test_a_single_callback_needs_no_list(callback, tmp_path):
    small = ["--model.network.channels=2", "--model.network.cells=2", "--trainer.max_epochs=1"]
    few = ["--trainer.limit_train_batches=1", f"--trainer.callbacks={callback}"]
    assert run("fit", "--config", "darts/quickstart_retrain", *small, *few) == 0
    assert (tmp_path / "runs" / "retrain-1" / "checkpoints" / "last.ckpt").exists()


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", b"PK\x03\x04 cut off"])
def test_a_damaged_checkpoint_is_named(content, capsys, tmp_path):
    (tmp_path / "damaged.ckpt").write_bytes(content)
    assert run("fit", "--config", "darts/quickstart.yaml", "--ckpt_path=damaged.ckpt") == 2
    assert "damaged.ckpt is not a checkpoint that can be read" in capsys.readouterr().err


def test_a_checkpoint_cannot_name_foreign_classes(searched, capsys, tmp_path):
    content = torch.load(searched / "darts-1" / "checkpoints" / "last.ckpt", weights_only=True)
    content["hyper_parameters"]["task"] = {"class_path": "os.system", "init_args": {}}
    torch.save(content, tmp_path / "hostile.ckpt")
    assert run("derive", "--ckpt_path=hostile.ckpt") == 2
    assert "os.system" in capsys.readouterr().err


@pytest.mark.parametrize(("command", "kind"), [("test", "darts"), ("derive", "retrain")])
def test_a_command_for_the_other_kind_of_checkpoint(command, kind, searched, capsys, tmp_path):
    assert run(command, f"--ckpt_path={searched / f'{kind}-1' / 'checkpoints' / 'last.ckpt'}") == 2
    assert "search" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.slow  # four processes
def test_interrupted_and_resumed_on_the_command_line(tmp_path):
    """Ctrl-C leaves 130, SIGTERM 143, and going on twice ends where an uninterrupted run does."""
    command = [sys.executable, "-m", "lightning_nas", "fit", "--config", "darts/quickstart.yaml", *TINY, *QUIET]
    command += ["--trainer.max_epochs=8", "--architecture_logger.n_random=0", "--architecture_logger.every_n_epochs=0"]
    package = str(Path(__file__).parents[2])
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": package}

    def start(*more):
        options = {"env": environment, "cwd": tmp_path, "stderr": subprocess.PIPE, "text": True}
        return subprocess.Popen([*command, *more], start_new_session=True, **options)

    def interrupted(number, status, run_name, *more):
        process = start(*more)
        table = tmp_path / "runs" / run_name / "architectures.csv"
        while not table.exists() or len(table.read_text().splitlines()) < 3:
            assert process.poll() is None, process.stderr.read()
            time.sleep(0.02)
        if number == signal.SIGINT:  # as a terminal does, to the workers too
            os.killpg(process.pid, number)
        else:
            process.send_signal(number)
        errors = process.communicate(timeout=60)[1]
        assert process.returncode == status, errors
        assert errors.count("Stopping after this step") == (number == signal.SIGINT)
        return tmp_path / "runs" / run_name / "checkpoints" / "last.ckpt"

    first = interrupted(signal.SIGTERM, 143, "darts-1")
    second = interrupted(signal.SIGINT, 130, "darts-2", f"--ckpt_path={first}", "--data.num_workers=2")
    for more in ([f"--ckpt_path={second}"], []):
        process = start(*more)
        errors = process.communicate(timeout=120)[1]
        assert process.returncode == 0, errors
    resumed, whole = (
        torch.load(tmp_path / "runs" / f"darts-{k}" / "checkpoints" / "last.ckpt", weights_only=True) for k in (3, 4)
    )
    assert resumed["epoch"] == whole["epoch"] == 7
    for name, value in whole["state_dict"].items():
        assert torch.equal(value, resumed["state_dict"][name]), name


def test_trials_of_a_packaged_configuration_continue(tmp_path):
    few = [
        "--model.evaluator.init_args.trainer.limit_train_batches=1",
        "--model.evaluator.init_args.trainer.limit_val_batches=1",
    ]
    assert run("fit", "--config", "asha/quickstart.yaml", "--model.n_trials=2", *few) == 0
    assert (
        run("fit", f"--ckpt_path={tmp_path / 'runs' / 'asha-1' / 'checkpoints' / 'last.ckpt'}", "--model.n_trials=3")
        == 0
    )
    assert len((tmp_path / "runs" / "asha-2" / "trials.jsonl").read_text().splitlines()) == 1 + 3


@pytest.mark.parametrize(
    ("config", "flags", "message"),
    [
        (
            "spos/quickstart.yaml",
            ["--model.limit=multiply_adds <= 1"],
            "model.limit: no architecture of ShuffleBlocks keeps",
        ),
        ("enas/quickstart_retrain.yaml", ["--model.initial=none.ckpt"], "model.initial: there is no file none.ckpt"),
        (
            "enas/quickstart_retrain.yaml",
            ["--model.task=Distillation", "--model.task.teacher=none.ckpt"],
            "model.task.teacher: there is no file none.ckpt",
        ),
    ],
)
def test_what_other_files_and_limits_say_is_refused_before_there_is_a_folder(config, flags, message, tmp_path, capsys):
    assert run("fit", "--config", config, *flags) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()
