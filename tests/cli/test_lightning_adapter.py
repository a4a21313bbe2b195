"""The one place that knows the inside of ``LightningCLI``."""

import ast
import inspect
from importlib.metadata import version
from pathlib import Path

import pytest
from jsonargparse import Namespace
from lightning.pytorch.cli import LightningCLI

import lightning_nas
from lightning_nas.cli import lightning_adapter
from lightning_nas.cli.lightning_adapter import CHECKED, LightningAdapter, as_spec

PACKAGE = Path(lightning_nas.__file__).parent
OVERRIDDEN = {name for name in vars(LightningAdapter) if name in dir(LightningCLI) and not name.startswith("__")}


def test_the_version_is_the_one_that_was_checked():
    assert version("lightning") == CHECKED, "read LightningCLI's new source, then name its version in CHECKED"


@pytest.mark.parametrize("name", sorted(OVERRIDDEN))
def test_what_is_overridden_is_there_and_is_called(name):
    source = inspect.getsource(LightningCLI)
    assert f"def {name}(" in source
    assert f".{name}(" in source  # Lightning calls it itself


def test_private_names_are_used_in_the_adapter_alone():
    private = {name for name in dir(LightningCLI) if name.startswith("_") and not name.startswith("__")}
    assert {"_parse_ckpt_path", "_set_seed", "_get"} <= private
    for path in PACKAGE.rglob("*.py"):
        if path == Path(lightning_adapter.__file__):
            continue
        used = {node.attr for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Attribute)}
        assert not used & private, path


def test_a_spec_has_plain_values_and_the_paths_of_specs():
    sgd = Namespace(class_path="lightning_nas.training.optimizers.SGD", init_args=Namespace(lr=0.1, clip=None))
    given = Namespace(class_path="lightning_nas.methods.DARTS", init_args=Namespace(optimizer=sgd, betas=(0, 1)))
    assert as_spec(given) == {
        "class_path": "lightning_nas.DARTS",
        "init_args": {
            "optimizer": {"class_path": "lightning_nas.SGD", "init_args": {"lr": 0.1, "clip": None}},
            "betas": [0, 1],
        },
    }
