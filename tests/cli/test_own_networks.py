"""A network of a user's own where a space is asked for, from the command line and in files."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml

from lightning_nas.cli.main import main
from lightning_nas.cli.own_networks import with_own_networks

ROOT = Path(__file__).parents[2]
NET = "a_users_networks.Net"
PACKAGE = '''
from torch import nn
from lightning_nas import InputChoice, LayerChoice, ValueChoice


def build():
    return Net()


class Net(nn.Module):
    """The example of the README, for digits."""

    def __init__(self, width: int = 6, num_classes: int = 10):
        super().__init__()
        self.conv1 = LayerChoice([nn.Conv2d(1, width, 3, padding=1), nn.Conv2d(1, width, 5, padding=2)])
        self.conv2 = LayerChoice({"conv": nn.Conv2d(width, width, 3, padding=1), "pool": nn.MaxPool2d(3, 1, 1)})
        self.skip = InputChoice(n_candidates=2)
        self.classify = nn.Linear(width, num_classes)

    def forward(self, x):
        first = self.conv1(x).relu()
        second = self.conv2(first)
        return self.classify(self.skip([second, first + second]).relu().mean((2, 3)))


class Needs(Net):
    def __init__(self, depth):
        super().__init__()


class Shapes(Net):
    def __init__(self):
        super().__init__()
        self.conv1 = LayerChoice([nn.Conv2d(1, 6, 3, padding=1), nn.Conv2d(1, 6, 5)])


class Skips(Net):
    def forward(self, x):
        return self.classify(self.conv1(x).mean((2, 3)))


class Colour(Net):
    def forward(self, x):
        return super().forward(x.expand(-1, 3, -1, -1))


class Plain(nn.Module):
    pass


class Fixed(nn.Module):
    """A value that the constructor looks at, so that in the network of a search nothing depends on it."""

    def __init__(self, num_classes=10):
        super().__init__()
        many = ValueChoice([1, 2], "many") > 1
        self.convs = nn.Sequential(*[nn.Conv2d(1, 1, 3, padding=1) for _ in range(1 + many)])
        self.act = LayerChoice([nn.ReLU(), nn.GELU()])
        self.classify = nn.Linear(1, num_classes)

    def forward(self, x):
        return self.classify(self.act(self.convs(x)).mean((2, 3)))
'''
QUIET = ["--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false", "--trainer.accelerator=cpu"]
FEW = [*QUIET, "--trainer.max_epochs=1", "--trainer.limit_train_batches=4", "--data.batch_size=128"]
SEARCH = [*FEW, "--trainer.limit_val_batches=1", "--architecture_logger.n_random=2"]
TRIALS = [
    "--trainer.enable_progress_bar=false",
    "--model.n_trials=3",
    "--model.evaluator.epochs=1",
    "--model.evaluator.trainer.accelerator=cpu",
]


@pytest.fixture(autouse=True)
def in_a_folder_with_the_package(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("LIGHTNING_NAS_IMPORT", "")
    (tmp_path / "a_users_networks.py").write_text(PACKAGE)


def found(folder):
    return json.loads(Path("runs", folder, "architecture.json").read_text())


# -- the translation -------------------------------------------------------------------------------------------------


def spec(arguments):
    return {"class_path": "lightning_nas.OwnSpace", "init_args": {"network": NET, "arguments": arguments}}


@pytest.mark.parametrize(
    ("flags", "expected", "at"),
    [
        (["--model.space", NET], ["--model.space", {}], 1),
        ([f"--model.space={NET}"], ["--model.space=", {}], 0),
        (["--model.init_args.space.class_path", NET], ["--model.init_args.space.class_path", {}], 1),
        (["--model.space", f"{{class_path: {NET}, init_args: {{width: 4}}}}"], ["--model.space", {"width": 4}], 1),
        (
            ["--model.space.width", "4", "--model.space", NET, "--model.seed", "-1", "--x", ""],
            ["--model.space.arguments.width", "4", "--model.space", {}, "--model.seed", "-1", "--x", ""],
            3,
        ),
        (
            ["--space", NET, "--space.init_args.width=4", "--space.arguments.width=5"],
            ["--space", {}, "--space.arguments.width=4", "--space.arguments.width=5"],
            1,
        ),
        (["--model", f"{{init_args: {{space: {NET}}}}}"], ["--model", {}], 1),
    ],
)
def test_a_flag_that_names_a_network(flags, expected, at):
    command, *translated = with_own_networks(["fit", *flags])
    assert command == "fit"
    flag, equals, value = translated[at].partition("=") if at == 0 else ("", "", translated[at])
    content = yaml.safe_load(value)
    assert content.get("init_args", {}).get("space", content) == spec(expected.pop(at or -1))
    assert [*translated[:at], *([flag + equals] if at == 0 else []), *translated[at + 1 :]] == expected


def test_a_file_that_names_a_network():
    def translated(content, *flags):
        Path("search.yaml").write_text(content)
        return with_own_networks(["fit", "--config", "search.yaml", *flags])

    kept = "model: {class_path: DARTS, init_args: {space: DARTSCell, network: {cells: 3}}}\n"
    assert translated(kept) == ["fit", "--config", "search.yaml"]  # nothing to translate: the parser reads the file

    text = translated(
        f"model:\n  class_path: DARTS\n  init_args:\n    lr: 1e-3\n    space: {NET}\ntrainer: {{x: '1'}}"
    )[2]
    assert yaml.safe_load(text)["model"]["init_args"] == {"lr": "1e-3", "space": spec({})}
    assert "lr: 1e-3" in text  # a number for the parser, as in the file
    assert "'1'" in text

    # a network in the place of the file's space takes the settings of that space's networks away
    evaluator = "{class_path: FromScratch, init_args: {epochs: 2, network: {cells: 3}}}"
    of_trials = f"model: {{init_args: {{space: DARTSCell, evaluator: {evaluator}}}}}"
    for content in (kept, of_trials):
        text = translated(content, "--model.space", NET)[2]
        assert "cells" not in text
        assert "DARTSCell" not in text
    assert yaml.safe_load(text)["model"]["init_args"]["evaluator"]["init_args"] == {"epochs": 2}

    other = translated(f"space: {NET}", "--space", "NASBench201", "--space.width", "4")
    assert other[3:] == ["--space", "NASBench201", "--space.width", "4"]  # another space, which has to know its width


def test_files_of_architectures_import_nothing():
    Path("evil.py").write_text("raise SystemExit('imported')\nclass Net: pass")
    network = {"class_path": "evil.Net", "init_args": {}}
    for given in ("evil.Net", network):
        content = {
            "format": "lightning_nas/architecture/1",
            "space": {"name": "OwnSpace", "arguments": {"network": given}},
            "choices": {},
            "metrics": {},
            "method": "",
            "seed": None,
            "versions": {},
        }
        Path("architecture.json").write_text(json.dumps(content))
        for command in (["draw", "architecture.json"], ["fit", "--config", "own/retrain.yaml"]):
            flags = [] if command[0] == "draw" else ["--model.architecture", "architecture.json", *FEW]
            assert main([*command, *flags]) == 2
    assert "evil" not in sys.modules


# -- searches --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("config", "folder", "flags"),
    [
        ("darts/quickstart.yaml", "darts-1", SEARCH),
        ("snas/quickstart.yaml", "snas-1", [*SEARCH, "--model.cost=null"]),
        ("gdas/quickstart.yaml", "gdas-1", [*SEARCH, "--data=Digits"]),
        ("enas/quickstart.yaml", "enas-1", SEARCH),
        ("random_search_ws/quickstart.yaml", "randomsearchws-1", SEARCH),
        ("spos/quickstart.yaml", "spos-1", [*SEARCH, "--model.rounds=1", "--model.n_batches=1"]),
        ("aging_evolution/quickstart.yaml", "agingevolution-1", TRIALS),
        ("random_search/quickstart.yaml", "randomsearch-1", TRIALS),
        ("nsga2/quickstart.yaml", "nsga2-1", [*TRIALS, "--model.strategy.population=4"]),
    ],
)
def test_the_example_is_searched(config, folder, flags, capsys):
    assert main(["fit", "--config", config, "--model.space", NET, "--model.space.width=4", *flags]) == 0
    content = found(folder)
    assert content["space"] == {"name": "OwnSpace", "arguments": {"network": NET, "arguments": {"width": 4}}}
    assert content["choices"].keys() == {"conv1", "conv2", "skip"}
    said = capsys.readouterr().out
    assert "fit --config own/retrain.yaml --model.architecture" in said
    assert said.rstrip().endswith("--import a_users_networks")


def test_what_is_found_is_retrained_tested_drawn_and_profiled(capsys):
    assert main(["fit", "--config", "darts/quickstart.yaml", "--model.space", NET, *SEARCH]) == 0
    imported, named = ["--import", "a_users_networks"], "runs/darts-1/architecture.json"
    found_first = found("darts-1")
    assert main(["fit", "--config", "own/retrain.yaml", "--model.architecture", named, *imported, *FEW]) == 0
    assert main(["test", "--ckpt_path", "runs/retrain-1/checkpoints/last.ckpt", *imported, *QUIET]) == 0
    checkpoint = ["--ckpt_path", "runs/darts-1/checkpoints/last.ckpt"]
    assert main(["derive", *checkpoint, "--n_random=1", *imported, *QUIET]) == 0
    assert found("darts-2")["choices"] == found_first["choices"]
    assert main(["fit", *checkpoint, "--trainer.max_epochs=2", *imported, *QUIET]) == 0
    assert torch.load("runs/darts-3/checkpoints/last.ckpt", weights_only=True)["epoch"] == 1
    assert main(["draw", named, *imported]) == 0
    capsys.readouterr()
    assert main(["profile", named, *imported, "--inputs.channels=1", "--latency_runs=0"]) == 0
    conv = 6 * 6 * 9 + 6 if found_first["choices"]["conv2"] == "conv" else 0
    n_params = 6 * {"0": 9, "1": 25}[found_first["choices"]["conv1"]] + 6 + conv + 6 * 10 + 10
    assert f"parameters  {n_params:>11,}" in capsys.readouterr().out

    # a process that has not imported it says what to type
    for command in (["draw", named], ["test", "--ckpt_path", "runs/retrain-1/checkpoints/last.ckpt"]):
        ran = subprocess.run(
            [sys.executable, "-m", "lightning_nas", *command],
            capture_output=True,
            text=True,
            check=False,
            env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"},
        )
        assert ran.returncode == 2, ran.stderr
        assert ran.stderr.splitlines()[-1].endswith("imported; --import a_users_networks")


@pytest.mark.slow
def test_a_configuration_of_the_users_own_and_worker_processes():
    model = f"""
