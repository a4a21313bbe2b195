"""The public names at the root."""

import configparser
import subprocess
import sys
from pathlib import Path

import pytest

import lightning_nas
from lightning_nas.catalogue import KINDS, kind_of
from lightning_nas.files import find_config, packaged_configs
from lightning_nas.specs import Configurable, class_path, concrete, find_class
from tests.helpers.stub import PATH, stub

ROOT = Path(__file__).parent.parent


@pytest.mark.parametrize("name", lightning_nas.PUBLIC)
def test_a_public_name_is_what_its_file_defines(name):
    found = getattr(lightning_nas, name)
    if isinstance(found, type):
        assert found.__module__ == f"lightning_nas.{lightning_nas.PUBLIC[name]}"
        assert class_path(found) == f"lightning_nas.{name}"


def test_names_that_are_not_there():
    with pytest.raises(AttributeError, match="no attribute 'Darts'"):
        lightning_nas.Darts  # noqa: B018
    assert "DARTS" in dir(lightning_nas)
    assert find_class("lightning_nas.os", Configurable) is None
    assert find_class(["lightning_nas.DARTS"], Configurable) is None


def test_type_checkers_know_the_public_names():
    assert PATH.read_text(encoding="utf-8") == stub(), "run python -m tests.helpers.stub"


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.field)
def test_every_class_of_a_kind_is_public(kind):
    ours = [cls for cls in concrete(kind.base) if cls.__module__.startswith("lightning_nas.")]
    assert ours
    assert {cls.__name__ for cls in ours} <= set(lightning_nas.PUBLIC)


@pytest.mark.parametrize(
    ("field", "base"),
    [("model.optimizer", "Optimizer"), ("alphas_optimizer", "Optimizer"), ("model.optimizer.schedule", "LRSchedule")],
)
def test_the_kind_of_a_setting(field, base):
    assert kind_of(field).base.__name__ == base
    assert kind_of("model.network") is None


def test_importing_the_package_imports_nothing_heavy():
    program = (
        "import sys, lightning_nas; print([name for name in ('torch', 'lightning', 'yaml') if name in sys.modules])"
    )
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert ran.stdout == "[]\n"


@pytest.mark.parametrize(
    ("typed", "found"),
    [
        ("darts", "darts/search.yaml"),
        ("enas.yaml", "enas/search.yaml"),
        ("configs/enas.yaml", "enas/search.yaml"),
        ("darts/quickstart", "darts/quickstart.yaml"),
        ("policy_gradient", "policy_gradient/quickstart.yaml"),
    ],
)
def test_a_paper_names_its_search(typed, found, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert find_config(typed).endswith(found)
    assert found in packaged_configs()


def test_every_room_is_in_the_wheel():
    """A folder that the list leaves out is missing from an installed package alone."""
    listed = configparser.ConfigParser()
    listed.read(ROOT / "setup.cfg")
    packages = set(listed["options"]["packages"].split())
    rooms = {path.parent.relative_to(ROOT) for path in (ROOT / "lightning_nas").rglob("__init__.py")}
    assert {".".join(room.parts) for room in rooms} == packages - {"lightning_nas.configs"}
