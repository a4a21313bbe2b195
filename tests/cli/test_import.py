"""A package of a user's own, by ``--import``, in every command, from the folder where it lies."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from lightning_nas.cli.main import main, without_imports
from lightning_nas.errors import SettingError

OWN_FOLDER = Path(__file__).parents[1] / "helpers" / "own_folder"
ROOT = Path(__file__).parents[2]
CHECKPOINT = "runs/mysearch-1/checkpoints/last.ckpt"
OPERATION = "runs/randomsearchws-1/checkpoints/last.ckpt"
COMMANDS = {
    "list": ["list"],
    "fit": ["fit", "--config", "search.yaml"],
    "fit in worker processes": ["fit", "--config=trials.yaml"],
    "fit of a retraining": ["fit", "--config", "retrain.yaml"],
    "continued": ["fit", "--ckpt_path", CHECKPOINT, "--config", "search.yaml", "--trainer.max_epochs=2"],
    "validate": ["validate", "--ckpt_path", CHECKPOINT],
    "derive": ["derive", "--ckpt_path", CHECKPOINT, "--n_random", "2"],
    "test": ["test", "--ckpt_path", "runs/retrain-1/checkpoints/last.ckpt"],
    "draw": ["draw", "runs/mysearch-1/architecture.json", "--out=cells.svg"],
    "profile": ["profile", "runs/mysearch-1/architecture.json", "--inputs.channels=1", "--latency_runs=0"],
    "fit with an operation": ["fit", "--config", "operation.yaml"],
    "derive with an operation": ["derive", "--ckpt_path", OPERATION, "--n_random", "2"],
    "draw an operation": ["draw", "runs/randomsearchws-1/architecture.json", "--out=operation.svg"],
    "study search": ["study", "search", "--config", "study.yaml"],
    "study random": [
        *("study", "random", "--search", "search.yaml", "--retrain", "retrain.yaml", "--seeds", "2"),
        *("--folder", "study"),
    ],
}
PROGRAM = """
import json, os, sys, traceback, contextlib, io
sys.path.insert(0, {root!r})
from lightning_nas.cli.main import main

if __name__ == "__main__":
    said = {{}}
    for name, argv in json.loads(sys.argv[1]).items():
        out = io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
            try:
                status = main(argv)
            except BaseException:
                status = traceback.format_exc()
        said[name] = [status, out.getvalue()]
    print(json.dumps(said))
"""


@pytest.fixture(scope="module")
def said(tmp_path_factory):
    """Exit status and words of every command, run one after the other in a folder with the user's package."""
    folder = tmp_path_factory.mktemp("own") / "work"
    shutil.copytree(OWN_FOLDER, folder)
    (folder / "program.py").write_text(PROGRAM.format(root=str(ROOT)))
    argv = {name: [argument[0], "--import", "my_package", *argument[1:]] for name, argument in COMMANDS.items()}
    argv |= {
        f"{name}, study": ["study", *argument[1:2], "--import=my_package", *argument[2:]]
        for name, argument in COMMANDS.items()
        if argument[0] == "study"
    }
    ran = subprocess.run(
        [sys.executable, "program.py", json.dumps(argv)],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "WANDB_MODE": "disabled"},
    )
    assert ran.returncode == 0, ran.stderr
    return json.loads(ran.stdout.splitlines()[-1]), folder


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_knows_the_package(name, said):
    status, words = said[0][name]
    assert status == 0, words


def test_what_the_commands_leave(said):
    outputs, folder = said
    assert all(name in outputs["list"][1] for name in ("TwoLayers", "Stripes", "MySearch", "LastFirst", "Wide"))
    assert "fit --config retrain.yaml" in outputs["fit"][1]
    assert outputs["fit"][1].rstrip().endswith("--import my_package")
    found = json.loads((folder / "runs/lastfirst-1/architecture.json").read_text())
    assert found["choices"] == {"first": "conv_3x3", "second": "conv_3x3"}
    assert len((folder / "runs/lastfirst-1/trials.jsonl").read_text().splitlines()) == 1 + 4
    assert (folder / "cells.svg").stat().st_size > 0
    assert "backwards" in outputs["study search"][1]


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["list", "--import"], "--import: the name of a package"),
        (["list", "--import="], "--import: the name of a package"),
        (["list", "--import", "no_such_package"], "--import: no_such_package cannot be imported (ModuleNotFoundError"),
        (["fit", "--import", "--config", "x.yaml"], "--import: the name of a package"),
    ],
)
def test_a_wrong_import_gets_one_line(argv, message, capsys):
    assert main(argv) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: {message}")
    assert error.count("\n") == 1


def test_without_import_the_error_names_it(said, capsys):
    _, folder = said
    for argv in (
        ["derive", "--ckpt_path", CHECKPOINT],
        ["draw", "runs/mysearch-1/architecture.json"],
        ["derive", "--ckpt_path", OPERATION],
        ["draw", "runs/randomsearchws-1/architecture.json"],
    ):
        argv = [part.replace("runs/", f"{folder}/runs/") for part in argv]
        assert main(argv) == 2
        error = capsys.readouterr().err
        assert "--import" in error
        assert error.count("\n") == 1
        assert ("my_conv" in error) == ("randomsearchws" in argv[-1])


def test_packages_are_taken_out_of_the_arguments(monkeypatch):
    monkeypatch.delenv("LIGHTNING_NAS_IMPORT", raising=False)
    assert without_imports(["fit", "--import", "a", "--import=b.c", "--x"]) == (["fit", "--x"], ["a", "b.c"])
    monkeypatch.setenv("LIGHTNING_NAS_IMPORT", "a b")
    assert without_imports(["fit"]) == (["fit"], ["a", "b"])  # a process that the first one started
    with pytest.raises(SettingError):
        without_imports(["fit", "--import"])