model:
  class_path: TrialSearch
  init_args:
    space: {{class_path: {NET}, init_args: {{width: 3}}}}
    strategy: RandomSearch
    evaluator: {{class_path: FromScratch, init_args: {{task: ImageClassification, epochs: 1}}}}
    executor: {{class_path: Processes, init_args: {{n_workers: 2}}}}
    n_trials: 2
    round_size: 2
data: Digits
trainer: {{max_epochs: 1, enable_progress_bar: false}}
"""
    Path("search.yaml").write_text(model)
    assert main(["fit", "--config", "search.yaml", "--model.space.width", "5"]) == 0
    content = found("randomsearch-1")
    assert content["space"]["arguments"]["arguments"] == {"width": 5}
    trials = [json.loads(line) for line in Path("runs/randomsearch-1/trials.jsonl").read_text().splitlines()[1:]]
    assert [trial["status"] for trial in trials] == ["done", "done"]
    # what a run has written down can be run again
    assert main(["fit", "--config", "runs/randomsearch-1/config.yaml", "--model.n_trials=1"]) == 0
    assert found("randomsearch-2")["space"] == content["space"]


def test_a_study_of_strategies(capsys):
    strategies = "strategies: {random: RandomSearch, evolution: AgingEvolution}\nn_trials: 4\nseeds: 2\n"
    Path("study.yaml").write_text(
        f"space: {NET}\nevaluator: {{class_path: ZeroCost, init_args: {{measure: SynFlow, "
        f"inputs: {{channels: 1, image_size: 8}}}}}}\n{strategies}"
    )
    assert main(["study", "search", "--config", "study.yaml", "--space.width=3", "--processes=2"]) == 0
    assert "evolution" in capsys.readouterr().out


def test_help_and_list(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["fit", "--model.space.help", NET])
    assert ended.value.code == 0
    assert "--model.space.width WIDTH" in capsys.readouterr().out
    assert main(["list"]) == 0
    said = capsys.readouterr().out
    assert "OwnSpace" in said
    assert "my_package.Net" in said


# -- what is refused -------------------------------------------------------------------------------------------------

DARTS = ["fit", "--config", "darts/quickstart.yaml", *QUIET]
ENAS = ["fit", "--config", "enas/quickstart.yaml", *QUIET]
TRIAL = ["fit", "--config", "random_search/quickstart.yaml"]


@pytest.mark.parametrize(
    ("command", "space", "message"),
    [
        (DARTS, "no_such_package.Net", "model.space: there is no module no_such_package, of no_such_package.Net"),
        (DARTS, "broken_networks.Net", "model.space: broken_networks cannot be imported (SyntaxError: "),
        (
            DARTS,
            "a_users_networks.Nett",
            "model.space: a_users_networks has no Nett; its classes are Colour, Fixed, Nee",
        ),
        (
            DARTS,
            "a_users_networks.build",
            "model.space: a_users_networks.build is a function; expected the class of an",
        ),
        (DARTS, "collections.Counter", "model.space: collections.Counter is a class; expected the class of an nn.Modu"),
        (DARTS, "torch.nn.Linear", "model.space.network: a class of your own, got torch.nn.modules.linear.Linear"),
        (DARTS, "Net", "model.space: no such class; there are "),
        (
            DARTS,
            "a_users_networks.Plain",
            "model.space.network: there is no choice in Plain; put a LayerChoice into it",
        ),
        (DARTS, "a_users_networks.Needs", "model.space.arguments.depth: Needs needs it, and no data say it"),
        (
            DARTS,
            "a_users_networks.Shapes",
            "model.space.conv1: options that put out the same shapes, got (2, 6, 8, 8) ",
        ),
        (DARTS, "a_users_networks.Skips", "model.space: conv2, skip has no part in the forward pass of Skips"),
        (ENAS, "a_users_networks.Fixed", "many: a constructor decides by it, with another answer for each number"),
        (
            DARTS,
            "a_users_networks.Colour",
            "model.space: Colour cannot run on an example of shape (2, 1, 8, 8): Given gro",
        ),
        (
            DARTS,
            f"{NET} --model.space.widht=4",
            "model.space.arguments.widht: Net has no such argument; there are width",
        ),
        (DARTS, f"{NET} --model.space.width=wide", "model.space.arguments.width: expected int, got 'wide'"),
        (DARTS, f"{NET} --model.space.width=-1", "model.space.arguments: Net cannot be built with {'width': -1}: "),
        (
            DARTS,
            f"{NET} --model.space.num_classes=4",
            "model.space: the network puts out (2, 4) for two examples, and ",
        ),
        (DARTS, f"{NET} --model.network.cells=4", "model.network.cells: no such setting; there are none"),
        (
            TRIAL,
            f"{NET} --model.space.num_classes=4",
            "model.space: the network puts out (2, 4) for two examples, and ",
        ),
        (
            TRIAL,
            "a_users_networks.Colour",
            "model.space: Colour cannot run on an example of shape (2, 1, 8, 8): Given gro",
        ),
    ],
)
def test_a_wrong_network_gets_one_line(command, space, message, capsys):
    Path("broken_networks.py").write_text("class Net(:")
    assert main([*command, "--model.space", *space.split()]) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith(f"error: {message}")
    assert not Path("runs").exists()
